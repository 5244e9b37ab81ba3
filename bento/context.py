"""The context of the current request: its caller, its ids, and the trace span of the current step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode, Tracer

ROLES = frozenset({"scorer", "analyst", "supervisor", "auditor", "privacy", "admin"})
"""Roles of callers; `bento.access.roles` says which routes each role may call."""


@dataclass(frozen=True)
class Caller:
    """The caller of a request.

    Attributes
    ----------
    name
        ``key:<id>`` for an API key, ``jwt:<pseudonym>`` for a bearer token, ``local`` for a service that is open on this machine. The name
        stands in logs and in the audit, so it is never a person's name.
    roles
        The caller's roles, of `ROLES`.
    """

    name: str
    roles: frozenset[str]


LOCAL_CALLER = Caller("local", ROLES)
"""The caller of an operator's command, and of a service that is open to its own machine alone."""

ANONYMOUS_CALLER = Caller("nobody", frozenset())
"""The caller of an open route without a credential."""

current_caller: ContextVar[Caller] = ContextVar("caller", default=LOCAL_CALLER)
"""The caller of the current request."""

request_id: ContextVar[str] = ContextVar("request", default="-")
"""The id of the current request."""

idempotency_key: ContextVar[str | None] = ContextVar("idempotency_key", default=None)
"""The header `Idempotency-Key` of the current request. A request with the same key gets the same answer and has no second effect."""

current_span: ContextVar[tuple[Tracer, Context] | None] = ContextVar("span", default=None)
"""The tracer and the innermost span of the current request; None where the request is not traced."""

_NO_SPAN = nullcontext()


def span(name: str) -> AbstractContextManager[None]:
    """Trace a step of an answer: ``history``, ``features``, ``score``, ``explain`` or ``store``. Without a trace do nothing."""
    parent = current_span.get()
    return _NO_SPAN if parent is None else _record_span(name, *parent)


@contextmanager
def _record_span(name: str, tracer: Tracer, parent: Context) -> Iterator[None]:
    # The parent is passed, because BentoML's own middleware puts a span that is not collected into the current context.
    step = tracer.start_span(name, context=parent)
    token = current_span.set((tracer, trace.set_span_in_context(step, parent)))
    try:
        yield
    except BaseException as error:
        # The error's type alone: a message may hold a person's data.
        step.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        current_span.reset(token)
        step.end()
