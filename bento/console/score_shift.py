"""The shift of served scores against those of the training's test window: the population stability index, and what chance explains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_DECISIONS = 100
"""Served decisions; of fewer no shift is judged."""
SMALL_SHIFT = 0.1
"""An index below it is called no shift, whatever the sample (Siddiqi, *Credit Risk Scorecards*, 2006, chapter 9)."""
_Z95 = 1.6448536
"""Normal quantile of 95 %."""


@dataclass(frozen=True)
class ServedShift:
    """The shift of one domain's served scores.

    Attributes
    ----------
    decisions
        Served decisions.
    psi, limit
        The index, and what it stays below in 95 % of cases in which nothing moved; None for too few decisions.
    is_moved
        Whether the index is above both the limit and `SMALL_SHIFT`; None for too few decisions.
    """

    decisions: int
    psi: float | None = None
    limit: float | None = None
    is_moved: bool | None = None


def measure_shift(served: Sequence[int], tested: Sequence[float], tested_rows: int) -> ServedShift:
    """Return the shift of served scores, from their counts and the shares of the test window in the same bins.

    Half a row is added to each count, so that an empty bin has a logarithm. Without a shift the index has about the distribution of
    (1/n + 1/m) times a chi-squared variable of as many degrees of freedom as bins that are used, less one (Yurdakul & Naranjo, *Journal
    of Risk Model Validation* 2020); its quantile is that of Wilson & Hilferty (1931).
    """
    n = sum(served)
    if n < MIN_DECISIONS or not tested_rows:
        return ServedShift(n)
    counts = np.array([served, np.asarray(tested) * tested_rows], np.float64)
    counts = counts[:, counts.any(axis=0)] + 0.5
    q, p = counts / counts.sum(axis=1, keepdims=True)
    psi = float(np.sum((q - p) * np.log(q / p)))
    freedom = max(counts.shape[1] - 1, 1)
    spread = 2 / (9 * freedom)
    limit = freedom * (1 - spread + _Z95 * spread**0.5) ** 3 * (1 / n + 1 / tested_rows)
    return ServedShift(n, psi, limit, psi > max(limit, SMALL_SHIFT))
