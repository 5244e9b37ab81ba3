"""Tests of replay: stored decisions are scored again, and every later change is found."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text, update

from bento.decisions.batch import decide_batch
from bento.decisions.bundle_versions import BundleVersions, archive_policy, find_policy
from bento.decisions.domains import DOMAINS
from bento.decisions.engine import DecisionResult, Decisions
from bento.decisions.replay import ReplayReport, replay
from bento.people import data_rights
from bento.store.keyring import seal, unseal
from bento.store.session import Store
from bento.store.tables import decisions, people, policies
from finrisk_assets.graph import packaging
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import CashflowRequest, LoanRequest, OfferRequest, Request, SpendingRequest, TransactionRequest
from tests.service.conftest import START
from tests.service.databases import store_at
from tests.service.examples import LOAN_FEATURES, SNAPSHOTS

MANY = 10_000


def requests(n: int) -> Iterator[Request]:
    """Yield a number of requests of all domains and five more, by features and by customer."""
    rng = np.random.default_rng(5)
    yield LoanRequest(customer_id=123, loan_amount=50000)
    yield SpendingRequest(customer_id=123)
    yield CashflowRequest(account_id="A7")
    yield OfferRequest(customer_id=123)
    yield OfferRequest(customer_id=123, loan_amount=5000, term_months=24, pd=0.9)
    for k in range(n // 10):
        income, ratio = rng.uniform(2000, 9000), rng.uniform(0.4, 1.6)
        for m in range(3):
            features = [9000.0, 24.0, 3000.0, m % 2, 0.2] * np.array([*rng.uniform(0.3, 3.0, 3), 1.0, rng.uniform(0.3, 3.0)])
            loan = dict(zip([one.name for one in LOAN_FEATURES], features.tolist(), strict=True))
            yield LoanRequest(loan_id=f"L{k}", features=loan | ({"balance_mean_30d": None} if k % 7 == 0 else {}))
            spent = income * ratio
            eight = (income, spent, 100, spent / 80, spent / 10, rng.integers(0, 40), ratio, spent / 3)
            yield SpendingRequest(**dict(zip(SpendingRequest.behaviour_fields().values(), map(float, eight), strict=True)))
        for scale in (400.0, 900.0):
            flow = {"net_flow_30d": rng.normal(0, scale), "income_90d": income * 3, "typical_movement_amount": scale}
            yield CashflowRequest(features=flow)
        yield OfferRequest(features={"expense_ratio_90d": ratio}, pd=rng.uniform(0, 0.3), monthly_income_amount=income)
        moment = START + timedelta(minutes=k)
        yield TransactionRequest(user_id=k % 50, amount=rng.uniform(1, 5000), timestamp=moment, merchant=k % 500)


def decide(store: Store, bundles: Mapping[str, Bundle], n: int) -> None:
    """Decide requests of every domain with the service's own scorers."""
    store.replace_snapshots(SNAPSHOTS)
    scorers = {domain: DOMAINS[domain].scorer(bundle, store) for domain, bundle in bundles.items()}
    decisions_of_store = Decisions(store, scorers)
    sample = list(requests(n))
    for transactions in (True, False):  # a batch has either
        together = [one for one in sample if isinstance(one, TransactionRequest) is transactions]
        report = asyncio.run(decide_batch(decisions_of_store, together, None))
        assert all(isinstance(one, DecisionResult) for one in report)


class Bank:
    """A store with decisions of the small bundles, and the folder of these models."""

    def __init__(self, home: Path, bundles: Mapping[str, Path]) -> None:
        self.home = home
        for domain, folder in bundles.items():
            packaging.store_model(home, domain, folder, {})
        self.models = home / "models"
        self.bundles = {domain: Bundle.load(folder) for domain, folder in bundles.items()}

    def open(self) -> Store:
        return store_at(self.home / "store.sqlite", durable=False)

    def replay(self, **only: Any) -> ReplayReport:
        with closing(self.open()) as store:
            return replay(store, BundleVersions(self.models), **only)

    def decide(self, n: int) -> None:
        with closing(self.open()) as store:
            decide(store, self.bundles, n)

    def change(self, number: int, change: Callable[[dict[str, Any]], None], domain: str = "loan_default") -> str:
        """Change a stored answer as an attacker with the keys could, and seal it again; return the decision's id."""
        with closing(self.open()) as store, store.writing() as connection:
            one = connection.execute(
                select(decisions).where(decisions.c.domain == domain).order_by(decisions.c.position).offset(number)
            ).first()
            assert one is not None and one.person is None
            request, answer, rest = unseal(store.keyring.service_key, one.sealed, one.id.encode()).split(b"\n", 2)
            changed = json.loads(answer)
            change(changed)
            plain = b"\n".join((request, json.dumps(changed).encode(), rest))
            sealed = seal(store.keyring.service_key, plain, one.id.encode())
            connection.execute(update(decisions).where(decisions.c.id == one.id).values(sealed=sealed))
            return str(one.id)


@pytest.fixture(scope="module")
def shared_bank(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> Bank:
    """Return a bank with a few decisions of every domain."""
    bank = Bank(tmp_path_factory.mktemp("made"), bundles)
    bank.decide(100)
    return bank


@pytest.fixture
def bank(shared_bank: Bank, tmp_path: Path, bundles: dict[str, Path]) -> Bank:
    """Return a copy of the shared bank for one test."""
    shutil.copytree(shared_bank.home, tmp_path / "home")
    return Bank(tmp_path / "home", bundles)


def test_ten_thousand_decisions_come_out_as_they_were_stored(tmp_path: Path, bundles: dict[str, Path]) -> None:
    bank = Bank(tmp_path, bundles)
    bank.decide(MANY)

    assert bank.replay() == ReplayReport(equal=MANY + 5)


def test_decisions_come_out_the_same_on_either_engine(store: Store, bundles: dict[str, Path]) -> None:
    loaded = {domain: Bundle.load(folder) for domain, folder in bundles.items()}
    decide(store, loaded, 50)
    assert replay(store, lambda domain, _: loaded[domain]) == ReplayReport(equal=55)


def test_all_domains_are_replayed_or_one(bank: Bank) -> None:
    assert bank.replay() == ReplayReport(equal=105)
    assert bank.replay(domain="cashflow") == ReplayReport(equal=21)
    assert bank.replay(since=2**60) == ReplayReport()


def test_each_decision_is_replayed_under_its_own_policy(tmp_path: Path, bundles: dict[str, Path]) -> None:
    bank = Bank(tmp_path, bundles)
    bank.decide(10)
    policy = default_policy()
    harsh = policy.model_copy(update={"lending": policy.lending.model_copy(update={"max_pd": 0.001, "lgd": 0.9})})
    bank.bundles = {domain: bundle.under(harsh) for domain, bundle in bank.bundles.items()}
    with closing(bank.open()) as store:
        assert archive_policy(store, harsh) and archive_policy(store, harsh)
    bank.decide(10)

    assert bank.replay() == ReplayReport(equal=30)
    with closing(bank.open()) as store:
        assert {one.policy_version for one in store.decisions()} == {policy.version, harsh.version}
        assert find_policy(store, harsh.version) == harsh
        with store.writing() as connection:
            connection.execute(update(policies).values(document=policy.canonical_json()))
        assert find_policy(store, harsh.version) is None, "a document that was changed is no longer that policy"
    assert bank.replay().unknown.total() == 15


@pytest.mark.parametrize("version", ["0" * 12, None])
def test_another_policy_in_a_row_is_not_what_the_audit_recorded(bank: Bank, version: str | None) -> None:
    with closing(bank.open()) as store, store.writing() as connection:
        one = select(decisions.c.id).where(decisions.c.domain == "cashflow").limit(1).scalar_subquery()
        connection.execute(update(decisions).where(decisions.c.id == one).values(policy_version=version))

    assert bank.replay().unrecorded == 1


def test_a_flipped_byte_is_reported(bank: Bank) -> None:
    with closing(bank.open()) as store, store.writing() as connection:
        id_, sealed = connection.execute(select(decisions.c.id, decisions.c.sealed).limit(1).offset(50)).one()
        flipped = sealed[:60] + bytes([sealed[60] ^ 1]) + sealed[61:]
        connection.execute(update(decisions).where(decisions.c.id == id_).values(sealed=flipped))

    report = bank.replay()
    assert (report.equal, report.damaged, report.agrees) == (104, 1, False)
    assert report.differences == [(id_, "it cannot be unsealed: its bytes were changed")]


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("pd", lambda answer: answer.update(pd=answer["pd"] + 0.001)),
        ("decision", lambda answer: answer.update(decision="approve" if answer["decision"] != "approve" else "refuse")),
        ("reasons[0].code", lambda answer: answer["reasons"][0].update(code="OTHER")),
        ("reasons", lambda answer: answer["reasons"].pop()),
        ("explanation.contributions[2].contribution", lambda answer: answer["explanation"]["contributions"][2].update(contribution=9.0)),
        ("model.version", lambda answer: answer["model"].update(version="0" * 12)),
        ("more", lambda answer: answer.update(more=1)),
    ],
)
def test_an_answer_that_was_changed_and_sealed_again_is_a_difference(
    bank: Bank, path: str, change: Callable[[dict[str, Any]], None]
) -> None:
    changed = bank.change(3, change)

    report = bank.replay()
    assert (report.equal, report.different) == (104, 1)
    assert report.differences == [(changed, f"{path} differs from what was stored")]


@pytest.mark.parametrize("change", [{"probability": 0.5}, {"decision": "approved"}])
def test_a_column_beside_the_answer_that_was_changed_is_a_difference(bank: Bank, change: dict[str, Any]) -> None:
    with closing(bank.open()) as store, store.writing() as connection:
        connection.execute(update(decisions).where(decisions.c.position == 9).values(**change))

    assert [one.reason for one in bank.replay().differences] == [f"{next(iter(change))} differs from what was stored"]


def test_an_answer_that_was_sealed_again_with_what_no_model_says_is_not_what_the_audit_knows(bank: Bank) -> None:
    """The reference that the client sent as its own has no part in the decision; the digest in the audit has."""
    changed = bank.change(4, lambda answer: None)
    assert bank.replay().differences == [(changed, "its row is not what the audit has recorded")]


def test_a_decision_whose_record_was_removed_is_named(bank: Bank) -> None:
    """The test covers an adjusted audit too: an older head, put back with its MAC, hides that the newest records are gone."""
    with closing(bank.open()) as store, store.writing() as connection:
        id_ = connection.execute(select(decisions.c.id).where(decisions.c.position == 105)).scalar()
        connection.execute(text("drop trigger audit_no_delete"))
        connection.execute(text("delete from audit where number = 105"))

    assert bank.replay().differences == [(id_, "its row is not what the audit has recorded")]


def test_of_a_person_who_was_erased_nothing_is_read_and_nothing_differs(bank: Bank) -> None:
    with closing(bank.open()) as store:
        data_rights.erase(store, "123", wiping=False)

    report = bank.replay()
    assert report.agrees
    assert (report.equal, report.erased) == (101, 4)


def test_a_person_whose_key_was_taken_away_is_not_one_who_was_erased(bank: Bank) -> None:
    with closing(bank.open()) as store, store.writing() as connection:
        person = store.person("123")
        assert person is not None
        gone = {"lookup": None, "wrapped_key": None, "erased_at": 5}
        connection.execute(update(people).where(people.c.person == person.person).values(gone))

    report = bank.replay()
    assert (report.equal, report.unrecorded, report.agrees) == (101, 4, False)


@pytest.mark.parametrize(
    "change", [{"caller": "key:2"}, {"request_id": "r"}, {"route": "/v1/cashflow"}, {"digest": "00"}, {"idempotency": "00"}]
)
def test_a_column_that_says_who_asked_and_what_for_is_as_the_audit_recorded_it(bank: Bank, change: dict[str, Any]) -> None:
    with closing(bank.open()) as store, store.writing() as connection:
        connection.execute(update(decisions).where(decisions.c.position == 9).values(**change))

    assert [one.reason for one in bank.replay().differences] == ["its row is not what the audit has recorded"]


def test_a_version_that_is_no_longer_there_is_named_and_counted(bank: Bank) -> None:
    version = bank.bundles["cashflow"].version
    shutil.rmtree(bank.models / "finrisk-cashflow" / version)

    report = bank.replay()
    assert report.unknown == {f"cashflow {version}": 21}
    assert (report.equal, report.agrees) == (84, False), "what was not re-scored proves nothing"


def test_a_version_that_is_not_what_it_was_is_not_used(bank: Bank) -> None:
    version = bank.bundles["cashflow"].version
    manifest = bank.models / "finrisk-cashflow" / version / "bundle.json"
    manifest.chmod(0o644)
    manifest.write_text(manifest.read_text().replace("0.5", "0.6"))

    assert bank.replay().unknown == {f"cashflow {version}": 21}


def test_another_person_s_decision_does_not_stand_in_the_place_of_one(bank: Bank) -> None:
    with closing(bank.open()) as store, store.writing() as connection:
        first, second = connection.execute(
            select(decisions.c.sealed).where(decisions.c.position.in_((20, 21))).order_by("position")
        ).scalars()
        connection.execute(update(decisions).where(decisions.c.position == 20).values(sealed=second))
        connection.execute(update(decisions).where(decisions.c.position == 21).values(sealed=first))

    assert bank.replay().damaged == 2
