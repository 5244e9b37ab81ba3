"""Services in this process with the console mounted, open or with a key of each role; alerts; and what a browser does with a page."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from bento.access import api_keys
from bento.context import ROLES
from bento.store.session import open_store
from bento.store.unit_of_work import now_us
from finrisk_assets.graph.packaging import Figures
from finrisk_assets.scoring.score_curve import draw_score_curve
from finrisk_assets.settings import Settings
from tests.service.conftest import START, Serving, write_transaction_bundle
from tests.service.examples import write_linear_bundles

FIGURES: Mapping[str, Figures] = {
    "loan_default": [{"window": "test", "metric": "auc", "value": 0.8326, "low": 0.7971, "high": 0.869, "meaning": "DeLong"}],
}


@dataclass
class Reader:
    """A person before a browser that follows forms."""

    client: TestClient
    keys: Mapping[str, str] = field(default_factory=dict)

    def get(self, page: str, **options: Any) -> Any:
        return self.client.get(f"/console/{page}", **options)

    def token(self) -> str:
        """Return the token of the session's forms."""
        return find_token(self.get("policy").text)

    def post(self, page: str, token: str | None = None, files: Any = None, **fields: Any) -> Any:
        data = {"csrf": self.token() if token is None else token} | fields
        return self.client.post(f"/console/{page}", data=data, files=files)

    def sign_in(self, role: str) -> Any:
        """Sign in with the key of a role."""
        return self.sign_in_with(self.keys[role])

    def sign_in_with(self, credential: str, **fields: str) -> Any:
        page = self.get("sign-in")
        return self.client.post("/console/sign-in", data={"csrf": find_token(page.text), "credential": credential, "next": ""} | fields)


def find_token(page: str) -> str:
    match = re.search(r'name="csrf" value="([^"]+)"', page)
    assert match, page
    return match[1]


def alerts_in(page: str) -> list[str]:
    """Return the alerts that a page of the queue lists, in their order."""
    return re.findall(r'class="id" href="/console/alerts/([0-9a-f]{32})"', page)


@pytest.fixture(scope="session")
def console_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a bundle of every domain; that of transactions has curves of scores and losses, so that a capacity is known."""
    folder = tmp_path_factory.mktemp("console")
    scores = np.linspace(0.001, 0.99, 400)
    is_fraud = scores > 0.9
    curves = draw_score_curve(scores, is_fraud, 10), draw_score_curve(scores * 100, is_fraud, 10)
    transactions = write_transaction_bundle(folder / "transaction_anomaly", curves=curves)
    return write_linear_bundles(folder) | {"transaction_anomaly": transactions}


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Yield a factory of services with the console mounted."""
    from bentoml._internal.container import BentoMLContainer

    before = BentoMLContainer.model_store.get()
    monkeypatch.setenv("FINRISK_CONSOLE", "true")
    yield Serving(tmp_path, monkeypatch)
    BentoMLContainer.model_store.set(before)


@pytest.fixture
def reader(serve: Serving, console_bundles: dict[str, Path]) -> Iterator[Reader]:
    """Yield a reader of the console of an open service."""
    with serve(console_bundles, figures=FIGURES) as client:
        yield Reader(client)


@pytest.fixture
def closed(serve: Serving, console_bundles: dict[str, Path]) -> Iterator[Reader]:
    """Yield a reader of the console of a service with a key of each role."""
    client = serve(console_bundles)
    keys = {}
    with closing(open_store(Settings(home=serve.home))) as store, store.writing() as connection:
        for role in sorted(ROLES):
            _, keys[role] = api_keys.create_key(connection, store.keyring.mac, role, [role], now=now_us())
    with client:
        yield Reader(client, keys)


@pytest.fixture
def pay() -> Callable[..., dict[str, Any]]:
    """Return a function that sends a transaction to the API and returns the answer."""

    def send(reader: Reader, amount: float, *, minutes: float = 0, user: str = "5", **more: Any) -> dict[str, Any]:
        moment = (START + timedelta(minutes=minutes)).isoformat()
        body = {"user_id": user, "amount": amount, "timestamp": moment, "merchant": "m1", "country": "AT"} | more
        headers = {"X-API-Key": reader.keys["scorer"]} if reader.keys else {}
        response = reader.client.post("/v1/transactions", json=body, headers=headers)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    return send


@pytest.fixture
def queue(reader: Reader, pay: Callable[..., dict[str, Any]]) -> list[str]:
    """Return the open alerts of three customers, the largest expected loss first; each has paid small sums before."""
    for user in ("5", "6", "7"):
        for day in range(6):
            pay(reader, 20.0 + day, minutes=-60 * 24 * (day + 1) - 37, user=user)
        for at in range(6):
            pay(reader, 9_000.0 + int(user), minutes=at, user=user, merchant="CryptoX", country="SG")
    found = alerts_in(reader.get("alerts").text)
    assert len(found) >= 3
    return found
