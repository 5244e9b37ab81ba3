"""Metrics of a score or a probability, each with its interval: arrays in, numbers out.

Discrimination (AUC, Gini, KS, average precision), calibration (Brier, slope, intercept, expected calibration error, Jeffreys test) and
intervals (bootstrap, clustered means, Wilson). Plots are in `plots`, the ranking of alerts in `fraud_metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
CONFIDENCE_LEVEL = 0.95
"""Confidence level of intervals, unless a caller gives another."""


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
    """The difference of two AUCs on the same rows, and the two-sided p-value of no difference."""

    difference: Interval
    p_value: float


@dataclass(frozen=True)
class Grade:
    """A rating grade: its expected and observed defaults, and the result of the Jeffreys test.

    Attributes
    ----------
    grade, n, defaults
        Name of the grade, number of its rows and of its defaults.
    mean_pd
        Mean probability that the model gives its rows.
    low, high
        95 % credible interval of the grade's true rate.
    p_value
        Posterior probability that the true rate is *not above* `mean_pd`; a small value means that the model underestimates.
    """

    grade: str
    n: int
    defaults: int
    mean_pd: float
    low: float
    high: float
    p_value: float


# Discrimination ----------------------------------------------------------------------------------------------------------------


def auc(labels: ArrayLike, scores: ArrayLike, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Return the area under the ROC curve with its DeLong interval.

    Parameters
    ----------
    labels : array-like of bool or 0/1, shape (n,)
    scores : array-like, shape (n,)
        Higher means more likely; any scale.
    level
        Level of the interval, which is normal and clipped to [0, 1].

    Raises
    ------
    ValueError
        For scores that are not finite, or labels of one kind only.

    Notes
    -----
    DeLong, DeLong & Clarke-Pearson (Biometrics 1988) by midranks, O(n log n): Sun & Xu (IEEE Signal Processing Letters 2014).
    """
    values, covariance = _delong(labels, scores)
    half = _normal_quantile(level) * float(np.sqrt(covariance[0, 0]))
    value = float(values[0])
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def compare_auc(labels: ArrayLike, first: ArrayLike, second: ArrayLike, level: float = CONFIDENCE_LEVEL) -> Comparison:
    """Return the AUC of `first` less that of `second` on the same rows, by DeLong's paired test; see `auc`."""
    from scipy.stats import norm

    values, covariance = _delong(labels, first, second)
    difference = float(values[0] - values[1])
    deviation = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)))
    half = _normal_quantile(level) * deviation
    p_value = float(2 * norm.sf(abs(difference) / deviation)) if deviation > 0 else float(difference == 0)
    return Comparison(Interval(difference, difference - half, difference + half), p_value)


def gini(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return 2 AUC - 1, the accuracy ratio."""
    return 2 * auc(labels, scores).value - 1


def ks(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the largest distance between the score distributions of the two outcomes (Kolmogorov-Smirnov)."""
    n_caught, n_taken, n_bad = cumulative_counts(labels, scores)
    return float(np.abs(n_caught / n_bad - (n_taken - n_caught) / (n_taken[-1] - n_bad)).max())


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the mean of the precision over the recall, without interpolation."""
    n_caught, n_taken, n_bad = cumulative_counts(labels, scores)
    return float(np.sum(np.diff(n_caught, prepend=0) * (n_caught / n_taken)) / n_bad)


def cumulative_counts(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return, for each distinct score from the highest, the outcomes and the rows with at least that score; and all outcomes."""
    target, score = _check_scores(labels, scores)
    order = np.argsort(-score)
    sorted_scores = score[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(sorted_scores)), len(sorted_scores) - 1)
    n_caught = np.cumsum(target[order], dtype=np.int64)[last_of_tie]
    return n_caught, last_of_tie + 1, int(n_caught[-1])


def _delong(labels: ArrayLike, *scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return the AUCs of k scores, shape (k,), and their covariance, shape (k, k)."""
    from scipy.stats import rankdata

    positive_placements, negative_placements = [], []
    for raw_score in scores:
        target, score = _check_scores(labels, raw_score)
        positive, negative = score[target], score[~target]
        n_positive, n_negative = len(positive), len(negative)
        ranks = rankdata(np.concatenate([positive, negative]))
        # Share of the rows of the other outcome that each row is ranked rightly against; a tie counts a half.
        positive_placements.append((ranks[:n_positive] - rankdata(positive)) / n_negative)
        negative_placements.append(1 - (ranks[n_positive:] - rankdata(negative)) / n_positive)
    values = np.mean(positive_placements, axis=1)
    covariance = np.zeros((len(scores), len(scores)))
    for placements in (positive_placements, negative_placements):
        if len(placements[0]) > 1:
            covariance += np.atleast_2d(np.cov(placements)) / len(placements[0])
    return values, covariance


# Calibration -------------------------------------------------------------------------------------------------------------------


def brier(labels: ArrayLike, probability: ArrayLike) -> float:
    """Return the mean squared distance of the probability from the outcome (Brier 1950)."""
    target, p = _check_probabilities(labels, probability)
    return float(np.mean((p - target) ** 2))


def log_loss(labels: ArrayLike, probability: ArrayLike) -> float:
    """Return the mean negative log-likelihood of the outcomes; probabilities are clipped to 1e-15 from 0 and 1."""
    target, p = _check_probabilities(labels, probability)
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
    target, p = _check_probabilities(labels, probability)
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
    target, p = _check_probabilities(labels, probability)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return (
        np.array([p[part].mean() for part in parts]),
        np.array([target[part].mean() for part in parts]),
        np.array([len(part) for part in parts]),
    )


def expected_calibration_error(labels: ArrayLike, probability: ArrayLike, bins: int = 10) -> float:
    """Return the mean distance between probability and share of outcomes over groups of equal size (Naeini et al., AAAI 2015)."""
    predicted, observed, n = calibration_bins(labels, probability, bins)
    return float(np.average(np.abs(predicted - observed), weights=n))


def jeffreys_test(labels: ArrayLike, probability: ArrayLike, grades: Sequence[str] | NDArray[np.str_]) -> list[Grade]:
    """Test each grade's mean probability against its defaults, in the order of the mean probability.

    With D defaults among N the posterior of the true rate under Jeffreys' prior is Beta(D + 1/2, N - D + 1/2)
    (European Central Bank, *Instructions for reporting the validation results of internal models*, 2019, section 2.5.3.1).
    """
    from scipy.stats import beta

    target, p = _check_probabilities(labels, probability)
    names = np.asarray(grades).astype(str)
    tested = []
    for name in np.unique(names):
        in_grade = names == name
        n, defaults, mean = int(in_grade.sum()), int(target[in_grade].sum()), float(p[in_grade].mean())
        posterior = beta(defaults + 0.5, n - defaults + 0.5)
        low, high = (float(posterior.ppf(q)) for q in ((1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2))
        tested.append(Grade(str(name), n, defaults, mean, low, high, float(posterior.cdf(mean))))
    return sorted(tested, key=lambda grade: grade.mean_pd)


# Intervals ---------------------------------------------------------------------------------------------------------------------


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    labels: ArrayLike | None = None,
    draws: int = 500,
    seed: int,
    level: float = CONFIDENCE_LEVEL,
) -> Interval:
    """Return a statistic with its percentile bootstrap interval (Efron & Tibshirani 1993).

    Parameters
    ----------
    statistic
        Takes the arrays, returns a number.
    arrays : array-like, each of shape (n, ...)
        Rows are drawn together, with replacement.
    labels : array-like of shape (n,), optional
        With labels, rows are drawn within each label, so that every draw holds all of them.
    draws, seed, level
        Number of draws, their seed, and the interval's level. A draw for which the statistic is not defined is skipped.

    Raises
    ------
    ValueError
        Where the statistic is not defined for the arrays themselves, or for more than half of the draws.
    """
    intervals = _bootstrap_intervals(lambda *samples: {"": statistic(*samples)}, arrays, labels, draws, seed, level)
    if not intervals:
        raise ValueError(f"the statistic is defined for less than half of {draws} draws: the rows are too few for an interval")
    return intervals[""]


def _bootstrap_intervals(
    statistics: Callable[..., Mapping[str, float]],
    arrays: Sequence[ArrayLike],
    labels: ArrayLike | None,
    draws: int,
    seed: int,
    level: float = CONFIDENCE_LEVEL,
) -> dict[str, Interval]:
    """Return each statistic's interval over the same draws, by name; a statistic that most draws do not define is left out."""
    rng = np.random.default_rng(seed)
    columns = [np.asarray(array) for array in arrays]
    n = len(columns[0])
    strata = [np.arange(n)] if labels is None else [np.flatnonzero(np.asarray(labels) == label) for label in np.unique(labels)]
    values: dict[str, list[float]] = {}
    for _ in range(draws):
        rows = np.concatenate([stratum[rng.integers(0, len(stratum), len(stratum))] for stratum in strata])
        with suppress(ValueError):
            for name, value in statistics(*(array[rows] for array in columns)).items():
                values.setdefault(name, []).append(value)
    tail = (1 - level) / 2
    intervals = {}
    for name, value in statistics(*columns).items():
        drawn = values.get(name, [])
        if 2 * len(drawn) >= draws:
            low, high = np.quantile(drawn, [tail, 1 - tail])
            intervals[name] = Interval(float(value), float(low), float(high))
    return intervals


def clustered_mean(values: ArrayLike, people: ArrayLike, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Return a mean with its normal interval, in which the rows of one person count as one draw (Liang & Zeger, *Biometrika* 1986).

    Parameters
    ----------
    values : array-like, shape (n,)
    people : array-like, shape (n,)
        The person of each row.
    """
    numbers = np.asarray(values, np.float64)
    mean = float(numbers.mean())
    margin = _normal_quantile(level) * clustered_variance(numbers, people) ** 0.5
    return Interval(mean, mean - margin, mean + margin)


def clustered_variance(values: ArrayLike, people: ArrayLike) -> float:
    """Return the variance of a mean whose rows are independent between people, but not within."""
    numbers = np.asarray(values, np.float64)
    person = np.unique(np.asarray(people).astype(str), return_inverse=True)[1]
    sums = np.bincount(person, numbers - numbers.mean())
    return float((sums**2).sum()) * len(sums) / max(len(sums) - 1, 1) / len(numbers) ** 2


def wilson_interval(events: int, n: int, level: float = CONFIDENCE_LEVEL) -> Interval:
    """Return a share with Wilson's score interval (Wilson, JASA 1927)."""
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + level / 2))
    share = events / n
    centre, half = share + z * z / (2 * n), z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return Interval(share, (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n))


def compute_metrics(labels: ArrayLike, probability: ArrayLike, *, draws: int = 200, seed: int) -> dict[str, Interval]:
    """Return the metrics of a probability on one window: AUC by DeLong, all others by the bootstrap within each outcome.

    A metric that the window does not define is left out: few rows that are separated perfectly have no calibration line.
    """
    target, p = _check_probabilities(labels, probability)
    intervals = {"auc": auc(target, p)}
    intervals["gini"] = Interval(*(2 * bound - 1 for bound in (intervals["auc"].value, intervals["auc"].low, intervals["auc"].high)))
    return intervals | _bootstrap_intervals(_resampled_metrics, (target, p), target, draws, seed)


def _resampled_metrics(target: NDArray[np.bool_], p: Floats) -> dict[str, float]:
    values = {
        "average_precision": average_precision(target, p),
        "ks": ks(target, p),
        "brier": brier(target, p),
        "log_loss": log_loss(target, p),
        "expected_calibration_error": expected_calibration_error(target, p),
    }
    with suppress(ValueError):
        values["calibration_slope"], values["calibration_intercept"] = calibration_line(target, p)
    return values


def _normal_quantile(level: float) -> float:
    from scipy.stats import norm

    if not 0 < level < 1:
        raise ValueError(f"an interval's level lies between 0 and 1, not at {level}")
    return float(norm.ppf(0.5 + level / 2))


def _check_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    target, score = np.asarray(labels).astype(bool), np.asarray(scores, dtype=np.float64)
    if target.shape != score.shape or target.ndim != 1:
        raise ValueError(f"labels have the shape {target.shape}, scores {score.shape}: one score per label is needed")
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).sum())} scores are not finite: they cannot be ranked")
    if not 0 < target.sum() < len(target):
        raise ValueError(f"{int(target.sum())} of {len(target)} rows have the outcome: give rows with and without it")
    return target, score


def _check_probabilities(labels: ArrayLike, probability: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    target, p = np.asarray(labels).astype(bool), np.asarray(probability, dtype=np.float64)
    if target.shape != p.shape or target.ndim != 1 or not len(p):
        raise ValueError(f"labels have the shape {target.shape}, probabilities {p.shape}: one of each per row is needed")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"{int((~((p >= 0) & (p <= 1))).sum())} probabilities lie outside 0 to 1")
    return target, p
