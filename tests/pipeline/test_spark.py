"""The same feature expressions give the same numbers on DuckDB and on PySpark."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import ibis
import numpy as np
import pytest

from finrisk_assets.transaction_anomaly.features import FEATURES, HANDBOOK, build


@pytest.fixture
def spark(tmp_path, monkeypatch):
    """An Ibis connection to a local Spark of one thread that leaves nothing behind."""
    missing = [
        what for what, there in (("Java", shutil.which("java")), ("pyspark", importlib.util.find_spec("pyspark"))) if not there
    ]
    if missing:
        reason = f"{' and '.join(missing)} not found: install a Java 17 runtime (openjdk-17-jre-headless) and the dev group"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from pyspark.sql import SparkSession

    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.chdir(tmp_path)
    session = (
        SparkSession.builder.master("local[1]")
        .appName("finrisk-tests")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "1")
        # A few thousand rows: compiling code for them takes longer than interpreting the plan.
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1")
        .config("spark.sql.warehouse.dir", str(tmp_path / "warehouse"))
        .config("spark.local.dir", str(tmp_path / "scratch"))
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield ibis.pyspark.connect(session)
    session.stop()


@pytest.mark.slow
def test_features_are_equal_on_duckdb_and_spark(spark, tmp_path):
    unpleasant = _module(Path(__file__).with_name("test_parity.py")).unpleasant
    path = tmp_path / "transactions.parquet"
    duckdb = ibis.duckdb.connect()
    duckdb.create_table("transactions", unpleasant(3000).to_pyarrow())
    duckdb.table("transactions").to_parquet(path)
    features = (*FEATURES, *HANDBOOK)
    ours = build(duckdb.table("transactions"), features).to_pyarrow().to_pylist()
    theirs = build(spark.read_parquet(path, table_name="transactions"), features).to_pyarrow().to_pylist()

    by_id = {row["transaction_id"]: row for row in theirs}
    assert len(by_id) == len(theirs) == len(ours) == 3000
    differs = {}
    for feature in features:
        name = feature.feature.name
        pairs = [(row[name], by_id[row["transaction_id"]][name]) for row in ours]
        here, there = (
            np.array([np.nan if value is None else value for value in side], float) for side in zip(*pairs, strict=True)
        )
        if not np.allclose(here, there, rtol=1e-9, atol=1e-9, equal_nan=True):
            differs[name] = int((~np.isclose(here, there, rtol=1e-9, atol=1e-9, equal_nan=True)).sum())
    assert not differs


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
