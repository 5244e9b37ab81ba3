"""Stability figures: the later half of a window compared with the earlier, arrays in, figures with their intervals out.

One window is cut in time. Drift between training and today is in `drift`; figures of the whole window are in `metrics`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.monitoring import drift

N_BINS = 10
"""Groups of equal size that the probability is cut into for the stability index."""
MIN_ROWS = 50
"""Rows; a smaller half, or one with fewer than a fifth of this of either outcome, gives no figures."""
MEANINGS = {
    "stability_psi": "population stability index of the probability, later half of the window against the earlier",
    "stability_psi_limit": "what that index stays below in 95 % of windows in which nothing moves, rows taken as independent",
    "stability_auc_change": "AUC of the later half less that of the earlier",
    "stability_calibration_change": "mean probability less rate, later half less earlier; a customer counts once",
}
"""Figure -> its meaning."""


class StabilityFigure(NamedTuple):
    """A figure of two halves, with its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


def compare_halves(labels: ArrayLike, probability: ArrayLike, decision_times: ArrayLike, people: ArrayLike) -> dict[str, StabilityFigure]:
    """Compare the halves of a window; rows of the same time stay in the same half.

    Parameters
    ----------
    labels : array-like of bool, shape (n,)
    probability : array-like, shape (n,)
    decision_times : array-like of datetime64, shape (n,)
    people : array-like, shape (n,)
        The person of each row.

    Returns
    -------
    dict of str to StabilityFigure
        The figures that `MEANINGS` explains; empty where the rows have no time or a half is too small.
    """
    target, scores = np.asarray(labels).astype(bool), np.asarray(probability, np.float64)
    times, row_people = np.asarray(decision_times, "datetime64[us]"), np.asarray(people).astype(str)
    if not len(target) or np.isnat(times).any():
        return {}
    is_later = times > np.sort(times)[(len(times) - 1) // 2]
    parts = [np.flatnonzero(~is_later), np.flatnonzero(is_later)]
    if any(len(part) < MIN_ROWS or 5 * min(target[part].sum(), (~target[part]).sum()) < MIN_ROWS for part in parts):
        return {}
    edges = np.unique(np.quantile(scores[parts[0]], np.linspace(0, 1, N_BINS + 1)[1:-1]))
    counts = [np.bincount(np.searchsorted(edges, scores[part], side="right"), minlength=len(edges) + 1) for part in parts]
    limit = drift.psi_limit(len(edges) + 1, len(parts[0]), len(parts[1]))
    earlier_auc, later_auc = (metrics.auc(target[part], scores[part]) for part in parts)
    residual = scores - target
    mean_residuals = [float(residual[part].mean()) for part in parts]
    variance = sum(metrics.clustered_variance(residual[part], row_people[part]) for part in parts)
    return {
        "stability_psi": StabilityFigure(drift.psi(counts[0], counts[1])),
        "stability_psi_limit": StabilityFigure(limit),
        "stability_auc_change": _difference(
            later_auc.value - earlier_auc.value, (earlier_auc.high - earlier_auc.low) / 2, (later_auc.high - later_auc.low) / 2
        ),
        "stability_calibration_change": _difference(mean_residuals[1] - mean_residuals[0], 1.96 * float(np.sqrt(variance))),
    }


def _difference(value: float, *halfwidths: float) -> StabilityFigure:
    """Return a difference with its interval, from the half-widths of both intervals."""
    margin = float(np.sqrt(sum(width**2 for width in halfwidths)))
    return StabilityFigure(value, value - margin, value + margin)
