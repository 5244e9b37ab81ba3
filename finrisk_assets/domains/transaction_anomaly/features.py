"""The feature table of the transactions: the features of `catalogue` that a source has the columns for, one row per transaction."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES
from finrisk_assets.features import windows
from finrisk_assets.features.windows import LABELS, Declaration

if TYPE_CHECKING:
    import ibis.expr.types as ir


def select_features(columns: Iterable[str]) -> tuple[Declaration, ...]:
    """Return the declarations of `FEATURES` whose columns a source fills; a column that is null throughout is not filled."""
    return windows.select_available(FEATURES, columns)


def build(transactions: "ir.Table", features: Sequence[Declaration] | None = None) -> "ir.Table":
    """Return the features of every transaction with its keys and label, lazily.

    Parameters
    ----------
    transactions
        The ledger's validated transactions.
    features
        Declarations to compute; by default all that the table has columns for.

    Returns
    -------
    ibis.Table
        One row per transaction: keys, `LABELS`, then the features as float64, null where missing.
    """
    from finrisk_assets.features import batch

    declarations = select_features(transactions.columns) if features is None else features
    return batch.compute(transactions, declarations, carry=[name for name in LABELS if name in transactions.columns])
