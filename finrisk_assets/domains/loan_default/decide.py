"""The decision on an application for a loan, from its features: approve, refer to a person, or refuse.

An application is decided by its value at its own terms (`finrisk_assets.scoring.loan_decision`). This module says where the terms and the
usual income stand among the features. The service imports this module: no Ibis, no pandas.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.features.loan_terms import INCOMES, find_usual_income
from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.loan_decision import (
    APPROVE,
    DECISIONS,
    REFER,
    REFUSE,
    LoanDecisions,
    LoanTerms,
    complete_terms,
    decide_loans,
    value_outcomes,
)

__all__ = ["APPROVE", "DECISIONS", "REFER", "REFUSE", "decide_applications", "measure_shortfall", "read_terms", "realised_profit"]

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[np.floating]]

TERM_COLUMNS = ("loan_amount", "annual_rate_pct", "term_months", "instalment_amount", *INCOMES)
"""Columns of an application that its decision reads beside the PD."""


def read_terms(columns: Columns, policy: Policy) -> LoanTerms:
    """Return the terms of applications and the incomes that pay them; a term that the source lacks is the policy's assumed one.

    Parameters
    ----------
    columns
        Feature -> values of the applications, shape (n,), NaN where missing.
    """
    values = {name: np.asarray(columns[name], np.float64) for name in TERM_COLUMNS if name in columns}
    return complete_terms(
        policy,
        amount=values.get("loan_amount"),
        annual_rate_pct=values.get("annual_rate_pct"),
        term_months=values.get("term_months"),
        stated_instalment=values.get("instalment_amount"),
        usual_income=find_usual_income(values),
    )


def decide_applications(columns: Columns, probability: Floats, policy: Policy) -> LoanDecisions:
    """Decide on applications.

    Parameters
    ----------
    columns
        As of `read_terms`; at least those of `TERM_COLUMNS` that the source has.
    probability : array, shape (n,)
        12-month PD.
    """
    return decide_loans(probability, read_terms(columns, policy), policy)


def measure_shortfall(
    rows: NDArray[np.floating], probability: Floats, names: Sequence[str], policy: Policy, *, goal: str = APPROVE
) -> Floats:
    """Return how far applications are from a goal, shape (n,): below 0 where they reach it, and lower where they come nearer.

    Parameters
    ----------
    rows, names
        The model's rows, shape (n, d), and its features in their order.
    goal
        ``approve``, or ``refer`` for a referral or better.
    """
    terms = read_terms({name: rows[:, at] for at, name in enumerate(names)}, policy)
    decided = decide_loans(probability, terms, policy)
    reached = decided.decision <= DECISIONS.index(goal)
    outright, reviewed = decided.value.value, decided.reviewed_value
    margin = policy.lending.min_margin_pct / 100 * terms.amount
    lacks = np.maximum(margin, reviewed) - outright if goal == APPROVE else margin - np.maximum(outright, reviewed)
    # Shares of the amount, so that large loans are not farther away than small ones.
    distance = np.maximum(np.maximum(lacks / terms.amount, probability - policy.lending.max_pd), 0.0)
    return np.where(reached, -1.0, np.nan_to_num(distance, nan=1.0))


def realised_profit(defaulted: NDArray[np.bool_], decided: LoanDecisions, terms: LoanTerms, policy: Policy) -> Floats:
    """Return the profit of decisions by whether the loans defaulted within a year, in currency, shape (n,).

    A refusal earns nothing. A review costs what the policy says, and keeps its share of the defaults and of the others.
    """
    review = policy.loan_default.review
    earned = value_outcomes(defaulted, terms, policy)
    kept = np.where(defaulted, 1 - review.finds_share, 1 - review.errs_share)
    is_referred = decided.decision == DECISIONS.index(REFER)
    return np.where(decided.is_approved, earned, np.where(is_referred, kept * earned - review.cost_amount, 0.0))
