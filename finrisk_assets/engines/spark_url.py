"""The URL of a warehouse on Spark: its master, the folder of its tables, and settings of the session."""

import socket
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


@dataclass(frozen=True)
class SparkUrl:
    """The parts of a URL ``pyspark://<master>?warehouse=<folder>&jars=<folder>&<setting>=<value>``.

    Attributes
    ----------
    master
        ``local[2]``, ``spark://host:7077``, or ``sc://host:15002`` for Spark Connect.
    warehouse
        Folder of the tables: one that the driver and all workers reach under the same path, or the URL of such a folder.
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
        is_local = kind == "local" or (kind.startswith("local[") and kind.endswith("]"))
        if not (is_local and not host) and not (kind in ("spark", "sc") and ":" in host):
            raise EngineError(f"the warehouse's URL names no Spark: set FINRISK_WAREHOUSE_URL to {FORMS}")
        if not warehouse:
            raise EngineError("the warehouse's URL names no folder of tables: add ?warehouse=<folder> to FINRISK_WAREHOUSE_URL")
        if others := sorted(name for name in parts if not name.startswith("spark.")):
            raise EngineError(
                f"the warehouse's URL has the option {others[0]!r}: write warehouse, jars, or settings of Spark, which begin with spark."
            )
        if jars and not list(Path(jars).glob("*.jar")):
            raise EngineError("the folder jars of the warehouse's URL holds no jar: copy Iceberg's runtime for Spark 4.0 into it")
        return cls(master, warehouse, Path(jars) if jars else None, parts)


def check_spark(url: str) -> SparkUrl:
    """Read a URL, and check that Spark is installed and answers there.

    Raises
    ------
    EngineError
        If the URL has another form, Spark is not installed, or none of its servers answers.
    """
    address = SparkUrl.parse(url)
    if find_spec("pyspark") is None:
        raise EngineError("Spark is not installed: run `make spark`, which adds it to the environment")
    if address.servers and not any(map(_accepts, address.servers)):
        raise EngineError(f"no Spark answers at {', '.join(address.servers)}: start it, or correct FINRISK_WAREHOUSE_URL")
    return address


def _accepts(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    except (OSError, ValueError):
        return False
    return True
