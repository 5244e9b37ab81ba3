"""The URL of a warehouse on Spark: its master, the folder of its tables, and settings of the session."""

import os
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl

from finrisk_assets.engines.engine import EngineError

SCHEME = "pyspark://"

ANSWER_S = 10.0
"""Seconds in which a master or a server must accept a connection: Spark itself tries for minutes, without a word."""

FORMS = "pyspark://local[2], pyspark://spark://host:7077 or pyspark://sc://host:15002"
LOCAL = re.compile(r"local(\[(\*|0*[1-9][0-9]*)(\s*,\s*0*[1-9][0-9]*)?\])?")
"""A Spark in this process: its threads, and after the comma the failures after which a task is given up."""
SERVERS = re.compile(r"[^/;@,\s]+:[0-9]+(,[^/;@,\s]+:[0-9]+)*(/.*)?")
"""Several masters, or a server of Spark Connect with its parameters, among which may be a token."""
ICEBERG_JAR = "iceberg-spark-runtime-4.0_2.13"
"""Name of Iceberg's runtime for the Spark that `pyproject.toml` allows, without its version."""

_STREAM_REQUEST, _STREAM_FAILURE = 6, 8
"""Types of messages of Spark's network protocol."""


@dataclass(frozen=True)
class SparkUrl:
    """The parts of a URL ``pyspark://<master>?warehouse=<folder>&jars=<folder>&<setting>=<value>``.

    Attributes
    ----------
    master
        ``local[2]``, ``spark://host:7077``, or ``sc://host:15002`` for Spark Connect.
    warehouse
        Folder of the tables, one that the driver and all workers reach under the same path: a path, or its ``file:`` URL.
    jars
        Folder of the jar of Iceberg, for a machine without Maven Central; None where Spark fetches it.
    settings
        Settings of the session, by name (``spark.executor.memory``).
    """

    master: str
    warehouse: str
    jars: Path | None
    settings: Mapping[str, str]

    @property
    def is_connect(self) -> bool:
        """Whether the session is on a server of Spark Connect, and no JVM in this process."""
        return self.master.startswith("sc://")

    @property
    def folder(self) -> Path:
        """The folder of the tables, as the machine that computes names it."""
        # Hadoop takes a % in a URL for itself.
        return Path(re.sub("^file:/*", "/", self.warehouse))

    @property
    def servers(self) -> list[str]:
        """The ``host:port`` of each master, or of the server of Spark Connect; none of a local Spark."""
        _, _, addresses = self.master.partition("://")
        return [address.partition("/")[0] for address in addresses.split(",") if address]

    @classmethod
    def parse(cls, url: str) -> "SparkUrl":
        """Read a URL.

        Raises
        ------
        EngineError
            If it has another form; the message does not repeat it, for it may hold a token.
        """
        master, _, query = url.removeprefix(SCHEME).partition("?")
        parts = dict(parse_qsl(query))
        warehouse, jars = parts.pop("warehouse", ""), parts.pop("jars", "")
        kind, _, host = master.partition("://")
        if not LOCAL.fullmatch(master) and not (kind in ("spark", "sc") and SERVERS.fullmatch(host)):
            raise EngineError(f"the warehouse's URL names no Spark: set FINRISK_WAREHOUSE_URL to {FORMS}")
        if not warehouse:
            raise EngineError("the warehouse's URL names no folder of tables: add ?warehouse=<folder> to FINRISK_WAREHOUSE_URL")
        if others := sorted(name for name in parts if not name.startswith("spark.")):
            raise EngineError(
                f"the warehouse's URL has the option {others[0]!r}: write warehouse, jars, or settings of Spark, which begin with spark."
            )
        if re.match("(?!file:)[A-Za-z][A-Za-z0-9+.-]+:", warehouse):
            raise EngineError(
                "the option warehouse of FINRISK_WAREHOUSE_URL is no folder: name a path that all machines reach, or its file: URL"
            )
        # Spark's own cache of jars puts the group before the name.
        if jars and not list(Path(jars).glob(f"*{ICEBERG_JAR}-*.jar")):
            raise EngineError(
                f"the folder jars of FINRISK_WAREHOUSE_URL, {jars}, holds no jar of Iceberg for Spark 4.0: "
                f"copy {ICEBERG_JAR}-<version>.jar into it"
            )
        return cls(master, warehouse, Path(jars) if jars else None, parts)


def check_spark(url: str) -> SparkUrl:
    """Read a URL, and check that Spark is installed and answers there, and that the tables can have their folder.

    Raises
    ------
    EngineError
        If the URL has another form, Spark is not installed, none of its servers answers as Spark does, or the folder cannot be one.
    """
    address = SparkUrl.parse(url)
    if find_spec("pyspark") is None:
        raise EngineError("Spark is not installed: run `make spark`, which adds it to the environment")
    if address.servers and not any(map(_accepts, address.servers)):
        raise EngineError(f"no Spark answers at {', '.join(address.servers)}: start it, or correct FINRISK_WAREHOUSE_URL")
    if address.is_connect:
        _check_connect(address)
        return address
    # A master that speaks TLS alone has no word for who does not.
    if address.servers and not any(name.startswith("spark.ssl.") for name in address.settings) and not any(map(_is_spark, address.servers)):
        raise EngineError(
            f"what accepts connections at {', '.join(address.servers)} is no master of Spark: correct the host and the port in "
            "FINRISK_WAREHOUSE_URL, or add the settings spark.ssl.… of a master that speaks TLS"
        )
    _check_folder(address.folder.absolute())
    return address


def _accepts(server: str) -> bool:
    try:
        _open(server).close()
    except (OSError, ValueError):
        return False
    return True


def _is_spark(server: str) -> bool:
    """Return whether a server says in Spark's protocol that it has no file of a name: Spark itself would ask others for minutes."""
    name = b"/files/finrisk"
    try:
        with _open(server) as connection, connection.makefile("rb") as answer:
            # The length of the whole, the type, and a text with its length.
            connection.sendall(struct.pack(">qbi", 8 + 1 + 4 + len(name), _STREAM_REQUEST, len(name)) + name)
            return answer.read(9)[8:] == bytes([_STREAM_FAILURE])
    except (OSError, ValueError):
        return False


def _open(server: str) -> socket.socket:
    host, _, port = server.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), ANSWER_S)


def _check_connect(address: SparkUrl) -> None:
    """Check that a server speaks gRPC, with TLS where the URL asks for it: PySpark itself would try for many minutes."""
    # The library writes each try to the standard error, past any logging.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from pyspark.errors import PySparkException, PySparkImportError

    try:
        import grpc
        from pyspark.sql.connect.client.core import DefaultChannelBuilder

        builder = DefaultChannelBuilder(address.master)
        channel = builder.toChannel()
    except (ImportError, PySparkImportError):
        raise EngineError("Spark Connect is not installed: run `make spark`, which adds it to the environment") from None
    except PySparkException:
        # The message repeats the URL, which may hold a token.
        raise EngineError(
            f"FINRISK_WAREHOUSE_URL is no URL of Spark Connect: write {SCHEME}sc://host:15002 or …/;token=…;use_ssl=true"
        ) from None
    try:
        grpc.channel_ready_future(channel).result(ANSWER_S)
    except grpc.FutureTimeoutError:
        kind = "with TLS, which the URL asks for" if builder.secure else "without TLS; one with TLS needs use_ssl=true"
        raise EngineError(
            f"what accepts connections at {', '.join(address.servers)} is no server of Spark Connect {kind}: correct FINRISK_WAREHOUSE_URL"
        ) from None
    finally:
        channel.close()


def _check_folder(folder: Path) -> None:
    """Check that a folder is there, or can be made."""
    first = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    advice = "name a folder with ?warehouse= in FINRISK_WAREHOUSE_URL"
    if not first.is_dir():
        raise EngineError(f"the folder of tables {folder} leads through {first}, which is a file: {advice}")
    if first != folder and not os.access(first, os.W_OK | os.X_OK):
        raise EngineError(f"the folder of tables {folder} cannot be made, for {first} cannot be written: {advice}")
