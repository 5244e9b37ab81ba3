"""The one shape of every failure: `{"error": {"code", "message", "fields", "request_id"}}`.

`Envelope` wraps the whole application and gives everything that goes wrong (validation, unknown routes, overload, time-outs, crashes) the
same shape; only from outside can it see what BentoML's own layers answer. Nothing here repeats what a client sent, except a field's name.
"""

import json
import re
from collections.abc import Mapping
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento.context import idempotency_key, request_id
from bento.problems import MAX_BATCH_BYTES, MAX_BODY_BYTES, Problem, invalid_request, log_failure
from schemas.api import FieldError

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,128}")


class Envelope:
    """ASGI middleware: every response with a status of 400 or more leaves as one envelope; every response has a request id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        named = _request_id(headers)
        request_id.set(named)
        key = headers.get(b"idempotency-key")
        idempotency_key.set(None if key is None else key.decode("latin-1"))
        answer = _Answer(send, named)
        largest = largest_body(scope["path"])
        refusal = _refusal(scope["method"], headers, largest)
        if refusal is not None:
            await answer.fail(refusal)
            return
        body = _Body(receive, largest)
        try:
            await self.app(scope, body.receive, answer.send)
        except Exception as error:
            if answer.passing:
                raise
            log_failure(error)
            await answer.fail(Problem.of(413 if body.too_large else 500))
            return
        await answer.finish(too_large=body.too_large)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    """The client's own request id where it is harmless, else a new one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else token_hex(16)


def largest_body(path: str) -> int:
    """Bytes that the body of a request may have, by its route."""
    return MAX_BATCH_BYTES if path.startswith("/v1/") and path.endswith("/batch") else MAX_BODY_BYTES


def _refusal(method: str, headers: Mapping[bytes, bytes], largest: int) -> Problem | None:
    """What can be refused before the body is read."""
    if method != "POST":
        return None
    media_type = headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        return Problem.of(415)
    if not _IDEMPOTENCY_KEY.fullmatch(headers.get(b"idempotency-key", b"-")):
        return Problem(400, "bad_request", "The header Idempotency-Key has 1 to 128 visible ASCII characters.")
    length = headers.get(b"content-length", b"0")
    return Problem.of(413) if length.isdigit() and int(length) > largest else None


class _TooLarge(Exception):  # noqa: N818 - never leaves this module
    """Raised into the application when a body of unstated length grows too large."""


class _Body:
    """The request's body, cut off where it grows too large."""

    def __init__(self, receive: Receive, largest: int) -> None:
        self._receive = receive
        self._largest = largest
        self._read = 0
        self.too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._largest:
            self.too_large = True
            raise _TooLarge
        return message


class _Answer:
    """The response: passed on as it comes where it is a success, held back and rewritten where it is not."""

    def __init__(self, send: Send, request: str) -> None:
        self._send = send
        self._request_id = request
        self._start: Message | None = None
        self._held = bytearray()
        self.passing = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.passing = message["status"] < 400
            if self.passing:
                message["headers"] = [*message["headers"], (b"x-request-id", self._request_id.encode())]
            else:
                self._start = message
                return
        if self.passing:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._held += message.get("body", b"")

    async def finish(self, *, too_large: bool) -> None:
        """Send the envelope of a response that was held back."""
        if self._start is not None:
            await self.fail(Problem.of(413) if too_large else _translate(self._start["status"], bytes(self._held)))

    async def fail(self, problem: Problem) -> None:
        body = problem.body(self._request_id)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", self._request_id.encode()),
            *((name, value) for name, value in (self._start or {}).get("headers", ()) if name.lower() in _KEPT_HEADERS),
        ]
        if problem.status in (429, 503) and all(name.lower() != b"retry-after" for name, _ in headers):
            headers.append((b"retry-after", b"1"))
        await self._send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


_KEPT_HEADERS = frozenset({b"allow", b"retry-after", b"www-authenticate"})


def _translate(status: int, body: bytes) -> Problem:
    """The problem behind an error response, whoever wrote it: a handler of ours, BentoML, FastAPI or Starlette."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return Problem.of(status)
    error, detail = content.get("error"), content.get("detail")
    if isinstance(error, dict) and "code" in error:
        return Problem(status, error["code"], error["message"], [FieldError(**item) for item in error["fields"]])
    if isinstance(detail, list):
        return invalid_request(detail)
    return Problem.of(status)
