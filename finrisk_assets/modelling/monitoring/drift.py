"""Whether a window of features and scores still looks like an earlier one, at a stated false-alarm rate: arrays in, a finding out.

The test is a permutation test over all columns together. The population stability index stands beside it, with what it reaches by
chance at this number of rows, and never decides. How well a model does without labels is in `performance`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

LEVEL = 0.05
"""Share of windows without drift in which any column at all is called drifted."""
GROUPS = 10
"""Groups of about equal size that a column without repeated values is cut into."""
REPEATED = 0.05
"""A value that holds so large a share of a column has a bin of its own."""
EXACT_UP_TO = 2_000
"""Where both windows hold more units than this, each unit is dealt by a coin, not by a shuffle: the difference no longer shows."""
DEALT_AT_ONCE = 100


@dataclass(frozen=True)
class Bin:
    """A range of values, or the missing ones, and the share of each window in it."""

    label: str
    reference: float
    current: float


@dataclass(frozen=True)
class ColumnDrift:
    """What one column shows.

    Attributes
    ----------
    name
        Of the feature or score.
    p_value
        Of this column alone.
    adjusted_p_value
        Of this column among all that were looked at; below the level it has drifted.
    is_drift
        Whether it has.
    psi, psi_limit
        Population stability index, and what it stays below in all but `level` of windows without drift. For the eye only.
    exceeds
        Probability that a current value lies above a reference value, ties counted half: 0.5 where nothing moved up or down.
    bins
        Shares of both windows, in order of the value, the missing first.
    """

    name: str
    p_value: float
    adjusted_p_value: float
    is_drift: bool
    psi: float
    psi_limit: float
    exceeds: float
    bins: tuple[Bin, ...]

    @property
    def largest_move(self) -> Bin:
        """The bin whose share changed most."""
        return max(self.bins, key=lambda one: abs(one.current - one.reference))

    @property
    def ranges(self) -> tuple[str, ...]:
        """The bins' labels for the eye: three digits, and open at both ends, whose outermost values are those of single rows."""
        held = [one.label.split(" to ") for one in self.bins]
        numbers = [at for at, ends in enumerate(held) if ends != ["missing"]]
        said = []
        for at, ends in enumerate(held):
            if ends == ["missing"] or len(ends) == 1:
                said.append("missing" if ends == ["missing"] else number(float(ends[0])))
            elif len(numbers) == 1:
                said.append("any value")
            elif at == numbers[0]:
                said.append(f"up to {number(float(ends[1]))}")
            elif at == numbers[-1]:
                said.append(f"from {number(float(ends[0]))}")
            else:
                said.append(" to ".join(number(float(end)) for end in ends))
        return tuple(said)


@dataclass(frozen=True)
class Drift:
    """What a comparison of two windows found.

    Attributes
    ----------
    n_reference, n_current, n_shared
        Units (rows, or customers) in either window, and in both.
    level
        The false-alarm rate over all columns together.
    columns
        In the order given.
    """

    n_reference: int
    n_current: int
    n_shared: int
    level: float
    columns: tuple[ColumnDrift, ...]

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        """The columns that drifted, the surest first."""
        return tuple(sorted((one for one in self.columns if one.is_drift), key=lambda one: (one.adjusted_p_value, -one.psi)))

    def __str__(self) -> str:
        found = ", ".join(one.name for one in self.drifted) or "none"
        return (
            f"{len(self.drifted)} of {len(self.columns)} columns drifted at a false-alarm rate of {self.level:g} over all of them "
            f"({self.n_reference} units against {self.n_current}): {found}"
        )


def compare(
    names: Sequence[str],
    reference: ArrayLike,
    current: ArrayLike,
    *,
    reference_customers: ArrayLike | None = None,
    current_customers: ArrayLike | None = None,
    level: float = LEVEL,
    draws: int = 999,
    seed: int,
) -> Drift:
    """Test whether the columns of two windows have the same distribution.

    Parameters
    ----------
    names : sequence of k strings
    reference : array-like, shape (n, k)
        The earlier window, such as the one that a model was trained on. Missing values are NaN and count as a value of their own.
    current : array-like, shape (m, k)
    reference_customers, current_customers : array-like, shapes (n,) and (m,), optional
        Whose row it is. Given, a customer is one unit: the rows it has in a window weigh one together, and are dealt together.
        Without them every row is a unit, which is right only where no customer has two rows. A draw takes memory and time by the
        unit: sample windows of far more than 100,000.
    level
        False-alarm rate over all columns together.
    draws
        How often the windows are dealt anew; a p-value is at least 1 / (draws + 1).
    seed
        Of the draws.

    Raises
    ------
    ValueError
        For no names, windows of another shape than these, empty windows, customers for one window only, or too few draws for the level.

    Notes
    -----
    A column is cut into bins of the two windows *together*, so that the test does not depend on which of them is the reference.
    It is looked at through the share of missing values, the share at or below every cut, and the mean rank (missing lowest), each as
    a difference between the windows over its standard deviation; the largest of these is the column's statistic. Its law without
    drift comes from dealing the units to the windows anew: units of one window only are shuffled, and a customer who is in both has
    the two sides swapped by a coin. Ties, point masses and columns that hang together so cost nothing in validity.
    The adjusted p-values are the step-down ones of Westfall & Young (*Resampling-Based Multiple Testing*, Wiley 1993, section 2.6):
    where nothing drifted, any column at all is called drifted in `level` of windows. Draws whose statistics tie are put in order by the
    seed, so that this holds for a rare event too; a column with one value only never drifts.

    A swap supposes that a customer's two windows are alike in length, and the test calls any difference drift, a season too:
    compare windows of the same length, and leave out columns that only say the date.

    The limit of the PSI is the quantile of a chi-square variable with (bins - 1) degrees of freedom times (1/n + 1/m)
    (Yurdakul & Naranjo, *Statistical properties of the population stability index*, Journal of Risk Model Validation 2020), with
    units for n and m. Where a customer's rows differ the index then stays below it more often than stated.
    """
    windows = [np.asarray(values, dtype=np.float64) for values in (reference, current)]
    for values, which in zip(windows, ("reference", "current"), strict=True):
        if values.ndim != 2 or values.shape[1] != len(names) or not len(values):
            raise ValueError(f"the {which} window has the shape {values.shape}: it needs rows of {len(names)} columns, one per name")
    if not names:
        raise ValueError("no columns are named: there is nothing to compare")
    if draws + 1 < 1 / level:
        raise ValueError(f"{draws} draws cannot give a p-value of {level:g} or below: take at least {int(np.ceil(1 / level)) - 1}")
    unit, n, m, shared = _units(len(windows[0]), len(windows[1]), reference_customers, current_customers)
    rng = np.random.default_rng(seed)
    binned = [_binned(column, unit, n + m) for column in np.vstack(windows).T]
    in_reference, in_current = _dealt(rng, np.hstack([shares for shares, _ in binned]), n, m, shared, draws)
    ends = np.cumsum([len(labels) for _, labels in binned])
    parts = [slice(end - len(labels), end) for end, (_, labels) in zip(ends, binned, strict=True)]
    pooled = (n * in_reference[0] + m * in_current[0]) / (n + m)
    p_values, adjusted = _p_values(
        np.column_stack([_largest(rng, in_reference[:, part], in_current[:, part], pooled[part]) for part in parts])
    )
    columns = []
    for name, p_value, adjusted_p_value, part, (_, labels) in zip(names, p_values, adjusted, parts, binned, strict=True):
        before, now = in_reference[0, part], in_current[0, part]
        columns.append(
            ColumnDrift(
                name,
                float(p_value),
                float(adjusted_p_value),
                bool(adjusted_p_value <= level),
                psi(before * n, now * m),
                psi_limit(len(labels), n, m, level),
                _exceeds(before, now, labels),
                tuple(Bin(label, float(a), float(b)) for label, a, b in zip(labels, before, now, strict=True)),
            )
        )
    return Drift(n, m, len(shared), level, tuple(columns))


def psi(reference: ArrayLike, current: ArrayLike) -> float:
    """Return the population stability index of two windows, from their counts in the same bins.

    It is the sum of (q - p) ln(q / p) over the bins, half a unit added to each count, so that an empty bin has a logarithm.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (np.asarray(reference, np.float64), np.asarray(current, np.float64)))
    return float(np.sum((q - p) * np.log(q / p)))


def psi_limit(bins: int, n: int, m: int, level: float = LEVEL) -> float:
    """Return what the index of two windows of `n` and `m` independent units stays below in all but `level` of cases; see `compare`."""
    from scipy.stats import chi2

    return float(chi2.ppf(1 - level, bins - 1) * (1 / n + 1 / m)) if bins > 1 else 0.0


def number(value: float) -> str:
    """A number for the eye: three digits, whole from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


# Units and bins ----------------------------------------------------------------------------------------------------------------


def _units(n: int, m: int, reference: ArrayLike | None, current: ArrayLike | None) -> tuple[Whole, int, int, Whole]:
    """Return the unit of each of the n + m rows, reference first, the units of both windows, and the pairs that are one customer."""
    if reference is None and current is None:
        return np.arange(n + m), n, m, np.empty((0, 2), dtype=np.int64)
    if reference is None or current is None:
        raise ValueError("customers are given for one window only: give them for both, or for neither")
    found = []
    for customers, rows, which in ((reference, n, "reference"), (current, m, "current")):
        named = np.asarray(customers)
        if named.shape != (rows,):
            raise ValueError(f"the {which} window has {rows} rows, its customers the shape {named.shape}: one customer per row is needed")
        found.append(np.unique(named.astype(str), return_inverse=True))
    (before, of_before), (now, of_now) = found
    _, first, second = np.intersect1d(before, now, assume_unique=True, return_indices=True)
    unit = np.concatenate([of_before, of_now + len(before)])
    return unit, len(before), len(now), np.column_stack([first, second + len(before)])


def _binned(column: Floats, unit: Whole, units: int) -> tuple[NDArray[np.float32], list[str]]:
    """Return the share of each unit's rows in each bin, shape (units, bins), missing first, and the bins' labels."""
    missing = np.isnan(column)
    values, counts = np.unique(column[~missing], return_counts=True)
    labels, code = ["missing"], np.zeros(len(column), dtype=np.int64)
    if len(values):
        reached = np.cumsum(counts)
        last = np.searchsorted(reached, reached[-1] * np.arange(1, GROUPS) / GROUPS)
        repeated = np.flatnonzero(counts >= REPEATED * reached[-1])
        last = np.unique(np.concatenate([last, repeated, repeated - 1, [len(values) - 1]]))
        last = last[last >= 0]
        code[~missing] = np.searchsorted(values[last[:-1]], column[~missing]) + 1
        first = np.concatenate([[0], last[:-1] + 1])
        labels += [f"{values[a]:.6g}" if a == b else f"{values[a]:.6g} to {values[b]:.6g}" for a, b in zip(first, last, strict=True)]
    if not missing.any():
        labels, code = labels[1:], code - 1
    width = len(labels)
    if len(column) == units:
        shares = np.zeros((units, width), dtype=np.float32)
        shares[unit, code] = 1
        return shares, labels
    rows = np.bincount(unit * width + code, minlength=units * width).reshape(units, width)
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32), labels


def _exceeds(before: Floats, now: Floats, labels: Sequence[str]) -> float:
    """Return the probability that a current value lies above a reference value, over bins, ties counted half."""
    start = int(labels[0] == "missing")
    before, now = before[start:], now[start:]
    if not before.sum() or not now.sum():
        return 0.5
    return float(now @ (np.cumsum(before) - before / 2) / (now.sum() * before.sum()))


# The law without drift ---------------------------------------------------------------------------------------------------------


def _dealt(rng: np.random.Generator, shares: NDArray[np.float32], n: int, m: int, shared: Whole, draws: int) -> tuple[Floats, Floats]:
    """Return the mean shares of both windows, each (draws + 1, bins): first as they are, then with the units dealt anew."""
    is_current = np.arange(n + m) >= n
    alone = np.ones(n + m, dtype=bool)
    alone[shared] = False
    rows = np.flatnonzero(alone)
    dealt_now = is_current[rows]
    by_coin = len(rows) > 0 and min(dealt_now.sum(), (~dealt_now).sum()) > EXACT_UP_TO
    total = shares.sum(axis=0, dtype=np.float64)
    before, now = [], []
    for start in range(0, draws + 1, DEALT_AT_ONCE):
        chosen = np.tile(is_current, (min(DEALT_AT_ONCE, draws + 1 - start), 1))
        # The first row of the first batch stays as it is: it is what was observed.
        anew = chosen[1:] if start == 0 else chosen
        if by_coin:
            new = rng.integers(0, 2**16, (len(anew), len(rows)), dtype=np.uint16) < round(2**16 * dealt_now.mean())
        else:
            new = rng.permuted(np.tile(dealt_now, (len(anew), 1)), axis=1)
        anew[:, rows if len(shared) else slice(None)] = new
        swapped = rng.random((len(anew), len(shared))) < 0.5
        anew[:, shared[:, 0]], anew[:, shared[:, 1]] = swapped, ~swapped
        sums = (chosen.astype(np.float32) @ shares).astype(np.float64)
        size = chosen.sum(axis=1, keepdims=True)
        now.append(sums / size)
        before.append(np.maximum(total - sums, 0.0) / (n + m - size))
    return np.vstack(before), np.vstack(now)


def _largest(rng: np.random.Generator, before: Floats, now: Floats, pooled: Floats) -> Floats:
    """Return one column's statistic for every draw: the largest of its differences over their standard deviations, shape (draws,)."""
    difference = now - before
    below = np.cumsum(difference, axis=1)
    # The mean rank counts every bin by the share of both windows together below it, which is the same however they are dealt.
    rank = difference @ (np.cumsum(pooled) - pooled / 2)
    looks = np.column_stack([below[:, :-1], rank])
    deviation = np.sqrt(np.mean(looks**2, axis=0))
    # Sums of single precision: what is smaller than this is none.
    moved = deviation > 1e-7
    largest = np.round(np.max(np.abs(looks[:, moved]) / deviation[moved], axis=1, initial=0.0), 4)
    # Draws that tie come in an order of their own, so that a column of few values alarms as often as stated, not less.
    return largest + np.where(largest > 0, rng.random(len(largest)) * 1e-5, 0.0)


def _p_values(statistics: Floats) -> tuple[Floats, Floats]:
    """Return the p-value of each column alone, and step-down among all, from statistics of shape (draws, k), the observed first."""
    order = np.argsort(-statistics[0], kind="stable")
    ordered = statistics[:, order]
    among = np.maximum.accumulate(ordered[:, ::-1], axis=1)[:, ::-1]
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.mean(among >= ordered[0], axis=0))
    return np.mean(statistics >= statistics[0], axis=0), adjusted
