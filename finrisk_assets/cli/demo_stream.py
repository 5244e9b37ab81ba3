"""The demonstration's stream: Kafka on loopback for some seconds, the ledger's newest transactions in, decisions out, counted live."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from finrisk_assets.graph.runs.stop_signals import StopSignals

RATE = 100.0
"""Transactions a second."""
START = Path(__file__).resolve().parents[2] / "deploy" / "kafka" / "start.py"
WAIT_S = 120.0
"""Seconds in which the broker, and then the worker, must answer; the first time Maven fetches Kafka's jars meanwhile."""
PATIENCE_S = 20.0
"""Seconds after the last transaction in which the last decision must come."""
COUNT_INTERVAL_S = 1.0
"""Seconds between two counts where there is no terminal, on which one line counts."""
TOPIC = "demo-transactions"
"""The demonstration's topic. The store keeps its place in a topic, so those of production must not be read from where its broker ended."""


class NoStreamError(RuntimeError):
    """The reason why there is no stream here."""


def show_stream(settings: Settings, console: "Console", signals: "StopSignals", seconds: float) -> None:
    """Let a worker decide on a stream for some seconds and print the count; where there is no Kafka here, print a line that says why."""
    from rich.markup import escape

    began = time.perf_counter()
    try:
        line = _stream(settings, console, signals, seconds)
    except NoStreamError as reason:
        console.print(f"\n  [yellow]–[/] the stream is left out: {escape(str(reason))}")
        return
    console.print(f"\n  [green]✓[/] {'stream':<34} {time.perf_counter() - began:6.1f} s   {line}")


def _stream(settings: Settings, console: "Console", signals: "StopSignals", seconds: float) -> str:
    from bento.stream.kafka_clients import StreamError, create_topics
    from finrisk_assets.operations.simulate_stream import SendReport, SimulateStreamError, read_ledger, send_messages

    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="finrisk-kafka-")))
        log = settings.root / "service" / "stream.log"
        address = stack.enter_context(_broker(folder, log))
        streamed = replace(
            settings,
            kafka=address,
            kafka_config=None,
            stream_topic=TOPIC,
            stream_decisions=f"{TOPIC}-decisions",
            stream_group=TOPIC,
            stream_host="127.0.0.1",
            stream_port=_free_port(),
        )
        try:
            create_topics(streamed, 1, 1)
            stack.enter_context(_worker(streamed, log))
            messages = list(read_ledger(streamed, round(RATE * seconds), datetime.now(UTC).replace(tzinfo=None)))
            reports: list[SendReport] = []
            sender = threading.Thread(target=lambda: reports.append(send_messages(streamed, messages, RATE, None)), daemon=True)
            stack.callback(signals.settle)  # before the processes are ended
            decisions = _count_decisions(streamed, console, len(messages), sender)
        except (StreamError, SimulateStreamError) as error:
            raise NoStreamError(str(error)) from None
    named = ", ".join(f"{number:,} {decision}" for decision, number in sorted(decisions.items()))
    number = decisions.total()
    if number < len(messages):
        raise NoStreamError(f"{number:,} of {len(messages):,} decisions came in time; its log is {log}")
    return f"{number:,} transactions decided, {RATE:,.0f} a second: {named}"


def _count_decisions(settings: Settings, console: "Console", expected: int, sender: threading.Thread) -> Counter[str]:
    """Start sending, count the decisions on the screen as they are published, and return the number of each."""
    from bento.stream.kafka_clients import open_consumer

    consumer = open_consumer(settings, f"{settings.stream_group}-demo")
    consumer.subscribe([settings.stream_decisions])
    decisions = Counter[str]()
    sender.start()
    counted_at = time.monotonic()
    deadline = counted_at + expected / RATE + PATIENCE_S
    try:
        with console.status("stream") as status:
            while decisions.total() < expected and time.monotonic() < deadline:
                for message in consumer.consume(500, 0.1):
                    if message.error() is None:
                        decisions[json.loads(message.value() or b"{}")["decision"]] += 1
                count = f"{decisions.total():,} of {expected:,} transactions of the stream are decided"
                if console.is_terminal:
                    status.update(count)
                elif time.monotonic() - counted_at >= COUNT_INTERVAL_S:
                    counted_at = time.monotonic()
                    console.print(f"    {count}")
    finally:
        consumer.close()
    sender.join(PATIENCE_S)
    return decisions


@contextmanager
def _broker(folder: Path, log: Path) -> Iterator[str]:
    """Run Kafka for the block and yield its address."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from bento.stream.kafka_clients import METADATA_TIMEOUT_S

    if not START.is_file():
        raise NoStreamError(f"{START} is not here; run the demonstration in the repository")
    spec = importlib.util.spec_from_file_location("start_kafka", START)
    assert spec is not None and spec.loader is not None
    start: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(start)
    java = start.java_version()
    if java is None or java < start.MIN_JAVA:
        raise NoStreamError(f"Kafka needs Java {start.MIN_JAVA} or newer; {'there is none' if java is None else f'java is {java}'}")
    port, controller_port = _free_port(), _free_port()
    address = f"127.0.0.1:{port}"
    command = [sys.executable, str(START), str(folder / "data"), "--port", str(port), "--controller-port", str(controller_port)]
    with _process(command, {}, log) as process:
        client = AdminClient({"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 250})

        def answers() -> bool:
            with suppress(KafkaException):
                return bool(client.list_topics(timeout=min(0.5, METADATA_TIMEOUT_S)))
            return False

        _wait(answers, process, log)
        yield address


@contextmanager
def _worker(settings: Settings, log: Path) -> Iterator[None]:
    """Run a worker of the stream for the block, from when it is ready."""
    environment = {
        "FINRISK_HOME": str(settings.home.resolve()),
        "FINRISK_SOURCE": settings.source,
        "FINRISK_KAFKA": settings.kafka,
        "FINRISK_KAFKA_CONFIG": "",
        "FINRISK_STREAM_TOPIC": settings.stream_topic,
        "FINRISK_STREAM_DECISIONS": settings.stream_decisions,
        "FINRISK_STREAM_GROUP": settings.stream_group,
        "FINRISK_STREAM_HOST": settings.stream_host,
        "FINRISK_STREAM_PORT": str(settings.stream_port),
        "BENTOML_HOME": str(settings.bentoml_home.resolve()),
    }

    def is_ready() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{settings.stream_port}/readyz", timeout=5):
            return True
        return False

    with _process([sys.executable, "-m", "bento.cli.streaming"], environment, log) as process:
        _wait(is_ready, process, log)
        yield


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(is_true: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process answers.

    Raises
    ------
    NoStreamError
        With the last line of its log where it ended, or did not answer in time.
    """
    deadline = time.monotonic() + WAIT_S
    while not is_true():
        if process.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise NoStreamError(lines[-1].removeprefix("Error: ") if lines else f"it ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise NoStreamError(f"it did not answer within {WAIT_S:.0f} s; its log is {log}")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
