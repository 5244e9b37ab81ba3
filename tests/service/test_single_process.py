"""Tests of `python -m bento.single_process`, the service in one process, as a container runs it."""

import gc
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from finrisk_assets.graph import packaging
from tests.service.examples import CASHFLOW_ROW

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 120
WATCHED = """
import runpy, sys

def report(event, arguments):
    if event == "open" and str(arguments[0]).endswith(("/model.yaml", "/bundle.json")):
        parser = sys.modules["yaml"].SafeLoader.__name__ if "yaml" in sys.modules else None
        print("opened", arguments[0], parser, flush=True)

sys.addaudithook(report)
runpy.run_module("bento.single_process", run_name="__main__")
"""
"""`python -m bento.single_process`, which reports every manifest and every bundle that it opens, and its YAML parser then."""


@pytest.fixture(scope="module")
def service(tmp_path_factory, bundles, certificate):
    """Yield the process, a function that sends a request, and the log."""
    home = tmp_path_factory.mktemp("home")
    packaging.store_model(home / "bentoml", "cashflow", bundles["cashflow"], {})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FINRISK_", "BENTO", "PROMETHEUS_"))}
    environment |= {
        **{"BENTO_PATH": "bento.service:FinRisk", "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"},
        **{"FINRISK_HOME": str(home), "BENTOML_PORT": str(port), "TMPDIR": str(home)},
        # As docs/service.md enables the access log.
        "BENTOML_CONFIG_OPTIONS": "services.finrisk.logging.access.enabled=true",
        **{"BENTOML_SSL_CERTFILE": str(certificate[0]), "BENTOML_SSL_KEYFILE": str(certificate[1])},
    }
    log = home / "single_process.log"
    with log.open("w") as out:
        command = [sys.executable, "-c", WATCHED]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
    trusted = ssl.create_default_context(cafile=certificate[0])

    def ask(path, body=None):
        content = body and json.dumps(body).encode()
        request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", content, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5, context=trusted) as response:
            return response.status, response.read()

    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                ask("/readyz")
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield process, ask, log
    finally:
        process.kill()
        process.wait(30)


def test_it_answers_over_tls_from_one_process(service):
    process, ask, _ = service

    status, answer = ask("/v1/cashflow", {"features": CASHFLOW_ROW})

    assert status == 200
    assert json.loads(answer)["direction"] in ("surplus", "deficit")
    assert psutil.Process(process.pid).children(recursive=True) == []


def read_opened(log: Path, name: str) -> list[tuple[str, str]]:
    """Return the path of every opened file of this name, and the YAML parser at that time, in order."""
    lines = [line.split() for line in log.read_text().splitlines() if line.startswith("opened ")]
    return [(path, parser) for _, path, parser in lines if path.endswith("/" + name)]


def test_models_that_were_checked_are_not_loaded_a_second_time(service):
    _, ask, log = service
    assert ask("/readyz")[0] == 200

    n_opened = len(read_opened(log, "bundle.json"))
    assert n_opened == 2, "once to load it, and once to copy it into the new store"


def test_a_ready_service_collects_garbage(serving, bundles):
    client = serving({"cashflow": bundles["cashflow"]})
    gc.disable()  # as it starts
    try:
        with client:
            assert gc.isenabled()
    finally:
        gc.enable()


def test_manifests_of_models_are_read_with_the_parser_in_c(service):
    _, _, log = service
    assert {parser for _, parser in read_opened(log, "model.yaml")} == {"CSafeLoader"}


def test_it_counts_what_it_answers(service):
    _, ask, _ = service
    ask("/v1/cashflow", {"features": CASHFLOW_ROW})

    assert "/v1/cashflow" in ask("/metrics")[1].decode()


def wait_until_answered(ask):
    """Wait until the service tries its store again, which it does a moment after a fault."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return ask("/v1/cashflow", {"features": CASHFLOW_ROW})
        except urllib.error.HTTPError as refused:
            refused.close()
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_its_log_has_a_failure_under_the_request_id_that_the_client_got(service):
    _, ask, log = service
    with closing(sqlite3.connect(log.parent / "simulator" / "service" / "store.sqlite", isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(urllib.error.HTTPError) as failed:
            ask("/v1/cashflow", {"features": CASHFLOW_ROW})
        other.execute("rollback")
    failed.value.close()  # or the service waits at its end for the client to end TLS
    wait_until_answered(ask)

    assert failed.value.code == 503
    lines = [line for line in log.read_text().splitlines() if failed.value.headers["x-request-id"] in line]
    assert any("failed with" in line for line in lines), log.read_text()
    assert any("is answered with 503" in line for line in lines), log.read_text()


def test_it_writes_the_access_log_where_the_configuration_enables_it(service):
    _, ask, log = service
    ask("/v1/cashflow", {"features": CASHFLOW_ROW})

    def is_logged() -> bool:
        lines = [line for line in log.read_text().splitlines() if "INFO bentoml.access: 127.0.0.1:" in line]
        return any("path=/v1/cashflow" in line and "status=200" in line for line in lines)

    # The line is written after the answer is sent.
    began = time.monotonic()
    while not is_logged() and time.monotonic() - began < WAIT_SECONDS:
        time.sleep(0.05)
    assert is_logged(), log.read_text()


def test_without_models_it_says_what_to_do(tmp_path):
    environment = os.environ | {"BENTO_PATH": "bento.service:FinRisk", "BENTOML_HOME": str(tmp_path), "FINRISK_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "bento.single_process"]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "Error: no finrisk model in the model store" in ended.stderr


def test_it_ends_in_peace_when_it_is_told_to(service):
    process, _, log = service
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
