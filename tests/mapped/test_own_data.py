"""Tests that own data runs to served decisions: ten invented data sets in the forms in which people have them."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from schemas.mapping import read_mapping
from tests.mapped.own_files import DATA_SETS, make_files
from tests.mapped.own_ledger import OwnLedger, run_graph

pytestmark = pytest.mark.mapped

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
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Any], OwnLedger]:
    """Return a function that runs a data set once for all tests of this file."""
    ledgers: dict[str, OwnLedger] = {}

    def run(name: str, log: Any) -> OwnLedger:
        if name not in ledgers:
            folder = tmp_path_factory.mktemp(name)
            ledgers[name] = run_graph(make_files(name).write(folder), folder / "home", log)
        return ledgers[name]

    return run


@pytest.mark.parametrize("name", DATA_SETS)
def test_own_data_is_served_as_it_is_scored(name, run_once, caplog):
    own = run_once(name, caplog)
    assert own.failures == []
    domain = DOMAINS[name]
    assert own.champions == {domain}
    assert (own.bento / "bento.yaml").is_file()
    with own.serve() as client:
        absent = client.get("/v1/models").json()["absent"]
        assert LEFT_OUT[domain] in absent.values()
        decide = {"loan_default": decide_loans, "transaction_anomaly": decide_payments}[domain]
        decide(own, client)


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
