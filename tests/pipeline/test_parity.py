"""Tests of feature parity: every feature is the same number in batch and online, on an adverse table and on the Handbook's."""

import ibis
import numpy as np
import pytest

from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES, HANDBOOK
from finrisk_assets.domains.transaction_anomaly.features import build, select_features
from finrisk_assets.features import batch, parity
from finrisk_assets.features.arrivals import plan_arrivals, replay
from finrisk_assets.features.passes import sorted_scan
from finrisk_assets.features.time_span import TimeSpan


def unpleasant(n: int = 3000, customers: int = 12, seed: int = 0) -> "ibis.expr.types.Table":
    """Return transactions with ties, microseconds, missing merchants and countries, equal amounts, bursts and late labels."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    start = np.datetime64("2024-01-01", "us").astype("int64")
    at = start + rng.integers(0, 120 * 86_400 * 10**6, n)
    at[: n // 3] -= at[: n // 3] % (86_400 * 10**6)  # many at one midnight
    burst = slice(n // 2, n // 2 + 200)
    at[burst] = at[n // 2] + rng.integers(0, 3600 * 10**6, 200)
    customer = rng.integers(0, customers, n)
    amount = np.where(customer == 0, 19.99, np.round(rng.gamma(2.0, 30.0, n), 2)) * np.where(customer == 1, 1e6, 1.0)
    label_days = rng.choice([0, 3, 7, 12], n)
    frame = pd.DataFrame(
        {
            "transaction_id": np.arange(n).astype(str),
            "customer_id": np.char.add("c", customer.astype(str)),
            "occurred_at": at.astype("datetime64[us]"),
            "amount": amount,
            "direction": np.where(rng.random(n) < 0.2, "credit", "debit"),
            "merchant": pd.Series(np.char.add("m", rng.integers(0, 40, n).astype(str)), dtype="object").where(rng.random(n) > 0.2, None),
            "country": pd.Series(rng.choice(["FR", "DE", "IT"], n), dtype="object").where(rng.random(n) > 0.3, None),
            "is_fraud": pd.Series(rng.random(n) < 0.2, dtype="object").where(rng.random(n) > 0.1, None),
            "label_known_at": pd.Series((at + label_days * 86_400 * 10**6).astype("datetime64[us]")).where(rng.random(n) > 0.1),
        }
    )
    schema = dict.fromkeys(frame.columns, "string") | {
        "occurred_at": "timestamp(6)", "label_known_at": "timestamp(6)", "amount": "float64", "is_fraud": "boolean",
    }  # fmt: skip
    return ibis.memtable(frame, schema=schema)


@pytest.mark.parametrize("features", [FEATURES, HANDBOOK], ids=["ours", "handbook"])
def test_batch_equals_online(features):
    transactions = unpleasant()
    certified = parity.certify(transactions, build(transactions, features), features, n=400)
    assert certified.n == 400
    assert certified.equal, str(certified)


def test_certificate_notices_a_feature_that_is_not_the_declared_one():
    transactions = unpleasant(600)
    table = build(transactions)
    wrong = table.mutate(customer_n_7d=table.customer_n_7d + (table.customer_n_7d == 3).cast("float64"))
    certified = parity.certify(transactions, wrong, FEATURES, n=300)
    assert not certified.equal and certified.worst == "customer_n_7d"


def test_a_store_that_forgets_at_restart_is_caught():
    class Forgetful(parity.MemoryWorkers):
        def lose(self, worker, deliveries, *, restarts):
            self._of.clear()

    transactions = unpleasant(600)
    names = [feature.feature.name for feature in FEATURES]
    batch = parity.to_rows(build(transactions).order_by("transaction_id").to_pyarrow().to_pylist(), names)
    events = parity.list_events(transactions, FEATURES)
    arrivals = plan_arrivals(events, FEATURES, seed=1)
    for workers, is_equal in ((parity.MemoryWorkers(FEATURES), True), (Forgetful(FEATURES), False)):
        assert parity.compare(batch, replay(events, arrivals, workers, len(names)).settled, names).equal == is_equal


def test_the_table_has_one_row_a_transaction_with_keys_and_label():
    transactions = unpleasant(500)
    table = build(transactions)
    assert table.columns[:5] == ("transaction_id", "customer_id", "occurred_at", "is_fraud", "label_known_at")
    assert table.columns[5:] == tuple(feature.feature.name for feature in FEATURES)
    assert table.count().to_pyarrow().as_py() == table.transaction_id.nunique().to_pyarrow().as_py() == 500
    without = build(transactions.drop("merchant", "country", "is_fraud", "label_known_at"))
    assert "merchant_n_1d" not in without.columns and "amount_zscore_30d" in without.columns


@pytest.mark.parametrize("chunk_rows", [97, sorted_scan.CHUNK_ROWS])
@pytest.mark.parametrize("factor", [1.0, 1e5])
def test_passes_over_sorted_rows_equal_window_functions_to_the_last_bit(monkeypatch, chunk_rows, factor):
    monkeypatch.setattr(sorted_scan, "CHUNK_ROWS", chunk_rows)
    rows = unpleasant()
    transactions = ibis.duckdb.connect().create_table("transactions", rows.mutate(amount=rows.amount * factor).to_pyarrow())
    features = (*FEATURES, *HANDBOOK)
    windows = batch.compute(transactions, features, carry=("is_fraud",)).order_by("transaction_id").to_pyarrow()
    passes = sorted_scan.compute(transactions, features, carry=("is_fraud",)).order_by("transaction_id").to_pyarrow()
    assert passes.schema == windows.schema and len(passes) == 3000
    assert [name for name in windows.column_names if not passes[name].equals(windows[name])] == []


def test_a_part_of_the_time_has_the_features_of_the_whole(monkeypatch):
    monkeypatch.setattr(sorted_scan, "CHUNK_ROWS", 97)
    transactions = ibis.duckdb.connect().create_table("transactions", unpleasant().to_pyarrow())
    first, last = (getattr(transactions.occurred_at, side)().to_pyarrow().as_py() for side in ("min", "max"))
    span = TimeSpan(first + (last - first) / 2, first + (last - first) * 0.6)
    features = (*FEATURES, *HANDBOOK)
    whole = span.filter_rows(batch.compute(transactions, features), "occurred_at").order_by("transaction_id").to_pyarrow()
    assert 0 < len(whole) < 3000
    for compute in (batch.compute, sorted_scan.compute):
        part = compute(transactions, features, span=span).order_by("transaction_id").to_pyarrow()
        assert [name for name in whole.column_names if not part[name].equals(whole[name])] == []


def test_features_without_a_window_need_no_pass():
    transactions = ibis.duckdb.connect().create_table("transactions", unpleasant(500).to_pyarrow())
    points = [feature for feature in FEATURES if feature.feature.name in ("hour", "log_amount")]
    assert sorted_scan.compute(transactions, points).to_pyarrow().equals(batch.compute(transactions, points).to_pyarrow())


def test_the_tables_of_a_pass_are_gone_once_they_are_dropped():
    connection = ibis.duckdb.connect()
    transactions = connection.create_table("transactions", unpleasant(500).to_pyarrow())
    sorted_scan.compute(transactions, HANDBOOK)
    assert sorted_scan.CATALOG in connection.list_catalogs()
    sorted_scan.drop(connection)
    assert sorted_scan.CATALOG not in connection.list_catalogs()


@pytest.mark.realdata
@pytest.mark.slow
def test_handbook_transactions_are_certified(data_dir):
    raw = ibis.duckdb.connect().read_parquet(data_dir / "handbook" / "transactions.parquet")
    raw = raw.filter(raw.CUSTOMER_ID % 10 == 0)
    transactions = raw.select(
        transaction_id=raw.TRANSACTION_ID.cast("string"),
        customer_id=raw.CUSTOMER_ID.cast("string"),
        occurred_at=raw.TX_DATETIME.cast("timestamp(6)"),
        amount=raw.TX_AMOUNT,
        direction=ibis.literal("debit"),
        merchant=raw.TERMINAL_ID.cast("string"),
        is_fraud=raw.TX_FRAUD == 1,
        label_known_at=raw.TX_DATETIME.cast("timestamp(6)") + ibis.interval(days=7),
    ).cache()
    features = (
        *select_features(transactions.columns),
        *(f for f in HANDBOOK if f.feature.name.startswith(("customer_nb", "terminal"))),
    )
    certified = parity.certify(transactions, build(transactions, features).cache(), features, n=100)
    assert certified.equal, str(certified)
