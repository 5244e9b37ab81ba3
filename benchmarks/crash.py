"""Decisions of a service that is killed under load, again and again: kill -9, on loopback, bounded in rounds and time.

    python -m benchmarks.crash [--database sqlite|postgresql] [--rounds 20] [--seconds 1.5] [--clients 8]

In each round a few clients send mixed requests of every domain, single ones and batches, each under an identifier of its own, until a
worker gets SIGKILL; then it is started again. On PostgreSQL two workers share the store, and are killed by turns. At the end every
request that was answered is sent again: the answer must be the same, byte for byte, and no decision may be added. Then the audit is
verified and every decision is replayed. The champions are those of `benchmarks.serving`.
"""

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, func, select

from benchmarks.contenders import draw_transactions, read_golden_rows
from benchmarks.serving import find_champions
from bento.store.database import location, parse_url
from bento.store.tables import decisions
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from tests.service.databases import own_server, url_of
from tests.service.serving import REPOSITORY, SINGLE_PROCESS, Served, free_port, start, stop, store_models

BATCH_SIZE = 20
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Request:
    """A request with an identifier of its own."""

    path: str
    body: bytes
    key: str

    def send(self, connection: HTTPConnection) -> tuple[int, bytes]:
        """Return status and body of the answer."""
        connection.request("POST", self.path, self.body, {"Content-Type": "application/json", "Idempotency-Key": self.key})
        response = connection.getresponse()
        return response.status, response.read()


@dataclass
class Answered:
    """The answers that clients got.

    Attributes
    ----------
    answers
        Request to the body of its answer, of those that were answered with 200.
    others
        Any other status to its number; 0 is no answer.
    n_decisions
        Decisions in all answers.
    """

    answers: dict[Request, bytes] = field(default_factory=dict)
    others: Counter[int] = field(default_factory=Counter)
    n_decisions: int = 0

    def add(self, request: Request, status: int, body: bytes) -> None:
        if status != 200:
            self.others[status] += 1
            return
        self.answers[request] = body
        self.n_decisions += BATCH_SIZE if request.path.endswith("/batch") else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.5, help="of load before each kill, and half of it after")
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    settings = find_champions(Settings.from_environment())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="finrisk-crash-")))
        environment = {"FINRISK_HOME": str(folder), "FINRISK_SOURCE": settings.source, "FINRISK_WAREHOUSE_URL": settings.warehouse}
        if given.database == "postgresql":
            environment |= {"FINRISK_STORE_URL": url_of(stack.enter_context(own_server(durable=True)))}
        models = store_models(
            replace(settings, home=folder).bentoml_home, {path.parent.name: path for path in settings.root.glob("champions/*/bundle")}
        )
        environment |= {"BENTOML_HOME": str(models)}
        (folder / settings.source / "landing").mkdir(parents=True)
        run_command("store", environment, "upgrade")
        run_command("load-history", environment)
        requests = mix(settings)
        seen = Answered()
        workers: list[Served] = []
        stack.callback(lambda: [stop(worker) for worker in workers])
        for _ in range(2 if given.database == "postgresql" else 1):
            workers.append(start_worker(models, folder, environment))
        draw = random.Random(1)
        for number in range(given.rounds):
            at = number % len(workers)
            put_under_load(workers, at, requests, seen, given.clients, given.seconds * draw.uniform(0.5, 1.5))
            workers[at] = start_worker(models, folder, environment)
            print(f"round {number + 1}: {seen.n_decisions:,} decisions answered so far; without 200: {dict(seen.others)}", flush=True)
        before = count_decisions(environment)
        changed = send_again(workers, seen)
        added = count_decisions(environment) - before
        for worker in workers:
            stop(worker)
        print(f"{given.rounds} times kill -9, {given.database}: {len(seen.answers):,} answered requests, {seen.n_decisions:,} decisions")
        print(f"sent again: {changed:,} answers changed, {added:,} decisions added")
        run_command("audit", environment, "verify")
        run_command("replay", environment)
    sys.exit(bool(changed or added))


def start_worker(models: Path, folder: Path, environment: dict[str, str]) -> Served:
    """Start a worker and wait until it is ready."""
    port = free_port()
    settings = {name: value for name, value in environment.items() if name not in ("FINRISK_HOME", "BENTOML_HOME")}
    served = start(models, folder, port, folder / f"{port}.log", SINGLE_PROCESS, **settings)
    served.wait_until_ready()
    return served


def put_under_load(workers: list[Served], killed: int, requests: Iterator[Request], seen: Answered, clients: int, seconds: float) -> None:
    """Send requests from a few clients to all workers by turns, kill one after a while, and stop a little later."""
    lock, is_over = threading.Lock(), threading.Event()

    def ask(turn: int) -> None:
        connection = HTTPConnection("127.0.0.1", workers[turn % len(workers)].port, timeout=PATIENCE_S)
        while not is_over.is_set():
            with lock:
                request = next(requests)
            try:
                status, body = request.send(connection)
            except (OSError, HTTPException):
                connection.close()
                turn += 1
                connection = HTTPConnection("127.0.0.1", workers[turn % len(workers)].port, timeout=PATIENCE_S)
                status, body = 0, b""
                is_over.wait(0.01)
            with lock:
                seen.add(request, status, body)
        connection.close()

    threads = [threading.Thread(target=ask, args=(turn,)) for turn in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    workers[killed].process.kill()
    workers[killed].process.wait(PATIENCE_S)
    time.sleep(seconds / 2 if len(workers) > 1 else 0)
    is_over.set()
    for thread in threads:
        thread.join()


def send_again(workers: list[Served], seen: Answered) -> int:
    """Send every answered request again, to any worker; return the number of answers that differ."""
    connections = [HTTPConnection("127.0.0.1", worker.port, timeout=PATIENCE_S) for worker in workers]
    changed = 0
    for connection, (request, body) in zip(itertools.cycle(connections), seen.answers.items(), strict=False):
        changed += request.send(connection) != (200, body)
    for connection in connections:
        connection.close()
    return changed


def count_decisions(environment: dict[str, str]) -> int:
    """Return the number of decisions in the store."""
    settings = Settings.from_environment(environment)
    engine = create_engine(parse_url(location(settings)))
    with engine.connect() as connection:
        count = connection.execute(select(func.count()).select_from(decisions)).scalar_one()
    engine.dispose()
    return int(count)


def run_command(name: str, environment: dict[str, str], *arguments: str) -> None:
    """Run a command of the project on the benchmark's store; end with its exit status where it fails."""
    command = [sys.executable, "-m", "finrisk_assets.cli.main", name, *arguments]
    status = subprocess.run(command, env=os.environ | environment, cwd=REPOSITORY).returncode
    if status:
        sys.exit(f"{name} {' '.join(arguments)} failed with {status}")


def mix(settings: Settings) -> Iterator[Request]:
    """Yield requests of every domain: movements of the ledger's people most often, rows of the bundles, and batches of both."""
    movements = (json.loads(request.split(b"\r\n\r\n", 1)[1]) for request in draw_transactions(settings))
    by_features = {route: itertools.cycle(bodies) for route, bodies in build_bodies(settings).items()}
    for number in itertools.count(1):
        key = f"crash-{number}"
        if number % 40 == 0:
            items = [next(movements) for _ in range(BATCH_SIZE)]
            yield Request("/v1/transactions/batch", json.dumps({"items": items}).encode(), key)
        elif number % 40 == 20:
            items = [next(by_features["/v1/loan-default"]) for _ in range(BATCH_SIZE)]
            yield Request("/v1/loan-default/batch", json.dumps({"items": items}).encode(), key)
        elif number % 2:
            yield Request("/v1/transactions", json.dumps(next(movements)).encode(), key)
        else:
            route = [*by_features][number // 2 % len(by_features)]
            yield Request(route, json.dumps(next(by_features[route])).encode(), key)


def build_bodies(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Return bodies of each domain but transactions, from the rows that the champions' bundles carry."""
    rows = {domain: read_rows(settings, domain) for domain in ("loan_default", "cashflow", "loan_offers", "spending_risk_eight")}
    offers = [{"features": row, "pd": 0.03, "monthly_income_amount": 2800.0} for row in rows["loan_offers"]]
    return {
        "/v1/loan-default": [{"features": row} for row in rows["loan_default"]],
        "/v1/cashflow": [{"features": row} for row in rows["cashflow"]],
        "/v1/loan-offers": offers,
        "/v1/spending-risk": rows["spending_risk_eight"],
    }


def read_rows(settings: Settings, domain: str) -> list[dict[str, float | None]]:
    """Return the golden rows of a champion's bundle, by feature; None where a value is missing."""
    names = [feature.name for feature in Bundle.load(settings.root / "champions" / domain / "bundle").features]
    rows = read_golden_rows(settings, domain)
    return [dict(zip(names, (None if value != value else value for value in row.tolist()), strict=True)) for row in rows]


if __name__ == "__main__":
    main()
