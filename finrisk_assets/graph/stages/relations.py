"""The metamorphic figures of a challenger: its scores before and after a change of the ledger that must not matter.

A part of the stage ``evaluation_<domain>``; `modelling.evaluation.metamorphic` has the changes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains import registry
from finrisk_assets.domains.base import Domain, Figure
from finrisk_assets.features.compiled import compile_features
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.evaluation import metamorphic

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.scoring.bundle import Bundle

ARTIFACT = "metamorphic.json"
"""The artifact of a model's run that holds these figures."""

PEOPLE = 60
"""People whose ledger is changed. More take longer: each relation builds the feature table once more."""

NEEDS = ("customer_id", "account_id", "category", "balance_amount")
"""Columns of the transactions that the relations read."""


def measure_relations(domain: Domain, source: Source, warehouse: Warehouse, bundle: "Bundle") -> list[Figure]:
    """Return how far scores move with payday, and with all dates; none where the source has no such movements.

    The people are drawn by a hash of their identifiers, so that the same ledger gives the same figures.
    """
    raw = source.tables.get("transactions")
    if raw is None or "transactions" not in domain.tables or not {*NEEDS} <= {*raw.columns}:
        return []
    tables = {name: table.to_pyarrow() for name, table in _select_people(domain, source, warehouse).items()}
    frames = {name: table.to_pandas() for name, table in tables.items()}
    ledgers = ChangedLedgers(domain, source, tables)
    before = ledgers.build(frames)
    changes = {
        "payday": (metamorphic.move_payday(frames, metamorphic.LARGEST_MOVE_DAYS), "every salary 10 days later within its month"),
        "dates": (metamorphic.shift_dates(frames, metamorphic.LARGEST_MOVE_DAYS), "every date 10 days later, that of the decision too"),
    }
    figures = []
    for name, (changed, words) in changes.items():
        after = ledgers.build(changed)
        keys = before.index.intersection(after.index)
        if not len(keys):
            continue
        scores = [score_frame(domain, rows.loc[keys].reset_index(), bundle) for rows in (before, after)]
        change = metamorphic.compare_scores(scores[0][0], scores[1][0], scores[0][1], scores[1][1])
        of = f"of {change.n} decisions, {words}"
        figures.append(Figure(f"{name}_mean_change", change.mean_change, meaning=f"mean absolute change of the probability {of}"))
        figures.append(Figure(f"{name}_changed_share", change.changed_share, meaning=f"share with another decision {of}"))
    return figures


def _select_people(domain: Domain, source: Source, warehouse: Warehouse) -> "dict[str, LazyTable]":
    customers = warehouse.table("validated_transactions").select("customer_id").distinct().to_pandas().customer_id.dropna()
    drawn = sorted(customers, key=metamorphic.rename)[:PEOPLE]
    names = {name for each in (domain, *_companions(domain)) for name in each.tables if name in source.tables}
    tables = {name: warehouse.table(f"validated_{name}") for name in sorted(names)}
    return {name: table.filter(table.customer_id.isin(drawn)) for name, table in tables.items()}


class ChangedLedgers:
    """Changed copies of one ledger, in memory. The query of the feature table is compiled once.

    Parameters
    ----------
    tables
        The ledger's own tables: they give the columns their types.
    """

    def __init__(self, domain: Domain, source: Source, tables: "Mapping[str, pa.Table]") -> None:
        import ibis

        self._engine, self._key = ibis.duckdb.connect(), domain.keys[0].name
        self._types = {name: table.schema for name, table in tables.items()}
        schemas = {name: self._engine.create_table(name, table).schema() for name, table in tables.items()}

        def compile_of(other: Domain) -> str:
            return compile_features(lambda lazy: other.build_features(lazy, source), schemas)

        self._companions = {f"features_{each.group}": compile_of(each) for each in _companions(domain)}
        self._query = compile_of(domain)
        if self._companions:
            self._store_companions()
            own = self._engine.sql(self._query)
            self._query = self._engine.compile(domain.join_companions(own, lambda name: self._engine.table(name)))

    def build(self, frames: metamorphic.Frames) -> "pd.DataFrame":
        """Return the feature table over a changed ledger, with what the companions know, by key and in the order of keys."""
        import pyarrow as pa

        for name, frame in frames.items():
            table = pa.Table.from_pandas(frame, schema=self._types[name], preserve_index=False)
            self._engine.create_table(name, table, overwrite=True)
        self._store_companions()
        rows = self._engine.raw_sql(self._query).to_arrow_table().to_pandas()
        return rows.set_index(self._key).sort_index()

    def _store_companions(self) -> None:
        for name, query in self._companions.items():
            self._engine.raw_sql(f'CREATE OR REPLACE TABLE "{name}" AS {query}')


def _companions(domain: Domain) -> list[Domain]:
    """Return the domains whose champions a decision of this one asks."""
    return [each for each in registry.DOMAINS if each.name in domain.companions]


def score_frame(domain: Domain, rows: "pd.DataFrame", bundle: "Bundle") -> tuple[Any, Any]:
    """Return the probability of each row as it stands, and the decision."""
    from finrisk_assets.modelling.training.candidates import to_matrix

    return bundle.probability(to_matrix(rows, bundle.features)), domain.score(rows, bundle)["decision"]
