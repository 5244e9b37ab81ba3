"""Prometheus metrics: requests by route, decisions and scores by model, the store's commits, the audit, feedback.

No label names a person or holds what a client chose: a route is a template of the role table, a decision one of its domain. The page adds
up the workers, which BentoML starts with a folder for their values. docs/operations.md says what each metric is for.
"""

from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from bento.decisions.domains import outcome_of
from finrisk_assets.scoring.bundle import Bundle

CONTENT_TYPE = CONTENT_TYPE_LATEST
_REQUEST_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_COMMIT_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0)
_PROBABILITY_BUCKETS = tuple(round(twentieths / 20, 2) for twentieths in range(1, 21))


def render_metrics() -> bytes:
    """Return the counts of all workers in Prometheus' text format.

    Raises
    ------
    ValueError
        If the process does not run under `bentoml serve`, which names the folder where the workers write their values.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)


@lru_cache(maxsize=1_000)
def _child(metric: Any, *labels: Any) -> Any:
    """Return a metric's child with these labels. Cached, because prometheus-client needs as long for the look-up as for the count."""
    return metric.labels(*labels)


class Metrics:
    """The metrics of one worker.

    The metrics have a registry of their own. With several workers prometheus-client writes their values to files, which
    `render_metrics` reads. What is counted on the way to an answer is written once an answer is sent: no client waits for it.
    """

    def __init__(self) -> None:
        self._unwritten: deque[Callable[[], None]] = deque()
        registry = self.registry = CollectorRegistry()
        self._requests = Histogram(
            "finrisk_request_duration_seconds", "Time from the request to the end of its answer, by the route that the role table names.",
            ["method", "route", "status"], buckets=_REQUEST_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._decisions = Counter(
            "finrisk_decisions", "Decisions made, by what was decided.", ["domain", "decision", "model_version"], registry=registry
        )
        self._scores = Histogram(
            "finrisk_score", "Probabilities that the models gave.", ["domain", "model_version"], buckets=_PROBABILITY_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self._batch_items = Counter(
            "finrisk_batch_items", "Items of batches, by the status each got.", ["domain", "status"], registry=registry
        )
        self._commits = Histogram(
            "finrisk_store_commit_seconds", "Time to bring a transaction of the store to disk.", buckets=_COMMIT_BUCKETS_S,
            registry=registry,
        )  # fmt: skip
        self._audit_records = Counter("finrisk_audit_records", "Records appended to the audit.", ["action"], registry=registry)
        self._feedback = Counter("finrisk_feedback", "Outcomes that analysts recorded.", ["domain", "label"], registry=registry)
        self._refusals = Counter("finrisk_refusals", "Refused requests and connections, by reason.", ["reason"], registry=registry)
        self._models = Gauge(
            "finrisk_model_info", "The models that answer: 1 each.", ["domain", "model", "version", "source"],
            multiprocess_mode="max", registry=registry,
        )  # fmt: skip
        self._readiness = Gauge(
            "finrisk_part_ready", "Whether a part was ready when /readyz last asked.", ["part"], multiprocess_mode="livemin",
            registry=registry,
        )  # fmt: skip

    def register_models(self, bundles: Mapping[str, Bundle]) -> None:
        """Show the models of a worker, by domain."""
        # A child without a count is 0: a dashboard shows the child before its first event, and that event is then a change.
        self._audit_records.labels("decide")
        self._refusals.labels("missing")
        for domain, bundle in bundles.items():
            for label in ("false", "true"):
                self._feedback.labels(domain, label)
            self._models.labels(domain, bundle.name, bundle.version, bundle.source).set(1)

    def count_decision(self, domain: str, answer: Any) -> None:
        """Count a decision, and observe its score."""
        probability, decision = outcome_of(domain, answer)
        self._unwritten.append(_child(self._decisions, domain, decision, answer.model.version).inc)
        self._unwritten.append(partial(_child(self._scores, domain, answer.model.version).observe, probability))

    def count_batch_item(self, domain: str, status: int) -> None:
        """Count an item of a batch with its HTTP status."""
        _child(self._batch_items, domain, status).inc()

    def observe_commit(self, seconds: float) -> None:
        """Observe the duration of a commit, in seconds."""
        self._unwritten.append(partial(self._commits.observe, seconds))

    def count_audit_record(self, action: str) -> None:
        """Count a record of the audit."""
        self._unwritten.append(_child(self._audit_records, action).inc)

    def count_feedback(self, domain: str, label: bool) -> None:
        """Count an outcome that an analyst recorded."""
        self._feedback.labels(domain, str(label).lower()).inc()

    def count_refusal(self, reason: str) -> None:
        """Count a request that access control refused, or a connection that the protocol refused."""
        self._refusals.labels(reason).inc()

    def set_readiness(self, faults: Mapping[str, str | None]) -> None:
        """Set which parts of the service are ready: those without a fault."""
        for part, fault in faults.items():
            self._readiness.labels(part).set(fault is None)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Observe the duration of a request, in seconds, and write what waits.

        Method and route must come from a fixed set, because they become labels.
        """
        _child(self._requests, method, route, status).observe(seconds)
        self.write_counts()

    def write_counts(self) -> None:
        """Write the counts that wait."""
        while self._unwritten:
            self._unwritten.popleft()()
