"""The page of the metrics, from the registries that Prometheus reads."""

from collections.abc import Iterator
from typing import Any

from bento.stream.stream_metrics import StreamMetrics
from bento.web.metrics import Metrics
from book.markdown import format_page, format_table


def write_metrics() -> str:
    """Return the page of the metrics of the service and of the stream's worker."""
    service = list(_list_metrics(Metrics().registry))
    stream = [row for row in _list_metrics(StreamMetrics().shared.registry) if row not in service]
    headings = ("metric", "type", "labels", "meaning")
    return format_page(
        "Metrics",
        "",
        "In Prometheus' text format. [Operating the service](../operations.md#metrics) says what to watch.",
        "",
        "## The service",
        "",
        "At `/metrics` of the service, all workers added up.",
        *format_table(headings, service),
        "## The stream",
        "",
        "At `/metrics` of each worker ([the stream](../streaming.md)), beside those of the service.",
        *format_table(headings, stream),
    )


def _list_metrics(registry: Any) -> Iterator[tuple[str, str, str, str]]:
    for collector in dict.fromkeys(registry._collector_to_names):
        name = f"{collector._name}_total" if collector._type == "counter" else collector._name
        yield f"`{name}`", collector._type, ", ".join(collector._labelnames), collector._documentation
