"""The tracer: one span for a request and one for each step of its answer, sent to a collector as OTLP over HTTP.

Without OTEL_EXPORTER_OTLP_ENDPOINT no request is traced, at no cost; the other OTEL_* variables mean what OpenTelemetry says. A span holds
the route, the method, the status and the request id: nothing that a client wrote, and nothing of a person. `middleware` continues the
caller's trace context (W3C `traceparent`).
"""

import os
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Tracer

_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def create_tracer(environ: Mapping[str, str] | None = None, exporter: Any = None) -> Tracer | None:
    """Return a tracer; None where no collector is named.

    Parameters
    ----------
    environ
        Environment variables that name the collector. Default: those of the process.
    exporter
        Receives each span as it ends, instead of a collector.
    """
    environ = os.environ if environ is None else environ
    if exporter is None and not any(environ.get(name) for name in _ENDPOINT_VARIABLES):
        return None
    # Imported only here: few services send spans, and the SDK makes the start longer.
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
