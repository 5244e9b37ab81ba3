"""Transactions that were sent to the service, and the history features' queries over all stored transactions.

Recent events of active customers and merchants are in memory (`finrisk_assets.features.recent_events`). A transaction of the store first
reads what other workers committed meanwhile: their new rows are added, any other change of history empties the cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from pydantic_core import to_json
from sqlalchemy import Connection, bindparam, func, literal_column, select, text
from sqlalchemy.dialects import postgresql

from bento.store.keyring import seal
from bento.store.records import Person, Transaction
from bento.store.statements import CompiledStatement
from bento.store.tables import transactions
from bento.store.unit_of_work import UnitOfWork
from finrisk_assets.features.online import EventCount, History, to_cents
from finrisk_assets.features.online_chunk import HeldEvents
from finrisk_assets.features.recent_events import MAX_ENTITY_EVENTS, SLACK_US, CachedEvent, EntityEvents, Event, Key, shorten_token
from finrisk_assets.features.windows import MICRO
from schemas.timestamps import to_micros

Entity: TypeAlias = tuple[str, ...]
"""The columns whose values a history shares: ``("customer_id", "merchant")``."""

_INSERT_COLUMNS = [column.name for column in transactions.columns if column.name != "written_in"]  # the database sets that by itself
_INSERT = CompiledStatement(postgresql.insert(transactions).on_conflict_do_nothing(), _INSERT_COLUMNS)
_FIND = select(transactions).where(transactions.c.transaction_token == bindparam("token"))
_IDENTITY_COLUMNS = ("person", "occurred_at", "amount", "direction", "merchant", "country")
"""Columns in which two transactions of one identifier must agree; the label of fraud is learned later."""
_INDEX_COLUMNS = {"customer_id": "person", "merchant": "merchant"}
"""Column of an event -> the table's column with the index."""
_NARROWING_COLUMNS = frozenset({"merchant", "country"})
"""Columns that may narrow down a customer's history."""
MAX_CATCH_UP_ROWS = 5_000
"""Rows of other workers that are added to the cache at once; beyond them it starts empty. More take longer than reading anew."""
_NO_EVENTS = EntityEvents(0)
_CACHED_COLUMNS = "occurred_at, amount, is_fraud, label_known_at, merchant, country"
_CACHED_NAMES = _CACHED_COLUMNS.split(", ")
_SELECT_LAST = CompiledStatement(text("select rowid, transaction_token from transactions order by rowid desc limit 1"))
_SELECT_NEW = CompiledStatement(
    text(
        f"select rowid, transaction_token, person, {_CACHED_COLUMNS} from transactions where rowid >= :seen "
        f"order by rowid limit {MAX_CATCH_UP_ROWS}"
    )
)
# Not more than the index of the column holds.
_INDEXED_COLUMNS = {"person": _CACHED_COLUMNS, "merchant": "occurred_at, amount, is_fraud, label_known_at, null, null"}
_SELECT_ENTITY = {
    column: CompiledStatement(
        text(f"select {columns} from transactions where {column} = :value and occurred_at > :after limit {MAX_ENTITY_EVENTS + 1}")
    )
    for column, columns in _INDEXED_COLUMNS.items()
}
# PostgreSQL. A snapshot says which transactions are visible: all numbers below `ceiling` without those of `running`.
_SELECT_SNAPSHOT = CompiledStatement(
    text(
        "select snapshot.*, inserted.* from ("
        "  select pg_current_snapshot()::text, pg_current_xact_id()::text::bigint, (select number from history_version)"
        ") as snapshot left join ("
        f"  (select written_in, person, {_CACHED_COLUMNS} from transactions where written_in >= :ceiling"
        f"    order by written_in limit {MAX_CATCH_UP_ROWS})"
        f"  union all select written_in, person, {_CACHED_COLUMNS} from transactions where written_in = any(cast(:running as bigint[]))"
        ") as inserted on inserted.written_in <> :own"
    )
)
_SELECT_VISIBLE_ENTITY = {
    column: CompiledStatement(
        text(
            f"select {columns} from transactions where {column} = :value and occurred_at > :after and (written_in is null"
            " or written_in < :ceiling and written_in <> all(cast(:running as bigint[])) or written_in = :own)"
            f" limit {MAX_ENTITY_EVENTS + 1}"
        )
    )
    for column, columns in _INDEXED_COLUMNS.items()
}
_BETWEEN = transactions.c.occurred_at > bindparam("after"), transactions.c.occurred_at < bindparam("before")
_SELECT_MOVEMENTS = CompiledStatement(
    select(transactions.c.occurred_at, transactions.c.amount, transactions.c.country).where(
        transactions.c.person == bindparam("customer_id"), *_BETWEEN
    )
)


class HistoryQuery(NamedTuple):
    """The part of an event's history that features read.

    Attributes
    ----------
    events
        Entity whose events are read -> microseconds that they reach back.
    counts
        Entity whose events are counted -> the counts.
    longest
        Column of a customer or a merchant -> microseconds that any of these reaches back.
    """

    events: Mapping[Entity, int]
    counts: Mapping[Entity, Sequence[EventCount]]
    longest: Mapping[str, int]

    @classmethod
    def of(cls, history_s: Mapping[Entity, int], counts: Mapping[Entity, Sequence[EventCount]]) -> "HistoryQuery":
        """Return the query of a history of so many seconds by entity, where the entities of `counts` are counted only."""
        longest: dict[str, int] = {}
        for (column, *_), reach_s in history_s.items():
            longest[column] = max(longest.get(column, 0), reach_s * MICRO)
        return cls({entity: reach_s * MICRO for entity, reach_s in history_s.items() if entity not in counts}, counts, longest)


class HistorySnapshot(NamedTuple):
    """The state of PostgreSQL's history that the cache is of.

    Attributes
    ----------
    driver
        The connection, after whose end the state is not known to be that of the next one's database.
    version
        Number of the changes beside inserts; None before the first.
    ceiling, running
        The transactions that were not over: all from the ceiling on, and those that ran below it.
    own
        Number of the transaction that took the snapshot. Its rows are in the cache already.
    """

    driver: Any
    version: int | None
    ceiling: int
    running: list[int]
    own: int


@dataclass(slots=True)
class _HeldEntity:
    """An entity of a chunk: its events in memory, the times of its first and its last one in the chunk, and the number of its events."""

    key: Key
    events: EntityEvents
    first_us: int
    last_us: int
    size: int


class TransactionExistsError(RuntimeError):
    """A queued transaction is stored already."""


def insert_transaction(session: UnitOfWork, transaction: Transaction, person: Person) -> bool:
    """Insert a transaction into history. Call this inside `writing`.

    Returns
    -------
    bool
        Whether the transaction is new or equals the stored one of its identifier.
    """
    row = _pack(session, transaction, person)
    connection = session.database.writing_connection()
    is_cached = _read_changes(session, connection)
    if _INSERT(connection, row).rowcount:
        if is_cached:
            _add_to_cache(session, row)
        return True
    stored = connection.execute(_FIND, {"token": row["transaction_token"]}).one()
    return all(stored._mapping[name] == row[name] for name in _IDENTITY_COLUMNS)


def queue_transaction(session: UnitOfWork, transaction: Transaction, person: Person) -> None:
    """Add a transaction to history; its row is inserted with the next ones by `insert_queued`. Call this inside `writing`."""
    row = _pack(session, transaction, person)
    is_cached = _read_changes(session, session.database.writing_connection())
    session.queued_transactions.append(row)
    if is_cached:
        _add_to_cache(session, row)


def insert_queued(session: UnitOfWork) -> None:
    """Insert the rows of the queued transactions with one statement. Call this inside `writing`.

    Raises
    ------
    TransactionExistsError
        Where one of the transactions is stored already.
    """
    rows = session.queued_transactions
    if not rows:
        return
    inserted = _INSERT.execute_many(session.database.writing_connection(), rows).rowcount
    n_rows = len(rows)
    rows.clear()
    if inserted != n_rows:
        raise TransactionExistsError(f"{n_rows - inserted} of {n_rows} transactions are stored already: insert them one by one")


def histories(
    session: UnitOfWork, event: Mapping[str, Any], reach: Mapping[Entity, timedelta], before: datetime
) -> dict[Entity, list[Event]]:
    """Return the earlier events of each entity that an event names.

    Parameters
    ----------
    event
        Column -> value: ``{"customer_id": "5", "merchant": "12"}``. An entity with a value of None is left out.
    reach
        The columns of an entity -> the length of its history: a customer, with or without a merchant or a country, or a merchant.
    before
        Not included; neither is the moment that the history reaches back to.

    Returns
    -------
    dict
        The columns of an entity -> its events, in no particular order.

    Raises
    ------
    ValueError
        For columns without an index.
    """
    at, events = to_micros(before), dict[Entity, list[Event]]()
    with session.reading() as connection:
        for entity, span in reach.items():
            values = _stored_values(session, connection, event, entity)
            if values is None:
                continue
            after = to_micros(before - span)
            is_cached, cached = _cached_events(session, connection, entity, values, after, at)
            if is_cached:
                events[entity] = [] if cached is None else cached.list_events(after, at, _narrowing(entity, values))
            else:
                events[entity] = list(_select_events(entity)(connection, values | {"after": after, "before": at}).fetchall())
    return events


def read_history(
    session: UnitOfWork, event: Mapping[str, Any], query: HistoryQuery, before: datetime
) -> tuple[dict[Entity, History], dict[Entity, list[int]]]:
    """Return what features read of an event's history: the events of `histories` and the numbers of `counts`, at once where in memory."""
    at = to_micros(before)
    with session.reading() as connection:
        columns = [column for column in ("customer_id", "merchant", "country") if event.get(column) is not None]
        values = {column: _stored_value(session, connection, column, event[column]) for column in columns}
        held = _find_held(session, connection, values, query, at)
        if held is None:
            reach = {entity: timedelta(microseconds=reach_us) for entity, reach_us in query.events.items()}
            events = {entity: History.of(rows) for entity, rows in histories(session, event, reach, before).items()}
            return events, counts(session, event, query.counts, before)
        events, numbers = dict[Entity, History](), dict[Entity, list[int]]()
        for entity, reach_us in query.events.items():
            if values.keys() >= set(entity):
                events[entity] = held[entity[0]].list_history(at - reach_us, at, _narrowing(entity, values))
        for entity, event_counts in query.counts.items():
            if values.keys() >= set(entity):
                numbers[entity] = held[entity[0]].count(event_counts, at, _narrowing(entity, values))
    return events, numbers


def hold_histories(
    session: UnitOfWork, events: Sequence[Mapping[str, Any]], query: HistoryQuery, first: int = 0
) -> tuple[int, HeldEvents | None]:
    """Return the events in memory of the entities of some events that can be added to them before any of the features is computed.

    Those are events of which none goes back in time behind an earlier one of its customer or merchant: what an entity's later events add to
    its history lies at or after the time of the earlier ones, where their windows end. Call this inside `writing`.

    Parameters
    ----------
    events
        Columns of `Transaction` with ``occurred_at_us``, in the order in which they are added to history.
    first
        Place of the first event.

    Returns
    -------
    number : int
        The number of events from `first` on, at least one.
    held : HeldEvents or None
        The histories of their entities; None where the events must be taken one by one.
    """
    connection = session.database.writing_connection()
    if not _read_changes(session, connection):
        return 1, None
    entities: dict[Key, _HeldEntity] = {}
    columns = [*{*query.longest, *_NARROWING_COLUMNS}]
    of_events: dict[str, list[EntityEvents | None]] = {column: [] for column in query.longest}
    tokens: dict[str, list[int]] = {column: [] for column in _NARROWING_COLUMNS}
    for place in range(first, len(events)):
        event, own = events[place], list[_HeldEntity | None]()
        at = event["occurred_at_us"]
        values = {
            column: None if event[column] is None else _stored_value(session, connection, column, event[column]) for column in columns
        }
        for column, reach_us in query.longest.items():
            value = values[column]
            if event[column] is None:
                own.append(None)
                continue
            key = _INDEX_COLUMNS[column], str(value)
            entity = entities.get(key)
            if entity is None:
                _, found = _cached_events(session, connection, (column,), values, at - reach_us, at)
                entity = None if found is None else _HeldEntity(key, found, at, at, len(found.times))
            if entity is None or not entity.last_us <= at <= entity.first_us + SLACK_US or entity.size >= MAX_ENTITY_EVENTS:
                break
            own.append(entity)
        if len(own) < len(query.longest):
            break
        for column, entity in zip(of_events, own, strict=True):
            of_events[column].append(None if entity is None else entity.events)
            if entity is not None:
                entity.last_us, entity.size = at, entity.size + 1
                entities[entity.key] = entity
        for column, numbers in tokens.items():
            numbers.append(shorten_token(values[column]))
    number = len(tokens["country"])
    is_whole = number > 0 and all(session.recent_events.holds(key, entity.events) for key, entity in entities.items())
    return (number, HeldEvents(of_events, tokens)) if is_whole else (max(number, 1), None)


def read_movements(
    session: UnitOfWork, customer_id: str, reach: timedelta, before: datetime
) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Return times, amounts in hundredths and shortened tokens of countries of a customer's transactions; interval as of `histories`."""
    at, after = to_micros(before), to_micros(before - reach)
    with session.reading() as connection:
        person = _stored_value(session, connection, "customer_id", customer_id)
        is_cached, cached = _cached_events(session, connection, ("customer_id",), {"customer_id": person}, after, at)
        if is_cached:
            return ((), (), ()) if cached is None else cached.list_movements(after, at)
        rows = _SELECT_MOVEMENTS(connection, {"customer_id": person, "after": after, "before": at}).fetchall()
    times, amounts, countries = zip(*rows, strict=True) if rows else ((), (), ())
    return times, [*map(to_cents, amounts)], [*map(shorten_token, countries)]


def _find_held(
    session: UnitOfWork, connection: Connection, values: Mapping[str, str | None], query: HistoryQuery, at: int
) -> dict[str, EntityEvents] | None:
    """Return the events of the customer and merchant of these values, by column; None where one of them is not in memory."""
    held = {}
    for column, reach_us in query.longest.items():
        if column not in values:
            continue
        is_cached, events = _cached_events(session, connection, (column,), values, at - reach_us, at)
        if not is_cached:
            return None
        held[column] = _NO_EVENTS if events is None else events
    return held


def counts(
    session: UnitOfWork, event: Mapping[str, Any], counts: Mapping[Entity, Sequence[EventCount]], before: datetime
) -> dict[Entity, list[int]]:
    """Return the numbers of earlier events of each entity that an event names; for a busy entity much cheaper than its events.

    Parameters
    ----------
    event, before
        As of `histories`.
    counts
        The columns of an entity -> the counts to return.

    Returns
    -------
    dict
        The columns of an entity -> the numbers, in the order of its `counts`.

    Raises
    ------
    ValueError
        As of `histories`.
    """
    at, numbers_of = to_micros(before), dict[Entity, list[int]]()
    by_index: dict[str, list[tuple[Entity, tuple[EventCount, ...]]]] = {}  # the entities that one index finds share a query
    values: dict[str, Any] = {}
    with session.reading() as connection:
        for entity, event_counts in counts.items():
            entity_values = _stored_values(session, connection, event, entity)
            if entity_values is None:
                continue
            after = at - max((count.reach_s for count in event_counts), default=0) * MICRO
            is_cached, cached = _cached_events(session, connection, entity, entity_values, after, at)
            if is_cached:
                narrowing = _narrowing(entity, entity_values)
                numbers_of[entity] = [0] * len(event_counts) if cached is None else cached.count(event_counts, at, narrowing)
            else:
                by_index.setdefault(entity[0], []).append((entity, tuple(event_counts)))
                values |= entity_values
        for counts_of_entities in by_index.values():
            reach = {count.reach_s for _, event_counts in counts_of_entities for count in event_counts}
            values |= {f"reach_{reach_s}": at - reach_s * MICRO for reach_s in reach}
            values |= {"after": at - max(reach) * MICRO, "before": at}
            row = iter(_select_counts(*counts_of_entities)(connection, values).fetchone())
            numbers_of |= {entity: list(islice(row, len(event_counts))) for entity, event_counts in counts_of_entities}
    return numbers_of


# The cache ---------------------------------------------------------------------------------------------------------------------


def forget_histories(session: UnitOfWork) -> None:
    """Empty the cache of recent events of every worker, inside `writing`. Call this where stored transactions are changed or deleted.

    SQLite's `user_version` counts these changes; each worker compares it. On PostgreSQL it is `history_version`, which is written right
    before the commit, so that no other worker waits for the row for long (`UnitOfWork.writing`).
    """
    connection = session.database.writing_connection()
    session.recent_events.make_void()
    if session.database.dialect == "sqlite":
        number = connection.exec_driver_sql("pragma user_version").scalar_one()
        connection.exec_driver_sql(f"pragma user_version = {(number + 1) % (1 << 31)}")


def _cached_events(
    session: UnitOfWork, connection: Connection, entity: Entity, values: Mapping[str, str | None], after: int, before: int
) -> tuple[bool, EntityEvents | None]:
    """Return whether the cache has an entity's events, and the events; None where the store does not know the customer."""
    value = values[entity[0]]
    if value is None:
        return True, None
    if not _read_changes(session, connection):
        _insert_before_reading(session)
        return False, None
    recent, column = session.recent_events, _INDEX_COLUMNS[entity[0]]
    is_held, events = recent.find((column, value), after, before)
    if not is_held:
        _insert_before_reading(session)
        begin = recent.begins_at(column, after, before)
        rows = _select_entity(session, connection, column, {"value": value, "after": begin})
        events = EntityEvents(begin, rows) if len(rows) <= MAX_ENTITY_EVENTS else None
        recent.put((column, value), events)
    if events is None:
        _insert_before_reading(session)
    return events is not None, events


def _insert_before_reading(session: UnitOfWork) -> None:
    """Insert queued transactions, because a statement is about to read history."""
    if session.queued_transactions:
        insert_queued(session)


def _select_entity(session: UnitOfWork, connection: Connection, column: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """Return an entity's events in the state that the cache is of."""
    state = session.recent_events.version
    if isinstance(state, HistorySnapshot):
        # A later statement sees more on PostgreSQL; what the cache's snapshot does not show is added with the next one, once.
        visible = dict(values, ceiling=state.ceiling, running=state.running, own=state.own)
        rows: Sequence[Any] = _SELECT_VISIBLE_ENTITY[column](connection, visible).fetchall()
    else:
        rows = _SELECT_ENTITY[column](connection, values).fetchall()
    return rows


def _read_changes(session: UnitOfWork, connection: Connection) -> bool:
    """Bring the cache to the state of the open transaction; return whether there is a cache."""
    recent = session.recent_events
    if recent.is_void:
        return False
    if recent.is_current:
        return True
    if session.database.dialect == "sqlite":
        _compare_file(session, connection)
    elif session.database.is_writing and not session.database.is_replaced:
        _compare_snapshots(session, connection)
    else:
        return False
    recent.is_current = session.database.is_writing
    return True


def _compare_snapshots(session: UnitOfWork, connection: Connection) -> None:
    """Add the rows of transactions that were not over in the cache's snapshot and are now; PostgreSQL.

    The cache holds what one snapshot shows. A row that a later snapshot shows and the cache's does not was inserted by a transaction that
    was not over then: its number is at or above the snapshot's ceiling, or among those that ran. So the order in which numbers are given
    out and transactions commit does not matter, and one statement, which has one snapshot, finds these rows and nothing else. Rows of this
    worker's own last transaction are among them and left out, because the cache has them.

    A decision sees every earlier transaction of its customer: it compares after it has locked the customer, nobody inserts rows of theirs
    before the lock is released, and PostgreSQL releases it after the commit has become visible. Of its merchant, which is not locked, it
    sees what was committed before it compared.
    """
    recent = session.recent_events
    driver: Any = connection.connection.driver_connection
    before = recent.version
    if before is None or before.driver is not driver:
        before = HistorySnapshot(driver, None, (1 << 63) - 1, [], 0)  # no rows
    values = {"ceiling": before.ceiling, "running": before.running, "own": before.own}
    rows = _SELECT_SNAPSHOT(connection, values).fetchall()
    (snapshot, own, version, *_), *_ = rows
    _, ceiling, running = snapshot.split(":")
    is_known = recent.version is before and before.version == version and len(rows) < MAX_CATCH_UP_ROWS
    if not is_known:
        recent.clear()
    for *_, written_in, person, at, amount, is_fraud, known_at, merchant, country in rows if is_known else ():
        if written_in is not None:
            recent.insert(_keys(person, merchant), CachedEvent(at, amount, is_fraud, known_at, merchant, country))
    recent.version = HistorySnapshot(driver, version, int(ceiling), [int(number) for number in running.split(",") if number], own)


def _compare_file(session: UnitOfWork, connection: Connection) -> None:
    """Add the rows that other workers inserted, or empty the cache where they changed more; SQLite."""
    recent = session.recent_events
    driver: Any = connection.connection.driver_connection
    # The number changes with each commit of another connection, and only then.
    data_version = driver.execute("pragma data_version").fetchone()[0]
    if recent.version is None or recent.version[:2] != (driver, data_version):
        generation = driver.execute("pragma user_version").fetchone()[0]
        is_unchanged = recent.version is not None and (recent.version[0], recent.version[2]) == (driver, generation)
        if not is_unchanged or not _add_new_rows(session, connection):
            recent.clear()
            recent.seen = _SELECT_LAST(connection, {}).fetchone() or (0, None)
        recent.version = driver, data_version, generation


def _add_new_rows(session: UnitOfWork, connection: Connection) -> bool:
    """Add the rows that other workers inserted; return False where they are too many, or the last known row is not in its place."""
    recent = session.recent_events
    rows = _SELECT_NEW(connection, {"seen": recent.seen[0]}).fetchall()
    if recent.seen[0]:
        if not rows or rows[0][:2] != recent.seen:  # the file was rewritten, or rows were deleted
            return False
        del rows[0]
    if len(rows) >= MAX_CATCH_UP_ROWS - 1:
        return False
    for row in rows:
        event = CachedEvent._make(row[3:])
        recent.insert(_keys(row[2], event.merchant), event)
    if rows:
        recent.seen = rows[-1][:2]
    return True


def _add_to_cache(session: UnitOfWork, row: Mapping[str, Any]) -> None:
    event = CachedEvent(*(row[column] for column in _CACHED_NAMES))
    session.recent_events.add(row["transaction_token"], _keys(row["person"], event.merchant), event)


def _keys(person: str, merchant: str | None) -> list[Key]:
    return [("person", person)] if merchant is None else [("person", person), ("merchant", merchant)]


def _narrowing(entity: Entity, values: Mapping[str, str | None]) -> dict[str, str | None]:
    return {column: values[column] for column in entity[1:]}


# Statements --------------------------------------------------------------------------------------------------------------------


@cache
def _select_events(entity: Entity) -> CompiledStatement:
    """Return the query of an entity's events between two moments, neither included."""
    columns = (transactions.c[name] for name in ("occurred_at", "amount", "is_fraud", "label_known_at"))
    return CompiledStatement(select(*columns).where(*_conditions(entity), *_BETWEEN))


@cache
def _select_counts(*counts_of_entities: tuple[Entity, tuple[EventCount, ...]]) -> CompiledStatement:
    """Return the query that counts events of entities that one index finds: a column for each count of each entity."""
    at, is_fraud, label_known_at = transactions.c.occurred_at, transactions.c.is_fraud, transactions.c.label_known_at
    numbers = [
        func.count().filter(
            *([] if count.known_s is None else [is_fraud, label_known_at - at <= literal_column(str(count.known_s * MICRO))]),
            *_conditions(entity)[1:],
            at > bindparam(f"reach_{count.reach_s}"),
        )
        for entity, event_counts in counts_of_entities
        for count in event_counts
    ]
    return CompiledStatement(select(*numbers).where(_conditions(counts_of_entities[0][0])[0], *_BETWEEN))


def _conditions(entity: Entity) -> list[Any]:
    return [transactions.c[_INDEX_COLUMNS.get(column, column)] == bindparam(column) for column in entity]


def _stored_values(session: UnitOfWork, connection: Connection, event: Mapping[str, Any], entity: Entity) -> dict[str, str | None] | None:
    """Return the stored form of the values of an entity's columns; None where a column has no value."""
    if entity != ("merchant",) and (entity[:1] != ("customer_id",) or not set(entity[1:]) <= _NARROWING_COLUMNS):
        raise ValueError(f"the store has no history by {', '.join(entity)}: no index supports these columns")
    if any(event[column] is None for column in entity):
        return None
    return {column: _stored_value(session, connection, column, event[column]) for column in entity}


def _stored_value(session: UnitOfWork, connection: Connection, column: str, value: str) -> str | None:
    """Return the stored form of a column's value; None for a customer whom the store does not know."""
    if column != "customer_id":
        return session.token(column, value)
    person = session.find_person(connection, value)
    return person and person.person


def _pack(session: UnitOfWork, transaction: Transaction, person: Person) -> dict[str, Any]:
    identifiers = [transaction.transaction_id, transaction.customer_id, transaction.merchant, transaction.country]
    transaction_token = session.token("transaction", transaction.transaction_id)
    return {
        "transaction_token": transaction_token,
        "person": person.person,
        "occurred_at": to_micros(transaction.occurred_at),
        "amount": transaction.amount,
        "direction": transaction.direction,
        "merchant": None if transaction.merchant is None else session.token("merchant", transaction.merchant),
        "country": None if transaction.country is None else session.token("country", transaction.country),
        "is_fraud": transaction.is_fraud,
        "label_known_at": None if transaction.label_known_at is None else to_micros(transaction.label_known_at),
        "sealed": seal(person.key, to_json(identifiers), transaction_token.encode()),
    }
