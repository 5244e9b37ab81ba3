"""One alert with what an analyst needs to decide: the decision, and related decisions of the same person and at the same merchant."""

from typing import Any

from sqlalchemy import Connection, bindparam, select

from bento.alerts.alert_queue import find_alert, to_alert
from bento.store.keyring import unseal
from bento.store.session import Store, write_transaction
from bento.store.tables import alerts, decisions, transactions
from schemas.alert_api import AlertDetails, RelatedDecision
from schemas.timestamps import DAY_US, from_micros

MAX_RELATED = 20
"""Related decisions of a person and at a merchant each. More take longer to read, for the analyst too."""
RELATED_DAYS = 90
"""Days before the transaction within which decisions at its merchant are related: the history that features read."""

_DECISION = (
    select(decisions, transactions.c.merchant, transactions.c.occurred_at)
    .select_from(decisions.outerjoin(transactions, decisions.c.transaction_token == transactions.c.transaction_token))
    .where(decisions.c.id == bindparam("of_decision"))
)
_RELATED = (
    decisions.c.id, decisions.c.domain, decisions.c.decided_at, decisions.c.probability, decisions.c.decision,
    transactions.c.occurred_at, transactions.c.amount, transactions.c.is_fraud, alerts.c.state, alerts.c.disposition,
)  # fmt: skip
_OF_PERSON = (
    select(*_RELATED)
    .select_from(
        decisions.outerjoin(transactions, decisions.c.transaction_token == transactions.c.transaction_token).outerjoin(
            alerts, decisions.c.id == alerts.c.decision
        )
    )
    .where(decisions.c.person == bindparam("of_person"), decisions.c.id != bindparam("of_decision"))
    .order_by(decisions.c.position.desc())
    .limit(MAX_RELATED)
)
_AT_MERCHANT = (
    select(*_RELATED)
    .select_from(
        transactions.join(decisions, decisions.c.transaction_token == transactions.c.transaction_token).outerjoin(
            alerts, decisions.c.id == alerts.c.decision
        )
    )
    .where(
        transactions.c.merchant == bindparam("at_merchant"),
        transactions.c.occurred_at > bindparam("after"),
        decisions.c.id != bindparam("of_decision"),
    )
    .order_by(transactions.c.occurred_at.desc(), decisions.c.position.desc())
    .limit(MAX_RELATED)
)


def read_alert(store: Store, alert_id: str) -> AlertDetails:
    """Return an alert with its decision, and record the access to the person's data in the audit.

    Of other people's decisions at the merchant nothing is told that names them.

    Raises
    ------
    bento.problems.Problem
        404 where there is no such alert, 503 where the store is not available.
    """
    with write_transaction(store) as connection:
        row = find_alert(connection, alert_id)
        decision = connection.execute(_DECISION, {"of_decision": alert_id}).mappings().one()
        payload = store.open_payload(alert_id, row["person"], row["lookup"], row["wrapped_key"], decision["sealed"])
        key = store.key_of(row["person"], row["lookup"], row["wrapped_key"])
        sealed = row["reason"]
        store.audit("read", person=row["person"], domain="alerts", inputs=alert_id)
        return AlertDetails(
            alert=to_alert(row),
            reason=None if sealed is None or key is None else unseal(key, sealed, alert_id.encode()).decode(),
            request={} if payload is None else payload.request,
            answer={} if payload is None or payload.answer is None else payload.answer | {"decision_id": alert_id},
            same_person=_list_of_person(connection, row["person"], alert_id),
            same_merchant=_list_at_merchant(connection, decision, alert_id),
        )


def _list_of_person(connection: Connection, person: str | None, alert_id: str) -> list[RelatedDecision]:
    if person is None:
        return []
    return [_to_related(row) for row in connection.execute(_OF_PERSON, {"of_person": person, "of_decision": alert_id}).mappings()]


def _list_at_merchant(connection: Connection, decision: Any, alert_id: str) -> list[RelatedDecision]:
    if decision["merchant"] is None:
        return []
    after = decision["occurred_at"] - RELATED_DAYS * DAY_US
    values = {"at_merchant": decision["merchant"], "after": after, "of_decision": alert_id}
    return [_to_related(row) for row in connection.execute(_AT_MERCHANT, values).mappings()]


def _to_related(row: Any) -> RelatedDecision:
    return RelatedDecision(
        decision_id=row["id"],
        domain=row["domain"],
        decided_at=from_micros(row["decided_at"]),
        probability=row["probability"],
        decision=row["decision"],
        occurred_at=None if row["occurred_at"] is None else from_micros(row["occurred_at"]),
        amount=row["amount"],
        is_fraud=row["is_fraud"],
        alert_state=row["state"],
        disposition=row["disposition"],
    )
