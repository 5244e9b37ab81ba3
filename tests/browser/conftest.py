"""A served API with alerts, the console as a process of its own and mounted, and Debian's chromium, each started once."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bento.access import api_keys
from bento.context import ROLES
from bento.store.session import open_store
from bento.store.unit_of_work import now_us
from finrisk_assets.graph import packaging
from finrisk_assets.scoring.score_curve import draw_score_curve
from finrisk_assets.settings import Settings
from tests.service import serving
from tests.service.conftest import START, write_transaction_bundle
from tests.service.evidence_example import measure_challenger, measure_example, write_reports
from tests.service.examples import SNAPSHOTS, write_linear_bundles
from tests.service.serving import SINGLE_PROCESS, Served, free_port, store_models

SHOTS = Path(__file__).parents[2] / "browser-shots"
VIEWS = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "phone-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
"""Name of a view -> what the browser shows it with."""


def need(is_there: bool, message: str) -> None:
    """Skip with the reason where something is missing; in CI, where all must be there, fail."""
    if not is_there:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Yield Debian's chromium without a window."""
    path = shutil.which("chromium")
    need(path is not None, "chromium is not installed: apt-get install chromium")
    for package in ("playwright", "axe_playwright_python"):
        need(find_spec(package) is not None, f"{package} is not installed: make browser-test installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container's root user has no sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home with a model of every domain and the snapshots of a few customers."""
    folder = tmp_path_factory.mktemp("browser")
    scores = np.linspace(0.001, 0.99, 400)
    curves = draw_score_curve(scores, scores > 0.9, 10), draw_score_curve(scores * 100, scores > 0.9, 10)
    bundles = write_linear_bundles(folder / "bundles")
    bundles |= {"transaction_anomaly": write_transaction_bundle(folder / "bundles" / "transaction_anomaly", curves=curves)}
    store_models(folder, bundles)
    figures = [{"window": "test", "metric": "auc", "value": 0.8326, "low": 0.7971, "high": 0.869, "meaning": "DeLong"}]
    packaging.store_model(folder, "loan_default", bundles["loan_default"], {}, figures, evidence=measure_example())
    with closing(open_store(Settings(home=folder))) as store:
        store.replace_snapshots(SNAPSHOTS)
    return folder


@pytest.fixture(scope="session")
def service(home: Path) -> Iterator[Served]:
    """Yield an open service with the console mounted, and transactions of which some opened alerts."""
    reports = write_reports(home / "reports", "loan_default", challenger=measure_challenger())
    with serving.serving(home, home, home / "serve.log", SINGLE_PROCESS, FINRISK_CONSOLE="true", FINRISK_REPORTS=str(reports)) as served:
        for user in range(5, 17):
            for day in range(4):
                pay(served, 20.0 + day, -60 * 24 * (day + 1) - 37 * day, str(user), "grocer", "AT")
            for minute in range(2):
                pay(served, 9_000.0 + 100 * user, minute, str(user), "CryptoX", "SG")
        yield served


def pay(served: Served, amount: float, minutes: float, user: str, merchant: str, country: str) -> None:
    moment = (START + timedelta(minutes=minutes)).isoformat()
    body = {"user_id": user, "amount": amount, "timestamp": moment, "merchant": merchant, "country": country}
    status, text = served.post("/v1/transactions", body)
    assert status == 200, text


@pytest.fixture(scope="session")
def own_process(service: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of the console as a process of its own, over the same service."""
    yield from run_console(service.address, tmp_path_factory.mktemp("console"))


def run_console(api: str, folder: Path) -> Iterator[str]:
    """Yield the address of `finrisk console --api` until the generator is closed."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINRISK_")} | {"FINRISK_HOME": str(folder)}
    command = [sys.executable, "-m", "finrisk_assets.cli.main", "console", "--api", api, "--port", str(port)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/console/"
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def keyed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the console of a service with keys, and a key of each role."""
    folder = tmp_path_factory.mktemp("keyed")
    shutil.copytree(home / "models", folder / "models")
    keys = {}
    with closing(open_store(Settings(home=folder))) as store:
        store.replace_snapshots(SNAPSHOTS)
        with store.writing() as connection:
            for role in sorted(ROLES):
                _, keys[role] = api_keys.create_key(connection, store.keyring.mac, role, [role], now=now_us())
    with serving.serving(folder, folder, folder / "serve.log", SINGLE_PROCESS, FINRISK_CONSOLE="true") as served:
        yield f"{served.address}/console/", keys


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Yield a function that opens a page in a view. A page with a script's error fails its test."""
    contexts, errors = [], []

    def open_in(view: str = "light", **more: Any) -> Any:
        context = chromium.new_context(locale="en-GB", **(VIEWS[view] | more))
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None)
        return page

    yield open_in
    for context in contexts:
        context.close()
    assert errors == []


def first_alert(address: str) -> str:
    """Return the first open alert of a service."""
    with urllib.request.urlopen(f"{address}/v1/alerts") as response:
        return str(re.search(r'"alert_id":"([0-9a-f]{32})"', response.read().decode())[1])  # type: ignore[index]
