"""Five columns of which each tells some of the outcome, as real tables hold them by mistake: the linter must find them.

Each function plants one column into a clean table: it takes the outcome, an honest view of the risk and a source of chance, and returns
the values. At the strengths below a column adds .07 to .12 to the AUC of a model of the clean columns: enough to mislead every
evaluation, too little to stand out as a copy of the outcome.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Plant = Callable[[Flags, Floats, np.random.Generator], Floats]
"""From outcomes, the risk as a rank from 0 to 1, and a source of chance to the values of a leaking column; all of shape (n,)."""

GROUP_ROWS = 7
"""Mean rows of a group whose mean outcome is a column."""


def mean_of_own_group(labels: Flags, risk: Floats, draw: np.random.Generator) -> Floats:
    """Return each row's mean outcome of its group, the row's own among them: a target encoding that is not out of fold."""
    group = draw.integers(0, max(len(labels) // GROUP_ROWS, 1), len(labels))
    means: Floats = np.bincount(group, labels.astype(float)) / np.maximum(np.bincount(group), 1)
    return means[group]


def closing_code(labels: Flags, risk: Floats, draw: np.random.Generator) -> Floats:
    """Return a code for 60 % of the bad, whose file was closed; all others are open, with 0."""
    return np.where(labels & (draw.random(len(labels)) < 0.6), draw.integers(1, 5, len(labels)), 0).astype(float)


def revised_rating(labels: Flags, risk: Floats, draw: np.random.Generator) -> Floats:
    """Return a rating from 1 to 10 that follows the risk, and was put down for half of the bad once they were."""
    rating = np.clip(np.round(1 + 9 * (0.5 * risk + 0.5 * draw.random(len(labels)))), 1, 10)
    revised = labels & (draw.random(len(labels)) < 0.5)
    return np.where(revised, np.clip(rating + draw.integers(2, 5, len(labels)), 1, 10), rating)


def arrears_at_extract(labels: Flags, risk: Floats, draw: np.random.Generator) -> Floats:
    """Return the days in arrears on the day of the extract: some of the good are late too, and half of the bad have paid by then."""
    is_late = draw.random(len(labels)) < np.where(labels, 0.5, 0.06)
    return np.where(is_late, np.ceil(draw.exponential(np.where(labels, 60.0, 20.0))), 0.0)


def later_balance(labels: Flags, risk: Floats, draw: np.random.Generator) -> Floats:
    """Return a balance of some months after the decision: lower with the risk, and lower where the loan went bad."""
    balance = 7.5 - 0.8 * risk + draw.normal(0.0, 1.0, len(labels)) - 1.5 * labels
    return np.round(np.exp(balance), 2)


LEAKS: Mapping[str, Plant] = {
    "group mean with the own outcome": mean_of_own_group,
    "closing code of 60 % of the bad": closing_code,
    "rating revised afterwards": revised_rating,
    "arrears at the extract": arrears_at_extract,
    "balance of a later month": later_balance,
}
