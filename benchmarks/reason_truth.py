"""Whether the sentences of reasons are true: each is read back and checked against the value, by code that shares nothing with the choice.

A sentence is matched with those that its feature declares, in ``bundle.json`` itself, and the declared predicate is evaluated; the number
in it must be the value. Reasons are made by `finrisk_assets.scoring.reasons`; here they are only read.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.reasons import ReasonText, find_reasons
from finrisk_assets.scoring.spec import Rows

TOLERANCE = 0.006
"""Share by which a written number may differ from the value: three digits are written."""
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]


@dataclass
class Truth:
    """Counts of decisions and sentences, and the false sentences with their values."""

    decisions: int = 0
    sentences: int = 0
    false: list[str] = field(default_factory=list)
    contradictions: int = 0

    def add(self, other: "Truth") -> None:
        """Add the counts of other decisions."""
        self.decisions += other.decisions
        self.sentences += other.sentences
        self.false += other.false
        self.contradictions += other.contradictions


def check_decisions(folder: Path, rows: Rows, *, block_rows: int = 2_000) -> Truth:
    """Explain a decision on each row, and check every sentence.

    Parameters
    ----------
    folder
        The bundle's folder.
    rows
        float32, shape (n, d). Every second decision is explained as one that goes against the person, the others as one that does not.
    """
    bundle, manifest, truth = Bundle.load(folder), json.loads((folder / "bundle.json").read_bytes()), Truth()
    declared = {feature["name"]: (feature, seen) for feature, seen in zip(manifest["features"], manifest["values"], strict=True)}
    for start in range(0, len(rows), block_rows):
        block = rows[start : start + block_rows]
        for at, (row, reasons) in enumerate(zip(block, _explain(bundle, block), strict=True)):
            values = dict(zip(declared, row.tolist(), strict=True))
            truth.decisions += 1
            truth.sentences += len(reasons)
            truth.contradictions += len({reason.code for reason in reasons}) < len(reasons)
            truth.contradictions += len({reason.sentence for reason in reasons}) < len(reasons)
            truth.false += [
                f"{bundle.domain}, row {start + at}: {reason.feature} = {values[reason.feature]:g}: {reason.sentence}"
                for reason in reasons
                if not is_true(reason.sentence, values[reason.feature], *declared[reason.feature])
            ]
    return truth


def _explain(bundle: Bundle, rows: Rows) -> Iterator[tuple[ReasonText, ...]]:
    for at, (row, moved) in enumerate(zip(rows, bundle.score(rows).contributions, strict=True)):
        direction = "lowers" if at % 2 else "raises"
        against = None if at % 2 else bundle.reference
        yield find_reasons(
            moved, row, bundle.features, bundle.values, group_name=bundle.reference_group, direction=direction, reference=against
        )


def is_true(sentence: str, value: float, feature: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    """Return whether a sentence is true of a value.

    Parameters
    ----------
    sentence
        As it was answered.
    feature, seen
        The feature and its values in training, as ``bundle.json`` has them.
    """
    claim, _, figures = sentence.partition(": ")
    said = {kind for kind in ("low", "high", "zero", "one", "missing") if feature[kind] and claim.lower() == feature[kind].lower()}
    if said:
        return any(_holds(kind, value, feature, seen) for kind in said) and _is_number_right(figures, value, feature)
    if claim == "Not known":
        return math.isnan(value)
    if feature["fact"]:
        month = MONTHS[int(value) - 1] if 1 <= value <= len(MONTHS) else ""
        pattern = re.escape(feature["fact"]).replace(r"\{month\}", month).replace(r"\{value\}", ".*").replace(r"\{number\}", r"[\d.]+")
        return re.fullmatch(pattern, sentence, re.IGNORECASE) is not None and _is_number_right(sentence, value, feature)
    label = feature["description"].lower()
    if feature["is_category"] and not math.isnan(value):
        levels = feature["levels"]
        level = f" {levels[int(value)]}" if value < len(levels) else ": one that training did not see"
        return sentence.lower() == f"{label.rstrip('.')}{level}".lower()
    if feature["scale"]:
        label = label.partition("logarithm of ")[2].removeprefix("1 + ")
    return not math.isnan(value) and label.startswith(claim.lower()) and _is_number_right(figures, value, feature)


def _holds(kind: str, value: float, feature: Mapping[str, Any], seen: Mapping[str, Any]) -> bool:
    if kind == "missing" or math.isnan(value):
        return kind == "missing" and math.isnan(value)
    if kind in ("zero", "one"):
        return value == (kind == "one")
    bound, sign = (feature["low_below"], -1) if kind == "low" else (feature["high_above"], 1)
    if bound is not None and sign * value <= sign * bound:
        return False
    if feature["is_absolute"]:
        return bound is not None
    return seen["middle"] is not None and sign * value >= sign * seen[kind] and sign * value > sign * seen["middle"]


def _is_number_right(figures: str, value: float, feature: Mapping[str, Any]) -> bool:
    """Return whether the first number of some figures is the value; figures without a number are right."""
    found = re.search(r"-?[\d,]+(\.\d+)?(e-?\d+)?", figures)
    if found is None or feature["unit"] == "0 or 1" or math.isnan(value):
        return True
    written, number = float(found[0].replace(",", "")), value
    if feature["scale"]:
        number = math.exp(value) if feature["scale"] == "log" else math.expm1(value)
    if feature["unit"] == "" or (not feature["scale"] and feature["unit"] in ("share", "ratio")):
        number = 100 * number
    if feature["unit"] == "" and "{month}" in feature["fact"]:
        return True
    return abs(written - number) <= max(TOLERANCE * abs(number), 0.006)


def draw_rows(rows: Rows, limit: int, seed: int) -> Rows:
    """Return at most so many rows, drawn at random."""
    return rows if len(rows) <= limit else rows[np.sort(np.random.default_rng(seed).choice(len(rows), limit, replace=False))]
