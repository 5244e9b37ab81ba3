"""Tests of the comparison of review by worth with review of the highest scores."""

from types import SimpleNamespace

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation.review_worth import compare_review_rules
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.policy_thresholds import find_thresholds
from finrisk_assets.scoring.score_curve import draw_score_curve

DAYS, PEOPLE = 14, 400


def simulate_window(seed: int) -> tuple[np.ndarray, ...]:
    """Return probability, amount, fraud and person of transactions whose frauds happen as often as their probability says."""
    random = np.random.default_rng(seed)
    n = 20_000
    probability, amount = random.beta(0.2, 20, n), random.lognormal(3, 1.5, n)
    return probability, amount, random.random(n) < probability, random.integers(0, PEOPLE, n)


def decide_under(window: tuple[np.ndarray, ...], **changes: float) -> SimpleNamespace:
    """Return the part of a bundle that decides on reviews, with thresholds from a window and a changed policy."""
    probability, amount, fraud, _ = window
    policy = default_policy()
    policy = policy.model_copy(update={"transaction_anomaly": policy.transaction_anomaly.model_copy(update=changes)})
    curves = draw_score_curve(probability, fraud, DAYS), draw_score_curve(probability * amount, None, DAYS)
    thresholds = find_thresholds("transaction_anomaly", policy, *curves)
    return SimpleNamespace(policy=policy, thresholds=thresholds, score_curve=curves[0], loss_curve=curves[1], version="5f")


def test_review_by_worth_saves_more_with_fewer_reviews() -> None:
    window = simulate_window(seed=2)
    compared = compare_review_rules(*window, DAYS, decide_under(simulate_window(seed=1)), seed=1)
    assert compared.gain.low > 0
    assert compared.gain.value == pytest.approx(compared.saved_by_worth - compared.saved_by_score)
    assert compared.reviews_by_worth < compared.reviews_by_score == pytest.approx(100 * 28, rel=0.1)


def test_the_savings_are_those_of_what_happened_scaled_to_28_days() -> None:
    probability, amount, fraud, _ = window = simulate_window(seed=2)
    decider = decide_under(window, review_finds_share=0.5, review_cost_amount=8.0, block_precision=0.999)
    reviewed = probability * amount >= 16.0
    compared = compare_review_rules(*window, DAYS, decider, seed=1)
    assert compared.reviews_by_worth == 2 * reviewed.sum()
    assert compared.saved_by_worth == pytest.approx(2 * (0.5 * amount[reviewed & fraud].sum() - 8.0 * reviewed.sum()))


def test_the_interval_counts_people_and_not_transactions() -> None:
    """Every transaction ten times at a tenth of the worth: the interval stays as wide as it was."""
    window, decider = simulate_window(seed=3), decide_under(simulate_window(seed=1))
    once = compare_review_rules(*window, DAYS, decider, seed=1).gain
    often = compare_review_rules(*(np.repeat(column, 10) for column in window), 10 * DAYS, decider, seed=1).gain
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_what_is_blocked_is_reviewed_by_neither_rule() -> None:
    window, decider = simulate_window(seed=2), decide_under(simulate_window(seed=1))
    decider.thresholds = {**decider.thresholds, "block": 0.0}
    compared = compare_review_rules(*window, DAYS, decider, seed=1)
    assert (compared.reviews_by_worth, compared.reviews_by_score, compared.gain.value) == (0, 0, 0)


def test_the_comparison_says_what_is_missing() -> None:
    window, decider = simulate_window(seed=1), decide_under(simulate_window(seed=1))
    with pytest.raises(ValueError, match="0 transactions of 14 days"):
        compare_review_rules([], [], [], [], DAYS, decider, seed=1)
    decider.loss_curve = None
    with pytest.raises(ValueError, match="bundle 5f has no curve of expected losses"):
        compare_review_rules(*window, DAYS, decider, seed=1)
