"""The context of the current request: its caller, its ids, and the trace span of the step it is in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Status, StatusCode, Tracer

ROLES = frozenset({"scorer", "analyst", "auditor", "privacy", "admin"})
"""Roles of callers; `bento.access.roles` says which routes each may call."""


@dataclass(frozen=True)
class Caller:
    """The caller of a request.

    Attributes
    ----------
    name
        ``key:<id>`` for an API key, ``jwt:<pseudonym>`` for a bearer token, ``local`` where the service stands open on this machine. It
        stands in logs and in the audit: never a person's name.
    roles
        What they may do, of `ROLES`.
    """

    name: str
    roles: frozenset[str]


LOCAL = Caller("local", ROLES)
"""Whoever asks a service that is open to its own machine alone, and the operator's commands."""
current: ContextVar[Caller] = ContextVar("caller", default=LOCAL)


request_id: ContextVar[str] = ContextVar("request", default="-")
"""The id of the request that is being answered."""

idempotency_key: ContextVar[str | None] = ContextVar("idempotency_key", default=None)
"""The header `Idempotency-Key` of that request: sent again with the same one, it gets the same answer and nothing is done again."""


_within: ContextVar[tuple[Tracer, Context] | None] = ContextVar("within", default=None)
"""The tracer and the innermost span of the request that is being answered; None where it is not traced."""
_NOTHING = nullcontext()


def span(name: str) -> AbstractContextManager[None]:
    """Measure a step of an answer: ``history``, ``features``, ``score``, ``explain``, ``store``. Without a trace it does nothing."""
    within = _within.get()
    return _NOTHING if within is None else _span(name, *within)


@contextmanager
def _span(name: str, tracer: Tracer, parent: Context) -> Iterator[None]:
    # The parent is named, because BentoML's own middleware puts a span that nobody collects into the current context.
    step = tracer.start_span(name, context=parent)
    token = _within.set((tracer, trace.set_span_in_context(step, parent)))
    try:
        yield
    except BaseException as error:
        # Its type alone: a message may hold a person's data.
        step.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        _within.reset(token)
        step.end()
