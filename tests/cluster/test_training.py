"""Training on a standalone Spark: workers that die or hang in the middle, the same model twice, and slots that never come."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

import dagster as dg
import numpy as np
import psutil
import pytest

from finrisk_assets.cli import main
from finrisk_assets.domains.ledger_fit import to_batch
from finrisk_assets.engines.spark import spark_job
from finrisk_assets.engines.spark.spark_training import MIN_WORKER_ROWS, ROWS, write_task
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.settings import Settings
from tests.cluster.cluster import SPARK, Standalone, standalone
from tests.conftest import SPARK_SETTINGS

ROOT = Path(__file__).parents[2]
OPTIONS = SPARK_SETTINGS | {
    "spark.sql.shuffle.partitions": "2", "spark.executor.memory": "700m", "spark.driver.host": "127.0.0.1",
    "spark.executorEnv.PYTHONPATH": str(ROOT),
}  # fmt: skip
TABLES = ("features_spending_risk", "validated_customers", "validated_transactions")
"""Tables that training and evaluation of spending risk read."""

TRAIN = """
import json, sys
import dagster as dg
from pathlib import Path
from finrisk_assets.cli import main
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings

settings = Settings.from_environment()
main.prepare_dagster(settings)
warehouse = Warehouse.of(settings)
for file in sorted(Path(sys.argv[1]).glob("*.parquet")):
    warehouse.store(file.stem, warehouse.ingest_parquet(file))
names = [f"{stage}_spending_risk" for stage in ("model", "evaluation", "champion")]
with dg.DagsterInstance.ephemeral() as instance:
    job = build_definitions(settings).resolve_job_def(automation.EVERYTHING)
    result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey(name) for name in names])
    [made] = result.asset_materializations_for_node("model_spending_risk")
    print(json.dumps({name: made.metadata[name].value for name in made.metadata if name.startswith("spark_")}))
    print(json.dumps([check.passed for check in result.get_asset_check_evaluations() if check.check_name.endswith("_gate")]))
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Standalone]:
    with standalone(tmp_path, 2) as running:
        yield running


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tables that training reads, made on DuckDB."""
    settings = Settings(home=tmp_path_factory.mktemp("duckdb"), sim_customers=600, sim_months=18, as_of=datetime(2025, 7, 1))
    main.prepare_dagster(settings)
    definitions, folder = build_definitions(settings), tmp_path_factory.mktemp("tables")
    layers = ("raw_", "quarantine_", "validated_", "totals_", TABLES[0])
    keys = [key for key in definitions.resolve_asset_graph().get_all_asset_keys() if key.path[-1].startswith(layers)]
    with dg.DagsterInstance.ephemeral() as instance:
        definitions.resolve_job_def(automation.EVERYTHING).execute_in_process(instance=instance, asset_selection=keys)
    for name in TABLES:
        Warehouse.of(settings).table(name).to_parquet(folder / f"{name}.parquet")
    return folder


def url_of(master: str, folder: Path, **settings: str) -> str:
    return f"pyspark://{master}?{urlencode(OPTIONS | settings | {'warehouse': str(folder / 'spark')})}"


def test_a_worker_that_dies_in_the_middle_of_training_leaves_a_model_that_passes_the_gate(
    ledger: Path, cluster: Standalone, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    environment = os.environ | {
        "FINRISK_HOME": str(home), "FINRISK_AS_OF": "2025-07-01", "FINRISK_SIM_CUSTOMERS": "600", "FINRISK_SIM_MONTHS": "18",
        "FINRISK_WAREHOUSE_URL": url_of(cluster.url, tmp_path), "PYTHONPATH": str(ROOT),
        # A sample of two thirds of the customers, and all of them on Spark.
        "FINRISK_TRAINING_ROWS": "6000", "FINRISK_SPARK_TRAINING_ROWS": "6000",
    }  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(ledger)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def kill_one() -> None:
        while running.poll() is None and not list(home.glob("*/training-*/*.checkpoint")):
            time.sleep(0.02)
        cluster.workers[1].kill()

    killing = threading.Thread(target=kill_one)
    killing.start()
    out, err = running.communicate()
    killing.join()
    assert running.returncode == 0, err[-3000:]
    reported, gates = map(json.loads, out.splitlines()[-2:])
    assert (reported["spark_workers"], reported["spark_attempts"]) == (1, 2)
    assert gates == [True]


def draw(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and outcomes, of which the first feature says something."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(3 * MIN_WORKER_ROWS, 4)).astype(np.float32)
    return rows, random.random(len(rows)) < 1 / (1 + np.exp(-rows[:, 0]))


def write_training(folder: Path, url: str, wait_s: float, rounds: int = 30) -> Path:
    """Write rows, and the task to fit them."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from xgboost import XGBClassifier

    rows, labels = draw(3)
    (folder / ROWS).mkdir(parents=True)
    keys = [str(number) for number in range(len(rows))]
    pq.write_table(pa.Table.from_batches([to_batch(keys, labels, rows)]), folder / ROWS / "all.parquet")
    write_task(folder, url, {"made": XGBClassifier(n_estimators=rounds, subsample=0.5, random_state=5)}, wait_s)
    return folder


def fit(folder: Path, *command: str) -> bytes:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True)
    assert (folder / "made.ubj").is_file(), done.stderr[-3000:]
    return (folder / "made.ubj").read_bytes()


def measure_auc(model: bytes) -> metrics.Interval:
    """Return the AUC of a model on rows that it has not seen."""
    from xgboost import Booster, DMatrix

    rows, labels = draw(4)
    return metrics.auc(labels, Booster(model_file=bytearray(model)).predict(DMatrix(rows)))


def test_as_many_workers_fit_the_same_model_again_and_fewer_another_as_good(cluster: Standalone, tmp_path: Path) -> None:
    """The second fit goes through `spark-submit`, the third has one worker."""
    first, second = (write_training(tmp_path / name, url_of(cluster.url, tmp_path), 120.0) for name in ("first", "second"))
    third = write_training(tmp_path / "third", url_of(cluster.url, tmp_path, **{"spark.cores.max": "1"}), 120.0)
    program = (sys.executable, "-m", spark_job.__name__)
    submit = (str(SPARK / "bin" / "spark-submit"), "--conf", "spark.executor.memory=600m", spark_job.__file__)
    of_two, of_two_again, of_one = fit(first, *program), fit(second, *submit), fit(third, *program)
    assert of_two == of_two_again != of_one
    auc = measure_auc(of_two)
    assert 0.6 < auc.low < measure_auc(of_one).value < auc.high


def run_program(folder: Path) -> object:
    """Run the program under Dagster; return what it told beside figures."""

    @dg.asset
    def fitted(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        done = dg.PipesSubprocessClient().run(context=context, command=[sys.executable, "-m", spark_job.__name__, str(folder)])
        return dg.MaterializeResult(metadata={"messages": list(done.get_custom_messages())})

    [made] = dg.materialize([fitted]).asset_materializations_for_node("fitted")
    return made.metadata["messages"].value


def test_slots_that_never_come_end_the_fit_after_its_wait(tmp_path: Path) -> None:
    with standalone(tmp_path, 0) as empty:
        folder = write_training(tmp_path / "fit", url_of(empty.url, tmp_path), 3.0)
        assert run_program(folder) == [{"fault": "Spark had no free slot within 0.05 minutes"}]


def test_a_worker_that_hangs_ends_the_fit_after_its_attempts(cluster: Standalone, tmp_path: Path) -> None:
    folder = write_training(tmp_path / "fit", url_of(cluster.url, tmp_path), 20.0, rounds=5_000)

    def stop_one() -> None:
        while not (folder / "made.checkpoint").exists():
            time.sleep(0.02)
        worker = psutil.Process(cluster.workers[1].process.pid)
        for process in (worker, *worker.children(recursive=True)):
            process.suspend()

    stopping = threading.Thread(target=stop_one)
    stopping.start()
    assert run_program(folder) == [{"fault": "made was not fitted in 3 attempts"}]
    stopping.join()
