"""Declared features for one event, from the recent events of its entities. Imports numpy, nothing else.

Only the execution of `windows` for one event belongs here; whoever keeps the history asks `OnlineFeatures.history_s` how
far back it must keep it, and hands it over in any order.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
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

NEVER = np.iinfo(np.int64).max
"""`label_known_at_us` of an event whose label is not known."""


class History(NamedTuple):
    """Recent events of one entity, in any order; arrays of one length."""

    occurred_at_us: npt.NDArray[np.int64]
    amount: npt.NDArray[np.float64]
    is_fraud: npt.NDArray[np.bool_]
    label_known_at_us: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[tuple[int, float, bool | None, int | None]]) -> "History":
        """Return the history of rows (occurred_at_us, amount, is_fraud, label_known_at_us); None where not known."""
        columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
        return cls(
            np.array(columns[0], np.int64),
            np.array(columns[1], np.float64),
            np.array([bool(label) for label in columns[2]], np.bool_),
            np.array([NEVER if known is None else known for known in columns[3]], np.int64),
        )


EMPTY = History.of(())
_NONE = np.zeros(0)


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
    """

    def __init__(self, features: Sequence[Declaration]) -> None:
        self.features = tuple(features)
        self.names = tuple(feature.feature.name for feature in features)
        self.history_s: Mapping[tuple[str, ...], int] = reach_s(features)
        declared = windows(features)
        place = {window: number for number, window in enumerate(declared)}
        self._entities = [_Entity(entity, {w: place[w] for w in declared if w.entity == entity}) for entity in self.history_s]
        self._n_windows = len(declared)
        self._readers = [_reader(feature, place) for feature in self.features]

    def compute(self, event: Mapping[str, Any], history: Mapping[tuple[str, ...], History]) -> npt.NDArray[np.float64]:
        """Return the features of one event.

        Parameters
        ----------
        event
            ``occurred_at_us`` (int, see `micros`), ``amount``, ``direction`` and the columns of the entities; None where
            the event has no such entity.
        history
            Per entity of `history_s`, its events since at least so long; more, later or the event itself do no harm. An
            entity left out has no history.

        Returns
        -------
        ndarray, shape (n_features,), float64
            NaN where a feature is missing.
        """
        at = int(event["occurred_at_us"])
        held = [math.nan] * self._n_windows
        for entity in self._entities:
            if all(event.get(name) is not None for name in entity.columns):
                entity.fill(held, at, event, history.get(entity.columns, EMPTY))
        return np.array([read(at, event, held) for read in self._readers], np.float64)


class _Entity:
    """The windows of one entity: one sort, one search of all bounds, then a difference of running sums per window."""

    def __init__(self, columns: tuple[str, ...], place: Mapping[Window, int]) -> None:
        self.columns = columns
        self._windows = tuple(place.items())
        # An interval without delay is open at the event's own instant, so it ends a microsecond before.
        starts = [window.reach_s * MICRO for window in place]
        ends = [max(window.delay_s * MICRO, 1) for window in place]
        self._bounds = np.array(starts + ends, np.int64)
        self._reads_amount = any(window.column == "amount" for window in place)
        self._delays = sorted({window.delay_s for window in place if window.column == "is_fraud"})

    def fill(self, held: list[float], at: int, event: Mapping[str, Any], history: History) -> None:
        """Write the value of every window to its place in `held`."""
        order = history.occurred_at_us.argsort()
        times = history.occurred_at_us[order]
        bounds = times.searchsorted(at - self._bounds, side="right").tolist()
        starts, ends = bounds[: len(self._windows)], bounds[len(self._windows) :]
        own, cents, sums = 0, _NONE, _NONE
        if self._reads_amount:
            own = _cents(float(event["amount"]))
            cents = np.floor(history.amount[order] * 100.0 + 0.5)
            sums = _running(cents)
        frauds = {
            delay_s: _running(history.is_fraud[order] & (history.label_known_at_us[order] <= times + delay_s * MICRO))
            for delay_s in self._delays
        }
        for (window, number), start, end in zip(self._windows, starts, ends, strict=True):
            count = end - start + window.current
            match window.aggregate:
                case "count":
                    value = float(count)
                case "since":
                    value = (at - int(times[end - 1])) / (HOUR * MICRO) if count else window.length_s / HOUR
                case "std":
                    value = _single(_deviation(cents[start:end]) / 100.0) if count > 1 else math.nan
                case "max":
                    top = float(cents[start:end].max()) if end > start else math.nan
                    value = float(np.fmax(top, own if window.current else math.nan)) / 100.0
                case _:
                    running, unit = (frauds[window.delay_s], 1.0) if window.column == "is_fraud" else (sums, 100.0)
                    total = (float(running[end] - running[start]) + own * window.current) / unit
                    value = total if window.aggregate == "sum" else total / count if count else math.nan
            held[number] = window.empty if window.empty is not None and math.isnan(value) else value


def _cents(amount: float) -> int:
    return math.floor(amount * 100.0 + 0.5)


def _running(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    # Whole numbers in floats: exact up to 2**53 hundredths.
    sums = np.zeros(len(values) + 1)
    values.cumsum(out=sums[1:], dtype=np.float64)
    return sums


def _deviation(values: npt.NDArray[np.float64]) -> float:
    off = values - values.sum() / len(values)
    return math.sqrt(float(off @ off) / (len(values) - 1))


def _single(value: float) -> float:
    """To the digits of a float32, as the batch does."""
    return float(np.float32(value))


_Reader: TypeAlias = Callable[[int, Mapping[str, Any], list[float]], float]
"""The value of a feature from (instant in microseconds, event, window values)."""


def _reader(feature: Declaration, place: Mapping[Window, int]) -> _Reader:
    match feature:
        case Window():
            number = place[feature]
            return lambda at, event, held: held[number]
        case Point():
            return lambda at, event, held: _point(feature, at, event)
        case Derived():
            readers = [_reader(operand, place) for operand in feature.operands]
            return lambda at, event, held: _derived(feature, [read(at, event, held) for read in readers])


def _point(point: Point, at: int, event: Mapping[str, Any]) -> float:
    hour = at // (HOUR * MICRO) % 24
    match point.reading:
        case "amount":
            return float(event["amount"])
        case "log_amount":
            return math.log(float(event["amount"]) + 1.0)
        case "hour":
            return float(hour)
        case "hour_sin":
            return math.sin(at % (DAY * MICRO) * (2 * math.pi / (DAY * MICRO)))
        case "hour_cos":
            return math.cos(at % (DAY * MICRO) * (2 * math.pi / (DAY * MICRO)))
        case "is_weekend":
            return float((at // (DAY * MICRO) + 3) % 7 >= 5)
        case "is_night":
            return float(hour <= 6)
        case "is_credit":
            return float(event["direction"] == "credit")


def _derived(feature: Derived, values: list[float]) -> float:
    if any(math.isnan(value) for value in values):
        return math.nan
    match feature.joining:
        case "ratio":
            return values[0] / values[1] if values[1] else math.nan
        case "difference":
            return values[0] - values[1]
        case "zscore":
            value, mean, deviation = values
            floored = max(deviation, mean * DEVIATION_FLOOR)
            return (value - mean) / floored if floored else math.nan
        case "is_zero":
            return float(values[0] == 0)
