"""Tests of the cashflow decision: direction, amount with a calibrated interval, and the rules that a model must beat."""

import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.base import Figure
from finrisk_assets.domains.cashflow import decide, model
from finrisk_assets.domains.cashflow.catalogue import CATALOGUE, SCALE
from finrisk_assets.domains.cashflow.definition import CASHFLOW
from finrisk_assets.domains.classifier import ScoredWindow, calibration_in_the_large
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import intervals
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleSpec
from schemas.features import Feature

FEATURES = (Feature(SCALE, "currency", "Usual movement."), Feature("level", "", "What comes."), Feature("noise", "", "How unsure."))


def months(n, seed, first="2023-01-01"):
    """Return changes whose mean follows `level` and whose spread follows `noise`, over 24 month-ends."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack([rng.lognormal(6, 1, n), rng.uniform(-1, 1, n), rng.uniform(0.1, 1, n)]).astype(np.float32)
    changes = rows[:, 0].astype(float) * (rows[:, 1] + rows[:, 2] * rng.normal(0, 1, n))
    frame = pd.DataFrame(rows, columns=[feature.name for feature in FEATURES])
    month = pd.period_range(first, periods=24, freq="M").to_timestamp().to_numpy()
    return frame.assign(change_amount=changes, customer_id=[f"{seed}-{k % 300}" for k in range(n)], as_of=month[np.arange(n) % 24])


@pytest.fixture(scope="module")
def fitted_intervals():
    return model.fit_amount(FEATURES, SCALE, months(4000, 1), months(1500, 2, "2025-01-01"), seed=1, threads=1)


def spec_of(amount):
    return BundleSpec("n", "cashflow", "s", FEATURES, (amount.component,), np.ones((2, 3), np.float32), 0, "", "", amount=amount)


def test_a_month_is_called_what_is_likelier():
    limits = {"surplus_from": 0.5}
    assert decide.DECISION_RULE.decide_all([0, 0.4999, 0.5, 1], limits) == ["deficit", "deficit", "surplus", "surplus"]
    assert [decide.direction(decision) for decision in decide.DECISIONS] == ["raises", "lowers"]
    for nothing in (float("nan"), -0.1, 1.1):
        with pytest.raises(ValueError, match="no probability"):
            decide.DECISION_RULE.decide(nothing, limits)


def test_the_interval_holds_four_changes_of_five_wherever_they_are_unsure(fitted_intervals):
    new = months(6000, 3)
    rows, changes = new[[feature.name for feature in FEATURES]].to_numpy(np.float32), new.change_amount.to_numpy()
    decision = Bundle(spec_of(fitted_intervals), "").amount(rows)
    assert intervals.coverage(changes, decision.low, decision.high).value == pytest.approx(0.8, abs=0.03)
    for unsure in (new.noise < 0.4, new.noise > 0.7):
        assert intervals.coverage(changes[unsure], decision.low[unsure], decision.high[unsure]).value == pytest.approx(0.8, abs=0.06)
    assert np.mean(np.abs(changes - decision.expected)) < 0.9 * np.mean(np.abs(changes))
    assert ((decision.low <= decision.expected) & (decision.expected <= decision.high)).all()


def test_the_same_months_give_the_same_amounts(fitted_intervals):
    again = model.fit_amount(FEATURES, SCALE, months(4000, 1), months(1500, 2, "2025-01-01"), seed=1, threads=1)
    assert again == fitted_intervals


def test_no_amount_is_learned_where_none_is_known():
    unknown = months(500, 1).assign(change_amount=np.nan)
    assert model.fit_amount(FEATURES, SCALE, unknown, unknown, seed=1, threads=1) is None
    assert model.fit_amount(FEATURES[1:], SCALE, months(500, 1), months(500, 2), seed=1, threads=1) is None


def test_the_offsets_are_order_statistics():
    assert intervals.conformal_offsets(np.arange(-4, 5), 0.8) == (-4, 4)  # ranks 1 and 9 of 9: the finite sample's 10 %
    assert intervals.conformal_offsets(np.arange(-9, 10), 0.8) == (-8, 8)
    assert intervals.conformal_offsets(np.arange(1, 20), 0.8) == (0.0, 18)  # the interval holds what is expected
    with pytest.raises(ValueError, match=r"8 residuals are too few for an interval at the level 0\.8: it needs 9"):
        intervals.conformal_offsets(np.arange(8), 0.8)
    with pytest.raises(ValueError, match="1 residuals are not finite"):
        intervals.conformal_offsets([np.nan, *range(20)])


def test_a_scale_of_nothing_is_refused():
    window = intervals.KnownAmounts(np.zeros((3, 1), np.float32), np.ones(3), np.array(["a", "b", "c"]), np.zeros(3, "datetime64[us]"))
    with pytest.raises(ValueError, match="3 rows have no scale above 0"):
        intervals.fit_amount([SCALE], SCALE, window, window, seed=1)


def test_wilson_and_pinball_by_hand():
    half = metrics.wilson_interval(8, 10)
    assert (half.value, half.low, half.high) == (0.8, pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert intervals.pinball_loss([1.0, -1.0], [0.0, 0.0], 0.1) == pytest.approx((0.1 + 0.9) / 2)


def test_the_plain_rules_say_what_was():
    frame = pd.DataFrame(
        {
            "was_surplus_1m": [1.0, 0.0], "was_surplus_year_ago": [np.nan, 1.0],
            "net_flow_to_movement_1m": [0.3, -0.2], "net_flow_year_ago_to_movement": [np.nan, 0.5],
        }
    )  # fmt: skip
    rules = {name: decision.tolist() for name, decision in model.baselines(frame).items()}
    assert rules == {
        "persistence": [1, 0], "persistence_amount": [0.3, -0.2], "seasonal_naive": [1, 1], "seasonal_naive_amount": [0.3, 0.5],
    }  # fmt: skip


FIGURES = {
    "auc": Figure("auc", 0.7, 0.65, 0.75), "surplus_rate": Figure("surplus_rate", 0.6, 0.55, 0.65),
    "mean_surplus": Figure("mean_surplus", 0.6), "calibration_in_the_large": Figure("calibration_in_the_large", 0.0, -0.03, 0.03),
    "explanation_gap": Figure("explanation_gap", 0.0),
    "auc_above_persistence": Figure("auc_above_persistence", 0.1, 0.05, 0.15),
    "interval_coverage": Figure("interval_coverage", 0.81, 0.79, 0.83),
}  # fmt: skip


def test_the_gate_asks_for_more_than_a_plain_rule_and_for_intervals_that_hold():
    assert CASHFLOW.find_faults(FIGURES) == []
    faults = CASHFLOW.find_faults(
        FIGURES
        | {"auc_above_persistence": Figure("auc_above_persistence", 0.01, -0.02, 0.04)}
        | {"interval_coverage": Figure("interval_coverage", 0.6, 0.58, 0.62)}
    )
    assert [fault.reason.split(":")[0] for fault in faults] == [
        "the AUC is +0.010 beside that of the rule persistence", "the 80% interval held 60.0% of the changes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "passes"),
    [((0.024, -0.044, 0.092), True), ((0.024, -0.004, 0.052), False), ((-0.1, -0.18, -0.02), False), ((0.02, 0.005, 0.035), True)],
    ids=["too few rows to tell", "enough rows to tell", "shown to be worse", "shown to be better"],
)
def test_a_small_window_only_disproves_an_advantage_and_a_large_one_proves_it(difference, passes):
    assert (CASHFLOW.find_faults(FIGURES | {"auc_above_persistence": Figure("auc_above_persistence", *difference)}) == []) is passes


@pytest.mark.parametrize(("half", "passes"), [(0.08, True), (0.02, False)], ids=["few rows", "many rows"])
def test_a_mean_may_miss_the_rate_by_what_chance_explains(half, passes):
    missed = Figure("calibration_in_the_large", -0.09, -0.09 - half, -0.09 + half)
    assert (CASHFLOW.find_faults(FIGURES | {"calibration_in_the_large": missed}) == []) is passes


def test_the_miss_of_a_mean_counts_a_customer_once():
    rng = np.random.default_rng(1)
    happened = np.repeat(rng.random(500) < 0.3, 4)  # the same every month
    decision, rows = np.full(2000, 0.3), np.zeros((2000, 1), np.float32)
    by_customer = ScoredWindow(pd.DataFrame({"customer_id": np.repeat(np.arange(500), 4).astype(str)}), rows, happened, decision)
    by_row = ScoredWindow(pd.DataFrame({"customer_id": np.arange(2000).astype(str)}), rows, happened, decision)
    wide, narrow = (calibration_in_the_large(one, one) for one in (by_customer, by_row))
    assert wide.value == narrow.value == pytest.approx(0.3 - happened.mean())
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.05)
    assert narrow.high - narrow.value == pytest.approx(1.96 * np.sqrt(2 * 0.3 * 0.7 / 2000), rel=0.05)


def test_every_feature_says_what_speaks_for_a_surplus_and_what_against():
    names = [defined.feature.name for defined in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(one.feature.low != one.feature.high or one.feature.fact or one.feature.one or one.feature.spoken_by for one in CATALOGUE)
