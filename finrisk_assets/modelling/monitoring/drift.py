"""Drift of features and scores between two windows, at a stated false-alarm rate: arrays in, a finding out.

The test is a permutation test over all columns together. The population stability index is reported with its limit by chance for this
number of rows, and never decides. Performance without labels is in `performance`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SIGNIFICANCE_LEVEL = 0.05
"""Share of windows without drift in which any column at all is reported as drifted."""
N_BINS = 10
"""Bins of about equal size for a column without repeated values."""
REPEATED_SHARE = 0.05
"""Share of a column from which a repeated value has a bin of its own."""
MAX_SHUFFLED_UNITS = 2_000
"""Units; where both windows hold more, each unit is assigned by a coin instead of a shuffle, as the difference no longer shows."""
DRAWS_PER_BATCH = 100
"""Permutations computed per batch; more take more memory."""


@dataclass(frozen=True)
class Bin:
    """A range of values, or the missing values, with the share of each window in it."""

    label: str
    reference: float
    current: float


@dataclass(frozen=True)
class ColumnDrift:
    """The drift of one column.

    Attributes
    ----------
    name
        Name of the feature or score.
    p_value
        P-value of this column alone.
    adjusted_p_value
        P-value of this column among all tested columns; the column has drifted where it is at most the level.
    is_drift
        Whether the column has drifted.
    psi, psi_limit
        Population stability index, and the limit that it exceeds in `level` of windows without drift. For information only.
    exceeds
        Probability that a current value lies above a reference value, ties counted half: 0.5 where nothing moved up or down.
    bins
        Shares of both windows, in order of the value, missing values first.
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
        return max(self.bins, key=lambda item: abs(item.current - item.reference))

    @property
    def ranges(self) -> tuple[str, ...]:
        """The bins' labels for a reader: three digits, and open at both ends, because the outermost values are those of single rows."""
        bin_ends = [item.label.split(" to ") for item in self.bins]
        numeric_places = [place for place, ends in enumerate(bin_ends) if ends != ["missing"]]
        labels = []
        for place, ends in enumerate(bin_ends):
            if ends == ["missing"] or len(ends) == 1:
                labels.append("missing" if ends == ["missing"] else format_number(float(ends[0])))
            elif len(numeric_places) == 1:
                labels.append("any value")
            elif place == numeric_places[0]:
                labels.append(f"up to {format_number(float(ends[1]))}")
            elif place == numeric_places[-1]:
                labels.append(f"from {format_number(float(ends[0]))}")
            else:
                labels.append(" to ".join(format_number(float(end)) for end in ends))
        return tuple(labels)


@dataclass(frozen=True)
class Drift:
    """The result of a comparison of two windows.

    Attributes
    ----------
    n_reference, n_current, n_shared
        Units (rows, or customers) in either window, and in both.
    level
        The false-alarm rate over all columns together.
    columns
        Drift of each column, in the order given.
    """

    n_reference: int
    n_current: int
    n_shared: int
    level: float
    columns: tuple[ColumnDrift, ...]

    @property
    def drifted(self) -> tuple[ColumnDrift, ...]:
        """The columns that drifted, by adjusted p-value."""
        return tuple(
            sorted((column for column in self.columns if column.is_drift), key=lambda column: (column.adjusted_p_value, -column.psi))
        )

    def __str__(self) -> str:
        names = ", ".join(column.name for column in self.drifted) or "none"
        return (
            f"{len(self.drifted)} of {len(self.columns)} columns drifted at a false-alarm rate of {self.level:g} over all of them "
            f"({self.n_reference} units against {self.n_current}): {names}"
        )


def compare(
    names: Sequence[str],
    reference: ArrayLike,
    current: ArrayLike,
    *,
    reference_customers: ArrayLike | None = None,
    current_customers: ArrayLike | None = None,
    level: float = SIGNIFICANCE_LEVEL,
    draws: int = 999,
    seed: int,
) -> Drift:
    """Test whether the columns of two windows have the same distribution.

    Parameters
    ----------
    names : sequence of k strings
    reference : array-like, shape (n, k)
        The earlier window, such as the training window of a model. Missing values are NaN and count as a value of their own.
    current : array-like, shape (m, k)
    reference_customers, current_customers : array-like, shapes (n,) and (m,), optional
        The customer of each row. With customers, a customer is one unit: all rows of a customer in a window together weigh one, and are
        permuted together. Without, every row is a unit, which is right only where no customer has two rows. Memory and time of a draw
        grow with the units: sample windows of far more than 100,000.
    level
        False-alarm rate over all columns together.
    draws
        Number of permutations; a p-value is at least 1 / (draws + 1).
    seed
        Seed of the permutations.

    Raises
    ------
    ValueError
        For no names, windows of another shape than these, empty windows, customers for one window only, or too few draws for the level.

    Notes
    -----
    A column is cut into bins of the two windows *together*, so the test does not depend on which of them is the reference.
    Its differences between the windows are those of the share of missing values, of the share at or below every cut, and of the mean rank
    (missing lowest), each over its standard deviation; the largest of these is the column's statistic. The distribution of the statistic
    without drift comes from permuting the units between the windows: units of one window only are shuffled, and a customer in both windows
    has the two sides swapped by a coin. Ties, point masses and dependent columns therefore cost no validity.
    The adjusted p-values are the step-down p-values of Westfall & Young (*Resampling-Based Multiple Testing*, Wiley 1993, section 2.6):
    without drift, any column at all is reported in `level` of windows. Tied statistics are ordered by the
    seed, so that this holds for a rare event too; a column with one value only never drifts.

    A swap assumes that a customer's two windows have the same length, and the test reports any difference as drift, a season too:
    compare windows of the same length, and leave out columns that only state the date.

    The limit of the PSI is the quantile of a chi-square variable with (bins - 1) degrees of freedom times (1/n + 1/m)
    (Yurdakul & Naranjo, *Statistical properties of the population stability index*, Journal of Risk Model Validation 2020), with
    units for n and m. Where a customer's rows differ, the index stays below it more often than stated.
    """
    windows = [np.asarray(values, dtype=np.float64) for values in (reference, current)]
    for values, window_name in zip(windows, ("reference", "current"), strict=True):
        if values.ndim != 2 or values.shape[1] != len(names) or not len(values):
            raise ValueError(f"the {window_name} window has the shape {values.shape}: it needs rows of {len(names)} columns, one per name")
    if not names:
        raise ValueError("no columns are named: there is nothing to compare")
    if draws + 1 < 1 / level:
        raise ValueError(f"{draws} draws cannot give a p-value of {level:g} or below: take at least {int(np.ceil(1 / level)) - 1}")
    unit, n, m, shared_pairs = _number_units(len(windows[0]), len(windows[1]), reference_customers, current_customers)
    rng = np.random.default_rng(seed)
    binned = [_bin_column(column, unit, n + m) for column in np.vstack(windows).T]
    in_reference, in_current = _permute(rng, np.hstack([shares for shares, _ in binned]), n, m, shared_pairs, draws)
    ends = np.cumsum([len(labels) for _, labels in binned])
    parts = [slice(end - len(labels), end) for end, (_, labels) in zip(ends, binned, strict=True)]
    pooled = (n * in_reference[0] + m * in_current[0]) / (n + m)
    p_values, adjusted = _p_values(
        np.column_stack([_max_statistic(rng, in_reference[:, part], in_current[:, part], pooled[part]) for part in parts])
    )
    columns = []
    for name, p_value, adjusted_p_value, part, (_, labels) in zip(names, p_values, adjusted, parts, binned, strict=True):
        reference_shares, current_shares = in_reference[0, part], in_current[0, part]
        columns.append(
            ColumnDrift(
                name,
                float(p_value),
                float(adjusted_p_value),
                bool(adjusted_p_value <= level),
                psi(reference_shares * n, current_shares * m),
                psi_limit(len(labels), n, m, level),
                _probability_above(reference_shares, current_shares, labels),
                tuple(Bin(label, float(a), float(b)) for label, a, b in zip(labels, reference_shares, current_shares, strict=True)),
            )
        )
    return Drift(n, m, len(shared_pairs), level, tuple(columns))


def psi(reference: ArrayLike, current: ArrayLike) -> float:
    """Return the population stability index of two windows, from their counts in the same bins.

    The index is the sum of (q - p) ln(q / p) over the bins, with half a unit added to each count, so that an empty bin has a logarithm.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (np.asarray(reference, np.float64), np.asarray(current, np.float64)))
    return float(np.sum((q - p) * np.log(q / p)))


def psi_limit(bins: int, n: int, m: int, level: float = SIGNIFICANCE_LEVEL) -> float:
    """Return the limit that the index of two windows of `n` and `m` independent units exceeds in `level` of cases; see `compare`."""
    from scipy.stats import chi2

    return float(chi2.ppf(1 - level, bins - 1) * (1 / n + 1 / m)) if bins > 1 else 0.0


def format_number(value: float) -> str:
    """Return a number for a reader: three digits, whole from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


# Units and bins ----------------------------------------------------------------------------------------------------------------


def _number_units(n: int, m: int, reference: ArrayLike | None, current: ArrayLike | None) -> tuple[Integers, int, int, Integers]:
    """Return the unit of each of the n + m rows, reference first, the number of units of both windows, and the pairs of shared units."""
    if reference is None and current is None:
        return np.arange(n + m), n, m, np.empty((0, 2), dtype=np.int64)
    if reference is None or current is None:
        raise ValueError("customers are given for one window only: give them for both, or for neither")
    numbered = []
    for customers, rows, window_name in ((reference, n, "reference"), (current, m, "current")):
        names = np.asarray(customers)
        if names.shape != (rows,):
            raise ValueError(
                f"the {window_name} window has {rows} rows, its customers the shape {names.shape}: one customer per row is needed"
            )
        numbered.append(np.unique(names.astype(str), return_inverse=True))
    (reference_names, reference_unit), (current_names, current_unit) = numbered
    _, first, second = np.intersect1d(reference_names, current_names, assume_unique=True, return_indices=True)
    unit = np.concatenate([reference_unit, current_unit + len(reference_names)])
    return unit, len(reference_names), len(current_names), np.column_stack([first, second + len(reference_names)])


def _bin_column(column: Floats, unit: Integers, n_units: int) -> tuple[NDArray[np.float32], list[str]]:
    """Return the share of each unit's rows in each bin, shape (units, bins), missing first, and the bins' labels."""
    missing = np.isnan(column)
    values, counts = np.unique(column[~missing], return_counts=True)
    labels, bin_number = ["missing"], np.zeros(len(column), dtype=np.int64)
    if len(values):
        cumulated = np.cumsum(counts)
        last_places = np.searchsorted(cumulated, cumulated[-1] * np.arange(1, N_BINS) / N_BINS)
        repeated = np.flatnonzero(counts >= REPEATED_SHARE * cumulated[-1])
        last_places = np.unique(np.concatenate([last_places, repeated, repeated - 1, [len(values) - 1]]))
        last_places = last_places[last_places >= 0]
        bin_number[~missing] = np.searchsorted(values[last_places[:-1]], column[~missing]) + 1
        first_places = np.concatenate([[0], last_places[:-1] + 1])
        labels += [
            f"{values[a]:.6g}" if a == b else f"{values[a]:.6g} to {values[b]:.6g}" for a, b in zip(first_places, last_places, strict=True)
        ]
    if not missing.any():
        labels, bin_number = labels[1:], bin_number - 1
    n_bins = len(labels)
    if len(column) == n_units:
        shares = np.zeros((n_units, n_bins), dtype=np.float32)
        shares[unit, bin_number] = 1
        return shares, labels
    rows = np.bincount(unit * n_bins + bin_number, minlength=n_units * n_bins).reshape(n_units, n_bins)
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32), labels


def _probability_above(reference: Floats, current: Floats, labels: Sequence[str]) -> float:
    """Return the probability that a current value lies above a reference value, over bins, ties counted half."""
    start = int(labels[0] == "missing")
    reference, current = reference[start:], current[start:]
    if not reference.sum() or not current.sum():
        return 0.5
    return float(current @ (np.cumsum(reference) - reference / 2) / (current.sum() * reference.sum()))


# Permutations -----------------------------------------------------------------------------------------------------------------


def _permute(
    rng: np.random.Generator, shares: NDArray[np.float32], n: int, m: int, shared_pairs: Integers, draws: int
) -> tuple[Floats, Floats]:
    """Return the mean shares of both windows, each (draws + 1, bins): first as observed, then with the units permuted."""
    is_current = np.arange(n + m) >= n
    is_single = np.ones(n + m, dtype=bool)
    is_single[shared_pairs] = False
    rows = np.flatnonzero(is_single)
    is_single_current = is_current[rows]
    uses_coin = len(rows) > 0 and min(is_single_current.sum(), (~is_single_current).sum()) > MAX_SHUFFLED_UNITS
    total = shares.sum(axis=0, dtype=np.float64)
    reference, current = [], []
    for start in range(0, draws + 1, DRAWS_PER_BATCH):
        is_drawn_current = np.tile(is_current, (min(DRAWS_PER_BATCH, draws + 1 - start), 1))
        # The first row of the first batch is the observation.
        permuted = is_drawn_current[1:] if start == 0 else is_drawn_current
        if uses_coin:
            drawn = rng.integers(0, 2**16, (len(permuted), len(rows)), dtype=np.uint16) < round(2**16 * is_single_current.mean())
        else:
            drawn = rng.permuted(np.tile(is_single_current, (len(permuted), 1)), axis=1)
        permuted[:, rows if len(shared_pairs) else slice(None)] = drawn
        is_swapped = rng.random((len(permuted), len(shared_pairs))) < 0.5
        permuted[:, shared_pairs[:, 0]], permuted[:, shared_pairs[:, 1]] = is_swapped, ~is_swapped
        sums = (is_drawn_current.astype(np.float32) @ shares).astype(np.float64)
        size = is_drawn_current.sum(axis=1, keepdims=True)
        current.append(sums / size)
        reference.append(np.maximum(total - sums, 0.0) / (n + m - size))
    return np.vstack(reference), np.vstack(current)


def _max_statistic(rng: np.random.Generator, reference: Floats, current: Floats, pooled: Floats) -> Floats:
    """Return one column's statistic for every draw: the largest of its differences over their standard deviations, shape (draws,)."""
    difference = current - reference
    cumulated = np.cumsum(difference, axis=1)
    # The mean rank weighs every bin by the pooled share below it, which no permutation changes.
    rank = difference @ (np.cumsum(pooled) - pooled / 2)
    differences = np.column_stack([cumulated[:, :-1], rank])
    deviation = np.sqrt(np.mean(differences**2, axis=0))
    # Smaller deviations are rounding errors of single precision.
    is_nonzero = deviation > 1e-7
    largest = np.round(np.max(np.abs(differences[:, is_nonzero]) / deviation[is_nonzero], axis=1, initial=0.0), 4)
    # Tied draws get a random order, so that a column of few values alarms as often as stated, not less.
    return largest + np.where(largest > 0, rng.random(len(largest)) * 1e-5, 0.0)


def _p_values(statistics: Floats) -> tuple[Floats, Floats]:
    """Return the p-value of each column alone, and step-down among all, from statistics of shape (draws, k), the observed first."""
    order = np.argsort(-statistics[0], kind="stable")
    ordered = statistics[:, order]
    largest_of_rest = np.maximum.accumulate(ordered[:, ::-1], axis=1)[:, ::-1]
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(np.mean(largest_of_rest >= ordered[0], axis=0))
    return np.mean(statistics >= statistics[0], axis=0), adjusted
