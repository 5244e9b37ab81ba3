"""Causes of a default and of accepting an offer, from the ledger strictly before a given time."""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.fraud import Ledger
from finrisk_assets.ledger.sources.simulator.population.economy import CODE, DAY
from finrisk_assets.ledger.sources.simulator.population.people import People

_QUARTER, _HALF, _MONTH = 90 * DAY, 180 * DAY, 30 * DAY
_INCOME_MONTHS = 4


@dataclass(frozen=True)
class Causes:
    """The causes, one element per customer and time; money in currency.

    Attributes
    ----------
    monthly_income
        A third of the income of the last 90 days, at least 0.3 of the declared one.
    expense_ratio
        Expenses to income over the last 90 days, from 0.3 to 2.
    penalties, returned
        Overdraft penalties and returned payments of the last 180 days, at most six each.
    irregularity
        Coefficient of variation of income over the last four times 30 days, at most 1.5.
    low_balance
        Share of the last 90 days' transactions that left less than a tenth of the mean monthly income of these days.
    balance
        Balance just before the time.
    """

    monthly_income: np.ndarray
    expense_ratio: np.ndarray
    penalties: np.ndarray
    returned: np.ndarray
    irregularity: np.ndarray
    low_balance: np.ndarray
    balance: np.ndarray


class MovementHistory:
    """Sums over each customer's movements before a moment, by prefix sums over the ledger in order of customer and time."""

    def __init__(self, ledger: Ledger) -> None:
        movements = ledger.events
        order = np.argsort(movements.customer, kind="stable")
        self._span = np.int64(movements.second.max(initial=0) + 2 * _HALF)
        self._key = movements.customer[order] * self._span + movements.second[order]
        self._balance = ledger.balance[order]
        cents, category = movements.cents[order].astype(np.float64), movements.category[order]
        earned = np.isin(category, [CODE["salary"], CODE["self_employment"], CODE["benefits"]])
        self._sums = {
            "income": _prefix(cents * earned / 100),
            "expense": _prefix(cents * (movements.sign[order] < 0) / 100),
            "penalties": _prefix(category == CODE["penalty"]),
            "returned": _prefix(category == CODE["returned_payment"]),
        }

    def causes(self, people: People, customer: np.ndarray, times: np.ndarray) -> Causes:
        """Return the causes at each time (seconds since the start)."""
        now = self._rows(customer, times, "left")
        quarter, half = self._after(customer, times - _QUARTER), self._after(customer, times - _HALF)
        income = self._between("income", quarter, now)
        bounds = [now, *(self._after(customer, times - (k + 1) * _MONTH) for k in range(_INCOME_MONTHS))]
        months = np.stack([self._between("income", bounds[k + 1], bounds[k]) for k in range(_INCOME_MONTHS)])
        return Causes(
            monthly_income=np.maximum(income / 3, 0.3 * people.income[customer]),
            expense_ratio=np.clip(self._between("expense", quarter, now) / np.maximum(income, 1), 0.3, 2.0),
            penalties=np.minimum(self._between("penalties", half, now), 6),
            returned=np.minimum(self._between("returned", half, now), 6),
            irregularity=np.minimum(months.std(axis=0) / np.maximum(months.mean(axis=0), 1), 1.5),
            low_balance=self._low_share(quarter, now, income / 30),
            balance=self._balance[np.maximum(now - 1, 0)] / 100,
        )

    def _rows(self, customer: np.ndarray, times: np.ndarray, side: str) -> np.ndarray:
        return np.searchsorted(self._key, customer * self._span + np.maximum(times, 0), side=side)  # type: ignore[call-overload]

    def _after(self, customer: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return the first row after a time; before the ledger, the customer's first row."""
        return np.where(times < 0, self._rows(customer, np.zeros_like(times), "left"), self._rows(customer, times, "right"))

    def _between(self, what: str, first: np.ndarray, end: np.ndarray) -> np.ndarray:
        return self._sums[what][end] - self._sums[what][first]

    def _low_share(self, first: np.ndarray, end: np.ndarray, bound: np.ndarray) -> np.ndarray:
        """Return the share of the rows from `first` to `end` with a balance below the bound."""
        size = end - first
        which = np.repeat(np.arange(len(size)), size)
        row = np.arange(len(which)) - np.repeat(np.cumsum(size) - size, size) + first[which]
        low = np.bincount(which, self._balance[row] < 100 * bound[which], len(size))
        return low / np.maximum(size, 1)


def _prefix(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
