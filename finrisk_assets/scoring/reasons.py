"""Reason codes: at most four sentences that say what moved one decision.

Here contributions become words, for training and for the service alike: standard library and numpy only. The contributions come
from `bundle`, the sentences from each feature's declaration.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from schemas.features import Feature

LIMIT = 4
SMALLEST_SHARE = 0.05
Direction: TypeAlias = Literal["raises", "lowers"]

_PAST = {"raises": "raised", "lowers": "lowered"}


@dataclass(frozen=True)
class ReasonText:
    """One factor of one decision: a feature, or the features of one theme together.

    Attributes
    ----------
    code
        Stable: the theme in capitals, or the feature's name where it has none.
    feature, sentence
        Of the factor's features the one that moved the score most this way, and what it did, in words.
    features
        All features of the factor, in the order of the model: what would have to change for it to be no reason.
    contribution
        By how much they moved the margin together, against the reference where there is one.
    """

    code: str
    feature: str
    sentence: str
    contribution: float
    features: tuple[str, ...]


def reasons(
    contributions: ArrayLike,
    features: Sequence[Feature],
    *,
    direction: Direction = "raises",
    reference: ArrayLike | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    limit: int = LIMIT,
    smallest_share: float = SMALLEST_SHARE,
) -> tuple[ReasonText, ...]:
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
    groups
        `factors` of the features, for a caller who asks often.
    limit
        Most reasons to give.
    smallest_share
        A factor that made up less than this share of all movement, in both directions together, is no reason beside a larger one.

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
    sign = 1.0 if direction == "raises" else -1.0
    parts, groups = (sign * moved).tolist(), groups or factors(features)
    together = {factor: math.fsum([parts[column] for column in columns]) for factor, columns in groups.items()}
    least = smallest_share * math.fsum(map(abs, together.values()))
    # Equal ones stay in the order of the features.
    largest = sorted((factor for factor, part in together.items() if part > 0), key=together.__getitem__, reverse=True)[:limit]
    found = []
    for at, factor in enumerate(largest):
        if at == 0 or together[factor] >= least:
            columns = groups[factor]
            most = features[max(columns, key=parts.__getitem__)]  # the first of equals
            members = tuple(features[column].name for column in columns)
            found.append(ReasonText(code(most), most.name, sentence(most, direction), sign * together[factor], members))
    return tuple(found)


def factors(features: Sequence[Feature]) -> dict[str, list[int]]:
    """The columns of each factor, in the order of the features."""
    found: dict[str, list[int]] = {}
    for column, feature in enumerate(features):
        found.setdefault(feature.factor, []).append(column)
    return found


@lru_cache(maxsize=1_000)
def sentence(feature: Feature, direction: Direction) -> str:
    """What is said where a feature moved a score that way."""
    said = feature.raises if direction == "raises" else feature.lowers
    said = said or f"{feature.description or feature.name} {_PAST[direction]} the risk"
    return said[0].upper() + said[1:]


@lru_cache(maxsize=1_000)
def code(feature: Feature) -> str:
    """The code of a feature's factor."""
    return re.sub(r"[^A-Z0-9]+", "_", (feature.theme or feature.name).upper()).strip("_")
