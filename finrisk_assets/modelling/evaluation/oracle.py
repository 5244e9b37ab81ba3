"""How close a model comes to an oracle that knows the true probabilities; only a simulator can tell.

No model can rank better than the true probabilities do, except by luck of one sample; and against them a model's calibration can be
told apart from the noise of the outcomes.
"""

import numpy as np
from numpy.typing import ArrayLike

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.evaluation.metrics import Interval

MEANINGS = {
    "auc": "of the model, on the rows whose truth is known",
    "oracle_auc": "of the true probabilities, on the same rows",
    "auc_gap": "oracle less model, DeLong's paired interval",
    "calibration_error": "mean distance of said and true probability over ten groups of equal size",
    "oracle_calibration_error": "the same distance between said probability and observed outcomes, for the oracle: noise alone",
    "n_truth": "rows compared",
}


def compare(labels: ArrayLike, said: ArrayLike, true: ArrayLike, bins: int = 10) -> dict[str, Interval]:
    """Compare a model's probabilities with the true ones on the same rows.

    Parameters
    ----------
    labels : array-like of bool, shape (n,)
    said, true : array-like, shape (n,)
        What the model says, and the probability that the dice were thrown with.
    bins
        Groups of equal size, in the order of `said`, over which the calibration error is taken.

    Returns
    -------
    dict of str to Interval
        The figures that `MEANINGS` explains; those without an interval have their value as both bounds.
    """
    target, p, q = np.asarray(labels).astype(bool), np.asarray(said, np.float64), np.asarray(true, np.float64)
    groups = [rows for rows in np.array_split(np.argsort(p, kind="stable"), bins) if len(rows)]
    distance = float(np.average([abs(p[rows].mean() - q[rows].mean()) for rows in groups], weights=[len(rows) for rows in groups]))
    noise = metrics.expected_calibration_error(target, q, bins)
    return {
        "auc": metrics.auc(target, p),
        "oracle_auc": metrics.auc(target, q),
        "auc_gap": metrics.compare_auc(target, q, p).difference,
        "calibration_error": Interval(distance, distance, distance),
        "oracle_calibration_error": Interval(noise, noise, noise),
        "n_truth": Interval(float(len(p)), float(len(p)), float(len(p))),
    }
