"""Transactions that were sent to the service, and the history features' queries over all stored transactions."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from itertools import islice
from typing import Any, TypeAlias

from sqlalchemy import bindparam, func, literal_column, select
from sqlalchemy.dialects import postgresql

from bento.store.keyring import seal
from bento.store.records import Person, Transaction, encode_json
from bento.store.statements import CompiledStatement
from bento.store.tables import transactions
from bento.store.unit_of_work import UnitOfWork
from finrisk_assets.features.online import EventCount
from finrisk_assets.features.windows import MICRO
from schemas.timestamps import to_micros

Event: TypeAlias = tuple[int, float, bool | None, int | None]
"""occurred_at_us, amount, is_fraud, label_known_at_us: the input of history features. Microseconds since 1970, UTC."""
Entity: TypeAlias = tuple[str, ...]
"""The columns whose values a history shares: ``("customer_id", "merchant")``."""

_INSERT = CompiledStatement(postgresql.insert(transactions).on_conflict_do_nothing(), [column.name for column in transactions.columns])
_FIND = select(transactions).where(transactions.c.transaction_token == bindparam("token"))
_IDENTITY_COLUMNS = ("person", "occurred_at", "amount", "direction", "merchant", "country")
"""Columns in which two transactions of one identifier must agree; the label of fraud is learned later."""
_INDEX_COLUMNS = {"customer_id": "person", "merchant": "merchant"}
"""Column of an event -> the table's column with the index."""
_NARROWING_COLUMNS = frozenset({"merchant", "country"})
"""Columns that may narrow down a customer's history."""
_BETWEEN = transactions.c.occurred_at > bindparam("after"), transactions.c.occurred_at < bindparam("before")


def insert_transaction(session: UnitOfWork, transaction: Transaction, person: Person) -> bool:
    """Insert a transaction into history. Call this inside `writing`.

    Returns
    -------
    bool
        Whether the transaction is new or equals the stored one of its identifier.
    """
    row = _pack(session, transaction, person)
    connection = session.database.writing_connection()
    if _INSERT(connection, row).rowcount:
        return True
    stored = connection.execute(_FIND, {"token": row["transaction_token"]}).one()
    return all(stored._mapping[name] == row[name] for name in _IDENTITY_COLUMNS)


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
    at = to_micros(before)
    with session.reading() as connection:
        return {
            entity: list(_select_events(entity)(connection, values | {"after": to_micros(before - span), "before": at}).fetchall())
            for entity, span in reach.items()
            if (values := _stored_values(session, event, entity)) is not None
        }


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
    for entity, event_counts in counts.items():
        if (entity_values := _stored_values(session, event, entity)) is not None:
            by_index.setdefault(entity[0], []).append((entity, tuple(event_counts)))
            values |= entity_values
    with session.reading() as connection:
        for counts_of_entities in by_index.values():
            reach = {count.reach_s for _, event_counts in counts_of_entities for count in event_counts}
            values |= {f"reach_{reach_s}": at - reach_s * MICRO for reach_s in reach}
            values |= {"after": at - max(reach) * MICRO, "before": at}
            row = iter(_select_counts(*counts_of_entities)(connection, values).fetchone())
            numbers_of |= {entity: list(islice(row, len(event_counts))) for entity, event_counts in counts_of_entities}
    return numbers_of


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


def _stored_values(session: UnitOfWork, event: Mapping[str, Any], entity: Entity) -> dict[str, str | None] | None:
    """Return the stored form of the values of an entity's columns; None where a column has no value."""
    if entity != ("merchant",) and (entity[:1] != ("customer_id",) or not set(entity[1:]) <= _NARROWING_COLUMNS):
        raise ValueError(f"the store has no history by {', '.join(entity)}: no index supports these columns")
    if any(event[column] is None for column in entity):
        return None
    values: dict[str, str | None] = {}
    for column in entity:
        if column == "customer_id":
            person = session.person(event[column])
            values[column] = person and person.person
        else:
            values[column] = session.token(column, event[column])
    return values


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
        "sealed": seal(person.key, encode_json(identifiers).encode(), transaction_token.encode()),
    }
