"""Tests of transaction anomaly: the joined margin, and the decision that follows from a score."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.base import ScoredWindow
from finrisk_assets.domains.transaction_anomaly import model
from finrisk_assets.domains.transaction_anomaly.decide import compute_savings, decide, decide_all, expect_loss, is_anomaly, is_unseen
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.policy_thresholds import find_thresholds
from finrisk_assets.scoring.score_curve import draw_score_curve
from schemas.features import Feature

FEATURES = (
    Feature("amount_to_mean_30d", "ratio", "Amount against the customer's mean.", monotone=1),
    Feature("merchant_risk_7d", "share", "Share of fraud at the merchant."),
)


@pytest.fixture(scope="module")
def population():
    """Return rows of two features, one sometimes missing, and labels of which 3 % are fraud."""
    random = np.random.default_rng(7)
    n = 6000
    fraud = random.random(n) < 0.03
    rows = np.column_stack([random.gamma(2, 0.5, n) + 4 * fraud * (random.random(n) < 0.7), random.random(n) * 0.2 + 0.3 * fraud])
    rows[random.random(n) < 0.05, 0] = np.nan
    return rows.astype(np.float32), fraud


# Models


def test_isolation_margin_is_the_exponent_of_the_papers_score(population):
    rows, _ = population
    forest = model.isolation_forest(1).fit(rows)
    margin = model.compute_isolation_margin(forest, rows)
    assert np.all(margin < 0)
    assert np.allclose(2**margin, -forest.score_samples(rows))
    assert (forest.n_estimators, forest.max_samples_) == (100, 256)


def test_the_isolation_forest_splits_only_on_what_is_suspicious_when_unusual(population):
    rows, _ = population
    unrelated = Feature("hour_sin", "", "Time of day as a circle: sine.")
    features, wide = (*FEATURES, unrelated), np.column_stack([rows, np.sin(np.arange(len(rows)))]).astype(np.float32)
    forest = model.isolation_forest(1).fit(model.isolate_features(features, wide))
    moved = wide.copy()
    moved[:, 2] = 99.0
    assert np.array_equal(model.compute_isolation_margin(forest, moved), model.compute_isolation_margin(forest, wide))
    assert np.array_equal(model.isolate_features((unrelated,), wide[:, 2:]), wide[:, 2:])


def test_isolation_forest_finds_its_share_of_anomalies(population):
    rows, _ = population
    scores = np.exp2(model.compute_isolation_margin(model.isolation_forest(1).fit(rows), rows))
    assert (scores >= limits_of(scores)["anomaly"]).mean() == pytest.approx(0.02, abs=0.002)


def test_every_candidate_ranks_fraud_higher_and_takes_missing_values(population):
    rows, fraud = population
    for name, candidate in model.candidates(FEATURES, seed=1).items():
        margin = model.compute_log_odds(candidate.fit(rows, fraud.astype(int)), rows)
        assert np.isfinite(margin).all(), name
        assert np.median(margin[fraud]) > np.median(margin[~fraud]), name


def test_the_same_seed_gives_the_same_model(population):
    rows, fraud = population
    one, other = (model.boosted_trees(FEATURES, seed=3).fit(rows, fraud.astype(int)) for _ in range(2))
    assert bytes(one.get_booster().save_raw("json")) == bytes(other.get_booster().save_raw("json"))


def test_constraints_are_a_candidate_only_where_a_direction_is_stated(population):
    rows, fraud = population
    assert "xgboost_monotone" not in model.candidates(FEATURES[1:], seed=1)
    constrained = model.candidates(FEATURES, seed=1)["xgboost_monotone"].fit(rows, fraud.astype(int))
    rising = np.column_stack([np.linspace(0, 12, 200), np.full(200, 0.1)]).astype(np.float32)
    assert np.all(np.diff(model.compute_log_odds(constrained, rising)) >= 0)


def test_undersampling_keeps_every_fraud_and_a_share_of_the_rest():
    fraud = np.arange(10_000) % 100 == 0
    sampled = model.undersample(fraud, seed=1, share=0.1)
    assert sampled[fraud].all()
    assert sampled[~fraud].mean() == pytest.approx(0.1, abs=0.01)
    assert np.array_equal(sampled, model.undersample(fraud, seed=1, share=0.1))
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        model.undersample(fraud, seed=1, share=0)


def test_the_join_recovers_known_weights():
    random = np.random.default_rng(0)
    one, two = random.normal(size=(2, 200_000))
    fraud = random.random(one.size) < 1 / (1 + np.exp(-(-3 + 1.5 * one + 0.5 * two)))
    join = model.fit_join(fraud, {"one": one, "two": two})
    assert join.intercept == pytest.approx(-3, abs=0.05)
    assert join.weights["one"] == pytest.approx(1.5, abs=0.05)
    assert join.weights["two"] == pytest.approx(0.5, abs=0.05)
    assert join.margin({"one": [1.0], "two": [2.0]})[0] == pytest.approx(-0.5, abs=0.1)


def test_the_join_never_turns_a_model_around():
    random = np.random.default_rng(0)
    good, wrong = random.normal(size=(2, 20_000))
    fraud = random.random(good.size) < 1 / (1 + np.exp(-(-2 + good - wrong)))
    weights = model.fit_join(fraud, {"good": good, "wrong": wrong}).weights
    assert weights["wrong"] == 0.0
    assert weights["good"] > 0


def test_the_join_takes_back_what_undersampling_did(population):
    random = np.random.default_rng(2)
    margin = random.normal(-5, 1.5, 300_000)
    fraud = random.random(margin.size) < 1 / (1 + np.exp(-margin))
    join = model.fit_join(fraud, {"xgboost": margin - np.log(0.04)})
    joined = join.margin({"xgboost": margin - np.log(0.04)})
    assert np.mean(1 / (1 + np.exp(-joined))) == pytest.approx(fraud.mean(), rel=1e-3)
    assert join.weights["xgboost"] == pytest.approx(1, abs=0.05)


def test_a_constant_margin_gets_no_weight():
    assert model.fit_join([0, 1, 0, 1, 1], {"x": [0.0, 1.0, 0.5, 0.4, 2.0], "flat": [3.0] * 5}).weights["flat"] == 0.0


def test_the_join_says_what_is_wrong():
    with pytest.raises(ValueError, match="both kinds"):
        model.fit_join([0, 0], {"x": [1.0, 2.0]})
    with pytest.raises(ValueError, match="finite"):
        model.fit_join([0, 1], {"x": [1.0, np.inf]})
    with pytest.raises(ValueError, match="no margins"):
        model.fit_join([0, 1], {})


# Decisions


def limits_of(scores, is_fraud=None, n_days=1, losses=None, **changes):
    """Return the thresholds that the policy, with changes, gives on a window of scores and of expected losses."""
    rules = default_policy().transaction_anomaly.model_copy(update=changes)
    policy = default_policy().model_copy(update={"transaction_anomaly": rules})
    loss_curve = None if losses is None else draw_score_curve(losses, None, n_days)
    return find_thresholds("transaction_anomaly", policy, draw_score_curve(scores, is_fraud, n_days), loss_curve)


def test_contamination_sets_the_anomalies():
    scores = np.linspace(0, 1, 1000)
    limits = limits_of(scores, contamination=0.02)
    assert sum(is_anomaly(score, limits) for score in scores) == 20
    assert limits["review"] == limits["anomaly"]
    assert "block" not in limits


def test_capacity_sets_what_is_reviewed():
    scores = np.linspace(0, 1, 1000)
    limits = limits_of(scores, np.zeros(1000), n_days=10, reviews_per_day=5)
    assert list(decide_all(scores, limits)).count("review") == 50


def test_a_transaction_is_reviewed_where_its_expected_loss_reaches_the_cost_of_a_review():
    limits = {"anomaly": 0.02, "review_loss": 5.0}
    amounts = np.log1p([100, 99, 20_000, 10])
    assert decide_all([0.05, 0.05, 0.0003, 0.4], limits, amounts) == ["review", "allow", "review", "allow"]
    assert expect_loss([0.05], amounts[:1]) == pytest.approx([5.0])
    with pytest.raises(KeyError, match="review"):
        decide(0.5, limits)


def test_the_threshold_of_review_is_never_below_its_cost():
    scores, losses = np.linspace(0, 1, 1000), np.linspace(0, 10, 1000)
    few, many = (limits_of(scores, scores > 0.9, 10, losses, reviews_per_day=n)["review_loss"] for n in (5, 500))
    assert (losses >= few).sum() == 50
    assert many == 5.0, "the analysts could look at all of them"
    assert limits_of(scores, scores > 0.9, 10, losses, reviews_per_day=500, review_finds_share=0.8)["review_loss"] == 6.25
    assert limits_of(scores, scores > 0.9, 10, losses, reviews_per_day=500, review_cost_amount=7.5)["review_loss"] == 7.5


def test_reviews_that_miss_frauds_save_less():
    rules = default_policy().transaction_anomaly.model_copy(update={"review_finds_share": 0.75, "review_cost_amount": 5.0})
    decisions = ["review", "block", "allow", "review"]
    assert compute_savings([100, 100, 100, 100], [1, 1, 1, 0], decisions, rules).tolist() == [70.0, 100.0, 0.0, -5.0]


def test_groups_of_people_are_compared_by_the_decisions():
    probability = np.array([0.05, 0.05, 0.97, 0.001])
    window = ScoredWindow(pd.DataFrame({"log_amount": np.log1p([200, 20, 5, 9e6])}), np.empty((4, 0)), np.zeros(4, bool), probability)
    thresholds = {"anomaly": 0.02, "review_loss": 5.0, "block": 0.9, "largest_log_amount": 12.0}
    favourable = TRANSACTION_ANOMALY.find_favourable(window, SimpleNamespace(thresholds=thresholds))
    assert {name: selected.tolist() for name, selected in favourable.items()} == {
        "review": [False, True, False, False],
        "block": [True, True, False, True],
    }
    del thresholds["block"]
    assert TRANSACTION_ANOMALY.find_favourable(window, SimpleNamespace(thresholds=thresholds)).keys() == {"review"}


def test_a_block_does_not_wait_for_the_capacity_of_reviews():
    scores = np.concatenate([np.linspace(0.9, 1, 50), np.linspace(0, 0.5, 950)])
    limits = limits_of(scores, scores > 0.8, losses=scores, reviews_per_day=1)
    assert decide_all([0.95, 0.45], limits, np.log1p([1, 1])) == ["block", "allow"]


def test_only_what_is_almost_surely_fraud_is_blocked():
    scores = np.concatenate([np.linspace(0.9, 1, 50), np.linspace(0, 0.5, 950)])
    fraud = np.concatenate([np.ones(50), np.zeros(950)])
    limits = limits_of(scores, fraud, reviews_per_day=100)
    assert [decide(score, limits) for score in (0.95, 0.48, 0.1)] == ["block", "review", "allow"]


def test_another_policy_needs_no_other_model():
    scores, fraud = np.linspace(0, 1, 1000), np.linspace(0, 1, 1000) > 0.95
    few, many = (limits_of(scores, fraud, reviews_per_day=n)["review"] for n in (10, 200))
    assert few > many


def test_an_amount_beyond_all_that_was_learned_from_is_an_anomaly_and_reviewed():
    turns = {"anomaly": 0.5, "review": 0.6, "block": 0.95, "largest_log_amount": 9.0}
    assert not is_unseen(9.0, turns)
    assert is_unseen(11.5, turns)
    assert not is_unseen(11.5, {"review": 0.6})  # a bundle that does not say how far it has seen
    assert is_anomaly(0.01, turns, unseen=True)
    assert decide_all([0.01, 0.01, 0.99], turns, [8.0, 11.5, 11.5]) == ["allow", "review", "block"]
