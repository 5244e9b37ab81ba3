"""Traces, for whoever collects them: one span for a request and one for each step of its answer, sent as OTLP over HTTP.

Nothing is traced, and nothing of it costs anything, unless OTEL_EXPORTER_OTLP_ENDPOINT names a collector; the other OTEL_* variables mean
what OpenTelemetry says they mean. A span holds the route, the method, the status and the request id: nothing that a client wrote, nor
anything of a person. The caller's trace context (W3C `traceparent`) is continued.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bento.errors import App, Message, Receive, Scope, Send, request_id
from bento.roles import RoleTable

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})
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


def tracer_of(environ: Mapping[str, str] | None = None, exporter: Any = None) -> Tracer | None:
    """What traces are made with; None where no collector is named.

    Parameters
    ----------
    environ
        Names the collector. Default: the process's own.
    exporter
        Takes the spans, each as it ends, instead of a collector.
    """
    environ = os.environ if environ is None else environ
    if exporter is None and not any(environ.get(name) for name in _ENDPOINTS):
        return None
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: environ.get("OTEL_SERVICE_NAME", "finrisk")}))
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("finrisk")


class Traced:
    """ASGI middleware: a span for each request, around those of its steps."""

    def __init__(self, app: App, tracer: Tracer) -> None:
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
