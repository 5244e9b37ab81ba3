"""Candidates for a probability: fitted on one split, calibrated, compared, and the choice between them.

Each is an unfitted scikit-learn estimator with its preprocessing inside, of a kind that `modelling.trees` turns into a bundle
exactly. No class weights and no resampling: a probability must stay one. What the features mean and what a probability leads to
is each domain's own.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import calibrate
from finrisk_assets.modelling.training.parallel import each
from finrisk_assets.modelling.training.split import Split
from finrisk_assets.scoring.spec import Rows, signed_log1p
from schemas.features import Feature

FEW_ROWS = 5_000
"""Below this many training rows, trees stay small and few."""

ONE_STANDARD_ERROR = 0.6827
"""Level of the interval that reaches one standard error to either side."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A fitted model and what the validation window says of it.

    Attributes
    ----------
    name, estimator
        As in `candidates`, fitted on the training window.
    calibrated
        Its calibration, fitted on the validation window.
    auc
        On the validation window, with its interval; the choice rests on it. Calibration does not change it.
    log_loss
        On the validation window, calibrated.
    seconds
        That fitting took.
    """

    name: str
    estimator: Any
    calibrated: calibrate.Fitted
    auc: metrics.Interval
    log_loss: float
    seconds: float

    def probability(self, rows: Rows) -> Floats:
        """Calibrated probability of each row, shape (n,)."""
        return self.calibrated.calibration.apply(margin(self.estimator, rows)[0])


def candidates(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 20_000) -> dict[str, Any]:
    """Return the unfitted models by name, the simplest first.

    Parameters
    ----------
    features
        In the order of the rows' columns. `Feature.monotone` binds both kinds of boosting; scikit-learn's forest cannot keep
        a constraint where values are missing.
    seed, n_threads
        Of whatever is drawn, and for fitting.
    n_rows
        Rows to be trained on: how large trees may grow depends on it.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from xgboost import XGBClassifier

    direction = [feature.monotone for feature in features]
    few = n_rows < FEW_ROWS
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
            max_depth=6 if few else 8,
            min_samples_leaf=5 if few else 20,
            max_features="sqrt",
            random_state=seed,
            n_jobs=n_threads,
        ),
        "gradient_boosting": HistGradientBoostingClassifier(
            max_iter=120 if few else 300,
            learning_rate=0.04,
            max_depth=3 if few else 4,
            min_samples_leaf=10 if few else 40,
            l2_regularization=10.0,
            max_features=0.3,
            monotonic_cst=direction,
            early_stopping=False,
            random_state=seed,
        ),
        "xgboost": XGBClassifier(
            n_estimators=200 if few else 700,
            learning_rate=0.03 if few else 0.02,
            max_depth=3 if few else 4,
            min_child_weight=1 if few else 10,
            subsample=0.7,
            colsample_bytree=0.3,
            reg_lambda=10.0,
            monotone_constraints=tuple(direction),
            tree_method="hist",
            random_state=seed,
            n_jobs=n_threads,
        ),
    }


def margin(estimator: Any, rows: Rows) -> tuple[Floats, Literal["logit", "identity"]]:
    """Return what a fitted candidate says of each row before calibration, shape (n,), and on which scale.

    Log-odds (``logit``) of all but the random forest, which answers a mean of shares (``identity``).
    """
    from joblib import parallel_config

    if type(estimator).__name__ == "XGBClassifier":
        return np.asarray(estimator.predict(rows, output_margin=True), np.float64), "logit"
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(rows), np.float64), "logit"
    # On several threads a forest adds up its trees in the order in which they finish: the last bits would be chance.
    with parallel_config("sequential"):
        return np.asarray(estimator.predict_proba(rows)[:, 1], np.float64), "identity"


def fit_all(rows: Rows, labels: ArrayLike, split: Split, models: Mapping[str, Any], threads: int = 1) -> list[Candidate]:
    """Fit every model on the training window and calibrate it on the validation window; the chosen one comes first.

    Chosen is the simplest whose AUC on the validation window is within one standard error of the highest (Breiman, Friedman, Olshen &
    Stone, *Classification and Regression Trees*, 1984, section 3.4.3; here the error of the paired difference, by DeLong): a window of a
    few thousand rows cannot tell closer models apart, and the highest of several is partly luck. The others follow by AUC. The test
    window is not touched.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
        Of the whole feature table, NaN where missing.
    labels : array-like of bool or 0/1, shape (n,)
    split, models
        From `modelling.split.split` and `candidates`; the simplest model first.
    threads
        Models that are fitted at a time.
    """
    target = np.asarray(labels).astype(int)
    found = each(lambda named: _fit(*named, rows, target, split), models.items(), threads)
    validation, known = rows[split.validation], target[split.validation]
    ranked = sorted(found, key=lambda candidate: -candidate.auc.value)
    best = ranked[0].probability(validation)

    def close(candidate: Candidate) -> bool:
        said = candidate.probability(validation)
        return metrics.compare_auc(known, best, said, level=ONE_STANDARD_ERROR).difference.low <= 0

    chosen = next(candidate for candidate in found if candidate is ranked[0] or close(candidate))
    return [chosen, *(candidate for candidate in ranked if candidate is not chosen)]


def _fit(name: str, model: Any, rows: Rows, target: NDArray[np.int64], split: Split) -> Candidate:
    started = time.perf_counter()
    estimator = model.fit(rows[split.train], target[split.train])
    seconds = time.perf_counter() - started
    known = target[split.validation]
    score, link = margin(estimator, rows[split.validation])
    fitted = calibrate.fit(score, known, link)
    return Candidate(name, estimator, fitted, metrics.auc(known, score), fitted.log_loss_after, seconds)


def matrix(frame: Any, features: Sequence[Feature]) -> Rows:
    """Return the features of a data frame as float32 rows, shape (n, d), NaN where missing."""
    return np.ascontiguousarray(frame[[feature.name for feature in features]].to_numpy(dtype=np.float32, na_value=np.nan))
