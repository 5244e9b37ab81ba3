"""Dagster's webserver and daemon as processes, and requests to the webserver's GraphQL."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finrisk_assets.cli.local_servers import find_free_ports, stop_processes

BIN = Path(sys.executable).parent
READY_S = 300
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
LOCATIONS = "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } } }"


@contextmanager
def running(workspace: Path, environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Run a webserver and a daemon over a workspace; yield the webserver's address."""
    port = next(find_free_ports(44000))
    commands = {
        "webserver": ["dagster-webserver", "--workspace", str(workspace), "--host", "127.0.0.1", "--port", str(port)],
        "daemon": ["dagster-daemon", "run", "--workspace", str(workspace)],
    }
    processes = []
    try:
        for name, (program, *words) in commands.items():
            with (folder / f"{name}.log").open("w") as log:
                command = [str(BIN / program), *words]
                processes.append(subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True))
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + READY_S
        while not _answers(address):
            assert time.monotonic() < deadline and processes[0].poll() is None, (folder / "webserver.log").read_text()[-3000:]
            time.sleep(0.5)
        yield address
    finally:
        stop_processes(processes)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/server_info").close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def ask(address: str, query: str, **variables: Any) -> dict[str, Any]:
    """Return the data of a GraphQL request."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        content = json.load(answer)
    assert "errors" not in content, content
    return dict(content["data"])


def launch(address: str, location: str, job: str, assets: list[str]) -> str:
    """Put a run of some assets of a job into the queue, and return its id."""
    selector = {
        "repositoryLocationName": location,
        "repositoryName": "__repository__",
        "pipelineName": job,
        "assetSelection": [{"path": [asset]} for asset in assets],
        "assetCheckSelection": [],
    }
    answer = ask(address, LAUNCH, params={"selector": selector, "mode": "default", "runConfigData": {}})["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])
