"""From the score of a transaction to a decision: allow it, have a person look at it, or block it.

Only thresholds and their use belong here. The service decides with this module, so it imports numpy and nothing else.
Thresholds come from an analyst team's capacity or a share of the transactions, never from 0.5.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Decision = Literal["allow", "review", "block"]

CONTAMINATION = 0.02
"""Share of transactions taken for anomalies, where nothing else is said."""

LARGEST = "largest_log_amount"
"""Name of the threshold above which no amount has been learned from."""

REVIEW_COST, BLOCK_COST = 5.0, 25.0
"""What a person's look at an alert costs, and a payment blocked by mistake, in the ledger's currency."""

BLOCK_PRECISION = 0.9
"""Share of frauds that blocking without a person's look must have reached."""


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
        Scores (probabilities or margins, higher is riskier) of a window that no model was fitted on, in which transactions
        stand in their natural proportion.
    contamination
        Share of the transactions that are anomalies.
    capacity_per_day, n_days
        Alerts that the analysts can look at in a day, and days that `scores` span. Without a capacity every anomaly is reviewed.
    is_fraud : array-like of shape (n,), optional
        Labels. Without them nothing is blocked: an unusual transaction alone is no reason to refuse it.
    block_precision
        Share of frauds among the blocked.

    Returns
    -------
    dict
        ``anomaly``, ``review`` and, where enough frauds stand at the top, ``block``, in the unit of `scores`. A score that
        reaches a threshold falls under it. Equal scores stay together: fewer than asked for may reach it, never more.

    Raises
    ------
    ValueError
        For no scores, scores that are not finite, a share outside 0 to 1, or a capacity without days.
    """
    given = np.asarray(scores, dtype=np.float64).ravel()
    if given.size == 0 or not np.isfinite(given).all():
        raise ValueError(f"thresholds need finite scores; {int((~np.isfinite(given)).sum())} of {given.size} are not")
    score = np.sort(given)[::-1]
    for name, share in (("contamination", contamination), ("block_precision", block_precision)):
        if not 0 < share < 1:
            raise ValueError(f"{name} must lie between 0 and 1, not {share}")
    anomaly = _reached_by(score, contamination * score.size)
    result = {"anomaly": anomaly, "review": anomaly}
    if capacity_per_day is not None:
        if n_days is None or n_days < 1 or capacity_per_day <= 0:
            raise ValueError(f"a capacity of {capacity_per_day} a day needs the days the scores span: at least 1, not {n_days}")
        result["review"] = _reached_by(score, capacity_per_day * n_days)
    if is_fraud is not None:
        block = _precise_from(given, np.asarray(is_fraud).astype(bool).ravel(), block_precision)
        if block is not None:
            result["block"] = max(block, result["review"])
    return result


def is_unseen(log_amount: float | None, thresholds: Mapping[str, float]) -> bool:
    """Return whether an amount, as the feature ``log_amount``, is larger than any that the model has learned from.

    What a model says there is a guess: a tree holds on to the last value that it has seen, a line runs on for ever.
    """
    return log_amount is not None and log_amount > thresholds.get(LARGEST, np.inf)


def decide(score: float, thresholds: Mapping[str, float], *, unseen: bool = False) -> Decision:
    """Return what to do with a transaction of this score.

    Without a ``block`` threshold none is blocked. A person looks at what is `unseen`, whatever the score.
    """
    if "block" in thresholds and score >= thresholds["block"]:
        return "block"
    return "review" if unseen or score >= thresholds["review"] else "allow"


def decide_all(scores: ArrayLike, thresholds: Mapping[str, float], log_amounts: ArrayLike | None = None) -> Sequence[Decision]:
    """Return what to do with each of many transactions; `log_amounts` has the shape of `scores`."""
    given = np.asarray(scores, dtype=np.float64).ravel()
    amounts = np.full(given.size, -np.inf) if log_amounts is None else np.asarray(log_amounts, dtype=np.float64).ravel()
    pairs = zip(given.tolist(), amounts.tolist(), strict=True)
    return [decide(score, thresholds, unseen=is_unseen(amount, thresholds)) for score, amount in pairs]


def saved(amount: ArrayLike, is_fraud: ArrayLike, decisions: ArrayLike) -> NDArray[np.float64]:
    """Return what each decision saved beside letting all pass, in currency, shape (n,).

    A fraud that is reviewed or blocked saves its amount; every alert that a person looks at costs `REVIEW_COST`, and blocking a customer's
    own payment `BLOCK_COST` (an alert's fixed cost and a fraud's own amount: Bahnsen, Stojanovic, Aouada & Ottersten, *Cost sensitive
    credit card fraud detection using Bayes minimum risk*, ICMLA 2013).
    """
    fraud, decided = np.asarray(is_fraud).astype(bool), np.asarray(decisions).astype(str)
    stopped = decided != "allow"
    cost = np.where(decided == "review", REVIEW_COST, 0.0) + np.where((decided == "block") & ~fraud, BLOCK_COST, 0.0)
    return np.where(stopped & fraud, np.asarray(amount, np.float64), 0.0) - cost


def is_anomaly(score: float, thresholds: Mapping[str, float], *, unseen: bool = False) -> bool:
    """Return whether the score reaches the threshold of an anomaly, whatever the analysts have time for; the unseen always is one."""
    return unseen or score >= thresholds["anomaly"]


def _reached_by(descending: NDArray[np.float64], n: float) -> float:
    """Return the lowest score that at most `n` of the scores reach; just above the highest where none may."""
    above = int(n)
    if above >= descending.size:
        return float(descending[-1])
    first_below = descending[above]
    taken = descending[:above][descending[:above] > first_below]
    return float(taken[-1]) if taken.size else float(np.nextafter(descending[0], np.inf))


def _precise_from(scores: NDArray[np.float64], is_fraud: NDArray[np.bool_], precision: float) -> float | None:
    """Return the lowest score from which the share of frauds reaches `precision`, by Laplace's rule of succession.

    The rule, (frauds + 1) / (n + 2), keeps a handful of lucky hits from opening the gate.
    """
    if scores.shape != is_fraud.shape:
        raise ValueError(f"there are {scores.size} scores and {is_fraud.size} labels: one label per score is needed")
    order = np.argsort(-scores, kind="stable")
    ordered, caught = scores[order], np.cumsum(is_fraud[order])
    whole = np.append(ordered[1:] < ordered[:-1], True)  # a threshold cannot part equal scores
    good = whole & ((caught + 1) / (np.arange(1, scores.size + 1) + 2) >= precision)
    return float(ordered[np.flatnonzero(good)[-1]]) if good.any() else None
