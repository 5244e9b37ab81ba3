"""Tests of the fit on Spark: in a process without Dagster, on the rows of all customers, and what stands where it does not end."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.ledger_fit import FEATURES, RowEncoder, TeachingRows, select_known, to_batch
from finrisk_assets.domains.transaction_anomaly.model import GENUINE_SHARE
from finrisk_assets.engines.spark.spark_engine import ICEBERG, KEPT_SNAPSHOTS, MAX_SNAPSHOTS
from finrisk_assets.engines.spark.spark_training import MAX_ATTEMPTS, MIN_WORKER_ROWS, TASK, write_task
from finrisk_assets.engines.spark.spark_url import ANSWER_S
from finrisk_assets.engines.spark.spark_workers import CHECKPOINT_ROUNDS
from finrisk_assets.graph.stages.common import sample_rows
from finrisk_assets.graph.stages.external.spark_fit import SparkFit
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.scoring.feature_values import LevelWeights
from finrisk_assets.settings import Settings
from schemas.features import Feature

ROOT = Path(__file__).parents[2]
N_CUSTOMERS, N_MONTHS, N_FEATURES = 1_500, 4, 5
NAMES = [f"x{number}" for number in range(N_FEATURES)]
DOMAIN = SimpleNamespace(label="is_bad")


def draw(seed: int, n: int):
    """Return rows and outcomes, of which the first two features say something."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, N_FEATURES)).astype(np.float32)
    return rows, random.random(n) < 1 / (1 + np.exp(1.5 - 2 * rows[:, 0] - rows[:, 1]))


def boosted(**settings):
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=45, max_depth=3, learning_rate=0.1, subsample=0.7, random_state=7, n_jobs=1, **settings)


def test_an_encoder_makes_the_numbers_of_the_sample():
    features = [Feature("income", "", "", "", ""), Feature("job", "", "", "", "", is_category=True, levels=("cook", "clerk"))]
    weights = LevelWeights((0.5, -0.25), (40, 60), rare=0.1, missing=-1.0, min_rows=20)
    encoder = RowEncoder("id", "is_bad", features, {1: weights})
    frame = pd.DataFrame(
        {"id": ["a", "b", "c"], "is_bad": [True, False, False], "income": [1.5, None, 3.0], "job": ["clerk", "cook", None]}
    )
    batch = encoder(_batch(frame))
    assert batch["key"].to_pylist() == ["a", "b", "c"]
    assert batch["label"].to_pylist() == [1.0, 0.0, 0.0]
    np.testing.assert_array_equal(np.array(batch[FEATURES].to_pylist(), float), [[1.5, -0.25], [np.nan, 0.5], [3.0, -1.0]])
    blank = replace(encoder, blank=(0,))(_batch(frame))
    assert [row[0] for row in blank[FEATURES].to_pylist()] == [0.0, 0.0, 0.0]


def test_rows_without_the_outcome_are_drawn_by_their_key():
    n = 4_000
    frame = pd.DataFrame({"id": [f"t{number}" for number in range(n)], "is_bad": np.arange(n) % 100 == 0, "x0": np.arange(n, dtype=float)})
    encoder = RowEncoder("id", "is_bad", [Feature("x0", "", "", "", "")], quiet_share=0.25)
    drawn = encoder(_batch(frame))
    assert sum(drawn["label"].to_pylist()) == n / 100
    assert len(drawn) == pytest.approx(n / 4, rel=0.1)
    parts = [encoder(_batch(frame[start : start + 1000])) for start in range(0, n, 1000)]
    assert [key for part in parts for key in part["key"].to_pylist()] == drawn["key"].to_pylist()


def _batch(frame):
    import pyarrow as pa

    return pa.RecordBatch.from_pandas(frame, preserve_index=False)


@pytest.fixture(scope="module")
def table(spark_engine, spark_url, tmp_path_factory):
    """Return a warehouse on Spark with a feature table of customers' months, and settings that take a third of it as the sample."""
    rows, labels = draw(1, N_CUSTOMERS * N_MONTHS)
    customers = np.repeat(np.arange(N_CUSTOMERS), N_MONTHS).astype(str)
    columns = {name: rows[:, place].astype(float) for place, name in enumerate(NAMES)}
    frame = pd.DataFrame({"id": np.arange(len(rows)).astype(str), "customer_id": customers, "is_bad": labels, **columns})
    spark_engine.replace_table("analytics", "features_taught", ibis.memtable(frame))
    home = tmp_path_factory.mktemp("home")
    (home / "simulator").mkdir()
    settings = Settings(home=home, warehouse_url=spark_url, spark_training_rows=5_000, training_rows=2_000)
    return SimpleNamespace(warehouse=Warehouse.of(settings), settings=settings, frame=frame)


def fit(table, settings: Settings, model):
    """Fit a model in an asset's step; return the fitted one of the sample, that of Spark, the metadata and the lines of the log."""
    got = {}

    @dg.asset
    def model_taught(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        features = table.warehouse.table("features_taught")
        sample = sample_rows(features, DOMAIN, settings)
        spark_fit = SparkFit.of(context, table.warehouse, features, sample, settings)
        if spark_fit is None:
            return dg.MaterializeResult()
        taught = sample.order_by("id").to_pandas()
        rows, labels = taught[NAMES].to_numpy(np.float32), taught.is_bad.to_numpy()
        got["alone"] = model.fit(rows, labels)
        encoder = RowEncoder("id", "is_bad", [Feature(name, "", "", "", "") for name in NAMES])
        got["made"] = spark_fit({"xgboost": got["alone"]}, TeachingRows(to_batch(taught.id, labels, rows), lambda others: others, encoder))
        got["tags"], got["metadata"] = spark_fit.tags, {name: value.value for name, value in spark_fit.metadata.items()}
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([model_taught], instance=instance)
        got["log"] = [record.user_message for record in instance.all_logs(run.run_id)]
    return got


@pytest.mark.slow
def test_the_program_fits_on_all_customers_without_dagster(table, tmp_path, monkeypatch):
    forbidden = tmp_path / "forbidden"
    (forbidden / "dagster").mkdir(parents=True)
    (forbidden / "dagster" / "__init__.py").write_text("raise ImportError('the program of Spark imports Dagster')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(forbidden), str(ROOT))))
    on_two = table.warehouse.url.replace("local[1]", "local[2]")
    got = fit(table, replace(table.settings, warehouse_url=on_two), boosted())
    assert got["metadata"].pop("spark_seconds") > 0
    assert got["metadata"] == {"spark_rows": len(table.frame), "spark_workers": 2, "spark_attempts": 1}
    assert got["tags"] == {"spark_rows": str(len(table.frame))}
    rows, labels = draw(2, 4_000)
    alone, everyone = (metrics.auc(labels, model.predict(rows, output_margin=True)) for model in (got["alone"], got["made"]["xgboost"]))
    assert everyone.high > alone.low
    assert everyone.low > 0.75
    before, after = (model.get_params() | {"missing": None} for model in (got["alone"], got["made"]["xgboost"]))
    assert after == before
    assert not list(table.settings.root.glob("training-*"))


@pytest.mark.slow
def test_the_fit_of_the_sample_stands_where_the_program_fails(table):
    got = fit(table, replace(table.settings, spark_submit="false"), boosted())
    assert got["made"] == {}
    assert (got["tags"], got["metadata"]) == ({}, {})
    line = "xgboost: the fit on the sample, on one node, stands, because on Spark its program failed"
    assert [text for text in got["log"] if line in text]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, N_CUSTOMERS * N_MONTHS])
def test_a_table_up_to_the_setting_is_fitted_on_one_node(table, rows):
    assert set(fit(table, replace(table.settings, spark_training_rows=rows), boosted())) == {"log"}


def test_a_task_names_what_xgboost_needs_and_no_device(tmp_path):
    write_task(tmp_path, "pyspark://local[1]?warehouse=/w", {"one": boosted(device="cuda", tree_method="hist")}, 60.0)
    written = json.loads((tmp_path / TASK).read_text())
    assert written["models"]["one"] == {
        "parameters": {
            **{"objective": "binary:logistic", "max_depth": 3, "learning_rate": 0.1},
            **{"subsample": 0.7, "random_state": 7, "tree_method": "hist"},
        },
        "rounds": 45,
    }


def test_other_customers_teach_with_what_was_known_when_the_training_window_was():
    days = pd.to_datetime(["2025-01-01", "2025-02-01", "2025-03-01"])
    taught = pd.DataFrame({"as_of": days[:2], "outcome_known_at": days[1:]})
    others = pd.DataFrame(
        {
            "id": ["early", "late", "told late", "not told"],
            "as_of": [days[0], days[2], days[1], days[0]],
            "outcome_known_at": [days[1], days[2], pd.Timestamp("2025-03-02"), pd.NaT],
            "is_bad": [True, False, True, None],
        }
    )
    table = ibis.duckdb.connect().create_table("features", others)
    assert select_known(table, "is_bad", taught, ("as_of", "outcome_known_at", "no such column")).id.to_list() == ["early"]
    timeless = taught.assign(as_of=pd.NaT, outcome_known_at=pd.NaT)
    assert len(select_known(table, "is_bad", timeless, ("as_of", "outcome_known_at")).to_pandas()) == 3


def test_spark_connect_leaves_the_fit_to_one_node_and_says_so(tmp_path):
    table = ibis.duckdb.connect().create_table("features", pd.DataFrame({"customer_id": ["a", "b"]}))
    settings = Settings(home=tmp_path, warehouse_url="pyspark://sc://host:15002", spark_training_rows=1)

    @dg.asset
    def model_taught(context: dg.AssetExecutionContext) -> None:
        assert SparkFit.of(context, Warehouse.of(settings), table, table, settings) is None

    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([model_taught], instance=instance)
        assert [record for record in instance.all_logs(run.run_id) if "Spark Connect does not tell its slots" in record.user_message]


def test_the_pages_state_the_bounds():
    engines, scale = (" ".join((ROOT / "docs" / name).read_text().split()) for name in ("engines.md", "scale.md"))
    assert f"each with {MIN_WORKER_ROWS:,} rows or more" in engines
    assert f"one after every {CHECKPOINT_ROUNDS} rounds" in engines
    assert "There are three attempts" in engines
    assert MAX_ATTEMPTS == 3
    assert f"A table that has more than {MAX_SNAPSHOTS} states keeps its last two" in engines and KEPT_SNAPSHOTS == 2
    assert f"does not answer within {ANSWER_S:g} s" in engines
    assert f"else Spark fetches `{ICEBERG}` once" in engines
    assert f"Of transactions without fraud {GENUINE_SHARE:.0%} teach".replace("%", " %") in scale
