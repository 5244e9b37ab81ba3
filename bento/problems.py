"""The one shape of every failure: `{"error": {"code", "message", "fields", "request_id"}}`.

A handler raises `Problem`. `Envelope` wraps the whole application and gives everything else that goes wrong (validation,
unknown routes, overload, time-outs, crashes) the same shape; only from outside can it see what BentoML's own layers answer.
Nothing here repeats what a client sent, except the name of a field, and no log line says more than where a failure happened.
"""

import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from bento.context import request_id
from schemas.api import Error, ErrorEnvelope, FieldError

logger = logging.getLogger("finrisk.service")
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

MAX_BODY_BYTES = 256 * 1024
MAX_BATCH_BYTES = 8 * 1024 * 1024
_MAX_FIELDS = 20

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


LOAD_HINT = "`finrisk load-history` puts what the ledger knows of its customers into the service's store."


def unknown(field: str) -> Problem:
    """Return the problem of a customer, or an account, of which nothing is stored."""
    message = f"The service knows nothing of this {field.removesuffix('_id')} here. {LOAD_HINT}"
    return Problem(404, "unknown_customer", message, [FieldError(field=field, reason="Nothing is stored under this identifier.")])


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
