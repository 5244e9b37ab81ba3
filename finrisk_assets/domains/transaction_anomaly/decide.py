"""The decision on the score of a transaction: allow, review by a person, or block.

Only thresholds and their use belong here. The service imports this module: numpy alone. Thresholds follow from an analyst team's capacity
or from a share of the transactions, not from 0.5.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Decision = Literal["allow", "review", "block"]

CONTAMINATION = 0.02
"""Share of the transactions that are anomalies, by default."""

LARGEST_LEARNED = "largest_log_amount"
"""Name of the threshold that is the largest amount in training, as the feature ``log_amount``."""

REVIEW_COST, BLOCK_COST = 5.0, 25.0
"""Currency: the cost of a review by a person, and of a payment that is blocked by mistake."""

BLOCK_PRECISION = 0.9
"""Share of frauds among the transactions that are blocked without a review."""


def thresholds(
    scores: ArrayLike,
    *,
    contamination: float = CONTAMINATION,
    capacity_per_day: float | None = None,
    n_days: int | None = None,
    is_fraud: ArrayLike | None = None,
    block_precision: float = BLOCK_PRECISION,
) -> dict[str, float]:
    """Return the scores from which a transaction is an anomaly, reviewed and blocked.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Scores (probabilities or margins, higher is riskier) of a window that no model was fitted on, with transactions in their
        natural proportion.
    contamination
        Share of the transactions that are anomalies.
    capacity_per_day, n_days
        Alerts that the analysts can review in a day, and days that `scores` span. Without a capacity every anomaly is reviewed.
    is_fraud : array-like of shape (n,), optional
        Labels. Without them nothing is blocked: an unusual transaction alone is no reason to refuse it.
    block_precision
        Share of frauds among the blocked.

    Returns
    -------
    dict
        ``anomaly``, ``review`` and, where enough frauds are at the top, ``block``, in the unit of `scores`. A score that equals a
        threshold reaches it. Equal scores stay together: fewer than the given number may reach a threshold, never more.

    Raises
    ------
    ValueError
        For no scores, scores that are not finite, a share outside 0 to 1, a capacity of 0 or less, or one without days.
    """
    values = np.asarray(scores, dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"thresholds need finite scores; {int((~np.isfinite(values)).sum())} of {values.size} are not")
    descending = np.sort(values)[::-1]
    for name, share in (("contamination", contamination), ("block_precision", block_precision)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must lie between 0 and 1, not {share}")
    anomaly = _threshold_reached_by(descending, contamination * descending.size)
    result = {"anomaly": anomaly, "review": anomaly}
    if capacity_per_day is not None:
        if capacity_per_day <= 0:
            raise ValueError(f"capacity_per_day must be above 0, not {capacity_per_day}")
        if n_days is None or n_days < 1:
            raise ValueError(f"a capacity of {capacity_per_day} a day needs the days the scores span: at least 1, not {n_days}")
        result["review"] = _threshold_reached_by(descending, capacity_per_day * n_days)
    if is_fraud is not None:
        block = _block_threshold(values, np.asarray(is_fraud).astype(bool).ravel(), block_precision)
        if block is not None:
            result["block"] = max(block, result["review"])
    return result


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


def compute_savings(amount: ArrayLike, is_fraud: ArrayLike, decisions: ArrayLike) -> NDArray[np.float64]:
    """Return the saving of each decision against allowing every transaction, in currency, shape (n,).

    A fraud that is reviewed or blocked saves its amount; every review costs `REVIEW_COST`, and blocking a genuine payment costs
    `BLOCK_COST` (an alert's fixed cost and a fraud's own amount: Bahnsen, Stojanovic, Aouada & Ottersten, *Cost sensitive
    credit card fraud detection using Bayes minimum risk*, ICMLA 2013).
    """
    fraud, decision = np.asarray(is_fraud).astype(bool), np.asarray(decisions).astype(str)
    is_stopped = decision != "allow"
    cost = np.where(decision == "review", REVIEW_COST, 0.0) + np.where((decision == "block") & ~fraud, BLOCK_COST, 0.0)
    return np.where(is_stopped & fraud, np.asarray(amount, np.float64), 0.0) - cost


def is_anomaly(score: float, thresholds: Mapping[str, float], *, unseen: bool = False) -> bool:
    """Return whether the score reaches the threshold of an anomaly, whatever the analysts' capacity; an unseen amount is an anomaly."""
    return unseen or score >= thresholds["anomaly"]


def _threshold_reached_by(descending: NDArray[np.float64], n: float) -> float:
    """Return the lowest score that at most `n` of the scores reach; just above the highest where `n` is 0."""
    above = int(n)
    if above >= descending.size:
        return float(descending[-1])
    first_below = descending[above]
    taken = descending[:above][descending[:above] > first_below]
    return float(taken[-1]) if taken.size else float(np.nextafter(descending[0], np.inf))


def _block_threshold(scores: NDArray[np.float64], is_fraud: NDArray[np.bool_], precision: float) -> float | None:
    """Return the lowest score from which the share of frauds reaches `precision`, by Laplace's rule of succession.

    The rule, (frauds + 1) / (n + 2), keeps a handful of lucky hits from opening the gate.
    """
    if scores.shape != is_fraud.shape:
        raise ValueError(f"there are {scores.size} scores and {is_fraud.size} labels: one label per score is needed")
    order = np.argsort(-scores, kind="stable")
    ordered, caught = scores[order], np.cumsum(is_fraud[order])
    is_last_of_equals = np.append(ordered[1:] < ordered[:-1], True)  # a threshold cannot part equal scores
    is_precise = is_last_of_equals & ((caught + 1) / (np.arange(1, scores.size + 1) + 2) >= precision)
    return float(ordered[np.flatnonzero(is_precise)[-1]]) if is_precise.any() else None
