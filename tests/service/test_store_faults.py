"""Tests of a store whose audit refuses records: every route that writes answers 503."""

import pytest

from bento.store.audit_chain import AuditError
from bento.store.session import Store
from tests.service.envelopes import read_error
from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS

LOAN = {"customer_id": 123, "loan_amount": 50000}
OFFER = {"features": {"expense_ratio_90d": 1.0}, "pd": 0.03, "monthly_income_amount": 2800}
REQUESTS = {
    "/v1/transactions": {"user_id": 5, "amount": 120.0, "timestamp": "2024-05-06T12:00:00"},
    "/v1/loan-default": LOAN,
    "/v1/spending-risk": EIGHT_FIELDS,
    "/v1/cashflow": {"features": CASHFLOW_ROW},
    "/v1/loan-offers": OFFER,
    "/v1/feedback": {"label": True},
    "/v1/risk-scores/123": None,
    "/v1/audit": None,
}


@pytest.fixture
def broken_audit(client, monkeypatch):
    """Yield a client of a service whose audit another process changed, and the id of an earlier decision."""
    decision_id = client.post("/v1/cashflow", json={"features": CASHFLOW_ROW}).json()["decision_id"]

    def fail(*_, **__):
        raise AuditError("the head of writer w in the audit is not where this process left it")

    monkeypatch.setattr(Store, "audit", fail)
    return client, decision_id


@pytest.mark.parametrize("route", REQUESTS)
def test_a_changed_audit_is_not_ready(broken_audit, route):
    client, decision_id = broken_audit
    body = REQUESTS[route]
    if route == "/v1/feedback":
        body = body | {"decision_id": decision_id}

    read_error(client.get(route) if body is None else client.post(route, json=body), 503, "not_ready")


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/people/123/export"), ("DELETE", "/v1/people/123")])
def test_a_changed_audit_fails_the_requests_about_a_person_too(broken_audit, method, path):
    client, _ = broken_audit

    read_error(client.request(method, path), 503, "not_ready")
