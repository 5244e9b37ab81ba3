"""The decision on a probability of default: approve, refer to a person, or refuse. The service imports this module: no Ibis, no pandas.

The thresholds follow from the cost of a mistake, not from 0.5. All money is a share of the exposure:

- approving earns the margin if the loan is repaid and loses the LGD if not: ``margin (1 - p) - lgd p``;
- refusing earns nothing;
- a review by a person costs `review_cost`, finds the share `review_finds` of the bad and turns away the share `review_errs` of the
  good: ``margin (1 - review_errs) (1 - p) - lgd (1 - review_finds) p - review_cost``.

Each is linear in p, so each decision is best on one interval.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from finrisk_assets.scoring.decision_rule import DecisionRule, check_probability

APPROVE, REFER, REFUSE = "approve", "refer", "refuse"
DECISIONS = (APPROVE, REFER, REFUSE)

DECISION_RULE = DecisionRule(lowest=APPROVE, steps=(("refuse_from", REFUSE), ("refer_from", REFER)))
"""The decision on a probability, by the `thresholds`."""

GRADES: tuple[tuple[str, float], ...] = (("A", 0.01), ("B", 0.02), ("C", 0.04), ("D", 0.08), ("E", 0.16), ("F", 0.32), ("G", 1.0))
"""Grade and the probability below which the grade lies: each holds twice the risk of the grade before."""


@dataclass(frozen=True)
class Costs:
    """Earnings and losses of lending, as shares of the exposure.

    Attributes
    ----------
    margin
        Earned over the life of a loan that is repaid: interest less funding and administration.
    lgd
        Loss given default: lost of a loan that is not repaid. 0.45 is the supervisory value for senior unsecured claims (Basel II, 287).
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

    Where a review costs more than it saves at every probability, both thresholds are the break-even ``margin / (margin + lgd)``.
    """
    c = costs or Costs()
    even = c.margin / (c.margin + c.lgd)
    margin_lost, margin_kept = c.margin * c.review_errs, c.margin * (1 - c.review_errs)
    refer_from = (c.review_cost + margin_lost) / (c.lgd * c.review_finds + margin_lost)
    refuse_from = (margin_kept - c.review_cost) / (margin_kept + c.lgd * (1 - c.review_finds))
    if refer_from >= refuse_from:
        return {"refer_from": even, "refuse_from": even}
    return {"refer_from": refer_from, "refuse_from": min(refuse_from, 1.0)}


def grade(probability: float) -> str:
    """Return the rating grade of a probability of default, from A (best) to G.

    Raises
    ------
    ValueError
        For a number outside 0 to 1, and for NaN.
    """
    check_probability(probability)
    return next((name for name, below in GRADES if probability < below), GRADES[-1][0])


def realised_profit(defaulted: Iterable[bool], decisions: Iterable[str], costs: Costs) -> list[float]:
    """Return the profit of each decision by the loans' true outcomes, as shares of the exposure; of a review, the mean."""
    return [expected_profit(float(bad), decision, costs) for bad, decision in zip(defaulted, decisions, strict=True)]


def expected_profit(probability: float, decision: str, costs: Costs) -> float:
    """Return the expected profit of a decision, as a share of the exposure."""
    good, bad = costs.margin * (1 - probability), costs.lgd * probability
    if decision == REFER:
        return good * (1 - costs.review_errs) - bad * (1 - costs.review_finds) - costs.review_cost
    return good - bad if decision == APPROVE else 0.0
