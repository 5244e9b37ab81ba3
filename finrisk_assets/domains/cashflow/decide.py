"""The outcome of the next month that a probability of a surplus stands for. The service imports this module: no Ibis, no pandas."""

from finrisk_assets.scoring.decision_rule import DecisionRule

SURPLUS, DEFICIT = "surplus", "deficit"
DECISIONS = (SURPLUS, DEFICIT)

DECISION_RULE = DecisionRule(lowest=DEFICIT, steps=(("surplus_from", SURPLUS),))
"""The outcome that a probability stands for, by the policy's threshold."""


def direction(decision: str) -> str:
    """Return which sentences explain a decision: ``raises`` those for a surplus, ``lowers`` those for a deficit."""
    return "raises" if decision == SURPLUS else "lowers"
