"""The thresholds at which decisions change: from the policy, and from the bundle's curves where a share or a capacity decides."""

from collections.abc import Mapping

from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.loan_decision import APPROVE, REFER, complete_terms, find_largest_pds
from finrisk_assets.scoring.score_curve import ScoreCurve

REFUSED_FROM = {"spending_risk": "high_from", "spending_risk_eight": "high_from", "loan_default": "refer_from"}
"""Domain -> the threshold that a refusal's reasons compare with: those just below it."""


def find_thresholds(domain: str, policy: Policy, curve: ScoreCurve | None, loss_curve: ScoreCurve | None = None) -> Mapping[str, float]:
    """Return the thresholds of a domain by name; none for a domain that decides otherwise.

    Parameters
    ----------
    domain
        Name of the domain; a second model of spending risk has the same levels.
    curve
        The bundle's score curve. Without one, transactions have no thresholds.
    loss_curve
        The bundle's curve of expected losses, probability times amount. With one, transactions are reviewed from an expected loss on,
        ``review_loss`` in currency, which is never below the cost of a review; else from a probability on, ``review``.

    Notes
    -----
    Applications are decided one by one, by their value at their own terms (`loan_decision`). The thresholds ``refer_from`` and
    ``refuse_from`` are those of a loan at the policy's assumed terms: for pictures, and for figures that need one number.
    """
    if domain in ("spending_risk", "spending_risk_eight"):
        return {"medium_from": policy.spending_risk.medium_from, "high_from": policy.spending_risk.high_from}
    if domain == "cashflow":
        return {"surplus_from": policy.cashflow.surplus_from}
    if domain == "loan_default":
        terms = complete_terms(policy)
        return {
            "refer_from": float(find_largest_pds(terms, policy, goal=APPROVE)),
            "refuse_from": float(find_largest_pds(terms, policy, goal=REFER)),
        }
    if domain == "transaction_anomaly" and curve is not None:
        rules = policy.transaction_anomaly
        anomaly = curve.find_capacity_threshold(rules.contamination * curve.n_rows)
        block = curve.find_precision_threshold(rules.block_precision)
        blocks = {} if block is None else {"block": block}
        if loss_curve is not None:
            capacity = loss_curve.find_capacity_threshold(rules.reviews_per_day * loss_curve.n_days)
            return {"anomaly": anomaly, "review_loss": max(rules.review_cost_amount / rules.review_finds_share, capacity)} | blocks
        if curve.events:  # labels without an amount: the likeliest frauds, up to the capacity
            review = curve.find_capacity_threshold(rules.reviews_per_day * curve.n_days)
            return {"anomaly": anomaly, "review": review} | {name: max(score, review) for name, score in blocks.items()}
        # Without labels nothing says what a review finds: every anomaly is reviewed and nothing is blocked.
        return {"anomaly": anomaly, "review": anomaly}
    return {}
