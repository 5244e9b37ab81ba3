"""The activity of the service: decisions, scores and alerts of the last days, counted. Nothing here is about one person."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, bindparam, case, cast, func, literal_column, select

from bento.store.session import Store, write_transaction
from bento.store.tables import alerts, decisions, standings, transactions
from schemas.insight_api import Activity, AlertDay, AlertMoney, DayCount, ScoreBin
from schemas.timestamps import DAY_US, from_micros

MAX_COUNTED = 50_000
"""Decisions, and alerts, that are counted at most, the newest. More take longer: the table has no index on time."""
ALLOW = "allow"
"""The decision on a transaction that stops nothing."""
BINS = 20
"""Bins of a distribution of probabilities."""

_NEWEST = select(func.max(decisions.c.position) - bindparam("most")).scalar_subquery()
_RECENT = (decisions.c.position > _NEWEST) & (decisions.c.decided_at >= bindparam("since"))
_DAY_LENGTH = literal_column(str(DAY_US), BigInteger)
_DAY = decisions.c.decided_at.op("/")(_DAY_LENGTH)
_BY_DAY = (
    select(_DAY.label("day"), decisions.c.domain, decisions.c.decision, func.count().label("count"))
    .where(_RECENT)
    .group_by(_DAY, decisions.c.domain, decisions.c.decision)
    .order_by(_DAY, decisions.c.domain, decisions.c.decision)
)
# A cast cuts off the fraction on SQLite and rounds on PostgreSQL, whose `floor` is a Python function on SQLite, called row by row.
_BINS: ColumnElement[Any] = literal_column(str(BINS))
_SCALED = {"sqlite": decisions.c.probability * _BINS, "postgresql": func.floor(decisions.c.probability * _BINS)}
_BIN = {
    dialect: case((decisions.c.probability >= literal_column("1"), literal_column(str(BINS - 1))), else_=cast(scaled, BigInteger))
    for dialect, scaled in _SCALED.items()
}
_BY_SCORE = {
    dialect: select(decisions.c.domain, place.label("bin"), func.count().label("count"))
    .where(_RECENT, decisions.c.probability.is_not(None))
    .group_by(decisions.c.domain, place)
    .order_by(decisions.c.domain, place)
    for dialect, place in _BIN.items()
}
_OLDEST_COUNTED = select(func.min(decisions.c.decided_at)).where(decisions.c.position > _NEWEST)
_NEWEST_ALERT = select(func.max(alerts.c.position) - bindparam("most")).scalar_subquery()
_RECENT_ALERT = (alerts.c.position > _NEWEST_ALERT) & (alerts.c.opened_at >= bindparam("since"))
_ALERT_DAY = alerts.c.opened_at.op("/")(_DAY_LENGTH)
# An unknown loss is stored as a number below zero.
_LOSS = func.sum(case((alerts.c.expected_loss > 0, alerts.c.expected_loss), else_=0.0))
_ALERTS = select(_ALERT_DAY.label("day"), func.count().label("count"), _LOSS.label("loss")).where(_RECENT_ALERT).group_by(_ALERT_DAY)
_MONEY = (
    select(alerts.c.state, alerts.c.disposition, func.count().label("count"), _LOSS.label("loss"))
    .where(_RECENT_ALERT)
    .group_by(alerts.c.state, alerts.c.disposition)
    .order_by(alerts.c.state, alerts.c.disposition)
)
_FRAUDS = (
    select(func.count(), func.coalesce(func.sum(transactions.c.amount), 0.0))
    .select_from(decisions.join(transactions, decisions.c.transaction_token == transactions.c.transaction_token))
    .where(_RECENT, transactions.c.is_fraud.is_(True))
)
_LOST = _FRAUDS.where(decisions.c.decision == ALLOW)
_LABELLED = (
    select(func.count())
    .select_from(decisions.join(transactions, decisions.c.transaction_token == transactions.c.transaction_token))
    .where(_RECENT, transactions.c.is_fraud.is_not(None))
)
_AS_OF = select(standings.c.domain, func.max(standings.c.as_of)).group_by(standings.c.domain).order_by(standings.c.domain)


def count_activity(store: Store, days: int) -> Activity:
    """Return the decisions and alerts of the last days, counted, and record the access in the audit. Call this in a thread of its own.

    Raises
    ------
    bento.problems.Problem
        503 where the store is not available.
    """
    since = store.clock() - days * DAY_US
    with write_transaction(store):
        store.audit("read", domain="activity")
    with store.reading_apart() as database, database.reading() as connection:
        return _count(connection, since)


def _count(connection: Connection, since: int) -> Activity:
    window = {"since": since, "most": MAX_COUNTED}
    by_day = connection.execute(_BY_DAY, window).all()
    counted = sum(row[3] for row in by_day)
    oldest = connection.execute(_OLDEST_COUNTED, window).scalar_one()
    frauds, fraud_amount = connection.execute(_FRAUDS, window).one()
    _, lost_amount = connection.execute(_LOST, window).one()
    return Activity(
        since=from_micros(since),
        decisions=[DayCount(day=_to_day(row.day), domain=row.domain, decision=row.decision, count=row[3]) for row in by_day],
        scores=[
            ScoreBin(domain=row.domain, low=row.bin / BINS, high=(row.bin + 1) / BINS, count=row[2])
            for row in connection.execute(_BY_SCORE[connection.dialect.name], window)
        ],
        alerts=[
            AlertDay(day=_to_day(row.day), opened=row[1], expected_loss_amount=row.loss)
            for row in sorted(connection.execute(_ALERTS, window), key=lambda row: row.day)
        ],
        money=[
            AlertMoney(state=row.state, disposition=row.disposition, count=row[2], expected_loss_amount=row.loss)
            for row in connection.execute(_MONEY, window)
        ],
        labelled_frauds=frauds,
        labelled_fraud_amount=fraud_amount,
        labelled=connection.execute(_LABELLED, window).scalar_one(),
        lost_amount=lost_amount,
        counted=counted,
        is_complete=oldest is None or oldest < since or counted < MAX_COUNTED,
        features_as_of={domain: None if as_of is None else from_micros(as_of) for domain, as_of in connection.execute(_AS_OF)},
    )


def _to_day(number: Any) -> str:
    """Return the date of a number of days since 1970."""
    return from_micros(int(number) * DAY_US).date().isoformat()
