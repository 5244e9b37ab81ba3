"""Tests of `/v1/loan-default/nearest-change`: changes that a person can make, scored again, or that no allowed change suffices."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from finrisk_assets.features.loan_terms import with_terms
from finrisk_assets.scoring.bundle import Bundle, write
from finrisk_assets.scoring.spec import BundleSpec
from schemas.features import Feature
from tests.service.conftest import Serving
from tests.service.examples import LOAN_ROW, ORIGIN, linear

ROUTE = "/v1/loan-default/nearest-change"
WEIGHTS = {"loan_amount": 0.2, "instalment_to_usual_income": 12.0, "balance_mean_30d": -0.2}


@pytest.fixture(scope="module")
def lender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that refuses where the instalment takes much of the income, with quantiles of approved applicants."""
    names = list(LOAN_ROW)
    folder = tmp_path_factory.mktemp("lender") / "bundle"
    scales = tuple(10_000.0 if name == "loan_amount" else 1_000.0 if name == "balance_mean_30d" else 1.0 for name in names)
    component = linear(tuple(WEIGHTS.get(name, 0.0) for name in names), (0.0,) * len(names), scales, -3.4)
    golden = np.array([list(LOAN_ROW.values())], np.float32)
    approved = {"loan_amount": tuple(float(at) for at in range(500, 11_000, 500)), "term_months": tuple(np.linspace(6, 60, 21).tolist())}
    features = tuple(Feature(name, "", f"{name}.") for name in names)
    write(
        folder,
        BundleSpec(
            **ORIGIN, name="finrisk-loan-default", domain="loan_default", features=features, components=(component,),
            golden_rows=golden, approved=approved,
        ),
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, lender: Path) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        serving = Serving(tmp_path_factory.mktemp("nearest"), monkeypatch)
        with serving({"loan_default": lender}) as running:
            yield running


def application(**changes: float | None) -> dict[str, Any]:
    """Return an application by its features: a loan of 9,000 over two years, whose instalment takes 14 % of the income."""
    return {"features": with_terms(LOAN_ROW, loan_amount=9_000, term_months=24) | changes}


def ask(client: TestClient, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = client.post(ROUTE, json=body)
    assert answer.status_code == 200, answer.text
    change: dict[str, Any] = answer.json()
    return change


def test_what_is_promised_is_what_the_model_says_of_the_changed_loan(client: TestClient, lender: Path) -> None:
    body = application()
    answer = ask(client, body)
    changes = {one["feature"]: one["after"] for one in answer["changes"]}
    assert (answer["decision"], answer["decision_after"], answer["reason"]) == ("refer", "approve", None)
    changed = with_terms(
        body["features"], loan_amount=changes.get("loan_amount", 9_000), term_months=int(changes.get("term_months", 24)),
    )  # fmt: skip
    again = client.post("/v1/loan-default", json={"features": changed}).json()
    assert again["pd"] == answer["pd_after"] < answer["pd"]
    assert again["decision"] == "approve"


def test_only_the_terms_of_the_loan_differ_and_what_follows_from_them_is_told(client: TestClient) -> None:
    answer = ask(client, application())
    assert {one["feature"] for one in answer["changes"]} <= {"loan_amount", "term_months"}
    assert {one["feature"] for one in answer["follows"]} == {"instalment_amount", "instalment_to_usual_income"}
    assert all(one["before"] != one["after"] for one in answer["changes"] + answer["follows"])
    assert all(one["action"].endswith(".") for one in answer["changes"])


def test_the_goal_may_be_that_a_person_looks_at_it(client: TestClient) -> None:
    """A loan that is refused needs less to be referred than to be approved."""
    body = application(loan_amount=10_000.0, instalment_amount=900.0, instalment_to_usual_income=0.3)
    looked_at = ask(client, body | {"goal": "refer"})
    approved = ask(client, body)
    assert looked_at["decision"] == "refuse"
    assert (looked_at["decision_after"], approved["decision_after"]) == ("refer", "approve")


def test_a_customer_of_the_ledger_is_asked_for_with_the_loan(client: TestClient) -> None:
    by_customer = ask(client, {"customer_id": 123, "loan_amount": 9_000, "term_months": 24})
    by_features = ask(client, application())
    fields = ("pd", "pd_after", "changes", "follows")
    assert [by_customer[name] for name in fields] == [by_features[name] for name in fields]
    assert (by_customer["customer_id"], by_customer["as_of"]) == ("123", "2024-07-01T00:00:00Z")


def test_every_example_of_the_document_is_answered(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"][ROUTE]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"].values()
    assert len(examples) == 3 and any(example["value"].get("features") for example in examples)
    for example in examples:
        assert "pd" in ask(client, example["value"])


def test_that_nothing_is_enough_is_an_answer(client: TestClient) -> None:
    answer = ask(client, application(balance_mean_30d=-90_000.0))
    assert (answer["changes"], answer["pd_after"], answer["decision_after"], answer["follows"]) == (None, None, None, [])
    assert answer["reason"].endswith("is enough.")


def test_an_approved_loan_needs_no_change(client: TestClient) -> None:
    answer = ask(client, application(instalment_to_usual_income=0.01))
    assert answer["decision"] == "approve" and answer["changes"] is None
    assert answer["reason"] == "The row is approved as it is."


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"customer_id": 123}, 422, "loan_amount"),
        ({"features": {}}, 422, "features.loan_amount"),
        (application() | {"goal": "gold"}, 422, "goal"),
        ({"customer_id": "nobody", "loan_amount": 100}, 404, "customer_id"),
    ],
)
def test_a_request_that_says_too_little_is_refused_by_field(client: TestClient, body: dict[str, Any], status: int, field: str) -> None:
    answer = client.post(ROUTE, json=body)
    assert answer.status_code == status
    assert field in [one["field"] for one in answer.json()["error"]["fields"]]


def test_a_model_that_does_not_know_what_approved_applicants_have_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundles: dict[str, Path], loan: Any
) -> None:
    with Serving(tmp_path, monkeypatch)({"loan_default": bundles["loan_default"]}) as running:
        answer = running.post(ROUTE, json=loan())
    assert answer.status_code == 501
    assert "trained again" in answer.json()["error"]["message"]


def test_the_answer_is_the_search_of_the_bundle_that_is_served(client: TestClient, lender: Path) -> None:
    assert ask(client, application())["model"]["version"] == Bundle.load(lender).version
