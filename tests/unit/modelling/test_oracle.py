"""Tests of the comparison of a model with the true probabilities."""

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation import oracle


def test_the_oracle_itself_has_no_gap_and_no_calibration_error() -> None:
    rng = np.random.default_rng(1)
    true = rng.beta(1, 6, 20_000)
    comparison = oracle.compare(rng.random(20_000) < true, true, true)
    assert comparison["auc_gap"].value == 0
    assert comparison["calibration_error"].value == pytest.approx(0, abs=1e-12)
    assert 0 < comparison["oracle_calibration_error"].value < 0.01  # the noise of the outcomes alone


def test_a_model_that_doubles_the_odds_ranks_as_well_but_is_told_apart_by_its_calibration() -> None:
    rng = np.random.default_rng(1)
    true = rng.beta(1, 6, 20_000)
    predicted = 2 * true / (1 + true)
    comparison = oracle.compare(rng.random(20_000) < true, predicted, true)
    assert comparison["auc_gap"].value == pytest.approx(0, abs=1e-9)
    assert comparison["calibration_error"].value == pytest.approx(float(np.mean(predicted - true)), abs=1e-3)


def test_a_model_that_knows_half_is_behind_by_more_than_its_interval() -> None:
    rng = np.random.default_rng(1)
    seen, unseen = rng.normal(size=(2, 20_000))
    true = 1 / (1 + np.exp(2 - seen - unseen))
    comparison = oracle.compare(rng.random(20_000) < true, 1 / (1 + np.exp(2 - seen)), true)
    assert comparison["auc_gap"].low > 0.02
    assert set(comparison) == set(oracle.MEANINGS)


def test_the_distance_from_the_oracle_is_what_data_would_bring_and_what_nobody_sees() -> None:
    rng = np.random.default_rng(1)
    seen, unseen, noise = rng.normal(size=(3, 20_000))
    true = 1 / (1 + np.exp(2 - seen - unseen))
    figures = oracle.compare_with_attainable(rng.random(20_000) < true, seen + noise, seen, true)
    assert figures["auc"].value < figures["attainable_auc"].value < figures["oracle_auc"].value
    assert figures["gap_to_attainable"].value == pytest.approx(figures["attainable_auc"].value - figures["auc"].value)
    assert figures["gap_to_oracle"].low > figures["gap_to_attainable"].high


def test_rows_of_one_outcome_are_not_ranked() -> None:
    comparison = oracle.compare(np.zeros(100), np.full(100, 0.01), np.full(100, 0.02))
    assert comparison.keys() == {"calibration_error", "oracle_calibration_error", "n_truth"}
    assert comparison["calibration_error"].value == pytest.approx(0.01)
