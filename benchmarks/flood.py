"""A flood of a service, on loopback, bounded in connections and time, and the service that other clients get meanwhile.

    python -m benchmarks.flood [--seconds 60] [--addresses 3] [--supervised]

The script starts a service of its own with small models, then floods it from a few loopback addresses: headers without end, headers that
are half sent, bodies that come slowly, and connections that send nothing. Meanwhile one address asks for `/livez` and another one for
decisions. The flood runs in a process of its own with a low priority, because its clients must not delay those that measure.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.load import post
from tests.service.examples import CASHFLOW_ROW, write_linear_bundles
from tests.service.serving import SINGLE_PROCESS, TWO_PROCESSES, serving, store_models

CALM_S = 5.0
"""Seconds of measurement before the flood."""
CONNECTIONS = {"headers without end": 8, "half-sent headers": 60, "slow bodies": 70, "silent connections": 60}
"""Connections of each kind that each address of the flood keeps trying to hold."""
PAUSE_S = 0.05
"""Seconds after which a connection that was cut off is opened again."""
PROBE_EVERY_S, DECISION_EVERY_S, MEMORY_EVERY_S = 0.02, 0.1, 0.2
PATIENCE_S = 10.0
PROBE_ADDRESS, OTHER_ADDRESS = "127.0.0.3", "127.0.0.2"
MAX_PROBE_P99_MS, MAX_GROWTH_MIB = 100.0, 64.0

_LIVEZ = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_DECISION = post("/v1/cashflow", json.dumps({"features": CASHFLOW_ROW}).encode()).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
_BEGINNINGS = {
    "headers without end": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ",
    "half-sent headers": b"GET /livez HTTP/1.1\r\nHost: loc",
    "slow bodies": b"POST /v1/cashflow HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{",
    "silent connections": b"",
}


@dataclass
class Observations:
    """Requests of the clients beside a flood, and the memory of the worker.

    Attributes
    ----------
    probe_s
        Seconds of each request to `/livez`.
    statuses
        Status to the number of decisions that were answered with it; 0 is no answer.
    memory_bytes
        Resident memory of the worker, sample by sample.
    """

    probe_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    memory_bytes: list[int] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        """Return the time within which 99 of 100 requests to `/livez` are answered."""
        return float(np.quantile(self.probe_s, 0.99) * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of flood")
    parser.add_argument("--addresses", type=int, default=3, choices=range(1, 9), help="from which the flood comes")
    parser.add_argument("--supervised", action="store_true", help="`bentoml serve` in place of the single process")
    arguments = parser.parse_args()
    command = TWO_PROCESSES if arguments.supervised else SINGLE_PROCESS
    with tempfile.TemporaryDirectory(prefix="finrisk-flood-") as name:
        folder = Path(name)
        bundles = write_linear_bundles(folder / "bundles")
        models = store_models(folder / "bentoml", {"cashflow": bundles["cashflow"]})
        with serving(models, folder / "home", folder / "serve.log", command, TMPDIR=name) as served:
            family = psutil.Process(served.process.pid)
            worker = max([family, *family.children(recursive=True)], key=lambda process: process.memory_info().rss)
            calm = asyncio.run(observe(served.port, worker, CALM_S))
            flood_arguments = (served.port, arguments.addresses, arguments.seconds)
            flood = multiprocessing.get_context("spawn").Process(target=run_flood, args=flood_arguments)
            flood.start()
            flooded = asyncio.run(observe(served.port, worker, arguments.seconds))
            flood.join(PATIENCE_S)
            log_lines = served.log.read_text().count("\n")
    report(calm, flooded, arguments.seconds, arguments.addresses, log_lines)


def report(calm: Observations, flooded: Observations, seconds: float, addresses: int, log_lines: int) -> None:
    """Print the table; exit with 1 where a mark is missed."""
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, Python {platform.python_version()}; load {os.getloadavg()[0]:.1f}")
    kinds = ", ".join(f"{count} x {kind}" for kind, count in CONNECTIONS.items())
    print(f"A flood of {seconds:g} s from {addresses} addresses, each with {kinds}\n")
    print(f"  {'':12} {'/livez':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'decisions':>10} {'answered':>9} {'memory MiB':>11}")
    for name, observed in (("before", calm), ("during", flooded)):
        p50, most = float(np.quantile(observed.probe_s, 0.5)) * 1e3, max(observed.probe_s) * 1e3
        memory = max(observed.memory_bytes) / 2**20
        count = observed.statuses.total()
        answered = observed.statuses[200] / count
        times = f"{len(observed.probe_s):8,} {p50:8.1f} {observed.p99_ms:8.1f} {most:8.1f}"
        print(f"  {name:12} {times} {count:10,} {answered:9.1%} {memory:11.1f}")
    growth = (max(flooded.memory_bytes) - max(calm.memory_bytes)) / 2**20
    marks = {
        f"/livez p99 <= {MAX_PROBE_P99_MS:g} ms": flooded.p99_ms <= MAX_PROBE_P99_MS,
        f"memory grows by {growth:.1f} MiB < {MAX_GROWTH_MIB:g} MiB": growth < MAX_GROWTH_MIB,
        "every other caller is answered": flooded.statuses.keys() == {200},
    }
    print(f"\n  {log_lines} lines of log; statuses of the other caller: {dict(flooded.statuses)}")
    for mark, is_reached in marks.items():
        print(f"  {mark:45} {'reached' if is_reached else 'MISSED'}")
    sys.exit(not all(marks.values()))


# Clients that measure.


async def observe(port: int, worker: psutil.Process, seconds: float) -> Observations:
    """Ask for `/livez` and for decisions for so long, each from an address of its own, and sample the memory of the worker."""
    observations, end = Observations(), time.monotonic() + seconds

    async def probe() -> None:
        while time.monotonic() < end:
            began = time.perf_counter()
            status = await ask(port, PROBE_ADDRESS, _LIVEZ)
            observations.probe_s.append(time.perf_counter() - began if status == 200 else PATIENCE_S)
            await asyncio.sleep(PROBE_EVERY_S)

    async def decide() -> None:
        while time.monotonic() < end:
            observations.statuses[await ask(port, OTHER_ADDRESS, _DECISION)] += 1
            await asyncio.sleep(DECISION_EVERY_S)

    async def weigh() -> None:
        while time.monotonic() < end:
            observations.memory_bytes.append(worker.memory_info().rss)
            await asyncio.sleep(MEMORY_EVERY_S)

    await asyncio.gather(probe(), decide(), weigh())
    return observations


async def ask(port: int, address: str, request: bytes) -> int:
    """Return the status of a request on a connection of its own; 0 without an answer."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            try:
                writer.write(request)
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0
    return int(answer[9:12] or 0)


# The flood.


def run_flood(port: int, addresses: int, seconds: float) -> None:
    """Flood a service for so long. Runs in a process of its own."""
    os.nice(10)
    asyncio.run(_flood(port, [f"127.0.1.{number + 1}" for number in range(addresses)], time.monotonic() + seconds))


async def _flood(port: int, addresses: list[str], end: float) -> None:
    tasks = [_attack(port, address, kind, end) for address in addresses for kind, count in CONNECTIONS.items() for _ in range(count)]
    await asyncio.gather(*tasks)


async def _attack(port: int, address: str, kind: str, end: float) -> None:
    """Open a connection of one kind again and again."""
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
        except OSError:
            await asyncio.sleep(PAUSE_S)
            continue
        try:
            writer.write(_BEGINNINGS[kind])
            await _go_on(kind, reader, writer, end)
        except OSError:
            pass
        finally:
            writer.close()
        await asyncio.sleep(PAUSE_S)


async def _go_on(kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, end: float) -> None:
    """Send the rest of a connection of one kind until the service closes the connection."""
    answer = asyncio.ensure_future(reader.read())
    try:
        while not answer.done() and time.monotonic() < end:
            if kind == "headers without end":
                writer.write(b"a" * 65_536)
                await writer.drain()
                await asyncio.sleep(0)
            elif kind == "slow bodies":
                writer.write(b" ")
                await asyncio.wait([answer], timeout=1.0)
            else:
                await asyncio.wait([answer], timeout=1.0)
    finally:
        answer.cancel()


if __name__ == "__main__":
    main()
