"""Charts as Vega-Lite specifications: plain dictionaries, drawn in the browser by the bundle of `vega_bundle`.

Each function takes rows and returns a specification with its data inside. Colours are those of Okabe and Ito, which people with any
colour vision tell apart; the page's script adds the colours of text and axes for a light or a dark page. Every axis has its unit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
"""Name of the specification's language; nothing is loaded from there."""
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Okabe and Ito's colours without black, which a dark page hides."""
ACCENT, WARNING = PALETTE[0], PALETTE[5]

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


def build_base(rows: Rows, height: int = 220) -> Spec:
    """Return a specification as wide as its place, with its data."""
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": list(rows)},
    }


def build_axis(field: str, kind: str, title: str, **more: Any) -> Spec:
    """Return the encoding of a field with its title."""
    return {"field": field, "type": kind, "title": title, **more}


def stack_by_day(rows: Rows, category: str, title: str, days: Sequence[str]) -> Spec:
    """Return bars by day, stacked by a category. Rows have `day`, the category and `count`; `days` are all days of the axis."""
    names = sorted({str(row[category]) for row in rows})
    scale = {"domain": names, "range": [PALETTE[at % len(PALETTE)] for at in range(len(names))]}
    axis = {"labelAngle": 0, "labelOverlap": "greedy", "labelSeparation": 8, "labelExpr": "slice(datum.value, 5)", "ticks": False}
    return build_base(rows) | {
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "x": build_axis("day", "ordinal", "month and day (UTC)", scale={"domain": list(days)}, axis=axis),
            "y": build_axis("count", "quantitative", title, aggregate="sum"),
            "color": build_axis(category, "nominal", category, scale=scale, **({} if len(names) > 1 else {"legend": None})),
        },
    }


def stack_by_month(rows: Rows) -> Spec:
    """Return money by month, stacked by category. Rows have `month`, `category` and `amount`, below zero where money goes out."""
    names = sorted({str(row["category"]) for row in rows})
    colours = [PALETTE[at % len(PALETTE)] for at in range(len(names))]
    return build_base(rows, 260) | {
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "x": build_axis("month", "ordinal", "month", axis={"labelAngle": 0}),
            "y": build_axis("amount", "quantitative", "money in (above 0) and out, currency", aggregate="sum"),
            "color": build_axis("category", "nominal", "category", scale={"domain": names, "range": colours}),
        },
    }


def scatter_usual(rows: Rows) -> Spec:
    """Return a person's transactions, amount over time, and the alert's among them. Rows have `at`, `amount` above 0 and `what`."""
    names = ["usual", "same merchant", "this alert"]
    return build_base(rows, 240) | {
        "mark": {"type": "point", "filled": True, "tooltip": True},
        "encoding": {
            "x": build_axis("at", "temporal", "time (UTC)"),
            "y": build_axis("amount", "quantitative", "amount, currency (logarithmic)", scale={"type": "log"}, axis={"tickCount": 5}),
            "color": build_axis("what", "nominal", "", scale={"domain": names, "range": [PALETTE[4], PALETTE[2], WARNING]}),
            "shape": build_axis("what", "nominal", "", scale={"domain": names, "range": ["circle", "square", "diamond"]}),
            "size": {"condition": {"test": "datum.what == 'this alert'", "value": 260}, "value": 45},
        },
    }


def count_by_hour(rows: Rows, hour: int) -> Spec:
    """Return a person's transactions by hour of the day, and a line at the alert's hour. Rows have `hour` and `count`."""
    x = build_axis("hour", "ordinal", "hour of the day (UTC); the line is this alert's", axis={"labelAngle": 0})
    bars = {"mark": {"type": "bar", "color": PALETTE[4], "tooltip": True}}
    line = {"data": {"values": [{"hour": hour}]}, "mark": {"type": "rule", "color": WARNING, "strokeWidth": 4}}
    return build_base(rows, 160) | {
        "layer": [
            bars | {"encoding": {"x": x, "y": build_axis("count", "quantitative", "transactions")}},
            line | {"encoding": {"x": {"field": "hour", "type": "ordinal"}}},
        ]
    }


def trade_capacity(rows: Rows) -> Spec:
    """Return worth, and precision where it is known, over the number of alerts a day. Rows are points of `GET /v1/alerts/capacity`."""
    x = build_axis(
        "alerts_per_day", "quantitative", "alerts a day (logarithmic)", scale={"type": "log", "nice": False}, axis={"grid": False}
    )
    layers: list[Spec] = [
        {"mark": {"type": "line", "color": ACCENT, "point": True, "tooltip": True}}
        | {"encoding": {"x": x, "y": build_axis("worth_per_day_amount", "quantitative", "worth, currency a day (solid)")}}
    ]
    if any(row["precision"] is not None for row in rows):
        y = build_axis("precision", "quantitative", "precision (dashed)", axis={"format": "%", "grid": False})
        layers.append({"mark": {"type": "line", "color": WARNING, "strokeDash": [4, 3], "tooltip": True}, "encoding": {"x": x, "y": y}})
    return build_base(rows) | {"layer": layers, "resolve": {"scale": {"y": "independent"}}}


def draw_offer_curve(rows: Rows, optimum_pct: float | None) -> Spec:
    """Return expected profit and acceptance over the yearly rate, with the optimum. Rows are the `curve` of an offer."""
    x = build_axis("annual_rate_pct", "quantitative", "yearly rate, %", scale={"zero": False})
    layers: list[Spec] = [
        {"mark": {"type": "line", "color": ACCENT, "point": True, "tooltip": True}}
        | {"encoding": {"x": x, "y": build_axis("expected_profit", "quantitative", "expected profit, currency (solid)")}},
        {"mark": {"type": "line", "color": WARNING, "strokeDash": [4, 3], "tooltip": True}}
        | {"encoding": {"x": x, "y": build_axis("acceptance", "quantitative", "acceptance (dashed)", axis={"format": "%"})}},
    ]
    if optimum_pct is not None:
        rule = {"data": {"values": [{"annual_rate_pct": optimum_pct}]}, "mark": {"type": "rule", "color": PALETTE[2], "size": 2}}
        layers.append(rule | {"encoding": {"x": {"field": "annual_rate_pct", "type": "quantitative"}}})
    return build_base(rows) | {"layer": layers, "resolve": {"scale": {"y": "independent"}}}


def draw_precision_recall(rows: Rows) -> Spec:
    """Return precision over recall. Rows are the `curve` of a model card."""
    return build_base(rows) | {
        "mark": {"type": "line", "color": ACCENT, "point": False, "tooltip": True, "interpolate": "step-after"},
        "encoding": {
            "x": build_axis("recall", "quantitative", "recall", axis={"format": "%"}),
            "y": build_axis("precision", "quantitative", "precision", axis={"format": "%"}),
            "order": {"field": "recall", "type": "quantitative"},
        },
    }
