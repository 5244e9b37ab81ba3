"""Tests of the routes that explain: caller, policy, activity, model cards, capacity, usual behaviour, what-if, verification, replay."""

import json
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from bento.alerts.alert_capacity import describe_capacity
from bento.insight.activity import count_activity
from bento.store.records import ShadowScore
from bento.store.session import Store, open_store
from bento.store.tables import audit, decisions
from finrisk_assets.policy import policy_file
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.score_curve import draw_score_curve
from finrisk_assets.settings import Settings
from tests.service.conftest import START, write_transaction_bundle
from tests.service.envelopes import read_error
from tests.service.evidence_example import measure_challenger, measure_example, write_reports
from tests.service.examples import EIGHT_FIELDS
from tests.service.test_alerts import decide, folders  # noqa: F401 - the fixture of a desk that opens alerts
from tests.service.test_record_tiers import Desk
from tests.service.test_rules import policy_of

REVIEW = {"name": "limit", "kind": "amount_limit", "enabled": True, "action": "review", "from_amount": 100}


def recorded(action: str) -> list[Any]:
    """Return the audit's records of an action in the service's store."""
    with closing(open_store(Settings.from_environment())) as store, store.reading() as connection:
        return list(connection.execute(select(audit).where(audit.c.action == action)).all())


def stored_decisions() -> int:
    with closing(open_store(Settings.from_environment())) as store, store.reading() as connection:
        return len(connection.execute(select(decisions.c.id)).all())


def test_the_caller_is_named_with_its_roles(shared_client: TestClient) -> None:
    assert shared_client.get("/v1/caller").json() == {
        "name": "local",
        "roles": ["admin", "analyst", "auditor", "privacy", "scorer", "supervisor"],
    }


def test_the_policy_is_that_of_the_decisions(shared_client: TestClient) -> None:
    policy = shared_client.get("/v1/policy").json()
    decided = shared_client.post("/v1/spending-risk", json=EIGHT_FIELDS).json()
    assert policy["version"] == decided["policy_version"] == policy["sha256"][:12]
    assert policy["document"] == default_policy().model_dump(mode="json")


def test_a_what_if_answers_as_a_decision_would_and_records_none(client: TestClient) -> None:
    answer = client.post("/v1/spending-risk/what-if", json=EIGHT_FIELDS).json()
    assert stored_decisions() == 0 and len(recorded("advise")) == 1
    decided = client.post("/v1/spending-risk", json=EIGHT_FIELDS).json()
    assert answer | {"decision_id": None} == decided | {"decision_id": None}
    assert stored_decisions() == 1


def test_a_what_if_changes_features_of_a_customer(client: TestClient) -> None:
    def ask(**changes: float | None) -> dict[str, Any]:
        answer: dict[str, Any] = client.post("/v1/spending-risk/what-if", json={"customer_id": 123, "changes": changes}).json()
        return answer

    plain, changed = ask(), ask(penalty_n_90d=0.0)
    assert changed["risk_probability"] < plain["risk_probability"]
    values = {item["feature"]: item["value"] for item in changed["explanation"]["contributions"]}
    assert values == {"Expense_Income_Ratio": pytest.approx(1.1), "Low_Balance_Freq": 12.0, "penalty_n_90d": 0.0}
    (person,) = {row.person for row in recorded("advise")}
    assert person is not None and client.get("/v1/activity").json()["counted"] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"customer_id": 123, "changes": {"nothing": 1.0}}, "changes.nothing"),
        (EIGHT_FIELDS | {"changes": {"Total_Income": 1.0}}, "changes"),
        ({"changes": {"penalty_n_90d": 1.0}}, "Total_Income"),
    ],
)
def test_a_what_if_that_cannot_be_answered_names_the_field(shared_client: TestClient, body: dict[str, Any], field: str) -> None:
    error = read_error(shared_client.post("/v1/spending-risk/what-if", json=body), 422, "invalid_request")
    assert error["fields"][0]["field"] == field


def test_activity_counts_decisions_by_day_scores_and_alerts(store: Store, folders: Any) -> None:  # noqa: F811
    desk = Desk(store, folders, policy_of((REVIEW,)))
    answers = [decide(desk, f"t{at}", amount, minutes=at) for at, amount in enumerate((10.0, 500.0, 700.0))]
    activity = count_activity(store, 30)
    assert [(row.domain, row.decision, row.count) for row in activity.decisions] == [
        ("transaction_anomaly", "allow", 1), ("transaction_anomaly", "review", 2),
    ]  # fmt: skip
    assert sum(row.count for row in activity.scores) == activity.counted == 3 and activity.is_complete
    for row in activity.scores:
        assert any(row.low <= answer["risk_score"] <= row.high for answer in answers)
    (opened,) = activity.alerts
    assert opened.opened == 2
    assert opened.expected_loss_amount == pytest.approx(sum(answer["expected_loss_amount"] for answer in answers[1:]))
    assert [(row.state, row.disposition, row.count) for row in activity.money] == [("open", None, 2)]


def test_what_is_older_than_the_days_is_not_counted(store: Store, folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    desk = Desk(store, folders, policy_of((REVIEW,)))
    decide(desk, "old", 500.0)
    now = store.clock()
    monkeypatch.setattr(store, "clock", lambda: now + 3 * 86_400_000_000)
    decide(desk, "new", 500.0, minutes=1)
    assert (count_activity(store, 2).counted, count_activity(store, 5).counted) == (1, 2)
    assert [row.opened for row in count_activity(store, 2).alerts] == [1]


def test_of_very_many_decisions_the_newest_are_counted(store: Store, folders: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from bento.insight import activity

    monkeypatch.setattr(activity, "MAX_COUNTED", 2)
    desk = Desk(store, folders, policy_of((REVIEW,)))
    for at in range(4):
        decide(desk, f"t{at}", 10.0, minutes=at)
    counted = count_activity(store, 30)
    assert (counted.counted, counted.is_complete) == (2, False)


def test_the_capacity_adds_up_the_curve(tmp_path: Path) -> None:
    losses, is_fraud = np.array([80.0, 40.0, 20.0, 10.0, 1.0]), np.array([True, True, False, False, False])
    curves = draw_score_curve(losses / 100, is_fraud, 2), draw_score_curve(losses, is_fraud, 2)
    bundle = Bundle.load(write_transaction_bundle(tmp_path / "bundle", curves=curves))
    capacity = describe_capacity(bundle, default_policy())
    assert [point.alerts_per_day for point in capacity.points] == [0.5, 1.0, 1.5, 2.0, 2.5]
    assert [point.expected_loss_from_amount for point in capacity.points] == losses.tolist()
    assert [point.precision for point in capacity.points] == [1.0, 1.0, pytest.approx(2 / 3), 0.5, 0.4]
    assert [point.frauds_per_day for point in capacity.points] == [0.5, 1.0, 1.0, 1.0, 1.0]
    # The shipped policy: a review costs 5 and finds all.
    assert [point.worth_per_day_amount for point in capacity.points] == [37.5, 55.0, 62.5, 65.0, 63.0]
    assert (capacity.days, capacity.transactions_per_day, capacity.reason) == (2, 2.5, None)


def test_a_model_without_a_curve_of_losses_says_so(bundles: dict[str, Path]) -> None:
    capacity = describe_capacity(Bundle.load(bundles["transaction_anomaly"]), default_policy())
    assert capacity.points == [] and "no fraud labels" in str(capacity.reason)


def test_usual_behaviour_has_the_customers_earlier_transactions_alone(
    client: TestClient, transaction: Callable[..., dict[str, Any]]
) -> None:
    day = 24 * 60
    for minutes, user, merchant, country in (
        (-100 * day, 5, "m", "AT"),
        (-2 * day, 5, "m", "AT"),
        (-day, 5, "n", "DE"),
        (-day, 6, "n", "DE"),
    ):
        client.post("/v1/transactions", json=transaction(minutes, user_id=user, merchant=merchant, country=country, amount=10.0))
    for at in range(12):
        answer = client.post("/v1/transactions", json=transaction(at / 60, amount=1e6, merchant="n", country="AT")).json()
        if answer["decision"] != "allow":
            break
    usual = client.get(f"/v1/alerts/{answer['decision_id']}/usual").json()
    assert usual["days"] == 90 and usual["total"] == at + 2
    assert (usual["merchants"], usual["countries"]) == (2, 2)
    *_, newer, older = usual["transactions"]
    assert (newer["is_same_merchant"], newer["is_same_country"]) == (True, False)
    assert (older["is_same_merchant"], older["is_same_country"], older["amount"]) == (False, True, 10.0)
    assert older["occurred_at"] == (START - timedelta(days=2)).isoformat() + "Z"
    assert "merchant" not in older and len(recorded("read")) == 1
    read_error(client.get(f"/v1/alerts/{'0' * 32}/usual"), 404, "unknown_alert")


def test_a_model_card_ranks_features_and_draws_the_curve(client: TestClient) -> None:
    cards = {card["domain"]: card for card in client.get("/v1/model-cards").json()["cards"]}
    loan = cards["loan_default"]
    assert (loan["kind"], loan["calibration"], loan["source"]) == ("linear", "beta", "simulator")
    sizes = [row["mean_contribution"] for row in loan["importance"]]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 0
    assert {row["feature"]: row["coefficient"] for row in loan["importance"]}["loan_amount"] == 1.2
    assert cards["transaction_anomaly"]["kind"] == "trees" and cards["transaction_anomaly"]["importance"][0]["coefficient"] is None
    assert loan["shadow"] == []


def test_a_model_card_compares_the_challenger(client: TestClient) -> None:
    with closing(open_store(Settings.from_environment())) as store:
        store.insert_shadow_scores([
            ShadowScore("loan_default", None, START, "a" * 12, 0.2, "approve", "b" * 12, 0.3, "approve", None),
            ShadowScore("loan_default", None, START, "a" * 12, 0.2, "approve", "b" * 12, 0.5, "refer", None),
            ShadowScore("loan_default", None, START, "a" * 12, 0.2, "approve", "b" * 12, None, None, "ValueError"),
        ])  # fmt: skip
    card = next(card for card in client.get("/v1/model-cards").json()["cards"] if card["domain"] == "loan_default")
    (pair,) = card["shadow"]
    assert (pair["requests"], pair["failures"], pair["agreement"]) == (3, 1, 0.5)
    assert pair["mean_difference"] == pytest.approx(0.2)


def test_a_curve_of_scores_gives_recall_and_precision(serving: Any, tmp_path: Path) -> None:
    scores, is_fraud = np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, False, True, False])
    curves = draw_score_curve(scores, is_fraud, 1), draw_score_curve(scores, is_fraud, 1)
    with serving({"transaction_anomaly": write_transaction_bundle(tmp_path / "bundle", curves=curves)}) as client:
        (card,) = client.get("/v1/model-cards").json()["cards"]
    assert [(pair["threshold"], pair["share"], pair["recall"], pair["precision"]) for pair in card["curve"]] == [
        (0.9, 0.25, 0.5, 1.0), (0.8, 0.5, 0.5, 0.5), (0.2, 0.75, 1.0, pytest.approx(2 / 3)), (0.1, 1.0, 1.0, 0.5),
    ]  # fmt: skip


ORIGIN = {"registry_version": "3", "run_id": "r1", "experiment_id": "7"}


def test_the_evidence_of_a_model_is_aggregated_and_reading_it_is_recorded(
    serving: Any, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = measure_example()
    reports = write_reports(tmp_path / "reports", "loan_default", challenger=measure_challenger())
    monkeypatch.setenv("FINRISK_REPORTS", str(reports))
    with serving(bundles, evidence={"loan_default": example}, origins={"loan_default": ORIGIN}) as client:
        answer = client.get("/v1/model-evidence/loan_default").json()
        assert (answer["rows"], answer["events"], len(answer["calibration"])) == (2000, example["events"], 10)
        assert [[point["x"], point["y"]] for point in answer["roc"]] == example["roc"] and len(answer["roc"]) <= 100
        assert [share["share"] for share in answer["scores"]] == example["scores"]
        assert answer["scorecard"] == example["scorecard"] and answer["candidates"] == example["candidates"]
        assert answer["challenger"]["version"] == "c" * 12 and answer["origin"] == ORIGIN
        assert answer["drift"] is None, "there is no report yet"
        report = reports / "loan_default" / "newest.json"
        report.write_bytes(DRIFT)
        assert client.get("/v1/model-evidence/loan_default").json()["drift"]["columns"][0]["column"] == "score"
        write_challenger = (reports / "loan_default" / "challenger.json").write_text
        for other in (json.dumps(measure_challenger() | {"version": answer["version"][:12]}), "{", "no JSON"):
            write_challenger(other)
            assert client.get("/v1/model-evidence/loan_default").json()["challenger"] is None, "the champion itself, or no report"
        report.write_text("{")
        assert client.get("/v1/model-evidence/loan_default").json()["drift"] is None
        empty = client.get("/v1/model-evidence/cashflow").json()
        assert (empty["rows"], empty["roc"], empty["scorecard"], empty["origin"]) == (None, [], None, None)
        read_error(client.get("/v1/model-evidence/nothing"), 404, "unknown_model")
        assert len(recorded("read")) == 7


DRIFT = b"""{"champion": "aaaaaaaaaaaa", "window": "2024-06", "as_of": "2024-07-01T00:00:00+00:00", "is_confirmed": false,
"verdict": "None of 1 features moved; the score did not.",
"columns": [{"column": "score", "psi": 0.01, "psi_limit": 0.05, "p_value": 0.8, "moved": "hardly"}]}"""


def shipped_policy(**changes: tuple[str, str]) -> str:
    """Return the shipped policy's file with some values changed."""
    text = (Path(policy_file.__file__).with_name("default_policy.yaml")).read_text(encoding="utf-8")
    for old, new in changes.values():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def preview(client: TestClient, text: str) -> dict[str, Any]:
    answer = client.post("/v1/policy/preview", json={"policy": text})
    assert answer.status_code == 200, answer.text
    return {domain["domain"]: domain for domain in answer.json()["domains"]} | {"whole": answer.json()}


def test_another_policy_is_previewed_on_what_was_decided(client: TestClient, loan: Any, transaction: Any) -> None:
    answers = [client.post("/v1/spending-risk", json={"customer_id": "123"}).json(), client.post("/v1/loan-default", json=loan()).json()]
    client.post("/v1/loan-offers", json={"customer_id": "123"})
    client.post("/v1/transactions", json=transaction())
    before = stored_decisions()
    same = preview(client, shipped_policy())
    assert same["whole"]["decisions"] == 4 and same["whole"]["is_complete"]
    assert all(same[name]["changed"] == same[name]["left_out"] == 0 for name in ("spending_risk", "loan_default", "loan_offers"))
    assert same["loan_default"]["worth_before_amount"] == same["loan_default"]["worth_after_amount"]
    probability = answers[0]["risk_probability"]
    edges = {"HIGH": ("high_from: 0.7", "high_from: 0.9999"), "LOW": ("medium_from: 0.4", "medium_from: 0.9998")}
    changed = preview(client, shipped_policy(a=edges["HIGH"], b=edges["LOW"]))["spending_risk"]
    assert probability > 0.4 and (changed["decisions"], changed["changed"]) == (1, 1)
    assert [group["group"] for group in changed["groups"]] == [f"{answers[0]['risk_level']} → LOW"]
    assert changed["examples"] == [answers[0]["decision_id"]] and changed["worth_before_amount"] is None
    assert stored_decisions() == before and len(recorded("advise")) == 2


BURST = "kind: velocity, enabled: true, action: block, within_hours: 1, max_transactions: 2"


def test_a_policy_with_rules_is_previewed_from_the_history(client: TestClient, transaction: Any) -> None:
    for minutes in range(3):
        client.post("/v1/transactions", json=transaction(minutes))
    text = shipped_policy(a=("kind: velocity, enabled: false, action: review, within_hours: 1, max_transactions: 10", BURST))
    changed = preview(client, text)["transaction_anomaly"]
    assert changed["left_out"] == 0 and changed["decisions"] == 3
    assert changed["changed"] == 1 and changed["groups"][0]["group"].endswith(" → block")


def test_a_preview_stops_at_its_bounds(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from bento.insight import policy_preview

    for _ in range(3):
        client.post("/v1/spending-risk", json={"customer_id": "123"})
    monkeypatch.setattr(policy_preview, "MAX_DECISIONS", 2)
    newest = preview(client, shipped_policy())["whole"]
    assert newest["decisions"] == 2 and not newest["is_complete"]
    monkeypatch.setattr(policy_preview, "BUDGET_S", -1.0)
    assert preview(client, shipped_policy())["whole"]["decisions"] == 0


@pytest.mark.parametrize("text", ["name: [", "name: other", "a: &a [x]\nb: *a"])
def test_a_text_that_is_no_policy_is_refused(client: TestClient, text: str) -> None:
    read_error(client.post("/v1/policy/preview", json={"policy": text}), 422, "invalid_request")
    assert not recorded("advise")


def test_the_chain_is_verified_and_that_is_recorded(client: TestClient) -> None:
    client.post("/v1/spending-risk", json=EIGHT_FIELDS)
    verdict = client.get("/v1/audit/verification").json()
    assert verdict["is_whole"] and verdict["broken"] is None and verdict["records"] >= 2
    assert len(recorded("verify")) == 1


def test_one_decision_is_replayed(client: TestClient) -> None:
    decided = client.post("/v1/spending-risk", json=EIGHT_FIELDS).json()
    replayed = client.get(f"/v1/decisions/{decided['decision_id']}/replay").json()
    assert (replayed["outcome"], replayed["difference"]) == ("equal", None)
    assert (replayed["probability"], replayed["decision"]) == (decided["risk_probability"], decided["risk_level"])
    assert [row.inputs for row in recorded("replay")] == [decided["decision_id"]]
    read_error(client.get(f"/v1/decisions/{'0' * 32}/replay"), 404, "unknown_decision")
    read_error(client.get("/v1/decisions/x/replay"), 422, "invalid_request")


def test_the_decision_of_an_erased_person_is_not_replayed(client: TestClient) -> None:
    decided = client.post("/v1/spending-risk", json={"customer_id": 123}).json()
    client.delete("/v1/people/123")
    assert client.get(f"/v1/decisions/{decided['decision_id']}/replay").json()["outcome"] == "erased"
