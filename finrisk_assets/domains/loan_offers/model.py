"""The model of acceptance, which cannot say that a higher rate is accepted more often, and the terms that it may be asked for.

It is a logistic regression, linear in the rate, and stands alone. Boosted trees with the same constraint were tried (README.md): they
rank no better or little better, but learn steps in the rate, and an offer is priced on the slope.
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

N_RATES, N_TERMS = 9, 3
RATES_BETWEEN = (0.01, 0.99)
AMOUNTS_AT = (0.1, 0.35, 0.65)
"""Quantiles of the offered rates between which the grid lies, and of the offered amounts that it considers."""


class SignedLogistic:
    """A logistic regression whose coefficients keep the signs that the features declare.

    Fitted without constraints first. Coefficients of the wrong sign are set to 0 and the others are fitted again, until none is
    wrong: the set of zeros only grows, so it ends after at most as many fits as there are declared signs.

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

        prepared = Pipeline([("fill", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())])
        inputs = np.asarray(prepared.fit_transform(np.asarray(rows, np.float64)))
        signs = np.asarray(self.directions)
        wrong: NDArray[np.bool_] = np.zeros(len(signs), dtype=bool)
        while True:
            model = LogisticRegression(C=self.strength, max_iter=2000).fit(np.where(wrong, 0.0, inputs), labels)
            model.coef_[0, wrong] = 0.0
            found = model.coef_[0] * signs < 0
            if not found.any():
                return Pipeline([*prepared.steps, ("model", model)])
            wrong |= found


def candidates(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 0) -> dict[str, Any]:
    """Return the unfitted model by name; nothing is drawn, so that only `features` matters."""
    return {"logistic_regression": SignedLogistic([feature.monotone for feature in features])}


def calibration(margins: ArrayLike, labels: ArrayLike) -> Calibration:
    """The calibration that sets the level of the acceptance by a later window, and leaves its slope in the rate alone.

    A price follows from the slope. Random rates have taught it on the training window; the two further parameters of a full
    calibration, fitted on fewer answers, would bend it. This is the recalibration in the large of Steyerberg et al. (Statistics in
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


def grid(train: "pd.DataFrame") -> Grid:
    """The terms on which the model may be asked: within what the offers that taught it cover.

    Parameters
    ----------
    train
        Rows of the training window with ``annual_rate_pct``, ``log_loan_amount`` and ``log_term_months``; amounts are multiples of
        the monthly income where there is ``log_loan_to_income``, else in currency.
    """
    low, high = (float(train.annual_rate_pct.quantile(share)) for share in RATES_BETWEEN)
    has_income = "log_loan_to_income" in train and bool(train.log_loan_to_income.notna().any())
    sizes = np.exp((train.log_loan_to_income if has_income else train.log_loan_amount).dropna().quantile(list(AMOUNTS_AT)))
    amounts = tuple(sorted({float(f"{size:.2g}") for size in sizes}))
    terms = np.exp(train.log_term_months.dropna()).round().value_counts().sort_index().nlargest(N_TERMS).index
    return Grid(
        rates=tuple(np.linspace(low, high, N_RATES).round(2).tolist()),
        multiples=amounts if has_income else (),
        terms=tuple(sorted(int(term) for term in terms)),
        amounts=() if has_income else amounts,
    )
