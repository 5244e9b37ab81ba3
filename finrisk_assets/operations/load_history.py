"""What the service's store gets from the ledger: recent transactions, and how each customer stood when it was last read.

The one place where the half that makes models touches the half that answers; it runs on the operator's command only.
"""

import logging
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bento.store.bulk_load import read
from bento.store.session import FeatureSnapshot, Store, Transaction, location, open_store
from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.base import Source

CHUNK = 5_000
"""Standings that are in memory at a time."""

PATIENCE_S = 10.0
"""Seconds to wait for the service to finish what it is writing."""

logger = logging.getLogger("finrisk.history")
_NUMBERS = ("float64", "int64")


class Loaded(NamedTuple):
    """What the store took in."""

    transactions: int
    standings: int

    def __str__(self) -> str:
        return f"{self.transactions:,} transactions, {self.standings:,} scores of customers"


def load(settings: Settings) -> Loaded:
    """Bring the store up to date with the warehouse: transactions are added, standings replaced."""
    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.ledger import sources

    source, warehouse = sources.load(settings), Warehouse(url=settings.warehouse)
    domains = [domain for domain in domains_of(source) if warehouse.has(f"scores_{domain.name}")]
    set_aside(location(settings))
    with closing(open_store(settings, wait_s=PATIENCE_S)) as store:
        transactions = _load_transactions(store, source, warehouse, settings) if "transactions" in source.tables else 0
        standings = store.replace_snapshots(one for domain in domains for one in newest(domain, source, warehouse))
    return Loaded(transactions, standings)


def set_aside(path: str | Path) -> None:
    """Move a store of the layout before there were revisions out of the way: it is made anew from the ledger.

    What it knew beyond the ledger are answers to transactions that were sent to the service. It has identifiers in plain text, so it should
    not lie there for long.
    """
    if not isinstance(path, Path) or not path.exists():
        return
    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
        if "answers" not in tables or "alembic_version" in tables:
            return
        connection.execute("pragma wal_checkpoint(truncate)")
    aside = path.with_suffix(".before.sqlite")
    path.replace(aside)
    logger.warning("the store was of an older layout with identifiers in plain text: it is now %s, delete it when you can", aside)


def _load_transactions(store: Store, source: "Source", warehouse: Warehouse, settings: Settings) -> int:
    """Load the transactions that history features of the newest day's decisions can need."""
    from finrisk_assets.domains.transaction_anomaly.definition import lookback

    transactions = warehouse.table("validated_transactions")
    latest = transactions.occurred_at.max().to_pyarrow().as_py()
    since = latest - lookback(source) - timedelta(days=1)
    path = settings.root / "landing" / "history.parquet"
    transactions.filter(transactions.occurred_at >= since).select(*Transaction._fields).to_parquet(path)
    return store.load(read(path))


def newest(domain: Domain, source: "Source", warehouse: Warehouse) -> Iterator[FeatureSnapshot]:
    """The newest scored row of every customer or, where a domain decides on accounts, of every account.

    A row that stands for the end of a month goes before that of an application, which had terms of its own.
    """
    features = warehouse.table(f"features_{domain.group}")
    holder = "account_id" if "account_id" in features.columns else "customer_id"
    rows = _newest_rows(features, domain.keys[0].name, holder, domain.moment)
    return standings(domain, source, rows, warehouse.table(f"scores_{domain.name}"))


def standings(domain: Domain, source: "Source", features: "LazyTable", scores: "LazyTable") -> Iterator[FeatureSnapshot]:
    """Rows of a domain's feature table, with their scores, as the store takes them.

    Features are kept where the service reads them: not those that it computes itself, nor those of a second model, which are its
    domain's.
    """
    import ibis

    contract, key, moment = domain.feature_contract(source), domain.keys[0].name, domain.moment
    # What happened afterwards stands beside the features too; it is known later than the decision.
    known = [column.name for column in contract.columns if column.dtype in _NUMBERS and column.known in ("always", moment)]
    kept = [] if domain.parity or domain.features_of else known
    scored = [name for name in domain.score_contract().names if name not in (key, "customer_id", moment)]
    rows = features.select(
        _key=features[key],
        _customer=features.customer_id,
        _account=features.account_id if "account_id" in features.columns else ibis.null("string"),
        _moment=features[moment],
        **{f"feature_{name}": features[name] for name in kept},
    )
    found = scores.select(_scored=scores[key], **{f"score_{name}": scores[name] for name in scored})
    joined = rows.inner_join(found, rows._key == found._scored)
    for batch in joined.to_pyarrow_batches(chunk_size=CHUNK):
        for row in batch.to_pylist():
            yield FeatureSnapshot(
                domain.name,
                row["_key"],
                row["_customer"],
                row["_account"],
                row["_moment"],
                {name: _plain(row[f"feature_{name}"]) for name in kept},
                {name: _plain(row[f"score_{name}"]) for name in scored},
            )


def _newest_rows(features: "LazyTable", key: str, holder: str, moment: str) -> "LazyTable":
    """The rows of a feature table that are the newest of their holder."""
    import ibis

    narrow = features.select(_row=features[key], _holder=features[holder], _moment=features[moment])
    newest_first = [
        ibis.desc(narrow._row.contains("@")),
        ibis.desc(narrow._moment, nulls_first=False),
        ibis.desc(narrow._row),
    ]
    place = ibis.row_number().over(group_by=narrow._holder, order_by=newest_first)
    first = narrow.mutate(_place=place).filter(lambda rows: rows._place == 0).select("_row")
    return features.semi_join(first, features[key] == first._row)


def _plain(value: Any) -> Any:
    """A value for JSON: what is not a number is not known."""
    return None if isinstance(value, float) and math.isnan(value) else value
