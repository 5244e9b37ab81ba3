"""Tests of spending features: results worked out by hand, nothing from the month-end on, and equal results on DuckDB and Spark."""

import math
from datetime import datetime, timedelta

import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.spending_risk.catalogue import CATALOGUE, EIGHT_FEATURES, SEASON
from finrisk_assets.domains.spending_risk.features import KEYS, build, select_features
from finrisk_assets.domains.spending_risk.target import Trouble
from schemas.ledger import TABLES

TYPES = {"timestamp": "datetime64[us]", "float64": "float64", "boolean": "boolean", "int64": "Int64", "string": "string"}
FEATURES = select_features({"customers": ["income_amount", "joined_at"]})
NAMES = [feature.name for feature in FEATURES]
AS_OF = datetime(2024, 7, 1)
CUSTOMER = {"customer_id": "1", "joined_at": datetime(2023, 1, 1), "income_amount": 2500.0}

# When, direction, amount, balance after it, category. The ledger runs from February to October 2024.
HISTORY = (
    ("2024-02-03", "credit", 500, 500, "opening_balance"),
    ("2024-02-10", "credit", 1000, 1500, "salary"),
    ("2024-03-31 12:00", "debit", 400, 1100, "rent"),
    # 90 days before the first of July begin here, at the second of April.
    ("2024-04-02", "credit", 2000, 3100, "salary"),
    ("2024-04-03", "debit", 900, 2200, "rent"),
    ("2024-05-02", "credit", 2000, 4200, "salary"),
    ("2024-05-20", "debit", 4150, 50, "shopping"),
    ("2024-05-31 23:59", "debit", 10, 40, "penalty"),
    ("2024-06-02", "credit", 2000, 2040, "salary"),
    ("2024-06-05", "debit", 900, 1140, "rent"),
    ("2024-06-20", "debit", 8, 1132, "returned_payment"),
    ("2024-06-21", "credit", 50, 1182, "refund"),
    ("2024-06-22", "debit", 382, 800, None),
)
AFTER = (
    ("2024-07-02", "credit", 2000, 2800, "salary"),
    ("2024-08-02", "debit", 100, 2700, "rent"),
    ("2024-09-02", "debit", 100, 2600, "rent"),
    ("2024-10-02", "debit", 100, 2500, "rent"),
    ("2024-10-31", "debit", 100, 2400, "rent"),
)


def moves(*rows, customer="1"):
    return [
        {
            "transaction_id": f"{customer}-{at}-{k}", "customer_id": customer, "account_id": f"A{customer}", "occurred_at": at,
            "direction": direction, "amount": float(amount), "balance_amount": float(balance), "category": category,
        }
        for k, (at, direction, amount, balance, category) in enumerate(rows)
    ]  # fmt: skip


def table(name, rows):
    types = {column.name: TYPES[column.dtype] for column in TABLES[name].columns}
    frame = pd.DataFrame(rows).reindex(columns=list(types))
    for column, dtype in types.items():
        frame[column] = pd.to_datetime(frame[column], format="ISO8601") if dtype.startswith("datetime") else frame[column]
    return frame.astype(types)


DEFAULT = Trouble()
BERKA = Trouble(("penalty interest",), is_negative_balance=True, is_overspending=False)


def outcomes_of(transactions, trouble=DEFAULT):
    """Return the outcomes alone, which take less time."""
    return month_ends_of(transactions, trouble=trouble, features=EIGHT_FEATURES[:1])


def month_ends_of(transactions, customers=(CUSTOMER,), trouble=DEFAULT, features=FEATURES):
    tables = {"customers": table("customers", customers), "transactions": table("transactions", transactions)}
    lazy = {name: ibis.memtable(frame) for name, frame in tables.items()}
    return build(lazy, features, trouble).execute().set_index("customer_month").sort_index()


@pytest.fixture(scope="module")
def june():
    return month_ends_of(moves(*HISTORY, *AFTER)).loc["1@2024-06"]


def test_the_eight_fields_worked_out_by_hand(june):
    expected = {
        "Total_Income": 6050,  # three salaries and a refund
        "Total_Expense": 900 + 4150 + 10 + 900 + 8 + 382,
        "Num_Transactions": 10,
        "Avg_Expense": 6350 / 6,
        "Max_Expense": 4150,
        "Low_Balance_Freq": 2,  # 50 and 40 are below 6050 / 3 / 10
        "Expense_Income_Ratio": 6350 / 6050,
        "Top_Category_Spend": 4150,
    }
    assert june[list(expected)].to_dict() == pytest.approx(expected)
    assert [feature.name for feature in EIGHT_FEATURES] == list(expected)


def test_further_features_worked_out_by_hand(june):
    expected = {
        "expense_to_income_1m": 1290 / 2050, "expense_to_income_3m": 6350 / 6050, "expense_to_income_6m": 6750 / 7050,
        "n_penalties_1m": 0, "n_penalties_3m": 1, "n_missed_payments_1m": 1, "n_negative_balance_6m": 0,
        "lowest_balance_to_income_1m": 800 / 2050, "lowest_balance_to_income_3m": 40 / (6050 / 3), "benefits_share_3m": 0,
        "closing_balance_to_income_3m": 800 / (6050 / 3), "closing_balance_to_expense_3m": 800 / (6350 / 3),
        "balance_change_to_income_3m": (800 - 1100) / (6050 / 3),
        # The usual income is the median month of 2,000, not the declared 2,500. Habit leaves out penalties and refunds.
        "habitual_expense_to_usual_income_1m": (900 + 382 - 50) / 2000,
        "habitual_expense_to_usual_income_3m": (900 + 4150 + 900 + 382 - 50) / 6000,
        "habitual_expense_to_earned_3m": (900 + 4150 + 900 + 382 - 50) / 6000,
        "earned_to_usual_income_3m": 1.0, "closing_balance_to_usual_income": 0.4, "bills_to_usual_income_3m": 1800 / 6000,
        "expense_to_mean_income_1m_ago": 4160 / (6050 / 3), "bills_share_3m": 1800 / 6350,
        "expense_trend": 1290 / (6750 / 5), "income_trend": 2050 / (7050 / 5),  # five months are on record
        "income_irregularity_6m": np.std([1000, 0, 2000, 2000, 2050]) / np.mean([1000, 0, 2000, 2000, 2050]),
        "regular_pay_share_6m": 7000 / 7050,
        "largest_expense_to_mean_income_3m": 4150 / (6050 / 3),
        "month_sin": math.sin(7 / 12 * 2 * math.pi), "month_cos": math.cos(7 / 12 * 2 * math.pi),
    }  # fmt: skip
    assert june[list(expected)].astype(float).to_dict() == pytest.approx(expected)


def test_without_income_the_ratio_ends_at_ten_and_nothing_is_spent_on_nothing():
    rows = month_ends_of(moves(("2024-06-05", "debit", 20, -20, "rent"), ("2024-07-30", "credit", 5, 0, "salary")), customers=[])
    assert rows.loc["1@2024-06", "Expense_Income_Ratio"] == 10
    alone = month_ends_of(moves(("2024-06-05", "credit", 20, 20, "opening_balance"), ("2024-07-30", "credit", 5, 25, "salary")))
    assert alone.loc["1@2024-06", ["Total_Income", "Expense_Income_Ratio", "Avg_Expense", "Max_Expense"]].tolist() == [0, 0, 0, 0]


def test_without_income_on_record_the_declared_income_counts_once_it_is_declared():
    month = moves(("2024-06-05", "debit", 500, 800, "rent"), ("2024-07-30", "credit", 5, 0, "salary"))
    name = "closing_balance_to_usual_income"
    assert month_ends_of(month).loc["1@2024-06", name] == 800 / 2500
    assert np.isnan(month_ends_of(month, [CUSTOMER | {"joined_at": datetime(2024, 8, 1)}]).loc["1@2024-06", name])


def test_nothing_at_or_after_the_month_end_and_no_outcome_is_seen(june):
    later = (
        ("2024-07-01", "debit", 9e5, -9e5, "penalty"), ("2024-07-15", "credit", 7e5, 7e5, "salary"),
        ("2024-08-15", "debit", 9e5, -9e5, "returned_payment"), ("2024-09-15", "debit", 1, -9e5, "rent"),
        ("2024-10-02", "debit", 100, 2500, "rent"), ("2024-10-31", "debit", 100, 2400, "rent"),
    )  # fmt: skip
    disturbed = month_ends_of(moves(*HISTORY, *later)).loc["1@2024-06"]
    assert not june.is_trouble
    assert disturbed.is_trouble
    pd.testing.assert_series_equal(june[NAMES], disturbed[NAMES], check_exact=True)


@pytest.mark.parametrize(
    ("at", "category", "happened"),
    [
        ("2024-07-01", "penalty", True),
        ("2024-09-28 23:59", "returned_payment", True),
        ("2024-09-29", "penalty", False),  # 90 days are over
        ("2024-08-05", "rent", False),
    ],
)
def test_a_penalty_or_a_missed_payment_within_ninety_days_is_trouble(at, category, happened):
    rows = outcomes_of(moves(*HISTORY, *AFTER, (at, "debit", 1, 100, category)))
    assert rows.loc["1@2024-06", "is_trouble"] == happened
    assert rows.loc["1@2024-06", "outcome_known_at"] == pd.Timestamp("2024-10-01")


def test_spending_above_income_counts_over_the_next_three_calendar_months():
    def trouble(*more):
        return outcomes_of(moves(*HISTORY, *AFTER, *more)).loc["1@2024-06", "is_trouble"]

    assert trouble(("2024-09-30", "debit", 1801, 100, "shopping"))
    assert not trouble(("2024-09-30", "debit", 1800, 100, "shopping")), "spending all is not spending more"
    assert not trouble(("2024-10-01", "debit", 1801, 100, "shopping"))
    assert not trouble(("2024-09-30", "debit", 1801, 100, "shopping"), ("2024-09-30", "credit", 1, 100, "refund"))


def test_berka_counts_a_balance_below_zero_and_not_the_quarter():
    spent = ("2024-09-30", "debit", 1801, 100, "shopping")
    assert not outcomes_of(moves(*HISTORY, *AFTER, spent), BERKA).loc["1@2024-06", "is_trouble"]
    below = ("2024-08-30", "debit", 1, -5, "shopping")
    assert outcomes_of(moves(*HISTORY, *AFTER, below), BERKA).loc["1@2024-06", "is_trouble"]


def test_the_outcome_is_known_only_where_the_ledger_runs_on():
    rows = outcomes_of(moves(*HISTORY, *AFTER))
    assert rows.index.tolist() == [f"1@2024-{month:02}" for month in (2, 3, 4, 5, 6, 7, 8, 9, 10)]
    assert rows.is_trouble.notna().tolist() == [True] * 6 + [False] * 3
    assert rows.outcome_known_at.notna().tolist() == rows.is_trouble.notna().tolist()


def test_no_feature_is_a_protected_column_and_a_source_gets_what_it_can_fill():
    bare = select_features({"customers": ["birth_year"]}, without=SEASON)
    assert not {feature.name for feature in bare} & {"month_sin", "closing_balance_to_usual_income"}
    assert {feature.name for feature in EIGHT_FEATURES} <= {feature.name for feature in bare}
    needed = {need for defined in CATALOGUE for need in defined.needs}
    assert not needed & {f"customers.{column.name}" for column in TABLES["customers"].columns if column.personal == "protected"}
    assert len({defined.feature.name for defined in CATALOGUE}) == len(CATALOGUE)
    assert all(feature.high or feature.one for feature in FEATURES)


def many_people(n=25, seed=5):
    """Return ledgers with ties, gaps, other people's rows in between and empty categories."""
    rng = np.random.default_rng(seed)
    rows = []
    for person in range(n):
        for k in range(rng.integers(1, 80)):
            at = datetime(2024, 1, 1) + timedelta(hours=float(np.round(rng.uniform(0, 24 * 300), 1)))
            category = rng.choice(["salary", "rent", "penalty", "refund", "returned_payment", "benefits", None])
            kind = "credit" if category in ("salary", "refund", "benefits") else "debit"
            amount, balance = float(np.round(rng.lognormal(5, 1), 2)), float(np.round(rng.normal(800, 900), 2))
            move = moves((at, kind, amount, balance, category), customer=str(person))[0]
            rows.append(move | {"transaction_id": f"{person}-{k}"})
    return rows


def test_the_order_of_movements_changes_nothing():
    rows = many_people()
    shuffled = [rows[k] for k in np.random.default_rng(2).permutation(len(rows))]
    pd.testing.assert_frame_equal(month_ends_of(rows), month_ends_of(shuffled), check_exact=True)


@pytest.mark.slow
def test_every_feature_and_the_outcome_are_equal_on_duckdb_and_spark(spark, tmp_path):
    frames = {
        "transactions": table("transactions", many_people()),
        "customers": table("customers", [CUSTOMER | {"customer_id": str(k)} for k in range(25)]),
    }
    moved = []
    for engine in (ibis.duckdb.connect(), spark):
        lazy = {}
        for name, frame in frames.items():
            path = tmp_path / f"{name}.parquet"
            frame.to_parquet(path, coerce_timestamps="us")
            lazy[name] = engine.read_parquet(path, table_name=name)
        moved.append(build(lazy, FEATURES, DEFAULT).execute().sort_values("customer_month", ignore_index=True))
    ours, theirs = moved
    assert list(ours.columns) == [column.name for column in KEYS] + NAMES
    assert ours.customer_month.tolist() == theirs.customer_month.tolist()
    assert ours.is_trouble.astype("boolean").equals(theirs.is_trouble.astype("boolean"))
    assert ours.is_trouble.nunique() == 2
    assert np.isfinite(ours[NAMES].to_numpy(float)).any(axis=0).all(), "a feature that is never there compares nothing"
    np.testing.assert_allclose(ours[NAMES].to_numpy(float), theirs[NAMES].to_numpy(float), rtol=1e-12, atol=1e-12)
