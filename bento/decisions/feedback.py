"""What became known of decisions: an analyst's label, joined to its decision, committed with its audit record.

Nothing is ever overwritten: of several labels the one that became known last stands. The label of a transaction is part of history at once,
from its date on; `finrisk load-feedback` takes all of them to the ledger, where models learn from them. SQL on feedback stands here.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Connection, bindparam, insert, or_, select, update

from bento.context import current
from bento.decisions.answers import one_of
from bento.problems import Problem, invalid, log_failure
from bento.store.keyring import seal
from bento.store.session import Store, StoreUnavailable
from bento.store.tables import decisions, feedback, people, transactions
from finrisk_assets.features.online import micros
from schemas.api import FeedbackAnswer, FeedbackRequest, FieldError

_AHEAD = timedelta(minutes=1)
"""How far the clock of who sends a label may go before ours."""
_EPOCH = datetime(1970, 1, 1)

_DECISION = (
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
_LEARN = (
    update(transactions)
    .where(
        transactions.c.transaction_token == bindparam("token"),
        or_(transactions.c.label_known_at.is_(None), transactions.c.label_known_at <= bindparam("since")),
    )
    .values(is_fraud=bindparam("fraud"), label_known_at=bindparam("since"))
)
_TOLD = (
    select(
        decisions.c.id, decisions.c.person, decisions.c.sealed, people.c.wrapped_key, feedback.c.label, feedback.c.known_at
    )
    .select_from(
        feedback.join(decisions, feedback.c.decision == decisions.c.id).outerjoin(people, decisions.c.person == people.c.person)
    )
    .where(decisions.c.domain == bindparam("domain"))
    .order_by(feedback.c.known_at, feedback.c.position)
)  # fmt: skip


class Told(NamedTuple):
    """What was told of one decision.

    Attributes
    ----------
    answer
        The decision's, which names the row of the ledger that it was about.
    label
        What happened.
    known_at
        Since when that is known, naive UTC.
    """

    answer: dict[str, Any]
    label: bool
    known_at: datetime


def record(store: Store, request: FeedbackRequest) -> FeedbackAnswer:
    """Commit what became known of a decision.

    Raises
    ------
    bento.problems.Problem
        Where there is no such decision, the date cannot be right, or the store takes no write.
    """
    by_id = one_of(request, "decision_id", "transaction_id") == "decision_id"
    token = None if by_id else store.keyring.token("transaction", str(request.transaction_id))
    try:
        with store.writing() as connection:
            found = connection.execute(_DECISION, {"id": request.decision_id, "token": token}).one_or_none()
            key = None if found is None else store.key_of(found.person, found.wrapped_key)
            if found is None or key is None:
                raise _unknown("decision_id" if by_id else "transaction_id")
            return _recorded(store, connection, request, found, key)
    except StoreUnavailable as error:
        log_failure(error)
        raise Problem.of(503) from None


def _recorded(store: Store, connection: Connection, request: FeedbackRequest, decision: Any, key: bytes) -> FeedbackAnswer:
    now, named = store.clock(), uuid4().hex
    known_at = now if request.known_at is None else micros(request.known_at)
    if known_at > now + micros(_EPOCH + _AHEAD):
        raise invalid("known_at", "It is in the future.")
    if decision.occurred_at is not None and known_at < decision.occurred_at:
        raise invalid("known_at", "It is before the transaction.")
    row = {
        "id": named,
        "decision": decision.id,
        "person": decision.person,
        "label": request.label,
        "known_at": known_at,
        "caller": current.get().name,
        "at": now,
        "note": None if request.note is None else seal(key, request.note.encode(), named.encode()),
    }
    connection.execute(insert(feedback), row)
    if decision.transaction_token is not None:
        connection.execute(_LEARN, {"token": decision.transaction_token, "fraud": request.label, "since": known_at})
    store.audit(
        "feedback",
        person=decision.person,
        domain=decision.domain,
        model_version=decision.model_version,
        inputs=store.digest(request.model_dump_json().encode()),
        output=None,
    )
    return FeedbackAnswer(
        feedback_id=named,
        decision_id=decision.id,
        domain=decision.domain,
        label=request.label,
        known_at=_moment(known_at),
        recorded_at=_moment(now),
    )


def told(store: Store, domain: str) -> Iterator[Told]:
    """Everything that was told of a domain's decisions, what became known last at the end; of people who were erased, nothing."""
    with store.reading() as connection:
        rows = connection.execute(_TOLD, {"domain": domain}).all()
    for row in rows:
        content = store.content(row.id, row.person, row.wrapped_key, row.sealed)
        if content is not None:
            yield Told(content.answer, bool(row.label), _moment(row.known_at))


def _unknown(field: str) -> Problem:
    message = "The service knows of no such decision: it was made elsewhere, or its person was erased."
    return Problem(404, "unknown_decision", message, [FieldError(field=field, reason="No decision is stored under this identifier.")])


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
