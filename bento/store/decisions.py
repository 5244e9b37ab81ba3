"""Stored decisions: insert them with their audit records, find one by an identifier, and read them in the order of writing."""

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic_core import to_json
from sqlalchemy import bindparam, insert, or_, select

from bento.store.audit_chain import Record, bind_alert
from bento.store.keyring import KeyringError, seal, unseal
from bento.store.records import (
    UNKNOWN_LOSS,
    AbridgedAnswer,
    DecisionPayload,
    NewAlert,
    NewDecision,
    PriorDecision,
    RequestOrigin,
    StoredDecision,
    encode_json,
)
from bento.store.statements import CompiledStatement, TextsQuery
from bento.store.tables import alerts, decisions, people
from bento.store.unit_of_work import UnitOfWork

PAGE_SIZE = 500
"""Decisions in memory at a time while all are read. More takes fewer queries and more memory."""
_ABRIDGED = b" abridged"
"""End of the associated data of an abridged record. Code that knows full records alone cannot open it, so it never takes it for one."""
_SCORES = struct.Struct("<dd16s")
"""Margin, probability and digest of an abridged record."""

_WITH_PERSON = decisions.outerjoin(people, decisions.c.person == people.c.person)
_FIND_PRIOR = CompiledStatement(
    select(
        decisions.c.id, decisions.c.digest, decisions.c.domain, decisions.c.model_version, decisions.c.policy_version, decisions.c.sealed,
        decisions.c.person, people.c.lookup, people.c.wrapped_key,
    )
    .select_from(_WITH_PERSON)
    .where(or_(decisions.c.transaction_token == bindparam("transaction"), decisions.c.idempotency == bindparam("key")))
)  # fmt: skip
_FIND_DECIDED = TextsQuery(select(decisions.c.transaction_token), decisions.c.transaction_token)
_FIND_ANY = {column: TextsQuery(select(decisions.c.id), decisions.c[column]) for column in ("transaction_token", "idempotency")}
_BOUND_COLUMNS = (
    "id", "person", "domain", "route", "model_version", "caller", "request_id", "transaction_token", "idempotency", "digest", "decided_at",
)  # fmt: skip
OUTCOME_STARTS = 32
"""Hexadecimal digits of `bind_row` in front of those that cover the outcome."""
_INSERT = CompiledStatement(insert(decisions).inline(), [column.name for column in decisions.columns if column.name != "position"])
_ALERT_COLUMNS = [column.name for column in alerts.columns if column.name != "position"]
_INSERT_ALERTS = CompiledStatement(insert(alerts).inline(), _ALERT_COLUMNS)
_STORED = [decisions.c[name] for name in StoredDecision._fields if name not in ("content", "erased")]
_SELECT_PAGE = (
    select(*_STORED, people.c.lookup, people.c.wrapped_key)
    .select_from(_WITH_PERSON)
    .where(decisions.c.position > bindparam("after"))
    .order_by(decisions.c.position)
    .limit(bindparam("size"))
)


_SELECT_BY_ID = select(*_STORED, people.c.lookup, people.c.wrapped_key).select_from(_WITH_PERSON).where(decisions.c.id == bindparam("of"))


def new_id(session: UnitOfWork) -> str:
    """Return a new decision's identifier: 32 hex digits, the time and 72 random bits.

    The time stands in front so that new rows share pages of the index.
    """
    return f"{session.clock():014x}{os.urandom(9).hex()}"


def read_time(decision_id: str) -> int:
    """Return the time in front of a decision's identifier, in microseconds since 1970, UTC; 0 where the identifier was changed."""
    return int(decision_id[:14], 16) if re.match("[0-9a-f]{14}", decision_id) else 0


def digest_request(session: UnitOfWork, request: bytes) -> str:
    """Return a keyed digest that tells requests apart without revealing their content."""
    return session.keyring.token("request", request.decode())


def find_prior_decision(session: UnitOfWork, *, transaction_id: str | None = None, key: str | None = None) -> PriorDecision | None:
    """Return the prior decision made under a transaction's identifier, or under an idempotency key of the current caller.

    Where both identifiers are given and name two decisions, the digest is empty and equals that of no request.
    """
    transaction_token = transaction_id and session.token("transaction", transaction_id)
    idempotency = key and _idempotency_token(session, RequestOrigin.current().caller, key)
    if not transaction_token and not idempotency:
        return None
    with session.reading() as connection:
        rows = _FIND_PRIOR(connection, {"transaction": transaction_token, "key": idempotency}).fetchall()
        if not rows:
            return None
        decision_id, digest, domain, model_version, policy_version, sealed, person, lookup, wrapped = rows[0]
        data_key = session.key_of(person, lookup, wrapped)
        digest, body, payload = digest if len(rows) == 1 else "", None, None
        if data_key is not None:
            plain, is_abridged = _unseal(data_key, sealed, decision_id)
            if is_abridged:
                payload = _unpack(plain, is_abridged)
            else:
                body = _split_full(plain)[1]
        return PriorDecision(decision_id, digest, body, domain, model_version, policy_version, payload)


def has_prior_decision(session: UnitOfWork, *, transaction_ids: Iterable[str], keys: Iterable[tuple[str, str]]) -> bool:
    """Return whether there is a decision under any of these transactions' identifiers, or callers with an idempotency key of theirs."""
    tokens = {
        "transaction_token": [session.token("transaction", transaction_id) for transaction_id in transaction_ids],
        "idempotency": [_idempotency_token(session, caller, key) for caller, key in keys],
    }
    with session.reading() as connection:
        return any(tokens_of_column and _FIND_ANY[column](connection, tokens_of_column) for column, tokens_of_column in tokens.items())


def find_decided(session: UnitOfWork, transaction_ids: Iterable[str]) -> set[str]:
    """Return those of these transactions' identifiers under which there is a decision."""
    identifier_of = {session.token("transaction", transaction_id): transaction_id for transaction_id in transaction_ids}
    with session.reading() as connection:
        return {identifier_of[token] for (token,) in _FIND_DECIDED(connection, identifier_of)}


def insert_decisions(session: UnitOfWork, new_decisions: Sequence[NewDecision]) -> None:
    """Insert decisions, each with its audit record, and the alerts that they open. Call this inside `writing`.

    Raises
    ------
    sqlalchemy.exc.IntegrityError
        Where a decision exists under one of the identifiers.
    """
    at, current = session.clock(), RequestOrigin.current()
    rows: list[dict[str, Any]] = []
    for new in new_decisions:
        caller, request_id = new.origin or current
        data_key = session.keyring.service_key if new.person is None else new.person.key
        rows.append(
            {
                "id": new.id,
                "person": new.person and new.person.person,
                "domain": new.domain,
                "route": new.route,
                "model_version": new.model_version,
                "policy_version": new.policy_version,
                "caller": caller,
                "request_id": request_id,
                "transaction_token": new.transaction_id and session.token("transaction", new.transaction_id),
                "idempotency": new.key and _idempotency_token(session, caller, new.key),
                "digest": new.digest or digest_request(session, new.request),
                "decided_at": at,
                "probability": new.probability,
                "decision": new.decision,
                "sealed": seal(data_key, _pack(new), _about(new.id, is_abridged=new.abridged is not None)),
            }
        )
    _INSERT.execute_many(session.database.writing_connection(), rows)
    for row in rows:
        session.audit(
            "decide",
            at=at,  # equal to `decided_at`: replay finds the record by it
            origin=RequestOrigin(row["caller"], row["request_id"]),
            person=row["person"],
            domain=row["domain"],
            model_version=row["model_version"],
            inputs=row["digest"],
            output=bind_row(session.keyring.mac, row),
        )
    opened = [(row, new.alert) for row, new in zip(rows, new_decisions, strict=True) if new.alert is not None]
    if opened:
        _open_alerts(session, opened)


def _open_alerts(session: UnitOfWork, opened: Sequence[tuple[Mapping[str, Any], NewAlert]]) -> None:
    """Insert the alerts of decisions' rows, each with its audit record."""
    open_alerts: list[dict[str, Any]] = [
        {
            **dict.fromkeys(_ALERT_COLUMNS),
            "decision": row["id"],
            "person": row["person"],
            "outcome": row["decision"],
            "expected_loss": UNKNOWN_LOSS if alert.expected_loss_amount is None else alert.expected_loss_amount,
            "opened_at": row["decided_at"],
            "state": "open",
            "version": 1,
        }
        for row, alert in opened
    ]
    _INSERT_ALERTS.execute_many(session.database.writing_connection(), open_alerts)
    for (row, _), alert_row in zip(opened, open_alerts, strict=True):
        session.audit(
            "alert.open",
            at=row["decided_at"],
            origin=RequestOrigin(row["caller"], row["request_id"]),
            person=row["person"],
            domain="alerts",
            inputs=row["id"],
            output=bind_alert(session.keyring.mac, alert_row),
        )


def bind_row(mac: Callable[[bytes], str], row: Mapping[str, Any]) -> str:
    """Return the output of a decision's audit record: 128 bits of a MAC over what stays of the row, and 128 bits over its outcome.

    The outcome is apart because an erasure deletes it. The position is not included, because the database chooses it: the order of the
    records of one writer is that of its decisions.
    """
    # A decision that is older than policies was bound without one.
    policy = [] if row["policy_version"] is None else [row["policy_version"]]
    columns = encode_json(["decisions", *[row[name] for name in _BOUND_COLUMNS], *policy]).encode()
    lasting = mac(columns + row["sealed"])
    # An f-string: JSON would take as long as both MACs. An id has no spaces.
    outcome = mac(f"outcome {row['id']} {row['probability']} {row['decision']}".encode())
    return lasting[:OUTCOME_STARTS] + outcome[:OUTCOME_STARTS]


def find_record(mac: Callable[[bytes], str], row: Mapping[str, Any], records: Mapping[str, Record], *, erased: bool) -> Record | None:
    """Return the audit record of a decision's row; None where the row is not as it was recorded.

    Parameters
    ----------
    records
        The first `OUTCOME_STARTS` digits of the output -> the record, of the records at the decision's moment.
    erased
        Whether the person was erased, so that the row has no outcome.
    """
    bound = bind_row(mac, row)
    record = records.get(bound[:OUTCOME_STARTS])
    if record is not None:
        has_outcome = row["probability"] is not None or row["decision"] is not None
        is_as_recorded = not has_outcome if erased else record.output == bound
        return record if is_as_recorded else None
    # A decision that a store of schema 0001 recorded: the output covers the sealed bytes, the record has further columns.
    digest = hashlib.sha256(row["sealed"]).hexdigest()
    record = records.get(digest[:OUTCOME_STARTS])
    columns = ("caller", "request_id", "person", "domain", "model_version")
    if record is None or record.output != digest or record.inputs != row["digest"] or any(getattr(record, c) != row[c] for c in columns):
        return None
    return record


def list_decisions(session: UnitOfWork, *, after: int = 0, domains: Collection[str] = ()) -> Iterator[StoredDecision]:
    """Yield all decisions in the order of writing, unsealed, with one page in memory at a time.

    Parameters
    ----------
    after
        Only decisions behind this position.
    domains
        Only decisions of these domains; by default of all.
    """
    statement = _SELECT_PAGE.where(decisions.c.domain.in_(sorted(domains))) if domains else _SELECT_PAGE
    while True:
        with session.reading() as connection:
            page = connection.execute(statement, {"after": after, "size": PAGE_SIZE}).all()
        for row in page:
            yield _to_stored(session, row)
        if len(page) < PAGE_SIZE:
            return
        after = page[-1].position


def find_decision(session: UnitOfWork, decision_id: str) -> StoredDecision | None:
    """Return a decision, unsealed; None where there is no such decision."""
    with session.reading() as connection:
        row = connection.execute(_SELECT_BY_ID, {"of": decision_id}).one_or_none()
    return None if row is None else _to_stored(session, row)


def _to_stored(session: UnitOfWork, row: Any) -> StoredDecision:
    """Return the decision of a row that ends with the look-up token and the wrapped key of its person."""
    *columns, lookup, wrapped = row
    stored: StoredDecision = StoredDecision._make((*columns, None, False))
    payload = open_payload(session, stored.id, stored.person, lookup, wrapped, stored.sealed)
    return stored._replace(content=payload, erased=stored.person is not None and wrapped is None)


def open_payload(
    session: UnitOfWork, decision_id: str, person: str | None, lookup: str | None, wrapped: bytes | None, sealed: bytes
) -> DecisionPayload | None:
    """Return the unsealed payload of a decision; None where its person was erased or the bytes were changed.

    Parameters
    ----------
    person, lookup, wrapped
        The person's pseudonymous id, look-up token and wrapped data key; None as the tables hold it.
    """
    try:
        data_key = session.key_of(person, lookup, wrapped)
        return None if data_key is None else _unpack(*_unseal(data_key, sealed, decision_id))
    except KeyringError:
        return None


def _idempotency_token(session: UnitOfWork, caller: str, key: str) -> str:
    return session.keyring.token("idempotency", f"{caller}\0{key}")


def _about(decision_id: str, *, is_abridged: bool) -> bytes:
    """Return the associated data of a record."""
    return decision_id.encode() + (_ABRIDGED if is_abridged else b"")


def _unseal(data_key: bytes, sealed: bytes, decision_id: str) -> tuple[bytes, bool]:
    """Return a record's bytes, and whether the record is abridged."""
    try:
        return unseal(data_key, sealed, _about(decision_id, is_abridged=False)), False
    except KeyringError:
        return unseal(data_key, sealed, _about(decision_id, is_abridged=True)), True


def _pack(new: NewDecision) -> bytes:
    """Return the bytes to seal.

    A full record has three lines of JSON (request, answer, decision context) and the row's bytes. An abridged record has three lines of
    JSON (request, decision context, snapshot), `_SCORES` and the row's bytes.
    """
    row = np.ascontiguousarray(new.row, np.float32).tobytes()
    context = b"null" if new.decision_context is None else encode_json(new.decision_context).encode()
    if new.abridged is None:
        return b"\n".join((new.request, new.answer, context, row))
    margin, probability, customer_id, account_id, as_of, digest = new.abridged
    snapshot = to_json([customer_id, account_id, as_of])
    return b"\n".join((new.request, context, snapshot, _SCORES.pack(margin, probability, digest) + row))


def _split_full(plain: bytes) -> list[bytes]:
    """Return request, answer, decision context and row of a full record."""
    return plain.split(b"\n", 3)


def _unpack(plain: bytes, is_abridged: bool) -> DecisionPayload:
    if not is_abridged:
        request, answer, context, row = _split_full(plain)
        return DecisionPayload(json.loads(request), json.loads(answer), json.loads(context), np.frombuffer(row, np.float32))
    request, context, snapshot, rest = plain.split(b"\n", 3)
    margin, probability, digest = _SCORES.unpack_from(rest)
    customer_id, account_id, as_of = json.loads(snapshot)
    abridged = AbridgedAnswer(margin, probability, customer_id, account_id, as_of, digest)
    return DecisionPayload(json.loads(request), None, json.loads(context), np.frombuffer(rest, np.float32, offset=_SCORES.size), abridged)
