"""MLflow's pages as `make up` starts them, over a store on PostgreSQL."""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

from finrisk_assets.cli.local_servers import find_free_ports, mlflow_server, stop_processes
from finrisk_assets.graph.build import build_resources
from finrisk_assets.settings import Settings


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
