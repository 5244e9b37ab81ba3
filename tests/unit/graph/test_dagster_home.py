"""Tests of ``dagster.yaml``: written once, kept, and compared with what this version would write."""

from pathlib import Path

import dagster as dg
import pytest
import yaml

from finrisk_assets.graph.runs.dagster_home import DAGSTER_YAML, create_pools, find_additions, prepare_dagster
from finrisk_assets.graph.runs.launcher import MonitoredRunLauncher
from finrisk_assets.settings import Settings, SettingsError

EDITED = """
concurrency:
  pools: {granularity: run, default_limit: 3}   # the operator's
telemetry: {enabled: true}
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DAGSTER_HOME", "")
    return Settings(home=tmp_path)


def test_it_is_written_once_and_is_a_whole_instance(settings: Settings) -> None:
    assert prepare_dagster(settings) == []
    assert prepare_dagster(settings) == []
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.run_launcher, MonitoredRunLauncher)
        assert instance.run_monitoring_enabled and instance.run_retries_enabled
        assert instance.global_op_concurrency_default_limit == 1


def test_what_an_operator_wrote_stays_and_what_is_new_is_said(settings: Settings) -> None:
    file = settings.root / "dagster" / "dagster.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(EDITED)
    (line,) = prepare_dagster(settings)
    assert file.read_text() == EDITED
    assert line.startswith(f"{file} is kept as it is; this version would add concurrency.runs.max_concurrent_runs: 4; ")
    assert "run_launcher.class: MonitoredRunLauncher" in line and "run_monitoring.enabled: true" in line
    assert "telemetry" not in line and "default_limit" not in line  # these are the operator's


def test_new_pools_get_the_default_limit_and_known_ones_keep_theirs(settings: Settings) -> None:
    prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        instance.event_log_storage.set_concurrency_slots("warehouse", 4)
        create_pools(instance, ("warehouse", "training"))
        assert {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()} == {"warehouse": 4, "training": 1}


def test_nothing_is_new_in_what_this_version_writes() -> None:
    newest = yaml.safe_load(DAGSTER_YAML)
    assert list(find_additions(newest, newest)) == []
    assert list(find_additions({}, {"a": {"b": 1}, "c": True})) == ["a.b: 1", "c: true"]


@pytest.mark.parametrize("content", ["- a\n", "a: [\n", "concurrency\n"])
def test_a_file_that_cannot_be_read_is_named(settings: Settings, content: str) -> None:
    file = settings.root / "dagster" / "dagster.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"dagster\.yaml .*correct it, or remove it"):
        prepare_dagster(settings)
    assert file.read_text() == content
