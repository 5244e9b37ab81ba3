"""Tests of the replay of the parity certificate: equal as it stands, and different with each of five planted bugs."""

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ibis
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bento.decisions.scorers import transaction_features
from bento.decisions.scorers.parity_replay import StoreWorkers
from bento.store import transactions
from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES
from finrisk_assets.features import arrivals as arrival
from finrisk_assets.features import batch, parity, recent_events
from finrisk_assets.features.arrivals import Arrivals, Delivery, Event, Replayed, plan_arrivals
from finrisk_assets.features.recent_events import EntityEvents
from finrisk_assets.features.windows import DAY, HOUR, MICRO
from schemas.timestamps import to_micros

NAMES = [feature.feature.name for feature in FEATURES]
START_US = 1_714_000_000_000_000
CACHED_EVENTS = (None, 150, None)


def event_of(number: int, at_s: int, **changes: Any) -> dict[str, Any]:
    at = START_US + at_s * MICRO
    fields = {"customer_id": "a", "merchant": "M", "country": "DE", "amount": 10.0, "direction": "debit", "is_fraud": False}
    event: dict[str, Any] = {"transaction_id": f"t{number}", "occurred_at_us": at, "label_known_at_us": None} | fields | changes
    if event["is_fraud"] and event["label_known_at_us"] is None:
        event["label_known_at_us"] = at + DAY * MICRO
    return event


def bad_day_events(n: int = 500) -> list[Event]:
    """Return events of a few customers and merchants, some of one instant, some a whole window after another."""
    draw, events = random.Random(8), list[Event]()
    for number in range(n):
        at_s = draw.randrange(40 * DAY)
        if events and draw.random() < 0.3:
            earlier = (draw.choice(events)["occurred_at_us"] - START_US) // MICRO
            at_s = earlier + draw.choice([0, HOUR, DAY, 7 * DAY])
        is_fraud = draw.random() < 0.3
        events.append(
            event_of(
                number,
                at_s,
                customer_id=draw.choice("abcdefg"),
                merchant=draw.choice(["M", "N", None]),
                country=draw.choice(["DE", "FR", None]),
                amount=draw.randrange(1, 50_000) / 100,
                direction=draw.choice(["debit", "credit"]),
                is_fraud=is_fraud,
                label_known_at_us=START_US + (at_s + draw.randrange(12 * DAY)) * MICRO if is_fraud else None,
            )
        )
    return events


def compute_batch(events: Sequence[Event]) -> np.ndarray:
    import pyarrow as pa

    moment, text = pa.timestamp("us"), pa.string()
    kinds = {"amount": pa.float64(), "is_fraud": pa.bool_(), "occurred_at": moment, "label_known_at": moment}
    names = ("transaction_id", "customer_id", "merchant", "country", "direction", *kinds)
    table = pa.table({name: pa.array((parity._cell(event, name) for event in events), kinds.get(name, text)) for name in names})
    rows = {row["transaction_id"]: row for row in batch.compute(ibis.memtable(table), FEATURES).to_pyarrow().to_pylist()}
    return parity.to_rows([rows[event["transaction_id"]] for event in events], NAMES)


def replay(events: Sequence[Event], arrivals: Arrivals, kind: Callable[..., StoreWorkers] = StoreWorkers) -> Replayed:
    with TemporaryDirectory() as folder, closing(kind(Path(folder) / "store.sqlite", FEATURES, CACHED_EVENTS)) as workers:
        return arrival.replay(events, arrivals, workers, len(FEATURES))


def certify(events: Sequence[Event], kind: Callable[..., StoreWorkers] = StoreWorkers, turn: int = 12) -> list[parity.Parity]:
    """Return the comparison with the whole ledger, and with what had arrived where an event was overtaken."""
    arrivals = plan_arrivals(events, FEATURES, 3, len(CACHED_EVENTS), turn)
    replayed = replay(events, arrivals, kind)
    found = [parity.compare(compute_batch(events), replayed.settled, NAMES)]
    places, arrived = parity.compute_arrived(events, arrivals, FEATURES, range(len(events)), len(events), 3)
    return found + ([parity.compare(arrived, replayed.arrived[places], NAMES)] if places else [])


def test_the_service_equals_the_batch_path_on_a_bad_day() -> None:
    events = bad_day_events()
    arrivals = plan_arrivals(events, FEATURES, 3, len(CACHED_EVENTS), 12)
    assert len(arrivals.overtaken) > 20
    assert arrivals.withheld
    assert {batch.restarts for batch in arrivals.batches if batch.dies} == {True, False}
    assert arrivals.n_deliveries > len(events) + 5
    assert {batch.worker for batch in arrivals.batches} == {0, 1, 2}
    assert [str(found) for found in certify(events) if not found.equal] == []


def test_a_decision_that_was_overtaken_lacks_what_is_late() -> None:
    """The two comparisons differ: a row as of its arrival is not that of the whole ledger."""
    events = bad_day_events()
    arrivals = plan_arrivals(events, FEATURES, 3, len(CACHED_EVENTS), 12)
    late, whole = replay(events, arrivals), compute_batch(events)
    assert not parity.compare(whole, late.arrived, NAMES).equal
    punctual = np.setdiff1d(np.arange(len(events)), arrivals.overtaken)
    assert parity.compare(whole[punctual], late.arrived[punctual], NAMES).equal


def test_every_event_arrives_and_settles_when_nothing_is_late_any_more() -> None:
    events = bad_day_events()
    arrivals = plan_arrivals(events, FEATURES, 3, 3, 12)
    new = [place for each in arrivals.batches for place, is_new in zip(each.places, each.is_new, strict=True) if is_new]
    assert sorted(new) == list(range(len(events)))
    assert sorted(place for each in arrivals.batches for place in each.settled) == list(arrivals.overtaken)
    taken: set[int] = set()
    for each in arrivals.batches:
        for place in each.settled:
            at = events[place]["occurred_at_us"]
            assert all(other in taken for other, event in enumerate(events) if event["occurred_at_us"] < at)
        taken.update(each.places)


# Planted bugs ------------------------------------------------------------------------------------------------------------------


def is_caught(kind: Callable[..., StoreWorkers] = StoreWorkers) -> bool:
    return any(not found.equal for found in certify(bad_day_events(), kind))


def test_a_window_edge_off_by_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_events, "bisect_left", recent_events.bisect_right)  # an event sees those of its own instant
    assert is_caught()


def test_a_time_in_another_zone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_features, "to_micros", lambda moment: to_micros(moment) + 2 * HOUR * MICRO)
    assert is_caught()


def test_a_missing_deduplication_is_caught() -> None:
    class Repeating(StoreWorkers):
        def take(self, worker: int, deliveries: Sequence[Delivery]) -> list[Any]:
            renamed = [
                one if one.is_new else one._replace(event={**one.event, "transaction_id": f"{one.event['transaction_id']}/{number}"})
                for number, one in enumerate(deliveries)
            ]
            return super().take(worker, renamed)

    assert is_caught(Repeating)


def test_a_label_that_is_used_before_its_delay_is_over_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = EntityEvents._count_known

    def leak(self: EntityEvents, at_us: int, reach_s: int, known_s: int, narrowing: Any) -> int:
        return honest(self, at_us, reach_s, known_s + 30 * DAY, narrowing)

    monkeypatch.setattr(EntityEvents, "_count_known", leak)
    assert is_caught()


def test_a_cache_that_does_not_see_other_workers_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_compare_file", lambda session, connection: None)
    assert is_caught()


# Random histories --------------------------------------------------------------------------------------------------------------

INSTANTS = st.one_of(st.integers(0, 3 * DAY), st.sampled_from([0, HOUR, DAY, DAY + HOUR, 7 * DAY, 8 * DAY]))
PAYMENTS = st.tuples(INSTANTS, st.sampled_from("ab"), st.sampled_from(["M", "N", None]), st.integers(1, 99_999), st.booleans())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(PAYMENTS, min_size=1, max_size=25))
def test_any_small_history_is_the_same_on_both_paths(payments: list[tuple[int, str, str | None, int, bool]]) -> None:
    events = [
        event_of(number, at_s, customer_id=customer, merchant=merchant, amount=cents / 100, is_fraud=is_fraud)
        for number, (at_s, customer, merchant, cents, is_fraud) in enumerate(payments)
    ]
    assert [str(found) for found in certify(events, turn=4) if not found.equal] == []
