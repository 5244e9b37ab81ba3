"""A standalone Spark on this machine, and a server of Spark Connect: real processes of the JVM, started and killed."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark

WAIT_S = 180.0
"""Seconds after which a process that does not start fails the test: a bound, not a demand."""

SPARK = Path(pyspark.__file__).parent
MASTER, WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"
CONNECT = "org.apache.spark.sql.connect.service.SparkConnectServer"


@dataclass(frozen=True)
class Process:
    """A started process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_for(self, pattern: str) -> str:
        """Return the first group of a pattern as soon as the log has it."""
        began = time.monotonic()
        while (found := re.search(pattern, self.log.read_text(errors="replace"))) is None:
            assert self.process.poll() is None and time.monotonic() - began < WAIT_S, self.log.read_text(errors="replace")[-3000:]
            time.sleep(0.1)
        return found[1]

    def kill(self) -> None:
        """End the process with all that it started, as the failure of a machine would."""
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        for process in (self.process, *children):
            try:
                process.kill()
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        self.process.wait()


def start(folder: Path, name: str, *command: str) -> Process:
    """Start a class of Spark in a JVM of its own."""
    log = folder / f"{name}.log"
    environment = os.environ | {
        "SPARK_HOME": str(SPARK), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(folder / "scratch"),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "PYTHONPATH": os.pathsep.join((str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", ""))),
    }  # fmt: skip
    with log.open("wb") as out:
        return Process(subprocess.Popen([str(SPARK / "bin" / command[0]), *command[1:]], env=environment, stdout=out, stderr=out), log)


@dataclass
class Standalone:
    """A master and its workers of one core each, which may die and be replaced."""

    folder: Path
    url: str
    workers: list[Process]

    def add_worker(self) -> None:
        """Start one more worker."""
        name = f"worker-{len(self.workers)}"
        options = ("--host", "127.0.0.1", "--port", "0", "--webui-port", "0", "--cores", "1", "--memory", "1g")
        command = ("spark-class", WORKER, *options, "--work-dir", str(self.folder / name), self.url)
        self.workers.append(start(self.folder, name, *command))

    def wait_for_workers(self) -> None:
        """Return as soon as the master knows all workers."""
        for worker in self.workers:
            worker.wait_for(r"(Successfully registered with master)")

    def replace_worker(self) -> None:
        """Kill the last worker as the failure of its machine would, and start another one."""
        self.workers.pop().kill()
        self.add_worker()

    @contextmanager
    def one_more_worker(self) -> Iterator[None]:
        """Have one more worker for the length of a block."""
        self.add_worker()
        yield
        self.workers.pop().kill()


@contextmanager
def standalone(folder: Path, n_workers: int) -> Iterator[Standalone]:
    """Run a master with workers for the length of a block."""
    master = start(folder, "master", "spark-class", MASTER, "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
    cluster = Standalone(folder, "", [])
    try:
        cluster.url = master.wait_for(r"Starting Spark master at (spark://\S+)\n")
        for _ in range(n_workers):
            cluster.add_worker()
        cluster.wait_for_workers()
        yield cluster
    finally:
        for process in (master, *cluster.workers):
            process.kill()


@contextmanager
def connect_server(folder: Path, settings: dict[str, str]) -> Iterator[str]:
    """Run a server of Spark Connect on a local Spark for the length of a block; yield its URL."""
    settings = settings | {"spark.connect.grpc.binding.port": "0", "spark.ui.enabled": "false"}
    options = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
    server = start(folder, "connect", "spark-submit", "--master", "local[1]", *options, "--class", CONNECT, "spark-internal")
    try:
        yield "sc://127.0.0.1:" + server.wait_for(r"Spark Connect server started at: \S*:(\d+)\n")
    finally:
        server.kill()
