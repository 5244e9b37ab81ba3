"""Feedback: an analyst's label of a decision, joined to the decision and committed with its audit record.

No label is ever overwritten: of several labels the last known label counts. A transaction's label becomes part of the history at once,
from its date on. `finrisk load-feedback` copies all labels to the ledger, where models learn from them. All SQL on feedback is here.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, bindparam, insert, or_, select, update

from bento.context import current_caller
from bento.decisions.answers import exactly_one_of
from bento.problems import Problem, invalid_field
from bento.store.keyring import seal
from bento.store.session import Store, write_transaction
from bento.store.tables import decisions, feedback, people, transactions
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
        decisions.c.id, decisions.c.person, decisions.c.sealed, people.c.wrapped_key, feedback.c.label, feedback.c.known_at
    )
    .select_from(
        feedback.join(decisions, feedback.c.decision == decisions.c.id).outerjoin(people, decisions.c.person == people.c.person)
    )
    .where(decisions.c.domain == bindparam("domain"))
    .order_by(feedback.c.known_at, feedback.c.position)
)  # fmt: skip


class FeedbackLabel(NamedTuple):
    """The label of one decision.

    Attributes
    ----------
    answer
        The decision's answer, which names the row of the ledger.
    label
        Whether the predicted event happened.
    known_at
        The moment from which the label is known, naive UTC.
    """

    answer: dict[str, Any]
    label: bool
    known_at: datetime


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
        key = None if decision is None else store.key_of(decision.person, decision.wrapped_key)
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
        person=decision.person,
        domain=decision.domain,
        model_version=decision.model_version,
        inputs=store.digest(request.model_dump_json().encode()),
        output=None,
    )
    return FeedbackAnswer(
        feedback_id=feedback_id,
        decision_id=decision.id,
        domain=decision.domain,
        label=request.label,
        known_at=from_micros(known_at),
        recorded_at=from_micros(now),
    )


def list_labels(store: Store, domain: str) -> Iterator[FeedbackLabel]:
    """Yield the labels of a domain's decisions, the last known label at the end; labels of erased people are left out."""
    with store.reading() as connection:
        rows = connection.execute(_SELECT_LABELS, {"domain": domain}).all()
    for row in rows:
        payload = store.open_payload(row.id, row.person, row.wrapped_key, row.sealed)
        if payload is not None:
            yield FeedbackLabel(payload.answer, bool(row.label), from_micros(row.known_at))


def _unknown_decision(field: str) -> Problem:
    message = "No such decision is stored: it was made by another service, or its person was erased."
    return Problem(404, "unknown_decision", message, [FieldError(field=field, reason="No decision is stored under this identifier.")])
