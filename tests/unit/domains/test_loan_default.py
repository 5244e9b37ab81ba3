"""Tests of loan default: candidate models, the decision by cost, and a row under other terms."""

import math

import numpy as np
import pytest

from finrisk_assets.domains.loan_default import decide
from finrisk_assets.domains.loan_default.model import candidates, is_mature
from finrisk_assets.features.loan_terms import FORMULAS, TermsError, rows_at_terms, with_terms
from finrisk_assets.modelling.training import candidates as model
from finrisk_assets.modelling.training.split import split
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.annuity import instalment_to_cent
from schemas.features import Feature

FEATURES = (
    Feature("burden", "", "Instalment over income.", monotone=1),
    Feature("balance", "currency", "Mean balance.", monotone=-1),
    Feature("noise", "", "Nothing."),
)


@pytest.fixture(scope="module")
def loans():
    rng = np.random.default_rng(4)
    rows = np.column_stack([rng.uniform(0, 1, 1500), rng.lognormal(8, 1, 1500), rng.normal(0, 1, 1500)]).astype(np.float32)
    rows[::7, 1] = np.nan
    balance = np.nan_to_num(rows[:, 1], nan=3000)
    labels = rng.random(1500) < 1 / (1 + np.exp(-(4 * rows[:, 0] - np.log(balance) + 5)))
    return rows, labels, split([f"L{k}" for k in range(1500)], labels, seed=1)


@pytest.fixture(scope="module")
def fitted_models(loans):
    rows, labels, windows = loans
    return model.fit_candidates(rows, labels, windows, candidates(FEATURES, seed=1, n_rows=len(windows.train)))


def test_all_are_trained_and_the_simplest_that_is_as_good_as_the_best_comes_first(fitted_models):
    names = ["sparse_logistic_regression", "logistic_regression", "scorecard", "random_forest", "gradient_boosting", "xgboost"]
    assert list(candidates(FEATURES, seed=1)) == names
    assert {one.name for one in fitted_models} >= set(names)
    assert all(one.auc.low > 0.6 for one in fitted_models)
    chosen = fitted_models[0]
    assert chosen.excess_loss.low <= 0
    before = [*names, chosen.name].index(chosen.name)
    simpler = [one for one in fitted_models if one.name in names[: min(before, 3)]]
    assert all(one.excess_loss.low > 0 or one.excess_loss.value > 0.001 for one in simpler)


def test_the_test_window_is_not_touched(loans, fitted_models):
    rows, labels, windows = loans
    spoiled = rows.copy()
    spoiled[windows.test] = np.nan
    wrong = np.where(np.isin(np.arange(len(labels)), windows.test), ~labels, labels)
    again = model.fit_candidates(spoiled, wrong, windows, candidates(FEATURES, seed=1, n_rows=len(windows.train)))
    for one, other in zip(fitted_models, again, strict=True):
        assert one.name == other.name
        assert (one.probability(rows) == other.probability(rows)).all()


def test_boosting_and_the_scorecard_keep_the_directions_that_are_not_in_doubt(fitted_models):
    grid = np.tile(np.array([0.5, 3000, 0], np.float32), (50, 1))
    for column, step, sign in ((0, np.linspace(0, 1, 50), 1), (1, np.geomspace(100, 1e5, 50), -1)):
        rows = grid.copy()
        rows[:, column] = step
        for one in fitted_models:
            if one.name in ("scorecard", "gradient_boosting", "xgboost"):
                assert (sign * np.diff(one.probability(rows)) >= -1e-9).all(), one.name


def test_every_candidate_becomes_a_component_of_a_bundle(loans, fitted_models):
    rows = loans[0][:300]
    for one in fitted_models:
        components, _ = model.convert_model(one.estimator, FEATURES, rows)
        assert len(components) == (2 if one.name.startswith("average") else 1)


def test_probabilities_on_new_loans_keep_their_word(loans, fitted_models):
    rows, labels, windows = loans
    for one in fitted_models:
        assert one.probability(rows[windows.test]).mean() == pytest.approx(labels[windows.test].mean(), abs=0.06)


def test_a_source_without_any_value_of_a_feature_still_trains(loans):
    rows, labels, windows = loans
    rows = rows.copy()
    rows[:, 2] = np.nan
    models = candidates(FEATURES, seed=1, n_rows=len(windows.train))
    assert np.isfinite(model.fit_candidates(rows, labels, windows, {"logistic_regression": models["logistic_regression"]})[0].auc.value)


def test_the_sparse_candidate_drops_most_of_what_says_nothing():
    rng = np.random.default_rng(2)
    rows = rng.normal(0, 1, (1500, 31))
    labels = rng.random(1500) < 1 / (1 + np.exp(2 - rows[:, 0]))
    models = candidates([Feature(f"x{k}", "", "") for k in range(31)], seed=1)
    n_features = {
        name: np.count_nonzero(models[name].fit(rows, labels)[-1].coef_) for name in ("logistic_regression", "sparse_logistic_regression")
    }
    assert n_features["logistic_regression"] == 31
    assert 1 <= n_features["sparse_logistic_regression"] < 15


def test_a_loan_that_had_less_than_a_year_to_default_is_left_out_whatever_became_of_it():
    applied = np.array(["2023-01-01", "2023-06-01", "2024-02-01"], "datetime64[us]")
    known = np.array(["2024-01-01", "2024-06-01", "2024-03-01"], "datetime64[us]")
    assert is_mature(applied, known).tolist() == [True, True, False]
    assert is_mature(np.full(2, np.datetime64("NaT")), known[:2]).tolist() == [True, True]


NAMES = ("loan_amount", "annual_rate_pct", "term_months", "instalment_amount", "usual_income_amount")


def application(**changes):
    """Return one application's row, shape (1, d)."""
    typical = {
        "loan_amount": 2500.0,
        "annual_rate_pct": 12.0,
        "term_months": 24.0,
        "instalment_amount": 117.68,
        "usual_income_amount": 2000.0,
    }
    return np.array([[(typical | changes)[name] for name in NAMES]])


def columns_of(rows):
    return {name: rows[:, at] for at, name in enumerate(NAMES)}


def test_an_application_is_decided_at_its_own_terms():
    policy = default_policy()
    assert decide.decide_applications(columns_of(application()), np.array([0.03]), policy).words == ["approve"]
    short = application(loan_amount=400.0, term_months=6.0, instalment_amount=69.0)
    assert decide.decide_applications(columns_of(short), np.array([0.03]), policy).words == ["refuse"]
    poor = application(usual_income_amount=300.0)
    assert decide.decide_applications(columns_of(poor), np.array([0.03]), policy).words == ["refer"]


def test_a_source_without_income_or_rate_is_decided_at_the_assumed_terms():
    policy = default_policy()
    terms = decide.read_terms({"loan_amount": np.array([3000.0])}, policy)
    assert terms.usual_income is None
    assert terms.instalment == pytest.approx(instalment_to_cent(3000, 12, 24), abs=0.01)
    assert decide.decide_applications({"loan_amount": np.array([3000.0])}, np.array([0.03]), policy).words == ["approve"]


@pytest.mark.parametrize("goal", ["approve", "refer"])
def test_the_shortfall_is_below_zero_where_the_goal_is_reached_and_falls_towards_it(goal):
    policy, risks = default_policy(), np.linspace(0.001, 0.5, 60)
    rows = np.repeat(application(), len(risks), axis=0)
    shortfall = decide.measure_shortfall(rows, risks, NAMES, policy, goal=goal)
    reached = decide.decide_applications(columns_of(rows), risks, policy).decision <= decide.DECISIONS.index(goal)
    assert ((shortfall < 0) == reached).all() and reached.any() and not reached.all()
    assert (np.diff(shortfall[~reached]) >= 0).all()


# --- a grid of terms ---------------------------------------------------------------------------------------------------


def test_the_rows_of_a_grid_are_those_of_each_request():
    names = list(APPLICATION)
    rng = np.random.default_rng(2)
    people = [
        APPLICATION | {"usual_income_amount": income, "usual_expense_amount": 0.9 * income, "mean_balance_6m": balance}
        for income, balance in zip(rng.uniform(0, 3000, 6), rng.normal(300, 900, 6), strict=True)
    ]
    people[0] = people[0] | {"usual_income_amount": None, "mean_balance_6m": None}
    columns = {name: np.array([np.nan if person[name] is None else person[name] for person in people]) for name in names}
    amount = rng.integers(300, 20_000, (6, 5)).astype(float)
    rate, term = np.array([0.0, 3.5, 12.0, 19.99, 60.0]), np.array([6.0, 12.0, 13.0, 48.0, 60.0])
    rows = rows_at_terms(names, columns, amount, rate, term)
    for k, person in enumerate(people):
        for g in range(5):
            one = with_terms(person, loan_amount=amount[k, g], term_months=int(term[g]), annual_rate_pct=rate[g])
            expected = np.array([np.nan if one[name] is None else one[name] for name in names], np.float32)
            np.testing.assert_array_equal(rows[k, g], expected)


# --- other terms -------------------------------------------------------------------------------------------------------

APPLICATION = {
    "loan_amount": 3000.0, "term_months": 24.0, "annual_rate_pct": 12.0, "instalment_amount": 141.22, "usual_income_amount": 2000.0,
    "usual_expense_amount": 1800.0, "mean_balance_6m": 500.0, "instalment_to_usual_income": 0.07061,
    "surplus_after_instalment": 0.02939, "loan_to_usual_income": 1.5, "mean_balance_to_instalment_6m": 3.54057,
    "declared_income_amount": None, "instalment_to_declared_income": None, "n_penalties_3m": 1.0,
}  # fmt: skip


def test_other_terms_change_what_follows_from_them_and_nothing_else():
    changed = with_terms(APPLICATION, loan_amount=12_000, term_months=12, annual_rate_pct=0)
    assert changed == APPLICATION | {
        "loan_amount": 12_000, "term_months": 12, "annual_rate_pct": 0, "instalment_amount": 1000, "instalment_to_usual_income": 0.5,
        "surplus_after_instalment": -0.4, "loan_to_usual_income": 6, "mean_balance_to_instalment_6m": 0.5,
    }  # fmt: skip
    assert list(changed) == list(APPLICATION)


def test_terms_that_are_not_asked_for_stay_the_typical_ones():
    changed = with_terms(APPLICATION, loan_amount=6000)
    assert (changed["term_months"], changed["annual_rate_pct"]) == (24, 12)
    assert changed["instalment_amount"] == instalment_to_cent(6000, 12, 24) == 282.44


def test_without_a_rate_a_loan_costs_the_multiple_of_its_amount_that_it_did():
    row = {"loan_amount": 1000.0, "term_months": 10.0, "instalment_amount": 110.0}
    assert with_terms(row, loan_amount=2000, term_months=20)["instalment_amount"] == 110
    assert with_terms(row, loan_amount=1200, term_months=12, annual_rate_pct=0)["instalment_amount"] == 100
    assert with_terms(row | {"term_months": None}, loan_amount=2000)["instalment_amount"] is None


def test_who_has_no_income_is_at_the_bound_and_who_has_no_ledger_has_no_ratio():
    poor = with_terms(APPLICATION | {"usual_income_amount": 0.0}, loan_amount=3000)
    assert (poor["instalment_to_usual_income"], poor["loan_to_usual_income"], poor["surplus_after_instalment"]) == (10, 100, 0)
    silent = with_terms(APPLICATION | {"usual_income_amount": None, "mean_balance_6m": None}, loan_amount=3000)
    assert silent["loan_to_usual_income"] is silent["mean_balance_to_instalment_6m"] is None


def test_an_instalment_repays_the_loan_with_interest():
    instalment, debt = instalment_to_cent(10_000, 9, 36), 10_000.0
    for _ in range(36):
        debt = debt * (1 + 0.09 / 12) - instalment
    assert debt == pytest.approx(0, abs=0.36)
    assert instalment_to_cent(1200, 0, 12) == 100


def test_the_limit_of_a_card_is_a_term_too():
    row = {"loan_amount": 1000.0, "bill_amount_1m": 500.0, "utilisation_1m": 0.5, "headroom_amount": 500.0}
    assert with_terms(row, loan_amount=2000) == {**row, "loan_amount": 2000, "utilisation_1m": 0.25, "headroom_amount": 1500}
    bills = {f"bill_amount_{month}m": value for month, value in enumerate((500.0, None, 800.0, 0.0, -5.0, 100.0), 1)}
    assert with_terms({**row, **bills, "max_utilisation_6m": 0.8}, loan_amount=1600)["max_utilisation_6m"] == 0.5


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"loan_amount": 0}, "loan_amount"),
        ({"loan_amount": -5}, "loan_amount"),
        ({"loan_amount": math.nan}, "loan_amount"),
        ({"loan_amount": math.inf}, "loan_amount"),
        ({"loan_amount": 1000, "term_months": 0}, "term_months"),
        ({"loan_amount": 1000, "term_months": 601}, "term_months"),
        ({"loan_amount": 1000, "annual_rate_pct": -0.1}, "annual_rate_pct"),
        ({"loan_amount": 1000, "annual_rate_pct": 100.5}, "annual_rate_pct"),
    ],
)
def test_terms_that_no_loan_can_have_are_refused_by_name(terms, field):
    with pytest.raises(TermsError, match=f"^{field}: must") as refused:
        with_terms(APPLICATION, **terms)
    assert refused.value.field == field


def test_a_term_that_the_source_does_not_know_is_refused():
    for terms in ({"term_months": 12}, {"annual_rate_pct": 5.0}):
        with pytest.raises(TermsError, match="leave it out"):
            with_terms({"loan_amount": 1000.0}, loan_amount=2000, **terms)


def test_formulas_read_only_what_is_no_formula():
    assert not {name for formula in FORMULAS.values() for name in formula.reads} & set(FORMULAS)
