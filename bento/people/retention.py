"""Retention: deletion of transactions and decisions by age, and erasure of people without remaining rows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, delete, exists, or_, select

from bento.people.data_rights import DELETED_TABLES, ROWS_PER_TRANSACTION, erase_rows
from bento.store.session import Store
from bento.store.tables import alerts, decisions, feedback, people, shadows, transactions
from schemas.timestamps import DAY_US

SHORTEST_DAYS = 100
"""Days, the shortest retention: the features' 90 days of history and a margin."""


class Deleted(NamedTuple):
    """Numbers of deleted rows, and of erased people without remaining rows."""

    transactions: int
    decisions: int
    people: int


def retain(store: Store, older_than_days: int) -> Deleted:
    """Delete older transactions, decisions, feedback, alerts and shadow scores, and erase people without remaining rows.

    The audit keeps its records, which hold digests only. May be interrupted and repeated.

    Raises
    ------
    ValueError
        Where the retention is shorter than the features look back.
    StoreUnavailable
        Where the store is not available.
    """
    if older_than_days < SHORTEST_DAYS:
        raise ValueError(f"history features look back 90 days: keep at least {SHORTEST_DAYS}, not {older_than_days}")
    before = store.clock() - older_than_days * DAY_US
    with store.writing():  # first, so that a deletion that is cut off is known to be one
        store.audit("retain", inputs=str(before))
    old = select(decisions.c.id).where(decisions.c.decided_at < before)
    _delete_where(store, feedback, feedback.c.decision.in_(old))
    _delete_where(store, alerts, alerts.c.decision.in_(old))
    _delete_where(store, shadows, shadows.c.scored_at < before)
    return Deleted(
        _delete_where(store, transactions, transactions.c.occurred_at < before),
        _delete_where(store, decisions, decisions.c.decided_at < before),
        _erase_unused(store, before),
    )


def _delete_where(store: Store, table: Table, condition: ColumnElement[bool]) -> int:
    key = next(iter(table.primary_key))
    delete_rows = delete(table).where(key.in_(bindparam("keys", expanding=True)))

    def delete_chunk(connection: Connection, keys: Sequence[str]) -> int:
        if table is transactions:
            store.forget_histories()
        return connection.execute(delete_rows, {"keys": keys}).rowcount

    return sum(_for_each_chunk(store, select(key).where(condition), delete_chunk))


def _erase_unused(store: Store, before: int) -> int:
    """Erase people without remaining rows, and return their number."""
    has_rows = or_(*(exists().where(table.c.person == people.c.person) for table in (*DELETED_TABLES, decisions)))
    # A person is inserted before their first row: people newer than the limit are left alone.
    unused = select(people.c.person).where(people.c.lookup.is_not(None), people.c.created_at < before, ~has_rows)
    still_unused = unused.where(people.c.person.in_(bindparam("candidates", expanding=True)))

    def erase(connection: Connection, candidates: Sequence[str]) -> int:
        unused_now = connection.execute(still_unused, {"candidates": candidates}).scalars().all()
        for person in unused_now:
            erase_rows(store, connection, person)
        return len(unused_now)

    return sum(_for_each_chunk(store, unused, erase))


def _for_each_chunk(store: Store, query: Select[Any], do: Callable[[Connection, Sequence[Any]], int]) -> Iterator[int]:
    """Call `do` with a few keys of a query in each transaction: requests are served between two transactions."""
    with store.reading() as connection:
        keys = connection.execute(query).scalars().all()
    for first in range(0, len(keys), ROWS_PER_TRANSACTION):
        with store.writing() as connection:
            yield do(connection, keys[first : first + ROWS_PER_TRANSACTION])
