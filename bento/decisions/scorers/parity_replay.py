"""The replay of the parity certificate through the service's own history: `python -m bento.decisions.scorers.parity_replay <folder>`.

The graph runs it in a process of its own, because it never imports the service. Workers are stores on one file, as of processes of the
service: each has customers and a cache of its own, and all of them share the merchants' history, which the file owns.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_bytes
from typing import Any

import numpy as np

from bento.decisions.scorers.transaction_features import TransactionFeatures
from bento.store.keyring import KEY_BYTES, Keyring
from bento.store.records import Person, Transaction
from bento.store.session import Store
from finrisk_assets.features.arrivals import Delivery, Event, plan_arrivals, replay
from finrisk_assets.features.recent_events import RecentEvents
from finrisk_assets.features.windows import Declaration, from_json
from schemas.timestamps import from_micros

EVENTS, DECLARATIONS, SCORED, REPLAYED = "events.parquet", "declarations.json", "scored.json", "replayed.npz"
"""Files in the folder: what is replayed, its features, the places whose features are computed, and the result."""
CACHED_EVENTS = (None, 6_000, None)
"""Bound of each worker's cache; None: the service's own, which evicts nothing here. The second worker evicts all the time."""


class _WorkerDiedError(Exception):
    """The death of a worker inside a transaction."""


class StoreWorkers:
    """Workers on one store, as the service runs them: a store and a cache each.

    Parameters
    ----------
    file
        The SQLite file, which does not exist yet.
    features
        The declarations.
    cached_events
        By worker, the bound of its cache; None is the service's own.
    """

    def __init__(self, file: Path, features: Sequence[Declaration], cached_events: Sequence[int | None] = CACHED_EVENTS) -> None:
        self._file = file
        self._master = token_bytes(KEY_BYTES)
        self._features = TransactionFeatures(features)
        self._cached_events = cached_events
        self._stores = [self._open(worker) for worker in range(len(cached_events))]

    def take(self, worker: int, deliveries: Sequence[Delivery]) -> list[Any]:
        """Compute the features of the scored events, each after those before it, and store all in one transaction, as decisions do."""
        store = self._stores[worker]
        with store.writing():
            return self._take(store, deliveries)

    def compute(self, worker: int, events: Sequence[Event]) -> list[Any]:
        """Return the features of events from what is stored now."""
        store = self._stores[worker]
        with store.writing():  # on PostgreSQL only a transaction that writes reads from memory
            return [self._features.row(_transaction_of(event), store) for event in events]

    def lose(self, worker: int, deliveries: Sequence[Delivery], *, restarts: bool) -> None:
        """Take deliveries and fail before the commit; a worker that restarts has nothing in memory."""
        store = self._stores[worker]
        with suppress(_WorkerDiedError), store.writing():
            self._take(store, deliveries)
            raise _WorkerDiedError
        if restarts:
            store.close()
            self._stores[worker] = self._open(worker)

    def learn(self, events: Sequence[Event]) -> None:
        """Store the labels of events that are stored already, as a load of the ledger does."""
        self._stores[0].load_transactions(map(_transaction_of, events))

    def close(self) -> None:
        """Close every worker's store."""
        for store in self._stores:
            store.close()

    def _open(self, worker: int) -> Store:
        store = Store(self._file, Keyring([self._master]), durable=False)
        if (bound := self._cached_events[worker]) is not None:
            store.recent_events = RecentEvents(bound)
        return store

    def _take(self, store: Store, deliveries: Sequence[Delivery]) -> list[Any]:
        """Take new deliveries together, and those that were decided before one by one, as the stream's micro-batches do."""
        store.remember_people(delivery.event["customer_id"] for delivery in deliveries)
        new = [place for place, delivery in enumerate(deliveries) if delivery.is_new]
        transactions = [_transaction_of(delivery.event) for delivery in deliveries]

        def find_person(place: int) -> Person:
            person = store.person(transactions[place].customer_id, make=True)
            assert person is not None
            return person

        def queue(number: int) -> None:
            store.queue_transaction(transactions[new[number]], find_person(new[number]))

        rows: list[Any] = [None] * len(deliveries)
        if any(delivery.is_scored for delivery in deliveries):
            computed = self._features.rows([transactions[place] for place in new], store, queue)
            for place, row in zip(new, computed, strict=True):
                rows[place] = row if deliveries[place].is_scored else None
        else:
            for number in range(len(new)):
                queue(number)
        store.insert_queued()
        for place, delivery in enumerate(deliveries):
            if not delivery.is_new:
                store.insert_transaction(transactions[place], find_person(place))
        return rows


def _transaction_of(event: Event) -> Transaction:
    known = event.get("label_known_at_us")
    return Transaction(
        transaction_id=event["transaction_id"],
        customer_id=event["customer_id"],
        occurred_at=from_micros(event["occurred_at_us"]),
        amount=event["amount"],
        direction=event.get("direction") or "debit",
        merchant=event.get("merchant"),
        country=event.get("country"),
        is_fraud=event.get("is_fraud"),
        label_known_at=None if known is None else from_micros(known),
    )


def read_events(file: Path) -> Iterator[Event]:
    """Yield the events of a Parquet file in the order of its rows."""
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    for values in zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True):
        yield dict(zip(table.column_names, values, strict=True))


def main(folder: Path, seed: int) -> None:
    """Replay the events of a folder and write the features to it."""
    events = list(read_events(folder / EVENTS))
    features = from_json(json.loads((folder / DECLARATIONS).read_text(encoding="utf-8")))
    workers = StoreWorkers(folder / "store.sqlite", features)
    arrivals = plan_arrivals(events, features, seed, len(CACHED_EVENTS))
    scored = frozenset(json.loads((folder / SCORED).read_text(encoding="utf-8")))
    replayed = replay(events, arrivals, workers, len(features), scored)
    workers.close()
    np.savez(folder / REPLAYED, arrived=replayed.arrived, settled=replayed.settled)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
