"""Tests of the metrics, whose labels no client chooses; `test_operations` reads them from a served process."""

import asyncio
import re
from contextlib import suppress
from pathlib import Path

import pytest

from bento.web.metrics import Metrics
from bento.web.middleware import RequestMetrics


@pytest.fixture
def read_counts(client):
    """Return a function for the counts since the test began, by metric and labels."""
    from bento.service import FinRisk

    def values():
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in FinRisk.counters.registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    before = values()
    return lambda: {key: value - before.get(key, 0) for key, value in values().items() if value != before.get(key, 0)}


def test_a_decision_is_counted_with_its_model_and_its_score(client, read_counts, loan):
    answer = client.post("/v1/loan-default", json=loan()).json()

    version = answer["model"]["version"]
    counts = read_counts()
    assert counts["finrisk_decisions_total", "loan_default", answer["decision"], version] == 1
    assert counts["finrisk_score_count", "loan_default", version] == 1
    assert counts["finrisk_score_sum", "loan_default", version] == pytest.approx(answer["pd"])
    assert counts["finrisk_request_duration_seconds_count", "POST", "/v1/loan-default", "200"] == 1


def test_a_refusal_is_counted_with_its_status_and_a_path_by_its_template(client, read_counts):
    client.get("/v1/risk-scores/Ada Lovelace")
    client.get("/v1/people/Ada Lovelace/export")
    client.get("/wp-admin/Ada")
    client.post("/v1/cashflow", content=b"{}", headers={"content-type": "text/plain"})
    client.request("BREW", "/v1/cashflow")

    counts = {key[1:]: value for key, value in read_counts().items() if key[0] == "finrisk_request_duration_seconds_count"}
    assert counts["GET", "/v1/risk-scores/{customer_id}", "404"] == 1
    assert counts["GET", "other", "404"] == 1
    assert counts["POST", "/v1/cashflow", "415"] == 1
    assert counts["other", "/v1/cashflow", "405"] == 1
    assert "Ada" not in str(counts)


def test_the_items_of_a_batch_are_counted_each(client, read_counts, loan):
    client.post("/v1/loan-default/batch", json={"items": [loan(), loan(), {}]})

    counts = read_counts()
    assert counts["finrisk_batch_items_total", "loan_default", "200"] == 2
    assert counts["finrisk_batch_items_total", "loan_default", "422"] == 1
    assert sum(value for key, value in counts.items() if key[0] == "finrisk_decisions_total") == 2


def test_every_metric_stands_in_the_documentation_with_its_labels():
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
    documented = {
        name: set(filter(None, labels.strip().split(", "))) for name, labels in re.findall(r"^\| `(finrisk_\w+)` \|([^|]*)\|", page, re.M)
    }

    registry = Metrics().registry
    known = {
        name: set(collector._labelnames)
        for collector, names in registry._collector_to_names.items()
        for name in names
        if name == f"{collector._name}_total" or (name == collector._name and collector._type != "counter")
    }
    assert documented == known


@pytest.mark.parametrize(("fails", "status"), [(False, "499"), (True, "500")])
def test_a_client_that_leaves_is_no_failure_of_the_service(fails, status):
    async def app(scope, receive, send):
        if fails:
            raise RuntimeError

    metrics = Metrics()
    with suppress(RuntimeError):
        asyncio.run(RequestMetrics(app, metrics)({"type": "http", "method": "POST", "path": "/v1/cashflow"}, None, None))

    labels = {"method": "POST", "route": "/v1/cashflow", "status": status}
    assert metrics.registry.get_sample_value("finrisk_request_duration_seconds_count", labels) == 1
