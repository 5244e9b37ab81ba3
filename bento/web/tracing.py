"""Traces, for whoever collects them: one span for a request and one for each step of its answer, sent as OTLP over HTTP.

Nothing is traced, and nothing of it costs anything, unless OTEL_EXPORTER_OTLP_ENDPOINT names a collector; the other OTEL_* variables mean
what OpenTelemetry says they mean. A span holds the route, the method, the status and the request id: nothing that a client wrote, nor
anything of a person. The caller's trace context (W3C `traceparent`) is continued.
"""

import os
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


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
