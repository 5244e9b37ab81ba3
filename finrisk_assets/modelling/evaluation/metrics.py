"""How good a score or a probability is, each figure with its interval: arrays in, numbers out.

Discrimination (AUC, Gini, KS, average precision), calibration (Brier, slope, intercept, expected calibration error, Jeffreys
test) and the bootstrap. Nothing is fitted to be kept, nothing is drawn as a picture (`plots`) and nothing ranks alerts
(`fraud_metrics`).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Comparison:
    """The difference of two AUCs on the same rows: its interval, and the two-sided p-value that there is none."""

    difference: Interval
    p_value: float


@dataclass(frozen=True)
class Grade:
    """One rating grade: how many were expected to default, how many did, and what the Jeffreys test says.

    Attributes
    ----------
    grade, n, defaults
        Its name, its rows and its defaults.
    mean_pd
        What the model says.
    low, high
        95 % credible interval of the grade's true rate.
    p_value
        Posterior probability that the true rate is *not above* `mean_pd`; small means that the model says too little.
    """

    grade: str
    n: int
    defaults: int
    mean_pd: float
    low: float
    high: float
    p_value: float


# Discrimination ----------------------------------------------------------------------------------------------------------------


def auc(labels: ArrayLike, scores: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the area under the ROC curve with its DeLong interval.

    Parameters
    ----------
    labels : array-like of bool or 0/1, shape (n,)
    scores : array-like, shape (n,)
        Higher means more likely; any scale.
    level
        Of the interval, which is normal and kept within [0, 1].

    Raises
    ------
    ValueError
        For scores that are not finite, or labels of one kind only.

    Notes
    -----
    DeLong, DeLong & Clarke-Pearson (Biometrics 1988) by midranks, O(n log n): Sun & Xu (IEEE Signal Processing Letters 2014).
    """
    values, covariance = _delong(labels, scores)
    half = _normal(level) * float(np.sqrt(covariance[0, 0]))
    value = float(values[0])
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def compare_auc(labels: ArrayLike, first: ArrayLike, second: ArrayLike, level: float = LEVEL) -> Comparison:
    """Return the AUC of `first` less that of `second` on the same rows, by DeLong's paired test; see `auc`."""
    from scipy.stats import norm

    values, covariance = _delong(labels, first, second)
    difference = float(values[0] - values[1])
    deviation = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    half = _normal(level) * deviation
    p_value = float(2 * norm.sf(abs(difference) / deviation)) if deviation > 0 else float(difference == 0)
    return Comparison(Interval(difference, difference - half, difference + half), p_value)


def gini(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return 2 AUC - 1, the accuracy ratio."""
    return 2 * auc(labels, scores).value - 1


def ks(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the largest distance between the score distributions of the two outcomes (Kolmogorov-Smirnov)."""
    caught, taken, bad = _ranked(labels, scores)
    return float(np.abs(caught / bad - (taken - caught) / (taken[-1] - bad)).max())


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean of the precision over the recall, without interpolation."""
    caught, taken, bad = _ranked(labels, scores)
    return float(np.sum(np.diff(caught, prepend=0) * (caught / taken)) / bad)


def _ranked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Of each distinct score, the highest first: outcomes among the rows with at least that score, these rows; and all outcomes."""
    target, score = _checked(labels, scores)
    order = np.argsort(-score)
    falling = score[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)
    caught = np.cumsum(target[order], dtype=np.int64)[last]
    return caught, last + 1, int(caught[-1])


def _delong(labels: ArrayLike, *scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return the AUCs of k scores, shape (k,), and their covariance, shape (k, k)."""
    from scipy.stats import rankdata

    ill, well = [], []
    for one in scores:
        target, score = _checked(labels, one)
        positive, negative = score[target], score[~target]
        n_positive, n_negative = len(positive), len(negative)
        ranks = rankdata(np.concatenate([positive, negative]))
        # How often each row is ranked rightly against all rows of the other outcome; a tie counts a half.
        ill.append((ranks[:n_positive] - rankdata(positive)) / n_negative)
        well.append(1 - (ranks[n_positive:] - rankdata(negative)) / n_positive)
    values = np.mean(ill, axis=1)
    covariance = np.zeros((len(scores), len(scores)))
    for placements in (ill, well):
        if len(placements[0]) > 1:
            covariance += np.atleast_2d(np.cov(placements)) / len(placements[0])
    return values, covariance


# Calibration -------------------------------------------------------------------------------------------------------------------


def brier(labels: ArrayLike, probability: ArrayLike) -> float:
    """Return the mean squared distance of the probability from the outcome (Brier 1950)."""
    target, p = _probabilities(labels, probability)
    return float(np.mean((p - target) ** 2))


def log_loss(labels: ArrayLike, probability: ArrayLike) -> float:
    """Return the mean negative log-likelihood of the outcomes; probabilities are kept 1e-15 from 0 and 1."""
    target, p = _probabilities(labels, probability)
    p = np.clip(p, 1e-15, 1 - 1e-15)
    return float(-np.mean(np.where(target, np.log(p), np.log1p(-p))))


def calibration_line(labels: ArrayLike, probability: ArrayLike) -> tuple[float, float]:
    """Return Cox's calibration slope and intercept: logit P(outcome) = intercept + slope * logit(probability).

    A slope below 1 says that the probabilities are too extreme, an intercept above 0 (at slope 1) that they are too low
    (Cox, Biometrika 1958; Van Calster et al., BMC Medicine 2019). Fitted by Newton's method.

    Raises
    ------
    ValueError
        Where no line can be fitted, because all probabilities are the same or separate the outcomes perfectly.
    """
    target, p = _probabilities(labels, probability)
    p = np.clip(p, 1e-9, 1 - 1e-9)
    design = np.column_stack([np.log(p / (1 - p)), np.ones_like(p)])
    if np.ptp(design[:, 0]) < 1e-9:
        raise ValueError("all probabilities are the same: there is no slope to fit")
    line = np.array([1.0, 0.0])
    for _ in range(100):
        expected = np.exp(-np.logaddexp(0.0, -design @ line))
        weight = np.maximum(expected * (1 - expected), 1e-12)
        step = np.linalg.solve(design.T @ (design * weight[:, None]), design.T @ (target - expected))
        largest = float(np.abs(step).max())
        line = line + step * min(1.0, 4.0 / max(largest, 1e-12))
        if largest < 1e-9:
            return float(line[0]), float(line[1])
    raise ValueError("the probabilities separate the outcomes perfectly: the calibration slope has no bound")


def calibration_bins(labels: ArrayLike, probability: ArrayLike, bins: int = 10) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return mean probability, share of outcomes and rows of `bins` groups of equal size, in order of the probability."""
    target, p = _probabilities(labels, probability)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return (
        np.array([p[part].mean() for part in parts]),
        np.array([target[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def expected_calibration_error(labels: ArrayLike, probability: ArrayLike, bins: int = 10) -> float:
    """Return the mean distance between probability and share of outcomes over groups of equal size (Naeini et al., AAAI 2015)."""
    said, seen, n = calibration_bins(labels, probability, bins)
    return float(np.average(np.abs(said - seen), weights=n))


def jeffreys(labels: ArrayLike, probability: ArrayLike, grades: Sequence[str] | NDArray[np.str_]) -> list[Grade]:
    """Test each grade's mean probability against its defaults, in the order of the mean probability.

    With D defaults among N the posterior of the true rate under Jeffreys' prior is Beta(D + 1/2, N - D + 1/2)
    (European Central Bank, *Instructions for reporting the validation results of internal models*, 2019, section 2.5.3.1).
    """
    from scipy.stats import beta

    target, p = _probabilities(labels, probability)
    names = np.asarray(grades).astype(str)
    found = []
    for name in np.unique(names):
        inside = names == name
        n, defaults, mean = int(inside.sum()), int(target[inside].sum()), float(p[inside].mean())
        posterior = beta(defaults + 0.5, n - defaults + 0.5)
        low, high = (float(posterior.ppf(q)) for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        found.append(Grade(str(name), n, defaults, mean, low, high, float(posterior.cdf(mean))))
    return sorted(found, key=lambda grade: grade.mean_pd)


# Intervals ---------------------------------------------------------------------------------------------------------------------


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    labels: ArrayLike | None = None,
    draws: int = 500,
    seed: int,
    level: float = LEVEL,
) -> Interval:
    """Return a statistic with its percentile bootstrap interval (Efron & Tibshirani 1993).

    Parameters
    ----------
    statistic
        Takes the arrays, returns a number.
    arrays : array-like, each of shape (n, ...)
        Rows are drawn together, with replacement.
    labels : array-like of shape (n,), optional
        Given, rows are drawn within each label, so that every draw holds all of them.
    draws, seed, level
        Number of draws, their seed, and the interval's level. A draw for which the statistic is not defined is passed over.

    Raises
    ------
    ValueError
        Where the statistic is not defined for the arrays themselves, or for more than half of the draws.
    """
    found = _bootstrap(lambda *held: {"": statistic(*held)}, arrays, labels, draws, seed, level)
    if not found:
        raise ValueError(f"the statistic is defined for less than half of {draws} draws: the rows are too few for an interval")
    return found[""]


def _bootstrap(
    statistics: Callable[..., Mapping[str, float]],
    arrays: Sequence[ArrayLike],
    labels: ArrayLike | None,
    draws: int,
    seed: int,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """The interval of each of several statistics of the same draws, by name; none of one that less than half of them define."""
    rng = np.random.default_rng(seed)
    held = [np.asarray(array) for array in arrays]
    n = len(held[0])
    strata = [np.arange(n)] if labels is None else [np.flatnonzero(np.asarray(labels) == one) for one in np.unique(labels)]
    values: dict[str, list[float]] = {}
    for _ in range(draws):
        rows = np.concatenate([stratum[rng.integers(0, len(stratum), len(stratum))] for stratum in strata])
        with suppress(ValueError):
            for name, value in statistics(*(array[rows] for array in held)).items():
                values.setdefault(name, []).append(value)
    tail = (1 - level) / 2
    found = {}
    for name, value in statistics(*held).items():
        drawn = values.get(name, [])
        if 2 * len(drawn) >= draws:
            low, high = np.quantile(drawn, [tail, 1 - tail])
            found[name] = Interval(float(value), float(low), float(high))
    return found


def clustered_mean(values: ArrayLike, people: ArrayLike, level: float = LEVEL) -> Interval:
    """Return a mean with its normal interval, in which the rows of one person count as one draw (Liang & Zeger, *Biometrika* 1986).

    Parameters
    ----------
    values : array-like, shape (n,)
    people : array-like, shape (n,)
        Who each row is of.
    """
    held = np.asarray(values, np.float64)
    mean = float(held.mean())
    half = _normal(level) * clustered_variance(held, people) ** 0.5
    return Interval(mean, mean - half, mean + half)


def clustered_variance(values: ArrayLike, people: ArrayLike) -> float:
    """Return the variance of a mean whose rows are independent between people, not within."""
    held = np.asarray(values, np.float64)
    person = np.unique(np.asarray(people).astype(str), return_inverse=True)[1]
    sums = np.bincount(person, held - held.mean())
    return float((sums**2).sum()) * len(sums) / max(len(sums) - 1, 1) / len(held) ** 2


def summary(labels: ArrayLike, probability: ArrayLike, *, draws: int = 200, seed: int) -> dict[str, Interval]:
    """Return the figures of a probability on one window: AUC by DeLong, all others by the bootstrap within each outcome.

    A figure that the window does not define is left out: few rows that are separated perfectly have no calibration line.
    """
    target, p = _probabilities(labels, probability)
    found = {"auc": auc(target, p)}
    found["gini"] = Interval(*(2 * bound - 1 for bound in (found["auc"].value, found["auc"].low, found["auc"].high)))
    return found | _bootstrap(_figures, (target, p), target, draws, seed)


def _figures(target: NDArray[np.bool_], p: Floats) -> dict[str, float]:
    found = {
        "average_precision": average_precision(target, p),
        "ks": ks(target, p),
        "brier": brier(target, p),
        "log_loss": log_loss(target, p),
        "expected_calibration_error": expected_calibration_error(target, p),
    }
    with suppress(ValueError):
        found["calibration_slope"], found["calibration_intercept"] = calibration_line(target, p)
    return found


def _normal(level: float) -> float:
    from scipy.stats import norm

    if not 0 < level < 1:
        raise ValueError(f"an interval's level lies between 0 and 1, not at {level}")
    return float(norm.ppf(0.5 + level / 2))


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    target, score = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    if target.shape != score.shape or target.ndim != 1:
        raise ValueError(f"labels have the shape {target.shape}, scores {score.shape}: one score per label is needed")
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).sum())} scores are not finite: they cannot be ranked")
    if not 0 < target.sum() < len(target):
        raise ValueError(f"{int(target.sum())} of {len(target)} rows have the outcome: this needs rows with and without it")
    return target, score


def _probabilities(labels: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    target, p = np.asarray(labels).astype(bool), np.asarray(probability, dtype=np.float64)
    if target.shape != p.shape or target.ndim != 1 or not len(p):
        raise ValueError(f"labels have the shape {target.shape}, probabilities {p.shape}: one of each per row is needed")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"{int((~((p >= 0) & (p <= 1))).sum())} probabilities lie outside 0 to 1")
    return target, p
