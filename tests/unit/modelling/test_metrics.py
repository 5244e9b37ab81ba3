"""Tests of the metrics of a score, each against a second computation."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.metrics import average_precision_score, roc_auc_score

from finrisk_assets.modelling.evaluation import metrics, plots


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(3)
    margin = rng.normal(-1, 1.3, 4000)
    probability = 1 / (1 + np.exp(-margin))
    return rng.random(4000) < probability, probability, np.round(margin + rng.normal(0, 1, 4000), 1)


def test_auc_is_sklearns_and_its_interval_the_bootstraps(sample):
    labels, _, tied = sample
    estimate = metrics.auc(labels, tied)
    drawn = metrics.bootstrap_interval(lambda y, s: float(roc_auc_score(y, s)), labels, tied, labels=labels, draws=400, seed=1)
    assert estimate.value == pytest.approx(roc_auc_score(labels, tied), abs=1e-12)
    assert estimate.high - estimate.low == pytest.approx(drawn.high - drawn.low, rel=0.15)


def test_delong_variance_is_that_of_the_definition():
    labels, scores = np.array([1, 1, 1, 0, 0, 0, 0]), np.array([0.9, 0.4, 0.7, 0.4, 0.1, 0.8, 0.3])
    bad, good = scores[labels == 1], scores[labels == 0]
    wins = (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
    variance = wins.mean(axis=1).var(ddof=1) / len(bad) + wins.mean(axis=0).var(ddof=1) / len(good)
    estimate = metrics.auc(labels, scores)
    assert estimate.value == pytest.approx(wins.mean())
    assert estimate.value - estimate.low == pytest.approx(1.959964 * np.sqrt(variance))


def test_a_hundred_thousand_rows_need_no_table_of_all_pairs():
    rng = np.random.default_rng(1)
    labels, scores = rng.random(100_000) < 0.1, rng.random(100_000)
    tracemalloc.start()
    metrics.auc(labels, scores)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 * len(scores) * 8  # bytes; all pairs would be 9,000 times the scores


def test_a_paired_comparison_is_narrower_than_two_intervals_and_finds_the_better(sample):
    labels, probability, tied = sample
    better = metrics.compare_auc(labels, probability, tied)
    assert better.difference.low > 0
    assert better.p_value < 1e-6
    same = metrics.compare_auc(labels, probability, probability**2)
    assert (same.difference.value, same.p_value) == (0, 1)


def test_a_perfect_score_has_an_auc_of_one_without_width():
    estimate = metrics.auc([0, 0, 1, 1], [1, 2, 3, 4])
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)
    assert metrics.ks([0, 0, 1, 1], [1, 2, 3, 4]) == 1
    assert metrics.gini([0, 0, 1, 1], [1, 2, 3, 4]) == 1


def test_the_calibration_line_of_an_honest_probability_is_the_diagonal_and_finds_a_bent_one(sample):
    labels, probability, _ = sample
    assert metrics.calibration_line(labels, probability) == pytest.approx((1, 0), abs=0.1)
    log_odds = np.log(probability / (1 - probability))
    slope, intercept = metrics.calibration_line(labels, 1 / (1 + np.exp(-(2 * log_odds + 1))))
    assert (slope, intercept) == pytest.approx((0.5, -0.5), abs=0.1)
    assert metrics.expected_calibration_error(labels, probability) < 0.03 < metrics.expected_calibration_error(labels, probability**2)


def test_separated_outcomes_have_no_calibration_slope():
    with pytest.raises(ValueError, match="perfectly"):
        metrics.calibration_line([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])


def test_jeffreys_clears_a_grade_that_keeps_its_word_and_not_one_that_says_too_little():
    labels = np.concatenate([np.arange(1000) < 20, np.arange(1000) < 120])
    predicted = np.repeat([0.02, 0.08], 1000)
    good, bad = metrics.jeffreys_test(labels, predicted, np.repeat(["A", "B"], 1000))
    assert (good.grade, good.n, good.defaults) == ("A", 1000, 20)
    assert good.low < 0.02 < good.high
    assert good.p_value > 0.3
    assert bad.low > 0.08
    assert bad.p_value < 0.001


def test_brier_and_log_loss_of_a_coin():
    assert metrics.brier([0, 1], [0.5, 0.5]) == 0.25
    assert metrics.log_loss([0, 1], [0.5, 0.5]) == pytest.approx(np.log(2))


def test_the_summary_is_the_same_for_the_same_seed_and_every_interval_holds_its_value(sample):
    labels, probability, _ = sample
    one = metrics.compute_metrics(labels, probability, draws=30, seed=5)
    assert one == metrics.compute_metrics(labels, probability, draws=30, seed=5)
    assert {"auc", "gini", "ks", "brier", "calibration_slope", "average_precision"} <= one.keys()
    assert all(interval.low <= interval.high for interval in one.values())


def test_labels_of_one_kind_are_refused():
    with pytest.raises(ValueError, match="0 of 3 rows"):
        metrics.auc([0, 0, 0], [1, 2, 3])
    with pytest.raises(ValueError, match="outside 0 to 1"):
        metrics.brier([0, 1], [0.5, 1.5])


def test_every_picture_is_a_png_and_the_same_twice(sample):
    labels, probability, tied = sample
    rows = np.column_stack([probability, tied, np.where(labels, np.nan, tied)])
    drawings = (
        lambda: plots.plot_roc_pr(labels, {"one": probability, "two": tied}),
        lambda: plots.plot_calibration(labels, probability),
        lambda: plots.plot_scores(labels, probability, {"refer": 0.2, "refuse": 0.5}),
        lambda: plots.plot_shap_summary(rows - np.nanmean(rows, axis=0).mean(), rows, ["a", "b", "c"]),
    )
    for draw in drawings:
        png = draw()
        assert png.startswith(b"\x89PNG")
        assert png == draw()


@pytest.mark.parametrize("digits", [1, 3, 12])
def test_average_precision_and_ks_are_those_of_sklearn_and_scipy_with_ties_and_without(digits):
    rng = np.random.default_rng(digits)
    labels = rng.random(700) < 0.2
    scores = np.round(rng.random(700) + 0.3 * labels, digits)
    assert metrics.average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert metrics.ks(labels, scores) == pytest.approx(ks_2samp(scores[labels], scores[~labels]).statistic, abs=1e-12)
