"""Test periods in sequence, each trained only on days whose labels were known before it began (prequential validation).

Periods and masks belong here; metrics are in `fraud_metrics`. The protocol is that of Le Borgne, Siblini, Lebichot and Bontempi,
*Reproducible Machine Learning for Credit Card Fraud Detection: Practical Handbook* (2022), chapter 5.
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
        First day whose frauds count when a card becomes known as compromised.
    delay_days
        Days until a label is known: on ``day``, only labels of days before ``day - delay_days`` are known.
    """

    train_start: date
    train_end: date
    test_start: date
    test_end: date
    known_since: date
    delay_days: int

    @property
    def test_days(self) -> tuple[date, ...]:
        """The test days, in order."""
        return tuple(self.test_start + timedelta(days=k) for k in range((self.test_end - self.test_start).days + 1))

    def train_mask(self, days: ArrayLike) -> Mask:
        """Mark the rows of the training days; `days` are the rows' days (datetime64, shape (n,))."""
        return _between(_to_days(days), self.train_start, self.train_end)


def prequential_periods(
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
        First day of the first test period; each further period begins where the previous period ended.
    n_periods, train_days, delay_days, test_days
        Number of periods, and their lengths in days.
    history_start
        With it, every training period begins on this day and grows, so that a model learns from all history. Which cards are known to be
        compromised still depends on the last `train_days` only, so that models with short and long memories are tested on the same rows.

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


def mask_test_rows(period: Period, days: ArrayLike, cards: ArrayLike, is_fraud: ArrayLike) -> Mask:
    """Mark the rows to test on: those of the test days whose card is not yet known to be compromised.

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
    row_days = _to_days(days)
    mask = _between(row_days, period.known_since, period.test_end)  # other rows cannot matter
    rows = np.flatnonzero(mask)
    day, fraud = row_days[rows], np.asarray(is_fraud)[rows].astype(bool)
    _, card = np.unique(np.asarray(cards)[rows], return_inverse=True)
    first_fraud = np.full(card.max(initial=-1) + 1, np.datetime64("9999-12-31", "D"))
    np.minimum.at(first_fraud, card[fraud], day[fraud])
    is_unknown = day - first_fraud[card] <= np.timedelta64(period.delay_days, "D")
    mask[rows] = _between(day, period.test_start, period.test_end) & is_unknown
    return mask


def _to_days(days: ArrayLike) -> NDArray[np.datetime64]:
    return np.asarray(days).astype("datetime64[D]")


def _between(day: NDArray[np.datetime64], first: date, last: date) -> Mask:
    return (day >= np.datetime64(first, "D")) & (day <= np.datetime64(last, "D"))
