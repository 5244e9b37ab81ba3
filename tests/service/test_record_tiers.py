"""Tests of the two tiers of a decision's record: what is stored of which decision, and that the rest is rebuilt byte for byte."""

import asyncio
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update

from bento.context import idempotency_key
from bento.decisions.batch import decide_batch
from bento.decisions.bundle_versions import BundleVersions, archive_bundles, archive_policy
from bento.decisions.domains import DOMAINS, domain_of, outcome_of
from bento.decisions.engine import DecisionResult, Decisions
from bento.decisions.feedback import list_labels, record
from bento.decisions.reconcile import reconcile
from bento.decisions.record_tiers import IN_FAVOUR, AnswerRebuilder, keeps_full_answer
from bento.decisions.replay import ReplayReport, replay
from bento.people import data_rights
from bento.problems import Problem
from bento.store import decisions as stored_decisions
from bento.store.database import StoreBusy, StoreUnavailable
from bento.store.keyring import KeyringError, seal, unseal
from bento.store.session import Store, open_store
from bento.store.tables import bundles as bundle_copies
from bento.store.tables import decisions
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from schemas.api import CashflowRequest, FeedbackRequest, LoanRequest, OfferRequest, Request, SpendingRequest, TransactionRequest
from tests.service.conftest import START, write_transaction_bundle
from tests.service.databases import store_at
from tests.service.envelopes import read_error
from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS, SNAPSHOTS, SPENDING_ROW, snapshot_of
from tests.service.test_replay import requests

EIGHT = dict(zip(SpendingRequest.behaviour_fields().values(), map(float, EIGHT_FIELDS.values()), strict=True))
GOOD_LOAN = {
    "loan_amount": 3000.0,
    "term_months": 12.0,
    "balance_mean_30d": 9000.0,
    "is_urban": 1.0,
    "instalment_to_usual_income": 0.05,
}
CASES: dict[str, tuple[Request, Request]] = {
    "transaction_anomaly": (
        TransactionRequest(transaction_id="t-good", user_id="5", amount=3.0, timestamp=START, merchant="1"),
        TransactionRequest(transaction_id="t-bad", user_id="6", amount=1e9, timestamp=START, merchant="2"),
    ),
    "loan_default": (
        LoanRequest(loan_id="L1", features=GOOD_LOAN),
        LoanRequest(customer_id="123", loan_amount=50_000),
    ),
    "spending_risk": (SpendingRequest(customer_id="5"), SpendingRequest(customer_id="123")),
    "spending_risk_eight": (
        SpendingRequest(**EIGHT),
        SpendingRequest(**EIGHT | {name: 60.0 for name in EIGHT if "low" in name.lower()}),
    ),
    "cashflow": (
        CashflowRequest(features=CASHFLOW_ROW | {"net_flow_30d": 900.0}),
        CashflowRequest(account_id="A7"),
    ),
    "loan_offers": (
        OfferRequest(customer_id="123"),
        OfferRequest(customer_id="123", loan_amount=5000, term_months=24, pd=0.9),
    ),
}
"""Domain -> a request whose decision is in favour of the person, and one whose decision is against them."""
CUSTOMERS = (*SNAPSHOTS, snapshot_of("spending_risk", "5", {name: 0.1 for name in SPENDING_ROW}))


class Desk:
    """The decisions of a worker on a store, with a copy of every bundle and of the policy."""

    def __init__(self, store: Store, folders: dict[str, Path], policy: Policy | None = None) -> None:
        self.store = store
        policy = policy or default_policy()
        archive_policy(store, policy)
        self.bundles = {domain: Bundle.load(folder).under(policy) for domain, folder in folders.items()}
        self.archived = archive_bundles(store, {(domain, self.bundles[domain].version): folder for domain, folder in folders.items()})
        scorers = {domain: DOMAINS[domain].scorer(bundle, store) for domain, bundle in self.bundles.items()}
        self.decisions = Decisions(store, scorers, archived=self.archived)

    def decide(self, request: Request, key: str | None = None) -> DecisionResult:
        token = idempotency_key.set(key)
        try:
            return self.decisions.decide(domain_of(request), request)
        finally:
            idempotency_key.reset(token)  # it would be every later test's


@pytest.fixture(scope="module")
def bundles(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folder of each domain's bundle; that of transactions reviews by worth and what it has not seen."""
    folder = tmp_path_factory.mktemp("unseen") / "transaction_anomaly"
    return bundles | {"transaction_anomaly": write_transaction_bundle(folder, largest_log_amount=9.0, review_loss=5.0)}


@pytest.fixture
def desk(store: Store, bundles: dict[str, Path]) -> Desk:
    store.replace_snapshots(CUSTOMERS)
    return Desk(store, bundles)


@pytest.fixture
def newer_bundles(bundles: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Return the bundles with another version of every domain, which answers otherwise."""
    newer = {}
    for domain, folder in bundles.items():
        newer[domain] = tmp_path / "newer" / domain
        shutil.copytree(folder, newer[domain])
        manifest = newer[domain] / "bundle.json"
        manifest.chmod(0o644)
        manifest.write_text(manifest.read_text().replace('"seed": 1', '"seed": 2'))
    return newer


def payloads(store: Store) -> list[Any]:
    return [decision.content for decision in store.decisions()]


def test_every_domain_has_its_rule() -> None:
    assert IN_FAVOUR.keys() == DOMAINS.keys()


@pytest.mark.parametrize("domain", CASES)
def test_an_answer_in_favour_of_the_person_is_rebuilt_and_every_other_is_stored(desk: Desk, domain: str) -> None:
    answers = [desk.decide(request).answer for request in CASES[domain]]

    assert [outcome_of(domain, answer)[1] in IN_FAVOUR[domain] for answer in answers] == [True, False]
    abridged, full = payloads(desk.store)
    assert (abridged.answer, full.abridged) == (None, None)
    assert full.answer == answers[1].model_dump(mode="json")
    assert abridged.abridged[:2] == (answers[0].score, outcome_of(domain, answers[0])[0])


def test_a_flagged_transaction_keeps_its_answer_although_it_is_allowed(store: Store, tmp_path: Path) -> None:
    desk = Desk(store, {"transaction_anomaly": write_transaction_bundle(tmp_path / "bundle", anomaly=0.0, review=0.99)})
    answer = desk.decide(CASES["transaction_anomaly"][0]).answer

    assert (answer.decision, answer.anomaly, keeps_full_answer("transaction_anomaly", answer)) == ("allow", True, True)
    assert payloads(store)[0].answer is not None


def test_without_a_copy_of_the_bundle_every_answer_is_stored(store: Store, bundles: dict[str, Path]) -> None:
    scorer = DOMAINS["loan_default"].scorer(Bundle.load(bundles["loan_default"]), store)
    Decisions(store, {"loan_default": scorer}).decide("loan_default", CASES["loan_default"][0])
    assert payloads(store)[0].answer is not None


def test_where_the_bundle_cannot_be_copied_the_service_starts_and_stores_every_answer(
    store: Store, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(store, "writing", refuse)
        desk = Desk(store, bundles)
    assert desk.archived == frozenset()
    desk.decide(CASES["loan_default"][0])
    assert payloads(store)[0].answer is not None


@pytest.mark.parametrize("domain", CASES)
def test_a_repeated_request_gets_the_same_bytes_after_a_restart_and_after_a_promotion(
    store_url: str | Path, bundles: dict[str, Path], newer_bundles: dict[str, Path], domain: str
) -> None:
    with closing(store_at(store_url)) as store:
        store.replace_snapshots(CUSTOMERS)
        desk = Desk(store, bundles)
        first = [desk.decide(request, f"k{at}").body for at, request in enumerate(CASES[domain])]
        assert [desk.decide(request, f"k{at}").body for at, request in enumerate(CASES[domain])] == first
    for folders in (bundles, newer_bundles):
        with closing(store_at(store_url)) as store:
            store.replace_snapshots([])  # the customers are gone: nothing of the answer is looked up again
            desk = Desk(store, folders)
            assert [desk.decide(request, f"k{at}").body for at, request in enumerate(CASES[domain])] == first
            assert len(payloads(store)) == 2


def test_a_repeated_batch_gets_the_same_bytes(desk: Desk) -> None:
    sample = list(requests(200))
    for is_transaction in (True, False):
        together = [request for request in sample if isinstance(request, TransactionRequest) is is_transaction]
        first, again = (asyncio.run(decide_batch(desk.decisions, together, f"k{is_transaction}")) for _ in range(2))
        assert [result.body for result in again] == [result.body for result in first]
    tiers = {(payload.abridged is None) for payload in payloads(desk.store)}
    assert tiers == {True, False}


def test_replay_proves_both_tiers(desk: Desk) -> None:
    sample = list(requests(500))
    for is_transaction in (True, False):
        together = [request for request in sample if isinstance(request, TransactionRequest) is is_transaction]
        asyncio.run(decide_batch(desk.decisions, together, None))
    assert replay(desk.store, BundleVersions(store=desk.store)) == ReplayReport(equal=len(sample))


def change_sealed(store: Store, change: Callable[[bytes], bytes]) -> str:
    """Change the first decision's sealed content as an attacker with the keys could; return the decision's id."""
    with store.writing() as connection:
        row = connection.execute(select(decisions).order_by(decisions.c.position)).first()
        assert row is not None and row.person is None
        key = store.keyring.service_key
        about = f"{row.id} abridged".encode()
        sealed = seal(key, change(unseal(key, row.sealed, about)), about)
        connection.execute(update(decisions).where(decisions.c.id == row.id).values(sealed=sealed))
        return str(row.id)


def test_replay_finds_a_flipped_byte_of_an_abridged_record(desk: Desk) -> None:
    desk.decide(CASES["loan_default"][0])
    with desk.store.writing() as connection:
        sealed = connection.execute(select(decisions.c.sealed)).scalar_one()
        connection.execute(update(decisions).values(sealed=sealed[:60] + bytes([sealed[60] ^ 1]) + sealed[61:]))
    assert replay(desk.store, BundleVersions(store=desk.store)).damaged == 1


@pytest.mark.parametrize(
    ("place", "difference"), [(-1, "probability"), (-21, "the answer's digest"), (-45, "score")], ids=["row", "digest", "score"]
)
def test_replay_finds_a_byte_of_an_abridged_record_that_was_changed_and_sealed_again(desk: Desk, place: int, difference: str) -> None:
    """The record ends with margin, probability, digest (8, 8 and 16 bytes) and the row, here of five numbers of 4 bytes."""
    desk.decide(CASES["loan_default"][0])

    def flip(plain: bytes) -> bytes:
        at = len(plain) + place
        return plain[:at] + bytes([plain[at] ^ 1]) + plain[at + 1 :]

    changed = change_sealed(desk.store, flip)
    assert replay(desk.store, BundleVersions(store=desk.store)).differences == [(changed, f"{difference} differs from what was stored")]


def test_a_request_whose_answer_cannot_be_rebuilt_is_refused_and_decides_nothing(store_url: str | Path, bundles, newer_bundles) -> None:
    request, against = CASES["loan_default"]
    with closing(store_at(store_url)) as store:
        store.replace_snapshots(CUSTOMERS)
        desk = Desk(store, bundles)
        first = desk.decide(against, "against").body
        desk.decide(request, "k")
    with closing(store_at(store_url)) as store:
        desk = Desk(store, newer_bundles)
        with store.writing() as connection:
            connection.execute(delete(bundle_copies).where(bundle_copies.c.version == Bundle.load(bundles["loan_default"]).version))

        with pytest.raises(Problem, match="stands") as refused:
            desk.decide(request, "k")
        assert (refused.value.status, refused.value.code) == (409, "answer_lost")
        with pytest.raises(Problem, match="Another request"):
            desk.decide(LoanRequest(loan_id="L2", features=GOOD_LOAN), "k")
        assert desk.decide(against, "against").body == first, "an answer that is stored needs no bundle"
        assert len(payloads(store)) == 2
        report = replay(store, BundleVersions(store=store))
        assert (report.unknown.total(), report.agrees) == (2, False)


def test_an_answer_that_the_bundle_no_longer_gives_is_not_sent(desk: Desk) -> None:
    request = CASES["loan_default"][0]
    desk.decide(request, "k")
    change_sealed(desk.store, lambda plain: plain[:-4] + b"\0\0\0\0")  # another value in the model's row
    with pytest.raises(Problem, match="stands"):
        desk.decide(request, "k")


def test_a_copy_of_a_bundle_that_was_changed_is_not_used(desk: Desk, bundles: dict[str, Path]) -> None:
    version = desk.bundles["cashflow"].version
    with desk.store.writing() as connection:
        mine = bundle_copies.c.domain == "cashflow"
        sealed = connection.execute(select(bundle_copies.c.sealed).where(mine)).scalar_one()
        connection.execute(update(bundle_copies).where(mine).values(sealed=sealed[:-1] + bytes([sealed[-1] ^ 1])))

    assert BundleVersions(store=desk.store)("cashflow", version) is None
    loaded = BundleVersions(store=desk.store)("loan_offers", desk.bundles["loan_offers"].version)
    assert loaded is not None and loaded.sha256 == desk.bundles["loan_offers"].sha256
    assert Desk(desk.store, bundles).archived == desk.archived, "a worker that starts with this model writes the copy anew"
    assert BundleVersions(store=desk.store)("cashflow", version) is not None


@pytest.mark.parametrize(
    "change",
    ["delete from bundles", "update bundles set sealed = 'text'", "update bundles set sealed = (select sealed from standings limit 1)"],
)
def test_a_missing_or_changed_copy_that_abridged_decisions_need_is_named(desk: Desk, change: str) -> None:
    in_favour, against = CASES["loan_default"]
    desk.decide(against, "against")
    with desk.store.writing() as connection:
        connection.execute(text(change))
    assert reconcile(desk.store).mismatches == 0, "a full record needs no bundle"

    desk.decide(in_favour, "k")
    version = desk.bundles["loan_default"].version
    assert [str(mismatch) for mismatch in reconcile(desk.store).listed] == [
        f"bundle loan_default {version}: its copy is missing or was changed, and abridged decisions need it for their answers"
    ]


@pytest.mark.parametrize("change", ["delete from policies", "update policies set document = '{}'", "update policies set document = x'00'"])
def test_an_answer_is_rebuilt_under_its_own_policy_and_the_loss_of_that_policy_is_named(
    tmp_path: Path, bundles: dict[str, Path], change: str
) -> None:
    policy = default_policy()
    own = policy.model_copy(update={"lending": policy.lending.model_copy(update={"lgd": 0.4})})
    in_favour, against = CASES["loan_default"]
    with closing(store_at(tmp_path / "store.sqlite")) as store:
        store.replace_snapshots(CUSTOMERS)
        former = Desk(store, bundles, own)
        first = former.decide(in_favour, "k").body
        former.decide(against)

        desk = Desk(store, bundles)
        assert desk.decide(in_favour, "k").body == first
        assert reconcile(store).mismatches == 0

        with store.writing() as connection:
            connection.execute(text(change))
        assert [str(mismatch) for mismatch in reconcile(store).listed] == [
            f"policy {own.version}: its copy is missing or was changed, and abridged decisions need it for their answers"
        ]
        with pytest.raises(Problem, match="stands"):
            Desk(store, bundles).decide(in_favour, "k")

        assert archive_policy(store, own), "a worker that starts with this policy writes the copy anew"
        assert reconcile(store).mismatches == 0
        assert Desk(store, bundles).decide(in_favour, "k").body == first


def test_a_bundle_is_copied_once(desk: Desk, bundles: dict[str, Path]) -> None:
    def copies() -> dict[str, bytes]:
        with desk.store.reading() as connection:
            return dict(connection.execute(select(bundle_copies.c.domain, bundle_copies.c.sealed)).tuples().all())

    before = copies()
    assert before.keys() == bundles.keys()
    assert Desk(desk.store, bundles).archived == desk.archived
    assert copies() == before
    manifest = (bundles["cashflow"] / "bundle.json").read_bytes()
    assert not any(manifest[:200] in sealed for sealed in before.values())


def test_the_event_loop_never_loads_an_old_bundle(desk: Desk) -> None:
    desk.decide(CASES["loan_default"][0], "k")
    answers = AnswerRebuilder(desk.store, BundleVersions(store=desk.store))
    model = "loan_default", desk.bundles["loan_default"].version, default_policy().version
    failures: list[BaseException] = []

    def work_as_event_loop() -> None:
        desk.store.never_wait_here()
        try:
            answers.find_scorer(*model)
        except BaseException as error:
            failures.append(error)

    loop = Thread(target=work_as_event_loop)
    loop.start()
    loop.join()
    assert [type(error) for error in failures] == [StoreBusy]
    assert answers.find_scorer(*model) is not None


def test_an_export_shows_the_same_answers_of_both_tiers(desk: Desk) -> None:
    sent = [desk.decide(request) for request in (CashflowRequest(customer_id="123"), *CASES["loan_offers"], CASES["loan_default"][1])]
    loan = LoanRequest(customer_id="123", loan_amount=500.0)
    sent.append(desk.decide(loan))

    exported = data_rights.export(desk.store, "123").decisions
    assert [decision["answer"] for decision in exported] == [json.loads(result.answer.model_dump_json()) for result in sent]
    assert {payload.abridged is None for payload in payloads(desk.store)} == {True, False}


def test_an_export_without_the_bundle_shows_all_that_is_stored(desk: Desk) -> None:
    sent = desk.decide(CASES["loan_offers"][0]).answer
    with desk.store.writing() as connection:
        connection.execute(delete(bundle_copies))

    (decision,) = data_rights.export(desk.store, "123").decisions
    assert (decision["answer"], decision["decision"], decision["probability"]) == (None, "offer", sent.acceptance)
    assert decision["model_input"] and decision["request"]["customer_id"] == "123"


def test_an_erased_person_s_abridged_record_cannot_be_read(desk: Desk) -> None:
    request = CASES["loan_offers"][0]
    desk.decide(request, "k")
    data_rights.erase(desk.store, "123", wiping=False)
    with pytest.raises(Problem, match="erased"):
        desk.decide(request, "k")
    assert replay(desk.store, BundleVersions(store=desk.store)).erased == 1


def test_feedback_on_an_abridged_decision_becomes_a_label(desk: Desk) -> None:
    desk.decide(CASES["transaction_anomaly"][0])
    record(desk.store, FeedbackRequest(transaction_id="t-good", label=True))
    (label,) = list_labels(desk.store, "transaction_anomaly").labels
    assert label.answer["transaction_id"] == "t-good"


def test_code_that_knows_full_records_alone_cannot_open_an_abridged_one(desk: Desk) -> None:
    """During a rolling upgrade an old worker answers 503 to a repeated request, not with another record's bytes."""
    desk.decide(CASES["loan_default"][0])
    (decision,) = desk.store.decisions()
    with pytest.raises(KeyringError):
        unseal(desk.store.keyring.service_key, decision.sealed, decision.id.encode())


def test_records_that_were_stored_before_the_tiers_are_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full record of today has the bytes of every record of before."""
    request = CASES["loan_default"][0]

    def former_pack(new: Any) -> bytes:
        return b"\n".join((new.request, new.answer, json.dumps(new.decision_context).encode(), new.row.tobytes()))

    with monkeypatch.context() as former:
        former.setattr(stored_decisions, "_pack", former_pack)
        former.setattr(stored_decisions, "_about", lambda decision_id, *, is_abridged: decision_id.encode())
        first = desk.decide(request, "k").body
    assert desk.decide(request, "k").body == first
    assert replay(desk.store, BundleVersions(store=desk.store)) == ReplayReport(equal=1)


def test_the_service_rebuilds_an_answer_after_a_newer_model_was_promoted(serving, bundles, newer_bundles, transaction) -> None:
    sent = {"transactions": transaction(transaction_id="t-1", amount=3.0), "cashflow": {"features": CASHFLOW_ROW | {"net_flow_30d": 900.0}}}
    with serving(bundles) as client:
        first = {route: client.post(f"/v1/{route}", json=body, headers={"Idempotency-Key": route}) for route, body in sent.items()}
    assert [answer.json()["model"]["version"] for answer in first.values()] == [
        Bundle.load(bundles[domain]).version for domain in ("transaction_anomaly", "cashflow")
    ]
    with closing(open_store(Settings(home=serving.home))) as store:
        assert all(payload.abridged is not None for payload in payloads(store))
    shutil.rmtree(serving.home / "models")  # a container has the models of its own Bento alone
    with serving(newer_bundles) as client:
        for route, body in sent.items():
            again = client.post(f"/v1/{route}", json=body, headers={"Idempotency-Key": route})
            assert again.content == first[route].content
            other = client.post(f"/v1/{route}", json=body, headers={"Idempotency-Key": f"{route}-other"})
            if route == "cashflow":
                assert other.json()["model"]["version"] != first[route].json()["model"]["version"]


def test_the_client_is_told_that_its_answer_is_lost(serving, bundles, newer_bundles) -> None:
    body, key = {"features": CASHFLOW_ROW | {"net_flow_30d": 900.0}}, {"Idempotency-Key": "k"}
    with serving(bundles) as client:
        decision_id = client.post("/v1/cashflow", json=body, headers=key).json()["decision_id"]
    shutil.rmtree(serving.home / "models")
    with serving(newer_bundles) as client:
        with closing(open_store(Settings(home=serving.home))) as store, store.writing() as connection:
            connection.execute(delete(bundle_copies))
        refused = client.post("/v1/cashflow", json=body, headers=key)
        assert decision_id in read_error(refused, 409, "answer_lost")["message"]
