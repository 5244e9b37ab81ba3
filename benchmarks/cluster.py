"""A worker of Spark that dies in the middle of features, scoring or training: the time beside that of undisturbed work, and the result.

    python -m benchmarks.cluster [--rows 300000] [--rounds 3] [--folder /tmp]

A standalone master and two workers of one core each run on this machine. In each round the features of all transactions, and the scores of
those features, are computed, and a model is fitted: twice undisturbed, of which the faster counts, and with a worker that is killed at half
that time; another worker is started at once, as a supervisor does. Ratios are medians of those within a round. A table is equal where its
rows have the same hashes. Models are compared by their log loss: a group of another size learns another model.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost
from sklearn.metrics import log_loss

from benchmarks.feature_growth import draw_transactions
from finrisk_assets.domains.batch_scorer import BatchScorer
from finrisk_assets.domains.ledger_fit import to_batch
from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.domains.transaction_anomaly.features import build
from finrisk_assets.engines.spark import spark_job, spark_training
from finrisk_assets.engines.spark.spark_engine import SparkEngine
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings
from tests.cluster.cluster import Standalone, standalone
from tests.service.conftest import write_transaction_bundle

SCHEMA = "analytics"
TRANSACTIONS, STEPS = "transactions", ("features", "scores", "training")
FITTED, N_FEATURES, N_TREES, WAIT_S = "fitted", 40, 600, 120.0
"""Of a training: its model's name, features, trees, and the longest time without progress."""
SETTINGS = {"spark.sql.shuffle.partitions": "8", "spark.executor.memory": "700m", "spark.driver.host": "127.0.0.1"}


@dataclass(frozen=True)
class Disturbance:
    """A step of one round: its wall seconds undisturbed and with a worker killed, and how the results compare."""

    step: str
    undisturbed_s: float
    killed_s: float
    comparison: str

    @property
    def ratio(self) -> float:
        return self.killed_s / self.undisturbed_s


def measure_killed_worker(rows: int, rounds: int, folder: Path) -> list[Disturbance]:
    """Compute features, scores and models undisturbed and with a worker killed, in rounds.

    Parameters
    ----------
    rows
        Number of transactions.
    folder
        Where the tables and the logs of the cluster lie.
    """
    file = folder / "transactions.parquet"
    with duckdb.connect() as connection:
        draw_transactions(connection, rows)
        connection.execute(f"copy transactions to '{file}' (format parquet)")
    with standalone(folder, 2) as cluster:
        options = SETTINGS | {"warehouse": str(folder / "tables"), "spark.executorEnv.PYTHONPATH": str(Path(__file__).parents[1])}
        url = f"pyspark://{cluster.url}?{urlencode(options)}"
        engine = SparkEngine.open(url)
        engine.replace_table(SCHEMA, TRANSACTIONS, engine.ingest_parquet(file))
        scorer = _read_scorer(write_transaction_bundle(folder / "bundle"))
        steps = {"features": partial(_store_features, engine), "scores": partial(_store_scores, engine, scorer, folder)}
        for store in steps.values():  # the workers load what they need, and the tables are there
            store()
        measured = [_disturb(step, store, partial(_hash, engine, step), cluster) for _ in range(rounds) for step, store in steps.items()]
        engine.session.stop()  # it holds the workers' cores, which the training needs
        training = folder / "training"
        _write_training(url, rows, training)
        measured += [_disturb("training", partial(_fit, training), partial(_read_loss, training), cluster) for _ in range(rounds)]
    return measured


def _read_scorer(bundle: Path) -> BatchScorer:
    columns = (*(key.name for key in TRANSACTION_ANOMALY.keys), *(feature.feature.name for feature in FEATURES))
    return BatchScorer.read(TRANSACTION_ANOMALY, load_policy(Settings()), columns, {TRANSACTION_ANOMALY.name: bundle})


def _store_features(engine: SparkEngine) -> None:
    engine.replace_table(SCHEMA, "features", build(engine.table(SCHEMA, TRANSACTIONS), FEATURES, in_passes=True))


def _store_scores(engine: SparkEngine, scorer: BatchScorer, folder: Path) -> None:
    rows = engine.table(SCHEMA, "features")
    scores = engine.map_batches(rows, scorer, scorer.schema, key="transaction_id", file=folder / "none", threads=1)
    engine.replace_table(SCHEMA, "scores", scores)


def _write_training(url: str, rows: int, folder: Path) -> None:
    """Write rows of which five features say something, and the task to fit them."""
    random = np.random.default_rng(3)
    features = random.normal(size=(rows, N_FEATURES)).astype(np.float32)
    labels = random.random(rows) < 1 / (1 + np.exp(2 - features[:, :5].sum(axis=1)))
    (folder / spark_training.ROWS).mkdir(parents=True)
    teaching = pa.Table.from_batches([to_batch([str(number) for number in range(rows)], labels, features)])
    pq.write_table(teaching, folder / spark_training.ROWS / "all.parquet")
    model = xgboost.XGBClassifier(n_estimators=N_TREES, max_depth=6, learning_rate=0.05, random_state=5)
    spark_training.write_task(folder, url, {FITTED: model}, WAIT_S)


def _fit(folder: Path) -> None:
    """Fit the model in a process of its own, as the graph does."""
    for made in folder.glob(f"{FITTED}.*"):
        made.unlink()
    subprocess.run([sys.executable, "-W", "ignore", "-m", spark_job.__name__, folder], check=True)


def _read_loss(folder: Path) -> str:
    teaching = pq.read_table(folder / spark_training.ROWS)
    features = np.array(teaching["features"].combine_chunks().values).reshape(len(teaching), -1)
    scores = xgboost.Booster(model_file=folder / f"{FITTED}.ubj").predict(xgboost.DMatrix(features))
    return f"log loss {log_loss(teaching['label'], scores):.4f}"


def _disturb(step: str, work: Callable[[], None], describe: Callable[[], str], cluster: Standalone) -> Disturbance:
    """Do a step's work undisturbed, and again while a worker dies; compare what `describe` says of the two results."""
    undisturbed = min(_measure(work) for _ in range(2))
    before = describe()
    killed = _measure_killed(work, undisturbed / 2, cluster)
    after = describe()
    return Disturbance(step, undisturbed, killed, "equal" if after == before else f"{before}, killed {after}")


def _measure_killed(work: Callable[[], None], after_s: float, cluster: Standalone) -> float:
    """Return the seconds of work in which a worker died; work that ends before it is done again, with an earlier death."""
    has_begun = threading.Event()

    def kill() -> None:
        has_begun.set()
        cluster.replace_worker()

    while True:
        killing = threading.Timer(after_s, kill)
        killing.start()
        seconds = _measure(work)
        if has_begun.is_set():
            killing.join()
            return seconds
        killing.cancel()
        after_s /= 2


def _measure(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _hash(engine: SparkEngine, name: str) -> str:
    """Return the number of rows of a table and the sum of their hashes."""
    row = engine.session.sql(f"SELECT count(*), sum(CAST(xxhash64(*) AS DECIMAL(38))) FROM {SCHEMA}.{name}").collect()[0]
    return f"{row[0]} rows with hash {row[1]}"


def print_killed_worker(measured: list[Disturbance], rows: int) -> None:
    """Print the medians of each step."""
    rounds = len(measured) // len(STEPS)
    print(f"\nA worker of two killed and replaced, {rows:,} transactions, medians of {rounds} rounds, {os.cpu_count()} cores")
    print(f"{'':12}{'undisturbed s':>15}{'killed s':>10}{'ratio':>8}  result")
    for step in STEPS:
        of_step = [one for one in measured if one.step == step]
        undisturbed, killed, ratio = (
            statistics.median(getattr(one, name) for one in of_step) for name in ("undisturbed_s", "killed_s", "ratio")
        )
        results = ", ".join(sorted({one.comparison for one in of_step}))
        print(f"{step:12}{undisturbed:15.1f}{killed:10.1f}{ratio:7.2f}x  {results}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="finrisk-cluster-") as scratch:
        print_killed_worker(measure_killed_worker(given.rows, given.rounds, Path(scratch)), given.rows)


if __name__ == "__main__":
    main()
