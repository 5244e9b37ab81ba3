"""From a probability of default to a decision: approve, refer to a person, or refuse. Pure, without imports of numerics.

The thresholds follow from what a mistake costs, not from 0.5. All money is a share of the exposure:

- approving earns the margin if the loan is repaid and loses the LGD if not: ``margin (1 - p) - lgd p``;
- refusing earns nothing;
- a person who looks costs `review_cost`, finds the share `review_finds` of the bad and turns away the share `review_errs` of the
  good: ``margin (1 - review_errs) (1 - p) - lgd (1 - review_finds) p - review_cost``.

Each is linear in p, so each decision is best on one interval.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

APPROVE, REFER, REFUSE = "approve", "refer", "refuse"
DECISIONS = (APPROVE, REFER, REFUSE)

GRADES: tuple[tuple[str, float], ...] = (("A", 0.01), ("B", 0.02), ("C", 0.04), ("D", 0.08), ("E", 0.16), ("F", 0.32), ("G", 1.0))
"""Grade and the probability below which it lies: each holds twice the risk of the one before."""


@dataclass(frozen=True)
class Costs:
    """What lending earns and loses, as shares of the exposure.

    Attributes
    ----------
    margin
        Earned over the loan's life if it is repaid: interest less funding and administration.
    lgd
        Lost if it is not: loss given default. 0.45 is the supervisory value for senior unsecured claims (Basel II, 287).
    review_cost, review_finds, review_errs
        Cost of a person's review, share of the bad that it finds, share of the good that it turns away.
    """

    margin: float = 0.10
    lgd: float = 0.45
    review_cost: float = 0.005
    review_finds: float = 0.5
    review_errs: float = 0.1

    def __post_init__(self) -> None:
        if self.margin <= 0 or not 0 < self.lgd <= 1 or self.review_cost < 0:
            raise ValueError(f"margin must be above 0, LGD between 0 and 1 and a review's cost not below 0: {self}")
        if not (0 < self.review_finds <= 1 and 0 <= self.review_errs < 1):
            raise ValueError(f"a review finds a share above 0 of the bad and turns away a share below 1 of the good: {self}")


def thresholds(costs: Costs | None = None) -> dict[str, float]:
    """Return the probabilities from which a loan is referred and refused.

    Where a review costs more than it saves at every probability, both are the break-even ``margin / (margin + lgd)``.
    """
    c = costs or Costs()
    even = c.margin / (c.margin + c.lgd)
    lost, kept = c.margin * c.review_errs, c.margin * (1 - c.review_errs)
    refer = (c.review_cost + lost) / (c.lgd * c.review_finds + lost)
    refuse = (kept - c.review_cost) / (kept + c.lgd * (1 - c.review_finds))
    if refer >= refuse:
        return {"refer_from": even, "refuse_from": even}
    return {"refer_from": refer, "refuse_from": min(refuse, 1.0)}


def decide(probability: float, thresholds: Mapping[str, float]) -> str:
    """Return the decision on a probability of default.

    Raises
    ------
    ValueError
        For something that is no probability.
    """
    if not 0 <= probability <= 1:  # NaN too
        raise ValueError(f"{probability} is no probability: nothing can be decided on it")
    if probability >= thresholds["refuse_from"]:
        return REFUSE
    return REFER if probability >= thresholds["refer_from"] else APPROVE


def decisions(probabilities: Iterable[float], thresholds: Mapping[str, float]) -> list[str]:
    """Return the decision on each probability."""
    return [decide(float(probability), thresholds) for probability in probabilities]


def grade(probability: float) -> str:
    """Return the rating grade of a probability of default, from A (best) to G."""
    if not 0 <= probability <= 1:
        raise ValueError(f"{probability} is no probability: it has no grade")
    return next((name for name, below in GRADES if probability < below), GRADES[-1][0])


def realised_profit(defaulted: Iterable[bool], decisions: Iterable[str], costs: Costs) -> list[float]:
    """Return what each decision earned once it is known which loans defaulted, as shares of the exposure; of a review, the mean."""
    return [expected_profit(float(bad), decision, costs) for bad, decision in zip(defaulted, decisions, strict=True)]


def expected_profit(probability: float, decision: str, costs: Costs) -> float:
    """Return what a decision is expected to earn, as a share of the exposure."""
    good, bad = costs.margin * (1 - probability), costs.lgd * probability
    if decision == REFER:
        return good * (1 - costs.review_errs) - bad * (1 - costs.review_finds) - costs.review_cost
    return good - bad if decision == APPROVE else 0.0
