"""Transactions in micro-batches, in this process, durable on SQLite: processor time of each decision.

    python -m benchmarks.micro_batches [--rounds 5] [--batches 20]

It takes the champion and the ledger of FINRISK_HOME/<source>. The ledger's history is loaded into a store of the benchmark's own, and new
movements of its customers are decided in batches of one route's size, each batch one commit to disk. Times are of the processor.
"""

import argparse
import asyncio
import gc
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from bento.decisions.batch import decide_batch
from bento.decisions.bundle_versions import archive_bundles
from bento.decisions.engine import DecisionResult, Decisions
from bento.decisions.scorers.transaction import TransactionScorer
from bento.store.bulk_load import read_transactions
from bento.store.records import Transaction
from bento.store.session import Store, open_store
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from schemas.api import TransactionRequest

SIZE = 256
BATCHES = 20
"""Batches in a round."""
GC_THRESHOLD = 20_000
"""That of `bento.service`."""
DEMANDED_US = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=BATCHES, help="in a round")
    parser.add_argument("--profile", type=Path, help="write a profile of the last round to this file")
    given = parser.parse_args()
    taken = measure(Settings.from_environment(), given.rounds, given.batches, given.profile)
    reached = "reached" if statistics.median(taken) <= DEMANDED_US else "MISSED"
    print(f"{statistics.median(taken):,.0f} µs of the processor a decision in batches of {SIZE} (medians of {given.rounds} rounds: "
          f"{min(taken):,.0f} to {max(taken):,.0f}); demanded {DEMANDED_US:,.0f}: {reached}")  # fmt: skip


def measure(settings: Settings, rounds: int, n_batches: int = BATCHES, profile_path: Path | None = None) -> list[float]:
    """Return the microseconds of the processor that a decision takes, round by round.

    Parameters
    ----------
    n_batches
        Batches in a round.
    profile_path
        File for a profile of further batches; None for no profile.
    """
    folder_of_bundle = settings.root / "champions" / "transaction_anomaly" / "bundle"
    bundle = Bundle.load(folder_of_bundle)
    requests = movements(settings)
    with (
        tempfile.TemporaryDirectory(prefix="finrisk-micro-batches-") as folder,
        closing(open_store(replace(settings, home=Path(folder)))) as store,
    ):
        load_ledger(store, settings)
        archived = archive_bundles(store, {(bundle.domain, bundle.version): folder_of_bundle})
        decisions = Decisions(store, {"transaction_anomaly": TransactionScorer(bundle, store)}, archived=archived)
        decide(decisions, requests, n_batches)  # fills the cache
        gc.collect()
        gc.freeze()  # as the service does after its start
        gc.set_threshold(GC_THRESHOLD)
        taken = [decide(decisions, requests, n_batches) for _ in range(rounds)]
        if profile_path is not None:
            profile(profile_path, decisions, requests, n_batches)
    return taken


def decide(decisions: Decisions, requests: Iterator[TransactionRequest], n_batches: int) -> float:
    """Return the microseconds of the processor that a decision takes."""
    batches = [[next(requests) for _ in range(SIZE)] for _ in range(n_batches)]
    began = time.process_time()
    for batch in batches:
        results = asyncio.run(decide_batch(decisions, batch, None))
        assert all(isinstance(result, DecisionResult) for result in results)
    return (time.process_time() - began) / (n_batches * SIZE) * 1e6


def profile(path: Path, decisions: Decisions, requests: Iterator[TransactionRequest], n_batches: int) -> None:
    """Write a profile of some batches."""
    import cProfile

    profiler = cProfile.Profile()
    profiler.runcall(decide, decisions, requests, n_batches)
    profiler.dump_stats(path)


def load_ledger(store: Store, settings: Settings) -> None:
    """Load the ledger's transactions into the store."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transactions.parquet"
        Warehouse(url=settings.warehouse).table("validated_transactions").select(*Transaction._fields).to_parquet(path)
        store.load_transactions(read_transactions(path))


def movements(settings: Settings) -> Iterator[TransactionRequest]:
    """Yield movements of the ledger's customers with its merchants, each new, a few seconds apart, after the last one in the ledger."""
    table = Warehouse(url=settings.warehouse).table("validated_transactions")
    latest = table.occurred_at.max().to_pyarrow().as_py()
    recent = table.filter(table.occurred_at > latest - timedelta(days=30))
    known = (
        recent.select("customer_id", "merchant", "country", "amount", "direction")
        .order_by("customer_id")
        .limit(20_000)
        .to_pyarrow()
        .to_pylist()
    )
    draw, number = random.Random(settings.seed), 0
    while True:
        number += 1
        movement = draw.choice(known)
        yield TransactionRequest(
            transaction_id=f"benchmark-{number}",
            user_id=movement["customer_id"],
            amount=movement["amount"],
            direction=movement["direction"],
            timestamp=latest + timedelta(seconds=3 * number),
            merchant=movement["merchant"],
            country=movement["country"],
        )


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
