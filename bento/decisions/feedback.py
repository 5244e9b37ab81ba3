"""Feedback: an analyst's label of a decision, joined to the decision and committed with its audit record.

No label is ever overwritten: of several labels the last known label counts. A transaction's label becomes part of the history at once,
from its date on. `finrisk load-feedback` copies recorded labels to the ledger, where models learn from them. All SQL on feedback is here.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, bindparam, insert, or_, select, update

from bento.context import current_caller
from bento.decisions.answers import exactly_one_of
from bento.problems import Problem, invalid_field
from bento.store.audit_chain import bind_feedback
from bento.store.audit_verify import find_erasures, find_retention_limit
from bento.store.decisions import read_time
from bento.store.keyring import seal
from bento.store.session import Store, write_transaction
from bento.store.tables import audit, decisions, feedback, people, transactions
from schemas.api import FeedbackAnswer, FeedbackRequest, FieldError
from schemas.timestamps import from_micros, to_micros

_MAX_CLOCK_LEAD_US = 60_000_000
"""Microseconds by which a client's clock may be ahead of the service's."""

_SELECT_DECISION = (
    select(
        decisions.c.id,
        decisions.c.domain,
        decisions.c.person,
        decisions.c.model_version,
        decisions.c.transaction_token,
        people.c.lookup,
        people.c.wrapped_key,
        transactions.c.occurred_at,
    )
    .select_from(
        decisions.outerjoin(people, decisions.c.person == people.c.person).outerjoin(
            transactions, decisions.c.transaction_token == transactions.c.transaction_token
        )
    )
    .where(or_(decisions.c.id == bindparam("id"), decisions.c.transaction_token == bindparam("token")))
)
_LABEL_TRANSACTION = (
    update(transactions)
    .where(
        transactions.c.transaction_token == bindparam("token"),
        or_(transactions.c.label_known_at.is_(None), transactions.c.label_known_at <= bindparam("since")),
    )
    .values(is_fraud=bindparam("fraud"), label_known_at=bindparam("since"))
)
_SELECT_LABELS = (
    select(
        decisions.c.id, decisions.c.person, decisions.c.sealed, people.c.lookup, people.c.wrapped_key, feedback.c.label,
        feedback.c.known_at, feedback.c.id.label("feedback_id"),
    )
    .select_from(
        feedback.join(decisions, feedback.c.decision == decisions.c.id).outerjoin(people, decisions.c.person == people.c.person)
    )
    .where(decisions.c.domain == bindparam("domain"))
    .order_by(feedback.c.known_at, feedback.c.position)
)  # fmt: skip


_SELECT_RECORDS = select(audit.c.output, audit.c.person, audit.c.inputs).where(audit.c.action == "feedback", audit.c.output.is_not(None))
_PEOPLE_AT_ONCE = 500  # people in one query


class FeedbackLabel(NamedTuple):
    """The label of one decision.

    Attributes
    ----------
    answer
        The decision's answer, which names the row of the ledger; of an abridged record the request, which names it too.
    label
        Whether the predicted event happened.
    known_at
        The moment from which the label is known, naive UTC.
    """

    answer: dict[str, Any]
    label: bool
    known_at: datetime


class RecordedLabels(NamedTuple):
    """The labels of a domain that the audit has recorded, and the number of labels that it has not."""

    labels: list[FeedbackLabel]
    refused: int


class LabelMatch(NamedTuple):
    """The differences between the stored labels and the audit.

    Attributes
    ----------
    unrecorded
        Ids of labels that the audit has not recorded with this content: they were inserted or changed.
    missing
        Ids of decisions of whose recorded labels one is missing.
    """

    unrecorded: list[str]
    missing: list[str]


def record(store: Store, request: FeedbackRequest) -> FeedbackAnswer:
    """Record the label of a decision.

    Raises
    ------
    bento.problems.Problem
        Where there is no such decision, the date cannot be right, or the store takes no write.
    """
    by_id = exactly_one_of(request, "decision_id", "transaction_id") == "decision_id"
    token = None if by_id else store.keyring.token("transaction", str(request.transaction_id))
    with write_transaction(store) as connection:
        decision = connection.execute(_SELECT_DECISION, {"id": request.decision_id, "token": token}).one_or_none()
        key = None if decision is None else store.key_of(decision.person, decision.lookup, decision.wrapped_key)
        if decision is None or key is None:
            raise _unknown_decision("decision_id" if by_id else "transaction_id")
        return _insert_label(store, connection, request, decision, key)


def _insert_label(store: Store, connection: Connection, request: FeedbackRequest, decision: Any, key: bytes) -> FeedbackAnswer:
    now, feedback_id = store.clock(), uuid4().hex
    known_at = now if request.known_at is None else to_micros(request.known_at)
    if known_at > now + _MAX_CLOCK_LEAD_US:
        raise invalid_field("known_at", "It is in the future.")
    if decision.occurred_at is not None and known_at < decision.occurred_at:
        raise invalid_field("known_at", "It is before the transaction.")
    row = {
        "id": feedback_id,
        "decision": decision.id,
        "person": decision.person,
        "label": request.label,
        "known_at": known_at,
        "caller": current_caller.get().name,
        "at": now,
        "note": None if request.note is None else seal(key, request.note.encode(), feedback_id.encode()),
    }
    connection.execute(insert(feedback), row)
    if decision.transaction_token is not None:
        connection.execute(_LABEL_TRANSACTION, {"token": decision.transaction_token, "fraud": request.label, "since": known_at})
        store.forget_histories()
    store.audit(
        "feedback",
        at=now,  # equal to the row's `at`
        person=decision.person,
        domain=decision.domain,
        model_version=decision.model_version,
        inputs=decision.id,
        output=bind_feedback(store.keyring.mac, row),
    )
    return FeedbackAnswer(
        feedback_id=feedback_id,
        decision_id=decision.id,
        domain=decision.domain,
        label=request.label,
        known_at=from_micros(known_at),
        recorded_at=from_micros(now),
    )


def list_labels(store: Store, domain: str) -> RecordedLabels:
    """Return the recorded labels of a domain's decisions, the last known label at the end; labels of erased people are left out.

    A label counts only where the audit has its record with this content. Verify the audit before.
    """
    with store.reading() as connection:
        rows = connection.execute(_SELECT_LABELS, {"domain": domain}).all()
        unrecorded = set(match_labels(connection, store.keyring.mac).unrecorded)
    labels = []
    for row in rows:
        payload = store.open_payload(row.id, row.person, row.lookup, row.wrapped_key, row.sealed)
        if payload is not None and row.feedback_id not in unrecorded:
            labels.append(FeedbackLabel(payload.answer or payload.request, bool(row.label), from_micros(row.known_at)))
    return RecordedLabels(labels, sum(row.feedback_id in unrecorded for row in rows))


def match_labels(connection: Connection, mac: Callable[[bytes], str]) -> LabelMatch:
    """Compare the rows of all labels with their audit records, in both directions.

    A record needs no row where its person was erased or its decision is older than the retention allows. Records of schema 0001 have no
    output and stand for no row: the upgrade recorded these labels again.
    """
    records = {record.output: record for record in connection.execute(_SELECT_RECORDS)}
    unrecorded = []
    for row in connection.execute(select(feedback).order_by(feedback.c.position)).mappings():
        if records.pop(bind_feedback(mac, row), None) is None:
            unrecorded.append(row["id"])
    people_of_records = sorted({record.person for record in records.values() if record.person is not None})
    erasures: set[str] = set()
    for first in range(0, len(people_of_records), _PEOPLE_AT_ONCE):
        erasures |= find_erasures(connection, people_of_records[first : first + _PEOPLE_AT_ONCE])
    limit = find_retention_limit(connection)
    missing = [record.inputs for record in records.values() if record.person not in erasures and read_time(record.inputs) >= limit]
    return LabelMatch(unrecorded, missing)


def _unknown_decision(field: str) -> Problem:
    message = "No such decision is stored: it was made by another service, or its person was erased."
    return Problem(404, "unknown_decision", message, [FieldError(field=field, reason="No decision is stored under this identifier.")])
