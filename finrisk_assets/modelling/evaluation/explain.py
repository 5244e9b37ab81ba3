"""Explanations of many rows: the importance of each feature, and the mean explanation just below a cutoff.

Plots, metrics and model cards use these. Drawing belongs in `plots`, the words for one decision in `reasons`. All values come from the
bundle itself, so a plot explains exactly what the service answers.
"""

from dataclasses import dataclass, replace

import numpy as np

from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.feature_values import describe_values
from finrisk_assets.scoring.spec import BundleSpec, Floats, Reference, Rows

N_REFERENCES = 20
"""Cutoffs at which a bundle keeps a reference: every twentieth of the window."""


INFORMATION_ROWS = 500
"""Rows whose contributions tell how much of the model's information each feature holds."""


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


def with_values(spec: BundleSpec, train: Rows, validation: Rows, *, group_name: str, is_safer_half: bool) -> BundleSpec:
    """Return the bundle with what training saw of each feature: the bounds of the sentences, and of what the model can judge.

    Parameters
    ----------
    train, validation
        The windows that the model was fitted and calibrated on, float32, shape (n, d).
    group_name, is_safer_half
        The reference group in words, and whether it is the half of the validation window with the lower scores, not all of it.
    """
    bundle, group = Bundle(spec, ""), validation
    if is_safer_half:
        margin = bundle.margin(validation)
        group = validation[margin <= np.median(margin)]
    step = max(1, len(validation) // INFORMATION_ROWS)
    contributions = bundle.score(validation[::step][:INFORMATION_ROWS]).contributions
    values = describe_values((train, validation), group, contributions)
    return replace(spec, values=values, reference_group=group_name)


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
