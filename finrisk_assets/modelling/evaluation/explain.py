"""Explanations of many rows: the importance of each feature, and the mean explanation just below a cutoff.

Plots, metrics and model cards use these. Drawing belongs in `plots`, the words for one decision in `reasons`. All values come from the
bundle itself, so a plot explains exactly what the service answers.
"""

from dataclasses import dataclass, replace

import numpy as np

from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleSpec, Floats, Reference, Rows

N_REFERENCES = 20
"""Cutoffs at which a bundle keeps a reference: every twentieth of the window."""


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


def with_references(spec: BundleSpec, rows: Rows) -> BundleSpec:
    """Return the bundle with the references of reason codes: at cutoffs throughout the window, the mean contributions of those just below.

    So a policy can move its cutoffs without a training: `Bundle` takes the reference of the nearest cutoff.

    Parameters
    ----------
    rows
        float32, shape (n, d): the validation window.
    """
    bundle = Bundle(spec, "")
    cutoffs = np.unique(np.quantile(bundle.probability(rows), np.linspace(0, 1, N_REFERENCES + 1)[1:]))
    references = [Reference(float(cutoff), mean_just_approved(bundle, rows, np.nextafter(cutoff, 2))) for cutoff in cutoffs]
    return replace(spec, references=tuple(references))


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
