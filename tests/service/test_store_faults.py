"""Tests of a store whose audit another program changed: every route that writes answers 503."""

import pytest
from sqlalchemy import create_engine, text

from bento.decisions.engine import capture_problem
from bento.store.audit_chain import AuditError
from bento.store.keyring import KeyringError
from tests.service.envelopes import read_error
from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS

LOAN = {"customer_id": 123, "loan_amount": 50000}
OFFER = {"features": {"expense_ratio_90d": 1.0}, "pd": 0.03, "monthly_income_amount": 2800}
SCORING = {
    "/v1/transactions": {"user_id": 5, "amount": 120.0, "timestamp": "2024-05-06T12:00:00"},
    "/v1/loan-default": LOAN,
    "/v1/spending-risk": EIGHT_FIELDS,
    "/v1/cashflow": {"features": CASHFLOW_ROW},
    "/v1/loan-offers": OFFER,
}
REQUESTS = SCORING | {"/v1/feedback": {"label": True}, "/v1/risk-scores/123": None, "/v1/audit": None}


@pytest.fixture
def broken_audit(client, serving):
    """Yield a client of a service after another program moved the head of its chain, and the id of an earlier decision."""
    decision_id = client.post("/v1/cashflow", json={"features": CASHFLOW_ROW}).json()["decision_id"]
    engine = create_engine(f"sqlite:///{serving.home / 'simulator' / 'service' / 'store.sqlite'}")
    with engine.begin() as connection:
        connection.execute(text("update audit_heads set number = number + 1 where writer <> 'checkpoints'"))
    engine.dispose()
    return client, decision_id


@pytest.mark.parametrize("route", REQUESTS)
def test_a_changed_audit_is_not_ready(broken_audit, route):
    client, decision_id = broken_audit
    body = REQUESTS[route]
    if route == "/v1/feedback":
        body = body | {"decision_id": decision_id}

    read_error(client.get(route) if body is None else client.post(route, json=body), 503, "not_ready")


@pytest.mark.parametrize("route", SCORING)
def test_a_changed_audit_fails_every_item_of_a_batch(broken_audit, route):
    client, _ = broken_audit

    response = client.post(f"{route}/batch", json={"items": [SCORING[route]] * 2})

    assert response.status_code == 200, response.text
    assert [(result["status"], result["error"]["code"]) for result in response.json()["results"]] == [(503, "not_ready")] * 2


@pytest.mark.parametrize("fault", [AuditError, KeyringError])
def test_a_fault_of_one_item_has_the_status_of_a_request_that_is_sent_alone(fault):
    def fail():
        raise fault("the audit was changed, or a key cannot be opened")

    assert capture_problem(fail).status == 503


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/people/123/export"), ("DELETE", "/v1/people/123")])
def test_a_changed_audit_fails_the_requests_about_a_person_too(broken_audit, method, path):
    client, _ = broken_audit

    read_error(client.request(method, path), 503, "not_ready")
