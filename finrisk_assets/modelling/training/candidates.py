"""Candidate models for a probability: fitted on one split, calibrated, compared, and the choice between them.

Each candidate is an unfitted scikit-learn estimator with its preprocessing inside, of a kind that `modelling.training.convert` converts
exactly. Class weights and resampling are not used, because they distort probabilities. Each domain defines its features and the
decisions that follow from a probability.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import calibrate
from finrisk_assets.modelling.training.parallel import map_threads
from finrisk_assets.modelling.training.split import Split
from finrisk_assets.scoring.spec import Rows, signed_log1p
from schemas.features import Feature

MIN_LARGE_ROWS = 5_000
"""Training rows; with fewer, trees stay small and few."""

ONE_STANDARD_ERROR = 0.6827
"""Level of the interval that extends one standard error to either side."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A fitted model and its figures on the validation window.

    Attributes
    ----------
    name, estimator
        As in `build_candidates`, fitted on the training window.
    fitted_calibration
        Its calibration, fitted on the validation window.
    auc
        On the validation window, with its interval; the choice depends on it. Calibration does not change it.
    log_loss
        On the validation window, calibrated.
    seconds
        Duration of the fit.
    """

    name: str
    estimator: Any
    fitted_calibration: calibrate.FittedCalibration
    auc: metrics.Interval
    log_loss: float
    seconds: float

    def probability(self, rows: Rows) -> Floats:
        """Return the calibrated probability of each row, shape (n,)."""
        return self.fitted_calibration.calibration.apply(compute_margin(self.estimator, rows)[0])


def build_candidates(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 20_000) -> dict[str, Any]:
    """Return the unfitted models by name, the simplest first.

    Parameters
    ----------
    features
        In the order of the rows' columns. `Feature.monotone` constrains both kinds of boosting; scikit-learn's forest cannot
        keep a constraint where values are missing.
    seed, n_threads
        Seed of all draws, and threads for fitting.
    n_rows
        Number of training rows, which limits the size of trees.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from xgboost import XGBClassifier

    direction = [feature.monotone for feature in features]
    is_small = n_rows < MIN_LARGE_ROWS
    return {
        "logistic_regression": Pipeline(
            [
                ("fill", SimpleImputer(strategy="median", keep_empty_features=True)),
                ("log", FunctionTransformer(signed_log1p)),
                ("scale", StandardScaler()),
                ("model", LogisticRegression(C=0.05, max_iter=2000)),
            ]
        ),
        "random_forest": RandomForestClassifier(
            n_estimators=200,
            max_depth=6 if is_small else 8,
            min_samples_leaf=5 if is_small else 20,
            max_features="sqrt",
            random_state=seed,
            n_jobs=n_threads,
        ),
        "gradient_boosting": HistGradientBoostingClassifier(
            max_iter=120 if is_small else 300,
            learning_rate=0.04,
            max_depth=3 if is_small else 4,
            min_samples_leaf=10 if is_small else 40,
            l2_regularization=10.0,
            max_features=0.3,
            monotonic_cst=direction,
            early_stopping=False,
            random_state=seed,
        ),
        "xgboost": XGBClassifier(
            n_estimators=200 if is_small else 700,
            learning_rate=0.03 if is_small else 0.02,
            max_depth=3 if is_small else 4,
            min_child_weight=1 if is_small else 10,
            subsample=0.7,
            colsample_bytree=0.3,
            reg_lambda=10.0,
            monotone_constraints=tuple(direction),
            tree_method="hist",
            random_state=seed,
            n_jobs=n_threads,
        ),
    }


def compute_margin(estimator: Any, rows: Rows) -> tuple[Floats, Literal["logit", "identity"]]:
    """Return a fitted candidate's score of each row before calibration, shape (n,), and its scale.

    Log-odds (``logit``) for all but the random forest, which predicts a mean of shares (``identity``).
    """
    from joblib import parallel_config

    if type(estimator).__name__ == "XGBClassifier":
        return np.asarray(estimator.predict(rows, output_margin=True), np.float64), "logit"
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(rows), np.float64), "logit"
    # On several threads a forest adds its trees in the order in which they finish, so the last bits would vary.
    with parallel_config("sequential"):
        return np.asarray(estimator.predict_proba(rows)[:, 1], np.float64), "identity"


def fit_candidates(rows: Rows, labels: ArrayLike, split: Split, models: Mapping[str, Any], threads: int = 1) -> list[Candidate]:
    """Fit every model on the training window and calibrate it on the validation window; the chosen candidate comes first.

    The choice is the simplest model whose AUC on the validation window is within one standard error of the highest (Breiman, Friedman,
    Olshen & Stone, *Classification and Regression Trees*, 1984, section 3.4.3; here the error of the paired difference, by DeLong): a
    window of a few thousand rows cannot separate closer models, and the highest of several is partly chance. The others follow by AUC. The
    test window is not used.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
        Rows of the whole feature table, NaN where missing.
    labels : array-like of bool or 0/1, shape (n,)
    split, models
        From `split.split` and `build_candidates`; the simplest model first.
    threads
        Models to fit at a time.
    """
    target = np.asarray(labels).astype(int)
    fitted = map_threads(lambda item: _fit_candidate(*item, rows, target, split), models.items(), threads)
    validation, validation_labels = rows[split.validation], target[split.validation]
    ranked = sorted(fitted, key=lambda candidate: -candidate.auc.value)
    best = ranked[0].probability(validation)

    def is_close(candidate: Candidate) -> bool:
        probability = candidate.probability(validation)
        return metrics.compare_auc(validation_labels, best, probability, level=ONE_STANDARD_ERROR).difference.low <= 0

    chosen = next(candidate for candidate in fitted if candidate is ranked[0] or is_close(candidate))
    return [chosen, *(candidate for candidate in ranked if candidate is not chosen)]


def _fit_candidate(name: str, model: Any, rows: Rows, target: NDArray[np.int64], split: Split) -> Candidate:
    started = time.perf_counter()
    estimator = model.fit(rows[split.train], target[split.train])
    seconds = time.perf_counter() - started
    labels = target[split.validation]
    score, link = compute_margin(estimator, rows[split.validation])
    fitted = calibrate.fit(score, labels, link)
    return Candidate(name, estimator, fitted, metrics.auc(labels, score), fitted.log_loss_after, seconds)


def to_matrix(frame: Any, features: Sequence[Feature]) -> Rows:
    """Return the features of a data frame as float32 rows, shape (n, d), NaN where missing."""
    return np.ascontiguousarray(frame[[feature.name for feature in features]].to_numpy(dtype=np.float32, na_value=np.nan))
