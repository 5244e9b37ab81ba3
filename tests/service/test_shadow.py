"""Tests of shadow scoring: the challenger's result is recorded and never part of an answer."""

import json
import re
import shutil
from contextlib import closing
from datetime import datetime
from pathlib import Path
from threading import Event

import pytest
from click.testing import CliRunner

from bento.decisions.domains import DOMAINS
from bento.decisions.shadow import Shadow
from bento.store.records import ShadowScore
from bento.store.session import open_store
from finrisk_assets.cli.main import cli
from finrisk_assets.domains.cashflow.definition import CASHFLOW
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK
from finrisk_assets.graph.packaging import store_challenger
from finrisk_assets.graph.resources import Tracking
from finrisk_assets.graph.stages.bento import fetch_challengers
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.operations import shadow_report
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from schemas.api import CashflowRequest
from tests.service.conftest import write_transaction_bundle
from tests.service.databases import store_at
from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS, write_cashflow_bundle

OFFER = {"features": {"expense_ratio_90d": 1.0}, "pd": 0.03, "monthly_income_amount": 2800}
NOON = datetime(2024, 5, 6, 12)


@pytest.fixture(scope="module")
def challengers(tmp_path_factory) -> dict[str, Path]:
    """Return challengers' bundles: one with other thresholds, one without an amount."""
    folder = tmp_path_factory.mktemp("challengers")
    return {
        "transaction_anomaly": write_transaction_bundle(folder / "transaction_anomaly", anomaly=0.4, review=0.41),
        "cashflow": write_cashflow_bundle(folder / "cashflow", with_amount=False),
    }


@pytest.fixture
def shadowing(serving, bundles, monkeypatch):
    """Return a function that serves the champions with these challengers."""

    def serve(challengers, switched_on=True):
        monkeypatch.setenv("FINRISK_SHADOW", str(switched_on).lower())
        return serving(bundles, challengers=challengers)

    return serve


def ask(client, transaction):
    """Send one request of every domain, and one transaction twice."""
    bodies = {
        "transactions": transaction(transaction_id="t1"),
        "cashflow": {"features": CASHFLOW_ROW},
        "spending-risk": {"customer_id": "123"},
        "loan-default": {"customer_id": "123", "loan_amount": 9000},
        "loan-offers": OFFER,
    }
    sent = [*bodies.items(), ("transactions", bodies["transactions"]), ("cashflow", {"account_id": "A7"}), ("spending-risk", EIGHT_FIELDS)]
    return [client.post(f"/v1/{route}", json=body) for route, body in sent]


def without_decision_id(answer):
    """Return an answer's bytes without the decision id, which differs between any two answers."""
    return re.sub(rb'"decision_id":"[0-9a-f]{32}"', b"", answer.content)


def read_shadow_scores(home: Path, domain: str) -> list[ShadowScore]:
    with closing(open_store(Settings(home=home))) as store:
        return store.list_shadow_scores(domain)


def test_answers_are_byte_equal_with_and_without_a_shadow(shadowing, challengers, transaction, tmp_path):
    with shadowing({}) as client:
        alone = [without_decision_id(answer) for answer in ask(client, transaction)]
    (tmp_path / "simulator" / "service" / "store.sqlite").unlink()
    with shadowing(challengers) as client:
        assert [without_decision_id(answer) for answer in ask(client, transaction)] == alone
    assert read_shadow_scores(tmp_path, "cashflow")


def test_what_both_said_is_recorded_once_with_the_subject(shadowing, challengers, transaction, tmp_path):
    with shadowing(challengers) as client:
        answers = [answer.json() for answer in ask(client, transaction)]

    (moved,) = read_shadow_scores(tmp_path, "transaction_anomaly")
    assert (moved.subject, moved.champion_probability) == ("t1", answers[0]["risk_score"])
    assert moved.challenger_probability == moved.champion_probability, "the same trees, with other thresholds"
    first, second = read_shadow_scores(tmp_path, "cashflow")
    assert (first.subject, second.subject) == (None, "A7@2024-06")
    assert (first.champion_version, first.champion_decision) == (answers[1]["model"]["version"], answers[1]["direction"])
    assert first.challenger_version != first.champion_version
    assert read_shadow_scores(tmp_path, "loan_default") == [], "it has no challenger"


def test_the_challenger_is_carried_but_not_asked_where_the_setting_is_off(shadowing, challengers, transaction, tmp_path):
    with shadowing(challengers, switched_on=False) as client:
        ask(client, transaction)
    assert read_shadow_scores(tmp_path, "cashflow") == []


def test_a_challenger_that_fails_is_recorded_and_the_champion_answers(shadowing, bundles, tmp_path, transaction):
    """The challenger reads other features: the client sent those of the champion."""
    spending = shutil.copytree(bundles["spending_risk"], tmp_path / "other")
    manifest = spending / "bundle.json"
    manifest.write_text(manifest.read_text().replace('"spending_risk"', '"cashflow"').replace("finrisk-spending-risk", "finrisk-cashflow"))
    with shadowing({"cashflow": spending}) as client:
        answer = client.post("/v1/cashflow", json={"features": CASHFLOW_ROW})

    assert answer.status_code == 200
    (row,) = read_shadow_scores(tmp_path, "cashflow")
    assert (row.challenger_probability, row.challenger_decision, row.failure) == (None, None, "Problem")
    assert row.champion_decision == answer.json()["direction"]


def test_a_challenger_that_cannot_be_loaded_is_left_out(shadowing, challengers, transaction, tmp_path, caplog):
    changed = tmp_path / "models" / "finrisk-cashflow-challenger"

    def damage():
        for file in changed.glob("*/golden.json"):
            file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))

    serving = shadowing(challengers)
    damage()
    with serving as client:
        assert {answer.status_code for answer in ask(client, transaction)} == {200}
    assert "finrisk-cashflow-challenger" in caplog.text
    assert read_shadow_scores(tmp_path, "cashflow") == []
    assert read_shadow_scores(tmp_path, "transaction_anomaly")


def test_a_challenger_that_is_the_champion_is_not_carried(bundles, tmp_path):
    assert store_challenger(tmp_path, "cashflow", bundles["cashflow"], bundles["cashflow"]) is None


def test_requests_beyond_what_can_wait_are_counted_and_dropped(bundles, store, monkeypatch):
    """The challenger is held while it records its first answer, two more requests wait, and three are dropped."""
    entered, released = Event(), Event()
    insert = store.insert_shadow_scores

    def insert_when_released(rows):
        entered.set()
        assert released.wait(30)
        insert(rows)

    monkeypatch.setattr("bento.decisions.shadow.MAX_QUEUED", 2)
    monkeypatch.setattr(store, "insert_shadow_scores", insert_when_released)
    bundle = Bundle.load(bundles["cashflow"])
    request = CashflowRequest(features=CASHFLOW_ROW)
    answer = DOMAINS["cashflow"].scorer(bundle, store).answer(request)
    shadow = Shadow({"cashflow": bundle}, store, lambda: NOON)

    shadow.submit("cashflow", request, answer)
    assert entered.wait(30)
    for _ in range(5):
        shadow.submit("cashflow", request, answer)
    shadow.submit("loan_default", request, answer)

    assert shadow.dropped == 3
    released.set()
    shadow.stop()


def shadow_score(number: int, champion: float, challenger: float | None, domain: str = "cashflow") -> ShadowScore:
    decision = None if challenger is None else ("SURPLUS" if challenger >= 0.5 else "DEFICIT")
    failure = "Problem" if challenger is None else None
    decided = "SURPLUS" if champion >= 0.5 else "DEFICIT"
    return ShadowScore(domain, f"A{number}@2024-06", NOON, "a" * 12, champion, decided, "b" * 12, challenger, decision, failure)


def test_the_store_keeps_the_newest_records_of_each_domain(store_url):
    with closing(store_at(store_url, durable=False)) as store:
        store.insert_shadow_scores(
            [shadow_score(number, 0.1, 0.2) for number in range(5)] + [shadow_score(9, 0.1, 0.2, "loan_offers")], most=3
        )
        assert [one.subject for one in store.list_shadow_scores("cashflow")] == ["A2@2024-06", "A3@2024-06", "A4@2024-06"]
        assert store.list_shadow_scores("loan_offers") == [shadow_score(9, 0.1, 0.2, "loan_offers")]
        store.insert_shadow_scores([shadow_score(1, 0.1, 0.2, "transaction_anomaly")] * 2)
        assert len(store.list_shadow_scores("transaction_anomaly")) == 1


def test_the_figures_of_a_pair_are_those_counted_by_hand():
    comparison = shadow_report.compare(
        [shadow_score(1, 0.4, 0.6), shadow_score(2, 0.6, 0.7), shadow_score(3, 0.2, 0.1), shadow_score(4, 0.9, None)]
    )
    assert (comparison.n, comparison.failures, comparison.agreement) == (4, 1, 2 / 3)
    assert comparison.mean_absolute_difference == pytest.approx(0.4 / 3)
    assert comparison.quantiles[2] == pytest.approx(0.1)
    assert "A1" not in str(comparison.cells()), "nobody is named"


def test_outcomes_that_came_true_rank_both():
    rows = [shadow_score(number, champion=number / 40, challenger=1 - number / 40) for number in range(40)]
    happened = {str(row.subject): row.champion_probability > 0.5 for row in rows}
    comparison = shadow_report.add_ranking(shadow_report.compare(rows), rows, happened)
    assert (comparison.n_outcomes, comparison.champion_auc.value, comparison.challenger_auc.value) == (40, 1.0, 0.0)
    assert shadow_report.add_ranking(shadow_report.compare(rows), rows, {}).champion_auc is None


def test_a_record_holds_no_message_and_no_value_of_a_request(shadowing, challengers, transaction, tmp_path):
    with shadowing(challengers) as client:
        client.post("/v1/transactions", json=transaction(user_id="Ada Lovelace", transaction_id="t9"))
    (row,) = read_shadow_scores(tmp_path, "transaction_anomaly")
    assert "Lovelace" not in json.dumps(row._asdict(), default=str)


def test_the_command_prints_figures_and_names_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert "nothing is recorded yet" in CliRunner().invoke(cli, ["shadow"]).output
    with closing(open_store(Settings(home=tmp_path))) as store:
        store.insert_shadow_scores([shadow_score(1, 0.4, 0.6), shadow_score(2, 0.6, 0.7), shadow_score(3, 0.2, None)])
    printed = CliRunner().invoke(cli, ["shadow"]).output
    assert "cashflow" in printed
    assert "50.0%" in printed
    assert "A1@" not in printed


def test_the_bento_takes_the_registered_challengers_that_are_not_champions(bundles, tmp_path):
    """Cashflow has a champion and a newer challenger, loans only a champion, spending only a challenger."""
    settings = Settings(home=tmp_path)
    tracking = Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db", artifacts=str(tmp_path / "artifacts"), experiment="simulator")
    newer = write_cashflow_bundle(tmp_path / "newer" / "bundle", with_amount=False)
    with tracking.run("training", {}) as mlflow:

        def register(domain, folder):
            named = folder if folder.name == "bundle" else shutil.copytree(folder, tmp_path / domain / "bundle")
            bundle = Bundle.load(named)
            return model_registry.register(mlflow, domain, named, bundle.features, {"bundle": bundle.version})

        for domain in ("cashflow", "loan_default"):
            model_registry.promote(tracking.client(), domain, register(domain, bundles[domain]))
        register("cashflow", newer)
        register("spending_risk", bundles["spending_risk"])

    challengers = fetch_challengers([CASHFLOW, LOAN_DEFAULT, SPENDING_RISK], tracking, settings)

    assert challengers.keys() == {"cashflow"}
    assert Bundle.load(challengers["cashflow"]).version == Bundle.load(newer).version
