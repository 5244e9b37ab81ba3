"""Which month-ends teach and which judge, and the candidates for the probability of trouble."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.training import candidates as common
from finrisk_assets.modelling.training.split import Split, split
from schemas.features import Feature

HOLDOUT = 1 / 2
"""Share of the people who are kept out of training, and judge alone. How well a probability can be calibrated depends on the number of
people, of whom neighbouring month-ends share their outcome; a model needs fewer."""

SEASON_MONTHS = 12
"""Month-ends of the validation window."""

FEW_EVENTS = 10
"""With fewer rows in trouble (or without it), a window says nothing."""

CANDIDATES = ("logistic_regression", "gradient_boosting", "xgboost")


def windows(keys: Sequence[str], labels: ArrayLike, as_of: ArrayLike, customers: Sequence[str], known_at: ArrayLike, seed: int) -> Split:
    """Split month-ends by time and by person: whoever is judged never taught, and every outcome was known when the test window begins.

    Half of the people are kept out of training: the test window is theirs, and so is validation, the last twelve months of them
    before it. The others teach with all that was known by then. So validation is of other people than training but not later: a
    probability that is calibrated on a few months takes their season for the level of the year.

    Where trouble is so rare that this half has too little of it, the windows are in time order, everyone who is there in a later
    window judges, and only those who were gone by then teach.

    Parameters
    ----------
    keys, labels, as_of, customers, known_at
        Of each row: its name, whether trouble followed, the month-end, the person, and when the outcome became known; shape (n,).
    seed
        Of the draw of the half.

    Raises
    ------
    ValueError
        Where a window stays without rows.
    """
    who, target = np.asarray(customers).astype(str), np.asarray(labels).astype(bool)
    moments, known = (np.asarray(times).astype("datetime64[us]") for times in (as_of, known_at))
    halves = split(keys, labels, moments, who, holdout=HOLDOUT, seed=seed)
    begin = halves.boundaries[-1]
    judges = np.isin(who, who[np.concatenate([halves.validation, halves.test])])
    before = known <= begin
    year = np.isin(moments, np.unique(moments[before])[-SEASON_MONTHS:])
    train, validation = np.flatnonzero(before & ~judges), np.flatnonzero(before & judges & year)
    if len(train) and _tells(target[validation]) and _tells(target[halves.test]):
        why = (
            f"test from {begin}, of half of the people; validation is the last {SEASON_MONTHS} month-ends of the same people whose "
            "outcome was known by then, so that it holds every season; the others teach with all that was known by then"
        )
        boundaries = (moments[validation].min(), begin)
        return replace(halves, train=train, validation=validation, boundaries=boundaries, reason=why)
    everyone = split(keys, labels, moments, known=known, seed=seed)
    later = who[np.concatenate([everyone.validation, everyone.test])]
    train = everyone.train[~np.isin(who[everyone.train], later)]
    if not len(train):
        raise ValueError(f"half of the people have fewer than {FEW_EVENTS} rows in trouble, and all people are there to the end")
    why = f"{everyone.reason}; trouble is rare, so that everyone who is there in a later window judges and the others teach"
    return replace(everyone, train=train, reason=why)


def _tells(labels: NDArray[np.bool_]) -> bool:
    return min(int(labels.sum()), int((~labels).sum())) >= FEW_EVENTS


def candidates(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 20_000) -> dict[str, Any]:
    """Return the unfitted models by name, the simplest first; both boostings keep `Feature.monotone`.

    A panel holds many rows of one person, and neighbouring months say nearly the same: leaves are larger and trees fewer than
    `modelling.candidates.candidates` makes them, whose parameters these are.
    """
    models = common.candidates(features, seed, n_threads, n_rows)
    models["gradient_boosting"].set_params(max_iter=120, learning_rate=0.06, min_samples_leaf=60, max_features=0.5)
    models["xgboost"].set_params(n_estimators=350, learning_rate=0.04, max_depth=3, min_child_weight=20, colsample_bytree=0.6)
    return {name: models[name] for name in CANDIDATES}
