"""The values of each feature in training: its range, its quartiles in the reference group, and its share of the model's information.

A bundle keeps these numbers. Sentences are chosen by them (`reasons`), and a decision on too little information is referred.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SEEN_MARGIN = 0.5
"""Share of the width of the range that training saw, by which a value may lie outside of it. Less refers more people to a review."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureValues:
    """The values of one feature in training.

    Attributes
    ----------
    seen_low, seen_high
        The lowest and the highest value, in the feature's unit; None where every value was missing.
    is_ever_missing
        Whether a value was missing.
    low, middle, high
        Quartiles of the reference group; None where every value was missing.
    information
        The feature's share of the total mean absolute contribution, 0 to 1.
    """

    seen_low: float | None
    seen_high: float | None
    is_ever_missing: bool
    low: float | None
    middle: float | None
    high: float | None
    information: float


@dataclass(frozen=True)
class LevelWeights:
    """The weight of evidence of each level of a category: ln(share of goods / share of bads) among the training rows (Siddiqi 2006).

    Each rate is drawn towards the rate of all rows (Micci-Barreca, *SIGKDD Explorations* 2001), so that a small level weighs little.

    Attributes
    ----------
    weights, rows
        Weight and training rows of each level, in the order of `Feature.levels`. All rare levels have the weight `rare`.
    rare
        Weight of the bin of rare levels, which is also that of a level that training did not see.
    missing
        Weight of the bin of missing values.
    min_rows
        Training rows below which a level is rare.
    """

    weights: tuple[float, ...]
    rows: tuple[int, ...]
    rare: float
    missing: float
    min_rows: int

    def __post_init__(self) -> None:
        for name in ("weights", "rows"):  # lists, where they were read from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def encode(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the weight of each level's number; the number after the last level stands for levels that training did not see."""
        table = np.array([*self.weights, self.rare, self.missing], np.float32)
        n_levels = len(self.weights)
        place = np.where(np.isnan(numbers), n_levels + 1, np.clip(numbers, 0, n_levels))
        return table[place.astype(np.intp)]


class Doubt(NamedTuple):
    """The reason why a decision on a row would be a guess: a sentence, and the columns that it is about."""

    text: str
    columns: tuple[int, ...]


def describe_values(seen: Sequence[Rows], group: Rows, contributions: NDArray[np.float64]) -> tuple[FeatureValues, ...]:
    """Return what training saw of each feature.

    Parameters
    ----------
    seen
        The windows that the model was fitted and calibrated on, each of shape (n, d), NaN where missing.
    group
        Rows of the reference group, shape (m, d).
    contributions
        Of a sample of rows, shape (k, d), in margin units.
    """
    size = np.abs(contributions).mean(axis=0) if len(contributions) else np.zeros(contributions.shape[1])
    shares = size / (size.sum() or 1.0)
    described = []
    for column in range(contributions.shape[1]):
        values = np.concatenate([rows[:, column] for rows in seen])
        present, usual = values[~np.isnan(values)], group[~np.isnan(group[:, column]), column]
        low, high = (float(present.min()), float(present.max())) if len(present) else (None, None)
        quartiles = np.quantile(usual, (0.25, 0.5, 0.75), method="inverted_cdf").tolist() if len(usual) else (None, None, None)
        described.append(
            FeatureValues(
                seen_low=low,
                seen_high=high,
                is_ever_missing=len(present) < len(values),
                low=quartiles[0],
                middle=quartiles[1],
                high=quartiles[2],
                information=float(shares[column]),
            )
        )
    return tuple(described)


class TrainingRange:
    """The bounds of what a model can judge.

    Parameters
    ----------
    values
        What training saw of each feature; without values nothing is missing and nothing is outside.
    circles
        Whether each feature is a point of a circle, which has no outside: a month that training did not see lies between two that it saw.
    levels
        The number of levels of each feature, 0 where it is no category: outside are levels that training did not see.
    """

    def __init__(self, values: Sequence[FeatureValues], circles: Sequence[bool], levels: Sequence[int] = ()) -> None:
        self._information = np.array([feature.information for feature in values])
        low = np.array([-np.inf if feature.seen_low is None else feature.seen_low for feature in values])
        high = np.array([np.inf if feature.seen_high is None else feature.seen_high for feature in values])
        is_open = np.isinf(low) | np.isinf(high)
        if values:
            is_open |= np.array(circles)
        margin = SEEN_MARGIN * np.subtract(high, low, out=np.zeros(len(low)), where=~is_open)
        # Rows are float32: bounds of the same type are compared at once, and those that lie inside of the exact ones say the same.
        self._low = _round_inwards(np.where(is_open, -np.inf, low - margin), np.inf)
        self._high = _round_inwards(np.where(is_open, np.inf, high + margin), -np.inf)
        for place, n_levels in enumerate(levels if values else ()):
            if n_levels:
                self._low[place], self._high[place] = 0, n_levels - 1
        self._always_known = np.array([not feature.is_ever_missing for feature in values], bool)

    def lacks_values(self, rows: Rows, max_missing_share: float) -> NDArray[np.bool_]:
        """Return whether each row lacks a value that training always had, or more than a share of the model's information; shape (n,)."""
        lacking = np.zeros(len(rows), bool)
        if len(self._information):
            is_missing = np.isnan(rows)
            some = np.flatnonzero(any_by_row(is_missing))
            missing = is_missing[some]
            # A sum by row, whose rounding is the same for one row and for many; a product with a matrix may add in another order.
            share = np.where(missing, self._information, 0.0).sum(axis=1)
            lacking[some] = missing[:, self._always_known].any(axis=1) | (share > max_missing_share)
        return lacking

    def find_unknown(self, rows: Rows) -> NDArray[np.bool_]:
        """Return whether each value is missing although training always had one; shape (n, d)."""
        return np.isnan(rows) & self._always_known if len(self._always_known) else np.zeros(rows.shape, bool)

    def find_outside(self, rows: Rows) -> NDArray[np.bool_]:
        """Return whether each value lies outside of what training saw, by more than `SEEN_MARGIN`; shape (n, d). Missing ones do not."""
        if not len(self._information):
            return np.zeros(rows.shape, bool)
        return (rows < self._low) | (rows > self._high)


def any_by_row(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether any flag of each row is set, shape (n,): several times faster than numpy's own where few are."""
    rows = np.zeros(len(flags), bool)
    rows[np.flatnonzero(flags) // (flags.shape[1] or 1)] = True
    return rows


def _round_inwards(bounds: NDArray[np.float64], inwards: float) -> NDArray[np.float32]:
    """Return the float32 numbers nearest to the bounds that do not lie outside of them; `inwards` is the infinity on their inner side."""
    with np.errstate(over="ignore"):
        rounded = bounds.astype(np.float32)
    is_outside = rounded < bounds if inwards > 0 else rounded > bounds
    return np.where(is_outside, np.nextafter(rounded, np.float32(inwards)), rounded)
