"""Tests of a PostgreSQL warehouse whose server or writer dies in the middle of a change: old rows or new ones, whole, and none twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import ibis
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finrisk_assets.engines.transient_faults import is_transient
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.warehouse import Warehouse
from tests.engines.postgres_proxy import Fault, relay
from tests.service.databases import own_server

FEBRUARY = MonthRange("2024-02", "2024-02", False, False)
ROWS = 20_000
ASSET = "validated_transactions"
RECOVERY_POLLS = 1200
"""Attempts to connect to a server that recovers, ten a second: a bound, not a demand."""
IN_COPY, IN_REPLACE = Fault(b"row 10000"), Fault(b'DELETE FROM "analytics"')
AT_COMMIT = Fault(b"COMMIT", after=IN_REPLACE.at)
"""Faults in the middle of the writer's rows, in the middle of the change, and at its end."""
MOMENTS = pytest.mark.parametrize("moment", [IN_COPY, IN_REPLACE, AT_COMMIT], ids=["copy", "replace", "commit"])

WRITER = """
import sys
from pathlib import Path
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.warehouse import Warehouse
warehouse, february = Warehouse(url=sys.argv[1]), MonthRange("2024-02", "2024-02", False, False)
warehouse.store_months("validated_transactions", warehouse.ingest_parquet(Path(sys.argv[2])), "at", february)
"""


@dataclass(frozen=True)
class Database:
    """A database with the rows of two months, a file with new rows of the second, and the socket of the server."""

    url: str
    file: Path
    socket: str

    def through(self, port: int) -> str:
        """Return the URL by which a writer comes through a relay."""
        return f"postgres://postgres@127.0.0.1:{port}/{self.url.partition('?')[0].rpartition('/')[2]}"

    def read(self) -> list[str]:
        """Return the table's keys as a new connection sees them, as soon as the server has recovered."""
        for _ in range(RECOVERY_POLLS):
            with suppress(psycopg.OperationalError), psycopg.connect(self.url):
                break
            time.sleep(0.1)
        warehouse = Warehouse(url=self.url)
        warehouse.drop_connection()
        return sorted(warehouse.table(ASSET).key.to_pyarrow().to_pylist())

    def write_again(self) -> list[str]:
        """Store the month once more, over a connection of its own; return the table's keys and check that no other table is left."""
        warehouse = Warehouse(url=self.url)
        warehouse.drop_connection()
        warehouse.store_months(ASSET, warehouse.ingest_parquet(self.file), "at", FEBRUARY)
        assert warehouse.connection.list_tables(database="analytics") == [ASSET]
        return self.read()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Yield the URL of a server that may be killed: its commits leave the process before they are answered."""
    with own_server() as running:
        running.psql("alter system set synchronous_commit = on; select pg_reload_conf();")
        yield running.get_uri()


@pytest.fixture
def database(server: str, tmp_path: Path) -> Database:
    url, _, folder = server.partition("?host=")
    name = f"crash_{time.time_ns()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    made = Database(f"{url.rpartition('/')[0]}/{name}?host={folder}", tmp_path / "rows.parquet", f"{folder}/.s.PGSQL.5432")
    rows = ibis.memtable({"key": OLD, "at": ["2024-01-01", "2024-02-01"]})
    Warehouse(url=made.url).store(ASSET, rows.mutate(at=rows["at"].cast("timestamp")))
    at = pa.array([19_760 * 86_400_000_000] * ROWS, pa.timestamp("us"))  # in February
    pq.write_table(pa.table({"key": NEW[1:], "at": at}), made.file)
    return made


OLD = ["January", "before"]
NEW = ["January", *sorted(f"row {number}" for number in range(ROWS))]


OTHERS = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def terminate(url: str) -> None:
    """End the sessions of a database as an administrator does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM {OTHERS}")


def kill(url: str) -> None:
    """Kill the server's processes of a database: the server ends all sessions, and recovers from its log."""
    with psycopg.connect(url, autocommit=True) as connection:
        backends = connection.execute(f"SELECT pid FROM {OTHERS}").fetchall()
    for (pid,) in backends:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [terminate, kill], ids=["ended", "killed"])
@MOMENTS
def test_a_server_that_dies_leaves_old_rows_or_new_ones(database: Database, moment: Fault, end: Callable[[str], None]) -> None:
    """Rows that come in come again in another session; a change of the table ends, for the step to be retried."""
    is_stored = False
    with relay(database.socket, replace(moment, do=lambda: end(database.url))) as port:
        warehouse = Warehouse(url=database.through(port))
        try:
            warehouse.store_months(ASSET, warehouse.ingest_parquet(database.file), "at", FEBRUARY)
            is_stored = True
        except psycopg.OperationalError as error:
            assert is_transient(error), "the step is retried"
    kept = database.read()
    assert (is_stored, kept) in {IN_COPY: [(True, NEW)], IN_REPLACE: [(False, OLD)]}.get(moment, [(False, OLD), (False, NEW), (True, NEW)])
    assert database.write_again() == NEW


def test_a_query_whose_answer_is_lost_is_asked_again(database: Database) -> None:
    asked: list[str] = []
    with relay(database.socket, Fault(b"COPY (SELECT", do=lambda: asked.append("once"), is_answered=True)) as port:
        table = Warehouse(url=database.through(port)).table(ASSET)
        assert sorted(table.key.to_pyarrow().to_pylist()) == OLD
    assert asked


def test_a_commit_whose_answer_is_lost_stands_and_the_retry_doubles_no_row(database: Database) -> None:
    with relay(database.socket, replace(AT_COMMIT, is_answered=True)) as port:
        warehouse = Warehouse(url=database.through(port))
        with pytest.raises(psycopg.OperationalError) as caught:
            warehouse.store_months(ASSET, warehouse.ingest_parquet(database.file), "at", FEBRUARY)
        assert is_transient(caught.value), "the step is retried"
    assert database.read() == NEW
    assert database.write_again() == NEW


@MOMENTS
def test_a_writer_that_is_killed_leaves_old_rows_or_new_ones(database: Database, moment: Fault) -> None:
    writers: list[subprocess.Popen[bytes]] = []
    with relay(database.socket, replace(moment, do=lambda: writers[0].kill())) as port:
        writers.append(subprocess.Popen([sys.executable, "-W", "ignore", "-c", WRITER, database.through(port), str(database.file)]))
        assert writers[0].wait(timeout=300) == -signal.SIGKILL
    kept = database.read()
    assert kept == OLD or (moment == AT_COMMIT and kept == NEW)
    assert database.write_again() == NEW
