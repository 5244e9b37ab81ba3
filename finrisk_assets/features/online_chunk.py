"""Declared features of a chunk of events at once, equal to the last bit to those of `online` for one event after the other.

The windows of all events are looked up together: the events of their customers, and of their merchants, are joined to one column each, and
sums are differences of running sums of whole hundredths, which are exact.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finrisk_assets.features.online import Entity, OnlineFeatures, find_deviation, to_cents
from finrisk_assets.features.recent_events import EntityEvents
from finrisk_assets.features.windows import DEVIATION_FLOOR, HOUR, MICRO

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_MAX_EXACT = 1 << 62
"""Bound of sums in 64 bits; larger ones are computed with Python's integers."""


class HeldEvents(NamedTuple):
    """The earlier events of the entities of a chunk.

    Attributes
    ----------
    events
        Column of a customer or a merchant -> for each event of the chunk, the events of that entity; None where it has none.
    tokens
        Column that narrows down a history -> for each event of the chunk, its shortened token; negative where it has none.
    """

    events: Mapping[str, Sequence[EntityEvents | None]]
    tokens: Mapping[str, Sequence[int]]


class ChunkFeatures(OnlineFeatures):
    """Declared features, prepared to be computed for one event or for a chunk.

    Attributes
    ----------
    takes_chunks
        Whether `compute_chunk` knows all of the features; if not, they are computed event by event.
    """

    @cached_property
    def takes_chunks(self) -> bool:
        """Whether of a history that is narrowed down, events are counted only, whatever became of them."""
        narrowed = [entity for entity in self._entities if len(entity.columns) > 1]
        return all(not entity.reads and all(count.known_s is None for count in entity.counts) for entity in narrowed)

    @cached_property
    def _instants(self) -> Mapping[str, list[int]]:
        """The instants, in microseconds before an event, that the entities of a column look up."""
        instants: dict[str, list[int]] = {}
        for entity in self._entities:
            instants.setdefault(entity.columns[0], []).extend(entity.instants)
        return {column: list(dict.fromkeys(of_column)) for column, of_column in instants.items()}

    def compute_chunk(self, events: Sequence[Mapping[str, Any]], held: HeldEvents) -> Floats:
        """Return the features of events, float64 of shape (n, features); NaN where a feature is missing.

        Parameters
        ----------
        events
            As of `compute`.
        held
            The events of their entities; those at or after the event's own time change nothing, so that of one that goes before another
            event of its entity in time both may be held.
        """
        at = np.array([event["occurred_at_us"] for event in events], np.int64)
        amounts = np.array([to_cents(float(event["amount"])) for event in events], np.int64)
        values = np.full((self._n_windows, len(events)), np.nan)
        for column, instants in self._instants.items():
            joined = _JoinedEvents(held.events[column], at, instants)
            if joined.size:
                for entity in (each for each in self._entities if each.columns[0] == column):
                    _fill(values, entity, joined, amounts, held.tokens)
        times = at.tolist()
        rows = [*values, *(np.array([*map(point, times, events)], np.float64) for point in self._points)]
        for name, operands in self._joinings:
            rows.append(_COMBINATIONS[name](*(rows[operand] for operand in operands)))
        return np.stack([rows[place] for place in self._row], axis=1)


class _JoinedEvents:
    """The events of the entities of a chunk, one entity after the other.

    Attributes
    ----------
    chunk
        Places in the chunk of its events that have such an entity, those of one entity together.
    of_events, at
        For each of them, the entity's events and the instant of the event.
    places
        Instant, in microseconds before an event -> for each of them, the number of joined events before.
    """

    def __init__(self, of_chunk: Sequence[EntityEvents | None], at: Integers, instants: Sequence[int]) -> None:
        slots: dict[int, list[int]] = {}
        for place, events in enumerate(of_chunk):
            if events is not None:
                slots.setdefault(id(events), []).append(place)
        chunk = [place for of_slot in slots.values() for place in of_slot]
        self.size = len(chunk)
        self.chunk = np.array(chunk, np.intp)
        self.of_events = [of_chunk[place] for place in chunk]
        self.at = at[self.chunk]
        self._entities: list[Any] = [of_chunk[places[0]] for places in slots.values()]
        wanted = self.at[:, None] - np.array(instants, np.int64)
        found, first, start = np.empty(wanted.shape, np.int64), 0, 0
        for events, places in zip(self._entities, slots.values(), strict=True):
            last = first + len(places)
            times = events.view("times")
            np.add(times.searchsorted(wanted[first:last], "right"), start, out=found[first:last])
            first, start = last, start + len(times)
        self.places = dict(zip(instants, np.ascontiguousarray(found.T), strict=True))

    def column(self, name: str) -> Integers:
        """Return a column of all joined events."""
        return np.concatenate([events.view(name) for events in self._entities])


def _fill(values: Floats, entity: Entity, joined: _JoinedEvents, amounts: Integers, tokens: Mapping[str, Sequence[int]]) -> None:
    """Write the value of every window of an entity to its row in `values`, as `Entity.fill` does for one event."""
    narrowing = entity.columns[1:]
    chosen: Any = slice(None)
    numbers = np.zeros((len(entity.counts) + 1, joined.size), np.int64)
    own = joined.places[1]
    known = [(number, count) for number, count in enumerate(entity.counts) if count.known_s is not None]
    for number, count in enumerate(entity.counts):
        if count.known_s is None:
            numbers[number] = own - joined.places[count.reach_s * MICRO]
    if known:
        for place, events in enumerate(joined.of_events):
            if events is not None and events.has_frauds:
                found = events.count([count for _, count in known], int(joined.at[place]), {})
                for (number, _), frauds in zip(known, found, strict=True):
                    numbers[number, place] = frauds
    if narrowing:
        wanted = [np.array(tokens[column], np.int64)[joined.chunk] for column in narrowing]
        chosen = np.logical_and.reduce([token >= 0 for token in wanted]).nonzero()[0]
        columns = [joined.column(column) for column in narrowing]
        for number, count in enumerate(entity.counts):
            numbers[number] = _count_narrowed(columns, wanted, joined.places[count.reach_s * MICRO], own)
    chunk = joined.chunk[chosen]
    for window, places, current, aggregate, empty in entity.counted:
        count = numbers[places[0]] - numbers[places[1]] + current
        if aggregate == "count":
            values[window, chunk] = count[chosen]
            continue
        frauds = numbers[places[2]] - numbers[places[3]]
        values[window, chunk] = _replace_missing(frauds.astype(np.float64) if aggregate == "sum" else _divide(frauds, count), empty)[chosen]
    if entity.reads:
        _fill_read(values, entity, joined, amounts[joined.chunk])


def _count_narrowed(columns: Sequence[Integers], wanted: Sequence[Integers], starts: Integers, ends: Integers) -> list[int]:
    """Return for each event the number of joined events between two places with its tokens."""
    if len(columns) == 1:
        tokens = columns[0]
        each = zip(starts.tolist(), ends.tolist(), wanted[0].tolist(), strict=True)
        return [int(np.count_nonzero(tokens[start:end] == token)) for start, end, token in each]
    numbers = []
    for start, end, *of_event in zip(starts.tolist(), ends.tolist(), *(tokens.tolist() for tokens in wanted), strict=True):
        fits = [column[start:end] == token for column, token in zip(columns, of_event, strict=True)]
        numbers.append(int(np.count_nonzero(np.logical_and.reduce(fits))))
    return numbers


def _fill_read(values: Floats, entity: Entity, joined: _JoinedEvents, own: Integers) -> None:
    """Write the windows that read the events' amounts or times."""
    cents, times = joined.column("cents"), joined.column("times")
    totals = np.concatenate([[0], np.cumsum(cents)])
    bounds = [(joined.places[entity.instants[start]], joined.places[entity.instants[end]]) for start, end in entity.intervals]
    sums = [totals[end] - totals[start] for start, end in bounds]
    squares: Any = None
    for window, interval, current, aggregate, length_h, empty in entity.read_windows:
        start, end = bounds[interval]
        count = end - start + current
        match aggregate:
            case "since":
                newest = times.take(np.maximum(end - 1, 0), mode="clip") if len(times) else np.zeros(len(end), np.int64)
                value = np.where(end > start, (joined.at - newest) / (HOUR * MICRO), length_h)
            case "std":
                squares = _sum_squares(cents) if squares is None else squares
                of_interval = (squares[end] - squares[start]).tolist()
                value = np.array([*map(find_deviation, count.tolist(), sums[interval].tolist(), of_interval)])
            case "max":
                value = _find_largest(cents, start, end, own if current else None) / 100.0
            case _:
                total = (sums[interval] + own * current) / 100.0
                value = total if aggregate == "sum" else _divide(total, count)
        values[window, joined.chunk] = _replace_missing(value, empty)


def _sum_squares(cents: Integers) -> Any:
    """Return the running sums of squares, as Python's integers where 64 bits may be too few."""
    largest = int(cents.max(initial=0))
    exact = cents if largest * largest * max(len(cents), 1) < _MAX_EXACT else cents.astype(object)
    return np.concatenate([[0], np.cumsum(exact * exact)])


def _find_largest(cents: Integers, start: Integers, end: Integers, own: Integers | None) -> Floats:
    """Return the largest amount between two places, and of the event itself where given; NaN where there is none."""
    pairs = np.empty(2 * len(start), np.intp)
    pairs[::2], pairs[1::2] = start, end
    largest = np.maximum.reduceat(np.append(cents, 0), pairs)[::2].astype(np.float64)
    largest[start == end] = np.nan
    return largest if own is None else np.fmax(largest, own)


def _divide(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Floats:
    """Return quotients; NaN where the divisor is 0."""
    return np.divide(above, below, out=np.full(len(below), np.nan), where=below != 0)


def _replace_missing(values: Floats, empty: float | None) -> Floats:
    return values if empty is None else np.where(np.isnan(values), empty, values)


def _zscore(value: Floats, mean: Floats, deviation: Floats) -> Floats:
    return _divide(value - mean, np.maximum(deviation, mean * DEVIATION_FLOOR))


_COMBINATIONS: Mapping[str, Any] = {
    "ratio": _divide,
    "difference": lambda a, b: a - b,
    "zscore": _zscore,
    "is_zero": lambda a: np.where(np.isnan(a), np.nan, a == 0),
}
