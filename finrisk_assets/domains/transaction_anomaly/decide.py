"""The decision on a transaction: allow, review by a person, or block.

A transaction is reviewed by worth: where the loss that a review is expected to prevent reaches what the review costs, under the analysts'
capacity (an example-dependent cost: Elkan, *The foundations of cost-sensitive learning*, IJCAI 2001). The thresholds follow from the
policy and the bundle's curves (`finrisk_assets.scoring.policy_thresholds`). The service imports this module: numpy and the policy alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.policy.document import TransactionAnomalyPolicy

Decision = Literal["allow", "review", "block"]

STRICTNESS: Sequence[Decision] = ("allow", "review", "block")
"""The decisions, from the mildest to the strictest."""

LARGEST_LEARNED = "largest_log_amount"
"""Name of the threshold that is the largest amount in training, as the feature ``log_amount``."""


def is_unseen(log_amount: float | None, thresholds: Mapping[str, float]) -> bool:
    """Return whether an amount, as the feature ``log_amount``, is larger than every amount in training.

    The score of such an amount is a guess: a tree repeats the value of the largest amount, a line rises for ever.
    """
    return log_amount is not None and log_amount > thresholds.get(LARGEST_LEARNED, np.inf)


def expect_loss(score: ArrayLike, log_amount: ArrayLike) -> NDArray[np.float64]:
    """Return the expected loss of transactions that are allowed, in currency: the probability of fraud times the amount.

    Parameters
    ----------
    score
        Probability of fraud.
    log_amount
        The amount as the feature ``log_amount``, of the shape of `score`.
    """
    return np.asarray(score, np.float64) * np.expm1(np.asarray(log_amount, np.float64))


def decide(score: float, thresholds: Mapping[str, float], log_amount: float | None = None, *, unseen: bool = False) -> Decision:
    """Return the decision on a transaction of this score and amount, the latter as the feature ``log_amount``.

    Where the thresholds have ``review_loss``, an expected loss from there on is reviewed; else a score from ``review`` on. Without a
    ``block`` threshold no transaction is blocked. An `unseen` amount is reviewed, whatever the score.

    Raises
    ------
    KeyError
        Where the thresholds have no ``review`` and no amount is given.
    """
    if "block" in thresholds and score >= thresholds["block"]:
        return "block"
    if unseen:
        return "review"
    if "review_loss" in thresholds and log_amount is not None:
        return "review" if expect_loss(score, log_amount) >= thresholds["review_loss"] else "allow"
    return "review" if score >= thresholds["review"] else "allow"


def decide_all(scores: ArrayLike, thresholds: Mapping[str, float], log_amounts: ArrayLike | None = None) -> Sequence[Decision]:
    """Return the decision of `decide` on each of many transactions; `log_amounts` has the shape of `scores`, NaN where missing."""
    values = np.asarray(scores, np.float64).ravel()
    amounts = np.full(len(values), np.nan) if log_amounts is None else np.asarray(log_amounts, np.float64).ravel()
    by_loss = "review_loss" in thresholds and log_amounts is not None
    is_reviewed = expect_loss(values, amounts) >= thresholds["review_loss"] if by_loss else values >= thresholds["review"]
    is_reviewed |= amounts > thresholds.get(LARGEST_LEARNED, np.inf)
    is_blocked = values >= thresholds.get("block", np.inf)
    decided: list[Decision] = np.select([is_blocked, is_reviewed], ["block", "review"], "allow").tolist()
    return decided


def escalate(decision: Decision, actions: Iterable[Decision]) -> Decision:
    """Return the strictest of a model's decision and the actions of the rules that fired."""
    return max((decision, *actions), key=STRICTNESS.index)


def compute_savings(amount: ArrayLike, is_fraud: ArrayLike, decisions: ArrayLike, policy: TransactionAnomalyPolicy) -> NDArray[np.float64]:
    """Return the saving of each decision against allowing every transaction, in currency, shape (n,).

    A fraud that is blocked saves its amount, one that is reviewed the share of it that reviews find; every review has a cost, and so has
    a genuine payment that is blocked, all by the policy (an alert's fixed cost and a fraud's own amount: Bahnsen, Stojanovic, Aouada &
    Ottersten, *Cost sensitive credit card fraud detection using Bayes minimum risk*, ICMLA 2013).
    """
    fraud, decision = np.asarray(is_fraud).astype(bool), np.asarray(decisions).astype(str)
    reviews, is_mistake = decision == "review", (decision == "block") & ~fraud
    cost = np.where(reviews, policy.review_cost_amount, 0.0) + np.where(is_mistake, policy.block_cost_amount, 0.0)
    found = np.where(reviews, policy.review_finds_share, np.where(decision == "block", 1.0, 0.0))
    return np.where(fraud, found * np.asarray(amount, np.float64), 0.0) - cost


def is_anomaly(score: float, thresholds: Mapping[str, float], *, unseen: bool = False) -> bool:
    """Return whether the score reaches the threshold of an anomaly, whatever the analysts' capacity; an unseen amount is an anomaly."""
    return unseen or score >= thresholds["anomaly"]
