"""The cost of looking: latency of decisions with consoles open, and the queue's page with many alerts.

Run it as ``python -m benchmarks.console HOME/SOURCE [--readers 20] [--rounds 5]``, where the folder is that of a demonstration, say
``.finrisk/simulator``. One service is served from this checkout, over a copy of the store. A client sends decisions at a steady rate: while
no console is open, while readers look through a console of its own process, and while they look through the mounted one, in turn. A reader
opens a page, reads for some seconds, and opens the next.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median, quantiles

from benchmarks.shadow import prepare
from bento.alerts.alert_queue import list_alerts
from bento.store.session import open_store
from bento.store.tables import alerts
from finrisk_assets.settings import Settings
from schemas.alert_api import AlertQuery
from tests.service.serving import SINGLE_PROCESS, free_port, serving

PAGES = ("overview", "alerts", "models", "policy", "audit", "person", "loan", "alerts?order=newest")
READING_S = 4.0
"""Mean seconds between two pages of a reader."""
RATE = 50.0
"""Decisions a second."""
ROUND_S = 8.0
QUEUES = (1_000, 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("finished", type=Path, help="FINRISK_HOME/<source> of a finished demonstration")
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-queue", action="store_true", help="leave out the queue of a million alerts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        home = prepare(given.finished, Path(folder) / "home")
        settings = {"FINRISK_CONSOLE": "true", "FINRISK_SOURCE": given.finished.name}
        service = running.enter_context(serving(home / "bentoml", home, Path(folder) / "serve.log", SINGLE_PROCESS, **settings))
        port = service.port
        own = running.enter_context(console_process(port, Path(folder)))
        ports = {"none": None, "own process": own, "mounted": port}
        p99: dict[str, list[float]] = {name: [] for name in ports}
        p50: dict[str, list[float]] = {name: [] for name in ports}
        for console in ports.values():  # templates and modules are loaded
            if console is not None:
                read_once(console, PAGES)
        for _ in range(given.rounds):
            for name, console in ports.items():
                with readers(console, given.readers):
                    times = send_decisions(port)
                p50[name].append(median(times))
                p99[name].append(quantiles(times, n=100)[-1])
        load = os.getloadavg()[0]
        print(f"POST /v1/spending-risk at {RATE:g}/s, {given.readers} readers, medians of {given.rounds} rounds, load {load:.1f}")
        for name in ports:
            ratio = median(p99[name]) / median(p99["none"])
            print(f"  consoles: {name:<12} p50 {median(p50[name]):6.2f} ms   p99 {median(p99[name]):6.2f} ms   {ratio:.2f} x", flush=True)
    if not given.no_queue:
        measure_queue()


@contextmanager
def console_process(api: int, folder: Path) -> Iterator[int]:
    """Run a console as a process of its own; yield its port."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINRISK_")} | {"FINRISK_HOME": str(folder)}
    command = [sys.executable, "-m", "bento.cli.console_command", "--api", f"http://127.0.0.1:{api}", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    time.sleep(3)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def readers(port: int | None, number: int) -> Iterator[None]:
    """Let a number of readers look through a console for the length of a block, in a process beside that of the client that is measured."""
    if port is None:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_read_for_ever, args=(port, number), daemon=True)
    process.start()
    time.sleep(READING_S)  # until the readers are spread over their pages
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _read_for_ever(port: int, number: int) -> None:
    def read(seed: int) -> None:
        pause = random.Random(seed)
        while True:
            time.sleep(pause.uniform(0, 2 * READING_S))
            read_once(port, [pause.choice(PAGES)])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def read_once(port: int, pages: tuple[str, ...] | list[str]) -> None:
    """Open pages one after the other, as one session."""
    cookie = ""
    for page in pages:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("GET", f"/console/{page}", headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            cookie = (response.getheader("set-cookie") or cookie).split(";")[0]
            response.read()
            assert response.status == 200, f"/console/{page}: {response.status}"


def send_decisions(port: int) -> list[float]:
    """Send decisions at a steady rate; return the milliseconds from the time at which each was due, so that no stall is left out."""
    fields = {
        "Total_Expense": 42000, "Num_Transactions": 120, "Avg_Expense": 350, "Max_Expense": 2500, "Low_Balance_Freq": 3,
        "Top_Category_Spend": 15000,
    }  # fmt: skip
    times = []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        start = time.perf_counter()
        for number in range(int(RATE * ROUND_S)):
            due = start + number / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            income = 60_000 + number
            body = json.dumps(fields | {"Total_Income": income, "Expense_Income_Ratio": round(42_000 / income, 6)})
            connection.request("POST", "/v1/spending-risk", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200, response.status
            times.append((time.perf_counter() - due) * 1000)
    return times


def measure_queue() -> None:
    """Print the time of a page of the queue by the number of alerts in the store."""
    took = {}
    for number in QUEUES:
        with tempfile.TemporaryDirectory() as folder, closing(open_store(Settings(home=Path(folder)))) as store:
            with store.writing() as connection:
                for start in range(0, number, 50_000):
                    rows = range(start, min(number, start + 50_000))
                    connection.execute(alerts.insert(), [
                        {"decision": f"{row:032x}", "outcome": "review", "expected_loss": row * 7919 % 99_991 / 10, "opened_at": row,
                         "state": "open", "version": 1}
                        for row in rows
                    ])  # fmt: skip
            times = []
            for _ in range(50):
                began = time.perf_counter()
                list_alerts(store, AlertQuery())
                times.append((time.perf_counter() - began) * 1000)
            took[number] = median(times)
    few, many = (took[number] for number in QUEUES)
    print(f"a page of the queue: {few:.2f} ms at {QUEUES[0]:,} alerts, {many:.2f} ms at {QUEUES[1]:,}: {many / few:.2f} x")


if __name__ == "__main__":
    main()
