"""The models of a transaction's risk, unfitted: an isolation forest, supervised candidates, and the join of two margins.

Only estimators and their arithmetic belong here; the definition of the domain fits and evaluates them. Every estimator takes rows of the
features in their order, NaN where a value is missing, and contains its preprocessing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.features import Feature

if TYPE_CHECKING:
    from sklearn.ensemble import IsolationForest
    from xgboost import XGBClassifier

GENUINE_SHARE = 0.04
"""Share of the genuine transactions that the supervised models learn from. On the Handbook's weeks in July 2018, 4 % gave as good a model
as 10 %, in a third of the time."""

ISOLATED = frozenset(
    {
        "log_amount",
        "hour",
        "customer_n_1h",
        "customer_n_1d",
        "amount_to_mean_7d",
        "amount_to_mean_30d",
        "amount_to_max_30d",
        "amount_zscore_7d",
        "amount_zscore_30d",
        "merchant_risk_1d",
        "merchant_risk_7d",
        "merchant_risk_30d",
    }
)
"""The features in which an unusual value is suspicious. A forest splits on features at random, so every other feature dilutes the forest:
on the Handbook's July weeks all forty gave half the average precision of these."""

JOINABLE = ("logistic_regression", "xgboost", "xgboost_monotone")
"""Candidates whose log-odds are a sum, which a bundle can join with another margin; those of a forest are the logarithm of a mean."""

_EXACT = {"ftol": 1e-13, "gtol": 1e-9, "maxiter": 1000}


def isolation_forest(seed: int, *, n_jobs: int = 1) -> "IsolationForest":
    """Return an isolation forest (Liu, Ting and Zhou 2008) of 100 trees on 256 rows each."""
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=100, max_samples=256, random_state=seed, n_jobs=n_jobs)


def isolate_features(features: Sequence[Feature], rows: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return the rows to fit an isolation forest on, with all features outside `ISOLATED` constant.

    A forest never splits on a constant, so rows to be scored need no such treatment and have the same columns as for every other
    model. Where none of the features is in `ISOLATED`, the rows are returned unchanged.
    """
    other = [at for at, feature in enumerate(features) if feature.name not in ISOLATED]
    if len(other) == len(features):
        return rows
    constant = rows.copy()
    constant[:, other] = 0.0
    return constant


def compute_isolation_margin(forest: "IsolationForest", rows: ArrayLike) -> NDArray[np.float64]:
    """Return -E[h(x)] / c(psi) of each row: the mean path length in the paper's unit, negated, so that higher is more unusual.

    Two to this power is the paper's anomaly score; the margin is the sum of the trees, and so can be explained.
    """
    return np.log2(-forest.score_samples(rows))


def boosted_trees(features: Sequence[Feature], seed: int, *, monotone: bool = False, n_jobs: int = 1) -> "XGBClassifier":
    """Return boosted trees for the probability of fraud; with `monotone`, constrained where a feature has a direction.

    Unconstrained by default, because the merchant's windows together have no direction: frauds over 30 days with none in the last days
    before the label's delay mean that the trouble is over. A constraint cost .06 of average precision. Depth, rate and number of trees
    were chosen on the Handbook's weeks of July 2018; see the README.
    """
    from xgboost import XGBClassifier

    return XGBClassifier(
        n_estimators=150,
        max_depth=5,
        learning_rate=0.08,
        min_child_weight=5,
        subsample=0.8,
        colsample_bytree=0.6,
        max_bin=128,
        tree_method="hist",
        monotone_constraints=tuple(feature.monotone for feature in features) if monotone else None,
        random_state=seed,
        n_jobs=n_jobs,
    )


def candidates(features: Sequence[Feature], seed: int, *, n_jobs: int = 1) -> dict[str, Any]:
    """Return the unfitted supervised candidates by name, to be chosen among on a later window.

    ``xgboost_monotone`` is a candidate where a feature has a direction.
    """
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    from finrisk_assets.scoring.spec import signed_log1p

    models = {
        "logistic_regression": make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            FunctionTransformer(signed_log1p, feature_names_out="one-to-one"),
            StandardScaler(),
            LogisticRegression(max_iter=1000, random_state=seed),
        ),
        "random_forest": RandomForestClassifier(n_estimators=100, min_samples_leaf=3, random_state=seed, n_jobs=n_jobs),
        "xgboost": boosted_trees(features, seed, n_jobs=n_jobs),
    }
    if any(feature.monotone for feature in features):
        models["xgboost_monotone"] = boosted_trees(features, seed, monotone=True, n_jobs=n_jobs)
    return models


def compute_log_odds(estimator: Any, rows: ArrayLike) -> NDArray[np.float64]:
    """Return the margin of a fitted candidate: XGBoost's own margin, or another candidate's probability as log-odds within ±16."""
    if hasattr(estimator, "get_booster"):
        return np.asarray(estimator.predict(rows, output_margin=True), dtype=np.float64)
    probability = np.clip(estimator.predict_proba(rows)[:, 1], 1e-7, 1 - 1e-7)
    return np.asarray(np.log(probability) - np.log1p(-probability), dtype=np.float64)


def undersample(is_fraud: ArrayLike, seed: int, share: float = GENUINE_SHARE) -> NDArray[np.bool_]:
    """Mark all frauds and a random `share` of the genuine transactions, to learn from.

    The log-odds of a model fitted on these rows are too high by -ln(share); `fit_join`, fitted on rows in their natural proportion,
    corrects that, and a calibration corrects the rest.

    Returns
    -------
    ndarray of bool, shape (n,)

    Raises
    ------
    ValueError
        If `share` is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of genuine rows to keep must be above 0 and at most 1, not {share}")
    fraud = np.asarray(is_fraud).astype(bool)
    return fraud | (np.random.default_rng(seed).random(fraud.size) < share)


@dataclass(frozen=True)
class MarginJoin:
    """A joined margin in log-odds: ``intercept + sum(weights[name] * margins[name])``, no weight below 0."""

    intercept: float
    weights: Mapping[str, float]

    def margin(self, margins: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Return the joined margin of each row."""
        parts = [weight * np.asarray(margins[name], dtype=np.float64) for name, weight in self.weights.items()]
        return np.asarray(self.intercept + np.sum(parts, axis=0), dtype=np.float64)


def fit_join(is_fraud: ArrayLike, margins: Mapping[str, ArrayLike]) -> MarginJoin:
    """Fit the join of several models' margins by logistic regression with weights that are not negative.

    A stack of models (Wolpert 1992) whose weights may not be negative (Breiman 1996): more risk by one model is never less
    risk by the join. The rows must be later than the rows that the models were fitted on, in their natural proportion.

    Parameters
    ----------
    is_fraud : array-like of shape (n,)
    margins
        Margins by model, each array-like of shape (n,). A model that adds nothing gets the weight 0.

    Raises
    ------
    ValueError
        Where there are no margins, shapes differ, a margin is not finite or the labels are of one kind.
    RuntimeError
        If the optimisation does not end.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    fraud = np.asarray(is_fraud).astype(np.float64)
    if not margins:
        raise ValueError("there are no margins to join")
    rows = np.column_stack([np.asarray(margin, dtype=np.float64) for margin in margins.values()])
    if rows.shape[0] != fraud.size or not np.isfinite(rows).all():
        raise ValueError(f"the margins of {', '.join(margins)} must be {fraud.size} finite numbers each, one per label")
    if not 0 < fraud.sum() < fraud.size:
        raise ValueError(f"{int(fraud.sum())} of {fraud.size} rows are fraud: the join needs both kinds")
    # On one scale, so that the optimiser's steps suit every margin.
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    scaled = (rows - centre) / np.where(spread > 0, spread, 1.0)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = parameters[0] + scaled @ parameters[1:]
        residual = expit(z) - fraud
        gradient = np.concatenate([[residual.mean()], scaled.T @ residual / fraud.size])
        return float(np.mean(np.logaddexp(0.0, z) - fraud * z)), gradient

    start = np.zeros(rows.shape[1] + 1)
    start[0] = np.log(fraud.mean() / (1 - fraud.mean()))
    bounds = [(None, None), *[(0.0, None)] * rows.shape[1]]
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_EXACT)
    if not fit.success:
        raise RuntimeError(f"the join of {', '.join(margins)} was not found: {fit.message}")
    weight = np.where(spread > 0, fit.x[1:] / np.where(spread > 0, spread, 1.0), 0.0)
    return MarginJoin(float(fit.x[0] - weight @ centre), dict(zip(margins, weight.tolist(), strict=True)))
