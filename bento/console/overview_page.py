"""The overview: decisions and alerts over time, scores, money, versions, and lights of health and freshness."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bento.console.console_context import Console
from bento.console.presentation import charts, model_charts
from bento.console.presentation.formats import humanise
from bento.console.presentation.rendering import build_csv
from bento.console.score_shift import ServedShift, measure_shift

PERIODS = (7, 30, 90)
"""Days to choose from."""
SCORE_BINS = 20
"""Bins of a distribution of probabilities, as the API counts them."""
STALE_DAYS = 35
"""Days after which a ledger's snapshot is called old: it is loaded every month."""


async def show_overview(console: Console, request: Request) -> Response:
    """Return the overview of the last days."""
    text = request.query_params.get("days", "30")
    days = int(text) if text.isdigit() and int(text) in PERIODS else 30
    activity, (cards, _), (worth, _), (models, _), (policy, _), (_, unready) = await asyncio.gather(
        console.get(request, "/v1/activity", {"days": days}),
        console.try_get(request, "/v1/model-cards"),
        console.try_get(request, "/v1/activity/worth", {"days": days}),
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
    champions = cards["cards"] if cards else []
    compared = _compare_scores(activity["scores"], champions)
    return console.page(
        request,
        "overview.html",
        lights=_rate_domains(activity, champions, datetime.now(UTC)),
        compared=compared,
        worth=worth,
        days=days,
        periods=PERIODS,
        activity=activity,
        totals=sorted(totals.items()),
        n_decisions=sum(totals.values()),
        models=models["models"] if models else [],
        absent=models["absent"] if models else {},
        policy=policy,
        unready=unready,
        money=_sum_money(activity, policy["document"] if policy else None),
        freshness=activity["features_as_of"],
        decision_spec=charts.stack_by_day(
            [{**row, "domain": humanise(row["domain"])} for row in activity["decisions"]], "domain", "decisions a day", shown_days
        ),
        alert_spec=charts.stack_by_day(
            [{"day": row["day"], "count": row["expected_loss_amount"], "kind": "expected loss"} for row in activity["alerts"]],
            "kind",
            "expected loss, currency",
            shown_days,
        ),
        score_spec=model_charts.compare_scores(compared),
    )


def _sum_money(activity: Mapping[str, Any], policy: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the expected losses of alerts by what became of them, what their reviews cost, and what was lost; None where not known yet."""
    money: dict[str, Any] = {"open": 0.0, "stopped": 0.0, "harmless": 0.0, "closed": 0, "review_cost": None}
    for row in activity["money"]:
        money["closed"] += row["count"] if row["state"] == "closed" else 0
        kind = {"fraud": "stopped", "genuine": "harmless"}.get(row["disposition"] or "", "open" if row["state"] != "closed" else "")
        if kind:
            money[kind] += row["expected_loss_amount"]
    if policy is not None:
        money["review_cost"] = money["closed"] * policy["transaction_anomaly"]["review_cost_amount"]
    money["lost"] = activity["lost_amount"] if activity["labelled"] else None
    return money


def _count_scores(bins: list[Mapping[str, Any]], domain: str) -> list[int]:
    """Return the served decisions of a domain in each bin, from the lowest."""
    counts = [0] * SCORE_BINS
    for row in bins:
        if row["domain"] == domain:
            counts[min(round(row["low"] * SCORE_BINS), SCORE_BINS - 1)] += row["count"]
    return counts


def _compare_scores(bins: list[Mapping[str, Any]], cards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the distributions of served scores, each beside that of its model's test window where it is known."""
    tested = {card["domain"]: [share["share"] for share in card["scores"]] for card in cards}
    rows = []
    for domain in sorted({row["domain"] for row in bins}):
        counts = _count_scores(bins, domain)
        served = [count / sum(counts) for count in counts]
        for what, shares in ((model_charts.SERVED, served), (model_charts.TESTED, tested.get(domain, []))):
            rows += [{"domain": humanise(domain), "low": at / SCORE_BINS, "share": share, "what": what} for at, share in enumerate(shares)]
    return rows


def _measure_shift(bins: list[Mapping[str, Any]], card: Mapping[str, Any]) -> ServedShift | None:
    """Return the shift of a model's served scores; None where its test window's are not known."""
    if len(card["scores"]) != SCORE_BINS or not card["rows"]:
        return None
    return measure_shift(_count_scores(bins, card["domain"]), [share["share"] for share in card["scores"]], card["rows"])


def _rate_domains(activity: Mapping[str, Any], cards: Sequence[Mapping[str, Any]], now: datetime) -> list[dict[str, Any]]:
    """Return each domain's lights: whether its newest features are recent, its drift since training, and the shift of its served scores."""
    ages, of_domain = activity["features_as_of"], {card["domain"]: card for card in cards}
    lights = []
    for domain in dict.fromkeys([*of_domain, *ages]):
        as_of, card = ages.get(domain), of_domain.get(domain)
        lights.append(
            {
                "domain": domain,
                "as_of": as_of,
                "is_fresh": as_of is not None and (now - datetime.fromisoformat(as_of)).days <= STALE_DAYS,
                "drift": card and card["drift"],
                "shift": card and _measure_shift(activity["scores"], card),
            }
        )
    return lights
