"""Tests of trees on few and on many rows: the same bits, and never more work for a row among more rows."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from finrisk_assets.scoring import tree_shap
from finrisk_assets.scoring.spec import Rows
from finrisk_assets.scoring.tree_shap import TreeShap, read_trees

ROW_COUNTS = (1, 16, 64, 127, 128, 256, 257, 512, 1024)
MATRIX_ROWS = 1024
"""Rows from which SHAP values are added subtree by subtree."""


@pytest.fixture(scope="module")
def rows() -> Rows:
    draw = np.random.default_rng(3)
    rows = draw.normal(size=(max(ROW_COUNTS), 6)).astype(np.float32).round(1)
    rows[draw.random(rows.shape) < 0.1] = np.nan
    return rows


@pytest.fixture(scope="module")
def trees(rows: Rows) -> TreeShap:
    return TreeShap(train(rows), rows.shape[1])


def train(rows: Rows) -> bytes:
    import xgboost

    known = np.nan_to_num(rows)
    labels = known[:, 0] + known[:, 1] * known[:, 2] > 0.5
    trained = xgboost.train({"max_depth": 4, "objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(rows, labels), 80)
    return bytes(trained.save_raw("json"))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 16, 127, 128, 255, 256, 257, 511, 513, 1023, 1024])
def test_a_row_has_the_same_bits_alone_and_among_others(trees: TreeShap, rows: Rows, n: int) -> None:
    alone = [trees.explain(rows[at : at + 1]) for at in range(n)]
    margins, shap_values = trees.explain(rows[:n])
    assert np.array_equal(margins, np.concatenate([margin for margin, _ in alone]))
    assert np.array_equal(shap_values, np.concatenate([values for _, values in alone]))
    assert np.array_equal(trees.margin(rows[:n]), margins)


def test_a_row_of_a_large_model_has_the_same_bits(trees: TreeShap, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large model has no patterns by interval."""
    edges = rows[:200].copy()
    edges[:, 0] = np.linspace(-3, 3, len(edges)).round(1)
    edges[:3, 1] = np.inf, -np.inf, np.nan
    margins, shap_values = zip(*(trees.explain(row[None]) for row in edges), strict=True)
    monkeypatch.setattr(tree_shap, "_MAX_INTERVAL_BYTES", 0)
    large = TreeShap(train(rows), rows.shape[1])
    alone = [large.explain(row[None]) for row in edges]
    assert np.array_equal(np.concatenate(margins), np.concatenate([margin for margin, _ in alone]))
    assert np.array_equal(np.concatenate(shap_values), np.concatenate([values for _, values in alone]))


def test_thousands_of_rows_have_the_same_bits_as_blocks(trees: TreeShap, rows: Rows) -> None:
    many = np.tile(rows, (9, 1))[:9000]
    margins, shap_values = trees.explain(many)
    blocks = [trees.explain(many[start : start + 100]) for start in range(0, len(many), 100)]
    assert np.array_equal(margins, np.concatenate([margin for margin, _ in blocks]))
    assert np.array_equal(shap_values, np.concatenate([values for _, values in blocks]))


@pytest.mark.parametrize("method", ["margin", "explain"])
def test_a_row_among_more_rows_takes_no_more_calls(trees: TreeShap, rows: Rows, method: str) -> None:
    """Calls of numpy stand for time: at 128 rows the former change of methods made hundreds for each row where few rows took ten."""
    getattr(trees, method)(rows[:1])  # the tables are computed here
    calls = [count_calls(getattr(trees, method), rows[:n]) / n for n in ROW_COUNTS if n < MATRIX_ROWS]
    # Blocks are of about equal size: the two of 512 rows are as large as the one of 256.
    assert all(later <= 1.05 * min(calls[: place + 1]) for place, later in enumerate(calls)), calls


def test_the_calls_for_a_matrix_are_shared_by_its_rows(trees: TreeShap, rows: Rows) -> None:
    """A matrix takes a call for each feature of each subtree: more than a block, each for many more rows and with less work."""
    many = np.tile(rows, (4, 1))
    calls = [count_calls(trees.explain, many[:n]) for n in (MATRIX_ROWS, 2 * MATRIX_ROWS, 4 * MATRIX_ROWS)]
    assert max(calls) < 1.5 * min(calls)
    assert calls[0] / MATRIX_ROWS < count_calls(trees.explain, rows[:16]) / 16


def count_calls(function: Callable[..., Any], *arguments: Any) -> int:
    """Return the number of functions of C that a call makes."""
    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event == "c_call"

    sys.setprofile(count)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return calls


def test_a_model_that_was_read_lately_is_shared(rows: Rows) -> None:
    model = train(rows)
    assert read_trees(model, rows.shape[1]) is read_trees(bytes(bytearray(model)), rows.shape[1])
    with pytest.raises(ValueError, match="features"):
        read_trees(model, rows.shape[1] + 1)
