"""Metrics of a ranking of transactions: precision of the first k alerts and of the first k cards.

The metrics are those of Le Borgne, Siblini, Lebichot and Bontempi, *Reproducible Machine Learning for Credit Card Fraud Detection:
Practical Handbook* (2022), chapters 3 to 5. Average precision and the area under the ROC curve are scikit-learn's.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]


def precision_at(k: int, is_fraud: ArrayLike, score: ArrayLike) -> float:
    """Return the share of frauds among the `k` rows with the highest scores (ties: the earlier row first).

    Fewer than `k` rows still count as a capacity of `k` alerts, as in the Handbook.

    Raises
    ------
    ValueError
        For a `k` below 1, scores that are not finite, or arrays of different shapes.
    """
    labels, scores = _check_scores(is_fraud, score)
    return float(labels[np.argsort(-scores, kind="stable")[: _check_count(k)]].sum() / k)


def card_precision_at(
    k: int, days: ArrayLike, cards: ArrayLike, is_fraud: ArrayLike, score: ArrayLike, *, remove_detected: bool = True
) -> NDArray[np.float64]:
    """Return the card precision CP@k of each day: the share of compromised cards among the `k` most suspicious cards.

    A card's suspicion is its highest score of the day. With `remove_detected`, a compromised card among the first `k` is blocked and left
    out on later days, as in practice.

    Returns
    -------
    ndarray of shape (n_days,)
        In the order of the days; the Handbook reports the mean.
    """
    _check_count(k)
    row_days = _to_days(days)
    labels, scores = _check_scores(is_fraud, score)
    card_names, card_index = np.unique(np.asarray(cards), return_inverse=True)
    blocked = np.zeros(len(card_names), dtype=bool)
    precisions = []
    for day in np.unique(row_days):
        rows = np.flatnonzero((row_days == day) & ~blocked[card_index])
        highest = np.full(len(card_names), -np.inf)
        np.maximum.at(highest, card_index[rows], scores[rows])
        compromised = np.zeros(len(card_names), dtype=bool)
        compromised[card_index[rows[labels[rows]]]] = True
        present = np.unique(card_index[rows])
        alerts = present[np.argsort(-highest[present], kind="stable")[:k]]
        caught = alerts[compromised[alerts]]
        precisions.append(len(caught) / k)
        if remove_detected:
            blocked[caught] = True
    return np.asarray(precisions, dtype=np.float64)


def fraud_scores(days: ArrayLike, cards: ArrayLike, is_fraud: ArrayLike, score: ArrayLike, *, k: int = 100) -> dict[str, float]:
    """Return AUC, average precision, P@k and CP@k (the last two as means over the days) of one test period.

    Raises
    ------
    ValueError
        If all rows are fraud, or none is.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    row_days = _to_days(days)
    labels, scores = _check_scores(is_fraud, score)
    if not 0 < labels.sum() < len(labels):
        raise ValueError(f"{int(labels.sum())} of {len(labels)} rows are fraud; AUC and average precision need both kinds")
    precisions = [precision_at(k, labels[row_days == day], scores[row_days == day]) for day in np.unique(row_days)]
    return {
        "auc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
        f"precision_at_{k}": float(np.mean(precisions)),
        f"card_precision_at_{k}": float(card_precision_at(k, row_days, cards, labels, scores).mean()),
    }


def _to_days(days: ArrayLike) -> NDArray[np.datetime64]:
    return np.asarray(days).astype("datetime64[D]")


def _check_scores(is_fraud: ArrayLike, score: ArrayLike) -> tuple[Mask, NDArray[np.float64]]:
    labels, scores = np.asarray(is_fraud).astype(bool), np.asarray(score, dtype=np.float64)
    if labels.shape != scores.shape:
        raise ValueError(f"labels have the shape {labels.shape}, scores {scores.shape}: one score per label is needed")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite: they cannot be ranked")
    return labels, scores


def _check_count(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return k
