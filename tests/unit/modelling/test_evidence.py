"""Tests of the evidence of a model: right curves, bounded size, nothing of few people, the same bytes."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from finrisk_assets.modelling.packs import evidence
from tests.service.evidence_example import measure_example

N = 3_000


@pytest.fixture
def window() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, probabilities that are right, and people of a window."""
    rng = np.random.default_rng(1)
    probability = rng.beta(1, 5, N)
    return rng.uniform(size=N) < probability, probability, np.arange(N)


def test_the_roc_curve_has_the_area_of_all_rows(window):
    labels, probability, people = window
    measured = evidence.measure_outcomes(labels, probability, probability, people)
    x, y = np.array(measured["roc"]).T
    assert len(x) <= evidence.MAX_POINTS
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(labels, probability), abs=0.005)


def test_precision_over_recall_has_the_mean_of_all_rows(window):
    labels, probability, people = window
    recall, precision = np.array(evidence.measure_outcomes(labels, probability, probability, people)["precision_recall"]).T
    assert len(recall) <= evidence.MAX_POINTS
    mean = float(np.sum(np.diff(recall, prepend=0) * precision))
    assert mean == pytest.approx(average_precision_score(labels, probability), abs=0.02)


def test_a_rare_outcome_keeps_its_steps():
    labels = np.zeros(100_000, bool)
    labels[[0, 1, 4]] = True
    scores = np.linspace(1, 0, len(labels))
    measured = evidence.measure_outcomes(labels, scores, scores, np.arange(len(labels)))
    assert [0.333333, 1.0] in measured["precision_recall"] and [1.0, 0.6] in measured["precision_recall"]


def test_calibration_has_groups_of_equal_size_and_jeffreys_intervals(window):
    labels, probability, people = window
    groups = evidence.measure_outcomes(labels, probability, probability, people)["calibration"]
    assert [group["rows"] for group in groups] == [N // 10] * 10
    assert all(group["low"] <= group["observed"] <= group["high"] for group in groups)
    assert sum(group["low"] <= group["predicted"] <= group["high"] for group in groups) >= 8


def test_calibration_of_few_people_has_fewer_groups_or_none(window):
    labels, probability, _ = window
    few = evidence.measure_outcomes(labels, probability, probability, np.arange(N) % 45)["calibration"]
    assert len(few) == 4
    assert evidence.measure_outcomes(labels, probability, probability, np.arange(N) % 19)["calibration"] == []


def test_a_small_window_and_one_of_a_single_outcome_have_no_curves():
    labels, probability = np.arange(40) % 2 == 0, np.linspace(0, 1, 40)
    assert evidence.measure_outcomes(labels, probability, probability, np.arange(40)) == {}
    assert evidence.measure_outcomes(np.zeros(100), np.zeros(100), np.zeros(100), np.arange(100)) == {}
    assert evidence.measure_scores(probability) == []


def test_scores_are_shares_of_twenty_bins():
    shares = evidence.measure_scores(np.r_[np.zeros(30), np.full(60, 0.049), np.ones(10)])
    assert len(shares) == evidence.SCORE_BINS and (shares[0], shares[-1], sum(shares)) == (0.9, 0.1, 1.0)


def test_effects_are_of_low_middle_high_and_missing_values_and_none_of_few_rows():
    values = np.r_[np.arange(90.0), np.full(9, np.nan)][:, None]
    (effect,) = evidence.measure_effects(2 * np.nan_to_num(values), values, ["x"])
    assert {group["values"]: group["rows"] for group in effect["groups"]} == {"low": 30, "middle": 30, "high": 30}
    assert [group["middle"] for group in effect["groups"]] == [29.0, 89.0, 149.0]


def test_only_the_strongest_features_are_kept():
    contributions = np.tile(np.arange(40.0), (50, 1))
    effects = evidence.measure_effects(contributions, contributions, [f"f{at}" for at in range(40)])
    assert [effect["feature"] for effect in effects][:2] == ["f39", "f38"] and len(effects) == evidence.MAX_EFFECTS


def test_evidence_is_small_and_its_bytes_are_its_values_alone():
    content = evidence.write_evidence(measure_example())
    assert content == evidence.write_evidence(measure_example()) and len(content) < 60_000
    assert evidence.read_evidence(content) == json.loads(content)


def test_a_scorecard_withholds_the_rate_of_few_rows():
    card = measure_example()["scorecard"]
    rare = [line for line in card["lines"] if line["share"] * 2000 < 10]
    common = [line for line in card["lines"] if line["share"] * 2000 >= 10]
    assert rare and all(line["event_rate"] is None for line in rare)
    assert common and all(line["event_rate"] is not None for line in common)
