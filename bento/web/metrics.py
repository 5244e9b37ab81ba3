"""What the service counts, for Prometheus: requests by route, decisions and scores by model, the store's commits, the audit, feedback.

Nothing here names a person, and no label holds what a client chose: a route is one of the role table, a decision one of its domain. The
page adds up the workers, which BentoML starts with a folder for their values. What each metric is for stands in docs/operations.md.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from bento.decisions.domains import outcome_of
from finrisk_assets.scoring.bundle import Bundle

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_COMMIT_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0)
_PROBABILITIES = tuple(round(at / 20, 2) for at in range(1, 21))
_METHODS = frozenset({"GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"})


def page() -> bytes:
    """What all workers have counted, as Prometheus reads it.

    Raises
    ------
    ValueError
        Outside of `bentoml serve`, which names the folder where the workers keep their values.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)


@lru_cache(maxsize=1_000)
def _labelled(metric: Any, *labels: Any) -> Any:
    """A metric's part of these labels: to look it up costs as much as to count."""
    return metric.labels(*labels)


class Metrics:
    """The counters of one worker.

    They have a registry of their own; with several workers prometheus-client keeps their values in files, which the page reads.
    """

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self._requests = Histogram(
            "finrisk_request_duration_seconds", "Time from the request to the end of its answer, by the route that the role table names.",
            ["method", "route", "status"], buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._decisions = Counter(
            "finrisk_decisions", "Decisions made, by what was decided.", ["domain", "decision", "model_version"], registry=registry
        )
        self._scores = Histogram(
            "finrisk_score", "Probabilities that the models gave.", ["domain", "model_version"], buckets=_PROBABILITIES, registry=registry
        )
        self._items = Counter("finrisk_batch_items", "Items of batches, by the status each got.", ["domain", "status"], registry=registry)
        self._commits = Histogram(
            "finrisk_store_commit_seconds", "Time to bring a transaction of the store to disk.", buckets=_COMMIT_SECONDS, registry=registry
        )
        self._audited = Counter("finrisk_audit_records", "Records appended to the audit.", ["action"], registry=registry)
        self._fed_back = Counter("finrisk_feedback", "Outcomes that analysts recorded.", ["domain", "label"], registry=registry)
        self._refused = Counter("finrisk_refusals", "Requests that access control refused.", ["reason"], registry=registry)
        self._models = Gauge(
            "finrisk_model_info", "The models that answer: 1 each.", ["domain", "model", "version", "source"],
            multiprocess_mode="max", registry=registry,
        )  # fmt: skip
        self._ready = Gauge(
            "finrisk_part_ready", "Whether a part was ready when /readyz last asked.", ["part"], multiprocess_mode="livemin",
            registry=registry,
        )  # fmt: skip

    def answering_with(self, bundles: Mapping[str, Bundle]) -> None:
        # What has not happened yet is counted as 0, so that a dashboard shows it and the first time is a change.
        self.audited("decide", 0)
        self.refused("missing", 0)
        for domain, bundle in bundles.items():
            for label in ("false", "true"):
                self._fed_back.labels(domain, label)
            self._models.labels(domain, bundle.name, bundle.version, bundle.source).set(1)

    def decided(self, domain: str, answer: Any) -> None:
        """Count one decision and its score."""
        probability, decision = outcome_of(domain, answer)
        _labelled(self._decisions, domain, decision, answer.model.version).inc()
        _labelled(self._scores, domain, answer.model.version).observe(probability)

    def batched(self, domain: str, status: int) -> None:
        _labelled(self._items, domain, status).inc()

    def committed(self, seconds: float) -> None:
        self._commits.observe(seconds)

    def audited(self, action: str, records: int = 1) -> None:
        _labelled(self._audited, action).inc(records)

    def fed_back(self, domain: str, label: bool) -> None:
        self._fed_back.labels(domain, str(label).lower()).inc()

    def refused(self, reason: str, requests: int = 1) -> None:
        self._refused.labels(reason).inc(requests)

    def set_readiness(self, parts: Mapping[str, str | None]) -> None:
        """Remember which parts of the service are ready."""
        for part, reason in parts.items():
            self._ready.labels(part).set(reason is None)

    def requested(self, method: str, route: str, status: int, seconds: float) -> None:
        _labelled(self._requests, method if method in _METHODS else "other", route, status).observe(seconds)
