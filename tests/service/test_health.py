"""Tests of liveness, readiness and draining in this process; `test_operations` tests them on a served one."""

import asyncio
import signal

import pytest

from bento.web.health import READINESS_TTL_S, Health
from finrisk_assets.scoring.bundle import Bundle
from tests.service.envelopes import read_error


def test_a_whole_service_is_ready_and_names_its_parts(shared_client, bundles):
    ready = shared_client.get("/readyz")

    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "parts": ["store", *(f"models.{domain}" for domain in ready_order(bundles))]}
    assert shared_client.get("/livez").json() == {"status": "alive"}


def ready_order(bundles):
    from bento.decisions.domains import DOMAINS

    return [domain for domain in DOMAINS if domain in bundles]


def test_a_model_that_no_longer_scores_as_trained_is_not_ready(serving, bundles, monkeypatch):
    loaded, under = [], Bundle.under
    monkeypatch.setattr(Bundle, "under", lambda bundle, *settings: loaded.append(under(bundle, *settings)) or loaded[-1])
    with serving({"cashflow": bundles["cashflow"]}) as client:
        assert loaded
        for bundle in loaded:
            bundle.intercept += 0.01

        error = read_error(client.get("/readyz"), 503, "not_ready")

        assert [field["field"] for field in error["fields"]] == ["models.cashflow"]
        assert client.get("/livez").status_code == 200


def app(parts, drain_s=0.05, clock=None):
    async def inner(scope, receive, send):
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})

    return Health(inner, parts, drain_s, **({"clock": clock} if clock else {}))


async def get(health, path):
    sent = []

    async def send(message):
        sent.append(message)

    await health({"type": "http", "path": path, "method": "GET", "headers": []}, None, send)
    return sent[0]["status"], dict(sent[0]["headers"])


def test_the_state_of_the_parts_is_remembered_for_a_moment():
    check_times, now = [], [0.0]

    def parts():
        check_times.append(now[0])
        return {"store": None if len(check_times) < 2 else "It takes no write."}

    health = app(parts, clock=lambda: now[0])

    async def run():
        first = [(await get(health, "/readyz"))[0] for _ in range(5)]
        now[0] = READINESS_TTL_S + 0.1
        return first, (await get(health, "/readyz"))[0]

    assert asyncio.run(run()) == ([200] * 5, 503)
    assert len(check_times) == 2


def test_before_there_is_a_service_it_is_not_ready_but_alive():
    health = app(lambda: None)

    assert asyncio.run(get(health, "/readyz"))[0] == 503
    assert asyncio.run(get(health, "/livez"))[0] == 200


@pytest.fixture
def handler():
    """Return the server's SIGTERM handler, and the number of its calls."""
    ended = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    yield ended
    signal.signal(signal.SIGTERM, before)


def test_at_sigterm_it_answers_on_but_is_not_ready_until_the_server_ends(handler):
    health = app(lambda: {"store": None})

    async def run():
        async def sent(message):
            """Receive no message."""

        await health({"type": "lifespan"}, None, sent)
        before = [await get(health, path) for path in ("/readyz", "/v1/models")]
        signal.raise_signal(signal.SIGTERM)
        draining = [await get(health, path) for path in ("/readyz", "/livez", "/v1/models")]
        ended = list(handler)
        await asyncio.sleep(0.1)
        return before, draining, ended

    before, draining, ended = asyncio.run(run())

    assert [status for status, _ in before] == [200, 200]
    assert [status for status, _ in draining] == [503, 200, 200]
    assert b"connection" not in before[1][1]
    assert draining[2][1][b"connection"] == b"close"
    assert ended == []
    assert handler == [signal.SIGTERM]


def test_a_second_sigterm_ends_the_drain(handler):
    health = app(lambda: {}, drain_s=60)

    async def run():
        async def sent(message):
            """Receive no message."""

        await health({"type": "lifespan"}, None, sent)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    asyncio.run(run())

    assert handler == [signal.SIGTERM]
