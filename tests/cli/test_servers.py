"""Tests of `make serve`, `make dev` and `make up`: taken ports are named, and a signal ends every server with its children."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from finrisk_assets.cli import local_servers
from finrisk_assets.cli.local_servers import Server
from finrisk_assets.cli.main import cli
from finrisk_assets.settings import Settings

ROOT = Path(__file__).parents[2]
SERVER = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', sys.argv[1]])"
"""A server that works in a child, as those of Dagster and BentoML do."""
RUN = """
import sys
from pathlib import Path
from finrisk_assets.cli.local_servers import Server, run_servers
from finrisk_assets.settings import Settings
home, code, *ports = sys.argv[1:]
servers = [Server(f"server{port}", "files", int(port), (sys.executable, "-c", code, port)) for port in ports]
sys.exit(run_servers(Settings(home=Path(home)), servers))
"""


@pytest.fixture
def taken():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize("words", ["serve", "dev"])
def test_a_taken_port_is_named_with_its_holder_and_a_free_one(words: str, taken: int, tmp_path: Path) -> None:
    latest = tmp_path / "simulator" / "bentoml" / "bentos" / "finrisk" / "latest"
    latest.parent.mkdir(parents=True)
    latest.write_text("0")
    environment = {"FINRISK_HOME": str(tmp_path), "FINRISK_SOURCE": "simulator"}
    done = CliRunner().invoke(cli, [words, "--port", str(taken)], env=environment)
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: port {taken} is taken by process {os.getpid()} (")
    free = int(done.output.rsplit("PORT=", 1)[1].split("`")[0])
    assert f"run `make {words} PORT={free}`" in done.output and local_servers.is_free(free)


def test_servers_take_the_next_free_ports(taken: int, tmp_path: Path) -> None:
    servers = local_servers.plan_servers(Settings(home=tmp_path), taken)
    ports = [server.port for server in servers]
    assert [server.name for server in servers] == ["console", "service", "Dagster", "MLflow"]
    assert len(set(ports)) == 4 and taken not in ports and min(ports) > taken
    service = servers[1]
    assert f"http://127.0.0.1:{service.port}" in servers[0].command


def test_servers_know_each_others_addresses_and_keep_those_that_are_set(taken: int, tmp_path: Path) -> None:
    servers = {server.name: server for server in local_servers.plan_servers(Settings(home=tmp_path, mlflow_url="https://m"), taken)}
    for server in servers.values():
        assert server.environment["FINRISK_CONSOLE_URL"] == f"http://127.0.0.1:{servers['console'].port}/console"
        assert server.environment["FINRISK_DAGSTER_URL"] == f"http://127.0.0.1:{servers['Dagster'].port}"
        assert "FINRISK_MLFLOW_URL" not in server.environment
    assert servers["service"].environment["FINRISK_REPORTS"] == str(tmp_path / "simulator" / "reports")


def test_what_the_demonstration_records_links_to_the_pages_of_make_up(taken: int, tmp_path: Path) -> None:
    planned = local_servers.plan_addresses(Settings(home=tmp_path), taken)
    console = local_servers.plan_servers(Settings(home=tmp_path), taken)[0].environment
    assert planned.console_url == console["FINRISK_CONSOLE_URL"] and planned.console_url.startswith("http://127.0.0.1:")
    assert (planned.dagster_url, planned.mlflow_url) == (console["FINRISK_DAGSTER_URL"], console["FINRISK_MLFLOW_URL"])


@pytest.mark.slow
def test_a_signal_ends_all_servers_with_their_children(tmp_path: Path) -> None:
    ports = local_servers.find_free_ports(42000)
    first, second = next(ports), next(ports)
    command = [sys.executable, "-c", RUN, str(tmp_path), SERVER, str(first), str(second)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout
        lines = [running.stdout.readline() for _ in range(4)]
        assert f"http://127.0.0.1:{first}/" in lines[2] and f"http://127.0.0.1:{second}/" in lines[3]
        family = psutil.Process(running.pid).children(recursive=True)
        assert len(family) == 4
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 0
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in family)


@pytest.mark.slow
def test_a_server_that_ends_ends_the_others_and_names_its_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    port = next(local_servers.find_free_ports(43000))
    stays = Server("stays", "", port, (sys.executable, "-c", SERVER, str(port)))
    ends = Server("ends", "", port + 1, (sys.executable, "-c", "import sys; sys.exit('no room')"))
    began = time.monotonic()
    assert local_servers.run_servers(Settings(home=tmp_path), [stays, ends]) == 1
    assert time.monotonic() - began < local_servers.READY_S
    assert "the ends ended with status 1; its log is in" in capfd.readouterr().err
    assert "no room" in (tmp_path / "simulator" / "logs" / "ends.log").read_text()
    assert local_servers.is_free(port)


CHILD = """
import signal, sys, time
from pathlib import Path
def end(*_):
    Path(sys.argv[1]).write_text("ended by itself")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
Path(sys.argv[1]).write_text("ready")
while True:
    time.sleep(0.05)
"""
PARENT = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], start_new_session=True); time.sleep(600)"


def test_a_child_that_outlives_its_parent_is_told_to_end_before_it_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "note"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(note)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not note.exists() or note.read_text() != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (child,) = psutil.Process(parent.pid).children()
    local_servers.stop_processes([parent])
    assert note.read_text() == "ended by itself"
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_server_of_mlflow_starts_no_processes_for_jobs(tmp_path: Path) -> None:
    server = local_servers.mlflow_server(Settings(home=tmp_path), 5000)
    assert server.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
