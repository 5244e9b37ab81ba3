"""Ibis' PostgreSQL backend with rows that come and go by COPY, as Arrow: row by row through Python they would take many times as long."""

import io
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, Any, TypeVar

import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.types as ir
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from ibis.backends.postgres import Backend
from ibis.expr.schema import Schema

from finrisk_assets.engines.engine import EngineError
from finrisk_assets.engines.postgres_compiler import EngineCompiler
from finrisk_assets.engines.transient_faults import with_retries

Result = TypeVar("Result")

MAX_NAME_BYTES = 63
"""Bytes of a name; PostgreSQL cuts off the rest."""
SPOOL_BYTES = 1 << 24
"""Bytes of a result from which it waits on disk, and the size of the pieces in which it is read."""
REPLACEMENT = "\ufffd"
"""The character in place of the character 0, which no text of PostgreSQL's can have."""
CALENDAR = datetime.min, datetime.max
"""The first and the last time of a file that COPY reads; a time beyond them becomes the nearest, which no contract takes either."""


ADVICE = {
    "25006": "the database or the role {role} is read-only: name one that may be written in FINRISK_WAREHOUSE_URL",
    "42809": "drop it, or give finrisk a database of its own",
    "53100": "free space on the server's disk",
    "53400": "let the server's administrator raise the limit",
    "55P03": "leave lock_timeout out of FINRISK_WAREHOUSE_URL, or set a longer one",
    "57014": "leave statement_timeout out of FINRISK_WAREHOUSE_URL, or set a longer one",
}
"""State of SQL -> what a person can do; other errors are faults of the program, or pass."""

RIGHTS = {
    "database": "CREATE ON DATABASE {name}",
    "schema": "USAGE, CREATE ON SCHEMA {name}",
    "table": "SELECT ON TABLE {name}",
}
"""Kind of an object that a role may not use -> what it lacks; who writes a table must own it."""


class PlainErrorCursor(psycopg.Cursor[Any]):
    """A cursor whose errors are one sentence where a user or an administrator can mend the cause."""

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """Execute a statement."""
        with _plain_errors(self.connection):
            return super().execute(*arguments, **options)

    @contextmanager
    def copy(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        """Copy rows."""
        with _plain_errors(self.connection), super().copy(*arguments, **options) as rows:
            yield rows


@contextmanager
def _plain_errors(connection: Any) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        # The first line alone: the driver's further ones may hold the values of a row.
        reason, info = error.diag.message_primary or "", connection.info
        if error.sqlstate == "42501":
            advice = _missing_right(reason, info)
        elif error.sqlstate in ADVICE and "user request" not in reason:
            advice = ADVICE[error.sqlstate].format(role=info.user)
        else:
            raise
        raise EngineError(f"the PostgreSQL database {info.dbname} refuses ({reason}): {advice}") from None


def _missing_right(reason: str, info: Any) -> str:
    """Return who must give which right to whom."""
    if "temporary tables" in reason:
        return f"let the owner GRANT TEMPORARY ON DATABASE {info.dbname} TO {info.user}"
    found = re.match(r"permission denied for (database|schema|table) (\S+)", reason)
    right = RIGHTS[found[1]].format(name=found[2]) if found else "what it lacks"
    return f"let the owner GRANT {right} TO {info.user}, or use the role that owns the tables"


class EngineBackend(Backend):
    """A connection to PostgreSQL that outlives its session, with the compiler and the transfer of rows that the engine needs.

    Lazy tables hold the backend. A server that starts again, or a network that drops an idle session, therefore spoils none of them.
    """

    compiler = EngineCompiler()
    _session: psycopg.Connection[Any]

    def do_connect(self, open_session: Callable[[], psycopg.Connection[Any]]) -> None:
        """Open a session, which Ibis' `reconnect` does again."""
        self._session = open_session()
        self._post_connect()

    @property
    def con(self) -> psycopg.Connection[Any]:
        """The open session; another one where the server or the network has ended it."""
        if self.is_cut():
            self._memtables.clear()  # went with their session
            with_retries(self.reconnect)
        return self._session

    def is_cut(self) -> bool:
        """Return whether the server or the network has ended the session; an idle one is asked, which takes a tenth of a millisecond."""
        if self._session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            with suppress(psycopg.OperationalError):
                self._session.execute("")
        return self._session.broken

    def again_if_cut(self, action: Callable[[], Result]) -> Result:
        """Do what changes no stored table; where its session is cut, do it once more in another."""
        try:
            return action()
        except psycopg.OperationalError:
            if not self.is_cut():
                raise
        return action()

    def disconnect(self) -> None:
        """End the session."""
        self._session.close()

    def execute(self, expr: ir.Expr, /, *, params: Any = None, limit: Any = None, **_: Any) -> Any:
        """Execute an expression and return it as pandas, of the same types as DuckDB's."""
        import pandas as pd
        from ibis.backends.duckdb.converter import DuckDBPandasData

        table = self.to_pyarrow(expr.as_table(), params=params, limit=limit)
        # As Ibis reads DuckDB's results: a column with gaps goes through Python's own values.
        columns = zip(table.column_names, table.columns, strict=True)
        frame = pd.DataFrame({name: column.to_pylist() if column.null_count else column.to_pandas() for name, column in columns})
        return expr.__pandas_result__(DuckDBPandasData.convert_table(frame, expr.as_table().schema()))

    def to_pyarrow_batches(
        self, expr: ir.Expr, /, *, params: Mapping[ir.Scalar, Any] | None = None, limit: Any = None, chunk_size: int = 1_000_000, **_: Any
    ) -> pa.RecordBatchReader:
        """Execute an expression and return its rows in batches.

        The result waits in a file without a name, so that the connection is free for other queries while the batches are read.
        """
        table = expr.as_table()
        schema = table.schema().to_pyarrow()
        query = self.typed_query(table, params=params, limit=limit)
        spool = self.again_if_cut(lambda: self._spool(expr, query))
        return pa.RecordBatchReader.from_batches(schema, _read(spool, schema, chunk_size))

    def _spool(self, expr: ir.Expr, query: str) -> IO[bytes]:
        """Return a query's result as COPY's text; the reader closes the file."""
        self._run_pre_execute_hooks(expr)
        spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
        with self.con.cursor() as cursor, cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)") as copy:
            for data in copy:
                spool.write(data)
        spool.seek(0)
        return spool

    def typed_query(self, table: ir.Table, **options: Any) -> str:
        """Return the SQL of a table, with every column of exactly the type that the expression has."""
        query, schema = self.compile(table, **options), table.schema()
        # By their places: PostgreSQL cuts long names off, such as that of an expression without one.
        places = [f"c{number}" for number in range(len(schema))]
        named = zip(places, schema.items(), strict=True)
        columns = [f"CAST({place} AS {self._type_name(kind)}) AS {_quote(name)}" for place, (name, kind) in named]
        return f"SELECT {', '.join(columns)} FROM ({query}) AS typed ({', '.join(places)})"

    def copy_rows(self, target: str, schema: Schema, batches: Iterable[pa.RecordBatch]) -> None:
        """Create a temporary table and fill it.

        Raises
        ------
        EngineError
            If a column's name is too long.
        """
        check_names(schema.names)
        columns = ", ".join(f"{_quote(name)} {self._type_name(kind)}" for name, kind in schema.items())
        with (session := self.con).cursor() as cursor, session.transaction():
            cursor.execute(f"CREATE TEMPORARY TABLE {_quote(target)} ({columns})")
            with cursor.copy(f"COPY {_quote(target)} FROM STDIN (FORMAT csv)") as copy:
                for batch in batches:
                    copy.write(_write(batch))
            cursor.execute(f"ANALYZE {_quote(target)}")

    def _type_name(self, kind: dt.DataType) -> str:
        # A column without any value has no type of its own.
        return "TEXT" if kind.is_null() else str(self.compiler.type_mapper.to_string(kind))

    def _register_in_memory_table(self, op: ops.InMemoryTable) -> None:
        self.copy_rows(op.name, op.schema, op.data.to_pyarrow(op.schema).to_batches())


def check_names(names: Iterable[str]) -> None:
    """Refuse names of columns that PostgreSQL would cut off.

    Raises
    ------
    EngineError
        For the first of them.
    """
    for name in names:
        if len(name.encode()) > MAX_NAME_BYTES:
            most = f"more than the {MAX_NAME_BYTES} bytes of a name of PostgreSQL"
            raise EngineError(f"the column {name!r} has {most}: rename it at its source")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _read(spool: IO[bytes], schema: pa.Schema, chunk_size: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of COPY's text in batches of `chunk_size`; the last may be smaller."""
    convert = pyarrow.csv.ConvertOptions(
        column_types=schema,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=["t"],
        false_values=["f"],
    )
    blocks = pyarrow.csv.ReadOptions(block_size=SPOOL_BYTES, column_names=schema.names, skip_rows=1)
    lines = pyarrow.csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False)
    nullable = pa.schema([field.with_nullable(True) for field in schema])  # as the text is read
    waiting: list[pa.RecordBatch] = []
    with spool, pyarrow.csv.open_csv(spool, blocks, lines, convert) as reader:
        for batch in reader:
            waiting.append(batch)
            if sum(part.num_rows for part in waiting) >= chunk_size:
                *full, last = pa.Table.from_batches(waiting).combine_chunks().to_batches(chunk_size)
                yield from (part.cast(schema) for part in full)
                waiting = [last]
    yield from pa.Table.from_batches(waiting, nullable).cast(schema).combine_chunks().to_batches(chunk_size)


def _write(batch: pa.RecordBatch) -> bytes:
    """Return rows as the text that COPY reads."""
    columns = [_storable(column) for column in batch.columns]
    text = io.BytesIO()
    pyarrow.csv.write_csv(
        pa.RecordBatch.from_arrays(columns, names=batch.schema.names), text, pyarrow.csv.WriteOptions(include_header=False)
    )
    return text.getvalue()


def _storable(column: pa.Array) -> pa.Array:
    """Return values as PostgreSQL can have them."""
    if pa.types.is_string(column.type):
        return _without_zeros(column)
    if pa.types.is_timestamp(column.type) or pa.types.is_date32(column.type):
        first, last = (pa.scalar(time, pa.timestamp("us")).cast(column.type, safe=False) for time in CALENDAR)
        return pc.if_else(pc.less(column, first), first, pc.if_else(pc.greater(column, last), last, column))
    return column


def _without_zeros(texts: pa.Array) -> pa.Array:
    """Return texts without the character 0: at either end, where the normal form has none either, it is left out."""
    if not pc.any(pc.match_substring(texts, "\0")).as_py():
        return texts
    return pc.replace_substring(pc.replace_substring_regex(texts, "^\0+|\0+$", ""), "\0", REPLACEMENT)
