"""retention."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, delete, exists, or_, select

from bento.people.data_rights import DELETED_TABLES, TOGETHER, erase_rows
from bento.store.session import Store
from bento.store.tables import decisions, feedback, people, shadows, transactions

DAY_US = 86_400_000_000
SHORTEST_DAYS = 100
"""Days for which history is kept at least: features look back that far (90 days and a margin), and would else be computed from less."""


# Retention


class Retained(NamedTuple):
    """What was too old to be kept any longer: rows that were deleted, and people of whom nothing was left."""

    transactions: int
    decisions: int
    people: int


def retain(store: Store, older_than_days: int) -> Retained:
    """Delete transactions, decisions, their feedback and shadows that are older, and forget people of whom nothing remains.

    The audit keeps its records of them, which hold digests only. May be cut off and repeated.

    Raises
    ------
    ValueError
        Where features would be computed from less history than they look back.
    StoreUnavailable
        Where the store cannot be had.
    """
    if older_than_days < SHORTEST_DAYS:
        raise ValueError(f"history features look back 90 days: keep at least {SHORTEST_DAYS}, not {older_than_days}")
    before = store.clock() - older_than_days * DAY_US
    old = select(decisions.c.id).where(decisions.c.decided_at < before)
    _delete_where(store, feedback, feedback.c.decision.in_(old))
    _delete_where(store, shadows, shadows.c.scored_at < before)
    found = Retained(
        _delete_where(store, transactions, transactions.c.occurred_at < before),
        _delete_where(store, decisions, decisions.c.decided_at < before),
        _forget_unused(store, before),
    )
    with store.writing():
        store.audit("retain")
    return found


def _delete_where(store: Store, table: Table, condition: ColumnElement[bool]) -> int:
    key = next(iter(table.primary_key))
    some = delete(table).where(key.in_(bindparam("some", expanding=True)))
    return sum(_in_steps(store, select(key).where(condition), lambda connection, keys: connection.execute(some, {"some": keys}).rowcount))


def _forget_unused(store: Store, before: int) -> int:
    """Erase people of whom nothing is kept any more."""
    kept = or_(*(exists().where(table.c.person == people.c.person) for table in (*DELETED_TABLES, decisions)))
    # Somebody who became known a moment ago may be about to have something kept.
    unused = select(people.c.person).where(people.c.lookup.is_not(None), people.c.created_at < before, ~kept)
    still = unused.where(people.c.person.in_(bindparam("some", expanding=True)))

    def forget(connection: Connection, found: Sequence[str]) -> int:
        unused_now = connection.execute(still, {"some": found}).scalars().all()
        for person in unused_now:
            erase_rows(store, connection, person)
        return len(unused_now)

    return sum(_in_steps(store, unused, forget))


def _in_steps(store: Store, asked: Select[Any], do: Callable[[Connection, Sequence[Any]], int]) -> Iterator[int]:
    """Do something with what is found, a few rows in one transaction: requests go on between two."""
    with store.reading() as connection:
        keys = connection.execute(asked).scalars().all()
    for first in range(0, len(keys), TOGETHER):
        with store.writing() as connection:
            yield do(connection, keys[first : first + TOGETHER])
