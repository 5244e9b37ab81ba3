"""Tests of the shift of served scores against those of the test window."""

import numpy as np
import pytest
from scipy.stats import chi2

from bento.console.score_shift import MIN_DECISIONS, measure_shift
from finrisk_assets.modelling.monitoring import drift

TESTED = [0.3, 0.25, 0.2, 0.15, 0.1, *[0.0] * 15]


def test_the_index_and_its_limit_are_those_of_the_monitoring() -> None:
    served = [40, 60, 50, 30, 20, *[0] * 15]
    shift = measure_shift(served, TESTED, 1000)
    assert shift.psi == pytest.approx(drift.psi(np.array(TESTED[:5]) * 1000, served[:5]))
    assert shift.limit == pytest.approx(chi2.ppf(0.95, 4) * (1 / 200 + 1 / 1000), rel=0.01)
    assert shift.is_moved is False


def test_other_scores_are_a_shift_and_a_few_are_not_judged() -> None:
    assert measure_shift([0] * 10 + [200] + [0] * 9, TESTED, 1000).is_moved is True
    few = measure_shift([MIN_DECISIONS - 1, *[0] * 19], TESTED, 1000)
    assert (few.psi, few.is_moved, few.decisions) == (None, None, MIN_DECISIONS - 1)


def test_without_a_shift_few_are_called_one() -> None:
    rng = np.random.default_rng(5)
    moved = [measure_shift(rng.multinomial(150, TESTED).tolist(), TESTED, 2000).is_moved for _ in range(300)]
    assert np.mean(moved) < 0.07
