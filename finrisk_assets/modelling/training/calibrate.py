"""Calibration: the fit of the map from a score to a probability, by Beta or Platt.

`scoring.spec.Calibration` holds the parameters and applies them. The method is that of Kull, Silva Filho & Flach,
*Beta calibration* (AISTATS 2017): logit(p) = a ln(q) - b ln(1 - q) + c with a, b >= 0, which preserves the order of the scores.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.scoring.spec import EPSILON, Calibration

MIN_BETA_ROWS = 30
"""Rows of either outcome; with fewer, three parameters are too many and a = b, which is Platt's calibration."""

N_FOLDS = 5
"""Parts of the people in which the two forms are compared."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FittedCalibration:
    """A calibration with the figures of its fit.

    Attributes
    ----------
    calibration
        The calibration for a bundle.
    form
        ``beta``, or ``platt`` (a = b) where outcomes were few or the third parameter does not pay.
    n, n_events
        Rows that it was fitted on, and the number of them with the outcome.
    log_loss_before, log_loss_after
        Mean negative log-likelihood of those rows without and with the calibration.
    """

    calibration: Calibration
    form: Literal["beta", "platt"]
    n: int
    n_events: int
    log_loss_before: float
    log_loss_after: float


def fit(
    margin: ArrayLike, labels: ArrayLike, link: Literal["logit", "identity"] = "logit", people: ArrayLike | None = None
) -> FittedCalibration:
    """Fit a calibration by maximum likelihood, of the form that foretells the outcomes of other people better.

    Beta calibration has a parameter more than Platt's, which is its case a = b. Both are fitted on four fifths of the people and judged
    on the others, in turn; Platt's is taken where its log loss is not above.

    The targets are Platt's (1999): (N1 + 1) / (N1 + 2) and 1 / (N0 + 2) instead of 1 and 0. They keep the parameters finite
    for a small sample that is perfectly separated, and make no difference in a large sample.

    Parameters
    ----------
    margin : array-like of shape (n,)
        Scores of rows that the model was *not* fitted on: log-odds for the link ``logit``, probabilities for ``identity``.
    labels : array-like of bool or 0/1, shape (n,)
    people : array-like, shape (n,), optional
        The person of each row. None takes each row as a person.

    Raises
    ------
    ValueError
        For scores that are not finite, or labels of one kind only.
    """
    score, target = np.asarray(margin, np.float64), np.asarray(labels).astype(np.float64)
    if score.shape != target.shape or score.ndim != 1:
        raise ValueError(f"scores have the shape {score.shape}, labels {target.shape}: one score per label is needed")
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).sum())} scores are not finite: leave those rows out")
    n, events = len(target), int(target.sum())
    if not 0 < events < n:
        raise ValueError(f"{events} of {n} rows have the outcome: a calibration needs rows with and without it")
    if link == "logit":
        inputs = np.column_stack([-np.logaddexp(0.0, -score), np.logaddexp(0.0, score)])
    else:
        q = np.clip(score, EPSILON, 1 - EPSILON)
        inputs = np.column_stack([np.log(q), -np.log1p(-q)])
    is_platt = min(events, n - events) < MIN_BETA_ROWS or not _beta_pays(inputs, target, people)
    a, b, c = _fit_form(inputs, target, is_platt)
    calibration = Calibration("beta", link, float(a), float(b), float(c))
    uncalibrated = Calibration("none", link)
    return FittedCalibration(
        calibration, "platt" if is_platt else "beta", n, events,
        _log_loss(uncalibrated.apply(score), target), _log_loss(calibration.apply(score), target),
    )  # fmt: skip


def _beta_pays(inputs: Floats, target: Floats, people: ArrayLike | None) -> bool:
    """Return whether beta calibration has a lower log loss than Platt's on people that neither was fitted on."""
    person = np.arange(len(target)) if people is None else np.unique(np.asarray(people).astype(str), return_inverse=True)[1]
    fold = person % N_FOLDS
    losses = []
    for is_platt in (True, False):
        linear = np.zeros(len(target))
        for number in range(N_FOLDS):
            test = fold == number
            if not 0 < target[~test].sum() < (~test).sum():
                return False
            a, b, c = _fit_form(inputs[~test], target[~test], is_platt)
            linear[test] = inputs[test] @ np.array([a, b]) + c
        losses.append(float(np.mean(np.logaddexp(0.0, linear) - target * linear)))
    return losses[1] < losses[0]


def _fit_form(inputs: Floats, target: Floats, is_platt: bool) -> tuple[float, float, float]:
    """Return a, b and c of either form."""
    n, events = len(target), target.sum()
    smoothed = np.where(target == 1, (events + 1) / (events + 2), 1 / (n - events + 2))
    *slopes, c = _fit_logistic(inputs.sum(axis=1, keepdims=True) if is_platt else inputs, smoothed)
    return (slopes[0], slopes[0], c) if is_platt else (slopes[0], slopes[1], c)


def _fit_logistic(inputs: Floats, target: Floats) -> list[float]:
    """Return the slopes (none below 0) and the intercept that maximise the likelihood, a convex problem."""
    from scipy.optimize import minimize

    # Units of the score's own spread keep the problem well conditioned.
    scale = np.maximum(inputs.std(axis=0), 1e-12)
    design = np.column_stack([inputs / scale, np.ones(len(inputs))])

    def loss(parameters: Floats) -> tuple[float, Floats]:
        linear = design @ parameters
        value = np.logaddexp(0.0, linear) - target * linear
        gradient = design.T @ (np.exp(-np.logaddexp(0.0, -linear)) - target)
        return float(value.mean()), gradient / len(target)

    start = np.append(scale, 0.0)
    bounds = [(0.0, None)] * inputs.shape[1] + [(None, None)]
    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 2000}
    solution = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return [*(solution.x[:-1] / scale), solution.x[-1]]


def _log_loss(probability: Floats, target: Floats) -> float:
    p = np.clip(probability, 1e-15, 1 - 1e-15)
    return float(-np.mean(target * np.log(p) + (1 - target) * np.log1p(-p)))
