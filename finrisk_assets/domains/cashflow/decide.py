"""From the probability of a surplus to what is said of the next month. Pure, without imports of numerics."""

from collections.abc import Iterable, Mapping

SURPLUS, DEFICIT = "surplus", "deficit"
DECISIONS = (SURPLUS, DEFICIT)

SURPLUS_FROM = 0.5
"""Probability from which a month is called a surplus: the likelier outcome, because nothing says which mistake costs more."""


def thresholds() -> dict[str, float]:
    """Return the probability from which a month is called a surplus."""
    return {"surplus_from": SURPLUS_FROM}


def decide(probability: float, thresholds: Mapping[str, float]) -> str:
    """Return what a probability of a surplus means.

    Raises
    ------
    ValueError
        For something that is no probability.
    """
    if not 0 <= probability <= 1:  # NaN too
        raise ValueError(f"{probability} is no probability: nothing can be decided on it")
    return SURPLUS if probability >= thresholds["surplus_from"] else DEFICIT


def decisions(probabilities: Iterable[float], thresholds: Mapping[str, float]) -> list[str]:
    """Return what each probability means."""
    return [decide(float(probability), thresholds) for probability in probabilities]


def direction(decision: str) -> str:
    """Return which sentences explain a decision: ``raises`` those for a surplus, ``lowers`` those for a deficit."""
    return "raises" if decision == SURPLUS else "lowers"
