"""The points-based scorecard: monotone bins, their weight of evidence, a logistic regression on it, and whole points per bin.

This module fits a card, scores rows with it, and writes it as a table, SQL and JSON; `convert` makes it a component of a bundle. A card
consists of its points: all forms give the same number, rounding included. Scoring needs numpy alone. Calibration, comparison and
promotion are those of every other candidate and live elsewhere.

Sources: Siddiqi, *Credit Risk Scorecards* (2006), chapter 6; Anderson, *The Credit Scoring Toolkit* (2007), part E.
"""

import json
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.training.binning import (
    MIN_BIN_SHARE,
    Binning,
    Floats,
    bin_positions,
    find_optimal_cuts,
    find_pooled_cuts,
    information_value,
    move_between_floats,
    next_floats_above,
    weight_of_evidence,
)
from finrisk_assets.scoring.feature_values import LevelWeights
from finrisk_assets.scoring.spec import Rows
from schemas.features import Feature

POINTS = 600
ODDS = 50
PDO = 20
"""`POINTS` mean odds of `ODDS` good to one bad; every further `PDO` points double the odds."""

FACTOR = PDO / math.log(2)
OFFSET = POINTS - FACTOR * math.log(ODDS)
"""Points of even odds: points = OFFSET + FACTOR * ln(odds of good to bad)."""

MIN_INFORMATION_VALUE = 0.02
"""Information value; a feature below it is not predictive (Siddiqi 2006, p. 81)."""

MAX_CORRELATION = 0.8
"""Correlation of weights of evidence; of two features above it, only the one with the higher information value is tried."""

MAX_REGRESSION_FEATURES, BADS_PER_FEATURE = 30, 5
"""Features that the regression starts with, at most, and the bads needed per feature; fewer bads fit noise (Peduzzi et al. 1996)."""

_FORMAT = 1
_RIDGE = 1e-3
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Characteristic:
    """One feature on the card, with its bins: the intervals between the cuts, then one bin per code, then the bin of missing values.

    Attributes
    ----------
    name
        Name of the feature.
    cuts
        Ascending. A value equal to a cut belongs to the bin on its right. Cuts lie between two neighbouring 32-bit floats, so that a value
        stays in its bin when it is rounded to 32 bits.
    codes
        Values that mean a circumstance and not a quantity.
    coefficient, information_value
        Coefficient of the weight of evidence in the regression, above 0; and information value of the feature alone.
    points, woe, shares, event_rates
        One per bin: points, weight of evidence ln(share of goods / share of bads), share of the training rows and their observed rate
        (None in an empty bin).
    levels, weights
        Of a category: its levels and their weights of evidence, which the cuts lie among; empty and None elsewhere.
    """

    name: str
    cuts: tuple[float, ...]
    codes: tuple[float, ...]
    coefficient: float
    information_value: float
    points: tuple[int, ...]
    woe: tuple[float, ...]
    shares: tuple[float, ...]
    event_rates: tuple[float | None, ...]
    levels: tuple[str, ...] = ()
    weights: LevelWeights | None = None

    @cached_property
    def weight_of(self) -> Mapping[str | None, float] | None:
        """The weight of each level of a category that is not rare, and of a missing value as None; None where it is no category."""
        if self.weights is None:
            return None
        levels = zip(self.levels, self.weights.weights, self.weights.rows, strict=True)
        named: dict[str | None, float] = {level: weight for level, weight, rows in levels if rows >= self.weights.min_rows}
        return {**named, None: self.weights.missing}

    def describe_bins(self) -> list[str]:
        """Return each bin in words; the bins of a category by their levels, the last one empty."""
        if self.weight_of is not None and self.weights is not None:
            weights: list[tuple[str, float]] = [
                *(("missing" if level is None else level, weight) for level, weight in self.weight_of.items()),
                ("any other", self.weights.rare),
            ]
            named: list[list[str]] = [[] for _ in self.points]
            for level, weight in weights:
                named[bisect_right(self.cuts, weight)].append(level)
            return [", ".join(levels) for levels in named]
        cuts = [f"{cut:g}" for cut in next_floats_above(np.array(self.cuts)).tolist()]
        if not cuts:
            return ["any value", *(f"code {code:g}" for code in self.codes), "missing"]
        inner_bins = [f"{low} to below {high}" for low, high in pairwise(cuts)]
        return [f"below {cuts[0]}", *inner_bins, f"{cuts[-1]} or more", *(f"code {code:g}" for code in self.codes), "missing"]


class NoInformativeFeatureError(ValueError):
    """Rows in which no feature separates the bad from the good, so that a card would be empty."""


class CardLine(NamedTuple):
    """One line of the card's table; see `Characteristic`."""

    feature: str
    bin: str
    woe: float
    points: int
    share: float
    event_rate: float | None


@dataclass(frozen=True)
class Scorecard:
    """Points for every applicant: base points, plus those of one bin per characteristic.

    More points mean less risk: points = OFFSET + FACTOR * ln(odds of good to bad).
    """

    base_points: int
    characteristics: tuple[Characteristic, ...]

    @cached_property
    def _lookup(self) -> list[tuple[Characteristic, tuple[float, ...], tuple[int, ...], dict[float, int]]]:
        return [
            (
                characteristic,
                characteristic.cuts,
                characteristic.points,
                dict(zip(characteristic.codes, characteristic.points[len(characteristic.cuts) + 1 :], strict=False)),
            )
            for characteristic in self.characteristics
        ]

    def points(self, row: Mapping[str, Any]) -> int:
        """Return the points of one applicant, from values by name; a value that is None, NaN or absent is missing."""
        total = self.base_points
        for characteristic, cuts, points, codes in self._lookup:
            value = row.get(characteristic.name)
            if characteristic.weights is not None and characteristic.weight_of is not None:
                value = characteristic.weight_of.get(None if value != value else value, characteristic.weights.rare)
            if value is None or value != value:
                total += points[-1]
            elif value in codes:
                total += codes[value]
            else:
                total += points[bisect_right(cuts, value)]
        return total

    def probability(self, row: Mapping[str, Any]) -> float:
        """Return the probability of default of one applicant, by the points."""
        return 1.0 / (1.0 + math.exp((self.points(row) - OFFSET) / FACTOR))

    def margin(self, rows: Rows, names: Sequence[str]) -> Floats:
        """Return log-odds of default, shape (n,), of float32 rows whose columns have these names; NaN is missing."""
        total = np.full(len(rows), float(self.base_points))
        column_of = {name: position for position, name in enumerate(names)}
        for characteristic in self.characteristics:
            total += np.array(characteristic.points)[
                bin_positions(rows[:, column_of[characteristic.name]], characteristic.cuts, characteristic.codes)
            ]
        return (OFFSET - total) / FACTOR

    def with_levels(self, features: Sequence[Feature], categories: Mapping[str, LevelWeights]) -> "Scorecard":
        """Return the card of which `points` and the files read levels of categories, in place of their weights of evidence."""
        levels = {feature.name: feature.levels for feature in features}
        read = tuple(
            replace(one, levels=levels[one.name], weights=categories[one.name]) if one.name in categories else one
            for one in self.characteristics
        )
        return replace(self, characteristics=read)

    def to_table(self) -> list[CardLine]:
        """Return the card's lines, one per bin; base points are added to every sum."""
        return [
            CardLine(characteristic.name, *line)
            for characteristic in self.characteristics
            for line in zip(
                characteristic.describe_bins(),
                characteristic.woe,
                characteristic.points,
                characteristic.shares,
                characteristic.event_rates,
                strict=True,
            )
            if line[0]
        ]

    def to_markdown(self) -> str:
        """Return the card as a page: one table with a line per bin, the characteristic of highest information value first."""
        lines = [
            "# Scorecard",
            "",
            f"Add the points of one bin of every characteristic to the base of **{self.base_points}**. {POINTS} points stand for {ODDS}",
            f"good to one bad, and {PDO} more points double that. WoE is ln(share of goods / share of bads); share and default rate are",
            "of the loans that taught it.",
            "",
            "| characteristic | bin | points | WoE | share | default rate |",
            "|---|---|---:|---:|---:|---:|",
        ]
        for line in self.to_table():
            rate = "–" if line.event_rate is None else f"{line.event_rate:.1%}"
            lines.append(f"| {line.feature} | {line.bin} | {line.points} | {line.woe:+.3f} | {line.share:.1%} | {rate} |")
        return "\n".join(lines) + "\n"

    def to_sql(self, table: str, key: str) -> str:
        """Return a query for any SQL engine: the key, ``points`` and ``probability`` of every row of the table.

        A missing value must be null in the table, not NaN.

        Raises
        ------
        ValueError
            For a name that SQL would need quotes for.
        """
        for name in (table, key, *(characteristic.name for characteristic in self.characteristics)):
            if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name):
                raise ValueError(f"{name!r}: names in the scorecard's SQL are letters, digits and underscores")
        terms = "\n".join(f"    + {_sql_case(characteristic)}" for characteristic in self.characteristics)
        odds = f"exp((points - {OFFSET!r}) / {FACTOR!r})"
        return (
            f"select {key}, points, 1.0 / (1.0 + {odds}) as probability\n"
            f"from (\n  select {key},\n    {self.base_points}\n{terms}\n    as points\n  from {table}\n) as card\n"
        )

    def to_json(self) -> str:
        """Return the card as text that `from_json` reads; the same card gives the same text."""
        header = {"format": _FORMAT, "kind": "scorecard", "scale": {"points": POINTS, "odds": ODDS, "pdo": PDO}}
        return json.dumps(header | asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Scorecard":
        """Return the card that a text holds.

        Raises
        ------
        ValueError
            For text that is not a card on this module's scale.
        """
        document = json.loads(text)
        if document.get("kind") != "scorecard" or document.get("format") != _FORMAT:
            raise ValueError(f"not a scorecard of format {_FORMAT}: kind {document.get('kind')!r}, format {document.get('format')!r}")
        if document["scale"] != {"points": POINTS, "odds": ODDS, "pdo": PDO}:
            raise ValueError(f"the card's scale is {document['scale']}; points here are {POINTS} at {ODDS} to 1, {PDO} to double")
        names = [item.name for item in fields(Characteristic)]
        arguments: list[dict[str, Any]] = [
            {name: tuple(characteristic[name]) if isinstance(characteristic[name], list) else characteristic[name] for name in names}
            for characteristic in document["characteristics"]
        ]
        for characteristic in arguments:
            if characteristic["weights"] is not None:
                characteristic["weights"] = LevelWeights(**characteristic["weights"])
        return cls(int(document["base_points"]), tuple(Characteristic(**characteristic) for characteristic in arguments))


def render_files(card: Scorecard, table: str, key: str) -> dict[str, bytes]:
    """Return the card in every form, by file name: a page, a table, a query over a feature table, and JSON.

    Parameters
    ----------
    table, key
        As of `Scorecard.to_sql`.
    """
    import csv
    import io

    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(CardLine._fields)
    writer.writerows(card.to_table())
    texts = {"md": card.to_markdown(), "csv": lines.getvalue(), "sql": card.to_sql(table, key), "json": card.to_json()}
    return {f"scorecard.{kind}": text.encode() for kind, text in texts.items()}


# Fitting -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _BinnedFeature:
    """A feature in bins; ``column`` is the weight of evidence of every row."""

    name: str
    cuts: tuple[float, ...]
    codes: tuple[float, ...]
    n: Floats
    bad: Floats
    woe: Floats
    information_value: float
    column: Floats


def _sql_case(characteristic: Characteristic) -> str:
    if characteristic.weights is not None and characteristic.weight_of is not None:
        points_of = {level: characteristic.points[bisect_right(characteristic.cuts, w)] for level, w in characteristic.weight_of.items()}
        points_of_rare = characteristic.points[bisect_right(characteristic.cuts, characteristic.weights.rare)]
        whens = [f"when {characteristic.name} is null then {points_of.pop(None)}"]
        for points in dict.fromkeys(points_of.values()):
            levels = ", ".join("'" + str(level).replace("'", "''") + "'" for level, own in points_of.items() if own == points)
            whens.append(f"when {characteristic.name} in ({levels}) then {points}")
        return "case " + "\n      ".join([*whens, f"else {points_of_rare} end"])
    intervals = len(characteristic.cuts) + 1
    codes = zip(characteristic.codes, characteristic.points[intervals:-1], strict=True)
    whens = [f"when {characteristic.name} is null then {characteristic.points[-1]}"]
    whens += [f"when {characteristic.name} = {code!r} then {points}" for code, points in codes]
    whens += [
        f"when {characteristic.name} < {cut!r} then {points}"
        for cut, points in zip(characteristic.cuts, characteristic.points, strict=False)
    ]
    return "case " + "\n      ".join([*whens, f"else {characteristic.points[intervals - 1]} end"])


def fit(
    rows: Rows,
    labels: ArrayLike,
    names: Sequence[str],
    monotone: Sequence[int],
    *,
    codes: Mapping[str, Sequence[float]] | None = None,
    binning: Binning = "optimal",
    most: int = 15,
    alpha: float = 0.05,
) -> Scorecard:
    """Fit a scorecard: bins, choice of the characteristics, regression, points.

    Features are taken by information value, without those that correlate with an earlier one. The regression on their weights of evidence
    then drops one feature at a time: first those whose sign contradicts their own evidence, then the least significant, until every one is
    significant and at most ``most`` remain.

    Parameters
    ----------
    rows, labels
        float32 of shape (n, d), NaN where missing; 0/1 of shape (n,), 1 is bad.
    names, monotone
        Names of the columns; direction of the bad rate as in `Feature.monotone`.
    codes
        Special values per feature, each a bin of its own.
    binning
        Method of cutting.
    most, alpha
        Largest number of characteristics, and level of the Wald test.

    Raises
    ------
    ValueError
        Where labels are of one class only.
    NoInformativeFeatureError
        Where no feature is predictive.
    """
    target = np.asarray(labels).astype(np.int64)
    if rows.shape != (len(target), len(names)) or len(monotone) != len(names):
        raise ValueError(f"rows have shape {rows.shape} for {len(target)} labels, {len(names)} names and {len(monotone)} directions")
    if target.min() == target.max():
        raise ValueError("all labels are the same: a scorecard needs goods and bads")
    codes_of = codes or {}
    binned = [
        _bin_feature(rows[:, position], target, name, monotone[position], tuple(float(code) for code in codes_of.get(name, ())), binning)
        for position, name in enumerate(names)
    ]
    remaining = _drop_correlated(
        sorted(
            (feature for feature in binned if feature.information_value >= MIN_INFORMATION_VALUE),
            key=lambda feature: -feature.information_value,
        ),
        int(target.sum()),
    )
    if not remaining:
        raise NoInformativeFeatureError(
            f"no feature has an information value of {MIN_INFORMATION_VALUE}: there is nothing to put on a scorecard"
        )
    good: Floats = (1 - target).astype(np.float64)
    critical_value = _critical_value(alpha)
    while True:
        coefficients, errors = _fit_logistic_with_errors(np.column_stack([feature.column for feature in remaining]), good)
        z_values = coefficients[1:] / errors[1:]
        weakest = int(np.argmin(z_values))  # a wrong sign is below every right sign
        if len(remaining) == 1 or (z_values[weakest] >= critical_value and len(remaining) <= most):
            break
        remaining.pop(weakest)
    if coefficients[1] <= 0:
        raise NoInformativeFeatureError(f"{remaining[0].name}, the last feature left, has a coefficient of the wrong sign")
    base = round(OFFSET + FACTOR * coefficients[0])
    chosen = zip(remaining, coefficients[1:].tolist(), strict=True)
    return Scorecard(
        base, tuple(_make_characteristic(feature, slope) for feature, slope in sorted(chosen, key=lambda pair: -pair[0].information_value))
    )


def _bin_feature(
    column: NDArray[np.float32], target: NDArray[np.int64], name: str, direction: int, codes: tuple[float, ...], binning: Binning
) -> _BinnedFeature:
    """Return one feature in bins."""
    is_plain = ~np.isnan(column) & ~np.isin(column, codes)
    min_rows, find_cuts = math.ceil(MIN_BIN_SHARE * len(column)), find_optimal_cuts if binning == "optimal" else find_pooled_cuts
    values, labels = column[is_plain].astype(np.float64), target[is_plain]
    cuts: tuple[float, ...] = ()
    if len(values) >= 2 * min_rows and values.min() < values.max() and labels.min() < labels.max():
        cuts = move_between_floats(find_cuts(values, labels, direction, min_rows))
    bin_number = bin_positions(column, cuts, codes)
    n_bins = len(cuts) + len(codes) + 2
    n, bad, woe = weight_of_evidence(
        np.bincount(bin_number, minlength=n_bins).astype(float), np.bincount(bin_number, target, minlength=n_bins).astype(float)
    )
    return _BinnedFeature(name, cuts, codes, n, bad, woe, information_value(n, bad, woe), woe[bin_number])


def _drop_correlated(ranked: Sequence[_BinnedFeature], n_bad: int) -> list[_BinnedFeature]:
    """Return the features that do not correlate with an earlier one, as many as the bads allow."""
    chosen: list[_BinnedFeature] = []
    max_features = min(MAX_REGRESSION_FEATURES, max(1, n_bad // BADS_PER_FEATURE))
    for feature in ranked:
        if len(chosen) < max_features and all(abs(np.corrcoef(feature.column, other.column)[0, 1]) <= MAX_CORRELATION for other in chosen):
            chosen.append(feature)
    return chosen


def _critical_value(alpha: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - alpha / 2)


def _fit_logistic_with_errors(columns: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Return intercept and coefficients by Newton's method, and their standard errors; the ridge only bounds a separable sample."""
    design = np.column_stack([np.ones(len(columns)), columns])
    penalty = np.full(design.shape[1], _RIDGE)
    rate = target.mean()
    penalty[0], beta = 0.0, np.zeros(design.shape[1])
    beta[0] = math.log(rate / (1 - rate))
    for _ in range(50):
        probability = 1.0 / (1.0 + np.exp(-(design @ beta)))
        information = (design.T * (probability * (1 - probability))) @ design + np.diag(penalty)
        step = np.linalg.solve(information, design.T @ (target - probability) - penalty * beta)
        beta = beta + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))


def _make_characteristic(feature: _BinnedFeature, slope: float) -> Characteristic:
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = (feature.bad / feature.n).tolist()
    return Characteristic(
        name=feature.name,
        cuts=feature.cuts,
        codes=feature.codes,
        coefficient=slope,
        information_value=feature.information_value,
        points=tuple(round(FACTOR * slope * woe) for woe in feature.woe.tolist()),
        woe=tuple(feature.woe.tolist()),
        shares=tuple((feature.n / feature.n.sum()).tolist()),
        event_rates=tuple(rate if rate == rate else None for rate in rates),
    )


class ScorecardClassifier:
    """A scorecard with the interface of scikit-learn's estimators, as far as candidates need it.

    Parameters
    ----------
    names, monotone, codes, binning, most, alpha
        As of `fit`.

    Attributes
    ----------
    card_
        The fitted `Scorecard`.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        monotone: Sequence[int] = (),
        codes: Mapping[str, Sequence[float]] | None = None,
        binning: Binning = "optimal",
        most: int = 15,
        alpha: float = 0.05,
    ) -> None:
        self.names, self.monotone, self.codes = names, monotone, codes
        self.binning, self.most, self.alpha = binning, most, alpha

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name."""
        return {name: getattr(self, name) for name in ("names", "monotone", "codes", "binning", "most", "alpha")}

    def set_params(self, **params: Any) -> "ScorecardClassifier":
        """Set parameters by name."""
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(self, rows: Rows, labels: ArrayLike) -> "ScorecardClassifier":
        """Fit the card; where no feature is predictive, the card has base points only."""
        options = {name: value for name, value in self.get_params().items() if name not in ("names", "monotone")}
        try:
            self.card_ = fit(rows, labels, self.names, self.monotone, **options)
        except NoInformativeFeatureError:
            rate = float(np.asarray(labels, np.float64).mean())
            self.card_ = Scorecard(round(OFFSET + FACTOR * math.log((1 - rate) / rate)), ())
        self.classes_ = np.array([0, 1])
        return self

    def decision_function(self, rows: Rows) -> Floats:
        """Return log-odds of default, shape (n,)."""
        return self.card_.margin(rows, self.names)

    def predict_proba(self, rows: Rows) -> Floats:
        """Return the probability of good and of bad, shape (n, 2)."""
        bad = 1.0 / (1.0 + np.exp(-self.decision_function(rows)))
        return np.column_stack([1.0 - bad, bad])
