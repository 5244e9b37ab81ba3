"""How much, and how sure: the amount head of a bundle, fitted, and the figures that judge an interval.

The method is split conformal prediction with locally weighted residuals (Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, *Distribution-free
predictive inference for regression*, JASA 2018, sections 2.2 and 5.2): one model says the amount, one says how far off it tends to be,
and the quantiles of residuals over that spread bound the interval. The form and its application stand in `bundle.Amount`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation.metrics import LEVEL as CONFIDENCE
from finrisk_assets.modelling.evaluation.metrics import Interval
from finrisk_assets.modelling.training.parallel import each
from finrisk_assets.scoring.spec import Amount, Floats, Rows, Trees

LEVEL = 0.8
YEAR = np.timedelta64(365, "D")
"""Residuals of so long before the latest one bound the interval."""
FOLDS = 3
LARGEST = 5.0
"""Amounts over their scale are taken as no larger than this when a model is fitted: a few freak months would else rule the mean."""
SMALLEST_RESIDUAL = 0.01
"""Residuals over their scale are taken as no smaller than this when the spread is fitted: a logarithm has no zero."""


@dataclass(frozen=True)
class Known:
    """Rows of one window whose amount is known.

    Attributes
    ----------
    rows
        float32, shape (n, d), NaN where missing.
    amounts
        In currency, float64, shape (n,).
    groups, moments
        Who each row belongs to (a customer), and when it was (datetime64); shape (n,).
    """

    rows: Rows
    amounts: Floats
    groups: NDArray[np.str_]
    moments: NDArray[np.datetime64]


def fit_amount(
    names: Sequence[str], scale: str, train: Known, validation: Known, *, level: float = LEVEL, seed: int, threads: int = 1
) -> Amount:
    """Fit the expected amount and its spread on the training window, and the bounds on the latest year of residuals.

    A residual always comes from models that have not seen the row's group: on the validation window they are the models themselves,
    on the training window they are fitted again without a part of the groups (cross-conformal; Barber, Candes, Ramdas & Tibshirani,
    *Predictive inference with the jackknife+*, Annals of Statistics 2021). A year, so that each season counts once; the latest, so
    that the bounds follow the times.

    Parameters
    ----------
    names, scale
        The features in the order of the rows' columns, and the one that amounts are measured by: above 0 in every row.
    train, validation
        Two windows, the second later and of other groups.
    level
        The share of amounts that an interval is to hold.
    threads
        Models that are fitted at a time.

    Raises
    ------
    ValueError
        Where a row's scale is not above 0, or an amount is not finite.
    """
    column = list(names).index(scale)
    target, later = (_over_scale(window, column) for window in (train, validation))
    fitted = np.clip(target, -LARGEST, LARGEST)
    folds = np.unique(train.groups, return_inverse=True)[1] % FOLDS
    parts = [folds == fold for fold in range(FOLDS) if 0 < int((folds == fold).sum()) < len(folds)]

    def fit(objective: str, values: Floats) -> tuple[Any, Floats]:
        """A model of all rows, and what models say of rows whose groups they have not seen."""
        taught = [np.ones(len(values), np.bool_), *(~part for part in parts)]
        models = each(lambda rows: _boosted(objective, seed).fit(train.rows[rows], values[rows]), taught, threads)
        said = np.zeros(len(values))
        for part, model in zip(parts, models[1:], strict=True):
            said[part] = _said(model, train.rows[part])
        return models[0], said

    middle, unseen = fit("reg:squarederror", fitted)
    residual = target - unseen
    size = np.clip(np.abs(residual), SMALLEST_RESIDUAL, LARGEST)
    spread, expected = fit("reg:gamma", size)

    relative = (later - _said(middle, validation.rows)) / np.exp(_said(spread, validation.rows))
    since = validation.moments.max() - YEAR
    lately = train.moments > since
    relative = relative[validation.moments > since]
    if lately.any():
        relative = np.concatenate([relative, (residual / np.exp(expected))[lately]])
    low, high = conformal_offsets(relative, level)
    return Amount(_trees(middle), scale, low, high, _trees(spread), level)


def conformal_offsets(residuals: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return the offsets that hold a new residual with the probability `level`, as much below as above.

    Each is an order statistic of n + 1, so that the promise holds for finite samples of exchangeable residuals; the interval always
    holds the expected amount itself.

    Parameters
    ----------
    residuals : array-like, shape (n,)
        What came less what was expected, of rows that the model was not fitted on; over their spread where it has one.

    Raises
    ------
    ValueError
        For fewer residuals than the level needs, or one that is not finite.
    """
    values = np.sort(np.asarray(residuals, np.float64))
    n, tail = len(values), (1 - level) / 2
    rank = int(np.floor(tail * (n + 1) + 1e-9))  # the floating point of 0.1 * 10 must not lose a rank
    if rank < 1:
        raise ValueError(f"{n} residuals are too few for an interval at the level {level:g}: it needs {int(np.ceil(1 / tail - 1e-9)) - 1}")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} residuals are not finite: leave out rows whose amount is not known")
    return min(float(values[rank - 1]), 0.0), max(float(values[n - rank]), 0.0)


def coverage(amounts: ArrayLike, low: ArrayLike, high: ArrayLike) -> Interval:
    """Return the share of amounts within their bounds, with its Wilson interval; rows count as independent."""
    values = np.asarray(amounts, np.float64)
    held = (values >= np.asarray(low)) & (values <= np.asarray(high))
    return wilson(int(held.sum()), len(held))


def wilson(events: int, n: int, level: float = CONFIDENCE) -> Interval:
    """Return a share with its score interval (Wilson, JASA 1927)."""
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + level / 2))
    share = events / n
    centre, half = share + z * z / (2 * n), z * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return Interval(share, (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n))


def pinball(amounts: ArrayLike, bound: ArrayLike, quantile: float) -> float:
    """Return the mean pinball loss of a quantile's estimate (Koenker & Bassett 1978), in the amounts' unit."""
    off = np.asarray(amounts, np.float64) - np.asarray(bound, np.float64)
    return float(np.mean(np.maximum(quantile * off, (quantile - 1) * off)))


def _over_scale(window: Known, column: int) -> Floats:
    scale = window.rows[:, column].astype(np.float64)
    wrong = ~(scale > 0) | ~np.isfinite(window.amounts)
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} rows have no scale above 0 or no finite amount: leave them out")
    found: Floats = window.amounts / scale
    return found


def _said(model: Any, rows: Rows) -> Floats:
    return np.asarray(model.predict(rows, output_margin=True), np.float64)


def _boosted(objective: str, seed: int) -> Any:
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


def _trees(model: Any) -> Trees:
    return Trees(bytes(model.get_booster().save_raw("json")))
