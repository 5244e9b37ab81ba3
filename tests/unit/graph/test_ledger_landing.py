"""Tests of the landing of a source whose tables come from one place."""

from pathlib import Path

import dagster as dg
import pytest

from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.ledger.sources.simulator import economy_source
from finrisk_assets.settings import Settings


def test_an_economy_is_simulated_once_for_all_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated, simulate = [], economy_source.simulate_towns
    monkeypatch.setattr(economy_source, "simulate_towns", lambda economy: simulated.append(economy) or simulate(economy))
    settings = Settings(home=tmp_path, sim_customers=20, sim_months=3)
    definitions = build_definitions(settings)
    keys = {key for key in definitions.resolve_all_asset_keys() if key.to_user_string().startswith(("raw_", "truth_"))}
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def(automation.EVERYTHING).get_subset(asset_selection=keys, asset_check_selection=set())
        assert job.execute_in_process(instance=instance).success
    landed = {file.name for file in (settings.root / "landing").glob("*.parquet")}
    assert landed == {f"{key.to_user_string()}.parquet" for key in keys}
    assert len(simulated) == 1
