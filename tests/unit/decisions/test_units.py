"""Tests of the bounds of each unit."""

from math import inf
from types import SimpleNamespace

import numpy as np
import pytest

from bento.decisions.units import bounds, find_out_of_bounds
from schemas.features import Feature

SHARE = Feature("cash_share_180d", "", "Share of cash withdrawals in the spending of the last 180 days.")


@pytest.mark.parametrize(
    ("feature", "low", "high"),
    [
        (SHARE, 0, 1),
        (Feature("merchant_risk_7d", "share", "Fraud among a merchant's transactions."), 0, 1),
        (Feature("has_card", "", "Whether the account had a card at the application."), 0, 1),
        (Feature("district_urban_pct", "percent", "Share of the district's inhabitants who live in towns."), 0, 100),
        (Feature("annual_rate_pct", "percent a year", "Nominal yearly interest rate."), 0, 1000),
        (Feature("n_penalties_90d", "penalties", "Penalties in the last 90 days."), 0, inf),
        (Feature("balance_amount", "currency", "Closing balance."), -inf, inf),
        (Feature("utilisation_1m", "", "Bill over limit last month."), -inf, inf),
    ],
    ids=lambda value: value.name if isinstance(value, Feature) else "",
)
def test_a_unit_has_its_bounds(feature, low, high):
    assert bounds(feature) == (low, high)


def test_a_share_that_was_meant_as_percent_is_named_and_what_is_missing_is_not():
    class Known(SimpleNamespace):
        __hash__ = object.__hash__

    bundle = Known(features=(SHARE, Feature("n_loans", "loans", "Loans before."), Feature("balance", "currency", "Balance.")))

    faults = find_out_of_bounds(bundle, np.array([45, -1, -1], np.float32))
    assert [(one.field, one.reason) for one in faults] == [
        ("features.cash_share_180d", "Must be from 0 to 1."),
        ("features.n_loans", "Must be at least 0, in the unit 'loans'."),
    ]
    assert find_out_of_bounds(bundle, np.array([np.nan, np.nan, -1e9], np.float32)) == []
    assert find_out_of_bounds(bundle, np.array([1, 0, 0], np.float32)) == []
