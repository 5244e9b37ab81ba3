"""The decision on the score of a transaction: allow, review by a person, or block.

The thresholds follow from the policy and the bundle's score curve (`finrisk_assets.scoring.policy_thresholds`): from an analyst team's
capacity or a share of the transactions, not from 0.5. The service imports this module: numpy and the policy alone.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.policy.document import TransactionAnomalyPolicy

Decision = Literal["allow", "review", "block"]

LARGEST_LEARNED = "largest_log_amount"
"""Name of the threshold that is the largest amount in training, as the feature ``log_amount``."""


def is_unseen(log_amount: float | None, thresholds: Mapping[str, float]) -> bool:
    """Return whether an amount, as the feature ``log_amount``, is larger than every amount in training.

    The score of such an amount is a guess: a tree repeats the value of the largest amount, a line rises for ever.
    """
    return log_amount is not None and log_amount > thresholds.get(LARGEST_LEARNED, np.inf)


def decide(score: float, thresholds: Mapping[str, float], *, unseen: bool = False) -> Decision:
    """Return the decision on a transaction of this score.

    Without a ``block`` threshold no transaction is blocked. An `unseen` amount is reviewed, whatever the score.
    """
    if "block" in thresholds and score >= thresholds["block"]:
        return "block"
    return "review" if unseen or score >= thresholds["review"] else "allow"


def decide_all(scores: ArrayLike, thresholds: Mapping[str, float], log_amounts: ArrayLike | None = None) -> Sequence[Decision]:
    """Return the decision on each of many transactions; `log_amounts` has the shape of `scores`."""
    values = np.asarray(scores, dtype=np.float64).ravel()
    amounts = np.full(values.size, -np.inf) if log_amounts is None else np.asarray(log_amounts, dtype=np.float64).ravel()
    pairs = zip(values.tolist(), amounts.tolist(), strict=True)
    return [decide(score, thresholds, unseen=is_unseen(amount, thresholds)) for score, amount in pairs]


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
