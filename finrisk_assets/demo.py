"""The demonstration: the whole graph in one process, then the built Bento, served, decides on examples from the ledger."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from finrisk_assets.domain import Domain
    from finrisk_assets.resources import Warehouse

READY_SECONDS = 60
WIDTH = 150
"""Columns of the output where no terminal says how many there are."""

RISING = (0.5, 0.9, 0.99, 1.0)
"""The examples: the subjects that stand at these quantiles of the champion's batch scores."""


@dataclass(frozen=True)
class Example:
    """A subject of the ledger, the request that asks for its decision, and what the batch scored it."""

    subject: str
    path: str
    body: Mapping[str, Any]
    batch_score: float


def run(settings: Settings, *, serve: bool = True) -> int:
    """Run the demonstration; return the exit status."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    began = time.perf_counter()
    console.print(f"[bold]finrisk[/]  source [bold]{settings.source}[/], everything below {settings.home / settings.source}\n")
    if not _materialise(settings, console):
        return 1
    if serve:
        _decide(settings, console)
    console.print(f"\nDone in {time.perf_counter() - began:.0f} s. Next: `make dev` shows the graph, `make serve` starts the service.")
    return 0


def _materialise(settings: Settings, console: "Console") -> bool:
    """Materialise the whole graph in this process, with a line per stage."""
    import dagster as dg

    from finrisk_assets import automation
    from finrisk_assets.build import build, left_out
    from finrisk_assets.ledger import sources

    _quieten()
    definitions = build(settings)
    for domain, reason in left_out(sources.load(settings)).items():
        console.print(f"  [yellow]–[/] {domain} is left out: {reason}")
    job = definitions.resolve_job_def(automation.EVERYTHING)
    with dg.DagsterInstance.get() as instance:
        result = job.execute_in_process(instance=instance, run_config={"loggers": {"progress": {}}}, raise_on_error=False)
    if not result.success:
        for event in result.all_events:
            if event.is_step_failure:
                error = event.step_failure_data.error
                console.print(f"\n[red]{event.step_key}[/]: {(error.cause or error).message.strip() if error else event.message}")
    return result.success


def _quieten() -> None:
    """Silence what libraries say about themselves, so that the lines of the stages stand alone."""
    import dagster as dg

    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    for noise in (dg.BetaWarning, dg.PreviewWarning, UserWarning):
        warnings.filterwarnings("ignore", category=noise)


def _decide(settings: Settings, console: "Console") -> None:
    """Serve the built Bento and print what it decides on the examples."""
    from rich.table import Table

    from finrisk_assets import history
    from finrisk_assets.build import domains_of
    from finrisk_assets.ledger import sources
    from finrisk_assets.resources import Warehouse

    domains = domains_of(sources.load(settings))
    warehouse = Warehouse(url=settings.warehouse)
    if any(domain.name == "transaction_anomaly" for domain in domains):
        began = time.perf_counter()
        loaded = history.load(settings)
        console.print(f"  [green]✓[/] {'history → store':<34} {time.perf_counter() - began:6.1f} s   {loaded:,} transactions")
    began = time.perf_counter()
    table = Table(title="Decisions of the served Bento", title_justify="left", show_lines=True)
    for heading in ("domain", "subject", "decision", "probability", "score", "batch", "reasons", "ms"):
        table.add_column(heading, justify="right" if heading in ("probability", "score", "batch", "ms") else "left")
    with _served(settings) as url:
        console.print(f"  [green]✓[/] {'bento served':<34} {time.perf_counter() - began:6.1f} s   {url}\n")
        for domain in domains:
            for example in _examples(domain, warehouse):
                started = time.perf_counter()
                answer = _post(url + example.path, example.body)
                took = (time.perf_counter() - started) * 1000
                reasons = "; ".join(reason["text"] for reason in answer["reasons"]) or "–"
                probability = answer.get("risk_score", answer.get("pd"))
                numbers = (f"{probability:.4f}", f"{answer['score']:.4f}", f"{example.batch_score:.4f}")
                table.add_row(domain.title, example.subject, answer["decision"], *numbers, reasons, f"{took:.1f}")
    console.print(table)


def _examples(domain: "Domain", warehouse: "Warehouse") -> Iterator[Example]:
    """Subjects at rising quantiles of the batch scores, in a fixed order."""
    key = domain.keys[0].name
    scores = warehouse.table(f"scores_{domain.name}")
    if domain.name == "transaction_anomaly":
        # The store holds what the windows of the newest transactions reach back to.
        day = scores.occurred_at.max().to_pyarrow().as_py().replace(hour=0, minute=0, second=0, microsecond=0)
        scores = scores.filter(scores.occurred_at >= day)
    ranked = scores.order_by(["score", key]).select(key, "score").to_pyarrow().to_pylist()
    for share in RISING:
        row = ranked[round(share * (len(ranked) - 1))]
        path, body = _REQUESTS[domain.name](warehouse, row[key])
        yield Example(row[key], path, body, row["score"])


def _transaction_request(warehouse: "Warehouse", transaction_id: str) -> tuple[str, dict[str, Any]]:
    transactions = warehouse.table("validated_transactions")
    row = transactions.filter(transactions.transaction_id == transaction_id).to_pyarrow().to_pylist()[0]
    body = {name: row[name] for name in ("transaction_id", "amount", "direction", "merchant", "country") if row[name] is not None}
    return "/v1/transactions", body | {"user_id": row["customer_id"], "timestamp": row["occurred_at"].isoformat()}


def _loan_request(warehouse: "Warehouse", loan_id: str) -> tuple[str, dict[str, Any]]:
    from finrisk_assets.loan_default.features import KEYS

    features = warehouse.table("features_loan_default")
    row = features.filter(features.loan_id == loan_id).to_pyarrow().to_pylist()[0]
    keys = {column.name for column in KEYS}
    return "/v1/loan-default", {"loan_id": loan_id, "features": {name: value for name, value in row.items() if name not in keys}}


_REQUESTS = {"transaction_anomaly": _transaction_request, "loan_default": _loan_request}


@contextmanager
def _served(settings: Settings) -> Iterator[str]:
    """Serve the newest Bento on a free loopback port for the time of the block."""
    from finrisk_assets.packaging import bentoml_home

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = settings.root / "service" / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "BENTOML_HOME": str(bentoml_home(settings)),
        "BENTOML_DO_NOT_TRACK": "true",
        "FINRISK_HOME": str(settings.home.resolve()),
        "FINRISK_SOURCE": settings.source,
    }
    command = [sys.executable, "-m", "bentoml", "serve", "finrisk:latest", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        _wait_until_ready(url, process, str(log))
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: str) -> None:
    for _ in range(READY_SECONDS * 10):
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with status {process.returncode} before it was ready; its log is {log}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"the service was not ready within {READY_SECONDS} s; its log is {log}")


def _post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return dict(json.load(response))
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from None
