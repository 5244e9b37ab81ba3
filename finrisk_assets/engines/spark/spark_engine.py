"""Spark, the engine of several machines: tables of Iceberg in a folder that all of them reach.

A table is the files that its newest metadata file names, and a commit is the rename of that file: whoever reads sees the old table or the
new one, and a process that dies leaves files that no table names. The catalog is the folder itself, so any process finds the tables.
"""

import os
import shutil
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
from ibis.expr.types import Table as LazyTable

from finrisk_assets.engines.engine import SCHEMAS, Engine, EngineError
from finrisk_assets.engines.spark.spark_faults import DamagedTableError, faults_as_engine_errors, find_cause
from finrisk_assets.engines.spark.spark_url import ICEBERG_JAR, SparkUrl, check_spark
from finrisk_assets.engines.spark.spark_workers import map_each, normalise_nfc, write_float

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from finrisk_assets.engines.engine import BatchFunction

CATALOG = "finrisk"
ICEBERG = f"org.apache.iceberg:{ICEBERG_JAR}:1.10.0"
"""Iceberg's runtime in Maven Central: one jar, Apache-2.0."""

KEPT_SNAPSHOTS, MAX_SNAPSHOTS = 2, 8
"""Earlier states of a table: above the larger number all but the smaller number are removed, with the files that only they name."""

OTHER_COMMIT_S = 2.0
"""Seconds after which a table is looked at again before it is removed: a shorter wait may meet files that another process just renames."""

SESSION = {
    "spark.sql.session.timeZone": "UTC",
    # A time has no zone, as in the other engines; so have literals and casts.
    "spark.sql.timestampType": "TIMESTAMP_NTZ",
    # A cast that cannot be done ends the query, `try_cast` gives null.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.ansi.doubleQuotedIdentifiers": "true",
    "spark.sql.mapKeyDedupPolicy": "LAST_WIN",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "20000",
}
"""Settings that the meaning of an expression rests on."""


class SparkEngine(Engine):
    """A session of Spark with a catalog of Iceberg."""

    connection: Any

    @classmethod
    def open(cls, url: str) -> "SparkEngine":
        """Open a session of a URL.

        Raises
        ------
        EngineError
            If the URL has another form, or Spark cannot run here.
        """
        address = check_spark(url)
        session = _connect(address) if address.is_connect else start_session(address)
        return cls(session, address)

    def __init__(self, session: "SparkSession", address: SparkUrl) -> None:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        from finrisk_assets.engines.spark.spark_backend import SparkBackend

        self.session, self.address = session, address
        catalog = {
            f"spark.sql.catalog.{CATALOG}": "org.apache.iceberg.spark.SparkCatalog",
            f"spark.sql.catalog.{CATALOG}.type": "hadoop",
            f"spark.sql.catalog.{CATALOG}.warehouse": address.warehouse,
            # A table that another process replaced is read as it is now.
            f"spark.sql.catalog.{CATALOG}.cache-enabled": "false",
            "spark.sql.defaultCatalog": CATALOG,
        }
        for name, value in (SESSION | catalog).items():
            session.conf.set(name, value)
        session.udf.register("nfc_normalize", normalise_nfc)
        session.udf.register("float_text", write_float)
        try:
            for schema in SCHEMAS:  # a folder that is not there yet cannot be listed
                session.sql(f"CREATE NAMESPACE IF NOT EXISTS {schema}")
        except (PySparkException, Py4JError) as error:
            if "catalog plugin class" in str(error):
                raise EngineError(f"this Spark has no Iceberg: start it with `--packages {ICEBERG}`, or with its jar") from None
            advice = "name a folder that Spark may write with ?warehouse= in FINRISK_WAREHOUSE_URL"
            raise EngineError(f"the folder of tables {address.warehouse} cannot be opened: {find_cause(error)}: {advice}") from None
        super().__init__(SparkBackend().connect(session))

    def find_owner(self) -> str:
        """Return the name of the ledger that a stored table names."""
        for schema in SCHEMAS:
            for name in self.connection.list_tables(database=schema):
                with suppress(DamagedTableError), faults_as_engine_errors():
                    properties = self.session.sql(f"SHOW TBLPROPERTIES {_quote(schema, name)}").collect()
                    if owner := {row.key: row.value for row in properties}.get(OWNER):
                        return str(owner)
        return ""

    def ingest_parquet(self, file: Path) -> LazyTable:
        """Return the rows of a Parquet file, which is read when they are computed."""
        return cast(LazyTable, self.connection.read_parquet(file))

    @faults_as_engine_errors()
    def has(self, schema: str, name: str) -> bool:
        """Return whether there is a stored table of a name.

        Raises
        ------
        DamagedTableError
            If its metadata cannot be read: it is not taken for one that was never made, whose first month would be all of it.
        """
        return bool(self.session.catalog.tableExists(_quote(schema, name)))

    @faults_as_engine_errors()
    def replace_table(self, schema: str, name: str, rows: LazyTable, month_column: str | None = None) -> None:
        """Replace a table in one commit; one with a month column is stored by month, so that months can be replaced."""
        from pyspark.sql import functions

        writer = self.connection.data_frame(rows).writeTo(_quote(schema, name)).using("iceberg")
        for key, value in (_PROPERTIES | ({OWNER: self.ledger} if self.ledger else {})).items():
            writer = writer.tableProperty(key, value)
        if month_column is not None:
            writer = writer.partitionedBy(functions.partitioning.months(month_column))
        try:
            with faults_as_engine_errors():
                writer.createOrReplace()
        except DamagedTableError:
            if not self._remove_unreadable(schema, name):
                raise
            writer.createOrReplace()
        self._remove_snapshots(schema, name)

    def _remove_unreadable(self, schema: str, name: str) -> bool:
        """Remove a table whose metadata cannot be read, which Iceberg neither replaces nor drops; return whether it was one."""
        folder = self.address.folder / schema / name
        time.sleep(OTHER_COMMIT_S)
        try:
            self.has(schema, name)
        except DamagedTableError:
            # The folder of a server of Spark Connect may be one of another machine.
            if not self.address.is_connect and folder.is_dir():
                shutil.rmtree(folder)
                return True
        return False

    @faults_as_engine_errors()
    def replace_rows(self, schema: str, name: str, rows: LazyTable, condition: str) -> None:
        """Replace the rows that meet a condition in one commit; it must hold for all rows of a month or for none."""
        from pyspark.sql import functions

        columns = self.table(schema, name).columns
        self.connection.data_frame(rows.select(*columns)).writeTo(_quote(schema, name)).overwrite(functions.expr(condition))
        self._remove_snapshots(schema, name)

    def _remove_snapshots(self, schema: str, name: str) -> None:
        """Remove old states of a table, when there are many: each would hold its files."""
        states = self.session.table(_quote(schema, name, "snapshots")).selectExpr("string(committed_at)").collect()
        if len(states) > MAX_SNAPSHOTS:
            # Not by their number: a replaced table begins anew, so that its states have no line of ancestors to count along.
            (first_kept,) = sorted(states)[-KEPT_SNAPSHOTS]
            options = f"older_than => TIMESTAMP '{first_kept}'"
            self.session.sql(f"CALL {CATALOG}.system.expire_snapshots(table => '{schema}.{name}', {options})")

    def map_batches(self, rows: LazyTable, score: "BatchFunction", schema: pa.Schema, *, key: str, file: Path, threads: int) -> LazyTable:
        """Return what a function makes of rows: the workers compute it when the result is stored, and no row comes here."""
        from pyspark.sql.pandas.types import from_arrow_schema

        from finrisk_assets.engines.spark.spark_backend import map_in_arrow

        kinds = from_arrow_schema(schema, prefer_timestamp_ntz=True)
        return cast(LazyTable, self.connection.view(map_in_arrow(self.connection.data_frame(rows), partial(map_each, score), kinds)))

    @faults_as_engine_errors()
    def write_files(self, rows: LazyTable, folder: Path) -> None:
        """Add rows to a folder of Parquet files, which the workers write."""
        self.connection.data_frame(rows).write.mode("append").parquet(str(folder))


OWNER = "finrisk.ledger"
"""The property of a table that names its ledger."""

_PROPERTIES = {
    # Old metadata files are removed with the commit that makes them old.
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "5",
}


def _quote(*names: str) -> str:
    return ".".join(f"`{name}`" for name in names)


def start_session(address: SparkUrl, *, has_tables: bool = True) -> "SparkSession":
    """Return a session of its own in the process's one Spark, which the first call starts; without tables it needs no jar of Iceberg.

    Raises
    ------
    EngineError
        If Spark cannot run here, or runs in this process on another master.
    """
    from py4j.protocol import Py4JError
    from pyspark import SparkContext
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    _check_java()
    settings: dict[str, bool | float | int | str | None] = {
        # What ends the start is told in a sentence, and not in traces before it.
        "spark.log.level": "FATAL",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.catalogImplementation": "in-memory",
    }
    if has_tables and address.jars is None:
        settings["spark.jars.packages"] = ICEBERG
    elif has_tables and address.jars is not None:
        settings["spark.jars"] = ",".join(sorted(str(jar) for jar in address.jars.glob("*.jar")))
    if address.master.startswith("local"):
        settings |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
        # Driver and executor are one process: a laptop that slept has lost no executor.
        settings["spark.network.timeout"] = "86400s"
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    running = SparkContext._active_spark_context
    if running is not None and running.master != address.master:
        raise EngineError(f"this process runs Spark on {running.master}, and {address.master} needs a process of its own")
    builder = SparkSession.builder.master(address.master).appName("finrisk").config(map=settings | dict(address.settings))
    try:
        session = builder.getOrCreate()
    except (PySparkException, Py4JError) as error:
        reason = find_cause(error)
        if "JAVA_GATEWAY_EXITED" in str(error):
            reason = f"{_find_java()} ended, and its own message stands above"
        raise EngineError(f"Spark did not start: {reason}: correct what it names, in FINRISK_WAREHOUSE_URL or on this machine") from None
    session.sparkContext.setLogLevel("ERROR")
    return session.newSession()


def _find_java() -> str | None:
    """Return the program that Spark starts; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(os.path.join(home, "bin", "java") if home else "java")


def _check_java() -> None:
    if _find_java() is not None:
        return
    if home := os.environ.get("JAVA_HOME"):
        raise EngineError(f"JAVA_HOME={home!r} has no bin/java: set it to the folder of a Java 17 runtime, or unset it")
    raise EngineError("Spark needs a Java 17 runtime, which is not installed (Debian: openjdk-17-jre-headless)")


def _connect(address: SparkUrl) -> "SparkSession":
    """Return a session on a server of Spark Connect, which must have Iceberg's jar."""
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    try:
        session = SparkSession.builder.remote(address.master).create()
        for name, value in address.settings.items():
            session.conf.set(name, value)
    except PySparkException as error:
        servers = ", ".join(address.servers)
        raise EngineError(f"the server of Spark Connect at {servers} refuses: {find_cause(error)}: correct FINRISK_WAREHOUSE_URL") from None
    return session
