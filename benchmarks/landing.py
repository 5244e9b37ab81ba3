"""Time and memory of landing a CSV and parting its rows by the contract, beside DuckDB's bare `read_csv` of the same file.

    python -m benchmarks.landing [--rows 10000000] [--threads 2]

The file holds payments as banks export them, of which one in a hundred breaks a rule. Each measurement is a process of its own; the bare
`read_csv` finds the types by itself and stores the rows in a table. `plain` is a mapping whose values are in the ledger's spelling,
`marked` one with thousands marks, a decimal comma, days first and codes.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

NOW = datetime(2026, 1, 1)
ONE_IN = 100
"""Rows of which one breaks a rule."""

MAPPING = """
name: bench
currency: EUR
tables:
  transactions:
    file: {file}
    columns:
      transaction_id: id
      customer_id: client
      occurred_at: {occurred_at}
      amount: {amount}
      direction: {direction}
      category: purpose
      country: country
"""
KINDS = {
    "plain": {
        "occurred_at": "time",
        "amount": "amount",
        "direction": "kind",
    },
    "marked": {
        "occurred_at": '{from: time, format: "%d.%m.%Y %H:%M:%S"}',
        "amount": '{from: amount, decimal: ",", thousands: ".", absolute: true}',
        "direction": '{sign_of: amount, decimal: ",", thousands: "."}',
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        measure(given.step[0], Path(given.step[1]), given.threads)
        return
    print(f"{given.rows:,} rows, one in {ONE_IN} breaks a rule; DuckDB with {given.threads} threads")
    print(f"  {'':8}{'':12}{'s':>8}{'rows/s':>12}{'of bare':>9}{'MB':>7}")
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS:
            folder = Path(name) / kind
            folder.mkdir()
            write_files(folder, kind, given.rows)
            bare = None
            for step in ("bare", "finrisk"):
                command = [sys.executable, "-m", "benchmarks.landing", "--step", step, str(folder), "--threads", str(given.threads)]
                result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                seconds = sum(result["seconds"].values())
                bare = bare or seconds
                steps = ", ".join(f"{part} {value:.1f} s" for part, value in result["seconds"].items()) if step == "finrisk" else ""
                print(
                    f"  {kind:8}{step:12}{seconds:8.1f}{given.rows / seconds:12,.0f}{seconds / bare:9.1f}{result['peak_mb']:7.0f}  {steps}"
                )
                if step == "finrisk":
                    print(f"  {'':8}{'':12}{result['valid']:,} valid, {result['quarantined']:,} in quarantine")


def write_files(folder: Path, kind: str, n: int) -> None:
    """Write the CSV and its mapping."""
    import duckdb

    amount = "printf('%.2f', (i * 7919 % 1000000) / 100.0)"
    moment = "TIMESTAMP '2020-01-01' + to_seconds((i * 15485863 % 157766400)::BIGINT)"
    if kind == "plain":
        amount, when = f"CASE WHEN i % {ONE_IN} = 7 THEN '12.50 EUR' ELSE {amount} END", f"strftime({moment}, '%Y-%m-%d %H:%M:%S')"
    else:
        signed = "(i * 7919 % 1000000 - 500000) / 100.0"
        german = f"translate(format('{{:,.2f}}', {signed}), ',.', '.,')"
        amount, when = f"CASE WHEN i % {ONE_IN} = 7 THEN '12.50' ELSE {german} END", f"strftime({moment}, '%d.%m.%Y %H:%M:%S')"
    duckdb.execute(f"""
        COPY (SELECT 'T' || i AS id, 'C' || (i * 31 % 50000) AS client, {when} AS time, {amount} AS amount,
            CASE WHEN i % 5 = 0 THEN 'credit' ELSE 'debit' END AS kind,
            ['food', 'rent', 'fuel', 'travel', ''][1 + i % 5] AS purpose, ['AT', 'DE', 'CZ', 'NO'][1 + i % 4] AS country
            FROM range({n}) AS r(i)) TO '{folder / "payments.csv"}' (HEADER)
    """)
    (folder / "m.yaml").write_text(MAPPING.format(file="payments.csv", **KINDS[kind]))


def measure(step: str, folder: Path, threads: int) -> None:
    """Carry out one step and print its seconds, its peak of resident memory, and the rows on both sides."""
    result = read_bare(folder, threads) if step == "bare" else land_and_split(folder, threads)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**result, "peak_mb": peak_mb}))


def read_bare(folder: Path, threads: int) -> dict[str, object]:
    import duckdb

    with duckdb.connect(str(folder / "bare.duckdb"), config={"threads": threads}) as connection:
        began = time.perf_counter()
        connection.execute(f"CREATE TABLE payments AS FROM read_csv('{folder / 'payments.csv'}')")
        return {"seconds": {"read_csv": time.perf_counter() - began}}


def land_and_split(folder: Path, threads: int) -> dict[str, object]:
    from dataclasses import replace

    import ibis

    from finrisk_assets.ledger import contract, sources
    from finrisk_assets.settings import Settings

    settings = replace(Settings.from_environment(), source="mapped", mapping=folder / "m.yaml")
    raw_table = sources.load(settings).tables["transactions"]
    connection = ibis.duckdb.connect(str(folder / "warehouse.duckdb"), threads=threads)
    seconds, began = {}, time.perf_counter()
    raw_table.land(folder / "landed.parquet")
    seconds["land"] = time.perf_counter() - began
    raw, began = connection.read_parquet(folder / "landed.parquet"), time.perf_counter()
    split = contract.split(raw_table.table, raw_table.columns, raw, {}, NOW)
    quarantine = connection.create_table("quarantine", split.quarantine)
    seconds["quarantine"] = time.perf_counter() - began
    began = time.perf_counter()
    valid = connection.create_table("valid", contract.valid_rows(raw_table.table, raw_table.columns, raw, quarantine))
    seconds["valid rows"] = time.perf_counter() - began
    return {"seconds": seconds, "valid": valid.count().execute(), "quarantined": quarantine.count().execute()}


if __name__ == "__main__":
    main()
