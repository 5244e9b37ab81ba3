"""The demonstration: the whole graph in one process, then the built Bento, served, decides on examples from the ledger."""

import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finrisk_assets.cli import demo_tables
from finrisk_assets.cli.demo_stream import show_stream
from finrisk_assets.settings import Settings, SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from finrisk_assets.domains.base import Domain
    from finrisk_assets.graph.runs.stop_signals import StopSignals
    from finrisk_assets.graph.warehouse import Warehouse

READY_SECONDS = 60
WIDTH = 150
"""Columns of the output without a terminal."""

EXAMPLE_QUANTILES = (0.5, 0.99)
"""Quantiles of the champion's batch scores at which the examples are picked."""
TRANSACTION_QUANTILES = (0.5, 1.0)
"""The same of transactions. Fraud is rarer than one payment of a hundred: the second one is the day's riskiest."""


@dataclass(frozen=True)
class Example:
    """A subject of the ledger, the request for its decision, its batch score, and its row of the feature table."""

    subject: str
    path: str
    body: Mapping[str, Any]
    batch_score: float
    figures: Mapping[str, Any]


def run(settings: Settings, *, serve: bool = True, stream_seconds: float = 0.0, address: str = "http://127.0.0.1:3000/") -> int:
    """Run the demonstration; return the exit status: 130 or 143 where SIGINT or SIGTERM stopped it.

    Parameters
    ----------
    serve
        Whether to serve the Bento and ask it for decisions at the end.
    stream_seconds
        Seconds of transactions that a worker decides on from Kafka after that, where Java is here; 0 for none.
    address
        The first page of `make up`, which the last line names.
    """
    import dagster as dg
    from rich.console import Console

    from finrisk_assets.graph.runs.stop_signals import StopSignals

    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    status = 1
    with StopSignals() as signals:
        try:
            status = _run(settings, console, signals, serve=serve, stream_seconds=stream_seconds, address=address)
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            signals.settle()
    if signals.received:
        console.print(f"\nStopped by {signal.Signals(signals.received).name}: nothing was made after it.")
    return signals.exit_status or status


def _run(settings: Settings, console: "Console", signals: "StopSignals", *, serve: bool, stream_seconds: float, address: str) -> int:
    from finrisk_assets.graph.stages.common import champion_folder
    from finrisk_assets.graph.warehouse import Warehouse
    from finrisk_assets.ledger import sources

    began = time.perf_counter()
    console.print(f"[bold]finrisk[/]  source [bold]{settings.source}[/], everything below {settings.home / settings.ledger_name}\n")
    domains, is_sound = _materialise(settings, console, signals)
    if signals.received:
        return 1
    demo_tables.print_parity(settings, console)
    domains = [domain for domain in domains if champion_folder(domain, settings).is_dir()]
    warehouse = Warehouse.of(settings)
    if not domains:
        demo_tables.print_quarantine(sources.load(settings).tables, warehouse, console)
        return 1
    if serve:
        _decide(settings, domains, warehouse, console, signals)
    # Without the history that serving loads, a stream would decide on people of whom nothing is known.
    if serve and stream_seconds and not signals.received and any(domain.name == "transaction_anomaly" for domain in domains):
        show_stream(settings, console, signals, stream_seconds)
    demo_tables.print_model_figures(domains, warehouse, console)
    demo_tables.print_consistency(warehouse, console)
    demo_tables.print_quarantine(sources.load(settings).tables, warehouse, console)
    if not is_sound:
        return 1
    console.print(f"\nDone in {time.perf_counter() - began:.0f} s. Next: run `make up`, and open {address}")
    return 0


def _materialise(settings: Settings, console: "Console", signals: "StopSignals") -> "tuple[list[Domain], bool]":
    """Materialise the whole graph in this process, with a line per stage and per domain that is left out.

    Return the domains whose Bento was built, none without a Bento, and whether nothing failed but what refuses a domain.
    """
    import dagster as dg
    from rich.markup import escape

    from finrisk_assets.domains.registry import domains_of, left_out
    from finrisk_assets.graph import automation
    from finrisk_assets.graph.build import build_definitions
    from finrisk_assets.graph.refusals import read_outcome
    from finrisk_assets.graph.runs.in_process import run_job
    from finrisk_assets.ledger import sources

    _silence_libraries()
    source = sources.load(settings)
    # A wrong column is told before anything runs.
    for raw_table in source.tables.values():
        raw_table.check_columns()
    definitions = build_definitions(settings)
    for domain, reason in left_out(source).items():
        console.print(f"  [yellow]–[/] {domain} is left out: {reason}")
    job = definitions.resolve_job_def(automation.EVERYTHING)
    history = settings.root / "dagster" / "history"
    with (
        _tracking_prepared(settings),
        dg.DagsterInstance.get() as instance,
        keep_event_logs_open(history),
        _unpartitioned_assets_planned_once(),
    ):
        result = run_job(job, instance, run_config={"loggers": {"progress": {}}}, location="finrisk_assets.definitions")
    domains = domains_of(source)
    if signals.received:
        return [], False
    outcome = read_outcome(result, domains)
    for title, reason in outcome.left_out.items():
        console.print(f"  [yellow]–[/] {title} is left out: {escape(reason)}")
    for step, message in outcome.errors.items():
        console.print(f"\n[red]{step}[/]: {escape(message)}")
    has_bento = any(event.asset_key == dg.AssetKey("bento") for event in result.get_asset_materialization_events())
    is_sound = result.success or (bool(outcome.left_out) and not outcome.errors)
    return domains if has_bento else [], is_sound


@contextmanager
def _tracking_prepared(settings: Settings) -> Iterator[None]:
    """Let MLflow create its database in a process of its own while the ledger is read: the revisions of its tables take seconds."""
    from finrisk_assets.graph.build import build_resources

    tracking = build_resources(settings)["tracking"]
    code = "import sys; from finrisk_assets.graph.resources import Tracking; Tracking(**dict(zip(sys.argv[1::2], sys.argv[2::2]))).client()"
    named = [word for name in ("uri", "artifacts", "experiment") for word in (name, getattr(tracking, name))]
    with subprocess.Popen([sys.executable, "-c", code, *named], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        yield


@contextmanager
def keep_event_logs_open(history: Path) -> Iterator[None]:
    """Keep Dagster's event logs open for the time of the block: a connection to each, and one SQLAlchemy engine per file.

    Dagster opens and closes a log for each event, several hundred where assets have months. SQLite writes its log back into the database
    whenever the last connection closes (42 s against 17 s for 325 months of assets on a busy disk), and a new engine compiles each
    statement again. A power cut may take the last events of the run, which has died of it: nothing waits for the disk after each.
    """
    from dagster._core.storage.event_log.sqlite import sqlite_event_log
    from sqlalchemy import event

    create: Any = sqlite_event_log.create_engine
    engines: dict[str, Any] = {}
    held: set[Path] = set()

    def hold(file: Path) -> None:
        if file not in held and file.exists():
            held.add(file)
            connection = stack.enter_context(closing(sqlite3.connect(file, check_same_thread=False)))
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()

    def cached_engine(url: str, **how: Any) -> Any:
        if url in engines:
            hold(Path(engines[url].url.database))
        else:
            engines[url] = create(url, **how)
            event.listen(engines[url], "connect", lambda connection, _: connection.execute("PRAGMA synchronous = NORMAL"))
        return engines[url]

    event_log_module: Any = sqlite_event_log
    event_log_module.create_engine = cached_engine
    try:
        with ExitStack() as stack:
            hold(history / "runs.db")
            hold(history / "runs" / "index.db")
            yield
    finally:
        event_log_module.create_engine = create


@contextmanager
def _unpartitioned_assets_planned_once() -> Iterator[None]:
    """Plan an asset without months once, while the block runs.

    Dagster plans every asset of a run for each of its months, also one that has none: 1,700 events in place of 380 for 25 months.
    """
    from dagster._core.storage.dagster_run import DagsterRun

    resolve: Any = DagsterRun.get_resolved_partitions_subset_for_events
    run_class: Any = DagsterRun
    run_class.get_resolved_partitions_subset_for_events = lambda run, months: None if months is None else resolve(run, months)
    try:
        yield
    finally:
        run_class.get_resolved_partitions_subset_for_events = resolve


def _silence_libraries() -> None:
    """Silence log lines and warnings of libraries, so that only the lines of the stages are printed."""

    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    # Dagster warns of each check of a domain that is left out, several times.
    logging.getLogger("dagster._core.execution.plan.active").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=UserWarning)


def _decide(settings: Settings, domains: "list[Domain]", warehouse: "Warehouse", console: "Console", signals: "StopSignals") -> None:
    """Serve the built Bento and print what it decides on the examples."""
    from finrisk_assets.operations import load_history

    rows = []
    began = time.perf_counter()
    with _served(settings, signals) as (url, wait_until_ready):
        # The store is filled while the service starts.
        loaded = load_history.load(settings)
        console.print(f"  [green]✓[/] {'ledger → store':<34} {time.perf_counter() - began:6.1f} s   {loaded}")
        wait_until_ready()
        console.print(f"  [green]✓[/] {'bento served':<34} {time.perf_counter() - began:6.1f} s   {url}\n")
        for domain in domains:
            if domain.name not in REQUEST_BODIES:
                continue
            for example in _examples(domain, warehouse, _feature_names(domain, settings)):
                started = time.perf_counter()
                answer = _post(url + example.path, example.body)
                duration_ms = (time.perf_counter() - started) * 1000
                cells = (*_answer_cells(domain, answer), f"{example.batch_score:.4f}", f"{duration_ms:.1f}")
                rows.append(demo_tables.DecisionRow((domain.title, example.subject, *cells), _why(answer, example.figures)))
    demo_tables.print_decisions(rows, console)


def _answer_cells(domain: "Domain", answer: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return decision, probability and score of an answer as text."""
    from bento.decisions.domains import OUTCOME_FIELDS

    probability_field, decision_field = OUTCOME_FIELDS[domain.name]
    probability = answer[probability_field]
    return str(answer[decision_field]), "–" if probability is None else f"{probability:.4f}", f"{answer['score']:.4f}"


def _why(answer: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """Return the answer's own reason where it has one (why there is no offer), then what moved its score, each beside its figure.

    A figure is that of the stored feature table, which batch scoring computed; of an offer's terms, which no table holds, the answer's own.
    """
    own_reason = [answer["reason"].rstrip(".")] if answer.get("reason") else []
    of_row = {row["feature"]: row["value"] for row in answer["explanation"]["contributions"]}
    lines = []
    for reason in answer["reasons"]:
        value = figures.get(reason["feature"])
        value = of_row.get(reason["feature"]) if value is None else value
        lines.append(f"{reason['text']} ({reason['feature']} {'–' if value is None else f'{value:.4g}'})")
    return "\n".join([*own_reason, *lines]) or "–"


def _feature_names(domain: "Domain", settings: Settings) -> frozenset[str]:
    """Return the features of a domain's champion: a model does without those that no training row has."""
    from finrisk_assets.graph.stages.common import champion_folder
    from finrisk_assets.scoring.bundle import Bundle

    return frozenset(feature.name for feature in Bundle.load(champion_folder(domain, settings)).features)


def _examples(domain: "Domain", warehouse: "Warehouse", feature_names: frozenset[str]) -> Iterator[Example]:
    """Yield subjects at rising quantiles of the newest batch scores, in a fixed order, with the features that the model asks for."""
    from bento.decisions.domains import DOMAINS

    key, path, body = domain.keys[0].name, DOMAINS[domain.name].route, REQUEST_BODIES[domain.name]
    scores = warehouse.table(f"scores_{domain.name}")
    if domain.name == "loan_default":
        scores = scores.filter(~scores.loan_id.contains("@"))
    elif domain.decision_time == "occurred_at":
        # The store holds what the windows of the newest transactions reach back to.
        day = scores.occurred_at.max().to_pyarrow().as_py().replace(hour=0, minute=0, second=0, microsecond=0)
        scores = scores.filter(scores.occurred_at >= day)
    elif (newest := scores[domain.decision_time].max().to_pyarrow().as_py()) is not None:
        scores = scores.filter(scores[domain.decision_time] == newest)
    ranked = scores.order_by(["score", key]).to_pyarrow().to_pylist()
    for share in TRANSACTION_QUANTILES if domain.name == "transaction_anomaly" else EXAMPLE_QUANTILES:
        row = ranked[round(share * (len(ranked) - 1))]
        request = body(warehouse, row)
        if "features" in request:
            request["features"] = {name: value for name, value in request["features"].items() if name in feature_names}
        yield Example(row[key], path, request, row["score"], _stored_row(domain.group, key, warehouse, row))


def _transaction(warehouse: "Warehouse", scored: Mapping[str, Any]) -> dict[str, Any]:
    transactions = warehouse.table("validated_transactions")
    row = transactions.filter(transactions.transaction_id == scored["transaction_id"]).to_pyarrow().to_pylist()[0]
    body = {name: row[name] for name in ("transaction_id", "amount", "direction", "merchant", "country") if row[name] is not None}
    return body | {"user_id": row["customer_id"], "timestamp": row["occurred_at"].isoformat()}


def _loan(warehouse: "Warehouse", scored: Mapping[str, Any]) -> dict[str, Any]:
    return {"loan_id": scored["loan_id"], "features": _features("loan_default", "loan_id", warehouse, scored)}


def _features(domain: str, key: str, warehouse: "Warehouse", scored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stored features of a scored row."""
    from finrisk_assets.domains.registry import DOMAINS

    keys = {column.name for other in DOMAINS if other.name == domain for column in other.keys}
    return {name: value for name, value in _stored_row(domain, key, warehouse, scored).items() if name not in keys}


def _stored_row(domain: str, key: str, warehouse: "Warehouse", scored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of the feature table of a scored row."""
    features = warehouse.table(f"features_{domain}")
    return dict(features.filter(features[key] == scored[key]).to_pyarrow().to_pylist()[0])


def _customer(warehouse: "Warehouse", scored: Mapping[str, Any]) -> dict[str, Any]:
    return {"customer_id": scored["customer_id"]}


REQUEST_BODIES: "Mapping[str, Callable[[Warehouse, Mapping[str, Any]], dict[str, Any]]]" = {
    "transaction_anomaly": _transaction,
    "loan_default": _loan,
    "spending_risk": _customer,
    "cashflow": _customer,
    "loan_offers": _customer,
}
"""Domain -> the function that builds a request's body from a row of the domain's batch scores; other domains are not shown."""


@contextmanager
def _served(settings: Settings, signals: "StopSignals") -> Iterator[tuple[str, Callable[[], None]]]:
    """Serve the newest Bento on a free loopback port for the block; yield its address and a function that waits until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = settings.root / "service" / "serve.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "BENTOML_HOME": str(settings.bentoml_home),
        "BENTOML_DO_NOT_TRACK": "true",
        "FINRISK_HOME": str(settings.home.resolve()),
        "FINRISK_SOURCE": settings.source,
    }
    command = [sys.executable, "-m", "bentoml", "serve", "finrisk:latest", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield url, lambda: _wait_until_ready(url, process, str(log))
    finally:
        signals.settle()
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
        if error.code == 401:
            raise SettingsError(
                "the service's store holds API keys, so it answers nobody without one: give the demonstration another FINRISK_HOME"
            ) from None
        raise RuntimeError(f"{url} answered {error.code}: {error.read().decode(errors='replace')}") from None
