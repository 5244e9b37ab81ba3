"""A service in its own processes, started as an operator starts it, and clients that put it under load."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from finrisk_assets.graph import packaging

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 120
TWO_PROCESSES = ("bentoml", "serve", "bento.service:FinRisk")
SINGLE_PROCESS = ("bento.single_process",)
"""The module that serves, with its arguments: the supervisor with its worker, or the worker alone."""


def store_models(home: Path, bundles: Mapping[str, Path]) -> Path:
    """Store bundles in a model store; return the BENTOML_HOME to serve them with."""
    for domain, folder in bundles.items():
        packaging.store_model(home, domain, folder, {})
    return home


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@dataclass
class Served:
    """A served process: its port and its log."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body; status 0 where no server answers."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def post(self, path: str, body: object, **headers: str) -> tuple[int, str]:
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), sent)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while self.get("/readyz")[0] != 200:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)


def start(models: Path, home: Path, port: int, log: Path, command: Sequence[str] = TWO_PROCESSES, **settings: str) -> Served:
    """Start the service from source with the models of a BENTOML_HOME, without waiting for it."""
    foreign = ("FINRISK_", "PYTHONPATH", "BENTOML_", "OTEL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {"BENTOML_HOME": str(models), "BENTOML_DO_NOT_TRACK": "true", "FINRISK_HOME": str(home)}
    environment |= {"BENTO_PATH": "bento.service:FinRisk"} | settings
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            cwd=REPOSITORY, env=environment, stdout=out, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    return Served(process, port, log)


@contextmanager
def serving(models: Path, home: Path, log: Path, command: Sequence[str] = TWO_PROCESSES, **settings: str) -> Iterator[Served]:
    """Run a service that is ready, for the length of a block."""
    served = start(models, home, free_port(), log, command, **settings)
    try:
        served.wait_until_ready()
        yield served
    finally:
        stop(served)


def stop(served: Served) -> int:
    """End a service that still runs; return its exit status."""
    for _ in range(2):  # the second one ends its drain
        if served.process.poll() is None:
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
    try:
        return served.process.wait(20)
    except subprocess.TimeoutExpired:
        served.process.kill()
        raise


@dataclass
class Load:
    """A few clients that send requests one after the other, on persistent connections, until they are stopped.

    `backends` are asked by turns as a load balancer does it: only those whose `/readyz` said 200 when it last looked. A 503, which says
    that nothing has happened (two processes write to one SQLite file here), is sent to the next one, once, as balancers do too.
    """

    backends: list[int]
    body: Mapping[str, object]
    path: str = "/v1/loan-default"
    clients: int = 4
    look_every_s: float = 0.2
    answered: list[int] = field(default_factory=list)
    """The port that gave each answer."""
    failed: list[str] = field(default_factory=list)
    again: int = 0
    """Requests that were sent to a second backend."""

    def __enter__(self) -> "Load":
        self._going = True
        self._ready = [port for port in self.backends if _is_ready(port)]
        self._threads = [threading.Thread(target=self._look)]
        self._threads += [threading.Thread(target=self._ask, args=(at,)) for at in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._going = False
        for thread in self._threads:
            thread.join(20)

    def _look(self) -> None:
        while self._going:
            self._ready = [port for port in self.backends if _is_ready(port)]
            time.sleep(self.look_every_s)

    def _ask(self, at: int) -> None:
        connections: dict[int, HTTPConnection] = {}
        turn, refused = at, False
        while self._going:
            ready = self._ready
            if not ready:
                self.failed.append("no backend is ready")
                time.sleep(0.05)
                continue
            turn += 1
            port = ready[turn % len(ready)]
            connection = connections.setdefault(port, HTTPConnection("127.0.0.1", port, timeout=10))
            try:
                connection.request("POST", self.path, json.dumps(self.body), {"Content-Type": "application/json"})
                response = connection.getresponse()
                response.read()
            except OSError as error:
                self.failed.append(f"{port}: {type(error).__name__}")
                connections.pop(port).close()
                continue
            if response.status == 503 and not refused:
                refused, self.again = True, self.again + 1
                continue
            refused = False
            if response.status == 200:
                self.answered.append(port)
            else:
                self.failed.append(f"{port}: {response.status}")
            time.sleep(0.02)
        for connection in connections.values():
            connection.close()


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
