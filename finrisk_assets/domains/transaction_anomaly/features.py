"""The feature table of the transactions: the features of `catalogue` that a source has the columns for, one row per transaction."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES
from finrisk_assets.features import windows
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.features.windows import LABELS, Declaration

if TYPE_CHECKING:
    import ibis.expr.types as ir


def select_features(columns: Iterable[str]) -> tuple[Declaration, ...]:
    """Return the declarations of `FEATURES` whose columns a source fills; a column that is null throughout is not filled."""
    return windows.select_available(FEATURES, columns)


def build(
    transactions: "ir.Table", features: Sequence[Declaration] | None = None, span: TimeSpan = ALL_TIMES, *, in_passes: bool = False
) -> "ir.Table":
    """Return the features of every transaction with its keys and label.

    Parameters
    ----------
    transactions
        The ledger's validated transactions.
    features
        Declarations to compute; by default all that the table has columns for.
    span
        The transactions to return.
    in_passes
        Whether they are computed at once by `features.passes.sorted_scan`, from a stored table, where the engine is DuckDB; else lazily.

    Returns
    -------
    ibis.Table
        One row per transaction: keys, `LABELS`, then the features as float64, null where missing.
    """
    from finrisk_assets.features import batch
    from finrisk_assets.features.passes import sorted_scan

    declarations = select_features(transactions.columns) if features is None else features
    compute = sorted_scan.compute if in_passes and sorted_scan.runs_on(transactions) else batch.compute
    return compute(transactions, declarations, [name for name in LABELS if name in transactions.columns], span)
