"""Tests of the figures of consistency, on people worked out by hand."""

from datetime import datetime

import pandas as pd
import pytest

from finrisk_assets.modelling.evaluation import consistency


def people(day, n, approved, defaults, in_incomes):
    """Return paydays, applications, loans and offers of n people: one application and one loan each, the first `approved` approved."""
    names = [f"{day}-{k}" for k in range(n)]
    return (
        pd.Series(float(day), index=names),
        pd.DataFrame({"customer_id": names, "is_approved": [k < approved for k in range(n)]}),
        pd.DataFrame({"customer_id": names, "is_default": [k < defaults for k in range(n)]}),
        pd.DataFrame({"customer_id": names, "amount": 1000.0, "in_incomes": in_incomes}),
    )


def add_up(*groups):
    return consistency.add_up_people(*(pd.concat(parts) for parts in zip(*groups, strict=True)))


def test_the_payday_is_the_median_day_of_at_least_three_payments():
    days = {"a": (3, 1, 2), "b": (28, 25, 25), "c": (1, 1)}
    rows = [(name, datetime(2024, month + 1, day)) for name, of in days.items() for month, day in enumerate(of)]
    pay = pd.DataFrame(rows, columns=["customer_id", "occurred_at"])
    assert consistency.find_paydays(pay).to_dict() == {"a": 2, "b": 25}


@pytest.mark.parametrize(
    ("day", "group"), [(1, "1_to_3"), (3.5, "1_to_3"), (4, "4_to_9"), (9, "4_to_9"), (10, "10_to_31"), (31, "10_to_31")]
)
def test_every_payday_has_one_group(day, group):
    assert set(add_up(people(day, 10, 5, 1, 3.0)).group) == {group}


def test_how_far_approvals_lie_apart_is_told_beyond_how_far_defaults_do():
    both = add_up(people(2, 100, 50, 20, 4.0), people(25, 100, 90, 10, 5.0))
    excess = consistency.measure_approval_excess(both, seed=1)
    assert excess.value == pytest.approx(0.4 - 0.1)
    assert excess.low < 0.3 < excess.high
    assert consistency.measure_offer_gap(both) == pytest.approx(1.0 / 4.5)


def test_groups_that_are_treated_alike_have_no_gap():
    both = add_up(people(2, 100, 80, 10, 4.0), people(25, 50, 40, 5, 4.0))
    assert consistency.measure_approval_excess(both, seed=1).value == pytest.approx(0.0)
    assert consistency.measure_offer_gap(both) == 0


def test_a_group_of_few_people_is_not_told():
    both = consistency.leave_out_small_groups(add_up(people(2, 9, 9, 0, 4.0), people(25, 50, 40, 5, 4.0)))
    assert consistency.list_pay_groups(both) == ["10_to_31"]
    assert consistency.measure_approval_excess(both, seed=1).value == 0


def test_people_without_an_application_and_people_without_offers_are_no_fault():
    paydays, applications, loans, offers = people(2, 30, 15, 3, 4.0)
    sums = consistency.add_up_people(paydays, applications.head(20), loans, offers.head(0))
    assert (len(sums), sums.n_offers.sum(), sums.n_loans.sum()) == (20, 0, 20)
    assert consistency.measure_offer_gap(sums) == 0


def test_a_ledger_without_paydays_has_no_groups():
    _, applications, loans, offers = people(2, 30, 15, 3, 4.0)
    nobody = consistency.find_paydays(pd.DataFrame({"customer_id": pd.Series([], dtype=str), "occurred_at": pd.to_datetime([])}))
    sums = consistency.add_up_people(nobody, applications, loans, offers)
    assert consistency.list_pay_groups(sums) == []
    assert consistency.measure_offer_gap(sums) == 0


def test_a_level_holds_from_the_moment_at_which_it_is_known():
    levels = pd.DataFrame(
        {
            "customer_id": ["a", "a", "b"],
            "known_at": [datetime(2024, 2, 1), datetime(2024, 3, 1), datetime(2024, 3, 1)],
            "decision": ["LOW", "HIGH", "HIGH"],
        }
    )
    moments = pd.DataFrame(
        {
            "customer_id": ["a", "a", "a", "b", "c"],
            "at": [datetime(2024, 3, 1), datetime(2024, 2, 29), datetime(2024, 1, 1), datetime(2024, 2, 1), datetime(2024, 4, 1)],
        },
        index=[5, 6, 7, 8, 9],
    )
    found = consistency.find_levels_at(moments, levels)
    assert found.dropna().to_dict() == {5: "HIGH", 6: "LOW"}
    assert list(found.index) == [5, 6, 7, 8, 9]
