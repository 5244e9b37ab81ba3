"""MLflow's pages as `make up` starts them, over a store on PostgreSQL."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

from finrisk_assets.cli.local_servers import find_free_ports, mlflow_server, stop_processes
from finrisk_assets.graph.build import build_resources
from finrisk_assets.settings import Settings

OPENER = """
from finrisk_assets.graph.build import build_resources
from finrisk_assets.settings import Settings
tracking = build_resources(Settings.from_environment())["tracking"]
tracking.client()
print(tracking.find_experiment())
"""


def test_of_processes_that_begin_at_once_one_makes_the_tables_and_the_experiment(new_database: Callable[[], str], tmp_path: Path) -> None:
    environment = os.environ | {"FINRISK_HOME": str(tmp_path), "FINRISK_MLFLOW_STORE_URL": new_database(), "PYTHONWARNINGS": "ignore"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", OPENER], env=environment, **pipes) for _ in range(3)]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1


def test_the_pages_show_the_experiment_and_no_command_line_the_url(new_database: Callable[[], str], tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, mlflow_store_url=new_database())
    tracking = build_resources(settings)["tracking"]
    tracking.client()
    server = mlflow_server(settings, next(find_free_ports(45000)))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([str(word) for word in server.command], env=os.environ | server.environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{server.port}/api/2.0/mlflow/experiments/get?experiment_id={tracking.find_experiment()}"
    try:
        for _ in range(600):
            try:
                with urllib.request.urlopen(address) as answer:
                    experiment = json.load(answer)["experiment"]
                break
            except (urllib.error.URLError, ConnectionError):
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert experiment["name"] == "finrisk-simulator"
        assert not [member for member in family if "postgres" in " ".join(member.cmdline())]
    finally:
        stop_processes([process])
    assert server.page == f"/#/experiments/{tracking.find_experiment()}/runs"
