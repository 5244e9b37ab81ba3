"""A score in the API's words: what every domain's answer has in common."""

import math

from bento.errors import invalid
from finrisk_assets.modelling.bundle import Bundle, Rows, Scores
from finrisk_assets.modelling.reasons import reasons
from schemas.api import Contribution, Explanation, ModelVersion, Reason


def score(bundle: Bundle, row: Rows) -> Scores:
    """Score one row, float32 of shape (d,).

    Raises
    ------
    bento.errors.Problem
        For a missing value that the model has no answer to: the client's matter. The message names the feature, not a value.
    """
    try:
        return bundle.score(row[None, :])
    except ValueError as error:
        raise invalid("", str(error)) from None


def explanation(bundle: Bundle, row: Rows, scores: Scores) -> Explanation:
    """Every feature's part in the score of one row."""
    return Explanation(
        base=scores.base,
        contributions=[
            Contribution(
                feature=feature.name,
                unit=feature.unit,
                value=None if math.isnan(value) else value,
                contribution=contribution,
            )
            for feature, value, contribution in zip(bundle.features, row.tolist(), scores.contributions[0].tolist(), strict=True)
        ],
    )


def reasons_of(bundle: Bundle, scores: Scores, *, high: bool, refused: bool = False) -> list[Reason]:
    """What moved the score of one row most: up where the decision says that the risk is high, else down.

    A refusal is compared with those just approved, where the bundle knows them, because many of them share what is merely usual.
    """
    found = reasons(
        scores.contributions[0],
        bundle.features,
        direction="raises" if high else "lowers",
        reference=bundle.reference if refused else None,
    )
    return [Reason(code=reason.code, feature=reason.feature, text=reason.sentence) for reason in found]


def model_version(bundle: Bundle) -> ModelVersion:
    return ModelVersion(name=bundle.name, version=bundle.version)
