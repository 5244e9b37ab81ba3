"""The arrival of a ledger's events on a bad day: late, out of order, twice, at several workers that die and start again.

Only the plan and the replay that follows it belong here. The plan is the same for the same events and seed; workers are of any kind.

An event is *late* for another one if it occurred before it, in the history of the same customer or merchant, and arrives after it. The
decision on the other one cannot know it. Its features at its own arrival are those of the ledger without what was late; once everything
that occurred before it has arrived, they are those of the whole ledger.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from finrisk_assets.features.windows import HOUR, MICRO, MINUTE, Declaration, collect_windows

LATENESS_S = 6 * HOUR
"""Seconds by which an event arrives late at most; after them everything that occurred before it has arrived."""
LATE_SHARE = 0.02
"""Share of the events that come up to `LATENESS_S` late; the others come within `JITTER_S`, in the order in which that puts them."""
JITTER_S = 10 * MINUTE
REPEATED_SHARE = 0.03
"""Share of the events that are delivered a second time, up to `LATENESS_S` after they occurred."""
TURN = 60
"""Deliveries that the workers share out at once: a micro-batch of each. More let workers overtake each other more."""
N_DEATHS = 12
"""Moments at which a worker dies in a micro-batch, or rolls it back, and gets it again after the one before."""

Event: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class ArrivalBatch:
    """Deliveries that one worker takes in one transaction.

    Attributes
    ----------
    worker
        The number of the worker, from 0.
    places
        The events' places in the ledger, in the order of their arrival.
    is_new
        Whether each delivery is the first one of its event.
    settled
        Places of events whose features are computed once more before the micro-batch: everything that was late for them has arrived.
    labelled
        Places of events whose label is loaded before the micro-batch.
    dies, restarts
        Whether the worker first loses the micro-batch before its commit, and whether it then starts again with nothing in memory.
    """

    worker: int
    places: tuple[int, ...]
    is_new: tuple[bool, ...]
    settled: tuple[int, ...] = ()
    labelled: tuple[int, ...] = ()
    dies: bool = False
    restarts: bool = False


@dataclass(frozen=True)
class Arrivals:
    """The plan of a replay.

    Attributes
    ----------
    batches
        The micro-batches in the order in which they are taken.
    turn_at
        By place, the number of the event's first delivery in the order in which all are taken.
    overtaken
        Places of the events for which another one is late.
    withheld
        Places of the events that arrive without their label, which is loaded before it counts.
    n_deliveries
        Deliveries, with those of repeated events and lost micro-batches.
    """

    batches: tuple[ArrivalBatch, ...]
    turn_at: npt.NDArray[np.int64]
    overtaken: tuple[int, ...]
    withheld: frozenset[int]
    n_deliveries: int


def pick_worker(customer_id: str, n_workers: int) -> int:
    """Return the worker of a customer."""
    return crc32(customer_id.encode()) % n_workers


def plan_arrivals(events: Sequence[Event], features: Sequence[Declaration], seed: int, n_workers: int = 3, turn: int = TURN) -> Arrivals:
    """Return the arrival of events on a bad day.

    Parameters
    ----------
    events
        With ``occurred_at_us``, the columns of the entities, ``is_fraud`` and ``label_known_at_us`` if any.
    features
        The declarations that are computed: their delays say until when a label may be withheld.
    seed
        The seed of the disorder.
    n_workers, turn
        Workers that share the customers, and deliveries that they share out at once.
    """
    rng, n = np.random.default_rng(seed), len(events)
    at = np.array([event["occurred_at_us"] for event in events], np.int64)
    delay_s = np.where(rng.random(n) < LATE_SHARE, rng.integers(0, LATENESS_S, n), rng.integers(0, JITTER_S, n))
    repeated = np.flatnonzero(rng.random(n) < REPEATED_SHARE)
    place_of = np.concatenate([np.arange(n), repeated])
    arrival = np.concatenate([at + delay_s * MICRO, at[repeated] + rng.integers(0, LATENESS_S, len(repeated)) * MICRO])
    order = np.argsort(arrival, kind="stable")
    workers = [pick_worker(event["customer_id"], n_workers) for event in events]

    batches: list[ArrivalBatch] = []
    turn_at = np.full(n, -1, np.int64)
    clocks: list[int] = []
    taken = 0
    for number, start in enumerate(range(0, len(order), turn)):
        shared = order[start : start + turn]
        for step in range(n_workers):
            worker = (number + step) % n_workers
            places = tuple(int(place_of[one]) for one in shared if workers[place_of[one]] == worker)
            is_new = []
            for place in places:
                is_new.append(turn_at[place] < 0)
                if is_new[-1]:
                    turn_at[place] = taken
                taken += 1
            if places:
                batches.append(ArrivalBatch(worker, places, tuple(is_new)))
                clocks.append(int(arrival[shared[-1]]))
    overtaken = find_overtaken(events, at, turn_at, {window.entity[0] for window in collect_windows(features)})
    dying = np.unique(np.linspace(0, len(batches) - 1, N_DEATHS + 2).astype(int)[1:-1]) if len(batches) > 2 else np.empty(0, int)
    labelled = _plan_labels(events, turn_at, batches, clocks, dying, features)
    planned = _with_incidents(batches, clocks, at, workers, overtaken, labelled, dying, n_workers)
    lost = sum(2 * len(batch.places) for batch in planned if batch.dies)
    return Arrivals(tuple(planned), turn_at, overtaken, frozenset(place for places in labelled.values() for place in places), taken + lost)


def find_overtaken(
    events: Sequence[Event], at: npt.NDArray[np.int64], turn_at: npt.NDArray[np.int64], columns: Iterable[str]
) -> tuple[int, ...]:
    """Return the places of the events for which an earlier event of the same value of a column is late."""
    found: set[int] = set()
    for column in columns:
        of: dict[Any, list[int]] = {}
        for place, event in enumerate(events):
            if event[column] is not None:
                of.setdefault(event[column], []).append(place)
        for places in of.values():
            ordered = np.array(places)[np.argsort(at[places], kind="stable")]
            latest = np.maximum.accumulate(turn_at[ordered])
            before = np.searchsorted(at[ordered], at[ordered], side="left")  # events of one instant never see each other
            late = (before > 0) & (latest[np.maximum(before - 1, 0)] > turn_at[ordered])
            found.update(ordered[late].tolist())
    return tuple(sorted(found))


def _plan_labels(
    events: Sequence[Event],
    turn_at: npt.NDArray[np.int64],
    batches: Sequence[ArrivalBatch],
    clocks: Sequence[int],
    dying: npt.NDArray[np.int64],
    features: Sequence[Declaration],
) -> dict[int, list[int]]:
    """Return, by number of a micro-batch, the events whose label is loaded before it; no feature may count it before that."""
    delays = [window.delay_s for window in collect_windows(features) if window.column == "is_fraud"]
    if not delays or not len(dying):
        return {}
    first = np.cumsum([0, *(len(batch.places) for batch in batches)])
    labelled: dict[int, list[int]] = {}
    for place, event in enumerate(events):
        if not event.get("is_fraud") or event.get("label_known_at_us") is None:
            continue
        batch = int(np.searchsorted(first, turn_at[place], side="right")) - 1
        load = int(np.searchsorted(dying, batch, side="right"))
        if load < len(dying) and clocks[dying[load]] < event["occurred_at_us"] + min(delays) * MICRO:
            labelled.setdefault(int(dying[load]), []).append(place)
    return labelled


def _with_incidents(
    batches: Sequence[ArrivalBatch],
    clocks: Sequence[int],
    at: npt.NDArray[np.int64],
    workers: Sequence[int],
    overtaken: Sequence[int],
    labelled: Mapping[int, Sequence[int]],
    dying: npt.NDArray[np.int64],
    n_workers: int,
) -> list[ArrivalBatch]:
    waiting = sorted(overtaken, key=lambda place: -int(at[place]))
    settled: list[list[int]] = [[] for _ in range(n_workers)]
    deaths = {int(number): count for count, number in enumerate(dying)}
    planned = []
    for number, (batch, clock) in enumerate(zip(batches, clocks, strict=True)):
        # The clock is of the end of the turn: what arrived by the turn before is there.
        while waiting and number and at[waiting[-1]] + LATENESS_S * MICRO <= clocks[number - 1] < clock:
            place = waiting.pop()
            settled[workers[place]].append(place)
        due, settled[batch.worker] = tuple(settled[batch.worker]), []
        death = deaths.get(number)
        planned.append(
            ArrivalBatch(
                batch.worker,
                batch.places,
                batch.is_new,
                due,
                tuple(labelled.get(number, ())),
                death is not None,
                death is not None and death % 2 == 0,
            )
        )
    for place in reversed(waiting):
        settled[workers[place]].append(place)
    return planned + [ArrivalBatch(worker, (), (), tuple(places)) for worker, places in enumerate(settled) if places]


# Following the plan ----------------------------------------------------------------------------------------------------------


class Delivery(NamedTuple):
    """An event as it reaches a worker.

    Attributes
    ----------
    is_new
        Whether it comes for the first time.
    is_scored
        Whether its features are computed.
    """

    event: Event
    is_new: bool
    is_scored: bool


class Workers(Protocol):
    """The workers of a replay, over one store; a service's own can replace `MemoryWorkers`."""

    def take(self, worker: int, deliveries: Sequence[Delivery]) -> Sequence[npt.NDArray[Any] | None]:
        """Compute the features of the scored events, each after those before it, and store all, in one transaction; None for others."""

    def compute(self, worker: int, events: Sequence[Event]) -> Sequence[npt.NDArray[Any]]:
        """Return the features of events from what is stored now."""

    def lose(self, worker: int, deliveries: Sequence[Delivery], *, restarts: bool) -> None:
        """Take deliveries and die before the commit, or only roll back where the worker does not restart."""

    def learn(self, events: Sequence[Event]) -> None:
        """Store the labels of events that are stored already."""


class Replayed(NamedTuple):
    """Features of a replay, each of shape (n_events, n_features), NaN where missing.

    Attributes
    ----------
    arrived
        As of the arrival of each event: what a decision reads.
    settled
        Once everything that occurred before each event has arrived.
    """

    arrived: npt.NDArray[np.float64]
    settled: npt.NDArray[np.float64]


def replay(
    events: Sequence[Event], arrivals: Arrivals, workers: Workers, n_features: int, scored: Collection[int] | None = None
) -> Replayed:
    """Let workers take the events as they arrive, and return the features that they compute.

    Parameters
    ----------
    scored
        Places of the events whose features are computed; by default all. The others' rows are NaN.
    """
    arrived = np.full((len(events), n_features), np.nan)
    settled: dict[int, npt.NDArray[Any]] = {}
    before: dict[int, Sequence[int]] = {}
    known = [_without_label(event) if place in arrivals.withheld else event for place, event in enumerate(events)]
    for batch in arrivals.batches:
        # A label that is loaded now was not there when its event was sent: so it is not in a second delivery either.
        deliveries = [
            Delivery(known[place], new, new and (scored is None or place in scored))
            for place, new in zip(batch.places, batch.is_new, strict=True)
        ]
        if batch.labelled:
            workers.learn([events[place] for place in batch.labelled])
        due = [place for place in batch.settled if scored is None or place in scored]
        if due:
            settled |= zip(due, workers.compute(batch.worker, [events[place] for place in due]), strict=True)
        if batch.dies:
            workers.lose(batch.worker, deliveries, restarts=batch.restarts)
            # What the broker does not know to be taken comes again.
            workers.take(batch.worker, [Delivery(known[place], False, False) for place in before.get(batch.worker, ())])
        for place, row in zip(batch.places, workers.take(batch.worker, deliveries), strict=True):
            if row is not None:
                arrived[place] = row
        before[batch.worker] = batch.places
    whole = arrived.copy()
    for place, row in settled.items():
        whole[place] = row
    return Replayed(arrived, whole)


def _without_label(event: Event) -> Event:
    return {**event, "is_fraud": None, "label_known_at_us": None}
