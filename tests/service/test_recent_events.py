"""Tests of the recent events in memory: equal to the store's after every kind of change, and few statements where they are warm."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import func, select, text

from bento.decisions import feedback
from bento.decisions.batch import TRANSACTION_CHUNK_SIZE, decide_batch
from bento.decisions.engine import DecisionResult, Decisions, NotTogetherError
from bento.decisions.reconcile import reconcile
from bento.decisions.scorers.transaction import TransactionScorer
from bento.people import backup, data_rights, retention
from bento.store.audit_verify import verify
from bento.store.database import StoreBusy
from bento.store.records import Transaction
from bento.store.session import Store
from bento.store.tables import alerts
from finrisk_assets.features.online import EventCount
from finrisk_assets.features.recent_events import ENTITY_WEIGHT, EntityEvents, RecentEvents
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import FeedbackRequest, TransactionRequest
from schemas.timestamps import from_micros
from tests.service.databases import Server, store_at

NOON = datetime(2024, 5, 6, 12)
DAY_S = 86_400
COUNTS = [EventCount(3600), EventCount(DAY_S), EventCount(5 * DAY_S), EventCount(5 * DAY_S, known_s=DAY_S)]
ENTITIES = [("customer_id",), ("merchant",), ("customer_id", "merchant"), ("customer_id", "country")]
EVENT = {"customer_id": "5", "merchant": "M", "country": "DE"}


def transaction_of(name: str, minutes: float = 0.0, **changes: Any) -> Transaction:
    return Transaction(name, "5", NOON + timedelta(minutes=minutes), 10.0, "debit", "M", "DE")._replace(**changes)


def insert(store: Store, *transactions: Transaction) -> None:
    with store.writing():
        for transaction in transactions:
            person = store.person(transaction.customer_id, make=True)
            assert person is not None and store.insert_transaction(transaction, person)


def read(store: Store, before: datetime = NOON) -> Mapping[str, Any]:
    """Return everything that features read of `EVENT`, in an order of its own; a label counts for a fraud alone."""
    events = store.histories(EVENT, dict.fromkeys(ENTITIES, timedelta(days=5)), before)
    return {
        "events": {key: sorted(str((at, amount, known if fraud else None)) for at, amount, fraud, known in events[key]) for key in events},
        "counts": store.counts(EVENT, dict.fromkeys(ENTITIES, COUNTS), before),
    }


@pytest.fixture
def url(store_url: str | Path) -> str | Path:
    return store_url


@pytest.fixture
def worker(url: str | Path) -> Iterator[Store]:
    with closing(store_at(url)) as store:
        yield store


@pytest.fixture
def other(url: str | Path, worker: Store) -> Iterator[Store]:
    with closing(store_at(url)) as store:
        yield store


@pytest.fixture
def plain(url: str | Path, worker: Store) -> Iterator[Store]:
    """Yield a store that reads everything from the database."""
    with closing(store_at(url)) as store:
        store.recent_events.is_void = True  # until its own next write
        yield store


def test_they_are_those_of_the_store_whatever_happens(worker: Store, other: Store, plain: Store) -> None:
    draw = random.Random(4)
    for number in range(300):
        store = draw.choice([worker, worker, other])
        known_after = draw.choice([None, 1, 3000])
        transaction = transaction_of(
            str(number),
            draw.randint(-9_000, 100),
            customer_id=draw.choice("567"),
            merchant=draw.choice(["M", "N", None]),
            country=draw.choice(["DE", "FR", None]),
            is_fraud=None if known_after is None else draw.random() < 0.5,
            label_known_at=None if known_after is None else NOON + timedelta(minutes=known_after - 9_000),
        )
        match draw.randrange(6):
            case 0:
                store.load_transactions([transaction])
            case 1:
                with pytest.raises(ZeroDivisionError):
                    insert_and_fail(store, transaction)
            case 2:
                with store.writing():
                    with pytest.raises(ZeroDivisionError), store.savepoint():
                        insert_and_fail(store, transaction)
                    insert(store, transaction)
            case _:
                insert(store, transaction)
        before = NOON + timedelta(minutes=draw.randint(-9_000, 200))
        expected = read(plain, before)
        assert read(worker, before) == expected, number
        for store in draw.sample([worker, other], draw.randint(0, 2)):
            with store.writing():
                assert read(store, before) == expected, number


def insert_and_fail(store: Store, transaction: Transaction) -> None:
    with store.writing():
        insert(store, transaction)
        read(store)
        raise ZeroDivisionError


def test_a_second_read_of_an_entity_takes_no_statement_on_history(worker: Store) -> None:
    insert(worker, *(transaction_of(str(at), -at) for at in range(1, 50)))
    first = read(worker)
    with worker.writing():
        assert read(worker) == first
        with statements(worker) as sent:
            assert read(worker) == first
    assert [statement for statement in sent if "transactions" in statement] == []


def test_a_lock_that_the_event_loop_does_not_wait_for_empties_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with closing(store_at(path)) as worker, closing(store_at(path)) as other:
        insert(worker, transaction_of("t1", -30))
        first = read(worker)
        worker.never_wait_here()
        with other.writing(), pytest.raises(StoreBusy), worker.writing():
            pass
        with statements(worker) as sent:
            assert read(worker) == first
    assert [statement for statement in sent if "transactions" in statement] == []


def test_rows_are_seen_once_in_whatever_order_transactions_end(postgresql: Server) -> None:
    """A number is given out before the commit: a row may appear behind others that a worker has seen."""
    url = postgresql.new(empty=False)
    with closing(store_at(url)) as worker, closing(store_at(url)) as first, closing(store_at(url)) as second:
        insert(worker, transaction_of("t0", -50))
        with worker.writing():
            assert count(worker) == 1  # in memory now
        with first.writing():
            insert(first, transaction_of("t1", -40))  # the lower number, and the later commit
            insert(second, transaction_of("t2", -30, customer_id="6"))
            with worker.writing():
                assert count(worker) == 2
            insert(worker, transaction_of("t3", -20))
            with worker.writing():
                assert count(worker) == 3
        with worker.writing():
            assert count(worker) == 4
        with worker.writing():
            assert count(worker) == 4


def test_an_entity_that_is_read_after_another_commit_is_of_the_snapshot(postgresql: Server) -> None:
    url = postgresql.new(empty=False)
    with closing(store_at(url)) as worker, closing(store_at(url)) as other:
        insert(worker, transaction_of("t0", -50))
        with worker.writing():
            worker.histories(EVENT, {("customer_id",): timedelta(days=5)}, NOON)  # takes the snapshot
            insert(other, transaction_of("t1", -40))
            assert count(worker) == 1, "or the row is added a second time"
        with worker.writing():
            assert count(worker) == 2


def test_a_lock_that_was_waited_for_shows_what_its_holder_wrote(postgresql: Server) -> None:
    url = postgresql.new(empty=False)
    with closing(store_at(url)) as worker, closing(store_at(url)) as other:
        insert(worker, transaction_of("t0", -50))
        with worker.writing():
            assert count(worker) == 1
            insert(other, transaction_of("t1", -40))
            worker.advisory_lock(merchant="M")
            assert count(worker) == 2


def test_rows_of_a_restored_dump_are_not_taken_for_new_ones(postgresql: Server) -> None:
    url = postgresql.new(empty=False)
    with closing(store_at(url)) as worker:
        insert(worker, transaction_of("t0", -50))
        with worker.writing() as connection:  # as numbered by a server that had written more
            connection.execute(text("update transactions set written_in = written_in + 5"))
    with closing(store_at(url)) as restored:
        for number in range(12):
            with restored.writing():
                assert count(restored) == 1 + number
            insert(restored, transaction_of(f"n{number}", -40 + number))


def count(store: Store) -> int:
    """Return the number of the merchant's events."""
    return store.counts(EVENT, {("merchant",): [EventCount(5 * DAY_S)]}, NOON)["merchant",][0]


def test_what_another_worker_changes_or_deletes_is_seen(worker: Store, other: Store, plain: Store, bundle: Bundle) -> None:
    changes = {
        "a label": lambda: feedback.record(other, FeedbackRequest.model_validate({"transaction_id": "t3", "label": True})),
        "a load": lambda: other.load_transactions([transaction_of("t1", -30, is_fraud=False, label_known_at=NOON)]),
        "an erasure": lambda: data_rights.erase(other, "6"),
        "a rewritten file": lambda: backup.wipe(other),
        "more rows": lambda: insert(other, transaction_of("t9", -5)),
    }
    insert(worker, transaction_of("t0", -40, customer_id="6"), transaction_of("t1", -30), transaction_of("t2", -20))
    decide(decisions_of(worker, bundle), [request_of("t3", -5)])
    for name, change in changes.items():
        for step in ("before", "after"):
            expected = read(plain)
            with worker.writing():
                assert read(worker) == expected, f"{step} {name}"
            if step == "before":
                change()


def test_what_retention_deletes_is_forgotten(worker: Store, other: Store) -> None:
    now = from_micros(worker.clock())
    insert(worker, transaction_of("old", occurred_at=now - timedelta(days=150)))
    span: dict[tuple[str, ...], timedelta] = {("customer_id",): timedelta(days=160)}
    with worker.writing():
        assert len(worker.histories(EVENT, span, now)["customer_id",]) == 1
    retention.retain(other, 120)
    with worker.writing():
        assert worker.histories(EVENT, span, now)["customer_id",] == []


def test_the_bound_holds_and_the_least_used_goes_first() -> None:
    recent = RecentEvents(max_events=3 * (ENTITY_WEIGHT + 2))
    for name in "abc":
        recent.put(("person", name), EntityEvents(0, [(5, 1.0, None, None, None, None), (9, 1.0, None, None, None, None)]))
    recent.find(("person", "a"), 1, 10)
    recent.put(("person", "d"), EntityEvents(0))
    assert [recent.find(("person", name), 1, 10)[0] for name in "abcd"] == [True, False, True, True]
    assert recent.weight <= 3 * (ENTITY_WEIGHT + 2)


def test_events_before_the_windows_are_dropped() -> None:
    day = DAY_S * 1_000_000
    recent = RecentEvents()
    begin = recent.begins_at("person", 0, 5 * day)
    recent.put(("person", "a"), EntityEvents(begin, [(at * day, 1.0, None, None, None, None) for at in range(1, 5)]))
    _, events = recent.find(("person", "a"), 15 * day, 20 * day)
    assert events is not None and list(events.times) == []
    assert recent.weight == ENTITY_WEIGHT


# Micro-batches -----------------------------------------------------------------------------------------------------------------


def request_of(name: str, minutes: float, **changes: Any) -> TransactionRequest:
    fields: dict[str, Any] = {
        "user_id": "5",
        "amount": 10.0,
        "timestamp": NOON + timedelta(minutes=minutes),
        "merchant": "M",
        "country": "DE",
    }
    return TransactionRequest(transaction_id=name, **(fields | changes))


def requests_of(n: int, seed: int = 6) -> list[TransactionRequest]:
    draw = random.Random(seed)
    return [
        request_of(
            f"{seed}-{number}",
            number + draw.randint(-30, 0),
            user_id=draw.choice("56789"),
            amount=draw.choice([5.0, 80.5, 900.0, 20_000.0]),
            merchant=draw.choice(["M", "N", "O", None]),
            country=draw.choice(["DE", "FR", None]),
        )
        for number in range(n)
    ]


@pytest.fixture(scope="module")
def bundle(bundles: Mapping[str, Path]) -> Bundle:
    return Bundle.load(bundles["transaction_anomaly"])


def decisions_of(store: Store, bundle: Bundle) -> Decisions:
    return Decisions(store, {"transaction_anomaly": TransactionScorer(bundle, store)})


def decide(decisions: Decisions, requests: list[Any], key: str | None = None) -> list[bytes]:
    """Return the answers to a batch without the decisions' ids."""
    results = asyncio.run(decide_batch(decisions, requests, key))
    assert all(isinstance(result, DecisionResult) for result in results), results
    return [result.body.partition(b",")[2] for result in results if isinstance(result, DecisionResult)]


def test_a_micro_batch_answers_as_one_after_the_other(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    requests, answers, contents = requests_of(400), [], []
    for together in (True, False):
        with monkeypatch.context() as patch, closing(store_at(tmp_path / f"{together}.sqlite")) as store:
            if not together:
                patch.setattr(Decisions, "decide_together", Mock(side_effect=NotTogetherError))
            insert(store, *(transaction_of(f"before-{at}", -at * 60, customer_id="56789"[at % 5]) for at in range(100)))
            answers.append(decide(decisions_of(store, bundle), requests, "key"))
            contents.append(contents_of(store))
            verdict = verify(store.database, store.keyring)
            opened = sum(stored.decision != "allow" for stored in store.decisions())  # each opens an alert, which has a record of its own
            assert (verdict.records, verdict.broken) == (400 + opened, None)
            assert reconcile(store).listed == []
    assert answers[0] == answers[1]
    assert contents[0] == contents[1]


def contents_of(store: Store) -> list[tuple[Any, ...]]:
    """Return the stored requests, answers and rows in the order of writing."""
    contents = []
    for decision in store.decisions():
        assert decision.content is not None
        contents.append((decision.content.request, decision.content.answer, str(decision.content.row)))
    return contents


def test_of_a_micro_batch_with_a_refused_item_the_others_are_decided(url: Path, worker: Store, bundle: Bundle) -> None:
    requests = requests_of(20)
    decide(decisions_of(worker, bundle), requests[:5])
    changed = requests[2].model_copy(update={"amount": 1.0})
    results = asyncio.run(decide_batch(decisions_of(worker, bundle), [*requests, changed], None))
    assert [isinstance(result, DecisionResult) for result in results] == [True] * 20 + [False]
    assert len(list(worker.decisions())) == 20
    with closing(store_at(url)) as fresh:
        assert read(worker) == read(fresh)


def test_a_micro_batch_with_one_identifier_twice_decides_once(worker: Store, bundle: Bundle) -> None:
    (first, second) = decide(decisions_of(worker, bundle), [request_of("t", 1), request_of("t", 1)])
    assert first == second
    assert len(list(worker.decisions())) == 1


def test_a_warm_decision_takes_three_statements(worker: Store, bundle: Bundle) -> None:
    """Three rows are inserted for each: transaction, decision and audit record. All else is once for a micro-batch.

    What opens an alert has two more, the alert and its record. On PostgreSQL the rows of a table are one statement.
    """
    decisions, size = decisions_of(worker, bundle), TRANSACTION_CHUNK_SIZE
    decide(decisions, requests_of(size, seed=1))
    before = count_alerts(worker)
    with statements(worker) as sent:
        decide(decisions, requests_of(size, seed=2))
    opened = count_alerts(worker) - before
    assert len(sent) <= 3 * size + 2 * opened + 20, f"{len(sent)} statements for {size} decisions and {opened} alerts"


def count_alerts(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(alerts)).scalar_one()


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """Collect the statements that a store sends to its database."""
    sent: list[str] = []
    with store.reading() as connection:
        driver: Any = connection.connection.driver_connection
    if store.database.dialect == "sqlite":
        driver.set_trace_callback(sent.append)
        try:
            yield sent
        finally:
            driver.set_trace_callback(None)
        return
    with pytest.MonkeyPatch.context() as patch:
        for name, place in (("execute_simple", 0), ("execute_unnamed", 0), ("execute_named", 4)):
            patch.setattr(driver, name, collect(sent, getattr(driver, name), place))
        yield sent


def collect(sent: list[str], execute: Callable[..., Any], place: int) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        sent.append(arguments[place])
        return execute(*arguments, **options)

    return wrapped
