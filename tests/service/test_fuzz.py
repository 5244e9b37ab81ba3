"""Tests of the service under hostile requests: what its OpenAPI document allows and forbids, and 100,000 malformed bodies.

None may fail with 5xx, none may hang, and no log line may hold what was sent. Seeds are fixed, so a failure comes again.
"""

import asyncio
import json
import logging
import random
import re
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from starlette.testclient import TestClient

from bento.insight import policy_preview
from tests.service.conftest import Serving

BODIES = 100_000
EXAMPLES = 10
"""Requests of each operation that is made from the document, in either mode."""
LONGEST_S = 5.0
"""Seconds after which a request counts as hanging: the service's own time-out."""

MARK = re.compile(r"MARK[0-9a-f]{8}|98765432\.25")
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, bundles):
    """Yield a service whose history this module's tests write into."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        # A flood from one address is what these tests are.
        for name in ("FINRISK_UNKNOWN_PER_SECOND", "FINRISK_UNKNOWN_BURST"):
            monkeypatch.setenv(name, "1000000")
        # Each preview of a policy would decide again what the others have.
        monkeypatch.setattr(policy_preview, "MAX_DECISIONS", 10)
        with Serving(tmp_path_factory.mktemp("fuzzed"), monkeypatch)(bundles) as running:
            yield running


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture):
    """Check that no log record of any level holds a marked value."""
    caplog.set_level(logging.DEBUG)
    for logger in ("bentoml", "finrisk", "uvicorn"):
        logging.getLogger(logger).setLevel(logging.DEBUG)
    yield caplog
    found = {mark for record in caplog.records for mark in MARK.findall(record.getMessage() + str(record.exc_text or ""))}
    assert not found


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
def test_what_the_document_allows_and_forbids_is_answered_as_it_says(service, logged, mode):
    document = schemathesis.openapi.from_dict(service.get("/openapi.json").json())
    document.config.update(base_url="http://testserver")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 15
    for operation in operations:
        _ask(service, operation, mode)


def _ask(served: TestClient, operation: Any, mode: GenerationMode) -> None:
    """Send what hypothesis makes of one operation, and hold each answer against the document."""

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        sent = case.as_transport_kwargs(base_url="http://testserver")
        response = served.request(**{name: value for name, value in sent.items() if value is not None})
        assert _is_no_failure(response.status_code), (operation.label, response.status_code)
        case.validate_response(response, checks=CHECKS)

    with suppress(Unsatisfiable):  # of an operation that takes nothing, nothing wrong can be made
        ask()


@pytest.mark.slow
def test_a_hundred_thousand_hostile_bodies_are_refused_or_answered(service, logged):
    examples = _examples(service.get("/openapi.json").json())
    draw = random.Random(20180401)
    statuses = service.portal.call(_flood, service.app, [_hostile(draw, examples) for _ in range(BODIES // 20)])
    for _ in range(19):
        statuses += service.portal.call(_flood, service.app, [_hostile(draw, examples) for _ in range(BODIES // 20)])
    assert statuses.total() == BODIES
    assert all(map(_is_no_failure, statuses)), statuses
    # Neither is everything refused before it is looked at, nor does most of it pass.
    assert statuses[200] > BODIES / 200 and statuses[422] > BODIES / 4 and statuses[400] > BODIES / 50, statuses
    assert service.get("/readyz").status_code == 200


def _is_no_failure(status: int) -> bool:
    """Return whether the status is no 5xx but 501, which names a model that this service lacks."""
    return status < 500 or status == 501


def _examples(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return valid bodies, each with its route."""
    return [
        (path, example["value"])
        for path, methods in document["paths"].items()
        if "post" in methods and "/batch" not in path
        for example in methods["post"]["requestBody"]["content"]["application/json"].get("examples", {}).values()
    ]


HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -0.0, -1, 1, 10**30, -(10**30), 2**63, 1e308, -1e308, 1e-320, 0.1 + 0.2, 98765432.25,
    float("nan"), float("inf"), float("-inf"), "", " ", "0.5", "NaN", "true", "null", "\x00", "\ud800", "\u202e", "😀" * 40, "ß" * 127,
    "a" * 129, "a" * 20_000, "MARK5f3c9a01", "MARK01ab9c77' or '1'='1", "../../etc/passwd", "{{7*7}}", "%s%n", "<script>", "-1e999",
    "2024-11-21T10:16:30", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999Z", "2024-02-30", "2024-11-21T10:16:30+99:99", "1732184190",
    [], {}, [[]], [None] * 50, {"": ""}, {"MARK77ab0101": 1}, {"__proto__": {}}, {"features": {}},
)  # fmt: skip


def _hostile(draw: random.Random, examples: list[tuple[str, Any]]) -> tuple[str, bytes, bytes]:
    """Return a path, a body and a content type: a valid body, spoiled in one to three places, rarely left as it is."""
    path, body = draw.choice(examples)
    if draw.random() < 0.1:
        path, body = path + "/batch" if path.count("/") == 2 and path != "/v1/feedback" else path, {"items": [body, body]}
    body = json.loads(json.dumps(body))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        body = _wrong(draw, body)
    content = json.dumps(body, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if draw.random() < 0.15:
        content = _broken(draw, content)
    kind = b"application/json" if draw.random() < 0.97 else draw.choice((b"text/plain", b"", b"application/xml", b"multipart/form-data"))
    return path, content, kind


def _any(draw: random.Random) -> Any:
    """Return an arbitrary value, which may be spoiled further."""
    return deepcopy(draw.choice(HOSTILE))


def _wrong(draw: random.Random, body: Any) -> Any:
    """Return the body with one value changed, removed, added or moved."""
    if not isinstance(body, (dict, list)) or not body or draw.random() < 0.03:
        return _any(draw)
    keys = list(body) if isinstance(body, dict) else list(range(len(body)))
    key = draw.choice(keys)
    what = draw.random()
    if isinstance(body[key], (dict, list)) and what < 0.7:
        body[key] = _wrong(draw, body[key])
    elif what < 0.75:
        body[key] = _any(draw)
    elif what < 0.85:
        del body[key]
    elif isinstance(body, dict):
        body[str(draw.choice(("MARK0011aabb", "", "amount", "Amount", "customer_id", "features", "__class__")))] = _any(draw)
    else:
        body.append(_any(draw))
    return body


def _broken(draw: random.Random, content: bytes) -> bytes:
    """Return text that no JSON writer produces."""
    at = draw.randrange(len(content) + 1)
    match draw.randrange(7):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
        case 2:
            return draw.randbytes(draw.randrange(200))
        case 3:
            return b"[" * 50_000
        case 4:
            return b'{"a":' * 5_000 + b"1" + b"}" * 5_000
        case 5:
            return content[:-1] + b',"amount":1,"amount":2}'
        case _:
            return b"1" * draw.choice((400, 5_000)) + b".5"


async def _flood(app: Any, requests: list[tuple[str, bytes, bytes]]) -> Counter[int]:
    """Return the status of each request's answer, each received within `LONGEST_S`."""
    statuses: Counter[int] = Counter()
    for path, body, kind in requests:
        statuses[await asyncio.wait_for(_status(app, path, body, kind), LONGEST_S)] += 1
    return statuses


async def _status(app: Any, path: str, body: bytes, kind: bytes) -> int:
    found: list[int] = []
    headers = [(b"host", b"localhost"), (b"content-type", kind), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers, "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 3000), "state": {},
    }  # fmt: skip
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        message = next(sent, None)
        if message is None:
            await asyncio.sleep(LONGEST_S * 2)  # the client stays
            return {"type": "http.disconnect"}
        return message

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])

    await app(scope, receive, send)
    (status,) = found
    return status
