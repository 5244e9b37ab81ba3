"""Tests of the tables of a PostgreSQL warehouse: changed by several processes at once, by one that dies, and after a cut connection."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ibis
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import make_url

from finrisk_assets.engines import postgres_backend, postgres_engine
from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.engine import BATCH_ROWS, SCHEMAS, EngineError
from finrisk_assets.engines.postgres_engine import WITHOUT_DRIVER, describe
from finrisk_assets.engines.transient_faults import is_transient
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.warehouse import Warehouse

ALL, FEBRUARY = MonthRange("2024-01", "2024-03", True, True), MonthRange("2024-02", "2024-02", False, False)
ROWS = 500
"""Rows of February that each writer stores."""

WRITER = f"""
import sys, ibis
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.warehouse import Warehouse
warehouse, writer = Warehouse(url=sys.argv[1]), sys.argv[2]
rows = ibis.memtable({{"writer": [writer] * {ROWS}, "at": ["2024-02-01"] * {ROWS}}}).mutate(at=ibis._.at.cast("timestamp"))
print("ready", flush=True)
sys.stdin.readline()
for round in range(6):
    if round % 3 == 2:
        warehouse.store("validated_transactions", rows)
    else:
        warehouse.store_months("validated_transactions", rows, "at", MonthRange("2024-02", "2024-02", False, False))
"""

DIES = """
import os, sys, ibis, psycopg
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.warehouse import Warehouse

warehouse, months, statement = Warehouse(url=sys.argv[1]), MonthRange(*eval(sys.argv[2])), sys.argv[3]
rows = ibis.memtable({"key": ["c"], "at": ["2024-02-01"]}).mutate(at=ibis._.at.cast("timestamp"))
warehouse.connection._run_pre_execute_hooks(rows)
execute = psycopg.Cursor.execute

def die(cursor, query, *arguments, **options):
    found = execute(cursor, query, *arguments, **options)
    if str(query).startswith(statement):
        os._exit(9)
    return found

psycopg.Cursor.execute = die
warehouse.store_months("validated_transactions", rows, "at", months)
"""


def rows_of(**days: str) -> ibis.Table:
    """Return one row per key, each at a day."""
    return ibis.memtable({"key": list(days), "at": list(days.values())}).mutate(at=ibis._.at.cast("timestamp"))


def keys_of(warehouse: Warehouse, column: str = "key") -> list[str]:
    return sorted(warehouse.table("validated_transactions")[column].to_pyarrow().to_pylist())


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, *arguments], text=True, **pipes)


def test_of_two_processes_that_store_the_same_months_at_once_one_is_whole(new_database: Callable[[], str]) -> None:
    """A reader beside them sees the rows of one writer alone, and always all of them."""
    url = new_database()
    warehouse = Warehouse(url=url)
    warehouse.store("validated_transactions", ibis.memtable({"writer": ["first"] * ROWS, "at": [None] * ROWS}).cast({"at": "timestamp"}))
    warehouse.store_months("validated_transactions", warehouse.table("validated_transactions").limit(0), "at", ALL)
    writers = [run(WRITER, url, name) for name in ("one", "two")]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n", writer.communicate()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    seen = set()
    while any(writer.poll() is None for writer in writers):
        found = keys_of(warehouse, "writer")
        assert len(set(found)) <= 1 and len(found) in (0, ROWS), (len(found), set(found))
        seen.update(found)
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err
    assert len(keys_of(warehouse, "writer")) == ROWS
    left = warehouse.connection.list_tables(database="analytics") + warehouse.connection.list_tables(database="staging")
    assert left == ["validated_transactions"], "no table is left on the way"
    assert seen


@pytest.mark.parametrize(
    ("months", "statement"),
    [(ALL, "ALTER TABLE"), (FEBRUARY, "DELETE"), (FEBRUARY, "INSERT")],
)
def test_a_table_is_as_before_when_the_process_dies_while_it_is_stored(
    new_database: Callable[[], str], months: MonthRange, statement: str
) -> None:
    warehouse = Warehouse(url=new_database())
    warehouse.store("validated_transactions", rows_of(a="2024-01-01", b="2024-02-01"))
    fields = repr((months.first, months.last, months.is_open_below, months.is_open_above))
    writer = run(DIES, warehouse.url, fields, statement)
    _, err = writer.communicate(timeout=120)
    assert writer.returncode == 9, err
    assert keys_of(warehouse) == ["a", "b"]
    assert warehouse.connection.list_tables(database="analytics") == ["validated_transactions"]
    warehouse.store_months("validated_transactions", rows_of(c="2024-02-01"), "at", FEBRUARY)
    assert keys_of(warehouse) == ["a", "c"]


def test_a_second_process_finds_the_tables(new_database: Callable[[], str]) -> None:
    warehouse = Warehouse(url=new_database())
    warehouse.store("validated_transactions", rows_of(a="2024-01-01"))
    code = """
import sys
from finrisk_assets.graph.warehouse import Warehouse
print(Warehouse(url=sys.argv[1]).table("validated_transactions").to_pyarrow().to_pylist())
"""
    out, err = run(code, warehouse.url).communicate(timeout=120)
    assert out == "[{'key': 'a', 'at': datetime.datetime(2024, 1, 1, 0, 0)}]\n", err


def test_a_session_that_is_cut_between_two_queries_is_replaced(new_database: Callable[[], str]) -> None:
    """By a server that starts again, an administrator, a pooler: tables that were at hand before go on in another session."""
    warehouse = Warehouse(url=new_database())
    letters = ibis.memtable({"letter": ["a", "b"]})
    warehouse.store("validated_transactions", rows_of(a="2024-01-01"))
    stored, joined = warehouse.table("validated_transactions").key, letters.count().as_table()
    assert warehouse.connection.to_pyarrow(joined).num_rows == 1
    for use in (
        lambda: warehouse.has("validated_transactions"),
        lambda: stored.to_pyarrow().to_pylist() == ["a"],
        lambda: warehouse.connection.to_pyarrow(joined)[0].to_pylist() == [2],
        lambda: warehouse.store("validated_transactions", rows_of(b="2024-01-01")) is not None,
        lambda: stored.to_pyarrow().to_pylist() == ["b"],
    ):
        cut(warehouse)
        assert use()


def test_rows_that_went_with_their_session_are_a_transient_fault(new_database: Callable[[], str], tmp_path: Path) -> None:
    """The step that landed them is run again."""
    pq.write_table(pa.table({"number": [1]}), tmp_path / "rows.parquet")
    warehouse = Warehouse(url=new_database())
    rows = warehouse.ingest_parquet(tmp_path / "rows.parquet")
    cut(warehouse)
    with pytest.raises(psycopg.errors.UndefinedTable) as caught:
        warehouse.store("raw_numbers", rows)
    assert is_transient(caught.value)


def cut(warehouse: Warehouse) -> None:
    """End the warehouse's session as an administrator does."""
    session = warehouse.connection.con.info.backend_pid
    with psycopg.connect(warehouse.url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (session,))


def test_rows_of_a_file_are_those_that_duckdb_reads(new_database: Callable[[], str], tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["", None, 'a "quoted", line\nof text\r', "\\.", "\\N", "é😀", "\t"],
            "number": [0.1, None, float("nan"), float("inf"), -1e-300, 1.7976931348623157e308, 5e-324],
            "whole": pa.array([1, None, -(2**63), 2**63 - 1, 0, 7, 8]),
            "truth": [True, None, False, True, True, False, None],
            "time": pa.array([0, None, 1, -1, 1_714_557_600_123_456, 253_402_300_799_999_999, 5], pa.timestamp("us")),
            "day": pa.array([0, None, 1, 19_000, 2, 3, 4], pa.date32()),
            'column, with "marks" and 100 %': ["x"] * 7,
        }
    )
    file = tmp_path / "rows[1].parquet"
    pq.write_table(table, file, row_group_size=3)
    engine = open_engine(new_database())
    rows = engine.ingest_parquet(file)
    assert repr(rows.to_pyarrow().to_pylist()) == repr(table.to_pylist())
    engine.replace_table("staging", "raw_x", rows)
    stored = engine.table("staging", "raw_x")
    assert repr(stored.to_pyarrow().to_pylist()) == repr(table.to_pylist())
    assert [batch.num_rows for batch in stored.to_pyarrow_batches(chunk_size=2)] == [2, 2, 2, 1]
    assert stored.filter(stored.whole == 99).to_pyarrow().num_rows == 0
    batches = stored.to_pyarrow_batches(chunk_size=2)
    assert stored.count().to_pyarrow().as_py() == 7, "the connection is free while batches are read"
    assert sum(batch.num_rows for batch in batches) == 7
    engine.close()


def test_a_file_comes_in_by_parts_and_a_result_waits_in_a_file_without_a_name(
    new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(postgres_backend, "SPOOL_BYTES", 1 << 10)
    (tmp_path / "temporary").mkdir()
    parts, write = [], postgres_backend._write
    monkeypatch.setattr(postgres_backend, "_write", lambda batch: parts.append(len(batch)) or write(batch))
    pq.write_table(pa.table({"number": range(250_000)}), tmp_path / "rows.parquet")
    engine = open_engine(new_database())
    rows = engine.ingest_parquet(tmp_path / "rows.parquet")
    assert parts == [100_000, 100_000, 50_000]
    statements, copy = [], psycopg.Cursor.copy
    monkeypatch.setattr(psycopg.Cursor, "copy", lambda cursor, statement: statements.append(statement) or copy(cursor, statement))
    batches = rows.to_pyarrow_batches(chunk_size=1000)
    assert batches.read_next_batch().num_rows == 1000
    assert [(statement[:12], statement[-30:]) for statement in statements] == [("COPY (SELECT", "TO STDOUT (FORMAT csv, HEADER)")]
    assert list((tmp_path / "temporary").iterdir()) == []
    if sys.platform == "linux":
        opened = [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        assert [name for name in opened if name.startswith(f"{tmp_path / 'temporary'}/")]
    engine.close()


def test_scores_come_in_as_they_are_made(new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch goes by COPY into a table of the session while others are still made, and through no file."""
    steps, write = [], postgres_backend._write
    monkeypatch.setattr(postgres_backend, "_write", lambda batch: steps.append("copied") or write(batch))

    def double(batch: pa.RecordBatch) -> pa.RecordBatch:
        steps.append("made")
        return pa.RecordBatch.from_pydict({"number": [2 * number for number in batch["number"].to_pylist()]})

    url = new_database()
    pq.write_table(pa.table({"number": range(5 * BATCH_ROWS)}), tmp_path / "rows.parquet")
    engine, other = open_engine(url), open_engine(url)
    engine.replace_table("analytics", "numbers", engine.ingest_parquet(tmp_path / "rows.parquet"))
    steps.clear()
    scored = engine.map_batches(
        engine.table("analytics", "numbers"), double, pa.schema([("number", pa.int64())]), key="number", file=tmp_path / "none", threads=1
    )
    assert steps.count("made") == steps.count("copied") == 5
    assert steps.index("copied") < len(steps) - 1 - steps[::-1].index("made"), steps
    assert scored.to_pyarrow()["number"].to_pylist() == list(range(0, 10 * BATCH_ROWS, 2))
    assert not (tmp_path / "none").exists()
    assert [name for schema in SCHEMAS for name in other.connection.list_tables(database=schema)] == ["numbers"]
    with pytest.raises(psycopg.errors.UndefinedTable):
        other.connection.con.execute(f'SELECT * FROM "{scored.get_name()}"')
    engine.close()
    other.close()


def test_a_long_step_is_computed_once(new_database: Callable[[], str]) -> None:
    engine = open_engine(new_database())
    rows = ibis.memtable({"text": ["a", "b"]})
    step = rows.mutate(long=rows.text.upper().lower().strip().upper().lower().re_replace("a", "b"))
    used = step.mutate(**{f"use_{number}": step.long + str(number) for number in range(5)})
    engine.connection._run_pre_execute_hooks(used)
    plan = engine.connection.con.execute("EXPLAIN (VERBOSE) " + engine.connection.compile(used)).fetchall()
    assert sum(line.count("regexp_replace") for (line,) in plan) == 1, plan
    engine.close()


def test_a_database_of_another_encoding_or_an_old_server_is_refused(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url(new_database())
    name = f"{url.database}_latin"
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        with pytest.raises(EngineError, match="has the encoding LATIN1: create it with ENCODING 'UTF8'"):
            open_engine(url.set(database=name).render_as_string(hide_password=False))
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    monkeypatch.setattr(postgres_engine, "FIRST_VERSION", 990000)
    with pytest.raises(EngineError, match=r"is of version [0-9]+: finrisk needs 99 or newer"):
        open_engine(url.render_as_string(hide_password=False))


def test_a_role_that_may_not_create_schemas_is_told_what_it_needs(new_database: Callable[[], str]) -> None:
    url = make_url(new_database())
    role = f"{url.database}_reader"
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        with pytest.raises(EngineError, match=rf"permission denied for database .* GRANT CREATE ON DATABASE {url.database} TO {role}"):
            open_engine(url.set(username=role, password="secret").render_as_string(hide_password=False))
        connection.execute(f"DROP ROLE {role}")


def test_a_database_belongs_to_one_ledger(new_database: Callable[[], str]) -> None:
    url = new_database()
    unnamed, one, other = (Warehouse(url=url, ledger=name) for name in ("", "one", "other"))
    assert not other.has("raw_loans"), "an empty database is of no ledger"
    other.drop_connection()
    unnamed.store("raw_loans", rows_of(a="2024-01-01"))
    one.drop_connection()
    one.store("validated_transactions", rows_of(a="2024-01-01"))
    other.drop_connection()
    with pytest.raises(EngineError, match="holds the tables of the ledger one, and this is other: name another one"):
        other.store("validated_transactions", rows_of(b="2024-01-01"))
    other.drop_connection()
    assert keys_of(one) == ["a"]


def test_a_ledger_that_came_first_is_not_overwritten(new_database: Callable[[], str]) -> None:
    engines = [open_engine(url) for url in [new_database()] * 2]
    for engine, name in zip(engines, ("one", "other"), strict=True):
        engine.open_ledger(name)
    engines[0].replace_table("staging", "raw_loans", rows_of(a="2024-01-01"))
    with pytest.raises(EngineError, match="holds the tables of the ledger one, and this is other"):
        engines[1].replace_table("staging", "raw_loans", rows_of(b="2024-01-01"))
    for engine in engines:
        engine.close()


def test_a_refusal_of_the_database_says_what_is_missing(new_database: Callable[[], str]) -> None:
    url = make_url(new_database())
    role, owner = f"{url.database}_reader", open_engine(url.render_as_string(hide_password=False))
    owner.replace_table("analytics", "kept", rows_of(a="2024-01-01"))
    execute = owner.connection.con.execute
    execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    engine = open_engine(url.set(username=role, password="secret").render_as_string(hide_password=False))
    with pytest.raises(EngineError, match=rf"the role {role} may not read the stored table analytics.kept: let its owner GRANT USAGE"):
        engine.has("analytics", "kept")
    execute(f"GRANT USAGE ON SCHEMA analytics TO {role}")
    with pytest.raises(EngineError, match=rf"permission denied for table kept\): let the owner GRANT SELECT ON TABLE kept TO {role}"):
        engine.table("analytics", "kept").to_pyarrow()
    execute(f"GRANT SELECT ON analytics.kept TO {role}")
    assert engine.has("analytics", "kept") and not engine.has("analytics", "other")
    with pytest.raises(EngineError, match=rf"schema analytics\): let the owner GRANT USAGE, CREATE ON SCHEMA analytics TO {role}"):
        engine.replace_table("analytics", "kept", engine.table("analytics", "kept"))
    execute(f"REVOKE TEMPORARY ON DATABASE {url.database} FROM PUBLIC")
    with pytest.raises(EngineError, match=rf"let the owner GRANT TEMPORARY ON DATABASE {url.database} TO {role}"):
        rows_of(a="2024-01-01").pipe(engine.connection.to_pyarrow)
    engine.close()
    execute("CREATE VIEW analytics.seen AS SELECT 1 AS x")
    with pytest.raises(EngineError, match=r"is not a table\): drop it, or give finrisk a database of its own"):
        owner.replace_table("analytics", "seen", rows_of(a="2024-01-01"))
    execute("SET statement_timeout = '1ms'")
    with pytest.raises(EngineError, match=r"statement timeout\): leave statement_timeout out of FINRISK_WAREHOUSE_URL"):
        execute("SELECT pg_sleep(9)")
    execute("SET statement_timeout = 0")
    execute("SET default_transaction_read_only = on")
    with pytest.raises(EngineError, match=r"read-only transaction\): the database or the role .* is read-only: name one that may be"):
        owner.replace_table("analytics", "kept", owner.table("analytics", "kept"))
    execute("SET default_transaction_read_only = off")
    execute(f"DROP OWNED BY {role}")
    execute(f"DROP ROLE {role}")
    with pytest.raises(psycopg.errors.UndefinedTable):
        execute("SELECT * FROM analytics.nothing")
    owner.close()


def test_a_server_that_closes_the_connection_is_asked_four_times() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked: list[int] = []

        def close_each() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    asked.append(client.getpeername()[1])
                    client.close()

        threading.Thread(target=close_each, daemon=True).start()
        with pytest.raises(EngineError, match="cannot be opened"):
            _ = Warehouse(url=f"postgres://me@127.0.0.1:{server.getsockname()[1]}/risk?sslmode=disable&gssencmode=disable").engine
        server.shutdown(socket.SHUT_RDWR)
    assert len(asked) == 4


def test_the_character_0_is_left_out_at_the_ends_and_replaced_within(new_database: Callable[[], str], tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["\0a\0b\0", "c"]}), tmp_path / "rows.parquet")
    engine = open_engine(new_database())
    assert engine.ingest_parquet(tmp_path / "rows.parquet").to_pyarrow()["text"].to_pylist() == ["a\ufffdb", "c"]
    engine.close()


def test_a_name_that_postgresql_would_cut_off_is_refused(new_database: Callable[[], str], tmp_path: Path) -> None:
    pq.write_table(pa.table({"n" * 64: [1]}), tmp_path / "rows.parquet")
    engine = open_engine(new_database())
    with pytest.raises(EngineError, match="has more than the 63 bytes of a name of PostgreSQL: rename it at its source"):
        engine.ingest_parquet(tmp_path / "rows.parquet")
    engine.close()


def test_a_server_that_is_away_is_one_sentence_without_the_password() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EngineError) as caught:
        open_engine(f"postgres://me:s3cret@127.0.0.1:{port}/risk")
    assert str(caught.value).startswith(f"the PostgreSQL database risk at 127.0.0.1:{port} cannot be opened: ")
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value) and caught.value.__cause__ is None
    assert is_transient(caught.value), "a server that starts again is waited for"


def test_a_url_with_an_unknown_parameter_is_refused_with_its_name() -> None:
    with pytest.raises(EngineError, match=r"^FINRISK_WAREHOUSE_URL has the parameter 'nonsense', which libpq does not know: ") as caught:
        open_engine("postgres://me:s3cret@127.0.0.1/risk?sslmode=disable&nonsense=1")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://me:s3cret@[host/risk",
        "postgres://me:1/x?s3cret=1@127.0.0.1/risk",
        "postgres://me:x@:s3cret/risk",
        "postgres://me:s3@s3cret@127.0.0.1/x",
    ],
)
def test_a_url_that_cannot_be_read_is_one_sentence_without_the_password(url: str) -> None:
    with pytest.raises(EngineError, match=r"^FINRISK_WAREHOUSE_URL is no URL of PostgreSQL|cannot be opened: .*: check FINRISK") as caught:
        open_engine(url)
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)
    assert "s3cret" not in describe(url)


def test_without_the_driver_the_command_says_how_to_install_it(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from finrisk_assets.cli.main import cli
cli(["demo"])
"""
    environment = {"FINRISK_HOME": str(tmp_path), "FINRISK_WAREHOUSE_URL": "postgres://me:s3cret@host/risk", "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"Error: {WITHOUT_DRIVER}\n"
