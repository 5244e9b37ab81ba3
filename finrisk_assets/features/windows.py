"""Declarations of an event's features: declared once, executed by `batch` over a table and by `online` for one event.

Only declarations belong here: no engine, no array. Three kinds cover every feature: a `Point` reads the event itself, a
`Window` reads the history of an entity of the event, a `Derived` combines other declarations.

History is the events of the same entity *strictly before* the event: the interval (t - length - delay, t - delay],
open at t without a delay. Events of one instant therefore never see each other, and the order of their arrival never
matters.

Where an entity is missing (an event without a merchant), every feature of that entity is missing. Money is added up in
hundredths of the currency unit, as integers: a sum is then exact, and equal, in whatever order an engine adds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from schemas.features import Feature

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MICRO = 1_000_000
"""Microseconds in a second: declarations speak in seconds, executions in whole microseconds since 1970."""

DEVIATION_FLOOR = 0.01
"""Share of the mean: the least deviation that a z-score divides by, because equal amounts have no deviation."""

TIME = "_occurred_us"
"""Column of the time of an event in microseconds since 1970."""

LABELS = ("is_fraud", "label_known_at")
"""Columns of an event: whether it was fraud, and when that became known."""

Reading = Literal["amount", "log_amount", "hour", "hour_sin", "hour_cos", "is_weekend", "is_night", "is_credit"]
Aggregate = Literal["count", "sum", "mean", "std", "max", "since"]
Joining = Literal["ratio", "difference", "zscore", "is_zero"]

_COLUMN_OF: Mapping[Reading, str] = {"amount": "amount", "log_amount": "amount", "is_credit": "direction"}
_OPERANDS: Mapping[Joining, int] = {"ratio": 2, "difference": 2, "zscore": 3, "is_zero": 1}


@dataclass(frozen=True)
class Point:
    """A reading of the event itself.

    ``amount``; ``log_amount`` = ln(1 + amount); ``hour`` = 0 … 23; ``hour_sin`` and ``hour_cos`` = the time of day as a
    point of a circle; ``is_weekend`` = Saturday or Sunday; ``is_night`` = before 07:00, the Handbook's night (its hours
    0 to 6); ``is_credit`` = money in.
    """

    feature: Feature
    reading: Reading

    def __post_init__(self) -> None:
        _check(self, "reading", self.reading, get_args(Reading))

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the event table that the feature reads."""
        return frozenset({_COLUMN_OF.get(self.reading, "occurred_at")})


@dataclass(frozen=True)
class Window:
    """An aggregate over the history of an entity.

    Attributes
    ----------
    feature
        Name, unit, meaning and words.
    entity
        Columns that together name the entity, such as ``("customer_id",)`` or ``("customer_id", "merchant")``.
    aggregate
        ``count``, ``sum``, ``mean``, ``max``; ``std``, the sample deviation, missing below two events; ``since``,
        hours since the entity's latest event, at most the window's length.
    length_s, delay_s
        Seconds: the length of the window, and the time from its end to the event.
    column
        ``amount``, or ``is_fraud``: then an event counts as fraud only where its label was known within `delay_s` of the
        event, so no label is used before its time. None for ``count`` and ``since``.
    current
        Whether the event itself belongs to the window (``count``, ``sum``, ``mean`` and ``max`` without a delay).
    empty
        Value of a ``mean`` or ``max`` over no event; None leaves it missing.

    Raises
    ------
    ValueError
        Where the parts contradict each other.
    """

    feature: Feature
    entity: tuple[str, ...]
    aggregate: Aggregate
    length_s: int
    column: Literal["amount", "is_fraud"] | None = None
    delay_s: int = 0
    current: bool = False
    empty: float | None = None

    def __post_init__(self) -> None:
        _check(self, "aggregate", self.aggregate, get_args(Aggregate))
        _check(self, "column", self.column, ("amount", "is_fraud", None))
        name = self.feature.name
        if not self.entity or self.length_s <= 0 or self.delay_s < 0:
            raise ValueError(f"feature {name!r}: needs an entity, a length above 0 and a delay of at least 0 seconds")
        if (self.column is None) != (self.aggregate in ("count", "since")):
            rule = "needs a column" if self.column is None else "takes no column"
            raise ValueError(f"feature {name!r}: {self.aggregate} {rule}")
        if self.column == "is_fraud" and (self.aggregate not in ("sum", "mean") or self.current):
            raise ValueError(f"feature {name!r}: of is_fraud there is a sum or a mean over past events, nothing else")
        if self.current and (self.delay_s or self.aggregate in ("std", "since")):
            raise ValueError(f"feature {name!r}: the current event can be in a count, sum, mean or max without delay")

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the event table that the feature reads."""
        read = {"amount": ("amount",), "is_fraud": LABELS, None: ()}[self.column]
        return frozenset(("occurred_at", *self.entity, *read))

    @property
    def reach_s(self) -> int:
        """Seconds before the event at which the window begins."""
        return self.length_s + self.delay_s


@dataclass(frozen=True)
class Derived:
    """A combination of other declarations; missing where one of these is missing.

    ``ratio`` = a / b, missing where b is 0; ``difference`` = a - b; ``zscore`` = (a - mean) / deviation, the deviation no
    smaller than `DEVIATION_FLOOR` of the mean, missing where both are 0; ``is_zero`` = 1 where a is 0, else 0.
    """

    feature: Feature
    joining: Joining
    operands: tuple["Declaration", ...]

    def __post_init__(self) -> None:
        _check(self, "joining", self.joining, get_args(Joining))
        if len(self.operands) != _OPERANDS[self.joining]:
            raise ValueError(f"feature {self.feature.name!r}: {self.joining} joins {_OPERANDS[self.joining]} declarations")

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the event table that the feature reads."""
        return frozenset().union(*(operand.columns for operand in self.operands))


Declaration: TypeAlias = Point | Window | Derived

Slot: TypeAlias = tuple[tuple[str, ...], int, int, str]
"""One window function: entity, length, delay (seconds) and the content that is aggregated."""


def collect_windows(features: Iterable[Declaration]) -> tuple[Window, ...]:
    """Return every window that the features read, each once, in order of first mention."""

    def walk(feature: Declaration) -> Iterator[Window]:
        if isinstance(feature, Window):
            yield feature
        elif isinstance(feature, Derived):
            for operand in feature.operands:
                yield from walk(operand)

    return tuple(dict.fromkeys(window for feature in features for window in walk(feature)))


def input_of(content: str, delay_s: int) -> str:
    """Return the column that a slot with this content and delay aggregates."""
    return f"_is_fraud_after_{delay_s}_s" if content == "is_fraud" else "_cents"


def select_available(features: Iterable[Declaration], columns: Iterable[str]) -> tuple[Declaration, ...]:
    """Return the features whose columns a source fills, in their order."""
    filled = frozenset(columns)
    return tuple(feature for feature in features if feature.columns <= filled)


def find_reach_s(features: Iterable[Declaration]) -> dict[tuple[str, ...], int]:
    """Return, per entity, how many seconds of history the features need."""
    reach: dict[tuple[str, ...], int] = {}
    for window in collect_windows(features):
        reach[window.entity] = max(reach.get(window.entity, 0), window.reach_s)
    return reach


def to_json(features: Iterable[Declaration]) -> list[dict[str, Any]]:
    """Return the declarations as plain values for a scoring bundle."""
    return [_plain(feature) for feature in features]


def from_json(values: Sequence[Mapping[str, Any]]) -> tuple[Declaration, ...]:
    """Return the declarations that `to_json` wrote.

    Raises
    ------
    ValueError
        Where a value is of no known kind.
    """
    return tuple(_declaration(value) for value in values)


def _plain(feature: Declaration) -> dict[str, Any]:
    value: dict[str, Any] = {"kind": type(feature).__name__.lower(), "feature": asdict(feature.feature)}
    for part in fields(feature)[1:]:
        field = getattr(feature, part.name)
        if part.name == "operands":
            field = [_plain(operand) for operand in field]
        value[part.name] = list(field) if isinstance(field, tuple) else field
    return value


def _declaration(value: Mapping[str, Any]) -> Declaration:
    parts = {name: part for name, part in value.items() if name not in ("kind", "feature")}
    feature = Feature(**value["feature"])
    match value["kind"]:
        case "point":
            return Point(feature, **parts)
        case "window":
            return Window(feature, **{**parts, "entity": tuple(parts["entity"])})
        case "derived":
            return Derived(feature, parts["joining"], from_json(parts["operands"]))
        case kind:
            raise ValueError(f"feature {feature.name!r} is of kind {kind!r}; known are point, window, derived")


def _check(declaration: Declaration, part: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise ValueError(f"feature {declaration.feature.name!r}: {part} {value!r} is none of {', '.join(map(str, known))}")
