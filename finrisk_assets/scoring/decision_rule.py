"""The decision on a probability by thresholds: one rule for the domains whose decisions follow from the probability alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DecisionRule:
    """Decisions in the order of the probability.

    Attributes
    ----------
    lowest
        The decision below every threshold.
    steps
        Name of a threshold and the decision from that threshold on, the highest threshold first.
    """

    lowest: str
    steps: tuple[tuple[str, str], ...]

    def decide(self, probability: float, thresholds: Mapping[str, float]) -> str:
        """Return the decision on a probability; a probability that equals a threshold reaches it.

        Raises
        ------
        ValueError
            For a number outside 0 to 1, and for NaN.
        """
        check_probability(probability)
        return next((decision for threshold, decision in self.steps if probability >= thresholds[threshold]), self.lowest)

    def decide_all(self, probabilities: Iterable[float], thresholds: Mapping[str, float]) -> list[str]:
        """Return the decision on each probability."""
        return [self.decide(float(probability), thresholds) for probability in probabilities]


def check_probability(probability: float) -> None:
    """Refuse a number that is no probability.

    Raises
    ------
    ValueError
        For a number outside 0 to 1, and for NaN.
    """
    if not 0 <= probability <= 1:  # NaN fails every comparison
        raise ValueError(f"{probability} is no probability: pass a number from 0 to 1")
