"""Recent events of active entities in memory: a bounded cache of a store's events, from which windows are computed.

Only the events and their bound belong here. The store says which events there are, and when they are out of date
(`bento.store.transactions`).
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.features.online import EventCount, History, to_cents
from finrisk_assets.features.windows import DAY, MICRO

MAX_CACHED_EVENTS = 500_000
"""Events in memory, 41 bytes each: about 24 MiB. More let more customers and merchants be scored without reading the store."""
MAX_ENTITY_EVENTS = 50_000
"""Events of one entity; one with more is read from the store each time. More let a busy merchant displace many customers."""
ENTITY_WEIGHT = 32
"""Events that an entity counts as, beside its own: its arrays take about a kilobyte."""
MIN_ARRAY_EVENTS = 128
"""Events from which numpy counts them faster than a plain loop; fewer take less time than the calls of numpy."""
SLACK_US = DAY * MICRO
"""Microseconds that are cached beyond the longest window. More let events of an earlier time be scored without another read."""

Event: TypeAlias = tuple[int, float, bool | None, int | None]
"""occurred_at_us, amount, is_fraud, label_known_at_us: the input of history features. Microseconds since 1970, UTC."""
Key: TypeAlias = tuple[str, str]
"""Column and value of an entity: ``("person", "5f…")``."""


class CachedEvent(NamedTuple):
    """An event as the cache takes it; merchant and country are tokens."""

    occurred_at_us: int
    amount: float
    is_fraud: bool | None
    label_known_at_us: int | None
    merchant: str | None = None
    country: str | None = None


class EntityEvents:
    """The events of one entity after an instant, in the order of time, as columns.

    The label of an event is held where the event is a fraud: nothing reads the label of another.

    Parameters
    ----------
    after_us
        Microseconds since 1970: every event of the entity after this instant is held.
    events
        The columns of `CachedEvent`, in any order.
    """

    __slots__ = ("_amounts", "_cents", "_frauds", "_known_at", "_known_times", "_narrowing", "after_us", "times")

    def __init__(self, after_us: int, events: Iterable[tuple[Any, ...]] = ()) -> None:
        columns = list(zip(*sorted(events, key=itemgetter(0)), strict=True)) or [()] * len(CachedEvent._fields)
        times, amounts, frauds, known_at, merchants, countries = columns
        self.after_us = after_us
        self.times = array("q", times)
        self._amounts = array("d", amounts)
        self._cents = array("q", map(to_cents, amounts))
        self._frauds = bytearray(1 if is_fraud else 0 for is_fraud in frauds)
        self._known_at: list[int | None] = [at for at, is_fraud in zip(known_at, frauds, strict=True) if is_fraud]
        self._known_times: dict[int, list[int]] = {}  # seconds -> times of the frauds known within them; computed when asked for
        self._narrowing = {"merchant": array("q", map(shorten_token, merchants)), "country": array("q", map(shorten_token, countries))}

    @property
    def has_frauds(self) -> bool:
        """Whether a fraud is among the events."""
        return bool(self._known_at)

    def view(self, column: str) -> NDArray[np.int64]:
        """Return a column without a copy: ``times``, ``cents``, or the shortened tokens of ``merchant`` or ``country``.

        No event can be inserted while the array is alive.
        """
        columns = {"times": self.times, "cents": self._cents}
        return np.frombuffer(columns[column] if column in columns else self._narrowing[column], np.int64)

    def insert(self, event: CachedEvent) -> None:
        """Insert an event at its time; an event that is not after `after_us` changes nothing."""
        at = event.occurred_at_us
        if at <= self.after_us:
            return
        place = bisect_right(self.times, at)
        self.times.insert(place, at)
        self._amounts.insert(place, event.amount)
        self._cents.insert(place, to_cents(event.amount))
        if event.is_fraud:
            self._known_times.clear()
            self._known_at.insert(self._frauds.count(1, 0, place), event.label_known_at_us)
        self._frauds.insert(place, 1 if event.is_fraud else 0)
        self._narrowing["merchant"].insert(place, shorten_token(event.merchant))
        self._narrowing["country"].insert(place, shorten_token(event.country))

    def drop_until(self, after_us: int) -> int:
        """Drop the events up to an instant; return their number."""
        place = bisect_right(self.times, after_us)
        self._known_times.clear()
        del self._known_at[: self._frauds.count(1, 0, place)]
        columns: tuple[Any, ...] = (self.times, self._amounts, self._cents, self._frauds, *self._narrowing.values())
        for column in columns:
            del column[:place]
        self.after_us = max(self.after_us, after_us)
        return place

    def list_events(self, after_us: int, before_us: int, narrowing: Mapping[str, str | None]) -> list[Event]:
        """Return the events between two instants, neither included, with these tokens of merchant or country."""
        return list(zip(*self.list_history(after_us, before_us, narrowing)[:-1], strict=True))

    def list_history(self, after_us: int, before_us: int, narrowing: Mapping[str, str | None]) -> History:
        """Return these events as columns."""
        start = bisect_right(self.times, after_us)
        places = slice(start, max(start, bisect_left(self.times, before_us)))
        columns: list[Any] = [self.times[places], self._amounts[places], *[[None] * (places.stop - start)] * 2, self._cents[places]]
        frauds = self._list_frauds(places)
        if frauds:
            columns[2], columns[3] = columns[2].copy(), columns[3].copy()
            for place, known_at in frauds:
                columns[2][place - start], columns[3][place - start] = True, known_at
        if narrowing:
            tokens = (*map(shorten_token, narrowing.values()),)
            fits = [values == tokens for values in zip(*(self._narrowing[column][places] for column in narrowing), strict=True)]
            columns = [list(compress(column, fits)) for column in columns]
        return History(*columns)

    def list_movements(self, after_us: int, before_us: int) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
        """Return times, amounts in hundredths and shortened tokens of countries of the events between two instants, neither included."""
        start = bisect_right(self.times, after_us)
        places = slice(start, max(start, bisect_left(self.times, before_us)))
        return self.times[places], self._cents[places], self._narrowing["country"][places]

    def count(self, counts: Iterable[EventCount], at_us: int, narrowing: Mapping[str, str | None]) -> list[int]:
        """Return the numbers that counts stand for at an instant, of the events with these tokens of merchant or country."""
        end = bisect_left(self.times, at_us)
        starts: dict[int, int] = {}
        numbers = []
        for reach_s, known_s in counts:
            start = starts.get(reach_s, -1)
            if start < 0:
                start = starts[reach_s] = min(bisect_right(self.times, at_us - reach_s * MICRO), end)
            if known_s is not None:
                numbers.append(self._count_known(at_us, reach_s, known_s, narrowing) if self._known_at else 0)
            else:
                numbers.append(self._count(slice(start, end), narrowing) if narrowing else end - start)
        return numbers

    def _count(self, places: slice, narrowing: Mapping[str, str | None]) -> int:
        if places.start == places.stop:
            return 0
        tokens = [(self._narrowing[column], shorten_token(token)) for column, token in narrowing.items()]
        if len(tokens) == 1 and places.stop - places.start < MIN_ARRAY_EVENTS:
            ((column, token),) = tokens
            return column[places].count(token)
        fits = [np.frombuffer(column, np.int64)[places] == token for column, token in tokens]
        return int(np.count_nonzero(np.logical_and.reduce(fits)))

    def _count_known(self, at_us: int, reach_s: int, known_s: int, narrowing: Mapping[str, str | None]) -> int:
        if narrowing:
            return self.list_history(at_us - reach_s * MICRO, at_us, narrowing).tally(at_us, EventCount(reach_s, known_s))
        if known_s not in self._known_times:
            frauds = [(self.times[place], known_at) for place, known_at in self._list_frauds(slice(0, len(self.times)))]
            self._known_times[known_s] = [at for at, known_at in frauds if known_at is not None and known_at - at <= known_s * MICRO]
        known = self._known_times[known_s]
        return max(0, bisect_left(known, at_us) - bisect_right(known, at_us - reach_s * MICRO))

    def _list_frauds(self, places: slice) -> list[tuple[int, int | None]]:
        """Return the places of the frauds among these places, and the times at which they became known."""
        if not self._known_at:
            return []
        number, place = self._frauds.count(1, 0, places.start), self._frauds.find(1, places.start, places.stop)
        found = []
        while place >= 0:
            found.append((place, self._known_at[number]))
            number, place = number + 1, self._frauds.find(1, place + 1, places.stop)
        return found


class RecentEvents:
    """The events of the entities that were asked for last, within a bound.

    An event that a transaction adds is undone with it: the entities that the transaction touched are forgotten.

    Attributes
    ----------
    version
        The state of the store that the events are of; the store sets and compares it. None: nothing is known of it.
    seen
        Number and token of the last row of the store that the events include, without those of the open transaction.
    is_current
        Whether the open transaction has compared the version.
    is_void
        Whether the open transaction changed events that were stored before: until its end nothing is held.
    """

    def __init__(self, max_events: int = MAX_CACHED_EVENTS) -> None:
        self.version: Any = None
        self.seen: tuple[int, str | None] = (0, None)
        self.is_current = self.is_void = False
        self._max_events = max_events
        self._entities: OrderedDict[Key, EntityEvents | None] = OrderedDict()  # None: an entity with too many events
        self._weight = 0
        self._reach_us: dict[str, int] = {}  # longest window of a column
        self._touched: list[Key] = []
        self._added: list[str] = []

    @property
    def weight(self) -> int:
        """The number of events, each entity counted as `ENTITY_WEIGHT` more."""
        return self._weight

    def begins_at(self, column: str, after_us: int, before_us: int) -> int:
        """Return the instant after which to read an entity's events, so that every window of its column is in memory."""
        self._reach_us[column] = max(self._reach_us.get(column, 0), before_us - after_us)
        return before_us - self._reach_us[column] - SLACK_US

    def find(self, key: Key, after_us: int, before_us: int) -> tuple[bool, EntityEvents | None]:
        """Return whether an entity is known from an instant on, and its events; None where it has too many."""
        if key not in self._entities:
            return False, None
        entity = self._entities[key]
        if entity is None:
            return True, None
        if entity.after_us > after_us:
            return False, None
        self._entities.move_to_end(key)
        begin = self.begins_at(key[0], after_us, before_us)
        if begin - entity.after_us > self._reach_us[key[0]]:
            self._weight -= entity.drop_until(begin)
        return True, entity

    def put(self, key: Key, entity: EntityEvents | None) -> None:
        """Hold an entity's events, None where it has too many, and forget those used longest ago beyond the bound."""
        self._forget(key)
        self._entities[key] = entity
        self._weight += ENTITY_WEIGHT + (0 if entity is None else len(entity.times))
        while self._weight > self._max_events:
            self._forget(next(iter(self._entities)))

    def holds(self, key: Key, entity: EntityEvents) -> bool:
        """Return whether these are the entity's events in memory, to which the next ones are added."""
        return self._entities.get(key) is entity

    def insert(self, keys: Iterable[Key], event: CachedEvent) -> None:
        """Insert an event that is stored already."""
        for key in keys:
            entity = self._entities.get(key)
            if entity is None:
                continue
            before = len(entity.times)
            entity.insert(event)
            self._weight += len(entity.times) - before
            if len(entity.times) > MAX_ENTITY_EVENTS:
                self.put(key, None)

    def add(self, token: str, keys: Iterable[Key], event: CachedEvent) -> None:
        """Insert an event of the open transaction, with the token of its row."""
        touched = list(keys)
        self._added.append(token)
        self._touched += touched
        self.insert(touched, event)

    def mark(self) -> tuple[int, int]:
        """Return the point of the open transaction that `roll_back` goes back to."""
        return len(self._touched), len(self._added)

    def roll_back(self, mark: tuple[int, int] = (0, 0)) -> None:
        """Undo what was added since a mark, or in the whole transaction."""
        n_touched, n_added = mark
        for key in self._touched[n_touched:]:
            self._forget(key)
        del self._touched[n_touched:], self._added[n_added:]

    def end_transaction(self) -> None:
        """Keep what the transaction added, and compare the version again before the next use."""
        if self._added:
            self.seen = self.seen[0] + len(self._added), self._added[-1]
        self._touched.clear()
        self._added.clear()
        self.is_current = self.is_void = False

    def clear(self) -> None:
        """Forget every event."""
        self._entities.clear()
        self._weight, self.version = 0, None

    def make_void(self) -> None:
        """Hold nothing until the open transaction ends: it changes events that were stored before."""
        self.clear()
        self.is_void = True

    def _forget(self, key: Key) -> None:
        if key in self._entities:
            entity = self._entities.pop(key)
            self._weight -= ENTITY_WEIGHT + (0 if entity is None else len(entity.times))


@lru_cache(maxsize=10_000)
def shorten_token(token: str | None) -> int:
    """Return a number for a token: 60 of its bits, which no two tokens share by chance; -1 for none."""
    return -1 if token is None else int(token[:15], 16)
