"""Tests of the OpenAPI document and the pages, and that they load nothing from elsewhere."""

import json
import re
import subprocess
import sys

import pytest

from bento.decisions.domains import DOMAINS
from tests.service.examples import CASHFLOW_ROW

SCORING = ("/v1/transactions", "/v1/loan-default", "/v1/spending-risk", "/v1/cashflow", "/v1/loan-offers")
CHANGE = "/v1/loan-default/nearest-change"
"""Its examples need a model that knows what approved applicants have: see test_nearest_change."""


def test_the_page_stands_at_the_root_and_at_docs_and_loads_nothing_from_elsewhere(client):
    page = client.get("/docs")

    assert client.get("/").text == page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page.text)
    for asset in re.findall(r"""(?:src|href)=["'](/static[^"']+)""", page.text):
        assert client.get(asset).status_code == 200, asset


def test_the_openapi_document_has_every_route_its_types_and_its_failures(client):
    document = client.get("/openapi.json").json()

    batches = {f"{route}/batch" for route in SCORING}
    lookups = {"/v1/models", "/v1/model-metrics", "/v1/risk-scores/{customer_id}"}
    assert {*SCORING, *batches, CHANGE, *lookups} <= set(document["paths"])
    operation = document["paths"]["/v1/transactions"]["post"]
    request = operation["requestBody"]["content"]["application/json"]["schema"]
    assert request["$ref"].endswith("/TransactionRequest")
    assert operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorEnvelope")
    for reference in set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document))):
        assert reference in document["components"]["schemas"]


@pytest.mark.parametrize("route", SCORING)
def test_every_example_of_the_document_is_answered(shared_client, route):
    operation = shared_client.get("/openapi.json").json()["paths"][route]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]

    assert len(examples) > 1
    for example in examples.values():
        answer = shared_client.post(route, json=example["value"])
        assert answer.status_code == 200, (example["summary"], answer.text)


def test_the_examples_tell_of_nobody(shared_client):
    """A body by features holds medians, never a row of the store."""
    document = shared_client.get("/openapi.json").text

    assert str(CASHFLOW_ROW["income_90d"]) not in document


def test_a_route_without_a_model_has_no_example_by_features(serving, bundles):
    with serving({"loan_default": bundles["loan_default"]}) as client:
        operation = client.get("/openapi.json").json()["paths"]["/v1/cashflow"]["post"]

    examples = operation["requestBody"]["content"]["application/json"]["examples"].values()
    assert [example["value"] for example in examples] == [{"customer_id": 123}, {"account_id": "A123"}]


def test_models_are_listed_with_the_units_of_their_features(client):
    models = {model["domain"]: model for model in client.get("/v1/models").json()["models"]}

    assert set(models) == set(DOMAINS)
    assert models["loan_default"]["features"][0] == {"name": "loan_amount", "unit": "currency", "description": "Amount lent."}
    assert re.fullmatch(r"[0-9a-f]{12}", models["loan_default"]["version"])


def test_it_is_alive_and_ready(client):
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_importing_the_service_imports_nothing_that_makes_models():
    heavy = ["dagster", "mlflow", "ibis", "pandas", "sklearn", "xgboost", "scipy", "pandera", "shap", "matplotlib", "pyarrow", "duckdb"]
    code = f"import sys, bento.service; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_importing_the_service_imports_nothing_that_few_services_need():
    """Half a second of a start: what upgrades a store, verifies tokens, speaks to PostgreSQL or sends spans."""
    seldom = ["alembic", "jwt", "pg8000", "opentelemetry.exporter"]
    code = f"import sys, bento.service; print([name for name in {seldom} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_route_says_what_it_does_and_stands_with_those_of_its_domain(client):
    document = client.get("/openapi.json").json()
    groups = [group["name"] for group in document["tags"]]
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]

    assert all(operation["summary"].count(" ") >= 2 and not operation["summary"].endswith(".") for operation in operations)
    assert not [operation["description"] for operation in operations if re.search(r"^\s{2,}\S", operation["description"], re.MULTILINE)]
    places = [groups.index(operation["tags"][0]) for operation in operations]
    assert places == sorted(places) and document["paths"]["/v1/transactions"]["post"]["tags"] == ["transactions"]


def test_answers_are_shown_as_the_models_give_them_with_the_reasons_before_the_contributions(shared_client):
    document = shared_client.get("/openapi.json").json()

    for route in ("/v1/transactions", "/v1/loan-default", "/v1/spending-risk"):
        operation = document["paths"][route]["post"]
        asked = operation["requestBody"]["content"]["application/json"]["examples"]
        content = operation["responses"]["200"]["content"]["application/json"]
        assert content["examples"], route
        schema = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
        assert list(schema["properties"])[-1] == "explanation"
        for name, example in content["examples"].items():
            fields = list(example["value"])
            assert fields.index("reasons") < fields.index("explanation")
            if "user_id" not in asked[name]["value"]:
                answer = shared_client.post(route, json=asked[name]["value"]).json()
                assert answer.keys() == example["value"].keys() and answer["score"] == example["value"]["score"]


def test_a_lock_stands_only_where_a_key_is_needed(client):
    operations = [operation for methods in client.get("/openapi.json").json()["paths"].values() for operation in methods.values()]

    assert all(operation["security"] == [] for operation in operations)
