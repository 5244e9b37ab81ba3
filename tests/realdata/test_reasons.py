"""Tests of reason fidelity on 30,000 real clients: changing the named factors flips the decision."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import reason_fidelity
from benchmarks.reasons import DEMANDED, compare, fitted, refused, taiwan
from finrisk_assets.settings import Settings

pytestmark = pytest.mark.realdata


def test_changing_the_named_factors_flips_nine_decisions_of_ten(data_dir):
    settings = Settings(source="taiwan", data_dir=data_dir)
    bundle, held = fitted(taiwan(settings), settings, 1)
    held = replace(held, month_ends=held.rows[:0])
    held_against, turns = compare(bundle, held, "refer_from"), bundle.thresholds

    def rate(choice: str, turn: str, below: str) -> float:
        """Return the share of rows from one threshold on that fall below another when the named factors change."""
        ((_, rows),) = refused(bundle, held, turns[turn])
        rows = rows[np.random.default_rng(1).permutation(len(rows))[:200]]
        return reason_fidelity.flips(bundle, rows, held_against.choices[choice], held_against.ordinary, turns[below]).rate.value

    assert rate("reasons", "refuse_from", "refuse_from") >= DEMANDED
    assert rate("reasons", "refer_from", "refer_from") >= DEMANDED
    assert rate("mean SHAP", "refuse_from", "refer_from") < 0.7  # against the average, what is merely usual is named
    assert rate("any four", "refuse_from", "refer_from") < 0.5
