"""A worker of Spark that dies in the middle of features and of scoring: the time beside that of undisturbed work, and the result.

    python -m benchmarks.cluster [--rows 300000] [--rounds 3] [--folder /tmp]

A standalone master and two workers of one core each run on this machine. In each round the features of all transactions, and the scores of
those features, are computed twice: undisturbed, and with a worker that is killed at half the undisturbed time; another worker is started
at once, as a supervisor does. Ratios are medians of those within a round. A result is equal where its rows have the same hashes.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import duckdb

from benchmarks.feature_growth import draw_transactions
from finrisk_assets.domains.batch_scorer import BatchScorer
from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.domains.transaction_anomaly.features import build
from finrisk_assets.engines.spark_engine import SparkEngine
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings
from tests.cluster.cluster import Standalone, standalone
from tests.service.conftest import write_transaction_bundle

SCHEMA = "analytics"
TRANSACTIONS, STEPS = "transactions", ("features", "scores")
SETTINGS = {"spark.sql.shuffle.partitions": "8", "spark.executor.memory": "700m", "spark.driver.host": "127.0.0.1"}


@dataclass(frozen=True)
class Disturbance:
    """A step of one round: its wall seconds undisturbed and with a worker killed, and whether the results are equal."""

    step: str
    undisturbed_s: float
    killed_s: float
    is_equal: bool

    @property
    def ratio(self) -> float:
        return self.killed_s / self.undisturbed_s


def measure_killed_worker(rows: int, rounds: int, folder: Path) -> list[Disturbance]:
    """Compute features and scores undisturbed and with a worker killed, in interleaved rounds.

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
        engine = SparkEngine.open(f"pyspark://{cluster.url}?{urlencode(options)}")
        engine.replace_table(SCHEMA, TRANSACTIONS, engine.ingest_parquet(file))
        scorer = _read_scorer(write_transaction_bundle(folder / "bundle"))
        steps = {"features": partial(_store_features, engine), "scores": partial(_store_scores, engine, scorer, folder)}
        for store in steps.values():  # the workers load what they need, and the tables are there
            store()
        measured = [_disturb(step, store, engine, cluster) for _ in range(rounds) for step, store in steps.items()]
        engine.session.stop()
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


def _disturb(step: str, store: Callable[[], None], engine: SparkEngine, cluster: Standalone) -> Disturbance:
    """Store a table undisturbed, and again while a worker dies."""
    undisturbed = _measure(store)
    before = _hash(engine, step)
    killing = threading.Timer(undisturbed / 2, cluster.replace_worker)
    killing.start()
    killed = _measure(store)
    killing.join()
    return Disturbance(step, undisturbed, killed, _hash(engine, step) == before)


def _measure(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _hash(engine: SparkEngine, name: str) -> tuple[int, int]:
    """Return the number of rows of a table and the sum of their hashes."""
    row = engine.session.sql(f"SELECT count(*), sum(CAST(xxhash64(*) AS DECIMAL(38))) FROM {SCHEMA}.{name}").collect()[0]
    return row[0], int(row[1])


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
        result = "equal" if all(one.is_equal for one in of_step) else "DIFFERENT"
        print(f"{step:12}{undisturbed:15.1f}{killed:10.1f}{ratio:7.2f}x  {result}", flush=True)


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
