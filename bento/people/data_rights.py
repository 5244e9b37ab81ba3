"""People: what is kept of one and handed over, how one is erased, how long anything is kept, and how their keys are wrapped anew.

To erase is to forget the person's key: what it sealed, here or in a backup, is noise from then on. What is readable (time and amount of
transactions, scores) is deleted besides. Decisions and audit stay, sealed and as digests, so that the chain still verifies.
docs/privacy.md says what is kept and why; `backup` frees the file of remainders. SQL on people as such stands here.
"""

import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, func, select, update

from bento.decisions.answers import unknown
from bento.people.backup import empty_log, small, wipe
from bento.problems import Problem, invalid, log_failure
from bento.store.keyring import unseal
from bento.store.session import Person, Store, StoreUnavailable
from bento.store.tables import audit, decisions, feedback, people, shadows, standings, transactions
from schemas.api import LONGEST_IDENTIFIER, Erasure, PersonExport

TOGETHER = 500
"""Rows that are changed in one transaction."""
_EPOCH = datetime(1970, 1, 1)

_FORGET = (
    update(people)
    .where(people.c.person == bindparam("whom"))
    .values(lookup=None, wrapped_key=None, erased_at=func.coalesce(people.c.erased_at, bindparam("now")))
)
DELETED_TABLES = (transactions, standings, shadows, feedback)
"""What is deleted of a person; of the rest only the key."""
_DELETE = [delete(table).where(table.c.person == bindparam("whom")) for table in DELETED_TABLES]
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
    bento.problems.Problem
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

    A small store is freed of remainders at once; of a large one only the log, since others cannot write
    meanwhile: see `bento.people.backup`.

    Parameters
    ----------
    wiping
        Whether it is; whoever erases many people does it once.

    Raises
    ------
    bento.problems.Problem
        Where nothing is known of the person, or the store cannot be had.
    """
    _check(customer_id)
    try:
        with store.writing() as connection:
            store.advisory_lock(customer=customer_id)
            person = store.person(customer_id)
            if person is None:
                raise unknown("customer_id")
            erase_rows(store, connection, person.person)
        wiped = wiping and small(store) and wipe(store)
        if wiping and not wiped:
            empty_log(store)
        return Erasure(erased_at=_moment(store.clock()), file_wiped=wiped)
    except StoreUnavailable as error:
        log_failure(error)
        raise Problem.of(503) from None


def erase_rows(store: Store, connection: Connection, person: str) -> None:
    named = {"whom": person, "now": store.clock()}
    for statement in (_FORGET, *_DELETE, _UNSCORE):
        connection.execute(statement, named)
    store.audit("erase", person=person)


# Master keys


def rewrap(store: Store) -> int:
    """Wrap every key under the current master key that is not yet; return how many there were. May be cut off and repeated.

    Raises
    ------
    bento.store.keyring.KeyringError
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
