"""Do reasons tell the truth? How often changing the factors that they name flips the decision.

Here stands the experiment alone: reasons are chosen in `find_reasons`, applicants just approved are scored in `explain`. A refused row is
scored again with the named factors at what is typical of those just approved; the share that is then decided otherwise is the flip
rate. Beside it stand two figures that give it a scale: as many factors drawn at random, and the best that any choice could do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation.metrics import CONFIDENCE_LEVEL, Interval
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.reasons import MAX_REASONS, MIN_SHARE, find_reasons, group_by_factor
from finrisk_assets.scoring.spec import Floats, Rows

NEAREST = 200

Choice: TypeAlias = Callable[[Bundle, Rows], list[tuple[int, ...]]]
"""From a bundle and refused rows, shape (n, d), to the columns that are changed in each of them."""


@dataclass(frozen=True)
class Flips:
    """The share of decisions that flipped when the named factors changed.

    Attributes
    ----------
    n, rate
        Refused rows, and the share that flipped with its Jeffreys interval.
    named
        Factors named in a row, on average.
    before, after
        Median probability of the rows as they are, and with the named factors changed.
    """

    n: int
    rate: Interval
    named: float
    before: float
    after: float


def nearest_approved(probability: ArrayLike, threshold: float, nearest: int = NEAREST) -> NDArray[np.intp]:
    """Return the places of the rows closest below a threshold, riskiest first; ties in the order of the rows.

    Raises
    ------
    ValueError
        Where the threshold approves no row.
    """
    said = np.asarray(probability, np.float64)
    approved = np.flatnonzero(said < threshold)
    if not len(approved):
        raise ValueError(f"no row has a probability below {threshold}, so nobody was just approved")
    return approved[np.argsort(-said[approved], kind="stable")[:nearest]]


def typical(rows: Rows) -> Rows:
    """Return the median of each feature, float32 of shape (d,), over the rows where it is known; NaN where it is in none."""
    known = ~np.isnan(rows).all(axis=0)
    middle = np.full(rows.shape[1], np.nan, np.float32)
    middle[known] = np.nanmedian(rows[:, known], axis=0)
    return middle


def flips(bundle: Bundle, rows: Rows, choose: Choice, ordinary: Rows, threshold: float, chunk: int = 10_000) -> Flips:
    """Change the factors that `choose` names in each row to what is typical of those just approved, and decide again.

    Parameters
    ----------
    rows
        Refused applicants, float32 of shape (n, d), n at least 1.
    ordinary
        What a changed feature becomes, shape (d,): of `typical`. Where it is NaN a feature stays as it is.
    threshold
        A row has flipped where its probability is now below this.

    Raises
    ------
    ValueError
        For no rows: a share of none says nothing.
    """
    from scipy.stats import beta

    if not len(rows):
        raise ValueError("nobody was refused, so there is no decision to flip")
    changed, named = rows.copy(), 0
    for start in range(0, len(rows), chunk):
        for at, columns in enumerate(choose(bundle, rows[start : start + chunk]), start):
            named += len({bundle.features[column].factor for column in columns})
            usable = [column for column in columns if not np.isnan(ordinary[column])]
            changed[at, usable] = ordinary[usable]
    before, after = bundle.probability(rows), bundle.probability(changed)
    n, k = len(rows), int((after < threshold).sum())
    low, high = beta(k + 0.5, n - k + 0.5).ppf([(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2]).tolist()
    rate = Interval(k / n, low if k else 0.0, high if k < n else 1.0)
    return Flips(n, rate, named / n, float(np.median(before)), float(np.median(after)))


# Choices of what to change -----------------------------------------------------------------------------------------------------


def by_reasons(reference: Sequence[float] | None, *, limit: int = MAX_REASONS, smallest_share: float = MIN_SHARE) -> Choice:
    """The factors that `find_reasons` names, all features of a theme together.

    Parameters
    ----------
    reference
        `Bundle.reference`, or None for reasons against the average, as SHAP values stand by themselves.
    """

    def choose(bundle: Bundle, rows: Rows) -> list[tuple[int, ...]]:
        place = {feature.name: column for column, feature in enumerate(bundle.features)}
        chosen = []
        for row, moved in zip(rows, bundle.score(rows).contributions, strict=True):
            named = find_reasons(
                moved, row, bundle.features, bundle.values, reference=reference, limit=limit, smallest_share=smallest_share
            )
            chosen.append(tuple(sorted(place[name] for reason in named for name in reason.features)))
        return chosen

    return choose


def at_random(seed: int, limit: int = MAX_REASONS) -> Choice:
    """As many factors drawn at random: reasons that flip no more than these tell nothing."""

    def choose(bundle: Bundle, rows: Rows) -> list[tuple[int, ...]]:
        rng, groups = np.random.default_rng(seed), list(group_by_factor(bundle.features).values())
        drawn = (rng.choice(len(groups), min(limit, len(groups)), replace=False).tolist() for _ in rows)
        return [tuple(column for at in sorted(places) for column in groups[at]) for places in drawn]

    return choose


def by_rescoring(ordinary: Rows, limit: int = MAX_REASONS) -> Choice:
    """One factor after another, each time the one that lowers the score most: where this fails, no wiser choice of so many helps much.

    For a linear model it is the best choice there is; for trees it is greedy.
    """

    def choose(bundle: Bundle, rows: Rows) -> list[tuple[int, ...]]:
        known = [[column for column in columns if not np.isnan(ordinary[column])] for columns in group_by_factor(bundle.features).values()]
        groups = [columns for columns in known if columns]
        return [_greedy(bundle, row, groups, ordinary, limit) for row in rows]

    return choose


def _greedy(bundle: Bundle, row: Rows, groups: Sequence[list[int]], ordinary: Rows, limit: int) -> tuple[int, ...]:
    chosen: list[int] = []
    now = row
    margin: Floats = bundle.margin(now[None])
    for _ in range(limit):
        tried = np.repeat(now[None], len(groups), axis=0)
        for at, columns in enumerate(groups):
            tried[at, columns] = ordinary[columns]
        lowered = bundle.margin(tried)
        best = int(np.argmin(lowered))
        if lowered[best] >= margin[0]:
            break
        now, margin = tried[best], lowered[best : best + 1]
        chosen += groups[best]
    return tuple(chosen)
