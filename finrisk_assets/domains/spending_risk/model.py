"""The split of month-ends into training, validation and test, and the candidates for the probability of trouble."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.training import candidates as shared_candidates
from finrisk_assets.modelling.training.split import Split, split
from schemas.features import Feature

HOLDOUT = 1 / 2
"""Share of the people whose month-ends are in validation and test alone. How well a probability can be calibrated depends on the number of
people, because neighbouring month-ends of one person share their outcome; a model needs fewer people."""

SEASON_MONTHS = 12
"""Month-ends of the validation window: a whole year, so that every season is in it."""

MIN_EVENTS = 10
"""Rows with trouble, and rows without, that a window needs at least."""

LEAST_CERTAIN_RATIO = 3.0
"""Expense over income. A window of 90 days holds three paydays, two, or one where a month is without pay: who spends no more than the usual
income has a ratio of at most 3. The model of the eight fields learns from higher ratios alone; a smaller bound lets payday decide."""

PAYDAY_FIELDS = ("Total_Income", "Num_Transactions", "Low_Balance_Freq")
"""Fields that depend on the day of pay: the model of the eight fields learns nothing from them. Whether 15 movements or more had a low
balance would raise its AUC by .003, and payday would change 2 % of its decisions."""

CANDIDATES = ("logistic_regression", "gradient_boosting", "xgboost")


def split_month_ends(
    keys: Sequence[str], labels: ArrayLike, as_of: ArrayLike, customers: Sequence[str], known_at: ArrayLike, seed: int
) -> Split:
    """Split month-ends by time and by person: no person is in training and in a later window, and every outcome was known by the test.

    Half of the people are kept out of training: the test window is theirs, and so is validation, their last twelve months before the
    test. The other half is the training window, with all outcomes known by then. So validation is of other people than training but not
    later: a probability that is calibrated on a few months takes their season for the level of the year.

    Where trouble is so rare that the half has too few cases, the windows are in the order of time, and people of a later window are left
    out of training.

    Parameters
    ----------
    keys, labels, as_of, customers, known_at
        Of each row the key, whether trouble followed, the month-end, the person, and when the outcome became known; shape (n,).
    seed
        Seed of the draw of the half.

    Raises
    ------
    ValueError
        Where a window has no rows.
    """
    people, target = np.asarray(customers).astype(str), np.asarray(labels).astype(bool)
    moments, known = (np.asarray(times).astype("datetime64[us]") for times in (as_of, known_at))
    halves = split(keys, labels, moments, people, holdout=HOLDOUT, seed=seed)
    begin = halves.boundaries[-1]
    is_held_out = np.isin(people, people[np.concatenate([halves.validation, halves.test])])
    is_before = known <= begin
    is_last_year = np.isin(moments, np.unique(moments[is_before])[-SEASON_MONTHS:])
    train, validation = np.flatnonzero(is_before & ~is_held_out), np.flatnonzero(is_before & is_held_out & is_last_year)
    if len(train) and _has_both(target[validation]) and _has_both(target[halves.test]):
        reason = (
            f"test from {begin}, of half of the people; validation is the last {SEASON_MONTHS} month-ends of the same people whose "
            "outcome was known by then, so that it holds every season; the others teach with all that was known by then"
        )
        boundaries = (moments[validation].min(), begin)
        return replace(halves, train=train, validation=validation, boundaries=boundaries, reason=reason)
    everyone = split(keys, labels, moments, known=known, seed=seed)
    later = people[np.concatenate([everyone.validation, everyone.test])]
    train = everyone.train[~np.isin(people[everyone.train], later)]
    if not len(train):
        raise ValueError(f"half of the people have fewer than {MIN_EVENTS} rows in trouble, and all people are there to the end")
    reason = f"{everyone.reason}; trouble is rare, so that everyone who is there in a later window judges and the others teach"
    return replace(everyone, train=train, reason=reason)


def _has_both(labels: NDArray[np.bool_]) -> bool:
    """Return whether there are enough rows with trouble and enough without."""
    return min(int(labels.sum()), int((~labels).sum())) >= MIN_EVENTS


def candidates(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 20_000) -> dict[str, Any]:
    """Return the unfitted models by name, the simplest first; both boostings keep `Feature.monotone`.

    A panel holds many rows of one person, and neighbouring months say nearly the same: leaves are larger and trees fewer than
    in `modelling.training.candidates`.
    """
    models = shared_candidates.build_candidates(features, seed, n_threads, n_rows)
    models["gradient_boosting"].set_params(max_iter=120, learning_rate=0.06, min_samples_leaf=60, max_features=0.5)
    models["xgboost"].set_params(n_estimators=350, learning_rate=0.04, max_depth=3, min_child_weight=20, colsample_bytree=0.6)
    return {name: models[name] for name in CANDIDATES}


def candidates_of_eight(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 20_000) -> dict[str, Any]:
    """Return the unfitted models of the eight fields: the boosting of large leaves, fitted to what does not depend on the day of pay.

    A linear model would read a ratio below the bound too, and smaller leaves find payday in what is left.
    """
    models = candidates(features, seed, n_threads, n_rows)
    names = [feature.name for feature in features]
    return {"gradient_boosting": PaydayBoundedFit(models["gradient_boosting"], names)}


class PaydayBoundedFit:
    """The fit of trees to the eight fields without what two or three paydays in 90 days make of them.

    In the rows that the trees are fitted to, the fields of `PAYDAY_FIELDS` are held constant and ``Expense_Income_Ratio`` is at least
    `LEAST_CERTAIN_RATIO`. So no tree splits on these fields or below the ratio's bound, and the fitted trees score rows as they are.

    Parameters
    ----------
    estimator
        A model of trees.
    names
        Features, in the order of the rows' columns.
    """

    def __init__(self, estimator: Any, names: Sequence[str]) -> None:
        self.estimator, self.names = estimator, list(names)

    def fit(self, rows: NDArray[np.float32], labels: ArrayLike) -> Any:
        """Return the estimator, fitted."""
        return self.estimator.fit(self.bound(rows), labels)

    def bound(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows without what depends on the day of pay."""
        bounded = np.array(rows, np.float32)
        bounded[:, [self.names.index(name) for name in PAYDAY_FIELDS]] = 0
        ratio = self.names.index("Expense_Income_Ratio")
        bounded[:, ratio] = np.maximum(bounded[:, ratio], LEAST_CERTAIN_RATIO)
        return bounded
