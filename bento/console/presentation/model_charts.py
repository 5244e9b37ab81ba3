"""Charts of a model's evidence as Vega-Lite specifications: curves, calibration, effects of features, and served against tested scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from bento.console.presentation.charts import ACCENT, PALETTE, WARNING, Rows, Spec, build_axis, build_base
from bento.console.presentation.formats import label_feature

SERVED, TESTED = "served", "test window of the training"
"""Names of the two distributions of scores."""
MODELS = ("champion", "challenger")
_DASHES = {"domain": list(MODELS), "range": [[1, 0], [6, 4]]}
_COLOURS = {"domain": list(MODELS), "range": [ACCENT, WARNING]}
_QUIET = PALETTE[7]


def label_curves(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return the points of named curves as rows with `x`, `y`, `model` and their `order`."""
    return [{**point, "model": name, "order": at} for name, points in curves.items() for at, point in enumerate(points)]


def draw_roc(rows: Rows) -> Spec:
    """Return the ROC curve of each model beside that of chance. Rows have `x`, `y`, `model` and `order`."""
    diagonal = {"data": {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]}, "mark": {"type": "line", "color": _QUIET, "strokeWidth": 1}}
    x = build_axis("x", "quantitative", "share of the others that are caught too", axis={"format": "%"})
    y = build_axis("y", "quantitative", "share of the events that are caught", axis={"format": "%"})
    return build_base(rows, 260) | {"layer": [diagonal | {"encoding": {"x": x, "y": y}}, _draw_lines(rows, x, y, "linear")]}


def draw_precision_recall(rows: Rows, rate: float | None) -> Spec:
    """Return precision over recall of each model beside the rate of events, which chance has. Rows have `x`, `y`, `model` and `order`."""
    x = build_axis("x", "quantitative", "recall: share of the events that are caught", scale={"domain": [0, 1]}, axis={"format": "%"})
    y = build_axis("y", "quantitative", "precision: events among the caught", scale={"domain": [0, 1]}, axis={"format": "%"})
    layers = [_draw_lines(rows, x, y, "step-before")]
    if rate is not None:
        layers.insert(0, {"data": {"values": [{"y": rate}]}, "mark": {"type": "rule", "color": _QUIET}, "encoding": {"y": y}})
    return build_base(rows, 260) | {"layer": layers}


def _draw_lines(rows: Rows, x: Spec, y: Spec, interpolate: str) -> Spec:
    names = {row["model"] for row in rows}
    legend = {} if len(names) > 1 else {"legend": None}
    return {
        "mark": {"type": "line", "tooltip": True, "interpolate": interpolate},
        "encoding": {
            "x": x,
            "y": y,
            "order": {"field": "order", "type": "quantitative"},
            "color": build_axis("model", "nominal", "", scale=_COLOURS, **legend),
            "strokeDash": build_axis("model", "nominal", "", scale=_DASHES, **legend),
        },
    }


def draw_calibration(rows: Rows) -> Spec:
    """Return observed over predicted rates with their intervals, beside the line on which both agree. Rows are the `calibration`."""
    top = max(max(row["high"], row["predicted"]) for row in rows)
    x = build_axis("predicted", "quantitative", "predicted probability, mean of the group", axis={"format": "%"})
    y = build_axis("observed", "quantitative", "observed share, 95 % interval", axis={"format": "%"})
    diagonal = {"data": {"values": [{"predicted": 0, "observed": 0}, {"predicted": top, "observed": top}]}}
    return build_base(rows, 260) | {
        "layer": [
            diagonal | {"mark": {"type": "line", "color": _QUIET, "strokeWidth": 1}, "encoding": {"x": x, "y": y}},
            {"mark": {"type": "rule", "color": ACCENT, "strokeWidth": 2}}
            | {"encoding": {"x": x, "y": y | {"field": "low"}, "y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 60, "color": ACCENT, "tooltip": True}, "encoding": {"x": x, "y": y}},
        ]
    }


def draw_effects(effects: Rows) -> Spec:
    """Return for each feature the contributions of its low, middle, high and missing values. Rows are the `effects`."""
    rows = [{"feature": label_feature(effect["feature"]), **group} for effect in effects for group in effect["groups"]]
    names = list(dict.fromkeys(row["feature"] for row in rows))
    kinds = ["low", "middle", "high", "missing"]
    legend, title = "value of the feature", "contribution, units of the score"
    shared = {
        "y": build_axis("feature", "nominal", "", scale={"domain": names}, axis={"labelLimit": 190, "grid": True}),
        "yOffset": {"field": "values", "type": "nominal", "scale": {"domain": kinds}},
        "color": build_axis("values", "nominal", legend, scale={"domain": kinds, "range": [PALETTE[4], _QUIET, WARNING, PALETTE[3]]}),
    }
    shapes = build_axis("values", "nominal", legend, scale={"domain": kinds, "range": ["circle", "square", "diamond", "cross"]})
    zero = {"data": {"values": [{"x": 0}]}, "encoding": {"x": {"field": "x", "type": "quantitative"}}}
    return build_base(rows, 34 * len(names) + 40) | {
        "layer": [
            zero | {"mark": {"type": "rule", "color": _QUIET}},
            {"mark": {"type": "rule", "strokeWidth": 2}}
            | {"encoding": shared | {"x": build_axis("low", "quantitative", title), "x2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 45, "tooltip": True}}
            | {"encoding": shared | {"shape": shapes, "x": build_axis("middle", "quantitative", title)}},
        ]
    }


def compare_scores(rows: Rows) -> Spec:
    """Return the distributions of served and tested probabilities, a panel for each domain. Rows have `domain`, `low`, `share`, `what`."""
    names = [SERVED, TESTED]
    middle = build_axis("middle", "quantitative", "probability", scale={"domain": [0, 1]}, axis={"format": "%", "tickCount": 3})
    return build_base(rows, 90) | {
        "width": 240,
        "autosize": "pad",
        "transform": [{"calculate": "datum.low + 0.025", "as": "middle"}],
        "mark": {"type": "line", "point": {"size": 14}, "tooltip": True},
        "encoding": {
            "x": middle,
            "y": build_axis("share", "quantitative", "share", axis={"format": "%", "tickCount": 3}),
            "color": build_axis("what", "nominal", "", scale={"domain": names, "range": [ACCENT, WARNING]}),
            "strokeDash": build_axis("what", "nominal", "", scale={"domain": names, "range": [[1, 0], [5, 3]]}),
            "facet": build_axis("domain", "nominal", "", columns=3),
        },
    }
