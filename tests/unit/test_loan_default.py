"""Candidates for the probability of default, and the decision that follows from costs."""

import numpy as np
import pytest

from finrisk_assets.loan_default import decide
from finrisk_assets.loan_default.model import mature
from finrisk_assets.modelling import candidates as model
from finrisk_assets.modelling.split import split
from finrisk_assets.modelling.trees import component_from
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
def fitted(loans):
    rows, labels, windows = loans
    return model.fit_all(rows, labels, windows, model.candidates(FEATURES, seed=1, n_rows=len(windows.train)))


def test_all_four_are_trained_and_the_best_on_the_validation_window_comes_first(fitted):
    assert {one.name for one in fitted} == {"logistic_regression", "random_forest", "gradient_boosting", "xgboost"}
    assert fitted[0].auc.value == max(one.auc.value for one in fitted)
    assert all(one.auc.low > 0.6 for one in fitted)


def test_the_test_window_is_not_touched(loans, fitted):
    rows, labels, windows = loans
    spoiled = rows.copy()
    spoiled[windows.test] = np.nan
    wrong = np.where(np.isin(np.arange(len(labels)), windows.test), ~labels, labels)
    again = model.fit_all(spoiled, wrong, windows, model.candidates(FEATURES, seed=1, n_rows=len(windows.train)))
    for one, other in zip(fitted, again, strict=True):
        assert one.name == other.name
        assert (one.probability(rows) == other.probability(rows)).all()


def test_boosting_keeps_the_directions_that_are_not_in_doubt(fitted):
    grid = np.tile(np.array([0.5, 3000, 0], np.float32), (50, 1))
    for column, step, sign in ((0, np.linspace(0, 1, 50), 1), (1, np.geomspace(100, 1e5, 50), -1)):
        rows = grid.copy()
        rows[:, column] = step
        for one in fitted:
            if one.name in ("gradient_boosting", "xgboost"):
                assert (sign * np.diff(one.probability(rows)) >= -1e-9).all(), one.name


def test_every_candidate_becomes_a_component_of_a_bundle(loans, fitted):
    rows = loans[0][:300]
    for one in fitted:
        converted = component_from(one.estimator, FEATURES, rows)
        assert converted.plain.link == one.calibrated.calibration.link


def test_probabilities_on_new_loans_keep_their_word(loans, fitted):
    rows, labels, windows = loans
    for one in fitted:
        assert one.probability(rows[windows.test]).mean() == pytest.approx(labels[windows.test].mean(), abs=0.06)


def test_a_source_without_any_value_of_a_feature_still_trains(loans):
    rows, labels, windows = loans
    rows = rows.copy()
    rows[:, 2] = np.nan
    models = model.candidates(FEATURES, seed=1, n_rows=len(windows.train))
    assert np.isfinite(model.fit_all(rows, labels, windows, {"logistic_regression": models["logistic_regression"]})[0].auc.value)


def test_a_loan_that_had_less_than_a_year_to_default_is_left_out_whatever_became_of_it():
    applied = np.array(["2023-01-01", "2023-06-01", "2024-02-01"], "datetime64[us]")
    known = np.array(["2024-01-01", "2024-06-01", "2024-03-01"], "datetime64[us]")
    assert mature(applied, known).tolist() == [True, True, False]
    assert mature(np.full(2, np.datetime64("NaT")), known[:2]).tolist() == [True, True]


def test_each_decision_earns_the_most_where_it_is_made():
    costs = decide.Costs()
    limits = decide.thresholds(costs)
    assert 0 < limits["refer_from"] < costs.margin / (costs.margin + costs.lgd) < limits["refuse_from"] < 0.5
    for probability in np.linspace(0, 1, 201):
        made = decide.decide(probability, limits)
        best = max(decide.expected_profit(probability, other, costs) for other in decide.DECISIONS)
        assert decide.expected_profit(probability, made, costs) == pytest.approx(best, abs=1e-12)


def test_a_review_that_never_pays_leaves_the_break_even():
    limits = decide.thresholds(decide.Costs(margin=0.1, lgd=0.4, review_cost=0.2))
    assert limits == {"refer_from": pytest.approx(0.2), "refuse_from": pytest.approx(0.2)}
    assert decide.decisions([0.19, 0.2], limits) == ["approve", "refuse"]


def test_dearer_losses_make_both_limits_stricter():
    mild, harsh = decide.thresholds(decide.Costs(lgd=0.2)), decide.thresholds(decide.Costs(lgd=0.8))
    assert harsh["refer_from"] < mild["refer_from"]
    assert harsh["refuse_from"] < mild["refuse_from"]


def test_grades_double_and_hold_every_probability():
    assert [decide.grade(p) for p in (0, 0.0099, 0.01, 0.05, 0.32, 1)] == ["A", "A", "B", "D", "G", "G"]


@pytest.mark.parametrize("nothing", [float("nan"), -0.1, 1.1])
def test_what_is_no_probability_is_not_decided_on(nothing):
    with pytest.raises(ValueError, match="no probability"):
        decide.decide(nothing, decide.thresholds())
