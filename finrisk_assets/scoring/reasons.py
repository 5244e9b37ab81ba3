"""Reason codes: at most four sentences that explain one decision.

This module turns contributions into words, for training and the service alike, with the standard library and numpy only.
Contributions come from `bundle`, sentences from each feature's declaration.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from schemas.features import Feature

MAX_REASONS = 4
"""Reasons of one decision, at most."""
MIN_SHARE = 0.05
"""Share of all movement that a factor must cause to be a reason beside a larger one."""
Direction: TypeAlias = Literal["raises", "lowers"]

_PAST_TENSE = {"raises": "raised", "lowers": "lowered"}


@dataclass(frozen=True)
class ReasonText:
    """One factor of one decision: a feature, or the features of one theme together.

    Attributes
    ----------
    code
        Stable code: the theme in capitals, or the feature's name where it has no theme.
    feature, sentence
        The feature of the factor that moved the score most in this direction, and a sentence on its effect.
    features
        All features of the factor, in the order of the model; all must change for the reason to disappear.
    contribution
        Their joint contribution to the margin, less that of the reference where there is one.
    """

    code: str
    feature: str
    sentence: str
    contribution: float
    features: tuple[str, ...]


def find_reasons(
    contributions: ArrayLike,
    features: Sequence[Feature],
    *,
    direction: Direction = "raises",
    reference: ArrayLike | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    limit: int = MAX_REASONS,
    smallest_share: float = MIN_SHARE,
) -> tuple[ReasonText, ...]:
    """Return the factors that moved one decision most in one direction, largest first; none where nothing moved it that way.

    Parameters
    ----------
    contributions
        One row of `Scores.contributions`, shape (d,), in margin units.
    features
        Features of the bundle, in the same order.
    direction
        ``raises`` explains a high risk, ``lowers`` a low risk.
    reference
        Contributions to compare with, shape (d,): for a refusal those of the applicants just approved (`Bundle.reference`),
        because a factor may look bad against the average and still be common among approved applicants. None compares with the average.
    groups
        `group_by_factor` of the features, for a caller that explains many rows.
    limit
        Largest number of reasons.
    smallest_share
        A factor that caused less than this share of all movement, in both directions together, is no reason beside a larger one.

    Raises
    ------
    ValueError
        For contributions that are not one finite number per feature.
    """
    moves = np.asarray(contributions, np.float64)
    if reference is not None:
        moves = moves - np.asarray(reference, np.float64)
    if moves.shape != (len(features),) or not np.isfinite(moves).all():
        raise ValueError(f"contributions of shape {moves.shape} for {len(features)} features, or not all of them finite")
    groups = groups or group_by_factor(features)
    return tuple(
        ReasonText(
            factor_code(features[strongest]),
            features[strongest].name,
            build_sentence(features[strongest], direction),
            total,
            list_members(features, groups, strongest),
        )
        for strongest, total in rank_factors(moves.tolist(), groups, direction, limit=limit, smallest_share=smallest_share)
    )


def rank_factors(
    moves: Sequence[float],
    groups: Mapping[str, Sequence[int]],
    direction: Direction,
    *,
    limit: int = MAX_REASONS,
    smallest_share: float = MIN_SHARE,
) -> list[tuple[int, float]]:
    """Return the strongest column and the joint contribution of each factor that `find_reasons` names, largest first.

    Parameters
    ----------
    moves
        One row of finite contributions, less the reference where there is one.
    groups
        `group_by_factor` of the features.
    direction, limit, smallest_share
        As of `find_reasons`.
    """
    is_raised = direction == "raises"
    members = [*groups.values()]
    totals = [math.fsum(map(moves.__getitem__, columns)) for columns in members]
    min_total = smallest_share * math.fsum(map(abs, totals))
    # Equal factors stay in the order of the features.
    ranked = sorted(range(len(totals)), key=totals.__getitem__, reverse=is_raised)[:limit]
    pick_strongest = max if is_raised else min  # the first of equals
    return [
        (pick_strongest(members[factor], key=moves.__getitem__), totals[factor])
        for rank, factor in enumerate(ranked)
        if (totals[factor] > 0 if is_raised else totals[factor] < 0) and (rank == 0 or abs(totals[factor]) >= min_total)
    ]


def group_by_factor(features: Sequence[Feature]) -> dict[str, list[int]]:
    """Return the columns of each factor, in the order of the features."""
    columns_of_factor: dict[str, list[int]] = {}
    for column, feature in enumerate(features):
        columns_of_factor.setdefault(feature.factor, []).append(column)
    return columns_of_factor


def list_members(features: Sequence[Feature], groups: Mapping[str, Sequence[int]], column: int) -> tuple[str, ...]:
    """Return the names of the features that share the factor of a column, in the order of the features."""
    return tuple(features[member].name for member in groups[features[column].factor])


def build_sentence(feature: Feature, direction: Direction) -> str:
    """Return the sentence for a feature that moved a score in this direction."""
    text = feature.raises if direction == "raises" else feature.lowers
    text = text or f"{feature.description or feature.name} {_PAST_TENSE[direction]} the risk"
    return text[0].upper() + text[1:]


def factor_code(feature: Feature) -> str:
    """Return the code of a feature's factor."""
    return re.sub(r"[^A-Z0-9]+", "_", (feature.theme or feature.name).upper()).strip("_")
