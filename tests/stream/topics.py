"""The three topics of a test, with what was sent and what came out."""

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from bento.decisions.engine import Decisions
from bento.decisions.models import Champions
from bento.store.session import Store, open_store
from bento.stream.kafka_clients import create_topics, dead_letter_topic
from bento.stream.stream_metrics import StreamMetrics
from bento.stream.worker import StreamWorker
from finrisk_assets.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
DEADLINE_S = 120.0


def wait_until(is_true: Callable[[], Any], what: str) -> None:
    """Wait until something is true; fail after a long time, which no test needs."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def wait_for_number(read: Callable[[], int], is_reached: Callable[[int], bool], what: str) -> None:
    """Wait until a number is as it should be; fail where it does not change for a long time."""
    seen, deadline = -1, 0.0
    while not is_reached(number := read()):
        if number != seen:
            seen, deadline = number, time.monotonic() + DEADLINE_S
        assert time.monotonic() < deadline, f"{what}: {number}"
        time.sleep(0.05)


class Stream:
    """Three topics of their own on a broker, and a store."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self.settings = settings
        create_topics(settings, partitions, 1)
        properties = {"enable.idempotence": True, "queue.buffering.max.messages": 1_000_000, "reconnect.backoff.max.ms": 500}
        self._producer = Producer({"bootstrap.servers": settings.kafka, "log_level": 0, **properties})

    def read_end(self, topic: str) -> int:
        """Return the offset behind the last message of a topic's first partition."""
        consumer = Consumer({"bootstrap.servers": self.settings.kafka, "group.id": uuid4().hex, "log_level": 0})
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)[1]
        finally:
            consumer.close()

    def send(self, bodies: Sequence[Mapping[str, Any] | bytes | None]) -> None:
        """Send messages, keyed by their users: bodies as JSON, bytes and tombstones as they are."""
        for body in bodies:
            value = json.dumps(body).encode() if isinstance(body, dict) else body
            key = str(body["user_id"]) if isinstance(body, dict) and "user_id" in body else "none"
            self._producer.poll(0.0)
            self._producer.produce(self.settings.stream_topic, value, key)
        assert self._producer.flush(60) == 0

    def read(self, topic: str) -> list[Message]:
        """Return all committed messages of a topic."""
        return list(self.walk(topic))

    def walk(self, topic: str) -> Iterator[Message]:
        """Yield all committed messages of a topic."""
        properties = {"bootstrap.servers": self.settings.kafka, "group.id": uuid4().hex, "enable.auto.commit": False, "log_level": 0}
        consumer = Consumer(properties | {"auto.offset.reset": "earliest", "isolation.level": "read_committed"})
        try:
            partitions = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic, 10).topics[topic].partitions]
            consumer.assign(partitions)
            ends = {each.partition: consumer.get_watermark_offsets(each, 10)[1] for each in partitions}
            while any(consumer.position([each])[0].offset < ends[each.partition] and ends[each.partition] for each in partitions):
                yield from (message for message in consumer.consume(1_000, 0.2) if message.error() is None)
        finally:
            consumer.close()

    def published(self) -> list[dict[str, Any]]:
        """Return all published decisions, each with the key of its message as `key`."""
        return [json.loads(message.value()) | {"key": message.key().decode()} for message in self.read(self.settings.stream_decisions)]

    def dead_letters(self) -> list[tuple[bytes, dict[str, str]]]:
        """Return all dead letters with their headers."""
        letters = self.read(dead_letter_topic(self.settings))
        return [(letter.value(), {name: value.decode() for name, value in letter.headers()}) for letter in letters]

    def lag(self) -> int:
        """Return the number of messages that are not published yet, by the group's offsets in Kafka."""
        consumer = Consumer({"bootstrap.servers": self.settings.kafka, "group.id": self.settings.stream_group, "log_level": 0})
        try:
            topic = self.settings.stream_topic
            partitions = [TopicPartition(topic, number) for number in consumer.list_topics(topic, 10).topics[topic].partitions]
            committed = consumer.committed(partitions, 10)
            return sum(consumer.get_watermark_offsets(each, 10)[1] - max(0, each.offset) for each in committed)
        finally:
            consumer.close()

    def shares(self) -> list[int]:
        """Return the number of partitions of each member of the workers' group, as the broker knows them."""
        client = AdminClient({"bootstrap.servers": self.settings.kafka, "log_level": 0})
        group = client.describe_consumer_groups([self.settings.stream_group])[self.settings.stream_group].result(10)
        return sorted(len(member.assignment.topic_partitions) for member in group.members)

    def wait_for_all(self) -> None:
        """Wait until all messages are published."""
        self.wait_for_lag(0)

    def wait_for_lag(self, number: int) -> None:
        """Wait until no more than a number of messages are left to publish."""
        wait_for_number(self.lag, lambda lag: lag <= number, "messages are left")


class WorkerThread:
    """A worker in a thread of this process."""

    def __init__(self, settings: Settings, champions: Champions, store: Store) -> None:
        self.metrics = StreamMetrics()
        self.worker = StreamWorker(settings, Decisions.of(champions, store, settings.bentoml_home / "models"), self.metrics)
        self._error: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as error:
            self._error.append(error)

    def stop(self) -> None:
        self.worker.stop()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        if self._error:
            raise self._error[0]

    def count(self, fate: str) -> int:
        return int(self.metrics.shared.registry.get_sample_value("finrisk_stream_messages_total", {"fate": fate}) or 0)


@contextmanager
def working(stream: Stream, champions: Champions, **options: Any) -> Iterator[WorkerThread]:
    """Run a worker in a thread for the length of a block."""
    with closing(open_store(stream.settings, **options)) as store:
        thread = WorkerThread(stream.settings, champions, store)
        try:
            yield thread
        finally:
            thread.stop()


class WorkerProcess:
    """A worker as an operator starts it."""

    def __init__(self, settings: Settings, models: Path, log: Path) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        foreign = ("FINRISK_", "PYTHONPATH", "BENTOML_", "OTEL_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        environment |= {"BENTOML_HOME": str(models), "BENTO_PATH": "bento.service:FinRisk", "PYTHONPATH": str(REPOSITORY)}
        names = ("home", "kafka", "store_url", "stream_topic", "stream_decisions", "stream_group", "stream_batch")
        environment |= {f"FINRISK_{name.upper()}": str(getattr(settings, name)) for name in names if getattr(settings, name)}
        self.log = log
        with log.open("a") as out:
            command = [sys.executable, "-m", "bento.cli.streaming"]
            environment["FINRISK_STREAM_PORT"] = str(self.port)
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=out, stderr=out)

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a probe; status 0 where nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.get("/readyz")[0] == 200

        wait_until(is_ready, self.log.read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def processes(*workers: WorkerProcess) -> Iterator[None]:
    """End workers that still run, after a block."""
    try:
        yield
    finally:
        for worker in workers:
            if worker.process.poll() is None:
                worker.kill()


def needs_own_broker(broker: Any) -> None:
    if not broker.is_own:
        pytest.skip("the broker of FINRISK_KAFKA is not the test's to kill")
