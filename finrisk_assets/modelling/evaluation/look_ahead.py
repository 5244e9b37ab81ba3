"""The look-ahead rule of the leakage linter: features that change when everything from the decision on is removed from the ledger.

`find_look_ahead` recomputes features from a ledger that is cut off at a time, `restrict_to_known` cuts one table. The rules that read a
feature table are in `leakage`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.features.compiled import FeatureBuilder, compile_features
from finrisk_assets.modelling.evaluation.leakage_evidence import LeakageFinding
from schemas.ledger import TABLES, Table

if TYPE_CHECKING:
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

SPAN_DAYS = 31
"""Days before the cut; `find_look_ahead` compares the rows decided within them, so that even a look ahead of one day shows."""


def find_look_ahead(
    build: FeatureBuilder,
    tables: Mapping[str, "LazyTable"],
    features: Sequence[str],
    *,
    key: str,
    decision_time: str,
    cut_times: Sequence[Any] = (),
    shares: Sequence[float] = (0.5, 0.9),
    before: Collection[str] = ("transactions",),
    contracts: Mapping[str, Table] = TABLES,
    sample: int = 300,
    seed: int = 0,
) -> list[LeakageFinding]:
    """Flag features that change when events at or after the decision are removed.

    The features are computed from the whole ledger, and again from the ledger as it was known at a cut (`restrict_to_known`). Rows decided
    within `SPAN_DAYS` days up to the cut must be equal in both; a row that differs has looked ahead. No distribution is assumed, so a false
    alarm is impossible; a look ahead that meets no event stays unseen. The computation runs in a DuckDB of its own in memory, whatever the
    engine of the tables.

    Parameters
    ----------
    build
        Pure function from tables by name to the feature table, such as `Domain.build_features` for one source.
    tables
        Inputs of `build`, as lazy Ibis tables.
    features, key, decision_time
        Columns of its output: the features, the row's key, and the time of decision.
    cut_times, shares
        The cuts. Without `cut_times`, the times at which these shares of the rows are decided.
    before
        Tables of which only events strictly before a cut are known at it. Of the others, an event at the cut itself is part of the
        decision (the loan applied for, the transaction under decision).
    contracts
        Declarations of `tables`; a table without one is passed on whole.
    sample, seed
        Number of customers to draw, and the seed; every table with ``customer_id`` is restricted to them. 0 takes all.

    Raises
    ------
    ValueError
        Where no row has a decision time, or no row is decided in the span.
    """
    import pandas as pd

    replayed = _FeatureReplay(build, _sample_customers(tables, sample, seed), (key, decision_time, *features))
    full = replayed.rows().set_index(key)
    dated = full[full[decision_time].notna()]
    if dated.empty:
        raise ValueError(f"no row says when it is decided ({decision_time}): a look ahead cannot be found. Choose rows with a time")
    cuts = [pd.Timestamp(time) for time in cut_times] or [
        dated[decision_time].sort_values().iloc[int(len(dated) * share)] for share in shares
    ]
    n_changed, n_compared = np.zeros(len(features)), 0
    for cut in dict.fromkeys(cuts):
        cut_rows = replayed.rows_with(partial(_restrict_table, known_at=cut, before=before, contracts=contracts))
        cut_rows = cut_rows[cut_rows[decision_time] <= cut].set_index(key)
        compared_rows = dated[(dated[decision_time] <= cut) & (dated[decision_time] > cut - pd.Timedelta(days=SPAN_DAYS))]
        compared_rows = compared_rows[compared_rows.index.isin(cut_rows.index)]
        full_values = _to_numbers(compared_rows[list(features)])
        cut_values = _to_numbers(cut_rows.loc[compared_rows.index, list(features)])
        n_changed += (~np.isclose(full_values, cut_values, rtol=1e-9, atol=1e-9, equal_nan=True)).sum(axis=0)
        n_compared += len(compared_rows)
    if not n_compared:
        raise ValueError(f"no row is decided in the {SPAN_DAYS} days up to any of the cuts. Choose other cuts")
    advice = "Let its window end before the decision, and delay outcomes until they are known"
    return [
        LeakageFinding(name, "look_ahead", count / n_compared, f"{int(count)} of {n_compared} rows change without later events", advice)
        for name, count in zip(features, n_changed.tolist(), strict=True)
        if count
    ]


def _to_numbers(values: "pd.DataFrame") -> NDArray[np.float64]:
    """Return features as numbers, with a hash in place of each text of a category."""
    texts = values.select_dtypes(exclude="number")
    hashed = {str(name): texts[name].map(lambda text: float(crc32(text.encode())), na_action="ignore") for name in texts}
    return values.assign(**hashed).to_numpy(dtype=np.float64, na_value=np.nan)


def _restrict_table(
    name: str, table: "LazyTable", *, known_at: Any, before: Collection[str], contracts: Mapping[str, Table]
) -> "LazyTable":
    return restrict_to_known(table, contracts[name], known_at, name in before) if name in contracts else table


class _FeatureReplay:
    """A feature table that is computed several times from changed tables."""

    def __init__(self, build: FeatureBuilder, tables: Mapping[str, "LazyTable"], columns: Sequence[str]) -> None:
        import ibis

        self._engine = ibis.duckdb.connect()
        self._names = tuple(tables)
        for name, table in tables.items():
            rows = table.to_pyarrow()
            self._engine.con.register(_full_name(name), rows)
            self._engine.con.register(name, rows)
        chosen = ", ".join(f'"{name}"' for name in columns)
        self._sql = f"SELECT {chosen} FROM ({compile_features(build, {name: self._engine.table(name).schema() for name in tables})})"

    def rows(self) -> "pd.DataFrame":
        """Return the columns, computed from the registered tables."""
        frame: pd.DataFrame = self._engine.con.execute(self._sql).to_arrow_table().to_pandas()
        return frame

    def rows_with(self, change: Callable[[str, "LazyTable"], "LazyTable"]) -> "pd.DataFrame":
        """Return the columns, computed from each original table after `change`."""
        for name in self._names:
            self._engine.con.register(name, change(name, self._engine.table(_full_name(name))).to_pyarrow())
        return self.rows()


def _full_name(name: str) -> str:
    return f"whole_{name}"


def restrict_to_known(table: "LazyTable", contract: Table, known_at: Any, is_strict: bool = False) -> "LazyTable":
    """Return a table as it was known at a time: later events are removed, and values of earlier events that became known later are null.

    Parameters
    ----------
    known_at
        A naive UTC timestamp.
    is_strict
        Whether events at exactly that time are removed too.
    """
    import ibis

    limit = ibis.literal(known_at).cast("timestamp(6)")

    def is_known(column: str) -> Any:
        time = table[column].cast("timestamp(6)")
        return time.isnull() | ((time < limit) if is_strict else (time <= limit))

    known_values = {
        column.name: ibis.ifelse(is_known(column.known), table[column.name], ibis.null(table[column.name].type()))
        for column in contract.columns
        if column.name in table.columns and column.known in table.columns and column.known != contract.event_time
    }
    known = table.mutate(**known_values)
    event_time = contract.event_time
    return known.filter(is_known(event_time)) if event_time is not None and event_time in table.columns else known


def _sample_customers(tables: Mapping[str, "LazyTable"], sample: int, seed: int) -> dict[str, "LazyTable"]:
    """Return the tables restricted to a random sample of customers."""
    customer_table = next((table for table in tables.values() if "customer_id" in table.columns), None)
    if not sample or customer_table is None:
        return dict(tables)
    customers = sorted(set(customer_table.select("customer_id").distinct().to_pyarrow()["customer_id"].to_pylist()) - {None})
    drawn = np.random.default_rng(seed).permutation(len(customers))[:sample]
    chosen = [customers[place] for place in sorted(drawn)]
    return {
        name: table.filter(table.customer_id.isin(chosen)) if "customer_id" in table.columns else table for name, table in tables.items()
    }
