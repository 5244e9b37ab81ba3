"""Tests of what an applicant can change, by how much, and which features follow."""

import pytest

from finrisk_assets.domains.loan_default import actionability, catalogue
from finrisk_assets.domains.loan_default.actionability import apply_changes, find_allowed_changes
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.features.loan_terms import with_terms
from finrisk_assets.ledger import sources
from finrisk_assets.scoring.annuity import instalment_to_cent
from finrisk_assets.settings import Settings

ROW: dict[str, float | None] = with_terms(
    {
        "loan_amount": 9_000.0,
        "term_months": 24.0,
        "annual_rate_pct": 12.0,
        "instalment_amount": 0.0,
        "customer_months": 40.0,
        "usual_income_amount": 2_000.0,
        "usual_expense_amount": 2_000.0,
        "expense_to_income_1m": 0.75,
        "expense_to_income_3m": 1.0,
        "expense_to_income_6m": 11 / 12,
        "month_end_balance_amount": 300.0,
        "month_end_balance_to_usual_income": 0.15,
        "buffer_shortfall": 0.85,
        "n_penalties_3m": 1.0,
        "instalment_to_usual_income": None,
        "surplus_after_instalment": None,
    },
    loan_amount=9_000,
)


def differs(row: dict[str, float | None], other: dict[str, float | None]) -> set[str]:
    return {name for name in row if row[name] != other[name]}


def test_everything_that_can_be_changed_is_a_feature_and_history_is_not_among_it() -> None:
    known = {defined.feature.name for defined in catalogue.CATALOGUE}
    taiwan = {feature.name for feature in LOAN_DEFAULT.select_features(sources.load(Settings(source="taiwan")))}
    assert set(actionability.CHANGEABLE) <= known | taiwan
    assert set(find_allowed_changes(ROW)) == {"loan_amount", "term_months", "month_end_balance_amount", "usual_expense_amount"}


def test_nobody_is_told_to_borrow_more_to_spend_more_or_to_live_on_nothing() -> None:
    able = find_allowed_changes(ROW)
    assert able["loan_amount"].direction == able["usual_expense_amount"].direction == -1
    assert able["month_end_balance_amount"].direction == 1
    assert able["usual_expense_amount"].low == pytest.approx(0.7 * 2_000)
    assert able["month_end_balance_amount"].high == 300 + 2_000


def test_what_is_not_known_cannot_be_changed() -> None:
    assert set(find_allowed_changes({"loan_amount": 5_000.0, "term_months": None, "month_end_balance_amount": 10.0})) == {"loan_amount"}


def test_a_smaller_loan_has_a_smaller_instalment_and_all_that_is_measured_by_it() -> None:
    changed = apply_changes(ROW, {"loan_amount": 6_000.0, "term_months": 36.0})
    assert changed["instalment_amount"] == instalment_to_cent(6_000, 12, 36)
    assert changed["instalment_to_usual_income"] == pytest.approx(instalment_to_cent(6_000, 12, 36) / 2_000)
    terms = {"loan_amount", "term_months", "instalment_amount", "instalment_to_usual_income", "surplus_after_instalment"}
    assert differs(ROW, changed) == terms


def test_less_spending_shows_in_every_month_and_in_what_is_left_of_the_income() -> None:
    changed = apply_changes(ROW, {"usual_expense_amount": 1_500.0})
    shares = [changed[f"expense_to_income_{n}m"] for n in (1, 3, 6)]
    assert shares == pytest.approx([0.5, 0.75, 11 / 12 - 0.25])
    instalment = ROW["instalment_amount"] or 0.0
    assert changed["surplus_after_instalment"] == pytest.approx((500 - instalment) / 2_000)
    assert not {"month_end_balance_amount", "n_penalties_3m", "usual_income_amount", "instalment_amount"} & differs(ROW, changed)


def test_more_money_at_the_month_end_changes_that_balance_alone_in_currency_in_usual_incomes_and_what_it_lacks_of_one() -> None:
    changed = apply_changes(ROW, {"month_end_balance_amount": 900.0})
    assert differs(ROW, changed) == {"month_end_balance_amount", "month_end_balance_to_usual_income", "buffer_shortfall"}
    assert (changed["month_end_balance_to_usual_income"], changed["buffer_shortfall"]) == (0.45, 0.55)
    assert apply_changes(ROW, {"month_end_balance_amount": 2_300.0})["buffer_shortfall"] == 0


def test_changes_of_several_kinds_hold_together() -> None:
    every = {"loan_amount": 6_000.0, "usual_expense_amount": 1_500.0, "month_end_balance_amount": 900.0}
    together, step_by_step = apply_changes(ROW, every), ROW
    for name, value in every.items():
        step_by_step = dict(apply_changes(step_by_step, {name: value}))
    assert together == step_by_step
