"""Spark beside DuckDB: features and batch scores of the same rows, by the processor's time of all processes, and the driver's memory.

    python -m benchmarks.spark [--rows 1000000 10000000] [--rounds 3] [--parts features scores] [--folder /tmp]

Features: all that the drawn transactions have columns for, from a stored table to a stored table, by the verbs that the graph uses. Scores:
the champion of transactions of FINRISK_HOME on its feature table, which a demonstration makes; the bare scorer is the same function in one
thread. Spark runs on `local[2]`; its start is not counted. Each contender runs in a process of its own, in interleaved rounds, and computes
twice or more: the first time Spark starts its workers and the JVM compiles, later times are those of a session that goes on. Ratios are
within a round: what else runs on the machine slows both down.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import duckdb
import pyarrow.parquet as pq

from benchmarks.feature_growth import MEMORY_LIMIT, draw_transactions, find_slope
from benchmarks.process_tree import Usage, measure_tree
from finrisk_assets.domains.batch_scorer import BatchScorer
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.domains.transaction_anomaly.features import build
from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.engine import BATCH_ROWS, Engine
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings

ROWS = (1_000_000, 10_000_000)
MOST_CPU, MOST_SCORING = 5.0, 1.3
"""Times DuckDB's processor for features, and times the bare scorer's for scores, that Spark may take."""
DRIVER_MEMORY = "4g"
"""Memory of Spark's JVM, in local mode of driver and executor in one: as much as DuckDB's limit in the other contender."""
TIMES = {"features": ("first", "again"), "scores": ("first", "again", "third", "fourth")}
"""Part -> its computations in one session: short ones are done more often, until the JVM has compiled what they take."""
TRANSACTIONS, FEATURES = "validated_transactions", "features_transaction_anomaly"


def open_named(name: str, folder: Path) -> Engine:
    """Open an engine with its tables in a folder."""
    if name == "duckdb":
        return open_engine(f"duckdb:///{folder / 'warehouse.duckdb'}?memory_limit={MEMORY_LIMIT}")
    settings = {"warehouse": folder / "tables", "spark.driver.memory": DRIVER_MEMORY, "spark.local.dir": folder / "scratch"}
    return open_engine("pyspark://local[2]?" + "&".join(f"{key}={quote(str(value))}" for key, value in settings.items()))


def compute_features(name: str, folder: Path) -> list[Usage]:
    """Twice compute and store the features of the transactions in a folder."""
    engine = open_named(name, folder)
    engine.replace_table("analytics", TRANSACTIONS, engine.ingest_parquet(folder / "transactions.parquet"), "occurred_at")
    usages = []
    for _ in TIMES["features"]:
        with measure_tree() as usage:
            engine.replace_table("analytics", FEATURES, build(engine.table("analytics", TRANSACTIONS), in_passes=True), "occurred_at")
        usages.append(usage)
    assert engine.table("analytics", FEATURES).count().to_pyarrow().as_py() == pq.read_metadata(folder / "transactions.parquet").num_rows
    engine.close()
    return usages


def compute_scores(name: str, folder: Path) -> list[Usage]:
    """Again and again score the feature rows in a folder by the champion of the home: in one thread of this process, or by `mapInArrow`."""
    settings, rows = Settings.from_environment(), folder / "features.parquet"
    domain = TRANSACTION_ANOMALY
    bundle = {domain.name: settings.root / "champions" / domain.name / "bundle"}
    scorer = BatchScorer.read(domain, load_policy(settings), tuple(pq.read_schema(rows).names), bundle)
    engine = None if name == "bare" else open_named(name, folder)

    def score() -> None:
        if engine is None:
            for batch in pq.ParquetFile(rows).iter_batches(BATCH_ROWS):
                scorer(batch)
            return
        table = engine.ingest_parquet(rows)
        scores = engine.map_batches(table, scorer, scorer.schema, key=domain.keys[0].name, file=folder / "none", threads=1)
        engine.connection.data_frame(scores).write.format("noop").mode("overwrite").save()  # type: ignore[attr-defined]

    usages = []
    for _ in TIMES["scores"]:
        with measure_tree() as usage:
            score()
        usages.append(usage)
    if engine is not None:
        engine.close()
    return usages


CONTENDERS: dict[str, Callable[[str, Path], list[Usage]]] = {"features": compute_features, "scores": compute_scores}


def measure(part: str, names: tuple[str, str], folder: Path, rounds: int) -> dict[str, list[Usage]]:
    """Run two contenders in turns, each in a process of its own; one that fails ends the benchmark with its last line.

    Returns
    -------
    dict
        ``duckdb, first``, ``duckdb, again`` and so on -> the usage in each round.
    """
    measured: dict[str, list[Usage]] = {f"{name}, {when}": [] for name in names for when in TIMES[part]}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.spark", "--contender", part, name, "--folder", str(folder)]
            finished = subprocess.run(command, capture_output=True, text=True)
            if finished.returncode:
                sys.exit(f"{part} on {name} did not finish: {(finished.stderr.strip().splitlines() or ['killed'])[-1][:200]}")
            for when, usage in zip(TIMES[part], json.loads(finished.stdout.splitlines()[-1]), strict=True):
                measured[f"{name}, {when}"].append(Usage(**usage))
    return measured


def print_table(title: str, measured: dict[str, list[Usage]], most: float) -> None:
    """Print medians, and the ratios of each row to the first contender's row of the same time."""
    print(f"\n{title}")
    print(f"{'':16}{'wall s':>9}{'CPU s':>9}{'ratio':>8}{'Python s':>10}{'ratio':>8}{'all MiB':>9}{'driver MiB':>12}")
    first = next(iter(measured)).partition(",")[0]
    for name, usages in measured.items():
        base = measured[f"{first}, {name.partition(', ')[2]}"]
        medians = (statistics.median(getattr(one, key) for one in usages) for key in ("wall_s", "cpu_s", "python_s", "peak_mib", "own_mib"))
        wall, cpu, python, peak, own = medians
        of_all, of_python = (
            statistics.median(getattr(one, key) / getattr(other, key) for one, other in zip(usages, base, strict=True))
            for key in ("cpu_s", "python_s")
        )
        verdict = "" if name.startswith(first) else f"   at most {most} x the CPU: {'reached' if of_all <= most else 'MISSED'}"
        figures = f"{wall:9.1f}{cpu:9.1f}{of_all:7.2f}x{python:10.1f}{of_python:7.2f}x{peak:9.0f}{own:12.0f}"
        print(f"{name:16}{figures}{verdict}", flush=True)


def print_features(sizes: list[int], rounds: int, root: Path) -> None:
    """Print the features' figures for each number of rows, and how the driver's memory grows."""
    drivers = []
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=root, prefix="scale-") as scratch:
            with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": f"{scratch}/spill"}) as connection:
                draw_transactions(connection, rows)
                file = f"{scratch}/transactions.parquet"
                connection.execute(f"COPY (SELECT * EXCLUDE (account_id, category, country, balance_amount) FROM transactions) TO '{file}'")
            measured = measure("features", ("duckdb", "spark"), Path(scratch), rounds)
        print_table(f"features of {rows:,} transactions, medians of {rounds} rounds", measured, MOST_CPU)
        drivers.append(statistics.median(usage.own_mib for usage in measured["spark, again"]))
    if len(sizes) > 1:
        print(f"the driver's memory grows with the power {find_slope(sizes, drivers):.3f} of the rows; flat is 0")


def print_scores(rounds: int, root: Path) -> None:
    """Print the scores' figures on the feature table of the home."""
    settings = Settings.from_environment()
    if not (settings.root / "champions" / TRANSACTION_ANOMALY.name).is_dir():
        print(f"\nscores are left out: {settings.root} has no champion of transactions; run `make demo` first")
        return
    with tempfile.TemporaryDirectory(dir=root, prefix="scale-") as scratch:
        file = Path(scratch) / "features.parquet"
        Warehouse.of(settings).table(FEATURES).to_parquet(file)
        title = f"scores of {pq.read_metadata(file).num_rows:,} transactions, medians of {rounds} rounds"
        print_table(title, measure("scores", ("bare", "spark"), Path(scratch), rounds), MOST_SCORING)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--contender", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contender:
        part, name = given.contender
        print(json.dumps([asdict(usage) for usage in CONTENDERS[part](name, given.folder)]))
        return
    if "features" in given.parts:
        print_features(list(given.rows), given.rounds, given.folder)
    if "scores" in given.parts:
        print_scores(given.rounds, given.folder)


if __name__ == "__main__":
    main()
