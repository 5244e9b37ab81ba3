"""Tests of malformed bodies: each gets a 4xx answer that names the field and never repeats the value."""

import json

import pytest

from tests.service.envelopes import read_error
from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS, OFFER_ROW

SPENDING, LOAN, CASHFLOW, OFFER, TRANSACTION = (
    "/v1/spending-risk", "/v1/loan-default", "/v1/cashflow", "/v1/loan-offers", "/v1/transactions",
)  # fmt: skip
PAID = {"user_id": 5, "amount": 12.5, "timestamp": "2024-05-06T12:00:00"}
STATE = {"expense_ratio_90d": OFFER_ROW["expense_ratio_90d"]}
NAN, INFINITE = float("nan"), float("inf")

REFUSED = [
    # Spending: one of the eight by itself.
    (SPENDING, EIGHT_FIELDS | {"Total_Income": "60000"}, "Total_Income"),
    (SPENDING, EIGHT_FIELDS | {"Total_Income": "60,000 EUR"}, "Total_Income"),
    (SPENDING, EIGHT_FIELDS | {"Num_Transactions": -4711}, "Num_Transactions"),
    (SPENDING, EIGHT_FIELDS | {"Num_Transactions": 119.5}, "Num_Transactions"),
    (SPENDING, EIGHT_FIELDS | {"Max_Expense": NAN}, "Max_Expense"),
    (SPENDING, EIGHT_FIELDS | {"Total_Expense": INFINITE}, "Total_Expense"),
    (SPENDING, EIGHT_FIELDS | {"Total_Income": 1e300}, "Total_Income"),
    (SPENDING, EIGHT_FIELDS | {"Num_Transactions": 10**400}, "Num_Transactions"),
    (SPENDING, EIGHT_FIELDS | {"Low_Balance_Freq": True}, "Low_Balance_Freq"),
    (SPENDING, EIGHT_FIELDS | {"Avg_Expense": None}, "Avg_Expense"),
    (SPENDING, EIGHT_FIELDS | {"Total_Incme": 4711}, "Total_Incme"),
    # Spending: fields that cannot be true together.
    (SPENDING, EIGHT_FIELDS | {"Expense_Income_Ratio": 0.4711}, "Expense_Income_Ratio"),
    (SPENDING, {name.lower(): value for name, value in EIGHT_FIELDS.items()} | {"expense_income_ratio": 0.4711}, "expense_income_ratio"),
    (SPENDING, EIGHT_FIELDS | {"Low_Balance_Freq": 4711}, "Low_Balance_Freq"),
    (SPENDING, EIGHT_FIELDS | {"Top_Category_Spend": 47110}, "Top_Category_Spend"),
    (SPENDING, EIGHT_FIELDS | {"Avg_Expense": 2600}, "Avg_Expense"),
    (SPENDING, EIGHT_FIELDS | {"total_income": 60000}, "total_income"),
    (SPENDING, EIGHT_FIELDS | {"customer_id": 123}, "total_income"),
    (SPENDING, {name: value for name, value in EIGHT_FIELDS.items() if name != "Max_Expense"}, "Max_Expense"),
    (SPENDING, {"customer_id": [4711]}, "customer_id"),
    (SPENDING, {}, "Total_Income"),
    (SPENDING, [EIGHT_FIELDS], ""),
    # Loans.
    (LOAN, {"customer_id": 123}, "loan_amount"),
    (LOAN, {"customer_id": 123, "loan_amount": -4711}, "loan_amount"),
    (LOAN, {"customer_id": 123, "loan_amount": "4711 USD"}, "loan_amount"),
    (LOAN, {"customer_id": 123, "loan_amount": 1e200}, "loan_amount"),
    (LOAN, {"customer_id": 123, "loan_amount": 5000, "term_months": 4711}, "term_months"),
    (LOAN, {"customer_id": 123, "loan_amount": 5000, "term_months": 24.5}, "term_months"),
    (LOAN, {"customer_id": 123, "loan_amount": 5000, "annual_rate_pct": 4711}, "annual_rate_pct"),
    (LOAN, {"customer_id": 123, "features": {}, "loan_amount": 5000}, "customer_id"),
    (LOAN, {"features": {}, "loan_amount": 5000}, "loan_amount"),
    (LOAN, {"loan_amount": 5000}, "features"),
    (LOAN, {"features": [4711]}, "features"),
    # Cashflow.
    (CASHFLOW, {}, "customer_id"),
    (CASHFLOW, {"customer_id": 123, "account_id": "A123"}, "account_id"),
    (CASHFLOW, {"customer_id": 7}, "customer_id"),
    (CASHFLOW, {"customer_id": ""}, "customer_id"),
    (CASHFLOW, {"customer_id": "4711" * 40}, "customer_id"),
    (CASHFLOW, {"features": CASHFLOW_ROW | {"age": 4711}}, "features.age"),
    (CASHFLOW, {"features": {"net_flow_30d": 1, "income_90d": 1}}, "features.typical_movement_amount"),
    (CASHFLOW, {"features": CASHFLOW_ROW | {"income_90d": 1e60}}, "features"),
    (CASHFLOW, {"features": CASHFLOW_ROW | {"income_90d": {"of": 4711}}}, "features.income_90d"),
    # Offers.
    (OFFER, {"customer_id": 123, "pd": 1.4711}, "pd"),
    (OFFER, {"customer_id": 123, "pd": "0.02"}, "pd"),
    (OFFER, {"customer_id": 7}, "pd"),
    (OFFER, {"customer_id": 123, "term_months": 0}, "term_months"),
    (OFFER, {"customer_id": 123, "loan_amount": 0}, "loan_amount"),
    (OFFER, {"customer_id": 123, "monthly_income_amount": 4711}, "monthly_income_amount"),
    (OFFER, {"features": STATE, "pd": 0.02}, "monthly_income_amount"),
    (OFFER, {"features": STATE, "monthly_income_amount": 4711}, "pd"),
    (OFFER, {"features": {}, "pd": 0.02, "monthly_income_amount": 4711}, "features.expense_ratio_90d"),
    (OFFER, {"customer_id": 123, "currency": "EUR4711"}, "currency"),
    # Transactions.
    (TRANSACTION, PAID | {"amount": -4711}, "amount"),
    (TRANSACTION, PAID | {"amount": "$4711"}, "amount"),
    (TRANSACTION, PAID | {"timestamp": "4711-13-01"}, "timestamp"),
    (TRANSACTION, PAID | {"country": 47.11}, "country"),
    (TRANSACTION, {name: value for name, value in PAID.items() if name != "amount"}, "amount"),
]


@pytest.mark.parametrize(("route", "body", "field"), REFUSED)
def test_what_cannot_be_answered_is_refused_by_field(shared_client, route, body, field):
    response = shared_client.post(route, content=json.dumps(body), headers={"content-type": "application/json"})

    error = read_error(response, 422, "invalid_request")
    assert error["fields"][0]["field"] == field
    assert all(item["reason"] for item in error["fields"])
    assert "4711" not in response.text.replace(error["request_id"], "")


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        (SPENDING, {"customer_id": 4711}, "customer_id"),
        (LOAN, {"customer_id": 4711, "loan_amount": 50000}, "customer_id"),
        (CASHFLOW, {"customer_id": "'; drop table standings; --4711"}, "customer_id"),
        (CASHFLOW, {"account_id": "A4711"}, "account_id"),
        (OFFER, {"customer_id": 4711}, "customer_id"),
    ],
)
def test_whom_the_service_does_not_know_is_not_found(shared_client, route, body, field):
    response = shared_client.post(route, json=body)

    error = read_error(response, 404, "unknown_customer")
    assert [item["field"] for item in error["fields"]] == [field]
    assert "finrisk load-history" in error["message"]
    assert "4711" not in response.text.replace(error["request_id"], "")


@pytest.mark.parametrize("route", [SPENDING, LOAN, CASHFLOW, OFFER, TRANSACTION])
@pytest.mark.parametrize("body", [b"", b"null", b"4711", b"[]", b'{"customer_id": 123', b"\xff", b'{"customer_id": "\\ud800"}'])
def test_a_body_that_is_no_object_is_refused(shared_client, route, body):
    response = shared_client.post(route, content=body, headers={"content-type": "application/json"})

    assert response.status_code in (400, 422)
    read_error(response, response.status_code, {400: "malformed_json", 422: "invalid_request"}[response.status_code])


@pytest.mark.parametrize("rate", [0, 5e-324, 1e-15, 1e-9])
def test_the_smallest_rates_are_answered(shared_client, rate):
    body = {"customer_id": 123, "loan_amount": 5000, "annual_rate_pct": rate}

    assert shared_client.post(LOAN, json=body).status_code == 200


def test_every_contradiction_is_named_at_once(shared_client):
    error = read_error(
        shared_client.post(SPENDING, json=EIGHT_FIELDS | {"Low_Balance_Freq": 121, "Top_Category_Spend": 43000}), 422, "invalid_request"
    )

    assert [item["field"] for item in error["fields"]] == ["Low_Balance_Freq", "Top_Category_Spend"]


def test_a_store_older_than_the_model_is_not_the_clients_fault(shared_client):
    error = read_error(shared_client.post(SPENDING, json={"customer_id": 9}), 503, "not_ready")

    assert "finrisk load-history" in error["message"]


def test_a_length_of_thousands_of_digits_is_read_as_a_length(shared_client):
    body = json.dumps({"features": CASHFLOW_ROW}).encode()
    json_of = {"content-type": "application/json"}
    padded = shared_client.post(CASHFLOW, content=body, headers=json_of | {"content-length": f"{len(body):05000}"})
    huge = shared_client.post(CASHFLOW, content=body, headers=json_of | {"content-length": "9" * 5_000})

    assert padded.status_code == 200
    read_error(huge, 413, "too_large")


@pytest.mark.parametrize("value", ["9" * 5_000, "-" + "9" * 5_000, "1e999999", "[" * 50_000, '{"a":' * 50_000, '"\\ud800"'])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (TRANSACTION, '{"user_id": %s, "amount": 1.0, "timestamp": "2024-05-06T12:00:00"}'),
        (TRANSACTION, '{"user_id": 5, "amount": %s, "timestamp": "2024-05-06T12:00:00"}'),
        (CASHFLOW, '{"features": {"n": %s}}'),
        (CASHFLOW + "/batch", '{"items": [{"features": {"n": %s}}]}'),
        (CASHFLOW + "/batch", '{"items": [%s]}'),
        (LOAN, '{"customer_id": 123, "loan_amount": %s}'),
        ("/v1/feedback", '{"transaction_id": %s, "label": true}'),
    ],
)
def test_no_number_and_no_nesting_is_a_failure(shared_client, path, body, value):
    answer = shared_client.post(path, content=(body % value).encode(), headers={"content-type": "application/json"})

    statuses = [answer.status_code, *(result["status"] for result in answer.json().get("results", ()))]
    assert all(status < 500 for status in statuses), answer.text
