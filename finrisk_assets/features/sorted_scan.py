"""Declared features over a DuckDB table in passes over sorted rows: the plan of `batch`, with other window functions.

A pass sorts the events by an entity and their time in DuckDB, which does so on disk where memory is short, and reads them in chunks. All
bounds of all windows of a chunk are looked up in its sorted times, and sums are differences of running sums of whole numbers, which are
exact. Engines look up the bounds again for each window function; a test holds both ways equal to the last bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finrisk_assets.features.batch import TIME, Slot, WindowPlan, input_of, read_inputs
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.features.windows import MICRO, Declaration
from schemas.timestamps import to_micros

Integers = npt.NDArray[np.int64]

CHUNK_ROWS = 1 << 19
"""Rows of a chunk. More need more memory; as many times the reach of the windows in microseconds must stay below 2**63."""
CATALOG = "finrisk_scan"
"""DuckDB's catalog in memory, outside the warehouse, that holds the result until it is stored; it spills to disk as other tables do."""
_BATCHES = "finrisk_scan_batches"
_LARGE, _MANY = 1 << 24, 1 << 12
"""Hundredths and events: the squared distances between amounts below the first, of fewer than the second, add up to less than 2**62."""


def runs_on(transactions: ir.Table) -> bool:
    """Return whether `compute` knows the engine of a table."""
    return transactions.get_backend().name == "duckdb"


def compute(transactions: ir.Table, features: Sequence[Declaration], carry: Sequence[str] = (), span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Compute the features of every transaction of a table in DuckDB, one row each, as `batch.compute` declares them.

    Parameters
    ----------
    transactions, features, carry, span
        As of `batch.compute`. The table must be committed: it is read over another connection.

    Returns
    -------
    ibis.Table
        A table outside the warehouse, until the next call on this connection or `drop`.
    """
    plan = WindowPlan.of(transactions, features, carry)
    if not plan.slots:
        return plan.select_features(plan.select_events(span.filter_rows(transactions, "occurred_at")))
    database: Any = transactions.get_backend()
    drop(database)
    database.con.execute(f"ATTACH ':memory:' AS {CATALOG} (READ_WRITE)")
    # Columns of the customer come last: the table is then in the order in which it is looked up.
    columns = sorted({entity[0] for entity, *_ in plan.slots}, key=lambda column: (column == "customer_id", column))
    events, batches = plan.select_events(plan.reach(span).filter_rows(transactions, "occurred_at")), None
    for column in columns:
        slots = {slot: name for slot, name in plan.slots.items() if slot[0][0] == column}
        batches = _scan(database, events, batches, column, slots, span.begins)
        events = ibis.table(ibis.Schema.from_pyarrow(batches.schema), name=_BATCHES)
    features_of_span = plan.select_features(span.filter_rows(events, "occurred_at"))
    _open_query(database, f"CREATE TABLE {CATALOG}.main.features AS {ibis.duckdb.compile(features_of_span)}", batches)
    return database.table("features", database=(CATALOG, "main"))


def drop(database: Any) -> None:
    """Drop the table of `compute`."""
    database.con.execute(f"DETACH DATABASE IF EXISTS {CATALOG}")


def _open_query(database: Any, sql: str, batches: pa.RecordBatchReader | None) -> Any:
    """Run a query over a connection of its own, which may read the batches of another query."""
    cursor = database.con.cursor()
    if batches is not None:
        cursor.register(_BATCHES, batches)
    return cursor.execute(sql)


def _scan(
    database: Any,
    events: ir.Table,
    batches: pa.RecordBatchReader | None,
    column: str,
    slots: Mapping[Slot, str],
    begins: datetime | None,
) -> pa.RecordBatchReader:
    """Return the events with the columns of the slots, null before a time, in the order of a column and of the time."""
    ordered = events.order_by([column, TIME])
    sql = ibis.duckdb.compile(ordered.mutate(**read_inputs(ordered, slots)))
    rows = _open_query(database, sql, batches).to_arrow_reader(CHUNK_ROWS)
    schema = pa.schema([rows.schema.field(name) for name in events.columns] + [pa.field(name, _type(slot)) for slot, name in slots.items()])
    reach_us = max(length_s + delay_s for _, length_s, delay_s, _ in slots) * MICRO
    begins_us = None if begins is None else to_micros(begins)

    def fill() -> Iterator[pa.RecordBatch]:
        before: pa.RecordBatch | None = None
        for batch in rows:
            block = batch if before is None else pa.concat_batches([before, batch])
            yield _fill(block, len(block) - len(batch), begins_us, slots, schema)
            before = _context(block, column, reach_us)

    return pa.RecordBatchReader.from_batches(schema, fill())


def _type(slot: Slot) -> pa.DataType:
    return pa.int64() if slot[3] in ("count", "latest") else pa.float64()


def _context(block: pa.RecordBatch, column: str, reach_us: int) -> pa.RecordBatch | None:
    """Return the last rows of a block that windows of the next rows reach back to; None where its last row has no entity."""
    if not len(block) or not block.column(column)[-1].is_valid:
        return None
    times = block.column(TIME).to_numpy()
    is_near = pc.fill_null(pc.equal(block.column(column), block.column(column)[-1]), False).to_numpy(zero_copy_only=False)
    return block.filter(pa.array(is_near & (times > times[-1] - reach_us)))


def _fill(block: pa.RecordBatch, start: int, begins_us: int | None, slots: Mapping[Slot, str], schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows of a block from `start` on with the columns of the slots, null before a time."""
    values: dict[str, pa.Array] = {}
    for entity in dict.fromkeys(slot[0] for slot in slots):
        reach_us = max(length_s + delay_s for of, length_s, delay_s, _ in slots if of == entity) * MICRO
        history = _SortedEvents(block, entity, reach_us, begins_us)
        for slot, name in slots.items():
            if slot[0] == entity:
                values[name] = history.aggregate(slot).slice(start)
    arrays = [values[field.name] if field.name in values else block.column(field.name).slice(start) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _SortedEvents:
    """The events of a block in the order of an entity and of the time.

    Attributes
    ----------
    order
        Places of the events in the block; None where the block has this order.
    keys
        Times in microseconds that rise from one entity to the next, with as much between two of them as the windows reach back.
    """

    def __init__(self, block: pa.RecordBatch, entity: Sequence[str], reach_us: int, begins_us: int | None) -> None:
        self._block = block
        times: Integers = block.column(TIME).to_numpy()
        # An event without an entity has no history: each is an entity of its own.
        is_first = np.ones(len(block), bool)
        names = block.column(entity[0])
        is_first[1:] = pc.fill_null(pc.not_equal(names[1:], names[:-1]), True).to_numpy(zero_copy_only=False)
        self.order: npt.NDArray[np.intp] | None = None
        if len(entity) > 1:
            codes = [np.cumsum(is_first)] + [_codes(block.column(name)) for name in entity[1:]]
            self.order = np.lexsort([times, *reversed(codes)])
            times = times[self.order]
            is_first = np.ones(len(block), bool)
            is_first[1:] = np.logical_or.reduce([code[self.order][1:] != code[self.order][:-1] for code in codes])
        self._times = times
        # Earlier events are history alone.
        self._wanted: slice | Integers = slice(None) if begins_us is None else np.flatnonzero(times >= begins_us)
        # A longer gap than the windows reach back counts as that: no number grows with the length of the ledger.
        gaps = np.minimum(np.diff(times, prepend=times[:1]), reach_us + 1)
        gaps[is_first] = reach_us + 1
        self.keys = np.cumsum(gaps)
        self._places: dict[int, Integers] = {}
        self._inputs: dict[str, Integers] = {}

    def aggregate(self, slot: Slot) -> pa.Array:
        """Return a window function's values, in the order of the block; null where they are not wanted."""
        _, length_s, delay_s, content = slot
        start, end = self._place((length_s + delay_s) * MICRO), self._place(max(delay_s * MICRO, 1))
        is_null = None
        match content:
            case "count":
                values: npt.NDArray[Any] = end - start
            case "latest":
                values, is_null = self._times[np.maximum(end - 1, 0)], end == start
            case "max":
                values, is_null = _find_largest(self._input(content, delay_s), start, end), end == start
            case "std":
                values, is_null = self._deviation(start, end), end - start < 2
            case _:
                totals = _running(self._input(content, delay_s))
                values = (totals[end] - totals[start]).astype(np.float64)
        if self.order is not None or not isinstance(self._wanted, slice):
            values, is_null = self._in_block(values, 0), self._in_block(False if is_null is None else is_null, True)
        return pa.array(values, _type(slot), mask=is_null)

    def _place(self, before_us: int) -> Integers:
        """Return for each wanted event the number of events up to so long before it."""
        if before_us not in self._places:
            self._places[before_us] = np.searchsorted(self.keys, self.keys[self._wanted] - before_us, "right")
        return self._places[before_us]

    def _input(self, content: str, delay_s: int) -> Integers:
        name = input_of(content, delay_s)
        if name not in self._inputs:
            values = self._block.column(name).to_numpy().astype(np.int64)
            self._inputs[name] = values if self.order is None else values[self.order]
        return self._inputs[name]

    def _in_block(self, values: Any, unwanted: Any) -> npt.NDArray[Any]:
        placed = np.full(len(self._times), unwanted, getattr(values, "dtype", bool))
        placed[self._wanted if self.order is None else self.order[self._wanted]] = values
        return placed

    def _deviation(self, start: Integers, end: Integers) -> npt.NDArray[np.float64]:
        """Return sample deviations, from sums of the squared distances to the first amount of each window.

        Distances to an amount of the window itself keep the digits of a small deviation, and equal amounts have exactly none.
        """
        cents, n = self._input("std", 0), (end - start).astype(np.float64)
        squares, squared = _sum_squares(cents, start, end)
        # Sums of large amounts leave 64 bits.
        n_large = _running((np.abs(cents) >= _LARGE).astype(np.int64))
        is_large = (end - start >= _MANY) | (n_large[end] > n_large[start])
        if is_large.any():
            squares[is_large], squared[is_large] = _sum_squares(cents.astype(object), start[is_large], end[is_large])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(np.maximum(squares - squared / n, 0.0) / (n - 1))


def _codes(column: pa.Array) -> npt.NDArray[np.int64]:
    """Return a number for each text; all missing ones have one."""
    return pc.fill_null(column.dictionary_encode().indices, -1).to_numpy().astype(np.int64)


def _running(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sums of the first 0, 1, 2 … values. Those of 64 bits wrap; differences of them are exact where the true ones fit."""
    sums = np.zeros(len(values) + 1, values.dtype)
    np.cumsum(values, out=sums[1:])
    return sums


def _sum_squares(cents: npt.NDArray[Any], start: Integers, end: Integers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return, of the distances to the first amount between two places, the sum of the squares and the square of the sum."""
    totals, squares = _running(cents), _running(cents * cents)
    count, first = end - start, cents[np.minimum(start, len(cents) - 1)]
    total = totals[end] - totals[start]
    of_squares = squares[end] - squares[start] - 2 * first * total + count * first * first
    return of_squares.astype(np.float64), (total - count * first).astype(np.float64) ** 2


def _find_largest(values: Integers, start: Integers, end: Integers) -> npt.NDArray[np.float64]:
    """Return the largest value between two places, from the largest of 1, 2, 4 … values from each place on."""
    length, step = end - start, 1
    largest, from_here = np.zeros(len(start), np.int64), values
    while (length >= step).any():
        is_next = (length >= step) & (length < 2 * step)
        largest[is_next] = np.maximum(from_here[start[is_next]], from_here[end[is_next] - step])
        from_here, step = np.maximum(from_here[:-step], from_here[step:]), 2 * step
    return largest.astype(np.float64)
