"""What a challenger in the shadow costs: milliseconds of a request, with and without one.

Run it as ``python -m benchmarks.shadow HOME/SOURCE [--requests N]``, where the folder is that of a finished demonstration, say
``.finrisk/simulator``. Two services are served from this checkout at once, with the same champions and copies of the same store; one of
them asks challengers too, which are the champions under another version, so that they cost as much. Requests go to both in turn.
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median, quantiles

from bento.decisions.domains import DOMAINS
from bento.store.session import open_store
from bento.store.snapshots import list_snapshots
from finrisk_assets.graph import packaging
from finrisk_assets.settings import Settings

WAIT_SECONDS = 120
WARM_UP = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("finished", type=Path, help="FINRISK_HOME/<source> of a finished demonstration")
    parser.add_argument("--requests", type=int, default=400, help="of each route")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        homes = {name: prepare(given.finished, Path(folder) / name) for name in ("alone", "shadowed")}
        ports = {name: running.enter_context(served(home, given.finished.name, name == "shadowed")) for name, home in homes.items()}
        print(f"{given.requests} requests of each route, milliseconds")
        for route, bodies in requests(homes["alone"], given.finished.name, given.requests + WARM_UP):
            took = measure(route, bodies, ports)
            alone, shadowed = median(took["alone"]), median(took["shadowed"])
            last = {name: quantiles(times, n=20)[-1] for name, times in took.items()}
            print(
                f"  {route}: median {alone:.2f} alone, {shadowed:.2f} shadowed, {shadowed - alone:+.2f}; "
                f"95 % {last['alone']:.2f} and {last['shadowed']:.2f}",
                flush=True,
            )


def prepare(finished: Path, home: Path) -> Path:
    """A home with the champions, a challenger of each beside it, and a copy of the store."""
    for domain in DOMAINS:
        champion = finished / "champions" / domain / "bundle"
        if not champion.is_dir():
            continue
        other = Path(shutil.copytree(champion, home / "challengers" / domain / "bundle"))
        manifest = json.loads((other / "bundle.json").read_bytes())
        (other / "bundle.json").write_text(json.dumps(manifest | {"seed": manifest["seed"] + 1}), "utf-8")
        beside = packaging.store_challenger(home / "bentoml", domain, other, champion)
        packaging.store_model(home / "bentoml", domain, champion, {}, (), beside)
    # With the master key beside it, without which nothing in the store can be read.
    shutil.copytree(finished / "service", Settings(home=home, source=finished.name).root / "service")
    return home


@contextmanager
def served(home: Path, source: str, shadowed: bool) -> Iterator[int]:
    """The port of a service of this checkout."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = int(listening.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINRISK_")} | {
        "BENTOML_HOME": str(home / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "FINRISK_HOME": str(home),
        "FINRISK_SOURCE": source,
        "FINRISK_SHADOW": str(shadowed).lower(),
    }
    command = [sys.executable, "-m", "bentoml", "serve", "bento.service:FinRisk", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while not ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the service did not start: serve it by hand, as docs/service.md says, to see why")
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def requests(home: Path, source: str, n: int) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Routes with the bodies that are sent to them: customers of the store, and movements after its last one."""
    with closing(open_store(Settings(home=home, source=source))) as store, store.reading() as connection:
        snapshots = list_snapshots(store)
        last = connection.exec_driver_sql("select max(occurred_at) from transactions").scalar()
    for domain, more in (("spending_risk", {}), ("loan_default", {"loan_amount": 5000}), ("loan_offers", {})):
        customers = sorted({one.customer_id for one in snapshots if one.domain == domain})
        if customers:
            yield domain.replace("_", "-"), [{"customer_id": customers[at % len(customers)], **more} for at in range(n)]
    accounts = sorted({one.account_id for one in snapshots if one.domain == "cashflow" and one.account_id})
    if accounts:
        yield "cashflow", [{"account_id": accounts[at % len(accounts)]} for at in range(n)]
    movers = sorted({one.customer_id for one in snapshots})
    if last is not None and movers:
        after = datetime(1970, 1, 1) + timedelta(microseconds=last, hours=1)
        yield (
            "transactions",
            [
                {
                    "transaction_id": f"new{k}",
                    "user_id": movers[k % len(movers)],
                    "amount": 10.0 + k % 90,
                    "merchant": f"m{k % 50}",
                    "timestamp": (after + timedelta(seconds=k)).isoformat(),
                }
                for k in range(n)
            ],
        )


def measure(route: str, bodies: list[dict[str, object]], ports: dict[str, int]) -> dict[str, list[float]]:
    """Milliseconds of each request, after some that warm up, over one kept connection to each service."""
    connections = {name: http.client.HTTPConnection("127.0.0.1", port, timeout=10) for name, port in ports.items()}
    took: dict[str, list[float]] = {name: [] for name in ports}
    for number, body in enumerate(bodies):
        for name in sorted(connections, reverse=bool(number % 2)):
            started = time.perf_counter()
            connections[name].request("POST", f"/v1/{route}", json.dumps(body), {"Content-Type": "application/json"})
            answer = connections[name].getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"/v1/{route} answered {answer.status}: {content.decode()[:200]}")
            if number >= WARM_UP:
                took[name].append((time.perf_counter() - started) * 1000)
    for connection in connections.values():
        connection.close()
    return took


if __name__ == "__main__":
    main()
