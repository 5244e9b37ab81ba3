"""Tests of a store that is locked by another process: requests wait for it off the event loop, which answers everybody else meanwhile."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from starlette.testclient import TestClient

from bento.access.api_keys import create_key
from bento.problems import Problem
from bento.store.database import StoreBusy
from bento.store.session import Store, StoreThread, open_store
from finrisk_assets.settings import Settings
from tests.service.databases import Server, store_at
from tests.service.envelopes import read_error
from tests.service.examples import CASHFLOW_ROW
from tests.service.serving import serving as served_by_itself
from tests.service.serving import store_models

UNDER_WAY_S = 0.2
"""For so long a request is given to reach the store."""
LOAN = {"customer_id": 123, "loan_amount": 50000}


@contextmanager
def locked(file: Path) -> Iterator[Callable[[], None]]:
    """Let another connection hold the write lock until the yielded function is called, or the block ends."""
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("begin immediate")
        yield lambda: other.execute("rollback").close()
        if other.in_transaction:
            other.execute("rollback")


def send(client: TestClient, method: str, path: str, body: Any) -> Any:
    return client.request(method, path, **({} if body is None else {"json": body}))


REQUESTS = {
    "a decision": ("POST", "/v1/cashflow", {"features": CASHFLOW_ROW}),
    "a decision of a customer": ("POST", "/v1/loan-default", LOAN),
    "a batch": ("POST", "/v1/cashflow/batch", {"items": [{"features": CASHFLOW_ROW}] * 3}),
    "a batch of transactions": (
        "POST",
        "/v1/transactions/batch",
        {"items": [{"user_id": 5, "amount": 120.0, "timestamp": "2024-05-06T12:00:00"}] * 3},
    ),
    "an outcome": ("POST", "/v1/feedback", {"label": True}),
    "a look-up": ("GET", "/v1/risk-scores/123", None),
    "an export": ("GET", "/v1/people/123/export", None),
    "an erasure": ("DELETE", "/v1/people/123", None),
    "a page of the audit": ("GET", "/v1/audit", None),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_request_waits_for_a_lock_while_others_are_answered(serving, bundles, request_):
    method, path, body = request_
    with serving(bundles) as client:
        decision = client.post("/v1/cashflow", json={"features": CASHFLOW_ROW}).json()
        if path == "/v1/feedback":
            body = body | {"decision_id": decision["decision_id"]}
        with locked(serving.home / "simulator" / "service" / "store.sqlite") as unlock, ThreadPoolExecutor(1) as other_client:
            waiting = other_client.submit(send, client, method, path, body)
            time.sleep(UNDER_WAY_S)
            alive = [client.get("/livez").status_code for _ in range(5)]
            was_waiting = not waiting.done()
            unlock()
            answer = waiting.result()

    assert alive == [200] * 5
    assert was_waiting, "the lock was waited for on the event loop"
    assert answer.status_code == 200, answer.text


def test_readiness_waits_for_a_lock_off_the_event_loop_too(serving, bundles):
    file = serving.home / "simulator" / "service" / "store.sqlite"
    with serving({"cashflow": bundles["cashflow"]}) as client, locked(file) as unlock, ThreadPoolExecutor(1) as other_client:
        waiting = other_client.submit(client.get, "/readyz")
        time.sleep(UNDER_WAY_S)
        alive = client.get("/livez").status_code
        was_waiting = not waiting.done()
        unlock()
        ready = waiting.result()

    assert (alive, was_waiting, ready.status_code) == (200, True, 200)


def test_a_lock_that_stays_is_a_503_after_the_bound_and_all_who_queue_get_it(serving, bundles):
    file = serving.home / "simulator" / "service" / "store.sqlite"
    with serving({"cashflow": bundles["cashflow"]}) as client, locked(file), ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: client.post("/v1/cashflow", json={"features": CASHFLOW_ROW}), range(8)))

    for answer in answers:
        read_error(answer, 503, "not_ready")


@pytest.mark.slow
def test_a_lock_on_postgresql_is_waited_for_off_the_event_loop(tmp_path: Path, bundles: dict[str, Path], postgresql: Server) -> None:
    url = postgresql.new(empty=False)
    models = store_models(tmp_path / "models", {"cashflow": bundles["cashflow"]})
    settings = {"FINRISK_STORE_URL": url, "FINRISK_MASTER_KEY": bytes(range(32)).hex()}
    engine = create_engine(make_url(url))
    with served_by_itself(models, tmp_path / "home", tmp_path / "serve.log", **settings) as served, ThreadPoolExecutor(1) as other_client:
        with engine.begin() as other:
            other.execute(text("lock table audit_heads in exclusive mode"))
            waiting = other_client.submit(served.post, "/v1/cashflow", {"features": CASHFLOW_ROW})
            time.sleep(UNDER_WAY_S)
            alive = [served.get("/livez")[0] for _ in range(5)]
            was_waiting = not waiting.done()
        status, answer = waiting.result()
    engine.dispose()

    assert alive == [200] * 5
    assert was_waiting, "the lock was waited for on the event loop"
    assert status == 200, answer


def test_the_event_loop_s_thread_never_waits_and_another_thread_does(tmp_path: Path) -> None:
    with closing(store_at(tmp_path / "store.sqlite")) as store, ThreadPoolExecutor(1) as another:
        store.never_wait_here()
        with locked(tmp_path / "store.sqlite") as unlock:
            with pytest.raises(StoreBusy), store.writing():
                pass
            with store.reading():
                """Reads are not locked out."""
            waiting = another.submit(store.is_writable)
            time.sleep(UNDER_WAY_S)
            unlock()
            assert waiting.result()
        with store.writing():
            store.audit("one")


def test_the_event_loop_s_thread_does_not_wait_for_another_thread_s_transaction(tmp_path: Path) -> None:
    began, ends = threading.Event(), threading.Event()
    with closing(store_at(tmp_path / "store.sqlite")) as store, ThreadPoolExecutor(1) as another:
        store.never_wait_here()

        def write() -> None:
            with store.writing():
                began.set()
                ends.wait(10)

        writing = another.submit(write)
        began.wait(10)
        with pytest.raises(StoreBusy), store.reading():
            pass
        ends.set()
        writing.result()


def test_calls_beyond_the_bound_are_refused_at_once() -> None:
    thread, ends = StoreThread(max_waiting=2), threading.Event()
    made = [thread.submit(ends.wait, 10), thread.submit(lambda: True)]
    with pytest.raises(Problem) as refused:
        thread.submit(lambda: "one too many")
    ends.set()

    assert refused.value.status == 503
    assert [future.result() for future in made] == [True, True]
    assert thread.submit(lambda: "again").result() == "again"
    thread.stop()


def test_a_call_that_queued_for_too_long_is_refused_and_not_made() -> None:
    thread, calls = StoreThread(max_queued_s=0.0), list[str]()
    with pytest.raises(Problem) as refused:
        thread.submit(calls.append, "late").result()
    thread.stop()

    assert refused.value.status == 503
    assert calls == []


def test_a_closed_store_ends_its_thread(tmp_path: Path) -> None:
    store: Store = store_at(tmp_path / "store.sqlite")
    assert store.thread.submit(lambda: 1).result() == 1
    store.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("finrisk-store")]


def test_a_refusal_does_not_wait_for_a_lock_and_is_recorded_after_it(serving, bundles):
    client = serving({"cashflow": bundles["cashflow"]})
    with closing(open_store(Settings(home=serving.home))) as store, store.writing() as connection:
        _, key = create_key(connection, store.keyring.mac, "one", ["auditor"], now=1)
    auditor = {"X-API-Key": key}
    file = serving.home / "simulator" / "service" / "store.sqlite"
    with client:
        assert client.get("/v1/audit", headers=auditor).status_code == 200
        with locked(file) as unlock, ThreadPoolExecutor(1) as other_client:
            refused = client.get("/v1/audit", headers={"X-API-Key": key + "x"}).status_code
            waiting = other_client.submit(client.get, "/v1/audit", headers=auditor)
            time.sleep(UNDER_WAY_S)
            unlock()
            page = waiting.result()

    assert refused == 401
    assert page.status_code == 200, page.text
    assert "refuse.bad_key" in [record["action"] for record in page.json()["records"]]
