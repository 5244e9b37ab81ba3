"""Tests of spending risk: levels, contradictory fields, training and test rows, and candidate models."""

import numpy as np
import pytest

from finrisk_assets.domains.spending_risk import decide, model, target
from finrisk_assets.modelling.training import candidates as common
from finrisk_assets.modelling.training.convert import convert_estimator
from schemas.features import Feature

LEVELS = {"medium_from": 0.4, "high_from": 0.7}
TYPICAL = {
    "Total_Income": 60000, "Total_Expense": 42000, "Num_Transactions": 120, "Avg_Expense": 350, "Max_Expense": 2500,
    "Low_Balance_Freq": 3, "Expense_Income_Ratio": 0.7, "Top_Category_Spend": 15000,
}  # fmt: skip
NOTHING = dict.fromkeys(decide.EIGHT, 0)


def test_levels_begin_at_their_thresholds():
    assert decide.DECISION_RULE.decide_all([0, 0.399, 0.4, 0.699, 0.7, 1], LEVELS) == ["LOW", "LOW", "MEDIUM", "MEDIUM", "HIGH", "HIGH"]
    assert decide.DECISION_RULE.decide(0.5, {"medium_from": 0.6, "high_from": 0.8}) == "LOW"


@pytest.mark.parametrize("nothing", [float("nan"), -0.1, 1.1])
def test_what_is_no_probability_has_no_level(nothing):
    with pytest.raises(ValueError, match="no probability"):
        decide.DECISION_RULE.decide(nothing, LEVELS)


@pytest.mark.parametrize(
    "fields",
    [
        TYPICAL,
        NOTHING,
        TYPICAL | {"Expense_Income_Ratio": 0.69},  # rounded
        TYPICAL | {"Avg_Expense": 1050.0, "Num_Transactions": 60},  # 40 expenses among 60 movements
        NOTHING | {"Total_Income": 100.0, "Num_Transactions": 1},
        TYPICAL | {"Total_Income": 0, "Expense_Income_Ratio": 10},
        TYPICAL | {"Total_Income": 2000, "Expense_Income_Ratio": 21},  # not yet cut off at 10
        TYPICAL | {"Total_Income": 2000, "Expense_Income_Ratio": 10},
    ],
)
def test_fields_that_can_be_true_together_are_accepted(fields):
    assert decide.find_field_faults(fields) == []


@pytest.mark.parametrize(
    ("wrong", "field", "reason"),
    [
        ({"Total_Income": -1}, "Total_Income", "negative"),
        ({"Num_Transactions": -3}, "Num_Transactions", "negative"),
        ({"Low_Balance_Freq": 2.5}, "Low_Balance_Freq", "whole number"),
        ({"Max_Expense": float("nan")}, "Max_Expense", "number"),
        ({"Expense_Income_Ratio": 0.9}, "Expense_Income_Ratio", "Total_Expense / Total_Income"),
        ({"Total_Income": 0}, "Expense_Income_Ratio", "without income 10"),
        ({"Max_Expense": 43000, "Top_Category_Spend": 42000}, "Max_Expense", "Total_Expense"),
        ({"Top_Category_Spend": 43000}, "Top_Category_Spend", "must not exceed Total_Expense"),
        ({"Top_Category_Spend": 2000}, "Top_Category_Spend", "must not be below Max_Expense"),
        ({"Avg_Expense": 2600}, "Avg_Expense", "must not exceed Max_Expense"),
        ({"Avg_Expense": 300}, "Avg_Expense", "times Num_Transactions"),
        ({"Low_Balance_Freq": 121}, "Low_Balance_Freq", "Num_Transactions"),
    ],
)
def test_a_contradiction_names_its_field_and_the_reason(wrong, field, reason):
    faults = decide.find_field_faults(TYPICAL | wrong)
    assert [name for name, _ in faults] == [field]
    assert reason in faults[0][1]


def test_money_without_movements_is_a_contradiction():
    faults = dict(decide.find_field_faults(TYPICAL | {"Num_Transactions": 0, "Low_Balance_Freq": 0}))
    assert {"Total_Income", "Total_Expense"} <= faults.keys()


def test_a_field_that_is_missing_is_named():
    assert decide.find_field_faults({name: value for name, value in TYPICAL.items() if name != "Avg_Expense"}) == [
        ("Avg_Expense", "must be a number")
    ]


def test_berka_goes_by_balances_below_zero_and_not_by_overspending():
    assert target.find_rule("berka").is_negative_balance
    assert not target.find_rule("berka").is_overspending
    assert "returned_payment" in target.find_rule("simulator").categories
    assert target.find_rule("mapped") == target.find_rule("simulator")


def panel(people, months=24, rate=0.3, seed=1, gone_after=None):
    """Return month-ends of many people, whose outcome becomes known three months later."""
    rng = np.random.default_rng(seed)
    as_of, customers = np.meshgrid(np.datetime64("2022-01-01", "us") + np.arange(months) * np.timedelta64(30, "D"), np.arange(people))
    as_of, customers = as_of.ravel(), customers.ravel()
    if gone_after is not None:  # the first half of the people leave, the others come then
        early = customers < people // 2
        stay = np.where(early, as_of < as_of[gone_after], as_of >= as_of[gone_after])
        as_of, customers = as_of[stay], customers[stay]
    keys = [f"{person}@{time}" for person, time in zip(customers, as_of, strict=True)]
    return keys, rng.random(len(keys)) < rate, as_of, customers.astype(str), as_of + np.timedelta64(90, "D")


def test_whoever_is_judged_never_taught_and_every_outcome_was_known_when_the_test_begins():
    keys, labels, as_of, customers, known = panel(60)
    split = model.split_month_ends(keys, labels, as_of, customers, known, seed=3)
    assert not set(customers[split.train]) & set(customers[np.concatenate([split.validation, split.test])])
    begin = split.boundaries[1]
    assert known[np.concatenate([split.train, split.validation])].max() <= begin <= as_of[split.test].min()
    assert len(np.unique(as_of[split.validation])) == 12
    assert len(set(customers[split.test])) == pytest.approx(30, abs=8)


def test_where_trouble_is_rare_all_who_come_later_judge():
    keys, labels, as_of, customers, known = panel(300, rate=0.01, gone_after=14)
    split = model.split_month_ends(keys, labels, as_of, customers, known, seed=3)
    assert "rare" in split.reason
    assert not set(customers[split.train]) & set(customers[np.concatenate([split.validation, split.test])])
    assert known[split.train].max() <= split.boundaries[0]
    assert len(set(customers[split.test])) == 150


def test_where_trouble_is_rare_and_nobody_leaves_there_is_no_split():
    with pytest.raises(ValueError, match="fewer than 10 rows in trouble"):
        model.split_month_ends(*panel(40, rate=0.001), seed=3)


FEATURES = (Feature("ratio", "", "", monotone=1), Feature("savings", "", "", monotone=-1), Feature("noise", "", ""))


def test_every_candidate_finds_the_risk_keeps_its_direction_and_becomes_a_component():
    keys, _, as_of, customers, known = panel(150)
    rng = np.random.default_rng(7)
    rows = rng.normal(0, 1, (len(keys), 3)).astype(np.float32)
    labels = rng.random(len(rows)) < 1 / (1 + np.exp(1 - rows[:, 0] + rows[:, 1]))
    windows = model.split_month_ends(keys, labels, as_of, customers, known, seed=3)
    candidates = common.fit_candidates(rows, labels, windows, model.candidates(FEATURES, 1, 1, len(windows.train)))
    assert {one.name for one in candidates} == set(model.CANDIDATES)
    grid = np.zeros((40, 3), np.float32)
    grid[:, 0], grid[:, 1] = np.linspace(-2, 2, 40), np.linspace(2, -2, 40)
    for one in candidates:
        assert one.auc.low > 0.65
        assert (np.diff(one.probability(grid)) >= -1e-9).all()
        convert_estimator(one.estimator, FEATURES, rows[:200])


def test_the_model_of_the_eight_fields_does_not_read_what_paydays_make_of_them():
    rng = np.random.default_rng(7)
    names = list(decide.EIGHT)
    at = {name: names.index(name) for name in names}
    rows = rng.uniform(0, 10, (4_000, len(names))).astype(np.float32)
    rows[:, at["Low_Balance_Freq"]] = rng.integers(0, 25, len(rows))
    risk = rows[:, at["Expense_Income_Ratio"]] + rows[:, at["Low_Balance_Freq"]] - rows[:, at["Total_Income"]]
    labels = rng.random(len(rows)) < 1 / (1 + np.exp(-risk))
    features = tuple(Feature(name, "", f"{name}.") for name in names)
    (fit,) = model.candidates_of_eight(features, seed=1).values()
    fitted = fit.fit(rows, labels)

    def moves(name: str, low: float, high: float) -> float:
        of_low, of_high = rows.copy(), rows.copy()
        of_low[:, at[name]], of_high[:, at[name]] = low, high
        return float(np.abs(fitted.predict_proba(of_high)[:, 1] - fitted.predict_proba(of_low)[:, 1]).max())

    unread = [("Total_Income", 0, 10), ("Num_Transactions", 0, 10), ("Low_Balance_Freq", 0, 24), ("Expense_Income_Ratio", 0, 2.9)]
    assert [moves(*change) for change in unread] == [0.0] * len(unread)
    assert moves("Expense_Income_Ratio", 3, 9) > 0.1
