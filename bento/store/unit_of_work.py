"""Transactions of the store, each committed with its audit records, and the tokens and keys that statements use.

Statements on decisions, transactions, snapshots and shadow scores stand in the modules of those names; they take a `UnitOfWork`.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol
from uuid import uuid4

from sqlalchemy import Connection, bindparam, exc, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite

from bento.problems import log_failure
from bento.store import migrations
from bento.store.audit_chain import AuditError, Chain
from bento.store.database import WAIT_S, Database, StoreBusy, StoreUnavailable
from bento.store.keyring import AUDIT_BEGAN, BOUND, CLOSED, SERVICE_KEY_OWNER, Keyring, KeyringError, key_context
from bento.store.migrations.binding import bind_rows
from bento.store.records import Person, RequestOrigin
from bento.store.statements import CompiledStatement, TextsQuery
from bento.store.tables import OF_KEYS, alerts, audit, checkpoints, decisions, keys, people
from finrisk_assets.features.recent_events import RecentEvents

PROBE_BYTES = 128 * 1024
"""Bytes of the row that `is_writable` writes to SQLite: the pages of a decision with its index entries where many of them are split."""
MAX_CACHED_KEYS = 10_000
"""Unwrapped data keys of people in memory; the oldest goes first. More saves unwrapping and costs about 200 bytes each."""

_FIND_PERSON = CompiledStatement(select(people.c.person, people.c.wrapped_key).where(people.c.lookup == bindparam("token")))
_FIND_PEOPLE = TextsQuery(select(people.c.lookup, people.c.person, people.c.wrapped_key), people.c.lookup)
_INSERT_PERSON = {
    name: dialect.insert(people).on_conflict_do_nothing() for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}

_INSERT_PROBE = text(
    "insert into transactions (transaction_token, person, occurred_at, amount, direction, sealed) "
    "values (:probe, :owner, 0, 0, '-', :filler)"
)
_COUNT_HISTORY_CHANGE = text(
    "insert into history_version (id, number) values (1, 1) on conflict (id) do update set number = history_version.number + 1"
)
# A row that another server inserted, before the database was restored from a dump: its number says nothing here. A snapshot shows only
# rows of transactions below its ceiling, so every such row that it shows is one.
_FORGET_FOREIGN_NUMBERS = text(
    "update transactions set written_in = null where written_in >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
)
_DELETE_PROBE = text("delete from transactions where transaction_token = :probe")
_PROBED_TABLES = (people, decisions, alerts, audit)
"""The tables beside `transactions` into which a decision inserts rows."""
_PROBE_VALUES = {int: -1, float: -1.0, str: "", bytes: b""}
"""Type of a column that is not null -> its value in a probe's row. No position of the store is negative."""

_KEY_TRACES = select(keys.c.id).limit(1), select(audit.c.number).where(OF_KEYS).limit(1)
"""Queries that find a row where the store ever had an API key."""


class Meter(Protocol):
    """A counter of commits and audit records."""

    def observe_commit(self, seconds: float) -> None: ...

    def count_audit_record(self, action: str) -> None: ...


class NullMeter:
    """A meter that counts nothing."""

    def observe_commit(self, seconds: float) -> None: ...

    def count_audit_record(self, action: str) -> None: ...


def now_us() -> int:
    """Return the present in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


class UnitOfWork:
    """An open store's transactions, audit chain, tokens and data keys; see `bento.store.session.Store` for the parameters."""

    def __init__(
        self,
        url: str | Path,
        keyring: Keyring,
        *,
        writer: str | None = None,
        clock: Callable[[], int] = now_us,
        durable: bool = True,
        wait_s: float = WAIT_S,
        upgrades: bool | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.keyring = keyring
        self.clock = clock
        self._meter = meter or NullMeter()
        self._chain = Chain(writer or uuid4().hex, keyring)
        self._keys: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()
        self._people: dict[str, Person] = {}  # of the transaction that writes, by token
        self._tokens: dict[tuple[str, str], str] = {}  # of the transaction that writes
        self._audited_actions: list[str] = []
        self.recent_events = RecentEvents()
        self.queued_transactions: list[dict[str, Any]] = []  # rows of the transaction that writes, see `transactions.queue_transaction`
        self.database = Database(url, durable=durable, wait_s=wait_s)
        migrations.check(self.database, upgrades=self.database.dialect == "sqlite" if upgrades is None else upgrades)
        # No client waits for an answer yet, and `finrisk load-history` may be writing.
        with closing(Database(url, wait_s=max(wait_s, migrations.PATIENCE_S))) as patient, patient.writing() as connection:
            keyring.unlock(connection, clock())
            if CLOSED not in keyring.marks and any(connection.execute(query).first() for query in _KEY_TRACES):
                keyring.add_mark(connection, CLOSED)
        if BOUND not in keyring.marks:
            with self.writing() as connection:
                bind_rows(connection, keyring, self.audit)

    def close(self) -> None:
        """Put a checkpoint on the recorded audit, if the database allows it now, and close the database."""
        try:
            with self.database.writing() as connection:
                self.keyring.read_marks(connection)
                self._chain.stop(connection, self.clock())
        except (StoreUnavailable, AuditError, KeyringError):
            pass  # the chain's head holds the same, or the store is another one
        self.database.close()

    # Transactions

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Commit the block with its audit records to disk, or nothing of it. Inside another `writing` the block is part of that one.

        Never wait for another coroutine inside.

        Raises
        ------
        StoreUnavailable
            Where the database is not available or did not commit: then nothing inside has happened.
        bento.store.audit_chain.AuditError
            Where another process changed this store's chain.
        """
        with self.database.lock:
            if self.database.is_writing:
                yield self.database.writing_connection()
                return
            try:
                with self.database.writing(self._flush) as connection:
                    self._check_file(connection)
                    yield connection
            except BaseException as error:
                self._chain.rolled_back()
                self.recent_events.roll_back()
                if isinstance(error, StoreUnavailable) and not isinstance(error, StoreBusy):  # the commit may have taken place
                    self.recent_events.clear()
                raise
            else:
                self._chain.committed()
                self._meter.observe_commit(self.database.commit_s)
                for action in self._audited_actions:
                    self._meter.count_audit_record(action)
            finally:
                self.recent_events.end_transaction()
                self.queued_transactions.clear()
                self._audited_actions.clear()
                self._people.clear()
                self._tokens.clear()

    def _flush(self, connection: Connection) -> None:
        """Write the audit's pending records, after checking that the store is the one that the keyring was unlocked with."""
        begins = self._chain.begins
        marks = self.keyring.read_marks(connection) if begins else frozenset()
        self._chain.flush(connection)
        if self.recent_events.is_void and self.database.dialect == "postgresql":
            connection.execute(_COUNT_HISTORY_CHANGE)
        if begins and not any(mark.startswith(AUDIT_BEGAN) for mark in marks):
            first = connection.execute(select(checkpoints.c.mac).where(checkpoints.c.position == 1)).scalar_one()
            self.keyring.add_mark(connection, AUDIT_BEGAN + first)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo the block where it fails, inside `writing`; earlier writes stand, and the transaction goes on."""
        with self.writing() as connection:
            pending, mark = self._chain.waiting(), self.recent_events.mark()
            try:
                with self.database.savepoint(connection):
                    yield
            except BaseException:
                self._chain.forget(pending)
                self.recent_events.roll_back(mark)
                self.queued_transactions.clear()
                del self._audited_actions[pending:]
                self._people.clear()  # a person who was inserted in the block is unknown again
                raise

    def reading(self) -> AbstractContextManager[Connection]:
        """Read one consistent state of the store; inside `writing`, that transaction's own state.

        Raises
        ------
        StoreUnavailable
            Where the database is not available.
        """
        return self.database.reading()

    def is_writable(self) -> bool:
        """Write rows as a decision does, take them back, commit, and return whether that succeeded and room is left for a decision."""
        try:
            self.database.check_room()
            with self.database.writing() as connection:
                self._check_file(connection)
                self._chain.check(connection)
                self._probe_tables(connection)
                # A quota shows in no number of free bytes: only a row that reaches the disk tells it.
                filler = bytes(PROBE_BYTES) if self.database.dialect == "sqlite" else None
                probe = f"probe:{self._chain.writer}"
                connection.execute(_INSERT_PROBE, {"probe": probe, "owner": SERVICE_KEY_OWNER, "filler": filler})
                connection.execute(_DELETE_PROBE, {"probe": probe})
                return True
        except (StoreUnavailable, AuditError, KeyringError, exc.SQLAlchemyError) as error:
            log_failure(error)
            return False

    def _probe_tables(self, connection: Connection) -> None:
        """Insert a row into each table that a decision inserts into, and take all back: a trigger or a missing right refuses it."""
        with connection.begin_nested() as savepoint:
            for table in _PROBED_TABLES:
                row = {column.name: _PROBE_VALUES[column.type.python_type] for column in table.columns if not column.nullable}
                key = next(iter(table.primary_key))
                connection.execute(insert(table), row | ({key.name: self._chain.writer} if key.type.python_type is str else {}))
            savepoint.rollback()

    def _check_file(self, connection: Connection) -> None:
        """Refuse another store that came into the place of this store's file or database."""
        if self.database.is_replaced:
            self.keyring.read_marks(connection)
            if self.database.dialect == "postgresql":
                connection.execute(_FORGET_FOREIGN_NUMBERS)
            self.database.is_replaced = False

    def advisory_lock(self, **names: str | Iterable[str] | None) -> None:
        """Lock these identifiers until commit (no-op on SQLite, which has one writer).

        Parameters
        ----------
        **names
            Kind of identifier -> one value or several: ``customer``, ``transaction``, ``idempotency``, ``bundle``. None is left out.
        """
        if self.database.dialect == "postgresql":
            with self.writing() as connection:
                values_of = {kind: (value,) if isinstance(value, str) else value or () for kind, value in names.items()}
                tokens = [self.keyring.token(kind, value) for kind, values in values_of.items() for value in values]
                if tokens:
                    self.database.advisory_lock(connection, tokens)
                    self.recent_events.is_current = False  # the former holders of the locks have committed meanwhile

    def audit(self, action: str, *, at: int | None = None, origin: RequestOrigin | None = None, **fields: Any) -> None:
        """Record an action, inside `writing`: committed with it, or not at all.

        Parameters
        ----------
        action
            ``decide``, ``read``, ``export``, ...
        at
            Microseconds since 1970, UTC. Default: now.
        origin
            Whose request it was. Default: the current request.
        **fields
            ``person`` (the pseudonymous id), ``domain``, ``model_version``, ``inputs``, ``output``: see `bento.store.audit_chain.Record`.
        """
        self.database.writing_connection()
        caller, request_id = origin or RequestOrigin.current()
        self._chain.append(at=self.clock() if at is None else at, caller=caller, action=action, request_id=request_id, **fields)
        self._audited_actions.append(action)

    # Tokens, people and their keys

    def token(self, kind: str, value: str) -> str:
        """Return `Keyring.token`, remembered while a transaction writes: a decision needs some of them three or four times."""
        token = self._tokens.get((kind, value))
        if token is None:
            token = self.keyring.token(kind, value)
            if self.database.is_writing:
                self._tokens[kind, value] = token
        return token

    def person(self, customer_id: str, *, make: bool = False) -> Person | None:
        """Return the person behind a customer's identifier.

        Parameters
        ----------
        make
            Whether an unknown customer is inserted.

        Returns
        -------
        Person or None
            None for a customer who is unknown or was erased.
        """
        with self.database.lock:  # the remembered people are those of its holder's transaction
            if (remembered := self._people.get(self.token("customer", customer_id))) is not None:
                return remembered
        with self.writing() if make else self.reading() as connection:
            person = self.find_person(connection, customer_id)
            if person is None and make:
                connection.execute(_INSERT_PERSON[self.database.dialect], self._new_person(self.token("customer", customer_id)))
                person = self.find_person(connection, customer_id)
            return person

    def find_person(self, connection: Connection, customer_id: str) -> Person | None:
        """Return the person behind a customer's identifier, inside `reading` or `writing`; None as of `person`."""
        token = self.token("customer", customer_id)
        if (remembered := self._people.get(token)) is not None:
            return remembered
        row = _FIND_PERSON(connection, {"token": token}).fetchone()
        if row is None:
            return None
        person = Person(row[0], self.data_key(row[0], token, row[1]))
        if self.database.is_writing:
            self._people[token] = person
        return person

    def register_customers(self, customer_ids: Iterable[str]) -> dict[str, str]:
        """Insert customers who are unknown, and return customer_id -> pseudonymous id."""
        tokens = {customer: self.keyring.token("customer", customer) for customer in sorted(customer_ids)}
        if not tokens:
            return {}
        lookups = list(dict.fromkeys(tokens.values()))
        with self.writing() as connection:
            registered = {lookup for lookup, *_ in _FIND_PEOPLE(connection, lookups)}
            if rows := [self._new_person(token) for token in lookups if token not in registered]:
                connection.execute(_INSERT_PERSON[self.database.dialect], rows)
            person_of = {lookup: person for lookup, person, _ in _FIND_PEOPLE(connection, lookups)}
            return {customer: person_of[token] for customer, token in tokens.items()}

    def remember_people(self, customer_ids: Iterable[str]) -> None:
        """Read the people behind these customers at once, for `person` in this transaction; unknown ones are inserted. Inside `writing`."""
        connection = self.database.writing_connection()
        tokens = sorted({self.token("customer", customer_id) for customer_id in customer_ids} - self._people.keys())
        if not tokens:
            return
        rows = list(_FIND_PEOPLE(connection, tokens))
        if new := sorted(set(tokens) - {token for token, *_ in rows}):
            connection.execute(_INSERT_PERSON[self.database.dialect], [self._new_person(token) for token in new])
            rows += _FIND_PEOPLE(connection, new)
        self._people |= {token: Person(person, self.data_key(person, token, wrapped)) for token, person, wrapped in rows}

    def _new_person(self, token: str) -> dict[str, Any]:
        person = token_hex(16)
        wrapped = self.keyring.wrap(self.keyring.new_key(), key_context(person, token))
        return {"person": person, "lookup": token, "wrapped_key": wrapped, "master": self.keyring.master, "created_at": self.clock()}

    def data_key(self, person: str, lookup: str | None, wrapped: bytes) -> bytes:
        """Return a person's data key, unwrapped.

        The cache goes by the wrapped bytes and their context, which are read from the store each time: neither an erased key nor the key
        of a row with another look-up token is found in it.

        Raises
        ------
        bento.store.keyring.KeyringError
            If the key was wrapped for another person or another look-up token.
        """
        context = key_context(person, lookup)
        key = self._keys.get((context, wrapped))
        if key is None:
            key = self._keys[context, wrapped] = self.keyring.unwrap(wrapped, context)
            if len(self._keys) > MAX_CACHED_KEYS:
                self._keys.popitem(last=False)
        return key

    def key_of(self, person: str | None, lookup: str | None, wrapped: bytes | None) -> bytes | None:
        """Return the key that seals a person's data, the service's key where no person is named, or None where the person was erased."""
        if person is None:
            return self.keyring.service_key
        return None if wrapped is None else self.data_key(person, lookup, wrapped)
