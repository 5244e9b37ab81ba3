"""Tests of monitoring on a finished ledger: figures, warnings and a report for every domain; a planted shift is found and named."""

from pathlib import Path

import dagster as dg
import ibis
import numpy as np
import pytest

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages import monitoring
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.modelling.monitoring.monitoring import MonitoringFindings
from finrisk_assets.scoring.bundle import Bundle
from schemas.evidence_api import DriftReport
from tests.pipeline.conftest import Run

NAMES = [domain.name for domain in DOMAINS]


def read_metadata(run: Run, domain: str) -> dict[str, object]:
    (event,) = run.result.asset_materializations_for_node(f"monitoring_{domain}")
    return {name: value.value for name, value in event.metadata.items()}


def checks(run: Run, suffix: str) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in run.result.get_asset_check_evaluations() if one.check_name.endswith(suffix)}


@pytest.mark.parametrize("domain", DOMAINS, ids=NAMES)
def test_every_domain_is_watched(run: Run, domain: Domain) -> None:
    rows = run.warehouse.table(f"monitoring_{domain.name}").to_pyarrow().to_pylist()
    metrics = {row["metric"] for row in rows}
    assert {"confirmed_drift", "p_value_score", "psi_score", "estimated_auc", "estimated_rate"} <= metrics
    assert not any(f"p_value_{name}" in metrics for name in domain.monitoring.by_construction)
    assert checks(run, "_contract")[f"monitoring_{domain.name}_contract"].passed


def test_drift_is_a_warning_and_stops_nothing(run: Run) -> None:
    drift = checks(run, "_drift")
    assert {f"scores_{name}_drift" for name in NAMES} <= drift.keys()
    assert {f"features_{domain.group}_drift" for domain in DOMAINS} <= drift.keys()
    assert {one.severity for one in drift.values()} == {dg.AssetCheckSeverity.WARN}
    assert any(not one.passed for one in drift.values())
    assert run.result.success


@pytest.mark.parametrize("domain", NAMES)
def test_each_run_leaves_a_report_and_links_it(run: Run, domain: str) -> None:
    facts = read_metadata(run, domain)
    file = Path(str(facts["report"]).removeprefix("file://"))
    assert file == monitoring.report_file(run.settings, domain, run.result.run_id)
    page = file.read_text(encoding="utf-8")
    assert str(facts["verdict"]) in page and str(facts["champion"]) in page
    client = build_resources(run.settings)["tracking"].client()
    # Other tests run the graph again, and the same model's run then has their reports too.
    assert f"monitoring/{file.name}" in [one.path for one in client.list_artifacts(str(facts["mlflow_run_id"]), "monitoring")]


@pytest.mark.parametrize("domain", NAMES)
def test_each_report_leaves_its_figures_for_the_service(run: Run, domain: str) -> None:
    facts, file = read_metadata(run, domain), monitoring.report_file(run.settings, domain, "").with_name(monitoring.NEWEST_REPORT)
    report = DriftReport.model_validate_json(file.read_bytes())
    assert report.champion == facts["champion"] and report.window == facts["window"] and report.is_confirmed == facts["is_confirmed"]
    assert report.columns[0].column == "score" and 1 < len(report.columns) <= monitoring.MAX_COLUMNS


# A planted shift ---------------------------------------------------------------------------------------------------------------


def observe(run: Run, warehouse: Warehouse) -> MonitoringFindings:
    champion = Bundle.load(champion_folder(SPENDING_RISK, run.settings))
    return monitoring.observe(warehouse, SPENDING_RISK, champion, run.settings, run.settings.now, None)


@pytest.fixture(scope="module")
def before(run: Run) -> MonitoringFindings:
    return observe(run, run.warehouse)


def copy_warehouse(run: Run, folder: Path, *, moved: str = "", version: str = "") -> Warehouse:
    """Return a second warehouse in which `moved` is one deviation higher in the newest month, or all scores are of another `version`."""
    features = run.warehouse.table("features_spending_risk").to_pandas()
    scores = run.warehouse.table("scores_spending_risk").to_pandas()
    if moved:
        newest = features.as_of == features.as_of.max()
        features.loc[newest, moved] += features[moved].std()
    if version:
        scores["model_version"], scores["score"] = version, scores.score + 3
    warehouse = Warehouse(url=f"duckdb://{folder / 'copy.duckdb'}")
    warehouse.store("features_spending_risk", ibis.memtable(features))
    warehouse.store("scores_spending_risk", ibis.memtable(scores))
    return warehouse


def test_a_shifted_feature_is_found_and_named(run: Run, before: MonitoringFindings, tmp_path: Path) -> None:
    assert before.features is not None
    still = next(one.name for one in before.features.columns if not one.is_drift and len(one.bins) >= 10)
    findings = observe(run, copy_warehouse(run, tmp_path, moved=still))
    assert findings.features is not None
    assert still in [one.name for one in findings.features.drifted]


def test_what_another_model_scored_is_scored_anew(run: Run, before: MonitoringFindings, tmp_path: Path) -> None:
    """Else a new champion would look like drift."""
    findings = observe(run, copy_warehouse(run, tmp_path, version="another"))
    assert findings.score is not None and before.score is not None
    assert findings.score.columns[0].psi == pytest.approx(before.score.columns[0].psi)
    assert findings.medians["score"] == pytest.approx(before.medians["score"], abs=1e-6)


def test_only_some_customers_of_a_large_table_are_read_and_the_same_ones_each_time(
    run: Run, before: MonitoringFindings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "MAX_ROWS", 1_000)
    first, second = observe(run, run.warehouse), observe(run, run.warehouse)
    assert first.score is not None and second.score is not None and before.score is not None
    assert 30 <= first.score.n_current < before.score.n_current
    assert np.isclose(first.score.columns[0].psi, second.score.columns[0].psi)
