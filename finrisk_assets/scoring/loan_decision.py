"""The decision on a loan at given terms: approve, refer to a person, or refuse. Loan default and loan offers decide here, and nowhere else.

A loan is approved where all of this holds: its value reaches the policy's margin and that of a review, its PD is at most the largest, and
its instalment takes no more of the usual income than the policy allows. It is referred where it fails by a review's value or by the
income, and refused otherwise. On numpy alone; the value belongs to `loan_value`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.annuity import instalment
from finrisk_assets.scoring.loan_value import YEAR_MONTHS, LoanValue, value_loans

Floats = NDArray[np.float64]

APPROVE, REFER, REFUSE = "approve", "refer", "refuse"
DECISIONS = (APPROVE, REFER, REFUSE)
"""Decisions by their number in `LoanDecisions`."""

UNAFFORDABLE = "the instalment takes too much of the usual income"
INCOME_UNKNOWN = "the usual income is not known"
PD_UNKNOWN = "the probability of default is not known"
RISKY = "the probability of default is above the largest that is granted"
WORTH_A_REVIEW = "the loan is worth more after a review"
UNPROFITABLE = "the loan is worth less than its costs"
REASONS = ("", PD_UNKNOWN, RISKY, UNPROFITABLE, INCOME_UNKNOWN, UNAFFORDABLE, WORTH_A_REVIEW)
"""Reasons why a loan is not approved, by number; the first that holds counts."""

LONGEST_MONTHS = 1200
"""Months that a term counts as at most, so that a client's number does not decide how long a valuation takes."""

NO_HAZARD, SMALL_PD = 1e-12, 0.01
"""The weight of a month without defaults, and a PD at which the months of a default are about equally likely."""

PD_STEPS = 40
"""Halvings of the interval in which the largest approved PD is looked for: 1e-12 of probability."""


@dataclass(frozen=True)
class LoanTerms:
    """The terms of loans, and the income that pays them: arrays that broadcast with each other.

    Attributes
    ----------
    amount, annual_rate_pct, term_months
        In currency, per cent a year and months.
    instalment
        Currency a month.
    usual_income
        Currency a month, NaN where it is not known of a person; None where the source knows no income, so that affordability is not judged.
    """

    amount: Floats
    annual_rate_pct: Floats
    term_months: Floats
    instalment: Floats
    usual_income: Floats | None


@dataclass(frozen=True)
class LoanDecisions:
    """The decisions on loans; arrays of one shape.

    Attributes
    ----------
    decision, reason
        Numbers in `DECISIONS` and `REASONS`.
    value
        The loans' values, where they are granted outright.
    reviewed_value
        The same where a person reviews them first.
    """

    decision: NDArray[np.int64]
    reason: NDArray[np.int64]
    value: LoanValue
    reviewed_value: Floats

    @property
    def is_approved(self) -> NDArray[np.bool_]:
        return self.decision == DECISIONS.index(APPROVE)

    @property
    def words(self) -> list[str]:
        """The decisions in words, in the order of the loans."""
        return [DECISIONS[number] for number in self.decision.ravel().tolist()]


def complete_terms(
    policy: Policy,
    *,
    amount: ArrayLike | None = None,
    annual_rate_pct: ArrayLike | None = None,
    term_months: ArrayLike | None = None,
    stated_instalment: ArrayLike | None = None,
    usual_income: ArrayLike | None = None,
) -> LoanTerms:
    """Return the terms of loans, with the policy's assumed terms where a term is None or NaN.

    Parameters
    ----------
    stated_instalment
        The instalment that the source states; one that is missing follows from the terms.

    Returns
    -------
    LoanTerms
        With whole months from 1 to `LONGEST_MONTHS`, and no rate below 0.
    """
    assumed = policy.lending.assumed_terms
    lent = _fill(amount, assumed.loan_amount)
    rate = np.maximum(_fill(annual_rate_pct, assumed.annual_rate_pct), 0.0)
    term = np.clip(np.rint(_fill(term_months, float(assumed.term_months))), 1.0, LONGEST_MONTHS)
    pay = instalment(lent, rate, term)
    if stated_instalment is not None:
        stated = np.asarray(stated_instalment, np.float64)
        pay = np.where(np.isnan(stated), pay, stated)
    income = None if usual_income is None else np.asarray(usual_income, np.float64)
    return LoanTerms(lent, rate, term, pay, income)


def decide_loans(pd: ArrayLike, terms: LoanTerms, policy: Policy) -> LoanDecisions:
    """Decide on loans.

    Parameters
    ----------
    pd : array-like
        12-month PD at the terms; NaN where it is not known. It broadcasts with the terms.
    """
    risk = np.asarray(pd, np.float64)
    value = value_loans(terms.amount, terms.annual_rate_pct, terms.term_months, risk, policy.lending)
    outright, reviewed = _values(value, policy)
    margin = policy.lending.min_margin_pct / 100 * terms.amount
    shape = outright.shape
    if terms.usual_income is None:
        is_unknown = is_unaffordable = np.zeros(shape, bool)
    else:
        is_unknown = np.broadcast_to(np.isnan(terms.usual_income), shape)
        limit = policy.lending.max_instalment_to_income * terms.usual_income
        is_unaffordable = np.broadcast_to(terms.instalment > limit, shape)
    conditions = [
        np.isnan(risk) | np.zeros(shape, bool),
        np.broadcast_to(risk > policy.lending.max_pd, shape),
        np.maximum(outright, reviewed) < margin,
        is_unknown,
        is_unaffordable,
        (outright < margin) | (outright < reviewed),
    ]
    rules = policy.loan_default
    words = ("approve", "refer", "refuse", "refuse", rules.income_unknown, rules.unaffordable, "refer")
    reason = np.select(conditions, range(1, len(REASONS)), default=0)
    return LoanDecisions(np.array([DECISIONS.index(word) for word in words])[reason], reason, value, reviewed)


def find_largest_pds(terms: LoanTerms, policy: Policy, *, goal: str = APPROVE) -> Floats:
    """Return the PD below which loans of these terms reach a goal; 0 where no PD reaches it.

    Parameters
    ----------
    goal
        ``approve``, or ``refer`` for a referral or better. Affordability does not count: it is the same at every PD.

    Returns
    -------
    ndarray
        Of the terms' shape; at most the policy's largest PD. Value falls in the PD, so bisection finds it.
    """
    margin = policy.lending.min_margin_pct / 100 * terms.amount

    def reaches(pd: Floats) -> NDArray[np.bool_]:
        outright, reviewed = _values(value_loans(terms.amount, terms.annual_rate_pct, terms.term_months, pd, policy.lending), policy)
        if goal == APPROVE:
            return (outright >= margin) & (outright >= reviewed)
        return np.maximum(outright, reviewed) >= margin

    shape = np.broadcast_shapes(terms.amount.shape, terms.annual_rate_pct.shape, terms.term_months.shape)
    low, high = np.zeros(shape), np.full(shape, policy.lending.max_pd)
    all_reach, none_reaches = reaches(high), ~reaches(low)
    for _ in range(PD_STEPS):
        middle = (low + high) / 2
        is_reached = reaches(middle)
        low, high = np.where(is_reached, middle, low), np.where(is_reached, high, middle)
    return np.where(all_reach, policy.lending.max_pd, np.where(none_reaches, 0.0, low))


def value_outcomes(defaulted: ArrayLike, terms: LoanTerms, policy: Policy) -> Floats:
    """Return the value of granted loans by whether they defaulted within twelve months, in currency.

    A loan that did not default then is valued without any default, one that did by the mean over the months in which it may have been.
    """
    year = policy.lending.model_copy(update={"hazard_weights": (1.0,) * YEAR_MONTHS + (NO_HAZARD,)})
    arguments = terms.amount, terms.annual_rate_pct, terms.term_months
    repaid = value_loans(*arguments, 0.0, year).value
    # Without later defaults the value is (1 - p) repaid + p lost; any small p tells the second.
    lost = (value_loans(*arguments, SMALL_PD, year).value - (1 - SMALL_PD) * repaid) / SMALL_PD
    return np.where(np.asarray(defaulted, bool), lost, repaid)


def name_grade(probability: float, policy: Policy) -> str:
    """Return the rating grade of a probability of default, the best first.

    Raises
    ------
    ValueError
        For a number outside 0 to 1, and for NaN.
    """
    if not 0 <= probability <= 1:  # NaN fails every comparison
        raise ValueError(f"a probability lies between 0 and 1, not at {probability}")
    grades = policy.loan_default.grades
    return next((grade.name for grade in grades if probability < grade.below), grades[-1].name)


def _values(value: LoanValue, policy: Policy) -> tuple[Floats, Floats]:
    """Return the value of loans outright, and after a review."""
    review = policy.loan_default.review
    return value.value, value.value_after_review(review.finds_share, review.errs_share, review.cost_amount)


def _fill(values: ArrayLike | None, assumed: float) -> Floats:
    """Return values with an assumed one for each that is missing."""
    if values is None:
        return np.asarray(assumed, np.float64)
    given = np.asarray(values, np.float64)
    return np.where(np.isnan(given), assumed, given)
