"""Tests of the Handbook's rule for compromised cards, and of test periods in sequence."""

from datetime import date, timedelta

import numpy as np
import pytest

from benchmarks.prequential import Period, mask_test_rows, prequential_periods

HANDBOOK = Period(date(2018, 7, 25), date(2018, 7, 31), date(2018, 8, 8), date(2018, 8, 14), known_since=date(2018, 7, 25), delay_days=7)


@pytest.mark.parametrize(
    ("fraud_day", "first_day_out"),
    [
        ("2018-07-24", None),  # before the training week: forgotten
        ("2018-07-25", "2018-08-08"),
        ("2018-07-31", "2018-08-08"),
        ("2018-08-01", "2018-08-09"),  # known on the eighth day after
        ("2018-08-06", "2018-08-14"),
        ("2018-08-07", None),  # not yet known on the last test day
    ],
)
def test_a_card_leaves_the_test_when_its_fraud_is_known(fraud_day, first_day_out):
    test_days = np.arange(np.datetime64("2018-08-08"), np.datetime64("2018-08-15"))
    days = np.concatenate([[np.datetime64(fraud_day)], test_days])
    mask = mask_test_rows(HANDBOOK, days, ["A"] * len(days), [True] + [False] * 7)
    days_of_test = days[mask]
    expected = test_days if first_day_out is None else test_days[test_days < np.datetime64(first_day_out)]
    assert days_of_test.tolist() == expected.tolist()


def test_other_cards_and_other_days_are_untouched():
    days = ["2018-07-26", "2018-08-08", "2018-08-08", "2018-08-15"]
    assert mask_test_rows(HANDBOOK, days, ["A", "A", "B", "B"], [1, 0, 0, 0]).tolist() == [False, False, True, False]


def test_prequential_gives_the_handbooks_week_and_those_after():
    first, second = prequential_periods(date(2018, 8, 8), 2, train_days=7, delay_days=7)
    assert first == HANDBOOK
    assert (second.train_start, second.test_start) == (date(2018, 8, 1), date(2018, 8, 15))
    assert first.test_days[-1] + timedelta(days=1) == second.test_days[0]


def test_a_longer_memory_is_judged_on_the_same_rows():
    (short,) = prequential_periods(date(2018, 8, 8), 1, train_days=7, delay_days=7)
    (long,) = prequential_periods(date(2018, 8, 8), 1, train_days=7, delay_days=7, history_start=date(2018, 4, 8))
    days = ["2018-05-01", "2018-07-26", "2018-08-08", "2018-08-08"]
    cards, fraud = ["A", "B", "A", "B"], [1, 1, 0, 0]
    assert long.train_mask(days).tolist() == [True, True, False, False]
    assert short.train_mask(days).tolist() == [False, True, False, False]
    assert (
        mask_test_rows(long, days, cards, fraud).tolist()
        == mask_test_rows(short, days, cards, fraud).tolist()
        == [False, False, True, False]
    )


def test_no_label_of_training_is_younger_than_the_delay():
    periods = list(prequential_periods(date(2018, 8, 8), 7, train_days=7, delay_days=7, history_start=date(2018, 4, 8)))
    assert periods
    for period in periods:
        assert (period.test_start - period.train_end).days > period.delay_days


def test_a_history_too_short_says_so():
    with pytest.raises(ValueError, match="fewer than 7 training days before 2018-04-15"):
        list(prequential_periods(date(2018, 4, 15), 1, train_days=7, delay_days=7, history_start=date(2018, 4, 10)))
