"""The curve of scores or expected losses on a window that taught no model: what a share, a capacity or a precision is as a threshold.

A bundle keeps the curve, so that a policy can change its thresholds without a training. On numpy alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

EXACT_POINTS = 200
"""Highest distinct scores that the curve keeps one by one; below them points lie in equal ratios of their counts."""
LATER_POINTS = 300


@dataclass(frozen=True)
class ScoreCurve:
    """Distinct scores in falling order, each with the number of rows and of events at or above it.

    Attributes
    ----------
    scores
        Probabilities, or expected losses in currency.
    rows, events
        Rows, and rows with the outcome, whose score is at least this; `events` is empty where the source has no labels.
    n_rows, n_days
        Rows of the window, and the days that it spans.
    """

    scores: tuple[float, ...]
    rows: tuple[int, ...]
    events: tuple[int, ...]
    n_rows: int
    n_days: int

    def __post_init__(self) -> None:
        lengths = {len(self.scores), len(self.rows)} | ({len(self.events)} if self.events else set())
        if len(lengths) > 1 or not self.scores or self.n_rows < 1 or self.n_days < 1:
            raise ValueError("a score curve has scores, a number of rows for each, and at least one row and one day")
        if list(self.scores) != sorted(set(self.scores), reverse=True) or list(self.rows) != sorted(set(self.rows)):
            raise ValueError("a score curve has falling scores and rising numbers of rows")

    def find_capacity_threshold(self, n: float) -> float:
        """Return the lowest score that at most `n` of the window's rows reach; just above the highest where fewer than one may."""
        reached = np.searchsorted(self.rows, n, side="right")
        return self.scores[int(reached) - 1] if reached else float(np.nextafter(self.scores[0], np.inf))

    def find_precision_threshold(self, precision: float) -> float | None:
        """Return the lowest score from which the share of events reaches `precision`; None where none does, or without labels.

        The share is Laplace's rule of succession, (events + 1) / (n + 2), which keeps a handful of lucky hits from opening the gate.
        """
        if not self.events:
            return None
        shares = (np.asarray(self.events) + 1) / (np.asarray(self.rows) + 2)
        precise = np.flatnonzero(shares >= precision)
        return self.scores[int(precise[-1])] if precise.size else None


def draw_score_curve(scores: ArrayLike, is_event: ArrayLike | None, n_days: int) -> ScoreCurve:
    """Return the curve of a window's scores.

    Parameters
    ----------
    scores : array-like, shape (n,)
        Probabilities, or expected losses, of rows in their natural proportion.
    is_event : array-like of bool, shape (n,), optional
        The outcomes.
    n_days
        Days that the rows span.

    Raises
    ------
    ValueError
        For no scores, scores that are not finite, labels of another number, or no day.
    """
    values = np.asarray(scores, np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"a score curve needs finite scores; {int((~np.isfinite(values)).sum())} of {values.size} are not")
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    lasts = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))  # a threshold cannot part equal scores
    kept = lasts
    if len(lasts) > EXACT_POINTS + LATER_POINTS:
        later = np.geomspace(EXACT_POINTS, len(lasts) - 1, LATER_POINTS).round().astype(int)
        kept = lasts[np.unique(np.concatenate([np.arange(EXACT_POINTS), later]))]
    events: tuple[int, ...] = ()
    if is_event is not None:
        labels = np.asarray(is_event).astype(bool).ravel()
        if labels.shape != values.shape:
            raise ValueError(f"there are {values.size} scores and {labels.size} labels: one label per score is needed")
        events = tuple(np.cumsum(labels[order])[kept].tolist())
    return ScoreCurve(tuple(ordered[kept].tolist()), tuple((kept + 1).tolist()), events, values.size, n_days)
