"""The comparison of a model with an oracle that knows the true probabilities, which only a simulator can provide.

No model ranks better than the true probabilities, except by chance in one sample. Against them, a model's calibration error can be
separated from the noise of the outcomes.
"""

import numpy as np
from numpy.typing import ArrayLike

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.evaluation.metrics import Interval

MEANINGS = {
    "auc": "of the model, on the rows whose truth is known",
    "oracle_auc": "of the true probabilities, on the same rows",
    "auc_gap": "oracle less model, DeLong's paired interval",
    "calibration_error": "mean distance of predicted and true probability over ten groups of equal size",
    "oracle_calibration_error": "mean distance of the oracle's probability and the observed share over as many groups: noise alone",
    "n_truth": "rows compared",
}
"""Figure -> its meaning."""

WITHOUT_INTERVAL = frozenset({"calibration_error", "oracle_calibration_error", "n_truth"})
"""Figures whose bounds are the value itself: nothing is known of their spread."""


def compare(labels: ArrayLike, predicted: ArrayLike, true: ArrayLike, bins: int = 10) -> dict[str, Interval]:
    """Compare a model's probabilities with the true ones on the same rows.

    Parameters
    ----------
    labels : array-like of bool, shape (n,)
    predicted, true : array-like, shape (n,)
        The model's probability, and the probability that the simulator drew the outcome with.
    bins
        Number of groups of equal size, in the order of `predicted`, over which the calibration error is averaged.

    Returns
    -------
    dict of str to Interval
        The figures that `MEANINGS` explains; a figure without an interval has its value as both bounds. Those of ranking are absent where
        all rows have the same outcome.
    """
    target, p, q = np.asarray(labels).astype(bool), np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    groups = [rows for rows in np.array_split(np.argsort(p, kind="stable"), bins) if len(rows)]
    error = float(np.average([abs(p[rows].mean() - q[rows].mean()) for rows in groups], weights=[len(rows) for rows in groups]))
    noise = metrics.expected_calibration_error(target, q, bins)
    ranking = {
        "auc": lambda: metrics.auc(target, p),
        "oracle_auc": lambda: metrics.auc(target, q),
        "auc_gap": lambda: metrics.compare_auc(target, q, p).difference,
    }
    return {
        **({name: measure() for name, measure in ranking.items()} if 0 < target.sum() < len(target) else {}),
        "calibration_error": Interval(error, error, error),
        "oracle_calibration_error": Interval(noise, noise, noise),
        "n_truth": Interval(float(len(p)), float(len(p)), float(len(p))),
    }


def compare_with_attainable(labels: ArrayLike, predicted: ArrayLike, attainable: ArrayLike, true: ArrayLike) -> dict[str, Interval]:
    """Divide the distance of a model from the oracle: what more data would bring, and what the ledger does not show.

    Parameters
    ----------
    labels : array-like of bool, shape (n,)
    predicted, attainable, true : array-like, shape (n,)
        On the same rows, the probabilities of the model, of one that learned from many times the people, and the true ones.

    Returns
    -------
    dict of str to Interval
        ``auc``, ``attainable_auc`` and ``oracle_auc``; ``gap_to_attainable`` and ``gap_to_oracle``, the other's AUC less the model's, with
        DeLong's paired interval.
    """
    return {
        "auc": metrics.auc(labels, predicted),
        "attainable_auc": metrics.auc(labels, attainable),
        "oracle_auc": metrics.auc(labels, true),
        "gap_to_attainable": metrics.compare_auc(labels, attainable, predicted).difference,
        "gap_to_oracle": metrics.compare_auc(labels, true, predicted).difference,
    }
