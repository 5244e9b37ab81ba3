"""Tests of the retraining sensor: a confirmed drift starts one training of a challenger, and never of a champion."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.stages import monitoring
from finrisk_assets.settings import Settings

ASSETS = ("monitoring_loan_default", "monitoring_cashflow", "model_loan_default")


def monitoring_event(domain: str, **facts: Any) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(f"monitoring_{domain}", metadata={"champion": "0123456789ab", "window": "2024-06", **facts})


def evaluate_sensor(instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """Return the runs that the sensor requests at one tick."""
    (sensor,) = automation.build_retraining_sensors(ASSETS)
    with dg.build_sensor_context(instance=instance) as context:
        result = sensor(context)
    return list(result.run_requests or []) if isinstance(result, dg.SensorResult) else []


def test_it_asks_for_nothing_before_anything_is_monitored() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert evaluate_sensor(instance) == []


def test_moved_features_ask_for_nothing() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(monitoring_event("loan_default", is_confirmed=False))
        assert evaluate_sensor(instance) == []


def test_a_confirmed_drift_asks_for_the_domain_s_challenger() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(monitoring_event("loan_default", is_confirmed=True))
        instance.report_runless_asset_event(monitoring_event("cashflow", is_confirmed=False))
        (request,) = evaluate_sensor(instance)
    assert request.asset_selection == [dg.AssetKey("model_loan_default"), dg.AssetKey("evaluation_loan_default")]


def test_a_window_that_is_looked_at_again_is_asked_for_once() -> None:
    """Dagster starts one run for a run key; champion and window make it."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(monitoring_event("loan_default", is_confirmed=True))
        first = evaluate_sensor(instance)
        instance.report_runless_asset_event(monitoring_event("loan_default", is_confirmed=True))
        again = evaluate_sensor(instance)
        instance.report_runless_asset_event(monitoring_event("loan_default", is_confirmed=True, window="2024-07"))
        later = evaluate_sensor(instance)
    assert first[0].run_key == again[0].run_key != later[0].run_key


def test_the_newest_word_counts() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(monitoring_event("loan_default", is_confirmed=True))
        instance.report_runless_asset_event(monitoring_event("loan_default", is_confirmed=False))
        assert evaluate_sensor(instance) == []


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(Settings(home=tmp_path_factory.mktemp("home")))


def test_its_job_can_neither_promote_nor_pack(definitions: dg.Definitions) -> None:
    chosen = {key.to_user_string() for key in definitions.resolve_job_def(automation.CHALLENGE).asset_layer.selected_asset_keys}
    assert {"model_loan_default", "evaluation_loan_default"} <= chosen
    assert all(name.startswith(("model_", "evaluation_")) for name in chosen)


def test_one_domain_s_part_of_its_job_can_be_run_alone_and_is_judged(definitions: dg.Definitions) -> None:
    stages = {dg.AssetKey("model_cashflow"), dg.AssetKey("evaluation_cashflow")}
    part = definitions.resolve_job_def(automation.CHALLENGE).get_subset(asset_selection=stages)
    steps = {node.name for node in part.nodes}
    assert {"model_cashflow", "evaluation_cashflow", "model_cashflow_gate"} <= steps
    assert all("_cashflow" in step for step in steps)


def test_it_is_stopped_until_a_person_starts_it(definitions: dg.Definitions) -> None:
    sensor = definitions.resolve_sensor_def("retraining")
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    assert sensor.job_name == automation.CHALLENGE


def test_drift_checks_warn_and_never_block(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    drift = [key for key in graph.asset_check_keys if key.name.endswith("_drift")]
    assert {key.name for key in drift} >= {"features_loan_default_drift", "scores_loan_default_drift", "scores_spending_risk_eight_drift"}
    assert not any(graph.get(key).blocking for key in drift)


# What the checks say of stored figures -----------------------------------------------------------------------------------------


def figure(metric: str, value: float, meaning: str = "", window: str = "2024-06") -> dict[str, Any]:
    return {"window": window, "metric": metric, "value": value, "low": None, "high": None, "meaning": meaning}


STORED = [
    figure("confirmed_drift", 0, "1 of 2 features moved; the score did not."),
    figure("p_value_score", 0.4),
    figure("p_value_income", 0.001, "higher"),
    figure("p_value_rent", 0.7),
]


def test_a_moved_feature_is_a_warning_that_names_it() -> None:
    result = monitoring.drift_result(STORED, is_score=False)
    assert not result.passed and result.severity == dg.AssetCheckSeverity.WARN
    assert result.description == "1 of 2 moved in 2024-06: income"


def test_a_score_that_stands_still_passes() -> None:
    assert monitoring.drift_result(STORED, is_score=True).passed


def test_where_nothing_can_be_compared_the_check_passes_and_says_so() -> None:
    result = monitoring.drift_result([figure("confirmed_drift", 0, "There is nothing to compare.", "all")], is_score=False)
    assert result.passed and result.description == "There is nothing to compare."


def test_the_contract_refuses_what_is_no_figure() -> None:
    assert monitoring.find_figure_faults(STORED) == []
    assert monitoring.find_figure_faults([]) == ["there are no figures"]
    assert monitoring.find_figure_faults([*STORED, figure("p_value_rent", 0.7)]) == ["p_value_rent stands twice for 2024-06"]
    assert "not a finite number" in monitoring.find_figure_faults([figure("psi_rent", float("nan"))])[0]
    assert "no probability" in monitoring.find_figure_faults([figure("p_value_rent", 1.2)])[0]


def test_reports_are_named_by_their_run(tmp_path: Path) -> None:
    file = monitoring.report_file(Settings(home=tmp_path), "cashflow", "run-1")
    assert file == (tmp_path / "simulator/reports/cashflow/run-1.html").resolve()
