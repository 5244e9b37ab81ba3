"""Reason codes: at most four sentences that explain one decision, each of them true of the values that were decided on.

This module turns contributions into words, for training and the service alike, with the standard library and numpy only.
Contributions come from `bundle`, sentences from each feature's declaration, bounds from the bundle's `feature_values`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from finrisk_assets.scoring.feature_values import FeatureValues
from schemas.features import Feature

MAX_REASONS = 4
"""Reasons of one decision, at most."""
MIN_SHARE = 0.05
"""Share of all movement that a factor must cause to be a reason beside a larger one."""
MIN_SPEAKER_SHARE = 0.25
"""Share of its factor's largest contribution that a feature needs to speak for the factor."""
OTHERS = "others"
"""The name of the reference group of a bundle that names none."""

Direction: TypeAlias = Literal["raises", "lowers"]
Claim: TypeAlias = Literal["missing", "zero", "one", "low", "high", "fact"]

_SIDES: Mapping[str, int] = {"one": 1, "high": 1, "zero": -1, "low": -1}
"""The side of the values that a claim is about."""
_LOGARITHM = re.compile(r"^(natural )?logarithm of (1 \+ )?", re.IGNORECASE)

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


@dataclass(frozen=True)
class ReasonText:
    """One factor of one decision: a feature, or the features of one theme together.

    Attributes
    ----------
    code
        Stable code: the theme in capitals, or the feature's name where it has no theme.
    feature, sentence
        The feature that speaks for the factor, and a true sentence about its value.
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
    row: ArrayLike,
    features: Sequence[Feature],
    values: Sequence[FeatureValues] = (),
    *,
    group_name: str = OTHERS,
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
    row
        The values, shape (d,), NaN where missing.
    features, values
        Features of the bundle, in the same order, and what training saw of each; without `values` nothing is called low or high.
    group_name
        The reference group in words, a plural.
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
    numbers, movements, words = np.asarray(row, np.float64).tolist(), moves.tolist(), FactorWords(features, values, group_name)
    reasons = []
    for strongest, total in rank_factors(movements, groups, direction, limit=limit, smallest_share=smallest_share):
        members = groups[features[strongest].factor]
        speaker, sentence = words.word_factor(members, movements, numbers, direction)
        names = list_members(features, groups, strongest)
        if sentence:
            reasons.append(ReasonText(factor_code(features[strongest]), features[speaker].name, sentence, total, names))
    return tuple(reasons)


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


class FactorWords:
    """The words for the factors of one bundle; what depends on no decision is prepared once.

    Parameters
    ----------
    features, values, group_name
        As of `find_reasons`.
    """

    def __init__(self, features: Sequence[Feature], values: Sequence[FeatureValues], group_name: str) -> None:
        self._features = features
        self._known: list[FeatureValues | None] = [*values] if values else [None] * len(features)
        self._group_name = group_name
        columns = {feature.name: column for column, feature in enumerate(features)}
        # A column, and that of the feature that speaks for it where the model has it.
        self._speakers = [
            [column, *([columns[feature.spoken_by]] if feature.spoken_by in columns else [])] for column, feature in enumerate(features)
        ]
        self._usual: dict[tuple[int, Claim], tuple[str, str]] = {}

    def word_factor(self, members: Sequence[int], moves: Sequence[float], row: Sequence[float], direction: Direction) -> tuple[int, str]:
        """Return the column that speaks for a factor, and its sentence.

        The feature with the largest contribution speaks, or the next one of which something can be said; where nothing can, the sentence
        tells the value alone. It is empty where the value is missing and nothing is said of that.

        Parameters
        ----------
        members
            Columns of the factor.
        moves, row, direction
            As of `find_reasons`.
        """
        sign = 1 if direction == "raises" else -1
        ordered = sorted(members, key=moves.__getitem__, reverse=sign > 0)  # equal ones in the order of the features
        least = MIN_SPEAKER_SHARE * sign * moves[ordered[0]]
        for column in ordered:
            if sign * moves[column] < least:
                break
            for speaker in self._speakers[column]:
                claim = choose_claim(self._features[speaker], row[speaker], self._known[speaker], direction)
                if claim is not None:
                    return speaker, self._write_sentence(speaker, claim, row[speaker])
        return ordered[0], self._write_sentence(ordered[0], "fact", row[ordered[0]])

    def _write_sentence(self, column: int, claim: Claim, value: float) -> str:
        """Return the sentence of a claim, with the value and what is usual where they help."""
        feature = self._features[column]
        if math.isnan(value) and not feature.tells_missing:
            return ""
        label = feature.description.split(";")[0].rstrip(".").removesuffix(", likewise") or feature.name
        if feature.scale:  # its value is written as that of which it is the logarithm
            label = _LOGARITHM.sub("", label)
        if feature.is_category and not math.isnan(value):
            level = name_level(feature, value)
            return f"{label[0].upper()}{label[1:]}" + (": one that training did not see" if level is None else f" {level}")
        if claim == "missing" or math.isnan(value):
            text = feature.missing or f"Not known: {label[0].lower()}{label[1:]}"
        elif claim in ("zero", "one"):
            text = feature.zero if claim == "zero" else feature.one
        elif claim == "fact" and feature.fact:
            month = _MONTHS[int(value) - 1] if 1 <= value <= len(_MONTHS) else ""
            text = feature.fact.format(value=format_value(feature, value), number=_round(value), month=month)
        elif claim == "fact":
            text = f"{label}: {self._compare(column, claim, format_value(feature, value))}"
        else:
            text = feature.low if claim == "low" else feature.high
            if feature.unit or not feature.is_absolute:
                text += f": {self._compare(column, claim, format_value(feature, value))}"
        return text[0].upper() + text[1:]

    def _compare(self, column: int, claim: Claim, value: str) -> str:
        """Return a value, with what the reference group usually has unless that is not known, or reads as the value does."""
        if (column, claim) not in self._usual:
            self._usual[column, claim] = _describe_usual(self._features[column], claim, self._known[column], self._group_name)
        alike, usual = self._usual[column, claim]
        return value if value == alike else value + usual


def _describe_usual(feature: Feature, claim: Claim, known: FeatureValues | None, group_name: str) -> tuple[str, str]:
    """Return the value that reads as the usual one does, and what the reference group usually has; empty where that is not known."""
    if feature.is_absolute or known is None or known.low is None or known.high is None or feature.unit == "0 or 1":
        return "", ""
    low, high = format_value(feature, known.low), format_value(feature, known.high)
    usual = f"{low} to {high}"
    if low == high:
        usual = low
    elif claim == "low":
        usual = f"at least {low}"
    elif claim == "high":
        usual = f"at most {high}"
    return {"low": low, "high": high}.get(claim, low if low == high else ""), f"; {group_name} usually have {usual}"


def choose_claim(feature: Feature, value: float, known: FeatureValues | None, direction: Direction) -> Claim | None:
    """Return the claim that holds of a value and has a sentence; None where there is none.

    A claim of a feature with a certain direction must lie on the side that moves the score in this direction.
    """
    claim: Claim
    if math.isnan(value):
        return "missing" if feature.tells_missing else None
    if feature.is_category:
        return "fact"
    if value == 0 and feature.zero:
        claim = "zero"
    elif value == 1 and feature.one:
        claim = "one"
    elif feature.low and is_low(feature, value, known):
        claim = "low"
    elif feature.high and is_high(feature, value, known):
        claim = "high"
    else:
        return "fact" if feature.fact else None
    is_against = feature.monotone * _SIDES[claim] * (1 if direction == "raises" else -1) < 0
    return None if is_against else claim


def name_level(feature: Feature, value: float) -> str | None:
    """Return the level of a category by its number in a row; None where it is missing, or one that training did not see."""
    return None if math.isnan(value) or value >= len(feature.levels) else feature.levels[int(value)]


def is_low(feature: Feature, value: float, known: FeatureValues | None) -> bool:
    """Return whether a value is low: in the lowest quarter of the reference group, and below the feature's own bound."""
    if feature.low_below is not None and not value < feature.low_below:
        return False
    if feature.is_absolute:
        return feature.low_below is not None
    return known is not None and known.low is not None and known.middle is not None and value <= known.low and value < known.middle


def is_high(feature: Feature, value: float, known: FeatureValues | None) -> bool:
    """Return whether a value is high: in the highest quarter of the reference group, and above the feature's own bound."""
    if feature.high_above is not None and not value > feature.high_above:
        return False
    if feature.is_absolute:
        return feature.high_above is not None
    return known is not None and known.high is not None and known.middle is not None and value >= known.high and value > known.middle


def format_value(feature: Feature, value: float) -> str:
    """Return a value in the unit that people read: shares in per cent, logarithms as what they are of."""
    unit, number = feature.unit, value
    if feature.scale:
        number = math.exp(min(value, 700.0)) - (feature.scale == "log1p")
        unit = unit.removeprefix("log ")
    if unit == "0 or 1":
        return "yes" if number else "no"
    if unit in ("", "share", "ratio"):
        return f"{_round(100 * number)} %"
    if unit == "number":
        return _round(number)
    if unit.startswith("percent"):
        return f"{_round(number)} %"
    if unit.startswith("currency"):
        return f"{_round(number)}{unit.removeprefix('currency')}"
    return f"{_round(number)} {_singular(unit) if number == 1 else unit}"


def _round(number: float) -> str:
    """Return a number with three digits, or all digits before the point."""
    # 999.7 has the three digits of 1,000.
    if abs(number) >= 999.5:
        return f"{number:,.0f}"
    return f"{round(number, 3):.3g}" if abs(number) < 1000 and float(f"{number:.3g}") != 0 else "0"


def _singular(unit: str) -> str:
    """Return a unit of one: ``months overdue`` as ``month overdue``."""
    first, *rest = unit.split(" ")
    first = f"{first[:-3]}y" if first.endswith("ies") else first.removesuffix("s")
    return " ".join([first, *rest])


def factor_code(feature: Feature) -> str:
    """Return the code of a feature's factor."""
    return re.sub(r"[^A-Z0-9]+", "_", (feature.theme or feature.name).upper()).strip("_")
