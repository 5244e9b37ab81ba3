"""The parts of a scoring bundle as values: components, calibration, amount, and the whole specification.

Reading and writing files belongs to `bundle_io`, scoring to `bundle`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.scoring.feature_values import FeatureValues, LevelWeights
from finrisk_assets.scoring.score_curve import ScoreCurve
from schemas.features import Feature

EPSILON = 1e-6
"""Distance from 0 and 1 to which a probability is clipped before calibration, when fitting and when scoring."""

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """Mean contribution per feature of the rows closest below a cutoff of the probability."""

    cutoff: float
    contributions: tuple[float, ...]


class BundleError(ValueError):
    """A bundle that must not be used, or cannot be written; the message names the file and the reason."""


@dataclass(frozen=True)
class Linear:
    """A linear component: ``intercept + sum(coefficients * (t(x) - means) / scales)``, with one entry per feature of the bundle.

    Attributes
    ----------
    coefficients, means, scales
        In the units of ``t(x)``, which is ``signed_log1p(x)`` where the flag is set and ``x`` elsewhere. With the training means
        as ``means``, the contributions are the SHAP values of independent features (Lundberg & Lee 2017, corollary 1).
    fills
        Substitutes for a missing value before ``t``; None where training saw no missing value, so that it is refused.
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
        Substitute for a missing value, per feature; None where the trees themselves send a missing value left or right.
    """

    model: bytes
    fills: tuple[float | None, ...] | None = None
    weight: float = 1.0


Component: TypeAlias = Linear | Trees


@dataclass(frozen=True)
class Amount:
    """An amount with an interval: ``scale * component`` with bounds ``scale * (component + offset * spread)``.

    Attributes
    ----------
    component
        The expected amount over the scale.
    scale
        The feature that scales amounts, in currency, above 0. A row where the feature is missing or not above 0 has no amount.
    low, high
        Offsets of the bounds, at most and at least 0: quantiles of later residuals over the spread (split conformal, Lei et al. 2018).
    spread
        Logarithm of the size of a residual over the scale, so that uncertain rows have wide intervals; None is a spread of 1 for
        all rows.
    level
        The share of amounts that the interval should contain.
    """

    component: Component
    scale: str
    low: float
    high: float
    spread: Component | None = None
    level: float = 0.8


@dataclass(frozen=True)
class Calibration:
    """The map from a margin to a probability.

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
        """Return the probability of each margin, float64, same shape."""
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
    """The specification of a bundle.

    Attributes
    ----------
    name, domain, source
        ``finrisk-loan-default``, ``loan_default``, and the name of the data source it was trained on.
    features
        Features in the order of the rows' columns.
    components, intercept
        margin = intercept + sum(weight * component).
    thresholds, metrics
        Named numbers: what the decision needs beside the policy and was learned, such as the largest amount in training, and the headline
        figures of the evaluation. Probabilities at which decisions change follow from the policy.
    golden_rows
        float32, shape (rows, features), NaN where missing: a few dozen rows, scored when the bundle is written and at every load.
    seed, data_sha256, code_sha256, training_window, libraries
        Provenance of the model. The window is the first and last day as ISO text, None where the source has no times.
    reference
        Mean contribution per feature of the applicants just approved, which reason codes of a refusal compare with; None where
        they compare with the base.
    references
        The same at ascending cutoffs, of which a bundle takes the one nearest to the policy's; empty elsewhere.
    windows
        How the service computes each feature from earlier events: the declarations of ``features`` in their order, as
        `finrisk_assets.features.windows.to_json` returns them. Empty where the client sends the features.
    amount
        The amount of a domain that predicts one; None elsewhere.
    approved
        Feature -> its values among approved applicants, as quantiles in equal steps from the lowest to the highest, for the features that
        a person can change: candidate values of a nearest feasible change (`recourse.approved_quantiles`). Empty elsewhere.
    score_curve
        The scores of the validation window, where the policy's thresholds are shares or capacities; None elsewhere.
    loss_curve
        The expected losses of that window, probability times amount in currency; None where no probability or no amount is known.
    values, reference_group
        What training saw of each feature, in their order, and the group of the quartiles in words; without values nothing is called low
        or high, and no value is outside of what training saw.
    categories
        Category -> the weights of its levels: the components read a weight in place of a level's number.
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
    score_curve: ScoreCurve | None = None
    loss_curve: ScoreCurve | None = None
    references: tuple[Reference, ...] = ()
    values: tuple[FeatureValues, ...] = ()
    reference_group: str = "others"
    categories: Mapping[str, LevelWeights] = field(default_factory=dict)


def signed_log1p(x: ArrayLike) -> Floats:
    """Return ``sign(x) * log(1 + |x|)``, which shortens long tails on both sides of zero; the only transform of a linear component."""
    values = np.asarray(x, np.float64)
    # In one array: batches are as long as their new arrays are.
    shortened = np.empty_like(values)
    np.abs(values, out=shortened)
    np.log1p(shortened, out=shortened)
    return np.copysign(shortened, values, out=shortened)


def _sigmoid(x: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -x))


def check_spec(spec: BundleSpec) -> None:
    """Raise an error for a specification that cannot be scored.

    Raises
    ------
    ValueError
        Names the part and what is wrong with it.
    """
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
    for reference in spec.references:
        if len(reference.contributions) != len(names):
            raise ValueError(f"a reference has {len(reference.contributions)} entries for {len(names)} features")
    if spec.values and len(spec.values) != len(names):
        raise ValueError(f"values has {len(spec.values)} entries for {len(names)} features")
    n_levels = {feature.name: len(feature.levels) for feature in spec.features if feature.is_category}
    if n_levels != {name: len(weights.weights) for name, weights in spec.categories.items()}:
        raise ValueError("categories: every category among the features needs the weights of its levels, one each")
    for name, values in spec.approved.items():
        if name not in names or len(values) < 2 or list(values) != sorted(values) or not all(map(math.isfinite, values)):
            raise ValueError(f"approved: {name!r} needs to be a feature with two or more finite values in ascending order")
    if spec.windows and tuple(Feature(**window.get("feature", {})) for window in spec.windows) != tuple(spec.features):
        raise ValueError("its windows do not declare its features, one each in their order and with the same meaning")
    for position, part in enumerate(spec.components):
        _check_component(f"component {position}", part, len(names))
    if spec.amount is not None:
        _check_amount(spec.amount, names)


def _check_component(part_name: str, part: Component, width: int) -> None:
    values_of_fields = {item.name: getattr(part, item.name) for item in fields(part)}
    for key, value in values_of_fields.items():
        if isinstance(value, tuple) and len(value) != width:
            raise ValueError(f"{part_name}: {key} has {len(value)} entries for {width} features")
    if isinstance(part, Linear) and not all(scale > 0 for scale in part.scales):
        raise ValueError(f"{part_name}: scales must be above zero")


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
