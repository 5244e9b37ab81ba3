"""Tests of what operators do to a home: they cut its power, stop its runs, and start several at once. Real daemons, real processes."""

import json
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.graph import partitions
from finrisk_assets.graph.runs.dagster_home import prepare_dagster
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.graph.stages.evaluation import FIGURES
from tests.pipeline.shop import HEADER, MAPPING, SCORES, day
from tests.service.conftest import write_transaction_bundle
from tests.whole.operated import ACTIVE, BIN, OperatedHome, wait_until

pytestmark = pytest.mark.slow

SUCCESS, FAILURE, QUEUED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.QUEUED
EVERYTHING = json.dumps(partitions.run_tags("2024-01", "2024-10"))


def open_home(folder: Path) -> OperatedHome:
    """Return the home in a folder, with its Dagster set up there."""
    home = OperatedHome(folder, "shop.yaml", {"FINRISK_AS_OF": "2024-11-01"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", "")
        prepare_dagster(home.settings)
    return home


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a shop with ten months of files, landed, and a small champion: each test works in a copy."""
    folder = tmp_path_factory.mktemp("landed")
    (folder / "in").mkdir()
    (folder / "shop.yaml").write_text(MAPPING)
    for month in range(1, 11):
        (folder / "in" / f"2024-{month:02d}.csv").write_text("\n".join((HEADER, *day(month, 12))) + "\n")
    home = open_home(folder)
    champion = champion_folder(TRANSACTION_ANOMALY, home.settings)
    champion.parent.mkdir(parents=True)
    write_transaction_bundle(champion)
    (champion.parent / FIGURES).write_text("[]")
    execute(home, "daily")
    return folder


@pytest.fixture
def home(landed: Path, tmp_path: Path) -> Iterator[OperatedHome]:
    """Yield the home of a shop with ten months of files, landed, and a small champion."""
    shutil.copytree(landed, tmp_path, dirs_exist_ok=True)
    home = open_home(tmp_path)
    yield home
    home.stop()


def execute(home: OperatedHome, job: str) -> None:
    done = home.run(str(BIN / "dagster"), "job", "execute", "-m", "finrisk_assets.definitions", "-j", job, "--tags", EVERYTHING)
    assert done.returncode == 0, done.stderr[-4000:]


def launch(home: OperatedHome, *module: str) -> None:
    """Put a daily into the queue."""
    done = home.run(str(BIN / "dagster"), "job", "launch", *(module or ("-m", "finrisk_assets.definitions")), "-j", "daily")
    assert done.returncode == 0, done.stderr[-4000:]


def wait_for_end(home: OperatedHome, number: int) -> list[dg.DagsterRun]:
    """Wait until so many runs are there and none is unfinished; return them."""
    wait_until(
        lambda: len(runs := home.runs()) >= number and not any(run.status in (QUEUED, *ACTIVE) for run in runs), "the end of all runs"
    )
    return home.runs()


def wait_until_started(home: OperatedHome) -> dg.DagsterRun:
    wait_until(lambda: home.runs(statuses=[dg.DagsterRunStatus.STARTED]), "a started run", pause_s=0.05)
    return home.runs(statuses=[dg.DagsterRunStatus.STARTED])[0]


def test_after_a_power_cut_dev_fails_the_dead_run_and_the_next_one_succeeds(home: OperatedHome) -> None:
    home.start_dev()
    launch(home)
    dead = wait_until_started(home)
    wait_until(lambda: "finrisk/worker" in home.runs(run_ids=[dead.run_id])[0].tags, "its worker")
    home.kill_all()
    launch(home)  # it waits for the pool that the dead run holds
    listed = home.finrisk("runs").stdout
    assert "nothing, it is dead: its worker" in listed
    assert f"the pool warehouse, held by run {dead.run_id[:8]} of daily" in listed
    home.start_dev()
    runs = {run.run_id: run for run in wait_for_end(home, 3)}
    assert runs.pop(dead.run_id).status == FAILURE
    assert {run.status for run in runs.values()} == {SUCCESS}
    (line,) = [line for line in home.log.splitlines() if line.startswith(f"run {dead.run_id[:8]} of daily is failed: its worker, process")]
    assert line.endswith("has ended")


def test_after_a_power_cut_the_daemon_alone_fails_the_dead_run_and_starts_it_again(home: OperatedHome) -> None:
    """The run was a schedule's: nobody is there who would start it again."""
    home.start_daemon()
    home.ask("daily")
    dead = wait_until_started(home)
    wait_until(lambda: "finrisk/worker" in home.runs(run_ids=[dead.run_id])[0].tags, "its worker")
    home.kill_all()
    home.start_daemon()
    wait_until(lambda: [run for run in home.runs() if run.parent_run_id == dead.run_id and run.status == SUCCESS], "its second try")
    first, failed, again = wait_for_end(home, 3)
    assert (first.status, failed.status, again.status) == (SUCCESS, FAILURE, SUCCESS)
    assert again.tags[partitions.RANGE_START] == failed.tags[partitions.RANGE_START]


def test_a_live_run_is_not_cleared(home: OperatedHome) -> None:
    home.start_dev()
    launch(home)
    alive = wait_until_started(home)
    refused = home.finrisk("runs", "clear", alive.run_id[:8])
    if "no unfinished run" not in refused.stderr:  # it is that quick
        assert (refused.returncode == 1 and refused.stdout == "" and "alive" in refused.stderr) or "no worker" in refused.stderr
    assert {run.status for run in wait_for_end(home, 2)} == {SUCCESS}


def test_four_starts_at_once_all_succeed_one_after_the_other(home: OperatedHome) -> None:
    """The starts are `dagster job launch`, `dg launch`, the button of the UI, and the schedule."""
    port = home.start_daemon_and_ui()
    wait_until(lambda: answers(port), "the web server")
    home.ask("daily")
    # The schedule fires with the minute; the commands take some seconds to begin.
    time.sleep(60 - time.time() % 60)
    queued = home.start(str(BIN / "dagster"), "job", "launch", *home.ticking, "-j", "daily")
    direct = home.start(str(BIN / "dg"), "launch", "--job", "daily", log="direct.log")
    press_launch(port)
    assert (queued.wait(120), direct.wait(240)) == (0, 0), (home.folder / "direct.log").read_text()[-4000:]
    wait_until(lambda: [run for run in home.runs() if "dagster/schedule_name" in run.tags], "the schedule's run")
    runs = wait_for_end(home, 5)[1:]
    assert [run.status for run in runs] == [SUCCESS] * 4
    with home.instance() as instance:
        stats = sorted((instance.get_run_stats(run.run_id) for run in runs), key=lambda one: one.end_time or 0)
        assert len(instance.get_materialized_partitions(dg.AssetKey(SCORES))) == 10
        spans = sorted(span_of_steps(instance, one.run_id) for one in stats)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), spans


def span_of_steps(instance: dg.DagsterInstance, run_id: str) -> tuple[float, float]:
    """Return the times at which a run's first step began and its last one ended."""
    steps = instance.get_run_step_stats(run_id)
    return min(step.start_time or 0 for step in steps), max(step.end_time or 0 for step in steps)


def answers(port: int) -> bool:
    try:
        return "ticking" in ask_graphql(port, "{ workspaceOrError { ... on Workspace { locationEntries { name } } } }")
    except OSError:
        return False


def press_launch(port: int) -> None:
    """Do what the button of the UI's launchpad does."""
    selector = '{repositoryLocationName: "ticking", repositoryName: "__repository__", jobName: "daily"}'
    answer = ask_graphql(port, f"mutation {{ launchRun(executionParams: {{selector: {selector}}}) {{ __typename }} }}")
    assert "LaunchRunSuccess" in answer, answer


def ask_graphql(port: int, query: str) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", json.dumps({"query": query}).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read().decode())


def test_whoever_comes_second_waits_and_says_for_whom(home: OperatedHome) -> None:
    """A run and a command both wait for a process that has the warehouse open, ours or another's."""
    hold = "import sys, duckdb, time; file = duckdb.connect(sys.argv[1]); print('open', flush=True); time.sleep(15)"
    own = "import sys, time; from finrisk_assets.graph.warehouse import Warehouse; Warehouse(url=sys.argv[1]).connection; print('open', flush=True); time.sleep(15)"  # noqa: E501
    for code, target, name in (
        (hold, str(home.settings.root / "warehouse.duckdb"), "PID"),
        (own, home.settings.warehouse, "process"),
    ):
        holder = home.start(sys.executable, "-c", code, target, log="holder.log")
        wait_until(lambda: "open" in (home.folder / "holder.log").read_text(), "the holder", pause_s=0.05)
        done = home.run(str(BIN / "dg"), "launch", "--job", "daily")
        assert holder.wait(60) == 0
        assert done.returncode == 0, done.stderr[-4000:]
        assert "waiting for the warehouse, which is in use by" in done.stderr and name in done.stderr
        (home.folder / "holder.log").unlink()


def test_a_scheduled_run_that_waited_in_vain_is_started_again_and_another_is_not(home: OperatedHome) -> None:
    impatient = OperatedHome(home.folder, home.mapping, {**home.variables, "FINRISK_WAREHOUSE_WAIT_MINUTES": "0.05"})
    code = "import sys, time; from finrisk_assets.graph.warehouse import Warehouse; Warehouse(url=sys.argv[1]).connection; print('open', flush=True); time.sleep(600)"  # noqa: E501
    holder = home.start(sys.executable, "-c", code, home.settings.warehouse, log="holder.log")
    try:
        wait_until(lambda: "open" in (home.folder / "holder.log").read_text(), "the holder", pause_s=0.05)
        by_hand = impatient.run(str(BIN / "dg"), "launch", "--job", "daily")
        assert by_hand.returncode != 0
        assert "is still in use by" in by_hand.stderr and "after 0.05 minutes" in by_hand.stderr
        assert impatient.finrisk("load-history").stderr.count("is still in use by") == 1
        impatient.start_daemon()
        impatient.ask("daily")
        wait_until(lambda: [run for run in home.runs() if run.parent_run_id is not None], "the second try")
        holder.kill()
        wait_until(lambda: [run for run in home.runs() if run.parent_run_id is not None and run.status == SUCCESS], "its success")
    finally:
        holder.kill()
        holder.wait()
        impatient.stop()
    runs = home.runs()
    assert [run.status for run in runs if "dagster/schedule_name" in run.tags or run.parent_run_id][-1] == SUCCESS
    assert not [run for run in runs if run.parent_run_id == runs[1].run_id]  # what was started by hand is not started again


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_demonstration_and_nothing_is_made_after_it(home: OperatedHome, number: signal.Signals) -> None:
    demo = home.start(sys.executable, "-m", "finrisk_assets.cli.main", "demo", log="demo.log")
    before = {run.run_id for run in home.runs()}
    wait_until(lambda: [run for run in home.runs() if run.run_id not in before], "the run", pause_s=0.05)
    wait_until(lambda: "✓" in (home.folder / "demo.log").read_text(), "a step", pause_s=0.05)
    sent = time.time()
    demo.send_signal(number)
    assert demo.wait(120) == 128 + number
    assert f"Stopped by {number.name}" in (home.folder / "demo.log").read_text()
    with home.instance() as instance:
        entries = instance.all_logs(home.runs()[-1].run_id)
    made = [entry for entry in entries if entry.is_dagster_event and entry.get_dagster_event().is_step_materialization]
    assert made and all(entry.timestamp <= sent + 0.1 for entry in made)
    assert home.runs()[-1].status == FAILURE


def test_a_run_stopped_in_the_ui_stops_before_its_next_step(home: OperatedHome) -> None:
    home.start_dev()
    launch(home)
    run = wait_until_started(home)
    wait_until(lambda: "finrisk/worker" in home.runs(run_ids=[run.run_id])[0].tags, "its worker", pause_s=0.05)
    with home.instance() as instance:
        assert instance.run_launcher.terminate(run.run_id)
    stopped = wait_for_end(home, 2)[-1]
    assert stopped.status == dg.DagsterRunStatus.CANCELED


def test_starting_prints_no_warning(home: OperatedHome) -> None:
    done = home.run(str(BIN / "dg"), "launch", "--job", "late")
    assert done.returncode == 0
    assert "Warning" not in done.stdout + done.stderr
    home.start_dev()
    wait_until(lambda: "Serving dagster-webserver" in home.log and "following daemons" in home.log, "the start")
    assert "Warning" not in home.log
