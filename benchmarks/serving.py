"""The speed of the service beside other servers, with the marks that it must reach.

    python -m benchmarks.serving [--rounds 5] [--seconds 3] [--long] [--only http loans micro_batches]

The champions of FINRISK_HOME/<source> are taken; where there are none, the whole graph runs first for a small population, in
FINRISK_HOME/benchmark (minutes; kept). Servers run on one core, the client on another, one after the other in each round, so that other
load of the machine falls on all; figures are medians over the rounds. The service gets a store of its own, filled from the ledger and
removed afterwards.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import batches, micro_batches
from benchmarks.contenders import (
    EMPTY,
    MLFLOW,
    OURS,
    PLAIN,
    ROOT,
    Server,
    create_contenders,
    cycle,
    read_golden_rows,
    read_worker_memory,
    running,
    send_load,
)  # fmt: skip
from benchmarks.load import Load, post
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings

FEW, MANY = 1, 16
"""Clients at a time: one for the latency of a request, several for requests a second."""
BATCH = 500
"""Loans in one request to the batch route."""
STORED_LOANS = 10_000
"""Loans through the batch route in a round."""
LONG, SHORT = 200_000, 20_000
"""Requests over which the growth of memory is measured."""
PARTS = ("http", "loans", "micro_batches")
MIB = 1024.0 * 1024.0
Loads = Mapping[tuple[str, int], Sequence[Load]]
"""Server and number of clients -> what the clients saw in each round."""


@dataclass(frozen=True)
class Mark:
    """A figure with the bound that it must keep, from above where `at_most` is set, else from below."""

    name: str
    value: float
    bound: float
    at_most: bool
    unit: str = ""

    def __str__(self) -> str:
        is_reached = self.value <= self.bound if self.at_most else self.value >= self.bound
        sign = "<=" if self.at_most else ">="
        return f"  {self.name:68} {self.value:12,.2f} {sign} {self.bound:11,.2f} {self.unit:7} {'reached' if is_reached else 'MISSED'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load on each server, in each round, with each number of clients")
    parser.add_argument("--long", action="store_true", help=f"{LONG:,} requests for the growth of memory")
    parser.add_argument("--requests", type=int, default=SHORT, help="for the growth of memory")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the servers are ended as well
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "BENTOML_DO_NOT_TRACK": "true"}
    settings = find_champions(Settings.from_environment())
    server_core = _split_cores()
    marks: list[Mark] = []
    if "http" in arguments.only:
        n_requests = LONG if arguments.long else arguments.requests
        with tempfile.TemporaryDirectory(prefix="finrisk-serving-") as folder:
            marks += measure_servers(settings, Path(folder), server_core, arguments.rounds, arguments.seconds, n_requests)
    if "loans" in arguments.only:
        marks += measure_loans(settings, arguments.rounds)
    if "micro_batches" in arguments.only:
        marks += measure_micro_batches(settings, arguments.rounds)
    print("\nMarks")
    for mark in marks:
        print(mark)


def find_champions(settings: Settings) -> Settings:
    """Return the settings under which there are champions; where there are none, a small ledger is simulated and learned from."""
    if (settings.root / "champions" / "loan_default" / "bundle").is_dir():
        return settings
    small = replace(settings, home=settings.home / "benchmark")
    if not (small.root / "champions" / "loan_default" / "bundle").is_dir():
        print(f"no champions below {settings.root}: a small population is simulated and learned from, below {small.root}")
        environment = os.environ | {"FINRISK_HOME": str(small.home), "FINRISK_SIM_CUSTOMERS": "500", "FINRISK_SIM_MONTHS": "18"}
        subprocess.run([sys.executable, "-m", "finrisk_assets.cli.main", "demo", "--no-serve"], env=environment, cwd=ROOT, check=True)
    return small


def _split_cores() -> int:
    """Bind this process, the client, to the last core, print the machine, and return the core of the servers."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    machine = f"{processor}, {len(cores)} cores, Python {platform.python_version()}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}; load {os.getloadavg()[0]:.1f}")
    if len(cores) == 1:
        print("There is one core only: server and client share it, and the ratios mean less.")
    return cores[0]


# Parts.


def measure_servers(settings: Settings, folder: Path, core: int, rounds: int, seconds: float, n_requests: int) -> list[Mark]:
    """Measure full decisions beside the peers, loans through the batch route, and the memory of a worker."""
    with ExitStack() as stack:
        servers = create_contenders(settings, folder)
        ours = servers[0]
        processes = {server.name: stack.enter_context(running(server, folder, core)) for server in servers}
        loads: dict[tuple[str, int], list[Load]] = {(server.name, clients): [] for server in servers for clients in (FEW, MANY)}
        for _ in range(rounds):
            for server in servers:
                for clients in (FEW, MANY):
                    loads[server.name, clients].append(send_load(server, clients, seconds=seconds))
        print_servers(servers, loads)
        loans_per_second = statistics.median(measure_stored_loans(ours, settings) for _ in range(rounds))
        memory_before = read_worker_memory(processes[OURS])
        send_load(ours, MANY, count=n_requests)
        memory = read_worker_memory(processes[OURS])
    return [
        *compare_servers(loads),
        Mark("loans scored, explained, stored and audited a second", loans_per_second, 5_000, False),
        Mark("resident memory of a worker", memory / MIB, 300, True, "MiB"),
        Mark(f"its growth over {n_requests:,} requests", (memory - memory_before) / MIB, 10, True, "MiB"),
    ]


def measure_stored_loans(server: Server, settings: Settings) -> float:
    """Return the loans a second through the batch route, one request after the other: each is answered, stored and audited."""
    names = [feature.name for feature in Bundle.load(settings.root / "champions" / "loan_default" / "bundle").features]
    rows = [[None if value != value else value for value in row.tolist()] for row in read_golden_rows(settings, "loan_default")]
    items = [{"loan_id": str(number), "features": dict(zip(names, rows[number % len(rows)], strict=True))} for number in range(BATCH)]
    path, body = "/v1/loan-default/batch", json.dumps({"items": items}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        refused = [result for result in json.load(answer)["results"] if result["status"] != 200]
    if refused:
        sys.exit(f"{len(refused)} of {BATCH} loans were refused, the first with {refused[0]['error']}")
    return STORED_LOANS / send_load(server, 1, count=STORED_LOANS // BATCH, requests=cycle([post(path, body)])).seconds


def measure_loans(settings: Settings, rounds: int) -> list[Mark]:
    """Measure batches of loans in this process, beside other explainers."""
    speeds = batches.measure(settings, rounds)
    batches.report(speeds)
    marks = []
    for speed in speeds:
        marks.append(Mark(f"loans scored a second, {speed.name}", speed.scored, 200_000, False))
        if speed.off:
            marks.append(Mark(f"explained: times shap.TreeExplainer, {speed.name}", speed.explained / speed.shap, 5, False))
            marks.append(Mark(f"explained: times pred_contribs, {speed.name}", speed.explained / speed.pred_contribs, 5, False))
            marks.append(Mark(f"difference of the contributions times 10,000, {speed.name}", speed.off / batches.AGREE, 1, True))
    return marks


def measure_micro_batches(settings: Settings, rounds: int) -> list[Mark]:
    """Measure transactions in micro-batches in this process, durable."""
    cpu_us, size = statistics.median(micro_batches.measure(settings, rounds)), micro_batches.SIZE
    return [Mark(f"a transaction in micro-batches of {size}, of the processor", cpu_us, micro_batches.DEMANDED_US, True, "µs")]


# Figures.


def compute_p50(load: Load) -> float:
    """Return the median time of a request, in milliseconds."""
    return load.milliseconds(0.5)


def compute_p99(load: Load) -> float:
    """Return the time within which 99 of 100 requests are answered, in milliseconds."""
    return load.milliseconds(0.99)


def compute_rate(load: Load) -> float:
    """Return the answers a second."""
    return load.per_second


def median_of(loads: Loads, name: str, clients: int, figure: Callable[[Load], float]) -> float:
    """Return the median of a figure over the rounds of one server."""
    return statistics.median(figure(load) for load in loads[name, clients])


def print_servers(servers: Sequence[Server], loads: Loads) -> None:
    """Print the figures of every server."""
    columns = f"{FEW} client: p50 ms  p99 ms     a second   {MANY} clients: p50 ms  p99 ms     a second"
    print(f"\nOne request each, medians of {len(loads[OURS, FEW])} rounds; the server on one core, the client on another")
    print(f"  {'':34} {columns}   ours is, p50 / a second")
    for server in servers:
        cells = ""
        for clients in (FEW, MANY):
            p50, p99, rate = (median_of(loads, server.name, clients, figure) for figure in (compute_p50, compute_p99, compute_rate))
            cells += f"{p50:17.2f} {p99:7.2f} {rate:12,.0f}   "
        slower = compare(loads, server.name, FEW, compute_p50)
        faster = compare(loads, server.name, MANY, compute_rate)
        print(f"  {server.name:34}{cells}      {slower:6.2f} x / {faster:.2f} x")


def compare(loads: Loads, peer: str, clients: int, figure: Callable[[Load], float]) -> float:
    """Return the service's figure divided by a peer's."""
    return median_of(loads, OURS, clients, figure) / median_of(loads, peer, clients, figure)


def compare_servers(loads: Loads) -> list[Mark]:
    """Return the marks of full decisions beside the peers."""
    return [
        Mark("full decision, p50 of one client: times the empty Bento endpoint", compare(loads, EMPTY, FEW, compute_p50), 2.5, True),
        Mark("full decisions a second: times the plain FastAPI service", compare(loads, PLAIN, MANY, compute_rate), 12, False),
        Mark("full decisions a second: times mlflow models serve", compare(loads, MLFLOW, MANY, compute_rate), 4, False),
        Mark(f"full decision, p99 of {MANY} clients: times the empty Bento endpoint", compare(loads, EMPTY, MANY, compute_p99), 1.5, True),
    ]


if __name__ == "__main__":
    main()
