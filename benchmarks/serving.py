"""The cost of the service beside others: a full decision over HTTP, and a batch of loan decisions, with the marks they are to reach.

    python -m benchmarks.serving [--rounds 5] [--seconds 3] [--long] [--only http batch]

It takes the champions of FINRISK_HOME/<source>; where there are none, it first runs the whole graph for a small population, in
FINRISK_HOME/benchmark (minutes; kept). Servers run on one core, the client on another, one after the other in each round, so that a busy
machine is fair to all; figures are medians over the rounds. The service gets a store of its own, filled from the ledger, and removed.
"""

import argparse
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks import batches, load
from benchmarks.load import Load, post
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import Rows
from finrisk_assets.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = (1, 16)
BATCH = 500
"""Loans in one request to the batch route."""
STORED = 10_000
"""Loans that go through the batch route in a round."""
WARM_UP = 200
LONG, SHORT = 200_000, 20_000
READY_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """One contender: how it is started, and an endless supply of requests to it."""

    name: str
    port: int
    command: list[str]
    environment: Mapping[str, str]
    requests: Iterator[bytes]


@dataclass(frozen=True)
class Mark:
    """A figure that is to be reached."""

    what: str
    found: float
    demanded: float
    at_most: bool
    unit: str = ""

    def __str__(self) -> str:
        reached = self.found <= self.demanded if self.at_most else self.found >= self.demanded
        sign = "<=" if self.at_most else ">="
        return f"  {self.what:68} {self.found:12,.2f} {sign} {self.demanded:11,.2f} {self.unit:7} {'reached' if reached else 'MISSED'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of load on each server, in each round, with each number of clients")
    parser.add_argument("--long", action="store_true", help=f"{LONG:,} requests for the growth of memory")
    parser.add_argument("--only", nargs="*", choices=("http", "batch"), default=("http", "batch"))
    parser.add_argument("--requests", type=int, default=SHORT, help="for the growth of memory")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the servers are ended as well
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "BENTOML_DO_NOT_TRACK": "true"}
    settings = champions_of(Settings.from_environment())
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {client_core})
    machine = f"{_processor()}, {len(cores)} cores, Python {platform.python_version()}"
    print(f"{time.strftime('%Y-%m-%d')}, {machine}; load {os.getloadavg()[0]:.1f}")
    if server_core == client_core:
        print("There is one core only: server and client share it, and the ratios mean less.")
    marks: list[Mark] = []
    with tempfile.TemporaryDirectory(prefix="finrisk-serving-") as folder:
        # The warehouse is read by one process at a time: first by another one, which fills the store.
        if "http" in given.only:
            marks += decisions(settings, Path(folder), server_core, given.rounds, given.seconds, LONG if given.long else given.requests)
        if "batch" in given.only:
            marks += loans(settings, given.rounds)
    print("\nMarks")
    for mark in marks:
        print(mark)


def champions_of(settings: Settings) -> Settings:
    """The settings under which there are champions, which are trained where there are none."""
    if (settings.root / "champions" / "loan_default" / "bundle").is_dir():
        return settings
    small = replace(settings, home=settings.home / "benchmark")
    if not (small.root / "champions" / "loan_default" / "bundle").is_dir():
        print(f"no champions below {settings.root}: a small population is simulated and learned from, below {small.root}")
        environment = os.environ | {"FINRISK_HOME": str(small.home), "FINRISK_SIM_CUSTOMERS": "500", "FINRISK_SIM_MONTHS": "18"}
        subprocess.run([sys.executable, "-m", "finrisk_assets.cli.main", "demo", "--no-serve"], env=environment, cwd=ROOT, check=True)
    return small


def loans(settings: Settings, rounds: int) -> list[Mark]:
    """Measure batches of loans in this process."""
    speeds = batches.measure(settings, rounds)
    batches.report(speeds)
    marks = []
    for one in speeds:
        marks.append(Mark(f"loans scored a second, {one.name}", one.scored, 200_000, False))
        if one.off:
            marks.append(Mark(f"explained: times shap.TreeExplainer, {one.name}", one.explained / one.shap, 5.0, False))
            marks.append(Mark(f"explained: times pred_contribs, {one.name}", one.explained / one.pred_contribs, 5.0, False))
            marks.append(Mark(f"difference of the contributions times 10,000, {one.name}", one.off / batches.AGREE, 1.0, True))
    return marks


# Decisions over HTTP -----------------------------------------------------------------------------------------------------------


def decisions(settings: Settings, folder: Path, core: int, rounds: int, seconds: float, many: int) -> list[Mark]:
    """Measure full decisions beside the peers, loans in batches, and the memory of a worker."""
    with ExitStack() as stack:
        servers = contenders(settings, folder)
        ours = servers[0]
        running = {one.name: stack.enter_context(started(one, folder, core)) for one in servers}
        loads: dict[tuple[str, int], list[Load]] = {(one.name, clients): [] for one in servers for clients in CLIENTS}
        for _ in range(rounds):
            for one in servers:
                for clients in CLIENTS:
                    loads[one.name, clients].append(sound(one, load.run(one.port, one.requests, clients, seconds=seconds)))
        marks = compared(servers, loads)
        loans_stored = statistics.median(stored(ours, settings) for _ in range(rounds))
        before = worker_memory(running[ours.name])
        sound(ours, load.run(ours.port, ours.requests, CLIENTS[-1], count=many))
        after = worker_memory(running[ours.name])
    mib = 1024.0 * 1024.0
    return [
        *marks,
        Mark("loans scored, explained, stored and audited a second", loans_stored, 5_000, False),
        Mark("resident memory of a worker", after / mib, 300.0, True, "MiB"),
        Mark(f"its growth over {many:,} requests", (after - before) / mib, 10.0, True, "MiB"),
    ]


def compared(servers: list[Server], loads: Mapping[tuple[str, int], list[Load]]) -> list[Mark]:
    """Print what every server did, ours first, and return our marks."""

    def figure(name: str, clients: int, of: Callable[[Load], float]) -> float:
        return statistics.median(of(one) for one in loads[name, clients])

    def p50(one: Load) -> float:
        return one.milliseconds(0.5)

    def p99(one: Load) -> float:
        return one.milliseconds(0.99)

    def rate(one: Load) -> float:
        return one.per_second

    (few, most), ours = CLIENTS, servers[0]
    rounds = len(loads[ours.name, few])
    print(f"\nOne request each, medians of {rounds} rounds; the server on one core, the client on another")
    print(f"  {'':34} {few} client: p50 ms  p99 ms     a second   {most} clients: p50 ms  p99 ms     a second   ours is, p50 / a second")
    for one in servers:
        cells = "".join(
            f"{figure(one.name, clients, p50):17.2f} {figure(one.name, clients, p99):7.2f} {figure(one.name, clients, rate):12,.0f}   "
            for clients in CLIENTS
        )
        slower = figure(ours.name, few, p50) / figure(one.name, few, p50)
        faster = figure(ours.name, most, rate) / figure(one.name, most, rate)
        print(f"  {one.name:34}{cells}      {slower:6.2f} x / {faster:.2f} x")
    empty, _, _, mlflow, plain = servers[1:]
    most_rate = figure(ours.name, most, rate)
    return [
        Mark(
            "full decision, p50 of one client: times the empty Bento endpoint",
            figure(ours.name, few, p50) / figure(empty.name, few, p50),
            3.5,
            True,
        ),
        Mark(f"full decision, p99 of {most} clients", figure(ours.name, most, p99), 25.0, True, "ms"),
        Mark("full decisions a second: times the plain FastAPI service", most_rate / figure(plain.name, most, rate), 5.0, False),
        Mark("full decisions a second: times mlflow models serve", most_rate / figure(mlflow.name, most, rate), 2.0, False),
    ]


def stored(ours: Server, settings: Settings) -> float:
    """Loans a second through the batch route, one request after the other: each is answered, kept and audited."""
    names = [feature.name for feature in Bundle.load(settings.root / "champions" / "loan_default" / "bundle").features]
    rows = [[None if value != value else value for value in row.tolist()] for row in _golden(settings, "loan_default")]
    items = [{"loan_id": str(at), "features": dict(zip(names, rows[at % len(rows)], strict=True))} for at in range(BATCH)]
    path, body = "/v1/loan-default/batch", json.dumps({"items": items}).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{ours.port}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as answer:
        refused = [one for one in json.load(answer)["results"] if one["status"] != 200]
    if refused:
        sys.exit(f"{len(refused)} of {BATCH} loans were refused, the first with {refused[0]['error']}")
    found = sound(ours, load.run(ours.port, _again([post(path, body)]), 1, count=STORED // BATCH))
    return STORED / found.seconds


def contenders(settings: Settings, folder: Path) -> list[Server]:
    """Our service with a filled store, then the peers."""
    ping = post("/empty", b'{"number":1}')
    bundle = Bundle.load(settings.root / "champions" / "transaction_anomaly" / "bundle")
    names = [feature.name for feature in bundle.features]
    rows = _golden(settings, "transaction_anomaly")
    ours = {
        "FINRISK_HOME": str(folder),  # with a store and a master key of its own
        "FINRISK_SOURCE": settings.source,
        "FINRISK_WAREHOUSE_URL": settings.warehouse,
        "BENTOML_HOME": str(_models(settings, folder)),
    }
    print("the ledger's history goes into a store of the benchmark's own …", flush=True)
    (folder / settings.source / "landing").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "finrisk_assets.cli.main", "load-history"], env=os.environ | ours, cwd=ROOT, check=True)
    model, pickled = folder / "mlflow", folder / "plain.joblib"
    _log_native(settings, bundle, model)
    from benchmarks.peers import plain_fastapi

    plain_fastapi.make(pickled, names, np.tile(rows, (16, 1)))
    plainly = np.nan_to_num(rows).tolist()  # neither takes a missing value as it comes
    split = [{"dataframe_split": {"columns": names, "data": [row]}} for row in plainly]
    named = [{"features": dict(zip(names, row, strict=True))} for row in plainly]
    bento, uvicorn, mlflow = (str(Path(sys.executable).with_name(name)) for name in ("bentoml", "uvicorn", "mlflow"))
    fast = ["--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", "--port"]
    ports = _free_ports(6)
    of_bento = ["serve", "--host", "127.0.0.1", "--port"]
    empty = {"BENTOML_HOME": str(folder / "empty")}
    plain = {"PLAIN_MODEL": str(pickled), "PLAIN_STORE": f"sqlite:///{folder / 'plain.sqlite'}"}
    served = ["models", "serve", "-m", str(model), "--env-manager", "local", "--workers", "1", "--host", "127.0.0.1", "--port"]
    return [
        Server(
            "finrisk, a full decision", int(ports[0]), [bento, *of_bento, ports[0], "bento.service:FinRisk"], ours, transactions(settings)
        ),
        Server(
            "empty Bento endpoint",
            int(ports[1]),
            [bento, *of_bento, ports[1], "benchmarks.peers.empty_bento:Empty"],
            empty,
            _again([ping]),
        ),
        Server(
            "the same, BentoML counts nothing",
            int(ports[5]),
            [bento, *of_bento, ports[5], "benchmarks.peers.empty_bento:Lean"],
            empty,
            _again([ping]),
        ),
        Server("empty FastAPI", int(ports[2]), [uvicorn, "benchmarks.peers.empty_fastapi:app", *fast, ports[2]], {}, _again([ping])),
        Server("mlflow models serve, score only", int(ports[3]), [mlflow, *served, ports[3]], {}, _again(_posts("/invocations", split))),
        Server(
            "plain FastAPI: score, SHAP, ORM",
            int(ports[4]),
            [uvicorn, "benchmarks.peers.plain_fastapi:app", *fast, ports[4]],
            plain,
            _again(_posts("/score", named)),
        ),
    ]


def transactions(settings: Settings) -> Iterator[bytes]:
    """Movements of the ledger's customers with its merchants, each new, a few seconds apart, after the last one in the ledger."""
    from finrisk_assets.graph.warehouse import Warehouse

    warehouse = Warehouse(url=settings.warehouse)
    table = warehouse.table("validated_transactions")
    latest = table.occurred_at.max().to_pyarrow().as_py()
    recent = table.filter(table.occurred_at > latest - timedelta(days=30))
    seen = recent.select("customer_id", "merchant", "country", "amount", "direction").order_by("customer_id").limit(20_000)
    known = seen.to_pyarrow().to_pylist()
    draw, at = random.Random(settings.seed), 0

    def endless() -> Iterator[bytes]:
        nonlocal at
        while True:
            at += 1
            one = draw.choice(known)
            body = {
                "transaction_id": f"benchmark-{at}",
                "user_id": one["customer_id"],
                "amount": one["amount"],
                "direction": one["direction"],
                "timestamp": (latest + timedelta(seconds=3 * at)).isoformat(),
                "merchant": one["merchant"],
                "country": one["country"],
            }
            yield post("/v1/transactions", json.dumps(body).encode())

    return endless()


@contextmanager
def started(server: Server, folder: Path, core: int) -> Iterator[psutil.Process]:
    """A server on its core, warmed up, as long as the block lasts."""
    log = folder / f"{server.port}.log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # mlflow looks for uvicorn there
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINRISK_")} | dict(server.environment)
    environment["PATH"] = path
    if "BENTOML_HOME" in server.environment:
        Path(server.environment["BENTOML_HOME"]).mkdir(exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            server.command,
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    family = psutil.Process(process.pid)
    try:
        _until_ready(server, process, log)
        sound(server, load.run(server.port, server.requests, 1, count=WARM_UP))
        yield family
    finally:
        children = family.children(recursive=True) if family.is_running() else []
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            if child.is_running():
                child.kill()


def _until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            first = load.run(server.port, server.requests, 1, count=1)
            if not first.failures:
                return
            problem = f"answers {first.failures}"
        except OSError as error:
            problem = str(error)
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{server.name} does not answer ({problem}):\n{log.read_text()[-4000:]}")
        time.sleep(0.3)


def sound(server: Server, found: Load) -> Load:
    """The load, if every answer was a success."""
    if found.failures:
        sys.exit(f"{server.name} answered {found.failures} of {len(found.took)} requests: nothing is measured with failures")
    return found


def worker_memory(process: psutil.Process) -> float:
    """Resident memory in bytes of the largest process of a server: the one that answers."""
    return max(one.memory_info().rss for one in [process, *process.children(recursive=True)])


def _models(settings: Settings, folder: Path) -> Path:
    """A BENTOML_HOME with the champions."""
    from finrisk_assets.graph import packaging

    home = folder / "bentoml"
    for champion in sorted((settings.root / "champions").iterdir()):
        if (champion / "bundle" / "bundle.json").is_file():
            packaging.store_model(home, champion.name, champion / "bundle", {})
    return home


def _log_native(settings: Settings, bundle: Bundle, folder: Path) -> None:
    """The bundle's trees as MLflow's own kind of model, where it has some; else the bundle behind MLflow's general interface."""
    import mlflow
    import xgboost

    manifest = json.loads((settings.root / "champions" / bundle.domain / "bundle" / "bundle.json").read_bytes())
    trees = [part for part in manifest["components"] if part["kind"] == "trees" and part["weight"]]
    if not trees:
        from finrisk_assets.modelling.training import pyfunc

        artifact = str(settings.root / "champions" / bundle.domain / "bundle")
        mlflow.pyfunc.save_model(folder, python_model=pyfunc.__file__, artifacts={"bundle": artifact}, pip_requirements=["numpy"])
        return
    booster = xgboost.Booster()
    booster.load_model(settings.root / "champions" / bundle.domain / "bundle" / trees[0]["file"])
    booster.feature_names = [feature.name for feature in bundle.features]
    mlflow.xgboost.save_model(booster, folder, model_format="json", pip_requirements=["xgboost"])


def _golden(settings: Settings, domain: str) -> Rows:
    """The rows that a champion's bundle carries."""
    rows = json.loads((settings.root / "champions" / domain / "bundle" / "golden.json").read_bytes())["rows"]
    return np.array(rows, np.float32)


def _free_ports(count: int) -> list[str]:
    with ExitStack() as stack:
        listening = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in listening:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in listening]


def _posts(path: str, bodies: list[dict[str, Any]]) -> list[bytes]:
    return [post(path, json.dumps(body).encode()) for body in bodies]


def _again(requests: list[bytes]) -> Iterator[bytes]:
    while True:
        yield from requests


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
