"""The bounds of what a model can judge: exact ones, and the information that a row lacks."""

import numpy as np
import pytest

from finrisk_assets.scoring.feature_values import FeatureValues, TrainingRange


def feature(low: float | None, high: float | None, information: float = 0.0, *, is_ever_missing: bool = True) -> FeatureValues:
    return FeatureValues(low, high, is_ever_missing, low, low, high, information)


@pytest.mark.parametrize("low", [0.1, -0.1, 1 / 3, 1e-50, -1e30])
def test_a_value_is_outside_of_the_exact_bounds(low: float) -> None:
    """The bounds are no float32 numbers, the rows are: the numbers next to a bound are told apart as the exact bound tells them."""
    ranges = TrainingRange([feature(low, low + 1.0)], [False])
    exact = low - 0.5 * (low + 1.0 - low), low + 1.0 + 0.5 * (low + 1.0 - low)
    near = [np.nextafter(np.float32(bound), np.float32(way)) for bound in exact for way in (-np.inf, np.inf)]
    rows = np.array([*near, *map(np.float32, exact), np.nan], np.float32)[:, None]
    expected = [bool(value < exact[0] or value > exact[1]) for value in rows[:, 0].astype(np.float64)]
    assert ranges.find_outside(rows)[:, 0].tolist() == expected
    assert True in expected and False in expected


def test_a_row_lacks_what_training_always_had_or_too_much_information() -> None:
    ranges = TrainingRange([feature(0, 1, 0.3), feature(0, 1, 0.3), feature(0, 1, 0.4, is_ever_missing=False)], [False] * 3)
    nan = np.nan
    rows = np.array([[0, 0, 0], [nan, 0, 0], [nan, nan, 0], [0, 0, nan], [nan, nan, nan]], np.float32)
    assert ranges.lacks_values(rows, 0.5).tolist() == [False, False, True, True, True]
    assert ranges.lacks_values(rows, 0.6).tolist() == [False, False, False, True, True]
    assert TrainingRange((), ()).lacks_values(rows, 0.0).tolist() == [False] * 5
