"""The service: one class with every scoring route, and its wiring.

Build it: `bentoml build`. Serve it: `bentoml serve finrisk:latest`; from source, `bentoml serve bento.service:FinRisk`.
The path of a decision is in `decisions.engine`, the answers of each domain in `decisions.scorers`, the look-ups in `web.lookups`, the error
envelope in `problems`.
"""

import asyncio
import gc
import logging
import os
import sys
import time
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
from bento.access.access_control import AccessControl
from bento.access.access_middleware import AccessMiddleware
from bento.alerts import alert_capacity, alert_details, alert_queue, usual_behaviour
from bento.console.mounting import ConsoleMount
from bento.console.sign_in.oidc_client import OidcClient
from bento.context import idempotency_key
from bento.decisions import feedback
from bento.decisions.batch import build_response, decide_batch, parse_items
from bento.decisions.domains import DOMAINS, domain_of, domain_of_type
from bento.decisions.engine import DecisionResult, Decisions
from bento.decisions.group_commit import GroupCommit
from bento.decisions.models import Champions, find_newest_models, load_champions
from bento.decisions.shadow import Shadow
from bento.insight import activity, model_cards, model_evidence, policy_preview
from bento.people import data_rights
from bento.problems import Problem, catch_problems
from bento.store.session import open_store
from bento.web import lookups, openapi, tracing
from bento.web.admission import Admission
from bento.web.api_page.route_pages import answer_examples
from bento.web.bounded_protocol import ConnectionLimits, bound_connections
from bento.web.dispatch import Dispatch, list_methods
from bento.web.envelope import Envelope
from bento.web.health import Health, PartFaults
from bento.web.metrics import Metrics
from bento.web.middleware import RequestMetrics, RequestTracing
from bento.web.redact_paths import RedactCustomerPath
from bento.web.server_log import enable_loggers
from finrisk_assets.private_files import restrict_new_files
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings, SettingsError, absolute_paths
from schemas.alert_api import (
    Alert,
    AlertDetails,
    AlertPage,
    AlertQuery,
    BulkDispositionAnswer,
    BulkDispositionRequest,
    ClaimRequest,
    DispositionRequest,
    ReleaseRequest,
)
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
from schemas.evidence_api import ModelEvidence
from schemas.insight_api import (
    Activity,
    AlertCapacity,
    AuditVerification,
    CallerAnswer,
    LendingWorth,
    LoanWhatIfRequest,
    ModelCards,
    PolicyAnswer,
    PolicyPreview,
    PolicyPreviewRequest,
    ReplayAnswer,
    SpendingWhatIfRequest,
    UsualBehaviour,
)

logger = logging.getLogger("finrisk.service")

GC_THRESHOLD = 20_000
"""New objects between two collections of the youngest generation. At Python's 700 a batch triggers a collection every few items."""


SWITCH_INTERVAL_S = 0.0005
"""Seconds for which a thread that computes keeps the interpreter from others. With Python's 5 ms a page that counts stalls every decision
beside it, at each of a decision's calls of the database."""
WORTH_S = 300
"""Seconds for which the worth of lending is shown as it was measured."""
ANSWER_TIMEOUT_S = 5
"""Seconds for one answer, once its request's body is there. A longer time lets requests queue up behind a slow store."""


def _find_service() -> "FinRisk | None":
    """Return the service of this process; None before the service starts and after it stops."""
    try:
        return get_current_service()
    except BentoMLException:
        return None


def _parts() -> PartFaults | None:
    """Return the readiness of each part of this process's service; None where there is none."""
    service = _find_service()
    return None if service is None else service.parts()


def _access() -> AccessControl | None:
    """Return the access rules of this process's service; None where there is none."""
    service = _find_service()
    return None if service is None else service.access


def _find_model_fault(bundle: Bundle) -> str | None:
    """Return the fault of a loaded bundle; None where its golden rows score as they did in training."""
    try:
        bundle.check()
    except ValueError as error:
        logger.error("%s %s: %s", bundle.name, bundle.version, error)
        return "It no longer scores as when it was trained."
    return None


class _Service(bentoml.Service):
    """BentoML's service with its models from the model store and the application's middleware."""

    @property
    def models(self) -> list[BentoModel]:
        return [BentoModel(model.tag) for model in find_newest_models()]

    @models.setter
    def models(self, _: list[BentoModel]) -> None:
        """Ignore the empty list that BentoML sets: the models are looked up when they are needed."""

    @cached_property
    def counters(self) -> Metrics:
        """The metrics of this worker, created on first use: the supervisor has none."""
        return Metrics()

    checked_champions: Champions | None = None
    """The models that `prepare` has checked, where the worker is the same process."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        enable_loggers()
        settings = Settings.from_environment()
        bound_connections(ConnectionLimits.from_settings(settings), self.counters.count_refusal)
        # Where it is not set, uvicorn believes X-Forwarded-For of every program of this machine.
        os.environ["FORWARDED_ALLOW_IPS"] = settings.trusted_proxies
        app: ASGIApp = Dispatch(super().to_asgi(is_main), list_methods(self.apis), _find_service, ANSWER_TIMEOUT_S)
        app = AccessMiddleware(Health(Admission(app), _parts, settings.drain_seconds), _access)
        tracer = tracing.create_tracer()
        app = app if tracer is None else RequestTracing(app, tracer)
        app = RedactCustomerPath(RequestMetrics(Envelope(app), self.counters))
        return ConsoleMount(app) if settings.console else app


_UV = (
    "uv==0.13.8 --hash=sha256:e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984"
    " --hash=sha256:5337c30bb893b4f9ce0ceb921ba2da0d13f649da644f40ad3bef84083bef0203"
    " --hash=sha256:0b3e8b1a4f5e405e31e2ff33de8af4744831e9f7338539671efbd8c3c94e791d"
)
"""The program that installs the packages, with its hashes in uv.lock. BentoML alone would install the newest one, unchecked."""
_INSTALL_UV = f"command -v uv >/dev/null || (echo '{_UV}' >/tmp/uv.txt && pip install --no-cache-dir --require-hashes -r /tmp/uv.txt)"

# With a distribution, BentoML would install compilers. The code is copied before bento/image.py runs, which compiles it.
_IMAGE = Image(
    # This variable alone: whether the others can be read is told where the service starts.
    base_image=os.environ.get("FINRISK_BASE_IMAGE") or Settings.base_image,
    distro="none",
    commands=[_INSTALL_UV],
    build_include_paths=["bento", "schemas", "finrisk_assets"],
)
# BentoML adds its own name to the requirements without a hash: the constraint gives the hash, and uv installs nothing else that has none.
_INSTALL_ENVS = [{"name": "UV_REQUIRE_HASHES", "value": "true"}, {"name": "UV_CONSTRAINT", "value": "bento/requirements.txt"}]


@bentoml.service(
    name="finrisk",
    service_class=_Service,
    # Only this machine; --host or BENTOML_HOST opens the service to others.
    http={"host": "127.0.0.1", "port": 3000},
    image=_IMAGE,
    # For look-ups; `web.dispatch` ends the scoring routes. BentoML keeps the objects of a request alive for the whole time-out: a long
    # one costs pauses of the garbage collector. `web.admission` bounds the number of requests.
    traffic={"timeout": ANSWER_TIMEOUT_S},
    workers=1,
    # BentoML counts by path, which a client chooses; `web.metrics` counts by route and serves `/metrics`.
    metrics={"enabled": False},
    # A line of BentoML's access log begins with the client's address. `problems` logs failures, `web.metrics` counts requests.
    logging={"access": {"enabled": False}},
    # `web.tracing` makes the spans. BentoML's own spans are not collected and cost a tenth of a request's time.
    tracing={"excluded_urls": ".*"},
    envs=[{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "BENTOML_DO_NOT_TRACK", "value": "true"}, *_INSTALL_ENVS],
)
@bentoml.asgi_app(openapi.build_app())
class FinRisk:
    """Personal-finance risk decisions."""

    def __init__(self) -> None:
        gc.set_threshold(GC_THRESHOLD)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._champions: Champions = FinRisk.checked_champions or load_champions(  # type: ignore[attr-defined]
            FinRisk.bento,  # type: ignore[attr-defined]
            Settings.from_environment().policy,
        )
        self._metrics: Metrics = FinRisk.counters  # type: ignore[attr-defined]
        self._metrics.register_models(self._champions.bundles)
        settings = replace(Settings.from_environment(), source=self._champions.source)
        self.store = open_store(settings, meter=self._metrics, upgrades=settings.store_upgrade or None)
        self.access = AccessControl.from_settings(settings, self.store, self._metrics.count_refusal)
        has_shadow = settings.shadow and bool(self._champions.challengers)
        self._shadow = Shadow(self._champions.challengers, open_store(settings, durable=False)) if has_shadow else None
        self._reports = settings.reports
        self._lending: dict[int, tuple[float, LendingWorth]] = {}
        self._decisions = Decisions.of(self._champions, self.store, settings.bentoml_home / "models")
        self._group_commit = GroupCommit(self._decisions)
        self._long_reads = asyncio.Semaphore(1)
        self.store.never_wait_here()
        # The collector no longer walks the objects that live as long as the worker. Loading leaves a dozen objects of garbage: a collection
        # before the freeze would cost a tenth of a second for nothing.
        gc.freeze()
        gc.enable()

    @bentoml.on_deployment
    @staticmethod
    def prepare(is_worker: bool = False) -> None:
        """Check the models and the settings before the workers start.

        Relative paths become absolute, because workers run in the Bento's folder. A faulty model is refused here, with its name and the
        reason: a worker that refused it would be restarted again and again.

        Parameters
        ----------
        is_worker
            Whether this process becomes the worker, which then does not load the models a second time.
        """
        loaded = load_champions(FinRisk.bento, Settings.from_environment().policy)  # type: ignore[attr-defined]
        FinRisk.checked_champions = loaded if is_worker else None  # type: ignore[attr-defined]
        settings = replace(Settings.from_environment(), source=loaded.source)
        os.environ |= {"FINRISK_HOME": str(settings.home.resolve()), **absolute_paths(os.environ)}
        restrict_new_files()
        bind_guard.check(settings)
        try:
            ConnectionLimits.from_settings(settings)
            if settings.console:
                OidcClient.from_settings(settings)
        except SettingsError as error:
            raise BentoMLException(str(error)) from None

    @bentoml.on_shutdown
    def stop(self) -> None:
        if self._shadow is not None:
            self._shadow.stop()
        self.store.close()

    def parts(self) -> PartFaults:
        """Return each part with its fault or None: the store takes no write, or a model no longer scores as when it was trained."""
        models = {f"models.{domain}": _find_model_fault(bundle) for domain, bundle in self._champions.bundles.items()}
        parts = {"store": None if self.store.is_writable() else "It takes no write."} | models
        self._metrics.set_readiness(parts)
        return parts

    @bentoml.api(route="/v1/transactions")
    @catch_problems
    async def score_transaction(self, request: TransactionRequest, /) -> TransactionAnswer:
        """Score one transaction against the history of its customer and its merchant, as of its own time.

        The transaction becomes part of that history. A repeated request with the same `transaction_id` gets the same answer, and the
        transaction is not counted twice.
        """
        return await self._answer("transaction_anomaly", request)

    @bentoml.api(route="/v1/loan-default")
    @catch_problems
    async def score_loan(self, request: LoanRequest, /) -> LoanAnswer:
        """Return the probability that a loan defaults and the decision, from the application's features or for a customer of the ledger.

        A customer is scored with the newest stored features and the requested terms.
        """
        return await self._answer("loan_default", request)

    @bentoml.api(route="/v1/loan-default/nearest-change")
    @catch_problems
    async def change_loan(self, request: NearestChangeRequest, /) -> NearestChangeAnswer:
        """Return the smallest change after which a loan would be approved: a few values that a person can change, and the new score.

        The answer says how the model would have decided. If no change within bounds is enough, the answer says so.
        """
        answer = await self._decisions.loan_scorer().nearest_change(request)
        await self.store.thread.run_if_busy(self._decisions.record_counterfactual, "loan_default", request, answer)
        return answer

    @bentoml.api(route="/v1/loan-default/what-if")
    @catch_problems
    async def explore_loan(self, request: LoanWhatIfRequest, /) -> LoanAnswer:
        """Return the probability of default and the decision if amount, term or rate were others.

        Nothing is decided and no decision is stored; the audit records that the question was answered.
        """
        return await self.store.thread.run_if_busy(self._decisions.answer_loan_what_if, request)

    @bentoml.api(route="/v1/spending-risk")
    @catch_problems
    async def score_spending(self, request: SpendingRequest, /) -> SpendingAnswer:
        """Return the risk that spending leads to trouble within 90 days, from eight behaviour fields or for a customer of the ledger.

        A model of the eight fields scores the fields, the model of all features scores a customer.
        """
        return await self._answer(domain_of(request), request)

    @bentoml.api(route="/v1/spending-risk/what-if")
    @catch_problems
    async def explore_spending(self, request: SpendingWhatIfRequest, /) -> SpendingAnswer:
        """Return the risk if some values were others: eight behaviour fields, or a customer of the ledger with some features changed.

        Nothing is decided and no decision is stored; the audit records that the question was answered.
        """
        return await self.store.thread.run_if_busy(self._decisions.answer_what_if, request)

    @bentoml.api(route="/v1/cashflow")
    @catch_problems
    async def forecast_cashflow(self, request: CashflowRequest, /) -> CashflowAnswer:
        """Forecast whether an account's balance is higher at the end of the next month than at the end of this month, and by how much."""
        return await self._answer("cashflow", request)

    @bentoml.api(route="/v1/loan-offers")
    @catch_problems
    async def choose_offer(self, request: OfferRequest, /) -> OfferAnswer:
        """Choose the most profitable loan offer: rate, amount and term, given acceptance, PD and affordability.

        The answer may be that there is no offer, with the reason.
        """
        return await self._answer("loan_offers", request)

    @bentoml.api(route="/v1/transactions/batch")
    @catch_problems
    async def score_transactions(self, batch: TransactionBatch, /) -> BatchAnswer[TransactionAnswer]:
        """Score many transactions, one after the other: each becomes part of the history of the next.

        Each item is answered or refused on its own; the results have the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/loan-default/batch")
    @catch_problems
    async def score_loans(self, batch: LoanBatch, /) -> BatchAnswer[LoanAnswer]:
        """Return the probability of default and the decision of many loans.

        Each item is answered or refused on its own; the results have the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/spending-risk/batch")
    @catch_problems
    async def score_spendings(self, batch: SpendingBatch, /) -> BatchAnswer[SpendingAnswer]:
        """Return the spending risk of many customers, or of many sets of eight fields.

        Each item is answered or refused on its own; the results have the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/cashflow/batch")
    @catch_problems
    async def forecast_cashflows(self, batch: CashflowBatch, /) -> BatchAnswer[CashflowAnswer]:
        """Forecast the next month of many accounts.

        Each item is answered or refused on its own; the results have the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/loan-offers/batch")
    @catch_problems
    async def choose_offers(self, batch: OfferBatch, /) -> BatchAnswer[OfferAnswer]:
        """Choose the most profitable loan offer for many customers.

        Each item is answered or refused on its own; the results have the order of the items.
        """
        return await self._batch(batch)

    @bentoml.api(route="/v1/feedback")
    @catch_problems
    async def record_feedback(self, request: FeedbackRequest, /) -> FeedbackAnswer:
        """Record the outcome of a decision: whether the predicted event happened.

        A transaction's label is part of the history from its date on. `finrisk load-feedback` copies labels to the ledger, where models
        learn from them.
        """
        answer = await self.store.thread.run_if_busy(feedback.record, self.store, request)
        self._metrics.count_feedback(answer.domain, answer.label)
        return answer

    @bentoml.api(route="/v1/alerts/claim")
    @catch_problems
    async def claim_alert(self, request: ClaimRequest, /) -> Alert:
        """Claim an alert: the caller becomes its assignee, also in place of a colleague. A closed alert stays closed.

        The request names the version that was read; where the alert has changed since, nothing happens, and the answer is 409.
        """
        return await self.store.thread.run_if_busy(alert_queue.claim_alert, self.store, request)

    @bentoml.api(route="/v1/alerts/release")
    @catch_problems
    async def release_alert(self, request: ReleaseRequest, /) -> Alert:
        """Open an alert again that the caller has claimed; a supervisor releases everybody's claims.

        The request names the version that was read; where the alert has changed since, nothing happens, and the answer is 409.
        """
        return await self.store.thread.run_if_busy(alert_queue.release_alert, self.store, request)

    @bentoml.api(route="/v1/alerts/dispose")
    @catch_problems
    async def dispose_alert(self, request: DispositionRequest, /) -> Alert:
        """Close an alert that is open or the caller's own, with a disposition and its reason.

        `fraud` and `genuine` are the decision's label from now on, as if sent to `/v1/feedback`: models learn from it once labels of that
        time are due. The request names the version that was read; where the alert has changed since, the answer is 409.
        """
        alert = await self.store.thread.run_if_busy(alert_queue.dispose_alert, self.store, request)
        self._count_disposition(alert)
        return alert

    @bentoml.api(route="/v1/alerts/dispose/bulk")
    @catch_problems
    async def dispose_alerts(self, request: BulkDispositionRequest, /) -> BulkDispositionAnswer:
        """Close many alerts with one disposition and reason. Each is closed or refused on its own; the results have their order."""
        answer = await self.store.thread.run_if_busy(alert_queue.dispose_alerts, self.store, request)
        for result in answer.results:
            if result.alert is not None:
                self._count_disposition(result.alert)
        return answer

    @bentoml.api(route="/v1/policy/preview")
    @catch_problems
    async def preview_policy(self, request: PolicyPreviewRequest, /) -> PolicyPreview:
        """Decide the newest decisions of the last 30 days again under another policy: what changes, in which groups, and its worth.

        Nothing takes effect and nothing is stored; the audit records that the question was answered.
        """
        answers, policy = self._decisions.answers, self._champions.policy
        return await self._read_apart(policy_preview.preview_policy, self.store, answers, policy, request.policy, time.monotonic)

    def _count_disposition(self, alert: Alert) -> None:
        if alert.disposition in alert_queue.LABELS:
            self._metrics.count_feedback("transaction_anomaly", alert_queue.LABELS[alert.disposition])

    # Called by the look-up routes in `web.openapi`.

    def list_models(self) -> ModelList:
        return lookups.list_models(self._champions)

    def list_model_metrics(self) -> ModelMetrics:
        return lookups.list_model_metrics(self._champions)

    def describe_caller(self) -> CallerAnswer:
        return lookups.describe_caller()

    def read_policy(self) -> PolicyAnswer:
        return lookups.read_policy(self._champions)

    async def read_risk_scores(self, customer_id: str) -> RiskScores:
        return await self.store.thread.run_if_busy(lookups.read_risk_scores, self.store, customer_id)

    # These take long even where the store is free.

    async def read_audit_page(self, query: AuditQuery) -> AuditPage:
        return await self.store.thread.run(lookups.read_audit_page, self.store, query)

    async def list_alerts(self, query: AlertQuery) -> AlertPage:
        return await self._read_apart(alert_queue.list_alerts, self.store, query)

    async def read_alert(self, alert_id: str) -> AlertDetails:
        return await self.store.thread.run(alert_details.read_alert, self.store, alert_id)

    async def read_usual_behaviour(self, alert_id: str) -> UsualBehaviour:
        return await self.store.thread.run(usual_behaviour.read_usual_behaviour, self.store, alert_id)

    def describe_capacity(self) -> AlertCapacity:
        bundle = self._champions.bundles.get("transaction_anomaly")
        if bundle is None:
            raise Problem(501, "model_absent", self._champions.why_absent("transaction_anomaly"))
        return alert_capacity.describe_capacity(bundle, self._champions.policy)

    async def count_activity(self, days: int) -> Activity:
        return await self._read_apart(activity.count_activity, self.store, days)

    async def list_model_cards(self) -> ModelCards:
        return await self._read_apart(model_cards.list_model_cards, self.store, self._champions, self._reports)

    async def read_model_evidence(self, domain: str) -> ModelEvidence:
        return await self._read_apart(model_evidence.read_model_evidence, self.store, self._champions, domain, self._reports)

    async def measure_lending(self, days: int) -> LendingWorth:
        """Return the worth of what lending decided; measured at most once in `WORTH_S`, because it decides again."""
        known = self._lending.get(days)
        if known is None or time.monotonic() - known[0] > WORTH_S:
            answers, policy = self._decisions.answers, self._champions.policy
            worth = await self._read_apart(policy_preview.measure_lending, self.store, answers, policy, days, time.monotonic)
            known = time.monotonic(), worth
            if worth.applications or worth.offers:
                self._lending[days] = known
        return known[1]

    async def verify_audit(self) -> AuditVerification:
        return await self._read_apart(lookups.verify_audit, self.store)

    async def replay_decision(self, decision_id: str) -> ReplayAnswer:
        return await self.store.thread.run(lookups.replay_decision, self.store, self._decisions.answers, decision_id)

    async def export_person(self, customer_id: str) -> PersonExport:
        return await self.store.thread.run(data_rights.export, self.store, customer_id, self._decisions.answers)

    async def erase_person(self, customer_id: str) -> Erasure:
        return await self.store.thread.run(data_rights.erase, self.store, customer_id)

    def answer_examples(self, examples: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
        """Return route -> answers of the present models to the examples of its requests; nothing is recorded."""
        scorers = {DOMAINS[domain].route: self._decisions.scorer(domain) for domain in self._champions.bundles if domain != "spending_risk"}
        return {route: answer_examples(scorers[route], *example) for route, example in examples.items() if route in scorers}

    async def _read_apart(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Make a call that reads for long, one at a time, in a thread beside that of the store, so that decisions go on."""
        async with self._long_reads:
            return await asyncio.to_thread(call, *arguments)

    def typical_features(self) -> Mapping[str, Mapping[str, float | str | None]]:
        return self._champions.typical_features

    async def _answer(self, domain: str, request: Any) -> Any:
        """Return the champion's committed answer; its challenger scores the request afterwards."""
        result = await self._group_commit.submit(domain, request)
        self._after_commit(domain, result)
        return Response(result.body, media_type="application/json")

    def _after_commit(self, domain: str, result: DecisionResult) -> None:
        """Count a new decision and submit it to the challenger; a prior decision has neither effect."""
        if result.answer is not None:
            self._metrics.count_decision(domain, result.answer)
            if self._shadow is not None:
                self._shadow.submit(domain, result.request, result.answer)

    async def _batch(self, batch: Batch) -> Any:
        """Return the answers to a batch, as JSON."""
        requests = parse_items(batch.kind, batch.items)
        results = await decide_batch(self._decisions, requests, idempotency_key.get())
        for request, result in zip(requests, results, strict=True):
            if isinstance(result, DecisionResult):
                self._after_commit(domain_of(request), result)  # type: ignore[arg-type]
            self._metrics.count_batch_item(domain_of_type(batch.kind), result.status if isinstance(result, Problem) else 200)
        return build_response(results)
