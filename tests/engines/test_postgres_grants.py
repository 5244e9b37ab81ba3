"""Tests of a PostgreSQL warehouse whose tables others read: their grants and views outlive every change of a table."""

from collections.abc import Callable
from typing import Any

import ibis
import psycopg
import pytest
from sqlalchemy import make_url

from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.engine import Engine, EngineError

OLD, NEW = {"key": ["a", "b"], "amount": [1.0, 2.0]}, {"key": ["c"], "amount": [3.0]}
OTHER_COLUMNS = {"key": ["c"], "note": ["new"]}


class SharedTable:
    """A stored table of a warehouse, and a role of others that may read what it is granted."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        self.engine.connection.con.execute("SET lock_timeout = '5s'")
        self.role = f"{make_url(url).database}_reader"
        self.owner = psycopg.connect(url, autocommit=True)
        self.owner.execute(f"CREATE ROLE {self.role}")
        self.owner.execute(f"GRANT USAGE ON SCHEMA analytics TO {self.role}")
        self.store(OLD)

    def store(self, rows: dict[str, list[Any]]) -> None:
        self.engine.replace_table("analytics", "shared", ibis.memtable(rows))

    def read(self, query: str = "SELECT key FROM analytics.shared") -> list[Any]:
        """Return the first column of a query of the other role, sorted."""
        self.owner.execute(f"SET ROLE {self.role}")
        try:
            return sorted(row[0] for row in self.owner.execute(query).fetchall())
        finally:
            self.owner.execute("RESET ROLE")

    def tables(self) -> list[str]:
        return self.engine.connection.list_tables(database="analytics")


@pytest.fixture
def shared(new_database: Callable[[], str]) -> Any:
    made = SharedTable(new_database())
    yield made
    made.owner.execute(f"DROP OWNED BY {made.role}; DROP ROLE {made.role}")
    made.owner.close()
    made.engine.close()


def test_grants_on_a_table_and_on_its_columns_stay(shared: SharedTable) -> None:
    shared.owner.execute(f"GRANT SELECT (key), UPDATE (amount) ON analytics.shared TO {shared.role}")
    shared.store(NEW)
    assert shared.read() == ["c"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shared.read("SELECT amount FROM analytics.shared")
    shared.owner.execute(f"GRANT SELECT ON analytics.shared TO {shared.role}")
    shared.store(OLD)
    assert shared.read("SELECT amount FROM analytics.shared") == [1.0, 2.0]
    assert shared.tables() == ["shared"]


def test_grants_on_a_table_stay_when_its_columns_change(shared: SharedTable) -> None:
    """No other right comes by the defaults of the schema: the owner took it from this table."""
    shared.owner.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA analytics GRANT INSERT ON TABLES TO {shared.role}")
    shared.owner.execute("GRANT SELECT ON analytics.shared TO PUBLIC")
    shared.store(OTHER_COLUMNS)
    assert shared.read("SELECT note FROM analytics.shared") == ["new"]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shared.read("INSERT INTO analytics.shared VALUES ('d', 'more') RETURNING key")
    assert shared.tables() == ["shared"]


def test_a_view_of_others_shows_the_new_rows(shared: SharedTable) -> None:
    shared.owner.execute("CREATE VIEW public.report AS SELECT * FROM analytics.shared")
    shared.owner.execute(f"GRANT SELECT ON public.report TO {shared.role}")
    for rows in (NEW, OLD):
        shared.store(rows)
        assert shared.read("SELECT key FROM public.report") == rows["key"]
    with pytest.raises(EngineError, match=r"^the new rows of shared have other columns, and view public.report depends on .*: drop what"):
        shared.store(OTHER_COLUMNS)
    assert shared.read("SELECT key FROM public.report") == OLD["key"]
    assert shared.tables() == ["shared"]


@pytest.mark.parametrize("isolation", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ])
def test_a_reader_of_a_shared_table_sees_old_rows_or_new_ones_and_waits_for_none(
    shared: SharedTable, isolation: psycopg.IsolationLevel
) -> None:
    shared.owner.execute(f"GRANT SELECT ON analytics.shared TO {shared.role}")
    with psycopg.connect(shared.owner.info.dsn, password=shared.owner.info.password or None) as reader:
        reader.isolation_level = isolation
        reader.execute("SET LOCAL lock_timeout = '1ms'")
        query = "SELECT key FROM analytics.shared ORDER BY key"
        assert reader.execute(query).fetchall() == [("a",), ("b",)]
        shared.store(NEW)  # while the reader's transaction is open
        is_new = isolation is psycopg.IsolationLevel.READ_COMMITTED
        assert reader.execute(query).fetchall() == ([("c",)] if is_new else [("a",), ("b",)])


def test_a_table_of_nobody_else_is_replaced_by_a_new_one(shared: SharedTable) -> None:
    """Old rows would stay in its file until a VACUUM."""
    shared.store(NEW)
    assert shared.owner.execute("SELECT ctid::text FROM analytics.shared").fetchall() == [("(0,1)",)]
