"""ASGI middleware that observes requests: duration by route and status, and a trace span for each request.

The tracer is made by `tracing`, the counters stand in `metrics`.
"""

from time import perf_counter

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento.access.roles import RoleTable
from bento.context import _within, request_id
from bento.web.metrics import Metrics


class RequestMetrics:
    """ASGI middleware, the outermost: how long each request took, by method, route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics
        self._table = RoleTable()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            route = self._table.template(scope["path"])
            self._metrics.requested(scope["method"], route, status, perf_counter() - begun)


_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})


class Traced:
    """ASGI middleware: a span for each request, around those of its steps."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self.app = app
        self._tracer = tracer
        self._table = RoleTable()
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ("/livez", "/readyz", "/metrics"):
            await self.app(scope, receive, send)
            return
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"}
        route, method = self._table.template(scope["path"]), scope["method"] if scope["method"] in _METHODS else "other"
        parent = self._propagator.extract(carrier, context=Context())
        named = {"http.route": route, "http.request.method": method}
        whole = self._tracer.start_span(f"{method} {route}", context=parent, kind=SpanKind.SERVER, attributes=named)
        token = _within.set((self._tracer, trace.set_span_in_context(whole, parent)))

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                whole.set_attribute("http.response.status_code", message["status"])
                whole.set_attribute("finrisk.request_id", request_id.get())
                if message["status"] >= 500:
                    whole.set_status(Status(StatusCode.ERROR))
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            _within.reset(token)
            whole.end()
