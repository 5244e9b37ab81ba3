"""Tests of alerts: opened with their decision, paged by expected loss, claimed by one, closed with a reason that labels the decision."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select, text

from bento.alerts.alert_details import read_alert
from bento.alerts.alert_queue import build_page_query, claim_alert, dispose_alert, dispose_alerts, list_alerts, release_alert
from bento.context import Caller, current_caller
from bento.decisions import feedback
from bento.decisions.reconcile import reconcile
from bento.people import data_rights, retention
from bento.problems import Problem
from bento.store import audit_verify
from bento.store.records import UNKNOWN_LOSS
from bento.store.session import Store
from bento.store.tables import alerts, audit, decisions
from bento.store.tables import feedback as labels
from finrisk_assets.domains.transaction_anomaly.catalogue import LABEL_DELAY_S
from finrisk_assets.ledger.sources.feedback import labels_file
from finrisk_assets.operations import load_feedback
from finrisk_assets.settings import Settings
from schemas.alert_api import AlertQuery, BulkDispositionRequest, ClaimRequest, DispositionRequest, ReleaseRequest
from schemas.api import TransactionRequest
from tests.service.conftest import START, write_transaction_bundle
from tests.service.databases import store_at
from tests.service.test_record_tiers import Desk
from tests.service.test_rules import policy_of

REVIEW = {"name": "limit", "kind": "amount_limit", "enabled": True, "action": "review", "from_amount": 100}
BLOCK = {"name": "blocked", "kind": "country", "enabled": True, "action": "block", "countries": ["KP"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a bundle whose score is a probability, so that an expected loss is known; of itself it reviews nothing."""
    folder = tmp_path_factory.mktemp("worth") / "bundle"
    return {"transaction_anomaly": write_transaction_bundle(folder, review_loss=1e9, block=1.1)}


@pytest.fixture
def desk(store: Store, folders: dict[str, Path]) -> Desk:
    return Desk(store, folders, policy_of((REVIEW, BLOCK)))


def decide(desk: Desk, name: str, amount: float = 500.0, *, user: str = "5", minutes: int = 0, **more: Any) -> dict[str, Any]:
    moment = (START + timedelta(minutes=minutes)).isoformat()
    request = TransactionRequest(transaction_id=name, user_id=user, amount=amount, timestamp=moment, **{"merchant": "m1"} | more)
    answer: dict[str, Any] = json.loads(desk.decide(request).body)
    return answer


@contextmanager
def acting(name: str, role: str = "analyst") -> Iterator[None]:
    token = current_caller.set(Caller(name, frozenset({role})))
    try:
        yield
    finally:
        current_caller.reset(token)


def rows(store: Store, table: Any) -> list[Any]:
    with store.reading() as connection:
        return list(connection.execute(select(table).order_by(*table.primary_key)).all())


def faults(store: Store) -> list[str]:
    broken = audit_verify.verify(store.database, store.keyring).broken
    return [] if broken is not None else [str(mismatch) for mismatch in reconcile(store).listed]


def close(store: Store, alert_id: str, version: int = 1, disposition: str = "fraud", reason: str = "Ada did not pay this.") -> Any:
    return dispose_alert(store, DispositionRequest.model_validate(
        {"alert_id": alert_id, "version": version, "disposition": disposition, "reason": reason}
    ))  # fmt: skip


# Opening -------------------------------------------------------------------------------------------------------------------------


def test_a_reviewed_or_blocked_transaction_opens_an_alert_and_an_allowed_one_does_not(desk: Desk) -> None:
    answers = [decide(desk, "a"), decide(desk, "b", 10.0), decide(desk, "c", country="KP", user="6")]
    assert [answer["decision"] for answer in answers] == ["review", "allow", "block"]
    page = list_alerts(desk.store, AlertQuery(order="newest"))
    assert [(alert.alert_id, alert.decision) for alert in page.alerts] == [
        (answers[2]["decision_id"], "block"), (answers[0]["decision_id"], "review"),
    ]  # fmt: skip
    first = page.alerts[1]
    assert first.expected_loss_amount == answers[0]["expected_loss_amount"] is not None
    assert (first.state, first.version, first.assignee, page.next) == ("open", 1, None, None)
    opened = [record for record in rows(desk.store, audit) if record.action == "alert.open"]
    assert {record.inputs for record in opened} == {alert.alert_id for alert in page.alerts}
    assert faults(desk.store) == []


def test_a_repeated_transaction_opens_no_second_alert(desk: Desk) -> None:
    assert decide(desk, "a") == decide(desk, "a")
    assert len(rows(desk.store, alerts)) == 1


def test_where_the_decision_is_not_committed_there_is_no_alert(desk: Desk) -> None:
    with pytest.raises(RuntimeError, match="the answer is lost"), desk.store.writing():
        decide(desk, "a")
        raise RuntimeError("the answer is lost")
    assert (rows(desk.store, alerts), rows(desk.store, decisions)) == ([], [])


def test_a_score_that_is_no_probability_has_no_expected_loss_and_stands_last(store: Store, bundles: dict[str, Path], folders: Any) -> None:
    unknown = Desk(store, {"transaction_anomaly": bundles["transaction_anomaly"]}, policy_of((REVIEW,)))
    decide(unknown, "unknown", 900.0)
    decide(Desk(store, folders, policy_of((REVIEW,))), "known", 200.0, user="6")
    amounts = [alert.expected_loss_amount for alert in list_alerts(store, AlertQuery()).alerts]
    assert amounts[0] is not None and amounts[1] is None
    assert {row.expected_loss for row in rows(store, alerts)} > {UNKNOWN_LOSS}


# Paging --------------------------------------------------------------------------------------------------------------------------


def fill(store: Store, n: int) -> None:
    """Insert alerts of equal and of different losses, without decisions."""
    with store.writing() as connection:
        connection.execute(
            alerts.insert(),
            [
                {
                    "decision": f"{number:032x}", "outcome": "block" if number % 10 == 0 else "review", "opened_at": number,
                    "expected_loss": float(number * 7919 % 97) + 0.1 if number % 13 else UNKNOWN_LOSS, "version": 1,
                    "state": ("open", "open", "claimed", "closed")[number % 4], "assignee": (None, None, "key:1", "key:2")[number % 4],
                }
                for number in range(n)
            ],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("filters", "fits"),
    [
        ({}, lambda row: row.state == "open"),
        ({"state": "claimed", "assignee": "me"}, lambda row: row.state == "claimed" and row.assignee == "key:1"),
        ({"state": "closed", "assignee": "key:2"}, lambda row: row.state == "closed"),
        ({"decision": "block"}, lambda row: row.state == "open" and row.outcome == "block"),
        ({"min_expected_loss_amount": 50.0}, lambda row: row.state == "open" and row.expected_loss >= 50),
        ({"order": "newest"}, lambda row: row.state == "open"),
    ],
)
def test_pages_have_every_alert_once_in_their_order(store: Store, filters: dict[str, Any], fits: Any) -> None:
    fill(store, 400)
    found, cursor, sizes = [], None, []
    with acting("key:1"):
        while True:
            page = list_alerts(store, AlertQuery(**filters, limit=7, cursor=cursor))
            found += [alert.alert_id for alert in page.alerts]
            sizes.append(len(page.alerts))
            cursor = page.next
            if cursor is None:
                break
    expected = sorted(
        filter(fits, rows(store, alerts)),
        key=lambda row: (-row.position,) if filters.get("order") == "newest" else (-row.expected_loss, -row.position),
    )
    assert found == [row.decision for row in expected] and len(found) > 3
    assert set(sizes[:-1]) <= {7}
    assert [record.domain for record in rows(store, audit) if record.action == "read"] == ["alerts"] * len(sizes)


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "alerts_by_loss"),
        ({"cursor": "50.1_70"}, "alerts_by_loss"),
        ({"min_expected_loss_amount": 5.0, "decision": "block"}, "alerts_by_loss"),
        ({"order": "newest"}, "alerts_by_time"),
        ({"assignee": "key:1", "state": "claimed"}, "alerts_by_assignee"),
    ],
)
def test_a_page_is_read_in_the_order_of_an_index_and_never_sorted(tmp_path: Path, filters: dict[str, Any], index: str) -> None:
    with closing(store_at(tmp_path / "store.sqlite")) as store:
        fill(store, 2_000)
        with store.writing() as connection:
            compiled = build_page_query(AlertQuery(**filters)).compile(connection, compile_kwargs={"literal_binds": True})
            plan = " ".join(row[3] for row in connection.exec_driver_sql(f"explain query plan {compiled}"))
    assert index in plan and "TEMP B-TREE" not in plan and "SCAN" not in plan, plan


# Claiming ------------------------------------------------------------------------------------------------------------------------


def test_one_of_two_gets_the_alert_and_a_repeated_claim_has_the_same_result(desk: Desk) -> None:
    alert_id = decide(desk, "a")["decision_id"]
    with acting("key:1"):
        claimed = claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=1))
        assert (claimed.state, claimed.assignee, claimed.version) == ("claimed", "key:1", 2)
        assert claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=1)) == claimed
    with acting("key:2"):
        with pytest.raises(Problem) as refused:
            claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=1))
        assert (refused.value.status, refused.value.code) == (409, "conflict")
        assert refused.value.message.startswith("A colleague has claimed the alert; claim it first to take it over. Read it again")
        with pytest.raises(Problem):
            close(desk.store, alert_id, 2)  # a colleague's
        assert claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=2)).assignee == "key:2"
    assert [record.caller for record in rows(desk.store, audit) if record.action == "alert.claim"] == ["key:1", "key:2"]
    assert faults(desk.store) == []


def test_of_many_claims_at_once_one_alone_succeeds(desk: Desk) -> None:
    alert_id = decide(desk, "a")["decision_id"]

    def claim(name: str) -> bool:
        with acting(name):
            try:
                claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=1))
            except Problem:
                return False
            return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(claim, [f"key:{number}" for number in range(16)])) == 1
    assert [row.version for row in rows(desk.store, alerts)] == [2]


def test_who_claimed_an_alert_or_a_supervisor_opens_it_again(desk: Desk) -> None:
    alert_id = decide(desk, "a")["decision_id"]
    with acting("key:1"):
        before = list_alerts(desk.store, AlertQuery()).alerts[0]
        claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=1))
        released = release_alert(desk.store, ReleaseRequest(alert_id=alert_id, version=2))
        assert released == before.model_copy(update={"version": 3})
        assert release_alert(desk.store, ReleaseRequest(alert_id=alert_id, version=2)) == released  # sent again
        assert list_alerts(desk.store, AlertQuery()).alerts == [released]
        claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=3))
    with acting("key:2"), pytest.raises(Problem) as refused:
        release_alert(desk.store, ReleaseRequest(alert_id=alert_id, version=4))
    assert (refused.value.status, refused.value.message.split(";")[0]) == (409, "A colleague has claimed the alert")
    for role in ("supervisor", "admin"):
        with acting("key:1"):
            version = list_alerts(desk.store, AlertQuery(state="claimed")).alerts[0].version
        with acting("key:3", role):
            assert release_alert(desk.store, ReleaseRequest(alert_id=alert_id, version=version)).state == "open"
        with acting("key:1"):
            claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=version + 1))
    records = [(record.action, record.caller) for record in rows(desk.store, audit) if record.action.startswith("alert.")][1:]
    of_supervisors = [("alert.release", "key:3"), ("alert.claim", "key:1")] * 2
    assert records == [("alert.claim", "key:1"), ("alert.release", "key:1"), ("alert.claim", "key:1"), *of_supervisors]
    assert faults(desk.store) == []


def test_what_is_not_claimed_or_has_changed_since_is_not_released(desk: Desk) -> None:
    alert_id = decide(desk, "a")["decision_id"]

    def refuse(version: int) -> str:
        with pytest.raises(Problem) as refused:
            release_alert(desk.store, ReleaseRequest(alert_id=alert_id, version=version))
        assert (refused.value.status, refused.value.code) == (409, "conflict")
        return refused.value.message.split(".")[0]

    with acting("key:1"):
        assert refuse(1) == "Nobody has claimed the alert"
        claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=1))
        assert refuse(1) == refuse(3) == "The alert has changed since this version"
        close(desk.store, alert_id, 2)
        assert refuse(2) == refuse(3) == "The alert is closed"
    assert [row.state for row in rows(desk.store, alerts)] == ["closed"]
    assert "alert.release" not in {record.action for record in rows(desk.store, audit)}
    assert faults(desk.store) == []


def test_an_unknown_alert_is_not_found(store: Store) -> None:
    for call in (
        lambda: claim_alert(store, ClaimRequest(alert_id="0" * 32, version=1)),
        lambda: release_alert(store, ReleaseRequest(alert_id="0" * 32, version=1)),
        lambda: close(store, "0" * 32),
        lambda: read_alert(store, "0" * 32),
    ):
        with pytest.raises(Problem) as refused:
            call()
        assert (refused.value.status, refused.value.code) == (404, "unknown_alert")


# Closing -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("disposition", "label"), [("fraud", True), ("genuine", False), ("undetermined", None)])
def test_a_disposition_closes_the_alert_and_labels_the_decision(desk: Desk, disposition: str, label: bool | None) -> None:
    alert_id = decide(desk, "a")["decision_id"]
    with acting("key:1"):
        closed = close(desk.store, alert_id, disposition=disposition)
        assert close(desk.store, alert_id, disposition=disposition) == closed  # sent again
    assert (closed.state, closed.disposition, closed.assignee, closed.version) == ("closed", disposition, "key:1", 2)
    known_at = rows(desk.store, alerts)[0].closed_at
    expected = [] if label is None else [(alert_id, label, known_at)]
    assert [(row.decision, bool(row.label), row.known_at) for row in rows(desk.store, labels)] == expected
    assert b"Ada" not in rows(desk.store, alerts)[0].reason
    assert [one.label for one in feedback.list_labels(desk.store, "transaction_anomaly").labels] == ([] if label is None else [label])
    with pytest.raises(Problem) as refused:
        close(desk.store, alert_id, 2, "genuine")
    assert refused.value.message == "The alert is closed. Read it again: its version is 2."
    with pytest.raises(Problem):
        claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=2))
    assert faults(desk.store) == []


def test_a_reason_is_required() -> None:
    for reason in ("", "  ", "   \n"):
        with pytest.raises(ValueError, match="reason"):
            DispositionRequest(alert_id="0" * 32, version=1, disposition="fraud", reason=reason)
    with pytest.raises(ValueError, match="reason"):
        DispositionRequest.model_validate({"alert_id": "0" * 32, "version": 1, "disposition": "fraud"})


def test_many_are_closed_at_once_each_on_its_own(desk: Desk) -> None:
    ids = [decide(desk, name, minutes=at)["decision_id"] for at, name in enumerate("abc")]
    with acting("key:2"):
        claim_alert(desk.store, ClaimRequest(alert_id=ids[1], version=1))
    seen = [{"alert_id": alert_id, "version": 1} for alert_id in (*ids, "0" * 32)]
    with acting("key:1"):
        answer = dispose_alerts(
            desk.store, BulkDispositionRequest.model_validate({"alerts": seen, "disposition": "genuine", "reason": "A known sale."})
        )
    assert [result.status for result in answer.results] == [200, 409, 200, 404]
    assert [result.error and result.error.code for result in answer.results] == [None, "conflict", None, "unknown_alert"]
    assert [row.state for row in rows(desk.store, alerts)] == ["closed", "claimed", "closed"]
    assert {row.decision for row in rows(desk.store, labels)} == {ids[0], ids[2]}
    assert faults(desk.store) == []


def test_a_disposition_reaches_training_only_once_labels_of_its_transaction_are_due(tmp_path: Path, folders: dict[str, Path]) -> None:
    import pandas as pd

    from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY

    settings = Settings(home=tmp_path)
    from bento.store.session import open_store

    closed_at = START + timedelta(days=2)
    with closing(open_store(settings, clock=lambda: int((closed_at - datetime(1970, 1, 1)).total_seconds() * 1e6))) as store:
        alert_id = decide(Desk(store, folders, policy_of((REVIEW,))), "t-1")["decision_id"]
        close(store, alert_id)
    (file,) = [one for one in load_feedback.load(settings) if one.table == "transactions"]
    assert (file.labels, file.refused, file.months) == (1, 0, ("2024-05",))
    (label,) = pq.read_table(labels_file(settings.root, "transactions")).to_pylist()
    assert label == {"key": "t-1", "label": True, "known_at": closed_at}

    frame = pd.DataFrame({"occurred_at": [START], "is_fraud": [label["label"]], "label_known_at": [label["known_at"]]})
    due = START + timedelta(seconds=LABEL_DELAY_S)
    for now, rows_of_training in ((closed_at - timedelta(hours=1), 0), (closed_at, 0), (due - timedelta(hours=1), 0), (due, 1)):
        assert len(TRANSACTION_ANOMALY.labelled_rows(frame, Settings(home=tmp_path, as_of=now))) == rows_of_training


# Details, rights of people, integrity ---------------------------------------------------------------------------------------------


def test_the_details_show_the_decision_and_related_ones_without_naming_others(desk: Desk) -> None:
    decide(desk, "before", 20.0, minutes=1, merchant="m2")
    decide(desk, "other", 300.0, user="MARK-other", minutes=2)
    answer = decide(desk, "a", minutes=3)
    with acting("key:1"):
        close(desk.store, answer["decision_id"])
        shown = read_alert(desk.store, answer["decision_id"])
    assert (shown.request["user_id"], shown.request["amount"], shown.reason) == ("5", 500.0, "Ada did not pay this.")
    assert shown.answer == answer and shown.answer["rules"][0]["name"] == "limit"
    assert [(one.amount, one.decision, one.alert_state) for one in shown.same_person] == [(20.0, "allow", None)]
    assert [(one.amount, one.decision, one.alert_state) for one in shown.same_merchant] == [(300.0, "review", "open")]
    assert "MARK" not in shown.model_dump_json()
    read = [record for record in rows(desk.store, audit) if record.action == "read"]
    assert [(record.caller, record.inputs) for record in read] == [("key:1", answer["decision_id"])]


def test_an_erasure_takes_the_alerts_of_a_person_and_an_export_shows_them(desk: Desk) -> None:
    mine, other = decide(desk, "a")["decision_id"], decide(desk, "b", user="6")["decision_id"]
    close(desk.store, mine)
    (exported,) = data_rights.export(desk.store, "5").alerts
    assert (exported["alert_id"], exported["reason"], exported["state"]) == (mine, "Ada did not pay this.", "closed")
    data_rights.erase(desk.store, "5")
    assert [row.decision for row in rows(desk.store, alerts)] == [other]
    assert faults(desk.store) == []
    with pytest.raises(Problem):
        read_alert(desk.store, mine)


def test_retention_deletes_alerts_with_their_decisions(desk: Desk) -> None:
    decide(desk, "a")
    later = desk.store.clock() + 200 * 86_400_000_000
    desk.store.clock = lambda: later
    retention.retain(desk.store, 100)
    assert rows(desk.store, alerts) == [] == rows(desk.store, decisions)
    assert faults(desk.store) == []


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("update alerts set assignee = 'key:9'", "no audit record has its content"),
        ("update alerts set expected_loss = 0", "no audit record has its content"),
        ("update alerts set state = 'open', version = 1, assignee = null, claimed_at = null", "a later change of it is recorded"),
        ("delete from alerts", "it is recorded, and its row is missing"),
    ],
)
def test_what_is_changed_in_the_database_is_found(desk: Desk, statement: str, fault: str) -> None:
    alert_id = decide(desk, "a")["decision_id"]
    claim_alert(desk.store, ClaimRequest(alert_id=alert_id, version=1))
    with desk.store.database.writing() as connection:
        connection.execute(text(statement))
    (found,) = faults(desk.store)
    assert fault in found


# Over HTTP -----------------------------------------------------------------------------------------------------------------------


def test_the_routes_list_claim_show_and_close(serving: Any, folders: Any, tmp_path: Path, monkeypatch: Any, transaction: Any) -> None:
    import yaml

    file = tmp_path / "ruled.yaml"
    file.write_text(yaml.safe_dump(policy_of((REVIEW,)).model_dump(mode="json")))
    monkeypatch.setenv("FINRISK_POLICY", str(file))
    with serving(folders) as client:
        items = [transaction(minutes, amount=200.0 + minutes, user_id=minutes) for minutes in range(4)]
        ids = [result["answer"]["decision_id"] for result in client.post("/v1/transactions/batch", json={"items": items}).json()["results"]]
        page = client.get("/v1/alerts", params={"limit": 3}).json()
        rest = client.get("/v1/alerts", params={"limit": 3, "cursor": page["next"]}).json()
        assert {alert["alert_id"] for alert in [*page["alerts"], *rest["alerts"]]} == set(ids) and rest["next"] is None
        claimed = client.post("/v1/alerts/claim", json={"alert_id": ids[0], "version": 1}).json()
        assert (claimed["state"], claimed["assignee"]) == ("claimed", "local")
        released = client.post("/v1/alerts/release", json={"alert_id": ids[0], "version": 2}).json()
        assert (released["state"], released["assignee"], released["version"]) == ("open", None, 3)
        client.post("/v1/alerts/claim", json={"alert_id": ids[0], "version": 3})
        assert client.get(f"/v1/alerts/{ids[0]}").json()["request"]["amount"] == 200.0
        body = {"alert_id": ids[0], "version": 4, "disposition": "fraud", "reason": "Ada did not pay this."}
        closed = client.post("/v1/alerts/dispose", json=body)
        assert (closed.status_code, closed.json()["state"]) == (200, "closed"), closed.text
        many = {"alerts": [{"alert_id": one, "version": 1} for one in ids[1:]], "disposition": "genuine", "reason": "A known sale."}
        results = client.post("/v1/alerts/dispose/bulk", json=many).json()["results"]
        assert [result["status"] for result in results] == [200, 200, 200]
        assert client.get("/v1/alerts").json() == {"alerts": [], "next": None}
        assert len(client.get("/v1/alerts", params={"state": "closed", "assignee": "me"}).json()["alerts"]) == 4
        for route, params in (("/v1/alerts", {"cursor": "x"}), ("/v1/alerts", {"order": "size"}), ("/v1/alerts/MARK", {})):
            assert client.get(route, params=params).status_code == 422
        assert client.post("/v1/alerts/dispose", json=body | {"reason": " "}).status_code == 422
        refused = client.post("/v1/alerts/claim", json={"alert_id": ids[0], "version": 3})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
