"""Problems: the failures that a client sees, as `{"error": {"code", "message", "fields", "request_id"}}`.

A handler raises `Problem`; `web.envelope` gives every other failure the same shape. A problem repeats nothing that a client sent, except
the name of a field. A log line says where a failure happened and of what type it is, never its message.
"""

import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bento.context import request_id
from schemas.api import Error, ErrorEnvelope, FieldError, Identifier

logger = logging.getLogger("finrisk.service")
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

MAX_BODY_BYTES = 256 * 1024
"""Bytes of a request's body, except a batch. More memory per request where it is larger."""
MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of a batch's body. More memory per request where it is larger."""
MAX_HEADER_BYTES = 16 * 1024
"""Bytes of a request line with its headers. Every connection may take as much memory."""
MAX_HEADERS = 100
"""Headers of one request."""
_MAX_FORM_ERRORS = 20
_MAX_KEY_LENGTH = 64

_BY_STATUS: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "The request cannot be read."),
    401: ("unauthorized", "The request needs credentials."),
    403: ("forbidden", "These credentials do not allow it."),
    404: ("not_found", "There is no such route; GET /docs lists them."),
    405: ("method_not_allowed", "This route has no such method; GET /docs lists them."),
    408: ("request_timeout", "The request did not arrive in time; send it again."),
    413: ("too_large", f"The body is larger than {MAX_BODY_BYTES:,} bytes, or {MAX_BATCH_BYTES:,} of a batch."),
    415: ("unsupported_media_type", "Send JSON, with the header Content-Type: application/json."),
    422: ("invalid_request", "The request does not have the right form; `fields` says what is wrong with which field."),
    429: ("too_many_requests", "Too many requests are being answered, or too many of yours; try again in a moment."),
    431: ("headers_too_large", f"The headers are larger than {MAX_HEADER_BYTES:,} bytes, or more than {MAX_HEADERS}."),
    500: ("internal_error", "The service failed. The request id leads to its log line."),
    503: ("not_ready", "The service cannot answer now: a model is missing, or its store takes no write. Nothing was kept; try again."),
    504: ("timeout", "The answer took too long. Sending the same transaction_id or Idempotency-Key again is safe."),
}


@dataclass
class Problem(Exception):  # noqa: N818 - named for what the client reads
    """A failure with its HTTP status, its code, its message, and the fields that caused it."""

    status: int
    code: str
    message: str
    fields: Sequence[FieldError] = field(default_factory=tuple)

    @classmethod
    def from_status(cls, status: int, fields: Sequence[FieldError] = ()) -> "Problem":
        """Return the problem of a bare HTTP status."""
        code, message = _BY_STATUS.get(status, ("failed", "The request failed."))
        return cls(status, code, message, fields)

    def to_json(self, request: str) -> bytes:
        """Return the error envelope with this request id."""
        error = Error(code=self.code, message=self.message, fields=list(self.fields), request_id=request)
        return ErrorEnvelope(error=error).model_dump_json().encode()


def invalid_field(name: str, reason: str) -> Problem:
    """Return the problem of one field with an unusable value."""
    return Problem.from_status(422, [FieldError(field=name, reason=reason)])


_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


def parse_identifier(name: str, value: str) -> str:
    """Return an identifier of a path or a command in normal form, by the rule of the requests' bodies.

    Raises
    ------
    Problem
        422 where the identifier is blank or too long.
    """
    try:
        return _IDENTIFIER.validate_python(value)
    except ValidationError as error:
        raise invalid_field(name, f"{error.errors()[0]['msg']}.") from None


LOAD_HINT = "`finrisk load-history` puts what the ledger knows of its customers into the service's store."


def unknown_subject(field: str) -> Problem:
    """Return the problem of a customer, or an account, of which nothing is stored."""
    message = f"The service knows nothing of this {field.removesuffix('_id')} here. {LOAD_HINT}"
    return Problem(404, "unknown_customer", message, [FieldError(field=field, reason="Nothing is stored under this identifier.")])


def catch_problems(handler: Handler) -> Handler:
    """Decorate a handler: a `Problem` becomes its answer, any other exception becomes a logged 500.

    Without this decorator, BentoML would report a `ValidationError` of the service's own code as the client's fault, and would log the
    message of an exception, which may hold a person's data.
    """
    from starlette.responses import Response

    @wraps(handler)
    async def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return await handler(*args, **kwargs)
        except Problem as raised:
            problem = raised
        except Exception as error:
            log_failure(error)
            problem = Problem.from_status(500)
        return Response(problem.to_json(""), problem.status, media_type="application/json")

    return answer  # type: ignore[return-value]


def log_failure(error: BaseException) -> None:
    """Log where a failure happened and of what type it is, without its message."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("request %s failed with %s\n%s", request_id.get(), type(error).__name__, where)


def log_problem(problem: Problem) -> None:
    """Log the failure that a client is told, under the id of its request."""
    logger.error("request %s is answered with %d %s", request_id.get(), problem.status, problem.code)


def invalid_request(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """Return the problem that Pydantic's list of errors describes."""
    if any(error["type"] == "json_invalid" for error in errors):
        return Problem(400, "malformed_json", "The body is not JSON.")
    return Problem.from_status(
        422,
        [
            FieldError(field=_field_name(error["loc"]), reason=_REASON_BY_ERROR_TYPE.get(error["type"], error["msg"]))
            for error in errors[:_MAX_FORM_ERRORS]
        ],
    )


_REASON_BY_ERROR_TYPE = {
    "extra_forbidden": "There is no such field.",
    "missing": "This field is required.",
    "model_type": "The body must be a JSON object.",
    "model_attributes_type": "The body must be a JSON object.",
    "finite_number": "Must be a finite number.",
    "dict_type": "Must be a JSON object.",
}


def _field_name(loc: Sequence[str | int]) -> str:
    """Return the place of an error as `features.age`, each part cut: a client's own key may hold more than a name."""
    return ".".join(str(part)[:_MAX_KEY_LENGTH] for part in loc if part != "body")
