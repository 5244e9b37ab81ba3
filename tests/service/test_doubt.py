"""Tests of answers where too little is known: what training never missed is required, and a guess is referred, never approved."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from finrisk_assets.features.loan_terms import with_terms
from finrisk_assets.scoring.bundle import write
from finrisk_assets.scoring.feature_values import FeatureValues
from finrisk_assets.scoring.spec import BundleSpec
from schemas.features import Feature
from tests.service.conftest import Serving
from tests.service.envelopes import read_error
from tests.service.examples import LOAN_ROW, ORIGIN, linear

GOOD = with_terms(LOAN_ROW, loan_amount=5_000, term_months=24)
WEIGHTS = {"loan_amount": 0.2, "instalment_to_usual_income": 12.0, "balance_mean_30d": -0.2}
SEEN = {
    "loan_amount": FeatureValues(500.0, 20_000.0, False, 2000.0, 5000.0, 9000.0, 0.1),
    "term_months": FeatureValues(6.0, 60.0, False, 12.0, 24.0, 36.0, 0.0),
    "balance_mean_30d": FeatureValues(-5000.0, 20_000.0, True, 500.0, 2000.0, 5000.0, 0.6),
    "instalment_to_usual_income": FeatureValues(0.01, 0.6, True, 0.08, 0.15, 0.3, 0.3),
}
"""Values in training: the balance, which may be missing, is most of the model's information. Of the other features any value was seen."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("seen") / "bundle"
    names = list(LOAN_ROW)
    scales = tuple(10_000.0 if name == "loan_amount" else 1_000.0 if name == "balance_mean_30d" else 1.0 for name in names)
    component = linear(tuple(WEIGHTS.get(name, 0.0) for name in names), (0.0,) * len(names), scales, -3.4)
    anything = FeatureValues(None, None, True, None, None, None, 0.0)
    approved = {"loan_amount": tuple(float(at) for at in range(500, 11_000, 500)), "term_months": tuple(np.linspace(6, 60, 21).tolist())}
    write(
        folder,
        BundleSpec(
            **ORIGIN, name="finrisk-loan-default", domain="loan_default", components=(component,),
            features=tuple(Feature(name, "", f"{name}.", missing_codes=(98.0,) if name == "term_months" else ()) for name in names),
            golden_rows=np.array([list(GOOD.values())], np.float32), approved=approved,
            values=tuple(SEEN.get(name, anything) for name in names),
        ),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as monkeypatch:
        serving = Serving(tmp_path_factory.mktemp("doubt"), monkeypatch)
        with serving({"loan_default": folder}) as running:
            yield running


def ask(client: TestClient, route: str = "loan-default", **changes: float | None) -> dict[str, Any]:
    answer = client.post(f"/v1/{route}", json={"features": GOOD | changes})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_what_is_known_is_decided(client: TestClient) -> None:
    assert (ask(client)["decision"], ask(client, is_urban=None)["decision"]) == ("approve", "approve")


def test_null_where_training_never_missed_a_value_is_refused_by_field(client: TestClient) -> None:
    refused = client.post("/v1/loan-default", json={"features": GOOD | {"term_months": None}})
    assert [one["field"] for one in read_error(refused, 422, "invalid_request")["fields"]] == ["features.term_months"]


def test_a_number_that_means_no_value_is_no_value(client: TestClient) -> None:
    refused = client.post("/v1/loan-default", json={"features": GOOD | {"term_months": 98}})
    assert [one["field"] for one in read_error(refused, 422, "invalid_request")["fields"]] == ["features.term_months"]


def test_where_most_of_the_information_is_missing_a_loan_is_referred(client: TestClient) -> None:
    answer = ask(client, balance_mean_30d=None)
    assert (answer["decision"], answer["decision_reason"]) == ("refer", "Not enough is known.")
    assert answer["reasons"][0] == {
        "code": "TOO_LITTLE_KNOWN", "feature": "balance_mean_30d", "features": ["balance_mean_30d"], "text": "Not enough is known",
    }  # fmt: skip


def test_a_value_far_outside_of_what_training_saw_is_referred_by_its_name(client: TestClient) -> None:
    answer = ask(client, balance_mean_30d=90_000.0)
    assert answer["decision"] == "refer"
    assert answer["decision_reason"] == "Outside what the model has seen: balance_mean_30d."


def test_no_change_of_terms_is_promised_to_be_approved_where_too_little_is_known(client: TestClient) -> None:
    answer = ask(client, "loan-default/nearest-change", balance_mean_30d=None)
    assert (answer["decision"], answer["changes"], answer["decision_after"]) == ("refer", None, None)


def test_a_term_outside_of_what_training_saw_is_changed_into_one_that_it_saw(client: TestClient) -> None:
    answer = ask(client, "loan-default/nearest-change", term_months=200.0)
    assert (answer["decision"], answer["decision_after"]) == ("refer", "approve")
    assert {one["feature"]: one["after"] for one in answer["changes"]}["term_months"] <= 60
    assert ask(client, **{one["feature"]: one["after"] for one in answer["changes"] + answer["follows"]})["decision"] == "approve"
