"""Tests of failures: one envelope for every fault, without personal data."""

import json
import logging

import pytest

from bento.problems import MAX_BODY_BYTES
from tests.service.envelopes import read_error

LOANS, TRANSACTIONS = "/v1/loan-default", "/v1/transactions"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": -1}, "amount"),
        ({"amount": "12.5"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": None}, "amount"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": 1700000000}, "timestamp"),
        ({"direction": "sideways"}, "direction"),
        ({"merchant": ["3156"]}, "merchant"),
        ({"amuont": 3}, "amuont"),
    ],
)
def test_a_field_of_the_wrong_form_is_named(shared_client, transaction, changes, field):
    error = read_error(shared_client.post(TRANSACTIONS, json=transaction(**changes)), 422, "invalid_request")

    assert [item["field"] for item in error["fields"]] == [field]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(shared_client, transaction, number):
    body = json.dumps(transaction()).replace("120.0", number)
    response = shared_client.post(TRANSACTIONS, content=body, headers={"content-type": "application/json"})

    error = read_error(response, 422, "invalid_request")

    assert error["fields"][0]["field"] == "amount"


def test_every_missing_field_is_named(shared_client):
    error = read_error(shared_client.post(TRANSACTIONS, json={}), 422, "invalid_request")

    assert [item["field"] for item in error["fields"]] == ["user_id", "amount", "timestamp"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda features: features.update(age=3), "features.age"),
        (lambda features: features.pop("term_months"), "features.term_months"),
        (lambda features: features.update(loan_amount="much"), "features.loan_amount"),
        (lambda features: features.update(loan_amount=1e300), "features"),
        (lambda features: features.update(loan_amount=None), ""),  # trained without a stand-in
    ],
)
def test_a_loan_feature_that_cannot_be_used_is_named(shared_client, loan, change, field):
    body = loan()
    change(body["features"])
    error = read_error(shared_client.post(LOANS, json=body), 422, "invalid_request")

    assert [item["field"] for item in error["fields"]] == [field]


@pytest.mark.parametrize("body", [b"[1, 2]", b'"text"', b"3"])
def test_a_body_that_is_no_object(shared_client, body):
    error = read_error(shared_client.post(LOANS, content=body, headers={"content-type": "application/json"}), 422, "invalid_request")

    assert error["fields"] == [{"field": "", "reason": "The body must be a JSON object."}]


@pytest.mark.parametrize("body", [b"{", b"{'a': 1}", b"\xff\xfe", b"[" * 10_000])
def test_malformed_json(shared_client, body):
    read_error(shared_client.post(LOANS, content=body, headers={"content-type": "application/json"}), 400, "malformed_json")


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "application/vnd.bentoml+pickle", ""])
def test_another_content_type(shared_client, content_type):
    read_error(shared_client.post(LOANS, content=b"{}", headers={"content-type": content_type}), 415, "unsupported_media_type")


def test_no_such_route(shared_client):
    read_error(shared_client.get("/v1/nothing"), 404, "not_found")


def test_another_method(shared_client):
    response = shared_client.get(TRANSACTIONS)

    read_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_a_body_too_large_is_refused_by_its_stated_length(shared_client):
    response = shared_client.post(LOANS, content=b" " * (MAX_BODY_BYTES + 1), headers={"content-type": "application/json"})

    read_error(response, 413, "too_large")


def test_a_body_too_large_is_refused_where_its_length_is_not_stated(shared_client):
    chunks = (b" " * 1000 for _ in range(MAX_BODY_BYTES // 1000 + 2))

    read_error(shared_client.post(LOANS, content=chunks, headers={"content-type": "application/json"}), 413, "too_large")


def test_a_domain_without_a_model_says_why(serving, bundles, transaction):
    only_loans = {"loan_default": bundles["loan_default"]}
    with serving(only_loans, {"transaction_anomaly": "it has no transactions"}) as client:
        error = read_error(client.post(TRANSACTIONS, json=transaction()), 501, "model_absent")

        assert "'simulator'" in error["message"]
        assert "it has no transactions" in error["message"]
        assert client.get("/v1/models").json()["absent"] == {"transaction_anomaly": "it has no transactions"}


def test_a_failure_of_ours_is_not_blamed_on_the_client_and_tells_no_data(shared_client, transaction, monkeypatch, caplog):
    from bento.decisions.scorers.transaction import TransactionScorer
    from schemas.api import TransactionRequest

    def fail(_, sent):
        TransactionRequest(user_id=sent.user_id, amount=sent.user_id)

    monkeypatch.setattr(TransactionScorer, "prepare", fail)
    with caplog.at_level(logging.DEBUG):
        response = shared_client.post(TRANSACTIONS, json=transaction(user_id="Ada Lovelace"))

    error = read_error(response, 500, "internal_error")
    assert f"request {error['request_id']} failed with ValidationError" in caplog.text
    assert "Lovelace" not in response.text + caplog.text


def test_a_refusal_repeats_no_value_and_leaves_no_stack_trace(shared_client, transaction, caplog):
    with caplog.at_level(logging.DEBUG):
        body = transaction(user_id="Ada Lovelace", amount="secret", country={"of": "birth"})
        response = shared_client.post(TRANSACTIONS, json=body)

    read_error(response, 422, "invalid_request")
    for data in ("Lovelace", "secret", "birth"):
        assert data not in response.text + caplog.text
    assert "Traceback" not in caplog.text


def test_a_store_that_takes_no_write_is_not_ready(client, transaction):
    import bentoml

    with bentoml.get_current_service().store.reading() as connection:
        connection.exec_driver_sql("pragma query_only = on")

    read_error(client.get("/readyz"), 503, "not_ready")
    response = client.post(TRANSACTIONS, json=transaction())
    read_error(response, 503, "not_ready")
    assert response.headers["retry-after"]


def test_a_request_id_is_taken_over_or_made(shared_client):
    assert shared_client.get("/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(shared_client.get("/livez", headers={"x-request-id": "<script>"}).headers["x-request-id"]) == 32


async def raises(scope, receive, send):
    raise RuntimeError("Ada Lovelace")


def answers(status, body, content_type="application/json"):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", content_type.encode())]})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize(
    ("app", "status", "code"),
    [
        (answers(429, b'{"error": "Too many requests"}'), 429, "too_many_requests"),
        (answers(504, b'{"error": "Not able to process the request in 5 seconds"}'), 504, "timeout"),
        (answers(500, b"Internal Server Error", "text/plain"), 500, "internal_error"),
        (answers(400, b'[{"error": "BentoML\'s own"}]'), 400, "bad_request"),
        (answers(418, b""), 418, "failed"),
        (raises, 500, "internal_error"),
    ],
)
def test_what_the_layers_below_answer_gets_the_same_shape(app, status, code):
    from starlette.testclient import TestClient

    from bento.web.envelope import Envelope

    read_error(TestClient(Envelope(app)).get("/"), status, code)
