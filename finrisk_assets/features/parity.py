"""The certificate that a feature is the same number in batch and online.

Only the comparison belongs here, and the replay that makes it hard: events delivered twice, late and out of order, labels
withheld until they are known, a restart in the middle.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from finrisk_assets.features.online import History, OnlineFeatures, micros
from finrisk_assets.features.windows import HOUR, LABELS, MICRO, Declaration, reach_s

if TYPE_CHECKING:
    import ibis.expr.types as ir

TOLERANCE = 1e-6
LATENESS_S = 6 * HOUR
"""How late an event may arrive in the replay."""

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Parity:
    """Result of a comparison.

    Attributes
    ----------
    n
        Rows compared.
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
        by = self.max_abs_diff[self.worst]
        return f"{verdict}: {self.n} rows, {len(self.max_abs_diff)} features, worst {self.worst} by {by:.3g}"


def certificate(
    batch: npt.NDArray[np.float64], online: npt.NDArray[np.float64], names: Sequence[str], tolerance: float = TOLERANCE
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
    """What keeps the recent events for the replay; a service's own store can stand in for `MemoryStore`."""

    def add(self, event: Event) -> None:
        """Keep an event; a second one of the same transaction_id changes nothing."""

    def history(self, entity: tuple[str, ...], of: Event, since_us: int) -> History:
        """Return the kept events of the same entity as `of`, after `since_us`."""

    def restarted(self) -> "HistoryStore":
        """Return the store as it is after a restart."""


class MemoryStore:
    """Recent events by entity, in the order in which they arrived."""

    def __init__(self, entities: Iterable[tuple[str, ...]]) -> None:
        self._entities = tuple(entities)
        self._events: dict[str, Event] = {}
        self._of: dict[tuple[tuple[str, ...], tuple[Any, ...]], list[Event]] = {}

    def add(self, event: Event) -> None:
        """Keep an event; a second one of the same transaction_id changes nothing."""
        if event["transaction_id"] in self._events:
            return
        self._events[event["transaction_id"]] = event
        for entity in self._entities:
            self._of.setdefault((entity, tuple(event[name] for name in entity)), []).append(event)

    def history(self, entity: tuple[str, ...], of: Event, since_us: int) -> History:
        """Return the kept events of the same entity as `of`, after `since_us`."""
        kept = self._of.get((entity, tuple(of[name] for name in entity)), [])
        return History.of(
            (event["occurred_at_us"], event["amount"], event.get("is_fraud"), event.get("label_known_at_us"))
            for event in kept
            if event["occurred_at_us"] > since_us
        )

    def restarted(self) -> "MemoryStore":
        """Return a new store that has read back what this one kept."""
        again = MemoryStore(self._entities)
        for event in self._events.values():
            again.add(dict(event))
        return again


def replay(
    events: Sequence[Event],
    scored: Sequence[str],
    features: Sequence[Declaration],
    seed: int,
    store: Callable[[Iterable[tuple[str, ...]]], HistoryStore] = MemoryStore,
) -> npt.NDArray[np.float64]:
    """Deliver events as a bad day would and return the online features of some.

    Each event arrives up to `LATENESS_S` late, one in ten a second time; half-way the store restarts. An event is scored
    once nothing before it can still be under way, by when later ones have arrived too, and every label that is not known
    at its own instant is withheld.

    Parameters
    ----------
    events
        With ``transaction_id``, ``occurred_at_us``, ``amount``, the entities' columns, ``label_known_at_us`` if any.
    scored
        transaction_id of those to score, each among the events.
    features, seed, store
        What to compute, what fixes the disorder, what keeps the history (made from the entities' columns).

    Returns
    -------
    ndarray, shape (n_scored, n_features), float64
    """
    online = OnlineFeatures(features)
    rng = np.random.default_rng(seed)
    twice = np.concatenate([np.arange(len(events)), np.flatnonzero(rng.random(len(events)) < 0.1)])
    at = np.array([event["occurred_at_us"] for event in events], np.int64)
    arrival = at[twice] + rng.integers(0, LATENESS_S * MICRO, len(twice))
    deliveries = [(int(arrival[place]), int(twice[place])) for place in np.argsort(arrival, kind="stable")]

    by_id = {event["transaction_id"]: event for event in events}
    waiting = sorted((by_id[name] for name in scored), key=lambda event: -int(event["occurred_at_us"]))
    rows: dict[str, npt.NDArray[np.float64]] = {}
    kept = store(online.history_s)

    def score_until(clock: float) -> None:
        while waiting and waiting[-1]["occurred_at_us"] + LATENESS_S * MICRO <= clock:
            event = waiting.pop()
            rows[event["transaction_id"]] = online.compute(event, _histories(online, kept, event))

    for number, (clock, place) in enumerate(deliveries):
        if number == len(deliveries) // 2:
            kept = kept.restarted()
        score_until(clock)
        kept.add(events[place])
    score_until(float("inf"))
    return np.array([rows[name] for name in scored]).reshape(len(scored), len(online.names))


def _histories(online: OnlineFeatures, kept: HistoryStore, event: Event) -> dict[tuple[str, ...], History]:
    at = event["occurred_at_us"]
    histories = {}
    for entity, length_s in online.history_s.items():
        if any(event[name] is None for name in entity):
            continue
        history = kept.history(entity, event, at - length_s * MICRO)
        told = [known is not None and known <= at for known in history.label_known_at_us]
        histories[entity] = history._replace(is_fraud=[fraud and known for fraud, known in zip(history.is_fraud, told, strict=True)])
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
        Size of the sample, and what fixes it and the disorder of the replay.

    Returns
    -------
    Parity
    """
    names = [feature.feature.name for feature in features]
    chosen = (
        table.select("transaction_id", *names)
        .order_by([(table.transaction_id + f"/{seed}").hash(), table.transaction_id])
        .limit(n)
        .to_pyarrow()
        .to_pylist()
    )
    scored = [row["transaction_id"] for row in chosen]
    batch = np.array([[np.nan if row[name] is None else row[name] for name in names] for row in chosen], np.float64)
    events = _events_around(transactions, scored, features)
    online = replay(events, scored, features, seed)
    return certificate(batch.reshape(len(scored), len(names)), online, names)


def _events_around(transactions: "ir.Table", scored: Sequence[str], features: Sequence[Declaration]) -> list[Event]:
    """Return the scored events and all that could matter to one: the past of its entities, and a little of their future."""
    import ibis

    columns = sorted(frozenset({"transaction_id", "occurred_at", "amount"}).union(*(feature.columns for feature in features)))
    epoch = ibis.timestamp("1970-01-01 00:00:00")
    timed = transactions.select(*columns).mutate(occurred_at_us=transactions.occurred_at.delta(epoch, unit="microsecond"))
    sample = timed.filter(timed.transaction_id.isin(list(scored)))
    near = [sample]
    for entity, length_s in reach_s(features).items():
        of = sample.select(*(sample[name].name(f"of_{name}") for name in entity), of_us=sample.occurred_at_us)
        same = [timed[name] == of[f"of_{name}"] for name in entity]
        recent = timed.occurred_at_us > of.of_us - (length_s + HOUR) * MICRO
        near.append(timed.semi_join(of, [*same, recent, timed.occurred_at_us < of.of_us + LATENESS_S * MICRO]))
    rows = {row["transaction_id"]: row for part in near for row in part.to_pyarrow().to_pylist()}
    return [_event(rows[name]) for name in sorted(rows)]


def _event(row: dict[str, Any]) -> Event:
    known = row.get(LABELS[1])
    return {**row, "label_known_at_us": micros(known) if isinstance(known, datetime) else None}
