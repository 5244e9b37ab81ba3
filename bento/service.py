"""The service: one class with every scoring route, how it is served, and what a worker loads.

Build it: `bentoml build`. Serve it: `bentoml serve finrisk:latest`; from source, `bentoml serve bento.service:FinRisk`.
What a route answers stands in `transactions` and `loans`, the models in `champions`, failures in `errors`, the pages in `pages`.
"""

import gc
import logging
import os
from dataclasses import replace

import bentoml
from bentoml.models import BentoModel

from bento import champions, pages
from bento.errors import Envelope, Problem, answering, quiet_refusals
from bento.loans import LoanScorer
from bento.store import Store, location
from bento.transactions import TransactionScorer
from finrisk_assets.settings import Settings
from schemas.api import (
    FeatureDescription,
    LoanAnswer,
    LoanRequest,
    ModelDescription,
    ModelList,
    TransactionAnswer,
    TransactionRequest,
)


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
        return Envelope(super().to_asgi(is_main))


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
        bundles = self._champions.bundles
        self._store = Store(location(replace(Settings.from_environment(), source=self._champions.source)))
        transactions, loans = bundles.get("transaction_anomaly"), bundles.get("loan_default")
        self._transactions = TransactionScorer(transactions, self._store) if transactions else None
        self._loans = LoanScorer(loans) if loans else None
        for scorer in (self._transactions, self._loans):
            if scorer is not None:
                scorer.warm_up()
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
        if self._transactions is None:
            raise self._absent("transaction_anomaly")
        return self._transactions.answer(request)

    @bentoml.api(route="/v1/loan-default")
    @answering
    async def score_loan(self, request: LoanRequest, /) -> LoanAnswer:
        """Tell how likely a loan is to default, from the features of its application."""
        if self._loans is None:
            raise self._absent("loan_default")
        return self._loans.answer(request)

    def describe(self) -> ModelList:
        """The models of this service, as `GET /v1/models` shows them."""
        return ModelList(
            models=[
                ModelDescription(
                    domain=bundle.domain,
                    name=bundle.name,
                    version=bundle.version,
                    source=bundle.source,
                    features=[
                        FeatureDescription(name=feature.name, unit=feature.unit, description=feature.description)
                        for feature in bundle.features
                    ],
                )
                for bundle in self._champions.bundles.values()
            ],
            absent=dict(self._champions.absent),
        )

    def _absent(self, domain: str) -> Problem:
        return Problem(501, "model_absent", self._champions.why_absent(domain))
