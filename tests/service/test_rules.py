"""Tests of the policy's rules in the service: one decision with both kinds of reasons, equal by every route, in batch and in replay."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest

from bento.context import idempotency_key
from bento.decisions.batch import decide_batch
from bento.decisions.bundle_versions import BundleVersions
from bento.decisions.replay import replay
from bento.store.keyring import seal, unseal
from bento.store.session import Store
from bento.store.tables import decisions, people
from finrisk_assets.domains.transaction_anomaly.ledger_rules import escalate_all, evaluate_rules, name_fired
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import default_policy
from schemas.api import TransactionRequest
from tests.service.conftest import START, Serving, write_transaction_bundle
from tests.service.test_record_tiers import Desk

RULES: Sequence[dict[str, Any]] = (
    {"name": "limit", "kind": "amount_limit", "enabled": True, "action": "review", "from_amount": 400},
    {"name": "burst", "kind": "velocity", "enabled": True, "action": "review", "within_hours": 6, "max_transactions": 3, "max_amount": 700},
    {"name": "blocked", "kind": "country", "enabled": True, "action": "block", "countries": ["KP"]},
    {"name": "listed", "kind": "merchant", "enabled": True, "action": "review", "merchants": ["m7"]},
    {"name": "new", "kind": "new_country", "enabled": True, "action": "review", "within_days": 5, "min_transactions": 3},
    {"name": "travel", "kind": "impossible_travel", "enabled": True, "action": "block", "within_hours": 9, "max_kmh": 900, "min_km": 500},
    {"name": "off", "kind": "amount_limit", "enabled": False, "action": "block", "from_amount": 0},
)


def policy_of(rules: Sequence[dict[str, Any]] = RULES) -> Policy:
    content = default_policy().model_dump(mode="json")
    content["transaction_anomaly"]["rules"] = list(rules)
    return Policy.model_validate(content)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"transaction_anomaly": write_transaction_bundle(tmp_path_factory.mktemp("ruled") / "bundle")}


def ledger(n: int = 300) -> pd.DataFrame:
    """Return transactions in the order of time, of a few customers in a few countries."""
    rng = np.random.default_rng(11)
    minutes = np.sort(rng.integers(0, 60 * 24 * 12, n))
    return pd.DataFrame(
        {
            "transaction_id": [f"t{number}" for number in range(n)],
            "customer_id": rng.choice([f"c{number}" for number in range(5)], n),
            "occurred_at": [START + timedelta(minutes=int(minute)) for minute in minutes],
            "amount": np.round(rng.gamma(2, 60, n), 2),
            "direction": rng.choice(["debit", "credit"], n, p=[0.9, 0.1]),
            "merchant": rng.choice([f"m{number}" for number in range(12)], n),
            "country": rng.choice(["AT", "DE", "SG", "KP"], n, p=[0.7, 0.2, 0.08, 0.02]),
        }
    )


def requests_of(frame: pd.DataFrame) -> list[TransactionRequest]:
    return [
        TransactionRequest(
            transaction_id=row.transaction_id, user_id=row.customer_id, timestamp=row.occurred_at.to_pydatetime(), amount=row.amount,
            direction=row.direction, merchant=row.merchant, country=row.country,
        )
        for row in frame.itertuples()
    ]  # fmt: skip


def test_one_by_one_in_a_batch_over_the_ledger_and_in_replay_the_decision_is_the_same(store: Store, folders: dict[str, Path]) -> None:
    frame, policy = ledger(), policy_of()
    requests = requests_of(frame)
    desk = Desk(store, folders, policy)
    half = len(requests) // 2
    one_by_one = [json.loads(desk.decide(request).body) for request in requests[:half]]
    batch = asyncio.run(decide_batch(desk.decisions, requests[half:], None))
    answers = [*one_by_one, *(json.loads(result.body) for result in batch)]  # type: ignore[union-attr]

    evaluated = evaluate_rules(ibis.memtable(frame), policy.transaction_anomaly.rules[:-1], START, START + timedelta(days=30))
    names = dict(zip(evaluated.transaction_id, name_fired(evaluated.fired, len(frame)), strict=True))
    assert [" ".join(rule["name"] for rule in answer["rules"]) or None for answer in answers] == [
        names[one] for one in frame.transaction_id
    ]
    assert all(is_fired.sum() >= 2 for is_fired in evaluated.fired.values())

    # The model alone decides as under a policy without rules; the rules make some decisions stricter and none milder.
    alone = Desk(store, folders, policy_of(())).decisions.scorer("transaction_anomaly").bundle
    assert alone.thresholds == desk.bundles["transaction_anomaly"].thresholds
    by_model = [
        "block" if risk >= alone.thresholds["block"] else "review" if risk >= alone.thresholds["review"] else "allow"
        for risk in (answer["risk_score"] for answer in answers)
    ]
    decided = escalate_all(by_model, [names[one] for one in frame.transaction_id], policy.transaction_anomaly.rules)  # type: ignore[arg-type]
    assert [answer["decision"] for answer in answers] == decided and decided != by_model

    report = replay(store, BundleVersions(store=store))
    assert (report.equal, report.agrees) == (len(requests), True), report.differences


def test_a_replay_finds_what_was_changed_of_a_rule(store: Store, folders: dict[str, Path]) -> None:
    desk = Desk(store, folders, policy_of())
    moment = START.isoformat()
    for number in range(5):
        desk.decide(TransactionRequest(user_id="5", amount=20.0, timestamp=moment, transaction_id=f"t{number}"))
    desk.decide(TransactionRequest(user_id="5", amount=20.0, timestamp=(START + timedelta(hours=1)).isoformat(), transaction_id="last"))
    with store.writing() as connection:
        row = connection.execute(decisions.select().order_by(decisions.c.position.desc()).limit(1)).one()
        person = connection.execute(people.select().where(people.c.person == row.person)).one()
        key = store.data_key(person.person, person.lookup, person.wrapped_key)
        plain = unseal(key, row.sealed, row.id.encode())
        assert b'"burst":{"n":6,"cents":12000}' in plain
        for was, becomes, path in (
            (b'"burst":{"n":6,', b'"burst":{"n":7,', "rules[0].text"),
            (b'"burst":{"n":6,', b'"burst":{"n":2,', "decision"),
        ):
            sealed = seal(key, plain.replace(was, becomes), row.id.encode())
            connection.execute(decisions.update().where(decisions.c.id == row.id).values(sealed=sealed))
            report = replay(store, BundleVersions(store=store))
            assert (report.different, report.equal) == (1, 5)
            assert report.differences[0].reason.startswith(path), report.differences


def test_a_policy_without_enabled_rules_answers_byte_for_byte_as_one_without_rules(store: Store, folders: dict[str, Path]) -> None:
    request = TransactionRequest(user_id="5", amount=900.0, timestamp=START.isoformat(), transaction_id="one")
    bodies = []
    for rules in ((), RULES[-1:]):
        policy = policy_of(rules)
        scorer = Desk(store, folders, policy).decisions.scorer("transaction_anomaly")
        answer = scorer.answer(request).model_dump_json().replace(policy.version, "")
        assert scorer.prepare(request).decision_context is None
        bodies.append(answer)
    assert bodies[0] == bodies[1] and '"rules"' not in bodies[0]


def test_a_rules_review_is_told_by_the_rule_and_not_by_the_models_reasons(store: Store, folders: dict[str, Path]) -> None:
    desk = Desk(store, folders, policy_of(RULES[3:4]))
    for merchant in ("m7", "m8"):
        request = TransactionRequest(user_id="5", amount=1.0, timestamp=START.isoformat(), merchant=merchant, transaction_id=merchant)
        answer = json.loads(desk.decide(request).body)
        assert answer["risk_score"] < 0.5 and not answer["anomaly"]
        if merchant == "m7":
            assert answer["decision"] == "review"
            assert answer["rules"] == [{"name": "listed", "action": "review", "text": "The merchant is one of those of this rule"}]
            reasons = [(reason["code"], reason["text"]) for reason in answer["reasons"]]
        else:
            assert (answer["decision"], answer["rules"]) == ("allow", [])
            assert [(reason["code"], reason["text"]) for reason in answer["reasons"]] == reasons  # still why the score is low


def test_a_repeated_transaction_gets_its_answer_and_its_rules_again(store: Store, folders: dict[str, Path]) -> None:
    desk = Desk(store, folders, policy_of())
    request = TransactionRequest(user_id="5", amount=900.0, timestamp=START.isoformat(), transaction_id="one")
    first = desk.decide(request)
    assert json.loads(first.body)["rules"][0]["text"] == "The amount of 900.00 reaches the limit of 400.00"
    assert desk.decide(request).body == first.body
    quiet = TransactionRequest(user_id="6", amount=1.0, timestamp=START.isoformat(), transaction_id="two")
    allowed = desk.decide(quiet)
    assert allowed.answer.decision == "allow" and json.loads(allowed.body)["rules"] == []
    assert desk.decide(quiet).body == allowed.body  # rebuilt from an abridged record
    assert idempotency_key.get() is None


def test_the_service_decides_under_the_rules_of_its_policy(
    serving: Serving, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transaction: Any
) -> None:
    import yaml

    file = tmp_path / "ruled.yaml"
    file.write_text(yaml.safe_dump(policy_of().model_dump(mode="json")))
    monkeypatch.setenv("FINRISK_POLICY", str(file))
    with serving(folders) as client:
        alone = client.post("/v1/transactions", json=transaction(0, amount=20.0, country="KP")).json()
        items = [transaction(minutes, amount=20.0, country="KP") for minutes in (1, 2, 3)]
        results = client.post("/v1/transactions/batch", json={"items": items}).json()["results"]
    assert (alone["decision"], [rule["name"] for rule in alone["rules"]]) == ("block", ["blocked"])
    assert [[rule["name"] for rule in result["answer"]["rules"]] for result in results] == [["blocked"], ["blocked"], ["burst", "blocked"]]
