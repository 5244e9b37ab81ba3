"""The common parts of the rules of the leakage linter: the finding, the sample of rows, a quick model, the AUC with its error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import pandas as pd

Rule = Literal["known_later", "target_echo", "dominance", "own_outcome", "one_class", "time_collapse", "identifier", "look_ahead"]
Severity = Literal["block", "examine"]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ALPHA = 0.01
"""Probability; the largest with which a rule flags a clean table by chance. A larger value finds more, with more false alarms."""
LARGEST_SAMPLE = 16_000
"""Rows to fit and test models on, at most half of them of either outcome where possible: an AUC does not depend on the base rate."""
MIN_ROWS_PER_OUTCOME = 50
"""Rows; with fewer of either outcome to test on, a rule makes no claim."""
LATE_SHARE = 0.4
"""Share of the rows in the later part."""


@dataclass(frozen=True)
class LeakageFinding:
    """A column that may leak.

    Attributes
    ----------
    column
        Name of the column; empty where the table as a whole is meant.
    rule, evidence
        The rule and its number: the share of rows known late or changed (`known_later`, `look_ahead`), an AUC or a rate
        (`target_echo`, `one_class`), a loss or a fall of the AUC (`dominance`, `time_collapse`), a share of different values or a
        correlation (`identifier`), a ratio of variances (`own_outcome`).
    shows, advice
        The observation and the remedy, in plain sentences without any value of a row.
    severity
        ``block`` where the leak is near certain, ``examine`` where a legitimate feature could look the same.
    """

    column: str
    rule: Rule
    evidence: float
    shows: str
    advice: str
    severity: Severity = "block"

    def __str__(self) -> str:
        return f"{self.column or 'the table'} [{self.rule}, {self.evidence:.3f}]: {self.shows}. {self.advice}."


@dataclass(frozen=True)
class Sample:
    """The rows that the rules fit and test models on.

    Attributes
    ----------
    rows, labels, groups
        Features float64, shape (n, d), NaN where missing; outcomes, bool, shape (n,); group numbers from 0, shape (n,).
    late
        Whether a row is in the later part, shape (n,); without times, whole groups at random. Each part tests models of the other.
    is_timed
        Whether rows have a time.
    odds
        Factor from the odds of the sample to the odds of the table.
    """

    rows: Floats
    labels: Flags
    groups: NDArray[np.int64]
    late: Flags
    is_timed: bool
    odds: float

    def has_enough_rows(self) -> bool:
        """Return whether all rows together have enough of either outcome for a claim."""
        return min(int(self.labels.sum()), int((~self.labels).sum())) >= MIN_ROWS_PER_OUTCOME

    def has_enough_in_both_parts(self) -> bool:
        """Return whether the earlier and the later part have enough rows of either outcome each."""
        parts = (self.labels[self.late], self.labels[~self.late])
        return all(min(part.sum(), (~part).sum()) >= MIN_ROWS_PER_OUTCOME for part in parts)


def draw_sample(
    frame: "pd.DataFrame",
    names: Sequence[str],
    label: str,
    time_column: str | None,
    group: str | None,
    seed: int,
    most: int = LARGEST_SAMPLE,
) -> Sample:
    """Return at most `most` rows, both outcomes in equal number where possible, split into a later and an earlier part.

    Parameters
    ----------
    frame, names, label
        The feature table, its feature columns, and the column of the outcome.
    time_column
        Column of times that splits the rows; None splits whole groups at random.
    group
        Column with the person of each row; None takes each row as a person.
    seed, most
        Seed of the draw, and largest number of rows.

    Raises
    ------
    ValueError
        For an outcome that is missing or not 0/1.
    """
    outcomes = frame[label].to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isin(outcomes, (0, 1)).all():
        raise ValueError(f"{label} must be 0 or 1 in every row: leave out rows whose outcome is not known")
    target = outcomes.astype(bool)
    draw = np.random.default_rng(seed)
    places = [draw.permutation(np.flatnonzero(target == outcome)) for outcome in (True, False)]
    n_rarer = min(len(part) for part in places)
    chosen = [part[: max(most // 2, most - n_rarer)] for part in places]
    drawn = np.sort(np.concatenate(chosen))
    weights = [len(part) / max(len(taken), 1) for part, taken in zip(places, chosen, strict=True)]
    groups = np.arange(len(drawn)) if group is None else number_groups(frame[group].to_numpy()[drawn])
    if time_column is None:
        late = draw.random(int(groups.max()) + 1 if len(groups) else 0)[groups] < LATE_SHARE
    else:
        times = frame[time_column].to_numpy()[drawn].astype("datetime64[us]").astype(np.int64)
        late = times >= np.quantile(times, 1 - LATE_SHARE, method="nearest") if len(times) else np.zeros(0, bool)
    rows = frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)[drawn]
    rows[~np.isfinite(rows)] = np.nan
    return Sample(rows, target[drawn], groups, late, time_column is not None, weights[0] / weights[1] if weights[1] else 1.0)


def number_groups(names: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of each row's group, from 0, in the order of the groups' names."""
    numbers: NDArray[np.int64] = np.unique(names.astype(str), return_inverse=True)[1]
    return numbers


class QuickTrees:
    """Thirty boosted trees on one thread, fitted in hundredths of a second on a sample: a check of a column, not a candidate.

    Attributes
    ----------
    importance : ndarray, shape (d,)
        Sum of the loss that the splits on each column took away.
    """

    _PARAMETERS = {  # noqa: RUF012
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_bin": 64,
        "max_depth": 4,
        "eta": 0.2,
        "min_child_weight": 3,
        "lambda": 3.0,
        "colsample_bynode": 0.5,
        "nthread": 1,
    }
    _N_TREES = 30

    def __init__(self, rows: Floats, labels: Flags, seed: int = 0) -> None:
        import xgboost

        matrix = xgboost.DMatrix(rows, labels, nthread=1)
        self._booster = xgboost.train({**self._PARAMETERS, "seed": seed}, matrix, self._N_TREES)
        self.importance = np.zeros(rows.shape[1])
        for name, value in self._booster.get_score(importance_type="total_gain").items():
            self.importance[int(name[1:])] = value

    def margin(self, rows: Floats) -> Floats:
        """Return log-odds, shape (n,)."""
        import xgboost

        return np.asarray(self._booster.predict(xgboost.DMatrix(rows, nthread=1), output_margin=True), np.float64)


def cross_score(sample: Sample, score: Callable[[Flags, Flags], Floats]) -> tuple[float, Floats]:
    """Return the AUC of scores of each part by the other, weighted by rows, and its influence; each part is ranked by itself."""
    value, influence = 0.0, np.zeros(len(sample.labels))
    for test in (sample.late, ~sample.late):
        scores, share = score(~test, test), float(test.mean())
        value += share * compute_auc(sample.labels[test], scores)
        influence[test] = share * compute_influence(sample.labels[test], scores)
    return value, influence


def rank(values: NDArray[Any]) -> Floats:
    """Return ranks from 1, the mean rank where values tie; shape (n,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(values)])
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return ranks


def compute_auc(labels: Flags, scores: ArrayLike) -> float:
    """Return the area under the ROC curve; a tie counts a half."""
    n_positive, n_negative = int(labels.sum()), int((~labels).sum())
    above = rank(np.asarray(scores, np.float64))[labels].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def compute_influence(labels: Flags, scores: ArrayLike) -> Floats:
    """Return each row's contribution to the AUC's error, shape (n,): they sum to 0, and their squares to DeLong's variance."""
    score = np.asarray(scores, np.float64)
    n_positive, n_negative = int(labels.sum()), int((~labels).sum())
    ranks = rank(score)
    # Share of the rows of the other outcome that each row is ranked rightly against, a tie counting a half.
    placements = np.empty(len(score))
    placements[labels] = (ranks[labels] - rank(score[labels])) / n_negative
    placements[~labels] = 1 - (ranks[~labels] - rank(score[~labels])) / n_positive
    auc = float(placements[labels].mean())
    return (placements - auc) / np.where(labels, n_positive, n_negative)


def standard_error(influence: Floats, groups: NDArray[np.int64]) -> float:
    """Return the standard error of a figure with this influence, all rows of a group as one draw (Obuchowski, *Biometrics* 1997)."""
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], influence)
    return float(np.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1)))


def z_value(tail: float) -> float:
    """Return the standard normal quantile that leaves this probability above it."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - tail)
