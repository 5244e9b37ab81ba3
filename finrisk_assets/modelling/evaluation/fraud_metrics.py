"""How good a ranking of transactions is: precision of the first k alerts, of the first k cards, and weeks in sequence.

Only measures and periods belong here: arrays in, numbers out, nothing is fitted or read. The measures and the protocol are
those of Le Borgne, Siblini, Lebichot and Bontempi, *Reproducible Machine Learning for Credit Card Fraud Detection: Practical
Handbook* (2022), chapters 3 to 5. Average precision and the area under the ROC curve are scikit-learn's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Period:
    """Training days, then a gap in which labels arrive, then test days.

    Attributes
    ----------
    train_start, train_end
        First and last training day, both included.
    test_start, test_end
        First and last test day, both included.
    known_since
        First day whose frauds count when a card is said to be known as compromised.
    delay_days
        Days until a label is known: only labels of days before ``day - delay_days`` are known on ``day``.
    """

    train_start: date
    train_end: date
    test_start: date
    test_end: date
    known_since: date
    delay_days: int

    @property
    def test_days(self) -> tuple[date, ...]:
        return tuple(self.test_start + timedelta(days=k) for k in range((self.test_end - self.test_start).days + 1))

    def train_mask(self, days: ArrayLike) -> Mask:
        """Mark the rows of the training days; `days` are the rows' days (datetime64, shape (n,))."""
        return _between(_days(days), self.train_start, self.train_end)


def prequential(
    first_test_day: date,
    n_periods: int,
    *,
    train_days: int,
    delay_days: int,
    test_days: int = 7,
    history_start: date | None = None,
) -> Iterator[Period]:
    """Yield test periods in sequence, each trained only on days whose labels were known before it began.

    Parameters
    ----------
    first_test_day
        First day of the first test period; each further period begins where the one before ended.
    n_periods, train_days, delay_days, test_days
        Number of periods, and their lengths in days.
    history_start
        Given, every training period begins here and grows, so a model learns from all history. Which cards are known to be
        compromised still rests on the last `train_days` of it, so that models with short and long memories are judged on the
        same rows.

    Raises
    ------
    ValueError
        If a length is not positive, or the history before the first period is shorter than `train_days`.
    """
    if min(n_periods, train_days, test_days) < 1 or delay_days < 0:
        raise ValueError(
            "periods and lengths must be positive: "
            f"n_periods={n_periods}, train_days={train_days}, test_days={test_days}, delay_days={delay_days}"
        )
    for k in range(n_periods):
        test_start = first_test_day + timedelta(days=k * test_days)
        train_end = test_start - timedelta(days=delay_days + 1)
        train_start = train_end - timedelta(days=train_days - 1)
        if history_start is not None and train_start < history_start:
            raise ValueError(
                f"history begins on {history_start}, which leaves fewer than {train_days} training days before {test_start} "
                f"with a label delay of {delay_days} days; begin the test later"
            )
        yield Period(
            train_start=train_start if history_start is None else history_start,
            train_end=train_end,
            test_start=test_start,
            test_end=test_start + timedelta(days=test_days - 1),
            known_since=train_start,
            delay_days=delay_days,
        )


def test_mask(period: Period, days: ArrayLike, cards: ArrayLike, is_fraud: ArrayLike) -> Mask:
    """Mark the rows to be judged: those of the test days whose card is not yet known to be compromised.

    A card is known to be compromised on a test day if it had a fraud since `period.known_since` and more than
    `period.delay_days` before that day (the Handbook's rule: such a card has been stopped).

    Parameters
    ----------
    days, cards, is_fraud : array-like of shape (n,)
        Day (datetime64), card or customer, and label of each row, in any order.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    every_day = _days(days)
    mask = _between(every_day, period.known_since, period.test_end)  # nothing outside matters
    rows = np.flatnonzero(mask)
    day, fraud = every_day[rows], np.asarray(is_fraud)[rows].astype(bool)
    _, card = np.unique(np.asarray(cards)[rows], return_inverse=True)
    first_fraud = np.full(card.max(initial=-1) + 1, np.datetime64("9999-12-31", "D"))
    np.minimum.at(first_fraud, card[fraud], day[fraud])
    unknown = day - first_fraud[card] <= np.timedelta64(period.delay_days, "D")
    mask[rows] = _between(day, period.test_start, period.test_end) & unknown
    return mask


test_mask.__test__ = False  # type: ignore[attr-defined]  # a mask of test days, not a test for pytest to collect


def precision_at(k: int, is_fraud: ArrayLike, score: ArrayLike) -> float:
    """Return the share of frauds among the `k` rows with the highest scores (ties: the earlier row first).

    Fewer than `k` rows still count as `k` alerts' worth of capacity, as in the Handbook.
    """
    fraud, margin = _labels_scores(is_fraud, score)
    return float(fraud[np.argsort(-margin, kind="stable")[: _positive(k)]].sum() / k)


def card_precision_at(
    k: int, days: ArrayLike, cards: ArrayLike, is_fraud: ArrayLike, score: ArrayLike, *, remove_detected: bool = True
) -> NDArray[np.float64]:
    """Return the card precision CP@k of each day: the share of compromised cards among the `k` most suspicious cards.

    A card is as suspicious as its highest score of the day. With `remove_detected`, a compromised card found among the first
    `k` is blocked: it is left out on later days, as it would be in practice.

    Returns
    -------
    ndarray of shape (n_days,)
        In the order of the days; the Handbook reports the mean.
    """
    _positive(k)
    day = _days(days)
    fraud, margin = _labels_scores(is_fraud, score)
    names, card = np.unique(np.asarray(cards), return_inverse=True)
    blocked = np.zeros(len(names), dtype=bool)
    result = []
    for today in np.unique(day):
        rows = np.flatnonzero((day == today) & ~blocked[card])
        highest = np.full(len(names), -np.inf)
        np.maximum.at(highest, card[rows], margin[rows])
        compromised = np.zeros(len(names), dtype=bool)
        compromised[card[rows[fraud[rows]]]] = True
        present = np.unique(card[rows])
        alerts = present[np.argsort(-highest[present], kind="stable")[:k]]
        caught = alerts[compromised[alerts]]
        result.append(len(caught) / k)
        if remove_detected:
            blocked[caught] = True
    return np.asarray(result, dtype=np.float64)


def fraud_scores(days: ArrayLike, cards: ArrayLike, is_fraud: ArrayLike, score: ArrayLike, *, k: int = 100) -> dict[str, float]:
    """Return AUC, average precision, P@k and CP@k (the last two as means over the days) of one test period.

    Raises
    ------
    ValueError
        If the rows hold no fraud or nothing else: the measures are not defined then.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    day = _days(days)
    fraud, margin = _labels_scores(is_fraud, score)
    if not 0 < fraud.sum() < len(fraud):
        raise ValueError(f"{int(fraud.sum())} of {len(fraud)} rows are fraud; AUC and average precision need both kinds")
    daily = [precision_at(k, fraud[day == today], margin[day == today]) for today in np.unique(day)]
    return {
        "auc": float(roc_auc_score(fraud, margin)),
        "ap": float(average_precision_score(fraud, margin)),
        f"precision_at_{k}": float(np.mean(daily)),
        f"card_precision_at_{k}": float(card_precision_at(k, day, cards, fraud, margin).mean()),
    }


def _days(days: ArrayLike) -> NDArray[np.datetime64]:
    return np.asarray(days).astype("datetime64[D]")


def _between(day: NDArray[np.datetime64], first: date, last: date) -> Mask:
    return (day >= np.datetime64(first, "D")) & (day <= np.datetime64(last, "D"))


def _labels_scores(is_fraud: ArrayLike, score: ArrayLike) -> tuple[Mask, NDArray[np.float64]]:
    fraud, margin = np.asarray(is_fraud).astype(bool), np.asarray(score, dtype=np.float64)
    if fraud.shape != margin.shape:
        raise ValueError(f"labels have the shape {fraud.shape}, scores {margin.shape}: one score per label is needed")
    if not np.isfinite(margin).all():
        raise ValueError(f"{int((~np.isfinite(margin)).sum())} scores are not finite: they cannot be ranked")
    return fraud, margin


def _positive(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return k
