"""Tests of the dispatch of scoring routes."""

import asyncio
import json

import pytest
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from bento.problems import Problem
from bento.web.dispatch import ApiMethod, Dispatch, list_methods

TIMEOUT_S = 0.05


class Ping(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int = 1


class Service:
    def __init__(self):
        self.ended = []

    async def echo(self, ping):
        return ping

    async def respond(self, ping):
        return Response(b"made", 409, {"x-word": "kept"}, media_type="text/plain")

    async def never_answer(self, ping):
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(True)


async def other_app(scope, receive, send):
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"other"})


def request(path, body=b"", method="POST", service=None):
    """Return status, headers and body of the answer."""
    methods = {f"/{name}": ApiMethod(Ping, getattr(Service, name)) for name in ("echo", "respond", "never_answer")}
    app = Dispatch(other_app, methods, lambda: service, TIMEOUT_S)
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "http", "scheme": "http", "method": method, "path": path, "headers": []}, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


def test_an_answer_is_sent_as_json():
    status, headers, body = request("/echo", b'{"number": 3}', service=Service())

    assert (status, headers[b"content-type"], headers[b"content-length"]) == (200, b"application/json", b"12")
    assert json.loads(body) == {"number": 3}


def test_a_response_is_sent_as_it_is():
    status, headers, body = request("/respond", b"{}", service=Service())

    assert (status, headers[b"x-word"], body) == (409, b"kept", b"made")


def test_an_empty_body_is_an_empty_object():
    assert json.loads(request("/echo", service=Service())[2]) == {"number": 1}


@pytest.mark.parametrize(("path", "method"), [("/echo", "GET"), ("/echo/", "POST"), ("/elsewhere", "POST")])
def test_every_other_request_goes_to_the_application(path, method):
    assert request(path, method=method, service=Service())[::2] == (404, b"other")


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b'{"number": "x"}', 422), (b'{"word": 1}', 422)])
def test_a_body_of_the_wrong_form_is_a_problem(body, status):
    with pytest.raises(Problem) as raised:
        request("/echo", body, service=Service())

    assert raised.value.status == status


def test_an_answer_that_takes_too_long_is_ended():
    service = Service()

    with pytest.raises(Problem) as raised:
        request("/never_answer", service=service)

    assert (raised.value.status, service.ended) == (504, [True])


def test_without_a_service_nothing_is_ready():
    with pytest.raises(Problem) as raised:
        request("/echo")

    assert raised.value.status == 503


def test_every_method_of_the_service_has_its_route():
    from bento.access.roles import ROUTES
    from bento.service import FinRisk

    assert list_methods(FinRisk.apis).keys() == {route.path for route in ROUTES if route.method == "POST"}
