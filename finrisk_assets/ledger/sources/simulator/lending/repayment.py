"""The course of a loan: default and repayment in full, month by month, from the borrower's hidden state.

A default begins with `MISSED_INSTALMENTS` instalments in a row that are not paid, and happens in the month of the last of them. In month k
of a loan its logit is

    pressure_k + burden * instalment / income + idle (out of work) + mishap (a large unplanned expense)

where the pressure moves from the one at the application to the lasting one. Jobs and mishaps are those of the household's own months, so a
loan goes wrong when the household does. Every month has one uniform number, whatever the terms (common random numbers). So a month has
one instalment that the borrower can just bear, and one rate below which the borrower keeps the loan: `Limits`. They tell what would
happen at any amount, rate and term.

This module shares no code with the valuation of loans that it is there to judge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.ledger.sources.simulator.population.economy import HouseholdEffects, LoanEffects
from finrisk_assets.ledger.sources.simulator.population.households import sigmoid

LONGEST_MONTHS = 60
MISSED_INSTALMENTS = 3
NEVER = 0
"""In place of a month: it does not happen."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outlook:
    """The hidden state of borrowers as they apply; one element each. The truth tables have columns of these names.

    Attributes
    ----------
    true_income_amount
        True usual monthly income while in work, in currency.
    pressure, lasting_pressure
        Logit of a default in a month without an instalment, in work and without a mishap: at the application, and the one that the
        household tends to.
    is_salaried, is_working
        Whether the borrower can lose a job, and has one.
    """

    true_income_amount: Floats
    pressure: Floats
    lasting_pressure: Floats
    is_salaried: NDArray[np.bool_]
    is_working: NDArray[np.bool_]

    @classmethod
    def from_columns(cls, columns: "Mapping[str, np.ndarray]") -> "Outlook":
        """Return the outlook from the columns of a truth table, such as a pandas frame."""
        return cls(**{field.name: np.asarray(columns[field.name]) for field in fields(cls)})

    def pressure_in(self, month: int, fading: float) -> Floats:
        """Return the pressure in a month of the loan, counted from 1."""
        return np.asarray(self.lasting_pressure + fading**month * (self.pressure - self.lasting_pressure))


@dataclass(frozen=True)
class Months:
    """The households' own months from the first month of each loan on; shape ``(n, LONGEST_MONTHS)``.

    Attributes
    ----------
    is_idle, has_mishap
        Whether the borrower is out of work, and whether a mishap happens.
    income
        The true long-run income as a share of that at the application; other than 1 after a shock.
    """

    is_idle: NDArray[np.bool_]
    has_mishap: NDArray[np.bool_]
    income: Floats


@dataclass(frozen=True)
class Limits:
    """The largest instalment and rate that each borrower bears in each month of a loan; shape ``(n, LONGEST_MONTHS)``.

    Attributes
    ----------
    instalment
        A loan with a larger instalment defaults in this month, in currency.
    rate
        A loan with a higher rate is repaid in full in this month, in percent a year.
    """

    instalment: Floats
    rate: Floats

    @classmethod
    def from_columns(cls, contracts: np.ndarray, columns: "Mapping[str, np.ndarray]") -> "Limits":
        """Return the limits of loans or offers from the columns of ``truth_limits``, such as a pandas frame.

        Parameters
        ----------
        contracts
            Identifiers of the loans or offers, shape ``(n,)``, each once; the limits are in this order.
        columns
            ``contract_id``, ``event``, ``month`` and ``limit``; rows of other contracts are left out. A month that is not listed bears as
            much as the last one listed before it.
        """
        if not len(contracts):
            return cls(np.empty((0, LONGEST_MONTHS)), np.empty((0, LONGEST_MONTHS)))
        order = np.argsort(np.asarray(contracts).astype(str))
        names = np.asarray(contracts).astype(str)[order]
        listed, event = (np.asarray(columns[name]).astype(str) for name in ("contract_id", "event"))
        place = np.minimum(np.searchsorted(names, listed), len(names) - 1)
        bounds = []
        for wanted in ("default", "prepayment"):
            rows = np.flatnonzero((names[place] == listed) & (event == wanted))
            bound = np.full((len(names), LONGEST_MONTHS), np.inf)
            bound[order[place[rows]], np.asarray(columns["month"])[rows] - 1] = np.asarray(columns["limit"])[rows]
            bounds.append(np.minimum.accumulate(bound, axis=1))
        return cls(*bounds)


@dataclass(frozen=True)
class Course:
    """The course of loans: the month of the default and of the repayment in full, counted from 1, or ``NEVER``; at most one of them."""

    default_month: NDArray[np.int64]
    prepaid_month: NDArray[np.int64]


@dataclass(frozen=True)
class ExpectedCourse:
    """The probability that a loan defaults, and that it is repaid in full early, in each month; shape ``(n, LONGEST_MONTHS)``."""

    default: Floats
    prepaid: Floats


def find_instalment(amount: np.ndarray, annual_rate_pct: np.ndarray, term_months: np.ndarray) -> Floats:
    """Return the monthly instalment of an annuity, to the cent."""
    monthly = np.asarray(annual_rate_pct, np.float64) / 1200
    factor = np.where(monthly > 0, monthly / -np.expm1(-np.asarray(term_months) * np.log1p(monthly)), 1 / np.asarray(term_months))
    return np.asarray(np.round(amount * factor, 2))


def draw_limits(outlook: Outlook, months: Months, effects: LoanEffects, rng: np.random.Generator) -> Limits:
    """Draw each month's uniform numbers and return what the borrowers bear."""
    shape = months.is_idle.shape
    strength, freedom = _logit(rng.random(shape)), _logit(rng.random(shape))
    pressure = np.stack([outlook.pressure_in(k, effects.fading) for k in range(1, shape[1] + 1)], axis=1)
    room = strength - pressure - effects.idle * months.is_idle - effects.mishap * months.has_mishap
    return Limits(
        instalment=room / (10 * effects.burden) * outlook.true_income_amount[:, None] * months.income,
        rate=effects.market_rate_pct + (freedom - effects.prepaid_base) / effects.prepaid_rate,
    )


def play(limits: Limits, instalment: np.ndarray, annual_rate_pct: np.ndarray, term_months: np.ndarray) -> Course:
    """Play loans at any terms, one per row of the limits.

    Parameters
    ----------
    instalment, annual_rate_pct, term_months
        Shape ``(n,)``, in currency a month, percent a year and months up to `LONGEST_MONTHS`.
    """
    month = np.arange(1, LONGEST_MONTHS + 1)
    term = np.asarray(term_months)[:, None]
    fails = (np.asarray(instalment)[:, None] > limits.instalment) & (month >= MISSED_INSTALMENTS) & (month <= term)
    leaves = (np.asarray(annual_rate_pct)[:, None] > limits.rate) & (month < term)
    default, prepaid = _first(fails), _first(leaves)
    is_default = (default != NEVER) & ((prepaid == NEVER) | (default <= prepaid))
    return Course(np.where(is_default, default, NEVER), np.where(is_default, NEVER, prepaid))


def expect_course(
    outlook: Outlook,
    instalment: np.ndarray,
    annual_rate_pct: np.ndarray,
    term_months: np.ndarray,
    loans: LoanEffects,
    household: HouseholdEffects,
    n_months: int = LONGEST_MONTHS,
) -> ExpectedCourse:
    """Return what one who knows the hidden state expects of loans at any terms, exactly: jobs and mishaps are summed over.

    A later shock is not foreseen. Parameters as in `play`; `n_months` bounds the months that are computed.
    """
    n, month_term = len(outlook.pressure), np.asarray(term_months)
    burden = 10 * loans.burden * np.asarray(instalment) / outlook.true_income_amount
    leaving = sigmoid(loans.prepaid_base + loans.prepaid_rate * (np.asarray(annual_rate_pct) - loans.market_rate_pct))
    working = np.asarray(outlook.is_working, np.float64)
    idle = 1 - working
    default, prepaid = np.zeros((n, n_months)), np.zeros((n, n_months))
    mishap = household.mishap_rate
    for k in range(1, n_months + 1):
        lost = np.where(outlook.is_salaried, household.job_loss_rate, 0.0) * working
        back = np.where(outlook.is_salaried, household.job_found_rate, 1.0) * idle
        working, idle = working - lost + back, idle + lost - back
        if k >= MISSED_INSTALMENTS:
            logit = outlook.pressure_in(k, loans.fading) + burden
            fails = [(1 - mishap) * sigmoid(logit + more) + mishap * sigmoid(logit + more + loans.mishap) for more in (0.0, loans.idle)]
            runs = k <= month_term
            failed = np.where(runs, working * fails[0], 0), np.where(runs, idle * fails[1], 0)
            working, idle = working - failed[0], idle - failed[1]
            default[:, k - 1] = failed[0] + failed[1]
        left = np.where(k < month_term, leaving, 0.0)
        prepaid[:, k - 1] = left * (working + idle)
        working, idle = working * (1 - left), idle * (1 - left)
    return ExpectedCourse(default, prepaid)


def find_cash_flows(
    amount: np.ndarray,
    annual_rate_pct: np.ndarray,
    term_months: np.ndarray,
    course: Course,
    recovery_share: np.ndarray,
    recovery_months: int,
) -> tuple[Floats, Floats]:
    """Return what the lender receives of each loan, and what is still owed, month by month.

    Parameters
    ----------
    amount, annual_rate_pct, term_months
        The terms, shape ``(n,)``.
    course
        What becomes of the loans.
    recovery_share, recovery_months
        Share of the amount owed at a default that is paid after all, shape ``(n,)``, and how many months later.

    Returns
    -------
    received : ndarray, shape (n, LONGEST_MONTHS + recovery_months + 1)
        In currency. Month 0 pays the amount out, so it is negative.
    owed : ndarray of the same shape
        In currency, after the month's payment. After a default, what was owed before the instalments that were missed.
    """
    instalment = find_instalment(amount, annual_rate_pct, term_months)
    monthly, rows = np.asarray(annual_rate_pct) / 1200, np.arange(len(instalment))
    received = np.zeros((len(instalment), LONGEST_MONTHS + recovery_months + 1))
    owed = np.zeros_like(received)
    received[:, 0], owed[:, 0] = -np.asarray(amount), amount
    stops = np.where(course.default_month != NEVER, course.default_month - MISSED_INSTALMENTS, term_months)
    for k in range(1, received.shape[1]):
        due = owed[:, k - 1] * (1 + monthly)
        pays = (k <= stops) & (owed[:, k - 1] > 0)
        everything = (k == course.prepaid_month) | (k == term_months)
        received[:, k] = np.where(pays, np.where(everything, due, instalment), 0.0)
        # In default, interest is no longer added: what is owed stays until the recovery.
        owed[:, k] = np.where(pays, due - received[:, k], owed[:, k - 1])
    failed = np.flatnonzero(course.default_month != NEVER)
    paid_back = course.default_month[failed] + recovery_months
    received[failed, paid_back] = owed[failed, paid_back] * np.asarray(recovery_share)[failed]
    gone = np.arange(received.shape[1]) >= paid_back[:, None]
    owed[failed] = np.where(gone, 0.0, owed[rows[failed]])
    return received, owed


def _first(happens: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the first month in which it happens, counted from 1, or ``NEVER``."""
    return np.where(happens.any(axis=1), happens.argmax(axis=1) + 1, NEVER)


def _logit(uniform: np.ndarray) -> Floats:
    """Return the logit of uniform numbers, the ends of their range excluded."""
    inside = np.clip(uniform, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(inside) - np.log1p(-inside))
