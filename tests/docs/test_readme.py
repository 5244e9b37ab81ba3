"""Every command of the README, run as a newcomer would run it (with a smaller ledger)."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import require

ROOT = Path(__file__).parents[2]
SMALL = {"FINRISK_SIM_CUSTOMERS": "300", "FINRISK_SIM_MONTHS": "14"}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands of the README's shell blocks, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    joined = [block if block.startswith("curl") else None for block in blocks]
    lines = [line.split("#")[0].strip() for block in blocks if not block.startswith("curl") for line in block.splitlines()]
    return [line for line in lines if line] + [block for block in joined if block]


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
    """`make <target>` on a free port, until the block ends."""
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
    known = {"make demo", "make dev", "make serve", "make test", "make bench", "FINRISK_SOURCE=taiwan make demo"}
    assert {command for command in commands() if not command.startswith("curl")} == known
    assert sum(command.startswith("curl") for command in commands()) == 1


def test_demo_ends_with_decisions(demo: str) -> None:
    assert "Decisions of the served Bento" in demo
    assert "Done in" in demo


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
    assert {node["groupName"] for node in nodes} == {"ledger", "loan_default", "transaction_anomaly", "serving"}


def test_serve_answers_the_curl_of_the_readme(environment: dict[str, str], demo: str) -> None:
    curl = next(command for command in commands() if command.startswith("curl"))
    require("curl")
    with running("serve", environment, "/readyz") as url:
        answer = subprocess.run(curl.replace("http://127.0.0.1:3000", url), shell=True, capture_output=True, text=True, check=True)
    decision = json.loads(answer.stdout)
    assert decision["decision"] in ("allow", "review", "block")
    total = decision["explanation"]["base"] + sum(part["contribution"] for part in decision["explanation"]["contributions"])
    assert total == pytest.approx(decision["score"], abs=1e-6)
    for field in ("transaction_id", "risk_score", "anomaly", "reasons", "model"):
        assert field in decision


def test_bench_names_modules_that_exist() -> None:
    shown = subprocess.run(["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = re.search(r"for what in ([\w ]+);", shown)
    assert names
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in names[1].split())


@pytest.mark.realdata
def test_demo_on_taiwan(environment: dict[str, str], data_dir: Path) -> None:
    real = environment | {"FINRISK_SOURCE": "taiwan", "FINRISK_DATA_DIR": str(data_dir)}
    done = subprocess.run(["make", "demo"], cwd=ROOT, env=real, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Decisions of the served Bento" in done.stdout


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", README))))
def test_links_of_the_readme_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()
