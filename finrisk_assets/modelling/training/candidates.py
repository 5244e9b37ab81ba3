"""Candidate models for a probability: fitted on one split, calibrated, compared row by row, and the choice between them.

Each candidate is an unfitted scikit-learn estimator with its preprocessing inside, of a kind that `modelling.training.convert` converts
exactly. Class weights and resampling are not used, because they distort probabilities. Each domain defines its features and the
decisions that follow from a probability.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import calibrate, tuning
from finrisk_assets.modelling.training.parallel import map_threads
from finrisk_assets.modelling.training.split import Split
from finrisk_assets.scoring.spec import Rows, signed_log1p
from finrisk_assets.settings import SettingsError
from schemas.features import Feature

if TYPE_CHECKING:
    from finrisk_assets.scoring.spec import Component

MIN_LARGE_ROWS = 5_000
"""Training rows; with fewer, trees stay small and few."""

MIN_FOLD_ROWS = 5
"""Rows of the rarer outcome in a fold, below which training rows are not judged by cross-validation."""

N_PARALLEL_TREES = 3
"""Trees of each round of boosting on few rows, each on rows and columns of its own: their mean varies less with the seed than one tree.
In ten folds of 1,000 loans five instead of one raised the AUC from .802 to .805, and four ranked no better than three.
"""

MAX_LOSS_SHARE = 0.01
"""Share of the log loss that the best model takes away from the base rate's, by which a simpler model may be worse and still be chosen.
A larger share gives simpler models and worse ones: 1 % is about .001 of the AUC.
"""

ONE_STANDARD_ERROR = 0.6827
"""Level of the interval that extends one standard error to either side: an average must beat its better part by more than that."""

ENSEMBLES = frozenset(("RandomForestClassifier", "HistGradientBoostingClassifier", "XGBClassifier", "AveragedModel"))
"""Estimators of hundreds of trees, or of two models: none of them is simpler than another one."""

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
        On the validation window, with its interval.
    log_loss
        Calibrated, on the validation window and in a small table also on the training rows, cross-validated; the choice depends on it.
    excess_loss
        The log loss less that of the best candidate on the same rows, with its paired interval, in which a person counts once.
    seconds
        Duration of the fit, the search for settings included.
    """

    name: str
    estimator: Any
    fitted_calibration: calibrate.FittedCalibration
    auc: metrics.Interval
    log_loss: float
    excess_loss: metrics.Interval
    seconds: float

    def probability(self, rows: Rows) -> Floats:
        """Return the calibrated probability of each row, shape (n,)."""
        return self.fitted_calibration.calibration.apply(compute_margin(self.estimator, rows)[0])


@dataclass(frozen=True)
class AveragedModel:
    """The average of two fitted models in log-odds.

    Attributes
    ----------
    parts
        Each estimator with the weight of its margin.
    intercept
        Added to the weighted margins.
    """

    parts: tuple[tuple[Any, float], ...]
    intercept: float

    def join(self, margins: Sequence[Floats]) -> Floats:
        """Return the margin that follows from those of the parts, in their order."""
        weighted = [weight * margin for (_, weight), margin in zip(self.parts, margins, strict=True)]
        return np.asarray(self.intercept + np.sum(weighted, axis=0), np.float64)

    def get_params(self) -> dict[str, Any]:
        """Return the parameters of both estimators, by the number of the part."""
        named = ((number, part[-1] if hasattr(part, "steps") else part) for number, (part, _) in enumerate(self.parts))
        return {f"part_{number}.{name}": value for number, part in named for name, value in part.get_params().items()}


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
    boosting = XGBClassifier(
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
    )
    if n_rows < tuning.SMALL_ROWS:
        # Few rows bear deeper trees where each sees few of the rows and columns, and several are averaged.
        boosting.set_params(
            learning_rate=0.04,
            max_depth=4,
            min_child_weight=3,
            subsample=0.6,
            colsample_bytree=0.2,
            reg_lambda=5.0,
            num_parallel_tree=N_PARALLEL_TREES,
        )
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
        "xgboost": boosting,
    }


def place_on_device(models: Mapping[str, Any], device: str) -> None:
    """Let XGBoost's models fit where the setting ``FINRISK_DEVICE`` says.

    Raises
    ------
    finrisk_assets.settings.SettingsError
        For ``cuda`` where XGBoost was built without CUDA or finds no device.
    """
    if device == "cpu":
        return
    if has_cuda():
        for model in models.values():
            if _is_xgboost(model):
                model.set_params(device="cuda")
    elif device == "cuda":
        raise SettingsError(
            "FINRISK_DEVICE=cuda: XGBoost was built without CUDA or finds no device: install what docs/scale.md says, or set auto"
        )


def has_cuda() -> bool:
    """Return whether XGBoost was built with CUDA and fits on a device of this machine."""
    import xgboost

    if not xgboost.build_info().get("USE_CUDA"):
        return False
    try:
        xgboost.train({"device": "cuda", "verbosity": 0}, xgboost.DMatrix(np.zeros((2, 1)), label=[0, 1]), 1)
    except xgboost.core.XGBoostError:
        return False
    return True


def compute_margin(estimator: Any, rows: Rows) -> tuple[Floats, Literal["logit", "identity"]]:
    """Return a fitted candidate's score of each row before calibration, shape (n,), and its scale.

    Log-odds (``logit``) for all but the random forest alone, which predicts a mean of shares (``identity``).
    """
    from joblib import parallel_config

    if isinstance(estimator, AveragedModel):
        return estimator.join([compute_margin(part, rows)[0] for part, _ in estimator.parts]), "logit"
    if _is_xgboost(estimator):
        return np.asarray(estimator.predict(rows, output_margin=True), np.float64), "logit"
    if hasattr(estimator, "decision_function"):
        return np.asarray(estimator.decision_function(rows), np.float64), "logit"
    # On several threads a forest adds its trees in the order in which they finish, so the last bits would vary.
    with parallel_config("sequential"):
        return np.asarray(estimator.predict_proba(rows)[:, 1], np.float64), "identity"


def fit_candidates(
    rows: Rows,
    labels: ArrayLike,
    split: Split,
    models: Mapping[str, Any],
    threads: int = 1,
    people: ArrayLike | None = None,
    refit: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda models: {},
) -> list[Candidate]:
    """Fit every model on the training window and calibrate it on the validation window; the chosen candidate comes first.

    XGBoost's settings are searched on the training window first (`tuning.tune`). The average of the best candidate with another one takes
    part where its paired loss is below the best's by more than a standard error.

    The choice is the simplest candidate that is as good as the best one: the interval of its paired excess loss includes 0, and the excess
    is at most `MAX_LOSS_SHARE` of what the best takes away from the loss of the base rate. Regressions and cards are simpler than ensembles
    of trees, in the order given; an ensemble is simpler than an average, but not than another ensemble. Losses are compared row by row,
    because models judged on the same rows share most of their errors. The others follow by log loss. The test window is not used.

    Of fewer than `tuning.SMALL_ROWS` rows the validation window is too small to tell models apart. There every training row counts too, by
    the score of a model with the candidate's settings that was fitted on other people (cross-validation).

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
        Rows of the whole feature table, NaN where missing.
    labels : array-like of bool or 0/1, shape (n,)
    split, models
        From `split.split` and `build_candidates`; the simplest model first.
    threads
        Models to fit at a time.
    people : array-like, shape (n,), optional
        The person of each row. None takes each row as a person.
    refit
        Returns XGBoost's fitted models, by name, with the same settings fitted on more rows; a model that it leaves out stays as it is.
    """
    target = np.asarray(labels).astype(int)
    person = np.arange(len(target)) if people is None else np.asarray(people)
    fitted = map_threads(lambda item: _fit_candidate(*item, rows, target, person, split, threads), models.items(), threads)
    began = time.perf_counter()
    again = refit({candidate.name: candidate.estimator for candidate in fitted if _is_xgboost(candidate.estimator)})
    seconds, held_out = time.perf_counter() - began, (rows[split.validation], target[split.validation], person[split.validation])
    fitted = [
        _calibrate(candidate.name, again[candidate.name], *held_out, candidate.seconds + seconds) if candidate.name in again else candidate
        for candidate in fitted
    ]
    judged = _JudgedRows.of(rows, target, person, split)
    margins = dict(zip(models, map_threads(lambda candidate: judged.cross_validate(candidate.estimator), fitted, threads), strict=True))
    losses = {candidate.name: judged.losses(candidate, margins[candidate.name]) for candidate in fitted}
    fitted = [replace(candidate, log_loss=float(losses[candidate.name].mean())) for candidate in fitted]
    best_single = min(fitted, key=lambda candidate: candidate.log_loss)
    averages = []
    for other in fitted:
        if other is not best_single:
            average = _average(best_single, other, rows[split.validation], target[split.validation], person[split.validation])
            losses[average.name] = judged.losses(average, average.estimator.join([margins[best_single.name], margins[other.name]]))
            averages.append(replace(average, log_loss=float(losses[average.name].mean())))
    average = min(averages, key=lambda candidate: candidate.log_loss, default=best_single)
    outcomes, clusters = target[judged.positions], person[judged.positions]
    if metrics.clustered_mean(losses[average.name] - losses[best_single.name], clusters, ONE_STANDARD_ERROR).high < 0:
        fitted = [*fitted, average]
    best = min(fitted, key=lambda candidate: candidate.log_loss)
    compared = [
        replace(candidate, excess_loss=metrics.clustered_mean(losses[candidate.name] - losses[best.name], clusters)) for candidate in fitted
    ]
    rate = float(outcomes.mean())
    explained = max(metrics.log_loss(outcomes, np.full(len(outcomes), rate)) - best.log_loss, 0.0)
    readable = [candidate for candidate in compared if _is_readable(candidate)]
    by_loss = sorted(compared, key=lambda candidate: (isinstance(candidate.estimator, AveragedModel), candidate.log_loss))
    chosen = next(
        candidate for candidate in [*readable, *by_loss] if candidate.name == best.name or _is_as_good(candidate.excess_loss, explained)
    )
    return [chosen, *sorted((one for one in compared if one is not chosen), key=lambda candidate: candidate.log_loss)]


@dataclass(frozen=True)
class _JudgedRows:
    """The rows on which candidates are compared: the validation window, and before it the training rows of a small table."""

    rows: Rows
    target: NDArray[np.int64]
    person: NDArray[Any]
    cross_validated: NDArray[np.int64]
    validation: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, target: NDArray[np.int64], person: NDArray[Any], split: Split) -> "_JudgedRows":
        rarer = np.bincount(target[split.train], minlength=2).min()
        is_small = len(split.train) + len(split.validation) < tuning.SMALL_ROWS and rarer >= MIN_FOLD_ROWS * tuning.N_FOLDS
        return cls(rows, target, person, split.train if is_small else split.train[:0], split.validation)

    @property
    def positions(self) -> NDArray[np.int64]:
        return np.concatenate([self.cross_validated, self.validation])

    def cross_validate(self, estimator: Any) -> Floats:
        """Return the margins of the cross-validated rows, each by a model that was fitted on other people."""
        from sklearn.base import clone

        rows, target = self.rows[self.cross_validated], self.target[self.cross_validated]
        margin = np.empty(len(rows))
        if len(rows):
            folds = tuning.draw_folds(target.astype(np.float32), self.person[self.cross_validated], 0)
            for learn, test in islice(folds, tuning.N_FOLDS):
                margin[test] = compute_margin(clone(estimator).fit(rows[learn], target[learn]), rows[test])[0]
        return margin

    def losses(self, candidate: Candidate, margin: Floats) -> Floats:
        """Return the calibrated log loss of each judged row, from the candidate and its margins of the cross-validated rows."""
        parts = [_row_losses(candidate.probability(self.rows[self.validation]), self.target[self.validation])]
        if len(margin):
            target = self.target[self.cross_validated]
            link = candidate.fitted_calibration.calibration.link
            calibration = calibrate.fit(margin, target, link, self.person[self.cross_validated]).calibration
            parts.insert(0, _row_losses(calibration.apply(margin), target))
        return np.concatenate(parts)


def _is_xgboost(estimator: Any) -> bool:
    return type(estimator).__name__ == "XGBClassifier"


def _is_readable(candidate: Candidate) -> bool:
    return type(candidate.estimator).__name__ not in ENSEMBLES


def _is_as_good(excess: metrics.Interval, explained: float) -> bool:
    return excess.low <= 0 and excess.value <= MAX_LOSS_SHARE * explained


def _fit_candidate(
    name: str, model: Any, rows: Rows, target: NDArray[np.int64], person: NDArray[Any], split: Split, threads: int
) -> Candidate:
    started = time.perf_counter()
    if _is_xgboost(model):
        model = tuning.tune(model, rows[split.train], target[split.train], person[split.train], threads)
    estimator = model.fit(rows[split.train], target[split.train])
    seconds = time.perf_counter() - started
    return _calibrate(name, estimator, rows[split.validation], target[split.validation], person[split.validation], seconds)


def _calibrate(name: str, estimator: Any, rows: Rows, labels: NDArray[np.int64], people: NDArray[Any], seconds: float) -> Candidate:
    score, link = compute_margin(estimator, rows)
    fitted = calibrate.fit(score, labels, link, people)
    return Candidate(name, estimator, fitted, metrics.auc(labels, score), fitted.log_loss_after, metrics.Interval(0.0, 0.0, 0.0), seconds)


def _average(first: Candidate, second: Candidate, rows: Rows, labels: NDArray[np.int64], people: NDArray[Any]) -> Candidate:
    """Return the average of two candidates in log-odds; shares of a forest are stretched to the spread of the other's log-odds."""
    scores = [compute_margin(candidate.estimator, rows) for candidate in (first, second)]
    spread = next((float(margin.std()) for margin, link in scores if link == "logit"), 1.0)
    weights = [0.5 if link == "logit" else 0.5 * spread / max(float(margin.std()), 1e-9) for margin, link in scores]
    # The mean of each stretched share is taken off; a sum of none is a whole number, and a bundle's intercept is not.
    centres = [weight * float(margin.mean()) for (margin, link), weight in zip(scores, weights, strict=True) if link == "identity"]
    intercept = float(-sum(centres))
    parts = tuple((candidate.estimator, weight) for candidate, weight in zip((first, second), weights, strict=True))
    name = f"average_of_{first.name}_and_{second.name}"
    return _calibrate(name, AveragedModel(parts, intercept), rows, labels, people, first.seconds + second.seconds)


def _row_losses(probability: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return the log loss of each row, shape (n,)."""
    p = np.clip(probability, 1e-15, 1 - 1e-15)
    return -np.where(labels == 1, np.log(p), np.log1p(-p))


def convert_model(estimator: Any, features: Sequence[Feature], rows: Rows) -> "tuple[tuple[Component, ...], float]":
    """Return the components of a bundle that give a fitted candidate's margin, and the intercept that they need.

    Parameters
    ----------
    estimator
        A candidate's estimator.
    features, rows
        As of `convert.convert_estimator`; of a category the rows have the weights of its levels.
    """
    from finrisk_assets.modelling.training.convert import convert_estimator

    features = [replace(feature, is_category=False, levels=()) for feature in features]

    if isinstance(estimator, AveragedModel):
        parts = [(convert_estimator(part, features, rows).component, weight) for part, weight in estimator.parts]
        return tuple(replace(component, weight=weight) for component, weight in parts), estimator.intercept
    return (convert_estimator(estimator, features, rows).component,), 0.0


def to_matrix(frame: Any, features: Sequence[Feature]) -> Rows:
    """Return the features of a data frame as float32 rows, shape (n, d), NaN where missing; of a category the numbers of its levels."""
    columns = frame[[feature.name for feature in features]]
    categories = [feature for feature in features if feature.is_category]
    if categories:
        columns = columns.assign(**{feature.name: number_levels(columns[feature.name], feature.levels) for feature in categories})
    return np.ascontiguousarray(columns.to_numpy(dtype=np.float32, na_value=np.nan))


def number_levels(texts: Any, levels: Sequence[str]) -> Any:
    """Return a column with the number of each level as float64, the one after the last for other texts, NaN where missing."""
    numbers = texts.map({level: float(number) for number, level in enumerate(levels)})
    return numbers.astype("float64").mask(numbers.isna() & texts.notna(), float(len(levels)))
