"""The probabilities at which decisions change: from the policy, and from the score curve of the bundle where scores decide."""

from collections.abc import Mapping

from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.loan_decision import APPROVE, REFER, complete_terms, find_largest_pds
from finrisk_assets.scoring.score_curve import ScoreCurve

REFUSED_FROM = {"spending_risk": "high_from", "spending_risk_eight": "high_from", "loan_default": "refer_from"}
"""Domain -> the threshold that a refusal's reasons compare with: those just below it."""


def find_thresholds(domain: str, policy: Policy, curve: ScoreCurve | None) -> Mapping[str, float]:
    """Return the thresholds of a domain by name; none for a domain that decides otherwise.

    Parameters
    ----------
    domain
        Name of the domain; a second model of spending risk has the same levels.
    curve
        The bundle's score curve. Without one, transactions have no thresholds.

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
        # Without labels nothing says what a review finds: every anomaly is reviewed and nothing is blocked.
        review = curve.find_capacity_threshold(rules.reviews_per_day * curve.n_days) if curve.events else anomaly
        block = curve.find_precision_threshold(rules.block_precision)
        worth = {"review_worth": rules.review_cost_amount} if curve.events else {}
        return {"anomaly": anomaly, "review": review} | worth | ({} if block is None else {"block": max(block, review)})
    return {}
