"""Values of window functions over events in the order of an entity and their time, chunk by chunk.

All bounds of all windows of a chunk are looked up in its sorted times, and sums are differences of running sums of whole numbers, which are
exact. Spark's workers load this module, so it imports no more than they need.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from finrisk_assets.features.windows import MICRO, TIME, Slot, input_of

Integers = npt.NDArray[np.int64]

BATCH = "finrisk_scan_batches"
"""The name by which queries read the batches of a pass."""
SELECTED_ROWS = 20_000
"""Rows of a batch that Spark takes back from a worker."""
_LARGE, _MANY = 1 << 24, 1 << 12
"""Hundredths and events: the squared distances between amounts below the first, of fewer than the second, add up to less than 2**62."""


@dataclass(frozen=True)
class SortedPass:
    """A pass over sorted events: the window functions of the entities that begin with a column.

    Attributes
    ----------
    column
        The column by which the events are sorted, and within which by `TIME`.
    slots
        The window functions, and the column name of each.
    events
        The columns that the events have and keep.
    begins_us
        Microseconds since 1970 before which events are history alone, and their values null; None for no such time.
    """

    column: str
    slots: Mapping[Slot, str]
    events: pa.Schema
    begins_us: int | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns of the result."""
        return pa.schema([*self.events, *(pa.field(name, _type(slot)) for slot, name in self.slots.items())])

    def fill(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield sorted events with the columns of the slots, a chunk at a time; all events of an entity are in the chunks."""
        schema, reach_us = self.schema, max(length_s + delay_s for _, length_s, delay_s, _ in self.slots) * MICRO
        before: pa.RecordBatch | None = None
        for batch in batches:
            block = batch if before is None else pa.concat_batches([before, batch])
            yield _fill(block, len(block) - len(batch), self.begins_us, self.slots, schema)
            before = _context(block, self.column, reach_us)


@dataclass(frozen=True)
class SelectingPass:
    """A pass whose rows go through a query of DuckDB before they are handed on.

    Attributes
    ----------
    scan
        The pass.
    query
        In SQL, of the table `BATCH`.
    schema
        The columns of the result.
    """

    scan: SortedPass
    query: str
    schema: pa.Schema

    def fill(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield what the query makes of the events with the columns of the slots, a chunk at a time."""
        import duckdb

        # A worker has one core: the other ones have workers of their own.
        with duckdb.connect(config={"threads": 1}) as connection:
            for batch in self.scan.fill(batches):
                connection.register(BATCH, batch)
                yield from connection.execute(self.query).to_arrow_table().cast(self.schema).to_batches(SELECTED_ROWS)


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
