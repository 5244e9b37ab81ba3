"""The certificate that a feature is the same number in batch and online.

Only the comparison belongs here, and the replay of a bad day, whose plan is in `arrivals`. The features of an event are held equal twice:
as of its arrival to those of the ledger that had arrived, and once everything before it has arrived to those of the whole ledger.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finrisk_assets.features.arrivals import LATENESS_S, Arrivals, Delivery, Event, plan_arrivals, replay
from finrisk_assets.features.online import History, OnlineFeatures
from finrisk_assets.features.windows import HOUR, LABELS, MICRO, Declaration, collect_windows, find_reach_s
from schemas.timestamps import to_micros

if TYPE_CHECKING:
    import ibis.expr.types as ir

PARITY_TOLERANCE = 1e-6
"""Difference, relative to max(1, |value|), up to which two values count as equal."""


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


class MemoryWorkers:
    """Workers of one process over a plain list of events by entity, for the arithmetic alone."""

    def __init__(self, features: Sequence[Declaration]) -> None:
        self._online = OnlineFeatures(features)
        self._events: dict[str, Event] = {}
        self._of: dict[tuple[tuple[str, ...], tuple[Any, ...]], list[str]] = {}

    def take(self, worker: int, deliveries: Sequence[Delivery]) -> Sequence[npt.NDArray[Any] | None]:
        """Compute the features of the scored events, each after those before it, and store all; None for others."""
        rows: list[npt.NDArray[Any] | None] = []
        for delivery in deliveries:
            rows.append(self._compute(delivery.event) if delivery.is_scored else None)
            self._add(delivery.event)
        return rows

    def compute(self, worker: int, events: Sequence[Event]) -> Sequence[npt.NDArray[Any]]:
        """Return the features of events from what is stored now."""
        return [self._compute(event) for event in events]

    def _compute(self, event: Event) -> npt.NDArray[Any]:
        at, histories = event["occurred_at_us"], {}
        for entity, length_s in self._online.history_s.items():
            same = self._of.get((entity, tuple(event[name] for name in entity)), [])
            recent = (self._events[name] for name in same if self._events[name]["occurred_at_us"] > at - length_s * MICRO)
            histories[entity] = History.of(
                (one["occurred_at_us"], one["amount"], one.get("is_fraud"), one.get("label_known_at_us")) for one in recent
            )
        return self._online.compute(event, histories)

    def lose(self, worker: int, deliveries: Sequence[Delivery], *, restarts: bool) -> None:
        """Do nothing: nothing is stored before the end of a transaction."""

    def learn(self, events: Sequence[Event]) -> None:
        """Store the labels of events that are stored already."""
        self._events |= {event["transaction_id"]: event for event in events}

    def _add(self, event: Event) -> None:
        if event["transaction_id"] in self._events:
            return
        self._events[event["transaction_id"]] = event
        for entity in self._online.history_s:
            self._of.setdefault((entity, tuple(event[name] for name in entity)), []).append(event["transaction_id"])


def compute_arrived(
    events: Sequence[Event], arrivals: Arrivals, features: Sequence[Declaration], scored: Collection[int], n: int, seed: int
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Compute over a table the features of some overtaken events as of their arrival: over the ledger without what was late for them.

    Each event gets a copy of its customer's and its merchant's past that had arrived, under names of its own.

    Returns
    -------
    places, ndarray of shape (n_places, n_features)
        Of `n` events at most that are scored and were overtaken.
    """
    import ibis
    import pyarrow as pa

    from finrisk_assets.features import batch

    overtaken = sorted(frozenset(arrivals.overtaken) & frozenset(scored))
    places = sorted(np.random.default_rng(seed).permutation(overtaken)[:n].tolist()) if overtaken else []
    columns = {window.entity[0] for window in collect_windows(features)}
    reach_us = max(find_reach_s(features).values(), default=0) * MICRO
    of: dict[tuple[str, Any], list[int]] = {}
    for place, event in enumerate(events):
        for column in columns:
            of.setdefault((column, event[column]), []).append(place)
    copies: list[dict[str, Any]] = []
    for place in places:
        event = events[place]
        near = {other for column in columns if event[column] is not None for other in of[column, event[column]]}
        for other in sorted(near):
            one = events[other]
            is_past = event["occurred_at_us"] - reach_us <= one["occurred_at_us"] < event["occurred_at_us"]
            if other == place or (is_past and arrivals.turn_at[other] < arrivals.turn_at[place]):
                own = {column: None if one[column] is None else f"{place}/{one[column]}" for column in columns}
                copies.append({**one, **own, "transaction_id": f"{place}/{other}"})
    names = [feature.feature.name for feature in features]
    if not copies:
        return [], np.empty((0, len(names)))
    text, moment = pa.string(), pa.timestamp("us")
    kinds = {"amount": pa.float64(), "is_fraud": pa.bool_(), "occurred_at": moment, "label_known_at": moment}
    read = sorted(frozenset(batch.KEYS).union(*(feature.columns for feature in features)))
    table = ibis.memtable(pa.table({name: pa.array((_cell(copy, name) for copy in copies), kinds.get(name, text)) for name in read}))
    computed = batch.compute(table, features)
    wanted = [f"{place}/{place}" for place in places]
    rows = {row["transaction_id"]: row for row in computed.filter(computed.transaction_id.isin(wanted)).to_pyarrow().to_pylist()}
    return places, to_rows([rows[name] for name in wanted], names)


def _cell(event: Event, column: str) -> Any:
    return event.get(f"{column}_us") if column in ("occurred_at", "label_known_at") else event.get(column)


def to_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return stored features as an array of shape (n_rows, n_features), NaN where missing."""
    values = [[np.nan if row[name] is None else row[name] for name in names] for row in rows]
    return np.array(values, np.float64).reshape(len(rows), len(names))


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
    events = collect_events(transactions, scored, features)
    place = {event["transaction_id"]: number for number, event in enumerate(events)}
    wanted = [place[name] for name in scored]
    online = replay(events, plan_arrivals(events, features, seed), MemoryWorkers(features), len(names), set(wanted)).settled
    return compare(to_rows(sample, names), online[wanted], names)


def collect_events(transactions: "ir.Table", scored: Sequence[str], features: Sequence[Declaration]) -> list[Event]:
    """Return the scored events, the past of their entities and `LATENESS_S` of the future: all that can change their features."""
    timed = _timed(transactions, features)
    sample = timed.filter(timed.transaction_id.isin(list(scored)))
    near = [sample]
    for entity, length_s in find_reach_s(features).items():
        of = sample.select(*(sample[name].name(f"of_{name}") for name in entity), of_us=sample.occurred_at_us)
        same = [timed[name] == of[f"of_{name}"] for name in entity]
        recent = timed.occurred_at_us > of.of_us - (length_s + HOUR) * MICRO
        near.append(timed.semi_join(of, [*same, recent, timed.occurred_at_us < of.of_us + LATENESS_S * MICRO]))
    rows = {row["transaction_id"]: row for part in near for row in part.to_pyarrow().to_pylist()}
    return [_event(rows[name]) for name in sorted(rows)]


def list_events(transactions: "ir.Table", features: Sequence[Declaration]) -> list[Event]:
    """Return every transaction as an event, in the order of their identifiers."""
    rows = _timed(transactions, features).order_by("transaction_id").to_pyarrow()
    return [_event(row) for row in rows.to_pylist()]


def _timed(transactions: "ir.Table", features: Sequence[Declaration]) -> "ir.Table":
    from finrisk_assets.features.arithmetic import epoch_micros

    columns = {"transaction_id", "customer_id", "occurred_at", "amount"}.union(*(feature.columns for feature in features))
    return transactions.select(*sorted(columns)).mutate(occurred_at_us=epoch_micros(transactions.occurred_at))


def _event(row: dict[str, Any]) -> Event:
    known = row.get(LABELS[1])
    return {**row, "label_known_at_us": to_micros(known) if isinstance(known, datetime) else None}
