"""Tests of personal data in the service: export, erasure, audited reads, and none of it in logs or on /metrics."""

import asyncio
import logging
import re
from contextlib import closing

import pytest
from prometheus_client import REGISTRY, generate_latest
from sqlalchemy import select

from bento.service import FinRisk
from bento.store import tables
from bento.store.session import open_store
from bento.web.redact_paths import RedactCustomerPath
from finrisk_assets.settings import Settings

MARK = re.compile(r"MARK[-a-z]*[0-9a-f]{6}|7654321\.25")
CUSTOMER = "MARK-customer-5f3c9a"


def read_actions(home) -> list[tuple[str, bool]]:
    """Return the action of each audit record, and whether it names a person."""
    with closing(open_store(Settings(home=home))) as store, store.reading() as connection:
        query = select(tables.audit.c.action, tables.audit.c.person).order_by(tables.audit.c.at, tables.audit.c.number)
        return [(action, person is not None) for action, person in connection.execute(query)]


def test_a_person_is_handed_over_and_erased(client, serving, transaction):
    sent = transaction(user_id=CUSTOMER, merchant="MARK-merchant-01ab9c", amount=7654321.25, transaction_id="MARK-transaction-77ab01")
    answer = client.post("/v1/transactions", json=sent).json()

    exported = client.get(f"/v1/people/{CUSTOMER}/export")
    assert exported.status_code == 200 and exported.headers["cache-control"] == "no-store"
    export = exported.json()
    assert export["transactions"][0] | {"is_fraud": None} == {
        "transaction_id": "MARK-transaction-77ab01",
        "occurred_at": sent["timestamp"],
        "amount": 7654321.25,
        "direction": "debit",
        "merchant": "MARK-merchant-01ab9c",
        "country": None,
        "is_fraud": None,
        "label_known_at": None,
    }
    assert export["decisions"][0]["answer"]["risk_score"] == answer["risk_score"]
    assert export["decisions"][0]["request"]["merchant"] == "MARK-merchant-01ab9c"

    erased = client.delete(f"/v1/people/{CUSTOMER}")
    assert erased.status_code == 200 and erased.json()["file_wiped"] in (True, False)
    assert client.get(f"/v1/people/{CUSTOMER}/export").json()["error"]["code"] == "unknown_customer"
    assert client.delete(f"/v1/people/{CUSTOMER}").status_code == 404
    again = client.post("/v1/transactions", json=sent)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    assert read_actions(serving.home)[-3:] == [("decide", True), ("export", True), ("erase", True)]


def test_a_look_up_of_stored_scores_is_recorded(client, serving):
    assert client.get("/v1/risk-scores/123").status_code == 200
    assert client.get("/v1/risk-scores/nobody").status_code == 404
    assert read_actions(serving.home)[-1] == ("read", True)


def test_what_is_asked_of_people_is_documented(shared_client):
    paths = shared_client.get("/openapi.json").json()["paths"]
    export, erasure = paths["/v1/people/{customer_id}/export"]["get"], paths["/v1/people/{customer_id}"]["delete"]
    assert "Kept are transactions" in export["description"] and "cannot be undone" in erasure["description"]


def test_nothing_personal_stands_in_logs_or_metrics(client, serving, transaction, caplog: pytest.LogCaptureFixture, capfd):
    caplog.set_level(logging.DEBUG)
    for logger in ("bentoml", "finrisk", "uvicorn"):
        logging.getLogger(logger).setLevel(logging.DEBUG)
    sent = transaction(user_id=CUSTOMER, merchant="MARK-merchant-01ab9c", amount=7654321.25, transaction_id="MARK-transaction-77ab01")
    assert client.post("/v1/transactions", json=sent).status_code == 200
    assert client.post("/v1/transactions", json=sent | {"amount": 1.0}).status_code == 409
    assert client.post("/v1/transactions", json=sent | {"country": ["MARK-country-ab12cd"]}).status_code == 422
    assert client.post("/v1/transactions/batch", json={"items": [sent, sent | {"MARK-field-9a9a9a": 1}]}).status_code in (200, 207)
    assert client.post("/v1/loan-default", json={"customer_id": "MARK-loan-1234ab"}).status_code in (404, 422)
    assert client.post(
        "/v1/feedback", json={"transaction_id": sent["transaction_id"], "label": True, "note": "MARK-note-4e4e4e"}
    ).is_success
    for path in ("/v1/risk-scores/MARK-score-11aa22", f"/v1/people/{CUSTOMER}/export", f"/v1/people/{CUSTOMER}", "/v1/MARK-route-33bb44"):
        client.get(path)
    client.delete("/v1/people/MARK-customer-000000/export")
    assert client.delete(f"/v1/people/{CUSTOMER}").status_code == 200
    # A store that fails in the middle of a request.
    store = open_store(Settings(home=serving.home))
    store.close()
    store.database.file.rename(store.database.file.with_suffix(".away"))
    assert client.post("/v1/transactions", json=sent | {"transaction_id": "MARK-transaction-88cd02"}).status_code == 503
    assert client.get(f"/v1/people/{CUSTOMER}/export").status_code == 503
    counted = generate_latest(FinRisk.counters.registry) + generate_latest(REGISTRY)

    out, err = capfd.readouterr()
    lines = [logging.Formatter("%(message)s").format(record) for record in caplog.records if not record.name.startswith("httpx")]
    assert any("failed with" in line for line in lines)
    assert [line for line in (*lines, *out.splitlines(), *err.splitlines()) if MARK.search(line)] == []
    assert b"/v1/people/{customer_id}/export" in counted and not MARK.search(counted.decode())


@pytest.mark.parametrize(
    ("path", "inner", "customer"),
    [
        ("/v1/risk-scores/5", "/v1/risk-scores/{customer_id}", "5"),
        ("/v1/risk-scores/5%2F6", "/v1/risk-scores/{customer_id}", "5/6"),
        ("/v1/risk-scores/5/6", "/v1/risk-scores/5/6", None),
        ("/v1/people/5/export", "/v1/people/{customer_id}/export", "5"),
        ("/v1/people/a%2Fb/export", "/v1/people/{customer_id}/export", "a/b"),
        ("/v1/people/5%2Fexport", "/v1/people/{customer_id}", "5/export"),
        ("/v1/people/5", "/v1/people/{customer_id}", "5"),
        ("/v1/people/", "/v1/people/", None),
        ("/v1/models", "/v1/models", None),
    ],
)
def test_a_path_is_counted_without_whom_it_names(path: str, inner: str, customer: str | None):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope)

    asyncio.run(RedactCustomerPath(app)({"type": "http", "path": path, "raw_path": path.encode()}, None, None))
    assert (seen["path"], seen["raw_path"], seen.get("finrisk.customer_id")) == (inner, inner.encode(), customer)
