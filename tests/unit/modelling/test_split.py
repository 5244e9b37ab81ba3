"""Tests of the frozen split: out of time where rows are dated, stratified and stable elsewhere."""

import numpy as np
import pytest

from finrisk_assets.modelling.training.split import split

N = 1000
KEYS = np.array([f"L{k:04d}" for k in range(N)])
LABELS = np.arange(N) % 5 == 0
DAYS = np.datetime64("2024-01-01") + np.arange(N) // 4


def windows(parts):
    return parts.train, parts.validation, parts.test


def test_every_training_row_is_earlier_than_every_validation_row_and_that_earlier_than_the_test():
    shuffled = np.random.default_rng(1).permutation(N)
    parts = split(KEYS, LABELS, DAYS[shuffled], seed=1)
    train, validation, test = (DAYS[shuffled][rows] for rows in windows(parts))
    assert parts.kind == "out-of-time"
    assert train.max() < validation.min() == parts.boundaries[0]
    assert validation.max() < test.min() == parts.boundaries[1]
    assert [len(train), len(validation), len(test)] == [600, 200, 200]


def test_rows_of_one_moment_stay_together_even_if_the_shares_suffer():
    days = np.repeat(np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "datetime64[D]"), [10, 70, 20])
    parts = split(KEYS[:100], LABELS[:100], days, seed=1)
    assert [len(rows) for rows in windows(parts)] == [10, 70, 20]


def test_a_customer_is_in_one_window_only_and_his_later_rows_are_left_out():
    customers = np.array([f"C{k % 900}" for k in range(N)])  # the last hundred loans are second ones of early customers
    parts = split(KEYS, LABELS, DAYS, customers, seed=1)
    train, validation, test = (set(customers[rows]) for rows in windows(parts))
    assert not (train & validation or train & test or validation & test)
    assert [len(rows) for rows in windows(parts)] == [600, 200, 100]
    with pytest.raises(ValueError, match="no row falls into validation and test"):
        split(KEYS, LABELS, DAYS, np.repeat("C1", N), seed=1)


def test_without_time_the_draw_is_stratified_and_says_so():
    parts = split(KEYS, LABELS, np.full(N, np.datetime64("NaT")), seed=1)
    assert parts.kind == "random"
    assert parts.boundaries == ()
    assert "no time" in parts.reason
    assert [len(rows) for rows in windows(parts)] == [600, 200, 200]
    assert [LABELS[rows].mean() for rows in windows(parts)] == [0.2, 0.2, 0.2]


def test_the_random_draw_follows_the_key_not_the_place_of_a_row():
    order = np.random.default_rng(2).permutation(N)
    one, other = split(KEYS, LABELS, seed=1), split(KEYS[order], LABELS[order], seed=1)
    for mine, theirs in zip(windows(one), windows(other), strict=True):
        assert set(KEYS[mine]) == set(KEYS[order][theirs])
    assert set(KEYS[one.test]) != set(KEYS[split(KEYS, LABELS, seed=2).test])


def test_at_random_a_group_is_drawn_as_a_whole():
    customers = np.array([f"C{k // 4}" for k in range(N)])
    parts = split(KEYS, LABELS, groups=customers, seed=1)
    train, validation, test = (set(customers[rows]) for rows in windows(parts))
    assert not train & validation
    assert not (train | validation) & test
    assert sum(len(rows) for rows in windows(parts)) == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": np.repeat("L1", N)}, "twice"),
        ({"labels": np.full(N, np.nan)}, "0 or 1"),
        ({"times": np.where(np.arange(N) == 3, np.datetime64("NaT"), DAYS)}, "1 of 1000 rows have no time"),
        ({"times": np.repeat(np.datetime64("2024-01-01"), N)}, "three or more"),
        ({"shares": (0.5, 0.5, 0.5)}, "add up to 1"),
    ],
)
def test_what_cannot_be_split_is_said(change, message):
    given = {"keys": KEYS, "labels": LABELS, "times": DAYS} | change
    with pytest.raises(ValueError, match=message):
        split(**given, seed=1)


def panel(n_customers: int = 300, n_months: int = 12) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """Return a panel in which everyone has a row in every month."""
    month = np.tile(np.arange(n_months), n_customers)
    customer = np.repeat(np.arange(n_customers), n_months)
    times = np.datetime64("2023-01", "M") + month
    keys = [f"{c}@{m}" for c, m in zip(customer, month, strict=True)]
    return keys, times.astype("datetime64[us]"), customer % 2, [str(c) for c in customer]


def test_a_panel_is_split_by_time_and_by_customer() -> None:
    keys, times, labels, customers = panel()
    window = split(keys, labels, times, customers, holdout=1 / 3, seed=1)
    customer_ids = np.array(customers)
    assert times[window.train].max() < times[window.validation].min() < times[window.test].min()
    assert set(customer_ids[window.validation]) == set(customer_ids[window.test])
    assert not set(customer_ids[window.train]) & set(customer_ids[window.test])
    assert 0.25 < len(set(customer_ids[window.test])) / 300 < 0.42
    assert "33% of the groups" in window.reason


def test_an_outcome_that_the_next_window_already_holds_teaches_nothing() -> None:
    keys, times, labels, customers = panel()
    known = times + np.timedelta64(90, "D")
    window = split(keys, labels, times, customers, holdout=1 / 3, known=known, seed=1)
    assert known[window.train].max() <= window.boundaries[0]
    assert known[window.validation].max() <= window.boundaries[1]


def test_a_stated_test_set_is_the_test_window_and_the_other_rows_are_split_as_ever():
    keys, labels = [f"r{i}" for i in range(200)], np.arange(200) % 4 == 0
    stated = np.arange(200) % 5 == 1
    windows = split(keys, labels, is_test=stated, seed=3)
    assert windows.test.tolist() == np.flatnonzero(stated).tolist()
    assert sorted([*windows.train, *windows.validation]) == np.flatnonzero(~stated).tolist()
    assert (len(windows.train), len(windows.validation)) == (120, 40)
    assert windows.reason.startswith("the source states the test set: 40 rows, of which nothing enters fitting, choosing or calibration")


def test_a_stated_test_set_may_lie_anywhere_in_time_and_the_others_need_two_times_alone():
    times = np.array(["2024-01-01", "2024-02-01"] * 50 + ["2024-01-15"] * 20, "datetime64[us]")
    stated = np.arange(120) >= 100
    windows = split([f"r{i}" for i in range(120)], np.arange(120) % 3 == 0, times, is_test=stated, seed=3)
    assert set(windows.test) == set(range(100, 120))
    assert set(times[windows.train]) == {np.datetime64("2024-01-01")}
    assert set(times[windows.validation]) == {np.datetime64("2024-02-01")}
    assert windows.boundaries == (np.datetime64("2024-02-01"),)


@pytest.mark.parametrize("stated", [np.zeros(30, bool), np.ones(30, bool)])
def test_a_stated_test_set_of_no_or_all_rows_is_refused(stated):
    with pytest.raises(ValueError, match="of 30 rows are of the stated test set: mend split or test_files"):
        split([f"r{i}" for i in range(30)], np.arange(30) % 2 == 0, is_test=stated, seed=1)
