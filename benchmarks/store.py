"""The store in this process, without HTTP: one transaction decided and on disk, a ledger loaded, and the bytes of a decision's record.

python -m benchmarks.store                       # SQLite in a temporary folder
python -m benchmarks.store postgresql://...      # an empty database
python -m benchmarks.store --records             # bytes of the records of each champion of FINRISK_HOME, nothing else
"""

import argparse
import json
import statistics
import tempfile
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter

from bento.decisions.bundle_versions import archive_bundles
from bento.decisions.domains import DOMAINS
from bento.decisions.engine import Decisions
from bento.decisions.scorers.transaction import TransactionScorer
from bento.store.keyring import Keyring
from bento.store.records import FeatureSnapshot, Transaction
from bento.store.session import Store
from finrisk_assets.domains.loan_offers.decide import TERMS
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.bundle_io import GOLDEN
from finrisk_assets.settings import Settings
from schemas.api import Request, TransactionRequest
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


def record_bytes(champions: Path, n: int = 100) -> None:
    """Print the sealed bytes of a decision in each domain: all records full, and with the two tiers. Requests are the golden rows."""
    for domain, folder in ((domain, champions / domain / "bundle") for domain in DOMAINS):
        if not folder.is_dir():
            continue
        bundle = Bundle.load(folder)
        golden = json.loads((folder / GOLDEN).read_bytes())["rows"]
        rows = [dict(zip(bundle.columns, row, strict=True)) for row in golden[:n]]
        with tempfile.TemporaryDirectory() as home, closing(Store(Path(home) / "store.sqlite", Keyring([bytes(range(32))]))) as store:
            store.replace_snapshots(
                FeatureSnapshot(domain, str(at), str(at), None, START, row, {name: None for name in ("score", "probability", "decision")})
                for at, row in enumerate(rows)
            )
            archived = archive_bundles(store, {(domain, bundle.version): folder})
            sizes: list[list[int]] = []
            for tiers in (frozenset[tuple[str, str]](), archived):
                decisions = Decisions(store, {domain: DOMAINS[domain].scorer(bundle, store)}, archived=tiers)
                before = [decision.position for decision in store.decisions()]
                for at, row in enumerate(rows):
                    decisions.decide(domain, request_of(domain, row, at, len(tiers)))
                sizes.append([len(decision.sealed) for decision in store.decisions(after=max(before, default=0))])
            abridged = [size for full, size in zip(*sizes, strict=True) if size < full / 2]
        print(f"{domain:<20} full {statistics.mean(sizes[0]):>6,.0f} bytes, abridged {statistics.mean(abridged or [0]):>6,.0f}: "
              f"{len(abridged) / len(rows):.0%} of these requests, so {statistics.mean(sizes[1]):,.0f} on average")  # fmt: skip


def request_of(domain: str, row: dict[str, float | None], at: int, run: int) -> Request:
    """Return a request of a domain that the model scores as this row, or as the features of this customer."""
    fields: dict[str, object]
    match domain:
        case "transaction_anomaly":
            moment = (START + timedelta(days=1, minutes=at)).isoformat()
            fields = {"user_id": f"u{at % 20}", "amount": 10.0 + at, "timestamp": moment, "transaction_id": f"{run}-{at}"}
        case "loan_offers":
            features = {name: value for name, value in row.items() if name not in TERMS}
            fields = {"features": features, "pd": 0.03, "monthly_income_amount": 3_000.0}
        case "spending_risk":
            fields = {"customer_id": str(at)}
        case "spending_risk_eight":
            fields = dict(row)
        case _:
            fields = {"features": row}
    return DOMAINS[domain].request.model_validate_json(json.dumps(fields))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="a PostgreSQL database; default: SQLite")
    parser.add_argument("--decisions", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--records", action="store_true", help="print the bytes of records alone")
    given = parser.parse_args()
    if given.records:
        record_bytes(Settings.from_environment().root / "champions")
        return
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
