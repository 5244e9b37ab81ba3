"""Tests of the comparison of a test window's two halves."""

import numpy as np

from finrisk_assets.modelling.monitoring import stability


def _window(n: int = 4_000, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    predicted = rng.beta(2, 5, n)
    moments = np.datetime64("2025-01-01T00:00") + np.arange(n).astype("timedelta64[h]")
    return rng.random(n) < predicted, predicted, moments, np.arange(n)


def test_a_window_in_which_nothing_changes_is_within_its_intervals() -> None:
    halves = stability.compare_halves(*_window())
    assert halves.keys() == stability.MEANINGS.keys()
    assert halves["stability_psi"].value < halves["stability_psi_limit"].value
    for change in ("stability_auc_change", "stability_calibration_change"):
        assert halves[change].low < 0 < halves[change].high


def test_a_score_that_moves_and_a_rate_that_rises_are_seen() -> None:
    labels, predicted, moments, people = _window()
    later = np.arange(len(predicted)) >= len(predicted) / 2
    moved = stability.compare_halves(labels, np.where(later, predicted**0.5, predicted), moments, people)
    assert moved["stability_psi"].value > 10 * moved["stability_psi_limit"].value
    assert moved["stability_calibration_change"].low > 0.05
    shuffled = np.where(later, np.random.default_rng(2).permutation(predicted), predicted)
    assert stability.compare_halves(labels, shuffled, moments, people)["stability_auc_change"].high < 0


def test_rows_of_one_person_count_as_one() -> None:
    labels, predicted, moments, people = _window(2_000)
    alone = stability.compare_halves(labels, predicted, moments, people)["stability_calibration_change"]
    tenfold = [np.repeat(one, 10) for one in (labels, predicted, moments, people)]
    together = stability.compare_halves(*tenfold)["stability_calibration_change"]
    assert np.isclose(together.high - together.low, alone.high - alone.low, rtol=0.01)


def test_nothing_is_said_of_few_rows_or_of_rows_without_time() -> None:
    labels, predicted, moments, people = _window(80)
    assert stability.compare_halves(labels, predicted, moments, people) == {}
    labels, predicted, moments, people = _window()
    assert stability.compare_halves(labels, predicted, np.full(len(predicted), np.datetime64("NaT")), people) == {}
    assert stability.compare_halves([], [], [], []) == {}
