"""Tests of the ledger's totals by month: one definition for people and accounts, and a month alone is that month of the whole."""

from datetime import datetime

import ibis
import pytest

from finrisk_assets.features.time_span import TimeSpan
from finrisk_assets.ledger.month_totals import (
    CATEGORY_TOTALS,
    MONTH_TOTALS,
    add_up_accounts,
    add_up_people,
    find_first_month,
    find_month_ends,
    find_totals,
)

MOVEMENTS = [
    ("anna", "one", "2024-01-05T09:00", "credit", 1000.0, "opening_balance", 1000.0),
    ("anna", "one", "2024-01-31T12:00", "credit", 500.0, "salary", 1500.0),
    ("anna", "two", "2024-01-31T12:00", "debit", 40.0, "penalty", -10.0),
    ("anna", None, "2024-01-15T12:00", "debit", 30.0, None, 70.0),
    ("anna", "one", "2024-02-10T12:00", "credit", 20.0, "refund", 1520.0),
    ("ben", "three", "2024-02-02T12:00", "debit", 7.0, "rent", 93.0),
]


@pytest.fixture
def ledger() -> ibis.Table:
    names = ("customer_id", "account_id", "occurred_at", "direction", "amount", "category", "balance_amount")
    rows = [dict(zip(names, row, strict=True)) | {"occurred_at": datetime.fromisoformat(row[2])} for row in MOVEMENTS]
    columns = {name: [row[name] for row in rows] for name in names}
    types = dict.fromkeys(names, "string") | {"occurred_at": "timestamp(6)", "amount": "float64", "balance_amount": "float64"}
    return ibis.memtable(columns, schema=types)


def test_a_persons_month_adds_up_the_accounts_and_what_has_no_account(ledger: ibis.Table) -> None:
    people = add_up_people(add_up_accounts(ledger)).to_pandas().set_index(["customer_id", "month"]).sort_index()
    january = people.loc["anna", 2024 * 12 + 1]
    assert (january.inflow, january.income, january.expense, january.n) == (5_000_000, 5_000_000, 700_000, 4)
    assert january.closing == -100_000, "the lowest of the balances at the last moment, over all accounts"
    assert (january.largest, january.n_penalties, january.n_negative) == (400_000, 1, 1)
    february = people.loc["anna", 2024 * 12 + 2]
    assert (february.inflow, february.income, february.habitual) == (200_000, 0, -200_000), "a refund lowers what is usually spent"


def test_the_balance_at_which_a_ledger_begins_is_no_flow(ledger: ibis.Table) -> None:
    accounts = add_up_accounts(ledger).filter(ibis._.account_id == "one").order_by("month").to_pandas()
    assert accounts.change.tolist() == [15_000_000, 200_000]
    assert accounts.net.tolist() == [5_000_000, 200_000]
    lines = find_totals({"transactions": ledger}, CATEGORY_TOTALS)
    assert lines is not None
    amounts = lines.filter(lines.account_id == "one").to_pandas().set_index("category").amount
    assert amounts.to_dict() == {"opening_balance": 0, "salary": 5_000_000, "refund": 200_000}


def test_the_first_month_and_the_month_ends_follow_from_the_totals(ledger: ibis.Table) -> None:
    totals = add_up_accounts(ledger)
    first = find_first_month(totals).to_pandas().set_index("_owner")
    assert first.loc["anna"].tolist() == [2024 * 12 + 1, 2024 * 12 + 2], "a ledger that begins on the fifth has only a part of the month"
    assert first.loc["ben"].tolist() == [2024 * 12 + 2, 2024 * 12 + 2]
    ends = find_month_ends(totals, "customer_id").to_pandas()
    assert ends[["customer_id", "month"]].to_numpy().tolist() == [["anna", "2024-01"]]


@pytest.mark.parametrize("name", MONTH_TOTALS)
def test_a_month_alone_is_that_month_of_the_whole(ledger: ibis.Table, name: str) -> None:
    contract, add_up = MONTH_TOTALS[name]
    january = TimeSpan(datetime(2024, 1, 1), datetime(2024, 2, 1))
    order = [column for column in contract.names if column in ("account_id", "month", "category")]
    whole = january.filter_rows(add_up(ledger), "month").order_by(order).to_pyarrow()
    assert add_up(january.filter_rows(ledger, "occurred_at")).order_by(order).to_pyarrow().equals(whole)
    assert tuple(whole.column_names) == contract.names
    assert sum(whole["n"].to_pylist()) == 4
