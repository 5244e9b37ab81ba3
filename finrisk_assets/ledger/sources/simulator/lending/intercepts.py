"""Intercepts that give a logit the requested mean probability. The first town finds them, and all towns share them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Intercepts:
    """Intercepts of the logits of default and acceptance; None where not yet found."""

    default: float | None = None
    acceptance: float | None = None


def find_intercept(mean_probability: Callable[[float], float], rate: float) -> float:
    """Return the intercept at which the mean probability is `rate`, by bisection.

    Parameters
    ----------
    mean_probability
        Intercept -> mean probability, which rises in the intercept.
    """
    low, high = -40.0, 40.0
    for _ in range(48):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_probability(middle) < rate else (low, middle)
    return (low + high) / 2
