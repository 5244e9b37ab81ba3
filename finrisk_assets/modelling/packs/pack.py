"""The validation pack of one model version, as plain values: its figures, what each came from, and how both are checked again.

Here are the manifest (``pack.json``), its canonical bytes, and the comparisons of a verification. How the manifest is shown is in
`card`; who gathers it and who recomputes the figures is in `finrisk_assets.graph.stages.pack` and `finrisk_assets.operations.verify_pack`.
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
TOLERANCE = 1e-9
"""Relative; by so much a recomputed figure may differ: sums of floating point in another order."""
NOISE = 1e-12
"""Absolute; below it two figures are both nothing but rounding."""
SHORT = 8
"""Hex digits of a hash that are shown beside a figure."""
SMALLEST_GROUP = 10
"""What is told of fewer people than this might be told of a person: it is not shown."""


class PackError(ValueError):
    """A pack that cannot be read or written: the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class Artifact:
    """Something that figures come from, named by the SHA-256 of its bytes.

    Attributes
    ----------
    name
        ``bundle/bundle.json``, ``snapshot``, ``evaluation``, ``plots/test_roc_pr.png``.
    sha256
        Of its bytes.
    place
        Where it is kept, in words.
    """

    name: str
    sha256: str
    place: str

    @property
    def short(self) -> str:
        return self.sha256[:SHORT]


@dataclass(frozen=True)
class PackFigure:
    """One figure of the pack.

    Attributes
    ----------
    key
        Unique: what it was computed by and its name there, ``evaluation/auc``.
    group
        One of `GROUPS`.
    label, meaning
        What a person calls it, and what it is.
    artifact
        The name of the artifact that it was read from.
    value, low, high
        With its 95 % interval where there is one. None where it is of too few people to be told.
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
        return self.key.split("/", 1)[1]

    def shown(self, bound: str) -> str:
        """The value, ``low`` or ``high`` as the pages show it."""
        return shown(getattr(self, bound), whole=self.metric.startswith("n_"))


@dataclass(frozen=True)
class Picture:
    """A plot: the artifact that it is, the group of figures it belongs to, and what it shows."""

    artifact: str
    group: str
    caption: str


@dataclass(frozen=True)
class PackVerdict:
    """One demand of the gate, and why it is not met; no reasons where it is."""

    demand: str
    meaning: str
    reasons: tuple[str, ...] = ()

    @property
    def is_met(self) -> bool:
        return not self.reasons


@dataclass(frozen=True)
class Pack:
    """Everything that the two pages show.

    Attributes
    ----------
    domain, title, owner, source
        Of the decision, and the ledger that it was learned from.
    model, registry_version, version, run_id
        Name and number in the registry, the bundle's version, and the MLflow run that made it.
    settings
        What the figures were computed with: ``as_of``, ``seed`` and the others that matter.
    texts
        Heading -> Markdown: what people wrote of the domain.
    facts
        What else is known of the version, by its name: windows of time, hashes of data and code, libraries.
    features
        Rows of name, unit, description, direction and the two sentences.
    history
        Rows of the versions that the registry holds up to this one, the newest first.
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
        return {figure.key: figure for figure in self.figures}

    @cached_property
    def by_artifact(self) -> dict[str, Artifact]:
        return {artifact.name: artifact for artifact in self.artifacts}

    @property
    def supports(self) -> bool:
        """Whether every demand of the gate is met."""
        return all(verdict.is_met for verdict in self.verdicts)

    def of(self, group: str) -> list[PackFigure]:
        """The figures of one group, in order."""
        return [figure for figure in self.figures if figure.group == group]

    def pictures_of(self, group: str) -> list[Picture]:
        return [picture for picture in self.pictures if picture.group == group]


# Groups ------------------------------------------------------------------------------------------------------------------------

GROUPS: Mapping[str, tuple[str, str]] = {
    "sample": ("Sample", "What the figures rest on."),
    "discrimination": ("Discrimination", "How well the score ranks: those with the outcome above those without."),
    "calibration": ("Calibration", "Whether the probabilities said are the rates seen."),
    "amounts": ("Amounts and their intervals", "How far off the amounts are, and how often their intervals hold."),
    "decisions": ("Decisions", "What the decisions at these thresholds are worth, and how many people they touch."),
    "comparison": ("Comparison with the champion before", "The same frozen window, scored by both models."),
    "stability": ("Stability", "Whether the same holds throughout the window."),
    "explanation": ("Explanation", "What moves the score, and whether the explanations add up to it."),
    "fairness": ("Fairness", "How decisions and probabilities differ between groups of people. No bound here is a law."),
    "oracle": ("Beside the oracle", "Only a simulator can tell: the model beside the true probabilities."),
    "candidates": ("Candidates", "What was tried, on the validation window that the choice was made on."),
    "thresholds": ("Thresholds and limits", "Where decisions turn. They travel in the bundle."),
    "other": ("Other figures", ""),
}
"""Group -> its heading and what it is about, in the order of the pages."""

_RULES: tuple[tuple[str, str], ...] = (
    ("fairness", r"fairness/"),
    ("stability", r"stability|psi|.*_weekly"),
    ("comparison", r"champion|.*_beside_champion"),
    ("sample", r"n_"),
    ("explanation", r"importance_|explanation"),
    ("amounts", r"interval_|share_below_interval|mean_interval|pinball|mae_"),
    ("discrimination", r".*auc|gini|ks$|average_precision|precision_at|card_precision"),
    ("calibration", r"brier|log_loss|calibration|expected_calibration|.*_rate$|mean_|grade_"),
    ("decisions", r"emp$|share_|profit|gain|benefit|approval|refused|review|cost"),
)


def group_of(metric: str) -> str:
    """The group that a figure of an evaluation belongs to, by its name; ``other`` where no rule knows it."""
    return next((group for group, pattern in _RULES if re.match(pattern, metric)), "other")


_NAMES = {
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
"""What a figure is, where the evaluation does not say."""
_ACRONYMS = {"auc": "AUC", "psi": "PSI", "ks": "KS", "pd": "PD", "mae": "MAE", "cp": "CP", "tpr": "TPR", "n": "Number of"}


def label_of(metric: str) -> str:
    """What a person calls a figure: ``auc_above_persistence`` becomes ``AUC above persistence``."""
    if metric in _NAMES:
        return _NAMES[metric]
    if metric.startswith("importance_"):
        return metric.removeprefix("importance_")
    if metric.startswith("fairness/"):
        _, measure, *at, group = metric.split("/")
        return ", ".join([group, measure.replace("_", " "), *(f"at {cutoff}" for cutoff in at)])
    words = [_ACRONYMS.get(word, word) for word in metric.split("_")]
    return " ".join([words[0] if words[0] in _ACRONYMS.values() else words[0].capitalize(), *words[1:]])


def figures_from(rows: Sequence[Mapping[str, Any]], computed_by: str, artifact: str, group: str = "") -> list[PackFigure]:
    """The figures of an evaluation's table, those of too few people without their values.

    Parameters
    ----------
    rows
        ``metric``, ``value``, ``low``, ``high``, ``meaning``.
    computed_by
        First part of their keys: ``evaluation`` or ``oracle``.
    artifact
        The name of what they were read from.
    group
        Of all of them; by the metric where it is not said.
    """
    found = []
    for row in rows:
        metric, at = row["metric"], group or group_of(row["metric"])
        value, low, high = (_number(row.get(bound)) for bound in ("value", "low", "high"))
        meaning = _without_label(row.get("meaning") or _MEANINGS.get(metric, ""), label_of(metric))
        if _is_of_few(metric, value, low):
            value, low, high, meaning = None, None, None, f"withheld: of fewer than {SMALLEST_GROUP} people"
        found.append(PackFigure(f"{computed_by}/{metric}", at, label_of(metric), meaning, artifact, value, low, high))
    return found


def _is_of_few(metric: str, value: float | None, low: float | None) -> bool:
    """Whether a rate is of fewer than `SMALLEST_GROUP` people: only then is its Jeffreys interval that of so small a number."""
    from scipy.stats import beta

    if not metric.endswith("_rate") or value is None or low is None:
        return False
    events = [(round(value * n), n) for n in range(1, SMALLEST_GROUP) if near(round(value * n) / n, value)]
    return any(math.isclose(float(beta.ppf(0.025, k + 0.5, n - k + 0.5)), low, rel_tol=1e-6) for k, n in events)


def _without_label(meaning: str, label: str) -> str:
    """The meaning without what the label, the value and its interval say already."""
    if meaning.lower() == label.lower():
        return ""
    finding = re.fullmatch(r".+?: [a-z ]+?( against .+?)? -?\d+\.\d+ \[[^]]+\] (.+)", meaning)
    return meaning if finding is None else f"{(finding[1] or '').strip()}{': ' if finding[1] else ''}{finding[2]}"


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def shown(value: float | None, *, whole: bool = False) -> str:
    """A number as the pages show it: counts whole, others with as many digits as tell something."""
    if value is None:
        return "–"
    size, sign = abs(value), "−" if value < 0 else ""
    if whole or size >= 1_000:
        return f"{sign}{size:,.0f}"
    if 0 < size < 5e-5:
        return f"{sign}{size:.1e}"
    return f"{sign}{size:.{4 if size < 10 else 2 if size < 100 else 1}f}"


# The manifest ------------------------------------------------------------------------------------------------------------------


def sha256(content: bytes) -> str:
    """SHA-256 as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def canonical(document: Any) -> bytes:
    """A document as JSON whose bytes depend on its values alone.

    Raises
    ------
    PackError
        For a number that is not finite.
    """
    try:
        return (json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        raise PackError(f"a pack holds finite numbers only: {error}") from error


def manifest(pack: Pack, pages: Mapping[str, str]) -> bytes:
    """The bytes of ``pack.json``: the pack, and the hashes of its pages."""
    return canonical(asdict(pack) | {"format": FORMAT, "pages": {name: sha256(text.encode()) for name, text in pages.items()}})


def read(content: bytes, where: str = MANIFEST) -> tuple[Pack, dict[str, str]]:
    """The pack of a ``pack.json``, and the hashes of its pages.

    Raises
    ------
    PackError
        For what is not a manifest of this format.
    """
    try:
        document = json.loads(content)
        if document.pop("format") != FORMAT:
            raise PackError(f"{where}: is of another format than {FORMAT}, which is read here; materialise the pack again")
        pages = document.pop("pages")
        parts = {
            "artifacts": [Artifact(**one) for one in document["artifacts"]],
            "figures": [PackFigure(**one) for one in document["figures"]],
            "pictures": [Picture(**one) for one in document["pictures"]],
            "verdicts": [PackVerdict(**one | {"reasons": tuple(one["reasons"])}) for one in document["verdicts"]],
        }
        return Pack(**document | parts), pages
    except PackError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PackError(f"{where}: is not a validation pack's manifest ({error}); materialise the pack again") from error


# Verification ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How many things of one kind agree with what they were checked against, and where the others do not."""

    name: str
    agree: int
    disagreements: Sequence[str] = ()

    @property
    def total(self) -> int:
        return self.agree + len(self.disagreements)

    def __str__(self) -> str:
        return f"{self.name}: {self.agree} of {self.total} agree"


def outcome(name: str, checked: Iterable[str | None]) -> Outcome:
    """Count what agreed (None) and what did not (a sentence)."""
    all_of = list(checked)
    wrong = [one for one in all_of if one is not None]
    return Outcome(name, len(all_of) - len(wrong), wrong)


def near(first: float | None, second: float | None) -> bool:
    """Whether two figures are the same but for `TOLERANCE`."""
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=NOISE)


def compare_figures(claimed: Sequence[PackFigure], again: Sequence[PackFigure], against: str) -> list[Outcome]:
    """Hold the figures of a pack against the same figures computed again; one outcome a group.

    Parameters
    ----------
    against
        What the second ones were computed from, in words.
    """
    found = {figure.key: figure for figure in again}
    known = {figure.key for figure in claimed}
    missing = [replace(figure, artifact="") for figure in again if figure.key not in known]
    outcomes = []
    for group in GROUPS:
        checked = [_compared(figure, found.get(figure.key), against) for figure in claimed if figure.group == group]
        checked += [
            f"{MANIFEST}: {figure.key} is missing; {against} gives {_full(figure.value)}" for figure in missing if figure.group == group
        ]
        if checked:
            outcomes.append(outcome(GROUPS[group][0], checked))
    return outcomes


def _compared(figure: PackFigure, again: PackFigure | None, against: str) -> str | None:
    if again is None:
        return f"{MANIFEST}: {figure.key} stands there, but {against} does not give it"
    if (figure.group, figure.label, figure.meaning, figure.artifact) != (again.group, again.label, again.meaning, again.artifact):
        return f"{MANIFEST}: what {figure.key} is called there, or is said to be, is not what {against} gives"
    for bound in ("value", "low", "high"):
        claimed, computed = getattr(figure, bound), getattr(again, bound)
        if not near(claimed, computed):
            return f"{MANIFEST}: the {bound} of {figure.key} is {_full(claimed)} there, {_full(computed)} from {against}"
    return None


def _full(value: float | None) -> str:
    return "missing" if value is None else f"{value:.12g}"


def compare_page(pack: Pack, page: str, name: str, *, whole: bool) -> Outcome:
    """Hold what a page shows against the manifest: every figure, bound by bound, the hash beside it, and every picture's bytes.

    Parameters
    ----------
    whole
        Whether the page must show every figure and picture of the manifest.
    """
    seen = _Shown()
    seen.feed(page)
    checked: list[str | None] = []
    for line, key, bound, full, text in seen.figures:
        checked.append(_figure_shown(pack, f"{name}, line {line}", key, bound, full, text))
    for line, artifact, digest in seen.pictures:
        known = pack.by_artifact.get(artifact)
        where = f"{name}, line {line}"
        checked.append(None if known and known.sha256 == digest else f"{where}: the picture {artifact} is not the one of {MANIFEST}")
    if whole:
        on_page = {(key, bound) for _, key, bound, _, _ in seen.figures}
        for figure in pack.figures:
            bounds = ["value", "artifact", *(bound for bound in ("low", "high") if getattr(figure, bound) is not None)]
            lacking = [bound for bound in bounds if (figure.key, bound) not in on_page]
            if lacking:
                checked.append(f"{name}: does not show the {lacking[0]} of {figure.key}, which is in {MANIFEST}")
        pictures = {artifact for _, artifact, _ in seen.pictures}
        checked += [f"{name}: does not show {one.artifact}" for one in pack.pictures if one.artifact not in pictures]
    return outcome(f"Shown in {name}", checked)


def _figure_shown(pack: Pack, where: str, key: str, bound: str, full: str, text: str) -> str | None:
    figure = pack.by_key.get(key)
    if figure is None or bound not in ("value", "low", "high", "artifact"):
        return f"{where}: shows {key}, which is not in {MANIFEST}"
    if bound == "artifact":
        artifact = pack.by_artifact.get(figure.artifact)
        right = artifact is not None and text == artifact.short and full == artifact.sha256
        return None if right else f"{where}: {key} carries the hash {text}, not that of {figure.artifact}"
    claimed = getattr(figure, bound)
    if text == figure.shown(bound) and full == ("" if claimed is None else repr(claimed)):
        return None
    return f"{where}: shows {text} ({full or 'no number'}) as the {bound} of {key}; {MANIFEST} has {_full(claimed)}"


@dataclass
class _Shown(HTMLParser):
    """What a page shows: each ``<data data-figure=… data-bound=… value=…>text</data>`` and each picture, with its line."""

    figures: list[tuple[int, str, str, str, str]] = field(default_factory=list)
    pictures: list[tuple[int, str, str]] = field(default_factory=list)
    _open: tuple[int, str, str, str] | None = None
    _text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "data":
            self._open = (self.getpos()[0], given.get("data-figure", ""), given.get("data-bound", ""), given.get("value", ""))
            self._text = ""
        elif tag == "img":
            try:
                content = base64.b64decode(given.get("src", "").removeprefix("data:image/png;base64,"), validate=True)
            except binascii.Error:
                content = b""
            self.pictures.append((self.getpos()[0], given.get("data-artifact", ""), sha256(content)))

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "data" and self._open is not None:
            self.figures.append((*self._open, self._text))
            self._open = None
