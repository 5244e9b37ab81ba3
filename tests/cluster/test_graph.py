"""The demonstration on a standalone Spark with two workers, to served decisions; workers that die; a server of Spark Connect."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

import ibis
import pyarrow as pa
import pytest

from finrisk_assets.domains.batch_scorer import BatchScorer
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.engines.spark.spark_engine import ICEBERG
from finrisk_assets.features.time_span import ALL_TIMES
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings
from tests.cluster.cluster import Standalone, connect_server, standalone
from tests.conftest import SPARK_SETTINGS
from tests.engines.parity import COMPARED, compare_layer, find_differences, materialise_tables, read

ROOT = Path(__file__).parents[2]
CUSTOMERS, MONTHS, AS_OF = 300, 14, datetime(2025, 7, 1)


@pytest.fixture(scope="session")
def cluster(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with standalone(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@dataclass(frozen=True)
class Demo:
    """A home in which `finrisk demo` ran on the cluster, and what it printed."""

    settings: Settings
    environment: dict[str, str]
    output: str

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse.of(self.settings)


def run_command(environment: dict[str, str], *words: str) -> str:
    """Run `finrisk` in a process of its own; return what it printed."""
    command = [sys.executable, "-m", "finrisk_assets.cli.main", *words]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def demo(cluster: Standalone, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The whole graph on the cluster, and the decisions of the served Bento."""
    options = SPARK_SETTINGS | {"spark.sql.shuffle.partitions": "2", "spark.executor.memory": "700m", "spark.driver.host": "127.0.0.1"}
    options["spark.cores.max"] = "2"  # a process takes all cores that it is given
    options["spark.executor.extraJavaOptions"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    options["spark.executorEnv.PYTHONPATH"] = str(ROOT)
    url, home = f"pyspark://{cluster.url}?{urlencode(options)}", tmp_path_factory.mktemp("spark")
    variables = {
        "FINRISK_SOURCE": "simulator", "FINRISK_SIM_CUSTOMERS": str(CUSTOMERS), "FINRISK_SIM_MONTHS": str(MONTHS),
        "FINRISK_AS_OF": AS_OF.date().isoformat(), "FINRISK_HOME": str(home), "FINRISK_WAREHOUSE_URL": url,
    }  # fmt: skip
    environment = os.environ | variables
    output = run_command(environment, "demo", "--stream-seconds", "0")
    settings = Settings(home=home, sim_customers=CUSTOMERS, sim_months=MONTHS, as_of=AS_OF, warehouse_url=url)
    return Demo(settings, environment, output)


def test_the_demonstration_ends_in_served_decisions(demo: Demo) -> None:
    decisions = demo.output.partition("Decisions of the served Bento")[2].partition("Models on their test windows")[0]
    for domain in DOMAINS:
        if not domain.features_of:
            rows = re.findall(rf"^{domain.title} .+? (-?\d+\.\d+) +(-?\d+\.\d+) +\d+\.\d+$", decisions, re.MULTILINE)
            assert rows and all(served == batch for served, batch in rows), decisions


@pytest.fixture(scope="session")
def here(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The same ledger on DuckDB, scored by the champions that were trained on the cluster."""
    home = tmp_path_factory.mktemp("duckdb")
    settings = Settings(home=home, sim_customers=CUSTOMERS, sim_months=MONTHS, as_of=AS_OF)
    return materialise_tables(settings, demo.settings)


@pytest.mark.parametrize("layer", COMPARED)
def test_a_layer_is_equal_on_both_engines(demo: Demo, here: Warehouse, layer: str) -> None:
    n_rows, differing = compare_layer(layer, here, demo.warehouse, demo.settings)
    assert differing == {}
    assert len(n_rows) == (6 if layer == "scores_" else 5)


@contextmanager
def dying_worker(cluster: Standalone, folder: Path) -> Iterator[None]:
    """Kill a worker as soon as both have begun a batch, and start another one at the end of the block."""

    def kill_one() -> None:
        while len(list(folder.glob("*.begun"))) < 2:
            time.sleep(0.05)
        cluster.workers[-1].kill()
        (folder / "dead").touch()

    killing = threading.Thread(target=kill_one)
    killing.start()
    yield
    killing.join()
    cluster.replace_worker()


def wait_for_death(folder: Path, work: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Return a function that begins a batch, and goes on when a worker is dead."""

    def wait_and_work(batch: pa.RecordBatch) -> pa.RecordBatch:
        (folder / f"{os.getpid()}.begun").touch()
        while not (folder / "dead").exists():
            time.sleep(0.05)
        return work(batch)

    return wait_and_work


KEY = TRANSACTION_ANOMALY.keys[0].name


def test_a_worker_that_dies_in_the_middle_of_features_changes_no_feature(demo: Demo, cluster: Standalone, tmp_path: Path) -> None:
    """The dead worker's part of the rows, and what it had sorted for others, are computed again."""
    warehouse = demo.warehouse
    tables = {"transactions": warehouse.table("validated_transactions")}
    features = TRANSACTION_ANOMALY.compute_features(tables, sources.load(demo.settings), ALL_TIMES)
    same = wait_for_death(tmp_path, lambda batch: batch)
    with dying_worker(cluster, tmp_path):
        rows = warehouse.engine.map_batches(features, same, features.schema().to_pyarrow(), key=KEY, file=tmp_path / "none", threads=1)
        warehouse.engine.replace_table("analytics", "features_again", rows)
    before, after = (read(warehouse, asset, KEY) for asset in ("features_transaction_anomaly", "features_again"))
    assert find_differences(before, after, exact=before.column_names) == {}


def test_a_worker_that_dies_in_the_middle_of_scoring_changes_no_score(demo: Demo, cluster: Standalone, tmp_path: Path) -> None:
    """The other worker scores all rows."""
    domain, engine, policy = TRANSACTION_ANOMALY, demo.warehouse.engine, load_policy(demo.settings)
    rows = engine.connection.view(engine.session.table("analytics.features_transaction_anomaly").repartition(4))
    rows = domain.join_rules(rows, demo.warehouse.table, policy)
    folders = {domain.name: demo.settings.root / "champions" / domain.name / "bundle"}
    scorer = BatchScorer.read(domain, policy, tuple(rows.columns), folders)
    with dying_worker(cluster, tmp_path):
        waiting = wait_for_death(tmp_path, scorer)
        scored = engine.map_batches(rows, waiting, scorer.schema, key=KEY, file=tmp_path / "none", threads=1)
        engine.replace_table("analytics", "scores_again", scored)
    before, after = (read(demo.warehouse, asset, KEY) for asset in ("scores_transaction_anomaly", "scores_again"))
    assert find_differences(before, after, exact=before.column_names) == {}


CLIENT = """
import sys
import ibis, psutil, pyarrow as pa
from finrisk_assets.engines.choice import open_engine
from finrisk_assets.ledger.text_expressions import nfc_normalize
engine = open_engine(sys.argv[1])
print("found", engine.table("analytics", "scores_loan_default").count().to_pyarrow().as_py(), flush=True)
for _ in range(5):
    engine.replace_table("analytics", "shared", ibis.memtable({"writer": ["client"] * 2}))
rows = ibis.memtable(pa.table({"id": ["a", "e\u0301"], "at": pa.array([0, 31 * 86_400_000_000], pa.timestamp("us"))}))
engine.replace_table("analytics", "connected", rows.mutate(id=nfc_normalize(rows.id)), "at")
condition = '''"at" >= TIMESTAMP '1970-02-01 00:00:00' AND "at" < TIMESTAMP '1970-03-01 00:00:00' '''
stored = engine.table("analytics", "connected")
engine.replace_rows("analytics", "connected", stored.filter(stored.id != "a").mutate(id=stored.id + "!"), condition)
def upper(batch):
    return pa.RecordBatch.from_pydict({"id": [text.upper() for text in batch["id"].to_pylist()]})
stored = engine.map_batches(engine.table("analytics", "connected"), upper, pa.schema([("id", pa.string())]), key="id", file=None, threads=1)
print("made", sorted(row for batch in stored.to_pyarrow_batches() for row in batch["id"].to_pylist()))
print("processes", len(psutil.Process().children()))
"""


def test_spark_connect_has_the_same_verbs_and_tables(demo: Demo, tmp_path: Path) -> None:
    """The client has no JVM; its server and this process's Spark replace one table at the same time."""
    engine = demo.warehouse.engine
    with connect_server(tmp_path, SPARK_SETTINGS | {"spark.jars.packages": ICEBERG}) as url:
        command = [sys.executable, "-c", CLIENT, f"pyspark://{url}?{urlencode({'warehouse': str(demo.settings.root / 'spark')})}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            found = client.stdout.readline()
            while client.poll() is None:
                engine.replace_table("analytics", "shared", ibis.memtable({"writer": ["driver"] * 3}))
            output, errors = client.communicate()
    assert client.returncode == 0, errors[-3000:]
    n_scores = demo.warehouse.table("scores_loan_default").count().to_pyarrow().as_py()
    assert [found, *output.splitlines()] == [f"found {n_scores}\n", "made ['A', 'É!']", "processes 0"]
    assert engine.table("analytics", "shared").to_pyarrow()["writer"].to_pylist() in (["client"] * 2, ["driver"] * 3)


def test_another_process_finds_the_tables(demo: Demo, cluster: Standalone) -> None:
    """A process has the cores that `spark.cores.max` leaves to it, while this process keeps its own."""
    valid = demo.warehouse.table("validated_transactions").count().to_pyarrow().as_py()
    with cluster.one_more_worker():
        transactions = json.loads(run_command(demo.environment, "quarantine", "--json"))["tables"]["transactions"]
    assert transactions["valid"] == valid > 0 and transactions["quarantined"] > 0
