"""Loans: who applies and when, and a default probability that follows from the ledger up to the application."""

from dataclasses import dataclass

import numpy as np

from .balances import Ledger
from .economy import CODE, DAY, HOUR, Economy
from .people import People

_YEAR = 365 * DAY


@dataclass(frozen=True)
class Loans:
    """Loans in order of application, one element each; times in seconds since the start, money in currency.

    `true_pd` is the probability that the dice were thrown with; `ledger_pd` the best that anyone can know who sees the
    ledger and the application but not the hidden cause.
    """

    customer: np.ndarray
    applied: np.ndarray
    amount: np.ndarray
    term_months: np.ndarray
    instalment: np.ndarray
    annual_rate_pct: np.ndarray
    stated_income: np.ndarray
    employed_months: np.ndarray
    is_default: np.ndarray
    known: np.ndarray
    true_pd: np.ndarray
    ledger_pd: np.ndarray


def lend(economy: Economy, people: People, ledger: Ledger) -> Loans:
    """Draw the loans and their outcomes within a year of granting."""
    rng = economy.rng("loans")
    customer, applied = _applications(economy, people, rng)
    n = len(customer)
    history = History(people, ledger)
    causes = history.causes(customer, applied)
    employed = _employed_months(economy, people, customer, applied)
    monthly_income = np.maximum(causes["income"] / 3, 0.3 * people.income[customer])
    amount = np.rint(np.clip(monthly_income * rng.lognormal(0.8, 0.7, n), 500, 60_000) / 100) * 100
    term = rng.choice([6, 12, 24, 36, 48, 60], n, p=[0.06, 0.2, 0.28, 0.22, 0.14, 0.1])
    rate = np.round(np.clip(6.5 + 3 * causes["expense_ratio"] + 0.3 * causes["penalties"] + rng.normal(0, 1.2, n), 3.9, 19.9), 2)
    monthly = rate / 1200
    instalment = np.round(amount * monthly / (1 - (1 + monthly) ** -term.astype(np.float64)), 2)

    effect = economy.loans
    seen = (
        effect.expense_ratio * 10 * (causes["expense_ratio"] - 1)
        + effect.penalties * causes["penalties"]
        + effect.irregularity * 10 * causes["irregularity"]
        + effect.burden * 10 * np.minimum(instalment / monthly_income, 1)
        + effect.low_balance * 10 * causes["low_balance"]
        + effect.employed * np.log2(1 + employed / 12)
    )
    logit = seen + rng.normal(0, effect.noise, n)
    intercept = _intercept(logit, economy.default_rate)
    true_pd = _sigmoid(intercept + logit)
    is_default = rng.random(n) < true_pd
    ledger_pd = _sigmoid((intercept + seen) / np.sqrt(1 + np.pi / 8 * effect.noise**2))
    known = applied + np.where(is_default, rng.integers(60 * DAY, _YEAR, n), _YEAR)
    stated = np.rint(people.income[customer] * rng.lognormal(0.03, 0.08, n) / 50) * 50
    return Loans(customer, applied, amount, term, instalment, rate, stated, employed, is_default, known, true_pd, ledger_pd)


class History:
    """Sums over each customer's movements before a moment, by prefix sums over the ledger in order of customer and time."""

    def __init__(self, people: People, ledger: Ledger) -> None:
        made = ledger.events
        order = np.argsort(made.customer, kind="stable")
        self._span = np.int64(made.second.max() + _YEAR) if len(made) else np.int64(_YEAR)
        self._key = made.customer[order] * self._span + made.second[order]
        cents, category = made.cents[order].astype(np.float64), made.category[order]
        earned = np.isin(category, [CODE["salary"], CODE["self_employment"], CODE["benefits"]])
        low = ledger.balance[order] < 10 * people.income[made.customer[order]]
        self._sums = {
            "income": _prefix(cents * earned / 100),
            "expense": _prefix(cents * (made.sign[order] < 0) / 100),
            "penalties": _prefix(category == CODE["penalty"]),
            "low": _prefix(low),
            "rows": _prefix(np.ones(len(made))),
        }

    def total(self, what: str, customer: np.ndarray, since: np.ndarray, until: np.ndarray) -> np.ndarray:
        """Sum of `what` over ``[since, until)``, per customer."""
        first = np.searchsorted(self._key, customer * self._span + np.maximum(since, 0))
        last = np.searchsorted(self._key, customer * self._span + np.maximum(until, 0))
        return self._sums[what][last] - self._sums[what][first]

    def causes(self, customer: np.ndarray, applied: np.ndarray) -> dict[str, np.ndarray]:
        """The causes of a default as the ledger shows them at the application; see `LoanEffects` for their windows."""
        quarter, half = applied - 90 * DAY, applied - 180 * DAY
        income = self.total("income", customer, quarter, applied)
        expense = self.total("expense", customer, quarter, applied)
        rows = self.total("rows", customer, quarter, applied)
        months = np.stack(
            [self.total("income", customer, applied - 30 * (k + 1) * DAY, applied - 30 * k * DAY) for k in range(4)]
        )
        mean = months.mean(axis=0)
        return {
            "income": income,
            "expense_ratio": np.clip(expense / np.maximum(income, 1), 0.3, 2.0),
            "penalties": np.minimum(self.total("penalties", customer, half, applied), 6),
            "irregularity": np.minimum(months.std(axis=0) / np.maximum(mean, 1), 1.5),
            "low_balance": self.total("low", customer, quarter, applied) / np.maximum(rows, 1),
        }


def _applications(economy: Economy, people: People, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Who applies and when, in office hours; those who spend more borrow more, and nobody in their first months."""
    wait = int(economy.month_days[min(economy.first_application_month, economy.n_months)])
    first = np.maximum(people.opened // DAY, 0) + wait
    weight = (1.4 - people.discipline) * np.maximum(economy.n_days - first, 0)
    wanted = round(economy.loans_per_customer * len(people)) if weight.any() else 0
    if wanted == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    customer = rng.choice(len(people), wanted, p=weight / weight.sum())
    day = (first[customer] + rng.random(wanted) * (economy.n_days - first[customer])).astype(np.int64)
    applied = day * DAY + rng.integers(8 * HOUR, 20 * HOUR, wanted)
    order = np.lexsort((customer, applied))
    return customer[order], applied[order]


def _employed_months(economy: Economy, people: People, customer: np.ndarray, applied: np.ndarray) -> np.ndarray:
    """Full months in the present job or trade at the application; 0 out of work."""
    month = np.searchsorted(economy.month_days * DAY, applied, side="right") - 1
    number = np.arange(economy.n_months)
    idle = np.where(~people.working, number, -1)
    last_idle = np.maximum.accumulate(idle, axis=1)[customer, month]
    since = np.where(last_idle >= 0, economy.month_days[last_idle + 1] * DAY, people.hired[customer])
    return np.maximum(applied - since, 0) // (30 * DAY)


def _intercept(logit: np.ndarray, rate: float) -> float:
    """The intercept at which the mean probability is `rate`, by bisection."""
    low, high = -60.0, 60.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if len(logit) and _sigmoid(middle + logit).mean() < rate else (low, middle)
    return (low + high) / 2


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _prefix(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
