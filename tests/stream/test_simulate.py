"""Tests of `finrisk simulate stream` and of the other commands: what they send and print, and their errors."""

import json
import time
from datetime import datetime, timedelta
from pathlib import Path

import ibis
import pandas as pd
import pytest
from click.testing import CliRunner

from bento.stream.kafka_clients import StreamError
from bento.stream.stream_process import run_process
from finrisk_assets.cli.main import cli
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.operations.simulate_stream import StreamMessage, send_messages
from finrisk_assets.settings import Settings
from tests.stream.outcome import make_transactions
from tests.stream.topics import Stream, working


def run(stream: Stream | None, *words: str, **environment: str):
    if stream is not None:
        names = ("home", "kafka", "stream_topic", "stream_decisions", "stream_group")
        environment |= {f"FINRISK_{name.upper()}": str(getattr(stream.settings, name)) for name in names}
    return CliRunner().invoke(cli, [*words], env=environment)


def write_ledger(settings: Settings, number: int) -> pd.DataFrame:
    bodies = make_transactions(number)
    table = pd.DataFrame(
        {
            "transaction_id": [body["transaction_id"] for body in bodies],
            "customer_id": [body["user_id"] for body in bodies],
            "occurred_at": [datetime.fromisoformat(body["timestamp"]) for body in bodies],
            "amount": [body["amount"] for body in bodies],
            "direction": "debit",
            "merchant": [body["merchant"] for body in bodies],
        }
    )
    settings.root.mkdir(parents=True)
    warehouse = Warehouse.of(settings)
    warehouse.store("validated_transactions", ibis.memtable(table.sample(frac=1, random_state=1)))
    warehouse.drop_connection()
    return table


def test_the_ledgers_newest_transactions_go_on_from_now(new_stream, champions):
    stream = new_stream()
    ledger = write_ledger(stream.settings, 50)

    done = run(stream, "simulate", "stream", "--as-fast-as-possible", "--limit", "20")

    assert done.exit_code == 0, done.output
    assert "20 transactions sent in" in done.output
    bodies = [json.loads(message.value()) for message in stream.read(stream.settings.stream_topic)]
    times = [datetime.fromisoformat(body["timestamp"]) for body in bodies]
    newest = ledger.sort_values("occurred_at").tail(20)
    assert abs(times[0] - datetime.now()) < timedelta(days=1)
    assert [moment - times[0] for moment in times] == list(newest.occurred_at - newest.occurred_at.iloc[0])
    assert [body["transaction_id"].split("@")[0] for body in bodies] == list(newest.transaction_id)
    with working(stream, champions) as thread:
        stream.wait_for_all()
    assert thread.count("decided") == 20


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_is_sent(new_stream, champions, tmp_path, suffix):
    stream, bodies, file = new_stream(), make_transactions(10), tmp_path / f"file.{suffix}"
    if suffix == "jsonl":
        file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    else:
        rows = [{**body, "customer_id": body["user_id"], "occurred_at": datetime.fromisoformat(body["timestamp"])} for body in bodies]
        pd.DataFrame(rows).assign(direction="debit").drop(columns=["user_id", "timestamp"]).to_parquet(file)

    done = run(stream, "simulate", "stream", "--rate", "1000", "--from", str(file))

    assert done.exit_code == 0, done.output
    with working(stream, champions) as thread:
        stream.wait_for_all()
    assert thread.count("decided") == 10
    if suffix == "jsonl":
        assert [json.loads(message.value()) for message in stream.read(stream.settings.stream_topic)] == bodies


def test_a_rate_is_kept_and_a_duration_ends(new_stream):
    stream, reports = new_stream(), []
    endless = (StreamMessage(b"1", b"{}") for _ in iter(int, 1))
    began = time.monotonic()

    sent = send_messages(stream.settings, endless, 100, 2.5, reports.append)

    assert sent.sent == 250
    assert time.monotonic() - began >= 2.4
    assert len(reports) >= 2
    assert len(stream.read(stream.settings.stream_topic)) == 250


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rate", "5", "--as-fast-as-possible"), "give --rate, or --as-fast-as-possible"),
        ((), "give --rate, or --as-fast-as-possible"),
        (("--rate", "5", "--from", "missing.jsonl"), "missing.jsonl cannot be read: No such file or directory"),
        (("--rate", "5"), "the warehouse of the source simulator has no validated_transactions: run `make demo` first, or name a file"),
    ],
)
def test_mistakes_are_named_in_one_sentence(new_stream, words, message):
    done = run(new_stream(), "simulate", "stream", *words)

    assert done.exit_code != 0
    assert message in done.output
    assert "Traceback" not in done.output


def test_topics_are_created_once(new_stream):
    settings = new_stream().settings
    environment = {"FINRISK_KAFKA": settings.kafka, "FINRISK_STREAM_TOPIC": f"{settings.stream_topic}-2"}

    first = run(None, "stream", "topics", "--partitions", "2", **environment, FINRISK_HOME=str(settings.home))
    second = run(None, "stream", "topics", **environment, FINRISK_HOME=str(settings.home))

    assert f"created: {settings.stream_topic}-2" in first.output
    assert second.output == "all topics are there\n"


def test_no_broker_is_one_sentence(tmp_path: Path):
    done = run(None, "stream", "redrive", FINRISK_KAFKA="127.0.0.1:1", FINRISK_HOME=str(tmp_path))

    assert done.exit_code == 1
    assert "no Kafka broker answers at FINRISK_KAFKA=127.0.0.1:1" in done.output


def test_the_schema_is_printed(tmp_path: Path):
    done = run(None, "stream", "schema", FINRISK_HOME=str(tmp_path))

    assert json.loads(done.output)["required"] == ["user_id", "amount", "timestamp", "transaction_id"]


def test_dead_letters_are_sent_again_by_the_command(new_stream, champions):
    stream = new_stream()
    stream.send([b"{"])
    with working(stream, champions):
        stream.wait_for_all()

    assert run(stream, "stream", "redrive").output == "1 dead letters sent again, 0 passed over\n"
    assert [message.value() for message in stream.read(stream.settings.stream_topic)] == [b"{", b"{"]


def test_a_worker_reads_its_files_from_the_folder_where_it_starts(monkeypatch, tmp_path):
    """BentoML changes the folder when it loads a Bento, and a Bento has a policy of the same relative name."""
    monkeypatch.chdir(tmp_path)
    seen: list[Settings] = []

    def refuse(settings: Settings) -> None:
        seen.append(settings)
        raise StreamError("seen")

    monkeypatch.setattr("bento.stream.stream_process.check_topics", refuse)
    with pytest.raises(StreamError, match="seen"):
        run_process(Settings(home=Path("home"), policy=Path("policy.yaml")), "finrisk:latest")

    assert (seen[0].home, seen[0].policy) == (tmp_path / "home", tmp_path / "policy.yaml")
