"""People: what is kept of one and handed over, how one is erased, how long anything is kept, and how their keys are wrapped anew.

To erase is to forget the person's key: what it sealed, here or in a backup, is noise from then on. What is readable (time and amount of
transactions, scores) is deleted besides. Decisions and audit stay, sealed and as digests, so that the chain still verifies.
docs/privacy.md says what is kept and why; `backup` frees the file of remainders. SQL on people as such stands here.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, delete, exists, func, or_, select, update

from bento.answers import unknown
from bento.backup import empty_log, small, wipe
from bento.errors import Problem, invalid, log_failure
from bento.privacy import unseal
from bento.store import Person, Store, StoreUnavailable
from bento.tables import audit, decisions, feedback, people, shadows, standings, transactions
from schemas.api import LONGEST_IDENTIFIER, Erasure, PersonExport

DAY_US = 86_400_000_000
SHORTEST_DAYS = 100
"""Days for which history is kept at least: features look back that far (90 days and a margin), and would else be computed from less."""
TOGETHER = 500
"""Rows that are changed in one transaction."""
_EPOCH = datetime(1970, 1, 1)
_PHYSICALLY = (transactions, standings, shadows, feedback)
"""What is deleted of a person; of the rest only the key."""

_FORGET = (
    update(people)
    .where(people.c.person == bindparam("whom"))
    .values(lookup=None, wrapped_key=None, erased_at=func.coalesce(people.c.erased_at, bindparam("now")))
)
_DELETE = [delete(table).where(table.c.person == bindparam("whom")) for table in _PHYSICALLY]
_UNSCORE = update(decisions).where(decisions.c.person == bindparam("whom")).values(probability=None, decision=None)
_SINCE = select(people.c.created_at, people.c.wrapped_key).where(people.c.person == bindparam("whom"))
_HELD = {
    table: select(table).where(table.c.person == bindparam("whom")).order_by(order)
    for table, order in (
        (transactions, transactions.c.occurred_at),
        (decisions, decisions.c.position),
        (standings, standings.c.domain),
        (shadows, shadows.c.position),
        (feedback, feedback.c.position),
    )
}
_RECORDED = (
    select(*(audit.c[name] for name in ("at", "action", "caller", "domain", "model_version", "request_id", "writer", "number")))
    .where(audit.c.person == bindparam("whom"))
    .order_by(audit.c.at, audit.c.writer, audit.c.number)
)


# Export


def export(store: Store, customer_id: str) -> PersonExport:
    """Everything that is held of a person, in plain text. That it was read is recorded with it.

    Raises
    ------
    bento.errors.Problem
        Where nothing is known of the person, or the store cannot be had.
    """
    _check(customer_id)
    try:
        with store.writing() as connection:
            person = store.person(customer_id)
            if person is None:
                raise unknown("customer_id")
            store.audit("export", person=person.person)
            since, wrapped = connection.execute(_SINCE, {"whom": person.person}).one()
            return PersonExport(
                customer_id=customer_id,
                known_since=_moment(since),
                exported_at=_moment(store.clock()),
                transactions=[_transaction(row, person) for row in _rows(connection, transactions, person)],
                decisions=[_decision(row, store, wrapped) for row in _rows(connection, decisions, person)],
                standings=[_standing(row, person) for row in _rows(connection, standings, person)],
                shadows=[_shadow(row, person) for row in _rows(connection, shadows, person)],
                feedback=[_feedback(row, person) for row in _rows(connection, feedback, person)],
                audit=[{**row, "at": _moment(row["at"])} for row in connection.execute(_RECORDED, {"whom": person.person}).mappings()],
            )
    except StoreUnavailable as error:
        log_failure(error)
        raise Problem.of(503) from None


def _rows(connection: Connection, table: Table, person: Person) -> list[Any]:
    return list(connection.execute(_HELD[table], {"whom": person.person}).mappings())


def _transaction(row: Any, person: Person) -> dict[str, Any]:
    sent: list[str | None] = [None] * 4
    if row["sealed"] is not None:
        sent = json.loads(unseal(person.key, row["sealed"], row["transaction_token"].encode()))
    return {
        "transaction_id": sent[0],
        "occurred_at": _moment(row["occurred_at"]),
        "amount": row["amount"],
        "direction": row["direction"],
        "merchant": sent[2],
        "country": sent[3],
        "is_fraud": row["is_fraud"],
        "label_known_at": _moment(row["label_known_at"]),
    }


def _decision(row: Any, store: Store, wrapped: bytes) -> dict[str, Any]:
    content = store.content(row["id"], row["person"], wrapped, row["sealed"])
    return {
        "decision_id": row["id"],
        "decided_at": _moment(row["decided_at"]),
        "domain": row["domain"],
        "model_version": row["model_version"],
        "caller": row["caller"],
        "request_id": row["request_id"],
        "request": content and content.request,
        "model_input": content and [None if value != value else float(value) for value in content.row.ravel()],
        "answer": content and content.answer,
    }


def _standing(row: Any, person: Person) -> dict[str, Any]:
    subject, _, account, features, score = json.loads(unseal(person.key, row["sealed"], row["subject"].encode()))
    return {
        "domain": row["domain"],
        "subject": subject,
        "account_id": account,
        "as_of": _moment(row["as_of"]),
        "features": features,
        "score": score,
    }


def _shadow(row: Any, person: Person) -> dict[str, Any]:
    subject = None if row["sealed"] is None else unseal(person.key, row["sealed"], row["subject"].encode()).decode()
    told = {name: value for name, value in row.items() if name not in ("position", "person", "subject", "sealed", "scored_at")}
    return {"subject": subject, "scored_at": _moment(row["scored_at"]), **told}


def _feedback(row: Any, person: Person) -> dict[str, Any]:
    return {
        "feedback_id": row["id"],
        "decision_id": row["decision"],
        "label": bool(row["label"]),
        "known_at": _moment(row["known_at"]),
        "recorded_at": _moment(row["at"]),
        "caller": row["caller"],
        "note": None if row["note"] is None else unseal(person.key, row["note"], row["id"].encode()).decode(),
    }


# Erasure


def erase(store: Store, customer_id: str, *, wiping: bool = True) -> Erasure:
    """Erase a person: the key and the look-up, transactions, standings, shadows and feedback; decisions stay, sealed for ever.

    A small store is freed of remainders at once; of a large one only the log, since others cannot write meanwhile: see `bento.backup`.

    Parameters
    ----------
    wiping
        Whether it is; whoever erases many people does it once.

    Raises
    ------
    bento.errors.Problem
        Where nothing is known of the person, or the store cannot be had.
    """
    _check(customer_id)
    try:
        with store.writing() as connection:
            store.alone(customer=customer_id)
            person = store.person(customer_id)
            if person is None:
                raise unknown("customer_id")
            _erase(store, connection, person.person)
        wiped = wiping and small(store) and wipe(store)
        if wiping and not wiped:
            empty_log(store)
        return Erasure(erased_at=_moment(store.clock()), file_wiped=wiped)
    except StoreUnavailable as error:
        log_failure(error)
        raise Problem.of(503) from None


def _erase(store: Store, connection: Connection, person: str) -> None:
    named = {"whom": person, "now": store.clock()}
    for statement in (_FORGET, *_DELETE, _UNSCORE):
        connection.execute(statement, named)
    store.audit("erase", person=person)


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
    kept = or_(*(exists().where(table.c.person == people.c.person) for table in (*_PHYSICALLY, decisions)))
    # Somebody who became known a moment ago may be about to have something kept.
    unused = select(people.c.person).where(people.c.lookup.is_not(None), people.c.created_at < before, ~kept)
    still = unused.where(people.c.person.in_(bindparam("some", expanding=True)))

    def forget(connection: Connection, found: Sequence[str]) -> int:
        unused_now = connection.execute(still, {"some": found}).scalars().all()
        for person in unused_now:
            _erase(store, connection, person)
        return len(unused_now)

    return sum(_in_steps(store, unused, forget))


def _in_steps(store: Store, asked: Select[Any], do: Callable[[Connection, Sequence[Any]], int]) -> Iterator[int]:
    """Do something with what is found, a few rows in one transaction: requests go on between two."""
    with store.reading() as connection:
        keys = connection.execute(asked).scalars().all()
    for first in range(0, len(keys), TOGETHER):
        with store.writing() as connection:
            yield do(connection, keys[first : first + TOGETHER])


# Master keys


def rewrap(store: Store) -> int:
    """Wrap every key under the current master key that is not yet; return how many there were. May be cut off and repeated.

    Raises
    ------
    bento.privacy.KeyringError
        Where a key is wrapped under a master key that is not given.
    StoreUnavailable
        Where the store cannot be had.
    """
    keyring, total = store.keyring, 0
    others = (
        select(people.c.person, people.c.wrapped_key)
        .where(people.c.wrapped_key.is_not(None), people.c.master != bindparam("current"))
        .order_by(people.c.person)
        .limit(TOGETHER)
        .with_for_update()
    )
    anew = (
        update(people)
        .where(people.c.person == bindparam("whom"))
        .values(wrapped_key=bindparam("wrapped"), master=bindparam("under"))
    )  # fmt: skip
    while True:
        with store.writing() as connection:
            rows = connection.execute(others, {"current": keyring.master}).all()
            for person, wrapped in rows:
                about = person.encode()
                again = keyring.wrap(keyring.unwrap(wrapped, about), about)
                connection.execute(anew, {"whom": person, "wrapped": again, "under": keyring.master})
            if rows:
                store.audit("rewrap", output=keyring.master)
        total += len(rows)
        if len(rows) < TOGETHER:
            return total


def masters(connection: Connection) -> dict[str, int]:
    """How many keys are wrapped under which master key, by its id."""
    asked = select(people.c.master, func.count()).where(people.c.wrapped_key.is_not(None)).group_by(people.c.master)
    return dict(connection.execute(asked.order_by(people.c.master)).tuples().all())


def _check(customer_id: str) -> None:
    if len(customer_id) > LONGEST_IDENTIFIER:
        raise invalid("customer_id", f"At most {LONGEST_IDENTIFIER} characters.")


def _moment(microseconds: int | None) -> Any:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
