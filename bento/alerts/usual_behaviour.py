"""The usual behaviour of an alert's customer: the transactions before it, beside which an analyst sees what is unusual."""

from sqlalchemy import bindparam, func, select

from bento.alerts.alert_queue import find_alert
from bento.store.session import Store, write_transaction
from bento.store.tables import decisions, transactions
from schemas.insight_api import PastTransaction, UsualBehaviour
from schemas.timestamps import DAY_US, from_micros

USUAL_DAYS = 90
"""Days before the transaction that count as usual: the history that features read."""
MAX_USUAL = 300
"""Transactions that an answer lists. More make a denser picture and a longer answer."""

_OF_ALERT = (
    select(transactions.c.person, transactions.c.occurred_at, transactions.c.merchant, transactions.c.country)
    .select_from(decisions.join(transactions, decisions.c.transaction_token == transactions.c.transaction_token))
    .where(decisions.c.id == bindparam("of_decision"))
)
_EARLIER = (
    (transactions.c.person == bindparam("of_person"))
    & (transactions.c.occurred_at < bindparam("before"))
    & (transactions.c.occurred_at >= bindparam("after"))
)
_USUAL = select(transactions).where(_EARLIER).order_by(transactions.c.occurred_at.desc()).limit(MAX_USUAL)
_TOTAL = select(func.count()).select_from(transactions).where(_EARLIER)


def read_usual_behaviour(store: Store, alert_id: str) -> UsualBehaviour:
    """Return the transactions of an alert's customer before it, and record the access to the person's data in the audit.

    Raises
    ------
    bento.problems.Problem
        404 where there is no such alert, 503 where the store is not available.
    """
    with write_transaction(store) as connection:
        alert = find_alert(connection, alert_id)
        store.audit("read", person=alert["person"], domain="alerts", inputs=alert_id)
        event = connection.execute(_OF_ALERT, {"of_decision": alert_id}).mappings().one_or_none()
        if event is None:
            return UsualBehaviour(days=USUAL_DAYS, total=0, merchants=0, countries=0, transactions=[])
        before = event["occurred_at"]
        window = {"of_person": event["person"], "before": before, "after": before - USUAL_DAYS * DAY_US}
        rows = connection.execute(_USUAL, window).mappings().all()
        total = connection.execute(_TOTAL, window).scalar_one()
    return UsualBehaviour(
        days=USUAL_DAYS,
        total=total,
        merchants=len({row["merchant"] for row in rows} - {None}),
        countries=len({row["country"] for row in rows} - {None}),
        transactions=[
            PastTransaction(
                occurred_at=from_micros(row["occurred_at"]),
                amount=row["amount"],
                direction=row["direction"],
                is_same_merchant=event["merchant"] is not None and row["merchant"] == event["merchant"],
                is_same_country=None if None in (event["country"], row["country"]) else row["country"] == event["country"],
                is_fraud=row["is_fraud"],
            )
            for row in rows
        ],
    )
