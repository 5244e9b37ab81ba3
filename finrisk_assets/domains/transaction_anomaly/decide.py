"""The decision on the score of a transaction: allow, review by a person, or block.

The thresholds follow from the policy and the bundle's score curve (`finrisk_assets.scoring.policy_thresholds`): from an analyst team's
capacity or a share of the transactions, not from 0.5. A review must also be worth its cost: the probability of fraud times the amount.
The service imports this module: numpy and the policy alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.policy.document import TransactionAnomalyPolicy

Decision = Literal["allow", "review", "block"]

LARGEST_LEARNED = "largest_log_amount"
"""Name of the threshold that is the largest amount in training, as the feature ``log_amount``."""


LEAST_WORTH = "review_worth"
"""Name of the threshold that is the smallest expected loss, in currency, whose review pays; it stands where scores are probabilities."""


def is_unseen(log_amount: float | None, thresholds: Mapping[str, float]) -> bool:
    """Return whether an amount, as the feature ``log_amount``, is larger than every amount in training.

    The score of such an amount is a guess: a tree repeats the value of the largest amount, a line rises for ever.
    """
    return log_amount is not None and log_amount > thresholds.get(LARGEST_LEARNED, np.inf)


def decide(score: float, thresholds: Mapping[str, float], *, unseen: bool = False, log_amount: float | None = None) -> Decision:
    """Return the decision on a transaction of this score.

    Without a ``block`` threshold no transaction is blocked. An `unseen` amount is reviewed, whatever the score.

    Parameters
    ----------
    log_amount
        The amount as the feature ``log_amount``. Where it is known, a transaction whose expected loss does not pay a review is allowed
        (Bayes minimum risk; Bahnsen et al., ICMLA 2013).
    """
    if "block" in thresholds and score >= thresholds["block"]:
        return "block"
    if unseen:
        return "review"
    is_worth_it = log_amount is None or score * math.expm1(log_amount) >= thresholds.get(LEAST_WORTH, 0.0)
    return "review" if score >= thresholds["review"] and is_worth_it else "allow"


def decide_all(scores: ArrayLike, thresholds: Mapping[str, float], log_amounts: ArrayLike | None = None) -> Sequence[Decision]:
    """Return the decision on each of many transactions; `log_amounts` has the shape of `scores`."""
    values = np.asarray(scores, dtype=np.float64).ravel().tolist()
    amounts = [None] * len(values) if log_amounts is None else np.asarray(log_amounts, dtype=np.float64).ravel().tolist()
    pairs = zip(values, amounts, strict=True)
    return [decide(score, thresholds, unseen=is_unseen(amount, thresholds), log_amount=amount) for score, amount in pairs]


def compute_savings(amount: ArrayLike, is_fraud: ArrayLike, decisions: ArrayLike, policy: TransactionAnomalyPolicy) -> NDArray[np.float64]:
    """Return the saving of each decision against allowing every transaction, in currency, shape (n,).

    A fraud that is reviewed or blocked saves its amount; every review has a cost, and so has a genuine payment that is blocked, both by
    the policy (an alert's fixed cost and a fraud's own amount: Bahnsen, Stojanovic, Aouada & Ottersten, *Cost sensitive credit card fraud
    detection using Bayes minimum risk*, ICMLA 2013).
    """
    fraud, decision = np.asarray(is_fraud).astype(bool), np.asarray(decisions).astype(str)
    reviews, is_mistake = decision == "review", (decision == "block") & ~fraud
    cost = np.where(reviews, policy.review_cost_amount, 0.0) + np.where(is_mistake, policy.block_cost_amount, 0.0)
    return np.where((decision != "allow") & fraud, np.asarray(amount, np.float64), 0.0) - cost


def is_anomaly(score: float, thresholds: Mapping[str, float], *, unseen: bool = False) -> bool:
    """Return whether the score reaches the threshold of an anomaly, whatever the analysts' capacity; an unseen amount is an anomaly."""
    return unseen or score >= thresholds["anomaly"]
