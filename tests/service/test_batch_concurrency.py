"""Tests of equal keyed batches that arrive at once: each item is decided once, and every sender gets that decision."""

import json
import shutil
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Barrier

import pytest

from bento.store.session import Store
from tests.service.databases import KEYRING_KEY, Server, store_at
from tests.service.serving import Served, serving, store_models

pytestmark = pytest.mark.slow
SENDERS = 6
N_ITEMS = 150
N_ROUNDS = 2
ITEMS = {
    "loan-default": [
        {
            "loan_id": f"L{number}",
            "features": {
                "loan_amount": 9000 + number,
                "term_months": 24,
                "balance_mean_30d": 4000.5,
                "is_urban": True,
                "instalment_to_usual_income": 0.2,
            },
        }
        for number in range(N_ITEMS)
    ],
    "transactions": [
        {"user_id": number % 7, "amount": 10.0 + number, "timestamp": f"2024-05-06T12:{number // 60:02}:{number % 60:02}", "merchant": "m"}
        for number in range(N_ITEMS)
    ],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> Path:
    return store_models(tmp_path_factory.mktemp("models"), bundles)


@contextmanager
def workers(number: int, models: Path, folder: Path, url: str) -> Iterator[list[Served]]:
    """Run several processes of the service that share one store, for the length of a block."""
    settings = {"FINRISK_STORE_URL": url, "FINRISK_MASTER_KEY": b64encode(KEYRING_KEY).decode()}
    with ExitStack() as stack:
        served = []
        for worker in range(number):
            # Each has a BENTOML_HOME of its own, as every container has: BentoML keeps the counters of a process there.
            home = shutil.copytree(models, folder / f"worker-{worker}", symlinks=True)
            served.append(stack.enter_context(serving(home, home, home / "serve.log", **settings)))
        yield served


def send_at_once(served: list[Served], route: str, key: str) -> list[str]:
    """Send one keyed batch from every sender at the same moment; return the bodies of the answers."""
    barrier = Barrier(SENDERS)

    def send(sender: int) -> str:
        barrier.wait()
        status, body = served[sender % len(served)].post(f"/v1/{route}/batch", {"items": ITEMS[route]}, Idempotency_Key=key)
        assert status == 200, body
        return body

    with ThreadPoolExecutor(SENDERS) as pool:
        return list(pool.map(send, range(SENDERS)))


def check_equal_batches(served: list[Served], store: Store) -> None:
    """Send equal batches in several rounds; every item is answered with the one decision that the store holds."""
    decision_ids: list[str] = []
    for route in ITEMS:
        for round_ in range(N_ROUNDS):
            bodies = send_at_once(served, route, f"{route}-{round_}")
            results = json.loads(bodies[0])["results"]
            statuses = [result["status"] for body in bodies for result in json.loads(body)["results"]]
            assert statuses == [200] * N_ITEMS * SENDERS, f"{route}: {Counter(statuses)}"
            assert set(bodies) == {bodies[0]}
            decision_ids += [result["answer"]["decision_id"] for result in results]
    assert sorted(decision.id for decision in store.decisions()) == sorted(decision_ids)


@pytest.mark.parametrize("processes", [1, 3])
def test_equal_batches_at_once_on_sqlite_are_decided_once(models: Path, tmp_path: Path, processes: int) -> None:
    url = f"sqlite:///{tmp_path / 'store.sqlite'}"
    with workers(processes, models, tmp_path, url) as served, closing(store_at(url)) as store:
        check_equal_batches(served, store)


def test_equal_batches_at_once_on_postgresql_are_decided_once(models: Path, tmp_path: Path, postgresql: Server) -> None:
    url = postgresql.new(empty=False)
    with workers(2, models, tmp_path, url) as served, closing(store_at(url)) as store:
        check_equal_batches(served, store)
