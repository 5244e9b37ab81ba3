"""Applicants: who applies or is offered a loan, when, and what is hidden about the household by then."""

from dataclasses import dataclass, replace

import numpy as np

from finrisk_assets.ledger.sources.simulator.lending.repayment import LONGEST_MONTHS, Months, Outlook
from finrisk_assets.ledger.sources.simulator.population.calendar import HouseholdMonths, choose_rows
from finrisk_assets.ledger.sources.simulator.population.economy import DAY, HOUR, LoanEffects
from finrisk_assets.ledger.sources.simulator.population.people import People, Town

TERMS = np.array([6, 12, 24, 36, 48, 60])
TERM_SHARES = (0.06, 0.2, 0.28, 0.22, 0.14, 0.1)


@dataclass(frozen=True)
class Applicants:
    """Applicants, one element each, in order of time: households as they stand before the month of the application.

    Attributes
    ----------
    customer, month
        Customer, and month of the ledger.
    second
        Seconds since the economy's start.
    income
        True usual monthly income, in currency.
    saved, overcommitted, strain, debts
        As in `households.State`.
    salaried, working
        Whether the person earns a salary, and has a job in the month of the application.
    """

    customer: np.ndarray
    month: np.ndarray
    second: np.ndarray
    income: np.ndarray
    saved: np.ndarray
    overcommitted: np.ndarray
    strain: np.ndarray
    debts: np.ndarray
    salaried: np.ndarray
    working: np.ndarray

    def __len__(self) -> int:
        return len(self.customer)


def draw_applicants(
    town: Town, people: People, months: HouseholdMonths, rng: np.random.Generator, per_customer: float, weight: np.ndarray
) -> Applicants:
    """Draw customers by weight and times in office hours; none in the first months of an account."""
    customer, second = _draw_times(town, people, rng, per_customer, weight)
    month = np.searchsorted(town.economy.month_days * DAY, second, side="right") - 1
    return Applicants(
        customer=customer,
        month=month,
        second=second,
        income=choose_rows(lambda state: state.usual, months, customer, month) / 100,
        saved=choose_rows(lambda state: state.saved, months, customer, month),
        overcommitted=choose_rows(lambda state: state.overcommitted, months, customer, month),
        strain=choose_rows(lambda state: state.strain, months, customer, month),
        debts=people.debts[customer],
        salaried=people.salaried[customer],
        working=months.working[customer, month],
    )


def find_outlook(applicants: Applicants, people: People, effects: LoanEffects, intercept: float) -> Outlook:
    """Return the applicants' outlook: the pressure now, and the one with the wanted buffer and nothing missed."""
    always = (
        intercept
        + effects.committed * 10 * applicants.overcommitted
        + effects.debts * applicants.debts
        + effects.irregular * ~applicants.salaried
    )
    return Outlook(
        true_income_amount=applicants.income,
        pressure=always + effects.short * _short(applicants.saved) + effects.strain * applicants.strain,
        lasting_pressure=always + effects.short * _short(people.buffer[applicants.customer]),
        is_salaried=applicants.salaried,
        is_working=applicants.working,
    )


def shift(outlook: Outlook, by: float) -> Outlook:
    """Return the outlook with every pressure higher by a number."""
    return replace(outlook, pressure=outlook.pressure + by, lasting_pressure=outlook.lasting_pressure + by)


def find_months(applicants: Applicants, months: HouseholdMonths) -> Months:
    """Return the applicants' own months; the first is the one after the application."""
    ahead = applicants.month[:, None] + 1 + np.arange(LONGEST_MONTHS)
    household = applicants.customer[:, None]
    return Months(
        is_idle=~months.working[household, ahead],
        has_mishap=months.has_mishap[household, ahead],
        income=months.lasting[ahead] / months.lasting[applicants.month][:, None],
    )


def is_before_shock(town: Town, applicants: Applicants) -> np.ndarray:
    """Return which applicants come before the shock, so that the rates asked for are those of quiet times; all where none does."""
    before = applicants.month + 1 < (town.economy.shock_month or np.inf)
    return before if before.any() else ~before


def draw_amounts(income: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw amounts around two months' income, in currency."""
    return np.rint(np.clip(income * rng.lognormal(0.8, 0.7, len(income)), 500, 60_000) / 100) * 100


def choose_terms(applicants: Applicants, amount: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the shortest term that the budget bears, or the longest: large loans and tight budgets need long ones."""
    tight = 1.5 * applicants.overcommitted + 0.15 * _short(applicants.saved)
    bearable = 0.16 * np.exp(rng.normal(0, 0.3, len(amount)) - tight)
    needed = amount / (applicants.income * bearable)
    return TERMS[np.minimum(np.searchsorted(TERMS, needed), len(TERMS) - 1)]


def draw_terms(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw months to repay that no need explains."""
    return rng.choice(TERMS, size, p=TERM_SHARES)


def count_employed_months(town: Town, people: People, months: HouseholdMonths, applicants: Applicants) -> np.ndarray:
    """Return the full months in the present job or trade; 0 out of work."""
    economy = town.economy
    idle = np.where(months.is_open & ~months.working[:, : economy.n_months], np.arange(economy.n_months), -1)
    last_idle = np.maximum.accumulate(idle, axis=1)[applicants.customer, applicants.month]
    hired = people.hired[applicants.customer]
    latest = np.where(hired <= applicants.second[:, None], hired, np.iinfo(np.int64).min).max(axis=1)
    since = np.maximum(latest, np.where(last_idle >= 0, economy.month_days[last_idle + 1] * DAY, latest))
    return np.maximum(applicants.second - since, 0) // (30 * DAY)


def _short(saved: np.ndarray) -> np.ndarray:
    """Return the months of income that are missing to one month's buffer, at most two."""
    return np.clip(1 - saved, 0, 2)


def _draw_times(
    town: Town, people: People, rng: np.random.Generator, per_customer: float, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
