"""The ledger's recent transactions for the service's store: as many as the longest window of a feature looks back.

The one place where the half that makes models touches the half that answers; it runs on the operator's command only.
"""

from collections.abc import Iterator
from datetime import timedelta

from bento.store import Store, Transaction
from finrisk_assets.resources import Warehouse
from finrisk_assets.settings import Settings

BATCH = 50_000


def load(settings: Settings) -> int:
    """Load the transactions that history features of tomorrow's decisions can need; return how many the store took in."""
    from finrisk_assets.ledger import sources
    from finrisk_assets.transaction_anomaly.assets import lookback

    warehouse = Warehouse(url=settings.warehouse)
    transactions = warehouse.table("validated_transactions")
    latest = transactions.occurred_at.max().to_pyarrow().as_py()
    recent = transactions.filter(transactions.occurred_at >= latest - lookback(sources.load(settings)) - timedelta(days=7))
    store = Store(settings.root / "service" / "store.sqlite")
    try:
        return store.load(_rows(recent.select(*Transaction._fields)))
    finally:
        store.close()


def _rows(recent: object) -> Iterator[Transaction]:
    for batch in recent.to_pyarrow_batches(chunk_size=BATCH):  # type: ignore[attr-defined]
        columns = [batch.column(name).to_pylist() for name in Transaction._fields]
        yield from map(Transaction._make, zip(*columns, strict=True))
