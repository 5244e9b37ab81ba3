"""The validation pack of one model version, as plain values: its figures, the artifacts they come from, and the means to check both.

This module holds the manifest (``pack.json``), its canonical bytes, and the comparisons of a verification. `card` renders the pages;
`finrisk_assets.graph.stages.pack` collects a pack, and `finrisk_assets.operations.verify_pack` recomputes its figures.
"""

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from html.parser import HTMLParser
from typing import Any

FORMAT = 1
MANIFEST, CARD_PAGE, PACK_PAGE = "pack.json", "card.html", "pack.html"
RELATIVE_TOLERANCE = 1e-9
"""Relative tolerance of a recomputed figure, for sums of floating point in another order."""
ABSOLUTE_TOLERANCE = 1e-12
"""Absolute tolerance; below it both figures are only rounding errors."""
HASH_DIGITS = 8
"""Hex digits of a hash that are shown beside a figure."""
MIN_GROUP_PEOPLE = 10
"""People; a figure of fewer is withheld, because it might reveal a person's data."""


class PackError(ValueError):
    """A pack that cannot be read or written; the message names the file, the reason and the remedy."""


@dataclass(frozen=True)
class Artifact:
    """A source of figures, identified by the SHA-256 of its bytes.

    Attributes
    ----------
    name
        ``bundle/bundle.json``, ``snapshot``, ``evaluation``, ``plots/test_roc_pr.png``.
    sha256
        SHA-256 of its bytes.
    place
        Where it is stored, in words.
    """

    name: str
    sha256: str
    place: str

    @property
    def short(self) -> str:
        """The first digits of the hash."""
        return self.sha256[:HASH_DIGITS]


@dataclass(frozen=True)
class PackFigure:
    """One figure of the pack.

    Attributes
    ----------
    key
        Unique: what computed the figure and its name there, ``evaluation/auc``.
    group
        One of `GROUPS`.
    label, meaning
        Its label for a reader, and its explanation.
    artifact
        The name of the artifact that it was read from.
    value, low, high
        The value, with its 95 % interval where it has one. None where the figure is of too few people.
    """

    key: str
    group: str
    label: str
    meaning: str
    artifact: str
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def metric(self) -> str:
        """The name of the metric, without what computed it."""
        return self.key.split("/", 1)[1]

    def format_bound(self, bound: str) -> str:
        """Return the value, ``low`` or ``high`` as the pages show it."""
        return format_value(getattr(self, bound), is_count=self.metric.startswith("n_"))


@dataclass(frozen=True)
class Picture:
    """A plot: its artifact, the group of figures it belongs to, and its caption."""

    artifact: str
    group: str
    caption: str


@dataclass(frozen=True)
class PackVerdict:
    """One demand of the gate, and the reasons why it is not met; no reasons where it is met."""

    demand: str
    meaning: str
    reasons: tuple[str, ...] = ()

    @property
    def is_met(self) -> bool:
        """True if the demand is met."""
        return not self.reasons


@dataclass(frozen=True)
class Pack:
    """The content of both pages.

    Attributes
    ----------
    domain, title, owner, source
        Name, title and owner of the domain, and the ledger that the model learned from.
    model, registry_version, version, run_id
        Name and number in the registry, the bundle's version, and the MLflow run that trained it.
    settings
        Settings behind the figures: ``as_of``, ``seed`` and the others that matter.
    texts
        Heading -> Markdown, from the domain's documentation.
    facts
        Name -> text: time windows, hashes of data and code, libraries.
    features
        Rows of name, unit, description, direction and the two sentences.
    history
        Rows of the registry's versions up to this version, the newest first.
    artifacts, figures, pictures, verdicts
        As above.
    """

    domain: str
    title: str
    owner: str
    source: str
    model: str
    registry_version: str
    version: str
    run_id: str
    settings: Mapping[str, Any]
    texts: Mapping[str, str]
    facts: Mapping[str, str]
    features: Sequence[Mapping[str, str]]
    history: Sequence[Mapping[str, str]]
    artifacts: Sequence[Artifact]
    figures: Sequence[PackFigure]
    pictures: Sequence[Picture] = ()
    verdicts: Sequence[PackVerdict] = ()

    @cached_property
    def by_key(self) -> dict[str, PackFigure]:
        """Figures by key."""
        return {figure.key: figure for figure in self.figures}

    @cached_property
    def by_artifact(self) -> dict[str, Artifact]:
        """Artifacts by name."""
        return {artifact.name: artifact for artifact in self.artifacts}

    @property
    def is_supported(self) -> bool:
        """True if every demand of the gate is met."""
        return all(verdict.is_met for verdict in self.verdicts)

    def figures_of(self, group: str) -> list[PackFigure]:
        """Return the figures of one group, in order."""
        return [figure for figure in self.figures if figure.group == group]

    def pictures_of(self, group: str) -> list[Picture]:
        """Return the pictures of one group, in order."""
        return [picture for picture in self.pictures if picture.group == group]


# Groups ------------------------------------------------------------------------------------------------------------------------

GROUPS: Mapping[str, tuple[str, str]] = {
    "sample": ("Sample", "The rows behind the figures."),
    "discrimination": ("Discrimination", "How well the score ranks rows with the outcome above rows without."),
    "calibration": ("Calibration", "Whether predicted probabilities match observed rates."),
    "amounts": ("Amounts and their intervals", "How far off the amounts are, and how often their intervals hold."),
    "decisions": ("Decisions", "The value of the decisions at these thresholds, and the share of people they affect."),
    "comparison": ("Comparison with the champion before", "The same frozen window, scored by both models."),
    "stability": ("Stability", "Whether the figures hold throughout the window."),
    "explanation": ("Explanation", "The effect of features on the score, and whether the explanations sum to it."),
    "metamorphic": ("Changes that must not matter", "Scores after a change of the ledger: payday, and all dates with the decision's."),
    "consistency": ("Consistency", "Whether decisions on all people agree: offers with loans and with spending risk, and by payday."),
    "fairness": ("Fairness", "How decisions and probabilities differ between groups of people. No bound here is a law."),
    "oracle": ("Beside the oracle", "The model compared with the true probabilities, which only a simulator knows."),
    "candidates": ("Candidates", "The fitted candidates, on the validation window that the choice was based on."),
    "thresholds": ("Thresholds and limits", "Where decisions change by the policy, and the limits that the model learned."),
    "other": ("Other figures", ""),
}
"""Group -> its heading and its explanation, in the order of the pages."""

_GROUP_PATTERNS: tuple[tuple[str, str], ...] = (
    ("fairness", r"fairness(_accepted)?/"),
    ("stability", r"stability|psi|.*_weekly"),
    ("comparison", r"champion|.*_beside_champion"),
    ("sample", r"n_"),
    ("explanation", r"importance_|explanation"),
    ("amounts", r"interval_|share_below_interval|mean_interval|pinball|mae_"),
    ("discrimination", r".*auc|gini|ks$|average_precision|precision_at|card_precision"),
    ("calibration", r"brier|log_loss|approved_|calibration|expected_calibration|.*_rate$|mean_|grade_"),
    ("decisions", r"emp$|share_|profit|gain|benefit|approval|refused|review|cost"),
)


def find_group(metric: str) -> str:
    """Return the group of an evaluation's figure, by its name; ``other`` where no pattern matches."""
    return next((group for group, pattern in _GROUP_PATTERNS if re.match(pattern, metric)), "other")


_LABELS = {
    "auc": "AUC",
    "gini": "Gini",
    "ks": "KS",
    "brier": "Brier score",
    "emp": "EMP",
    "n_test": "Rows in the test window",
}
_MEANINGS = {
    "gini": "2 AUC − 1",
    "ks": "largest distance of the scores' distributions for either outcome",
    "average_precision": "mean of the precision over the recall",
    "brier": "mean squared distance of probability and outcome",
    "log_loss": "mean negative log-likelihood of the outcomes",
    "calibration_slope": "1 where probabilities are neither too extreme nor too tame",
    "calibration_intercept": "0 where, at a slope of 1, the level is right",
    "expected_calibration_error": "mean distance of probability and rate over groups of equal size",
}
"""Figure -> its explanation, where the evaluation has none."""
_ACRONYMS = {"auc": "AUC", "psi": "PSI", "ks": "KS", "pd": "PD", "mae": "MAE", "cp": "CP", "tpr": "TPR", "n": "Number of"}


def format_label(metric: str) -> str:
    """Return a figure's label for a reader: ``auc_above_persistence`` becomes ``AUC above persistence``."""
    if metric in _LABELS:
        return _LABELS[metric]
    if metric.startswith("importance_"):
        return metric.removeprefix("importance_")
    if metric.startswith(("fairness/", "fairness_accepted/")):
        kind, measure, *at, group = metric.split("/")
        accepted = ["accepted"] if kind == "fairness_accepted" else []
        return ", ".join([group, measure.replace("_", " "), *(f"at {cutoff}" for cutoff in at), *accepted])
    words = [_ACRONYMS.get(word, word) for word in metric.split("_")]
    return " ".join([words[0] if words[0] in _ACRONYMS.values() else words[0].capitalize(), *words[1:]])


def build_figures(rows: Sequence[Mapping[str, Any]], computed_by: str, artifact: str, group: str = "") -> list[PackFigure]:
    """Return the figures of an evaluation's table; figures of too few people have no values.

    Parameters
    ----------
    rows
        ``metric``, ``value``, ``low``, ``high``, ``meaning``.
    computed_by
        First part of their keys: ``evaluation``, ``oracle``, ``metamorphic`` or ``consistency``.
    artifact
        The name of the artifact that they were read from.
    group
        Group of all of them; empty to find it by the metric.
    """
    figures = []
    for row in rows:
        metric, group_name = row["metric"], group or find_group(row["metric"])
        value, low, high = (_to_number(row.get(bound)) for bound in ("value", "low", "high"))
        meaning = _remove_label(row.get("meaning") or _MEANINGS.get(metric, ""), format_label(metric))
        if _is_of_few_people(metric, value, low):
            value, low, high, meaning = None, None, None, f"withheld: of fewer than {MIN_GROUP_PEOPLE} people"
        figures.append(PackFigure(f"{computed_by}/{metric}", group_name, format_label(metric), meaning, artifact, value, low, high))
    return figures


def _is_of_few_people(metric: str, value: float | None, low: float | None) -> bool:
    """Return whether a rate is of fewer than `MIN_GROUP_PEOPLE` people: its Jeffreys interval is that of so small a number."""
    from scipy.stats import beta

    if not metric.endswith("_rate") or value is None or low is None:
        return False
    events = [(round(value * n), n) for n in range(1, MIN_GROUP_PEOPLE) if is_close(round(value * n) / n, value)]
    return any(math.isclose(float(beta.ppf(0.025, k + 0.5, n - k + 0.5)), low, rel_tol=1e-6) for k, n in events)


def _remove_label(meaning: str, label: str) -> str:
    """Return the meaning without what the label, the value and its interval state already."""
    if meaning.lower() == label.lower():
        return ""
    match = re.fullmatch(r".+?: [a-z ]+?( against .+?)? -?\d+\.\d+ \[[^]]+\] (.+)", meaning)
    return meaning if match is None else f"{(match[1] or '').strip()}{': ' if match[1] else ''}{match[2]}"


def _to_number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def format_value(value: float | None, *, is_count: bool = False) -> str:
    """Return a number as the pages show it: counts whole, others with their significant digits."""
    if value is None:
        return "–"
    magnitude, sign = abs(value), "−" if value < 0 else ""
    if is_count or magnitude >= 1_000:
        return f"{sign}{magnitude:,.0f}"
    if 0 < magnitude < 5e-5:
        return f"{sign}{magnitude:.1e}"
    return f"{sign}{magnitude:.{4 if magnitude < 10 else 2 if magnitude < 100 else 1}f}"


# The manifest ------------------------------------------------------------------------------------------------------------------


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def canonical_json(document: Any) -> bytes:
    """Return a document as JSON whose bytes depend on its values alone.

    Raises
    ------
    PackError
        For a number that is not finite.
    """
    try:
        return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise PackError(f"a pack holds finite numbers only: {error}") from error


def build_manifest(pack: Pack, pages: Mapping[str, str]) -> bytes:
    """Return the bytes of ``pack.json``: the pack, and the hashes of its pages."""
    return canonical_json(asdict(pack) | {"format": FORMAT, "pages": {name: sha256(text.encode()) for name, text in pages.items()}})


def read_manifest(content: bytes, where: str = MANIFEST) -> tuple[Pack, dict[str, str]]:
    """Return the pack of a ``pack.json``, and the hashes of its pages.

    Raises
    ------
    PackError
        For content that is not a manifest of this format.
    """
    try:
        document = json.loads(content)
        if document.pop("format") != FORMAT:
            raise PackError(f"{where}: is of another format than {FORMAT}, which is read here; materialise the pack again")
        pages = document.pop("pages")
        parts = {
            "artifacts": [Artifact(**row) for row in document["artifacts"]],
            "figures": [PackFigure(**row) for row in document["figures"]],
            "pictures": [Picture(**row) for row in document["pictures"]],
            "verdicts": [PackVerdict(**row | {"reasons": tuple(row["reasons"])}) for row in document["verdicts"]],
        }
        return Pack(**document | parts), pages
    except PackError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PackError(f"{where}: is not a validation pack's manifest ({error}); materialise the pack again") from error


# Verification ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The result of one kind of check: how many items agree, and a sentence for each that does not."""

    name: str
    agree: int
    disagreements: Sequence[str] = ()

    @property
    def total(self) -> int:
        """The number of items compared."""
        return self.agree + len(self.disagreements)

    def __str__(self) -> str:
        return f"{self.name}: {self.agree} of {self.total} agree"


def count_outcomes(name: str, results: Iterable[str | None]) -> Outcome:
    """Return the outcome of checks, each None where it agreed, else a sentence."""
    all_results = list(results)
    disagreements = [result for result in all_results if result is not None]
    return Outcome(name, len(all_results) - len(disagreements), disagreements)


def is_close(first: float | None, second: float | None) -> bool:
    """Return whether two figures are equal within `RELATIVE_TOLERANCE`."""
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE)


def compare_figures(claimed: Sequence[PackFigure], recomputed: Sequence[PackFigure], against: str) -> list[Outcome]:
    """Compare the figures of a pack with the same figures recomputed; one outcome per group.

    Parameters
    ----------
    claimed, recomputed
        The figures of the pack, and the recomputed figures.
    against
        What the recomputed figures come from, in words.
    """
    recomputed_by_key = {figure.key: figure for figure in recomputed}
    claimed_keys = {figure.key for figure in claimed}
    missing = [replace(figure, artifact="") for figure in recomputed if figure.key not in claimed_keys]
    outcomes = []
    for group in GROUPS:
        results = [_compare_figure(figure, recomputed_by_key.get(figure.key), against) for figure in claimed if figure.group == group]
        results += [
            f"{MANIFEST}: {figure.key} is missing; {against} gives {_format_full(figure.value)}"
            for figure in missing
            if figure.group == group
        ]
        if results:
            outcomes.append(count_outcomes(GROUPS[group][0], results))
    return outcomes


def _compare_figure(figure: PackFigure, recomputed: PackFigure | None, against: str) -> str | None:
    if recomputed is None:
        return f"{MANIFEST}: {figure.key} stands there, but {against} does not give it"
    if (figure.group, figure.label, figure.meaning, figure.artifact) != (
        recomputed.group,
        recomputed.label,
        recomputed.meaning,
        recomputed.artifact,
    ):
        return f"{MANIFEST}: the label or the meaning of {figure.key} is not the one that {against} gives"
    for bound in ("value", "low", "high"):
        claimed, computed = getattr(figure, bound), getattr(recomputed, bound)
        if not is_close(claimed, computed):
            return f"{MANIFEST}: the {bound} of {figure.key} is {_format_full(claimed)} there, {_format_full(computed)} from {against}"
    return None


def _format_full(value: float | None) -> str:
    return "missing" if value is None else f"{value:.12g}"


def compare_page(pack: Pack, page: str, name: str, *, whole: bool) -> Outcome:
    """Compare a page with the manifest: every figure, bound by bound, the hash beside it, and every picture's bytes.

    Parameters
    ----------
    whole
        Whether the page must show every figure and picture of the manifest.
    """
    reader = _PageReader()
    reader.feed(page)
    results: list[str | None] = []
    for line, key, bound, full_value, text in reader.figures:
        results.append(_compare_shown(pack, f"{name}, line {line}", key, bound, full_value, text))
    for line, artifact, digest in reader.pictures:
        artifact_of_picture = pack.by_artifact.get(artifact)
        where = f"{name}, line {line}"
        results.append(
            None
            if artifact_of_picture and artifact_of_picture.sha256 == digest
            else f"{where}: the picture {artifact} is not the one of {MANIFEST}"
        )
    if whole:
        on_page = {(key, bound) for _, key, bound, _, _ in reader.figures}
        for figure in pack.figures:
            bounds = ["value", "artifact", *(bound for bound in ("low", "high") if getattr(figure, bound) is not None)]
            lacking = [bound for bound in bounds if (figure.key, bound) not in on_page]
            if lacking:
                results.append(f"{name}: does not show the {lacking[0]} of {figure.key}, which is in {MANIFEST}")
        pictures = {artifact for _, artifact, _ in reader.pictures}
        results += [f"{name}: does not show {picture.artifact}" for picture in pack.pictures if picture.artifact not in pictures]
    return count_outcomes(f"Shown in {name}", results)


def _compare_shown(pack: Pack, where: str, key: str, bound: str, full_value: str, text: str) -> str | None:
    figure = pack.by_key.get(key)
    if figure is None or bound not in ("value", "low", "high", "artifact"):
        return f"{where}: shows {key}, which is not in {MANIFEST}"
    if bound == "artifact":
        artifact = pack.by_artifact.get(figure.artifact)
        is_right = artifact is not None and text == artifact.short and full_value == artifact.sha256
        return None if is_right else f"{where}: {key} carries the hash {text}, not that of {figure.artifact}"
    claimed = getattr(figure, bound)
    if text == figure.format_bound(bound) and full_value == ("" if claimed is None else repr(claimed)):
        return None
    return f"{where}: shows {text} ({full_value or 'no number'}) as the {bound} of {key}; {MANIFEST} has {_format_full(claimed)}"


@dataclass
class _PageReader(HTMLParser):
    """The content of a page: each ``<data data-figure=… data-bound=… value=…>text</data>`` and each picture, with its line."""

    figures: list[tuple[int, str, str, str, str]] = field(default_factory=list)
    pictures: list[tuple[int, str, str]] = field(default_factory=list)
    _open: tuple[int, str, str, str] | None = None
    _text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "data":
            self._open = (
                self.getpos()[0],
                attributes.get("data-figure", ""),
                attributes.get("data-bound", ""),
                attributes.get("value", ""),
            )
            self._text = ""
        elif tag == "img":
            try:
                content = base64.b64decode(attributes.get("src", "").removeprefix("data:image/png;base64,"), validate=True)
            except binascii.Error:
                content = b""
            self.pictures.append((self.getpos()[0], attributes.get("data-artifact", ""), sha256(content)))

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "data" and self._open is not None:
            self.figures.append((*self._open, self._text))
            self._open = None
