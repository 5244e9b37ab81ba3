"""The service's store as other rooms use it: every operation by name.

One store per source, shared by all workers. It holds recent transactions (the input of history features), decisions, feature snapshots
and shadow scores. A decision is committed with its audit record before its answer is sent, so a client that saw the answer gets the same
answer again. Identifiers are tokenised and sealed inside this folder, and read back here only.

`unit_of_work` has transactions, audit and keys; the SQL of each operation stands in the module that the method calls.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import cached_property
from threading import BoundedSemaphore, get_ident
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Connection

from bento.problems import Problem, log_failure
from bento.store import bulk_load, decisions, shadow_scores, snapshots, transactions
from bento.store.audit_chain import AuditError
from bento.store.database import Database, StoreBusy, StoreUnavailable, location
from bento.store.keyring import Keyring, KeyringError
from bento.store.records import (
    DecisionPayload,
    FeatureSnapshot,
    NewDecision,
    Person,
    PriorDecision,
    ShadowScore,
    StoredDecision,
    Transaction,
)
from bento.store.shadow_scores import MAX_SHADOW_SCORES
from bento.store.transactions import Entity, HistoryQuery
from bento.store.unit_of_work import UnitOfWork
from finrisk_assets.features.online import EventCount, History
from finrisk_assets.features.online_chunk import HeldEvents
from finrisk_assets.features.recent_events import Event
from finrisk_assets.settings import Settings

MAX_WAITING_CALLS = 256
"""Calls that wait for the store's thread at most; the next one is refused. More need more memory."""
MAX_QUEUED_S = 2.0
"""Seconds after which a call that still waits for the store's thread is refused. More let requests queue up behind a slow writer."""
STORE_FAULTS = (StoreUnavailable, AuditError, KeyringError)
"""Faults of the store, its audit and its keys: a client gets 503, nothing is stored, a retry is safe."""
P = ParamSpec("P")
R = TypeVar("R")


class StoreThread:
    """The one thread in which requests wait for their store, so that the event loop never waits.

    Calls are made in the order in which they come. A call runs in the context of its request. Their number and the time for which they
    queue are bounded; the time for which a call waits for a lock is bounded by the database.

    Parameters
    ----------
    max_waiting
        Calls that are made or wait at most.
    max_queued_s
        Seconds after which a call that still waits is refused.
    """

    def __init__(self, max_waiting: int = MAX_WAITING_CALLS, max_queued_s: float = MAX_QUEUED_S) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="finrisk-store")
        self._free = BoundedSemaphore(max_waiting)
        self._max_queued_s = max_queued_s

    async def run(self, call: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """Make a call in the thread and return its result.

        Raises
        ------
        bento.problems.Problem
            503 where too many calls wait, or this one waited too long.
        """
        return await asyncio.wrap_future(self.submit(call, *arguments, **options))

    async def run_if_busy(self, call: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
        """Make a call at once where the store is free, else in the thread.

        The call may begin twice: it writes in one transaction at most, and the first failure leaves nothing of it.

        Raises
        ------
        bento.problems.Problem
            As of `run`.
        """
        try:
            return call(*arguments, **options)
        except StoreBusy:
            return await self.run(call, *arguments, **options)

    def submit(self, call: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> Future[R]:
        """Queue a call and return its future.

        Raises
        ------
        bento.problems.Problem
            503 where too many calls wait.
        """
        if not self._free.acquire(blocking=False):
            raise self._refuse("too many calls wait for it")
        context, queued_at = copy_context(), monotonic()

        def make_call() -> R:
            if monotonic() - queued_at > self._max_queued_s:
                raise context.run(self._refuse, "another call held it for too long")
            return context.run(call, *arguments, **options)

        future = self._executor.submit(make_call)
        future.add_done_callback(lambda _: self._free.release())
        return future

    def stop(self) -> None:
        """Make the queued calls, then end the thread."""
        self._executor.shutdown()

    @staticmethod
    def _refuse(reason: str) -> Problem:
        log_failure(StoreUnavailable(reason))
        return Problem.from_status(503)


class Store(UnitOfWork):
    """An open store. One per worker; a transaction belongs to one thread, other threads wait.

    Parameters
    ----------
    url
        The database, see `bento.store.database.location`. A missing SQLite file is created with this code's schema.
    keyring
        The keys of tokens, of the audit and of people's keys. The store unlocks it.
    writer
        The name of the store's chain in the audit, which no other process uses. Default: a new one.
    clock
        Returns microseconds since 1970, UTC. Nothing depends on its going forward.
    durable
        Whether a commit is on disk before it returns. If not, a commit survives everything but a failure of the machine.
    wait_s
        Seconds to wait for another writer.
    upgrades
        Whether a store of an older schema is migrated. Default: on SQLite only, where no worker of older code can share the
        file. On PostgreSQL the service should not own the tables, and other workers may still need the old schema.
    meter
        Counts commits and audit records.

    Raises
    ------
    bento.store.database.StoreError
        Where the store cannot be used as it is: another schema, a wrong URL.
    bento.store.database.StoreUnavailable
        Where the database is not available now.
    bento.store.keyring.KeyringError
        Where the keyring is not the one that the store was created with.
    """

    # Waiting

    @cached_property
    def thread(self) -> StoreThread:
        """The thread in which requests wait for this store."""
        return StoreThread()

    def never_wait_here(self) -> None:
        """Declare the current thread an event loop's: from now on a call in it that would wait raises `StoreBusy` instead."""
        self.database.lock.loop_thread = get_ident()

    @cached_property
    def _second_database(self) -> Database:
        """The same database on a connection of its own."""
        return Database(self.database.url)

    @contextmanager
    def reading_apart(self) -> Iterator[Database]:
        """Read on a second connection, which takes long: decisions go on meanwhile. Call this in a thread of its own.

        Raises
        ------
        bento.problems.Problem
            503 where the store cannot be read.
        """
        with map_store_faults():
            yield self._second_database

    def close(self) -> None:
        """End the store's thread, then close the store, see `UnitOfWork.close`."""
        self.database.lock.loop_thread = None
        self.thread.stop()
        if "_second_database" in self.__dict__:
            self._second_database.close()
        super().close()

    # Decisions

    def new_id(self) -> str:
        """Return a new decision's identifier, see `decisions.new_id`."""
        return decisions.new_id(self)

    def digest(self, request: bytes) -> str:
        """Return a keyed digest of a request, see `decisions.digest_request`."""
        return decisions.digest_request(self, request)

    def find_prior_decision(self, *, transaction_id: str | None = None, key: str | None = None) -> PriorDecision | None:
        """Return the prior decision made under one of these identifiers, see `decisions.find_prior_decision`."""
        return decisions.find_prior_decision(self, transaction_id=transaction_id, key=key)

    def has_prior_decision(self, *, transaction_ids: Iterable[str], keys: Iterable[tuple[str, str]]) -> bool:
        """Return whether there is a decision under any of these identifiers, see `decisions.has_prior_decision`."""
        return decisions.has_prior_decision(self, transaction_ids=transaction_ids, keys=keys)

    def find_decided(self, transaction_ids: Iterable[str]) -> set[str]:
        """Return those of these transactions' identifiers under which there is a decision, see `decisions.find_decided`."""
        return decisions.find_decided(self, transaction_ids)

    def insert_decisions(self, new_decisions: Sequence[NewDecision]) -> None:
        """Insert decisions with their audit records, see `decisions.insert_decisions`."""
        decisions.insert_decisions(self, new_decisions)

    def decisions(self, *, after: int = 0, domains: Collection[str] = ()) -> Iterator[StoredDecision]:
        """Yield all decisions in the order of writing, see `decisions.list_decisions`."""
        return decisions.list_decisions(self, after=after, domains=domains)

    def find_decision(self, decision_id: str) -> StoredDecision | None:
        """Return a decision, unsealed; None where there is no such decision."""
        return decisions.find_decision(self, decision_id)

    def open_payload(
        self, decision_id: str, person: str | None, lookup: str | None, wrapped: bytes | None, sealed: bytes
    ) -> DecisionPayload | None:
        """Return the unsealed payload of a decision, see `decisions.open_payload`."""
        return decisions.open_payload(self, decision_id, person, lookup, wrapped, sealed)

    # Transactions

    def insert_transaction(self, transaction: Transaction, person: Person) -> bool:
        """Insert a transaction into history, see `transactions.insert_transaction`."""
        return transactions.insert_transaction(self, transaction, person)

    def load_transactions(self, ledger: Iterable[Transaction]) -> int:
        """Store the ledger's transactions, see `bulk_load.load_transactions`."""
        return bulk_load.load_transactions(self, ledger)

    def queue_transaction(self, transaction: Transaction, person: Person) -> None:
        """Add a transaction to history, with its row inserted later, see `transactions.queue_transaction`."""
        transactions.queue_transaction(self, transaction, person)

    def insert_queued(self) -> None:
        """Insert the queued transactions, see `transactions.insert_queued`."""
        transactions.insert_queued(self)

    def forget_histories(self) -> None:
        """Empty the cache of recent events of every worker, see `transactions.forget_histories`."""
        transactions.forget_histories(self)

    def histories(self, event: Mapping[str, Any], reach: Mapping[Entity, timedelta], before: datetime) -> dict[Entity, list[Event]]:
        """Return the earlier events of each entity of an event, see `transactions.histories`."""
        return transactions.histories(self, event, reach, before)

    def read_history(
        self, event: Mapping[str, Any], query: HistoryQuery, before: datetime
    ) -> tuple[dict[Entity, History], dict[Entity, list[int]]]:
        """Return what features read of an event's history, see `transactions.read_history`."""
        return transactions.read_history(self, event, query, before)

    def hold_histories(self, events: Sequence[Mapping[str, Any]], query: HistoryQuery, first: int = 0) -> tuple[int, HeldEvents | None]:
        """Return the histories of events that can be taken together, see `transactions.hold_histories`."""
        return transactions.hold_histories(self, events, query, first)

    def read_movements(self, customer_id: str, reach: timedelta, before: datetime) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Return what rules read of a customer's history, see `transactions.read_movements`."""
        return transactions.read_movements(self, customer_id, reach, before)

    def counts(self, event: Mapping[str, Any], counts: Mapping[Entity, Sequence[EventCount]], before: datetime) -> dict[Entity, list[int]]:
        """Return the numbers of earlier events of each entity of an event, see `transactions.counts`."""
        return transactions.counts(self, event, counts, before)

    def history(self, entity: Mapping[str, str], after: datetime, before: datetime) -> list[Event]:
        """Return the events of one entity between two moments, neither included."""
        columns = tuple(entity)
        return self.histories(entity, {columns: before - after}, before)[columns]

    # Feature snapshots and shadow scores

    def replace_snapshots(self, new_snapshots: Iterable[FeatureSnapshot]) -> int:
        """Replace all stored snapshots, see `snapshots.replace_snapshots`."""
        return snapshots.replace_snapshots(self, new_snapshots)

    def find_snapshots(
        self, *, customer_id: str | None = None, account_id: str | None = None, domain: str | None = None
    ) -> list[FeatureSnapshot]:
        """Return the snapshots of a customer or of an account, see `snapshots.find_snapshots`."""
        return snapshots.find_snapshots(self, customer_id=customer_id, account_id=account_id, domain=domain)

    def insert_shadow_scores(self, scores: Sequence[ShadowScore], most: int = MAX_SHADOW_SCORES) -> None:
        """Insert shadow scores and delete the oldest ones, see `shadow_scores.insert_shadow_scores`."""
        shadow_scores.insert_shadow_scores(self, scores, most)

    def list_shadow_scores(self, domain: str) -> list[ShadowScore]:
        """Return the shadow scores of a domain, see `shadow_scores.list_shadow_scores`."""
        return shadow_scores.list_shadow_scores(self, domain)


def open_store(settings: Settings, **options: Any) -> Store:
    """Open the store of a source with its keyring; `options` are those of `Store`."""
    return Store(location(settings), Keyring.of(settings), **options)


@contextmanager
def write_transaction(store: Store) -> Iterator[Connection]:
    """Write to the store for the answer to a request: all of it is committed at the end, or nothing is.

    Raises
    ------
    bento.problems.Problem
        503 where the store cannot be reached or written, its audit was changed, or a key cannot be opened.
    bento.store.database.StoreBusy
        In the event loop's thread, where the block would have to wait: `StoreThread.run` makes the same call elsewhere.
    """
    with map_store_faults(), store.writing() as connection:
        yield connection


@contextmanager
def map_store_faults() -> Iterator[None]:
    """Turn a fault of the store into a logged 503; alone for reads, inside `write_transaction` for writes.

    Raises
    ------
    bento.problems.Problem
        503 for each of `STORE_FAULTS`.
    """
    try:
        yield
    except StoreBusy:
        raise
    except STORE_FAULTS as error:
        log_failure(error)
        raise Problem.from_status(503) from None
