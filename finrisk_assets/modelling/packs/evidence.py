"""The evidence of a model: the aggregated figures behind the pictures of its evaluation, as plain values for JSON.

Curves, groups and distributions only, never a row of a person: a curve has at most `MAX_POINTS` points, and a group of fewer rows than
`pack.MIN_GROUP_PEOPLE`, or of fewer people where a figure counts people, is withheld. The same input gives the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.packs.pack import MIN_GROUP_PEOPLE, canonical_json

EVIDENCE = "evidence.json"
"""Name of the file: among the artifacts of a model's run, beside a champion's bundle, and in its BentoML model."""
MAX_POINTS = 100
"""Points of a curve."""
SCORE_BINS = 20
"""Bins of a distribution of probabilities, of equal width, as the service counts those that it serves."""
CALIBRATION_BINS = 10
MAX_EFFECTS = 15
"""Features whose effects are kept, those that move the score most."""
MAX_LINES = 250
"""Lines of a table: of a scorecard, or of the figures of fairness."""
MIN_ROWS = 50
"""Rows of the test window; of fewer no curve and no distribution is kept."""
_DIGITS = 6


def measure_outcomes(labels: ArrayLike, scores: ArrayLike, probability: ArrayLike, people: ArrayLike) -> dict[str, Any]:
    """Return the ROC and the precision-recall curve and the calibration of a window; empty for a window of fewer than `MIN_ROWS` rows.

    Parameters
    ----------
    labels : array-like of bool, shape (n,)
    scores, probability : array-like, shape (n,)
        What ranks the rows, and the probability of the outcome.
    people : array-like, shape (n,)
        The person of each row.
    """
    target = np.asarray(labels).astype(bool)
    if len(target) < MIN_ROWS or not 0 < target.sum() < len(target):
        return {}
    caught, taken, n_events = metrics.cumulative_counts(target, scores)
    false_alarms = (taken - caught) / (len(target) - n_events)
    recall = caught / n_events
    along = _thin(recall + false_alarms)
    at = _thin(recall)
    return {
        "events": n_events,
        "roc": _pairs(np.append(0.0, false_alarms[along]), np.append(0.0, recall[along])),
        "precision_recall": _pairs(recall[at], caught[at] / taken[at]),
        "calibration": _measure_calibration(target, probability, np.asarray(people).astype(str)),
    }


def _thin(position: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return at most `MAX_POINTS` - 1 places, evenly spaced along a rising position, the first and the last among them."""
    steps = np.linspace(position[0], position[-1], MAX_POINTS - 1)
    return np.unique(np.minimum(np.searchsorted(position, steps), len(position) - 1))


def _measure_calibration(target: NDArray[np.bool_], probability: ArrayLike, people: NDArray[np.str_]) -> list[dict[str, float]]:
    """Return groups of equal size with their 95 % Jeffreys interval; fewer groups where ten would be of too few people."""
    from scipy.stats import beta

    bins = min(CALIBRATION_BINS, len(np.unique(people)) // MIN_GROUP_PEOPLE)
    if bins < 2:
        return []
    order = np.argsort(np.asarray(probability), kind="stable")
    if any(len(np.unique(people[part])) < MIN_GROUP_PEOPLE for part in np.array_split(order, bins)):
        return []
    predicted, observed, n = metrics.calibration_bins(target, probability, bins)
    events = np.rint(observed * n)
    low, high = (beta.ppf(q, events + 0.5, n - events + 0.5) for q in (0.025, 0.975))
    return [
        {"predicted": _round(said), "observed": _round(seen), "low": _round(least), "high": _round(most), "rows": int(rows)}
        for said, seen, least, most, rows in zip(predicted, observed, low, high, n, strict=True)
    ]


def measure_scores(probability: ArrayLike) -> list[float]:
    """Return the share of the rows in each of `SCORE_BINS` bins of the probability; empty for fewer than `MIN_ROWS` rows."""
    p = np.asarray(probability, np.float64)
    if len(p) < MIN_ROWS:
        return []
    places = np.minimum((p * SCORE_BINS).astype(int), SCORE_BINS - 1)
    return [_round(count / len(p)) for count in np.bincount(places, minlength=SCORE_BINS)]


def measure_effects(contributions: ArrayLike, rows: ArrayLike, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the effects of the features on the score, the strongest first: by low, middle, high and missing values.

    Parameters
    ----------
    contributions : array-like of shape (n, d)
        SHAP values in margin units.
    rows : array-like of shape (n, d)
        Values of the features, NaN where missing.
    names
        Names of the d features.

    Notes
    -----
    A summary of the plot of Lundberg & Lee (2017): each third of a feature's known values, and its missing ones, has the median and the
    10 % and 90 % quantiles of its contributions. Equal values stand in the same third.
    """
    phi, x = np.asarray(contributions, np.float64), np.asarray(rows, np.float64)
    strength = np.abs(phi).mean(axis=0)
    return [
        {"feature": names[at], "mean_absolute": _round(strength[at]), "groups": _group_effects(phi[:, at], x[:, at])}
        for at in np.argsort(-strength, kind="stable")[:MAX_EFFECTS]
    ]


def _group_effects(effect: NDArray[np.float64], value: NDArray[np.float64]) -> list[dict[str, Any]]:
    is_known = ~np.isnan(value)
    groups = {"missing": ~is_known}
    if is_known.any():
        lower, upper = np.quantile(value[is_known], (1 / 3, 2 / 3))
        groups |= {"low": is_known & (value <= lower), "middle": is_known & (value > lower) & (value <= upper)}
        groups["high"] = is_known & (value > upper)
    return [
        {"values": name, "rows": int(inside.sum())}
        | dict(zip(("low", "middle", "high"), map(_round, np.quantile(effect[inside], (0.1, 0.5, 0.9))), strict=True))
        for name, inside in groups.items()
        if inside.sum() >= MIN_GROUP_PEOPLE
    ]


def describe_scorecard(scorecard_json: str, n_train: float) -> dict[str, Any]:
    """Return a scorecard's base points and table of points from its JSON; the rate of a bin of too few training rows is withheld."""
    from finrisk_assets.modelling.training.scorecard import Scorecard

    card = Scorecard.from_json(scorecard_json)
    lines = []
    for line in card.to_table()[:MAX_LINES]:
        is_shown = line.event_rate is not None and line.share * n_train >= MIN_GROUP_PEOPLE
        lines.append(
            {
                "feature": line.feature,
                "bin": line.bin,
                "points": line.points,
                "weight_of_evidence": _round(line.woe),
                "share": _round(line.share),
                "event_rate": _round(line.event_rate) if is_shown else None,
            }
        )
    return {"base_points": card.base_points, "lines": lines}


def complete_evidence(
    measured: Mapping[str, Any],
    *,
    version: str,
    figures: Sequence[Mapping[str, Any]] = (),
    candidates: Sequence[Mapping[str, Any]] = (),
    parameters: Mapping[str, str] | None = None,
    scorecard_json: str | None = None,
) -> dict[str, Any]:
    """Return the evidence of a version: what its evaluation measured, the figures of fairness, the candidates and the scorecard.

    Parameters
    ----------
    measured
        What the evaluation measured; empty where it kept none.
    version
        The bundle's version.
    figures
        Figures of groups of people, with ``metric``, ``value``, ``low``, ``high`` and ``meaning``.
    candidates, parameters
        One row per model that was tried, and the parameters of the training: which was chosen, and the number of training rows.
    scorecard_json
        The scorecard that was trained beside the others, as JSON; None where there is none.
    """
    parameters = parameters or {}
    return {
        "version": version,
        **measured,
        "fairness": [dict(figure) for figure in figures[:MAX_LINES]],
        "candidates": [
            {
                "model": str(row["model"]),
                "is_chosen": row["model"] == parameters.get("champion_candidate"),
                "figures": {name: _round(value) for name, value in row.items() if isinstance(value, float) and value == value},
            }
            for row in candidates
            if "model" in row
        ],
        "scorecard": None if scorecard_json is None else describe_scorecard(scorecard_json, float(parameters.get("n_train", 0))),
    }


def read_evidence(content: bytes) -> dict[str, Any]:
    """Return evidence from its file's content."""
    evidence: dict[str, Any] = json.loads(content)
    return evidence


def write_evidence(evidence: Mapping[str, Any]) -> bytes:
    """Return the content of the file, the same bytes for the same evidence."""
    return canonical_json(evidence)


def _pairs(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[list[float]]:
    return [[_round(a), _round(b)] for a, b in zip(x, y, strict=True)]


def _round(value: Any) -> float:
    return float(f"{float(value):.{_DIGITS}g}")
