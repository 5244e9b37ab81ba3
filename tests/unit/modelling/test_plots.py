"""Tests of the pictures: what is missing, tied or extreme is shown as such."""

import io

import numpy as np
from matplotlib import colormaps, colors, image

from finrisk_assets.graph.warehouse import markdown_table
from finrisk_assets.modelling.evaluation import plots


def test_tied_zeros_are_low_and_the_largest_value_is_high() -> None:
    ranks = plots._rank_values(np.array([0.0] * 90 + [1.0] * 9 + [5.0]))
    assert set(ranks[:90]) == {0.0}
    assert ranks[-1] == 1.0 and 0.5 < ranks[95] < 1.0
    assert list(plots._rank_values(np.array([0.0, 1.0, 1.0, 1.0]))) == [0.0, 1.0, 1.0, 1.0]
    assert list(plots._rank_values(np.array([3.0, 3.0]))) == [0.0, 0.0]
    assert plots._rank_values(np.array([])).shape == (0,)


def test_a_missing_value_has_a_colour_that_no_value_has() -> None:
    missing = np.array(colors.to_rgb(plots.MISSING_COLOUR))
    scale = colormaps["cividis"](np.linspace(0, 1, 256))[:, :3]
    assert np.abs(scale - missing).max(axis=1).min() > 0.3

    effects = np.linspace(-1, 1, 60)[:, None]
    with_values = image.imread(io.BytesIO(plots.plot_shap_summary(effects, np.linspace(0, 9, 60)[:, None], ["income"])))
    without = image.imread(io.BytesIO(plots.plot_shap_summary(effects, np.full((60, 1), np.nan), ["income"])))
    assert [_share_of(picture, missing) > 0 for picture in (with_values, without)] == [False, True]


def _share_of(picture: np.ndarray, colour: np.ndarray) -> float:
    return float((np.abs(picture[:, :, :3] - colour).max(axis=2) < 0.02).mean())


def test_a_table_shows_three_significant_digits_and_nothing_where_there_is_nothing() -> None:
    rows = [{"metric": metric, "value": value, "low": low} for metric, value, low in (("auc", 0.86452, 0.85), ("n_test", 34754.0, None))]
    assert markdown_table(rows).splitlines()[2:] == ["| auc | 0.865 | 0.85 |", "| n_test | 34,754 |  |"]
