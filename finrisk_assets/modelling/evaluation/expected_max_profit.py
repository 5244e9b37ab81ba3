"""The expected maximum profit of a credit model (EMP): the profit of its best cutoff per unit lent, averaged over the cost of a default.

Other metrics are in `metrics`. Source: Verbraken, Bravo, Weber & Baesens, *Development and application of consumer
credit scoring models using profit-based classification measures* (European Journal of Operational Research 238, 2014).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NONE_LOST, ALL_LOST, ROI = 0.55, 0.10, 0.2644
"""Shares of defaults that lose nothing and everything, and the return on a repaid loan, for the loans of the paper."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Emp:
    """The expected maximum profit, as a share of the amount lent and relative to approving everybody, and the share refused to reach it."""

    profit: float
    refused: float


def expected_max_profit(
    labels: ArrayLike, scores: ArrayLike, *, none_lost: float = NONE_LOST, all_lost: float = ALL_LOST, roi: float = ROI
) -> Emp:
    """Return the expected maximum profit of a score.

    Refusing at a cutoff saves the loss fraction of the defaults among the refused and forgoes the return of the others:
    ``b p0 F0 - roi p1 F1`` for the share p0 of defaults, of which F0 are refused, and the share p1 of others, of which F1 are refused. The
    best cutoff for a loss fraction b lies on the ROC curve's convex hull. b is 0 with probability `none_lost`, 1 with `all_lost`, and
    uniform in between otherwise; the best profit is integrated over it exactly.

    Parameters
    ----------
    labels : array-like of bool, shape (n,)
        Whether the loan defaulted.
    scores : array-like, shape (n,)
        Higher means riskier; any scale.
    none_lost, all_lost, roi
        As above; the defaults are the paper's.

    Raises
    ------
    ValueError
        For labels of one kind only, shares outside 0 to 1, or a negative return.
    """
    target, score = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if not 0 < target.sum() < len(target):
        raise ValueError(f"{int(target.sum())} of {len(target)} loans defaulted: give defaults and others")
    if min(none_lost, all_lost) < 0 or none_lost + all_lost > 1 or roi < 0:
        raise ValueError(f"none_lost {none_lost} and all_lost {all_lost} are shares of one whole, and roi {roi} is not below 0")
    bad, good = _hull(target, score)
    p0 = float(target.mean())
    saved, forgone = p0 * bad, roi * (1 - p0) * good
    # Loss fractions from which the next corner is better, ascending along the hull.
    switch_points = np.concatenate([[0.0], np.minimum(np.diff(forgone) / np.diff(saved), 1.0), [1.0]])
    low, high = switch_points[:-1], switch_points[1:]
    p_partial = 1 - none_lost - all_lost
    integral = float((saved * (high**2 - low**2) / 2 - forgone * (high - low)).sum())
    refused = p0 * bad + (1 - p0) * good
    # Several of the last switch points may be 1: the last corner that is reached below 1 applies.
    last = int(np.flatnonzero(low < 1.0)[-1])
    first = int(np.flatnonzero(low <= 0.0)[-1])
    return Emp(
        profit=p_partial * integral + all_lost * float(saved[last] - forgone[last]),
        refused=p_partial * float((refused * (high - low)).sum()) + all_lost * float(refused[last]) + none_lost * float(refused[first]),
    )


def _hull(target: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Return the corners of the convex hull of the ROC curve, from (0, 0) to (1, 1): shares of the bad and of the good refused."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # equal scores are refused together
    bad = np.concatenate([[0.0], np.cumsum(target[order])[ends] / target.sum()])
    good = np.concatenate([[0.0], np.cumsum(~target[order])[ends] / (~target).sum()])
    corners: list[int] = []
    for at in range(len(bad)):
        while len(corners) > 1 and _is_below_line(bad, good, corners[-2], corners[-1], at):
            corners.pop()
        corners.append(at)
    # A level last edge saves nothing more, so it has no switch point.
    rising = [at for k, at in enumerate(corners) if k == 0 or bad[at] > bad[corners[k - 1]]]
    return bad[rising], good[rising]


def _is_below_line(bad: Floats, good: Floats, first: int, middle: int, last: int) -> bool:
    """Return whether the middle point lies on or below the line from the first to the last."""
    middle_rise = (bad[middle] - bad[first]) * (good[last] - good[first])
    return bool(middle_rise <= (bad[last] - bad[first]) * (good[middle] - good[first]))
