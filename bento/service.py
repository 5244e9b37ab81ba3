"""The service: one class with every scoring route. It reads a request, lets a bundle score it, and puts the answer into words.

Build: `bentoml build`. Serve: `bentoml serve finrisk:latest`, or `bentoml serve bento.service:FinRisk` from a checkout. What the
models are stands in `champions`, what is remembered in `store`, what failures look like in `errors`, the pages in `pages`.
"""

import gc
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import bentoml
import numpy as np
from bentoml.models import BentoModel

from bento import champions, pages
from bento.answers import explanation, model_version
from bento.errors import Envelope, Problem, answering, invalid, quiet_refusals
from bento.store import Store
from finrisk_assets.modelling.bundle import Bundle
from finrisk_assets.settings import Settings
from schemas.api import (
    FeatureDescription,
    FieldError,
    LoanAnswer,
    LoanRequest,
    ModelDescription,
    ModelList,
    TransactionAnswer,
    TransactionRequest,
)

app = pages.application()


class _Service(bentoml.Service):  # type: ignore[misc]
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
    envs=[{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "BENTOML_DO_NOT_TRACK", "value": "true"}],
)
@bentoml.asgi_app(app)
class FinRisk:
    """Personal-finance risk decisions."""

    def __init__(self) -> None:
        self.champions = champions.load(FinRisk.bento)
        settings = replace(Settings.from_environment(), source=self.champions.source)
        self.store = Store(settings.root / "service" / "store.sqlite")
        self._warm_up()

    @bentoml.on_deployment
    @staticmethod
    def prepare() -> None:
        """Before the workers start: they run in the Bento's folder, where a relative FINRISK_HOME would mean another place."""
        os.environ["FINRISK_HOME"] = str(Settings.from_environment().home.resolve())

    @bentoml.on_shutdown
    def stop(self) -> None:
        self.store.close()

    def __is_ready__(self) -> bool:
        """BentoML's /readyz: the models are loaded, or there would be no instance; the store takes writes."""
        return self.store.is_writable()

    @bentoml.api(route="/v1/transactions")
    @answering
    async def score_transaction(self, request: TransactionRequest, /) -> TransactionAnswer:
        """Score one transaction against the history of its customer and merchant, as of its own time.

        The transaction becomes part of that history. Sent again with the same `transaction_id`, it gets the same answer and
        is not counted twice.
        """
        bundle = self._bundle("transaction_anomaly")
        raise NotImplementedError

    @bentoml.api(route="/v1/loan-default")
    @answering
    async def score_loan(self, request: LoanRequest, /) -> LoanAnswer:
        """Tell how likely a loan is to default, from the features of the application."""
        bundle = self._bundle("loan_default")
        row = _loan_row(bundle, request.features)
        try:
            scores = bundle.score(row[None, :])
        except ValueError as error:  # a missing value that the model has no answer to; the message names the features
            raise invalid("features", str(error)) from None
        probability = float(scores.probability[0])
        return LoanAnswer(
            loan_id=request.loan_id,
            pd=probability,
            decision="",
            grade=None,
            score=float(scores.margin[0]),
            explanation=explanation(bundle, row, scores),
            reasons=[],
            model=model_version(bundle),
        )

    def describe(self) -> ModelList:
        """The models of this service, as `GET /v1/models` shows them."""
        return ModelList(
            models=[
                ModelDescription(
                    domain=bundle.domain,
                    name=bundle.name,
                    version=bundle.version,
                    source=bundle.source,
                    features=[FeatureDescription(name=f.name, unit=f.unit, description=f.description) for f in bundle.features],
                )
                for bundle in self.champions.bundles.values()
            ],
            absent=dict(self.champions.absent),
        )

    def _bundle(self, domain: str) -> Bundle:
        try:
            return self.champions.bundles[domain]
        except KeyError:
            raise Problem(501, "model_absent", self.champions.why_absent(domain)) from None

    def _warm_up(self) -> None:
        """Run every path once, then keep the collector away from what lives as long as the worker."""
        for bundle in self.champions.bundles.values():
            bundle.score(np.full((1, len(bundle.features)), 1.0, np.float32))
        gc.collect()
        gc.freeze()


def _loan_row(bundle: Bundle, features: Mapping[str, float | None]) -> Any:
    """The model's row, or what is wrong with which feature."""
    names = [feature.name for feature in bundle.features]
    wrong = [
        *(FieldError(field=f"features.{name[:64]}", reason=f"{bundle.name} has no such feature.") for name in features.keys() - set(names)),
        *(FieldError(field=f"features.{name}", reason="This field is required; null says that it is not known.") for name in names if name not in features),
    ]
    if wrong:
        raise Problem.of(422, sorted(wrong, key=lambda item: item.field)[:20])
    try:
        return bundle.row(features)
    except ValueError as error:
        raise invalid("features", str(error)) from None
