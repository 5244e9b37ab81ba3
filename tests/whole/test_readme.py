"""Tests of the README and of docs/quick-start.md: each command is run as a newcomer would run it, on a smaller ledger."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import require

ROOT = Path(__file__).parents[2]
SMALL = {"FINRISK_SIM_CUSTOMERS": "300", "FINRISK_SIM_MONTHS": "14"}
REAL = ("berka", "karlan_zinman", "taiwan")
ROUTES = {
    "/v1/transactions": {"transaction_id", "risk_score", "anomaly", "decision"},
    "/v1/spending-risk": {"risk_probability", "risk_level"},
    "/v1/loan-default": {"pd", "decision", "grade"},
    "/v1/cashflow": {"direction", "surplus_probability", "interval"},
    "/v1/loan-offers": {"decision", "offer", "alternatives", "curve"},
    "/v1/risk-scores": {"customer_id", "scores"},
}
"""The routes that the README asks, and what their answers must hold."""

LIFE = {
    "./finrisk versions": "champion",
    "./finrisk reproduce --all": "byte-equal",
    "./finrisk validate-pack verify": "agree",
    "./finrisk reasons": "spending_risk",
}
"""The commands about models, and what they must print."""

TRUST = {
    "./finrisk keys create --name gateway --role scorer --expires 90d": "finrisk_",
    "./finrisk audit verify": "records",
    "./finrisk replay": " 0 differences",
    "./finrisk load-feedback": "labels",
}
"""The commands about the service, and what they must print; run after the requests, because a key closes the service."""

README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXT = README + (ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Return the commands of the shell blocks of README and quick start, each once and without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks if not block.startswith("curl") for line in block.splitlines()]
    return list(dict.fromkeys([line for line in lines if line] + [block for block in blocks if block.startswith("curl")]))


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return os.environ | SMALL | {"FINRISK_HOME": str(tmp_path_factory.mktemp("readme"))}


@pytest.fixture(scope="module")
def demo(environment: dict[str, str]) -> str:
    require("make")
    done = subprocess.run(["make", "demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def running(target: str, environment: dict[str, str], path: str) -> Iterator[str]:
    """Run `make <target>` on a free port until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = ["make", target, f"PORT={port}"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **output)  # type: ignore[call-overload]
    try:
        for _ in range(600):
            assert process.poll() is None, f"make {target} ended: {process.stdout.read().decode() if process.stdout else ''}"
            try:
                urllib.request.urlopen(url + path, timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail(f"make {target} did not answer at {path} within two minutes")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_every_command_has_its_test_here() -> None:
    known = {"make demo", "make up", "make dev", "make serve", "make test", "make bench", "make book", *LIFE, *TRUST}
    written = {command for command in commands() if not command.startswith("curl")}
    on_data = {command for command in written if "FINRISK_SOURCE=" in command}
    assert written - on_data == known
    sources = [re.findall(r"^(?:\w+=\S+ )*FINRISK_SOURCE=(\w+) (?:\w+=\S+ )*make demo$", command) for command in on_data]
    assert sorted(sources) == [[source] for source in REAL]
    assert {re.findall(r"/v1/[a-z-]+", command)[0] for command in commands() if command.startswith("curl")} == ROUTES.keys()


def test_demo_ends_with_decisions(demo: str) -> None:
    assert "Decisions of the served Bento" in demo
    for title in ("Spending risk", "Loan default", "Cashflow", "Loan offers", "Transaction anomaly"):
        assert title in demo
    assert "beside an oracle" in demo
    assert "Done in" in demo


def test_demo_shows_the_certificate_of_parity_and_a_stream_where_java_is(demo: str) -> None:
    assert "✓ parity of batch and service, equal" in demo
    streamed = re.findall(r"^  ✓ stream +[\d.]+ s   1,000 transactions decided|^  – the stream is left out: .+", demo, flags=re.MULTILINE)
    assert len(streamed) == 1
    if shutil.which("java") and shutil.which("mvn"):
        assert "✓" in streamed[0] and re.search(r"^    [\d,]+ of 1,000 transactions of the stream are decided$", demo, flags=re.MULTILINE)


@pytest.mark.parametrize("command", LIFE)
def test_a_models_life_can_be_asked_for(environment: dict[str, str], demo: str, command: str) -> None:
    program = str(Path(sys.executable).with_name("finrisk"))
    done = subprocess.run([program, *command.split()[1:]], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert LIFE[command] in done.stdout


def test_there_is_nothing_to_roll_back_to_after_the_first_training(environment: dict[str, str], demo: str) -> None:
    command = [str(Path(sys.executable).with_name("finrisk")), "rollback", "loan_default", "--reason", "trying it out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "version 1 of finrisk-loan-default is its first champion" in done.stderr
    assert "Traceback" not in done.stderr


def test_dev_shows_the_graph(environment: dict[str, str], demo: str) -> None:
    with running("dev", environment, "/server_info") as url:
        query = {"query": "{ assetNodes { assetKey { path } groupName } }"}
        request = urllib.request.Request(url + "/graphql", json.dumps(query).encode(), {"content-type": "application/json"})
        for _ in range(60):
            with urllib.request.urlopen(request, timeout=30) as response:
                nodes = json.load(response)["data"]["assetNodes"]
            if nodes:
                break
            time.sleep(1)
    assert {node["groupName"] for node in nodes} == {
        "ledger", "spending_risk", "loan_default", "cashflow", "loan_offers", "transaction_anomaly", "serving",
    }  # fmt: skip


def test_serve_answers_every_curl_of_the_readme(environment: dict[str, str], demo: str) -> None:
    require("curl")
    curls = [command for command in commands() if command.startswith("curl")]
    assert curls
    with running("serve", environment, "/readyz") as url:
        held = []
        for curl in curls:
            asked = curl.replace("http://127.0.0.1:3000", url)
            answer = json.loads(subprocess.run(asked, shell=True, capture_output=True, text=True, check=True).stdout)
            held += [answer] * ("expected_loss_amount" in answer)
            route = re.findall(r"/v1/[a-z-]+", curl)[0]
            assert answer.keys() >= ROUTES[route], answer
            if "explanation" in answer:
                total = answer["explanation"]["base"] + sum(part["contribution"] for part in answer["explanation"]["contributions"])
                assert total == pytest.approx(answer["score"], abs=1e-6)
                assert answer["model"]["version"]
    # A large payment abroad is held, and a small one at home is not.
    large, small = held
    assert (large["decision"], small["decision"]) == ("review", "allow")
    assert large["expected_loss_amount"] > 100 * small["expected_loss_amount"]


def test_up_shows_everything_and_ends_with_its_children(environment: dict[str, str], demo: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["make", "up", f"PORT={port}"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        addresses = {}
        for line in process.stdout:
            found = re.match(r"  (\w+) +(http://\S+)  ", line)
            if found:
                addresses[found[1]] = found[2]
            if found and found[1] == "MLflow":
                break
        family = psutil.Process(process.pid).children(recursive=True)
        pages = {name: urllib.request.urlopen(address, timeout=30).read().decode() for name, address in addresses.items()}
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=90) in (0, 2, -signal.SIGINT)  # make says 2, or ends by the signal itself
    assert addresses.keys() >= {"service", "Dagster", "MLflow"}
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#/experiments/\d+/runs", addresses["MLflow"])
    assert "dagster" in pages["Dagster"].lower() and "mlflow" in pages["MLflow"].lower() and "finrisk" in pages["service"].lower()
    psutil.wait_procs(family, timeout=30)
    assert not [member for member in family if member.is_running() and member.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("command", sorted(TRUST, reverse=True))
def test_the_service_can_be_answered_for(environment: dict[str, str], demo: str, command: str) -> None:
    program = str(Path(sys.executable).with_name("finrisk"))
    done = subprocess.run([program, *command.split()[1:]], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert TRUST[command] in done.stdout


@pytest.mark.realdata
@pytest.mark.parametrize("source", REAL)
def test_demo_on_real_data(source: str, environment: dict[str, str], data_dir: Path) -> None:
    (variables,) = re.findall(rf"^((?:\w+=\S+ )*FINRISK_SOURCE={source} (?:\w+=\S+ )*)make demo", TEXT, re.MULTILINE)
    real = environment | dict(variable.split("=") for variable in variables.split()) | {"FINRISK_DATA_DIR": str(data_dir)}
    done = subprocess.run(["make", "demo"], cwd=ROOT, env=real, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Decisions of the served Bento" in done.stdout
