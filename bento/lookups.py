"""What the look-ups answer: which models are here, what they showed, and what is stored of a customer."""

from collections.abc import Mapping, Sequence
from typing import Any

from bento.answers import read, unknown
from bento.champions import Champions
from bento.errors import invalid
from bento.store import Standing, Store
from schemas.api import (
    LONGEST_IDENTIFIER,
    FeatureDescription,
    ModelDescription,
    ModelFigure,
    ModelFigures,
    ModelList,
    ModelMetrics,
    RiskScores,
    StoredScore,
)

_IN_EVERY_DOMAIN = ("score", "probability", "decision", "model_version")


def models(champions: Champions) -> ModelList:
    """The models that answer, with every feature they take, and why others are missing."""
    return ModelList(
        models=[
            ModelDescription(
                domain=bundle.domain,
                name=bundle.name,
                version=bundle.version,
                source=bundle.source,
                features=[
                    FeatureDescription(name=feature.name, unit=feature.unit, description=feature.description) for feature in bundle.features
                ],
            )
            for bundle in champions.bundles.values()
        ],
        absent=dict(champions.absent),
    )


def metrics(champions: Champions) -> ModelMetrics:
    """What the champions showed on their test windows and beside the oracle."""
    return ModelMetrics(
        models=[
            ModelFigures(
                domain=bundle.domain,
                name=bundle.name,
                version=bundle.version,
                source=bundle.source,
                test=_figures(champions.figures[domain], "test"),
                oracle=_figures(champions.figures[domain], "oracle"),
            )
            for domain, bundle in champions.bundles.items()
        ]
    )


def _figures(measured: Sequence[Mapping[str, Any]], window: str) -> list[ModelFigure]:
    return [
        ModelFigure(
            name=figure["metric"],
            value=figure["value"],
            low=figure.get("low"),
            high=figure.get("high"),
            meaning=figure.get("meaning", ""),
        )
        for figure in measured
        if figure["window"] == window
    ]


def risk_scores(store: Store, customer_id: str) -> RiskScores:
    """The newest stored score of a customer in every domain.

    Raises
    ------
    bento.errors.Problem
        Where nothing is stored of the customer.
    """
    if len(customer_id) > LONGEST_IDENTIFIER:
        raise invalid("customer_id", f"At most {LONGEST_IDENTIFIER} characters.")
    found = read(store, customer_id=customer_id)
    if not found:
        raise unknown("customer_id")
    return RiskScores(customer_id=customer_id, scores=[_stored_score(standing) for standing in found])


def _stored_score(standing: Standing) -> StoredScore:
    return StoredScore(
        domain=standing.domain,
        subject=standing.subject,
        account_id=standing.account_id,
        as_of=standing.as_of,
        **{name: standing.score[name] for name in _IN_EVERY_DOMAIN},
        details={name: value for name, value in standing.score.items() if name not in _IN_EVERY_DOMAIN},
    )
