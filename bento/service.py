"""The service: one class with every scoring route, how it is served, and what a worker loads.

Build it: `bentoml build`. Serve it: `bentoml serve finrisk:latest`; from source, `bentoml serve bento.service:FinRisk`.
The path of a decision is in `decisions.engine`, the answers of each domain in `decisions.scorers`, the look-ups in `web.lookups`, the one
shape of every failure in `problems`. This module holds the routes and the wiring.
"""

import gc
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import bentoml
from bentoml import get_current_service
from bentoml.exceptions import BentoMLException
from bentoml.images import Image
from bentoml.models import BentoModel
from starlette.responses import Response
from starlette.types import ASGIApp

from bento.access import bind_guard
from bento.access.access import Access
from bento.access.access_control import Security
from bento.context import idempotency_key
from bento.decisions import feedback
from bento.decisions import models as champions
from bento.decisions.batch import build_response, decide_batch, parse_items
from bento.decisions.domains import DOMAINS, domain_of, domain_of_type
from bento.decisions.engine import DecisionResult, Decisions
from bento.decisions.group_commit import GroupCommit
from bento.decisions.shadow import Shadow
from bento.people import data_rights
from bento.problems import Problem, answering, quiet_refusals
from bento.store.session import open_store
from bento.web import lookups, openapi, tracing
from bento.web.envelope import Envelope
from bento.web.health import Health, Parts
from bento.web.metrics import Metrics
from bento.web.middleware import RequestMetrics, Traced
from bento.web.redact_paths import RedactCustomerPath
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings, absolute_paths
from schemas.api import (
    AuditPage,
    AuditQuery,
    Batch,
    BatchAnswer,
    CashflowAnswer,
    CashflowBatch,
    CashflowRequest,
    Erasure,
    FeedbackAnswer,
    FeedbackRequest,
    LoanAnswer,
    LoanBatch,
    LoanRequest,
    ModelList,
    ModelMetrics,
    NearestChangeAnswer,
    NearestChangeRequest,
    OfferAnswer,
    OfferBatch,
    OfferRequest,
    PersonExport,
    RiskScores,
    SpendingAnswer,
    SpendingBatch,
    SpendingRequest,
    TransactionAnswer,
    TransactionBatch,
    TransactionRequest,
)

logger = logging.getLogger("finrisk.service")

GC_THRESHOLD = 20_000
"""New objects between two collections of the youngest generation. At Python's 700 a batch triggers a collection every few items."""


def _parts() -> Parts | None:
    """Return the readiness of each part of this process's service; None before the service starts and after it stops."""
    try:
        return get_current_service().parts()
    except BentoMLException:
        return None


def _access() -> Access | None:
    """Return the access rules of this process's service; None before the service starts and after it stops."""
    try:
        return get_current_service().access
    except BentoMLException:
        return None


def _find_model_fault(bundle: Bundle) -> str | None:
    """Return what is wrong with a loaded bundle; None where its golden rows score as they did when it was trained."""
    try:
        bundle.check()
    except ValueError as error:
        logger.error("%s %s: %s", bundle.name, bundle.version, error)
        return "It no longer scores as when it was trained."
    return None


class _Service(bentoml.Service):
    """BentoML's service, which finds its models in the model store and answers every failure in one shape."""

    @property
    def models(self) -> list[BentoModel]:
        return [BentoModel(model.tag) for model in champions.list_models()]

    @models.setter
    def models(self, _: list[BentoModel]) -> None:
        """Ignore the empty list that BentoML sets: the models are looked up when they are needed."""

    @cached_property
    def counters(self) -> Metrics:
        """The metrics of this worker, created on first use: the supervisor has none."""
        return Metrics()

    checked_champions: champions.Champions | None = None
    """The models that `prepare` has checked, where the worker is the same process."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        logging.getLogger("bentoml._internal.server.http_app").addFilter(quiet_refusals)
        drain_s = Settings.from_environment().drain_seconds
        app: ASGIApp = Security(Health(RedactCustomerPath(super().to_asgi(is_main)), _parts, drain_s), _access)
        tracer = tracing.tracer_of()
        app = app if tracer is None else Traced(app, tracer)
        return RequestMetrics(Envelope(app), self.counters)


# With a distribution named, BentoML would install compilers. The code is copied before bento/image.sh runs, which compiles it.
_IMAGE = Image(
    base_image="docker.io/library/python:3.11-slim-bookworm",
    distro="none",
    build_include_paths=["bento", "schemas", "finrisk_assets"],
)


@bentoml.service(
    name="finrisk",
    service_class=_Service,
    # Only this machine; --host or BENTOML_HOST opens the service to others.
    http={"host": "127.0.0.1", "port": 3000},
    image=_IMAGE,
    # BentoML keeps the objects of a request alive for the whole time-out: a long one costs pauses of the garbage collector.
    traffic={"timeout": 5, "max_concurrency": 64},
    workers=1,
    # BentoML counts by path, which a client chooses; `web.metrics` counts by route and serves `/metrics`.
    metrics={"enabled": False},
    # A line of BentoML's access log begins with the client's address. `problems` logs failures, `web.metrics` counts requests.
    logging={"access": {"enabled": False}},
    # `web.tracing` makes the spans. BentoML's own spans are not collected and cost a tenth of a request's time.
    tracing={"excluded_urls": ".*"},
    envs=[{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "BENTOML_DO_NOT_TRACK", "value": "true"}],
)
@bentoml.asgi_app(openapi.application())
class FinRisk:
    """Personal-finance risk decisions."""

    def __init__(self) -> None:
        gc.set_threshold(GC_THRESHOLD)
        self._champions: champions.Champions = FinRisk.checked_champions or champions.load(FinRisk.bento)  # type: ignore[attr-defined]
        self._metrics: Metrics = FinRisk.counters  # type: ignore[attr-defined]
        self._metrics.answering_with(self._champions.bundles)
        settings = replace(Settings.from_environment(), source=self._champions.source)
        self._store = open_store(settings, meter=self._metrics, upgrades=settings.store_upgrade or None)
        self.access = Access.of(settings, self._store, self._metrics.refused)
        scorers = {domain: DOMAINS[domain].scorer(bundle, self._store) for domain, bundle in self._champions.bundles.items()}
        for scorer in scorers.values():
            scorer.warm_up()
        has_shadow = settings.shadow and bool(self._champions.challengers)
        self._shadow = Shadow(self._champions.challengers, open_store(settings, durable=False)) if has_shadow else None
        self._decisions = Decisions(self._store, scorers, self._champions.why_absent)
        self._group_commit = GroupCommit(self._decisions)
        # The collector no longer walks the objects that live as long as the worker. Loading leaves a dozen objects of garbage: a collection
        # before the freeze would cost a tenth of a second for nothing.
        gc.freeze()
        gc.enable()

    @bentoml.on_deployment
    @staticmethod
    def prepare(keeps: bool = False) -> None:
        """Check the models and the settings before the workers start.

        Relative paths become absolute, because workers run in the Bento's folder. A model that must not be used is refused here, with its
        name and the reason: a worker that refused it would be started again and again.

        Parameters
        ----------
        keeps
            Whether this process goes on as the worker, which then does not load the models a second time.
        """
        carried = champions.load(FinRisk.bento)  # type: ignore[attr-defined]
        FinRisk.checked_champions = carried if keeps else None  # type: ignore[attr-defined]
        settings = replace(Settings.from_environment(), source=carried.source)
        os.environ |= {"FINRISK_HOME": str(settings.home.resolve()), **absolute_paths(os.environ)}
        bind_guard.check(settings)

    @bentoml.on_shutdown
    def stop(self) -> None:
        if self._shadow is not None:
            self._shadow.stop()
        self._store.close()

    def parts(self) -> Parts:
        """Return each part with its fault or None: the store takes no write, or a model no longer scores as when it was trained."""
        models = {f"models.{domain}": _find_model_fault(bundle) for domain, bundle in self._champions.bundles.items()}
        parts = {"store": None if self._store.is_writable() else "It takes no write."} | models
        self._metrics.set_readiness(parts)
        return parts

    @bentoml.api(route="/v1/transactions")
    @answering
    async def score_transaction(self, request: TransactionRequest, /) -> TransactionAnswer:
        """Score one transaction against the history of its customer and its merchant, as of its own time.

        The transaction becomes part of that history. Sent again with the same `transaction_id`, it gets the same answer and
        is not counted twice.
        """
        return await self._answer("transaction_anomaly", request)

    @bentoml.api(route="/v1/loan-default")
    @answering
    async def score_loan(self, request: LoanRequest, /) -> LoanAnswer:
        """Tell how likely a loan is to default, from the features of its application or for a customer of the ledger.

        A customer is judged by the newest features that the service has stored, with the terms that are asked for.
        """
        return await self._answer("loan_default", request)

    @bentoml.api(route="/v1/loan-default/nearest-change")
    @answering
    async def change_loan(self, request: NearestChangeRequest, /) -> NearestChangeAnswer:
        """Tell what would have to differ for a loan to be approved: few values that a person can change, and what they would give.

        It says what the model would have decided, scored again. Where nothing within bounds is enough, it says that.
        """
        answer = await self._decisions.scorer("loan_default").nearest_change(request)
        self._decisions.record_counterfactual("loan_default", request, answer)
        return answer

    @bentoml.api(route="/v1/spending-risk")
    @answering
    async def score_spending(self, request: SpendingRequest, /) -> SpendingAnswer:
        """Tell how likely spending leads into trouble within 90 days, from eight behaviour fields or for a customer of the ledger.

        The eight fields are judged by a model of those eight, a customer by the model of all features.
        """
        return await self._answer(domain_of(request), request)

    @bentoml.api(route="/v1/cashflow")
    @answering
    async def forecast_cashflow(self, request: CashflowRequest, /) -> CashflowAnswer:
        """Tell whether an account will hold more at the end of the next month than at the end of this one, and by how much."""
        return await self._answer("cashflow", request)

    @bentoml.api(route="/v1/loan-offers")
    @answering
    async def choose_offer(self, request: OfferRequest, /) -> OfferAnswer:
        """Choose the loan that is worth most to offer: rate, amount and term, given acceptance, PD and what can be afforded.

        That nothing can be offered is an answer too, with the reason.
        """
        return await self._answer("loan_offers", request)

    @bentoml.api(route="/v1/transactions/batch")
    @answering
    async def score_transactions(self, batch: TransactionBatch, /) -> BatchAnswer[TransactionAnswer]:
        """Score many transactions, one after the other: each is part of the history of those behind it.

        Each item is answered or refused by itself; the results stand in the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/loan-default/batch")
    @answering
    async def score_loans(self, batch: LoanBatch, /) -> BatchAnswer[LoanAnswer]:
        """Tell of many loans how likely they are to default.

        Each item is answered or refused by itself; the results stand in the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/spending-risk/batch")
    @answering
    async def score_spendings(self, batch: SpendingBatch, /) -> BatchAnswer[SpendingAnswer]:
        """Tell of many customers, or of many times eight fields, how likely spending leads into trouble.

        Each item is answered or refused by itself; the results stand in the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/cashflow/batch")
    @answering
    async def forecast_cashflows(self, batch: CashflowBatch, /) -> BatchAnswer[CashflowAnswer]:
        """Look a month ahead for many accounts.

        Each item is answered or refused by itself; the results stand in the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/loan-offers/batch")
    @answering
    async def choose_offers(self, batch: OfferBatch, /) -> BatchAnswer[OfferAnswer]:
        """Choose for many customers the loan that is worth most to offer.

        Each item is answered or refused by itself; the results stand in the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/feedback")
    @answering
    async def record_feedback(self, request: FeedbackRequest, /) -> FeedbackAnswer:
        """Record what became known of a decision: whether what the model foresaw did happen.

        The label of a transaction is part of history from its date on. `finrisk load-feedback` takes labels to the ledger, where models
        learn from them.
        """
        recorded = feedback.record(self._store, request)
        self._metrics.fed_back(recorded.domain, recorded.label)
        return recorded

    # Called by the look-up routes in `web.openapi`.

    def models(self) -> ModelList:
        return lookups.models(self._champions)

    def metrics(self) -> ModelMetrics:
        return lookups.metrics(self._champions)

    def risk_scores(self, customer_id: str) -> RiskScores:
        return lookups.risk_scores(self._store, customer_id)

    def audit_page(self, asked: AuditQuery) -> AuditPage:
        return lookups.audit_page(self._store, asked)

    def export_person(self, customer_id: str) -> PersonExport:
        return data_rights.export(self._store, customer_id)

    def erase_person(self, customer_id: str) -> Erasure:
        return data_rights.erase(self._store, customer_id)

    def typical_features(self) -> Mapping[str, Mapping[str, float | None]]:
        return self._champions.typical

    async def _answer(self, domain: str, request: Any) -> Any:
        """Return the champion's answer, which is on disk by now; its challenger is asked afterwards."""
        result = await self._group_commit.submit(domain, request)
        self._after_commit(domain, result)
        return Response(result.body, media_type="application/json")

    def _after_commit(self, domain: str, result: DecisionResult) -> None:
        """Count a new decision and hand it to the challenger; the answer of a prior decision has no such effects."""
        if result.answer is not None:
            self._metrics.decided(domain, result.answer)
            if self._shadow is not None:
                self._shadow.watch(domain, result.request, result.answer)

    async def _batch(self, batch: Batch) -> Any:
        """Return the answers to a batch, as JSON."""
        requests = parse_items(batch.kind, batch.items)
        results = await decide_batch(self._decisions, requests, idempotency_key.get())
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, DecisionResult):
                self._after_commit(domain_of(request), result)  # type: ignore[arg-type]
            self._metrics.batched(domain_of_type(batch.kind), result.status if isinstance(result, Problem) else 200)
        return build_response(results)
