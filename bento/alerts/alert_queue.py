"""The queue of alerts: page through it, claim an alert or release it, close alerts with a disposition.

A decision opens its alert (`store.decisions.insert_decisions`). A change names the version that its caller has seen, and is refused where
another change came first. A disposition of fraud or genuine is the decision's label too, in the same transaction (`decisions.feedback`), so
that it reaches models as every label does, from its date on. All SQL on the queue is here.
"""

from typing import Any

from sqlalchemy import Boolean, Connection, Select, and_, bindparam, or_, select, update

from bento.context import current_caller, request_id
from bento.decisions import feedback
from bento.decisions.engine import capture_problem
from bento.problems import Problem
from bento.store.audit_chain import bind_alert
from bento.store.keyring import seal
from bento.store.records import UNKNOWN_LOSS
from bento.store.session import Store, write_transaction
from bento.store.tables import alerts, people
from schemas.alert_api import (
    Alert,
    AlertPage,
    AlertQuery,
    BulkDispositionAnswer,
    BulkDispositionRequest,
    ClaimRequest,
    DispositionRequest,
    DispositionResult,
    ReleaseRequest,
)
from schemas.api import Error, FeedbackRequest, FieldError
from schemas.timestamps import from_micros

LABELS = {"fraud": True, "genuine": False}
"""Disposition -> the label that it gives the decision; others give none."""
RELEASING_ROLES = frozenset({"supervisor", "admin"})
"""Roles that release an alert that somebody else has claimed."""
MINE = "me"
"""Filter of the assignee that stands for the caller."""

_FIND = (
    select(alerts, people.c.lookup, people.c.wrapped_key)
    .select_from(alerts.outerjoin(people, alerts.c.person == people.c.person))
    .where(alerts.c.decision == bindparam("of_decision"))
)
# The version and the state are compared by the database, so that of two callers at once one alone changes the row.
_IS_SEEN = and_(alerts.c.decision == bindparam("of_decision"), alerts.c.version == bindparam("seen"), alerts.c.state != "closed")
_CLAIM = (
    update(alerts)
    .where(_IS_SEEN)
    .values(state="claimed", version=alerts.c.version + 1, assignee=bindparam("caller"), claimed_at=bindparam("now"))
)
_RELEASE = (
    update(alerts)
    .where(
        _IS_SEEN, alerts.c.state == "claimed", or_(alerts.c.assignee == bindparam("caller"), bindparam("may_release_all", type_=Boolean))
    )
    .values(state="open", version=alerts.c.version + 1, assignee=None, claimed_at=None)
)
_CLOSE = (
    update(alerts)
    .where(_IS_SEEN, or_(alerts.c.assignee.is_(None), alerts.c.assignee == bindparam("caller")))
    .values(
        state="closed", version=alerts.c.version + 1, assignee=bindparam("caller"), disposition=bindparam("as"),
        closed_at=bindparam("now"), reason=bindparam("why"),
    )
)  # fmt: skip


def list_alerts(store: Store, query: AlertQuery) -> AlertPage:
    """Return a page of the queue, and record the access in the audit. Call this in a thread of its own.

    Raises
    ------
    bento.problems.Problem
        503 where the store is not available.
    """
    with write_transaction(store):
        store.audit("read", domain="alerts")
    with store.reading_apart() as database, database.reading() as connection:
        rows = connection.execute(build_page_query(query)).mappings().all()
    shown = rows[: query.limit]
    last = shown[-1] if len(rows) > query.limit else None
    cursor = None if last is None else f"{last['expected_loss']!r}_{last['position']}"
    return AlertPage(alerts=[to_alert(row) for row in shown], next=cursor)


def build_page_query(query: AlertQuery) -> Select[Any]:
    """Return the query of a page and one alert more, in the order of an index, whatever the number of alerts."""
    statement = select(alerts).where(alerts.c.state == query.state).limit(query.limit + 1)
    if query.assignee is not None:
        statement = statement.where(alerts.c.assignee == (current_caller.get().name if query.assignee == MINE else query.assignee))
    if query.decision is not None:
        statement = statement.where(alerts.c.outcome == query.decision)
    if query.min_expected_loss_amount is not None:
        statement = statement.where(alerts.c.expected_loss >= query.min_expected_loss_amount)
    loss, position = (None, None) if query.cursor is None else query.cursor.split("_")
    if query.order == "newest":
        statement = statement.order_by(alerts.c.position.desc())
        return statement if position is None else statement.where(alerts.c.position < int(position))
    statement = statement.order_by(alerts.c.expected_loss.desc(), alerts.c.position.desc())
    if loss is None or position is None:
        return statement
    # The first condition says nothing new; from it the index is searched.
    at, last = float(loss), int(position)
    return statement.where(
        alerts.c.expected_loss <= at,
        or_(alerts.c.expected_loss < at, and_(alerts.c.expected_loss == at, alerts.c.position < last)),
    )


def claim_alert(store: Store, request: ClaimRequest) -> Alert:
    """Make the caller the assignee of an alert that is not closed, also of one that a colleague has claimed.

    The same claim sent again has the same result.

    Raises
    ------
    bento.problems.Problem
        404 where there is no such alert, 409 where it has changed since or is closed, 503 where the store is not available.
    """
    with write_transaction(store) as connection:
        caller = current_caller.get().name
        values = {"of_decision": request.alert_id, "seen": request.version, "caller": caller, "now": store.clock()}
        is_changed = bool(connection.execute(_CLAIM, values).rowcount)
        row = find_alert(connection, request.alert_id)
        if is_changed:
            _record(store, "alert.claim", row)
        elif (row["state"], row["assignee"], row["version"]) != ("claimed", caller, request.version + 1):
            raise _conflict(row, caller, request.version)
        return to_alert(row)


def release_alert(store: Store, request: ReleaseRequest) -> Alert:
    """Open an alert again that the caller has claimed, or that anybody has where the caller has one of `RELEASING_ROLES`.

    The same release sent again has the same result.

    Raises
    ------
    bento.problems.Problem
        404 where there is no such alert, 409 where it has changed since, is not claimed or is a colleague's, 503 where the store is not
        available.
    """
    with write_transaction(store) as connection:
        caller = current_caller.get()
        values = {"of_decision": request.alert_id, "seen": request.version, "caller": caller.name}
        values["may_release_all"] = not caller.roles.isdisjoint(RELEASING_ROLES)
        is_changed = bool(connection.execute(_RELEASE, values).rowcount)
        row = find_alert(connection, request.alert_id)
        if is_changed:
            _record(store, "alert.release", row)
        elif (row["state"], row["version"]) != ("open", request.version + 1):
            raise _conflict(row, caller.name, request.version)
        return to_alert(row)


def dispose_alert(store: Store, request: DispositionRequest) -> Alert:
    """Close an alert with a disposition and its reason; where the disposition says what happened, label the decision with it.

    The alert is open or the caller's own. The same disposition sent again has the same result.

    Raises
    ------
    bento.problems.Problem
        404 where there is no such alert, 409 where it has changed since, is closed or a colleague's, 503 where the store is not available.
    """
    with write_transaction(store) as connection:
        caller, now = current_caller.get().name, store.clock()
        before = find_alert(connection, request.alert_id)
        key = store.key_of(before["person"], before["lookup"], before["wrapped_key"])
        if key is None:
            raise _unknown_alert()
        sealed = seal(key, request.reason.encode(), request.alert_id.encode())
        values = {"of_decision": request.alert_id, "seen": request.version, "caller": caller, "now": now}
        is_changed = bool(connection.execute(_CLOSE, values | {"as": request.disposition, "why": sealed}).rowcount)
        row = find_alert(connection, request.alert_id)
        if is_changed:
            _record(store, "alert.dispose", row)
            if request.disposition in LABELS:
                content = {"decision_id": request.alert_id, "label": LABELS[request.disposition], "note": request.reason}
                feedback.record(store, FeedbackRequest.model_validate({**content, "known_at": from_micros(now)}))
        elif (row["disposition"], row["assignee"], row["version"]) != (request.disposition, caller, request.version + 1):
            raise _conflict(row, caller, request.version)
        return to_alert(row)


def dispose_alerts(store: Store, request: BulkDispositionRequest) -> BulkDispositionAnswer:
    """Close many alerts with one disposition and reason: each is closed or refused on its own.

    Raises
    ------
    bento.problems.Problem
        503 where the store is not available.
    """

    def dispose(alert_id: str, version: int) -> Alert:
        with store.savepoint():
            return dispose_alert(
                store,
                DispositionRequest(alert_id=alert_id, version=version, disposition=request.disposition, reason=request.reason),
            )

    with write_transaction(store):
        results = [capture_problem(dispose, seen.alert_id, seen.version) for seen in request.alerts]
    return BulkDispositionAnswer(results=[_to_result(result) for result in results])


def find_alert(connection: Connection, alert_id: str) -> Any:
    """Return an alert's row with the look-up token and the wrapped key of its person.

    Raises
    ------
    bento.problems.Problem
        404 where there is none.
    """
    row = connection.execute(_FIND, {"of_decision": alert_id}).mappings().one_or_none()
    if row is None:
        raise _unknown_alert()
    return row


def to_alert(row: Any) -> Alert:
    """Return an alert as the answers have it."""
    return Alert(
        alert_id=row["decision"],
        decision=row["outcome"],
        expected_loss_amount=None if row["expected_loss"] == UNKNOWN_LOSS else row["expected_loss"],
        opened_at=from_micros(row["opened_at"]),
        state=row["state"],
        version=row["version"],
        assignee=row["assignee"],
        claimed_at=None if row["claimed_at"] is None else from_micros(row["claimed_at"]),
        disposition=row["disposition"],
        closed_at=None if row["closed_at"] is None else from_micros(row["closed_at"]),
    )


def _record(store: Store, action: str, row: Any) -> None:
    store.audit(action, person=row["person"], domain="alerts", inputs=row["decision"], output=bind_alert(store.keyring.mac, row))


def _to_result(result: Alert | Problem) -> DispositionResult:
    if isinstance(result, Problem):
        error = Error(code=result.code, message=result.message, fields=list(result.fields), request_id=request_id.get())
        return DispositionResult(status=result.status, alert=None, error=error)
    return DispositionResult(status=200, alert=result, error=None)


def _conflict(row: Any, caller: str, seen: int) -> Problem:
    if row["state"] == "closed":
        reason = "The alert is closed."
    elif row["assignee"] not in (None, caller):
        reason = "A colleague has claimed the alert; claim it first to take it over."
    elif row["version"] == seen:
        reason = "Nobody has claimed the alert."
    else:
        reason = "The alert has changed since this version."
    message = f"{reason} Read it again: its version is {row['version']}."
    return Problem(409, "conflict", message, [FieldError(field="version", reason="It is not the alert's present version, or closed.")])


def _unknown_alert() -> Problem:
    message = "No such alert is stored: the decision opened none, or its person was erased."
    return Problem(404, "unknown_alert", message, [FieldError(field="alert_id", reason="No alert is stored under this identifier.")])
