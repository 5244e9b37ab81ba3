"""A score in the API's words: its explanation, its reasons and the model that gave it."""

import math

from finrisk_assets.modelling.bundle import Bundle, Rows, Scores
from schemas.api import Contribution, Explanation, ModelVersion


def explanation(bundle: Bundle, row: Rows, scores: Scores) -> Explanation:
    """Every feature's part in one score; `scores` holds that one row's."""
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


def model_version(bundle: Bundle) -> ModelVersion:
    return ModelVersion(name=bundle.name, version=bundle.version)
