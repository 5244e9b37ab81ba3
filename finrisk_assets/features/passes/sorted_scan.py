"""Declared features over a table in passes over sorted rows: the plan of `batch`, with other window functions.

A pass sorts the events by an entity and their time in the engine, which does so on disk where memory is short, and reads them in chunks.
Engines look up the bounds of a window again for each window function; `sorted_events` looks them up once. A test holds both ways equal to
the last bit.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from finrisk_assets.features.batch import WindowPlan, read_inputs
from finrisk_assets.features.passes.sorted_events import BATCH, SelectingPass, SortedPass
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.features.windows import TIME, Declaration
from schemas.timestamps import to_micros

CHUNK_ROWS = 1 << 17
"""Rows of a chunk, the fastest of those that were measured. More need more memory, fewer read long histories more often; as many times the
reach of the windows in microseconds must stay below 2**63."""
CATALOG = "finrisk_scan"
"""DuckDB's catalog in memory, outside the warehouse, that holds the result until it is stored; it spills to disk as other tables do."""


def runs_on(transactions: ir.Table) -> bool:
    """Return whether `compute` knows the engine of a table."""
    return transactions.get_backend().name in ("duckdb", "pyspark")


def compute(transactions: ir.Table, features: Sequence[Declaration], carry: Sequence[str] = (), span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Compute the features of every transaction of a table in DuckDB or Spark, one row each, as `batch.compute` declares them.

    Parameters
    ----------
    transactions, features, carry, span
        As of `batch.compute`. In DuckDB the table must be committed: it is read over another connection.

    Returns
    -------
    ibis.Table
        In Spark lazy; in DuckDB a table outside the warehouse, until the next call on this connection or `drop`.
    """
    plan = WindowPlan.of(transactions, features, carry)
    # Columns of the customer come last: the table is then in the order in which it is looked up.
    columns = sorted({entity[0] for entity, *_ in plan.slots}, key=lambda column: (column == "customer_id", column))
    events = plan.select_events(plan.reach(span).filter_rows(transactions, "occurred_at"))
    if not columns:
        return plan.select_features(events)
    backend: Any = transactions.get_backend()
    compute_on = _compute_on_duckdb if backend.name == "duckdb" else _compute_on_spark
    return compute_on(backend, plan, events, columns, span)


def drop(database: Any) -> None:
    """Drop the table of `compute`."""
    database.con.execute(f"DETACH DATABASE IF EXISTS {CATALOG}")


def _compute_on_spark(spark: Any, plan: WindowPlan, events: ir.Table, columns: Sequence[str], span: TimeSpan) -> ir.Table:
    for column in columns:
        one, rows = _plan_pass(plan, events, column, span)
        work: SortedPass | SelectingPass = one
        if column == columns[-1]:
            # What follows from the windows' values takes the JVM four times as long.
            selected = _select_features(plan, ibis.table(ibis.Schema.from_pyarrow(one.schema), name=BATCH), span)
            work = SelectingPass(one, ibis.duckdb.compile(selected), selected.schema().to_pyarrow())
        events = spark.map_sorted(rows, work.fill, work.schema, by=(column, TIME), spread="transaction_id", chunk_rows=CHUNK_ROWS)
    return events


def _compute_on_duckdb(database: Any, plan: WindowPlan, events: ir.Table, columns: Sequence[str], span: TimeSpan) -> ir.Table:
    drop(database)
    database.con.execute(f"ATTACH ':memory:' AS {CATALOG} (READ_WRITE)")
    batches: pa.RecordBatchReader | None = None
    for column in columns:
        one, rows = _plan_pass(plan, events, column, span)
        sorted_rows = _open_query(database, ibis.duckdb.compile(rows.order_by([column, TIME])), batches).to_arrow_reader(CHUNK_ROWS)
        batches = pa.RecordBatchReader.from_batches(one.schema, one.fill(_read_ahead(sorted_rows)))
        events = ibis.table(ibis.Schema.from_pyarrow(one.schema), name=BATCH)
    _open_query(database, f"CREATE TABLE {CATALOG}.main.features AS {ibis.duckdb.compile(_select_features(plan, events, span))}", batches)
    return database.table("features", database=(CATALOG, "main"))


def _select_features(plan: WindowPlan, events: ir.Table, span: TimeSpan) -> ir.Table:
    return plan.select_features(span.filter_rows(events, "occurred_at"))


def _plan_pass(plan: WindowPlan, events: ir.Table, column: str, span: TimeSpan) -> tuple[SortedPass, ir.Table]:
    """Return the pass over the events in the order of a column, and the events with the inputs of its slots."""
    slots = {slot: name for slot, name in plan.slots.items() if slot[0][0] == column}
    begins_us = None if span.begins is None else to_micros(span.begins)
    return SortedPass(column, slots, events.schema().to_pyarrow(), begins_us), events.mutate(**read_inputs(events, slots))


def _read_ahead(batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Yield batches; DuckDB makes the next one while the last one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            yield batch


def _open_query(database: Any, sql: str, batches: pa.RecordBatchReader | None) -> Any:
    """Run a query over a connection of its own, which may read the batches of another query."""
    cursor = database.con.cursor()
    if batches is not None:
        cursor.register(BATCH, batches)
    return cursor.execute(sql)
