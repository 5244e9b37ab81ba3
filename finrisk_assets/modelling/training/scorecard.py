"""The points-based scorecard: monotone bins, their weight of evidence, a logistic regression on it, and whole points per bin.

Here a card is fitted, scores rows, and is written as a table, as SQL, as JSON and as a component of a bundle. A card is its points:
all forms give the same number, rounding included. Using one needs numpy alone. Calibration, comparison and promotion are those of every
other candidate and live elsewhere.

Sources: Siddiqi, *Credit Risk Scorecards* (2006), chapter 6; Anderson, *The Credit Scoring Toolkit* (2007), part E.
"""

import json
import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.training.binning import (
    SMALLEST_BIN,
    Binning,
    Floats,
    bin_positions,
    cuts_between_floats,
    information_of,
    next_floats_above,
    optimal_cuts,
    pooled_cuts,
    weight_of_evidence,
)
from finrisk_assets.scoring.spec import Rows

POINTS = 600
ODDS = 50
PDO = 20
"""`POINTS` stand for `ODDS` good to one bad; every `PDO` points more double the odds."""

FACTOR = PDO / math.log(2)
OFFSET = POINTS - FACTOR * math.log(ODDS)
"""points = OFFSET + FACTOR * ln(odds of good to bad)."""

LEAST_VALUE = 0.02
"""Information value below which a feature tells nothing (Siddiqi 2006, p. 81)."""

SAME = 0.8
"""Of two features whose weights of evidence correlate by more, only the one with the higher information value is tried."""

MOST_TRIED, EVENTS_EACH = 30, 5
"""Features that the regression begins with, at most, and the bads it needs for each: with fewer it fits noise (Peduzzi et al. 1996)."""

_FORMAT = 1
_RIDGE = 1e-3
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Characteristic:
    """One feature on the card. Its bins are the intervals between the cuts, then one per code, then the one of missing values.

    Attributes
    ----------
    name
        Of the feature.
    cuts
        Ascending. A value belongs right of a cut that it reaches. Cuts lie between two neighbouring 32-bit floats, so that a value
        falls in the same bin before and after it is rounded to one.
    codes
        Values that stand for a circumstance and not for a quantity.
    coefficient, information_value
        Of the weight of evidence in the regression, above 0; and of the feature by itself.
    points, woe, shares, event_rates
        One per bin: points, weight of evidence ln(share of goods / share of bads), share of the training rows and observed rate among
        them (None where there were none).
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

    def bins(self) -> list[str]:
        """Each bin in words."""
        cuts = [f"{cut:g}" for cut in next_floats_above(np.array(self.cuts)).tolist()]
        if not cuts:
            return ["any value", *(f"code {code:g}" for code in self.codes), "missing"]
        between = [f"{low} to below {high}" for low, high in pairwise(cuts)]
        return [f"below {cuts[0]}", *between, f"{cuts[-1]} or more", *(f"code {code:g}" for code in self.codes), "missing"]


class NothingTellsError(ValueError):
    """No feature tells the bad from the good: there is nothing to put on a card."""


class Line(NamedTuple):
    """One line of the card's table; see `Characteristic`."""

    feature: str
    bin: str
    woe: float
    points: int
    share: float
    event_rate: float | None


@dataclass(frozen=True)
class Scorecard:
    """Points for every applicant: those of the base and of one bin per characteristic.

    The more points, the safer: points = OFFSET + FACTOR * ln(odds of good to bad).
    """

    base_points: int
    characteristics: tuple[Characteristic, ...]

    @cached_property
    def _lookup(self) -> list[tuple[str, tuple[float, ...], tuple[int, ...], dict[float, int]]]:
        return [
            (one.name, one.cuts, one.points, dict(zip(one.codes, one.points[len(one.cuts) + 1 :], strict=False)))
            for one in self.characteristics
        ]

    def points(self, row: Mapping[str, float | None]) -> int:
        """Points of one applicant, from values by name; a value that is None, NaN or not there is missing."""
        total = self.base_points
        for name, cuts, points, codes in self._lookup:
            value = row.get(name)
            if value is None or value != value:
                total += points[-1]
            elif value in codes:
                total += codes[value]
            else:
                total += points[bisect_right(cuts, value)]
        return total

    def probability(self, row: Mapping[str, float | None]) -> float:
        """Probability of default of one applicant, as the points say it."""
        return 1.0 / (1.0 + math.exp((self.points(row) - OFFSET) / FACTOR))

    def margin(self, rows: Rows, names: Sequence[str]) -> Floats:
        """Log-odds of default, shape (n,), of float32 rows whose columns have these names; NaN is missing."""
        total = np.full(len(rows), float(self.base_points))
        column = {name: at for at, name in enumerate(names)}
        for one in self.characteristics:
            total += np.array(one.points)[bin_positions(rows[:, column[one.name]], one.cuts, one.codes)]
        return (OFFSET - total) / FACTOR

    def table(self) -> list[Line]:
        """Return the card as people read it, one line per bin; to every sum come the base points."""
        return [
            Line(one.name, *line)
            for one in self.characteristics
            for line in zip(one.bins(), one.woe, one.points, one.shares, one.event_rates, strict=True)
        ]

    def to_markdown(self) -> str:
        """The card as a page: one table with a line per bin, the characteristic that tells most first."""
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
        for line in self.table():
            rate = "–" if line.event_rate is None else f"{line.event_rate:.1%}"
            lines.append(f"| {line.feature} | {line.bin} | {line.points} | {line.woe:+.3f} | {line.share:.1%} | {rate} |")
        return "\n".join(lines) + "\n"

    def sql(self, table: str, key: str) -> str:
        """Return a query that any engine runs: the key, ``points`` and ``probability`` of every row of the table.

        A missing value must be null in the table, not NaN.

        Raises
        ------
        ValueError
            For a name that SQL would need quotes for.
        """
        for name in (table, key, *(one.name for one in self.characteristics)):
            if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name):
                raise ValueError(f"{name!r}: names in the scorecard's SQL are letters, digits and underscores")
        terms = "\n".join(f"    + {_case(one)}" for one in self.characteristics)
        odds = f"exp((points - {OFFSET!r}) / {FACTOR!r})"
        return (
            f"select {key}, points, 1.0 / (1.0 + {odds}) as probability\n"
            f"from (\n  select {key},\n    {self.base_points}\n{terms}\n    as points\n  from {table}\n) as card\n"
        )

    def to_json(self) -> str:
        """The card as text that `from_json` reads; the same card gives the same text."""
        head = {"format": _FORMAT, "kind": "scorecard", "scale": {"points": POINTS, "odds": ODDS, "pdo": PDO}}
        return json.dumps(head | asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Scorecard":
        """Read a card.

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
        listed: list[dict[str, Any]] = [
            {name: tuple(one[name]) if isinstance(one[name], list) else one[name] for name in names} for one in document["characteristics"]
        ]
        return cls(int(document["base_points"]), tuple(Characteristic(**one) for one in listed))


def files(card: Scorecard, table: str, key: str) -> dict[str, bytes]:
    """The card in every form that people and engines read, by file name: a page, a table, a query over a feature table, and itself.

    Parameters
    ----------
    table, key
        As of `Scorecard.sql`.
    """
    import csv
    import io

    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(Line._fields)
    writer.writerows(card.table())
    made = {"md": card.to_markdown(), "csv": lines.getvalue(), "sql": card.sql(table, key), "json": card.to_json()}
    return {f"scorecard.{kind}": text.encode() for kind, text in made.items()}


# Fitting -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tried:
    """A feature in bins; ``column`` is the weight of evidence of every row."""

    name: str
    cuts: tuple[float, ...]
    codes: tuple[float, ...]
    n: Floats
    bad: Floats
    woe: Floats
    information: float
    column: Floats


def _case(one: Characteristic) -> str:
    intervals = len(one.cuts) + 1
    codes = zip(one.codes, one.points[intervals:-1], strict=True)
    whens = [f"when {one.name} is null then {one.points[-1]}"]
    whens += [f"when {one.name} = {code!r} then {points}" for code, points in codes]
    whens += [f"when {one.name} < {cut!r} then {points}" for cut, points in zip(one.cuts, one.points, strict=False)]
    return "case " + "\n      ".join([*whens, f"else {one.points[intervals - 1]} end"])


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

    Features are taken by information value, leaving out what another tells already. Then the regression on their weights of evidence
    loses one at a time: first those with a sign against their own evidence, then the least certain, until every one is significant
    and at most ``most`` remain.

    Parameters
    ----------
    rows, labels
        float32 of shape (n, d), NaN where missing; 0/1 of shape (n,), 1 is bad.
    names, monotone
        Of the columns; direction of the bad rate as in `Feature.monotone`.
    codes
        Special values per feature, each a bin of its own.
    binning
        How features are cut.
    most, alpha
        Characteristics on the card, at most, and level of the Wald test.

    Raises
    ------
    ValueError
        Where labels are of one class only.
    NothingTellsError
        Where no feature tells anything.
    """
    target = np.asarray(labels).astype(np.int64)
    if rows.shape != (len(target), len(names)) or len(monotone) != len(names):
        raise ValueError(f"rows have shape {rows.shape} for {len(target)} labels, {len(names)} names and {len(monotone)} directions")
    if target.min() == target.max():
        raise ValueError("all labels are the same: a scorecard needs goods and bads")
    special = codes or {}
    found = [
        _binned(rows[:, at], target, name, monotone[at], tuple(float(code) for code in special.get(name, ())), binning)
        for at, name in enumerate(names)
    ]
    tried = _distinct(sorted((one for one in found if one.information >= LEAST_VALUE), key=lambda one: -one.information), int(target.sum()))
    if not tried:
        raise NothingTellsError(f"no feature has an information value of {LEAST_VALUE}: there is nothing to put on a scorecard")
    good: Floats = (1 - target).astype(np.float64)
    critical = _critical(alpha)
    while True:
        coefficients, errors = _logistic(np.column_stack([one.column for one in tried]), good)
        certainty = coefficients[1:] / errors[1:]
        worst = int(np.argmin(certainty))  # a wrong sign is below every right one
        if len(tried) == 1 or (certainty[worst] >= critical and len(tried) <= most):
            break
        tried.pop(worst)
    if coefficients[1] <= 0:
        raise NothingTellsError(f"{tried[0].name}, the last feature left, has a coefficient of the wrong sign")
    base = round(OFFSET + FACTOR * coefficients[0])
    chosen = zip(tried, coefficients[1:].tolist(), strict=True)
    return Scorecard(base, tuple(_characteristic(one, slope) for one, slope in sorted(chosen, key=lambda pair: -pair[0].information)))


def _binned(
    column: NDArray[np.float32], target: NDArray[np.int64], name: str, direction: int, codes: tuple[float, ...], binning: Binning
) -> _Tried:
    plain = ~np.isnan(column) & ~np.isin(column, codes)
    smallest, cut = math.ceil(SMALLEST_BIN * len(column)), optimal_cuts if binning == "optimal" else pooled_cuts
    values, labels = column[plain].astype(np.float64), target[plain]
    places: tuple[float, ...] = ()
    if len(values) >= 2 * smallest and values.min() < values.max() and labels.min() < labels.max():
        places = cuts_between_floats(cut(values, labels, direction, smallest))
    place = bin_positions(column, places, codes)
    width = len(places) + len(codes) + 2
    n, bad, woe = weight_of_evidence(
        np.bincount(place, minlength=width).astype(float), np.bincount(place, target, minlength=width).astype(float)
    )
    return _Tried(name, places, codes, n, bad, woe, information_of(n, bad, woe), woe[place])


def _distinct(ranked: Sequence[_Tried], n_bad: int) -> list[_Tried]:
    kept: list[_Tried] = []
    room = min(MOST_TRIED, max(1, n_bad // EVENTS_EACH))
    for one in ranked:
        if len(kept) < room and all(abs(np.corrcoef(one.column, other.column)[0, 1]) <= SAME for other in kept):
            kept.append(one)
    return kept


def _critical(alpha: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - alpha / 2)


def _logistic(columns: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Intercept and coefficients by Newton's method, and their standard errors; the ridge only keeps a separable sample finite."""
    design = np.column_stack([np.ones(len(columns)), columns])
    penalty = np.full(design.shape[1], _RIDGE)
    rate = target.mean()
    penalty[0], beta = 0.0, np.zeros(design.shape[1])
    beta[0] = math.log(rate / (1 - rate))
    for _ in range(50):
        said = 1.0 / (1.0 + np.exp(-(design @ beta)))
        information = (design.T * (said * (1 - said))) @ design + np.diag(penalty)
        step = np.linalg.solve(information, design.T @ (target - said) - penalty * beta)
        beta = beta + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))


def _characteristic(one: _Tried, slope: float) -> Characteristic:
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = (one.bad / one.n).tolist()
    return Characteristic(
        name=one.name,
        cuts=one.cuts,
        codes=one.codes,
        coefficient=slope,
        information_value=one.information,
        points=tuple(round(FACTOR * slope * woe) for woe in one.woe.tolist()),
        woe=tuple(one.woe.tolist()),
        shares=tuple((one.n / one.n.sum()).tolist()),
        event_rates=tuple(rate if rate == rate else None for rate in rates),
    )


class ScorecardClassifier:
    """A scorecard as a candidate: what scikit-learn's estimators offer, as far as candidates are asked for it.

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
        """The parameters by name."""
        return {name: getattr(self, name) for name in ("names", "monotone", "codes", "binning", "most", "alpha")}

    def set_params(self, **params: Any) -> "ScorecardClassifier":
        """Set parameters by name."""
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def fit(self, rows: Rows, labels: ArrayLike) -> "ScorecardClassifier":
        """Fit the card; where nothing tells anything, all have the base points."""
        kept = {name: value for name, value in self.get_params().items() if name not in ("names", "monotone")}
        try:
            self.card_ = fit(rows, labels, self.names, self.monotone, **kept)
        except NothingTellsError:
            rate = float(np.asarray(labels, np.float64).mean())
            self.card_ = Scorecard(round(OFFSET + FACTOR * math.log((1 - rate) / rate)), ())
        self.classes_ = np.array([0, 1])
        return self

    def decision_function(self, rows: Rows) -> Floats:
        """Log-odds of default, shape (n,)."""
        return self.card_.margin(rows, self.names)

    def predict_proba(self, rows: Rows) -> Floats:
        """Probability of good and of bad, shape (n, 2)."""
        bad = 1.0 / (1.0 + np.exp(-self.decision_function(rows)))
        return np.column_stack([1.0 - bad, bad])
