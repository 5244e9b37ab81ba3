"""Apache Kafka for tests: started by deploy/kafka/start.py, or the one that FINRISK_KAFKA names."""

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

START = Path(__file__).parents[2] / "deploy" / "kafka" / "start.py"
WAIT_S = 60.0

_spec = importlib.util.spec_from_file_location("start_kafka", START)
start_kafka = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(start_kafka)


class Broker:
    """A broker in a process of its own, or a foreign one, which cannot be killed."""

    def __init__(self, folder: Path | None = None, address: str = "") -> None:
        self._folder = folder
        self.address = address
        self._process: subprocess.Popen[bytes] | None = None
        if folder is not None:
            self._ports = start_kafka.free_port(), start_kafka.free_port()
            self.address = f"127.0.0.1:{self._ports[0]}"
            self.start()

    @property
    def is_own(self) -> bool:
        return self._folder is not None

    def start(self) -> float:
        """Start the broker and return the seconds until it answers."""
        began = time.monotonic()
        port, controller_port = map(str, self._ports)
        command = [sys.executable, str(START), str(self._folder), "--port", port, "--controller-port", controller_port]
        log = (self._folder.parent / f"{self._folder.name}.log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        client = AdminClient({"bootstrap.servers": self.address, "log_level": 0, "reconnect.backoff.max.ms": 100})
        while True:
            assert self._process.poll() is None, Path(log.name).read_text()
            assert time.monotonic() - began < WAIT_S, Path(log.name).read_text()
            try:
                client.list_topics(timeout=0.2)
                return time.monotonic() - began
            except KafkaException:
                time.sleep(0.02)

    def kill(self) -> None:
        """End the broker as a failure of its machine would."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)


@contextmanager
def started(folder: Path) -> Iterator[Broker]:
    """Yield the broker of FINRISK_KAFKA, or one that runs for the length of a block.

    Without both a Java and that variable, skip with the reason; in CI, fail.
    """
    if address := os.environ.get("FINRISK_KAFKA"):
        yield Broker(address=address)
        return
    java = start_kafka.java_version()
    if java is None or java < start_kafka.MIN_JAVA:
        message = f"no Kafka: Java {start_kafka.MIN_JAVA} or newer is not installed; FINRISK_KAFKA may name a broker"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    broker = Broker(folder)
    try:
        yield broker
    finally:
        broker.stop()
