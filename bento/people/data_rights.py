"""Rights of a person over their data: export and erasure, and the rewrapping of data keys after a change of the master key.

Erasure deletes the person's key, which makes all data sealed with the key unreadable, also in backups (crypto-shredding). Readable values
(time and amount of transactions, scores) are deleted too. Decisions stay sealed and the audit holds digests, so that the chain still
verifies. docs/privacy.md says what is kept and why; `retention` deletes by age, `backup` removes remainders from the file.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, LargeBinary, Table, bindparam, delete, func, literal_column, or_, select, update

from bento.decisions.bundle_versions import BundleVersions
from bento.decisions.record_tiers import AnswerRebuilder
from bento.people.backup import empty_log, is_small, wipe
from bento.problems import parse_identifier, unknown_subject
from bento.store.keyring import MASTER_ID_BYTES, key_context, snapshot_context, unseal
from bento.store.records import DecisionPayload, Person
from bento.store.session import Store, map_store_faults, write_transaction
from bento.store.tables import alerts, audit, decisions, feedback, people, shadows, standings, transactions
from schemas.api import Erasure, PersonExport
from schemas.timestamps import from_micros

ROWS_PER_TRANSACTION = 500
"""Rows that are changed in one transaction. More rows finish the work sooner; requests wait longer."""

_DELETE_KEY = (
    update(people)
    .where(people.c.person == bindparam("person_id"))
    .values(lookup=None, wrapped_key=None, erased_at=func.coalesce(people.c.erased_at, bindparam("now")))
)
DELETED_TABLES = (transactions, standings, shadows, feedback, alerts)
"""Tables whose rows of a person are deleted; rows of the other tables only lose their key."""
_DELETE_ROWS = [delete(table).where(table.c.person == bindparam("person_id")) for table in DELETED_TABLES]
_DELETE_SCORES = update(decisions).where(decisions.c.person == bindparam("person_id")).values(probability=None, decision=None)
_SELECT_PERSON = select(people.c.created_at, people.c.lookup, people.c.wrapped_key).where(people.c.person == bindparam("person_id"))
_SELECT_ROWS = {
    table: select(table).where(table.c.person == bindparam("person_id")).order_by(order)
    for table, order in (
        (transactions, transactions.c.occurred_at),
        (decisions, decisions.c.position),
        (standings, standings.c.domain),
        (shadows, shadows.c.position),
        (feedback, feedback.c.position),
        (alerts, alerts.c.position),
    )
}
_SELECT_AUDIT = (
    select(*(audit.c[name] for name in ("at", "action", "caller", "domain", "model_version", "request_id", "writer", "number")))
    .where(audit.c.person == bindparam("person_id"))
    .order_by(audit.c.at, audit.c.writer, audit.c.number)
)


# The id in front of a wrapped key decides which master key opens it: the column `master` says the same, and may be edited.
_WRAPPING_MASTER = func.substr(people.c.wrapped_key, literal_column("1"), literal_column(str(MASTER_ID_BYTES)), type_=LargeBinary)
_OUTDATED_KEYS = (
    select(people.c.person, people.c.lookup, people.c.wrapped_key)
    .where(
        people.c.wrapped_key.is_not(None),
        or_(bindparam("current_id", type_=LargeBinary) != _WRAPPING_MASTER, people.c.master != bindparam("current")),
    )
    .order_by(people.c.person)
    .with_for_update()
)
_COUNT_KEYS = select(_WRAPPING_MASTER.label("wrapping"), func.count()).where(people.c.wrapped_key.is_not(None)).group_by("wrapping")

# Export


def export(store: Store, customer_id: str, answers: AnswerRebuilder | None = None) -> PersonExport:
    """Return everything that is stored about a person, in plain text, and record the access in the audit.

    Parameters
    ----------
    answers
        Rebuilds the answers of abridged records. Default: with the bundles that the store has a copy of.

    Raises
    ------
    bento.problems.Problem
        Where the identifier is blank or too long, the person is unknown, or the store is not available.
    """
    customer_id = parse_identifier("customer_id", customer_id)
    with write_transaction(store) as connection:
        person = store.person(customer_id)
        if person is None:
            raise unknown_subject("customer_id")
        store.audit("export", person=person.person)
        since, lookup, wrapped = connection.execute(_SELECT_PERSON, {"person_id": person.person}).one()
        return PersonExport(
            customer_id=customer_id,
            known_since=_datetime_or_none(since),
            exported_at=_datetime_or_none(store.clock()),
            transactions=[_transaction(row, person) for row in _rows(connection, transactions, person)],
            decisions=_decisions(
                _rows(connection, decisions, person), store, lookup, wrapped, answers or AnswerRebuilder(store, BundleVersions(store=store))
            ),
            standings=[_snapshot(row, person) for row in _rows(connection, standings, person)],
            shadows=[_shadow(row, person) for row in _rows(connection, shadows, person)],
            feedback=[_feedback(row, person) for row in _rows(connection, feedback, person)],
            alerts=[_alert(row, person) for row in _rows(connection, alerts, person)],
            audit=[
                {**row, "at": _datetime_or_none(row["at"])}
                for row in connection.execute(_SELECT_AUDIT, {"person_id": person.person}).mappings()
            ],
        )


def _rows(connection: Connection, table: Table, person: Person) -> list[Any]:
    return list(connection.execute(_SELECT_ROWS[table], {"person_id": person.person}).mappings())


def _transaction(row: Any, person: Person) -> dict[str, Any]:
    identifiers: list[str | None] = [None] * 4
    if row["sealed"] is not None:
        identifiers = json.loads(unseal(person.key, row["sealed"], row["transaction_token"].encode()))
    return {
        "transaction_id": identifiers[0],
        "occurred_at": _datetime_or_none(row["occurred_at"]),
        "amount": row["amount"],
        "direction": row["direction"],
        "merchant": identifiers[2],
        "country": identifiers[3],
        "is_fraud": row["is_fraud"],
        "label_known_at": _datetime_or_none(row["label_known_at"]),
    }


def _decisions(rows: Sequence[Any], store: Store, lookup: str, wrapped: bytes, answers: AnswerRebuilder) -> list[dict[str, Any]]:
    """Return decisions with their answers; those of abridged records are rebuilt, model by model."""
    payloads = [store.open_payload(row["id"], row["person"], lookup, wrapped, row["sealed"]) for row in rows]
    exported = [_decision(row, payload) for row, payload in zip(rows, payloads, strict=True)]
    abridged: dict[tuple[str, str, str | None], list[tuple[dict[str, Any], DecisionPayload]]] = {}
    for decision, payload in zip(exported, payloads, strict=True):
        if payload is not None and payload.abridged is not None:
            model = decision["domain"], decision["model_version"], decision["policy_version"]
            abridged.setdefault(model, []).append((decision, payload))
    for model, records in abridged.items():
        for first in range(0, len(records), ROWS_PER_TRANSACTION):
            chunk = records[first : first + ROWS_PER_TRANSACTION]
            for (decision, _), body in zip(chunk, answers.rebuild(*model, [payload for _, payload in chunk]), strict=True):
                decision["answer"] = None if body is None else json.loads(body)
    return exported


def _decision(row: Any, payload: DecisionPayload | None) -> dict[str, Any]:
    return {
        "decision_id": row["id"],
        "decided_at": _datetime_or_none(row["decided_at"]),
        "domain": row["domain"],
        "model_version": row["model_version"],
        "policy_version": row["policy_version"],
        "probability": row["probability"],
        "decision": row["decision"],
        "caller": row["caller"],
        "request_id": row["request_id"],
        "request": payload and payload.request,
        "model_input": payload and [None if value != value else float(value) for value in payload.row.ravel()],
        "answer": payload and payload.answer,
    }


def _snapshot(row: Any, person: Person) -> dict[str, Any]:
    context = snapshot_context(row["domain"], row["subject"], row["account"], row["as_of"])
    subject, _, account, features, score = json.loads(unseal(person.key, row["sealed"], context))
    return {
        "domain": row["domain"],
        "subject": subject,
        "account_id": account,
        "as_of": _datetime_or_none(row["as_of"]),
        "features": features,
        "score": score,
    }


def _shadow(row: Any, person: Person) -> dict[str, Any]:
    subject = None if row["sealed"] is None else unseal(person.key, row["sealed"], row["subject"].encode()).decode()
    columns = {name: value for name, value in row.items() if name not in ("position", "person", "subject", "sealed", "scored_at")}
    return {"subject": subject, "scored_at": _datetime_or_none(row["scored_at"]), **columns}


def _feedback(row: Any, person: Person) -> dict[str, Any]:
    return {
        "feedback_id": row["id"],
        "decision_id": row["decision"],
        "label": bool(row["label"]),
        "known_at": _datetime_or_none(row["known_at"]),
        "recorded_at": _datetime_or_none(row["at"]),
        "caller": row["caller"],
        "note": None if row["note"] is None else unseal(person.key, row["note"], row["id"].encode()).decode(),
    }


def _alert(row: Any, person: Person) -> dict[str, Any]:
    return {
        "alert_id": row["decision"],
        "decision": row["outcome"],
        "opened_at": _datetime_or_none(row["opened_at"]),
        "state": row["state"],
        "assignee": row["assignee"],
        "disposition": row["disposition"],
        "closed_at": _datetime_or_none(row["closed_at"]),
        "reason": None if row["reason"] is None else unseal(person.key, row["reason"], row["decision"].encode()).decode(),
    }


# Erasure


def erase(store: Store, customer_id: str, *, wiping: bool = True) -> Erasure:
    """Erase a person: key, lookup token, transactions, snapshots, shadow scores, feedback and alerts; decisions stay, sealed for ever.

    The file of a small store is rewritten at once; of a large store only the log is emptied, because a rewrite blocks writers: see
    `bento.people.backup`.

    Parameters
    ----------
    wiping
        Whether the file is rewritten; a command that erases many people does so once.

    Raises
    ------
    bento.problems.Problem
        Where the identifier is blank or too long, the person is unknown, or the store is not available.
    """
    customer_id = parse_identifier("customer_id", customer_id)
    with write_transaction(store) as connection:
        store.advisory_lock(customer=customer_id)
        person = store.person(customer_id)
        if person is None:
            raise unknown_subject("customer_id")
        erase_rows(store, connection, person.person)
    with map_store_faults():
        wiped = wiping and is_small(store) and wipe(store)
        if wiping and not wiped:
            empty_log(store)
        return Erasure(erased_at=_datetime_or_none(store.clock()), file_wiped=wiped)


def erase_rows(store: Store, connection: Connection, person: str) -> None:
    """Delete the key and the rows of a pseudonymous id, with an audit record, in the connection's transaction."""
    parameters = {"person_id": person, "now": store.clock()}
    for statement in (_DELETE_KEY, *_DELETE_ROWS, _DELETE_SCORES):
        connection.execute(statement, parameters)
    store.forget_histories()
    store.audit("erase", person=person)


# Master keys


def rewrap(store: Store) -> int:
    """Rewrap every key under the current master key, and return the number of rewrapped keys. May be interrupted and repeated.

    Raises
    ------
    bento.store.keyring.KeyringError
        Where a key is wrapped under an unknown master key.
    StoreUnavailable
        Where the store is not available.
    """
    keyring, total = store.keyring, 0
    update_key = (
        update(people)
        .where(people.c.person == bindparam("person_id"))
        .values(wrapped_key=bindparam("wrapped"), master=bindparam("under"))
    )  # fmt: skip
    while True:
        with store.writing() as connection:
            rows = connection.execute(
                _OUTDATED_KEYS.limit(ROWS_PER_TRANSACTION), {"current": keyring.master, "current_id": bytes.fromhex(keyring.master)}
            ).all()
            for person, lookup, wrapped in rows:
                about = key_context(person, lookup)
                rewrapped = keyring.wrap(keyring.unwrap(wrapped, about), about)
                connection.execute(update_key, {"person_id": person, "wrapped": rewrapped, "under": keyring.master})
            if rows:
                store.audit("rewrap", output=keyring.master)
        total += len(rows)
        if len(rows) < ROWS_PER_TRANSACTION:
            return total


def count_keys_by_master(connection: Connection) -> dict[str, int]:
    """Return master key id -> number of keys wrapped under it."""
    return {master_id.hex(): number for master_id, number in sorted(connection.execute(_COUNT_KEYS).tuples())}


def _datetime_or_none(microseconds: int | None) -> Any:
    return None if microseconds is None else from_micros(microseconds)
