"""Explanations of many rows: contributions in a batch, importance of each feature, and who stands just above a cutoff.

Here stands what plots, metrics and model cards need from SHAP values; drawing them belongs elsewhere, and the words for one
decision in `reasons`. All values come from the bundle itself, so that a plot explains what the service will answer.
"""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import Floats, Rows

CHUNK = 10_000


@dataclass(frozen=True)
class Importance:
    """What a feature does on average: mean |SHAP| in margin units, and its share of the sum over all features."""

    feature: str
    mean_absolute: float
    share: float


def contributions(bundle: Bundle, rows: Rows, chunk: int = CHUNK) -> Floats:
    """SHAP values in margin units, float64, shape (n, d), scored ``chunk`` rows at a time.

    Some 1 ms a row for a few hundred trees: give a sample of a large table.
    """
    parts = [bundle.score(rows[start : start + chunk]).contributions for start in range(0, len(rows), chunk)]
    return np.concatenate(parts) if parts else np.zeros((0, len(bundle.features)))


def importance(bundle: Bundle, values: Floats) -> tuple[Importance, ...]:
    """Features by mean absolute contribution, most important first; ties in the bundle's order.

    Parameters
    ----------
    values
        From `contributions`, shape (n, d), n at least 1.
    """
    if values.ndim != 2 or values.shape[1] != len(bundle.features) or not len(values):
        raise ValueError(f"contributions of shape {values.shape}; importance needs rows of {len(bundle.features)} features")
    means = np.abs(values).mean(axis=0)
    total = float(means.sum()) or 1.0
    order = np.argsort(-means, kind="stable")
    return tuple(Importance(bundle.features[at].name, float(means[at]), float(means[at]) / total) for at in order)


def just_approved(bundle: Bundle, rows: Rows, threshold: float, nearest: int = 200) -> tuple[float, ...]:
    """Mean contributions of the rows closest below a probability threshold: what reason codes of a refusal compare with.

    Parameters
    ----------
    rows
        float32, shape (n, d): applicants the cutoff was chosen on.
    threshold
        A probability of this or more is refused.
    nearest
        How many of the riskiest approved rows to take.

    Raises
    ------
    ValueError
        Where the threshold approves no row.
    """
    probability = bundle.probability(rows)
    approved = np.flatnonzero(probability < threshold)
    if not len(approved):
        raise ValueError(f"no row has a probability below {threshold}, so nobody was just approved")
    riskiest = approved[np.argsort(-probability[approved], kind="stable")[:nearest]]
    return tuple(bundle.score(rows[riskiest]).contributions.mean(axis=0).tolist())
