"""The overview: decisions and alerts over time, scores, money, versions, and lights of health and freshness."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bento.console.console_context import Console
from bento.console.presentation import charts
from bento.console.presentation.formats import humanise
from bento.console.presentation.rendering import build_csv

PERIODS = (7, 30, 90)
"""Days to choose from."""
STALE_DAYS = 35
"""Days after which a ledger's snapshot is called old: it is loaded every month."""


async def show_overview(console: Console, request: Request) -> Response:
    """Return the overview of the last days."""
    text = request.query_params.get("days", "30")
    days = int(text) if text.isdigit() and int(text) in PERIODS else 30
    activity, (models, _), (policy, _), (_, unready) = await asyncio.gather(
        console.get(request, "/v1/activity", {"days": days}),
        console.try_get(request, "/v1/models"),
        console.try_get(request, "/v1/policy"),
        console.try_get(request, "/readyz"),
    )
    if request.query_params.get("format") == "csv":
        return build_csv("decisions", ("day", "domain", "decision", "count"), activity["decisions"])
    today = datetime.now(UTC).date()
    shown_days = [(today - timedelta(days=ago)).isoformat() for ago in range(days, -1, -1)]
    totals: dict[str, int] = defaultdict(int)
    for row in activity["decisions"]:
        totals[row["domain"]] += row["count"]
    return console.page(
        request,
        "overview.html",
        days=days,
        periods=PERIODS,
        activity=activity,
        totals=sorted(totals.items()),
        n_decisions=sum(totals.values()),
        models=models["models"] if models else [],
        absent=models["absent"] if models else {},
        policy=policy,
        unready=unready,
        money=_sum_money(activity),
        freshness=_rate_freshness(activity["features_as_of"], datetime.now(UTC)),
        decision_spec=charts.stack_by_day(
            [{**row, "domain": humanise(row["domain"])} for row in activity["decisions"]], "domain", "decisions a day", shown_days
        ),
        alert_spec=charts.stack_by_day(
            [{"day": row["day"], "count": row["expected_loss_amount"], "kind": "expected loss"} for row in activity["alerts"]],
            "kind",
            "expected loss, currency",
            shown_days,
        ),
        score_spec=charts.draw_score_bins(_share_scores(activity["scores"])),
    )


def _sum_money(activity: Mapping[str, Any]) -> dict[str, float]:
    """Return the expected losses that are open, that analysts stopped, and that turned out harmless; and the labelled frauds."""
    money = {"open": 0.0, "stopped": 0.0, "harmless": 0.0, "lost": activity["labelled_fraud_amount"]}
    for row in activity["money"]:
        kind = {"fraud": "stopped", "genuine": "harmless"}.get(row["disposition"] or "", "open" if row["state"] != "closed" else "")
        if kind:
            money[kind] += row["expected_loss_amount"]
    return money


def _share_scores(bins: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    totals: dict[str, int] = defaultdict(int)
    for row in bins:
        totals[row["domain"]] += row["count"]
    return [{**row, "domain": humanise(row["domain"]), "share": row["count"] / totals[row["domain"]]} for row in bins]


def _rate_freshness(as_of: Mapping[str, str | None], now: datetime) -> list[tuple[str, str | None, bool | None]]:
    """Return each domain with the time of its newest features, and whether that is recent; None where no time is known."""
    rated = []
    for domain, text in as_of.items():
        age = None if text is None else (now - datetime.fromisoformat(text)).days
        rated.append((domain, text, None if age is None else age <= STALE_DAYS))
    return rated
