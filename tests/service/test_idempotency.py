"""Tests of idempotency: a repeated request gets the same answer, byte for byte, and writes nothing."""

from contextlib import closing

import pytest

from bento.store.session import open_store
from finrisk_assets.settings import Settings
from tests.service.envelopes import read_error
from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS

OFFER = {"features": {"expense_ratio_90d": 1.0}, "pd": 0.03, "monthly_income_amount": 2800}
KEY = {"Idempotency-Key": "k-1"}


@pytest.fixture
def bodies(transaction, loan):
    return {
        "transactions": (transaction(), transaction(amount=7.0)),
        "loan-default": (loan(), loan(loan_amount=9001)),
        "spending-risk": (EIGHT_FIELDS, EIGHT_FIELDS | {"Low_Balance_Freq": 30}),
        "cashflow": ({"features": CASHFLOW_ROW}, {"account_id": "A7"}),
        "loan-offers": (OFFER, OFFER | {"pd": 0.04}),
    }


def count_rows(home):
    """Return the number of decisions, audit records and transactions in the store."""
    with closing(open_store(Settings(home=home))) as store, store.reading() as connection:
        return [connection.exec_driver_sql(f"select count(*) from {table}").scalar() for table in ("decisions", "audit", "transactions")]


def test_every_scoring_route_takes_a_key(serving, bundles, bodies):
    with serving(bundles) as client:
        for number, (route, (body, other)) in enumerate(bodies.items()):
            key = {"Idempotency-Key": f"k-{number}"}
            first = client.post(f"/v1/{route}", json=body, headers=key)
            before = count_rows(serving.home)
            again = client.post(f"/v1/{route}", json=body, headers=key)

            assert first.status_code == 200, first.text
            assert again.content == first.content
            assert first.json()["decision_id"]
            read_error(client.post(f"/v1/{route}", json=other, headers=key), 409, "conflict")
            assert count_rows(serving.home) == before
    assert count_rows(serving.home)[:2] == [5, 5]


def test_a_key_belongs_to_one_request_of_all_routes(serving, bundles, bodies):
    with serving(bundles) as client:
        assert client.post("/v1/cashflow", json=bodies["cashflow"][0], headers=KEY).status_code == 200
        read_error(client.post("/v1/loan-default", json=bodies["loan-default"][0], headers=KEY), 409, "conflict")


def test_without_a_key_the_same_request_is_a_decision_of_its_own(client, bodies):
    first, second = (client.post("/v1/cashflow", json=bodies["cashflow"][0]).json() for _ in range(2))
    assert first["decision_id"] != second["decision_id"]


def test_in_a_batch_a_key_stands_for_each_item_at_its_place(serving, bundles, bodies):
    with serving(bundles) as client:
        for route in ("cashflow", "transactions"):
            key = {"Idempotency-Key": route}
            items = [*bodies[route], {"no": "request"}]
            first = client.post(f"/v1/{route}/batch", json={"items": items}, headers=key)
            before = count_rows(serving.home)
            again = client.post(f"/v1/{route}/batch", json={"items": items}, headers=key)
            turned = client.post(f"/v1/{route}/batch", json={"items": items[1::-1]}, headers=key)

            assert [one["status"] for one in first.json()["results"]] == [200, 200, 422]
            assert [one["answer"] for one in again.json()["results"]] == [one["answer"] for one in first.json()["results"]]
            assert [one["status"] for one in turned.json()["results"]] == [409, 409]
            assert count_rows(serving.home) == before


@pytest.mark.parametrize("key", ["", "with space", "x" * 129, "ä"])
def test_a_key_that_is_none_is_refused(shared_client, key):
    sent = {"Idempotency-Key": key.encode()}
    read_error(shared_client.post("/v1/cashflow", json={"features": CASHFLOW_ROW}, headers=sent), 400, "bad_request")
    assert (
        shared_client.post("/v1/cashflow", json={"features": CASHFLOW_ROW}, headers={"Idempotency-Key": "!" + "~" * 127}).status_code == 200
    )
