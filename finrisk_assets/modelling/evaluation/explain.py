"""Explanations of many rows: the importance of each feature, and the mean explanation just below a cutoff.

Plots, metrics and model cards use these. Drawing belongs in `plots`, the words for one decision in `reasons`. All values come from the
bundle itself, so a plot explains exactly what the service answers.
"""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import Floats, Rows


@dataclass(frozen=True)
class Importance:
    """The mean |SHAP| of a feature in margin units, and its share of the sum over all features."""

    feature: str
    mean_absolute: float
    share: float


def rank_features(bundle: Bundle, values: Floats) -> tuple[Importance, ...]:
    """Return features by mean absolute contribution, most important first; ties in the bundle's order.

    Parameters
    ----------
    values
        From `contributions`, shape (n, d), n at least 1.

    Raises
    ------
    ValueError
        For values of another shape.
    """
    if values.ndim != 2 or values.shape[1] != len(bundle.features) or not len(values):
        raise ValueError(f"contributions of shape {values.shape}; importance needs rows of {len(bundle.features)} features")
    means = np.abs(values).mean(axis=0)
    total = float(means.sum()) or 1.0
    order = np.argsort(-means, kind="stable")
    return tuple(Importance(bundle.features[at].name, float(means[at]), float(means[at]) / total) for at in order)


def mean_just_approved(bundle: Bundle, rows: Rows, threshold: float, nearest: int = 200) -> tuple[float, ...]:
    """Return mean contributions of the rows closest below a probability threshold, which reason codes of a refusal compare with.

    Parameters
    ----------
    rows
        float32, shape (n, d): the applicants on which the cutoff was chosen.
    threshold
        A row with this probability or more is refused.
    nearest
        How many of the riskiest approved rows to average.

    Raises
    ------
    ValueError
        Where the threshold approves no row.
    """
    probability = bundle.probability(rows)
    approved = np.flatnonzero(probability < threshold)
    if not len(approved):
        raise ValueError(f"no row has a probability below {threshold}, so no row is just approved")
    riskiest = approved[np.argsort(-probability[approved], kind="stable")[:nearest]]
    return tuple(bundle.score(rows[riskiest]).contributions.mean(axis=0).tolist())
