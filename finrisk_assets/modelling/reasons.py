"""Reason codes: at most four sentences that say what moved one decision.

Here contributions become words, for training and for the service alike: standard library and numpy only. The contributions come
from `bundle`, the sentences from each feature's declaration.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from schemas.features import Feature

LIMIT = 4
SMALLEST_SHARE = 0.05
_PAST = {"raises": "raised", "lowers": "lowered"}


@dataclass(frozen=True)
class Reason:
    """One factor of one decision.

    Attributes
    ----------
    code
        Stable: the feature's name in capitals.
    feature, sentence
        The feature, and what it did, in words. Features that share a sentence (the two halves of an hour's circle) are one
        factor, named after the first of them.
    contribution
        By how much it moved the margin, against the reference where there is one.
    """

    code: str
    feature: str
    sentence: str
    contribution: float


def reasons(
    contributions: ArrayLike,
    features: Sequence[Feature],
    *,
    direction: Literal["raises", "lowers"] = "raises",
    reference: ArrayLike | None = None,
    limit: int = LIMIT,
    smallest_share: float = SMALLEST_SHARE,
) -> tuple[Reason, ...]:
    """The factors that moved one decision most in one direction, largest first; none where nothing moved it that way.

    Parameters
    ----------
    contributions
        One row of `Scores.contributions`, shape (d,), in margin units.
    features
        The bundle's, in the same order.
    direction
        ``raises`` explains a risk that is high, ``lowers`` one that is low.
    reference
        Contributions to compare with, shape (d,): for a refusal those of the applicants just approved (`Bundle.reference`),
        because against the average a factor may look bad that many approved applicants share. None compares with the average.
    limit
        Most reasons to give.
    smallest_share
        A factor that made up less than this share of all movement, in both directions together, is not a reason.

    Raises
    ------
    ValueError
        For contributions that are not one finite number per feature.
    """
    moved = np.asarray(contributions, np.float64)
    if reference is not None:
        moved = moved - np.asarray(reference, np.float64)
    if moved.shape != (len(features),) or not np.isfinite(moved).all():
        raise ValueError(f"contributions of shape {moved.shape} for {len(features)} features, or not all of them finite")
    factors: dict[str, tuple[Feature, float]] = {}
    for feature, movement in zip(features, moved.tolist(), strict=True):
        said = _sentence(feature, direction)
        first, sum_so_far = factors.get(said, (feature, 0.0))
        factors[said] = (first, sum_so_far + movement)
    sign = 1.0 if direction == "raises" else -1.0
    least = smallest_share * sum(abs(movement) for _, movement in factors.values())
    found = [
        Reason(_code(feature), feature.name, said, movement)
        for said, (feature, movement) in factors.items()
        if sign * movement > 0 and sign * movement >= least
    ]
    found.sort(key=lambda reason: -sign * reason.contribution)  # equal ones stay in the order of the features
    return tuple(found[:limit])


def _sentence(feature: Feature, direction: Literal["raises", "lowers"]) -> str:
    said = feature.raises if direction == "raises" else feature.lowers
    said = said or f"{feature.description or feature.name} {_PAST[direction]} the risk"
    return said[0].upper() + said[1:]


def _code(feature: Feature) -> str:
    return re.sub(r"[^A-Z0-9]+", "_", feature.name.upper()).strip("_")
