"""Prometheus metrics of a stream's worker, beside those that it shares with HTTP: decisions, scores, commits, audit records."""

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

from bento.web.metrics import Metrics

CONTENT_TYPE = CONTENT_TYPE_LATEST
FATES = ("decided", "repeated", "dead", "tombstone")
"""The fates of a message: a new decision, the answer of a prior one, a dead letter, or nothing, as of an empty message."""
_LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 5000)


class StreamMetrics:
    """The metrics of one worker.

    Attributes
    ----------
    shared
        The metrics that the service has too.
    """

    def __init__(self) -> None:
        self.shared = Metrics()
        registry = self.shared.registry
        messages = Counter("finrisk_stream_messages", "Messages, by what became of them.", ["fate"], registry=registry)
        self._fates = {fate: messages.labels(fate) for fate in FATES}
        self._lag = Gauge(
            "finrisk_stream_lag", "Messages of a partition that are not decided yet.", ["topic", "partition"], registry=registry
        )
        self._sizes = Histogram(
            "finrisk_stream_batch_size", "Messages of a micro-batch.", buckets=_SIZE_BUCKETS, registry=registry
        )  # fmt: skip
        self._latency = Histogram(
            "finrisk_stream_latency_seconds", "Time from a message's timestamp to its published decision.",
            buckets=_LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._seconds = Counter("finrisk_stream_batch_seconds", "Time that micro-batches took, in all.", registry=registry)
        self._waiting = Gauge("finrisk_stream_waiting", "Whether the worker waits for its store or for Kafka.", registry=registry)
        self._rebalances = Counter("finrisk_stream_rebalances", "Changes of the worker's partitions.", registry=registry)
        self._lost = Counter("finrisk_stream_lost", "Messages that retention deleted before they were decided.", registry=registry)

    def count_messages(self, fate: str, number: int) -> None:
        """Count messages with one fate of `FATES`."""
        self._fates[fate].inc(number)

    def observe_batch(self, size: int, seconds: float) -> None:
        """Observe a micro-batch: its number of messages, and the seconds that it took."""
        self._sizes.observe(size)
        self._seconds.inc(seconds)
        self.shared.write_counts()

    def observe_latency(self, seconds: float) -> None:
        """Observe the time from a message's timestamp to its published decision, in seconds."""
        self._latency.observe(max(seconds, 0.0))

    def set_lag(self, topic: str, partition: int, messages: int) -> None:
        """Set the number of messages of a partition that are not decided yet."""
        self._lag.labels(topic, partition).set(messages)

    def forget_lag(self, topic: str, partition: int) -> None:
        """Remove a partition that another worker has now."""
        self._lag.remove(topic, str(partition))

    def set_waiting(self, is_waiting: bool) -> None:
        """Set whether the worker waits for its store or for Kafka."""
        self._waiting.set(is_waiting)

    def count_rebalance(self) -> None:
        """Count a change of the worker's partitions."""
        self._rebalances.inc()

    def count_lost(self, messages: int) -> None:
        """Count messages that retention deleted before they were decided."""
        self._lost.inc(messages)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.shared.registry)
