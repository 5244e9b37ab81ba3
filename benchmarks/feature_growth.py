"""The Handbook's 15 features of 1.75, 10 and 100 million transactions, beside peers.

    python -m benchmarks.feature_growth [--rows 1750000 10000000 100000000] [--rounds 3] [--peers windows polars …] [--folder /tmp]

The transactions are drawn in DuckDB, 350 of a customer in half a year, as many as the Handbook has. Each contender runs in a process of its
own, in interleaved rounds, DuckDB with a memory limit of 4 GB. Medians are of the time without imports and without loading the table
into memory, for contenders that work there. Up to 30 GB of temporary files are written below `--folder` and removed.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pandas as pd
import polars as pl

from benchmarks import features
from benchmarks.process_tree import read_peak_mib

ROWS = (1_750_000, 10_000_000, 100_000_000)
MEMORY_LIMIT = "4GB"
PER_CUSTOMER, CUSTOMERS_PER_MERCHANT, DAYS = 350, 0.5, 183
"""Transactions of a customer, customers of a merchant, and days of the ledger: the Handbook's."""
OURS = "ours"
PEERS = {
    "windows": "ours, as windows",
    "duckdb": "plain DuckDB windows",
    "polars": "polars rolling",
    "pandas": "pandas groupby.rolling",
    "groups": "pandas, by group",
}
LARGEST = {"windows": 10_000_000, "duckdb": 10_000_000, "polars": 10_000_000, "pandas": 10_000_000, "groups": 1_750_000}
"""Rows up to which a peer is tried: what works in memory does not hold more, the others take hours."""
_COLUMNS = "transaction_id, customer_id, merchant, occurred_at, amount, is_fraud"


def draw_transactions(connection: duckdb.DuckDBPyConnection, rows: int, seed: int = 0) -> None:
    """Create the table of transactions: rising times, some customers and merchants busier than others, log-normal amounts, .8 % fraud."""
    customers = max(1, rows // PER_CUSTOMER)
    merchants = max(1, int(customers / CUSTOMERS_PER_MERCHANT))
    step = DAYS * 86_400 / rows
    u = [f"((hash(i * 8 + {number} + {seed * 8_000_000_000}::ubigint) >> 11) / 9007199254740992.0)" for number in range(6)]
    connection.execute(
        f"""create table transactions as select i::varchar transaction_id,
        floor({customers} * pow({u[0]}, 1.3))::bigint::varchar customer_id,
        null::varchar account_id, timestamp '2024-01-01' + to_seconds(floor(i * {step})::bigint) occurred_at,
        round(exp(3.6 + .9 * sqrt(-2 * ln(1 - {u[1]})) * cos(2 * pi() * {u[2]})), 2) amount, 'debit' direction, null::varchar category,
        floor({merchants} * pow({u[3]}, 2))::bigint::varchar merchant, null::varchar country, null::double balance_amount,
        {u[4]} < .008 is_fraud, occurred_at + interval 7 day label_known_at from range({rows}) r(i)"""
    )


def run_contender(name: str, database: Path) -> dict[str, float]:
    """Run one contender in this process; return its wall time and CPU time in seconds and its peak memory in MiB."""
    engine: Any = ibis.duckdb.connect(
        str(database), read_only=True, memory_limit=MEMORY_LIMIT, temp_directory=str(database.parent / "spill")
    )
    run: Callable[[], object]
    if name in ("polars", "pandas", "groups"):
        table = engine.con.sql(f"select {_COLUMNS} from transactions").to_arrow_table()
        frame: Any = pl.DataFrame(pl.from_arrow(table)) if name == "polars" else table.to_pandas()
        del table
        compute: Callable[[Any], pl.DataFrame | pd.DataFrame] = {
            "polars": features.with_polars,
            "pandas": features.with_pandas,
            "groups": features.with_pandas_groups,
        }[name]
        run = lambda: compute(frame)  # noqa: E731
    else:
        of_engine = {OURS: features.ours, "windows": features.our_windows, "duckdb": features.plain_duckdb}[name]
        run = lambda: of_engine(engine)  # noqa: E731
    start, cpu = time.perf_counter(), time.process_time()
    kept = run()
    figures = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu, "peak": read_peak_mib()}
    del kept
    return figures


def measure(name: str, database: Path) -> dict[str, float] | None:
    """Run one contender in a process of its own; None where it does not finish."""
    command = [sys.executable, "-m", "benchmarks.feature_growth", "--contender", name, "--database", str(database)]
    finished = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(database.parent / "spill", ignore_errors=True)
    if finished.returncode:
        print(f"{name} did not finish: {(finished.stderr.strip().splitlines() or ['killed'])[-1][:200]}", flush=True)
        return None
    figures: dict[str, float] = json.loads(finished.stdout)
    return figures


def find_slope(rows: list[int], seconds: list[float]) -> float:
    """Return the slope of log time over log rows, by least squares."""
    return statistics.linear_regression([math.log(n) for n in rows], [math.log(s) for s in seconds]).slope


def print_features(sizes: list[int], rounds: int, peers: list[str], folder: Path) -> None:
    """Print medians, ratios and the slope of the features' time."""
    ours_cpu, ours_wall = [], []
    for rows in sizes:
        with tempfile.TemporaryDirectory(dir=folder, prefix="scale-") as scratch:
            database = Path(scratch) / "warehouse.duckdb"
            with duckdb.connect(str(database), config={"memory_limit": MEMORY_LIMIT, "temp_directory": f"{scratch}/spill"}) as connection:
                draw_transactions(connection, rows)
            names = [OURS, *(peer for peer in peers if rows <= LARGEST.get(peer, rows))]
            measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for _ in range(rounds):
                for name in names:
                    figures = measure(name, database)
                    measured[name] += [figures] if figures else []
        print(f"\n{rows:,} transactions, {len(features.NAMES)} features, {rounds} interleaved rounds, {os.cpu_count()} cores")
        print(f"{'':24}{'wall s':>9}{'CPU s':>9}{'wall ratio':>12}{'CPU ratio':>11}{'peak MiB':>10}")
        for name in names:
            if not measured[name] or not measured[OURS]:
                continue
            wall, cpu, peak = (statistics.median(figures[key] for figures in measured[name]) for key in ("wall", "cpu", "peak"))
            # Ratios within a round: what else runs on the machine slows both down.
            pairs = list(zip(measured[OURS], measured[name], strict=False))
            ratios = {key: statistics.median(other[key] / own[key] for own, other in pairs) for key in ("wall", "cpu")}
            label = PEERS.get(name, "ours, DuckDB")
            print(f"{label:24}{wall:9.2f}{cpu:9.2f}{ratios['wall']:11.2f}x{ratios['cpu']:10.2f}x{peak:10.0f}", flush=True)
        if measured[OURS]:
            ours_wall.append(statistics.median(figures["wall"] for figures in measured[OURS]))
            ours_cpu.append(statistics.median(figures["cpu"] for figures in measured[OURS]))
    if len(ours_cpu) == len(sizes) > 1:
        slopes = {"wall": find_slope(sizes, ours_wall), "CPU": find_slope(sizes, ours_cpu)}
        bound = find_slope(sizes, [n * math.log(n) for n in sizes])
        print(f"\nslope of log time over log rows: wall {slopes['wall']:.2f}, CPU {slopes['CPU']:.2f}; n log n has {bound:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure features of more and more transactions beside peers.")
    parser.add_argument("--rows", type=int, nargs="*", default=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--database", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(run_contender(arguments.contender, arguments.database)))
        return
    print_features(list(arguments.rows), arguments.rounds, arguments.peers, arguments.folder)


if __name__ == "__main__":
    main()
