"""The search for the settings of a boosted model: successive halving over a fixed list, within a stated number of fits.

Only training rows are used. The same rows and the same seed give the same settings: the budget counts fits, not seconds.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.training.parallel import map_threads
from finrisk_assets.scoring.spec import Rows

Indices = NDArray[np.int64]

SETTINGS: tuple[Mapping[str, Any], ...] = (
    {"max_depth": 2, "min_child_weight": 1, "subsample": 0.7, "colsample_bytree": 0.5, "reg_lambda": 5.0},
    {"max_depth": 3, "min_child_weight": 5, "subsample": 0.6, "colsample_bytree": 0.3, "reg_lambda": 5.0},
    {"max_depth": 3, "min_child_weight": 20, "subsample": 0.7, "colsample_bytree": 0.6, "reg_lambda": 10.0},
    {"max_depth": 4, "min_child_weight": 10, "subsample": 0.5, "colsample_bytree": 0.2, "reg_lambda": 10.0},
    {"max_depth": 5, "min_child_weight": 10, "subsample": 0.7, "colsample_bytree": 0.2, "reg_lambda": 10.0},
    {"max_depth": 6, "min_child_weight": 30, "subsample": 0.5, "colsample_bytree": 0.15, "reg_lambda": 20.0},
)
"""Settings of XGBoost beside a domain's own, from shallow trees of many columns to deep trees of few columns and rows."""
OWN = 0
"""Place of the model's own settings, which others must beat by more than chance."""
N_FOLDS = 4
RUNG_FOLDS, SMALL_RUNG_FOLDS = (1, 2, 4), (4, 8, 12)
"""Folds on which a setting has been compared after each rung, from `SMALL_ROWS` rows on and below. Half of the settings pass a rung, and
the model's own: of seven settings that is 17 to 21 fits, and 68 to 80 of small tables.
"""
SMALL_ROWS = 2_000
"""Rows, below which one fold says too little to drop a setting."""
MAX_SEARCH_ROWS = 7_000
"""Rows that the search uses at most. More rows separate settings better and take longer; the model itself is fitted on all."""
SEARCH_RATE, SEARCH_TREES = 0.1, 160
"""Learning rate and largest number of trees of the search."""
RATE, PARALLEL_RATE, MAX_TREES = 0.02, 0.04, 1_000
"""Learning rates and largest number of rounds of the model: a fifth of the rate takes five times the rounds and generalises better. Where
each round is already a mean of several trees, twice the rate does as well in half the rounds.
"""


def tune(model: Any, rows: Rows, labels: ArrayLike, groups: ArrayLike | None = None, threads: int = 1) -> Any:
    """Return the unfitted model with the settings and the number of trees of the lowest log loss on rows of other people.

    Successive halving (Jamieson & Talwalkar, AISTATS 2016): all settings are compared on some folds, the better half on more, and so on.
    The number of trees is where the mean curve of the log loss is lowest. The model itself stays in every rung, and is returned as it is
    unless the best settings beat it by more than the standard error of the paired folds.

    Parameters
    ----------
    model
        An unfitted XGBClassifier; its constraints, seed and threads stay.
    rows : ndarray of float32, shape (n, d)
        Training rows, NaN where missing.
    labels : array-like of bool or 0/1, shape (n,)
    groups : array-like, shape (n,), optional
        The person of each row, whose rows stay in one fold. None takes each row as a person.
    threads
        Fits of the search at a time. Each is on one thread, so that their number changes no result.
    """
    from sklearn.base import clone

    target = np.asarray(labels).astype(np.float32)
    folds = draw_folds(target, groups, int(model.random_state or 0))
    own = {name: model.get_params()[name] for name in SETTINGS[0]}
    settings = [own, *(setting for setting in SETTINGS if setting != own)]
    losses: dict[int, list[NDArray[np.float64]]] = {number: [] for number in range(len(settings))}
    rungs = RUNG_FOLDS if len(target) >= SMALL_ROWS else SMALL_RUNG_FOLDS
    drawn = [next(folds) for _ in range(rungs[-1])]

    def fit(of: tuple[int, tuple[Indices, Indices]]) -> NDArray[np.float64]:
        number, fold = of
        return _loss_by_trees({**model.get_xgb_params(), **settings[number]}, rows, target, *fold)

    for n_folds in rungs:
        fits = [(number, fold) for number, curves in losses.items() for fold in drawn[len(curves) : n_folds]]
        for (number, _), curve in zip(fits, map_threads(fit, fits, threads), strict=True):
            losses[number].append(curve)
        ranked = sorted(losses, key=lambda number: float(np.mean(losses[number], axis=0).min()))
        if n_folds < rungs[-1]:
            losses = {number: losses[number] for number in {OWN, *ranked[: len(ranked) // 2]}}
    best = ranked[0]
    n_trees = int(np.argmin(np.mean(losses[best], axis=0))) + 1
    own_trees = min(max(round(model.n_estimators * model.learning_rate / SEARCH_RATE), 1), SEARCH_TREES)
    gain = np.array(losses[OWN])[:, own_trees - 1] - np.array(losses[best])[:, n_trees - 1]
    if gain.mean() <= gain.std(ddof=1) / len(gain) ** 0.5:
        return clone(model)
    rate = PARALLEL_RATE if (model.num_parallel_tree or 1) > 1 else RATE
    return clone(model).set_params(**settings[best], learning_rate=rate, n_estimators=min(round(n_trees * SEARCH_RATE / rate), MAX_TREES))


def draw_folds(target: NDArray[np.float32], groups: ArrayLike | None, seed: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield rows to fit on and rows to judge on, without end: a new partition of the people after every `N_FOLDS` folds."""
    draw = np.random.default_rng(seed)
    person = np.arange(len(target)) if groups is None else np.unique(np.asarray(groups).astype(str), return_inverse=True)[1]
    n_people = int(person.max()) + 1
    used = np.arange(len(target))
    if len(target) > MAX_SEARCH_ROWS:
        order = draw.permutation(n_people)
        enough = np.searchsorted(np.cumsum(np.bincount(person)[order]), MAX_SEARCH_ROWS) + 1
        used = np.flatnonzero(np.isin(person, order[:enough]))
    while True:
        # People with the outcome are dealt after those without, so that every fold has its share of both.
        has_outcome = np.bincount(person, target, n_people) > 0
        order = draw.permutation(n_people)
        order = order[np.argsort(has_outcome[order], kind="stable")]
        fold = np.empty(n_people, np.int64)
        fold[order] = np.arange(n_people) % N_FOLDS
        for number in range(N_FOLDS):
            is_judged = fold[person[used]] == number
            yield used[~is_judged], used[is_judged]


def _loss_by_trees(
    parameters: Mapping[str, Any], rows: Rows, target: NDArray[np.float32], train: Indices, test: Indices
) -> NDArray[np.float64]:
    """Return the log loss on the test rows after each tree, shape (SEARCH_TREES,); the search averages no trees, which takes long."""
    import xgboost

    matrices = [xgboost.DMatrix(rows[part], target[part], nthread=1) for part in (train, test)]
    curve: dict[str, dict[str, list[float]]] = {}
    xgboost.train(
        {**parameters, "learning_rate": SEARCH_RATE, "max_bin": 64, "num_parallel_tree": 1, "eval_metric": "logloss", "nthread": 1},
        matrices[0],
        SEARCH_TREES,
        evals=[(matrices[1], "test")],
        evals_result=curve,
        verbose_eval=False,
    )
    return np.array(curve["test"]["logloss"])
