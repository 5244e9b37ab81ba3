"""The error envelope around the whole application: `{"error": {"code", "message", "fields", "request_id"}}`.

Every failure (validation, unknown routes, overload, time-outs, crashes) leaves in this one shape. Only the outermost layers see what
BentoML's own layers answer. An envelope repeats nothing that a client sent, except a field's name.
"""

import json
import re
from collections.abc import Mapping
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento.context import idempotency_key, request_id
from bento.problems import MAX_BATCH_BYTES, MAX_BODY_BYTES, Problem, invalid_request, log_failure, log_problem
from schemas.api import FieldError

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,128}")
_PRESERVED_HEADERS = frozenset({b"allow", b"retry-after", b"www-authenticate"})
"""Headers of an error response that the envelope passes on."""


class Envelope:
    """ASGI middleware: a response with a status of 400 or more leaves as an error envelope; every response has a request id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        current_id = _choose_request_id(headers)
        request_id.set(current_id)
        key = headers.get(b"idempotency-key")
        idempotency_key.set(None if key is None else key.decode("latin-1"))
        response = _EnvelopedResponse(send, current_id, is_probe=scope["path"] == "/readyz")
        max_bytes = _max_body_bytes(scope["path"])
        problem = _check_headers(scope["method"], headers, max_bytes)
        if problem is not None:
            await response.send_problem(problem)
            return
        body = _LimitedBody(receive, max_bytes)
        try:
            await self.app(scope, body.receive, response.send)
        except Exception as error:
            log_failure(error)
            if response.is_success:
                raise
            await response.send_problem(Problem.from_status(413 if body.is_too_large else 500))
            return
        await response.finish(is_too_large=body.is_too_large)


def _choose_request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the client's own request id where it is harmless, else a new one."""
    sent = headers.get(b"x-request-id", b"")
    return sent.decode() if _REQUEST_ID.fullmatch(sent) else token_hex(16)


def _max_body_bytes(path: str) -> int:
    """Return the largest accepted body of a request to this path, in bytes."""
    return MAX_BATCH_BYTES if path.startswith("/v1/") and path.endswith("/batch") else MAX_BODY_BYTES


def _check_headers(method: str, headers: Mapping[bytes, bytes], max_bytes: int) -> Problem | None:
    """Return the problem that shows before the body is read; None where there is none."""
    if method != "POST":
        return None
    media_type = headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        return Problem.from_status(415)
    if not _IDEMPOTENCY_KEY.fullmatch(headers.get(b"idempotency-key", b"-")):
        return Problem(400, "bad_request", "The header Idempotency-Key has 1 to 128 visible ASCII characters.")
    length = headers.get(b"content-length", b"0")
    # The number of digits first: `int` refuses a text of several thousand.
    is_too_large = length.isdigit() and (len(length.lstrip(b"0")) > len(str(max_bytes)) or int(length.lstrip(b"0") or b"0") > max_bytes)
    return Problem.from_status(413) if is_too_large else None


class _BodyTooLarge(Exception):  # noqa: N818 - never leaves this module
    """A body without a stated length that grew too large; raised into the application."""


class _LimitedBody:
    """The request's body, cut off where it grows too large."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._read_bytes = 0
        self.is_too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._read_bytes += len(message.get("body", b""))
        if self._read_bytes > self._max_bytes:
            self.is_too_large = True
            raise _BodyTooLarge
        return message


class _EnvelopedResponse:
    """The response: a success is passed on as it comes, an error is held back and rewritten."""

    def __init__(self, send: Send, current_id: str, *, is_probe: bool) -> None:
        self._send = send
        self._is_probe = is_probe
        self._request_id = current_id
        self._start: Message | None = None
        self._error_body = bytearray()
        self.is_success = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_success = message["status"] < 400
            if self.is_success:
                message["headers"] = [*message["headers"], (b"x-request-id", self._request_id.encode())]
            else:
                self._start = message
                return
        if self.is_success:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._error_body += message.get("body", b"")

    async def finish(self, *, is_too_large: bool) -> None:
        """Send the envelope of an error response, which was held back."""
        if self._start is not None:
            problem = Problem.from_status(413) if is_too_large else _read_problem(self._start["status"], bytes(self._error_body))
            await self.send_problem(problem)

    async def send_problem(self, problem: Problem) -> None:
        """Send a problem as the response, and log a failure under the request id that the client gets."""
        if problem.status >= 500 and problem.code != "model_absent" and not self._is_probe:  # a probe may fail every second
            log_problem(problem)
        body = problem.to_json(self._request_id)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", self._request_id.encode()),
            *((name, value) for name, value in (self._start or {}).get("headers", ()) if name.lower() in _PRESERVED_HEADERS),
        ]
        if problem.status in (429, 503) and all(name.lower() != b"retry-after" for name, _ in headers):
            headers.append((b"retry-after", b"1"))
        await self._send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _read_problem(status: int, body: bytes) -> Problem:
    """Return the problem of an error response by a handler of the service, BentoML, FastAPI or Starlette."""
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        return Problem.from_status(status)
    error, detail = content.get("error"), content.get("detail")
    if isinstance(error, dict) and "code" in error:
        return Problem(status, error["code"], error["message"], [FieldError(**item) for item in error["fields"]])
    if isinstance(detail, list):
        return invalid_request(detail)
    return Problem.from_status(status)
