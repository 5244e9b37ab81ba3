"""Workers that share a PostgreSQL: decisions a second of one worker and of two, each a process, one after the other in each round.

    python -m benchmarks.store_workers [--rounds 5] [--seconds 3] [--size 16]
    python -m benchmarks.store_workers --url postgresql://...      # an empty database

A worker decides groups of transactions as the service does, each group one durable commit. It takes the champion of
FINRISK_HOME/<source>; both workers name the ledger's merchants, each its own customers, because a service has more customers than that
ledger. Without a URL a server is started in a temporary folder. Each worker is on a core of its own, the server wherever the system puts
it: on two cores it takes time from both.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.micro_batches import movements
from bento.decisions.engine import ChunkItem, Decisions
from bento.decisions.scorers.transaction import TransactionScorer
from bento.store.keyring import Keyring
from bento.store.session import Store, write_transaction
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from schemas.api import TransactionRequest
from tests.service.databases import started

WARM_UP = 1_600
N_MOVEMENTS = 8_000
"""Movements that each worker decides, over and over, under new identifiers and at later times."""
DEMANDED = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load in each round, with each number of workers")
    parser.add_argument("--size", type=int, default=16, help="transactions of a group")
    given = parser.parse_args()
    settings = Settings.from_environment()
    drawn = movements(settings)
    requests = [next(drawn) for _ in range(N_MOVEMENTS)]
    groups = [requests[first : first + given.size] for first in range(0, N_MOVEMENTS - given.size + 1, given.size)]
    bundle = settings.root / "champions" / "transaction_anomaly" / "bundle"
    with ExitStack() as stack:
        url = given.url or stack.enter_context(started(durable=True))
        Store(url, Keyring([bytes(range(32))]), upgrades=True).close()
        workers = [stack.enter_context(Worker.running(bundle, url, number, groups)) for number in range(2)]
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(given.rounds):
            for n_workers in rates:
                rates[n_workers].append(measure(workers[:n_workers], given.seconds))
    one, two = (statistics.median(rates[n_workers]) for n_workers in (1, 2))
    reached = "reached" if two / one >= DEMANDED else "MISSED"
    print(f"groups of {given.size} on PostgreSQL: {one:,.0f} decisions a second of one worker, {two:,.0f} of two: "
          f"{two / one:.2f} times (medians of {given.rounds} rounds); demanded {DEMANDED}: {reached}")  # fmt: skip
    for number, worker in enumerate(workers, 1):
        print(f"worker {number}: {worker.cpu_us:,.0f} µs of its processor a decision")


def measure(workers: list["Worker"], seconds: float) -> float:
    """Return the decisions a second of workers that run at once."""
    for worker in workers:
        worker.connection.send(seconds)
    return sum(worker.receive() for worker in workers)


class Worker:
    """A process with a store of its own, that decides groups for as long as it is told."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.cpu_us = 0.0

    @classmethod
    @contextmanager
    def running(cls, bundle: Path, url: str, number: int, groups: list[list[TransactionRequest]]) -> Iterator["Worker"]:
        """Start a worker, warmed up, for as long as the block lasts."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(bundle, url, number, groups, theirs), daemon=True)
        process.start()
        try:
            worker = cls(ours)
            worker.receive()
            yield worker
        finally:
            ours.send(None)
            process.join(10)

    def receive(self) -> float:
        """Return the rate of the last load."""
        rate, self.cpu_us = self.connection.recv()
        return float(rate)


def work(folder: Path, url: str, number: int, groups: list[list[TransactionRequest]], connection: Any) -> None:
    """Decide groups for so many seconds each time that a message comes, and answer with the rate and the processor time of a decision."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[number % len(cores)]})
    with closing(Store(url, Keyring([bytes(range(32))]))) as store:
        scorer = TransactionScorer(Bundle.load(folder), store)
        decisions = Decisions(store, {scorer.bundle.domain: scorer})
        endless = repeat(groups, number)
        seconds: float | None = 0.0
        while seconds is not None:
            n, began, began_cpu = 0, time.perf_counter(), time.process_time()
            while n < WARM_UP if seconds == 0.0 else time.perf_counter() - began < seconds:
                n += decide(decisions, scorer, next(endless))
            connection.send((n / (time.perf_counter() - began), (time.process_time() - began_cpu) / n * 1e6))
            seconds = connection.recv()


def decide(decisions: Decisions, scorer: TransactionScorer, group: Sequence[TransactionRequest]) -> int:
    """Decide a group in one transaction, as `bento.decisions.group_commit` does, and return its size.

    Raises
    ------
    bento.decisions.engine.NotTogetherError
        Where a movement was decided before: give an empty database.
    """
    items = [ChunkItem.of(request, None) for request in group]
    with write_transaction(decisions.store):
        decisions.lock_chunk(items)
        decisions.decide_together(scorer.bundle.domain, scorer, items)
    return len(items)


def repeat(groups: list[list[TransactionRequest]], number: int) -> Iterator[list[TransactionRequest]]:
    """Yield the groups over and over, each time with new identifiers and later times."""
    times = [request.timestamp for group in groups for request in group]
    length = max(times) - min(times)
    for turn in count():
        for group in groups:
            yield [
                request.model_copy(
                    update={
                        "transaction_id": f"{number}-{turn}-{request.transaction_id}",
                        "user_id": f"{number}-{request.user_id}",
                        "timestamp": request.timestamp + turn * length,
                    }
                )
                for request in group
            ]


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
