"""What the service remembers: recent transactions, which history features are computed from; the decisions it made; how each customer
stood in each domain when the ledger was last read; and what a challenger would have answered beside the champion.

One store per source, shared by all workers. A decision is committed with its audit record before its answer is sent, so a client that saw
it will get the same one again. Identifiers are turned into tokens and sealed here, and back: nobody outside sees how they are kept. The
tables stand in `tables`, transactions and faults in `database`. Statements on people and their keys as such stand in `people`, those of
the audit in `audit`, of API keys in `keys`: nowhere else is there SQL.
"""

import csv
import hashlib
import io
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import datetime, timedelta
from functools import cache
from itertools import islice
from operator import itemgetter
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple, Protocol, TypeAlias
from uuid import uuid4

import numpy as np
from sqlalchemy import Connection, bindparam, delete, func, insert, literal_column, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from bento.context import current as current_caller
from bento.context import request_id as current_request
from bento.store import migrations
from bento.store.audit_chain import Chain
from bento.store.database import WAIT_S, CompiledStatement, Database, StoreError, StoreUnavailable, location
from bento.store.keyring import Keyring, KeyringError, seal, unseal
from bento.store.tables import decisions, people, shadows, standings, transactions
from finrisk_assets.features.online import EventCount, micros
from finrisk_assets.features.windows import MICRO
from finrisk_assets.scoring.spec import Rows
from finrisk_assets.settings import Settings

__all__ = ["StoreError", "StoreUnavailable", "location"]  # what a caller of the store has to know of `database`

_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
MOST_SHADOWS = 100_000
"""Records of shadow scoring that are kept of each domain, the newest."""
CHUNK = 4_000
"""Transactions that are loaded at once: others write between two chunks."""
_MOST_KEYS = 10_000
_PAGE = 500
_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

Event: TypeAlias = tuple[int, float, bool | None, int | None]
"""occurred_at_us, amount, is_fraud, label_known_at_us: what history features read. Microseconds since 1970, UTC."""
Entity: TypeAlias = tuple[str, ...]
"""The columns that name what a history is of."""


class Transaction(NamedTuple):
    """One movement of money, as the ledger's table `transactions` has it."""

    transaction_id: str
    customer_id: str
    occurred_at: datetime
    amount: float
    direction: str
    merchant: str | None = None
    country: str | None = None
    is_fraud: bool | None = None
    label_known_at: datetime | None = None


class Person(NamedTuple):
    """Somebody who is known: a surrogate that means nothing elsewhere, and the key under which what is kept of them is sealed."""

    person: str
    key: bytes


class PriorDecision(NamedTuple):
    """A decision that was made before, under an identifier that a request names again.

    Attributes
    ----------
    digest
        Of the request that it answered.
    body
        The answer; None where the person was erased since.
    """

    id: str
    digest: str
    body: bytes | None


class NewDecision(NamedTuple):
    """A decision on its way into the store.

    Attributes
    ----------
    id
        Its own: see `Store.new_id`.
    request, answer
        JSON.
    row
        The model's row, float32 of shape (d,).
    known
        What else is needed to decide once more; JSON can say it.
    person
        Whom it is about; None where the request named nobody.
    transaction_id, key
        The identifiers under which the same request gets the same answer; the key belongs to the current caller.
    digest
        Of the request as it was sent, where that is not `request`.
    """

    id: str
    domain: str
    route: str
    model_version: str
    request: bytes
    answer: bytes
    row: Rows
    probability: float
    decision: str
    known: Any = None
    person: Person | None = None
    transaction_id: str | None = None
    key: str | None = None
    digest: str | None = None


class DecisionPayload(NamedTuple):
    """What a decision was made of.

    Attributes
    ----------
    request, answer
        As JSON.
    known
        What else the domain decided with, as JSON.
    row
        The model's row, float32 of shape (d,).
    """

    request: dict[str, Any]
    answer: dict[str, Any]
    known: Any
    row: Rows


class StoredDecision(NamedTuple):
    """A decision as it is kept.

    Attributes
    ----------
    position
        The order in which decisions were written, whatever the clock said.
    decided_at
        Microseconds since 1970, UTC.
    sealed
        As it lies in the store; its SHA-256 is the output of the decision's audit record, whose inputs are `digest`.
    content
        None where the person was erased, or the bytes were changed.
    erased
        Whether the person was.
    """

    position: int
    id: str
    person: str | None
    domain: str
    route: str
    model_version: str
    caller: str
    request_id: str
    digest: str
    decided_at: int
    probability: float | None
    decision: str | None
    sealed: bytes
    content: DecisionPayload | None
    erased: bool


class FeatureSnapshot(NamedTuple):
    """How a customer, or one account of a customer, stood in one domain: the newest features and the score that the batch gave them.

    Attributes
    ----------
    domain, subject
        The domain, and the key of the row in its tables: ``5@2024-06``.
    account_id
        None where the domain decides on the customer as a whole.
    as_of
        When the decision fell; None where the source knows no time.
    features
        What was known then, by name: the features, and the numbers that stand beside them (a PD, an income).
    score
        The columns of the batch score by name: ``score``, ``probability``, ``decision``, ``model_version`` and the domain's own.
    """

    domain: str
    subject: str
    customer_id: str
    account_id: str | None
    as_of: datetime | None
    features: Mapping[str, float | None]
    score: Mapping[str, Any]


class ShadowScore(NamedTuple):
    """What the champion answered to one request, and what the challenger would have.

    Attributes
    ----------
    domain, subject
        The domain, and the key of the row in its tables; None where the request named nobody.
    scored_at
        When it was answered.
    challenger_probability, challenger_decision
        None where the challenger failed.
    failure
        The type of its failure.
    customer_id
        Whom it is about; not read back.
    """

    domain: str
    subject: str | None
    scored_at: datetime
    champion_version: str
    champion_probability: float
    champion_decision: str
    challenger_version: str
    challenger_probability: float | None
    challenger_decision: str | None
    failure: str | None
    customer_id: str | None = None


class Meter(Protocol):
    """Who counts what the store does."""

    def committed(self, seconds: float) -> None: ...

    def audited(self, action: str) -> None: ...


class NullMeter:
    def committed(self, seconds: float) -> None: ...

    def audited(self, action: str) -> None: ...


def now_us() -> int:
    """The present in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


# Statements, built once: SQLAlchemy keeps the text of each for the dialect.

_PERSON = CompiledStatement(select(people.c.person, people.c.wrapped_key).where(people.c.lookup == bindparam("token")))
_NEW_PERSON = {name: dialect.insert(people).on_conflict_do_nothing() for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))}
_GIVEN = CompiledStatement(
    select(decisions.c.id, decisions.c.digest, decisions.c.sealed, decisions.c.person, people.c.wrapped_key)
    .select_from(decisions.outerjoin(people, decisions.c.person == people.c.person))
    .where(or_(decisions.c.transaction_token == bindparam("sent"), decisions.c.idempotency == bindparam("key")))
)
_KEEP_DECISION = CompiledStatement(insert(decisions).inline(), [column.name for column in decisions.columns if column.name != "position"])
_KEEP_TRANSACTION = CompiledStatement(
    postgresql.insert(transactions).on_conflict_do_nothing(), [column.name for column in transactions.columns]
)
_TRANSACTION = select(transactions).where(transactions.c.transaction_token == bindparam("token"))
_PAGE_OF = (
    select(
        decisions.c.position,
        decisions.c.id,
        decisions.c.person,
        decisions.c.domain,
        decisions.c.route,
        decisions.c.model_version,
        decisions.c.caller,
        decisions.c.request_id,
        decisions.c.digest,
        decisions.c.decided_at,
        decisions.c.probability,
        decisions.c.decision,
        decisions.c.sealed,
        people.c.wrapped_key,
    )
    .select_from(decisions.outerjoin(people, decisions.c.person == people.c.person))
    .where(decisions.c.position > bindparam("after"))
    .order_by(decisions.c.position)
    .limit(_PAGE)
)
_STANDING = select(
    standings.c.domain, standings.c.subject, standings.c.as_of, standings.c.sealed, people.c.person, people.c.wrapped_key
).select_from(standings.join(people, standings.c.person == people.c.person))
_STANDINGS_BY = {
    names: _STANDING.where(*((people if name == "lookup" else standings).c[name] == bindparam(name) for name in names))
    for who in (("lookup",), ("account",), ("lookup", "account"))
    for names in (who, (*who, "domain"))
}
_OLDEST_KEPT = (
    select(shadows.c.position)
    .where(shadows.c.domain == bindparam("named"))
    .order_by(shadows.c.position.desc())
    .limit(1)
    .offset(bindparam("most"))
    .scalar_subquery()
)
_FORGET_SHADOWS = delete(shadows).where(shadows.c.domain == bindparam("named"), shadows.c.position <= _OLDEST_KEPT)
_KEEP_SHADOWS = {
    name: dialect.insert(shadows).on_conflict_do_nothing() for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_SHADOWS = (
    select(shadows, people.c.wrapped_key)
    .select_from(shadows.outerjoin(people, shadows.c.person == people.c.person))
    .where(shadows.c.domain == bindparam("domain"))
    .order_by(shadows.c.position)
)
_SAME = ("person", "occurred_at", "amount", "direction", "merchant", "country")
"""What two transactions of one identifier must agree in; the label of fraud is learned later."""


_INDEXED = {"customer_id": "person", "merchant": "merchant"}
"""What history is kept by -> the column of its index."""
_OF_CUSTOMER = frozenset({"merchant", "country"})
"""What a customer's history can be narrowed down to."""
_BETWEEN = transactions.c.occurred_at > bindparam("after"), transactions.c.occurred_at < bindparam("before")


def _named(entity: Entity) -> list[Any]:
    return [transactions.c[_INDEXED.get(column, column)] == bindparam(column) for column in entity]


@cache
def _events(entity: Entity) -> CompiledStatement:
    """The events of an entity between two moments, neither included."""
    known = (transactions.c[name] for name in ("occurred_at", "amount", "is_fraud", "label_known_at"))
    return CompiledStatement(select(*known).where(*_named(entity), *_BETWEEN))


@cache
def _numbers(*asked: tuple[Entity, tuple[EventCount, ...]]) -> CompiledStatement:
    """How many events there were of entities that one index finds: a column for each number of each entity."""
    at, is_fraud, label_known_at = transactions.c.occurred_at, transactions.c.is_fraud, transactions.c.label_known_at
    numbers = [
        func.count().filter(
            *([] if since.known_s is None else [is_fraud, label_known_at - at <= literal_column(str(since.known_s * MICRO))]),
            *_named(entity)[1:],
            at > bindparam(f"reach_{since.reach_s}"),
        )
        for entity, counts in asked
        for since in counts
    ]
    return CompiledStatement(select(*numbers).where(_named(asked[0][0])[0], *_BETWEEN))


_LOADED = ("transaction_token", "person", "occurred_at", "amount", "direction", "merchant", "country", "is_fraud", "label_known_at")
_LEARN = "on conflict (transaction_token) do update set is_fraud = excluded.is_fraud, label_known_at = excluded.label_known_at "
_LEARN += "where excluded.is_fraud is not null and "
_LEARN += "(transactions.is_fraud, transactions.label_known_at) is distinct from (excluded.is_fraud, excluded.label_known_at)"


def _load_sqlite(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * len(_LOADED))
    connection.exec_driver_sql(f"insert into transactions ({', '.join(_LOADED)}) values ({marks}) {_LEARN}", rows)


def _load_postgresql(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    """Through COPY, into a table of this transaction: one round trip for all rows instead of one for each."""
    lines = io.StringIO()
    csv.writer(lines).writerows(["" if value is None else value for value in row] for row in rows)
    lines.seek(0)
    columns = ", ".join(_LOADED)
    connection.exec_driver_sql("create temporary table loaded (like transactions) on commit drop")
    cursor: Any = connection.connection.cursor()
    cursor.execute(f"copy loaded ({columns}) from stdin with (format csv)", stream=lines)
    # Of two rows of one transaction the last one counts, as it would one after the other.
    newest = f"select distinct on (transaction_token) {columns} from loaded order by transaction_token, ctid desc"
    connection.exec_driver_sql(f"insert into transactions ({columns}) {newest} {_LEARN}")


_LOAD = {"sqlite": _load_sqlite, "postgresql": _load_postgresql}


class Store:
    """An open store. One per worker; a transaction belongs to one thread, others wait.

    Parameters
    ----------
    url
        Where it is, see `location`. An SQLite file is made where it is missing and brought to this code's layout.
    keyring
        The keys of tokens, of the audit and of people's keys. It is unlocked here.
    writer
        The name of the store's chain in the audit, which no other process uses. Default: a new one.
    clock
        Tells microseconds since 1970, UTC. Nothing depends on its going forward.
    durable
        Whether what is written is on disk before it is done. Where not, it is not lost unless the machine fails.
    wait_s
        Seconds to wait for another writer.
    upgrades
        Whether a store of an older layout is brought to this one. Default: on SQLite only, where nobody else can be at work with an older
        code. On PostgreSQL the service should not own the tables, and other workers may still need the old layout.
    meter
        Counts commits and audit records.

    Raises
    ------
    StoreError
        Where it cannot be used as it is: another layout, an URL that is wrong.
    StoreUnavailable
        Where it cannot be had now.
    bento.store.keyring.KeyringError
        Where the keyring is not the one that it was made with.
    """

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
        self._keys: OrderedDict[bytes, bytes] = OrderedDict()
        self._seen: dict[str, Person] = {}  # while a transaction lasts
        self._tokens: dict[tuple[str, str], str] = {}  # the same
        self._audited: list[str] = []
        self.database = Database(url, durable=durable, wait_s=wait_s)
        migrations.check(self.database, upgrades=self.database.dialect == "sqlite" if upgrades is None else upgrades)
        # Nobody waits for an answer yet, and `finrisk load-history` may be at work.
        with closing(Database(url, wait_s=max(wait_s, migrations.PATIENCE_S))) as patient, patient.writing() as connection:
            keyring.unlock(connection, clock())

    def close(self) -> None:
        """Put a checkpoint on what was recorded, if that can be done now, and let go of the database."""
        try:
            with self.database.writing() as connection:
                self._chain.stop(connection, self.clock())
        except StoreUnavailable:
            pass  # the chain's head says as much; the checkpoint only says it twice
        self.database.close()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Everything inside, with its audit records, is committed to disk at the end, or nothing is. Inside another it is part of that.

        Never wait for another coroutine inside.

        Raises
        ------
        StoreUnavailable
            Where the database cannot be had, or did not commit: then nothing inside has happened.
        bento.store.audit_chain.AuditError
            Where somebody else changed this store's chain.
        """
        with self.database.lock:
            if self.database.is_writing:
                with self.database.writing() as connection:
                    yield connection
                return
            try:
                with self.database.writing(self._chain.flush) as connection:
                    yield connection
            except BaseException:
                self._chain.rolled_back()
                raise
            else:
                self._chain.committed()
                self._meter.committed(self.database.commit_s)
                for action in self._audited:
                    self._meter.audited(action)
            finally:
                self._audited.clear()
                self._seen.clear()
                self._tokens.clear()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Inside `writing`: what fails in here leaves nothing, what was written before stands, and the transaction goes on."""
        with self.writing() as connection:
            recorded = self._chain.waiting()
            try:
                with self.database.nested(connection):
                    yield
            except BaseException:
                self._chain.forget(recorded)
                del self._audited[recorded:]
                self._seen.clear()  # somebody who was made known in here is not known
                raise

    def reading(self) -> AbstractContextManager[Connection]:
        """One moment of the store; inside `writing`, what that has done so far.

        Raises
        ------
        StoreUnavailable
            Where the database cannot be had.
        """
        return self.database.reading()

    def is_writable(self) -> bool:
        """Whether a write would succeed now."""
        try:
            with self.database.writing():
                return True
        except StoreUnavailable:
            return False

    def audit(self, action: str, *, at: int | None = None, **what: Any) -> None:
        """Record what the current caller does, inside `writing`: with it, or not at all.

        Parameters
        ----------
        action
            ``decide``, ``read``, ``export``, ...
        at
            When. Default: now.
        **what
            ``person`` (the surrogate), ``domain``, ``model_version``, ``inputs``, ``output``: see `bento.store.audit_chain.Record`.
        """
        self.database.inside()
        caller, request = current_caller.get().name, current_request.get()
        self._chain.append(at=self.clock() if at is None else at, caller=caller, action=action, request_id=request, **what)
        self._audited.append(action)

    def _token(self, kind: str, value: str) -> str:
        """See `Keyring.token`: a decision needs some of them three or four times."""
        token = self._tokens.get((kind, value))
        if token is None:
            token = self.keyring.token(kind, value)
            if self.database.is_writing:
                self._tokens[kind, value] = token
        return token

    # People

    def person(self, customer_id: str, *, make: bool = False) -> Person | None:
        """Who a customer is here; None for one who is not known, or was erased, unless they are to be made known."""
        token = self._token("customer", customer_id)
        if (seen := self._seen.get(token)) is not None:
            return seen
        with self.writing() if make else self.reading() as connection:
            found = _PERSON(connection, {"token": token}).fetchone()
            if found is None and make:
                connection.execute(_NEW_PERSON[self.database.dialect], self._new_person(token))
                found = _PERSON(connection, {"token": token}).fetchone()
            if found is None:
                return None
            person = Person(found[0], self._key(*found))
            if self.database.is_writing:
                self._seen[token] = person
            return person

    def _new_person(self, token: str) -> dict[str, Any]:
        person = token_hex(16)
        wrapped = self.keyring.wrap(self.keyring.new_key(), person.encode())
        return {"person": person, "lookup": token, "wrapped_key": wrapped, "master": self.keyring.master, "created_at": self.clock()}

    def _key(self, person: str, wrapped: bytes) -> bytes:
        """A person's data key. It is remembered by what it was unwrapped from, which is asked of the store each time."""
        key = self._keys.get(wrapped)
        if key is None:
            key = self._keys[wrapped] = self.keyring.unwrap(wrapped, person.encode())
            if len(self._keys) > _MOST_KEYS:
                self._keys.popitem(last=False)
        return key

    def key_of(self, person: str | None, wrapped: bytes | None) -> bytes | None:
        """The key of what is kept of a person, or of nobody; None where they were erased."""
        if person is None:
            return self.keyring.service_key
        return None if wrapped is None else self._key(person, wrapped)

    # Decisions

    def find_prior_decision(self, *, transaction_id: str | None = None, key: str | None = None) -> PriorDecision | None:
        """The decision that was made under the identifier of a transaction, or under an idempotency key of the current caller.

        On PostgreSQL others who name one of them wait until this transaction ends.
        """
        sent = transaction_id and self._token("transaction", transaction_id)
        named = key and self._idempotency(key)
        if not sent and not named:
            return None
        with self.reading() as connection:
            rows = _GIVEN(connection, {"sent": sent, "key": named}).fetchall()
            if not rows:
                return None
            id, digest, sealed, person, wrapped = rows[0]
            opener = self.key_of(person, wrapped)
            # Where both are named they must name the same decision.
            same = digest if len(rows) == 1 else ""
            return PriorDecision(id, same, None if opener is None else _unpack(unseal(opener, sealed, id.encode()))[1])

    def advisory_lock(self, **names: str | None) -> None:
        """Have nobody else decide on any of these until the transaction ends; on SQLite nobody else writes anyway.

        Parameters
        ----------
        **names
            Kind of identifier -> value: ``customer``, ``merchant``, ``transaction``, ``idempotency``.
        """
        if self.database.dialect == "postgresql":
            with self.writing() as connection:
                tokens = [self.keyring.token(kind, value) for kind, value in names.items() if value is not None]
                self.database.advisory_lock(connection, tokens)

    def new_id(self) -> str:
        """A name for a decision: 32 hex digits that nobody can guess. The time stands in front, or each would lie on a page of its own."""
        return f"{self.clock():014x}{token_hex(9)}"

    def insert_decisions(self, made: Sequence[NewDecision]) -> None:
        """Keep decisions, each with its audit record, inside `writing`.

        Raises
        ------
        sqlalchemy.exc.IntegrityError
            Where there is a decision under one of the identifiers.
        """
        at, caller, request_id = self.clock(), current_caller.get().name, current_request.get()
        rows: list[dict[str, Any]] = []
        for one in made:
            key = self.keyring.service_key if one.person is None else one.person.key
            rows.append(
                {
                    "id": one.id,
                    "person": one.person and one.person.person,
                    "domain": one.domain,
                    "route": one.route,
                    "model_version": one.model_version,
                    "caller": caller,
                    "request_id": request_id,
                    "transaction_token": one.transaction_id and self._token("transaction", one.transaction_id),
                    "idempotency": one.key and self._idempotency(one.key),
                    "digest": one.digest or self.digest(one.request),
                    "decided_at": at,
                    "probability": one.probability,
                    "decision": one.decision,
                    "sealed": seal(key, _pack(one.request, one.answer, one.known, one.row), one.id.encode()),
                }
            )
        _KEEP_DECISION.each(self.database.inside(), rows)
        for row in rows:
            self.audit(
                "decide",
                at=at,  # the same, by which the record is found
                person=row["person"],
                domain=row["domain"],
                model_version=row["model_version"],
                inputs=row["digest"],
                output=hashlib.sha256(row["sealed"]).hexdigest(),
            )

    def keep_decision(self, **what: Any) -> str:
        """Keep one decision, given the fields of `NewDecision`, and return its identifier."""
        one = NewDecision(**({"id": self.new_id()} | what))
        self.insert_decisions([one])
        return one.id

    def digest(self, request: bytes) -> str:
        """What tells requests apart without telling what they say."""
        return self.keyring.token("request", request.decode())

    def decisions(self, *, after: int = 0) -> Iterator[StoredDecision]:
        """All decisions in the order in which they were written, unsealed, a page in memory at a time.

        Parameters
        ----------
        after
            Only those behind this position.
        """
        while True:
            with self.reading() as connection:
                page = connection.execute(_PAGE_OF, {"after": after}).all()
            for *columns, wrapped in page:
                yield self._decided(columns, wrapped)
            if len(page) < _PAGE:
                return
            after = page[-1].position

    def content(self, id: str, person: str | None, wrapped: bytes | None, sealed: bytes) -> DecisionPayload | None:
        """What the decision of that identifier was made of; None where its person was erased, or the bytes were changed."""
        key = self.key_of(person, wrapped)
        try:
            return None if key is None else _content(unseal(key, sealed, id.encode()))
        except KeyringError:
            return None

    def _decided(self, columns: Sequence[Any], wrapped: bytes | None) -> StoredDecision:
        one: StoredDecision = StoredDecision._make((*columns, None, False))
        content = self.content(one.id, one.person, wrapped, one.sealed)
        return one._replace(content=content, erased=one.person is not None and wrapped is None)

    def _idempotency(self, key: str) -> str:
        return self.keyring.token("idempotency", f"{current_caller.get().name}\0{key}")

    # Transactions

    def insert_transaction(self, transaction: Transaction, person: Person) -> bool:
        """Make a transaction part of history; return whether it is new or the very one that is there. Call it inside `writing`."""
        row = self._row(transaction, person.person)
        about = row["transaction_token"].encode()
        sent = [transaction.transaction_id, transaction.customer_id, transaction.merchant, transaction.country]
        row["sealed"] = seal(person.key, _COMPACT(sent).encode(), about)
        connection = self.database.inside()
        if _KEEP_TRANSACTION(connection, row).rowcount:
            return True
        there = connection.execute(_TRANSACTION, {"token": row["transaction_token"]}).one()
        return all(there._mapping[name] == row[name] for name in _SAME)

    def histories(self, event: Mapping[str, Any], reach: Mapping[Entity, timedelta], before: datetime) -> dict[Entity, list[Event]]:
        """What came before an event, of each entity that it names.

        Parameters
        ----------
        event
            Column -> value: ``{"customer_id": "5", "merchant": "12"}``. An entity of which a value is None is left out.
        reach
            The columns of an entity -> how far back: a customer, with or without a merchant or a country, or a merchant.
        before
            Not included; neither is the moment that far back.

        Returns
        -------
        dict
            The columns of an entity -> its events, in no particular order.

        Raises
        ------
        ValueError
            For columns that no index helps with.
        """
        at = micros(before)
        with self.reading() as connection:
            return {
                entity: list(_events(entity)(connection, named | {"after": micros(before - span), "before": at}).fetchall())
                for entity, span in reach.items()
                if (named := self._names(event, entity)) is not None
            }

    def counts(self, event: Mapping[str, Any], counts: Mapping[Entity, Sequence[EventCount]], before: datetime) -> dict[Entity, list[int]]:
        """How many events came before an event, of each entity that it names; for a busy one that is much less work than to hand them over.

        Parameters
        ----------
        event, before
            As of `histories`.
        counts
            The columns of an entity -> what is to be counted.

        Returns
        -------
        dict
            The columns of an entity -> the numbers, in the order of what was asked.

        Raises
        ------
        ValueError
            As of `histories`.
        """
        at, found = micros(before), dict[Entity, list[int]]()
        together: dict[str, list[tuple[Entity, tuple[EventCount, ...]]]] = {}
        values: dict[str, Any] = {}
        for entity, numbers in counts.items():
            if (named := self._names(event, entity)) is not None:
                together.setdefault(entity[0], []).append((entity, tuple(numbers)))
                values |= named
        with self.reading() as connection:
            for asked in together.values():
                reach = {since.reach_s for _, numbers in asked for since in numbers}
                values |= {f"reach_{reach_s}": at - reach_s * MICRO for reach_s in reach}
                values |= {"after": at - max(reach) * MICRO, "before": at}
                row = iter(_numbers(*asked)(connection, values).fetchone())
                found |= {entity: list(islice(row, len(numbers))) for entity, numbers in asked}
        return found

    def _names(self, event: Mapping[str, Any], entity: Entity) -> dict[str, str | None] | None:
        """What stands for the values of an entity's columns; None where one has no value."""
        if entity != ("merchant",) and (entity[:1] != ("customer_id",) or not set(entity[1:]) <= _OF_CUSTOMER):
            raise ValueError(f"the store keeps no history by {', '.join(entity)}: no index helps with it")
        if any(event[column] is None for column in entity):
            return None
        named: dict[str, str | None] = {}
        for column in entity:
            if column == "customer_id":
                person = self.person(event[column])
                named[column] = person and person.person
            else:
                named[column] = self._token(column, event[column])
        return named

    def history(self, entity: Mapping[str, str], after: datetime, before: datetime) -> list[Event]:
        """The events of one entity between two moments, neither included; see `histories`."""
        columns = tuple(entity)
        return self.histories(entity, {columns: before - after}, before)[columns]

    def load(self, ledger: Iterable[Transaction]) -> int:
        """Store the ledger's transactions; one that is there already only learns its label.

        They are committed by the thousand, so that the service goes on writing meanwhile. A load that was cut off is repeated.

        Returns
        -------
        int
            How many were read.
        """
        total, chunks = 0, self._prepared(iter(ledger))
        with self.reading() as connection:
            first = self.database.dialect == "sqlite" and connection.execute(select(transactions.c.person).limit(1)).first() is None
        if first:
            # In the order of the key, and the indexes afterwards: each page is written once instead of again and again.
            rows = sorted((row for chunk in chunks for row in chunk), key=itemgetter(0))
            with self.writing() as connection:
                connection.exec_driver_sql("pragma cache_size = -200000")  # kB
                for index in sorted(transactions.indexes, key=str):
                    index.drop(connection)
                if rows:
                    _load_sqlite(connection, rows)
                for index in sorted(transactions.indexes, key=str):
                    index.create(connection)
            return len(rows)
        for chunk in chunks:
            with self.writing() as connection:
                _LOAD[self.database.dialect](connection, chunk)
            total += len(chunk)
        return total

    def _prepared(self, rows: Iterator[Transaction]) -> Iterator[list[tuple[Any, ...]]]:
        """Transactions of the ledger as rows, their customers known."""
        known: dict[str, str] = {}
        tokens: dict[tuple[str, str], str] = {}
        while chunk := list(islice(rows, CHUNK)):
            self._make_known({one.customer_id for one in chunk} - known.keys(), known)
            yield [self._loaded(one, known, tokens) for one in chunk]

    def _make_known(self, customers: Iterable[str], known: dict[str, str]) -> None:
        """Enter the surrogates of customers, who are made people where they are not."""
        tokens = {self.keyring.token("customer", customer): customer for customer in sorted(customers)}
        if not tokens:
            return
        asked = select(people.c.lookup, people.c.person).where(people.c.lookup.in_(bindparam("tokens", expanding=True)))
        with self.writing() as connection:
            there = {lookup for lookup, _ in connection.execute(asked, {"tokens": list(tokens)})}
            if new := [self._new_person(token) for token in tokens if token not in there]:
                connection.execute(_NEW_PERSON[self.database.dialect], new)
            for lookup, person in connection.execute(asked, {"tokens": list(tokens)}):
                known[tokens[lookup]] = person

    def _row(self, transaction: Transaction, person: str) -> dict[str, Any]:
        token, known_at = self._token, transaction.label_known_at
        return {
            "transaction_token": token("transaction", transaction.transaction_id),
            "person": person,
            "occurred_at": micros(transaction.occurred_at),
            "amount": transaction.amount,
            "direction": transaction.direction,
            "merchant": None if transaction.merchant is None else token("merchant", transaction.merchant),
            "country": None if transaction.country is None else token("country", transaction.country),
            "is_fraud": transaction.is_fraud,
            "label_known_at": None if known_at is None else micros(known_at),
            "sealed": None,
        }

    def _loaded(self, one: Transaction, known: Mapping[str, str], tokens: dict[tuple[str, str], str]) -> tuple[Any, ...]:
        """The row of a transaction of the ledger, in the order of the table's columns; few merchants and countries make up many rows."""

        def token(kind: str, value: str | None) -> str | None:
            if value is None:
                return None
            if (kind, value) not in tokens:
                tokens[kind, value] = self.keyring.token(kind, value)
            return tokens[kind, value]

        return (
            self.keyring.token("transaction", one.transaction_id),
            known[one.customer_id],
            (one.occurred_at - _EPOCH) // _MICROSECOND,
            one.amount,
            one.direction,
            token("merchant", one.merchant),
            token("country", one.country),
            one.is_fraud,
            None if one.label_known_at is None else micros(one.label_known_at),
        )

    # Standings

    def replace_snapshots(self, read: Iterable[FeatureSnapshot]) -> int:
        """Put these in the place of all standings that are there, all or none; return how many they are."""
        found, known = list(read), dict[str, str]()
        self._make_known({one.customer_id for one in found}, known)
        with self.reading() as connection:
            wrapped: dict[str, Any] = dict(connection.execute(select(people.c.person, people.c.wrapped_key)).tuples().all())
        rows = [self._standing_row(one, known[one.customer_id], wrapped[known[one.customer_id]]) for one in found]
        with self.writing() as connection:
            connection.execute(delete(standings))
            for first in range(0, len(rows), CHUNK):
                connection.execute(insert(standings), rows[first : first + CHUNK])
        return len(rows)

    def find_snapshots(
        self, *, customer_id: str | None = None, account_id: str | None = None, domain: str | None = None
    ) -> list[FeatureSnapshot]:
        """The standings of a customer or of an account, in all domains or in one, in the order of domain and subject.

        Raises
        ------
        ValueError
            Where neither customer nor account is named.
        """
        if customer_id is None and account_id is None:
            raise ValueError("standings are of a customer or of an account: name one")
        named: dict[str, str] = {}
        if customer_id is not None:
            named["lookup"] = self.keyring.token("customer", customer_id)
        if account_id is not None:
            named["account"] = self.keyring.token("account", account_id)
        if domain is not None:
            named["domain"] = domain
        with self.reading() as connection:
            rows = connection.execute(_STANDINGS_BY[tuple(named)], named).all()
        return sorted((self._standing(row) for row in rows), key=lambda one: (one.domain, one.subject))

    def _standing_row(self, one: FeatureSnapshot, person: str, wrapped: bytes) -> dict[str, Any]:
        subject = self.keyring.token("subject", one.subject)
        plain = _COMPACT([one.subject, one.customer_id, one.account_id, one.features, one.score])
        return {
            "subject": subject,
            "domain": one.domain,
            "person": person,
            "account": None if one.account_id is None else self.keyring.token("account", one.account_id),
            "as_of": None if one.as_of is None else micros(one.as_of),
            "sealed": seal(self._key(person, wrapped), plain.encode(), subject.encode()),
        }

    def _standing(self, row: Any) -> FeatureSnapshot:
        plain = unseal(self._key(row.person, row.wrapped_key), row.sealed, row.subject.encode())
        subject, customer, account, features, score = json.loads(plain)
        return FeatureSnapshot(row.domain, subject, customer, account, None if row.as_of is None else _moment(row.as_of), features, score)

    # Shadows

    def insert_shadow_scores(self, found: Sequence[ShadowScore], most: int = MOST_SHADOWS) -> None:
        """Store what champion and challenger said, and let go of the oldest beyond `most` of a domain; a transaction is there once."""
        with self.writing() as connection:
            # Whoever was erased since the answer is not to come back.
            rows = [self._shadow_row(one) for one in found if one.customer_id is None or self.person(one.customer_id)]
            if rows:
                connection.execute(_KEEP_SHADOWS[self.database.dialect], rows)
            for domain in sorted({one.domain for one in found}):
                connection.execute(_FORGET_SHADOWS, {"named": domain, "most": most})

    def list_shadow_scores(self, domain: str) -> list[ShadowScore]:
        """What is kept of a domain, the oldest first."""
        with self.reading() as connection:
            rows = connection.execute(_SHADOWS, {"domain": domain}).all()
        return [self._shadowed(row) for row in rows]

    def _shadow_row(self, one: ShadowScore) -> dict[str, Any]:
        person = None if one.customer_id is None else self.person(one.customer_id)
        values = one._asdict() | {"person": person and person.person, "scored_at": micros(one.scored_at), "sealed": None}
        del values["customer_id"]
        if one.subject is not None:
            values["subject"] = self.keyring.token("subject", one.subject)
            key = self.keyring.service_key if person is None else person.key
            values["sealed"] = seal(key, one.subject.encode(), values["subject"].encode())
        return values

    def _shadowed(self, row: Any) -> ShadowScore:
        key = self.key_of(row.person, row.wrapped_key)
        subject = None if row.sealed is None or key is None else unseal(key, row.sealed, row.subject.encode()).decode()
        values = {name: row._mapping[name] for name in ShadowScore._fields if name not in ("subject", "scored_at", "customer_id")}
        return ShadowScore(**values, subject=subject, scored_at=_moment(row.scored_at))


def open_store(settings: Settings, **options: Any) -> Store:
    """The store of a source with its keyring; options are those of `Store`."""
    return Store(location(settings), Keyring.of(settings), **options)


def _pack(request: bytes, answer: bytes, known: Any, row: Rows) -> bytes:
    """What a decision was made of, as it is sealed: three lines of JSON (request, answer, what else was known) and the row's bytes."""
    return b"\n".join((request, answer, _COMPACT(known).encode(), np.ascontiguousarray(row, np.float32).tobytes()))


def _unpack(plain: bytes) -> list[bytes]:
    return plain.split(b"\n", 3)


def _content(plain: bytes) -> DecisionPayload:
    request, answer, known, row = _unpack(plain)
    return DecisionPayload(json.loads(request), json.loads(answer), json.loads(known), np.frombuffer(row, np.float32))


def _moment(microseconds: int) -> datetime:
    return _EPOCH + microseconds * _MICROSECOND
