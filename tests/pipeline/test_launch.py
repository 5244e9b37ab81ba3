"""Tests of the jobs as Dagster's own commands launch them, each in its own process and instance."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from finrisk_assets.cli import main
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.graph import partitions
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.graph.stages.evaluation import FIGURES
from finrisk_assets.settings import Settings
from tests.pipeline.shop import FEATURES, HEADER, MAPPING, SCORES, day
from tests.service.conftest import write_transaction_bundle

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a shop with ten months of files and a small champion."""
    (tmp_path / "in").mkdir()
    (tmp_path / "shop.yaml").write_text(MAPPING)
    for month in range(1, 11):
        (tmp_path / "in" / f"2024-{month:02d}.csv").write_text("\n".join((HEADER, *day(month, 12))) + "\n")
    settings = Settings(home=tmp_path / "home", source="mapped", mapping=tmp_path / "shop.yaml")
    monkeypatch.setenv("DAGSTER_HOME", "")
    main.prepare_dagster(settings)
    folder = champion_folder(TRANSACTION_ANOMALY, settings)
    folder.parent.mkdir(parents=True)
    write_transaction_bundle(folder)
    (folder.parent / FIGURES).write_text("[]")
    return settings


def command(settings: Settings, *words: str) -> None:
    where = {"FINRISK_HOME": str(settings.home), "FINRISK_SOURCE": "mapped", "FINRISK_MAPPING": str(settings.mapping)}
    environment = os.environ | where | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run([BIN / words[0], *words[1:]], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_daily_runs_from_the_source_to_scores(settings: Settings) -> None:
    command(settings, "dg", "launch", "--job", "late")
    everything = json.dumps(partitions.run_tags("2024-01", "2024-10"))
    command(settings, "dagster", "job", "execute", "-m", "finrisk_assets.definitions", "-j", "daily", "--tags", everything)
    with dg.DagsterInstance.get() as instance:
        for asset in ("validated_transactions", FEATURES, SCORES):
            assert len(instance.get_materialized_partitions(dg.AssetKey(asset))) == 10, asset


def test_each_job_of_a_schedule_is_taken_into_the_queue(settings: Settings) -> None:
    """From there the daemon of `make dev` carries it out, one run at a time."""
    for job in ("daily", "monthly"):
        command(settings, "dagster", "job", "launch", "-m", "finrisk_assets.definitions", "-j", job)
    with dg.DagsterInstance.get() as instance:
        runs = {run.job_name: run for run in instance.get_runs()}
        assert {name: run.status.value for name, run in runs.items()} == {"daily": "QUEUED", "monthly": "QUEUED"}
        assert runs["daily"].tags[partitions.RANGE_START] == "2024-07"
        assert runs["monthly"].tags[partitions.RANGE_START] == "2024-01"
