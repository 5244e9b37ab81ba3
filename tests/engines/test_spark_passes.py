"""Test of passes over sorted rows on Spark: the same values as its window functions, to the last bit."""

import pytest

from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES
from finrisk_assets.features import batch, sorted_scan
from tests.pipeline.test_parity import unpleasant


@pytest.mark.slow
def test_passes_of_sparks_workers_equal_its_window_functions_to_the_last_bit(spark_engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_scan, "CHUNK_ROWS", 97)
    path = tmp_path / "transactions.parquet"
    unpleasant(3000).to_parquet(path)
    transactions = spark_engine.ingest_parquet(path)
    windows, passes = (
        compute(transactions, FEATURES, carry=("is_fraud",)).order_by("transaction_id").to_pyarrow()
        for compute in (batch.compute, sorted_scan.compute)
    )
    assert passes.schema == windows.schema and len(passes) == 3000
    assert [name for name in windows.column_names if not passes[name].equals(windows[name])] == []
