"""Tests of a home whose path means something in a URL, a pattern or a shell: every store lies in it, and nowhere else."""

from contextlib import closing
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from bento.store.session import open_store
from finrisk_assets.cli.main import prepare_dagster
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions, build_resources
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings


@pytest.mark.parametrize("name", ["my home", "a#b", "50%", "50% off", "it's[1]*", "ünï"])
def test_every_store_lies_in_the_home(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = Settings(home=tmp_path / name, sim_customers=8, sim_months=2, as_of=datetime(2025, 7, 1))
    prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        stages = {dg.AssetKey(f"{stage}_customers") for stage in ("raw", "quarantine", "validated")}
        job = build_definitions(settings).resolve_job_def(automation.LATE).get_subset(asset_selection=stages)
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        assert [event.step_key for event in result.all_events if event.is_step_failure] == []
        assert [run.run_id for run in instance.get_runs()] == [result.run_id]
    warehouse = Warehouse.of(settings)
    assert warehouse.table("validated_customers").count().to_pyarrow().as_py() == 8
    warehouse.connection.disconnect()
    warehouse.drop_connection()
    tracking = build_resources(settings)["tracking"]
    assert tracking.client().get_experiment(tracking.find_experiment()).name == "finrisk-simulator"
    with closing(open_store(settings)):
        pass
    files = ("warehouse.duckdb", "dagster/history/runs.db", "mlflow/mlflow.db", "service/store.sqlite")
    assert [file for file in files if not (settings.root / file).is_file()] == []
    assert {path.name for path in tmp_path.iterdir()} == {name, "elsewhere"}
    assert [*elsewhere.iterdir()] == []
