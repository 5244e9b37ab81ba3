"""The halves of a window: what stays the same, what changes, and when nothing can be said."""

import numpy as np

from finrisk_assets.modelling.monitoring import stability


def _window(n: int = 4_000, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    said = rng.beta(2, 5, n)
    moments = np.datetime64("2025-01-01T00:00") + np.arange(n).astype("timedelta64[h]")
    return rng.random(n) < said, said, moments, np.arange(n)


def test_a_window_in_which_nothing_changes_is_within_its_intervals() -> None:
    found = stability.halves(*_window())
    assert found.keys() == stability.MEANINGS.keys()
    assert found["stability_psi"].value < found["stability_psi_limit"].value
    for change in ("stability_auc_change", "stability_calibration_change"):
        assert found[change].low < 0 < found[change].high


def test_a_score_that_moves_and_a_rate_that_rises_are_seen() -> None:
    labels, said, moments, people = _window()
    later = np.arange(len(said)) >= len(said) / 2
    moved = stability.halves(labels, np.where(later, said**0.5, said), moments, people)
    assert moved["stability_psi"].value > 10 * moved["stability_psi_limit"].value
    assert moved["stability_calibration_change"].low > 0.05
    shuffled = np.where(later, np.random.default_rng(2).permutation(said), said)
    assert stability.halves(labels, shuffled, moments, people)["stability_auc_change"].high < 0


def test_rows_of_one_person_count_as_one() -> None:
    labels, said, moments, people = _window(2_000)
    alone = stability.halves(labels, said, moments, people)["stability_calibration_change"]
    tenfold = [np.repeat(one, 10) for one in (labels, said, moments, people)]
    together = stability.halves(*tenfold)["stability_calibration_change"]
    assert np.isclose(together.high - together.low, alone.high - alone.low, rtol=0.01)


def test_nothing_is_said_of_few_rows_or_of_rows_without_time() -> None:
    labels, said, moments, people = _window(80)
    assert stability.halves(labels, said, moments, people) == {}
    labels, said, moments, people = _window()
    assert stability.halves(labels, said, np.full(len(said), np.datetime64("NaT")), people) == {}
    assert stability.halves([], [], [], []) == {}
