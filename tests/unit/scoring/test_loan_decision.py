"""The decision on a loan: what approves, refers and refuses it, and the largest PD that reaches a goal."""

import numpy as np
import pytest

from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.loan_decision import (
    APPROVE,
    INCOME_UNKNOWN,
    LONGEST_MONTHS,
    PD_UNKNOWN,
    REASONS,
    REFER,
    REFUSE,
    RISKY,
    UNAFFORDABLE,
    UNPROFITABLE,
    WORTH_A_REVIEW,
    complete_terms,
    decide_loans,
    find_largest_pds,
    name_grade,
)

POLICY = default_policy()


def policy_with(section: str, **changes: object) -> Policy:
    return POLICY.model_copy(update={section: getattr(POLICY, section).model_copy(update=changes)})


def decide(pd: float, policy: Policy = POLICY, **terms: float | None) -> tuple[str, str]:
    given = {"amount": 2500.0, "annual_rate_pct": 12.0, "term_months": 24.0, "usual_income": 2000.0} | terms
    decided = decide_loans(pd, complete_terms(policy, **given), policy)
    return decided.words[0], REASONS[int(decided.reason)]


def test_a_safe_loan_is_approved_and_a_risky_one_is_not() -> None:
    assert decide(0.01) == (APPROVE, "")
    assert decide(0.26) == (REFUSE, RISKY)
    assert decide(0.24) == (REFUSE, UNPROFITABLE)
    assert decide(0.12) == (REFER, WORTH_A_REVIEW)
    assert decide(float("nan")) == (REFER, PD_UNKNOWN)


def test_affordability_follows_the_policy() -> None:
    assert decide(0.01, usual_income=300.0) == (REFER, UNAFFORDABLE)
    assert decide(0.01, usual_income=float("nan")) == (REFER, INCOME_UNKNOWN)
    assert decide(0.01, usual_income=None) == (APPROVE, "")
    assert decide(0.01, policy_with("loan_default", unaffordable="refuse"), usual_income=300.0) == (REFUSE, UNAFFORDABLE)


def test_short_loans_are_approved_at_a_pd_at_which_they_earn_not_at_a_flat_margin() -> None:
    """A small loan over few months cannot earn its costs, however safe; the same amount over a longer time can."""
    assert decide(0.001, amount=400.0, term_months=6.0)[0] == REFUSE
    assert decide(0.001, amount=400.0, term_months=60.0)[0] == APPROVE


def test_a_margin_is_demanded_of_the_amount() -> None:
    assert decide(0.03)[0] == APPROVE
    assert decide(0.03, policy_with("lending", min_margin_pct=20.0))[0] == REFUSE


def test_missing_terms_are_the_assumed_ones() -> None:
    terms = complete_terms(POLICY, amount=[1000.0, np.nan], term_months=[np.nan, 12.0])
    assumed = POLICY.lending.assumed_terms
    assert terms.amount.tolist() == [1000.0, assumed.loan_amount]
    assert terms.term_months.tolist() == [assumed.term_months, 12]
    assert float(terms.annual_rate_pct) == assumed.annual_rate_pct
    stated = complete_terms(POLICY, amount=1000.0, stated_instalment=[np.nan, 77.0])
    assert stated.instalment[1] == 77.0 and stated.instalment[0] > 0


def test_terms_that_no_loan_has_are_bounded() -> None:
    terms = complete_terms(POLICY, amount=1000.0, annual_rate_pct=[-5000.0, 1e9], term_months=[0.2, 1e9])
    assert (terms.annual_rate_pct.tolist(), terms.term_months.tolist()) == ([0.0, 1e9], [1.0, LONGEST_MONTHS])
    assert np.isfinite(decide_loans(0.1, terms, POLICY).value.value).all()


def test_the_largest_pds_are_where_the_decision_changes() -> None:
    terms = complete_terms(POLICY, amount=2500.0, annual_rate_pct=[8.0, 12.0, 20.0], term_months=[12.0, 24.0, 36.0])
    approved, referred = find_largest_pds(terms, POLICY), find_largest_pds(terms, POLICY, goal=REFER)
    assert (approved <= referred).all() and (referred <= POLICY.lending.max_pd).all()
    assert decide_loans(approved - 1e-9, terms, POLICY).words == [APPROVE] * 3
    assert APPROVE not in decide_loans(approved + 1e-9, terms, POLICY).words
    assert REFUSE not in decide_loans(referred - 1e-9, terms, POLICY).words
    assert decide_loans(referred + 1e-9, terms, POLICY).words == [REFUSE] * 3


def test_terms_that_never_earn_have_no_pd() -> None:
    terms = complete_terms(POLICY, amount=300.0, annual_rate_pct=2.0, term_months=12.0)
    assert float(find_largest_pds(terms, POLICY)) == 0


@pytest.mark.parametrize(("pd", "grade"), [(0, "A"), (0.01, "B"), (0.159, "E"), (1, "G")])
def test_grades_are_those_of_the_policy(pd: float, grade: str) -> None:
    assert name_grade(pd, POLICY) == grade


def test_no_grade_of_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        name_grade(float("nan"), POLICY)
