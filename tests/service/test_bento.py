"""Tests of a Bento that is built and served by the command line."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from bento.store.session import open_store
from finrisk_assets.graph.packaging import PackagingError, build_bento
from finrisk_assets.settings import Settings
from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS, write_cashflow_bundle

pytestmark = pytest.mark.slow
OFFER = {"features": {"expense_ratio_90d": 1.0}, "pd": 0.03, "monthly_income_amount": 2800}
WAIT_SECONDS = 180


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def challengers(tmp_path_factory):
    """Return two challengers: one other than cashflow's champion, and one that is the champion itself."""
    return {"cashflow": write_cashflow_bundle(tmp_path_factory.mktemp("challenger") / "cashflow", with_amount=False)}


@pytest.fixture(scope="module")
def built(home, bundles, challengers):
    return build_bento(Settings(home=home), bundles, challengers=challengers | {"loan_default": bundles["loan_default"]})


def call(url, body=None):
    request = urllib.request.Request(url, body and json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as response:
        return response.status, response.read()


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture(scope="module")
def url(built, home):
    """Yield the URL of the Bento, served from another folder than it was built in, with a relative FINRISK_HOME."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FINRISK_", "PYTHONPATH"))}
    environment |= {"BENTOML_HOME": str(built.home), "BENTOML_DO_NOT_TRACK": "true", "FINRISK_HOME": home.name, "FINRISK_SHADOW": "true"}
    log = home / "serve.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", built.tag, "--port", str(port)],
            cwd=home.parent,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                call(f"{address}/readyz")
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_a_built_bento_answers_for_every_domain(url, built, home, transaction, loan):
    status, scored = call(f"{url}/v1/transactions", transaction(transaction_id="t1"))
    assert status == 200
    assert f"finrisk-transaction-anomaly:{json.loads(scored)['model']['version']}" == built.models["transaction_anomaly"]
    assert call(f"{url}/v1/transactions", transaction(transaction_id="t1"))[1] == scored

    status, scored = call(f"{url}/v1/loan-default", loan())
    assert status == 200
    assert 0 < json.loads(scored)["pd"] < 1
    assert (home / "simulator" / "service" / "store.sqlite").is_file()

    for route, body in (("spending-risk", EIGHT_FIELDS), ("cashflow", {"features": CASHFLOW_ROW}), ("loan-offers", OFFER)):
        status, scored = call(f"{url}/v1/{route}", body)
        assert status == 200
        assert json.loads(scored)["model"]["version"] in str(built.models)


def test_a_built_bento_asks_its_challenger_and_answers_with_the_champion(url, built, home):
    _, scored = call(f"{url}/v1/cashflow", {"features": CASHFLOW_ROW})
    champion = json.loads(scored)["model"]["version"]
    assert built.models["cashflow"] == f"finrisk-cashflow:{champion}"
    assert "loan_default_challenger" not in built.models, "it is the champion"

    deadline, rows = time.monotonic() + 10, []
    while not rows and time.monotonic() < deadline:
        time.sleep(0.1)
        with closing(open_store(Settings(home=home))) as store:
            rows = store.list_shadow_scores("cashflow")
    assert {row.champion_version for row in rows} == {champion}
    assert {f"finrisk-cashflow-challenger:{row.challenger_version}" for row in rows} == {built.models["cashflow_challenger"]}
    assert all(row.failure is None for row in rows)


def test_a_built_bento_serves_its_pages_and_metrics(url):
    for path in ("/", "/docs", "/openapi.json", "/v1/models", "/v1/model-metrics", "/livez", "/metrics"):
        assert call(url + path)[0] == 200, path


def test_its_log_tells_nothing_of_those_who_ask(url, home, transaction):
    call(f"{url}/v1/transactions", transaction(user_id="Ada Lovelace"))

    log = (home / "serve.log").read_text()
    assert "/v1/" not in log
    assert "Lovelace" not in log


def test_it_listens_on_this_machine_only(url):
    port = int(url.rpartition(":")[2])
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)} - {"127.0.0.1"}
    for host in own | {"127.0.0.2"}:  # a server on all addresses answers there too
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), timeout=2)


def test_the_bento_carries_only_what_answers(built):
    carried = {path.relative_to(built.path / "src").as_posix() for path in (built.path / "src").rglob("*.py")}

    assert "bento/service.py" in carried
    trains = ("assets.py", "definitions.py", "model.py", "anomaly/features.py", "features/batch.py")
    assert not [path for path in carried if path.endswith(trains)]
    assert not list(built.path.rglob("*.pkl"))


def test_the_same_champions_give_the_same_bento_and_it_is_not_built_again(built, home, bundles, challengers):
    before = (built.path / "bento.yaml").stat().st_mtime_ns

    assert build_bento(Settings(home=home), bundles, challengers=challengers) == built
    assert (built.path / "bento.yaml").stat().st_mtime_ns == before


def test_figures_make_another_bento_of_the_same_models(built, home, bundles):
    figures = {"cashflow": [{"window": "test", "metric": "auc", "value": 0.76, "low": None}]}

    measured = build_bento(Settings(home=home), bundles, figures=figures)

    assert measured.models == {domain: tag for domain, tag in built.models.items() if domain != "cashflow_challenger"}
    assert measured.version != built.version
    assert build_bento(Settings(home=home), bundles, figures=figures) == measured


def test_without_a_champion_there_is_no_bento(home):
    with pytest.raises(PackagingError, match="train a model first"):
        build_bento(Settings(home=home), {})


def test_a_bundle_of_another_domain_is_refused(home, bundles):
    with pytest.raises(PackagingError, match="'loan_default'"):
        build_bento(Settings(home=home), {"transaction_anomaly": bundles["loan_default"]})


def test_a_bundle_that_was_changed_is_refused(tmp_path: Path, bundles):
    folder = shutil.copytree(bundles["transaction_anomaly"], tmp_path / "changed")
    trees = folder / "trees-0.json"
    trees.write_bytes(trees.read_bytes().replace(b"1", b"2", 1))

    with pytest.raises(ValueError, match=r"trees-0\.json"):
        build_bento(Settings(home=tmp_path), {"transaction_anomaly": folder})
