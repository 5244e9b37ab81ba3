"""Tests of monitoring: compared months, shifts, and confirmed drift."""

from dataclasses import replace

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation.metrics import Interval
from finrisk_assets.modelling.monitoring import monitoring
from finrisk_assets.modelling.monitoring.monitoring import choose_windows
from tests.unit.modelling.monitored import JUNE_23, JUNE_24, NAMES, PEOPLE, WINDOWS, observed, rows


def months(first: str, last: str) -> list[np.datetime64]:
    return list(np.arange(np.datetime64(first, "M"), np.datetime64(last, "M") + 1))


# Which months are compared -----------------------------------------------------------------------------------------------------


def test_the_same_month_of_a_year_before_is_the_reference() -> None:
    windows = choose_windows(months("2022-08", "2024-06"), ("2022-08-01", "2023-09-30"), lambda window: 2_000)
    assert (windows.reference, windows.current) == ((JUNE_23,), (JUNE_24,))
    assert windows.since == tuple(months("2023-10", "2024-06"))
    assert "2024-06 is compared with 2023-06" in windows.reason


def test_without_the_same_months_the_last_of_training_are_the_reference_and_the_season_is_owned_up_to() -> None:
    windows = choose_windows(months("2023-08", "2024-06"), ("2023-08-01", "2024-01-31"), lambda window: 2_000)
    assert windows.reference == (np.datetime64("2024-01", "M"),)
    assert "season may show as drift" in windows.reason


def test_a_month_that_training_holds_in_part_is_neither_reference_nor_since() -> None:
    windows = choose_windows(months("2023-01", "2024-06"), ("2023-01-01", "2023-11-11"), lambda window: 2_000)
    assert np.datetime64("2023-11", "M") not in windows.reference + windows.since
    assert windows.since[0] == np.datetime64("2023-12", "M")


def test_the_first_months_of_training_are_no_reference() -> None:
    """Features that look back over three months are not full in them: its missing values would look like drift."""
    windows = choose_windows(months("2023-05", "2024-06"), ("2023-05-01", "2023-12-31"), lambda window: 2_000)
    assert windows.reference == (np.datetime64("2023-12", "M"),)


def test_a_window_grows_until_it_holds_enough_customers() -> None:
    assert len(choose_windows(months("2022-01", "2024-06"), ("2022-01-01", "2023-09-30"), lambda window: 280 * len(window)).current) == 2


def test_a_panel_of_few_people_does_not_grow_its_window_for_nothing() -> None:
    """The same 300 come back every month: twelve months of them would only show a change later."""
    assert len(choose_windows(months("2022-01", "2024-06"), ("2022-01-01", "2023-09-30"), lambda window: 300).current) == 1


@pytest.mark.parametrize(
    ("training", "customers", "why"),
    [
        (None, 2_000, "All rows have the same time"),
        (("2023-01-01", "2024-06-30"), 2_000, "no full month since training"),
        (("2024-03-10", "2024-03-20"), 2_000, "no full month within training"),
        (("2023-01-01", "2024-03-31"), 12, "12 customers: 30 are needed"),
    ],
)
def test_where_nothing_can_be_compared_it_says_why(training: tuple[str, str] | None, customers: int, why: str) -> None:
    windows = choose_windows(months("2023-01", "2024-06"), training, lambda window: customers)
    assert not windows.reference and not windows.current
    assert why in windows.reason


def test_midnight_on_the_first_belongs_to_the_month_that_has_ended() -> None:
    assert monitoring.month_of(np.datetime64("2024-07-01")) == JUNE_24
    assert monitoring.month_of(np.datetime64("2024-06-30T23:59:59")) == JUNE_24


# What has moved ----------------------------------------------------------------------------------------------------------------


def test_a_planted_shift_is_found_and_named() -> None:
    findings = observed(rows(shift=0.4))
    assert findings.features is not None and findings.score is not None
    assert [column.name for column in findings.features.drifted] == ["income"]
    assert [column.name for column in findings.score.drifted] == ["score"]
    assert "The score has moved" in findings.verdict and "1 of 3 features moved" in findings.verdict
    moved = next(row for row in monitoring.to_table_rows(findings) if row["metric"] == "p_value_income")
    assert moved["value"] <= 0.05 and moved["meaning"].startswith("higher: median")


def test_without_a_shift_it_alarms_as_often_as_stated() -> None:
    """In 120 windows at a rate of 5 %, more than 13 alarms of one family come once in five hundred times."""
    findings = [observed(rows(seed, people=120)) for seed in range(120)]
    assert sum(bool(one.features and one.features.drifted) for one in findings) <= 13
    assert sum(bool(one.score and one.score.drifted) for one in findings) <= 13


def test_moved_features_alone_confirm_nothing() -> None:
    """Inputs and score moved, and outcomes are as the probabilities promise: a warning, no request to train."""
    findings = observed(rows(shift=0.4), Interval(0.75, 0.70, 0.80))
    assert findings.features is not None and findings.features.drifted
    assert findings.confirmed == ()


def test_a_moved_score_that_outcomes_contradict_is_confirmed() -> None:
    findings = observed(rows(shift=0.4, riskier=1.0))
    assert len(findings.confirmed) == 1
    assert "the outcomes of 2024-05 contradict the model: share of outcomes" in findings.confirmed[0]
    assert findings.verdict == "Drift is confirmed: a new model is to be trained."


def test_outcomes_that_contradict_a_score_that_stands_still_are_not_drift() -> None:
    findings = observed(rows(riskier=1.0))
    assert any(not one.agrees for one in findings.reconciled)
    assert findings.confirmed == ()


def test_an_estimated_auc_wholly_below_the_evaluation_is_confirmed() -> None:
    findings = observed(rows(), Interval(0.93, 0.92, 0.94))
    assert len(findings.confirmed) == 1
    assert "wholly below the 0.920 to 0.940 of the evaluation" in findings.confirmed[0]


def test_the_newest_window_is_estimated_without_its_outcomes() -> None:
    monitored = rows()
    findings = observed(monitored)
    assert findings.is_before_labels and findings.n_estimated == PEOPLE
    rate = findings.estimated["rate"]
    assert rate.low < monitored.probability[monitored.month == JUNE_24].mean() < rate.high
    assert [month.realised_rate is not None for month in findings.months] == [True, False]


def test_a_score_that_only_ranks_is_not_taken_for_a_probability() -> None:
    findings = monitoring.collect_findings(NAMES, rows(), WINDOWS, is_probability=False, seed=7)
    assert not findings.estimated and not findings.reconciled and not findings.months
    assert any("no probability" in note for note in findings.notes)


def test_rows_of_one_moment_have_shares_and_an_estimate_but_nothing_to_compare() -> None:
    monitored = rows()
    monitored = replace(monitored, month=np.full(len(monitored.month), np.datetime64("NaT", "M")))
    findings = monitoring.collect_findings(NAMES, monitored, choose_windows([], None, lambda window: 0), seed=7)
    assert findings.verdict == "There is nothing to compare."
    assert findings.features is None and findings.window == "all"
    assert {one.decision for one in findings.shares} == {"approve", "refuse"}
    assert findings.estimated


def test_decisions_stand_in_the_order_of_their_score() -> None:
    assert [one.decision for one in observed(rows()).shares][:2] == ["approve", "refuse"]


def test_a_share_counts_each_customer_once() -> None:
    """A hundred rows of ten people with constant decisions count as ten rows."""
    people = np.repeat([f"c{k}" for k in range(10)], 10)
    same = np.repeat(np.arange(10) < 4, 10)
    clustered, independent = monitoring.clustered_share(same, people), monitoring.clustered_share(same, np.arange(100).astype(str))
    assert clustered.value == independent.value == 0.4
    assert clustered.high - clustered.low > 2.5 * (independent.high - independent.low)
    assert monitoring.clustered_share(np.zeros(100, dtype=bool), people).high > 0.2


def test_figures_are_finite_and_no_window_has_one_twice() -> None:
    table_rows = monitoring.to_table_rows(observed(rows(shift=0.4, riskier=1.0)))
    assert len({(row["window"], row["metric"]) for row in table_rows}) == len(table_rows)
    assert all(np.isfinite(row["value"]) for row in table_rows)


def test_the_same_rows_and_seed_give_the_same_figures() -> None:
    assert monitoring.to_table_rows(observed(rows(shift=0.2))) == monitoring.to_table_rows(observed(rows(shift=0.2)))
