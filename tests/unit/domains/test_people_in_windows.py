"""Tests that a person with several rows stays on one side of a split without times, and that a stated test set is kept out of training."""

from datetime import datetime

import pandas as pd
import pytest

from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.modelling.training.split import split
from finrisk_assets.settings import Settings

N = 600


def frame(people: int, **columns: object) -> pd.DataFrame:
    rows = {
        "loan_id": [f"L{number:04d}" for number in range(N)],
        "customer_id": [f"p{number % people}" for number in range(N)],
        "applied_at": pd.Series([pd.NaT] * N, dtype="datetime64[us]"),
        "is_default": [number % 5 == 0 for number in range(N)],
        "outcome_known_at": pd.Series([pd.NaT] * N, dtype="datetime64[us]"),
    }
    return pd.DataFrame({**rows, **columns})


@pytest.fixture
def settings() -> Settings:
    return Settings(as_of=datetime(2025, 1, 1))


def people_of(rows, windows):
    return [set(rows.customer_id.iloc[part]) for part in (windows.train, windows.validation, windows.test)]


def test_a_person_who_applied_several_times_is_in_one_window(settings):
    rows = frame(people=150)
    train, validation, test = people_of(rows, LOAN_DEFAULT.split(rows, settings))
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)


def test_people_of_one_row_are_drawn_by_the_row(settings):
    rows = frame(people=N)
    drawn = LOAN_DEFAULT.split(rows, settings)
    by_row = split(rows.loan_id.tolist(), rows.is_default, rows.applied_at, seed=settings.seed)
    assert drawn.test.tolist() == by_row.test.tolist()


def test_a_person_who_applied_at_several_times_is_split_in_time(settings):
    rows = frame(people=150, applied_at=pd.date_range("2023-01-01", periods=N, freq="D"))
    windows = LOAN_DEFAULT.split(rows, settings)
    assert rows.applied_at.iloc[windows.train].max() < rows.applied_at.iloc[windows.test].min()
    assert sum(map(len, (windows.train, windows.validation, windows.test))) == N


def test_nothing_of_a_stated_test_set_is_in_another_window(settings):
    rows = frame(people=N, is_test=[number % 3 == 0 or None for number in range(N)])
    windows = LOAN_DEFAULT.split(rows, settings)
    assert windows.test.tolist() == list(range(0, N, 3))
    assert {*windows.train, *windows.validation} == set(range(N)) - set(windows.test)
