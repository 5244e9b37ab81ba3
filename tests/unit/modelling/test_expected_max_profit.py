"""Tests of the expected maximum profit, against numerical integration and cases worked out by hand."""

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation.expected_max_profit import expected_max_profit


def by_brute_force(labels, scores, none_lost=0.55, all_lost=0.10, roi=0.2644, steps=20_001):
    """Return the best profit over all cutoffs at each of many loss fractions, averaged by the trapezium rule."""
    cutoffs = np.append(np.unique(scores), np.inf)
    saved = np.array([(labels & (scores >= cutoff)).mean() for cutoff in cutoffs])
    forgone = roi * np.array([(~labels & (scores >= cutoff)).mean() for cutoff in cutoffs])
    losses = np.linspace(0, 1, steps)
    best = np.array([(loss * saved - forgone).max() for loss in losses])
    return (1 - none_lost - all_lost) * np.trapezoid(best, losses) + all_lost * best[-1] + none_lost * best[0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_best_profit_integrated_over_the_losses(seed, ties):
    rng = np.random.default_rng(seed)
    labels = rng.random(300) < 0.2
    scores = labels * rng.normal(0.8, 1, 300) + rng.normal(0, 1, 300)
    scores = scores.round(0) if ties else scores
    options = {"none_lost": 0.3, "all_lost": 0.2, "roi": 0.1} if seed % 2 else {}
    assert expected_max_profit(labels, scores, **options).profit == pytest.approx(by_brute_force(labels, scores, **options), abs=1e-7)


def test_a_perfect_score_refuses_the_defaults_alone():
    labels = np.array([True] * 20 + [False] * 80)
    profit = expected_max_profit(labels, labels.astype(float))
    # Nothing is forgone, so the profit is the mean loss: (0.35 / 2 + 0.1) of a fifth.
    assert profit.profit == pytest.approx(0.2 * (0.35 / 2 + 0.1))
    assert profit.refused == pytest.approx(0.2)


def test_a_score_that_knows_nothing_refuses_nobody():
    labels = np.array([True, False, False, False, False])
    profit = expected_max_profit(labels, np.zeros(5))
    assert (profit.profit, profit.refused) == (0.0, 0.0)


def test_only_the_order_of_the_scores_counts():
    rng = np.random.default_rng(1)
    labels, scores = rng.random(200) < 0.3, rng.normal(size=200)
    assert expected_max_profit(labels, scores) == expected_max_profit(labels, np.exp(scores))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [([False, False], {}, "0 of 2 loans defaulted"), ([True, False], {"none_lost": 0.9, "all_lost": 0.2}, "shares of one whole")],
)
def test_what_it_cannot_answer_it_says(labels, options, message):
    with pytest.raises(ValueError, match=message):
        expected_max_profit(labels, [1.0, 0.0], **options)
