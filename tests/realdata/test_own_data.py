"""Tests that real data sets run to served decisions: German and Bank Marketing by their mappings, Taiwan as a source of its own."""

from pathlib import Path
from typing import Any

import pytest

from finrisk_assets.settings import Settings
from tests.mapped.own_ledger import OwnLedger, run_graph

pytestmark = [pytest.mark.realdata, pytest.mark.mapped]

DOCS = Path(__file__).parents[2] / "docs"

REAL = {
    "german": ("mapped", DOCS / "mapped-example.yaml", "german/german.data", "loan_default", "/v1/loan-default"),
    "bank_marketing": ("mapped", DOCS / "bank-marketing.yaml", "bank_marketing/bank-full.csv", "cashflow", "/v1/cashflow"),
    "taiwan": ("taiwan", None, "taiwan/UCI_Credit_Card.csv", "loan_default", "/v1/loan-default"),
}
"""Data set -> source, mapping, file, domain and route."""

PROBABILITY = {"loan_default": "pd", "cashflow": "surplus_probability"}
N_DECISIONS = 30


@pytest.mark.parametrize("name", REAL)
def test_real_data_is_served_as_it_is_scored(name, data_dir, tmp_path):
    source, mapping, file, domain, route = REAL[name]
    if not (data_dir / file).is_file():
        pytest.skip(f"no {data_dir / file}: put the file there, or set FINRISK_DATA_DIR")
    policy = DOCS / "taiwan-policy.yaml" if source == "taiwan" else None  # amounts in its currency
    own = run_graph(Settings(home=tmp_path, source=source, mapping=mapping, data_dir=data_dir, policy=policy))
    assert (own.failures, own.champions) == ([], {domain}), own.broken
    with own.serve() as client:
        assert client.get("/v1/models").json()["absent"]["transaction_anomaly"]
        compare_decisions(own, client, domain, route)


def compare_decisions(own: OwnLedger, client: Any, domain: str, route: str) -> None:
    key = {"loan_default": "loan_id", "cashflow": "account_month"}[domain]
    bundle, scores = own.bundle(domain), {row[key]: row for row in own.rows(f"scores_{domain}")}
    n_answered = 0
    for row in own.rows(f"features_{domain}")[:N_DECISIONS]:
        answer = client.post(route, json={"features": {feature.name: row[feature.name] for feature in bundle.features}})
        if answer.status_code == 422:  # what training always knew is missing
            continue
        n_answered += 1
        assert answer.json()[PROBABILITY[domain]] == pytest.approx(scores[row[key]]["probability"], abs=1e-6)
        assert answer.json()["reasons"]
    assert n_answered > N_DECISIONS / 2
