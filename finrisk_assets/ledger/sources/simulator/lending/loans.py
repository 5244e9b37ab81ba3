"""Loans: each is played month by month, and what happened in the first twelve months is the ledger's outcome."""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.lending import applicants as borrowers
from finrisk_assets.ledger.sources.simulator.lending import repayment
from finrisk_assets.ledger.sources.simulator.lending.intercepts import find_intercept
from finrisk_assets.ledger.sources.simulator.lending.repayment import Course, Limits, Outlook
from finrisk_assets.ledger.sources.simulator.population.calendar import HouseholdMonths
from finrisk_assets.ledger.sources.simulator.population.economy import DAY
from finrisk_assets.ledger.sources.simulator.population.people import People, Town

OUTCOME_MONTHS = 12

FORM_SHARE = 0.8
"""Share of the applications that come with a filled form; the others are made in the bank's own app, which asks for the terms alone."""

_YEAR = 365 * DAY
_MONTH = _YEAR // 12


@dataclass(frozen=True)
class Loans:
    """Loans in order of application, one element each; times in seconds since the start, money in currency.

    `true_pd` is the probability of a default within twelve months, given the hidden state at the application; `course` is what happens over
    the whole term, and `limits` what would happen at other terms. `has_form` says whether the income and the employment were stated.
    """

    customer: np.ndarray
    applied: np.ndarray
    amount: np.ndarray
    term_months: np.ndarray
    instalment: np.ndarray
    annual_rate_pct: np.ndarray
    stated_income: np.ndarray
    employed_months: np.ndarray
    has_form: np.ndarray
    is_default: np.ndarray
    known: np.ndarray
    true_pd: np.ndarray
    outlook: Outlook
    limits: Limits
    course: Course
    recovery_share: np.ndarray


def simulate_loans(town: Town, people: People, months: HouseholdMonths, intercept: float | None) -> tuple[Loans, float]:
    """Draw the loans and play them.

    Parameters
    ----------
    intercept
        Of the default's logit; None finds the one that gives `Economy.default_rate`.
    """
    economy, rng, effects = town.economy, town.rng("loans"), town.economy.loans
    applicants = borrowers.draw_applicants(town, people, months, rng, economy.loans_per_customer, 1.4 - people.discipline)
    n, customer = len(applicants), applicants.customer
    outlook = borrowers.find_outlook(applicants, people, effects, 0.0)
    amount = borrowers.draw_amounts(applicants.income, rng)
    term = borrowers.choose_terms(applicants, amount, rng)
    rate = draw_rates(outlook.pressure - effects.debts * applicants.debts, rng)
    instalment = repayment.find_instalment(amount, rate, term)

    def find_pd(shift: float) -> np.ndarray:
        shifted = borrowers.shift(outlook, shift)
        expected = repayment.expect_course(shifted, instalment, rate, term, effects, economy.household, OUTCOME_MONTHS)
        return expected.default.sum(axis=1)

    if intercept is None:
        quiet = borrowers.is_before_shock(town, applicants)
        intercept = find_intercept(lambda shift: find_pd(shift)[quiet].mean() if n else 1.0, economy.default_rate)
    true_pd, outlook = find_pd(intercept), borrowers.shift(outlook, intercept)
    limits = repayment.draw_limits(outlook, borrowers.find_months(applicants, months), effects, rng)
    course = repayment.play(limits, instalment, rate, term)
    is_default = (course.default_month != repayment.NEVER) & (course.default_month <= OUTCOME_MONTHS)
    at = applicants.second + course.default_month * _MONTH - rng.integers(0, 28 * DAY, n)
    lent = Loans(
        customer=customer,
        applied=applicants.second,
        amount=amount,
        term_months=term,
        instalment=instalment,
        annual_rate_pct=rate,
        stated_income=np.rint(people.income[customer] * rng.lognormal(0.03, 0.08, n) / 50) * 50,
        employed_months=borrowers.count_employed_months(town, people, months, applicants),
        has_form=rng.random(n) < FORM_SHARE,
        is_default=is_default,
        known=np.where(is_default, at, applicants.second + _YEAR),
        true_pd=true_pd,
        outlook=outlook,
        limits=limits,
        course=course,
        recovery_share=draw_recoveries(effects.loss_given_default, rng, n),
    )
    return lent, intercept


def draw_rates(visible_pressure: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the bank's yearly rates in percent: higher for whom it sees under pressure, and never quite the same."""
    return np.round(np.clip(10.0 + 1.8 * visible_pressure + rng.normal(0, 1.5, len(visible_pressure)), 3.9, 24.9), 2)


def draw_recoveries(loss_given_default: float, rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw the share of the exposure that is paid after a default, around its mean (a beta distribution of four pseudo-observations)."""
    mean = 1 - loss_given_default
    return rng.beta(4 * mean, 4 * (1 - mean), size) if 0 < mean < 1 else np.full(size, mean)
