"""Bounded ratios of numbers and arrays, and the rule for a whole that is not above 0.

Free of Ibis, so that the service computes a ratio as the feature table does. `finrisk_assets.features.arithmetic.ratio` is the same over
columns.
"""

import math
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

LARGEST_RATIO = 10.0
"""Bound of a ratio, on either side of 0, where a feature has no other. A larger bound lets outliers weigh more in a linear model."""

NoWhole: TypeAlias = Literal["largest_or_zero", "signed_largest", "largest", "missing"]
"""Value of a ratio whose whole is not above 0.

``largest_or_zero``
    The largest ratio if the part is above 0, else 0.
``signed_largest``
    The largest ratio with the sign of the part, 0 for a part of 0.
``largest``
    The largest ratio, whatever the part.
``missing``
    No value.
"""


def ratio(part: float, whole: float, largest: float = LARGEST_RATIO, *, no_whole: NoWhole = "largest_or_zero") -> float:
    """Return ``part / whole``, kept within ±`largest`; NaN where either is NaN.

    Parameters
    ----------
    part, whole
        In one unit.
    largest
        Bound on either side of 0.
    no_whole
        Rule for a whole that is not above 0.
    """
    if math.isnan(part) or math.isnan(whole):
        return math.nan
    if whole > 0:
        return min(max(part / whole, -largest), largest)
    if no_whole == "missing":
        return math.nan
    if no_whole == "largest" or part > 0:
        return largest
    return -largest if no_whole == "signed_largest" and part < 0 else 0.0


def ratios(
    part: ArrayLike, whole: ArrayLike, largest: float = LARGEST_RATIO, *, no_whole: NoWhole = "largest_or_zero"
) -> NDArray[np.float64]:
    """Return the `ratio` of each element; `part` and `whole` broadcast."""
    parts, wholes = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    with np.errstate(over="ignore"):  # by a whole of next to nothing
        bounded = np.clip(parts / np.where(wholes > 0, wholes, 1.0), -largest, largest)
    is_missing = np.isnan(parts) | np.isnan(wholes)
    return np.where(is_missing, np.nan, np.where(wholes > 0, bounded, _values_without_whole(parts, largest, no_whole)))


def _values_without_whole(parts: NDArray[np.float64], largest: float, no_whole: NoWhole) -> NDArray[np.float64]:
    match no_whole:
        case "missing":
            return np.full_like(parts, np.nan)
        case "largest":
            return np.full_like(parts, largest)
        case "signed_largest":
            return np.sign(parts) * largest
        case "largest_or_zero":
            return np.where(parts > 0, largest, 0.0)
