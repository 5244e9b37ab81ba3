"""PostgreSQL, the engine of a team: several processes write at the same time, each change in one transaction."""

import sys
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import ibis.expr.operations as ops
import sqlglot.expressions as sge
from ibis.expr.schema import Schema
from ibis.expr.types import Table as LazyTable

from finrisk_assets.engines.engine import BATCH_ROWS, SCHEMAS, Engine, EngineError
from finrisk_assets.modelling.training.parallel import map_in_order

if TYPE_CHECKING:
    import pyarrow as pa

    from finrisk_assets.engines.engine import BatchFunction

FIRST_VERSION = 170000
"""The oldest server: version 17, the first with a collation of Unicode's own lower and upper case."""
FILE_ROWS = 100_000
"""Rows of a Parquet file that are in memory at a time."""

CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 60,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 120_000,
}
"""Parameters of libpq that a URL may have otherwise: a server that does not answer is given up after seconds, and one whose machine has
gone after two minutes. Seconds; the last one milliseconds."""

SESSION = (
    "SET TIME ZONE 'UTC'",
    "SET datestyle = 'ISO, YMD'",
    # What a database or a role may have otherwise: the digits of a number, the meaning of a literal, a comparison, an interval or a name,
    # and what a transaction sees that waited for another one.
    "SET extra_float_digits = 1",
    "SET standard_conforming_strings = on",
    "SET transform_null_equals = off",
    "SET intervalstyle = 'postgres'",
    "SET search_path = pg_catalog",
    "SET default_transaction_isolation = 'read committed'",
    # A step may take hours. Those of the URL stay.
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE source <> 'client' AND name IN "
    "('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout')",
    # Compiling the long expressions of features takes longer than computing them.
    "SET jit = off",
    # A scan that begins in the middle of a table would give another order of rows each time.
    "SET synchronize_seqscans = off",
    "SET work_mem = '64MB'",
    "SET client_encoding = 'UTF8'",
    "SET client_min_messages = warning",
    # The server's side of `CONNECTION`: a machine that has gone would hold its tables' locks for hours, with the server's defaults.
    *(f"SET tcp_{name.removeprefix('tcp_')} = {value}" for name, value in CONNECTION.items() if name != "connect_timeout"),
    # A query whose process was killed ends before its result is whole; a server on Windows refuses to look.
    "SELECT set_config('client_connection_check_interval', '10s', false) "
    "FROM pg_settings WHERE name = 'dynamic_shared_memory_type' AND setting <> 'windows'",
)
"""Settings of a connection on which the results, the speed, or the end of a lock depend."""

STORED_TABLE = """
SELECT
  t.relacl IS NOT NULL OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = t.oid AND attacl IS NOT NULL)
    OR EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_class'::regclass AND refobjid = t.oid AND deptype <> 'i'),
  (SELECT array_agg((attname, atttypid, atttypmod) ORDER BY attname) FROM pg_attribute
    WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped)
    = (SELECT array_agg((attname, atttypid, atttypmod) ORDER BY attname) FROM pg_attribute
    WHERE attrelid = %(fresh)s::regclass AND attnum > 0)
FROM (SELECT to_regclass(%(stored)s) AS oid) AS name LEFT JOIN pg_class AS t USING (oid)
"""
"""Whether others rely on a stored table, by grants or by objects of their own, and whether its columns are those of the new rows."""

GRANTS = """
WITH grants AS (
  SELECT c.oid, privilege_type, is_grantable, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS grantee
  FROM pg_class AS c, aclexplode(c.relacl) WHERE grantee <> c.relowner
)
SELECT format('REVOKE ALL ON %%s FROM %%s', %(fresh)s::text, grantee) FROM grants WHERE oid = %(fresh)s::regclass
UNION ALL
SELECT format('GRANT %%s ON %%s TO %%s%%s', privilege_type, %(fresh)s::text, grantee, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
FROM grants WHERE oid = to_regclass(%(stored)s)
"""
"""Statements that give a new table the grants of the stored one in place of the default privileges of its schema."""

WITHOUT_DRIVER = (
    "the warehouse on PostgreSQL needs psycopg, which finrisk does not install by itself, for its licence is the LGPL: "
    "run `make postgres`, or `pip install 'finrisk[postgres]'`"
)


NO_URL = (
    "FINRISK_WAREHOUSE_URL is no URL of PostgreSQL: write postgres://user:password@host:5432/database, with %40 for @ and %2F for / in "
    "the password"
)

OWNER = "finrisk ledger: "
"""Beginning of the comment on the schema of raw rows that says whose tables a database holds."""


class PostgresEngine(Engine):
    """A PostgreSQL database."""

    connection: Any
    is_marked = False

    @classmethod
    def open(cls, url: str) -> "PostgresEngine":
        """Connect to the database of a URL.

        Raises
        ------
        EngineError
            If the driver is not installed, the URL cannot be read, the server does not answer or refuses, or is too old. The
            message never holds the password.
        """
        try:
            from finrisk_assets.engines.postgres_backend import EngineBackend
        except ImportError:
            raise EngineError(WITHOUT_DRIVER) from None
        return cls(EngineBackend().connect(partial(cls._open_session, url)))

    @staticmethod
    def _open_session(url: str) -> Any:
        """Return a session of the driver with the settings of `SESSION`."""
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        from finrisk_assets.engines.postgres_backend import PlainErrorCursor

        try:
            _check(url)
            parameters: dict[str, Any] = CONNECTION | conninfo_to_dict(url)
            connection = psycopg.connect(
                make_conninfo(**parameters), autocommit=True, application_name="finrisk", cursor_factory=PlainErrorCursor
            )
        except (ValueError, psycopg.ProgrammingError):
            # Both repeat the part of the URL that they cannot read, which may be the password.
            raise EngineError(_url_fault(url)) from None
        except psycopg.OperationalError as error:
            raise EngineError(f"{describe(url)} cannot be opened: {_reason(error)}: check FINRISK_WAREHOUSE_URL and the server") from None
        info = connection.info
        if info.server_version < FIRST_VERSION:
            version, needed = info.server_version // 10000, FIRST_VERSION // 10000
            raise EngineError(f"{describe(url)} is of version {version}: finrisk needs {needed} or newer")
        if (encoding := info.parameter_status("server_encoding")) != "UTF8":
            raise EngineError(f"{describe(url)} has the encoding {encoding}: create it with ENCODING 'UTF8'")
        for statement in SESSION:
            connection.execute(statement)
        return connection

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._unused: deque[str] = deque()

    def create_schemas(self, names: Collection[str]) -> None:
        """Create schemas that are not there yet; the list of Ibis leaves out those that the role may not use."""
        found = self._query("SELECT nspname FROM pg_namespace")
        super().create_schemas(set(names) - {name for (name,) in found})

    def has(self, schema: str, name: str) -> bool:
        """Return whether there is a stored table of a name.

        Raises
        ------
        EngineError
            If there is one that the role may not read: the list of Ibis leaves it out.
        """
        found = self._query(
            "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s",
            (schema, name),
        )
        if found == [(False,)]:
            role, right = self._query("SELECT current_user")[0][0], f"USAGE ON SCHEMA {schema} and SELECT ON TABLE {schema}.{name}"
            raise EngineError(f"the role {role} may not read the stored table {schema}.{name}: let its owner GRANT {right} TO {role}")
        return bool(found)

    def find_owner(self) -> str:
        """Return the name of the ledger that the comment on the schema of raw rows names, where tables are stored."""
        is_empty = (
            self._query(
                "SELECT FROM pg_class WHERE relkind = 'r' AND relnamespace IN (SELECT oid FROM pg_namespace "
                "WHERE nspname = ANY(%s)) LIMIT 1",
                (list(SCHEMAS),),
            )
            == []
        )
        ((comment,),) = self._query("SELECT obj_description('staging'::regnamespace)")
        return "" if is_empty else (comment or "").partition(OWNER)[2]

    def _mark(self) -> None:
        """Write whose tables these are, once; only the owner of the schema may comment on it."""
        if self.is_marked or not self.ledger:
            return
        ((may_comment,),) = self._query("SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'staging'")
        if may_comment and self.find_owner() != self.ledger:
            self.open_ledger(self.ledger)  # another process may have stored its tables since
            self._query(f"COMMENT ON SCHEMA staging IS {sge.convert(OWNER + self.ledger).sql('postgres')}")
        self.is_marked = True

    def _query(self, statement: str, values: "Sequence[Any] | None" = None) -> list[Any]:
        cursor = self.connection.con.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description is not None else []

    def ingest_parquet(self, file: Path) -> LazyTable:
        """Return the rows of a Parquet file, copied into a temporary table that goes with the last expression over it."""
        import pyarrow.parquet as pq

        def read() -> "Iterator[pa.RecordBatch]":
            with pq.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(FILE_ROWS)

        return self._copy(pq.read_schema(file), read)

    def map_batches(self, rows: LazyTable, score: "BatchFunction", schema: "pa.Schema", *, key: str, file: Path, threads: int) -> LazyTable:
        """Return what a function makes of rows, copied as it is made: without a file, which another run would write too."""
        return self._copy(schema, lambda: map_in_order(score, rows.order_by(key).to_pyarrow_batches(chunk_size=BATCH_ROWS), threads))

    def _copy(self, arrow_schema: "pa.Schema", read: "Callable[[], Iterable[pa.RecordBatch]]") -> LazyTable:
        """Return rows in a temporary table that goes with the last expression over it; they are read again where the session is cut."""
        self._drop_unused()
        name, schema = _new_name(), Schema.from_pyarrow(arrow_schema)
        self.connection.again_if_cut(lambda: self.connection.copy_rows(name, schema, read()))
        table = ops.DatabaseTable(name, schema=schema, source=self.connection, namespace=ops.Namespace())
        # Dropped before the next file comes: the collector may run in the middle of a query.
        weakref.finalize(table, self._unused.append, name)
        return table.to_expr()

    def replace_table(self, schema: str, name: str, rows: LazyTable, month_column: str | None = None) -> None:
        """Replace a table in one transaction.

        A table on which others rely keeps its place, so that their grants, views and policies stay, and gets other rows.

        Raises
        ------
        EngineError
            If the new rows have other columns, and a view needs those of the stored table.
        """
        import psycopg

        stored, fresh = f'"{schema}"."{name}"', f'"{schema}"."{_new_name()}"'
        with self._change(schema, name, rows) as (execute, query):
            execute(f"CREATE TABLE {fresh} AS {query}")
            execute(f"ANALYZE {fresh}")
            ((others_rely, is_alike),) = execute(STORED_TABLE, {"stored": stored, "fresh": fresh}).fetchall()
            if others_rely and is_alike:
                columns = ", ".join(f'"{column}"' for column in rows.columns)
                execute(f"DELETE FROM {stored}")
                execute(f"INSERT INTO {stored} ({columns}) SELECT {columns} FROM {fresh}")
                execute(f"DROP TABLE {fresh}")
                execute(f"ANALYZE {stored}")
                return
            for (grant,) in execute(GRANTS, {"stored": stored, "fresh": fresh}).fetchall():
                execute(grant)
            try:
                execute(f"DROP TABLE IF EXISTS {stored}")
            except psycopg.errors.DependentObjectsStillExist as error:
                advice = "drop what depends on it, run again, and create it again"
                raise EngineError(f"the new rows of {name} have other columns, and {error.diag.message_detail}: {advice}") from None
            execute(f'ALTER TABLE {fresh} RENAME TO "{name}"')

    def replace_rows(self, schema: str, name: str, rows: LazyTable, condition: str) -> None:
        """Replace the rows that meet a condition in one transaction."""
        part, columns = _new_name(), ", ".join(f'"{column}"' for column in rows.columns)
        with self._change(schema, name, rows) as (execute, query):
            execute(f'CREATE TEMPORARY TABLE "{part}" ON COMMIT DROP AS {query}')
            execute(f'DELETE FROM "{schema}"."{name}" WHERE {condition}')
            execute(f'INSERT INTO "{schema}"."{name}" ({columns}) SELECT {columns} FROM "{part}"')

    @contextmanager
    def _change(self, schema: str, name: str, rows: LazyTable) -> Iterator[Any]:
        """Hold a table against other changes of it for one transaction; yield what executes a statement, and the SQL of the rows."""
        from finrisk_assets.engines.postgres_backend import check_names

        self._mark()
        check_names(rows.columns)
        connection: Any = self.connection
        connection._run_pre_execute_hooks(rows)
        query = connection.typed_query(rows)
        with (session := connection.con).cursor() as cursor, session.transaction():
            # Without the lock, of two runs at once both would delete the rows of before, and both insert their own.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"finrisk {schema}.{name}",))
            yield cursor.execute, query

    def _drop_unused(self) -> None:
        while self._unused:
            self.connection.con.execute(f'DROP TABLE IF EXISTS "{self._unused.popleft()}"')


def describe(url: str) -> str:
    """Return the words for a URL's database: its host, port and name, never the user or the password."""
    try:
        parts = urlsplit(url)
        place = f" at {parts.hostname}:{parts.port or 5432}" if parts.hostname else ""
        return f"the PostgreSQL database {parts.path.lstrip('/') or 'of FINRISK_WAREHOUSE_URL'}{place}"
    except ValueError:
        return "the PostgreSQL database of FINRISK_WAREHOUSE_URL"


def describe_fault(error: Exception) -> str | None:
    """Return the sentence for an error of the driver, without its text, which may hold values of rows; None for any other error."""
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate is None:
        return "the connection to PostgreSQL was cut: run the command again"
    return f"PostgreSQL refused a query ({type(error).__name__}, {error.sqlstate}): its log says more"


def _check(url: str) -> None:
    """Raise ValueError for a URL of which the driver would take a part of the password for the host or the port."""
    parts = urlsplit(url)
    if parts.port == 0 or parts.netloc.count("@") > 1:
        raise ValueError("the URL has no port or no host")


def _url_fault(url: str) -> str:
    """Return the words for a URL that the driver cannot read, with the name of a parameter that it does not know."""
    from psycopg.pq import Conninfo

    query = url.partition("?")[2]
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    unknown = next((name for name, _ in parse_qsl(query, keep_blank_values=True) if name not in known), None)
    # Behind a mark of a question that is one of the password's, no name is one.
    if unknown is None or "@" in query:
        return NO_URL
    return f"FINRISK_WAREHOUSE_URL has the parameter {unknown!r}, which libpq does not know: leave it out, or write it as libpq does"


def _reason(error: Exception) -> str:
    """Return the first line of a driver's error, which says what happened; the others advise."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")


def _new_name() -> str:
    """Return a table name that no other session uses."""
    return f"finrisk_{uuid4().hex}"
