"""The scoring bundle: what training hands to the service.

A bundle is a folder with ``bundle.json``, ``golden.json`` and the model files it names, all in open formats; ``docs/bundle.md``
describes them. This module writes, checks, loads and scores a bundle. Elsewhere: its parts (`spec`) and files (`bundle_io`),
the conversion of a trained estimator (`modelling.training.convert`), SHAP values (`tree_shap`), words for a decision (`reasons`),
the computation of features (`finrisk_assets.features`), and the registry (`modelling.training.model_registry`).
Imports numpy, and XGBoost for many rows where it is installed.
"""

import copy
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle_io import (
    GOLDEN,
    MANIFEST,
    build_manifest_document,
    canonical_json,
    first_line,
    read_files,
    read_golden_rows,
    sha256_of,
    shortest_float,
    take_field,
)
from finrisk_assets.scoring.feature_values import Doubt, TrainingRange, any_by_row
from finrisk_assets.scoring.policy_thresholds import REFUSED_FROM, find_thresholds
from finrisk_assets.scoring.reasons import group_by_factor
from finrisk_assets.scoring.spec import BundleError, BundleSpec, Component, Floats, Linear, Rows, Trees, check_spec, signed_log1p
from finrisk_assets.scoring.tree_shap import read_trees

GOLDEN_TOLERANCE = 1e-6
"""Largest difference of a golden row's margin (relative above 1) or probability from the stored value."""
_MAX_TABLE_ROWS = 1_000
"""Rows scored from tables, which take at most a tenth of a second; XGBoost is faster for more, but takes longer to load."""
_LINEAR_ROWS = 1_024
"""Rows of a linear component at once. The arrays of more rows leave the processor's cache, and their memory is requested each time."""
_INFINITE_FROM = float(np.finfo(np.float32).max)
"""Absolute value that is refused like infinity, because trees use it as a threshold that all finite values pass."""
_TINY = np.finfo(np.float32).tiny
"""Share of a rounding error that a feature without a contribution gets, so that no division is by zero."""


class Scores(NamedTuple):
    """Scores of n rows: ``base + contributions.sum(axis=1)`` is ``margin``.

    Attributes
    ----------
    margin, probability
        float64, shape (n,).
    base
        The margin before any feature is known.
    contributions
        SHAP values in margin units, float64, shape (n, d), in the order of the bundle's features.
    doubts
        Why a decision on each row would be a guess; None where the policy lets the model decide.
    """

    margin: Floats
    probability: Floats
    base: float
    contributions: Floats
    doubts: Sequence[Doubt | None]


class Amounts(NamedTuple):
    """Amounts of n rows in currency, float64, each of shape (n,); NaN where a row has no amount."""

    expected: Floats
    low: Floats
    high: Floats


# Scoring -----------------------------------------------------------------------------------------------------------------------


class _Scorer(Protocol):
    """A component ready to score: its base, its margin alone (fast), and its margin with contributions.

    Attributes
    ----------
    block_rows
        Rows to pass at once, at most.
    """

    block_rows: int

    @property
    def base(self) -> float: ...

    def margin(self, rows: Rows) -> Floats: ...

    def explain(self, rows: Rows) -> tuple[Floats, Floats]: ...


class _LinearScorer:
    block_rows = _LINEAR_ROWS

    def __init__(self, part: Linear, names: Sequence[str]) -> None:
        self.base = part.intercept
        self._names = names
        self._slopes = np.array(part.coefficients) / np.array(part.scales)
        self._means = np.array(part.means)
        self._logs = np.array(part.signed_log1p, dtype=bool)
        self._has_logs = any(part.signed_log1p)
        self._fills = _fill_array(part.fills)
        self._has_gaps = bool(np.isnan(self._fills).any())

    def margin(self, rows: Rows) -> Floats:
        return self.explain(rows)[0]

    def explain(self, rows: Rows) -> tuple[Floats, Floats]:
        values = rows.astype(np.float64)
        is_missing = np.isnan(values)
        if is_missing.any():
            np.copyto(values, self._fills, where=is_missing)
            if self._has_gaps and (is_unfilled := np.isnan(values)).any():
                names_of_missing = _join_names(self._names, is_unfilled)
                raise ValueError(f"missing value of {names_of_missing}: this model was trained without a substitute for it")
        if self._has_logs:
            np.copyto(values, signed_log1p(values), where=self._logs)
        values -= self._means
        values *= self._slopes
        return self.base + values.sum(axis=1), values


class _TreesScorer:
    """Trees with margins and SHAP values; XGBoost, where installed, computes the margins of many rows faster, to the same bits."""

    block_rows = sys.maxsize  # `TreeShap` splits rows itself

    def __init__(self, part: Trees, width: int, threads: int) -> None:
        self._trees = read_trees(part.model, width)
        self._fills = None if part.fills is None else _fill_array(part.fills).astype(np.float32)
        self._model, self._width, self._threads = part.model, width, threads

    @cached_property
    def _booster(self) -> Any | None:
        """XGBoost's booster, which is safe to share between threads; None where XGBoost is not installed, as in the service's container."""
        try:
            import xgboost
        except ModuleNotFoundError:
            return None
        booster = xgboost.Booster()
        booster.load_model(bytearray(self._model))
        booster.set_param({"nthread": self._threads})
        return booster

    @cached_property
    def base(self) -> float:
        margin, contributions = self._trees.explain(np.zeros((1, self._width), np.float32))
        return float((margin - contributions.sum(axis=1))[0])

    def _fill(self, rows: Rows) -> Rows:
        return rows if self._fills is None else np.where(np.isnan(rows), self._fills, rows)

    def margin(self, rows: Rows) -> Floats:
        filled = self._fill(rows)
        if len(rows) <= _MAX_TABLE_ROWS or self._booster is None:
            return self._trees.margin(filled)
        return np.asarray(self._booster.inplace_predict(filled, predict_type="margin", validate_features=False), np.float64)

    def explain(self, rows: Rows) -> tuple[Floats, Floats]:
        margin, contributions = self._trees.explain(self._fill(rows))
        # Margins are sums in float32, about 1e-6 off. That rounding error is distributed in proportion, so that the margin is the same
        # with and without an explanation, and the contributions add up to it.
        rounding = margin - self.base - contributions.sum(axis=1)
        share = np.abs(contributions) + _TINY
        return margin, contributions + share * (rounding / share.sum(axis=1))[:, None]


def _split_rows(n_rows: int, block_rows: int) -> Iterator[slice]:
    """Yield blocks of so many rows at most."""
    return (slice(start, start + block_rows) for start in range(0, n_rows, block_rows))


def _fill_array(fills: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in fills], np.float64)


def number_level(level: float | str | None, numbers: Mapping[str, int]) -> float | None:
    """Return the number of a level, the one after the last for a level that training did not see, None for a missing value."""
    if level is None or level != level:  # NaN, where a data frame has a gap
        return None
    return numbers.get(str(level), len(numbers))


def _join_names(names: Sequence[str], flags: NDArray[np.bool_]) -> str:
    """Return the names of the columns where any flag is set."""
    return ", ".join(names[at] for at in np.flatnonzero(flags.any(axis=0)).tolist())


class Bundle:
    """A loaded bundle, checked and ready to score. Safe to share between threads.

    Attributes
    ----------
    version, sha256
        The first 12 hex digits of the SHA-256 of ``bundle.json``, and all 64.
    name, domain, source, features, windows, intercept, calibration, thresholds, metrics, reference, approved, values, reference_group
        As in `BundleSpec`.
        `thresholds` holds also those that follow from the policy.
    learned_thresholds
        Those of `thresholds` that were learned, and that no policy changes.
    policy, score_curve, loss_curve
        The policy that the bundle decides under, and the curves that its capacities are found on.
    companions
        Domain to the bundle of another domain that a decision asks too, as `under` was given them.
    columns
        Feature -> its place, in order.
    categories
        Place of each category -> the weights of its levels.
    has_amount, amount_level
        Whether the bundle predicts an amount, and the share of amounts that intervals should contain; None without an amount.
    seed, data_sha256, code_sha256, training_window, libraries
        As in `BundleSpec`.
    """

    def __init__(self, spec: BundleSpec, sha256: str, threads: int = 1, policy: Policy | None = None) -> None:
        check_spec(spec)
        self.sha256, self.version = sha256, sha256[:12]
        self.name, self.domain, self.source = spec.name, spec.domain, spec.source
        self.features, self.windows = spec.features, spec.windows
        self.values, self.reference_group = spec.values, spec.reference_group
        self.intercept, self.calibration = spec.intercept, spec.calibration
        self.metrics = dict(spec.metrics)
        self._reference, self._references = spec.reference, spec.references
        self.learned_thresholds, self.score_curve = dict(spec.thresholds), spec.score_curve
        self.loss_curve = spec.loss_curve
        self.companions: Mapping[str, Bundle] = {}
        self._apply(policy or default_policy())
        self.approved = dict(spec.approved)
        self.seed, self.training_window, self.libraries = spec.seed, spec.training_window, dict(spec.libraries)
        self.data_sha256, self.code_sha256 = spec.data_sha256, spec.code_sha256
        self.columns: Mapping[str, int] = {feature.name: at for at, feature in enumerate(spec.features)}
        self.categories = {self.columns[name]: weights for name, weights in spec.categories.items()}
        self._level_numbers = {
            feature.name: {level: number for number, level in enumerate(feature.levels)} for feature in spec.features if feature.is_category
        }
        self._scorers: list[tuple[float, _Scorer]] = []
        for part in spec.components:
            scorer = self._make_scorer(part, threads)
            if part.weight:  # a component of weight 0 costs no time
                self._scorers.append((part.weight, scorer))
        self._first_golden: tuple[Mapping[str, Any], Path] | None = None
        self._amount, self.has_amount = spec.amount, spec.amount is not None
        self.amount_level = None if spec.amount is None else spec.amount.level
        if spec.amount is not None:
            self._expected = self._make_scorer(spec.amount.component, threads)
            self._spread = None if spec.amount.spread is None else self._make_scorer(spec.amount.spread, threads)

    @cached_property
    def base(self) -> float:
        """The margin before any feature is known."""
        return self.intercept + sum(weight * scorer.base for weight, scorer in self._scorers)

    @classmethod
    def load(cls, folder: Path, *, version: str | None = None, threads: int = 1, policy: Policy | None = None) -> "Bundle":
        """Read a bundle, and refuse it unless every hash and every golden row agrees.

        Parameters
        ----------
        folder
            The folder with ``bundle.json``.
        version
            The required version (12 hex digits or more), which pins ``bundle.json`` itself; None accepts any.
        threads
            Threads for scoring a batch; the service takes one.
        policy
            The policy that the bundle decides under; None for the shipped one.

        Raises
        ------
        BundleError
            Names the file and what is wrong with it.
        """
        sha256, spec, golden = read_files(Path(folder), version)
        try:
            bundle = cls(spec, sha256, threads, policy)
        except ImportError:
            raise
        except Exception as error:  # XGBoost raises its own types for a model it cannot read
            raise BundleError(f"{folder}/{MANIFEST}: {first_line(error)}") from error
        bundle._check_golden(golden, Path(folder) / GOLDEN)
        first_row = {"rows": golden["rows"][:1], "margin": golden["margin"][:1], "probability": golden["probability"][:1]}
        if bundle.has_amount:
            first_row["amount"] = {name: values[:1] for name, values in golden["amount"].items()}
        bundle._first_golden = first_row, Path(folder) / GOLDEN
        return bundle

    def under(self, policy: Policy, companions: Mapping[str, "Bundle"] | None = None) -> "Bundle":
        """Return the same model deciding under another policy; the models in memory are shared.

        Parameters
        ----------
        companions
            Domain to the bundle of another domain that a decision asks too; None keeps those there are.
        """
        other = copy.copy(self)
        kept = self.companions if companions is None else companions
        other.companions = {domain: bundle.under(policy) for domain, bundle in kept.items()}
        other._apply(policy)
        return other

    def _apply(self, policy: Policy) -> None:
        self.policy = policy
        self.thresholds = self.learned_thresholds | dict(find_thresholds(self.domain, policy, self.score_curve, self.loss_curve))
        cutoff = self.thresholds.get(REFUSED_FROM.get(self.domain, ""))
        self.reference = self._reference if cutoff is None else self.reference_below(cutoff)

    def reference_below(self, cutoff: float) -> tuple[float, ...] | None:
        """Return the mean contributions of those just below a cutoff of the probability; None where the bundle has none."""
        if not self._references:
            return self._reference
        return min(self._references, key=lambda reference: abs(reference.cutoff - cutoff)).contributions

    def check(self) -> None:
        """Score the first golden row again, to check that the model in memory still gives the stored result.

        A bundle that was not loaded from a folder has no golden row, and passes.

        Raises
        ------
        BundleError
            Where the result differs.
        """
        if self._first_golden is not None:
            self._check_golden(*self._first_golden)

    @cached_property
    def factors(self) -> Mapping[str, Sequence[int]]:
        """The columns of each factor that a reason can name; see `reasons.group_by_factor`."""
        return group_by_factor(self.features)

    @cached_property
    def training_range(self) -> TrainingRange:
        """The bounds of what the model can judge."""
        circles = [bool(feature.spoken_by) for feature in self.features]
        return TrainingRange(self.values, circles, [len(feature.levels) for feature in self.features])

    def is_doubtful(self, rows: Rows) -> NDArray[np.bool_]:
        """Return whether too little is known of each row for a decision; shape (n,).

        So it is where values that training always had are missing, and beyond the bounds of the policy.
        """
        doubtful = self._lacks_values(rows)
        if self.policy.too_little_known.outside_training == "refer":
            doubtful |= any_by_row(self.training_range.find_outside(rows))
        return doubtful

    def _lacks_values(self, rows: Rows) -> NDArray[np.bool_]:
        return self.training_range.lacks_values(rows, self.policy.too_little_known.max_missing_share)

    def find_doubts(self, rows: Rows) -> list[Doubt | None]:
        """Return why a decision on each row would be a guess; None where the policy lets the model decide."""
        doubts: list[Doubt | None] = [None] * len(rows)
        doubtful = np.flatnonzero(self.is_doubtful(rows))
        if len(doubtful):
            doubted = rows[doubtful]
            lacks = self._lacks_values(doubted).tolist()
            is_missing, is_outside = np.isnan(doubted), self.training_range.find_outside(doubted)
            for number, place in enumerate(doubtful.tolist()):
                columns = tuple(np.flatnonzero(is_missing[number] if lacks[number] else is_outside[number]).tolist())
                names = ", ".join(self.features[column].name for column in columns)
                text = "Not enough is known" if lacks[number] else f"Outside what the model has seen: {names}"
                doubts[place] = Doubt(text, columns)
        return doubts

    def find_doubt(self, row: Rows) -> Doubt | None:
        """Return `find_doubts` of one row, of shape (d,)."""
        return self.find_doubts(row[None, :])[0]

    def row(self, values: Mapping[str, float | str | None]) -> Rows:
        """Return one row, float32 of shape (d,), from values by name; a feature that is absent or None is missing (NaN).

        Of a category the value is the text of a level, of which the row has the number.

        Raises
        ------
        ValueError
            For a name that is not a feature, a text where the feature is a number, or a number that is infinite as a float32.
        """
        if not values.keys() <= self.columns.keys():
            unknown = sorted(values.keys() - self.columns.keys())
            raise ValueError(f"{', '.join(unknown)}: not a feature of {self.name} {self.version}")
        if self._level_numbers:
            numbered = {name: number_level(values.get(name), levels) for name, levels in self._level_numbers.items()}
            values = {**values, **numbered}
        numbers = np.array([*map(values.get, self.columns)], np.float64)
        is_infinite = np.abs(numbers) >= _INFINITE_FROM
        if is_infinite.any():
            raise ValueError(
                f"{_join_names(list(self.columns), is_infinite[None, :])}: the value is infinite or too large for a 32-bit float"
            )
        return numbers.astype(np.float32)

    def margin(self, rows: Rows) -> Floats:
        """Return margins alone, float64 of shape (n,): the same numbers as `score`, many times faster for trees."""
        rows = self._weigh_levels(self._check_rows(rows))
        margin = np.full(len(rows), self.intercept)
        for weight, scorer in self._scorers:
            for block in _split_rows(len(rows), scorer.block_rows):
                margin[block] += weight * scorer.margin(rows[block])
        return margin

    def probability(self, rows: Rows) -> Floats:
        """Return probabilities alone, float64 of shape (n,): the same numbers as `score`, many times faster for trees."""
        return self.calibration.apply(self.margin(rows))

    def score(self, rows: Rows) -> Scores:
        """Return margin, probability and contributions of every row.

        Parameters
        ----------
        rows
            float32, shape (n, d), columns in the order of ``features``, NaN where missing.

        Raises
        ------
        ValueError
            For another shape, an infinite value, or a missing value that the model cannot handle.
        """
        rows = self._check_rows(rows)
        weighed = self._weigh_levels(rows)
        margin = np.full(len(rows), self.intercept)
        contributions = np.zeros(rows.shape)
        for weight, scorer in self._scorers:
            for block in _split_rows(len(rows), scorer.block_rows):
                part_margin, part_contributions = scorer.explain(weighed[block])
                margin[block] += weight * part_margin
                part_contributions *= weight
                contributions[block] += part_contributions
        return Scores(margin, self.calibration.apply(margin), self.base, contributions, self.find_doubts(rows))

    def amount(self, rows: Rows) -> Amounts:
        """Return the expected amount of every row and the bounds of its interval, in currency; see `Amount`.

        NaN where a row's scale is missing, and in every row of a bundle without an amount.

        Raises
        ------
        ValueError
            For rows as in `score`.
        """
        rows, head = self._weigh_levels(self._check_rows(rows)), self._amount
        if head is None or not len(rows):
            no_amounts = np.full(len(rows), np.nan)
            return Amounts(no_amounts, no_amounts, no_amounts)
        scale_values = rows[:, self.columns[head.scale]].astype(np.float64)
        scale = np.where(scale_values > 0, scale_values, np.nan)
        expected = head.component.weight * self._expected.margin(rows)
        spread = np.ones(len(rows))
        if self._spread is not None and head.spread is not None:
            spread = np.exp(head.spread.weight * self._spread.margin(rows))
        return Amounts(scale * expected, scale * (expected + head.low * spread), scale * (expected + head.high * spread))

    def _make_scorer(self, part: Component, threads: int) -> _Scorer:
        if isinstance(part, Linear):
            return _LinearScorer(part, list(self.columns))
        return _TreesScorer(part, len(self.features), threads)

    def _check_rows(self, rows: Rows) -> Rows:
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.ndim != 2 or rows.shape[1] != len(self.features):
            raise ValueError(f"rows have shape {rows.shape}; {self.name} takes (n, {len(self.features)})")
        is_infinite = np.abs(rows) >= _INFINITE_FROM
        if is_infinite.any():
            raise ValueError(f"{_join_names(list(self.columns), is_infinite)}: a value is infinite or too large for a 32-bit float")
        return rows

    def _weigh_levels(self, rows: Rows) -> Rows:
        """Return the rows as the components read them: with the weight of each level in place of its number."""
        if self.categories:
            rows = rows.copy()
            for column, weights in self.categories.items():
                rows[:, column] = weights.encode(rows[:, column])
        return rows

    def _check_golden(self, golden: Mapping[str, Any], file: Path) -> None:
        expected_margin = np.array(take_field(golden, "margin", list, file), np.float64)
        expected_probability = np.array(take_field(golden, "probability", list, file), np.float64)
        rows = read_golden_rows(golden, file)
        if not (len(rows) == len(expected_margin) == len(expected_probability) > 0):
            raise BundleError(f"{file}: rows, margins and probabilities differ in number, or there are none")
        margin = self.margin(rows)
        probability = self.calibration.apply(margin)
        margin_difference = np.abs(margin - expected_margin) / np.maximum(1.0, np.abs(expected_margin))
        difference = np.maximum(margin_difference, np.abs(probability - expected_probability))
        if not (difference <= GOLDEN_TOLERANCE).all():
            worst = int(np.argmax(~(difference <= GOLDEN_TOLERANCE)))
            raise BundleError(
                f"{file}: row {worst} has margin {margin[worst]:.9g} and probability {probability[worst]:.9g} here, "
                f"{expected_margin[worst]:.9g} and {expected_probability[worst]:.9g} where it was trained; is it another runtime?"
            )
        if self.has_amount:
            self._check_golden_amounts(rows, take_field(golden, "amount", dict, file), file)

    def _check_golden_amounts(self, rows: Rows, expected: Mapping[str, Any], file: Path) -> None:
        for name, amounts in self.amount(rows)._asdict().items():
            expected_amounts = np.array(take_field(expected, name, list, file), np.float64)  # None becomes NaN
            is_close = expected_amounts.shape == amounts.shape and np.allclose(
                amounts, expected_amounts, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE, equal_nan=True
            )
            if not is_close:
                raise BundleError(f"{file}: the {name} amounts differ from those where it was trained; is it another runtime?")


# Writing -----------------------------------------------------------------------------------------------------------------------


def write(folder: Path, spec: BundleSpec) -> str:
    """Write a bundle and return its version; the same specification gives the same bytes.

    The folder appears whole or not at all. An earlier bundle in the folder is replaced; any other content is left alone, with an error.

    Raises
    ------
    BundleError
        For a specification that cannot be scored, or a folder with other content.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder}: holds something that is not a bundle; name another folder")
    try:
        bundle = Bundle(spec, "")
        scores = bundle.score(spec.golden_rows)
        amounts = bundle.amount(spec.golden_rows) if bundle.has_amount else None
    except ImportError:
        raise
    except Exception as error:
        raise BundleError(f"{spec.name}: {first_line(error)}") from error
    contents = {f"trees-{position}.json": part.model for position, part in enumerate(spec.components) if isinstance(part, Trees)}
    if spec.amount is not None:
        parts = (("amount", spec.amount.component), ("spread", spec.amount.spread))
        contents |= {f"trees-{name}.json": part.model for name, part in parts if isinstance(part, Trees)}
    golden: dict[str, Any] = {
        "rows": [[None if math.isnan(value) else shortest_float(value) for value in row] for row in spec.golden_rows],
        "margin": scores.margin.tolist(),
        "probability": scores.probability.tolist(),
    }
    if amounts is not None:
        golden["amount"] = {name: [None if math.isnan(x) else x for x in values.tolist()] for name, values in amounts._asdict().items()}
    contents[GOLDEN] = canonical_json(golden)
    manifest = canonical_json(build_manifest_document(spec) | {"files": {name: sha256_of(content) for name, content in contents.items()}})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work_folder:
        new_folder, old_folder = Path(work_folder) / "new", Path(work_folder) / "old"
        new_folder.mkdir()
        for name, content in (contents | {MANIFEST: manifest}).items():
            (new_folder / name).write_bytes(content)
        if folder.exists():
            shutil.move(folder, old_folder)
        shutil.move(new_folder, folder)
    return sha256_of(manifest)[:12]
