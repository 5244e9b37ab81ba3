"""Tests of feedback: joined to its decision, committed with an audit record, and part of history from its date on."""

from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from sqlalchemy import select, text

from bento.decisions import feedback
from bento.decisions.reconcile import reconcile
from bento.store.audit_chain import AuditError
from bento.store.tables import audit, decisions
from bento.store.tables import feedback as table
from finrisk_assets.ledger.sources.feedback import labels_file
from finrisk_assets.operations import load_feedback
from finrisk_assets.settings import Settings
from tests.service.conftest import START
from tests.service.envelopes import read_error

ROUTE = "/v1/feedback"


@pytest.fixture
def store(client):
    import bentoml

    return bentoml.get_current_service().store


def rows(store, what):
    with store.reading() as connection:
        return connection.execute(select(what)).all()


def test_a_label_is_joined_to_its_decision_by_its_identifier(client, store, loan):
    decided = client.post("/v1/loan-default", json=loan()).json()

    response = client.post(ROUTE, json={"decision_id": decided["decision_id"], "label": True, "note": "Ada stopped paying."})

    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["decision_id"] == decided["decision_id"]
    assert (answer["domain"], answer["label"]) == ("loan_default", True)
    assert answer["known_at"] == answer["recorded_at"]
    (row,) = rows(store, table)
    assert row.id == answer["feedback_id"]
    assert b"Ada" not in row.note
    (about,) = [one for one in rows(store, audit) if one.action == "feedback"]
    assert (about.domain, about.model_version) == ("loan_default", decided["model"]["version"])
    (stored,) = feedback.list_labels(store, "loan_default").labels
    assert (stored.answer["loan_id"], stored.label) == ("L1", True)


def test_an_item_of_a_batch_is_a_decision_as_any_other(client, store, loan):
    results = client.post("/v1/loan-default/batch", json={"items": [loan(), loan(loan_amount=20000)]}).json()["results"]
    named = [result["answer"]["decision_id"] for result in results]

    assert [one.id for one in rows(store, decisions)] == named
    assert [one.action for one in rows(store, audit)].count("decide") == 2
    assert client.post(ROUTE, json={"decision_id": named[1], "label": False}).status_code == 200


def risk_of_the_merchant(client, store, body):
    """Return the merchant's labelled history at the time of a transaction."""
    moment = datetime.fromisoformat(body["timestamp"])
    return store.history({"merchant": body["merchant"]}, moment - timedelta(days=30), moment)


def test_a_label_of_a_transaction_is_history_with_its_date(client, store, transaction):
    known = START + timedelta(days=3)
    client.post("/v1/transactions", json=transaction(transaction_id="t1"))
    assert risk_of_the_merchant(client, store, transaction(60 * 24 * 10))[0][2:] == (None, None)

    response = client.post(ROUTE, json={"transaction_id": "t1", "label": True, "known_at": known.isoformat()})

    assert response.json()["known_at"] == known.replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")
    ((_, _, fraud, known_at),) = risk_of_the_merchant(client, store, transaction(60 * 24 * 10))
    assert fraud
    assert known_at == int(known.replace(tzinfo=UTC).timestamp() * 1e6)


def test_of_several_labels_the_one_that_became_known_last_stands(client, store, transaction):
    client.post("/v1/transactions", json=transaction(transaction_id="t1"))
    for days, label in ((5, True), (9, False), (7, True)):
        body = {"transaction_id": "t1", "label": label, "known_at": (START + timedelta(days=days)).isoformat()}
        assert client.post(ROUTE, json=body).status_code == 200

    assert [one.label for one in feedback.list_labels(store, "transaction_anomaly").labels] == [True, True, False]
    assert not risk_of_the_merchant(client, store, transaction(60 * 24 * 20))[0][2]


def test_feedback_that_cannot_be_right_is_refused(client, transaction):
    client.post("/v1/transactions", json=transaction(transaction_id="t1"))
    about = {"transaction_id": "t1", "label": True}

    def refused(body, status, code):
        return [one["field"] for one in read_error(client.post(ROUTE, json=body), status, code)["fields"]]

    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert refused(about | {"known_at": tomorrow}, 422, "invalid_request") == ["known_at"]
    assert refused(about | {"known_at": (START - timedelta(days=1)).isoformat()}, 422, "invalid_request") == ["known_at"]
    assert refused(about | {"transaction_id": "nothing"}, 404, "unknown_decision") == ["transaction_id"]
    assert refused({"decision_id": "nothing", "label": True}, 404, "unknown_decision") == ["decision_id"]
    assert refused({"label": True}, 422, "invalid_request") == ["decision_id", "transaction_id"]
    assert refused(about | {"decision_id": "x"}, 422, "invalid_request") == ["transaction_id"]
    assert refused({"transaction_id": "t1"}, 422, "invalid_request") == ["label"]


def test_the_note_is_kept_from_logs_and_answers(client, transaction, caplog):
    client.post("/v1/transactions", json=transaction(transaction_id="t1"))

    answer = client.post(ROUTE, json={"transaction_id": "t1", "label": True, "note": "Ada Lovelace rang."})

    assert "Lovelace" not in answer.text + caplog.text


def test_of_an_erased_person_nothing_is_told(client, store, transaction):
    client.post("/v1/transactions", json=transaction(transaction_id="t1", user_id="ada"))
    client.post(ROUTE, json={"transaction_id": "t1", "label": True})

    assert client.delete("/v1/people/ada").status_code == 200

    assert feedback.list_labels(store, "transaction_anomaly") == ([], 0)
    read_error(client.post(ROUTE, json={"transaction_id": "t1", "label": True}), 404, "unknown_decision")


# Labels on their way to the ledger, where somebody without a key can write into the database ------------------------------------------


@pytest.fixture
def labelled(client, store, transaction):
    """Return the store of nine decisions, three of them with a label."""
    for number in range(9):
        client.post("/v1/transactions", json=transaction(number, transaction_id=f"t{number}", user_id=number))
    for number in range(3):
        client.post(ROUTE, json={"transaction_id": f"t{number}", "label": True})
    return store


def exported(serving):
    """Return what the command says of the transactions, and the labels that it writes."""
    (transactions, _) = load_feedback.load(Settings(home=serving.home))
    file = labels_file(Settings(home=serving.home).root, "transactions")
    return str(transactions), {row["key"]: row["label"] for row in pq.read_table(file).to_pylist()}


INSERTED = """
insert into feedback (id, decision, person, label, known_at, caller, at)
select decisions.id, decisions.id, decisions.person, true, genuine.known_at, genuine.caller, genuine.at
from decisions cross join (select * from feedback where position = 1) as genuine where decisions.position > 3
"""


def test_labels_that_were_inserted_by_sql_are_refused_and_counted(labelled, serving):
    with labelled.writing() as connection:
        assert connection.execute(text(INSERTED)).rowcount == 6

    told, labels = exported(serving)
    assert labels == {"t0": True, "t1": True, "t2": True}
    assert "transactions: 3 labels" in told
    assert "6 refused: the audit has no record of them" in told


@pytest.mark.parametrize("change", ["label = false", "known_at = known_at + 1", "decision = (select id from decisions where position = 9)"])
def test_a_label_that_was_changed_by_sql_is_not_the_one_that_was_recorded(labelled, serving, change):
    with labelled.writing() as connection:
        connection.execute(text(f"update feedback set {change} where position = 1"))

    with pytest.raises(AuditError, match="1 labels of the audit are missing"):
        load_feedback.load(Settings(home=serving.home))


def test_no_label_is_loaded_where_one_was_deleted_or_the_audit_was_changed(labelled, serving):
    with labelled.writing() as connection:
        connection.execute(text("delete from feedback where position = 2"))
    with pytest.raises(AuditError, match="1 labels of the audit are missing"):
        load_feedback.load(Settings(home=serving.home))

    with labelled.writing() as connection:
        connection.execute(text("drop trigger audit_no_delete"))
        connection.execute(text("delete from audit where action = 'feedback'"))
    with pytest.raises(AuditError, match="the audit is broken"):
        load_feedback.load(Settings(home=serving.home))


def test_of_two_labels_that_changed_places_the_order_is_missed_and_none_is_loaded(client, labelled, serving):
    for label in (True, False):
        client.post(ROUTE, json={"transaction_id": "t8", "label": label, "known_at": "2024-12-01T00:00:00"})
    assert exported(serving)[1]["t8"] is False
    with labelled.writing() as connection:
        for old, new in ((4, 99), (5, 4), (99, 5)):
            connection.execute(text(f"update feedback set position = {new} where position = {old}"))

    (mismatch,) = reconcile(labelled).listed
    assert mismatch.wrong == "its position was changed: the audit has another order"
    assert [label.label for label in feedback.list_labels(labelled, "transaction_anomaly").labels][:2] == [True, False]
    with pytest.raises(AuditError, match="the order of 1 labels was changed"):
        load_feedback.load(Settings(home=serving.home))


def test_labels_of_an_erased_person_are_not_missed(client, labelled, serving):
    assert client.delete("/v1/people/1").status_code == 200

    assert exported(serving)[1] == {"t0": True, "t2": True}
