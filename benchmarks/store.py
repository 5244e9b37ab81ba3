"""The store in this process, without HTTP: one transaction decided and on disk, and a ledger loaded.

python benchmarks/store.py                       # SQLite in a temporary folder
python benchmarks/store.py postgresql://...      # an empty database
"""

import argparse
import tempfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter

from bento.decisions.engine import Decisions
from bento.decisions.scorers.transaction import TransactionScorer
from bento.store.keyring import Keyring
from bento.store.records import Transaction
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import TransactionRequest
from tests.service.conftest import write_transaction_bundle

START = datetime(2024, 5, 6)


def decided(store: Store, bundle: Bundle, n: int) -> list[float]:
    """Milliseconds that each of n transactions took: history, features, score, reasons, audit, commit."""
    scorer = TransactionScorer(bundle, store)
    decisions = Decisions(store, {"transaction_anomaly": scorer})
    took = []
    for at in range(n):
        request = TransactionRequest(
            user_id=str(at % 200),
            amount=10.0 + at % 50,
            timestamp=START + timedelta(minutes=at),
            merchant=str(at % 30),
            transaction_id=f"t{at}",
        )
        began = perf_counter()
        decisions.decide("transaction_anomaly", request)
        took.append((perf_counter() - began) * 1e3)
    return sorted(took[n // 10 :])  # the first ones fill caches


def ledger(n: int) -> list[Transaction]:
    """Transactions of 2,000 customers with 1,000 merchants."""
    return [
        Transaction(f"l{at}", str(at % 2000), START + timedelta(seconds=at), float(at), "debit", str(at % 1000), "DE", False, START)
        for at in range(n)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="a PostgreSQL database; default: SQLite")
    parser.add_argument("--decisions", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=400_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle.load(write_transaction_bundle(Path(folder) / "bundle"))
        url = given.url or Path(folder) / "store.sqlite"
        with closing(Store(url, Keyring([bytes(range(32))]), upgrades=True)) as store:
            rows = ledger(given.rows)
            began = perf_counter()
            store.load_transactions(rows)
            print(f"{given.rows:,} transactions of the ledger loaded in {perf_counter() - began:.1f} s")
            took = decided(store, bundle, given.decisions)
            print(f"one decision on disk: p50 {took[len(took) // 2]:.2f} ms, p99 {took[int(len(took) * 0.99)]:.2f} ms")


if __name__ == "__main__":
    main()
