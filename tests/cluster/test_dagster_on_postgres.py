"""Dagster's instance and the warehouse on PostgreSQL: the queue and its pools, code locations, and a process for each step."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import sqlalchemy
from dagster_postgres import PostgresEventLogStorage

from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.graph import partitions
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.runs import dagster_home
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.graph.stages.evaluation import FIGURES
from finrisk_assets.graph.warehouse import Warehouse, count
from finrisk_assets.settings import Settings
from tests.cluster.dagster_processes import BIN, LOCATIONS, ask, launch, running
from tests.pipeline.shop import HEADER, MAPPING, day
from tests.pipeline.test_postgres import find_differences, tables_of
from tests.service.conftest import write_transaction_bundle

DEPLOY = Path(__file__).parents[2] / "deploy" / "dagster"
RUN_S = 600
MONTHS = partitions.run_tags("2024-01", "2024-03")


@pytest.fixture
def settings(new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return the settings of a shop with three months and a small champion; Dagster's instance and the warehouse are on PostgreSQL."""
    (tmp_path / "in").mkdir()
    (tmp_path / "shop.yaml").write_text(MAPPING.replace("2024-10", "2024-03"))
    for month in range(1, 4):
        (tmp_path / "in" / f"2024-{month:02d}.csv").write_text("\n".join((HEADER, *day(month, 12))) + "\n")
    settings = Settings(home=tmp_path / "home", source="mapped", mapping=tmp_path / "shop.yaml", warehouse_url=new_database())
    give_champion(settings)
    for name, value in environment_of(settings, new_database()).items():
        monkeypatch.setenv(name, value)
    folder = settings.root / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_bytes((DEPLOY / "dagster.yaml").read_bytes())
    assert dagster_home.prepare_dagster(settings) == [], "the file of deploy/ has every part that a home's has"
    return settings


def give_champion(settings: Settings) -> None:
    folder = champion_folder(TRANSACTION_ANOMALY, settings)
    folder.parent.mkdir(parents=True)
    write_transaction_bundle(folder)
    (folder.parent / FIGURES).write_text("[]")


def environment_of(settings: Settings, dagster_url: str) -> dict[str, str]:
    return {
        "FINRISK_HOME": str(settings.home),
        "FINRISK_SOURCE": "mapped",
        "FINRISK_MAPPING": str(settings.mapping),
        "FINRISK_WAREHOUSE_URL": settings.warehouse_url,
        "DAGSTER_POSTGRES_URL": dagster_url.replace("postgresql://", "postgresql+psycopg2://"),
        "DAGSTER_HOME": str(settings.root / "dagster"),
        "PYTHONWARNINGS": "ignore",
    }


def wait_for(instance: dg.DagsterInstance, run_ids: list[str]) -> list[dg.RunRecord]:
    """Return the records of runs as soon as all have ended."""
    deadline = time.monotonic() + RUN_S
    while True:
        records = [record for run_id in run_ids if (record := instance.get_run_record_by_id(run_id))]
        if all(record.dagster_run.is_finished for record in records):
            return records
        assert time.monotonic() < deadline, [record.dagster_run.status for record in records]
        time.sleep(0.5)


def test_two_runs_of_the_queue_take_turns_in_a_pool(settings: Settings, tmp_path: Path) -> None:
    """Each takes seconds, and the queue takes both at once where the pool has room: without its limit they overlap."""
    command("instance", "concurrency", "set", "warehouse", "1")
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"
        with running(DEPLOY / "workspace.yaml", {}, tmp_path) as address:
            entries = ask(address, LOCATIONS)["workspaceOrError"]["locationEntries"]
            assert {entry["name"]: entry["locationOrLoadError"]["__typename"] for entry in entries} == {
                "finrisk_assets.definitions": "RepositoryLocation",
                "branch_reports": "RepositoryLocation",
            }
            run_ids = [launch(address, "finrisk_assets.definitions", "late", ["raw_transactions"]) for _ in range(2)]
            records = sorted(wait_for(instance, run_ids), key=lambda record: record.start_time or 0.0)
        assert [record.dagster_run.status.value for record in records] == ["SUCCESS", "SUCCESS"]
        (first, second) = records
        assert first.end_time and second.start_time and first.end_time <= second.start_time


def command(*words: str) -> None:
    done = subprocess.run([BIN / "dagster", *words], env=os.environ, capture_output=True, text=True, timeout=RUN_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_a_process_for_each_step_makes_the_same_tables(settings: Settings, new_database: Callable[[], str], tmp_path: Path) -> None:
    tags = json.dumps(MONTHS)
    for job in ("late", "daily"):
        command("job", "execute", "-m", "finrisk_assets.definitions", "-j", job, "--tags", tags)
    with dg.DagsterInstance.get() as instance:
        events = [event for run in instance.get_runs() for event in instance.all_logs(run.run_id, dg.DagsterEventType.STEP_WORKER_STARTED)]
        workers = [event.get_dagster_event().engine_event_data.metadata["pid"].value for event in events]
    alone = replace(settings, home=tmp_path / "alone", warehouse_url=new_database())
    give_champion(alone)
    definitions = build_definitions(alone)
    with dg.DagsterInstance.ephemeral() as instance:
        for job in ("late", "daily"):
            result = definitions.resolve_job_def(job).execute_in_process(instance=instance, tags=MONTHS)
            assert result.success
    ours, theirs = Warehouse.of(settings), Warehouse.of(alone)
    assert len(workers) == len(set(workers)) >= 10
    assert tables_of(ours) == tables_of(theirs)
    for name in tables_of(ours):
        assert find_differences(ours.table(name).to_pyarrow(), theirs.table(name).to_pyarrow(), 0.0) == {}, name


@pytest.mark.parametrize("killed", ["run", "step"])
def test_a_kill_leaves_no_step_that_begins_and_a_table_whole_or_not_at_all(settings: Settings, killed: str) -> None:
    """A step waits for its table's lock while its run's process, or its own, is killed; the lock is free afterwards."""
    begin = [BIN / "dagster", "job", "execute", "-m", "finrisk_assets.definitions", "-j", "late", "--tags", json.dumps(MONTHS)]
    with psycopg.connect(settings.warehouse_url, autocommit=True) as other, dg.DagsterInstance.get() as instance:
        other.execute("SELECT pg_advisory_lock(hashtextextended('finrisk staging.raw_transactions', 0))")
        run = subprocess.Popen(begin, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_number(other, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", 1)
        (record,) = instance.get_run_records()
        run_id = record.dagster_run.run_id
        (started,) = instance.all_logs(run_id, dg.DagsterEventType.STEP_WORKER_STARTED)
        if killed == "run":
            run.kill()
        else:
            os.kill(int(started.get_dagster_event().engine_event_data.metadata["pid"].value), signal.SIGKILL)
        run.wait(RUN_S)
        other.execute("SELECT pg_advisory_unlock_all()")
        wait_for_number(
            other, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'finrisk' AND datname = current_database()", 0
        )
        assert [event.step_key for event in instance.all_logs(run_id, dg.DagsterEventType.STEP_START)] == ["raw_transactions"]
        status = instance.get_run_by_id(run_id).status
    warehouse = Warehouse.of(settings)
    if killed == "run":
        assert tables_of(warehouse) == ["raw_transactions"] and count(warehouse.table("raw_transactions")) == 36
    else:
        assert (tables_of(warehouse), status) == ([], dg.DagsterRunStatus.FAILURE)


def wait_for_number(connection: psycopg.Connection[Any], query: str, number: int) -> None:
    deadline = time.monotonic() + RUN_S
    while connection.execute(query).fetchone() != (number,):
        assert time.monotonic() < deadline, query
        time.sleep(0.1)


@dg.asset
def nothing() -> None:
    """An asset whose run has events."""


def test_a_url_without_a_driver_fails_at_a_notify(new_database: Callable[[], str]) -> None:
    """SQLAlchemy reads it by psycopg 3, whose parameters `NOTIFY` does not take."""
    storage = PostgresEventLogStorage(new_database(), should_autocreate_tables=True)
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = dg.materialize([nothing], instance=instance).run_id
        event = instance.all_logs(run_id)[0]
    with pytest.raises(sqlalchemy.exc.ProgrammingError, match=r"syntax error[\s\S]*NOTIFY"):
        storage.store_event(event)
