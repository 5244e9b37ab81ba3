"""The scoring bundle: the one thing that training hands to serving.

A bundle is a folder with ``bundle.json``, ``golden.json`` and the model files it names, all in open formats; ``docs/bundle.md``
describes them. Here it is written, checked, loaded and scored. What belongs elsewhere: its parts (`spec`) and files (`bundle_io`),
turning a trained estimator into a component (`modelling.training.convert`), SHAP values (`tree_shap`), words for a decision (`reasons`),
how features are computed (`finrisk_assets.features`), and where bundles are registered (`modelling.training.model_registry`).
Imports numpy, and XGBoost for many rows where it is installed.
"""

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.scoring.bundle_io import (
    GOLDEN,
    MANIFEST,
    canonical_json,
    first_line,
    manifest_of,
    read_files,
    read_golden_rows,
    sha256_of,
    shortest_float,
    take_field,
)
from finrisk_assets.scoring.reasons import factors
from finrisk_assets.scoring.spec import BundleError, BundleSpec, Component, Floats, Linear, Rows, Trees, check_spec, signed_log1p
from finrisk_assets.scoring.tree_shap import TreeShap

TOLERANCE = 1e-6
_FEW_ROWS = 1_000
"""Up to so many are scored from tables: in a tenth of a second at most, less than it takes to load XGBoost, which is faster afterwards."""
_LARGEST = float(np.finfo(np.float32).max)  # refused like infinity: a threshold that all finite values pass stands here


@dataclass(frozen=True)
class Scores:
    """Scores of n rows: ``base + contributions.sum(axis=1)`` is ``margin``.

    Attributes
    ----------
    margin, probability
        float64, shape (n,).
    base
        The margin before any feature is known.
    contributions
        SHAP values in margin units, float64, shape (n, d), in the order of the bundle's features.
    """

    margin: Floats
    probability: Floats
    base: float
    contributions: Floats


class Amounts(NamedTuple):
    """Amounts of n rows in currency, float64, each of shape (n,); NaN where there is none."""

    expected: Floats
    low: Floats
    high: Floats


# Scoring -----------------------------------------------------------------------------------------------------------------------


class _Scorer(Protocol):
    """A component ready to score: its base, its margin alone (fast), and its margin with contributions."""

    @property
    def base(self) -> float: ...

    def margin(self, rows: Rows) -> Floats: ...

    def explain(self, rows: Rows) -> tuple[Floats, Floats]: ...


class _LinearScorer:
    def __init__(self, part: Linear, names: Sequence[str]) -> None:
        self.base = part.intercept
        self._names = names
        self._slopes = np.array(part.coefficients) / np.array(part.scales)
        self._means = np.array(part.means)
        self._logs = np.array(part.signed_log1p, dtype=bool)
        self._fills = _fill_array(part.fills)

    def margin(self, rows: Rows) -> Floats:
        return self.explain(rows)[0]

    def explain(self, rows: Rows) -> tuple[Floats, Floats]:
        values = rows.astype(np.float64)
        missing = np.isnan(values)
        if missing.any():
            values = np.where(missing, self._fills, values)
            unknown = np.isnan(values)
            if unknown.any():
                absent = _named(self._names, unknown)
                raise ValueError(f"missing value of {absent}: this model was trained without a stand-in for it")
        if self._logs.any():
            values = np.where(self._logs, signed_log1p(values), values)
        contributions = self._slopes * (values - self._means)
        return self.base + contributions.sum(axis=1), contributions


class _TreesScorer:
    """Trees that explain what they say; many rows at once, to be scored alone, go to XGBoost if it is there: the same bits sooner."""

    def __init__(self, part: Trees, width: int, threads: int) -> None:
        self._trees = TreeShap(part.model, width)
        self._fills = None if part.fills is None else _fill_array(part.fills).astype(np.float32)
        self._model, self._width, self._threads = part.model, width, threads

    @cached_property
    def _booster(self) -> Any | None:
        """XGBoost's own. It predicts thread-safely: one serves all. None where XGBoost is not installed, as in the service's container."""
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

    def _filled(self, rows: Rows) -> Rows:
        return rows if self._fills is None else np.where(np.isnan(rows), self._fills, rows)

    def margin(self, rows: Rows) -> Floats:
        filled = self._filled(rows)
        if len(rows) <= _FEW_ROWS or self._booster is None:
            return self._trees.margin(filled)
        return np.asarray(self._booster.inplace_predict(filled, predict_type="margin", validate_features=False), np.float64)

    def explain(self, rows: Rows) -> tuple[Floats, Floats]:
        margin, contributions = self._trees.explain(self._filled(rows))
        # Margins are sums in float32, about 1e-6 off. That rounding is shared out in proportion, so that an explained score and a bare
        # one are the same number and the contributions add up to it.
        rounding = margin - self.base - contributions.sum(axis=1)
        share = np.abs(contributions) + np.finfo(np.float32).tiny
        return margin, contributions + share * (rounding / share.sum(axis=1))[:, None]


def _fill_array(fills: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in fills], np.float64)


def _named(names: Sequence[str], flags: NDArray[np.bool_]) -> str:
    """The names of the columns where any flag is set."""
    return ", ".join(names[at] for at in np.flatnonzero(flags.any(axis=0)).tolist())


class Bundle:
    """A loaded bundle, checked and ready to score. Safe to share between threads.

    Attributes
    ----------
    version, sha256
        The first 12 hex digits of the SHA-256 of ``bundle.json``, and all 64.
    name, domain, source, features, windows, intercept, calibration, thresholds, metrics, reference, approved
        As in `BundleSpec`.
    columns
        The features' names, in order, and the place of each.
    has_amount, amount_level
        Whether it says an amount too, and the share of intervals that are to hold it; None where it says none.
    seed, data_sha256, code_sha256, training_window, libraries
        As in `BundleSpec`.
    """

    def __init__(self, spec: BundleSpec, sha256: str, threads: int = 1) -> None:
        check_spec(spec)
        self.sha256, self.version = sha256, sha256[:12]
        self.name, self.domain, self.source = spec.name, spec.domain, spec.source
        self.features, self.windows = spec.features, spec.windows
        self.intercept, self.calibration = spec.intercept, spec.calibration
        self.thresholds, self.metrics, self.reference = dict(spec.thresholds), dict(spec.metrics), spec.reference
        self.approved = dict(spec.approved)
        self.seed, self.training_window, self.libraries = spec.seed, spec.training_window, dict(spec.libraries)
        self.data_sha256, self.code_sha256 = spec.data_sha256, spec.code_sha256
        self.columns: Mapping[str, int] = {feature.name: at for at, feature in enumerate(spec.features)}
        self._scorers: list[tuple[float, _Scorer]] = []
        for part in spec.components:
            scorer = self._scorer(part, threads)
            if part.weight:  # a component that a join gave no say costs nothing
                self._scorers.append((part.weight, scorer))
        self._first_golden: tuple[Mapping[str, Any], Path] | None = None
        self._amount, self.has_amount = spec.amount, spec.amount is not None
        self.amount_level = None if spec.amount is None else spec.amount.level
        if spec.amount is not None:
            self._expected = self._scorer(spec.amount.component, threads)
            self._spread = None if spec.amount.spread is None else self._scorer(spec.amount.spread, threads)

    @cached_property
    def base(self) -> float:
        """The margin before any feature is known."""
        return self.intercept + sum(weight * scorer.base for weight, scorer in self._scorers)

    @classmethod
    def load(cls, folder: Path, *, version: str | None = None, threads: int = 1) -> "Bundle":
        """Read a bundle, and refuse it unless every hash and every golden row agrees.

        Parameters
        ----------
        folder
            Holds ``bundle.json``.
        version
            The version it must be (12 hex digits or more), where the caller knows; it pins ``bundle.json`` itself.
        threads
            Threads for scoring a batch. One for serving.

        Raises
        ------
        BundleError
            Names the file and what is wrong with it.
        """
        sha256, spec, golden = read_files(Path(folder), version)
        try:
            bundle = cls(spec, sha256, threads)
        except ImportError:
            raise
        except Exception as error:  # XGBoost raises its own kinds for a model it cannot read
            raise BundleError(f"{folder}/{MANIFEST}: {first_line(error)}") from error
        bundle._check_golden(golden, Path(folder) / GOLDEN)
        first = {"rows": golden["rows"][:1], "margin": golden["margin"][:1], "probability": golden["probability"][:1]}
        if bundle.has_amount:
            first["amount"] = {name: values[:1] for name, values in golden["amount"].items()}
        bundle._first_golden = first, Path(folder) / GOLDEN
        return bundle

    def check(self) -> None:
        """Score the first golden row once more, cheaply: whether the model in memory still says what it said when it was trained.

        Raises
        ------
        BundleError
            Where it does not. A bundle that was not loaded from a folder has no golden row to ask.
        """
        if self._first_golden is not None:
            self._check_golden(*self._first_golden)

    @cached_property
    def factors(self) -> Mapping[str, Sequence[int]]:
        """The columns of each factor that a reason can name; see `reasons.factors`."""
        return factors(self.features)

    def row(self, values: Mapping[str, float | None]) -> Rows:
        """One row, float32 of shape (d,), from values by name; a feature that is not named, or is None, is missing (NaN).

        Raises
        ------
        ValueError
            For a name that is not a feature, or a number that is infinite as a float32.
        """
        unknown = values.keys() - self.columns.keys()
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))}: not a feature of {self.name} {self.version}")
        numbers = np.array([values.get(name) for name in self.columns], np.float64)
        infinite = np.abs(numbers) >= _LARGEST
        if infinite.any():
            raise ValueError(f"{_named(list(self.columns), infinite[None, :])}: the value is infinite or too large for a 32-bit float")
        return numbers.astype(np.float32)

    def margin(self, rows: Rows) -> Floats:
        """Margins alone, float64 of shape (n,): the same numbers as `score`, many times faster where there are trees."""
        rows = self._checked(rows)
        margin = np.full(len(rows), self.intercept)
        if len(rows):
            for weight, scorer in self._scorers:
                margin += weight * scorer.margin(rows)
        return margin

    def probability(self, rows: Rows) -> Floats:
        """Probabilities alone, float64 of shape (n,): the same numbers as `score`, many times faster where there are trees."""
        return self.calibration.apply(self.margin(rows))

    def score(self, rows: Rows) -> Scores:
        """Margin, probability and contributions of every row.

        Parameters
        ----------
        rows
            float32, shape (n, d), columns in the order of ``features``, NaN where missing.

        Raises
        ------
        ValueError
            For another shape, an infinite value, or a missing value where the model has no answer to it.
        """
        rows = self._checked(rows)
        margin = np.full(len(rows), self.intercept)
        contributions = np.zeros(rows.shape)
        if len(rows):
            for weight, scorer in self._scorers:
                part_margin, part_contributions = scorer.explain(rows)
                margin += weight * part_margin
                contributions += weight * part_contributions
        return Scores(margin, self.calibration.apply(margin), self.base, contributions)

    def amount(self, rows: Rows) -> Amounts:
        """Expected amount of every row and the bounds of its interval, in currency; see `Amount`.

        NaN where a row's scale is missing, and in every row of a bundle that says no amount.

        Raises
        ------
        ValueError
            For rows as in `score`.
        """
        rows, head = self._checked(rows), self._amount
        if head is None or not len(rows):
            nothing = np.full(len(rows), np.nan)
            return Amounts(nothing, nothing, nothing)
        size = rows[:, self.columns[head.scale]].astype(np.float64)
        scale = np.where(size > 0, size, np.nan)
        middle = head.component.weight * self._expected.margin(rows)
        spread = np.ones(len(rows))
        if self._spread is not None and head.spread is not None:
            spread = np.exp(head.spread.weight * self._spread.margin(rows))
        return Amounts(scale * middle, scale * (middle + head.low * spread), scale * (middle + head.high * spread))

    def _scorer(self, part: Component, threads: int) -> _Scorer:
        if isinstance(part, Linear):
            return _LinearScorer(part, list(self.columns))
        return _TreesScorer(part, len(self.features), threads)

    def _checked(self, rows: Rows) -> Rows:
        rows = np.ascontiguousarray(rows, np.float32)
        if rows.ndim != 2 or rows.shape[1] != len(self.features):
            raise ValueError(f"rows have shape {rows.shape}; {self.name} takes (n, {len(self.features)})")
        infinite = np.abs(rows) >= _LARGEST
        if infinite.any():
            raise ValueError(f"{_named(list(self.columns), infinite)}: a value is infinite or too large for a 32-bit float")
        return rows

    def _check_golden(self, golden: Mapping[str, Any], file: Path) -> None:
        expected_margin = np.array(take_field(golden, "margin", list, file), np.float64)
        expected_probability = np.array(take_field(golden, "probability", list, file), np.float64)
        rows = read_golden_rows(golden, file)
        if not (len(rows) == len(expected_margin) == len(expected_probability) > 0):
            raise BundleError(f"{file}: rows, margins and probabilities differ in number, or there are none")
        margin = self.margin(rows)
        probability = self.calibration.apply(margin)
        margin_off = np.abs(margin - expected_margin) / np.maximum(1.0, np.abs(expected_margin))
        off = np.maximum(margin_off, np.abs(probability - expected_probability))
        if not (off <= TOLERANCE).all():
            at = int(np.argmax(~(off <= TOLERANCE)))
            raise BundleError(
                f"{file}: row {at} has margin {margin[at]:.9g} and probability {probability[at]:.9g} here, "
                f"{expected_margin[at]:.9g} and {expected_probability[at]:.9g} where it was trained; is it another runtime?"
            )
        if self.has_amount:
            self._check_golden_amounts(rows, take_field(golden, "amount", dict, file), file)

    def _check_golden_amounts(self, rows: Rows, expected: Mapping[str, Any], file: Path) -> None:
        for name, found in self.amount(rows)._asdict().items():
            known = np.array(take_field(expected, name, list, file), np.float64)  # None becomes NaN
            near = known.shape == found.shape and np.allclose(found, known, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
            if not near:
                raise BundleError(f"{file}: the {name} amounts differ from those where it was trained; is it another runtime?")


# Writing -----------------------------------------------------------------------------------------------------------------------


def write(folder: Path, spec: BundleSpec) -> str:
    """Write a bundle and return its version; the same spec gives the same bytes.

    The folder appears whole or not at all. An earlier bundle there is replaced; any other content is left alone, with an error.

    Raises
    ------
    BundleError
        For a spec that cannot be scored, or a folder that holds something else.
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
    contents = {f"trees-{at}.json": part.model for at, part in enumerate(spec.components) if isinstance(part, Trees)}
    if spec.amount is not None:
        parts = (("amount", spec.amount.component), ("spread", spec.amount.spread))
        contents |= {f"trees-{name}.json": part.model for name, part in parts if isinstance(part, Trees)}
    golden: dict[str, Any] = {
        "rows": [[None if math.isnan(value) else shortest_float(value) for value in row] for row in spec.golden_rows],
        "margin": scores.margin.tolist(),
        "probability": scores.probability.tolist(),
    }
    if amounts is not None:
        golden["amount"] = {name: [None if math.isnan(x) else x for x in found.tolist()] for name, found in amounts._asdict().items()}
    contents[GOLDEN] = canonical_json(golden)
    manifest = canonical_json(manifest_of(spec) | {"files": {name: sha256_of(content) for name, content in contents.items()}})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        fresh, old = Path(work) / "new", Path(work) / "old"
        fresh.mkdir()
        for name, content in (contents | {MANIFEST: manifest}).items():
            (fresh / name).write_bytes(content)
        if folder.exists():
            shutil.move(folder, old)
        shutil.move(fresh, folder)
    return sha256_of(manifest)[:12]
