"""Tests of signals as requests to stop: each in a process of its own, whose code swallows what it can."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from finrisk_assets.cli import main
from finrisk_assets.graph.runs.stop_signals import is_interrupted_query

GRAPH = """
import os, sys, threading, time, weakref
from pathlib import Path
import dagster as dg
from finrisk_assets.graph.runs.executor import build_executor
from finrisk_assets.graph.runs.in_process import run_job

folder = Path(sys.argv[1])

def swallow(seconds):
    ends, said = time.monotonic() + seconds, False
    while time.monotonic() < ends:
        try:
            # Said in here: a signal that answers it is swallowed too.
            said = said or print("swallowing", flush=True) is None
            {swallowing}
        except {error} as error:
            print(type(error).__name__, flush=True)
            {then}

@dg.asset
def first():
    swallow(3)

@dg.asset(deps=[first])
def second():
    (folder / "second").touch()

executor = build_executor("duckdb://" + str(folder / "w.duckdb"), 1, ("bento",), "champion_")
definitions = dg.Definitions([first, second], executor=executor, jobs=[dg.define_asset_job("daily")])
with dg.DagsterInstance.local_temp(str(folder)) as instance:
    result = run_job(definitions.resolve_job_def("daily"), instance)
    print(result.success, {{event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}})
"""
LOOP = "sum(range(10_000))"
IN_A_CALLBACK = "class Thing: pass\n            thing = Thing(); weakref.finalize(thing, sum, range(10_000)); del thing"
QUERY = (
    "import duckdb; threading.Timer(1, os.kill, (os.getpid(), 2)).start(); "
    "duckdb.sql('SELECT sum(hash(range)) FROM range(20_000_000_000)').fetchall()"
)
"""A query that the process itself interrupts while DuckDB is at work on it."""


def run(
    folder: Path, number: int, *, swallowing: str = LOOP, error: str = "BaseException", then: str = "pass", last: str = ""
) -> tuple[int, str]:
    """Return exit status and output of a run of two assets that got a signal in the first."""
    code = GRAPH.format(swallowing=swallowing, error=error, then=then, last=last)
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "swallowing" in line:
                process.send_signal(number)
                break
        output, _ = process.communicate(timeout=120)
    return process.returncode, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_swallowed_ends_the_run_before_its_next_step(tmp_path: Path, number: signal.Signals) -> None:
    status, output = run(tmp_path, number)
    assert status == 128 + number, output
    assert "DagsterExecutionInterruptedError" in output  # it was swallowed
    assert not (tmp_path / "second").exists()
    assert "False" in output and "{'second'" not in output


def test_a_signal_that_is_swallowed_by_the_garbage_collector_comes_again(tmp_path: Path) -> None:
    status, output = run(tmp_path, signal.SIGINT, swallowing=IN_A_CALLBACK, error="ValueError")
    assert status == 130, output
    assert not (tmp_path / "second").exists()


def test_a_query_that_a_signal_interrupts_is_no_failed_query(tmp_path: Path) -> None:
    status, output = run(tmp_path, 0, swallowing=QUERY, error="RuntimeError", then="return")
    assert status == 130, output
    assert "RuntimeError" in output  # what DuckDB makes of the signal
    assert not (tmp_path / "second").exists()
    assert is_interrupted_query(RuntimeError("Query interrupted"))
    assert not is_interrupted_query(RuntimeError("out of memory"))


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    code = GRAPH.format(swallowing=LOOP, error="BaseException", then="pass").replace("swallow(3)", "swallow(600)")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert any("swallowing" in line for line in lines)
        process.send_signal(signal.SIGINT)
        # The first is heard, and repeated: the second comes when that has happened.
        assert any("Interrupted" in line for line in lines)
        assert any("Interrupted" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert not (tmp_path / "second").exists()


def test_a_signal_before_the_work_begins_has_its_status_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "prepare_dagster", interrupt)
    assert CliRunner().invoke(main.cli, ["demo"], env={"FINRISK_HOME": str(tmp_path)}).exit_code == 130


def test_without_a_signal_a_run_ends_as_it_does(tmp_path: Path) -> None:
    command = [sys.executable, "-c", GRAPH.format(swallowing=LOOP, error="BaseException", then="pass"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "True" in done.stdout
    assert (tmp_path / "second").exists()
