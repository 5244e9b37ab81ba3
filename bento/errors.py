"""The one shape of every failure: `{"error": {"code", "message", "fields", "request_id"}}`.

A handler raises `Problem`. `Envelope` wraps the whole application and gives everything else that goes wrong (validation,
unknown routes, overload, time-outs, crashes) the same shape; only from outside can it see what BentoML's own layers answer.
Nothing here repeats what a client sent, except the name of a field, and no log line says more than where a failure happened.
"""

import json
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from secrets import token_hex
from typing import Any, TypeVar

from schemas.api import Error, ErrorEnvelope, FieldError

logger = logging.getLogger("finrisk.service")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

request_id: ContextVar[str] = ContextVar("request", default="-")
"""The id of the request that is being answered."""

idempotency_key: ContextVar[str | None] = ContextVar("idempotency_key", default=None)
"""The header `Idempotency-Key` of that request: sent again with the same one, it gets the same answer and nothing is done again."""

MAX_BODY_BYTES = 256 * 1024
MAX_BATCH_BYTES = 8 * 1024 * 1024
_MAX_FIELDS = 20
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,128}")

_KNOWN: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "The request cannot be read."),
    401: ("unauthorized", "The request needs credentials."),
    403: ("forbidden", "These credentials do not allow it."),
    404: ("not_found", "There is no such route; GET /docs lists them."),
    405: ("method_not_allowed", "This route has no such method; GET /docs lists them."),
    413: ("too_large", f"The body is larger than {MAX_BODY_BYTES:,} bytes, or {MAX_BATCH_BYTES:,} of a batch."),
    415: ("unsupported_media_type", "Send JSON, with the header Content-Type: application/json."),
    422: ("invalid_request", "The request does not have the right form; `fields` says what is wrong with which field."),
    429: ("too_many_requests", "Too many requests are being answered; try again in a moment."),
    500: ("internal_error", "The service failed. The request id leads to its log line."),
    503: ("not_ready", "The service cannot answer now: a model is missing, or its store takes no write. Nothing was kept; try again."),
    504: ("timeout", "The answer took too long. Sending the same transaction_id or Idempotency-Key again is safe."),
}


@dataclass
class Problem(Exception):  # noqa: N818 - it is named for what the client reads
    """A failure with its HTTP status, its code and words, and the fields that caused it."""

    status: int
    code: str
    message: str
    fields: Sequence[FieldError] = field(default_factory=tuple)

    @classmethod
    def of(cls, status: int, fields: Sequence[FieldError] = ()) -> "Problem":
        """The problem that a bare status stands for."""
        code, message = _KNOWN.get(status, ("failed", "The request failed."))
        return cls(status, code, message, fields)

    def body(self, request: str) -> bytes:
        error = Error(code=self.code, message=self.message, fields=list(self.fields), request_id=request)
        return ErrorEnvelope(error=error).model_dump_json().encode()


def invalid(name: str, reason: str) -> Problem:
    """The problem of one field that cannot be used."""
    return Problem.of(422, [FieldError(field=name, reason=reason)])


def answering(handler: Handler) -> Handler:
    """Let a handler raise `Problem`, and make anything else it raises a failure of ours.

    Without it BentoML would blame the client for a `ValidationError` of our own, and log the message of an exception,
    which may hold a person's data.
    """
    from starlette.responses import Response

    @wraps(handler)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return await handler(*args, **kwargs)
        except Problem as problem:
            failure = problem
        except Exception as error:
            log_failure(error)
            failure = Problem.of(500)
        return Response(failure.body(""), failure.status, media_type="application/json")

    return guarded  # type: ignore[return-value]


def log_failure(error: BaseException) -> None:
    """Log where a failure happened and of what type it is, without its message."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s failed with %s\n%s", request_id.get(), type(error).__name__, where)


def quiet_refusals(record: logging.LogRecord) -> bool:
    """A logging filter: a request that does not validate is the client's matter and needs no stack trace of ours."""
    return not (record.exc_info and record.exc_info[0] is not None and record.exc_info[0].__name__ == "ValidationError")


class Envelope:
    """ASGI middleware: every response with a status of 400 or more leaves as one envelope; every response has a request id."""

    def __init__(self, app: App) -> None:
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


def invalid_request(detail: Sequence[Mapping[str, Any]]) -> Problem:
    """The problem that Pydantic's list of errors describes."""
    if any(item["type"] == "json_invalid" for item in detail):
        return Problem(400, "malformed_json", "The body is not JSON.")
    return Problem.of(
        422,
        [FieldError(field=_field_name(item["loc"]), reason=_REASONS.get(item["type"], item["msg"])) for item in detail[:_MAX_FIELDS]],
    )


_REASONS = {
    "extra_forbidden": "There is no such field.",
    "missing": "This field is required.",
    "model_type": "The body must be a JSON object.",
    "model_attributes_type": "The body must be a JSON object.",
    "finite_number": "Must be a finite number.",
    "dict_type": "Must be a JSON object.",
}


def _field_name(loc: Sequence[str | int]) -> str:
    """Where the error is, as `features.age`; a client's own key is cut short, lest it be more than a name."""
    return ".".join(str(part)[:64] for part in loc if part != "body")
