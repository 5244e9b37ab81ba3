"""Tests that own data runs to served decisions: ten invented data sets in the forms in which people have them."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings
from schemas.mapping import read_mapping
from tests.mapped.own_files import DATA_SETS, make_files
from tests.mapped.own_ledger import OwnLedger, run_graph

pytestmark = [pytest.mark.mapped, pytest.mark.slow]

MOST_LINES = 40
"""Lines of a mapping without its list of features."""

DOMAINS: Mapping[str, str] = dict.fromkeys(
    ("give_me_some_credit", "pakdd", "heloc", "spanish_credit", "snapshots"), "loan_default"
) | dict.fromkeys(("vub", "cards", "hundred_customers", "statement", "overlapping_files"), "transaction_anomaly")
"""Data set -> the domain that has a champion."""

LEFT_OUT = {
    "loan_default": "the mapping has no table transactions",
    "transaction_anomaly": "the mapping has no table loans",
}
"""Domain of a data set -> the reason why another domain is left out."""

N_DECISIONS = 20


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], OwnLedger]:
    """Return a function that runs a data set once for all tests of this file."""
    ledgers: dict[str, OwnLedger] = {}

    def run(name: str) -> OwnLedger:
        if name not in ledgers:
            folder = tmp_path_factory.mktemp(name)
            mapping = make_files(name).write(folder)
            ledgers[name] = run_graph(Settings(home=folder / "home", source="mapped", mapping=mapping, data_dir=folder))
        return ledgers[name]

    return run


@pytest.mark.parametrize("name", DATA_SETS)
def test_own_data_is_served_as_it_is_scored(name, run_once):
    own, domain = run_once(name), DOMAINS[name]
    assert (own.failures, own.champions) == ([], {domain}), own.broken
    assert (own.bento / "bento.yaml").is_file()
    with own.serve() as client:
        assert LEFT_OUT[domain] in client.get("/v1/models").json()["absent"].values()
        if domain == "loan_default":
            decide_loans(own, client)
        else:
            decide_payments(own, client)


def test_a_text_of_many_levels_is_explained_and_no_leak(run_once):
    own = run_once("pakdd")
    assert not [check for check in own.broken if "leakage" in check]
    category = own.bundle("loan_default").features[0]
    assert (category.name, len(category.levels) > 50) == ("shop_area", True)
    with own.serve() as client:
        known, unseen = (
            client.post("/v1/loan-default", json={"features": {"shop_area": level, "monthly_income": 600}}).json()
            for level in (f" {category.levels[0]} ", "Área 99")
        )
        assert category.levels[0].replace("Área", "Shop area Área") in [reason["text"] for reason in known["reasons"]]
        assert known["explanation"]["contributions"][0]["value"] == category.levels[0]
        assert (unseen["decision"], unseen["decision_reason"]) == ("refer", "Outside what the model has seen: shop_area.")
        assert unseen["explanation"]["contributions"][0]["value"] is None
        for no_number in ("much", "600", " "):
            wrong = client.post("/v1/loan-default", json={"features": {"shop_area": "Área 1", "monthly_income": no_number}})
            assert wrong.json()["error"]["fields"] == [{"field": "features.monthly_income", "reason": "Must be a number."}]
        blank, null = (
            client.post("/v1/loan-default", json={"features": {"shop_area": level, "monthly_income": 600}}).json() for level in (" ", None)
        )
        assert blank["pd"] == null["pd"]
        listed = client.get("/v1/models").json()["models"][0]["features"][0]
        assert listed["levels"] == list(category.levels)


def test_a_stated_test_set_judges_and_serving_takes_the_latest_moment(run_once):
    own = run_once("snapshots")
    version = model_registry.find_version(own.tracking, "loan_default", model_registry.CHAMPION)
    assert own.tracking.get_run(version.run_id).data.params["split"].startswith("the source states the test set: 440 rows")
    frame = own.warehouse.table("features_loan_default").to_pyarrow().to_pandas()
    labelled = LOAN_DEFAULT.labelled_rows(frame, own.settings)
    windows = LOAN_DEFAULT.split(labelled, own.settings)
    of_test = {f"p{person}" for person in range(0, 220, 4)}
    assert set(labelled.customer_id.iloc[windows.test]) == of_test
    assert of_test.isdisjoint(labelled.customer_id.iloc[[*windows.train, *windows.validation]])
    latest = frame[frame.customer_id == "p7"].sort_values("applied_at").iloc[-1]
    (scored,) = (row for row in own.rows("scores_loan_default") if row["loan_id"] == latest.loan_id)
    with own.serve() as client:
        answer = client.post("/v1/loan-default", json={"customer_id": "p7", "loan_amount": 1000}).json()
    assert (answer["as_of"], answer["pd"]) == ("2023-08-28T00:00:00Z", pytest.approx(scored["probability"], abs=1e-6))


def decide_loans(own: OwnLedger, client: Any) -> None:
    """Ask for decisions on rows of the feature table; the answers are those of the batch."""
    bundle = own.bundle("loan_default")
    scores = {row["loan_id"]: row for row in own.rows("scores_loan_default")}
    for row in own.rows("features_loan_default")[:N_DECISIONS]:
        features = {feature.name: row[feature.name] for feature in bundle.features}
        answer = client.post("/v1/loan-default", json={"loan_id": row["loan_id"], "features": features})
        if answer.status_code == 422:  # what training always knew is missing
            reasons = {field["reason"] for field in answer.json()["error"]["fields"]}
            assert reasons == {"The model never learned without this value: send a number."}
            continue
        body, scored = answer.json(), scores[row["loan_id"]]
        assert (body["decision"], body["pd"]) == (scored["decision"], pytest.approx(scored["probability"], abs=1e-6))
        assert body["reasons"]


def decide_payments(own: OwnLedger, client: Any) -> None:
    """Ask for decisions on new payments of known people."""
    latest = max(own.rows("validated_transactions"), key=lambda row: row["occurred_at"])
    for amount in (5, 50, 50_000):
        body = {
            "user_id": latest["customer_id"],
            "transaction_id": f"new-{amount}",
            "amount": amount,
            "timestamp": f"{latest['occurred_at'].isoformat()}Z",
            "merchant": latest["merchant"],
        }
        answer = client.post("/v1/transactions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["decision"]


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_mapping_is_short(name, tmp_path):
    files = make_files(name)
    assert read_mapping(files.write(tmp_path)).name
    assert len(files.mapping.splitlines()) <= MOST_LINES
