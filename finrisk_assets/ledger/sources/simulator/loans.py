"""Loans: the applicants, the times, and a default probability that follows from the ledger before the application."""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.causes import Causes, MovementHistory
from finrisk_assets.ledger.sources.simulator.intercepts import intercept_for
from finrisk_assets.ledger.sources.simulator.population.calendar import HouseholdMonths
from finrisk_assets.ledger.sources.simulator.population.economy import DAY, HOUR, LoanEffects
from finrisk_assets.ledger.sources.simulator.population.households import sigmoid
from finrisk_assets.ledger.sources.simulator.population.people import People, Town
from finrisk_assets.scoring.annuity import instalment

TERMS = np.array([6, 12, 24, 36, 48, 60])
TERM_SHARES = (0.06, 0.2, 0.28, 0.22, 0.14, 0.1)
_YEAR = 365 * DAY


@dataclass(frozen=True)
class Loans:
    """Loans in order of application, one element each; times in seconds since the start, money in currency.

    `true_pd` is the probability that the default was drawn with; `ledger_pd` is the best estimate from the ledger and the application,
    without the hidden cause.
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


def simulate_loans(
    town: Town, people: People, months: HouseholdMonths, history: MovementHistory, intercept: float | None
) -> tuple[Loans, float]:
    """Draw the loans and their outcomes within a year of granting; `intercept` as in `fraud.add_fraud`."""
    economy, rng, effects = town.economy, town.rng("loans"), town.economy.loans
    customer, applied = draw_times(town, people, rng, economy.loans_per_customer, 1.4 - people.discipline)
    n = len(customer)
    causes = history.causes(people, customer, applied)
    employed = employed_months(town, people, months, customer, applied)
    amount, term = draw_terms(causes, rng)
    rate = np.round(np.clip(6.5 + 3 * causes.expense_ratio + 0.3 * causes.penalties + rng.normal(0, 1.2, n), 3.9, 19.9), 2)
    monthly = np.round(instalment(amount, rate, term), 2)
    logit = default_logit(causes, employed, effects) + burden_slope(effects) * np.minimum(monthly / causes.monthly_income, 1)
    logit = logit + rng.normal(0, effects.noise, n)
    if intercept is None:
        intercept = intercept_for(logit, economy.default_rate)
    true_pd = sigmoid(intercept + logit)
    is_default = rng.random(n) < true_pd
    known_at = applied + np.where(is_default, rng.integers(60 * DAY, _YEAR, n), _YEAR)
    stated = np.rint(people.income[customer] * rng.lognormal(0.03, 0.08, n) / 50) * 50
    ledger_pd = sigmoid((intercept + logit) / averaging_divisor(effects.noise))
    lent = Loans(customer, applied, amount, term, monthly, rate, stated, employed, is_default, known_at, true_pd, ledger_pd)
    return lent, intercept


def default_logit(causes: Causes, employed: np.ndarray, effects: LoanEffects) -> np.ndarray:
    """Return the logit of a default from the ledger's causes, without the intercept and the burden of an instalment."""
    return (
        effects.expense_ratio * 10 * (causes.expense_ratio - 1)
        + effects.penalties * causes.penalties
        + effects.irregularity * 10 * causes.irregularity
        + effects.low_balance * 10 * causes.low_balance
        + effects.employed * np.log2(1 + employed / 12)
    )


def burden_slope(effects: LoanEffects) -> float:
    """Return the rise of the default logit per unit of instalment to monthly income."""
    return effects.burden * 10


def averaging_divisor(noise: float) -> float:
    """Return the divisor of a logit that averages over a hidden normal cause (MacKay 1992: the probit approximation)."""
    return float(np.sqrt(1 + np.pi / 8 * noise**2))


def draw_terms(causes: Causes, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw amounts around two months' income, and months to repay."""
    n = len(causes.monthly_income)
    amount = np.rint(np.clip(causes.monthly_income * rng.lognormal(0.8, 0.7, n), 500, 60_000) / 100) * 100
    return amount, rng.choice(TERMS, n, p=TERM_SHARES)


def draw_times(
    town: Town, people: People, rng: np.random.Generator, per_customer: float, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw customers by weight and times in office hours, in order of time; none in the first months of an account."""
    economy = town.economy
    wait = int(economy.month_days[min(economy.first_application_month, economy.n_months)])
    first = np.maximum(people.opened // DAY, 0) + wait
    weight = weight * np.maximum(economy.n_days - first, 0)
    n_loans = round(per_customer * len(people)) if weight.any() else 0
    if n_loans == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    customer = rng.choice(len(people), n_loans, p=weight / weight.sum())
    day = (first[customer] + rng.random(n_loans) * (economy.n_days - first[customer])).astype(np.int64)
    times = day * DAY + rng.integers(8 * HOUR, 20 * HOUR, n_loans)
    order = np.lexsort((customer, times))
    return customer[order], times[order]


def employed_months(town: Town, people: People, months: HouseholdMonths, customer: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the full months in the present job or trade; 0 out of work."""
    economy = town.economy
    month = np.searchsorted(economy.month_days * DAY, times, side="right") - 1
    idle = np.where(months.is_open & ~months.working, np.arange(economy.n_months), -1)
    last_idle = np.maximum.accumulate(idle, axis=1)[customer, month]
    since = np.where(last_idle >= 0, economy.month_days[last_idle + 1] * DAY, people.hired[customer])
    return np.maximum(times - since, 0) // (30 * DAY)
