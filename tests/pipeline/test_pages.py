"""Tests of what Dagster's and MLflow's pages show of a run of the whole graph."""

import dagster as dg
import pytest

from finrisk_assets.domains import gate
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.runs.in_process import run_job
from finrisk_assets.graph.warehouse import FIGURE_COLUMNS
from tests.pipeline.conftest import Run


def metadata_of(run: Run, asset: str) -> dict[str, dg.MetadataValue]:
    return dict(run.result.asset_materializations_for_node(asset)[0].metadata)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_the_gates_table_says_what_was_seen_of_each_demand(run: Run, domain) -> None:  # type: ignore[no-untyped-def]
    table = str(metadata_of(run, f"evaluation_{domain.name}")["gate"].value)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == list(gate.DEMANDS)
    seen = {row[0]: row[2] for row in rows}
    assert all(seen.values())
    assert seen["discrimination"].startswith("auc 0.") and "n_test" in seen["rows"] and "explanation_gap" in seen["explanation"]
    (check,) = (one for one in run.result.get_asset_check_evaluations() if one.check_name == f"model_{domain.name}_gate")
    assert check.metadata["demands"].value == table


@pytest.mark.parametrize("asset", ["evaluation_cashflow", "oracle_cashflow", "quarantine_transactions"])
def test_every_column_of_a_table_without_a_contract_is_described(run: Run, asset: str) -> None:
    schema = metadata_of(run, asset)["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    descriptions = {column.name: column.description for column in schema.columns}
    assert all(descriptions.values()), descriptions
    if asset == "evaluation_cashflow":
        assert descriptions == {name: FIGURE_COLUMNS[name] for name in ("metric", "value", "low", "high", "meaning")}
    if asset == "quarantine_transactions":
        assert "broken" in descriptions["broken_rules"] and descriptions["amount"].startswith("The raw value")


def test_mlflow_opens_on_described_trainings_with_their_candidates_inside(run: Run) -> None:
    tracking = build_resources(run.settings)["tracking"]
    client, experiment = tracking.client(), tracking.find_experiment()
    tags = client.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development" and tags["mlflow.note.content"]

    runs = client.search_runs([experiment], max_results=1000)
    assert all(each.data.tags["mlflow.note.content"] and each.info.status == "FINISHED" for each in runs)
    children = [each for each in runs if "mlflow.parentRunId" in each.data.tags]
    trainings = [each for each in runs if "mlflow.parentRunId" not in each.data.tags]
    assert {each.data.tags["domain"] for each in trainings} == {domain.name for domain in DOMAINS}
    for training in trainings:
        candidates = [each for each in children if each.data.tags["mlflow.parentRunId"] == training.info.run_id]
        assert candidates and all(each.data.metrics for each in candidates)
        chosen = [each.info.run_name for each in candidates if each.data.tags["is_chosen"] == "true"]
        assert chosen == [training.data.params["champion_candidate"]]
    for domain in DOMAINS:
        name = f"finrisk-{domain.name.replace('_', '-')}"
        assert client.get_registered_model(name).description.startswith(domain.title)
        assert "was chosen" in client.get_model_version(name, "1").description


def test_a_run_of_a_command_is_in_dagsters_overview(tmp_path) -> None:  # type: ignore[no-untyped-def]
    @dg.asset
    def one() -> None: ...

    definitions = dg.Definitions([one], jobs=[dg.define_asset_job("everything", "*")], executor=dg.in_process_executor)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        result = run_job(definitions.resolve_job_def("everything"), instance, location="finrisk_assets.definitions")
        stored = instance.get_run_by_id(result.run_id)
        assert stored and stored.is_success and stored.remote_job_origin
        assert stored.remote_job_origin.location_name == "finrisk_assets.definitions"
        shown = instance.get_runs(dg.RunsFilter(tags={".dagster/repository": "__repository__@finrisk_assets.definitions"}))
        assert [each.run_id for each in shown] == [result.run_id]
