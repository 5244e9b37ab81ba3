"""Tests of the look-ups of a customer's stored scores and of the models' figures."""

import pytest

from tests.service.envelopes import read_error

FIGURES = {
    "cashflow": [
        {"window": "test", "metric": "auc", "value": 0.76, "low": 0.74, "high": 0.78, "meaning": "DeLong"},
        {"window": "test", "metric": "n_test", "value": 4000.0, "low": None, "high": None, "meaning": ""},
        {"window": "oracle", "metric": "auc_gap", "value": 0.008, "low": 0.002, "high": 0.014, "meaning": "oracle less model"},
    ]
}


def test_the_newest_score_of_every_domain_is_looked_up(shared_client):
    answer = shared_client.get("/v1/risk-scores/123").json()
    scores = {score["domain"]: score for score in answer["scores"]}

    assert answer["customer_id"] == "123"
    assert set(scores) == {"loan_default", "spending_risk", "spending_risk_eight", "cashflow", "loan_offers"}
    assert scores["cashflow"] == {
        "domain": "cashflow",
        "subject": "A123@2024-06",
        "account_id": "A123",
        "as_of": "2024-07-01T00:00:00Z",
        "score": -1.5,
        "probability": 0.18,
        "decision": "told",
        "details": {"expected_change_amount": -80.5, "low_change_amount": -600.0, "high_change_amount": None},
        "model_version": "0" * 12,
    }


def test_every_account_of_a_customer_has_its_score(shared_client):
    scores = shared_client.get("/v1/risk-scores/7").json()["scores"]

    assert [score["account_id"] for score in scores if score["domain"] == "cashflow"] == ["A7", "A8"]


@pytest.mark.parametrize("customer", ["4711", "%20a", "a%2Fb", "%7Bcustomer_id%7D"])
def test_an_unknown_customer_is_not_found_and_told_what_to_do(shared_client, customer):
    error = read_error(shared_client.get(f"/v1/risk-scores/{customer}"), 404, "unknown_customer")

    assert "finrisk load-history" in error["message"]
    assert [item["field"] for item in error["fields"]] == ["customer_id"]


def test_an_identifier_too_long_is_refused(shared_client):
    read_error(shared_client.get("/v1/risk-scores/" + "9" * 129), 422, "invalid_request")


def test_no_customer_stands_in_what_is_counted(shared_client):
    from prometheus_client import REGISTRY, generate_latest

    from bento.service import FinRisk

    shared_client.get("/v1/risk-scores/123")
    shared_client.get("/v1/risk-scores/Ada%20Lovelace")

    counted = (generate_latest(FinRisk.counters.registry) + generate_latest(REGISTRY)).decode()
    assert 'route="/v1/risk-scores/{customer_id}"' in counted
    assert "risk-scores/123" not in counted
    assert "Lovelace" not in counted


def test_figures_travel_with_the_models(serving, bundles):
    chosen = {domain: bundles[domain] for domain in ("cashflow", "loan_default")}
    with serving(chosen, figures=FIGURES) as client:
        models = {model["domain"]: model for model in client.get("/v1/model-metrics").json()["models"]}

    cashflow = models["cashflow"]
    assert cashflow["test"][0] == {"name": "auc", "value": 0.76, "low": 0.74, "high": 0.78, "meaning": "DeLong"}
    assert cashflow["test"][1] == {"name": "n_test", "value": 4000.0, "low": None, "high": None, "meaning": ""}
    assert [figure["name"] for figure in cashflow["oracle"]] == ["auc_gap"]
    assert models["loan_default"]["test"] == []


def test_new_figures_of_the_same_bundle_take_the_place_of_the_old(serving, bundles):
    chosen = {"cashflow": bundles["cashflow"]}
    for value in (0.7, 0.8):
        with serving(chosen, figures={"cashflow": [{"window": "test", "metric": "auc", "value": value}]}) as client:
            (model,) = client.get("/v1/model-metrics").json()["models"]
            assert model["test"][0]["value"] == value
