"""The scoring bundle: the one thing that training hands to serving.

A bundle is a folder with ``bundle.json``, ``golden.json`` and the model files it names, all in open formats; ``docs/bundle.md``
describes them. Here it is written, checked, loaded and scored. What belongs elsewhere: turning a trained estimator into a
component (`trees`), what each feature did in a tree (`attribution`), words for a decision (`reasons`), how features are computed
(`finrisk_assets.features`), and where bundles are kept (`registry`). Imports numpy, and XGBoost for many rows where it is installed.
"""

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.attribution import Attribution
from finrisk_assets.modelling.reasons import factors
from schemas.features import Feature

FORMAT = 1
MANIFEST = "bundle.json"
GOLDEN = "golden.json"
TOLERANCE = 1e-6
_FEW_ROWS = 1_000
"""Up to so many are scored from tables: in a tenth of a second at most, less than it takes to load XGBoost, which is faster afterwards."""
_LARGEST = float(np.finfo(np.float32).max)  # refused like infinity: a threshold that all finite values pass stands here
EPSILON = 1e-6  # a probability that is calibrated from is kept this far from 0 and 1, when fitting and when scoring

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.float32]
T = TypeVar("T")


class BundleError(ValueError):
    """A bundle that must not be used, or cannot be written: the message names the file and the reason."""


@dataclass(frozen=True)
class Linear:
    """A linear component: ``intercept + sum(coefficients * (t(x) - means) / scales)``, with one entry per feature of the bundle.

    Attributes
    ----------
    coefficients, means, scales
        In the units of ``t(x)``, which is ``signed_log1p(x)`` where the flag is set and ``x`` elsewhere. With the training means
        as ``means``, the contributions are the SHAP values of independent features (Lundberg & Lee 2017, corollary 1).
    fills
        Stands in for a missing value before ``t``; None where the model was never taught one, so that a missing value is refused.
    """

    coefficients: tuple[float, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    fills: tuple[float | None, ...]
    signed_log1p: tuple[bool, ...]
    intercept: float = 0.0
    weight: float = 1.0


@dataclass(frozen=True)
class Trees:
    """A sum of trees in XGBoost's JSON, whichever library trained it.

    Attributes
    ----------
    model
        Content of the model file.
    fills
        Stands in for a missing value, per feature; None where the trees themselves send a missing value left or right.
    """

    model: bytes
    fills: tuple[float | None, ...] | None = None
    weight: float = 1.0


Component: TypeAlias = Linear | Trees


@dataclass(frozen=True)
class Amount:
    """An amount with an interval, beside the probability: ``scale * component`` with bounds ``scale * (component + offset * spread)``.

    Attributes
    ----------
    component
        The expected amount over the scale.
    scale
        The feature, above 0, that amounts are measured by, in currency. Where it is missing or not above 0 there is no amount.
    low, high
        Offsets of the bounds, at most and at least 0: quantiles of later residuals over the spread (split conformal, Lei et al. 2018).
    spread
        Logarithm of the size of a residual, over the scale, so that an interval is as wide as the row is uncertain; None where
        all rows are alike, which is a spread of 1.
    level
        The share of amounts that the interval is to hold.
    """

    component: Component
    scale: str
    low: float
    high: float
    spread: Component | None = None
    level: float = 0.8


@dataclass(frozen=True)
class Calibration:
    """From a margin to a probability.

    ``beta``: logit(p) = a ln(q) - b ln(1 - q) + c (Kull, Silva Filho & Flach 2017), where q is the margin's sigmoid (link
    ``logit``) or the margin itself (link ``identity``). ``none``: p = q. ``exp2``: p = 2 ** margin, the isolation forest's score
    (Liu, Ting & Zhou 2008), which ranks but is not a probability.
    """

    kind: Literal["beta", "exp2", "none"] = "none"
    link: Literal["logit", "identity"] = "logit"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("beta", "exp2", "none") or self.link not in ("logit", "identity"):
            raise ValueError(f"calibration is beta, exp2 or none over logit or identity, not {self.kind!r} over {self.link!r}")
        if not all(map(math.isfinite, (self.a, self.b, self.c))) or self.a < 0 or self.b < 0:
            raise ValueError(f"calibration needs a >= 0 and b >= 0, so that it keeps the order: a={self.a}, b={self.b}")

    def apply(self, margin: ArrayLike) -> Floats:
        """Probability of each margin, float64, same shape."""
        m = np.asarray(margin, np.float64)
        if self.kind == "exp2":
            return np.clip(np.exp2(m), 0.0, 1.0)
        if self.link == "identity":
            if self.kind == "none":
                return np.clip(m, 0.0, 1.0)
            q = np.clip(m, EPSILON, 1.0 - EPSILON)
            log_q, log_rest = np.log(q), np.log1p(-q)
        else:
            if self.kind == "none":
                return _sigmoid(m)
            log_q, log_rest = -np.logaddexp(0.0, -m), -np.logaddexp(0.0, m)
        return _sigmoid(self.a * log_q - self.b * log_rest + self.c)


@dataclass(frozen=True)
class BundleSpec:
    """Everything that a bundle is made of.

    Attributes
    ----------
    name, domain, source
        ``finrisk-loan-default``, ``loan_default``, and the name of the data source it was trained on.
    features
        In the order of the rows.
    components, intercept
        margin = intercept + sum(weight * component).
    thresholds, metrics
        Named numbers: where decisions turn, and the headline figures of the evaluation.
    golden_rows
        float32, shape (rows, features), NaN where missing: a few dozen rows, scored when written and again at every load.
    seed, data_sha256, code_sha256, training_window, libraries
        Where the model comes from. The window is first and last day as ISO text, None where the source knows no time.
    reference
        Mean contribution per feature of the applicants just approved, which reason codes of a refusal compare with; None where
        they compare with the base.
    windows
        How each feature is computed from the events before, where serving computes it itself: the declarations of ``features``
        in their order, as `finrisk_assets.features.windows.to_json` returns them. Empty where the client sends the features.
    amount
        For a domain that says how much, too; None elsewhere.
    approved
        Feature -> its values among the applicants approved, as quantiles in equal steps from the lowest to the highest, for those that
        a person can change: what a nearest feasible change is sought among (`counterfactual.quantiles`). Empty elsewhere.
    """

    name: str
    domain: str
    source: str
    features: tuple[Feature, ...]
    components: tuple[Component, ...]
    golden_rows: Rows
    seed: int
    data_sha256: str
    code_sha256: str
    calibration: Calibration = Calibration()
    intercept: float = 0.0
    thresholds: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    training_window: tuple[str, str] | None = None
    libraries: Mapping[str, str] = field(default_factory=dict)
    reference: tuple[float, ...] | None = None
    windows: tuple[Mapping[str, Any], ...] = ()
    amount: Amount | None = None
    approved: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


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


def signed_log1p(x: ArrayLike) -> Floats:
    """``sign(x) * log(1 + |x|)``: tames long tails on both sides of zero. The one transform that a linear component knows."""
    values = np.asarray(x, np.float64)
    return np.sign(values) * np.log1p(np.abs(values))


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -x))


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
        self._trees = Attribution(part.model, width)
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
        _check(spec)
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
        sha256, spec, golden = _read(Path(folder), version)
        try:
            bundle = cls(spec, sha256, threads)
        except ImportError:
            raise
        except Exception as error:  # XGBoost raises its own kinds for a model it cannot read
            raise BundleError(f"{folder}/{MANIFEST}: {_first_line(error)}") from error
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
        expected_margin = np.array(_take(golden, "margin", list, file), np.float64)
        expected_probability = np.array(_take(golden, "probability", list, file), np.float64)
        rows = _golden_rows(golden, file)
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
            self._check_golden_amounts(rows, _take(golden, "amount", dict, file), file)

    def _check_golden_amounts(self, rows: Rows, expected: Mapping[str, Any], file: Path) -> None:
        for name, found in self.amount(rows)._asdict().items():
            known = np.array(_take(expected, name, list, file), np.float64)  # None becomes NaN
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
        raise BundleError(f"{spec.name}: {_first_line(error)}") from error
    contents = {f"trees-{at}.json": part.model for at, part in enumerate(spec.components) if isinstance(part, Trees)}
    if spec.amount is not None:
        parts = (("amount", spec.amount.component), ("spread", spec.amount.spread))
        contents |= {f"trees-{name}.json": part.model for name, part in parts if isinstance(part, Trees)}
    golden: dict[str, Any] = {
        "rows": [[None if math.isnan(value) else _short(value) for value in row] for row in spec.golden_rows],
        "margin": scores.margin.tolist(),
        "probability": scores.probability.tolist(),
    }
    if amounts is not None:
        golden["amount"] = {name: [None if math.isnan(x) else x for x in found.tolist()] for name, found in amounts._asdict().items()}
    contents[GOLDEN] = _canonical(golden)
    manifest = _canonical(_manifest(spec) | {"files": {name: _sha256(content) for name, content in contents.items()}})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
        fresh, old = Path(work) / "new", Path(work) / "old"
        fresh.mkdir()
        for name, content in (contents | {MANIFEST: manifest}).items():
            (fresh / name).write_bytes(content)
        if folder.exists():
            shutil.move(folder, old)
        shutil.move(fresh, folder)
    return _sha256(manifest)[:12]


def _manifest(spec: BundleSpec) -> dict[str, Any]:
    def plainly(part: Component, name: str) -> dict[str, Any]:
        if isinstance(part, Linear):
            return {"kind": "linear"} | asdict(part)
        return {"kind": "trees", "file": f"trees-{name}.json", "weight": part.weight, "fills": part.fills}

    head: dict[str, Any] = {}
    if spec.amount is not None:
        one = spec.amount
        spread = None if one.spread is None else plainly(one.spread, "spread")
        bounds = {"scale": one.scale, "low": one.low, "high": one.high, "level": one.level}
        head = {"amount": {"component": plainly(one.component, "amount"), "spread": spread} | bounds}
    if spec.approved:
        head["approved"] = {name: list(values) for name, values in spec.approved.items()}
    plain = ("name", "domain", "source", "seed", "data_sha256", "code_sha256", "intercept", "training_window", "reference")
    return {
        "format": FORMAT,
        **{key: getattr(spec, key) for key in plain},
        "features": [asdict(feature) for feature in spec.features],
        "windows": list(spec.windows),
        "components": [plainly(part, str(at)) for at, part in enumerate(spec.components)],
        "calibration": asdict(spec.calibration),
        "thresholds": dict(spec.thresholds),
        "metrics": dict(spec.metrics),
        "libraries": dict(spec.libraries),
        **head,
    }


def _check(spec: BundleSpec) -> None:
    names = [feature.name for feature in spec.features]
    if not names or len(set(names)) < len(names):
        raise ValueError("a bundle needs features, each named once")
    if not spec.components:
        raise ValueError("a bundle needs a component")
    rows = spec.golden_rows
    if rows.ndim != 2 or rows.shape[1] != len(names) or not len(rows):
        raise ValueError(f"golden rows have shape {rows.shape}; they need one row or more of {len(names)} features")
    for key, value in [*spec.thresholds.items(), *spec.metrics.items()]:
        if not isinstance(value, float | int | np.number) or not math.isfinite(value):
            raise ValueError(f"{key} is {value}; thresholds and metrics are finite numbers")
    if spec.reference is not None and len(spec.reference) != len(names):
        raise ValueError(f"reference has {len(spec.reference)} entries for {len(names)} features")
    for name, values in spec.approved.items():
        if name not in names or len(values) < 2 or list(values) != sorted(values) or not all(map(math.isfinite, values)):
            raise ValueError(f"approved: {name!r} needs to be a feature with two or more finite values in ascending order")
    if spec.windows and tuple(Feature(**window.get("feature", {})) for window in spec.windows) != tuple(spec.features):
        raise ValueError("its windows do not declare its features, one each in their order and with the same meaning")
    for at, part in enumerate(spec.components):
        _check_component(f"component {at}", part, len(names))
    if spec.amount is not None:
        _check_amount(spec.amount, names)


def _check_component(called: str, part: Component, width: int) -> None:
    listed = {item.name: getattr(part, item.name) for item in fields(part)}
    for key, value in listed.items():
        if isinstance(value, tuple) and len(value) != width:
            raise ValueError(f"{called}: {key} has {len(value)} entries for {width} features")
    if isinstance(part, Linear) and not all(scale > 0 for scale in part.scales):
        raise ValueError(f"{called}: scales must be above zero")


def _check_amount(amount: Amount, names: Sequence[str]) -> None:
    _check_component("amount", amount.component, len(names))
    if amount.spread is not None:
        _check_component("spread of the amount", amount.spread, len(names))
    if amount.scale not in names:
        raise ValueError(f"the amount's scale {amount.scale!r} is no feature of the bundle")
    if not (math.isfinite(amount.low) and math.isfinite(amount.high) and amount.low <= 0 <= amount.high):
        raise ValueError(f"the amount's interval needs low <= 0 <= high, both finite: {amount.low}, {amount.high}")
    if not 0 < amount.level < 1:
        raise ValueError(f"the level of the amount's interval lies between 0 and 1, not at {amount.level}")


def _canonical(document: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        raise BundleError(f"a bundle holds finite numbers only: {error}") from error
    return (text + "\n").encode()


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's; a float32 in its shortest form."""
    if isinstance(value, np.float32):
        return _short(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not for JSON")


def _short(value: np.float32) -> float:
    """The float64 that reads shortest (0.1, not 0.10000000149011612) and is the same float32."""
    return float(str(value))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Reading -----------------------------------------------------------------------------------------------------------------------


def _read(folder: Path, version: str | None) -> tuple[str, BundleSpec, Mapping[str, Any]]:
    """The hash, the spec and the golden set of a folder, with every named file's hash checked."""
    file = folder / MANIFEST
    content = _content(file)
    sha256 = _sha256(content)
    if version is not None and (len(version) < 12 or not sha256.startswith(version)):
        raise BundleError(f"{file}: is version {sha256[:12]}, not {version} as asked")
    document = _parse(content, file)
    if document.get("format") != FORMAT:
        raise BundleError(f"{file}: format {document.get('format')!r} is unknown here, which reads format {FORMAT}")
    contents: dict[str, bytes] = {}
    for name, digest in _take(document, "files", dict, file).items():
        contents[name] = _content(_inside(folder, name))
        if _sha256(contents[name]) != digest:
            raise BundleError(f"{folder / name}: its SHA-256 is not the one in {MANIFEST}; was it changed after training?")
    if GOLDEN not in contents:
        raise BundleError(f"{file}: names no {GOLDEN}, so nothing tells whether it scores as trained")
    golden = _parse(contents[GOLDEN], folder / GOLDEN)
    window, reference = document.get("training_window"), document.get("reference")
    try:
        spec = BundleSpec(
            features=tuple(Feature(**feature) for feature in _take(document, "features", list, file)),
            windows=tuple(map(dict, _take({"windows": []} | document, "windows", list, file))),
            components=tuple(_component(part, contents, file) for part in _take(document, "components", list, file)),
            calibration=Calibration(**_take(document, "calibration", dict, file)),
            intercept=float(_take(document, "intercept", float, file)),
            golden_rows=_golden_rows(golden, folder / GOLDEN),
            seed=_take(document, "seed", int, file),
            training_window=None if window is None else (str(window[0]), str(window[1])),
            reference=None if reference is None else tuple(map(float, reference)),
            amount=_amount(document["amount"], contents, file) if "amount" in document else None,
            approved={
                name: tuple(map(float, values)) for name, values in _take({"approved": {}} | document, "approved", dict, file).items()
            },
            thresholds=_take(document, "thresholds", dict, file),
            metrics=_take(document, "metrics", dict, file),
            libraries=_take(document, "libraries", dict, file),
            name=_take(document, "name", str, file),
            domain=_take(document, "domain", str, file),
            source=_take(document, "source", str, file),
            data_sha256=_take(document, "data_sha256", str, file),
            code_sha256=_take(document, "code_sha256", str, file),
        )
    except BundleError:
        raise
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise BundleError(f"{file}: {_first_line(error)}") from error
    return sha256, spec, golden


def _component(part: Mapping[str, Any], contents: Mapping[str, bytes], file: Path) -> Component:
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in part.items()}
    kind = settings.pop("kind", None)
    if kind == "linear":
        return Linear(**settings)
    if kind == "trees":
        name = settings.pop("file", None)
        if name not in contents:
            raise BundleError(f"{file}: a component's file {name!r} is not among the files with a hash")
        return Trees(model=contents[name], **settings)
    raise BundleError(f"{file}: component of kind {kind!r} is unknown here; linear and trees are known")


def _amount(head: Mapping[str, Any], contents: Mapping[str, bytes], file: Path) -> Amount:
    spread = head.get("spread")
    return Amount(
        component=_component(_take(head, "component", dict, file), contents, file),
        scale=_take(head, "scale", str, file),
        low=float(_take(head, "low", float, file)),
        high=float(_take(head, "high", float, file)),
        spread=None if spread is None else _component(spread, contents, file),
        level=float(_take(head, "level", float, file)),
    )


def _golden_rows(golden: Mapping[str, Any], file: Path) -> Rows:
    try:
        return np.array(_take(golden, "rows", list, file), np.float32)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise BundleError(f"{file}: its rows are not a table of numbers") from error


def _inside(folder: Path, name: str) -> Path:
    """The file of that name, unless the name or a link leads out of the folder."""
    path = folder / name
    if Path(name).name != name or "\\" in name or path.resolve().parent != folder.resolve():
        raise BundleError(f"{folder / MANIFEST}: the file {name!r} lies outside the bundle's folder")
    return path


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{file}: the file is missing") from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error


def _parse(content: bytes, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise BundleError(f"{file}: is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{file}: is not a JSON object")
    return document


def _take(document: Mapping[str, Any], key: str, kind: type[T], file: Path) -> T:
    value = document.get(key)
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind):
        raise BundleError(f"{file}: {key!r} is missing or is not {kind.__name__}")
    return value


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
