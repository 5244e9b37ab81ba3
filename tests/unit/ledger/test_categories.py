"""Tests of the meaning of categories: a refund is an inflow and no income, an opening balance is neither."""

import ibis
import pytest

from finrisk_assets.ledger import categories

MOVEMENTS = ibis.memtable(
    {
        "direction": ["credit"] * 4 + ["debit"],
        "category": ["salary", None, categories.REFUND, categories.OPENING_BALANCE, "rent"],
        "is_inflow": [True, True, True, False, False],
        "is_income": [True, True, False, False, False],
    }
)


@pytest.mark.parametrize("name", ["is_inflow", "is_income"])
def test_a_refund_is_an_inflow_and_no_income_and_an_opening_balance_is_neither(name: str) -> None:
    value = getattr(categories, name)(MOVEMENTS.direction == "credit", MOVEMENTS.category)
    assert MOVEMENTS.select(value=value, expected=MOVEMENTS[name]).filter(ibis._.value != ibis._.expected).count().execute() == 0


def test_no_category_is_a_penalty_and_a_missed_payment() -> None:
    assert not set(categories.PENALTY) & set(categories.MISSED_PAYMENT)
