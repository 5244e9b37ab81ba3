"""The error envelope around the whole application: `{"error": {"code", "message", "fields", "request_id"}}`.

Every failure (validation, unknown routes, overload, time-outs, crashes) leaves in this one shape. Only the outermost layers see what
BentoML's own layers answer. An envelope repeats nothing that a client sent, except a field's name. Headers that a request may have only
once, its media type and the headers of every response are checked and set here, too.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Set
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento.context import idempotency_key, request_id
from bento.problems import Problem, invalid_request, log_failure, log_problem
from bento.web.admission import max_body_bytes
from schemas.api import FieldError

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_IDEMPOTENCY_KEY = re.compile(rb"[!-~]{1,128}")
_PRESERVED_HEADERS = frozenset({b"allow", b"retry-after", b"www-authenticate"})
"""Headers of an error response that the envelope passes on."""
_SINGLE_HEADERS = frozenset({
    b"authorization", b"content-encoding", b"content-length", b"content-type", b"host", b"idempotency-key", b"origin", b"sec-fetch-site",
    b"transfer-encoding", b"x-api-key", b"x-request-id",
})  # fmt: skip
"""Headers that a request has at most once: of two, one layer would read the first and another the last."""
_LONGEST_LENGTH = 10
"""Digits of a Content-Length without leading zeros: `int` refuses a text of several thousand."""
_PUBLIC_PATHS = ("/", "/docs")
_PUBLIC_FOLDERS = ("/static/", "/static_content/")
_SECURITY_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
}
"""Headers of every response that does not set them itself: no data stays in a cache or is run as a page."""


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
        response = _EnvelopedResponse(send, current_id, is_public=_is_public(scope["path"]), is_probe=scope["path"] == "/readyz")
        try:
            _check_headers(scope, headers)
            await self.app(scope, receive, response.send)
            await response.finish()
        except Exception as error:
            if not isinstance(error, Problem):
                log_failure(error)
            if response.is_success:
                raise
            await response.send_problem(error if isinstance(error, Problem) else Problem.from_status(500))


def _choose_request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the client's own request id where it is harmless, else a new one."""
    sent = headers.get(b"x-request-id", b"")
    return sent.decode() if _REQUEST_ID.fullmatch(sent) else token_hex(16)


def _is_public(path: str) -> bool:
    """Return whether a path is the documentation page or one of its files, which hold no data and may be cached."""
    return path in _PUBLIC_PATHS or path.startswith(_PUBLIC_FOLDERS)


def _check_headers(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Raise the problem that shows before the body is read."""
    if len(headers) < len(scope["headers"]) and not _SINGLE_HEADERS.isdisjoint(_find_repeated_names(scope)):
        raise Problem(400, "bad_request", "A header that a request has once was sent several times; send one Content-Type, one Host, …")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Problem(415, "unsupported_media_type", "Send the body as it is, without Content-Encoding.")
    length = headers.get(b"content-length", b"0")
    has_body = length != b"0" or b"transfer-encoding" in headers
    if has_body or scope["method"] == "POST":
        media_type = headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
        if media_type != b"application/json":
            raise Problem.from_status(415)
    if not _IDEMPOTENCY_KEY.fullmatch(headers.get(b"idempotency-key", b"-")):
        raise Problem(400, "bad_request", "The header Idempotency-Key has 1 to 128 visible ASCII characters.")
    digits = length.lstrip(b"0") or b"0"
    if len(digits) > _LONGEST_LENGTH or (digits.isdigit() and int(digits) > max_body_bytes(scope["path"])):
        raise Problem.from_status(413)


def _find_repeated_names(scope: Scope) -> set[bytes]:
    """Return the names of the headers that a request has several times."""
    return {name for name, count in Counter(name for name, _ in scope["headers"]).items() if count > 1}


class _EnvelopedResponse:
    """The response: a success is passed on as it comes, an error is held back and rewritten."""

    def __init__(self, send: Send, current_id: str, *, is_public: bool, is_probe: bool) -> None:
        self._send = send
        self._is_probe = is_probe
        self._request_id = current_id
        self._is_public = is_public
        self._start: Message | None = None
        self._error_body = bytearray()
        self.is_success = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_success = message["status"] < 400
            if self.is_success:
                message["headers"] = self._add_headers(message["headers"])
            else:
                self._start = message
                return
        if self.is_success:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._error_body += message.get("body", b"")

    async def finish(self) -> None:
        """Send the envelope of an error response, which was held back."""
        if self._start is not None:
            await self.send_problem(_read_problem(self._start["status"], bytes(self._error_body)))

    async def send_problem(self, problem: Problem) -> None:
        """Send a problem as the response, and log a failure under the request id that the client gets."""
        if problem.status >= 500 and problem.code != "model_absent" and not self._is_probe:  # a probe may fail every second
            log_problem(problem)
        body = problem.to_json(self._request_id)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *((name, value) for name, value in (self._start or {}).get("headers", ()) if name.lower() in _PRESERVED_HEADERS),
        ]
        if problem.status in (429, 503) and all(name.lower() != b"retry-after" for name, _ in headers):
            headers.append((b"retry-after", b"1"))
        await self._send({"type": "http.response.start", "status": problem.status, "headers": self._add_headers(headers)})
        await self._send({"type": "http.response.body", "body": body})

    def _add_headers(self, headers: Collection[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response with its request id, and the security headers that it does not set itself."""
        names = {name.lower() for name, _ in headers}
        if self._is_public:
            names.add(b"cache-control")
        added = _SECURITY_HEADERS.items() if names.isdisjoint(_SECURITY_HEADERS) else _omit(names)
        return [*headers, (b"x-request-id", self._request_id.encode()), *added]


def _omit(names: Set[bytes]) -> list[tuple[bytes, bytes]]:
    """Return the security headers without those of these names."""
    return [(name, value) for name, value in _SECURITY_HEADERS.items() if name not in names]


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
