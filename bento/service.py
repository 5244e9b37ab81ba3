"""The service: one class with every scoring route, how it is served, and what a worker loads.

Build it: `bentoml build`. Serve it: `bentoml serve finrisk:latest`; from source, `bentoml serve bento.service:FinRisk`.
What a route answers stands in the module of its domain (`transactions`, `loans`, `spending`, `cashflow`, `offers`) and in `lookups`,
the models in `champions`, challengers in `shadow`, failures in `errors`, the pages in `pages`.
"""

import gc
import logging
import os
from collections.abc import Callable, Mapping
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
from bento.access.middleware import Security
from bento.context import idempotency_key
from bento.decisions import batch as batches
from bento.decisions import feedback
from bento.decisions import models as champions
from bento.decisions.engine import Decisions, Made
from bento.decisions.scorers.cashflow import CashflowScorer
from bento.decisions.scorers.loan import LoanScorer
from bento.decisions.scorers.offer import OfferScorer
from bento.decisions.scorers.spending import SpendingScorer
from bento.decisions.scorers.transaction import TransactionScorer
from bento.decisions.shadow import Shadow
from bento.people import data_rights
from bento.problems import Problem, answering, quiet_refusals
from bento.store.session import Store, open_store
from bento.web import lookups, openapi, tracing
from bento.web.envelope import Envelope
from bento.web.health import Health, Parts
from bento.web.metrics import Metrics
from bento.web.middleware import RequestMetrics, Traced
from bento.web.redact_paths import RedactCustomerPath
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings, pinned
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
    Request,
    RiskScores,
    SpendingAnswer,
    SpendingBatch,
    SpendingRequest,
    TransactionAnswer,
    TransactionBatch,
    TransactionRequest,
)

logger = logging.getLogger("finrisk.service")

_SCORERS: Mapping[str, Callable[[Bundle, Store], Any]] = {
    "transaction_anomaly": TransactionScorer,
    "loan_default": LoanScorer,
    "spending_risk": SpendingScorer,
    "spending_risk_eight": SpendingScorer,
    "cashflow": CashflowScorer,
    "loan_offers": OfferScorer,
}
_DOMAINS: Mapping[type[Request], str] = {
    TransactionRequest: "transaction_anomaly",
    LoanRequest: "loan_default",
    CashflowRequest: "cashflow",
    OfferRequest: "loan_offers",
}


def _domain_of(request: Any) -> str:
    """The domain that answers a request: of eight fields another model than of a customer."""
    if isinstance(request, SpendingRequest):
        return "spending_risk_eight" if request.customer_id is None else "spending_risk"
    return _DOMAINS[type(request)]


def _parts() -> Parts | None:
    """What `/readyz` asks of the service of this process; None where there is none yet, or no longer."""
    try:
        return get_current_service().parts()
    except BentoMLException:
        return None


def _access() -> Access | None:
    """Who may ask what, as the service of this process knows it; None where there is none yet, or no longer."""
    try:
        return get_current_service().access
    except BentoMLException:
        return None


def _broken(bundle: Bundle) -> str | None:
    """What is wrong with a loaded bundle."""
    try:
        bundle.check()
    except ValueError as error:
        logger.error("%s %s: %s", bundle.name, bundle.version, error)
        return "It no longer scores as when it was trained."
    return None


class _Service(bentoml.Service):
    """BentoML's service, except that it finds its models in the model store by itself and answers every failure in one shape."""

    @property
    def models(self) -> list[BentoModel]:
        return [BentoModel(model.tag) for model in champions.stored()]

    @models.setter
    def models(self, _: list[BentoModel]) -> None:
        """BentoML sets an empty list; what the store holds is looked up when it is needed."""

    @cached_property
    def counters(self) -> Metrics:
        """What this worker counts; made when it is first asked for, which only a worker does."""
        return Metrics()

    kept: champions.Champions | None = None
    """The models that `prepare` has checked, where the worker is the same process."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        logging.getLogger("bentoml._internal.server.http_app").addFilter(quiet_refusals)
        drain_s = Settings.from_environment().drain_seconds
        app: ASGIApp = Security(Health(RedactCustomerPath(super().to_asgi(is_main)), _parts, drain_s), _access)
        tracer = tracing.tracer_of()
        app = app if tracer is None else Traced(app, tracer)
        return RequestMetrics(Envelope(app), self.counters)


# With a distribution named, BentoML would install compilers. The code is there before bento/image.sh runs, which compiles it.
_IMAGE = Image(
    base_image="docker.io/library/python:3.11-slim-bookworm",
    distro="none",
    build_include_paths=["bento", "schemas", "finrisk_assets"],
)


@bentoml.service(
    name="finrisk",
    service_class=_Service,
    # Only this machine, unless told otherwise with --host or BENTOML_HOST.
    http={"host": "127.0.0.1", "port": 3000},
    image=_IMAGE,
    # BentoML keeps the objects of a request alive for the whole time-out: a long one costs pauses of the garbage collector.
    traffic={"timeout": 5, "max_concurrency": 64},
    workers=1,
    # It counts by path, whatever a client sends as one; `metrics` counts by route, and serves the page.
    metrics={"enabled": False},
    # A line of BentoML's access log begins with the client's address. Failures are logged by `errors`, requests are counted.
    logging={"access": {"enabled": False}},
    # `tracing` makes our spans. BentoML would make some for each request, which nobody collects, a tenth of its time.
    tracing={"excluded_urls": ".*"},
    envs=[{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "BENTOML_DO_NOT_TRACK", "value": "true"}],
)
@bentoml.asgi_app(openapi.application())
class FinRisk:
    """Personal-finance risk decisions."""

    def __init__(self) -> None:
        self._champions: champions.Champions = FinRisk.kept or champions.load(FinRisk.bento)  # type: ignore[attr-defined]
        self._metrics: Metrics = FinRisk.counters  # type: ignore[attr-defined]
        self._metrics.answering_with(self._champions.bundles)
        settings = replace(Settings.from_environment(), source=self._champions.source)
        self._store = open_store(settings, meter=self._metrics, upgrades=settings.store_upgrade or None)
        self.access = Access.of(settings, self._store, self._metrics.refused)
        self._scorers = {domain: _SCORERS[domain](bundle, self._store) for domain, bundle in self._champions.bundles.items()}
        for scorer in self._scorers.values():
            scorer.warm_up()
        watched = settings.shadow and bool(self._champions.challengers)
        self._shadow = Shadow(self._champions.challengers, _SCORERS, open_store(settings, durable=False)) if watched else None
        self._decisions = Decisions(self._store, self._champions.bundles, self._scorer)
        # What lives as long as the worker is of no interest to the collector, which would otherwise walk it again and again. Loading leaves
        # a dozen objects of garbage, so that a last collection before would be a tenth of a second for nothing.
        gc.freeze()
        gc.enable()

    @bentoml.on_deployment
    @staticmethod
    def prepare(keeps: bool = False) -> None:
        """Before the workers start: they run in the Bento's folder, where a relative path would mean another place.

        A model that must not be used is refused here, with its name and the reason: a worker that did so would be started again and again.

        Parameters
        ----------
        keeps
            Whether this process goes on as the worker, which then does not load the models a second time.
        """
        carried = champions.load(FinRisk.bento)  # type: ignore[attr-defined]
        FinRisk.kept = carried if keeps else None  # type: ignore[attr-defined]
        settings = replace(Settings.from_environment(), source=carried.source)
        os.environ |= {"FINRISK_HOME": str(settings.home.resolve()), **pinned(os.environ)}
        bind_guard.check(settings)

    @bentoml.on_shutdown
    def stop(self) -> None:
        if self._shadow is not None:
            self._shadow.stop()
        self._store.close()

    def parts(self) -> Parts:
        """What is wrong with each part: the store takes no write, or a model no longer says what it said when it was trained."""
        broken = {f"models.{domain}": _broken(bundle) for domain, bundle in self._champions.bundles.items()}
        found = {"store": None if self._store.is_writable() else "It takes no write."} | broken
        self._metrics.set_readiness(found)
        return found

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
        answer = await self._scorer("loan_default").nearest_change(request)
        self._decisions.advised("loan_default", request, answer)
        return answer

    @bentoml.api(route="/v1/spending-risk")
    @answering
    async def score_spending(self, request: SpendingRequest, /) -> SpendingAnswer:
        """Tell how likely spending leads into trouble within 90 days, from eight behaviour fields or for a customer of the ledger.

        The eight fields are judged by a model of those eight, a customer by the model of all features.
        """
        return await self._answer(_domain_of(request), request)

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

    # What the look-ups of `pages` ask.

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
        """The champion's answer, which is on disk by now; its challenger, if one is watched, is asked afterwards."""
        made = await self._decisions.decide_beside(domain, request)
        self._told(domain, made)
        return Response(made.body, media_type="application/json")

    def _told(self, domain: str, made: Made) -> None:
        """What follows an answer, once it stands: nothing, where it was made before."""
        if made.answer is not None:
            self._metrics.decided(domain, made.answer)
            if self._shadow is not None:
                self._shadow.watch(domain, made.request, made.answer)

    async def _batch(self, batch: Batch) -> Any:
        """The answers to a batch, as JSON."""
        requests = batches.checked(batch.kind, batch.items)
        results = await self._decisions.decide_each(_domain_of, requests, idempotency_key.get())
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, Made):
                self._told(_domain_of(request), result)
            self._metrics.batched(_DOMAINS.get(batch.kind, "spending_risk"), result.status if isinstance(result, Problem) else 200)
        return batches.response([one.body if isinstance(one, Made) else one for one in results])

    def _scorer(self, domain: str) -> Any:
        """The scorer of a domain; a client that asks for an absent one learns why there is none."""
        if domain not in self._scorers:
            raise Problem(501, "model_absent", self._champions.why_absent(domain))
        return self._scorers[domain]
