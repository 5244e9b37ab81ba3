"""Intercepts that give a logit the requested mean probability. The first town finds them, and all towns share them."""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.population.households import sigmoid


@dataclass(frozen=True)
class Intercepts:
    """Intercepts of the logits of fraud, default and acceptance; None where not yet found."""

    fraud: float | None = None
    default: float | None = None
    acceptance: float | None = None


def intercept_for(logit: np.ndarray, rate: float) -> float:
    """Return the intercept at which the mean probability is `rate`, by bisection."""
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if len(logit) and sigmoid(middle + logit).mean() < rate else (low, middle)
    return (low + high) / 2
