"""Tests of beta calibration: it corrects the shape, preserves the order, and stays stable on small samples."""

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import calibrate


def sample(n, seed=1):
    rng = np.random.default_rng(seed)
    margin = rng.normal(-1.5, 1.2, n)
    return margin, rng.random(n) < 1 / (1 + np.exp(-margin)), rng


def test_overconfident_log_odds_are_brought_back_and_the_order_stays():
    margin, labels, _ = sample(20_000)
    fitted = calibrate.fit(2 * margin + 1, labels)
    probability = fitted.calibration.apply(2 * margin + 1)
    slope, intercept = metrics.calibration_line(labels, probability)
    assert fitted.form == "platt"  # twice too sure on both sides alike
    assert slope == pytest.approx(1, abs=0.02)
    assert intercept == pytest.approx(0, abs=0.02)
    assert fitted.log_loss_after < fitted.log_loss_before
    assert (np.diff(probability[np.argsort(margin)]) >= 0).all()


def test_a_probability_that_is_right_already_stays():
    margin, labels, _ = sample(50_000)
    calibration = calibrate.fit(1 / (1 + np.exp(-margin)), labels, "identity").calibration
    assert calibration.a == pytest.approx(1, abs=0.1)
    assert calibration.b == pytest.approx(1, abs=0.2)
    calibrated = calibration.apply(np.array([0.05, 0.2, 0.5]))
    assert calibrated == pytest.approx([0.05, 0.2, 0.5], abs=0.02)


def test_beta_bends_where_a_line_in_the_log_odds_cannot():
    _, _, rng = sample(1)
    q = rng.uniform(0.01, 0.99, 40_000)
    labels = rng.random(len(q)) < q**2
    calibration = calibrate.fit(q, labels, "identity").calibration
    assert calibration.a != pytest.approx(calibration.b, abs=0.3)
    assert calibration.apply(np.array([0.2, 0.5, 0.8])) == pytest.approx([0.04, 0.25, 0.64], abs=0.02)


def test_few_outcomes_get_one_slope():
    margin, labels, _ = sample(120)
    fitted = calibrate.fit(margin, labels)
    assert fitted.form == "platt"
    assert fitted.calibration.a == fitted.calibration.b


def test_a_separated_sample_and_a_reversed_score_stay_finite():
    separated = calibrate.fit([-2.0, -1.0, 1.0, 2.0], [0, 0, 1, 1]).calibration
    assert np.isfinite([separated.a, separated.c]).all()
    assert 0 < separated.apply([-2.0])[0] < separated.apply([2.0])[0] < 1
    margin, labels, _ = sample(5_000)
    reversed_score = calibrate.fit(-margin, labels).calibration
    assert (reversed_score.a, reversed_score.b) == (0, 0)
    assert reversed_score.apply([0.0])[0] == pytest.approx(labels.mean(), abs=0.01)


@pytest.mark.parametrize(
    ("margin", "labels", "message"),
    [([0.1, 0.2], [1, 1], "2 of 2"), ([0.1, np.nan], [0, 1], "1 scores are not finite"), ([0.1], [0, 1], "one score per label")],
)
def test_what_cannot_be_fitted_is_said(margin, labels, message):
    with pytest.raises(ValueError, match=message):
        calibrate.fit(margin, labels)
