"""Tests of chunks: transactions that are decided together get what each gets alone, by HTTP and by the stream, to the last byte."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bento.decisions.batch import decide_batch
from bento.decisions.engine import ChunkItem, DecisionResult, Decisions
from bento.decisions.models import Champions
from bento.decisions.scorers.transaction_features import TransactionFeatures
from bento.store.audit_verify import verify
from bento.store.records import RequestOrigin, Transaction
from bento.store.session import Store
from bento.stream.micro_batch import decide_micro_batch
from bento.stream.offsets import PartitionPlace
from finrisk_assets.domains.transaction_anomaly.features import FEATURES
from finrisk_assets.features import online_chunk
from finrisk_assets.features.recent_events import RecentEvents
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import TransactionRequest
from tests.service.conftest import START, write_transaction_bundle
from tests.service.databases import store_at
from tests.service.test_rules import policy_of

DOMAIN = "transaction_anomaly"
AMOUNTS = (0.0, 0.005, 12.5, 80.0, 80.0, 333.33, 1e9, 1e12)


def draw_transactions(number: int, seed: int, prefix: str = "t", *, is_labelled: bool = False) -> list[Transaction]:
    """Return transactions of few customers and merchants: in order mostly, with equal times, late ones, leaps, some without a merchant."""
    rng, at, drawn = random.Random(seed), START, list[Transaction]()
    for place in range(number):
        at += timedelta(seconds=rng.choice([0, 0, 1, 40, 4_000, 90_000]))
        moment = at - timedelta(seconds=rng.choice([0] * 9 + [3_600, 86_400, 8 * 86_400]))
        is_fraud = is_labelled and rng.random() < 0.3
        drawn.append(
            Transaction(
                f"{prefix}{place}",
                f"c{rng.randrange(6)}",
                moment,
                rng.choice(AMOUNTS) if rng.random() < 0.5 else round(rng.expovariate(0.01), 2),
                rng.choice(["debit", "debit", "credit"]),
                rng.choice([None, *(f"m{n}" for n in range(4))]),
                rng.choice([None, "AT", "DE", "SG", "KP"]),
                is_fraud,
                moment + timedelta(days=rng.randrange(9)) if is_fraud else None,
            )
        )
    return drawn


def compute_rows(store: Store, transactions: Sequence[Transaction], size: int) -> np.ndarray:
    """Return the rows of transactions that are added in chunks of a size, as decisions add them; of 1, one after the other."""
    features, rows = TransactionFeatures(FEATURES), []
    for first in range(0, len(transactions), size):
        chunk = transactions[first : first + size]
        with store.writing():
            store.remember_people(each.customer_id for each in chunk)

            def add(place: int, chunk: Sequence[Transaction] = chunk) -> None:
                person = store.person(chunk[place].customer_id, make=True)
                assert person is not None
                store.queue_transaction(chunk[place], person)

            if size == 1:
                rows.append(features.row(chunk[0], store)[None, :])
                add(0)
            else:
                rows.append(features.rows(chunk, store, add))
            store.insert_queued()
    return np.concatenate(rows)


@pytest.mark.parametrize("max_events", [None, 400, 40])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rows_of_chunks_are_those_of_one_by_one(tmp_path: Path, seed: int, max_events: int | None) -> None:
    ledger, sent = draw_transactions(60, seed + 10, "l", is_labelled=True), draw_transactions(150, seed)
    rows = []
    for size in (1, 37):
        with closing(store_at(tmp_path / f"{size}.sqlite")) as store:
            store.load_transactions(ledger)
            if max_events is not None:
                store.recent_events = RecentEvents(max_events)
            rows.append(compute_rows(store, sent, size))
    assert rows[0].dtype == rows[1].dtype == np.float32
    assert rows[0].tobytes() == rows[1].tobytes()


def test_a_chunk_is_computed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call computes all where nothing goes back in time; where it does, the chunk is parted there."""
    numbers: list[int] = []
    compute = online_chunk.ChunkFeatures.compute_chunk

    def note(self: Any, events: Any, held: Any) -> Any:
        numbers.append(len(events))
        return compute(self, events, held)

    monkeypatch.setattr(online_chunk.ChunkFeatures, "compute_chunk", note)
    in_order = [Transaction(f"t{n}", "c", START + timedelta(minutes=n), 5.0, "debit", "m") for n in range(10)]
    with closing(store_at(tmp_path / "store.sqlite")) as store:
        compute_rows(store, in_order, 10)
        late = [each._replace(transaction_id=f"late-{each.transaction_id}") for each in [*in_order[5:], *in_order[:5]]]
        compute_rows(store, late, 10)
    assert numbers == [10, 5, 5]


def test_a_window_edge_of_chunks_off_by_one_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = online_chunk._JoinedEvents
    sent = draw_transactions(40, 4)
    with closing(store_at(tmp_path / "right.sqlite")) as store:
        right = compute_rows(store, sent, 20)
    monkeypatch.setattr(online_chunk, "_JoinedEvents", lambda events, at, instants: joined(events, at + 1, instants))
    with closing(store_at(tmp_path / "wrong.sqlite")) as store:
        assert compute_rows(store, sent, 20).tobytes() != right.tobytes()


def to_requests(transactions: Sequence[Transaction]) -> list[TransactionRequest]:
    return [
        TransactionRequest(
            transaction_id=each.transaction_id, user_id=each.customer_id, timestamp=each.occurred_at, amount=each.amount,
            direction=each.direction, merchant=each.merchant, country=each.country,
        )
        for each in transactions
    ]  # fmt: skip


def decide_all(way: str, decisions: Decisions, requests: Sequence[TransactionRequest]) -> list[DecisionResult]:
    if way == "one by one":
        return [decisions.decide(DOMAIN, request) for request in requests]
    if way == "batch":
        return asyncio.run(decide_batch(decisions, requests, None))  # type: ignore[return-value]
    items = [ChunkItem(request, None, RequestOrigin.current()) for request in requests]
    return decide_micro_batch(decisions, decisions.scorer(DOMAIN), items, [PartitionPlace("t", 0, len(items), 0)])  # type: ignore[return-value]


@pytest.mark.parametrize("has_rules", [False, True])
def test_every_way_stores_and_answers_the_same(tmp_path: Path, has_rules: bool) -> None:
    folder = write_transaction_bundle(tmp_path / "bundle")
    bundle = Bundle.load(folder).under(policy_of() if has_rules else policy_of([]))
    requests = to_requests(draw_transactions(120, 9))
    found = []
    for way in ("one by one", "batch", "stream"):
        with closing(store_at(tmp_path / f"{way}.sqlite")) as store:
            champions = Champions({DOMAIN: bundle}, "simulator", {}, {}, {}, policy=bundle.policy, folders={DOMAIN: folder})
            decisions = Decisions.of(champions, store, tmp_path)
            results = decide_all(way, decisions, requests)
            stored = list(store.decisions())
            assert verify(store.database, store.keyring).broken is None
            with store.reading() as connection:
                audit = connection.exec_driver_sql(
                    "select audit.action, audit.domain, audit.model_version, alerts.outcome, alerts.expected_loss from audit "
                    "left join alerts on alerts.decision = audit.inputs where audit.action in ('decide', 'alert.open') order by number"
                ).all()
            found.append(
                (
                    [result.body.replace(result.decision_id.encode(), b"") for result in results],
                    [result.answer.model_dump_json() for result in results],
                    [(d.domain, d.route, d.model_version, d.policy_version, d.caller, d.probability, d.decision) for d in stored],
                    [(d.content.request, d.content.answer, d.content.decision_context, d.content.abridged) for d in stored if d.content],
                    [d.content.row.tobytes() for d in stored if d.content],
                    sorted(map(tuple, audit), key=str),
                )
            )
    assert found[0] == found[1]
    assert found[0] == found[2]
    # The small model alone reviews none of these.
    assert {decision for *_, decision in found[0][2]} >= ({"allow", "review"} if has_rules else {"allow"})
