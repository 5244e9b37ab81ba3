"""The servers of `benchmarks.serving`: the service with a store of its own, and its peers, each as a process on one core.

How a server is started and which requests it gets stand here; what is measured stands in `serving`.
"""

import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks import load
from benchmarks.load import Load, post
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import Rows
from finrisk_assets.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
WARM_UP = 200
"""Requests to a server before it is measured."""
READY_S = 120
"""Seconds in which a server must answer."""
OURS, EMPTY, LEAN = "finrisk, a full decision", "empty Bento endpoint", "the same, BentoML counts nothing"
EMPTY_FASTAPI, MLFLOW, PLAIN = "empty FastAPI", "mlflow models serve, score only", "plain FastAPI: score, SHAP, ORM"
_TRANSACTIONS = "transaction_anomaly"


@dataclass(frozen=True)
class Server:
    """A server: how it is started, and an endless supply of requests to it."""

    name: str
    port: int
    command: list[str]
    environment: Mapping[str, str]
    requests: Iterator[bytes]


def create_contenders(settings: Settings, folder: Path) -> list[Server]:
    """Return the service, whose store is filled here, then its peers.

    Parameters
    ----------
    settings
        Settings of a ledger with champions.
    folder
        Folder for everything that the servers write.
    """
    bundle = Bundle.load(_bundle_folder(settings, _TRANSACTIONS))
    names = [feature.name for feature in bundle.features]
    rows = read_golden_rows(settings, _TRANSACTIONS)
    ours = _fill_store(settings, folder)
    model, pickled = folder / "mlflow", folder / "plain.joblib"
    _save_native_model(settings, bundle, model)
    from benchmarks.peers import plain_fastapi

    plain_fastapi.make(pickled, names, np.tile(rows, (16, 1)))
    complete_rows = np.nan_to_num(rows).tolist()  # neither peer takes a missing value
    split = [{"dataframe_split": {"columns": names, "data": [row]}} for row in complete_rows]
    named = [{"features": dict(zip(names, row, strict=True))} for row in complete_rows]
    ping = post("/empty", b'{"number":1}')
    empty = {"BENTOML_HOME": str(folder / "empty")}
    plain = {"PLAIN_MODEL": str(pickled), "PLAIN_STORE": f"sqlite:///{folder / 'plain.sqlite'}"}
    port = iter(_find_free_ports(6))
    return [
        _serve_bento(OURS, next(port), "bento.service:FinRisk", ours, draw_transactions(settings)),
        _serve_bento(EMPTY, next(port), "benchmarks.peers.empty_bento:Empty", empty, cycle([ping])),
        _serve_bento(LEAN, next(port), "benchmarks.peers.empty_bento:Lean", empty, cycle([ping])),
        _serve_uvicorn(EMPTY_FASTAPI, next(port), "benchmarks.peers.empty_fastapi:app", {}, cycle([ping])),
        _serve_mlflow(next(port), model, cycle(_posts("/invocations", split))),
        _serve_uvicorn(PLAIN, next(port), "benchmarks.peers.plain_fastapi:app", plain, cycle(_posts("/score", named))),
    ]


def _serve_bento(name: str, port: int, service: str, environment: Mapping[str, str], requests: Iterator[bytes]) -> Server:
    command = [_program("bentoml"), "serve", "--host", "127.0.0.1", "--port", str(port), service]
    return Server(name, port, command, environment, requests)


def _serve_uvicorn(name: str, port: int, app: str, environment: Mapping[str, str], requests: Iterator[bytes]) -> Server:
    options = ["--host", "127.0.0.1", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    return Server(name, port, [_program("uvicorn"), app, *options, "--port", str(port)], environment, requests)


def _serve_mlflow(port: int, model: Path, requests: Iterator[bytes]) -> Server:
    options = ["--env-manager", "local", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    return Server(MLFLOW, port, [_program("mlflow"), "models", "serve", "-m", str(model), *options], {}, requests)


def _program(name: str) -> str:
    """Return the path of a program that belongs to this Python."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def running(server: Server, folder: Path, core: int) -> Iterator[psutil.Process]:
    """Run a server on its core, warmed up, for the length of a block; yield its first process."""
    log = folder / f"{server.port}.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINRISK_")} | dict(server.environment)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # mlflow looks for uvicorn there
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
        _wait_until_ready(server, process, log)
        send_load(server, 1, count=WARM_UP)
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


def send_load(server: Server, clients: int, *, seconds: float = 0.0, count: int = 0, requests: Iterator[bytes] | None = None) -> Load:
    """Send requests for so long, or so many, and return what the clients saw; exit where an answer was no success."""
    seen = load.run(server.port, requests or server.requests, clients, seconds=seconds, count=count)
    if seen.failures:
        sys.exit(f"{server.name} answered {seen.failures} of {len(seen.took)} requests: nothing is measured with failures")
    return seen


def read_worker_memory(process: psutil.Process) -> float:
    """Return the resident memory in bytes of the largest process of a server: the one that answers."""
    return max(member.memory_info().rss for member in [process, *process.children(recursive=True)])


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
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


# Requests.


def draw_transactions(settings: Settings) -> Iterator[bytes]:
    """Return requests for movements of the ledger's customers with its merchants, each new, a few seconds apart, after the ledger's last.

    The ledger is read here: a warehouse is open in one process at a time.
    """
    from finrisk_assets.graph.warehouse import Warehouse

    table = Warehouse(url=settings.warehouse).table("validated_transactions")
    latest = table.occurred_at.max().to_pyarrow().as_py()
    recent = table.filter(table.occurred_at > latest - timedelta(days=30))
    columns = recent.select("customer_id", "merchant", "country", "amount", "direction").order_by("customer_id").limit(20_000)
    movements = columns.to_pyarrow().to_pylist()

    def draw() -> Iterator[bytes]:
        source, number = random.Random(settings.seed), 0
        while True:
            number += 1
            movement = source.choice(movements)
            body = {
                "transaction_id": f"benchmark-{number}",
                "user_id": movement["customer_id"],
                "amount": movement["amount"],
                "direction": movement["direction"],
                "timestamp": (latest + timedelta(seconds=3 * number)).isoformat(),
                "merchant": movement["merchant"],
                "country": movement["country"],
            }
            yield post("/v1/transactions", json.dumps(body).encode())

    return draw()


def cycle(requests: list[bytes]) -> Iterator[bytes]:
    """Yield the requests again and again."""
    while True:
        yield from requests


def read_golden_rows(settings: Settings, domain: str) -> Rows:
    """Return the golden rows of a champion's bundle, float32 of shape (n, d)."""
    rows = json.loads((_bundle_folder(settings, domain) / "golden.json").read_bytes())["rows"]
    return np.array(rows, np.float32)


def _posts(path: str, bodies: list[dict[str, Any]]) -> list[bytes]:
    return [post(path, json.dumps(body).encode()) for body in bodies]


# Models and stores.


def _fill_store(settings: Settings, folder: Path) -> dict[str, str]:
    """Load the ledger's history into a store with a master key of its own; return the environment of a service with this store."""
    environment = {
        "FINRISK_HOME": str(folder),
        "FINRISK_SOURCE": settings.source,
        "FINRISK_WAREHOUSE_URL": settings.warehouse,
        "BENTOML_HOME": str(_store_champions(settings, folder)),
    }
    print("loading the ledger's history into a store of the benchmark's own …", flush=True)
    (folder / settings.source / "landing").mkdir(parents=True)
    # Another process: this one reads the warehouse only after it.
    subprocess.run([sys.executable, "-m", "finrisk_assets.cli.main", "load-history"], env=os.environ | environment, cwd=ROOT, check=True)
    return environment


def _store_champions(settings: Settings, folder: Path) -> Path:
    """Store the champions as BentoML models; return the BENTOML_HOME."""
    from finrisk_assets.graph import packaging

    home = folder / "bentoml"
    for champion in sorted((settings.root / "champions").iterdir()):
        if (champion / "bundle" / "bundle.json").is_file():
            packaging.store_model(home, champion.name, champion / "bundle", {})
    return home


def _save_native_model(settings: Settings, bundle: Bundle, folder: Path) -> None:
    """Save the bundle's trees as MLflow's own kind of model; a bundle without trees behind MLflow's general interface."""
    import mlflow
    import xgboost

    source = _bundle_folder(settings, bundle.domain)
    components = json.loads((source / "bundle.json").read_bytes())["components"]
    trees = [component for component in components if component["kind"] == "trees" and component["weight"]]
    if not trees:
        from finrisk_assets.modelling.training import pyfunc

        mlflow.pyfunc.save_model(folder, python_model=pyfunc.__file__, artifacts={"bundle": str(source)}, pip_requirements=["numpy"])
        return
    booster = xgboost.Booster()
    booster.load_model(source / trees[0]["file"])
    booster.feature_names = [feature.name for feature in bundle.features]
    mlflow.xgboost.save_model(booster, folder, model_format="json", pip_requirements=["xgboost"])


def _bundle_folder(settings: Settings, domain: str) -> Path:
    return settings.root / "champions" / domain / "bundle"


def _find_free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(listener.getsockname()[1]) for listener in listeners]
