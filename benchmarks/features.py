"""The Handbook's 15 features for every transaction: ours beside plain DuckDB windows, polars and pandas.

    python -m benchmarks.features [--repeats 3] [--peers duckdb polars pandas groups]

Reads `handbook/transactions.parquet` below FINRISK_DATA_DIR (default ../shared/data beside the project). Each contender
starts from the whole table, pandas and polars in memory, DuckDB in its file, and ends with the fifteen columns in memory;
repeats are interleaved, so that a busy machine is fair to all. Values are compared row for row.
"""

import argparse
import os
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
import numpy as np
import pandas as pd
import polars as pl

from benchmarks.process_tree import read_peak_mib
from finrisk_assets.domains.transaction_anomaly.catalogue import HANDBOOK
from finrisk_assets.domains.transaction_anomaly.features import build

ROOT = Path(__file__).resolve().parents[1]

NAMES = [feature.feature.name for feature in HANDBOOK]
DAYS = (1, 7, 30)
DELAY = 7
PEERS = ("windows", "duckdb", "polars", "pandas", "groups")
held: dict[str, Any] = {}
"""Results by contender: memory that a contender returns is counted to it."""


def prepare(source: Path, database: Path) -> None:
    """Lay the ledger's table of transactions, all its columns, into a DuckDB file."""
    with duckdb.connect(str(database)) as connection:
        connection.execute(
            """create table transactions as select TRANSACTION_ID::varchar transaction_id, CUSTOMER_ID::varchar customer_id,
            null::varchar account_id, TX_DATETIME::timestamp occurred_at, TX_AMOUNT::double amount, 'debit' direction,
            null::varchar category, TERMINAL_ID::varchar merchant, null::varchar country, null::double balance_amount,
            TX_FRAUD = 1 is_fraud, TX_DATETIME::timestamp + interval 7 day label_known_at from read_parquet(?)""",
            [str(source)],
        )


def ours(connection: Any) -> None:
    """Our declarations in passes over sorted rows, by `finrisk_assets.features.passes.sorted_scan`."""
    held["ours"] = build(connection.table("transactions"), HANDBOOK, in_passes=True)


def our_windows(connection: Any) -> None:
    """Our declarations as window functions, by `finrisk_assets.features.batch`: what other engines run."""
    connection.create_table("windows", build(connection.table("transactions"), HANDBOOK), overwrite=True, temp=True)


def plain_duckdb(connection: Any) -> None:
    """The windows as one would write them by hand in SQL; times are whole seconds, so a day less a second is half open."""
    customer = [f"count(*) over c{d} customer_nb_tx_{d}d, avg(amount) over c{d} customer_avg_amount_{d}d" for d in DAYS]
    terminal = [f"count(*) over m{d} terminal_nb_tx_{d}d, coalesce(avg(is_fraud::int) over m{d}, 0) terminal_risk_{d}d" for d in DAYS]
    frames = [
        f"c{d} as (partition by customer_id order by occurred_at range between interval {d * 86_400 - 1} second preceding and current row)"
        for d in DAYS
    ] + [
        f"m{d} as (partition by merchant order by occurred_at "
        f"range between interval {(d + DELAY) * 86_400 - 1} second preceding and interval {DELAY} day preceding)"
        for d in DAYS
    ]
    connection.raw_sql(
        f"""create or replace temp table plain as
        select transaction_id, customer_id, occurred_at, is_fraud, label_known_at, amount,
        (isodow(occurred_at) >= 6)::double during_weekend, (hour(occurred_at) <= 6)::double during_night,
        {", ".join(customer + terminal)} from transactions window {", ".join(frames)}"""
    )


def with_polars(frame: pl.DataFrame) -> pl.DataFrame:
    """Rolling sums by time within each entity; a delayed window is the longer one less the delay."""
    one = frame.with_columns(
        during_weekend=(pl.col("occurred_at").dt.weekday() >= 6).cast(pl.Float64),
        during_night=(pl.col("occurred_at").dt.hour() <= 6).cast(pl.Float64),
        one=pl.lit(1.0),
        fraud=pl.col("is_fraud").cast(pl.Float64),
    )

    def rolled(column: str, days: int, entity: str) -> pl.Expr:
        return pl.col(column).rolling_sum_by("occurred_at", f"{days}d").over(entity)

    one = one.sort("customer_id", "occurred_at").with_columns(
        *(rolled("one", d, "customer_id").alias(f"customer_nb_tx_{d}d") for d in DAYS),
        *(rolled("amount", d, "customer_id").alias(f"customer_sum_{d}d") for d in DAYS),
    )
    spans = (DELAY, *(DELAY + d for d in DAYS))
    one = one.sort("merchant", "occurred_at").with_columns(
        *(rolled("one", d, "merchant").alias(f"n{d}") for d in spans),
        *(rolled("fraud", d, "merchant").alias(f"f{d}") for d in spans),
    )
    one = one.with_columns(
        *((pl.col(f"customer_sum_{d}d") / pl.col(f"customer_nb_tx_{d}d")).alias(f"customer_avg_amount_{d}d") for d in DAYS),
        *((pl.col(f"n{DELAY + d}") - pl.col(f"n{DELAY}")).alias(f"terminal_nb_tx_{d}d") for d in DAYS),
        *(
            ((pl.col(f"f{DELAY + d}") - pl.col(f"f{DELAY}")) / (pl.col(f"n{DELAY + d}") - pl.col(f"n{DELAY}")))
            .fill_nan(0.0)
            .alias(f"terminal_risk_{d}d")
            for d in DAYS
        ),
    )
    return one.select("transaction_id", *NAMES)


def with_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    """pandas' own rolling windows by time over all groups at once."""
    out = frame.sort_values("occurred_at", kind="stable").reset_index(drop=True)
    out["during_weekend"] = (out.occurred_at.dt.day_of_week >= 5).astype(float)
    out["during_night"] = (out.occurred_at.dt.hour <= 6).astype(float)
    out["fraud"] = out.is_fraud.astype(float)

    def rolled(entity: str, column: str, days: int, how: str) -> pd.Series:
        rolling = out.groupby(entity)[[column, "occurred_at"]].rolling(f"{days}D", on="occurred_at")
        values = getattr(rolling[column], how)()
        return pd.Series(values.to_numpy(), index=order[entity])

    # A rolling result stands entity by entity; within one, in the order of the frame.
    order = {entity: out.sort_values(entity, kind="stable").index for entity in ("customer_id", "merchant")}
    for d in DAYS:
        out[f"customer_nb_tx_{d}d"] = rolled("customer_id", "amount", d, "count")
        out[f"customer_avg_amount_{d}d"] = rolled("customer_id", "amount", d, "mean")
    n_delay, fraud_delay = (rolled("merchant", "fraud", DELAY, how) for how in ("count", "sum"))
    for d in DAYS:
        count = rolled("merchant", "fraud", DELAY + d, "count") - n_delay
        out[f"terminal_nb_tx_{d}d"] = count
        out[f"terminal_risk_{d}d"] = ((rolled("merchant", "fraud", DELAY + d, "sum") - fraud_delay) / count).fillna(0.0)
    return out[["transaction_id", *NAMES]]


def with_pandas_groups(frame: pd.DataFrame) -> pd.DataFrame:
    """The published book's way: a function applied to one customer, then to one terminal, at a time."""
    out = frame.sort_values("occurred_at", kind="stable").set_index("occurred_at")
    out["during_weekend"] = (out.index.day_of_week >= 5).astype(float)
    out["during_night"] = (out.index.hour <= 6).astype(float)
    out["fraud"] = out.is_fraud.astype(float)

    def of_customer(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.copy()
        for d in DAYS:
            rolling = rows["amount"].rolling(f"{d}D")
            rows[f"customer_nb_tx_{d}d"], rows[f"customer_avg_amount_{d}d"] = rolling.count(), rolling.mean()
        return rows

    def of_terminal(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.copy()
        delay = rows["fraud"].rolling(f"{DELAY}D")
        n_delay, fraud_delay = delay.count(), delay.sum()
        for d in DAYS:
            longer = rows["fraud"].rolling(f"{DELAY + d}D")
            rows[f"terminal_nb_tx_{d}d"] = count = longer.count() - n_delay
            rows[f"terminal_risk_{d}d"] = ((longer.sum() - fraud_delay) / count).fillna(0.0)
        return rows

    out = pd.concat([of_customer(rows) for _, rows in out.groupby("customer_id", sort=False)])
    out = pd.concat([of_terminal(rows.sort_index(kind="stable")) for _, rows in out.groupby("merchant", sort=False)])
    return out[["transaction_id", *NAMES]]


def stored(connection: Any, table: str) -> pd.DataFrame:
    return connection.con.sql(f"select transaction_id, {', '.join(NAMES)} from {table}").df()


def values(frame: pd.DataFrame) -> np.ndarray:
    return frame.sort_values("transaction_id")[NAMES].to_numpy(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the Handbook's 15 features beside their peers.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS)
    parser.add_argument("--ours-only", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours_only:
        before = read_peak_mib()
        ours(ibis.duckdb.connect(str(arguments.ours_only), read_only=True))
        print(f"{read_peak_mib():.0f} MiB, of which {before:.0f} MiB imports")
        return

    source = Path(os.environ.get("FINRISK_DATA_DIR") or ROOT.parent / "shared" / "data") / "handbook" / "transactions.parquet"
    if not source.is_file():
        sys.exit(f"no transactions at {source}: set FINRISK_DATA_DIR to the folder of the real data sets")
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "warehouse.duckdb"
        prepare(source, database)
        with duckdb.connect(str(database), read_only=True) as connection:
            rows, ties = connection.sql(
                """select (select count(*) from transactions), (select coalesce(sum(n), 0)::bigint from
                (select count(*) n from transactions group by customer_id, occurred_at having n > 1))"""
            ).fetchone() or (0, 0)
            arrow = connection.sql(
                "select transaction_id, customer_id, merchant, occurred_at, amount, is_fraud from transactions"
            ).to_arrow_table()
            tied = connection.sql(
                "select count(*) over (partition by customer_id, occurred_at) > 1 t from transactions order by transaction_id"
            ).fetchnumpy()["t"]
        polars_frame, pandas_frame = pl.DataFrame(pl.from_arrow(arrow)), arrow.to_pandas()
        engine = ibis.duckdb.connect(str(database), read_only=True)
        results: dict[str, Callable[[], pd.DataFrame]] = {"ours, DuckDB": lambda: held["ours"].select("transaction_id", *NAMES).to_pandas()}
        contenders: dict[str, Callable[[], object]] = {"ours, DuckDB": lambda: ours(engine)}
        if "windows" in arguments.peers:
            contenders["ours, as windows"] = lambda: our_windows(engine)
            results["ours, as windows"] = lambda: stored(engine, "windows")
        if "duckdb" in arguments.peers:
            contenders["plain DuckDB windows"] = lambda: plain_duckdb(engine)
            results["plain DuckDB windows"] = lambda: stored(engine, "plain")
        if "polars" in arguments.peers:
            contenders["polars rolling"] = lambda: held.__setitem__("polars", with_polars(polars_frame))
            results["polars rolling"] = lambda: held["polars"].to_pandas()
        if "pandas" in arguments.peers:
            contenders["pandas groupby.rolling"] = lambda: held.__setitem__("pandas", with_pandas(pandas_frame))
            results["pandas groupby.rolling"] = lambda: held["pandas"]
        if "groups" in arguments.peers:
            contenders["pandas, by group"] = lambda: held.__setitem__("groups", with_pandas_groups(pandas_frame))
            results["pandas, by group"] = lambda: held["groups"]

        took: dict[str, list[float]] = {name: [] for name in contenders}
        used: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(arguments.repeats):
            for name, run in contenders.items():
                start, cpu = time.perf_counter(), time.process_time()
                run()
                took[name].append(time.perf_counter() - start)
                used[name].append(time.process_time() - cpu)

        mine = values(results["ours, DuckDB"]())
        base = statistics.median(took["ours, DuckDB"])
        print(f"{rows:,} transactions, {len(NAMES)} features, {arguments.repeats} interleaved repeats, {os.cpu_count()} cores")
        print(f"{ties:,} transactions share customer and second with another; there alone the definitions differ")
        print(f"{'':24}{'median s':>9}{'CPU s':>8}{'ours is':>10}   max |difference| off ties")
        for name in contenders:
            median = statistics.median(took[name])
            off = np.abs(values(results[name]()) - mine)[~tied].max()
            print(f"{name:24}{median:9.2f}{statistics.median(used[name]):8.2f}{median / base:9.1f}x   {off:.2g}")
        alone = [sys.executable, "-m", "benchmarks.features", "--ours-only", str(database)]
        peak = subprocess.run(alone, capture_output=True, text=True, check=True).stdout.strip()
        print(f"peak memory of ours, a process of its own: {peak}")


if __name__ == "__main__":
    main()
