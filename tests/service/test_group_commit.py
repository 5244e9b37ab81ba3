"""Tests of group commit: requests that arrive at once share one transaction, and each fails or succeeds by itself."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bento.context import Caller, current_caller, idempotency_key, request_id
from bento.decisions.engine import DecisionResult, Decisions
from bento.decisions.group_commit import GroupCommit
from bento.decisions.reconcile import reconcile
from bento.decisions.scorers.transaction import TransactionScorer
from bento.problems import Problem
from bento.store.audit_verify import verify
from bento.store.database import COOLDOWN_S
from bento.store.keyring import KeyringError
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import TransactionRequest
from tests.service.conftest import START
from tests.service.databases import Server, store_at


class Meter:
    """Counts commits."""

    commits = 0

    def observe_commit(self, seconds: float) -> None:
        self.commits += 1

    def count_audit_record(self, action: str) -> None: ...


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def store(store_url: str | Path, meter: Meter):
    with closing(store_at(store_url, meter=meter)) as opened:
        yield opened


@pytest.fixture
def decisions(store: Store, bundles: dict[str, Path]) -> Decisions:
    bundle = Bundle.load(bundles["transaction_anomaly"])
    return Decisions(store, {"transaction_anomaly": TransactionScorer(bundle, store)})


def request(number: int, **more: Any) -> TransactionRequest:
    body = {"transaction_id": f"t{number}", "user_id": number % 3, "amount": 10.0 + number, "merchant": "m"}
    body |= {"timestamp": (START + timedelta(seconds=number)).isoformat()} | more
    return TransactionRequest.model_validate_json(json.dumps(body))


def all_at_once(decisions: Decisions, requests: list[TransactionRequest], key: str | None = None) -> list[DecisionResult | Exception]:
    """Return the results of requests that arrive together, each from its own caller."""

    group_commit = GroupCommit(decisions)

    async def submit(number: int, request: TransactionRequest) -> DecisionResult:
        current_caller.set(Caller(f"key:{number}", frozenset({"scorer"})))
        request_id.set(f"r{number}")
        idempotency_key.set(key)
        return await group_commit.submit("transaction_anomaly", request)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(submit(number, request) for number, request in enumerate(requests)), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_they_share_a_commit_and_each_is_answered_and_recorded_for_its_caller(decisions: Decisions, store: Store, meter: Meter) -> None:
    results = all_at_once(decisions, [request(number) for number in range(40)])

    assert all(isinstance(result, DecisionResult) for result in results)
    assert meter.commits == 3, "of 16, 16 and 8"
    assert [(stored.caller, stored.request_id) for stored in store.decisions()] == [(f"key:{number}", f"r{number}") for number in range(40)]
    opened = sum(stored.decision != "allow" for stored in store.decisions())  # each opens an alert, which has a record of its own
    assert verify(store.database, store.keyring).records == 40 + opened
    assert reconcile(store).listed == []


def test_the_transactions_of_a_group_are_decided_together(decisions: Decisions, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("decided by itself")

    monkeypatch.setattr(decisions, "decide_in_savepoint", fail)
    results = all_at_once(decisions, [request(number) for number in range(16)])

    assert all(isinstance(result, DecisionResult) for result in results)
    assert len(list(store.decisions())) == 16


def test_two_callers_of_a_group_may_send_the_same_idempotency_key(decisions: Decisions, store: Store) -> None:
    first = all_at_once(decisions, [request(number) for number in range(3)], key="k")
    again = all_at_once(decisions, [request(number) for number in range(3)], key="k")

    assert [result.body for result in again] == [result.body for result in first]  # type: ignore[union-attr]
    assert len(list(store.decisions())) == 3


def test_requests_of_adjacent_turns_share_a_commit(decisions: Decisions, meter: Meter) -> None:
    group_commit = GroupCommit(decisions)

    async def submit(number: int) -> DecisionResult:
        for _ in range(number):  # the layers that a request passes take one turn more or less
            await asyncio.sleep(0)
        return await group_commit.submit("transaction_anomaly", request(number))

    async def all_of_them() -> list[DecisionResult]:
        return await asyncio.gather(*(submit(number) for number in range(8)))

    assert len(asyncio.run(all_of_them())) == 8
    assert meter.commits == 1


def test_requests_are_grouped_again_after_a_time_with_one_client(decisions: Decisions, meter: Meter) -> None:
    group_commit = GroupCommit(decisions)

    async def submit(number: int) -> DecisionResult:
        return await group_commit.submit("transaction_anomaly", request(number))

    async def one_and_then_several() -> list[DecisionResult]:
        for number in range(3):
            await submit(number)
        first = asyncio.create_task(submit(3))
        await asyncio.sleep(0)
        others = [asyncio.create_task(submit(number)) for number in range(4, 8)]  # they come while the first is decided
        await asyncio.gather(first, *others)
        return await asyncio.gather(*(submit(number) for number in range(8, 16)))

    asyncio.run(one_and_then_several())
    assert meter.commits <= 3 + 2 + 1


def test_workers_wait_for_each_other_at_a_customer_and_not_at_a_merchant(postgresql: Server, bundles: dict[str, Path]) -> None:
    url, bundle = postgresql.new(empty=False), Bundle.load(bundles["transaction_anomaly"])
    with closing(store_at(url, wait_s=0.2)) as first, closing(store_at(url, wait_s=0.2)) as second:
        here, there = (Decisions(store, {"transaction_anomaly": TransactionScorer(bundle, store)}) for store in (first, second))
        with first.writing():
            here.decide("transaction_anomaly", request(0, user_id=1))
            there.decide("transaction_anomaly", request(1, user_id=2))
            with pytest.raises(Problem) as refused:
                there.decide("transaction_anomaly", request(2, user_id=1))
        assert refused.value.status == 503


def test_a_decision_counts_what_other_workers_committed_at_its_merchant(postgresql: Server, bundles: dict[str, Path]) -> None:
    url, bundle = postgresql.new(empty=False), Bundle.load(bundles["transaction_anomaly"])
    with closing(store_at(url)) as first, closing(store_at(url)) as second:
        workers = [Decisions(store, {"transaction_anomaly": TransactionScorer(bundle, store)}) for store in (first, second)]
        for number in range(12):
            all_at_once(workers[number % 2], [request(10 * number + place, user_id=f"{number}-{place}") for place in range(3)])
        for store in (first, second):
            with store.writing():
                events = store.histories({"merchant": "m"}, {("merchant",): timedelta(days=1)}, START + timedelta(hours=1))
            assert len(events["merchant",]) == 36


def test_they_are_answered_as_one_after_the_other(tmp_path: Path, bundles: dict[str, Path], decisions: Decisions) -> None:
    together = all_at_once(decisions, [request(number) for number in range(10)])
    with closing(store_at(tmp_path / "other.sqlite")) as other:
        bundle = decisions.scorer("transaction_anomaly").bundle
        alone = Decisions(other, {"transaction_anomaly": TransactionScorer(bundle, other)})
        one_by_one = [alone.decide("transaction_anomaly", request(number)) for number in range(10)]

    assert [result.answer for result in together if isinstance(result, DecisionResult)] == [result.answer for result in one_by_one]


def test_one_that_is_refused_leaves_nothing_and_the_others_stand(decisions: Decisions, store: Store) -> None:
    results = all_at_once(decisions, [request(0), request(0, amount=99.0), request(1), request(0)])

    assert [isinstance(result, DecisionResult) for result in results] == [True, False, True, True]
    assert isinstance(results[1], Problem) and results[1].status == 409
    assert results[0].body == results[3].body, "sent twice, it is decided once"  # type: ignore[union-attr]
    assert len(list(store.decisions())) == 2
    assert verify(store.database, store.keyring).records == 2


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, 500), (KeyringError, 503)])
def test_a_failure_of_ours_is_that_request_s_alone(
    decisions: Decisions, store: Store, monkeypatch: pytest.MonkeyPatch, error: type[Exception], status: int
) -> None:
    scorer = decisions.scorer("transaction_anomaly")
    build_answer = scorer.build_answer

    def failing(scoring_input: Any, scores: Any) -> Any:
        if scoring_input.request.transaction_id == "t1":
            raise error
        return build_answer(scoring_input, scores)

    monkeypatch.setattr(scorer, "build_answer", failing)
    results = all_at_once(decisions, [request(number) for number in range(3)])

    assert isinstance(results[1], Problem) and results[1].status == status
    assert isinstance(results[0], DecisionResult) and isinstance(results[2], DecisionResult)
    assert [len(store.history({"customer_id": str(customer)}, START - timedelta(1), START + timedelta(1))) for customer in range(3)] == [
        1,
        0,
        1,
    ]


def test_the_failure_of_a_group_is_logged_under_the_id_of_each_request(
    decisions: Decisions, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(store, "insert_decisions", fail)
    all_at_once(decisions, [request(number) for number in range(3)])

    logged = [record.getMessage() for record in caplog.records]
    assert all(any(f"request r{number} failed with StoreUnavailable" in line for line in logged) for number in range(3)), logged


def test_where_the_store_fails_none_of_them_happened(decisions: Decisions, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = store.insert_decisions

    def full(results: Any) -> None:
        keep(results)
        if any(result.transaction_id == "t1" for result in results):
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(store, "insert_decisions", full)
        results = all_at_once(decisions, [request(number) for number in range(3)])
    assert [isinstance(result, Problem) and result.status for result in results] == [503] * 3

    time.sleep(COOLDOWN_S)
    assert list(store.decisions()) == []
    assert all(isinstance(result, DecisionResult) for result in all_at_once(decisions, [request(number) for number in range(3)]))
    assert verify(store.database, store.keyring).records == 3
