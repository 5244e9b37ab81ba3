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
from typing import Any

import bentoml
from bentoml.models import BentoModel

from bento import champions, lookups, pages
from bento.cashflow import CashflowScorer
from bento.errors import Envelope, Problem, answering, quiet_refusals
from bento.loans import LoanScorer
from bento.offers import OfferScorer
from bento.paths import UnnamedPaths
from bento.shadow import Shadow
from bento.spending import SpendingScorer
from bento.store import Store, location
from bento.transactions import TransactionScorer
from finrisk_assets.modelling.bundle import Bundle
from finrisk_assets.settings import Settings
from schemas.api import (
    CashflowAnswer,
    CashflowRequest,
    LoanAnswer,
    LoanRequest,
    ModelList,
    ModelMetrics,
    NearestChangeAnswer,
    NearestChangeRequest,
    OfferAnswer,
    OfferRequest,
    RiskScores,
    SpendingAnswer,
    SpendingRequest,
    TransactionAnswer,
    TransactionRequest,
)

_SCORERS: Mapping[str, Callable[[Bundle, Store], Any]] = {
    "transaction_anomaly": TransactionScorer,
    "loan_default": LoanScorer,
    "spending_risk": SpendingScorer,
    "spending_risk_eight": SpendingScorer,
    "cashflow": CashflowScorer,
    "loan_offers": OfferScorer,
}


class _Service(bentoml.Service):
    """BentoML's service, except that it finds its models in the model store by itself and answers every failure in one shape."""

    @property
    def models(self) -> list[BentoModel]:
        return [BentoModel(model.tag) for model in champions.stored()]

    @models.setter
    def models(self, _: list[BentoModel]) -> None:
        """BentoML sets an empty list; what the store holds is looked up when it is needed."""

    def to_asgi(self, is_main: bool = True) -> Envelope:
        logging.getLogger("bentoml._internal.server.http_app").addFilter(quiet_refusals)
        return Envelope(UnnamedPaths(super().to_asgi(is_main)))


@bentoml.service(
    name="finrisk",
    service_class=_Service,
    # Only this machine, unless told otherwise with --host or BENTOML_HOST.
    http={"host": "127.0.0.1", "port": 3000},
    # BentoML keeps the objects of a request alive for the whole time-out: a long one costs pauses of the garbage collector.
    traffic={"timeout": 5, "max_concurrency": 64},
    workers=1,
    # A line of BentoML's access log begins with the client's address. Failures are logged by `errors`, requests are counted.
    logging={"access": {"enabled": False}},
    envs=[{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "BENTOML_DO_NOT_TRACK", "value": "true"}],
)
@bentoml.asgi_app(pages.application())
class FinRisk:
    """Personal-finance risk decisions."""

    def __init__(self) -> None:
        self._champions = champions.load(FinRisk.bento)  # type: ignore[attr-defined]
        settings = replace(Settings.from_environment(), source=self._champions.source)
        self._store = Store(location(settings))
        self._scorers = {domain: _SCORERS[domain](bundle, self._store) for domain, bundle in self._champions.bundles.items()}
        for scorer in self._scorers.values():
            scorer.warm_up()
        watched = settings.shadow and bool(self._champions.challengers)
        self._shadow = Shadow(self._champions.challengers, _SCORERS, self._store.path) if watched else None
        # What lives as long as the worker is of no interest to the collector, which would otherwise walk it again and again.
        gc.collect()
        gc.freeze()

    @bentoml.on_deployment
    @staticmethod
    def prepare() -> None:
        """Before the workers start: they run in the Bento's folder, where a relative FINRISK_HOME would mean another place."""
        os.environ["FINRISK_HOME"] = str(Settings.from_environment().home.resolve())

    @bentoml.on_shutdown
    def stop(self) -> None:
        if self._shadow is not None:
            self._shadow.stop()
        self._store.close()

    async def __is_ready__(self) -> bool:
        """What /readyz asks: the store takes writes. The models are loaded, or there would be no instance to ask."""
        return self._store.is_writable()

    @bentoml.api(route="/v1/transactions")
    @answering
    async def score_transaction(self, request: TransactionRequest, /) -> TransactionAnswer:
        """Score one transaction against the history of its customer and its merchant, as of its own time.

        The transaction becomes part of that history. Sent again with the same `transaction_id`, it gets the same answer and
        is not counted twice.
        """
        return self._answer("transaction_anomaly", request)

    @bentoml.api(route="/v1/loan-default")
    @answering
    async def score_loan(self, request: LoanRequest, /) -> LoanAnswer:
        """Tell how likely a loan is to default, from the features of its application or for a customer of the ledger.

        A customer is judged by the newest features that the service has stored, with the terms that are asked for.
        """
        return self._answer("loan_default", request)

    @bentoml.api(route="/v1/loan-default/nearest-change")
    @answering
    async def change_loan(self, request: NearestChangeRequest, /) -> NearestChangeAnswer:
        """Tell what would have to differ for a loan to be approved: few values that a person can change, and what they would give.

        It says what the model would have decided, scored again. Where nothing within bounds is enough, it says that.
        """
        return await self._scorer("loan_default").nearest_change(request)

    @bentoml.api(route="/v1/spending-risk")
    @answering
    async def score_spending(self, request: SpendingRequest, /) -> SpendingAnswer:
        """Tell how likely spending leads into trouble within 90 days, from eight behaviour fields or for a customer of the ledger.

        The eight fields are judged by a model of those eight, a customer by the model of all features.
        """
        return self._answer("spending_risk_eight" if request.customer_id is None else "spending_risk", request)

    @bentoml.api(route="/v1/cashflow")
    @answering
    async def forecast_cashflow(self, request: CashflowRequest, /) -> CashflowAnswer:
        """Tell whether an account will hold more at the end of the next month than at the end of this one, and by how much."""
        return self._answer("cashflow", request)

    @bentoml.api(route="/v1/loan-offers")
    @answering
    async def choose_offer(self, request: OfferRequest, /) -> OfferAnswer:
        """Choose the loan that is worth most to offer: rate, amount and term, given acceptance, PD and what can be afforded.

        That nothing can be offered is an answer too, with the reason.
        """
        return self._answer("loan_offers", request)

    # What the look-ups of `pages` ask.

    def models(self) -> ModelList:
        return lookups.models(self._champions)

    def metrics(self) -> ModelMetrics:
        return lookups.metrics(self._champions)

    def risk_scores(self, customer_id: str) -> RiskScores:
        return lookups.risk_scores(self._store, customer_id)

    def typical_features(self) -> Mapping[str, Mapping[str, float | None]]:
        return self._champions.typical

    def _answer(self, domain: str, request: Any) -> Any:
        """The champion's answer; its challenger, if one is watched, is asked afterwards."""
        answer = self._scorer(domain).answer(request)
        if self._shadow is not None:
            self._shadow.watch(domain, request, answer)
        return answer

    def _scorer(self, domain: str) -> Any:
        """The scorer of a domain; a client that asks for an absent one learns why there is none."""
        if domain not in self._scorers:
            raise Problem(501, "model_absent", self._champions.why_absent(domain))
        return self._scorers[domain]
