"""Tests of loan features: results worked out by hand, nothing from the application's time on, and equal results on DuckDB and Spark.

Month-end applications and other terms too: one per customer and month-end, and a row that is asked again with its own terms is itself.
"""

from datetime import datetime, timedelta

import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.loan_default.catalogue import CATALOGUE
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.loan_default.features import KEYS, build, select_features
from finrisk_assets.domains.loan_default.month_end_applications import add_month_end_applications
from finrisk_assets.features.loan_terms import FORMULAS, with_terms
from finrisk_assets.ledger import contract, sources
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import TABLES

APPLIED = datetime(2024, 7, 1, 12)
COLUMNS = {name: TABLES[name].names for name in ("loans", "customers", "accounts", "transactions")}
FEATURES = select_features(COLUMNS)
TYPES = {"timestamp": "datetime64[us]", "float64": "float64", "boolean": "boolean", "int64": "Int64", "string": "string"}


def table(name, rows, **more):
    """Return a canonical table from some of its columns; the others are null."""
    frame = pd.DataFrame(rows)
    types = {column.name: TYPES[column.dtype] for column in TABLES[name].columns} | more
    return frame.reindex(columns=list(types)).astype(types)


def moves(*rows, customer="C1"):
    """Return transactions from (days before the application, credit or debit, amount, balance, category)."""
    return [
        {
            "transaction_id": f"{customer}-{k}", "customer_id": customer, "account_id": "A1", "direction": direction,
            "occurred_at": APPLIED - timedelta(days=days), "amount": amount, "balance_amount": balance, "category": category,
        }
        for k, (days, direction, amount, balance, category) in enumerate(rows)
    ]  # fmt: skip


LOAN = {
    "loan_id": "L1", "customer_id": "C1", "account_id": "A1", "applied_at": APPLIED, "loan_amount": 6000.0, "term_months": 24,
    "instalment_amount": 300.0, "annual_rate_pct": 9.0, "is_default": False, "outcome_known_at": datetime(2025, 7, 1),
}  # fmt: skip
CUSTOMER = {"customer_id": "C1", "joined_at": datetime(2023, 7, 1, 12), "income_amount": 2500.0, "birth_year": 1980, "gender": "f"}
ACCOUNT = {"account_id": "A1", "customer_id": "C1", "opened_at": datetime(2023, 7, 1, 12), "overdraft_limit_amount": 500.0}
HISTORY = (
    (170, "credit", 1000, 1100, "salary"),
    (100, "debit", 900, 200, "rent"),
    (80, "credit", 2000, 2200, "salary"),
    (60, "debit", 2190, 10, "cash"),
    (50, "credit", 2000, 2010, "salary"),
    (40, "debit", 2110, -100, "rent"),
    (39, "debit", 20, -120, "penalty"),
    (10, "credit", 2000, 1880, "salary"),
    (5, "credit", 20, 1900, "refund"),
)


def ledger(loans=(LOAN,), customers=(CUSTOMER,), accounts=(ACCOUNT,), transactions=None):
    transactions = moves(*HISTORY) if transactions is None else transactions
    return {
        "loans": table("loans", loans), "customers": table("customers", customers),
        "accounts": table("accounts", accounts), "transactions": table("transactions", transactions),
    }  # fmt: skip


def features_of(tables, features=FEATURES):
    lazy = {name: ibis.memtable(frame) for name, frame in tables.items()}
    return build(lazy, features).execute().sort_values("loan_id", ignore_index=True)


def test_one_loan_worked_out_by_hand():
    row = features_of(ledger()).iloc[0]
    expected = {
        "loan_amount": 6000, "term_months": 24, "instalment_amount": 300, "annual_rate_pct": 9,
        "declared_income_amount": 2500, "instalment_to_declared_income": 0.12, "overdraft_limit_amount": 500,
        "customer_months": 366 / 30.4375, "history_months": 5,
        # The ledger begins on 13 January; the complete months are February to June.
        "usual_income_amount": 2000, "usual_expense_amount": 0, "expense_to_income_1m": 0, "expense_to_income_3m": 4320 / 6000,
        "income_to_usual_1m": 1, "income_to_usual_3m": 1, "is_without_salary_1m": 0, "n_transactions_1m": 2, "n_transactions_6m": 8 / 5,
        "n_penalties_1m": 0, "n_penalties_3m": 1, "faded_penalties": 0.65, "n_missed_payments_6m": 0, "faded_missed_payments": 0,
        "month_end_balance_amount": 1900, "month_end_balance_to_usual_income": 0.95, "buffer_shortfall": 0.05,
        "mean_balance_6m": (200 + 2200 - 120 + 1900) / 4,
        "lowest_balance_to_usual_income_6m": -0.06,
        "bills_to_usual_income_3m": 2110 / 6000, "cash_share_6m": 2190 / 5220, "largest_expense_to_usual_income_3m": 2190 / 2000,
        "income_irregularity_6m": np.std([2000, 2000, 2000, 0, 0]) / np.mean([2000, 2000, 2000, 0, 0]),
        "instalment_to_usual_income": 0.15, "commitments_to_usual_income": 0.15 + 2110 / 6000, "surplus_after_instalment": 0.85,
        "loan_to_usual_income": 3.0, "mean_balance_to_instalment_6m": (200 + 2200 - 120 + 1900) / 4 / 300,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)


def test_nothing_at_or_after_the_application_and_no_outcome_is_seen():
    later = moves((0, "credit", 9e6, 9e6, "salary"), (-0.001, "debit", 5e5, -5e5, "penalty"), (-30, "debit", 7, -7, "cash"))
    for move in later:
        move["transaction_id"] = "later" + move["transaction_id"]
    plain = features_of(ledger())
    disturbed = features_of(
        ledger(loans=[LOAN | {"is_default": True, "outcome_known_at": datetime(2030, 1, 1)}], transactions=moves(*HISTORY) + later)
    )
    names = [feature.name for feature in FEATURES]
    pd.testing.assert_frame_equal(plain[names], disturbed[names])


def test_the_month_of_the_application_is_not_complete_and_changes_nothing():
    july = moves((0.1, "debit", 100, 1800, "rent"), (0.2, "credit", 5000, 7000, "salary"))
    july = [move | {"transaction_id": "july" + move["transaction_id"]} for move in july]
    names = [feature.name for feature in FEATURES]
    pd.testing.assert_frame_equal(features_of(ledger())[names], features_of(ledger(transactions=moves(*HISTORY) + july))[names])
    june = features_of(ledger(transactions=moves(*HISTORY, (0.500001, "debit", 100, 1800, "rent")))).iloc[0]
    assert (june["month_end_balance_amount"], june["n_transactions_1m"]) == (1800, 3), "a movement in the last second of June is seen"


def test_a_month_that_is_cut_by_the_begin_of_the_ledger_is_no_measure_of_a_month():
    late = moves((50, "credit", 500, 500, "salary"), (20, "credit", 2000, 2500, "salary"))
    assert features_of(ledger(transactions=late)).iloc[0][["usual_income_amount", "n_transactions_6m"]].tolist() == [2000, 1]
    from_the_first = moves((60, "credit", 500, 500, "salary"), (20, "credit", 2000, 2500, "salary"))
    assert features_of(ledger(transactions=from_the_first)).iloc[0]["usual_income_amount"] == 1250
    assert np.isnan(features_of(ledger(transactions=late[1:])).iloc[0]["usual_income_amount"]), "June began without a ledger"


def test_what_was_not_known_of_the_person_yet_is_missing():
    young = ledger(customers=[CUSTOMER | {"joined_at": datetime(2024, 8, 1)}], accounts=[ACCOUNT | {"opened_at": datetime(2024, 8, 1)}])
    row = features_of(young).iloc[0]
    assert row[["declared_income_amount", "customer_months", "overdraft_limit_amount"]].isna().all()


def test_a_ledger_that_has_long_been_silent_is_missing_not_zero():
    row = features_of(ledger(transactions=moves((80, "debit", 5, 0, "x"), (32, "credit", 1000, 1000, "salary")))).iloc[0]
    assert row[["usual_income_amount", "n_transactions_6m", "month_end_balance_amount", "history_months"]].isna().all()
    assert row["loan_amount"] == 6000


def test_each_borrower_has_a_ledger_of_his_own_and_every_loan_one_row():
    second = LOAN | {"loan_id": "L2", "customer_id": "C2", "account_id": None}
    third = LOAN | {"loan_id": "L3", "applied_at": APPLIED - timedelta(days=45)}
    computed = features_of(ledger(loans=[LOAN, second, third]))
    assert computed["loan_id"].tolist() == ["L1", "L2", "L3"]
    assert computed["n_transactions_6m"].fillna(-1).tolist() == [8 / 5, -1, 2 / 3], "L3 is of May: of February to April, two movements"


def test_the_order_of_movements_changes_nothing():
    tables = many_loans()
    plain = features_of(tables)
    tables["transactions"] = tables["transactions"].sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(plain, features_of(tables), check_exact=True)


def test_a_source_gets_only_features_that_it_can_fill():
    extra = Feature("employed_months", "months", "Time in the job.")
    few = select_features({"loans": ["loan_id", "customer_id", "loan_amount", "employed_months"]}, [extra])
    assert [feature.name for feature in few] == ["loan_amount", "employed_months"]
    with pytest.raises(ValueError, match="fills no such columns"):
        select_features({"loans": ["loan_amount"]}, [extra])
    with pytest.raises(ValueError, match="defined here too"):
        select_features({"loans": ["loan_amount"]}, [Feature("loan_amount", "", "")])


def test_no_feature_needs_a_protected_column_or_an_outcome():
    needed = {need for defined in CATALOGUE for need in defined.needs}
    for name, canonical in TABLES.items():
        late = ("outcome_known_at", "label_known_at")
        forbidden = {f"{name}.{c.name}" for c in canonical.columns if c.personal == "protected" or c.known in late}
        assert not needed & forbidden
    assert len({defined.feature.name for defined in CATALOGUE}) == len(CATALOGUE)


def test_a_feature_without_its_table_is_said():
    with pytest.raises(ValueError, match=r"usual_income_amount needs transactions\."):
        build({"loans": ibis.memtable(table("loans", [LOAN]))}, [f for f in FEATURES if f.name == "usual_income_amount"])


def test_what_follows_from_the_terms_is_there_only_beside_what_it_follows_from():
    columns = {"loans": ["loan_amount", "bill_amount_1m"]}
    assert [feature.name for feature in select_features(columns)] == ["loan_amount"]
    selected = select_features(columns, [Feature("bill_amount_1m", "currency", "Last bill.")])
    assert [feature.name for feature in selected] == ["loan_amount", "utilisation_1m", "headroom_amount", "bill_amount_1m"]
    with pytest.raises(ValueError, match="bill_amount_1m"):
        build({"loans": ibis.memtable(table("loans", [LOAN]))}, [Feature("utilisation_1m", "", "")])


# --- month-end applications --------------------------------------------------------------------------------------------

SALARIES = tuple(
    {
        "transaction_id": f"{customer}-{month}-{day}", "customer_id": customer, "account_id": "A1", "direction": "credit",
        "occurred_at": datetime(2024, month, day), "amount": 1000.0, "balance_amount": 1000.0, "category": "salary",
    }
    for customer in ("C1", "C2") for month in (3, 4, 5) for day in (1, 31 if month != 4 else 30)
)  # fmt: skip
ASKED = (
    LOAN | {"loan_id": "L1", "applied_at": datetime(2024, 4, 10), "loan_amount": 1000.0, "term_months": 12, "annual_rate_pct": 6.0},
    LOAN | {"loan_id": "L2", "applied_at": datetime(2024, 5, 1), "loan_amount": 5000.0, "term_months": 24, "annual_rate_pct": 12.0},
    LOAN | {"loan_id": "L3", "applied_at": datetime(2024, 5, 2), "loan_amount": 3000.0, "term_months": 48, "annual_rate_pct": 8.0},
)


def month_end_applications_of(tables):
    rows = add_month_end_applications({name: ibis.memtable(frame) for name, frame in tables.items()}).execute()
    return rows.set_index("loan_id").sort_index()


def test_everyone_has_an_application_at_every_month_end_for_what_was_typical_by_then():
    rows = month_end_applications_of(ledger(ASKED, transactions=SALARIES))
    # Nobody had applied by the end of March; the loan of the first of May is not known yet at that very moment.
    assert rows.index.tolist() == ["C1@2024-04", "C1@2024-05", "C2@2024-04", "C2@2024-05", "L1", "L2", "L3"]
    april, may = rows.loc["C2@2024-04"], rows.loc["C2@2024-05"]
    assert april[["loan_amount", "term_months", "annual_rate_pct"]].tolist() == [1000, 12, 6]
    assert may[["loan_amount", "term_months", "annual_rate_pct"]].tolist() == [3000, 24, 8]
    assert may.instalment_amount == pytest.approx(135.68)
    assert may.applied_at == datetime(2024, 6, 1)
    assert rows.loc["C1@2024-05"].account_id == "A1"
    assert pd.isna(may.account_id), "no account is known of this customer"
    assert rows.loc[rows.index.str.contains("@"), ["is_default", "outcome_known_at"]].isna().all(axis=None)


def test_what_a_customer_said_in_an_application_stands_until_the_next():
    loans = [loan | {"stated_income_amount": 900.0 + k} for k, loan in enumerate(ASKED)]
    tables = ledger(transactions=SALARIES) | {"loans": table("loans", loans, stated_income_amount="float64")}
    rows = month_end_applications_of(tables)
    assert rows.loc["C1@2024-04"].stated_income_amount == 900
    assert rows.loc["C1@2024-05"].stated_income_amount == 902
    assert pd.isna(rows.loc["C2@2024-05"].stated_income_amount), "this customer never applied"


def test_nothing_that_comes_later_changes_a_month_end_application():
    tables = many_loans()
    july_begins = datetime(2024, 7, 1)
    later = {"loans": "applied_at", "transactions": "occurred_at"}
    cut = {name: frame[frame[later[name]] < july_begins] if name in later else frame for name, frame in tables.items()}
    # A movement of July, so that June has ended for everyone.
    july = [{**SALARIES[0], "transaction_id": f"J{k}", "customer_id": f"C{k}", "occurred_at": july_begins} for k in range(50)]
    cut["transactions"] = pd.concat([cut["transactions"], table("transactions", july)])
    whole, short = (
        features_of({**one, "loans": month_end_applications_of(one).reset_index()}).set_index("loan_id") for one in (tables, cut)
    )
    june = [name for name in whole.index.intersection(short.index) if name.endswith("@2024-06")]
    assert len(june) > 10
    pd.testing.assert_frame_equal(whole.loc[june], short.loc[june])


def test_a_source_without_movements_has_its_loans_alone():
    tables = {"loans": ibis.memtable(table("loans", [LOAN]))}
    assert add_month_end_applications(tables) is tables["loans"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Return the feature table of a small economy, by the key of the row."""
    folder = tmp_path_factory.mktemp("landed")
    settings = Settings(sim_customers=700, sim_months=18, as_of=datetime(2025, 7, 1))
    source, engine = sources.load(settings), ibis.duckdb.connect()
    valid = {}
    for name in LOAN_DEFAULT.tables:
        raw = source.tables[name]
        raw.land(folder / f"{name}.parquet")
        landed = engine.read_parquet(folder / f"{name}.parquet")
        valid[name] = engine.create_table(name, contract.split(raw.table, raw.columns, landed, valid, settings.now).valid)
    rows = LOAN_DEFAULT.build_features(valid, source).execute().set_index("loan_id").sort_index()
    return rows[[feature.name for feature in LOAN_DEFAULT.select_features(source)]].assign(customer_id=rows.customer_id)


def rows_of(frame):
    """Return rows of a feature table in the service's form: names to numbers, None where missing."""
    named = frame.drop(columns="customer_id").to_dict("records")
    return [{name: None if np.isnan(value) else value for name, value in row.items()} for row in named]


def values(rows):
    return np.array([[np.nan if value is None else value for value in row.values()] for row in rows])


def test_a_thousand_loans_asked_again_with_their_own_terms_are_themselves(simulated):
    stored = rows_of(simulated[~simulated.index.str.contains("@")].sample(1000, random_state=1))
    assert {name for name in stored[0] if name in FORMULAS} == {
        "instalment_to_usual_income", "commitments_to_usual_income", "surplus_after_instalment", "loan_to_usual_income",
        "mean_balance_to_instalment_6m", "instalment_to_stated_income", "instalment_to_declared_income",
    }  # fmt: skip
    terms = [{name: row[name] for name in ("loan_amount", "term_months", "annual_rate_pct")} for row in stored]
    others = [with_terms(row, **other) for row, other in zip(stored, reversed(terms), strict=True)]
    assert sum(row != other for row, other in zip(stored, others, strict=True)) > 900
    again = [with_terms(other, **own) for other, own in zip(others, terms, strict=True)]
    assert [list(row) for row in again] == [list(row) for row in stored]
    np.testing.assert_allclose(values(again), values(stored), rtol=1e-9, atol=1e-9)


def test_the_typical_loan_asked_for_gives_the_month_end_row_back(simulated):
    stored = rows_of(simulated[simulated.index.str.contains("@")].sample(1000, random_state=1))
    again = [with_terms(row, loan_amount=row["loan_amount"]) for row in stored]
    np.testing.assert_allclose(values(again), values(stored), rtol=1e-9, atol=1e-9)


def test_every_customer_with_movements_has_a_month_end_row(simulated):
    applications = simulated[simulated.index.str.contains("@")]
    assert applications.customer_id.nunique() > 650
    assert applications.index.is_unique


def test_the_record_of_a_card():
    record = {f"payment_status_{k}m": value for k, value in enumerate((2, 0, -1, -2, 3, 0), 1)}
    record |= {f"bill_amount_{k}m": value for k, value in enumerate((5000.0, 4000.0, 0.0, -10.0, 1000.0, 2000.0), 1)}
    record |= {f"paid_amount_{k}m": value for k, value in enumerate((1000.0, 500.0, 0.0, 0.0, 3000.0, 0.0), 1)}
    loans = table("loans", [LOAN | {"applied_at": None} | record], **dict.fromkeys(record, "float64"))
    passed = [Feature(name, "currency", "") for name in record if not name.startswith("payment_status")]
    features = select_features({"loans": ["loan_amount", *record]}, passed)
    row = features_of({"loans": loans}, features).iloc[0]
    expected = {
        "n_late_6m": 2, "n_late_3m": 1, "n_very_late_6m": 2, "worst_late_6m": 3, "worst_late_3m": 2, "sum_late_6m": 5,
        "months_since_late": 0, "payment_status_change": 2, "n_revolving_6m": 2, "n_unused_6m": 1,
        "utilisation_1m": 5 / 6, "max_utilisation_6m": 5 / 6, "utilisation_change_6m": 0.5, "headroom_amount": 1000,
        "paid_to_bill_1m": 0.25, "paid_to_bill_5m": 1.5, "paid_to_bill_6m": 4500 / 7000, "n_paid_6m": 3,
        "paid_amount_6m_sum": 4500, "min_paid_amount_6m": 0, "max_paid_amount_6m": 3000, "spent_to_limit_1m": 2000 / 6000,
        "bill_amount_1m": 5000,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row[["paid_to_bill_2m", "paid_to_bill_3m"]].isna().all(), "no bill, no share of it"
    never = table("loans", [LOAN | record | {f"payment_status_{k}m": -1.0 for k in range(1, 7)}], **dict.fromkeys(record, "float64"))
    assert features_of({"loans": never}, features).iloc[0]["months_since_late"] == 6


def many_loans(n=60, seed=5):
    """Return loans of many customers with adverse histories: ties, no history, old history, empty categories."""
    rng = np.random.default_rng(seed)
    loans, transactions = [], []
    for k in range(n):
        customer = f"C{k % 50}"
        applied = APPLIED + timedelta(days=int(rng.integers(-60, 60)), seconds=int(rng.integers(0, 86400)))
        loans.append(LOAN | {"loan_id": f"L{k}", "customer_id": customer, "account_id": f"A{k % 50}", "applied_at": applied})
    for k in range(40):
        for move in range(rng.integers(1, 60)):
            day = APPLIED - timedelta(days=float(np.round(rng.uniform(-60, 300), 1)))
            transactions.append(
                {
                    "transaction_id": f"T{k}-{move}", "customer_id": f"C{k}", "account_id": f"A{k}", "occurred_at": day,
                    "amount": float(np.round(rng.lognormal(5, 1), 2)), "direction": rng.choice(["credit", "debit"]),
                    "category": rng.choice(["salary", "cash", "penalty", "refund", None]),
                    "balance_amount": float(np.round(rng.normal(800, 900), 2)),
                }
            )  # fmt: skip
    customers = [CUSTOMER | {"customer_id": f"C{k}"} for k in range(50)]
    accounts = [ACCOUNT | {"account_id": f"A{k}", "customer_id": f"C{k}"} for k in range(50)]
    return ledger(loans, customers, accounts, transactions)


@pytest.mark.slow
def test_every_feature_is_equal_on_duckdb_and_spark(spark, tmp_path):
    tables = many_loans()
    months = range(1, 7)
    rng = np.random.default_rng(8)
    for k in months:
        tables["loans"][f"payment_status_{k}m"] = rng.integers(-2, 4, len(tables["loans"]))
        tables["loans"][f"bill_amount_{k}m"] = rng.normal(2000, 2500, len(tables["loans"])).round(2)
        tables["loans"][f"paid_amount_{k}m"] = rng.normal(500, 700, len(tables["loans"])).clip(0).round(2)
    tables["loans"]["stated_income_amount"] = 2000.0
    columns = {name: list(frame.columns) for name, frame in tables.items()}
    passed = [f"{what}_amount_{k}m" for what in ("bill", "paid") for k in months]
    features = select_features(columns, [Feature(name, "currency", "") for name in ("stated_income_amount", *passed)])
    assert len(features) == len(CATALOGUE) + 13
    frames = []
    for engine in (ibis.duckdb.connect(), spark):
        lazy = {}
        for name, frame in tables.items():
            path = tmp_path / f"{name}.parquet"
            frame.to_parquet(path, coerce_timestamps="us")
            lazy[name] = engine.read_parquet(path, table_name=name)
        lazy["loans"] = add_month_end_applications(lazy)
        rows = build(lazy, features).execute().sort_values("loan_id", ignore_index=True)
        frames.append(rows.drop(columns=[column.name for column in KEYS if column.name != "loan_id"]))
    names = [feature.name for feature in features]
    ours, theirs = (one[names].to_numpy(dtype=float) for one in frames)
    assert frames[0]["loan_id"].tolist() == frames[1]["loan_id"].tolist()
    assert np.isfinite(ours).any(axis=0).all(), "a feature that is never there compares nothing"
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
