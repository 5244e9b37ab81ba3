"""Ibis' backend of Spark with the meaning that the other engines give to an expression.

Ibis reads results through pandas, where a null is NaN and a whole number with a null is a fraction; here they stay in Arrow. It writes
a Parquet file as a folder; here it is one file. Differences of single operations are in `SparkCompiler`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ibis.backends.sql.datatypes as sql_types
import ibis.expr.datatypes as dt
import ibis.expr.operations as ops
import ibis.expr.schema as sch
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends.pyspark import Backend
from ibis.backends.pyspark.datatypes import PySparkType
from ibis.backends.sql.compilers.pyspark import PySparkCompiler
from ibis.formats.pandas import PandasData
from pyspark.sql import DataFrame

from finrisk_assets.engines.spark.spark_faults import faults_as_engine_errors
from finrisk_assets.engines.spark.spark_workers import PACKED, join_batches, pack, rename_columns, unpack


class SparkType(sql_types.PySparkType):
    """Types as Spark 4 names them."""

    @classmethod
    def _from_ibis_Timestamp(cls, dtype: dt.Timestamp) -> sge.DataType:  # noqa: N802 - Ibis' name
        """Leave out the precision, which is always a microsecond."""
        return super()._from_ibis_Timestamp(dtype.copy(scale=None))


class SparkCompiler(PySparkCompiler):
    """The SQL of Spark 4."""

    __slots__ = ()
    type_mapper = SparkType

    def visit_NonNullLiteral(self, op: Any, *, value: Any, dtype: dt.DataType) -> Any:  # noqa: N802
        """Write a fraction as a double: Spark reads 0.5 as a decimal, and a whole number over a decimal is one too."""
        if dtype.is_floating() and math.isfinite(value):
            return self.cast(value, dt.float64)
        return super().visit_NonNullLiteral(op, value=value, dtype=dtype)

    def visit_Cast(self, op: Any, *, arg: Any, to: dt.DataType) -> Any:  # noqa: N802
        """Write a fraction as text as DuckDB does: in the fewest digits, with an exponent from 1e16 on only."""
        if op.arg.dtype.is_floating() and to.is_string():
            return self.f.anon.float_text(arg)
        return super().visit_Cast(op, arg=arg, to=to)

    def visit_ScalarUDF(self, op: Any, **arguments: Any) -> Any:  # noqa: N802
        """Write PostgreSQL's and DuckDB's `timezone` as Spark says it; both of its forms return a time without a zone."""
        if self.__sql_name__(op) != "timezone":
            return super().visit_ScalarUDF(op, **arguments)
        zone, time = arguments.values()
        if op.args[1].dtype.timezone is None:
            return self.f.anon.convert_timezone(zone, "UTC", time)
        return self.f.anon.convert_timezone("UTC", zone, time)

    def visit_TimestampTruncate(self, op: Any, *, arg: Any, unit: Any) -> Any:  # noqa: N802
        """Return a time without a zone, not an instant."""
        return self.cast(super().visit_TimestampTruncate(op, arg=arg, unit=unit), dt.timestamp)

    def visit_TimestampFromUNIX(self, op: Any, *, arg: Any, unit: Any) -> Any:  # noqa: N802
        """Read milliseconds and microseconds too, and return a time without a zone."""
        read = {"s": "timestamp_seconds", "ms": "timestamp_millis", "us": "timestamp_micros"}[unit.short]
        return self.cast(self.f.anon[read](arg), dt.timestamp)

    def visit_IsNull(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        """Tell null from NaN, which is a number here."""
        return arg.is_(sge.Null())

    def visit_NotNull(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        """Tell null from NaN, likewise."""
        return arg.is_(sge.Not(this=sge.Null()))


class SparkBackend(Backend):
    """An Ibis connection to a session of Spark, classic or Connect."""

    compiler = SparkCompiler()

    def do_connect(self, *args: Any, **options: Any) -> None:
        """Connect, and register Ibis' options of Spark, which its compiler reads."""
        self.register_options()
        super().do_connect(*args, **options)

    @faults_as_engine_errors()
    def data_frame(self, expr: ir.Expr, limit: int | str | None = None, params: Mapping[Any, Any] | None = None) -> DataFrame:
        """Return the rows of an expression as a lazy data frame of Spark, times without a zone."""
        self._run_pre_execute_hooks(expr)
        return without_zones(self._session.sql(self.compile(expr.as_table(), params=params, limit=limit)))

    @faults_as_engine_errors()
    def to_pyarrow(self, expr: ir.Expr, /, *, params: Any = None, limit: Any = None, **_: Any) -> Any:
        """Return the result of an expression in memory, in Arrow's types of its schema."""
        rows = self.data_frame(expr, limit, params).toArrow()
        return expr.__pyarrow_result__(rows.cast(expr.as_table().schema().to_pyarrow()))

    def execute(self, expr: ir.Expr, /, *, params: Any = None, limit: Any = None, **_: Any) -> Any:
        """Return the result of an expression in pandas."""
        table = expr.as_table()
        frame = self.to_pyarrow(table, params=params, limit=limit).to_pandas()
        return expr.__pandas_result__(PandasData.convert_table(frame, table.schema()))

    def to_pyarrow_batches(
        self, expr: ir.Expr, /, *, params: Any = None, limit: Any = None, chunk_size: int = 1_000_000, **_: Any
    ) -> pa.RecordBatchReader:
        """Return the rows of an expression batch by batch: one partition of Spark's at most is in memory."""
        schema = expr.as_table().schema().to_pyarrow()
        rows = map_in_arrow(self.data_frame(expr, limit, params), pack, f"{PACKED} binary").toLocalIterator()

        def read() -> Iterator[pa.RecordBatch]:
            with faults_as_engine_errors():
                for row in rows:
                    yield from unpack(row[0]).cast(schema).combine_chunks().to_batches(max_chunksize=chunk_size)

        return pa.RecordBatchReader.from_batches(schema, read())

    def to_parquet(self, expr: ir.Expr, /, path: str | Path, *, params: Any = None, **options: Any) -> None:
        """Write the rows of an expression to one Parquet file of this process, batch by batch."""
        batches = self.to_pyarrow_batches(expr, params=params)
        with pq.ParquetWriter(path, batches.schema, **options) as writer:
            for batch in batches:
                writer.write_batch(batch)

    def read_parquet(self, path: str | Path, /, *, table_name: str | None = None, **_: Any) -> ir.Table:
        """Return the rows of a Parquet file, which driver and workers reach under this path; times become naive UTC."""
        return self.view(without_zones(self._session.read.parquet(escape_pattern(path))), table_name)

    def view(self, rows: DataFrame, name: str | None = None) -> ir.Table:
        """Return a data frame as a lazy table of this connection."""
        from ibis.util import gen_name

        name = name or gen_name("view")
        rows.createOrReplaceTempView(name)
        return ops.DatabaseTable(name, schema=_read_schema(rows), source=self).to_expr()

    def map_sorted(
        self,
        rows: ir.Table,
        work: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]],
        schema: pa.Schema,
        *,
        by: Sequence[str],
        spread: str,
        chunk_rows: int,
    ) -> ir.Table:
        """Return what a function makes of sorted rows, lazy: Spark's workers compute it.

        Parameters
        ----------
        work
            Takes the chunks of a partition and yields batches of `schema`; it is pickled.
        by
            Columns of the order. All rows with one value of the first are in one partition.
        spread
            The column by which rows are put into partitions where the first column of `by` is null.
        chunk_rows
            Rows of a chunk; the last one has fewer.
        """
        import pyspark.sql.functions as functions
        from pyspark.sql.pandas.types import from_arrow_schema

        entity = functions.coalesce(by[0], spread)
        ordered = self.data_frame(rows).repartition(entity).sortWithinPartitions(*by)
        in_chunks = partial(join_batches, chunk_rows, work)
        return self.view(map_in_arrow(ordered, in_chunks, from_arrow_schema(schema, prefer_timestamp_ntz=True)))

    @faults_as_engine_errors()
    def get_schema(self, table_name: str, *, catalog: str | None = None, database: str | None = None) -> sch.Schema:
        """Return the schema of a table or a view, asked for in one request."""
        name = sg.table(table_name, db=database, catalog=catalog, quoted=True).sql(self.dialect)
        return _read_schema(self._session.table(name))

    def list_databases(self, *, like: str | None = None, catalog: str | None = None) -> list[str]:
        """Return the schemas of the catalog."""
        return self._filter_with_like([row[0] for row in self._session.sql("SHOW NAMESPACES").collect()], like)

    def _register_in_memory_table(self, op: ops.InMemoryTable) -> None:
        table = op.data.to_pyarrow(op.schema).cast(op.schema.to_pyarrow())
        without_zones(self._session.createDataFrame(table)).createOrReplaceTempView(op.name)


def map_in_arrow(rows: DataFrame, work: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]], schema: Any) -> DataFrame:
    """Return what a function makes of the batches of rows, lazy."""
    # PySpark looks for the part before the dot in a name that has one.
    numbered = rows.toDF(*(f"column_{number}" for number in range(len(rows.columns))))
    return numbered.mapInArrow(partial(rename_columns, rows.columns, work), schema)


def without_zones(rows: DataFrame) -> DataFrame:
    """Return rows whose instants are times without a zone, as the other engines hold them."""
    import pyspark.sql.functions as functions
    from pyspark.sql.types import TimestampType

    instants = [field.name for field in rows.schema.fields if isinstance(field.dataType, TimestampType)]
    return rows.withColumns({name: functions.col(f"`{name}`").cast("timestamp_ntz") for name in instants}) if instants else rows


def _read_schema(rows: DataFrame) -> sch.Schema:
    """Return the types of rows as DuckDB states them: a time has microseconds."""
    types = PySparkType.to_ibis(rows.schema).fields
    return sch.Schema({name: dt.Timestamp(scale=6) if kind.is_timestamp() else kind for name, kind in types.items()})


def escape_pattern(path: str | Path) -> str:
    """Return a path as Spark reads it: the marks of its patterns stand for themselves."""
    return "".join(f"\\{mark}" if mark in r"\*?[]{}," else mark for mark in str(path))
