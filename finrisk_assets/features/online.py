"""Declared features for one event, from the recent events of its entities. Imports numpy, nothing else.

Only the execution of `windows` for one event belongs here; whoever keeps the history asks `OnlineFeatures.history_s` how
far back it must keep it, and hands it over in any order.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

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
    reach_s,
    windows,
)


class History(NamedTuple):
    """Recent events of one entity in the order of time; columns of one length."""

    occurred_at_us: Sequence[int]
    amount: Sequence[float]
    is_fraud: Sequence[bool | None]
    label_known_at_us: Sequence[int | None]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, float, bool | None, int | None]]) -> "History":
        """Return the history of rows (occurred_at_us, amount, is_fraud, label_known_at_us) in any order; None where not known."""
        columns = list(zip(*sorted(rows, key=itemgetter(0)), strict=True))
        return cls(*columns) if columns else EMPTY

    def tally(self, at: int, since: "EventCount") -> int:
        """How many events `since` counts for an event at this instant, in microseconds since 1970."""
        times = self.occurred_at_us
        counted = slice(bisect_right(times, at - since.reach_s * MICRO), bisect_left(times, at))
        if since.known_s is None:
            return len(times[counted])
        told = zip(times[counted], self.is_fraud[counted], self.label_known_at_us[counted], strict=True)
        return sum(known is not None and known <= time + since.known_s * MICRO for time, fraud, known in told if fraud)


EMPTY = History((), (), (), ())


class EventCount(NamedTuple):
    """A number that windows are made of: how many events an entity had between an instant and an event, neither included.

    Attributes
    ----------
    reach_s
        How many seconds before the event the instant is.
    known_s
        Where given, only frauds are counted, and of them those whose label was known within so many seconds.
    """

    reach_s: int
    known_s: int | None = None


def micros(moment: datetime) -> int:
    """Return whole microseconds since 1970 of a moment; one without a zone is UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * DAY + since.seconds) * MICRO + since.microseconds


class OnlineFeatures:
    """The declared features, ready to be computed for one event at a time.

    Parameters
    ----------
    features
        Declarations, in the order of the row to return.

    Attributes
    ----------
    names
        Names of the features, in order.
    history_s
        Per entity, how many seconds of history `compute` needs.
    counts
        The entities of which it needs no events, only these counts.
    """

    def __init__(self, features: Sequence[Declaration]) -> None:
        self.features = tuple(features)
        self.names = tuple(feature.feature.name for feature in features)
        self.history_s: Mapping[tuple[str, ...], int] = reach_s(features)
        declared = windows(features)
        place = {window: number for number, window in enumerate(declared)}
        self._entities = [_Entity(entity, {w: place[w] for w in declared if w.entity == entity}) for entity in self.history_s]
        self.counts: Mapping[tuple[str, ...], Sequence[EventCount]] = {one.columns: one.counts for one in self._entities if not one.reads}
        self._n_windows = len(declared)
        self._readers = [_reader(feature, place) for feature in self.features]

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
            ``occurred_at_us`` (int, see `micros`), ``amount``, ``direction`` and the columns of the entities; None where
            the event has no such entity.
        history
            Per entity of `history_s`, its events since at least so long; more, later or the event itself do no harm. An
            entity left out has no history.
        counted
            Per entity of `counts`, the numbers asked for, by whoever can count without handing over the events.

        Returns
        -------
        ndarray, shape (n_features,), float64
            NaN where a feature is missing.
        """
        at = int(event["occurred_at_us"])
        held = [math.nan] * self._n_windows
        for entity in self._entities:
            if all(event.get(name) is not None for name in entity.columns):
                entity.fill(held, at, event, history.get(entity.columns, EMPTY), counted.get(entity.columns))
        return np.array([read(at, event, held) for read in self._readers], np.float64)


class _Entity:
    """The windows of one entity: those that numbers of events make up, and those that read the events."""

    def __init__(self, columns: tuple[str, ...], place: Mapping[Window, int]) -> None:
        self.columns = columns
        self.reads = {window: number for window, number in place.items() if window.aggregate != "count" and window.column != "is_fraud"}
        parts = {window: _parts(window) for window in place if window not in self.reads}
        self.counts = tuple(dict.fromkeys(since for pair in parts.values() for since in pair if since.reach_s))
        # What an event's own instant delimits is nothing: the last place, where a 0 stands.
        at = {since: number for number, since in enumerate(self.counts)}
        self._counted = [(window, place[window], [at.get(since, -1) for since in pair]) for window, pair in parts.items()]
        self._reads_amount = any(window.column == "amount" for window in self.reads)

    def fill(self, held: list[float], at: int, event: Mapping[str, Any], history: History, counted: Sequence[int] | None) -> None:
        """Write the value of every window to its place in `held`."""
        known = [*([history.tally(at, since) for since in self.counts] if counted is None else counted), 0]
        for window, number, places in self._counted:
            count = known[places[0]] - known[places[1]] + window.current
            if window.aggregate == "count":
                held[number] = float(count)
                continue
            frauds = known[places[2]] - known[places[3]]
            held[number] = _or(float(frauds) if window.aggregate == "sum" else frauds / count if count else math.nan, window.empty)
        if self.reads:
            self._read(held, at, event, history)

    def _read(self, held: list[float], at: int, event: Mapping[str, Any], history: History) -> None:
        times = history.occurred_at_us
        # In whole hundredths sums are exact, and so are differences of running sums.
        cents = [math.floor(amount * 100.0 + 0.5) for amount in history.amount] if self._reads_amount else []
        own = math.floor(float(event["amount"]) * 100.0 + 0.5) if self._reads_amount else 0
        sums = [0, *accumulate(cents)]
        squares = [0, *accumulate(one * one for one in cents)]
        for window, number in self.reads.items():
            start = bisect_right(times, at - window.reach_s * MICRO)
            # An interval without delay is open at the event's own instant, so it ends a microsecond before.
            end = bisect_right(times, at - max(window.delay_s * MICRO, 1))
            count = end - start + window.current
            match window.aggregate:
                case "since":
                    value = (at - times[end - 1]) / (HOUR * MICRO) if count else window.length_s / HOUR
                case "std":
                    value = _deviation(count, sums[end] - sums[start], squares[end] - squares[start])
                case "max":
                    value = max([*cents[start:end], *([own] if window.current else [])], default=math.nan) / 100.0
                case _:
                    total = (sums[end] - sums[start] + own * window.current) / 100.0
                    value = total if window.aggregate == "sum" else total / count if count else math.nan
            held[number] = _or(value, window.empty)


def _parts(window: Window) -> list[EventCount]:
    """The numbers of events whose differences make up a window: first less second, and so for the frauds."""
    reach = [window.reach_s, window.delay_s]
    frauds = [EventCount(reach_s, window.delay_s) for reach_s in reach] if window.column == "is_fraud" else []
    return [*(EventCount(reach_s) for reach_s in reach), *frauds]


def _or(value: float, empty: float | None) -> float:
    return empty if empty is not None and math.isnan(value) else value


def _deviation(count: int, total: int, squares: int) -> float:
    """The sample deviation of amounts from the sums of their hundredths and of the squares of these, to a float32's digits as the batch."""
    if count < 2:
        return math.nan
    return float(np.float32(math.sqrt((count * squares - total * total) / (count * (count - 1))) / 100.0))


_Reader: TypeAlias = Callable[[int, Mapping[str, Any], list[float]], float]
"""The value of a feature from (instant in microseconds, event, window values)."""


def _reader(feature: Declaration, place: Mapping[Window, int]) -> _Reader:
    match feature:
        case Window():
            number = place[feature]
            return lambda at, event, held: held[number]
        case Point():
            point = _POINTS[feature.reading]
            return lambda at, event, held: point(at, event)
        case Derived():
            join, readers = _JOINED[feature.joining], [_reader(operand, place) for operand in feature.operands]
            return lambda at, event, held: join(*[read(at, event, held) for read in readers])


def _hour(at: int) -> int:
    return at // (HOUR * MICRO) % 24


def _turn(at: int) -> float:
    """How far the day has come, as an angle."""
    return at % (DAY * MICRO) * (2 * math.pi / (DAY * MICRO))


_POINTS: Mapping[str, Callable[[int, Mapping[str, Any]], float]] = {
    "amount": lambda at, event: float(event["amount"]),
    "log_amount": lambda at, event: math.log(float(event["amount"]) + 1.0),
    "hour": lambda at, event: float(_hour(at)),
    "hour_sin": lambda at, event: math.sin(_turn(at)),
    "hour_cos": lambda at, event: math.cos(_turn(at)),
    "is_weekend": lambda at, event: float((at // (DAY * MICRO) + 3) % 7 >= 5),
    "is_night": lambda at, event: float(_hour(at) <= 6),
    "is_credit": lambda at, event: float(event["direction"] == "credit"),
}


def _zscore(value: float, mean: float, deviation: float) -> float:
    if math.isnan(mean) or math.isnan(deviation):
        return math.nan
    floored = max(deviation, mean * DEVIATION_FLOOR)
    return (value - mean) / floored if floored else math.nan


# A value that is missing makes what is derived from it missing.
_JOINED: Mapping[str, Callable[..., float]] = {
    "ratio": lambda a, b: a / b if b else math.nan,
    "difference": lambda a, b: a - b,
    "zscore": _zscore,
    "is_zero": lambda a: math.nan if math.isnan(a) else float(a == 0),
}
