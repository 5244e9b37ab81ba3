"""The model of acceptance, in which a higher rate is never accepted more often, and the grid of terms that it is used on.

The model is a logistic regression, linear in the rate; there is no other candidate. Boosted trees with the same constraint were tried
(README.md): they rank no better or little better, but learn steps in the rate, and an offer is priced on the slope.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.domains.loan_offers.decide import Grid
from finrisk_assets.scoring.spec import Calibration, Rows
from schemas.features import Feature

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

N_RATES, N_TERMS = 9, 4
"""Points of the grid. More rates price more finely; each point is scored for every customer, by two models."""
RATE_QUANTILES = (0.01, 0.99)
"""Quantiles of the offered rates between which the grid lies."""
AMOUNT_QUANTILES = (0.1, 0.35, 0.65, 0.9)
"""Quantiles of the offered amounts that the grid holds: wide, so that the best amount lies inside."""


class SignedLogistic:
    """A logistic regression whose coefficients keep the signs that the features declare.

    The first fit has no constraints. Coefficients of the wrong sign are set to 0 and the others are fitted again, until no sign is
    wrong: the set of zeros only grows, so the fits end after at most as many as there are declared signs.

    Parameters
    ----------
    directions
        Per column 1, -1 or 0, as `Feature.monotone`.
    strength
        Inverse strength of the ridge penalty on standardised columns.
    """

    def __init__(self, directions: Sequence[int], strength: float = 0.05) -> None:
        self.directions, self.strength = tuple(directions), strength

    def fit(self, rows: Rows, labels: ArrayLike) -> "Pipeline":
        """Return a fitted scikit-learn pipeline, whose last step is the logistic regression."""
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import StandardScaler

        preparation = Pipeline([("fill", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())])
        inputs = np.asarray(preparation.fit_transform(np.asarray(rows, np.float64)))
        signs = np.asarray(self.directions)
        wrong: NDArray[np.bool_] = np.zeros(len(signs), dtype=bool)
        while True:
            model = LogisticRegression(C=self.strength, max_iter=2000).fit(np.where(wrong, 0.0, inputs), labels)
            model.coef_[0, wrong] = 0.0
            newly_wrong = model.coef_[0] * signs < 0
            if not newly_wrong.any():
                return Pipeline([*preparation.steps, ("model", model)])
            wrong |= newly_wrong


def candidates(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 0) -> dict[str, Any]:
    """Return the unfitted model by name; only `features` matters, because the fit is not random."""
    return {"logistic_regression": SignedLogistic([feature.monotone for feature in features])}


def calibrate_level(margins: ArrayLike, labels: ArrayLike) -> Calibration:
    """Return the calibration that sets the level of the acceptance by a later window, and keeps its slope in the rate.

    A price follows from the slope, which was learned from random rates on the training window; the two further parameters of a full
    calibration, fitted on fewer answers, would bend the slope. This is the recalibration in the large of Steyerberg et al. (Statistics in
    Medicine 2004): logit p = margin + c, where c makes the mean probability the observed rate.

    Parameters
    ----------
    margins, labels : array-like, shape (n,)
        Of the validation window; both answers occur.
    """
    from scipy.optimize import brentq

    margin, rate = np.asarray(margins, np.float64), float(np.mean(np.asarray(labels, np.float64)))
    shift = brentq(lambda c: float(np.mean(1 / (1 + np.exp(-(margin + c))))) - rate, -30.0, 30.0)
    return Calibration(kind="beta", link="logit", c=float(shift))


def build_grid(train: "pd.DataFrame") -> Grid:
    """Return the terms that the model is used on: within the terms of the offers that it was trained on.

    Parameters
    ----------
    train
        Rows of the training window with ``annual_rate_pct``, ``log_loan_amount`` and ``log_term_months``; amounts are multiples of
        the monthly income where there is ``log_loan_to_income``, else in currency.
    """
    low, high = (float(train.annual_rate_pct.quantile(share)) for share in RATE_QUANTILES)
    has_income = "log_loan_to_income" in train and bool(train.log_loan_to_income.notna().any())
    sizes = np.exp((train.log_loan_to_income if has_income else train.log_loan_amount).dropna().quantile(list(AMOUNT_QUANTILES)))
    amounts = tuple(sorted({float(f"{size:.2g}") for size in sizes}))
    terms = np.exp(train.log_term_months.dropna()).round().value_counts().sort_index().nlargest(N_TERMS).index
    return Grid(
        rates=tuple(np.linspace(low, high, N_RATES).round(2).tolist()),
        multiples=amounts if has_income else (),
        terms=tuple(sorted(int(term) for term in terms)),
        amounts=() if has_income else amounts,
    )
