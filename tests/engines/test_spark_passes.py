"""Test of passes over sorted rows on Spark: the values that DuckDB computes, to the last bit."""

import ibis
import pytest

from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES, HANDBOOK
from finrisk_assets.features.passes import sorted_scan
from tests.pipeline.test_parity import unpleasant


@pytest.mark.slow
def test_passes_of_sparks_workers_equal_those_of_duckdb_to_the_last_bit(spark_engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sorted_scan, "CHUNK_ROWS", 97)
    here = ibis.duckdb.connect().create_table("transactions", unpleasant(3000).to_pyarrow())
    here.to_parquet(tmp_path / "transactions.parquet")
    features = (*FEATURES, *HANDBOOK)
    there = spark_engine.ingest_parquet(tmp_path / "transactions.parquet")
    computed = [sorted_scan.compute(table, features, carry=("is_fraud",)) for table in (here, there)]
    spark_engine.session.conf.set("spark.sql.shuffle.partitions", "2")  # one partition would need no shuffle
    plan = spark_engine.connection.data_frame(computed[1])._jdf.queryExecution().executedPlan().toString()
    spark_engine.session.conf.set("spark.sql.shuffle.partitions", "1")
    assert (plan.count("Exchange hashpartitioning"), "Window" in plan) == (2, False)
    ours, theirs = (table.order_by("transaction_id").to_pyarrow() for table in computed)
    assert theirs.schema == ours.schema and len(theirs) == 3000
    assert [name for name in ours.column_names if not theirs[name].equals(ours[name])] == []
