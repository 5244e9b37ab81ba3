"""The expected maximum profit of a credit model (EMP): what its best cutoff earns per unit lent, over what a default may cost.

Only this measure belongs here; others stand in `evaluate`. Verbraken, Bravo, Weber & Baesens, *Development and application of consumer
credit scoring models using profit-based classification measures* (European Journal of Operational Research 238, 2014).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NONE_LOST, ALL_LOST, ROI = 0.55, 0.10, 0.2644
"""The paper's loans: shares of defaults that lose nothing and everything, and the return on a loan that is repaid."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Emp:
    """Expected maximum profit, a share of what is lent (beside approving everybody), and the share refused to reach it."""

    profit: float
    refused: float


def expected_max_profit(
    labels: ArrayLike, scores: ArrayLike, *, none_lost: float = NONE_LOST, all_lost: float = ALL_LOST, roi: float = ROI
) -> Emp:
    """Return the expected maximum profit of a score.

    Refusing at a cutoff saves the loss fraction of the defaults among the refused and forgoes the return of the others:
    ``b p0 F0 - roi p1 F1`` for the share p0 of defaults, of which F0 are refused, and of the others F1 of p1. The cutoff that is best
    for a loss fraction b lies on the ROC curve's convex hull. b is 0 with probability `none_lost`, 1 with `all_lost`, and else
    uniform in between, over which the best profit is integrated exactly.

    Parameters
    ----------
    labels : array-like of bool, shape (n,)
        Whether it defaulted.
    scores : array-like, shape (n,)
        Higher means riskier; any scale.
    none_lost, all_lost, roi
        As above; the defaults are the paper's.

    Raises
    ------
    ValueError
        For labels of one kind only, or shares that are none.
    """
    target, score = np.asarray(labels).astype(bool), np.asarray(scores, np.float64)
    if not 0 < target.sum() < len(target):
        raise ValueError(f"{int(target.sum())} of {len(target)} loans defaulted: this needs defaults and others")
    if min(none_lost, all_lost) < 0 or none_lost + all_lost > 1 or roi < 0:
        raise ValueError(f"none_lost {none_lost} and all_lost {all_lost} are shares of one whole, and roi {roi} is not below 0")
    bad, good = _hull(target, score)
    p0 = float(target.mean())
    saved, forgone = p0 * bad, roi * (1 - p0) * good  # profit at a corner: b * saved - forgone
    # The loss fraction from which the next corner is better; they rise along the hull.
    turns = np.concatenate([[0.0], np.minimum(np.diff(forgone) / np.diff(saved), 1.0), [1.0]])
    low, high = turns[:-1], turns[1:]
    between = 1 - none_lost - all_lost
    integral = float((saved * (high**2 - low**2) / 2 - forgone * (high - low)).sum())
    refused = p0 * bad + (1 - p0) * good
    # Of the last turns several may lie at 1: the corner in force is the last one that is reached below it.
    last = int(np.flatnonzero(low < 1.0)[-1])
    first = int(np.flatnonzero(low <= 0.0)[-1])
    return Emp(
        profit=between * integral + all_lost * float(saved[last] - forgone[last]),
        refused=between * float((refused * (high - low)).sum()) + all_lost * float(refused[last]) + none_lost * float(refused[first]),
    )


def _hull(target: NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Corners of the convex hull of the ROC curve, from (0, 0) to (1, 1): shares of the bad and of the good that are refused."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # equal scores are refused together
    bad = np.concatenate([[0.0], np.cumsum(target[order])[ends] / target.sum()])
    good = np.concatenate([[0.0], np.cumsum(~target[order])[ends] / (~target).sum()])
    corners: list[int] = []
    for at in range(len(bad)):
        while len(corners) > 1 and _turns_up(bad, good, corners[-2], corners[-1], at):
            corners.pop()
        corners.append(at)
    # A level last edge saves nothing more: it would have no turn.
    kept = [at for k, at in enumerate(corners) if k == 0 or bad[at] > bad[corners[k - 1]]]
    return bad[kept], good[kept]


def _turns_up(bad: Floats, good: Floats, first: int, middle: int, last: int) -> bool:
    """Whether the middle point lies on or below the line from the first to the last."""
    up = (bad[middle] - bad[first]) * (good[last] - good[first])
    return bool(up <= (bad[last] - bad[first]) * (good[middle] - good[first]))
