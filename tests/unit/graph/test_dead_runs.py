"""Tests of the record of a run's worker, and of runs whose worker has ended: found, failed, listed and cleared."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from finrisk_assets.graph.runs import dead_runs
from finrisk_assets.graph.runs.workers import WORKER_TAG, RunWorker

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@dg.op(pool="warehouse")
def work() -> None:
    """Do nothing."""


@dg.job
def daily() -> None:
    work()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def ended_worker() -> RunWorker:
    """Return a worker that has ended."""
    with subprocess.Popen(SLEEP) as process:
        worker = replace(RunWorker.this_process(), pid=process.pid, started=psutil.Process(process.pid).create_time())
        assert not worker.has_ended
        process.kill()
    return worker


def begin(instance: dg.DagsterInstance, worker: RunWorker | None, status: str = "STARTED", **tags: str) -> dg.DagsterRun:
    """Return a run in a state, with a worker."""
    recorded = {WORKER_TAG: worker.write()} if worker else {}
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("finrisk"), "__repository__"), "daily")
    return instance.create_run_for_job(daily, tags={**recorded, **tags}, status=dg.DagsterRunStatus[status], remote_job_origin=origin)


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    here = RunWorker.this_process()
    assert RunWorker.read(here.write()) == here
    assert here.is_here and not here.has_ended
    assert replace(here, started=here.started - 60).has_ended  # the number belongs to another process now
    elsewhere = replace(here, host="elsewhere", pid=2**22)
    assert not elsewhere.has_ended  # nobody can tell from here
    assert not elsewhere.interrupt()
    for text in ("", "nobody", "[1]", json.dumps({"host": "here"})):
        assert RunWorker.read(text) is None


def test_a_zombie_has_ended(ended_worker: RunWorker) -> None:
    with subprocess.Popen(SLEEP) as process:
        worker = replace(ended_worker, pid=process.pid, started=psutil.Process(process.pid).create_time())
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert worker.has_ended


def test_dead_runs_fail_and_live_ones_go_on(instance: dg.DagsterInstance, ended_worker: RunWorker) -> None:
    here = RunWorker.this_process()
    dead, canceling = begin(instance, ended_worker), begin(instance, ended_worker, "CANCELING")
    alive, elsewhere, young = begin(instance, here), begin(instance, replace(ended_worker, host="elsewhere")), begin(instance, None)
    lines = dead_runs.clear_dead_runs(instance)
    assert sorted(lines) == sorted(
        [
            f"run {dead.run_id[:8]} of daily is failed: its worker, {ended_worker}, has ended",
            f"run {canceling.run_id[:8]} of daily is canceled: its worker, {ended_worker}, has ended",
        ]
    )
    states = {run.run_id: run.status.value for run in instance.get_runs()}
    assert states == {
        dead.run_id: "FAILURE",
        canceling.run_id: "CANCELED",
        alive.run_id: "STARTED",
        elsewhere.run_id: "STARTED",
        young.run_id: "STARTED",
    }
    assert dead_runs.clear_dead_runs(instance) == []
    late = time.time() + dead_runs.UNTAKEN_S + 60
    assert [one.run.run_id for one in dead_runs.find_dead_runs(instance, late)] == [young.run_id]


def test_only_a_run_that_nobody_would_start_again_is_started_again(instance: dg.DagsterInstance, ended_worker: RunWorker) -> None:
    by_hand, scheduled = begin(instance, ended_worker), begin(instance, ended_worker, **{"dagster/schedule_name": "daily"})
    dead_runs.clear_dead_runs(instance)
    tags = {run.run_id: run.tags for run in instance.get_runs()}
    assert dead_runs.RETRIES.keys() & tags[by_hand.run_id].keys() == set()
    assert dead_runs.RETRIES.items() <= tags[scheduled.run_id].items()


def test_the_list_says_what_each_run_waits_for(instance: dg.DagsterInstance, ended_worker: RunWorker) -> None:
    here = RunWorker.this_process()
    holding, waiting, dead, queued = (
        begin(instance, here),
        begin(instance, here),
        begin(instance, ended_worker),
        begin(instance, None, "QUEUED"),
    )
    holder = f"run {holding.run_id[:8]} of daily, {here}"
    lines = {line.run_id: line for line in dead_runs.list_runs(instance, holder)}
    assert lines[holding.run_id[:8]] == dead_runs.RunLine(holding.run_id[:8], "daily", "started", str(here), "–")
    assert lines[waiting.run_id[:8]].waits_for == f"the warehouse, held by {holder}"
    assert lines[dead.run_id[:8]].waits_for == f"nothing, it is dead: its worker, {ended_worker}, has ended"
    assert f"the pool warehouse, held by run {holding.run_id[:8]} of daily" in lines[queued.run_id[:8]].waits_for
    for run in (holding, waiting, dead):
        instance.report_run_failed(run)
    (line,) = dead_runs.list_runs(instance, None)
    assert line.waits_for == "the daemon: `finrisk dev` starts it"


def test_a_run_is_cleared_by_hand_unless_it_lives(instance: dg.DagsterInstance, ended_worker: RunWorker) -> None:
    here = RunWorker.this_process()
    elsewhere, alive, queued = (
        begin(instance, replace(ended_worker, host="elsewhere")),
        begin(instance, here),
        begin(instance, None, "QUEUED"),
    )
    assert (
        dead_runs.clear_by_hand(instance, elsewhere.run_id[:8]) == f"run {elsewhere.run_id[:8]} of daily is failed: it was cleared by hand"
    )
    assert dead_runs.clear_by_hand(instance, queued.run_id) == f"run {queued.run_id[:8]} of daily is taken out of the queue"
    with pytest.raises(dead_runs.RunError, match=rf"is alive, {here}: stop it first, with `kill -INT {here.pid}`"):
        dead_runs.clear_by_hand(instance, alive.run_id)
    with pytest.raises(dead_runs.RunError, match="no unfinished run begins with 'x': see `finrisk runs`"):
        dead_runs.clear_by_hand(instance, "x")
    states = {run.run_id: run.status.value for run in instance.get_runs()}
    assert states == {elsewhere.run_id: "FAILURE", queued.run_id: "CANCELED", alive.run_id: "STARTED"}
