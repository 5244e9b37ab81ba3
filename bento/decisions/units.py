"""What a feature's unit allows: a share of 45 was meant as percent, and a count below zero as nothing.

A feature that a client sends is held against the unit that its bundle states; where it states none, against the first words of its
description. What has no natural bounds (an amount, a ratio, a logarithm) is not judged here.
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
"""Unit -> the least and the most that it can say."""
_SAID = {"Share of ": _SHARE, "Whether ": _SWITCH}
"""How a description begins -> the same."""
_SLACK = 1e-6  # a share of all may be a little more than 1 in 32 bits


def bounds(feature: Feature) -> tuple[float, float]:
    """The least and the most that a feature can be, infinite where its unit does not say."""
    said = (limits for begin, limits in _SAID.items() if feature.description.startswith(begin))
    return _BOUNDS.get(feature.unit) or next(said, (-inf, inf))


def wrong(bundle: Bundle, row: Rows) -> list[FieldError]:
    """The features of a row, float32 of shape (d,), that their units do not allow; what is missing is not among them."""
    low, high = _limits(bundle)
    return [
        FieldError(field=f"features.{bundle.features[at].name}", reason=_reason(bundle.features[at]))
        for at in np.flatnonzero((row < low) | (row > high)).tolist()
    ]


def _reason(feature: Feature) -> str:
    low, high = bounds(feature)
    unit = f", in the unit {feature.unit!r}" if feature.unit else ""
    return f"Must be at least {low:g}{unit}." if high == inf else f"Must be from {low:g} to {high:g}{unit}."


@lru_cache(maxsize=32)
def _limits(bundle: Bundle) -> tuple[Floats, Floats]:
    low, high = zip(*(bounds(feature) for feature in bundle.features), strict=True)
    return np.array(low) - _SLACK, np.array(high) + _SLACK
