"""Tests of feature equality: the same expressions give the same numbers on DuckDB and on PySpark."""

import importlib.util
from pathlib import Path

import ibis
import numpy as np
import pytest

from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES, HANDBOOK
from finrisk_assets.domains.transaction_anomaly.features import build


@pytest.mark.slow
def test_features_are_equal_on_duckdb_and_spark(spark, tmp_path):
    unpleasant = _module(Path(__file__).parents[1] / "pipeline" / "test_parity.py").unpleasant
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
        here, there = (np.array([np.nan if value is None else value for value in side], float) for side in zip(*pairs, strict=True))
        if not np.allclose(here, there, rtol=1e-9, atol=1e-9, equal_nan=True):
            differs[name] = int((~np.isclose(here, there, rtol=1e-9, atol=1e-9, equal_nan=True)).sum())
    assert not differs


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
