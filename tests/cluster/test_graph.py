"""The whole graph on a standalone Spark with two workers, to a built Bento; a worker that dies; a server of Spark Connect."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest

from finrisk_assets.cli import main
from finrisk_assets.domains.batch_scorer import BatchScorer
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.engines.spark_engine import ICEBERG
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.landing import ROW
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings
from tests.cluster.cluster import Standalone, connect_server, standalone
from tests.conftest import SPARK_SETTINGS
from tests.engines.parity import find_differences, read
from tests.pipeline.conftest import Run, materialise

CUSTOMERS, MONTHS = 300, 18


@pytest.fixture(scope="session")
def cluster(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with standalone(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


def _run(settings: Settings) -> Run:
    main.prepare_dagster(settings)
    result = materialise(settings)
    failures = [f"{event.step_key}: {event.step_failure_data.error}" for event in result.all_events if event.is_step_failure]
    assert result.success, failures
    return Run(settings, result, Warehouse.of(settings))


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole graph on DuckDB."""
    home = tmp_path_factory.mktemp("duckdb")
    return _run(Settings(home=home, sim_customers=CUSTOMERS, sim_months=MONTHS, as_of=datetime(2025, 7, 1)))


@pytest.fixture(scope="session")
def there(here: Run, cluster: Standalone, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The whole graph on the cluster."""
    options = SPARK_SETTINGS | {"spark.sql.shuffle.partitions": "2", "spark.executor.memory": "700m", "spark.driver.host": "127.0.0.1"}
    options["spark.executorEnv.PYTHONPATH"] = str(Path(__file__).parents[2])
    url = f"pyspark://{cluster.url}?{urlencode(options)}"
    return _run(replace(here.settings, home=tmp_path_factory.mktemp("spark"), warehouse_url=url))


def test_the_graph_ends_in_a_bento_with_equal_tables(here: Run, there: Run) -> None:
    assert list((there.settings.bentoml_home / "bentos").rglob("bento.yaml"))
    source = sources.load(here.settings)
    for name, raw in source.tables.items():
        for asset, key in ((f"validated_{name}", raw.table.key), (f"quarantine_{name}", ROW)):
            assert find_differences(read(here.warehouse, asset, key), read(there.warehouse, asset, key)) == {}, asset
    for domain in domains_of(source):
        asset, key = f"features_{domain.group}", domain.keys[0].name
        assert set(there.warehouse.table(f"scores_{domain.name}").columns) == set(domain.score_contract().names)
        assert find_differences(read(here.warehouse, asset, key), read(there.warehouse, asset, key)) == {}, asset


def test_a_worker_that_dies_in_the_middle_of_scoring_changes_no_score(there: Run, cluster: Standalone, tmp_path: Path) -> None:
    """Each worker stops in its first batch until one of them is dead; the other one scores all rows."""
    domain, engine = TRANSACTION_ANOMALY, there.warehouse.engine
    rows = engine.session.table("analytics.features_transaction_anomaly").repartition(4)
    lazy = engine.connection.view(rows)
    lazy = domain.join_rules(lazy, there.warehouse.table, load_policy(there.settings))
    folders = {domain.name: there.settings.root / "champions" / domain.name / "bundle"}
    scorer = BatchScorer.read(domain, load_policy(there.settings), tuple(lazy.columns), folders)
    folder = tmp_path

    def wait_and_score(batch):
        (folder / f"{os.getpid()}.begun").touch()
        while not (folder / "dead").exists():
            time.sleep(0.05)
        return scorer(batch)

    def kill_one() -> None:
        while len(list(folder.glob("*.begun"))) < 2:
            time.sleep(0.05)
        cluster.workers[1].kill()
        (folder / "dead").touch()

    killing = threading.Thread(target=kill_one)
    killing.start()
    scored = engine.map_batches(lazy, wait_and_score, scorer.schema, key=domain.keys[0].name, file=folder / "none", threads=1)
    engine.replace_table("analytics", "scores_again", scored)
    killing.join()
    before, after = (read_scores(there, asset, domain.keys[0].name) for asset in ("scores_transaction_anomaly", "scores_again"))
    assert find_differences(before, after, exact=before.column_names) == {}


def read_scores(run: Run, asset: str, key: str):
    return run.warehouse.engine.table("analytics", asset).order_by(key).to_pyarrow()


CLIENT = """
import sys
import ibis, pyarrow as pa
from finrisk_assets.engines.choice import open_engine
from finrisk_assets.ledger.text_expressions import nfc_normalize
engine = open_engine(sys.argv[1])
print("found", engine.table("analytics", "scores_loan_default").count().to_pyarrow().as_py())
rows = ibis.memtable(pa.table({"id": ["a", "e\u0301"], "at": pa.array([0, 31 * 86_400_000_000], pa.timestamp("us"))}))
engine.replace_table("analytics", "connected", rows.mutate(id=nfc_normalize(rows.id)), "at")
condition = "\"at\" >= TIMESTAMP '1970-02-01 00:00:00' AND \"at\" < TIMESTAMP '1970-03-01 00:00:00'"
stored = engine.table("analytics", "connected")
engine.replace_rows("analytics", "connected", stored.filter(stored.id != "a").mutate(id=stored.id + "!"), condition)
def upper(batch):
    return pa.RecordBatch.from_pydict({"id": [text.upper() for text in batch["id"].to_pylist()]})
stored = engine.map_batches(engine.table("analytics", "connected"), upper, pa.schema([("id", pa.string())]), key="id", file=None, threads=1)
print("made", sorted(row for batch in stored.to_pyarrow_batches() for row in batch["id"].to_pylist()))
"""


def test_spark_connect_has_the_same_verbs_and_tables(there: Run, tmp_path: Path) -> None:
    with connect_server(tmp_path, SPARK_SETTINGS | {"spark.jars.packages": ICEBERG}) as url:
        warehouse = there.settings.root / "spark"
        command = [sys.executable, "-c", CLIENT, f"pyspark://{url}?{urlencode({'warehouse': str(warehouse)})}"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    n_scores = there.warehouse.table("scores_loan_default").count().to_pyarrow().as_py()
    assert done.stdout.splitlines() == [f"found {n_scores}", "made ['A', 'É!']"]
