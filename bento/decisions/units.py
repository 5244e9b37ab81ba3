"""Bounds of a feature by its unit: a share is between 0 and 1, and a count is never below zero.

A feature that a client sends is checked against the unit that its bundle states; where the bundle states none, against the first words
of the feature's description. Units without natural bounds (an amount, a ratio, a logarithm) are not checked.
"""

from functools import lru_cache
from math import inf

import numpy as np

from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import Floats, Rows
from schemas.api import FieldError
from schemas.features import Feature

_SHARE, _SWITCH, _COUNT = (0.0, 1.0), (0.0, 1.0), (0.0, inf)
_BOUNDS = {
    "share": _SHARE,
    "0 or 1": _SWITCH,
    "percent": (0.0, 100.0),
    "percent a year": (0.0, 1000.0),
    **dict.fromkeys(("movements", "penalties", "payments", "transactions", "loans", "persons", "incomes"), _COUNT),
}
"""Unit -> the smallest and the largest value."""
_DESCRIPTION_BOUNDS = {"Share of ": _SHARE, "Whether ": _SWITCH}
"""Start of a description -> the smallest and the largest value."""
_SLACK = 1e-6  # in 32 bits a share of 1 may round to a little more


def bounds(feature: Feature) -> tuple[float, float]:
    """Return the smallest and the largest value of a feature, infinite where its unit has no bounds."""
    described = (limits for begin, limits in _DESCRIPTION_BOUNDS.items() if feature.description.startswith(begin))
    return _BOUNDS.get(feature.unit) or next(described, (-inf, inf))


def find_out_of_bounds(bundle: Bundle, row: Rows) -> list[FieldError]:
    """Return an error for each feature of a row, float32 of shape (d,), outside the bounds of its unit; missing values pass."""
    low, high = _limits(bundle)
    places = ((row < low) | (row > high)).nonzero()[0].tolist()
    return [FieldError(field=f"features.{bundle.features[at].name}", reason=_reason(bundle.features[at])) for at in places]


def _reason(feature: Feature) -> str:
    low, high = bounds(feature)
    unit = f", in the unit {feature.unit!r}" if feature.unit else ""
    return f"Must be at least {low:g}{unit}." if high == inf else f"Must be from {low:g} to {high:g}{unit}."


@lru_cache(maxsize=32)
def _limits(bundle: Bundle) -> tuple[Floats, Floats]:
    low, high = zip(*(bounds(feature) for feature in bundle.features), strict=True)
    return np.array(low) - _SLACK, np.array(high) + _SLACK
