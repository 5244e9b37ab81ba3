"""`python -m bento.single_process`: the service as one process, as a container runs it."""

import gc
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from bento.access import bind_guard
from bento.decisions import models
from bento.single_process import parse_yaml_in_c
from finrisk_assets.graph import packaging
from tests.service.made import CASHFLOW_ROW

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 120


@pytest.fixture(scope="module")
def alone(tmp_path_factory, bundles, certificate):
    """The process, its address, how it is asked, and its log."""
    home = tmp_path_factory.mktemp("home")
    packaging.store_model(home / "bentoml", "cashflow", bundles["cashflow"], {})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FINRISK_", "BENTO", "PROMETHEUS_"))}
    environment |= {
        **{"BENTO_PATH": "bento.service:FinRisk", "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "true"},
        **{"FINRISK_HOME": str(home), "BENTOML_PORT": str(port), "TMPDIR": str(home)},
        **{"BENTOML_SSL_CERTFILE": str(certificate[0]), "BENTOML_SSL_KEYFILE": str(certificate[1])},
    }
    log = home / "alone.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "bento.single_process"]
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


def test_it_answers_over_tls_from_one_process(alone):
    process, ask, _ = alone

    status, answer = ask("/v1/cashflow", {"features": CASHFLOW_ROW})

    assert status == 200
    assert json.loads(answer)["direction"] in ("surplus", "deficit")
    assert psutil.Process(process.pid).children(recursive=True) == []


def test_models_that_were_checked_are_not_loaded_a_second_time(serving, bundles, monkeypatch):
    from bento.service import FinRisk

    load, loaded = models.load, []
    monkeypatch.setattr(models, "load", lambda bento: loaded.append(load(bento)) or loaded[-1])
    monkeypatch.setattr(bind_guard, "check", lambda settings: None)
    monkeypatch.setattr(FinRisk, "checked_champions", None)  # afterwards it is again what it was
    client = serving({"cashflow": bundles["cashflow"]})

    FinRisk.inner.prepare(keeps=True)
    with client:
        assert client.post("/v1/cashflow", json={"features": CASHFLOW_ROW}).status_code == 200

    assert len(loaded) == 1


def test_a_ready_service_collects_garbage(serving, bundles):
    client = serving({"cashflow": bundles["cashflow"]})
    gc.disable()  # as it starts
    try:
        with client:
            assert gc.isenabled()
    finally:
        gc.enable()


def test_bentoml_reads_its_manifests_with_the_parser_in_c(serving, bundles, monkeypatch):
    read, parse = [], yaml.CSafeLoader.get_single_data
    monkeypatch.setattr(yaml, "SafeLoader", yaml.SafeLoader)  # afterwards it is again what it was
    monkeypatch.setattr(yaml.CSafeLoader, "get_single_data", lambda loader: read.append(loader) or parse(loader))
    serving({"cashflow": bundles["cashflow"]})

    parse_yaml_in_c()
    (model,) = models.list_models()

    assert model.tag.name == "finrisk-cashflow"
    assert read


def test_it_counts_what_it_answers(alone):
    _, ask, _ = alone
    ask("/v1/cashflow", {"features": CASHFLOW_ROW})

    assert "/v1/cashflow" in ask("/metrics")[1].decode()


def test_it_ends_in_peace_when_it_is_told_to(alone):
    process, _, log = alone
    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
