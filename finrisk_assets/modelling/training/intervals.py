"""Amounts with intervals: the fit of a bundle's amount, and the figures that evaluate an interval.

The method is split conformal prediction with locally weighted residuals (Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, *Distribution-free
predictive inference for regression*, JASA 2018, sections 2.2 and 5.2): one model predicts the amount, another the size of its error,
and quantiles of the residuals over that size bound the interval. `scoring.spec.Amount` holds the result and `scoring.bundle` applies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation.metrics import Interval, wilson_interval
from finrisk_assets.modelling.training.parallel import map_threads
from finrisk_assets.scoring.spec import Amount, Floats, Rows, Trees

INTERVAL_LEVEL = 0.8
"""Share of amounts that an interval should contain."""
RESIDUAL_PERIOD = np.timedelta64(365, "D")
"""Duration before the latest residual; residuals within it bound the interval."""
N_FOLDS = 3
"""Folds of the training window for residuals of unseen groups."""
MAX_SCALED_AMOUNT = 5.0
"""Amount over scale; larger values are clipped when a model is fitted, because a few outliers would dominate the mean."""
MIN_SCALED_RESIDUAL = 0.01
"""Residual over scale; smaller values are raised to it when the spread is fitted, because the logarithm of 0 does not exist."""


@dataclass(frozen=True)
class KnownAmounts:
    """Rows of one window with known amounts.

    Attributes
    ----------
    rows
        float32, shape (n, d), NaN where missing.
    amounts
        In currency, float64, shape (n,).
    groups, times
        The group (a customer) and the time (datetime64) of each row; shape (n,).
    """

    rows: Rows
    amounts: Floats
    groups: NDArray[np.str_]
    times: NDArray[np.datetime64]


def fit_amount(
    names: Sequence[str],
    scale: str,
    train: KnownAmounts,
    validation: KnownAmounts,
    *,
    level: float = INTERVAL_LEVEL,
    seed: int,
    threads: int = 1,
) -> Amount:
    """Fit the expected amount and its spread on the training window, and the bounds on the latest year of residuals.

    A residual always comes from models that have not seen the row's group: on the validation window from the models themselves,
    on the training window from models fitted without a part of the groups (cross-conformal; Barber, Candes, Ramdas & Tibshirani,
    *Predictive inference with the jackknife+*, Annals of Statistics 2021). A whole year counts each season once; the latest year
    lets the bounds follow recent changes.

    Parameters
    ----------
    names, scale
        The features in the order of the rows' columns, and the feature that scales amounts: above 0 in every row.
    train, validation
        Two windows, the second later and of other groups.
    level
        The share of amounts that an interval should contain.
    threads
        Models to fit at a time.

    Raises
    ------
    ValueError
        Where a row's scale is not above 0, or an amount is not finite.
    """
    column = list(names).index(scale)
    target, validation_target = (_scale_amounts(window, column) for window in (train, validation))
    clipped = np.clip(target, -MAX_SCALED_AMOUNT, MAX_SCALED_AMOUNT)
    folds = np.unique(train.groups, return_inverse=True)[1] % N_FOLDS
    parts = [folds == fold for fold in range(N_FOLDS) if 0 < int((folds == fold).sum()) < len(folds)]

    def fit(objective: str, values: Floats) -> tuple[Any, Floats]:
        """Return a model of all rows, and predictions for each row by a model that has not seen its group."""
        training_rows = [np.ones(len(values), np.bool_), *(~part for part in parts)]
        models = map_threads(lambda rows: _make_booster(objective, seed).fit(train.rows[rows], values[rows]), training_rows, threads)
        predictions = np.zeros(len(values))
        for part, model in zip(parts, models[1:], strict=True):
            predictions[part] = _predict_margin(model, train.rows[part])
        return models[0], predictions

    expected_model, expected_of_unseen = fit("reg:squarederror", clipped)
    residual = target - expected_of_unseen
    residual_size = np.clip(np.abs(residual), MIN_SCALED_RESIDUAL, MAX_SCALED_AMOUNT)
    spread_model, spread_of_unseen = fit("reg:gamma", residual_size)

    scaled_residuals = (validation_target - _predict_margin(expected_model, validation.rows)) / np.exp(
        _predict_margin(spread_model, validation.rows)
    )
    period_start = validation.times.max() - RESIDUAL_PERIOD
    is_recent = train.times > period_start
    scaled_residuals = scaled_residuals[validation.times > period_start]
    if is_recent.any():
        scaled_residuals = np.concatenate([scaled_residuals, (residual / np.exp(spread_of_unseen))[is_recent]])
    low, high = conformal_offsets(scaled_residuals, level)
    return Amount(_to_component(expected_model), scale, low, high, _to_component(spread_model), level)


def conformal_offsets(residuals: ArrayLike, level: float = INTERVAL_LEVEL) -> tuple[float, float]:
    """Return the offsets that contain a new residual with the probability `level`, with equal tails below and above.

    Each offset is an order statistic of n + 1, so the guarantee holds for finite samples of exchangeable residuals; the interval always
    contains the expected amount itself.

    Parameters
    ----------
    residuals : array-like, shape (n,)
        Observed less expected, of rows that the model was not fitted on; over their spread where it is modelled.

    Raises
    ------
    ValueError
        For fewer residuals than the level needs, or a residual that is not finite.
    """
    values = np.sort(np.asarray(residuals, np.float64))
    n, tail = len(values), (1 - level) / 2
    rank = int(np.floor(tail * (n + 1) + 1e-9))  # rounding of 0.1 * 10 must not lose a rank
    if rank < 1:
        raise ValueError(f"{n} residuals are too few for an interval at the level {level:g}: it needs {int(np.ceil(1 / tail - 1e-9)) - 1}")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} residuals are not finite: leave out rows whose amount is not known")
    return min(float(values[rank - 1]), 0.0), max(float(values[n - rank]), 0.0)


def coverage(amounts: ArrayLike, low: ArrayLike, high: ArrayLike) -> Interval:
    """Return the share of amounts within their bounds, with its Wilson interval; rows count as independent."""
    values = np.asarray(amounts, np.float64)
    is_inside = (values >= np.asarray(low)) & (values <= np.asarray(high))
    return wilson_interval(int(is_inside.sum()), len(is_inside))


def pinball_loss(amounts: ArrayLike, bound: ArrayLike, quantile: float) -> float:
    """Return the mean pinball loss of a quantile's estimate (Koenker & Bassett 1978), in the amounts' unit."""
    error = np.asarray(amounts, np.float64) - np.asarray(bound, np.float64)
    return float(np.mean(np.maximum(quantile * error, (quantile - 1) * error)))


def _scale_amounts(window: KnownAmounts, column: int) -> Floats:
    scale = window.rows[:, column].astype(np.float64)
    is_invalid = ~(scale > 0) | ~np.isfinite(window.amounts)
    if is_invalid.any():
        raise ValueError(f"{int(is_invalid.sum())} rows have no scale above 0 or no finite amount: leave them out")
    scaled: Floats = window.amounts / scale
    return scaled


def _predict_margin(model: Any, rows: Rows) -> Floats:
    return np.asarray(model.predict(rows, output_margin=True), np.float64)


def _make_booster(objective: str, seed: int) -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(
        objective=objective,
        n_estimators=250,
        learning_rate=0.03,
        max_depth=4,
        min_child_weight=10,
        subsample=0.7,
        colsample_bytree=0.3,
        reg_lambda=10.0,
        tree_method="hist",
        random_state=seed,
        n_jobs=1,
    )


def _to_component(model: Any) -> Trees:
    return Trees(bytes(model.get_booster().save_raw("json")))
