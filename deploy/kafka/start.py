"""Start Apache Kafka on this machine alone: `python deploy/kafka/start.py FOLDER --port 9092 --controller-port 9093`.

One node (KRaft) for tests, measurements and the demonstration; docs/streaming.md has what production needs. It needs Java 17 or newer and,
the first time, Maven, which fetches the jars of pom.xml into the cache. The process becomes the broker: a signal to it reaches Kafka.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
VERSION = re.findall(r"<version>([\d.]+)</version>", POM.read_text(encoding="utf-8"))[-1]
MIN_JAVA = 17
CLUSTER = "ZmlucmlzazAwMDAwMDAwMA"
"""The cluster's id: 16 bytes in Base64, the same for every data folder."""
JVM = ("-Xms128m", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
"""A short start and little memory; a broker under load for hours wants the JVM's own settings."""
WAIT_S = 60.0
"""Seconds in which the broker must listen, when the archive of its classes is made."""


def java_version() -> int | None:
    """Return the major version of the Java on the path; None without a Java."""
    if shutil.which("java") is None:
        return None
    text = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', text)
    return None if found is None else int(found[1])


def default_cache() -> Path:
    """Return the folder of the jars: below FINRISK_HOME, else below the user's home."""
    home = os.environ.get("FINRISK_HOME")
    return (Path(home).resolve() if home else Path.home() / ".cache" / "finrisk") / "kafka" / VERSION


def fetch_jars(cache: Path) -> Path:
    """Return the folder of Kafka's jars; Maven fetches them once."""
    jars = cache / "jars"
    if not jars.is_dir():
        if shutil.which("mvn") is None:
            sys.exit("Kafka's jars are not here yet and Maven is not installed: install Maven (Debian: apt-get install maven)")
        fetched = cache / f"jars-{os.getpid()}"
        command = [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(POM),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={fetched}",
            "-DincludeScope=runtime",
        ]
        if subprocess.run(command, check=False).returncode:
            sys.exit("Maven could not fetch Kafka's jars: its message stands above")
        try:
            fetched.rename(jars)
        except OSError:  # another process was first
            shutil.rmtree(fetched)
    return jars


def write_properties(folder: Path, port: int, controller_port: int) -> Path:
    """Write the broker's settings and return their file."""
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder / "log"),
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # A broker that was killed is back in under three seconds, because the controller forgets the old one soon.
        "broker.session.timeout.ms": "1500",
        "broker.heartbeat.interval.ms": "300",
        # The transaction of a producer that was killed ends soon after its own time-out.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
        "num.network.threads": "2",
        "num.io.threads": "2",
        "log.cleaner.dedupe.buffer.size": "10485760",
    }
    file = folder / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
    return file


def format_storage(jars: Path, folder: Path, properties: Path) -> None:
    """Prepare the data folder, where that was not done before."""
    if (folder / "log" / "meta.properties").is_file():
        return
    command = ["java", *JVM, "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"Kafka cannot use the folder {folder}: {done.stderr.strip() or done.stdout.strip()}")


def archive_classes(cache: Path, jars: Path) -> Path:
    """Return the archive of Kafka's classes as the JVM loads them (AppCDS), which saves most of the start; made once by a short run."""
    archive = cache / f"classes-{java_version()}.jsa"
    if archive.is_file():
        return archive
    folder = cache / f"archive-{os.getpid()}"
    folder.mkdir(parents=True)
    new = folder / archive.name
    port, controller_port = free_port(), free_port()
    properties = write_properties(folder, port, controller_port)
    format_storage(jars, folder, properties)
    command = ["java", *JVM, f"-XX:ArchiveClassesAtExit={new}", "-cp", f"{jars}/*", "kafka.Kafka", str(properties)]
    broker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_S
    while not is_listening(port) and broker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    broker.send_signal(signal.SIGTERM)
    broker.wait()
    if new.is_file():  # without it the broker starts as well, only later
        new.replace(archive)
    shutil.rmtree(folder)
    return archive


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_listening(port: int) -> bool:
    """Return whether a program listens on a port."""
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Prepare what is missing, and become the broker."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="Folder of the broker's data; it is created.")
    parser.add_argument("--port", type=int, default=9092, help="Port on 127.0.0.1.")
    parser.add_argument("--controller-port", type=int, default=9093, help="Port on 127.0.0.1 of the node's own controller.")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="Folder of the jars.")
    parser.add_argument("--prepare", action="store_true", help="Fetch the jars and archive the classes, and end.")
    options = parser.parse_args()

    java = java_version()
    if java is None or java < MIN_JAVA:
        sys.exit(f"Kafka needs Java {MIN_JAVA} or newer; {'there is none' if java is None else f'java is {java}'}")
    cache, folder = options.cache.resolve(), options.folder.resolve()
    jars = fetch_jars(cache)
    archive = archive_classes(cache, jars)
    if options.prepare:
        return
    folder.mkdir(parents=True, exist_ok=True)
    properties = write_properties(folder, options.port, options.controller_port)
    format_storage(jars, folder, properties)
    os.execvp("java", ["java", *JVM, f"-XX:SharedArchiveFile={archive}", "-cp", f"{jars}/*", "kafka.Kafka", str(properties)])


if __name__ == "__main__":
    main()
