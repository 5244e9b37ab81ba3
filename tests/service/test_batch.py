"""Tests of batches: one result per item, equal to the single answer, and no effect of an item's failure on the others."""

import json

import numpy as np
import pytest

from bento.problems import MAX_BATCH_BYTES, MAX_BODY_BYTES
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import MOST_ITEMS, MOST_TRANSACTIONS
from tests.service.envelopes import read_error
from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS, LOAN_FEATURES

OFFER = {"features": {"expense_ratio_90d": 1.0}, "pd": 0.03, "monthly_income_amount": 2800}
BODIES = {
    "loan-default": [
        {"loan_id": "L1", "features": {"loan_amount": 9000, "term_months": 24, "balance_mean_30d": 4000.5, "is_urban": True,
                                       "instalment_to_usual_income": 0.2}},
        {"customer_id": 123, "loan_amount": 50000},
        {"customer_id": 123, "loan_amount": 8000, "term_months": 60},
    ],
    "spending-risk": [EIGHT_FIELDS, {"customer_id": 123}, EIGHT_FIELDS | {"Low_Balance_Freq": 30}],
    "cashflow": [{"account_id": "A123"}, {"features": CASHFLOW_ROW}, {"features": CASHFLOW_ROW | {"net_flow_30d": 900}}],
    "loan-offers": [{"customer_id": 123}, OFFER, OFFER | {"pd": 0.9}],
}  # fmt: skip
NOT_COMPARED = {"decision_id"}
"""Every decision has its own."""


def without_decision_id(answer):
    return {name: value for name, value in answer.items() if name not in NOT_COMPARED}


@pytest.mark.parametrize("domain", BODIES)
def test_each_item_gets_what_it_would_have_got_alone(shared_client, domain):
    alone = [shared_client.post(f"/v1/{domain}", json=body) for body in BODIES[domain]]
    together = shared_client.post(f"/v1/{domain}/batch", json={"items": BODIES[domain]})

    assert together.status_code == 200, together.text
    results = together.json()["results"]
    assert [result["status"] for result in results] == [200] * len(alone)
    assert [without_decision_id(result["answer"]) for result in results] == [without_decision_id(one.json()) for one in alone]


def test_a_bad_row_harms_no_other(shared_client, loan):
    good = loan()
    items = [
        good, {"features": {}}, 5, None, {"customer_id": "nobody", "loan_amount": 10}, loan(loan_amount=None), good | {"colour": "red"},
        loan(balance_mean_30d="much"), good,
    ]  # fmt: skip

    results = shared_client.post("/v1/loan-default/batch", json={"items": items}).json()["results"]

    assert [result["status"] for result in results] == [200, 422, 422, 422, 404, 422, 422, 422, 200]
    assert (
        without_decision_id(results[0]["answer"])
        == without_decision_id(results[-1]["answer"])
        == without_decision_id(shared_client.post("/v1/loan-default", json=good).json())
    )
    for result in results[1:-1]:
        assert result["answer"] is None
        assert result["error"]["message"]
    assert [one["field"] for one in results[6]["error"]["fields"]] == ["colour"]
    assert [one["field"] for one in results[7]["error"]["fields"]] == ["features.balance_mean_30d"]
    assert {field["field"] for field in results[1]["error"]["fields"]} == {f"features.{feature.name}" for feature in LOAN_FEATURES}


def test_a_batch_has_a_largest_size(shared_client):
    body = {"items": [{"customer_id": 123}] * (MOST_ITEMS + 1)}
    error = read_error(shared_client.post("/v1/cashflow/batch", json=body), 422, "invalid_request")
    assert [one["field"] for one in error["fields"]] == ["items"]

    read_error(shared_client.post("/v1/cashflow/batch", json={"items": []}), 422, "invalid_request")
    read_error(shared_client.post("/v1/transactions/batch", json={"items": [{}] * (MOST_TRANSACTIONS + 1)}), 422, "invalid_request")
    assert shared_client.post("/v1/cashflow/batch", json={"items": body["items"][:MOST_ITEMS]}).status_code == 200


def test_a_batch_may_be_larger_than_a_single_request(shared_client):
    def sent(route, size):
        body = json.dumps({"items": [{"customer_id": "x" * 100}]}).encode()
        return shared_client.post(route, content=body + b" " * (size - len(body)), headers={"content-type": "application/json"})

    assert sent("/v1/cashflow/batch", MAX_BODY_BYTES + 1).status_code == 200
    read_error(sent("/v1/cashflow/batch", MAX_BATCH_BYTES + 1), 413, "too_large")
    read_error(sent("/v1/cashflow", MAX_BODY_BYTES + 1), 413, "too_large")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused_in_a_batch_too(shared_client, number):
    body = '{"items":[{"customer_id":123,"loan_amount":NUMBER},{"customer_id":123,"loan_amount":5000}]}'.replace("NUMBER", number)
    response = shared_client.post("/v1/loan-default/batch", content=body, headers={"content-type": "application/json"})

    assert [result["status"] for result in response.json()["results"]] == [422, 200]


def test_a_matrix_scores_as_its_rows_do_to_the_last_digit(bundles):
    for folder in bundles.values():
        bundle = Bundle.load(folder)
        golden = np.random.default_rng(3).uniform(0.1, 9, (300, len(bundle.features))).astype(np.float32)
        together = bundle.score(golden)
        for at, row in enumerate(golden):
            alone = bundle.score(row[None, :])
            assert alone.margin[0] == together.margin[at]
            assert alone.probability[0] == together.probability[at]
            assert (alone.contributions[0] == together.contributions[at]).all()


# Those that serve a choice of their own come last: the service of the others is then no longer that of the process.


def test_transactions_are_history_to_those_behind_them(serving, bundles, transaction):
    bodies = [transaction(minutes, transaction_id=f"t{minutes}", amount=100.0 + minutes) for minutes in range(5)]
    with serving(bundles) as client:
        together = client.post("/v1/transactions/batch", json={"items": bodies}).json()["results"]
        again = [client.post("/v1/transactions", json=body).json() for body in bodies]
    counted = [
        next(part["value"] for part in result["answer"]["explanation"]["contributions"] if part["feature"] == "customer_n_1h")
        for result in together
    ]

    assert counted == [0, 1, 2, 3, 4]
    assert [without_decision_id(result["answer"]) for result in together] == [without_decision_id(one) for one in again]


def test_a_conflicting_transaction_is_refused_alone(client, transaction):
    items = [transaction(transaction_id="t1"), transaction(transaction_id="t1", amount=7), transaction(amount=-1), transaction()]

    results = client.post("/v1/transactions/batch", json={"items": items}).json()["results"]

    assert [result["status"] for result in results] == [200, 409, 422, 200]


def test_a_domain_without_a_model_is_told_in_every_row(serving, bundles, loan):
    with serving({"loan_default": bundles["loan_default"]}, {"cashflow": "it has no accounts"}) as client:
        results = client.post("/v1/cashflow/batch", json={"items": [{"customer_id": 123}]}).json()["results"]

        assert [result["status"] for result in results] == [501]
