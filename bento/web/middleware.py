"""ASGI middleware that observes requests: their duration by route and status, and one trace span for each.

The counters stand in `metrics`, the tracer in `tracing`.
"""

from time import perf_counter

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento.access.roles import RoleTable
from bento.context import current_span, request_id
from bento.web.metrics import Metrics

ROUTE_KEY = "finrisk.route"
"""Key of the scope under which `RequestMetrics` puts the path template of the request's route."""
_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
_CLIENT_CLOSED = 499
"""Status of a request whose client left before its answer; no response has it."""
_UNTRACED_PATHS = frozenset({"/livez", "/readyz", "/metrics"})


def _method_label(method: str) -> str:
    """Return the method; ``other`` for a method that is not HTTP's, because a client chooses it."""
    return method if method in _METHODS else "other"


class RequestMetrics:
    """ASGI middleware, the outermost one, that resolves the route of a request and measures the request's duration."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics
        self._table = RoleTable()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_at, status = perf_counter(), _CLIENT_CLOSED
        route = scope[ROUTE_KEY] = self._table.find_template(scope["path"])

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note_status)
        except BaseException:
            status = 500
            raise
        finally:
            self._metrics.observe_request(_method_label(scope["method"]), route, status, perf_counter() - started_at)


class RequestTracing:
    """ASGI middleware inside `RequestMetrics` that records a span for each request, around the spans of its steps."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self.app = app
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNTRACED_PATHS:
            await self.app(scope, receive, send)
            return
        route, method = scope[ROUTE_KEY], _method_label(scope["method"])
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"}
        parent = self._propagator.extract(carrier, context=Context())
        attributes = {"http.route": route, "http.request.method": method}
        span = self._tracer.start_span(f"{method} {route}", context=parent, kind=SpanKind.SERVER, attributes=attributes)
        token = current_span.set((self._tracer, trace.set_span_in_context(span, parent)))

        async def send_and_note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                span.set_attribute("finrisk.request_id", request_id.get())
                if message["status"] >= 500:
                    span.set_status(Status(StatusCode.ERROR))
            await send(message)

        try:
            await self.app(scope, receive, send_and_note_status)
        finally:
            current_span.reset(token)
            span.end()
