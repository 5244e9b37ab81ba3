"""Declared features over a whole table, as one lazy Ibis expression that any engine runs.

Only the translation of `windows` to Ibis belongs here. Windows range over whole microseconds and add up whole numbers, so that no
engine's calendar, intervals or order of addition changes a value.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import epoch_micros
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.features.windows import (
    DAY,
    DEVIATION_FLOOR,
    HOUR,
    MICRO,
    TIME,
    Declaration,
    Derived,
    Point,
    Slot,
    Window,
    collect_windows,
    input_of,
)

KEYS = ("transaction_id", "customer_id", "occurred_at")
_PACK = float(1 << 26)
"""A number above the events of any window: see `_pack`."""


def compute(transactions: ir.Table, features: Sequence[Declaration], carry: Sequence[str] = (), span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Return the features of every transaction, one row each.

    Parameters
    ----------
    transactions
        Columns `KEYS` and all that the features read; times without a zone in UTC, amounts not negative.
    features
        Declarations; each becomes a float64 column of its name, null where it is missing.
    carry
        Further columns of `transactions` to pass through.
    span
        The transactions to return; of those before only what the windows reach back to is read.

    Returns
    -------
    ibis.Table
        Lazy: `KEYS`, the carried columns, then the features in their order.

    Raises
    ------
    ValueError
        Where a needed column is missing, or two features have one name.
    """
    plan = WindowPlan.of(transactions, features, carry)
    events = plan.select_events(plan.reach(span).filter_rows(transactions, "occurred_at"))
    events = events.mutate(**read_inputs(events, plan.slots))
    events = events.mutate(**{name: _aggregate(events, slot) for slot, name in plan.slots.items()})
    return plan.select_features(span.filter_rows(events, "occurred_at"))


@dataclass(frozen=True)
class WindowPlan:
    """The window functions that features need, and what becomes of their values: the same for every way to compute them.

    Attributes
    ----------
    slots
        The window functions, and the column name of each.
    features, carry
        As of `compute`.
    """

    slots: dict[Slot, str]
    features: tuple[Declaration, ...]
    carry: tuple[str, ...]

    @classmethod
    def of(cls, transactions: ir.Table, features: Sequence[Declaration], carry: Sequence[str]) -> "WindowPlan":
        """Plan features of a table; raise ValueError as `compute` says."""
        names = [feature.feature.name for feature in features]
        missing = [name for name in _needed(features, carry) if name not in transactions.columns]
        if missing:
            raise ValueError(f"features need the columns {', '.join(missing)}; the table has {', '.join(transactions.columns)}")
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(f"features declared twice: {', '.join(duplicates)}")
        # Engines search the bounds of a frame again for every function over it: each frame gets as few functions as possible.
        slots = dict.fromkeys(_slot(window, content) for window in collect_windows(features) for content in _contents(window))
        packed = {slot[:3] for slot in slots if slot[3] == "is_fraud"}
        needed = [slot for slot in slots if slot[3] != "count" or slot[:3] not in packed]
        return cls({slot: f"_w{number}" for number, slot in enumerate(needed)}, tuple(features), tuple(carry))

    @property
    def reach_s(self) -> int:
        """Seconds that the longest window reaches back."""
        return max((length_s + delay_s for _, length_s, delay_s, _ in self.slots), default=0)

    def reach(self, span: TimeSpan) -> TimeSpan:
        """Return the times that the features of a span are made of."""
        return span if span.begins is None else TimeSpan(span.begins - timedelta(seconds=self.reach_s), span.ends)

    def select_events(self, transactions: ir.Table) -> ir.Table:
        """Return the columns that the features read, and `TIME`."""
        return transactions.select(*_needed(self.features, self.carry), **{TIME: epoch_micros(transactions.occurred_at)})

    def select_features(self, events: ir.Table) -> ir.Table:
        """Return keys, carried columns and features of events that have the columns of the slots."""
        values = {feature.feature.name: self.value(events, feature).cast("float64") for feature in self.features}
        return events.select(*KEYS, *(name for name in self.carry if name not in (*KEYS, *values)), **values)

    def value(self, events: ir.Table, feature: Declaration) -> ir.NumericValue:
        match feature:
            case Point():
                return _point(events, feature)
            case Window():
                return self._window(events, feature)
            case Derived():
                return _derived(feature, [self.value(events, operand) for operand in feature.operands])

    def _window(self, events: ir.Table, window: Window) -> ir.NumericValue:
        match window.aggregate:
            case "count":
                value = self._count(events, window)
            case "sum":
                value = self._sum(events, window)
            case "mean":
                value = self._sum(events, window) / self._count(events, window).nullif(0)
            case "std":
                # Engines add up central moments in the order of their threads: the last digits, which differ, are cut off.
                value = (self._column(events, window, "std") / 100.0).cast("float32").cast("float64")
            case "max":
                value = self._column(events, window, "max")
                if window.current:
                    value = ibis.greatest(value.coalesce(0.0), _cents(events))
                value = value / 100.0
            case "since":
                hours = (events[TIME] - self._column(events, window, "latest")) / float(HOUR * MICRO)
                value = hours.coalesce(window.length_s / HOUR)
        if window.empty is not None:
            value = value.coalesce(window.empty)
        is_known = [events[name].notnull() for name in window.entity if name not in KEYS]
        # A factor of 1 or null, which an engine works out once for all features of the entity; a condition on each costs more.
        return value * ibis.ifelse(ibis.and_(*is_known), 1.0, ibis.null("float64")) if is_known else value

    def _count(self, events: ir.Table, window: Window) -> ir.NumericValue:
        if _slot(window, "count") in self.slots:
            count = self._column(events, window, "count")
        else:
            packed = self._column(events, window, "is_fraud").coalesce(0.0)
            count = packed - (packed / _PACK).floor() * _PACK
        return count + 1 if window.current else count

    def _sum(self, events: ir.Table, window: Window) -> ir.NumericValue:
        total = self._column(events, window, str(window.column)).coalesce(0.0)
        if window.column == "is_fraud":
            return (total / _PACK).floor()
        return (total + _cents(events) if window.current else total) / 100.0

    def _column(self, events: ir.Table, window: Window, content: str) -> ir.NumericValue:
        return events[self.slots[_slot(window, content)]]


def _needed(features: Sequence[Declaration], carry: Sequence[str]) -> list[str]:
    return sorted(frozenset(KEYS).union(carry, *(feature.columns for feature in features)))


def _contents(window: Window) -> tuple[str, ...]:
    match window.aggregate:
        case "mean":
            return (str(window.column), "count")
        case "sum":
            return (str(window.column),)
        case "since":
            return ("latest",)
        case _:
            return (window.aggregate,)


def _slot(window: Window, content: str) -> Slot:
    return window.entity, window.length_s, window.delay_s, content


def _cents(events: ir.Table) -> ir.NumericValue:
    return (events.amount * 100.0 + 0.5).floor().cast(dt.Float64(nullable=False))


def _pack(frauds: ir.NumericValue) -> ir.NumericValue:
    """Return a number whose sum over a window is the number of frauds times `_PACK` plus the number of events, both exactly."""
    return frauds * _PACK + 1.0


def read_inputs(events: ir.Table, slots: Iterable[Slot]) -> dict[str, ir.Value]:
    """Return the columns that the slots aggregate, by name; `input_of` names that of a slot."""
    inputs: dict[str, ir.Value] = {}
    for _, _, delay_s, content in slots:
        if content in ("amount", "std", "max"):
            inputs[input_of(content, delay_s)] = _cents(events)
        elif content == "is_fraud":
            is_in_time = epoch_micros(events.label_known_at) <= events[TIME] + delay_s * MICRO
            inputs[input_of(content, delay_s)] = _pack((events.is_fraud & is_in_time).coalesce(False).cast("float64"))
    return inputs


def _aggregate(events: ir.Table, slot: Slot) -> ir.Value:
    entity, length_s, delay_s, content = slot
    match content:
        case "amount":
            value: ir.Value = events[input_of(content, delay_s)].sum()
        case "is_fraud":
            value = events[input_of(content, delay_s)].sum()
        case "std":
            # The engines' own central moments: sums of squares would lose the digits of a small deviation.
            value = events[input_of(content, delay_s)].std(how="sample")
        case "max":
            value = events[input_of(content, delay_s)].max()
        case "latest":
            value = events[TIME].max()
        case _:
            value = events.count()
    frame = ibis.window(
        group_by=[events[name] for name in entity],
        order_by=events[TIME],
        range=(1 - (length_s + delay_s) * MICRO, -max(delay_s * MICRO, 1)),
    )
    return value.over(frame)


def _point(events: ir.Table, point: Point) -> ir.NumericValue:
    # Clock and calendar by arithmetic, the same in every engine and in `online`; 1970-01-01 was a Thursday.
    hour = events[TIME] // (HOUR * MICRO) % 24
    angle = events[TIME] % (DAY * MICRO) * (2 * math.pi / (DAY * MICRO))
    match point.reading:
        case "amount":
            return events.amount
        case "log_amount":
            return (events.amount + 1.0).ln()
        case "hour":
            return hour
        case "hour_sin":
            return angle.sin()
        case "hour_cos":
            return angle.cos()
        case "is_weekend":
            return ((events[TIME] // (DAY * MICRO) + 3) % 7 >= 5).cast("int64")
        case "is_night":
            return (hour <= 6).cast("int64")
        case "is_credit":
            return (events.direction == "credit").cast("int64")


def _derived(feature: Derived, values: list[ir.NumericValue]) -> ir.NumericValue:
    match feature.joining:
        case "ratio":
            return values[0] / values[1].nullif(0)
        case "difference":
            return values[0] - values[1]
        case "zscore":
            value, mean, deviation = values
            floored = ibis.ifelse(deviation < mean * DEVIATION_FLOOR, mean * DEVIATION_FLOOR, deviation)
            return (value - mean) / floored.nullif(0)
        case "is_zero":
            return (values[0] == 0).cast("int64")
