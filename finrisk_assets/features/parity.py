"""The certificate that a feature is the same number in batch and online.

Only the comparison belongs here, and the replay of a bad day: events delivered twice, late and out of order, labels withheld until they
are known, a restart in the middle.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from finrisk_assets.features.online import History, OnlineFeatures
from finrisk_assets.features.windows import HOUR, LABELS, MICRO, Declaration, find_reach_s
from schemas.timestamps import to_micros

if TYPE_CHECKING:
    import ibis.expr.types as ir

PARITY_TOLERANCE = 1e-6
"""Difference, relative to max(1, |value|), up to which two values count as equal."""
LATENESS_S = 6 * HOUR
"""Seconds by which an event of the replay arrives late at most."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Parity:
    """The result of a comparison.

    Attributes
    ----------
    n
        Rows that were compared.
    max_abs_diff
        Per feature, the largest |batch - online|; infinite where one has a value and the other none.
    worst
        The feature that differs most, relative to max(1, |value|).
    equal
        Whether no relative difference exceeds the tolerance, on at least one row.
    """

    n: int
    max_abs_diff: Mapping[str, float]
    worst: str
    equal: bool

    def __str__(self) -> str:
        verdict = "equal" if self.equal else "DIFFERENT"
        difference = self.max_abs_diff[self.worst]
        return f"{verdict}: {self.n} rows, {len(self.max_abs_diff)} features, worst {self.worst} by {difference:.3g}"


def compare(
    batch: npt.NDArray[np.float64], online: npt.NDArray[np.float64], names: Sequence[str], tolerance: float = PARITY_TOLERANCE
) -> Parity:
    """Compare two tables of feature values row for row.

    Parameters
    ----------
    batch, online
        Shape (n_rows, n_features), NaN where missing.
    names
        The features, in order.
    tolerance
        Largest difference relative to max(1, |value|) that counts as equal.

    Raises
    ------
    ValueError
        Where the shapes differ or do not fit the names.
    """
    if batch.shape != online.shape or batch.ndim != 2 or batch.shape[1] != len(names) or not names:
        raise ValueError(f"cannot compare {batch.shape} batch values with {online.shape} online values of {len(names)} features")
    if not len(batch):
        return Parity(0, dict.fromkeys(names, 0.0), names[0], False)
    absent = np.isnan(batch), np.isnan(online)
    difference = np.where(absent[0] & absent[1], 0.0, np.where(absent[0] | absent[1], np.inf, np.abs(batch - online)))
    relative = difference / np.fmax(1.0, np.fmax(np.abs(batch), np.abs(online)))
    relative[np.isnan(relative)] = 0.0
    largest = relative.max(axis=0)
    return Parity(
        len(batch),
        dict(zip(names, difference.max(axis=0).tolist(), strict=True)),
        names[int(largest.argmax())],
        bool(largest.max() <= tolerance),
    )


class HistoryStore(Protocol):
    """The store of recent events in a replay; a service's own store can replace `MemoryStore`."""

    def add(self, event: Event) -> None:
        """Add an event; a second event of the same transaction_id changes nothing."""

    def history(self, entity: tuple[str, ...], of: Event, since_us: int) -> History:
        """Return the stored events of the same entity as `of`, after `since_us`."""

    def restart(self) -> "HistoryStore":
        """Return the store after a restart."""


class MemoryStore:
    """Recent events by entity, in the order of their arrival."""

    def __init__(self, entities: Iterable[tuple[str, ...]]) -> None:
        self._entities = tuple(entities)
        self._events: dict[str, Event] = {}
        self._of: dict[tuple[tuple[str, ...], tuple[Any, ...]], list[Event]] = {}

    def add(self, event: Event) -> None:
        """Add an event; a second event of the same transaction_id changes nothing."""
        if event["transaction_id"] in self._events:
            return
        self._events[event["transaction_id"]] = event
        for entity in self._entities:
            self._of.setdefault((entity, tuple(event[name] for name in entity)), []).append(event)

    def history(self, entity: tuple[str, ...], of: Event, since_us: int) -> History:
        """Return the stored events of the same entity as `of`, after `since_us`."""
        events = self._of.get((entity, tuple(of[name] for name in entity)), [])
        return History.of(
            (event["occurred_at_us"], event["amount"], event.get("is_fraud"), event.get("label_known_at_us"))
            for event in events
            if event["occurred_at_us"] > since_us
        )

    def restart(self) -> "MemoryStore":
        """Return a new store with the events of this store."""
        store = MemoryStore(self._entities)
        for event in self._events.values():
            store.add(dict(event))
        return store


def replay(
    events: Sequence[Event],
    scored: Sequence[str],
    features: Sequence[Declaration],
    seed: int,
    store: Callable[[Iterable[tuple[str, ...]]], HistoryStore] = MemoryStore,
) -> npt.NDArray[np.float64]:
    """Deliver events as on a bad day and return the online features of some.

    Each event arrives up to `LATENESS_S` late, one in ten a second time; half-way the store restarts. An event is scored
    once no event before it can still arrive; later events have arrived by then too. A label that is not known at the
    event's own instant is withheld.

    Parameters
    ----------
    events
        With ``transaction_id``, ``occurred_at_us``, ``amount``, the entities' columns, ``label_known_at_us`` if any.
    scored
        transaction_id of the events to score.
    features, seed, store
        Declarations to compute, the seed of the disorder, and the class of the store, which takes the entities' columns.

    Returns
    -------
    ndarray, shape (n_scored, n_features), float64
    """
    online = OnlineFeatures(features)
    rng = np.random.default_rng(seed)
    delivered = np.concatenate([np.arange(len(events)), np.flatnonzero(rng.random(len(events)) < 0.1)])
    at = np.array([event["occurred_at_us"] for event in events], np.int64)
    arrival = at[delivered] + rng.integers(0, LATENESS_S * MICRO, len(delivered))
    deliveries = [(int(arrival[place]), int(delivered[place])) for place in np.argsort(arrival, kind="stable")]

    by_id = {event["transaction_id"]: event for event in events}
    waiting = sorted((by_id[name] for name in scored), key=lambda event: -int(event["occurred_at_us"]))
    rows: dict[str, npt.NDArray[np.float64]] = {}
    history_store = store(online.history_s)

    def score_until(clock: float) -> None:
        while waiting and waiting[-1]["occurred_at_us"] + LATENESS_S * MICRO <= clock:
            event = waiting.pop()
            rows[event["transaction_id"]] = online.compute(event, _histories(online, history_store, event))

    for number, (clock, place) in enumerate(deliveries):
        if number == len(deliveries) // 2:
            history_store = history_store.restart()
        score_until(clock)
        history_store.add(events[place])
    score_until(float("inf"))
    return np.array([rows[name] for name in scored]).reshape(len(scored), len(online.names))


def _histories(online: OnlineFeatures, store: HistoryStore, event: Event) -> dict[tuple[str, ...], History]:
    at = event["occurred_at_us"]
    histories = {}
    for entity, length_s in online.history_s.items():
        if any(event[name] is None for name in entity):
            continue
        history = store.history(entity, event, at - length_s * MICRO)
        is_known = [known_at is not None and known_at <= at for known_at in history.label_known_at_us]
        histories[entity] = history._replace(is_fraud=[fraud and known for fraud, known in zip(history.is_fraud, is_known, strict=True)])
    return histories


def certify(transactions: "ir.Table", table: "ir.Table", features: Sequence[Declaration], n: int = 200, seed: int = 0) -> Parity:
    """Replay a sample of transactions online and compare it with the stored feature table.

    Parameters
    ----------
    transactions
        The events that the features were computed from.
    table
        The stored features: ``transaction_id`` and a column per feature.
    features
        The declarations.
    n, seed
        Size of the sample, and the seed of the sample and of the disorder.

    Returns
    -------
    Parity
    """
    names = [feature.feature.name for feature in features]
    sample = (
        table.select("transaction_id", *names)
        .order_by([(table.transaction_id + f"/{seed}").hash(), table.transaction_id])
        .limit(n)
        .to_pyarrow()
        .to_pylist()
    )
    scored = [row["transaction_id"] for row in sample]
    batch = np.array([[np.nan if row[name] is None else row[name] for name in names] for row in sample], np.float64)
    events = collect_events(transactions, scored, features)
    online = replay(events, scored, features, seed)
    return compare(batch.reshape(len(scored), len(names)), online, names)


def collect_events(transactions: "ir.Table", scored: Sequence[str], features: Sequence[Declaration]) -> list[Event]:
    """Return the scored events, the past of their entities and `LATENESS_S` of the future: all that can change their features."""
    from finrisk_assets.features.arithmetic import epoch_micros

    columns = sorted(frozenset({"transaction_id", "occurred_at", "amount"}).union(*(feature.columns for feature in features)))
    timed = transactions.select(*columns).mutate(occurred_at_us=epoch_micros(transactions.occurred_at))
    sample = timed.filter(timed.transaction_id.isin(list(scored)))
    near = [sample]
    for entity, length_s in find_reach_s(features).items():
        of = sample.select(*(sample[name].name(f"of_{name}") for name in entity), of_us=sample.occurred_at_us)
        same = [timed[name] == of[f"of_{name}"] for name in entity]
        recent = timed.occurred_at_us > of.of_us - (length_s + HOUR) * MICRO
        near.append(timed.semi_join(of, [*same, recent, timed.occurred_at_us < of.of_us + LATENESS_S * MICRO]))
    rows = {row["transaction_id"]: row for part in near for row in part.to_pyarrow().to_pylist()}
    return [_event(rows[name]) for name in sorted(rows)]


def _event(row: dict[str, Any]) -> Event:
    known = row.get(LABELS[1])
    return {**row, "label_known_at_us": to_micros(known) if isinstance(known, datetime) else None}
