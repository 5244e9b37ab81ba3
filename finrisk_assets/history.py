"""The ledger's recent transactions for the service's store: as many as the longest window of a feature looks back.

The one place where the half that makes models touches the half that answers; it runs on the operator's command only.
"""

from datetime import timedelta

from bento.seed import read
from bento.store import Store, Transaction, location
from finrisk_assets.resources import Warehouse
from finrisk_assets.settings import Settings


def load(settings: Settings) -> int:
    """Load the transactions that history features of the newest day's decisions can need; return how many the store took in."""
    from finrisk_assets.ledger import sources
    from finrisk_assets.transaction_anomaly.assets import lookback

    transactions = Warehouse(url=settings.warehouse).table("validated_transactions")
    latest = transactions.occurred_at.max().to_pyarrow().as_py()
    since = latest - lookback(sources.load(settings)) - timedelta(days=1)
    path = settings.root / "landing" / "history.parquet"
    transactions.filter(transactions.occurred_at >= since).select(*Transaction._fields).to_parquet(path)
    store = Store(location(settings))
    try:
        return store.load(read(path))
    finally:
        store.close()
