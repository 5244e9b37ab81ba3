"""The loans that a model may learn from, those that had their time to default, and the candidates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.features import Feature

SCORECARD = "scorecard"
"""Name of the candidate that is a card of points."""

CHOSEN_TERMS = (
    "loan_amount",
    "term_months",
    "instalment_amount",
    "annual_rate_pct",
    "loan_to_usual_income",
    "mean_balance_to_instalment_6m",
)
"""Features that a lender and a borrower chose by what they saw of each other."""

BURDEN = "instalment_to_usual_income"
"""Feature through which a loan's terms cause a default."""

SPARSE_STRENGTH = 0.08
"""Inverse strength of the penalty of the regression that drops features. Less drops more, and flattens the effect of the instalment."""

OUTCOME_DAYS = 365
"""Days that a loan must have had to default before it counts in training or evaluation."""


def is_mature(applied_at: ArrayLike, outcome_known_at: ArrayLike) -> NDArray[np.bool_]:
    """Mark the loans that had `OUTCOME_DAYS` to default before the ledger ends, which is when its last outcome became known.

    Younger loans look good because little time has passed: a model would learn that newer loans are safer. Leaving out whole days of
    application, bad loans too, keeps the rate of default. All loans are marked where a source has no time.

    Parameters
    ----------
    applied_at, outcome_known_at : array-like of datetime64, shape (n,)
    """
    applied = np.asarray(applied_at).astype("datetime64[us]")
    known = np.asarray(outcome_known_at).astype("datetime64[us]")
    if np.isnat(applied).all() or np.isnat(known).all():
        return np.ones(len(applied), dtype=bool)
    end = known[~np.isnat(known)].max()
    is_old_enough: NDArray[np.bool_] = applied <= end - np.timedelta64(OUTCOME_DAYS, "D")
    return is_old_enough


def find_unlearned(features: Sequence[Feature]) -> tuple[str, ...]:
    """Return the terms from which no model learns where the ledger shows the income that pays them.

    A lender sets the rate by the risk that it sees, and tight budgets ask for long terms: among past loans both stand for the borrower, not
    for what the terms do. An offer at another rate or term would get a PD that belongs to other people (selection on the treatment; Pearl,
    *Causality*, 2009, chapter 3). What the terms do to a household is the instalment beside its income, balance and bills. Without such an
    income the terms are all there is.
    """
    names = {feature.name for feature in features}
    return tuple(name for name in CHOSEN_TERMS if name in names) if BURDEN in names else ()


def candidates(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 20_000) -> dict[str, Any]:
    """Return the candidates of `modelling.candidates`, a logistic regression that drops features, and a points scorecard.

    The lasso (Tibshirani 1996) comes first: defaults are rare, a few hundred among a few thousand loans, and of the sixty features many
    say nearly the same. Dropping some costs less than estimating all.

    Of models that perform alike the choice takes the first, so their order counts: by how many numbers each learns from the outcomes. A
    regression learns at most one number per feature. A card of points, easy to read, learns every cut and every bin's weight, some ninety
    numbers; it comes after the regressions, which rank better on later loans. A forest learns thousands.

    Parameters
    ----------
    features, seed, n_threads, n_rows
        As of `modelling.candidates.candidates`.
    """
    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression

    from finrisk_assets.modelling.training import candidates as shared_candidates
    from finrisk_assets.modelling.training.scorecard import ScorecardClassifier

    models = shared_candidates.build_candidates(features, seed, n_threads, n_rows)
    sparse = clone(models["logistic_regression"])
    sparse.steps[-1] = ("model", LogisticRegression(l1_ratio=1.0, C=SPARSE_STRENGTH, solver="liblinear", random_state=seed))
    card = ScorecardClassifier(tuple(feature.name for feature in features), tuple(feature.monotone for feature in features))
    plain = {"sparse_logistic_regression": sparse, "logistic_regression": models.pop("logistic_regression")}
    return {**plain, SCORECARD: card, **models}
