"""Tests of cashflow features: results worked out by hand, nothing of the coming month, and equal results in any order and engine."""

from datetime import datetime, timedelta

import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.cashflow.catalogue import CATALOGUE
from finrisk_assets.domains.cashflow.features import KEYS, build, select_features
from schemas.features import Feature
from schemas.ledger import TABLES

FEATURES = select_features({name: TABLES[name].names for name in ("transactions", "customers")})
TYPES = {"timestamp": "datetime64[us]", "float64": "float64", "boolean": "boolean", "int64": "Int64", "string": "string"}


def table(name, rows, **more):
    """Return a canonical table from some of its columns; the others are null."""
    types = {column.name: TYPES[column.dtype] for column in TABLES[name].columns} | more
    return pd.DataFrame(rows).reindex(columns=list(types)).astype(types)


def moves(*rows, account="A1"):
    """Return transactions from (day, credit or debit, amount, balance, category)."""
    return [
        {
            "transaction_id": f"{account}-{k}", "customer_id": f"C{account}", "account_id": account, "direction": direction,
            "occurred_at": datetime.fromisoformat(day), "amount": amount, "balance_amount": balance, "category": category,
        }
        for k, (day, direction, amount, balance, category) in enumerate(rows)
    ]  # fmt: skip


HISTORY = moves(
    ("2024-01-01", "credit", 500, 500, "opening_balance"),
    ("2024-01-10", "credit", 2000, 2500, "salary"),
    ("2024-01-20", "debit", 1500, 1000, "rent"),
    ("2024-02-10", "credit", 2000, 3000, "salary"),
    ("2024-02-20", "debit", 1400, 1600, "rent"),
    ("2024-02-25", "debit", 700, 900, "food"),
    ("2024-03-10", "credit", 2000, 2900, "salary"),
    ("2024-03-20", "debit", 1400, 1500, "rent"),
    ("2024-03-31T23:59:59.999999", "debit", 20, 1480, "penalty"),
    ("2024-04-01", "debit", 900, 580, "food"),
    ("2024-04-10", "credit", 900, 1480, "salary"),
    ("2024-04-29", "debit", 1, 1479, "food"),
)
OWNER = {"customer_id": "CA1", "joined_at": datetime(2023, 12, 1), "income_amount": 2500.0}


def features_of(transactions, customers=(OWNER,), features=FEATURES):
    tables = {"transactions": table("transactions", transactions), "customers": table("customers", customers)}
    lazy = {name: ibis.memtable(frame) for name, frame in tables.items()}
    return build(lazy, features).execute().sort_values("account_month", ignore_index=True)


def test_an_account_worked_out_by_hand():
    rows = features_of(HISTORY).set_index("account_month")
    assert list(rows.index) == ["A1@2024-01", "A1@2024-02", "A1@2024-03", "A1@2024-04"]
    assert rows.change_amount.tolist()[:3] == [-100, 580, -1]
    assert rows.is_surplus.tolist()[:3] == [False, True, False]
    assert rows.outcome_known_at.tolist()[:3] == rows.as_of.tolist()[1:]
    assert rows.iloc[3][["is_surplus", "change_amount", "outcome_known_at"]].isna().all()
    march = rows.loc["A1@2024-03"]
    typical = (6000 / 3 + 5020 / 3) / 2
    expected = {
        "was_surplus_1m": 1, "n_surplus_3m": 2, "n_surplus_12m": 2, "net_flow_before_to_movement": -100 / typical,
        "income_amount_1m": 2000, "expense_amount_1m": 1420, "income_amount_12m": 6000,
        "net_flow_to_movement_3m": 980 / typical, "expense_to_income_2m": 3520 / 4000,
        "typical_movement_amount": typical, "next_month_number": 4, "next_month_days": 30,
        "next_month_sin": np.sin(4 * np.pi / 6), "next_month_cos": np.cos(4 * np.pi / 6),
        "recurring_income_to_movement": 2000 / typical, "fixed_costs_to_movement": 1400 / typical,
        "regular_expense_to_income_3m": 5020 / 6000, "income_trend_1m": 1, "n_incomes_3m": 3, "income_irregularity_3m": 0,
        "largest_expense_share_1m": 1400 / typical, "n_transactions_1m": 3, "n_penalties_3m": 1, "history_months": 3,
        "months_since_income": 0, "balance_amount": 1480, "balance_to_income": 1480 / 2000,
        "balance_above_usual": (1480 - (1000 + 900 + 1480) / 3) / typical, "income_to_declared_1m": 0.8,
        "balance_to_declared": 1480 / 2500,
    }  # fmt: skip
    assert {name: march[name] for name in expected} == pytest.approx(expected)
    assert np.isnan(march.was_surplus_year_ago)
    assert np.isnan(rows.typical_movement_amount.iloc[0]), "the month of opening is no measure"


def test_a_month_without_change_is_no_surplus():
    still = moves(
        ("2024-01-10", "credit", 10, 10, "salary"), ("2024-02-10", "credit", 5, 15, "salary"), ("2024-02-28", "debit", 5, 10, "x")
    )
    january = features_of(still).iloc[0]
    assert (january.is_surplus, january.change_amount) == (False, 0)


def test_a_missing_month_leaves_the_outcome_unknown():
    gap = moves(
        ("2024-01-10", "credit", 10, 10, "salary"), ("2024-03-10", "credit", 10, 20, "salary"), ("2024-04-30", "debit", 1, 19, "food")
    )
    assert features_of(gap).change_amount.fillna(0).tolist() == [0, -1, 0]


def test_the_month_a_year_before_is_that_of_the_month_to_come():
    rows = [(f"{2023 + k // 12}-{k % 12 + 1:02d}-15", "credit" if k == 4 else "debit", 100, 0, "x") for k in range(16)]
    computed = features_of(moves(*rows, ("2024-04-30", "debit", 1, 0, "x"))).set_index("account_month")
    assert computed.loc["A1@2024-04", "was_surplus_year_ago"] == 1  # for May 2024, May 2023
    assert computed.loc["A1@2024-03", "was_surplus_year_ago"] == 0
    assert np.isnan(computed.loc["A1@2023-11", "was_surplus_year_ago"])


def test_nothing_of_a_later_month_is_seen():
    names = [feature.name for feature in FEATURES]
    plain = features_of(HISTORY).iloc[:3][names]
    april = [dict(move, amount=move["amount"] * 50) if move["occurred_at"] >= datetime(2024, 4, 1) else move for move in HISTORY]
    pd.testing.assert_frame_equal(plain, features_of(april).iloc[:3][names])


def test_a_one_off_is_not_regular_spending():
    usual = [(f"2024-{m:02d}-{d}", way, amount, 0, what) for m in range(1, 7) for d, way, amount, what in
             (("10", "credit", 1000, "salary"), ("20", "debit", 800, "rent"))]  # fmt: skip
    roof = ("2024-06-25", "debit", 5000, 0, "repairs")
    june = features_of(moves(*usual, roof, ("2024-06-30", "debit", 0, 0, "rent"))).iloc[-1]
    assert june.regular_expense_to_income_3m == pytest.approx(0.8)
    assert june.expense_to_income_3m == pytest.approx(7400 / 3000)


def test_an_income_declared_later_is_not_known_yet():
    late = features_of(HISTORY, customers=[OWNER | {"joined_at": datetime(2024, 3, 15)}])
    assert late.income_to_declared_1m.isna().tolist() == [True, True, False, False]


def many_accounts(n=15):
    rng = np.random.default_rng(5)
    rows = []
    for account in range(n):
        days = np.sort(rng.integers(0, 500, 150))
        rows += moves(
            *(
                (
                    (datetime(2023, 1, 1) + timedelta(days=int(day), hours=int(rng.integers(24)))).isoformat(),
                    str(rng.choice(["credit", "debit"])), round(float(rng.lognormal(5, 1)), 2), round(float(rng.normal(500, 800)), 2),
                    str(rng.choice(["salary", "rent", "food", "penalty", "refund", "opening_balance"])),
                )
                for day in days
            ),
            account=f"A{account}",
        )  # fmt: skip
    return rows, [OWNER | {"customer_id": f"CA{account}", "income_amount": 1000.0 + account} for account in range(n)]


def test_the_order_of_movements_changes_nothing():
    rows, owners = many_accounts(10)
    shuffled = [rows[k] for k in np.random.default_rng(1).permutation(len(rows))]
    pd.testing.assert_frame_equal(features_of(rows, owners), features_of(shuffled, owners), check_exact=True)


def test_a_source_gets_only_features_that_it_can_fill():
    few = {feature.name for feature in select_features({"transactions": ["account_id", "amount"]})}
    assert "expense_to_income_3m" in few
    assert not few & {"balance_amount", "income_to_declared_1m"}
    with pytest.raises(ValueError, match="no feature horoscope"):
        features_of(HISTORY, features=[Feature("horoscope", "", "")])


def test_a_panel_of_ones_own_is_taken_as_it_is():
    own = Feature("calls", "", "Calls.")
    accounts = table(
        "accounts",
        [{"account_id": "1", "customer_id": "1", "opened_at": datetime(2024, 1, 1), "is_surplus": True, "calls": 3}],
        is_surplus="boolean", calls="int64",
    )  # fmt: skip
    assert select_features({"accounts": list(accounts.columns)}, [own]) == (own,)
    (row,) = build({"accounts": ibis.memtable(accounts)}, [own]).to_pyarrow().to_pylist()
    assert (row["account_month"], row["as_of"], row["is_surplus"], row["change_amount"], row["calls"]) == (
        "1", None, True, None, 3.0,
    ), "an account's opening is no moment of a decision"  # fmt: skip
    dated = accounts.assign(as_of=pd.Series([datetime(2024, 5, 1)], dtype="datetime64[us]"))
    assert build({"accounts": ibis.memtable(dated)}, [own]).as_of.to_pyarrow().to_pylist() == [datetime(2024, 5, 1)]
    with pytest.raises(ValueError, match="the accounts have no column horoscope"):
        build({"accounts": ibis.memtable(accounts)}, [Feature("horoscope", "", "")])


def test_spark_and_duckdb_agree(spark, tmp_path):
    rows, owners = many_accounts()
    frames = {"transactions": table("transactions", rows), "customers": table("customers", owners)}
    results = []
    for engine in (ibis.duckdb.connect(), spark):
        lazy = {}
        for name, frame in frames.items():
            path = tmp_path / f"{name}.parquet"
            frame.to_parquet(path, coerce_timestamps="us")
            lazy[name] = engine.read_parquet(path, table_name=name)
        results.append(build(lazy, FEATURES).execute().sort_values("account_month", ignore_index=True))
    ours, theirs = (one[[feature.name for feature in FEATURES]].to_numpy(dtype=float) for one in results)
    assert len(FEATURES) == len(CATALOGUE)
    for key in (column.name for column in KEYS if column.name not in ("change_amount", "is_surplus")):
        assert results[0][key].astype(str).tolist() == results[1][key].astype(str).tolist()
    assert np.isfinite(ours).any(axis=0).all(), "a feature that is never there compares nothing"
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
