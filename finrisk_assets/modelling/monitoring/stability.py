"""Whether a model does in the later half of a window what it did in the earlier one: arrays in, figures with their intervals out.

One window, cut in time. What drifts between training and today is in `drift`; what a model is worth over the whole window, in `evaluate`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.monitoring import drift

GROUPS = 10
LEAST = 50
"""Rows of a half below which nothing is said; a fifth of it is the least of either outcome."""
MEANINGS = {
    "stability_psi": "population stability index of the probability, later half of the window against the earlier",
    "stability_psi_limit": "what that index stays below in 95 % of windows in which nothing moves, rows taken as independent",
    "stability_auc_change": "AUC of the later half less that of the earlier",
    "stability_calibration_change": "mean probability less rate, later half less earlier; a customer counts once",
}


class Held(NamedTuple):
    """A figure of two halves, with its 95 % interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


def halves(labels: ArrayLike, probability: ArrayLike, moments: ArrayLike, people: ArrayLike) -> dict[str, Held]:
    """Compare the halves of a window; rows of one moment stay together.

    Parameters
    ----------
    labels : array-like of bool, shape (n,)
    probability : array-like, shape (n,)
    moments : array-like of datetime64, shape (n,)
    people : array-like, shape (n,)
        Who each row is of.

    Returns
    -------
    dict of str to Held
        The figures that `MEANINGS` explains; none where the rows have no time or a half is too small to say anything.
    """
    target, said = np.asarray(labels).astype(bool), np.asarray(probability, np.float64)
    when, who = np.asarray(moments, "datetime64[us]"), np.asarray(people).astype(str)
    if not len(target) or np.isnat(when).any():
        return {}
    later = when > np.sort(when)[(len(when) - 1) // 2]
    parts = [np.flatnonzero(~later), np.flatnonzero(later)]
    if any(len(part) < LEAST or 5 * min(target[part].sum(), (~target[part]).sum()) < LEAST for part in parts):
        return {}
    edges = np.unique(np.quantile(said[parts[0]], np.linspace(0, 1, GROUPS + 1)[1:-1]))
    counts = [np.bincount(np.searchsorted(edges, said[part], side="right"), minlength=len(edges) + 1) for part in parts]
    limit = drift.psi_limit(len(edges) + 1, len(parts[0]), len(parts[1]))
    first, second = (metrics.auc(target[part], said[part]) for part in parts)
    miss = said - target
    off = [float(miss[part].mean()) for part in parts]
    variance = sum(metrics.clustered_variance(miss[part], who[part]) for part in parts)
    return {
        "stability_psi": Held(drift.psi(counts[0], counts[1])),
        "stability_psi_limit": Held(limit),
        "stability_auc_change": _difference(second.value - first.value, (first.high - first.low) / 2, (second.high - second.low) / 2),
        "stability_calibration_change": _difference(off[1] - off[0], 1.96 * float(np.sqrt(variance))),
    }


def _difference(value: float, *halfwidths: float) -> Held:
    half = float(np.sqrt(sum(one**2 for one in halfwidths)))
    return Held(value, value - half, value + half)
