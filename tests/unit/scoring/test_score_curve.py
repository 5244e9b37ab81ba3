"""The score curve of a bundle: capacities and precisions as thresholds, and what a curve must hold."""

import numpy as np
import pytest

from finrisk_assets.scoring.score_curve import EXACT_POINTS, LATER_POINTS, ScoreCurve, draw_score_curve


def reached(scores: np.ndarray, threshold: float) -> int:
    return int((scores >= threshold).sum())


def test_equal_scores_never_exceed_the_capacity() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    curve = draw_score_curve(scores, None, 1)
    assert [reached(scores, curve.find_capacity_threshold(n)) for n in (0.5, 1, 2, 3, 4, 5, 99)] == [0, 1, 1, 1, 4, 5, 5]


def test_a_long_curve_is_exact_at_its_top_and_close_below() -> None:
    scores = np.random.default_rng(3).random(100_000)
    curve = draw_score_curve(scores, None, 28)
    assert len(curve.scores) <= EXACT_POINTS + LATER_POINTS
    assert [reached(scores, curve.find_capacity_threshold(n)) for n in (1, 57, EXACT_POINTS)] == [1, 57, EXACT_POINTS]
    for n in (1_000, 2_000, 50_000):
        assert 0.97 * n <= reached(scores, curve.find_capacity_threshold(n)) <= n


def test_the_precision_threshold_is_the_lowest_score_that_is_precise_enough() -> None:
    scores = np.concatenate([np.linspace(0.9, 1, 50), np.linspace(0, 0.5, 950)])
    curve = draw_score_curve(scores, np.arange(1000) < 50, 1)
    threshold = curve.find_precision_threshold(0.9)
    assert threshold is not None and 50 <= reached(scores, threshold) <= 55
    assert draw_score_curve([0.9, 0.8, 0.1, 0.1], [True, True, False, False], 1).find_precision_threshold(0.9) is None
    assert draw_score_curve(scores, None, 1).find_precision_threshold(0.1) is None


def test_a_curve_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="1 of 2 are not"):
        draw_score_curve([0.1, np.nan], None, 1)
    with pytest.raises(ValueError, match="one label per score"):
        draw_score_curve([0.1, 0.2], [True], 1)
    with pytest.raises(ValueError, match="at least one row and one day"):
        draw_score_curve([0.1], None, 0)
    with pytest.raises(ValueError, match="falling scores"):
        ScoreCurve((0.1, 0.2), (1, 2), (), 2, 1)
