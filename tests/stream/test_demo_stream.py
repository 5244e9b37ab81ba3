"""Tests of the demonstration's stream: transactions of the ledger, decided by a worker on a Kafka of its own and counted as they come."""

import io
import re
from contextlib import closing

import pytest
from rich.console import Console

from bento.store.session import open_store
from finrisk_assets.cli import demo_stream
from finrisk_assets.graph import packaging
from finrisk_assets.graph.runs.stop_signals import StopSignals
from finrisk_assets.settings import Settings
from tests.conftest import require
from tests.service.conftest import write_transaction_bundle
from tests.stream.test_simulate import write_ledger


def show(settings: Settings, seconds: float, *, terminal: bool) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=150, soft_wrap=True, color_system=None)
    with StopSignals() as signals:
        demo_stream.show_stream(settings, console, signals, seconds)
    return screen.getvalue()


def count_decisions(settings: Settings) -> int:
    with closing(open_store(settings)) as store:
        return sum(1 for _ in store.decisions())


def test_the_stream_is_counted_as_it_comes_at_a_terminal_and_in_a_pipe(tmp_path, monkeypatch):
    require("java")
    monkeypatch.setattr(demo_stream, "COUNT_INTERVAL_S", 0.3)
    # Those of the machine's own Kafka, of which the demonstration must not make use.
    for name, value in (("KAFKA", "kafka.invalid:9092"), ("KAFKA_CONFIG", str(tmp_path / "none")), ("STREAM_TOPIC", "theirs")):
        monkeypatch.setenv(f"FINRISK_{name}", value)
    monkeypatch.setenv("BENTO_PATH", "bento.service:FinRisk")  # in place of a built one
    settings = Settings(home=tmp_path / "home", kafka="kafka.invalid:9092", kafka_config=tmp_path / "none", stream_topic="theirs")
    write_ledger(settings, 400)
    packaging.store_model(settings.bentoml_home, "transaction_anomaly", write_transaction_bundle(tmp_path / "bundle"), {})

    piped = show(settings, 2, terminal=False)
    assert re.search(r"✓ stream +[\d.]+ s   200 transactions decided, 100 a second: [\d,]+ (allow|review|block)", piped), piped
    counts = [int(number) for number in re.findall(r"^    (\d+) of 200 transactions of the stream are decided$", piped, re.MULTILINE)]
    assert len(counts) > 2 and counts == sorted(counts) and counts[-1] > counts[0], piped
    assert count_decisions(settings) == 200

    # A second demonstration has a broker of its own again: its topic begins anew.
    shown = show(settings, 1, terminal=True)
    assert "of 100 transactions of the stream are decided" in shown and "✓ stream" in shown, shown
    assert count_decisions(settings) == 300


@pytest.mark.parametrize("java", [None, "11.0.2"])
def test_without_java_a_line_says_why_there_is_no_stream(tmp_path, monkeypatch, java):
    if java is not None:
        program = tmp_path / "java"
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{java}\"' >&2\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if java else str(tmp_path))

    said = show(Settings(home=tmp_path / "home"), 10, terminal=False).strip()

    here = "java is 11" if java else "there is none"
    assert said == f"– the stream is left out: Kafka needs Java 17 or newer; {here}"
