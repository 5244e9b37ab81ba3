"""Declared features of one event, from the recent events of its entities. Imports numpy, no engine.

Only the execution of `windows` for one event belongs here. A store of the history keeps at least `OnlineFeatures.history_s` and passes
the events in any order.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import floor
from operator import itemgetter, mul
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from finrisk_assets.features.windows import (
    DAY,
    DEVIATION_FLOOR,
    HOUR,
    MICRO,
    Declaration,
    Derived,
    Point,
    Window,
    collect_windows,
    find_reach_s,
)


class History(NamedTuple):
    """Recent events of one entity in the order of time, as columns of one length; `cents` is the amount in whole hundredths."""

    occurred_at_us: Sequence[int]
    amount: Sequence[float]
    is_fraud: Sequence[bool | None]
    label_known_at_us: Sequence[int | None]
    cents: Sequence[int]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, float, bool | None, int | None]]) -> "History":
        """Return the history of rows (occurred_at_us, amount, is_fraud, label_known_at_us) in any order; an unknown value is None."""
        ordered = sorted(rows, key=itemgetter(0))
        if not ordered:
            return EMPTY
        times, amounts, frauds, known_at = zip(*ordered, strict=True)
        return cls(times, amounts, frauds, known_at, [*map(to_cents, amounts)])

    def tally(self, at: int, event_count: "EventCount") -> int:
        """Return the number that `event_count` stands for at an instant, in microseconds since 1970."""
        times = self.occurred_at_us
        interval = slice(bisect_right(times, at - event_count.reach_s * MICRO), bisect_left(times, at))
        if event_count.known_s is None:
            return interval.stop - interval.start
        events = zip(times[interval], self.is_fraud[interval], self.label_known_at_us[interval], strict=True)
        known_us = event_count.known_s * MICRO
        return sum(known_at is not None and known_at <= time + known_us for time, is_fraud, known_at in events if is_fraud)


EMPTY = History((), (), (), (), ())


def to_cents(amount: float) -> int:
    """Return an amount in whole hundredths, whose sums are exact in whatever order."""
    return floor(amount * 100.0 + 0.5)


class EventCount(NamedTuple):
    """A number that windows are computed from: an entity's events between an earlier instant and an event, neither included.

    Attributes
    ----------
    reach_s
        Seconds from the instant to the event.
    known_s
        Where given, only frauds whose label was known within so many seconds are counted.
    """

    reach_s: int
    known_s: int | None = None


class OnlineFeatures:
    """Declared features, prepared to be computed for one event at a time.

    Parameters
    ----------
    features
        Declarations, in the order of the returned row.

    Attributes
    ----------
    names
        Names of the features, in order.
    history_s
        Entity -> seconds of history that `compute` needs.
    counts
        Entity of which `compute` needs no events -> the counts that it needs instead.
    """

    def __init__(self, features: Sequence[Declaration]) -> None:
        self.features = tuple(features)
        self.names = tuple(feature.feature.name for feature in features)
        self.history_s: Mapping[tuple[str, ...], int] = find_reach_s(features)
        declared_windows = collect_windows(features)
        place = {window: number for number, window in enumerate(declared_windows)}
        self._entities = [Entity(entity, {w: place[w] for w in declared_windows if w.entity == entity}) for entity in self.history_s]
        self.counts: Mapping[tuple[str, ...], Sequence[EventCount]] = {
            entity.columns: entity.counts for entity in self._entities if not entity.reads
        }
        self._n_windows = len(declared_windows)
        # The values of an event, one after the other: windows, points, derived ones. Each is computed once, its operands before it.
        values: dict[Declaration, int] = {window: number for window, number in place.items()}
        nested = list(dict.fromkeys(part for feature in features for part in _list_parts(feature)))
        self._points = [_POINTS[point.reading] for point in nested if isinstance(point, Point)]
        values |= {point: len(values) + number for number, point in enumerate(part for part in nested if isinstance(part, Point))}
        derived = [part for part in nested if isinstance(part, Derived)]
        values |= {part: len(values) + number for number, part in enumerate(derived)}
        self._joinings = [(part.joining, [values[operand] for operand in part.operands]) for part in derived]
        self._derived = [(_COMBINATIONS[joining], operands) for joining, operands in self._joinings]
        self._row = [values[feature] for feature in features]

    def compute(
        self,
        event: Mapping[str, Any],
        history: Mapping[tuple[str, ...], History],
        counted: Mapping[tuple[str, ...], Sequence[int]] = MappingProxyType({}),
    ) -> npt.NDArray[np.float64]:
        """Return the features of one event.

        Parameters
        ----------
        event
            ``occurred_at_us`` (int, microseconds since 1970), ``amount``, ``direction`` and the columns of the entities; None where
            the event has no such entity.
        history
            Entity of `history_s` -> its events of at least so many seconds; earlier events, later events and the event itself
            change nothing. An entity that is absent has no history.
        counted
            Entity of `counts` -> its numbers, from a store that counts without passing the events.

        Returns
        -------
        ndarray, shape (n_features,), float64
            NaN where a feature is missing.
        """
        at = int(event["occurred_at_us"])
        values = [math.nan] * self._n_windows
        for entity in self._entities:
            if None not in map(event.get, entity.columns):
                entity.fill(values, at, event, history.get(entity.columns, EMPTY), counted.get(entity.columns))
        values += [point(at, event) for point in self._points]
        value_at = values.__getitem__
        for combine, operands in self._derived:
            values.append(combine(*map(value_at, operands)))
        return np.array([*map(value_at, self._row)], np.float64)


class Entity:
    """The windows of one entity: those that follow from numbers of events, and those that read the events."""

    def __init__(self, columns: tuple[str, ...], place: Mapping[Window, int]) -> None:
        self.columns = columns
        self.reads = {window: number for window, number in place.items() if window.aggregate != "count" and window.column != "is_fraud"}
        parts = {window: _event_counts(window) for window in place if window not in self.reads}
        self.counts = tuple(dict.fromkeys(count for counts in parts.values() for count in counts if count.reach_s))
        # No event lies between an event and its own instant: the last place, which holds a 0.
        at = {count: number for number, count in enumerate(self.counts)}
        # Tuples, because an attribute of each window would take as long as the arithmetic.
        self.counted = [
            (place[window], [at.get(count, -1) for count in counts], int(window.current), window.aggregate, window.empty)
            for window, counts in parts.items()
        ]
        self._reads_amount = any(window.column == "amount" for window in self.reads)
        self._reads_deviation = any(window.aggregate == "std" for window in self.reads)
        # Many windows share an interval. One without delay is open at the event's own instant, so it ends a microsecond before.
        intervals = {window: (window.reach_s * MICRO, max(window.delay_s * MICRO, 1)) for window in self.reads}
        distinct = list(dict.fromkeys(intervals.values()))
        self.read_windows = [
            (number, distinct.index(intervals[window]), int(window.current), window.aggregate, window.length_s / HOUR, window.empty)
            for window, number in self.reads.items()
        ]
        # Each instant, in microseconds before the event, is looked up once; the first is the event's own.
        reaches = (count.reach_s * MICRO for count in self.counts if count.known_s is None)
        self.instants = list(dict.fromkeys([1, *reaches, *(instant for interval in distinct for instant in interval)]))
        self.intervals = [(self.instants.index(reach_us), self.instants.index(delay_us)) for reach_us, delay_us in distinct]
        self.places_of_reach = {reach_s: self.instants.index(reach_s * MICRO) for reach_s, known_s in self.counts if known_s is None}

    def fill(self, values: list[float], at: int, event: Mapping[str, Any], history: History, counted: Sequence[int] | None) -> None:
        """Write the value of every window to its place in `values`."""
        if counted is None:
            places = [bisect_right(history.occurred_at_us, at - before_us) for before_us in self.instants]
            numbers = [
                places[0] - places[self.places_of_reach[count.reach_s]] if count.known_s is None else history.tally(at, count)
                for count in self.counts
            ]
            if self.reads:
                self._read(values, at, event, history, places)
        else:
            numbers = [*counted]
        numbers.append(0)
        for number, places, current, aggregate, empty in self.counted:
            count = numbers[places[0]] - numbers[places[1]] + current
            if aggregate == "count":
                values[number] = float(count)
                continue
            frauds = numbers[places[2]] - numbers[places[3]]
            values[number] = _or_empty(float(frauds) if aggregate == "sum" else frauds / count if count else math.nan, empty)

    def _read(self, values: list[float], at: int, event: Mapping[str, Any], history: History, places: Sequence[int]) -> None:
        times = history.occurred_at_us
        own = to_cents(float(event["amount"])) if self._reads_amount else 0
        bounds = [(places[start], places[end]) for start, end in self.intervals]
        cents_of = [history.cents[start:end] for start, end in bounds]
        sums = [sum(amounts) for amounts in cents_of]
        squares = [*map(mul, history.cents, history.cents)] if self._reads_deviation else []
        for number, interval, current, aggregate, length_h, empty in self.read_windows:
            start, end = bounds[interval]
            count = end - start + current
            match aggregate:
                case "since":
                    value = (at - times[end - 1]) / (HOUR * MICRO) if count else length_h
                case "std":
                    value = find_deviation(count, sums[interval], sum(squares[start:end]))
                case "max":
                    largest = max(cents_of[interval], default=own if current else math.nan)
                    value = (max(largest, own) if current else largest) / 100.0
                case _:
                    total = (sums[interval] + own * current) / 100.0
                    value = total if aggregate == "sum" else total / count if count else math.nan
            values[number] = _or_empty(value, empty)


def _event_counts(window: Window) -> list[EventCount]:
    """Return the numbers of events that a window is the difference of: first less second, and the same for frauds."""
    reach = [window.reach_s, window.delay_s]
    frauds = [EventCount(reach_s, window.delay_s) for reach_s in reach] if window.column == "is_fraud" else []
    return [*(EventCount(reach_s) for reach_s in reach), *frauds]


def _or_empty(value: float, empty: float | None) -> float:
    return empty if empty is not None and math.isnan(value) else value


def find_deviation(count: int, total: int, squares: int) -> float:
    """Return the sample deviation of amounts from the sums of their hundredths and of the squares, as a float32 like `batch`."""
    if count < 2:
        return math.nan
    return float(np.float32(math.sqrt((count * squares - total * total) / (count * (count - 1))) / 100.0))


def _list_parts(feature: Declaration) -> list[Declaration]:
    """Return a declaration with all that it is derived from, operands first."""
    operands = feature.operands if isinstance(feature, Derived) else ()
    return [part for operand in operands for part in _list_parts(operand)] + [feature]


def _hour(at: int) -> int:
    return at // (HOUR * MICRO) % 24


def _day_angle(at: int) -> float:
    """Return the time of the day as an angle."""
    return at % (DAY * MICRO) * (2 * math.pi / (DAY * MICRO))


_POINTS: Mapping[str, Callable[[int, Mapping[str, Any]], float]] = {
    "amount": lambda at, event: float(event["amount"]),
    "log_amount": lambda at, event: math.log(float(event["amount"]) + 1.0),
    "hour": lambda at, event: float(_hour(at)),
    "hour_sin": lambda at, event: math.sin(_day_angle(at)),
    "hour_cos": lambda at, event: math.cos(_day_angle(at)),
    "is_weekend": lambda at, event: float((at // (DAY * MICRO) + 3) % 7 >= 5),
    "is_night": lambda at, event: float(_hour(at) <= 6),
    "is_credit": lambda at, event: float(event["direction"] == "credit"),
}


def _zscore(value: float, mean: float, deviation: float) -> float:
    if math.isnan(mean) or math.isnan(deviation):
        return math.nan
    floored = max(deviation, mean * DEVIATION_FLOOR)
    return (value - mean) / floored if floored else math.nan


# A feature that is derived from a missing value is missing.
_COMBINATIONS: Mapping[str, Callable[..., float]] = {
    "ratio": lambda a, b: a / b if b else math.nan,
    "difference": lambda a, b: a - b,
    "zscore": _zscore,
    "is_zero": lambda a: math.nan if math.isnan(a) else float(a == 0),
}
