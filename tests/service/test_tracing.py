"""Tests of the spans of a request and its steps; `test_operations` exports spans from a served process."""

import json

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

from bento.context import span
from bento.web.metrics import Metrics
from bento.web.middleware import RequestMetrics, RequestTracing
from bento.web.tracing import create_tracer

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans():
    return InMemorySpanExporter()


def test_without_a_collector_nothing_is_traced():
    assert create_tracer({}) is None
    with span("score"):
        pass


@pytest.fixture
def traced(shared_client, spans):
    """Yield a client of a traced service, and a function for the spans by name."""
    return TestClient(
        RequestMetrics(RequestTracing(shared_client.app, create_tracer({}, exporter=spans)), Metrics()), raise_server_exceptions=False
    )


def test_a_decision_is_one_trace_that_continues_the_callers(traced, spans, transaction):
    sent = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "r1"}
    assert traced.post("/v1/transactions", json=transaction(), headers=sent).status_code == 200

    spans_by_name = {one.name: one for one in spans.get_finished_spans()}
    whole = spans_by_name["POST /v1/transactions"]
    assert {"history", "features", "score", "explain", "store"} <= set(spans_by_name)
    assert {f"{one.context.trace_id:032x}" for one in spans_by_name.values()} == {TRACE}
    assert f"{whole.parent.span_id:016x}" == CALLER
    assert spans_by_name["features"].parent.span_id == whole.context.span_id
    assert spans_by_name["history"].parent.span_id == spans_by_name["features"].context.span_id
    assert whole.attributes["http.response.status_code"] == 200


def test_no_span_holds_what_a_client_sent(traced, spans, transaction, loan):
    traced.post("/v1/transactions", json=transaction(user_id="Ada Lovelace", merchant="Babbage"))
    traced.get("/v1/risk-scores/Ada Lovelace?name=Ada")
    traced.post("/v1/loan-default", json=loan(loan_amount=None))
    traced.get("/Lovelace", headers={"user-agent": "Ada"})

    exported = json.dumps([json.loads(one.to_json()) for one in spans.get_finished_spans()])
    assert "/v1/risk-scores/{customer_id}" in exported
    for data in ("Lovelace", "Ada", "Babbage", "120.0", "testclient"):
        assert data not in exported


def test_a_failed_step_tells_its_kind_and_not_its_message(spans):
    tracer = create_tracer({}, exporter=spans)

    async def app(scope, receive, send):
        with span("store"):
            raise RuntimeError("Ada Lovelace")

    TestClient(RequestMetrics(RequestTracing(app, tracer), Metrics()), raise_server_exceptions=False).get("/v1/models")

    (step, whole) = spans.get_finished_spans()
    assert step.status.description == "RuntimeError"
    assert "Lovelace" not in step.to_json() + whole.to_json()
