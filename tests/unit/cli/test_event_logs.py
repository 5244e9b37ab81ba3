"""Dagster's event logs while the demonstration runs: they stay open, and nothing waits for the disk after each event."""

import sqlite3
from pathlib import Path

import dagster as dg
import pytest

from finrisk_assets.cli.demo import keep_event_logs_open


@dg.op
def first():
    return 1


@dg.job
def small_job():
    first()


def read_synchronous(instance: dg.DagsterInstance, run_id: str) -> int:
    with instance.event_log_storage.run_connection(run_id) as connection:  # type: ignore[attr-defined]
        return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())


def test_the_logs_of_a_run_stay_open_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    history = tmp_path / "history"
    with dg.DagsterInstance.get() as instance:
        with keep_event_logs_open(history):
            run = small_job.execute_in_process(instance=instance)
            # SQLite writes this file back into the database, and removes it, where the last connection is closed.
            assert (history / "runs" / f"{run.run_id}.db-wal").exists()
            assert read_synchronous(instance, run.run_id) == 1  # NORMAL
        assert not (history / "runs" / f"{run.run_id}.db-wal").exists()
        assert read_synchronous(instance, run.run_id) == 2  # FULL
        assert len(instance.all_logs(run.run_id)) == len(run.all_events)
    with sqlite3.connect(history / "runs" / f"{run.run_id}.db") as log:
        assert log.execute("PRAGMA integrity_check").fetchone() == ("ok",)
