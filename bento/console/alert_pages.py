"""The pages of alerts: the queue by expected loss, and one alert beside what is usual for its customer."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from statistics import median, quantiles
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bento.console.api_client import ApiRefusal, quote_segment
from bento.console.console_context import Console
from bento.console.presentation import charts
from bento.console.presentation.rendering import build_csv

WORKING_ROLES = frozenset({"analyst", "admin"})
"""Roles that claim alerts and close them. The API decides; a page shows what it allows."""
RELEASING_ROLES = frozenset({"supervisor", "admin"})
"""Roles that release what others have claimed."""
QUEUE_PAGE = 50
"""Alerts of one page of the queue."""
GENUINE_REASONS = (
    "The customer confirmed the payment.",
    "A known merchant, and an amount as before.",
    "A journey that the customer had announced.",
    "A refund or a transfer between own accounts.",
)
"""Reasons of a false positive, chosen by the keys 1 to 4; an analyst may write another."""
FRAUD_REASON = "Judged as fraud from the transaction and its history."
UNDETERMINED_REASON = "What there is does not decide it."
MAX_BARS = 12
"""Contributions that an alert shows as bars; the table below has all."""
_COLUMNS = ("alert_id", "decision", "expected_loss_amount", "opened_at", "state", "assignee", "disposition", "closed_at", "version")
# What a page shows of an alert whose person was erased, and of fields that an answer leaves out.
_NO_REQUEST: dict[str, Any] = dict.fromkeys(("user_id", "amount", "timestamp", "merchant", "country"))
_NO_ANSWER: dict[str, Any] = {"risk_score": None, "rules": [], "reasons": [], "model": None, "policy_version": None}
_FILTERS = ("state", "order", "assignee", "decision", "min_expected_loss_amount", "cursor")


async def show_queue(console: Console, request: Request) -> Response:
    """Return the queue in a state, a page at a time, with the slider of capacity."""
    query = {name: request.query_params.get(name, "") for name in _FILTERS}
    query["state"] = query["state"] or "open"
    is_export = request.query_params.get("format") == "csv"
    page, capacity = await asyncio.gather(
        console.get(request, "/v1/alerts", query | {"limit": 100 if is_export else QUEUE_PAGE}),
        console.try_get(request, "/v1/alerts/capacity"),
    )
    if is_export:
        return build_csv("alerts", _COLUMNS, page["alerts"])
    points = _list_useful(capacity[0]) if capacity[0] else []
    return console.page(
        request,
        "alerts.html",
        alerts=page["alerts"],
        next_cursor=page["next"],
        query=query,
        may_work=_may_work(request),
        total_loss=sum(alert["expected_loss_amount"] or 0.0 for alert in page["alerts"]),
        capacity=capacity[0],
        points=points,
        best=max(points, key=lambda point: point["worth_per_day_amount"], default=None),
        capacity_spec=charts.trade_capacity(points) if points else None,
        genuine_reasons=GENUINE_REASONS,
    )


def _list_useful(capacity: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the points of up to three times the policy's capacity: more alerts would only flatten the picture."""
    return [point for point in capacity["points"] if point["alerts_per_day"] <= 3 * capacity["reviews_per_day"]]


async def find_next(console: Console, request: Request) -> Response:
    """Lead to the alert after one in the queue of open alerts; from the last one, and from one that is no longer open, to the first."""
    after, cursor, first = request.query_params.get("after", ""), "", None
    for _ in range(20):  # two thousand alerts
        page = await console.get(request, "/v1/alerts", {"limit": 100, "cursor": cursor})
        names = [alert["alert_id"] for alert in page["alerts"]]
        first = first or next((name for name in names if name != after), None)
        if after in names[:-1]:
            return _go(names[names.index(after) + 1])
        cursor = page["next"]
        if after in names and cursor:
            following = await console.get(request, "/v1/alerts", {"limit": 1, "cursor": cursor})
            if following["alerts"]:
                return _go(following["alerts"][0]["alert_id"])
        if not cursor or after in names:
            break
    if first is None:
        request.state.session.notice = "There is no other open alert."
        return RedirectResponse("/console/alerts", 303)
    return _go(first)


def _may_work(request: Request) -> bool:
    return not WORKING_ROLES.isdisjoint(request.state.session.roles)


def _may_release(alert: Mapping[str, Any], request: Request) -> bool:
    session = request.state.session
    return alert["state"] == "claimed" and (alert["assignee"] == session.caller or not RELEASING_ROLES.isdisjoint(session.roles))


def _go(alert_id: str) -> Response:
    return RedirectResponse(f"/console/alerts/{quote_segment(alert_id)}", 303)


async def show_alert(console: Console, request: Request) -> Response:
    """Return one alert: the transaction beside the customer's usual ones, what moved the score, rules, and related decisions."""
    path = f"/v1/alerts/{quote_segment(request.path_params['alert_id'])}"
    details, (usual, usual_fault) = await asyncio.gather(console.get(request, path), console.try_get(request, f"{path}/usual"))
    if request.query_params.get("format") == "csv":
        return build_csv("contributions", ("feature", "value", "unit", "contribution"), _rank(details["answer"]))
    sent = _NO_REQUEST | details["request"]
    alert = details["alert"]
    return console.page(
        request,
        "alert.html",
        alert=alert,
        details=details,
        sent=sent,
        answer=_NO_ANSWER | details["answer"],
        is_mine=alert["assignee"] in (None, request.state.session.caller),
        may_work=_may_work(request),
        may_release=_may_release(alert, request),
        contributions=_rank(details["answer"]),
        max_bars=MAX_BARS,
        usual=usual,
        usual_fault=usual_fault,
        comparison=_compare(sent, usual) if usual and details["request"] else [],
        scatter=_draw_scatter(sent, usual) if usual and details["request"] and usual["transactions"] else None,
        hours=_draw_hours(sent, usual) if usual and details["request"] and usual["transactions"] else None,
        genuine_reasons=GENUINE_REASONS,
        fraud_reason=FRAUD_REASON,
        undetermined_reason=UNDETERMINED_REASON,
    )


async def claim(console: Console, request: Request, form: FormData) -> Response:
    """Claim an alert, and show it."""
    alert_id = request.path_params["alert_id"]
    await console.post(request, "/v1/alerts/claim", {"alert_id": alert_id, "version": _version(form.get("version"))})
    request.state.session.notice = "The alert is yours."
    return _go(alert_id)


async def release(console: Console, request: Request, form: FormData) -> Response:
    """Release an alert that is claimed, and show it."""
    alert_id = request.path_params["alert_id"]
    await console.post(request, "/v1/alerts/release", {"alert_id": alert_id, "version": _version(form.get("version"))})
    request.state.session.notice = "The alert is open again."
    return _go(alert_id)


async def dispose(console: Console, request: Request, form: FormData) -> Response:
    """Close an alert with a disposition and its reason, and lead to the next one."""
    alert_id, disposition = request.path_params["alert_id"], str(form.get("disposition", ""))
    body = {
        "alert_id": alert_id,
        "version": _version(form.get("version")),
        "disposition": disposition,
        "reason": _reason(disposition, str(form.get("reason", ""))),
    }
    await console.post(request, "/v1/alerts/dispose", body)
    request.state.session.notice = f"Closed as {disposition}."
    return RedirectResponse(f"/console/alerts/next?after={quote_segment(alert_id)}", 303)


async def dispose_many(console: Console, request: Request, form: FormData) -> Response:
    """Close the chosen alerts with one disposition and reason; each that is refused is named."""
    chosen = [str(item).partition(":") for item in form.getlist("alert")]
    if not chosen:
        raise ApiRefusal(422, "nothing_chosen", "No alert is chosen. Go back, and tick the alerts to close.")
    disposition = str(form.get("disposition", ""))
    body = {
        "alerts": [{"alert_id": alert_id, "version": _version(version)} for alert_id, _, version in chosen],
        "disposition": disposition,
        "reason": _reason(disposition, str(form.get("reason", ""))),
    }
    answer = await console.post(request, "/v1/alerts/dispose/bulk", body)
    refused = [result["error"]["message"] for result in answer["results"] if result["error"]]
    closed = len(answer["results"]) - len(refused)
    request.state.session.notice = f"{closed} closed as {disposition}." + (f" {len(refused)} refused: {refused[0]}" if refused else "")
    return RedirectResponse("/console/alerts", 303)


def _version(text: Any) -> int:
    if not str(text).isdigit() or len(str(text)) > 15:
        raise ApiRefusal(422, "no_version", "The form names no version of the alert. Load the page again.")
    return int(str(text))


def _reason(disposition: str, written: str) -> str:
    """Return the reason of a disposition.

    Raises
    ------
    ApiRefusal
        422 for a false positive without one: it teaches the model that such a payment is harmless.
    """
    written = written.strip()
    if written:
        return written
    if disposition == "genuine":
        raise ApiRefusal(422, "no_reason", "A false positive needs a reason. Go back, and choose or write one.")
    return FRAUD_REASON if disposition == "fraud" else UNDETERMINED_REASON


def _rank(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the contributions of an answer, the largest first."""
    contributions = answer.get("explanation", {}).get("contributions", [])
    return sorted(contributions, key=lambda item: -abs(item["contribution"]))


def _compare(sent: Mapping[str, Any], usual: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the transaction beside what is usual, a line for each of amount, time, merchant and country."""
    past = usual["transactions"]
    amounts = sorted(row["amount"] for row in past if row["direction"] == sent.get("direction", "debit"))
    moment = datetime.fromisoformat(sent["timestamp"])
    near = sum(abs((_hour(row) - moment.hour + 12) % 24 - 12) <= 2 for row in past)
    same_merchant = sum(row["is_same_merchant"] for row in past)
    known_country = [row for row in past if row["is_same_country"] is not None]
    same_country = sum(row["is_same_country"] for row in known_country)
    amount = float(sent["amount"])
    return [
        {
            "what": "Amount",
            "amount": amount,
            "usual_amount": median(amounts) if amounts else None,
            "high_amount": quantiles(amounts, n=20)[-1] if len(amounts) >= 20 else (amounts[-1] if amounts else None),
            "share": sum(value < amount for value in amounts) / len(amounts) if amounts else None,
            "is_unusual": bool(amounts) and amount > amounts[int(0.95 * (len(amounts) - 1))],
        },
        {"what": "Time", "hour": moment.hour, "count": near, "of": len(past), "is_unusual": bool(past) and near / len(past) < 0.05},
        {"what": "Merchant", "count": same_merchant, "of": len(past), "is_unusual": bool(past) and not same_merchant},
        {"what": "Country", "count": same_country, "of": len(known_country), "is_unusual": bool(known_country) and not same_country},
    ]


def _hour(row: Mapping[str, Any]) -> int:
    return datetime.fromisoformat(row["occurred_at"]).hour


def _draw_scatter(sent: Mapping[str, Any], usual: Mapping[str, Any]) -> charts.Spec:
    rows: list[dict[str, Any]] = [
        {"at": row["occurred_at"], "amount": row["amount"], "what": "same merchant" if row["is_same_merchant"] else "usual"}
        for row in usual["transactions"]
        if row["amount"] > 0
    ]
    at = sent["timestamp"] if sent["timestamp"].endswith("Z") else f"{sent['timestamp']}Z"
    return charts.scatter_usual([*rows, {"at": at, "amount": max(sent["amount"], 0.01), "what": "this alert"}])


def _draw_hours(sent: Mapping[str, Any], usual: Mapping[str, Any]) -> charts.Spec:
    counts = Counter(_hour(row) for row in usual["transactions"])
    rows = [{"hour": hour, "count": counts[hour]} for hour in range(24)]
    return charts.count_by_hour(rows, datetime.fromisoformat(sent["timestamp"]).hour)
