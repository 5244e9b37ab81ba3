"""Tests of offer features: an offer worked out by hand, monthly rows, and nothing from the future."""

import math
from datetime import datetime, timedelta

import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.loan_offers import decide
from finrisk_assets.domains.loan_offers.catalogue import CATALOGUE
from finrisk_assets.domains.loan_offers.features import KEYS, build, select_features
from finrisk_assets.scoring.annuity import instalment
from schemas.features import Feature
from schemas.ledger import TABLES

OFFERED = datetime(2024, 7, 1, 12)
TYPES = {"float64": "float64", "int64": "Int64", "string": "object", "boolean": "boolean", "timestamp": "datetime64[us]"}
SCORES = {"customer_id": "object", "applied_at": "datetime64[us]", "probability": "float64"}
FEATURES = select_features({name: TABLES[name].names for name in ("offers", "transactions")})


def table(name, rows, **more):
    kinds = {column.name: TYPES[column.dtype] for column in TABLES[name].columns} | more
    return pd.DataFrame(list(rows), columns=list(kinds)).astype(kinds)


def moves(*rows, customer="C1"):
    """Return transactions from (days before the offer, direction, amount, balance, category)."""
    return [
        {
            "transaction_id": f"{customer}-{k}", "customer_id": customer, "account_id": "A1", "direction": direction,
            "occurred_at": OFFERED - timedelta(days=days), "amount": amount, "balance_amount": balance, "category": category,
        }
        for k, (days, direction, amount, balance, category) in enumerate(rows)
    ]  # fmt: skip


OFFER = {
    "offer_id": "O1", "customer_id": "C1", "offered_at": OFFERED, "loan_amount": 4000.0, "term_months": 24, "annual_rate_pct": 12.0,
    "is_rate_random": True, "is_accepted": None, "outcome_known_at": None,
}  # fmt: skip
HISTORY = (
    (120, "debit", 20, -300, "penalty"),
    (85, "credit", 2000, 1000, "salary"),
    (80, "debit", 500, 500, "rent"),
    (50, "credit", 2000, 2500, "salary"),
    (45, "debit", 2600, -100, "groceries"),
    (44, "debit", 15, -115, "returned_payment"),
    (20, "credit", 2000, 1885, "salary"),
    (10, "credit", 50, 1935, "refund"),
    (5, "debit", 935, 1000, "rent"),
)


def build_rows(offers=(OFFER,), transactions=None, scores=None, features=FEATURES):
    tables = {"offers": ibis.memtable(table("offers", offers))}
    tables["transactions"] = ibis.memtable(table("transactions", moves(*HISTORY) if transactions is None else transactions))
    if scores is not None:
        tables["scores_loan_default"] = ibis.memtable(pd.DataFrame(scores, columns=list(SCORES)).astype(SCORES))
    return build(tables, features).execute().set_index("offer_id").sort_index()


def test_one_offer_worked_out_by_hand():
    row = build_rows().loc["O1"]
    payment = float(instalment(4000, 12, 24))
    expected = {
        "monthly_income_amount": 2000, "annual_rate_pct": 12, "log_loan_amount": math.log(4000), "log_term_months": math.log(24),
        "log_loan_to_income": math.log(2), "instalment_to_income": payment / 2000, "log_income": math.log(2000),
        # March to June are complete; March has no income.
        "income_irregularity_6m": np.std([0, 2000, 2000, 2000]) / 1500,
        "expense_to_income_3m": 4050 / 6000, "expense_to_usual_income_1m": 935 / 2000,
        "balance_to_income": 0.5, "lowest_balance_to_income_3m": -115 / 2000,
        "mean_balance_to_income_3m": (500 - 115 + 1000) / 3 / 2000,
        "n_penalties_6m": 1, "n_missed_6m": 1, "negative_balance_share_3m": 2 / 8, "largest_expense_to_income_3m": 1.3,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == pytest.approx(expected)
    assert row[["pd", "days_since_offer", "accepted_share_before"]].isna().all()


def test_a_month_end_row_for_every_month_that_ended():
    rows = build_rows()
    month_ends = rows[rows.index.str.contains("@")]
    assert month_ends.index.tolist() == ["C1@2024-03", "C1@2024-04", "C1@2024-05"], "June had not ended for the last movement"
    assert month_ends.offered_at.tolist() == [pd.Timestamp(2024, month, 1) for month in (4, 5, 6)]
    assert month_ends[["is_accepted", "is_rate_random", "annual_rate_pct", "log_loan_amount", "instalment_to_income"]].isna().all(axis=None)
    assert month_ends.loc["C1@2024-05", "monthly_income_amount"] == 2000, "the median of March without and of April and May with a salary"


def test_nothing_at_or_after_the_offer_and_no_answer_is_seen():
    later = moves((0, "credit", 9e6, 9e6, "salary"), (-0.001, "debit", 5e5, -5e5, "penalty"), (-10, "debit", 7, -7, "returned_payment"))
    later = [move | {"transaction_id": "later" + move["transaction_id"]} for move in later]
    after = OFFER | {"offer_id": "O2", "offered_at": OFFERED + timedelta(seconds=1)}
    answered = OFFER | {"is_accepted": True, "outcome_known_at": OFFERED + timedelta(days=9)}
    names = [feature.name for feature in FEATURES] + ["pd", "monthly_income_amount"]
    scores = [("C1", OFFERED - timedelta(days=1), 0.1)]
    plain = build_rows(scores=scores).loc["O1", names]
    late = [*scores, ("C1", OFFERED + timedelta(days=1), 0.9), ("C2", OFFERED - timedelta(hours=1), 0.8)]
    disturbed = build_rows([answered, after], moves(*HISTORY) + later, late).loc["O1", names]
    pd.testing.assert_series_equal(plain, disturbed)


def test_the_newest_pd_known_by_then_is_taken():
    scores = [("C1", OFFERED - timedelta(days=days), pd) for days, pd in ((60, 0.3), (30, 0.2), (0, 0.1))]
    assert build_rows(scores=scores).loc["O1", "pd"] == 0.1, "one known at the very moment counts"
    assert build_rows(scores=scores[:2]).loc["O1", "pd"] == 0.2


def test_earlier_offers_count_by_what_was_known_of_them():
    def earlier(number, days, accepted, known):
        moment = OFFERED - timedelta(days=days)
        return OFFER | {
            "offer_id": number,
            "offered_at": moment,
            "is_accepted": accepted,
            "outcome_known_at": moment + timedelta(days=known),
        }

    row = build_rows([OFFER, earlier("A", 100, True, 20), earlier("B", 40, True, 41), earlier("C", 40, False, 5)]).loc["O1"]
    assert row["days_since_offer"] == pytest.approx(40)
    assert row["accepted_share_before"] == pytest.approx(1 / 3), "that B was accepted is not known yet"


def test_a_part_of_a_month_tells_no_income():
    part = moves((20, "credit", 700, 2000, "salary"))
    assert np.isnan(build_rows(transactions=part).loc["O1", "monthly_income_amount"])
    after_a_part = moves((50, "credit", 700, 700, "salary"), (20, "credit", 2000, 2700, "salary"))
    assert build_rows(transactions=after_a_part).loc["O1", "monthly_income_amount"] == 2000


def test_without_a_ledger_the_stated_income_stands_and_offers_are_all_there_is():
    own = Feature("risk_grade", "", "Grade.")
    offers = table(
        "offers", [OFFER | {"stated_income_amount": 1000.0, "risk_grade": 2}], stated_income_amount="float64", risk_grade="Int64"
    )
    features = select_features({"offers": offers.columns}, [own])
    assert [feature.name for feature in features if "3m" in feature.name] == []
    row = build({"offers": ibis.memtable(offers)}, features).execute().iloc[0]
    assert (row.monthly_income_amount, row.risk_grade) == (1000, 2)
    assert row.log_loan_to_income == pytest.approx(math.log(4))


def test_the_priced_grid_speaks_of_terms_as_the_features_do():
    names = [feature.name for feature in FEATURES]
    rows = build_rows([OFFER, OFFER | {"offer_id": "O2", "annual_rate_pct": 0.0, "term_months": 7, "loan_amount": 45_000.0}])
    for number, terms in (("O1", (12.0, 4000.0, 24)), ("O2", (0.0, 45_000.0, 7))):
        row = rows.loc[number]
        grid = decide.Grid((terms[0],), (), (terms[2],), (terms[1],))
        stored = row[names].to_numpy(dtype=np.float32)
        np.testing.assert_array_equal(decide.build_rows(names, stored, row.monthly_income_amount, grid)[0, 0], stored)


def test_a_source_gets_only_features_that_it_can_fill():
    few = select_features({"offers": ["offer_id", "customer_id", "annual_rate_pct", "loan_amount"]})
    assert [feature.name for feature in few] == ["annual_rate_pct", "log_loan_amount"]
    with pytest.raises(ValueError, match="fills no such columns"):
        select_features({"offers": ["annual_rate_pct"]}, [Feature("risk_grade", "", "")])
    with pytest.raises(ValueError, match="defined here too"):
        select_features({"offers": ["annual_rate_pct"]}, [Feature("annual_rate_pct", "", "")])
    with pytest.raises(ValueError, match="no column of the offers is called risk_grade"):
        build_rows(features=[Feature("risk_grade", "", "")])


def test_what_grows_with_the_rate_is_bound_like_the_rate():
    bound = {feature.name: feature.monotone for feature in FEATURES if feature.monotone}
    assert bound == {"annual_rate_pct": -1, "instalment_to_income": -1}


def test_no_feature_needs_a_protected_column_or_the_answer_to_its_offer():
    needed = {need for defined in CATALOGUE for need in defined.needs}
    for name, contract in TABLES.items():
        assert not needed & {f"{name}.{column.name}" for column in contract.columns if column.personal == "protected"}
    assert len({defined.feature.name for defined in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.slow
def test_every_feature_is_equal_on_duckdb_and_spark(spark, tmp_path):
    rng = np.random.default_rng(2)
    transactions, offers, scores = [], [], []
    for k in range(8):
        for _ in range(rng.integers(1, 60)):
            one = (
                float(np.round(rng.uniform(-20, 200), 2)), rng.choice(["credit", "debit"]), float(np.round(rng.lognormal(6, 1), 2)),
                float(np.round(rng.normal(500, 900), 2)), rng.choice(["salary", "rent", "penalty", "returned_payment", None]),
            )  # fmt: skip
            move = moves(one, customer=f"C{k}")[0]
            transactions.append(move | {"transaction_id": str(len(transactions))})
        for _ in range(4):
            moment = OFFERED - timedelta(days=int(rng.integers(0, 150)), seconds=len(offers))
            answer = {"is_accepted": bool(rng.random() < 0.3), "outcome_known_at": moment + timedelta(days=10)}
            terms = {"annual_rate_pct": float(rng.uniform(0, 24)), "loan_amount": float(rng.uniform(500, 9000))}
            offers.append(OFFER | answer | terms | {"offer_id": f"O{len(offers)}", "customer_id": f"C{k}", "offered_at": moment})
            scores.append((f"C{k}", moment - timedelta(days=3), float(rng.random())))
    frames = {
        "offers": table("offers", offers), "transactions": table("transactions", transactions),
        "scores_loan_default": pd.DataFrame(scores, columns=list(SCORES)).astype(SCORES),
    }  # fmt: skip
    results = []
    for engine in (ibis.duckdb.connect(), spark):
        lazy = {}
        for name, frame in frames.items():
            path = tmp_path / f"{name}.parquet"
            frame.to_parquet(path, coerce_timestamps="us")
            lazy[name] = engine.read_parquet(path, table_name=name)
        results.append(build(lazy, FEATURES).execute().sort_values("offer_id", ignore_index=True))
    names = [feature.name for feature in FEATURES] + ["pd", "monthly_income_amount"]
    ours, theirs = (one[names].to_numpy(dtype=float, na_value=np.nan) for one in results)
    assert results[0].offer_id.tolist() == results[1].offer_id.tolist()
    assert np.isfinite(ours).any(axis=0).all(), "a feature that is never there compares nothing"
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert [column.name for column in KEYS] == results[0].columns[: len(KEYS)].tolist()
