"""Tests of a served process: start, refusal to start, metrics, shutdown and replacement without a failed request."""

import gzip
import hashlib
import json
import re
import shutil
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bento.stream.stream_metrics import StreamMetrics
from finrisk_assets.settings import Settings
from tests.service.serving import REPOSITORY, Load, free_port, serving, start, stop, store_models

pytestmark = pytest.mark.slow
DRAIN_S = Settings().drain_seconds


@pytest.fixture(scope="module")
def models(tmp_path_factory, bundles):
    return store_models(tmp_path_factory.mktemp("models"), bundles)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def service(models, home):
    with serving(models, home, home / "serve.log") as running:
        yield running


def test_it_is_ready_part_by_part(service):
    status, body = service.get("/readyz")

    assert status == 200
    assert json.loads(body)["parts"][0] == "store"


def store_with(tmp_path, models, change):
    """Return a copy of the model store in which the cashflow model differs."""
    copy = shutil.copytree(models, tmp_path / "models", symlinks=True)
    (folder,) = [path for path in (copy / "models" / "finrisk-cashflow").iterdir() if path.is_dir()]
    change(folder)
    return copy


def changed_file(folder):
    (folder / "golden.json").write_text("{}")


def another_runtime(folder):
    """Change a bundle as if its files scored otherwise on this machine: every hash is right, a golden row is not."""
    golden = json.loads((folder / "golden.json").read_text())
    golden["margin"][0] += 0.5
    (folder / "golden.json").write_text(json.dumps(golden))
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["files"]["golden.json"] = hashlib.sha256((folder / "golden.json").read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(manifest))
    version = hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()[:12]
    note = folder / "model.yaml"
    note.write_text(note.read_text().replace(folder.name, version))
    (folder.parent / "latest").write_text(version)
    folder.rename(folder.parent / version)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed_file, "its SHA-256 is not the one in bundle.json; was it changed after training?"),
        (another_runtime, "where it was trained; is it another runtime?"),
    ],
    ids=["hash", "golden row"],
)
def test_a_model_that_must_not_be_used_is_refused_at_start_with_its_name_and_the_reason(tmp_path, models, change, reason):
    refused = start(store_with(tmp_path, models, change), tmp_path / "home", free_port(), tmp_path / "log")
    try:
        assert refused.process.wait(60) != 0
    finally:
        stop(refused)

    log = refused.log.read_text()
    assert "the model finrisk-cashflow:" in log
    assert "golden.json" in log
    assert reason in log
    assert "Traceback" not in log


def test_every_metric_of_the_dashboard_stands_on_the_page(service, loan):
    """Metrics that count a rare event appear after the test causes that event."""
    assert service.post("/v1/loan-default", loan())[0] == 200
    assert service.post("/v1/loan-default/batch", {"items": [loan(), {}]})[0] == 200
    assert service.get("/v1/nothing/Ada")[0] in (401, 404)
    service.get("/readyz")
    status, page = service.get("/metrics")
    assert status == 200

    page += StreamMetrics().render().decode()
    dashboard = json.loads((REPOSITORY / "deploy" / "grafana" / "dashboard.json").read_text())
    metrics = {
        name for panel in dashboard["panels"] for target in panel["targets"] for name in re.findall(r"\bfinrisk_\w+", target["expr"])
    }
    metrics |= set(re.findall(r"\bfinrisk_\w+", json.dumps(dashboard["templating"])))
    known = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if not line.startswith("#")}
    declared = {line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE")}
    assert len(metrics) >= 12
    assert not {name for name in metrics if name not in known and name.removesuffix("_total") not in declared and name not in declared}


def test_the_page_of_metrics_names_no_path_that_a_client_chose(service):
    for path in ("/v1/risk-scores/Lovelace", "/v1/people/Lovelace/export", "/static/Lovelace.js", "/Lovelace"):
        service.get(path)

    assert "Lovelace" not in service.get("/metrics")[1]


class Collector(BaseHTTPRequestHandler):
    """Takes OTLP over HTTP, as a collector does."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
        self.server.received.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_) -> None:
        """Log nothing."""


@pytest.fixture
def collector():
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.received = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_rollout_under_load_fails_no_request_and_the_new_one_is_traced(service, models, home, tmp_path, loan, collector):
    """Old and new service run side by side, and the client sends to the ready ones by turns, as a load balancer does.

    The old one is told to end while it is asked, so it must answer until the client has noticed.
    """
    old, endpoint = service, f"http://127.0.0.1:{collector.server_port}"
    # Another BENTOML_HOME, as every container has: BentoML keeps the counters of the workers there.
    again = shutil.copytree(models, tmp_path / "models", symlinks=True)
    new = start(again, home, free_port(), tmp_path / "new.log", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_BSP_SCHEDULE_DELAY="200")
    try:
        with Load([old.port, new.port], loan()) as load:
            new.wait_until_ready()
            time.sleep(0.6)
            ended_at, before = time.monotonic(), load.answered.count(old.port)
            old.process.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            assert old.get("/readyz")[0] == 503
            assert old.get("/livez")[0] == 200
            assert old.post("/v1/loan-default", loan())[0] == 200, "it answers while it drains"
            old.process.wait(DRAIN_S + 5 + 10)  # the drain, the longest request, and what a busy machine takes to end a process
            took = time.monotonic() - ended_at
            time.sleep(0.3)
        assert not load.failed
        assert load.again <= len(load.answered) / 100
        assert before > 10
        assert load.answered[-1] == new.port
        assert took >= DRAIN_S
        assert "Traceback" not in old.log.read_text() + new.log.read_text()

        deadline, spans = time.monotonic() + 10, []
        while not spans and time.monotonic() < deadline:
            time.sleep(0.1)
            spans = [one for sent in collector.received for resource in sent.resource_spans for scope in resource.scope_spans
                     for one in scope.spans]  # fmt: skip
        assert {"POST /v1/loan-default", "features", "score", "explain", "store"} <= {one.name for one in spans}
    finally:
        stop(new)
