"""Load of the service's store from the ledger: recent transactions, and the newest feature snapshot of each customer.

The command `finrisk load-history` runs it; nothing else copies from the ledger to the service.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from bento.store.bulk_load import read_transactions
from bento.store.records import FeatureSnapshot, Transaction
from bento.store.session import Store, open_store
from finrisk_assets.domains.base import Domain
from finrisk_assets.engines.warehouse_url import file_of
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.source_definition import Source

CHUNK = 5_000
"""Rows of a batch read from the warehouse."""

PATIENCE_S = 10.0
"""Seconds to wait for the service to finish what it is writing."""

_NUMBERS = ("float64", "int64")


class LoadHistoryError(RuntimeError):
    """A warehouse that lacks the tables to load; the message says what to do."""


class LoadCounts(NamedTuple):
    """Numbers of rows that the store took in."""

    transactions: int
    snapshots: int

    def __str__(self) -> str:
        return f"{self.transactions:,} transactions, {self.snapshots:,} scores of customers"


def load(settings: Settings) -> LoadCounts:
    """Bring the store up to date with the warehouse: add transactions, replace feature snapshots.

    Raises
    ------
    LoadHistoryError
        Where the graph has not made the transactions of this source yet; the store stays as it is.
    """
    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.ledger import sources

    source, warehouse = sources.load(settings), Warehouse.of(settings)
    # The warehouse's URL may hold a password, so the message names the source.
    no_history = LoadHistoryError(f"the warehouse of the source {settings.source} has no validated_transactions: run `make demo` first")
    file = file_of(settings.warehouse)
    if file is not None and not file.exists():
        raise no_history
    domains = [domain for domain in domains_of(source) if warehouse.has(f"scores_{domain.name}")]
    has_transactions = "transactions" in source.tables
    if has_transactions and not warehouse.has("validated_transactions"):
        raise no_history
    for domain in domains:
        lacking = sorted(set(domain.score_contract().names) - set(warehouse.table(f"scores_{domain.name}").columns))
        if lacking:
            raise LoadHistoryError(f"scores_{domain.name} is of an earlier version and lacks {', '.join(lacking)}: run `make demo` again")
    with closing(open_store(settings, wait_s=PATIENCE_S)) as store:
        transactions = _load_transactions(store, source, warehouse, settings) if has_transactions else 0
        snapshots = store.replace_snapshots(snapshot for domain in domains for snapshot in newest_snapshots(domain, source, warehouse))
    return LoadCounts(transactions, snapshots)


def _load_transactions(store: Store, source: "Source", warehouse: Warehouse, settings: Settings) -> int:
    """Load the transactions that history features of the newest day's decisions can need."""
    from finrisk_assets.domains.transaction_anomaly.definition import lookback

    transactions = warehouse.table("validated_transactions")
    latest = transactions.occurred_at.max().to_pyarrow().as_py()
    since = latest - lookback(source) - timedelta(days=1)
    path = settings.root / "landing" / "history.parquet"
    transactions.filter(transactions.occurred_at >= since).select(*Transaction._fields).to_parquet(path)
    return store.load_transactions(read_transactions(path))


def newest_snapshots(domain: Domain, source: "Source", warehouse: Warehouse) -> Iterator[FeatureSnapshot]:
    """Return the newest scored row of every customer or, where a domain decides on accounts, of every account.

    A row that stands for the end of a month goes before that of an application, which had terms of its own.
    """
    features = warehouse.table(f"features_{domain.group}")
    holder = "account_id" if "account_id" in features.columns else "customer_id"
    rows = _newest_rows(features, domain.keys[0].name, holder, domain.decision_time)
    return feature_snapshots(domain, source, rows, warehouse.table(f"scores_{domain.name}"))


def feature_snapshots(domain: Domain, source: "Source", features: "LazyTable", scores: "LazyTable") -> Iterator[FeatureSnapshot]:
    """Return rows of a domain's feature table, with their scores, as feature snapshots.

    Left out are features that the service computes itself, and those of a domain's second model, which the first one's snapshot holds.
    """
    import ibis

    contract, key, decision_time = domain.feature_contract(source), domain.keys[0].name, domain.decision_time
    # The feature table also holds outcomes, which are known later than the decision.
    categories = {feature.name for feature in domain.select_features(source) if feature.is_category}
    known_columns = [
        column.name
        for column in contract.columns
        if (column.dtype in _NUMBERS or column.name in categories) and column.known in ("always", decision_time)
    ]
    feature_names = [] if domain.is_computed_in_service or domain.features_of else known_columns
    score_names = [name for name in domain.score_contract().names if name not in (key, "customer_id", decision_time)]
    rows = features.select(
        _key=features[key],
        _customer=features.customer_id,
        _account=features.account_id if "account_id" in features.columns else ibis.null("string"),
        _decision_time=features[decision_time],
        **{f"feature_{name}": features[name] for name in feature_names},
    )
    score_rows = scores.select(_scored=scores[key], **{f"score_{name}": scores[name] for name in score_names})
    joined = rows.inner_join(score_rows, rows._key == score_rows._scored)
    for batch in joined.to_pyarrow_batches(chunk_size=CHUNK):
        for row in batch.to_pylist():
            yield FeatureSnapshot(
                domain.name,
                row["_key"],
                row["_customer"],
                row["_account"],
                row["_decision_time"],
                {name: _plain(row[f"feature_{name}"]) for name in feature_names},
                {name: _plain(row[f"score_{name}"]) for name in score_names},
            )


def _newest_rows(features: "LazyTable", key: str, holder: str, decision_time: str) -> "LazyTable":
    """Return the newest row of each holder in a feature table."""
    import ibis

    narrow = features.select(_row=features[key], _holder=features[holder], _decision_time=features[decision_time])
    newest_first = [
        ibis.desc(narrow._row.contains("@")),
        ibis.desc(narrow._decision_time, nulls_first=False),
        ibis.desc(narrow._row),
    ]
    place = ibis.row_number().over(group_by=narrow._holder, order_by=newest_first)
    first = narrow.mutate(_place=place).filter(lambda rows: rows._place == 0).select("_row")
    return features.semi_join(first, features[key] == first._row)


def _plain(value: Any) -> Any:
    """Return a value for JSON, with None for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
