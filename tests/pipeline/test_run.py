"""Tests of the whole graph on a small simulated ledger, from the source to a Bento that decides."""

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.cli import demo
from finrisk_assets.domains.loan_offers.definition import LOAN_OFFERS
from finrisk_assets.domains.registry import DOMAINS, left_out
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.features.passes import sorted_scan
from finrisk_assets.graph.resources import Tracking
from finrisk_assets.graph.stages.common import champion_folder, load_evaluation_rows, load_frame
from finrisk_assets.graph.warehouse import count
from finrisk_assets.ledger import sources
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from tests.pipeline.conftest import Run, materialise


@dataclass(frozen=True)
class SecondRun:
    """The whole graph, run once more in the same home: the champions' files before it, and what the demonstration printed."""

    bundles_before: Mapping[str, Mapping[str, bytes]]
    screen: str


@pytest.mark.parametrize("table", ["customers", "accounts", "transactions", "loans", "offers"])
def test_no_row_is_lost(run: Run, table: str) -> None:
    rows = {layer: count(run.warehouse.table(f"{layer}_{table}")) for layer in ("raw", "validated", "quarantine")}
    assert rows["raw"] == rows["validated"] + rows["quarantine"] > 0


def test_spoiled_rows_stand_in_quarantine_with_their_rule(run: Run) -> None:
    rules = run.warehouse.table("quarantine_transactions").broken_rules.to_pyarrow().to_pylist()
    assert len(rules) == 20
    assert all(rules)


def test_every_blocking_check_passed(run: Run) -> None:
    checks = run.result.get_asset_check_evaluations()
    assert len(checks) > 20
    assert [check.check_name for check in checks if check.blocking and not check.passed] == []


@pytest.mark.parametrize("domain", [one for one in DOMAINS if one.monitoring.is_scored_as_it_stands], ids=lambda domain: domain.name)
def test_batch_scores_are_the_champions(run: Run, domain) -> None:  # type: ignore[no-untyped-def]
    champion = Bundle.load(champion_folder(domain, run.settings))
    key = domain.keys[0].name
    features = run.warehouse.table(f"features_{domain.group}").order_by(key).limit(500).to_pyarrow().to_pandas()
    scores = run.warehouse.table(f"scores_{domain.name}").order_by(key).limit(500).to_pyarrow().to_pandas()
    rows = features[[feature.name for feature in champion.features]].to_numpy(np.float32)
    assert list(scores[key]) == list(features[key])
    np.testing.assert_allclose(scores.score, champion.margin(rows), rtol=1e-6)
    assert set(scores.model_version) == {champion.version}


def test_nothing_of_a_pass_over_sorted_rows_is_left_beside_the_warehouse(run: Run) -> None:
    assert sorted_scan.CATALOG not in run.warehouse.connection.list_catalogs()


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_the_evaluation_rows_and_their_truth_give_what_all_rows_give(run: Run, domain) -> None:  # type: ignore[no-untyped-def]
    features, champion = run.warehouse.table(f"features_{domain.group}"), Bundle.load(champion_folder(domain, run.settings))
    read, all_rows = load_evaluation_rows(run.warehouse, domain, run.settings), load_frame(features, domain)
    assert 0 < len(read) < len(all_rows) / (2 if domain is TRANSACTION_ANOMALY else 1)
    windows = (domain.score_test_window(rows, champion, run.settings).frame for rows in (read, all_rows))
    # Of the offers, a column of truth values is null in rows without an outcome alone, and has pandas' type of objects there.
    pd.testing.assert_frame_equal(*windows, check_dtype=domain is not LOAN_OFFERS)
    truth = {name: run.warehouse.table(name) for name in domain.truth_tables}
    selected = {name: domain.select_truth(name, table, domain.evaluation_rows(features)).to_pandas() for name, table in truth.items()}
    everything = {name: table.to_pandas() for name, table in truth.items()}
    assert all(0 < len(selected[name]) <= len(everything[name]) for name in truth)
    compared = domain.compare_with_truth(read, selected, champion, run.settings)
    assert list(compared) == list(domain.compare_with_truth(all_rows, everything, champion, run.settings))


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_registry_and_run_name_each_other(run: Run, domain) -> None:  # type: ignore[no-untyped-def]
    root = run.settings.root
    tracking = Tracking(uri=run.settings.tracking_uri, artifacts=str(root / "mlflow" / "artifacts"), experiment="finrisk-simulator")
    client = tracking.client()
    champion = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
    assert champion is not None
    mlflow_run = client.get_run(champion.run_id)
    assert mlflow_run.data.tags["dagster.run_id"] == run.result.run_id
    assert any(metric.startswith("test_") for metric in mlflow_run.data.metrics)
    assert mlflow_run.inputs.dataset_inputs[0].dataset.digest
    materialised = run.result.asset_materializations_for_node(f"model_{domain.name}")[0].metadata
    assert materialised["mlflow_run_id"].value == champion.run_id
    version = client.get_model_version(champion.name, champion.version)
    assert version.tags["bundle"] == Bundle.load(champion_folder(domain, run.settings)).version


def test_features_of_the_ledger_equal_those_of_the_service(run: Run) -> None:
    evaluations = {check.check_name: check for check in run.result.get_asset_check_evaluations()}
    assert evaluations["features_transaction_anomaly_parity"].passed


def test_previews_hide_what_is_personal(run: Run) -> None:
    metadata = run.result.asset_materializations_for_node("validated_transactions")
    preview = metadata[-1].metadata["preview"].value
    account = run.warehouse.table("validated_transactions").account_id.min().to_pyarrow().as_py()
    assert "•••" in preview
    assert re.fullmatch(r"A\d+", account)
    assert not re.search(r"\bA\d+\b", preview)


@pytest.fixture(scope="module")
def second(run: Run) -> SecondRun:
    """Return what the demonstration, which runs the whole graph once more, found and showed."""
    before = {domain.name: _files(champion_folder(domain, run.settings)) for domain in DOMAINS}
    screen = io.StringIO()
    with redirect_stdout(screen):
        status = demo.run(run.settings)
    assert status == 0, screen.getvalue()
    return SecondRun(before, screen.getvalue())


def test_second_run_gives_the_same_bundles_and_no_new_version(run: Run, second: SecondRun) -> None:
    assert {domain.name: _files(champion_folder(domain, run.settings)) for domain in DOMAINS} == second.bundles_before
    assert len(second.bundles_before) == len(DOMAINS)
    with dg.DagsterInstance.get() as instance:
        for domain in DOMAINS:
            event = instance.get_latest_materialization_event(dg.AssetKey(f"model_{domain.name}"))
            assert event is not None and event.asset_materialization is not None
            assert event.run_id != run.result.run_id
            assert event.asset_materialization.metadata["registry_version"].value == "1"


def test_demo_shows_decisions_of_the_served_bento_that_equal_the_batch(second: SecondRun) -> None:
    shown = second.screen
    assert "Decisions of the served Bento" in shown
    assert max(map(len, shown.split("Decisions of the served Bento")[1].splitlines())) <= 80
    assert shown.splitlines()[-1].endswith("run `make up`, and open http://127.0.0.1:3000/")
    lines = shown.splitlines()
    titles = {domain.title for domain in DOMAINS}
    rows = [re.split(r" {2,}", line) for line in lines if line.split("  ")[0] in titles]
    decided = [row for row in rows if len(row) == 7]
    assert [row[0] for row in decided[:: len(demo.EXAMPLE_QUANTILES)]] == [
        domain.title for domain in DOMAINS if domain.name in demo.REQUEST_BODIES
    ]
    for row in decided:
        served, batch = float(row[4]), float(row[5])
        assert served == pytest.approx(batch, abs=2e-4)
    reasons = [below for line, below in pairwise(lines) if line.split("  ")[0] in titles and len(re.split(r" {2,}", line)) == 7]
    assert all(reason.startswith("    ") and reason.strip() not in ("", "–") for reason in reasons)
    judged = [row for row in rows if len(row) == 6]
    assert [row[0] for row in judged] == [domain.title for domain in DOMAINS]
    assert all(float(row[3]) > 0.5 for row in judged)  # the oracle's AUC


@pytest.mark.slow
def test_too_many_broken_rows_stop_the_run_and_are_kept(small: Settings, tmp_path: Path) -> None:
    strict = replace(small, home=tmp_path, sim_customers=60, quarantine_max_share=0.0)
    result = materialise(strict)
    assert not result.success
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["quarantine_transactions_contract"]
    assert "FINRISK_QUARANTINE_MAX_SHARE" in str(failed[0].description)
    from finrisk_assets.graph.warehouse import Warehouse

    warehouse = Warehouse(url=strict.warehouse)
    assert count(warehouse.table("quarantine_transactions")) == 20
    assert not warehouse.has("validated_transactions")


def test_a_domain_without_tables_is_left_out_with_the_reason() -> None:
    reasons = left_out(sources.load(Settings(source="handbook")))
    assert "loans" in reasons["loan_default"]
    assert "category" in reasons["spending_risk"]
    assert reasons.keys() == {"spending_risk", "spending_risk_eight", "loan_default", "cashflow", "loan_offers"}


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
