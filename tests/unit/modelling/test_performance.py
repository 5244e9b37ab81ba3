"""Tests of performance estimates without labels, and of their reconciliation once the labels arrive."""

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.monitoring import performance

THRESHOLDS = (0.1, 0.3)
FIGURES = ["rate", "auc", "brier", "precision_at_0.1", "recall_at_0.1", "precision_at_0.3", "recall_at_0.3"]


def window(rng, n=1_500):
    """Return probabilities of a rate near 4 %, as of a default model."""
    return rng.beta(0.5, 12, n)


def disagrees(figures):
    return not all(one.agrees for one in figures)


def test_the_estimate_is_the_mean_of_what_labels_would_show():
    rng = np.random.default_rng(1)
    p = np.round(window(rng), 2)
    figures = performance.estimate(p, thresholds=THRESHOLDS, draws=50, seed=1)
    assert list(figures) == FIGURES
    drawn = [rng.random(len(p)) < p for _ in range(400)]
    flagged = p >= 0.1
    shares = {
        "rate": [y.mean() for y in drawn],
        "auc": [metrics.auc(y, p).value for y in drawn],
        "brier": [metrics.brier(y, p) for y in drawn],
        "precision_at_0.1": [y[flagged].mean() for y in drawn],
        "recall_at_0.1": [y[flagged].sum() / y.sum() for y in drawn],
    }
    for name, values in shares.items():
        # Four standard errors of the mean.
        assert figures[name].value == pytest.approx(np.mean(values), abs=4 * np.std(values) / 20), name


def test_no_row_is_paired_with_itself():
    # Right pairs are (.9, .2), (.9, .5) and (.5, .2); every ordered pair of two rows may be one of an outcome and none.
    right = 0.9 * 0.8 + 0.9 * 0.5 + 0.5 * 0.8
    every = right + 0.2 * 0.1 + 0.5 * 0.1 + 0.2 * 0.5
    assert performance.estimate([0.9, 0.2, 0.5], draws=20, seed=1)["auc"].value == pytest.approx(right / every)


def test_its_intervals_hold_what_the_labels_then_show():
    rng = np.random.default_rng(2)
    held = {name: 0 for name in FIGURES}
    for seed in range(200):
        p = window(rng)
        figures = performance.estimate(p, thresholds=THRESHOLDS, draws=200, seed=seed)
        for one in performance.reconcile(p, rng.random(len(p)) < p, thresholds=THRESHOLDS, draws=20, seed=seed):
            held[one.figure] += figures[one.figure].low <= one.realised <= figures[one.figure].high
            assert one.estimated == figures[one.figure].value
    for name, times in held.items():
        assert times / 200 == pytest.approx(0.95, abs=0.062), name


def test_calibrated_probabilities_agree_as_often_as_stated():
    rng = np.random.default_rng(3)
    windows = [window(rng) for _ in range(200)]
    alarms = [disagrees(performance.reconcile(p, rng.random(len(p)) < p, thresholds=THRESHOLDS, draws=200, seed=7)) for p in windows]
    assert 0 < np.mean(alarms) < 0.05 + 0.062


@pytest.mark.parametrize(
    "truth",
    [
        lambda p: np.minimum(1.6 * p, 1),
        lambda p: p / 2,
        # The ranking has decayed, the rate has not moved.
        lambda p: 0.4 * p + 0.6 * p.mean(),
    ],
)
def test_miscalibration_is_found_at_reconciliation(truth):
    rng = np.random.default_rng(4)
    p = window(rng, 3_000)
    figures = performance.reconcile(p, rng.random(len(p)) < truth(p), thresholds=THRESHOLDS, seed=5)
    assert disagrees(figures)
    for one in figures:
        assert one.difference.value == pytest.approx(one.realised - one.estimated)
        assert one.agrees == (one.difference.low <= 0 <= one.difference.high)


def test_a_decayed_ranking_at_the_same_rate_shows_in_the_auc_and_not_in_the_rate():
    rng = np.random.default_rng(4)
    p = window(rng, 20_000)
    figures = {one.figure: one for one in performance.reconcile(p, rng.random(len(p)) < 0.4 * p + 0.6 * p.mean(), draws=200, seed=5)}
    assert figures["rate"].agrees
    assert not figures["auc"].agrees and figures["auc"].realised < figures["auc"].estimated


def test_the_estimate_follows_the_inputs():
    rng = np.random.default_rng(8)
    easy, hard = rng.beta(0.2, 2, 2_000), rng.beta(20, 200, 2_000)
    assert performance.estimate(easy, seed=1)["auc"].low > performance.estimate(hard, seed=1)["auc"].high


def test_outcomes_that_come_together_disagree_only_when_taken_for_independent():
    rng = np.random.default_rng(6)
    customer = np.repeat(np.arange(300), 6)
    naive, clustered, held = [], [], []
    for seed in range(120):
        p = np.repeat(rng.beta(0.7, 8, 300), 6)
        labels = np.repeat(rng.random(300), 6) < p
        naive.append(disagrees(performance.reconcile(p, labels, draws=100, seed=seed)))
        clustered.append(disagrees(performance.reconcile(p, labels, customers=customer, draws=100, seed=seed)))
        rate = performance.estimate(p, customers=customer, draws=100, seed=seed)["rate"]
        held.append(rate.low <= labels.mean() <= rate.high)
    assert np.mean(naive) > 0.3
    assert np.mean(clustered) < 0.05 + 0.08
    assert np.mean(held) > 0.95 - 0.08
    wrong = np.repeat(rng.random(300), 6) < 2.5 * p
    assert disagrees(performance.reconcile(p, wrong, customers=customer, seed=1))


def test_a_threshold_that_nobody_reaches_is_left_out():
    p = np.full(200, 0.05)
    assert list(performance.estimate(p, thresholds=(0.01, 0.9), seed=1)) == ["rate", "auc", "brier", "precision_at_0.01", "recall_at_0.01"]
    assert performance.estimate(p, seed=1)["auc"].value == pytest.approx(0.5)


def test_the_same_seed_gives_the_same_figures():
    p = window(np.random.default_rng(9))
    assert performance.estimate(p, seed=1) == performance.estimate(p, seed=1)
    assert performance.estimate(p, seed=1)["auc"].low != performance.estimate(p, seed=2)["auc"].low


def test_what_cannot_be_judged_is_refused():
    p = np.full(50, 0.1)
    with pytest.raises(ValueError, match="2 of 3 probabilities lie outside"):
        performance.estimate([0.5, 1.2, np.nan], seed=1)
    with pytest.raises(ValueError, match="expected to have the outcome"):
        performance.estimate(np.full(50, 0.001), seed=1)
    with pytest.raises(ValueError, match="one customer per probability"):
        performance.estimate(p, customers=["1"], seed=1)
    with pytest.raises(ValueError, match="one label, 0 or 1"):
        performance.reconcile(p, np.full(50, 0.5), seed=1)
    with pytest.raises(ValueError, match="0 of 50 rows have the outcome"):
        performance.reconcile(p, np.zeros(50), seed=1)
