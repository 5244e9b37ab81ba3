"""Requests that arrive at the same moment: one transaction of the store, and yet each is alone."""

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bento.context import Caller, current
from bento.decisions.engine import DecisionResult, Decisions
from bento.decisions.group_commit import GroupCommit
from bento.decisions.scorers.transaction import TransactionScorer
from bento.problems import Problem
from bento.store.audit_verify import verify
from bento.store.database import COOLDOWN_S
from bento.store.keyring import KeyringError
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import TransactionRequest
from tests.service.conftest import START
from tests.service.databases import store_at


class Meter:
    """Counts commits."""

    commits = 0

    def committed(self, seconds: float) -> None:
        self.commits += 1

    def audited(self, action: str) -> None: ...


@pytest.fixture
def meter() -> Meter:
    return Meter()


@pytest.fixture
def store(tmp_path: Path, meter: Meter):
    with closing(store_at(tmp_path / "store.sqlite", meter=meter)) as opened:
        yield opened


@pytest.fixture
def decisions(store: Store, bundles: dict[str, Path]) -> Decisions:
    bundle = Bundle.load(bundles["transaction_anomaly"])
    return Decisions(store, {"transaction_anomaly": TransactionScorer(bundle, store)})


def request(number: int, **more: Any) -> TransactionRequest:
    body = {"transaction_id": f"t{number}", "user_id": number % 3, "amount": 10.0 + number, "merchant": "m"}
    body |= {"timestamp": (START + timedelta(seconds=number)).isoformat()} | more
    return TransactionRequest.model_validate_json(json.dumps(body))


def all_at_once(decisions: Decisions, requests: list[TransactionRequest]) -> list[DecisionResult | Exception]:
    """What came of requests that arrive together, each from a caller of its own."""

    group_commit = GroupCommit(decisions)

    async def one(number: int, asked: TransactionRequest) -> DecisionResult:
        current.set(Caller(f"key:{number}", frozenset({"scorer"})))
        return await group_commit.submit("transaction_anomaly", asked)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(one(number, asked) for number, asked in enumerate(requests)), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_they_share_a_commit_and_each_is_answered_and_recorded_for_its_caller(decisions: Decisions, store: Store, meter: Meter) -> None:
    made = all_at_once(decisions, [request(number) for number in range(40)])

    assert all(isinstance(one, DecisionResult) for one in made)
    assert meter.commits == 3, "of 16, 16 and 8"
    assert [one.caller for one in store.decisions()] == [f"key:{number}" for number in range(40)]
    assert verify(store.database, store.keyring).records == 40


def test_they_are_answered_as_one_after_the_other(tmp_path: Path, bundles: dict[str, Path], decisions: Decisions) -> None:
    together = all_at_once(decisions, [request(number) for number in range(10)])
    with closing(store_at(tmp_path / "other.sqlite")) as other:
        bundle = decisions.scorer("transaction_anomaly").bundle
        alone = Decisions(other, {"transaction_anomaly": TransactionScorer(bundle, other)})
        one_by_one = [alone.decide("transaction_anomaly", request(number)) for number in range(10)]

    assert [one.answer for one in together if isinstance(one, DecisionResult)] == [one.answer for one in one_by_one]


def test_one_that_is_refused_leaves_nothing_and_the_others_stand(decisions: Decisions, store: Store) -> None:
    made = all_at_once(decisions, [request(0), request(0, amount=99.0), request(1), request(0)])

    assert [isinstance(one, DecisionResult) for one in made] == [True, False, True, True]
    assert isinstance(made[1], Problem) and made[1].status == 409
    assert made[0].body == made[3].body, "sent twice, it is decided once"  # type: ignore[union-attr]
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
    made = all_at_once(decisions, [request(number) for number in range(3)])

    assert isinstance(made[1], Problem) and made[1].status == status
    assert isinstance(made[0], DecisionResult) and isinstance(made[2], DecisionResult)
    assert [len(store.history({"customer_id": str(who)}, START - timedelta(1), START + timedelta(1))) for who in range(3)] == [1, 0, 1]


def test_where_the_store_fails_none_of_them_happened(decisions: Decisions, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    keep = store.insert_decisions

    def full(made: Any) -> None:
        keep(made)
        if made[0].transaction_id == "t1":
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(store, "insert_decisions", full)
        made = all_at_once(decisions, [request(number) for number in range(3)])
    assert [isinstance(one, Problem) and one.status for one in made] == [503] * 3

    time.sleep(COOLDOWN_S)
    assert list(store.decisions()) == []
    assert all(isinstance(one, DecisionResult) for one in all_at_once(decisions, [request(number) for number in range(3)]))
    assert verify(store.database, store.keyring).records == 3
