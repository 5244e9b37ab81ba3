"""Cuts of one feature into bins, the weight of evidence of each bin, and that of each level of a category.

Choosing features and fitting the card belong to `scorecard`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.scoring.feature_values import LevelWeights
from schemas.features import Feature

PRIOR_ROWS = 10
"""Rows of the overall rate that are added to a bin when its rate is estimated, so that an empty bin weighs nothing (Cestnik 1990)."""

MIN_BIN_SHARE = 0.05
"""Share of the rows that a bin of values must hold; bins of codes and of missing values have no minimum."""
MIN_LEVEL_ROWS = 20
"""Training rows of a level of a category, below which it counts as rare: a smaller number gives small levels weights that chance made."""
N_CROSS_FITS = 5
"""Parts of the training rows, of which each is weighed by the outcomes of the others."""
_N_PREBINS = 20
_MERGE_CHI_SQUARE = 2.706
"""Chi-square of one degree of freedom at 10 %; bins that differ by less are merged."""

Floats = NDArray[np.float64]
Binning = Literal["optimal", "pooled"]
"""Method of cutting: `find_optimal_cuts` or `find_pooled_cuts`."""


def bin_positions(values: NDArray[np.floating[Any]], cuts: Sequence[float], codes: Sequence[float]) -> NDArray[np.intp]:
    """Return the number of each value's bin: the intervals between cuts, then one bin per code, then missing values."""
    value = np.asarray(values, np.float64)
    position = np.searchsorted(np.asarray(cuts, np.float64), value, side="right")
    for number, code in enumerate(codes):
        position[value == code] = len(cuts) + 1 + number
    position[np.isnan(value)] = len(cuts) + 1 + len(codes)
    return position


# Cutting -----------------------------------------------------------------------------------------------------------------------


def find_pooled_cuts(values: Floats, labels: NDArray[np.int64], direction: int, smallest: int) -> Floats:
    """Cut into bins of monotone event rate: quantiles, of which adjacent violators are pooled (Ayer et al. 1955).

    Then neighbours are merged, the most similar first, until every bin is large enough and differs from the next at 10 % by chi-square
    (Kerber 1992). Without a direction, the direction with the higher information value is taken.

    Parameters
    ----------
    values, labels
        Values without missing values and codes, and 0/1, shape (n,).
    direction
        1 or -1 where the rate of bads must rise or fall, 0 for either.
    smallest
        Rows that a bin must hold.

    Returns
    -------
    ndarray of float64
        Ascending values of the data, the first of each bin but the lowest. Empty where the feature cannot be cut.
    """
    shares = np.linspace(0, 1, _N_PREBINS + 1)[1:-1]
    distinct = np.unique(values)
    # Where most rows have the same value, all quantiles of the rows are that value: add those of the distinct values.
    starts = np.unique([np.quantile(part, shares, method="higher") for part in (values, distinct)])
    starts = starts[starts > distinct[0]]
    bin_number = np.searchsorted(starts, values, side="right")
    n = np.bincount(bin_number, minlength=len(starts) + 1).astype(float)
    bad = np.bincount(bin_number, labels, minlength=len(starts) + 1).astype(float)
    merged_bins = [_merge_bins(n, bad, sign, smallest) for sign in ((direction,) if direction else (1, -1))]
    best_bins = max(
        merged_bins, key=lambda bins: information_value(*weight_of_evidence(np.array([b.n for b in bins]), np.array([b.bad for b in bins])))
    )
    return starts[[bin_.start - 1 for bin_ in best_bins[1:]]]


class _Bin(NamedTuple):
    start: int
    n: float
    bad: float

    @property
    def rate(self) -> float:
        return self.bad / self.n if self.n else 0.0

    def __add__(self, other: "_Bin") -> "_Bin":  # type: ignore[override]
        return _Bin(self.start, self.n + other.n, self.bad + other.bad)


def _merge_bins(n: Floats, bad: Floats, direction: int, smallest: int) -> list[_Bin]:
    """Return bins of monotone rate, each large enough and different from the next."""
    bins: list[_Bin] = []
    for start, (rows, events) in enumerate(zip(n.tolist(), bad.tolist(), strict=True)):
        bins.append(_Bin(start, rows, events))
        while len(bins) > 1 and direction * (bins[-1].rate - bins[-2].rate) <= 0:
            bins[-2:] = [bins[-2] + bins[-1]]
    while len(bins) > 1:
        distances = [_chi_square(left, right) for left, right in pairwise(bins)]
        is_small = [min(left.n, right.n) < smallest for left, right in pairwise(bins)]
        candidates = [place for place, flag in enumerate(is_small) if flag] or range(len(distances))
        place = min(candidates, key=distances.__getitem__)
        if distances[place] > _MERGE_CHI_SQUARE and not any(is_small):
            break
        bins[place : place + 2] = [bins[place] + bins[place + 1]]
    return bins


def _chi_square(left: _Bin, right: _Bin) -> float:
    rate = (left + right).rate
    spread = rate * (1 - rate) * (1 / left.n + 1 / right.n)
    return (left.rate - right.rate) ** 2 / spread if spread else 0.0


def find_optimal_cuts(values: Floats, labels: NDArray[np.int64], direction: int, smallest: int) -> Floats:
    """Cut with OptBinning: the monotone bins of highest information value (Navas-Palencia, arXiv:2001.08025).

    Needs the package ``optbinning``, for fitting only. Parameters and result as of `find_pooled_cuts`.
    """
    from optbinning import OptimalBinning

    binning = OptimalBinning(
        dtype="numerical",
        solver="cp",
        monotonic_trend={1: "ascending", -1: "descending", 0: "auto_asc_desc"}[direction],
        max_n_prebins=_N_PREBINS,
        min_bin_size=smallest / len(values),
    )
    return np.asarray(binning.fit(values, labels).splits, np.float64)


def weight_of_evidence(n: Floats, bad: Floats) -> tuple[Floats, Floats, Floats]:
    """Return rows, bads and weight of evidence per bin."""
    rate = bad.sum() / n.sum()
    shrunk = (bad + PRIOR_ROWS * rate) / (n + PRIOR_ROWS)
    return n, bad, np.log(rate / (1 - rate)) - np.log(shrunk / (1 - shrunk))


def information_value(n: Floats, bad: Floats, woe: Floats) -> float:
    """Return the information value: the weight of evidence times the difference of the distributions of goods and bads."""
    good = n - bad
    return float(((good / good.sum() - bad / bad.sum()) * woe).sum())


def move_between_floats(cuts: Floats) -> tuple[float, ...]:
    """Return each cut moved between its two neighbouring 32-bit floats."""
    above = next_floats_above(cuts)
    below = np.nextafter(above, np.float32(-np.inf))
    between = (above.astype(np.float64) + below.astype(np.float64)) / 2
    return tuple(np.unique(np.where(above == 0, 0.0, between)).tolist())  # the float just below 0 is too small to write


def next_floats_above(cuts: Floats) -> NDArray[np.float32]:
    """Return the smallest 32-bit float that is not below each cut."""
    near = cuts.astype(np.float32)
    return np.where(near < cuts, np.nextafter(near, np.float32(np.inf)), near)


# Categories --------------------------------------------------------------------------------------------------------------------


def fit_levels(feature: Feature, texts: ArrayLike, labels: ArrayLike) -> tuple[Feature, LevelWeights]:
    """Return a category with the levels that the training rows have, and the weight of evidence of each.

    Levels of fewer than `MIN_LEVEL_ROWS` rows share one bin, and missing values have their own (Siddiqi, *Credit Risk Scorecards*, 2006,
    chapter 6). Each bin's rate is drawn towards that of all rows by `PRIOR_ROWS` (Micci-Barreca, *SIGKDD Explorations* 3, 2001).

    Parameters
    ----------
    texts : array-like of str, shape (n,)
        The level of each training row, None where it is missing.
    labels : array-like of bool or 0/1, shape (n,)
    """
    values, target = np.asarray(texts, object), np.asarray(labels).astype(np.int64)
    is_known = np.array([value is not None and value == value for value in values.tolist()], bool)
    names, place = np.unique(values[is_known].astype(str), return_inverse=True)
    numbers = np.full(len(values), np.nan, np.float32)
    numbers[is_known] = place
    unordered = LevelWeights((0.0,) * len(names), tuple(np.bincount(place, minlength=len(names)).tolist()), 0.0, 0.0, MIN_LEVEL_ROWS)
    weighed = _weigh_levels(unordered, numbers, target)
    order = sorted(range(len(names)), key=lambda level: (-weighed.weights[level], str(names[level])))
    levels = tuple(str(names[level]) for level in order)
    weights, rows = tuple(weighed.weights[level] for level in order), tuple(weighed.rows[level] for level in order)
    return replace(feature, levels=levels), replace(weighed, weights=weights, rows=rows)


def cross_fit_levels(weights: LevelWeights, numbers: NDArray[np.float32], labels: ArrayLike, people: ArrayLike, seed: int) -> Floats:
    """Return the weight of evidence of each training row's level by the outcomes of other people, shape (n,).

    A weight that a row's own outcome is part of tells the outcome: the smaller the level, the better. So people are drawn into
    `N_CROSS_FITS` parts, and the levels of each part are weighed by the outcomes of the others.

    Parameters
    ----------
    weights
        From `fit_levels`, of the same rows.
    numbers, labels, people
        The number of each row's level, NaN where it is missing; its outcome, and its person. Each of shape (n,).
    seed
        Seed of the draw.
    """
    target, (_, person) = np.asarray(labels).astype(np.int64), np.unique(np.asarray(people).astype(str), return_inverse=True)
    part = np.random.default_rng(seed).permutation(person.max() + 1)[person] % N_CROSS_FITS
    column = np.empty(len(numbers))
    for number in range(N_CROSS_FITS):
        own, others = part == number, part != number
        column[own] = _weigh_levels(weights, numbers[others], target[others]).encode(numbers[own])
    return column


def _weigh_levels(levels: LevelWeights, numbers: NDArray[np.float32], target: NDArray[np.int64]) -> LevelWeights:
    """Return the levels with the weights that these rows give them; which levels are rare stays as it is."""
    n_levels = len(levels.rows)
    is_rare = np.array(levels.rows, int) < levels.min_rows
    bins = np.append(np.where(is_rare, n_levels, np.arange(n_levels)), [n_levels, n_levels + 1])
    bin_number = bins[np.where(np.isnan(numbers), n_levels + 1, numbers).astype(np.intp)]
    n, bad = (np.bincount(bin_number, column, minlength=n_levels + 2).astype(np.float64) for column in (np.ones(len(target)), target))
    has_both = 0 < bad.sum() < n.sum()
    weights = weight_of_evidence(n, bad)[2] if has_both else np.zeros(n_levels + 2)
    return replace(levels, weights=tuple(weights[bins[:n_levels]].tolist()), rare=float(weights[-2]), missing=float(weights[-1]))
