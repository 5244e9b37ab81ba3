"""Cuts of one feature into bins, and the weight of evidence of each bin.

Choosing features and fitting the card belong to `scorecard`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

PRIOR_ROWS = 10
"""A bin's rate is estimated as if so many rows of the overall rate were in it too, so that an empty bin weighs nothing (Cestnik 1990)."""

SMALLEST_BIN = 0.05
"""Share of the rows that a bin of values must hold. The bins of codes and of missing values hold what they hold."""
_PREBINS = 20
_ALIKE = 2.706  # chi-square of one degree of freedom at 10 %

Floats = NDArray[np.float64]
Binning = Literal["optimal", "pooled"]
"""How features are cut: `optimal_cuts` or `pooled_cuts`."""


def bin_positions(values: NDArray[np.floating[Any]], cuts: Sequence[float], codes: Sequence[float]) -> NDArray[np.intp]:
    """The number of each value's bin."""
    value = np.asarray(values, np.float64)
    place = np.searchsorted(np.asarray(cuts, np.float64), value, side="right")
    for at, code in enumerate(codes):
        place[value == code] = len(cuts) + 1 + at
    place[np.isnan(value)] = len(cuts) + 1 + len(codes)
    return place


# Cutting -----------------------------------------------------------------------------------------------------------------------


def pooled_cuts(values: Floats, labels: NDArray[np.int64], direction: int, smallest: int) -> Floats:
    """Cut into bins of monotone event rate: quantiles, of which adjacent violators are pooled (Ayer et al. 1955).

    Then neighbours are merged, the most alike first, until every bin is large enough and differs from the next at 10 % by chi-square
    (Kerber 1992). Without a direction, the one that tells more is taken.

    Parameters
    ----------
    values, labels
        Values without missing ones and codes, and 0/1, shape (n,).
    direction
        1 or -1 where the rate of bads must rise or fall, 0 where either will do.
    smallest
        Rows that a bin must hold.

    Returns
    -------
    ndarray of float64
        Ascending values of the data; a bin begins at each. Empty where the feature cannot be cut.
    """
    shares = np.linspace(0, 1, _PREBINS + 1)[1:-1]
    distinct = np.unique(values)
    # Quantiles of the distinct values too: where most values are one, those of the rows all fall on it.
    starts = np.unique([np.quantile(part, shares, method="higher") for part in (values, distinct)])
    starts = starts[starts > distinct[0]]
    place = np.searchsorted(starts, values, side="right")
    n = np.bincount(place, minlength=len(starts) + 1).astype(float)
    bad = np.bincount(place, labels, minlength=len(starts) + 1).astype(float)
    tried = [_merged(n, bad, way, smallest) for way in ((direction,) if direction else (1, -1))]
    kept = max(
        tried, key=lambda blocks: information_of(*weight_of_evidence(np.array([b.n for b in blocks]), np.array([b.bad for b in blocks])))
    )
    return starts[[block.start - 1 for block in kept[1:]]]


class _Block(NamedTuple):
    start: int
    n: float
    bad: float

    @property
    def rate(self) -> float:
        return self.bad / self.n if self.n else 0.0

    def __add__(self, other: "_Block") -> "_Block":  # type: ignore[override]
        return _Block(self.start, self.n + other.n, self.bad + other.bad)


def _merged(n: Floats, bad: Floats, direction: int, smallest: int) -> list[_Block]:
    blocks: list[_Block] = []
    for start, (rows, events) in enumerate(zip(n.tolist(), bad.tolist(), strict=True)):
        blocks.append(_Block(start, rows, events))
        while len(blocks) > 1 and direction * (blocks[-1].rate - blocks[-2].rate) <= 0:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    while len(blocks) > 1:
        apart = [_chi_square(left, right) for left, right in pairwise(blocks)]
        small = [min(left.n, right.n) < smallest for left, right in pairwise(blocks)]
        among = [at for at, flag in enumerate(small) if flag] or range(len(apart))
        at = min(among, key=apart.__getitem__)
        if apart[at] > _ALIKE and not any(small):
            break
        blocks[at : at + 2] = [blocks[at] + blocks[at + 1]]
    return blocks


def _chi_square(left: _Block, right: _Block) -> float:
    rate = (left + right).rate
    spread = rate * (1 - rate) * (1 / left.n + 1 / right.n)
    return (left.rate - right.rate) ** 2 / spread if spread else 0.0


def optimal_cuts(values: Floats, labels: NDArray[np.int64], direction: int, smallest: int) -> Floats:
    """Cut as OptBinning does: the monotone bins of highest information value (Navas-Palencia, arXiv:2001.08025).

    Needs the package ``optbinning``, for fitting only. Parameters and result as of `pooled_cuts`.
    """
    from optbinning import OptimalBinning

    binning = OptimalBinning(
        dtype="numerical",
        solver="cp",
        monotonic_trend={1: "ascending", -1: "descending", 0: "auto_asc_desc"}[direction],
        max_n_prebins=_PREBINS,
        min_bin_size=smallest / len(values),
    )
    return np.asarray(binning.fit(values, labels).splits, np.float64)


def weight_of_evidence(n: Floats, bad: Floats) -> tuple[Floats, Floats, Floats]:
    """Rows, bads and weight of evidence per bin."""
    rate = bad.sum() / n.sum()
    shrunk = (bad + PRIOR_ROWS * rate) / (n + PRIOR_ROWS)
    return n, bad, np.log(rate / (1 - rate)) - np.log(shrunk / (1 - shrunk))


def information_of(n: Floats, bad: Floats, woe: Floats) -> float:
    """Information value: the weight of evidence by how differently goods and bads spread over the bins."""
    good = n - bad
    return float(((good / good.sum() - bad / bad.sum()) * woe).sum())


def cuts_between_floats(cuts: Floats) -> tuple[float, ...]:
    """Each cut moved between the two 32-bit floats that it parts."""
    above = next_floats_above(cuts)
    below = np.nextafter(above, np.float32(-np.inf))
    between = (above.astype(np.float64) + below.astype(np.float64)) / 2
    return tuple(np.unique(np.where(above == 0, 0.0, between)).tolist())  # what lies just below 0 is too small to write


def next_floats_above(cuts: Floats) -> NDArray[np.float32]:
    """The smallest 32-bit float that is not below each cut."""
    near = cuts.astype(np.float32)
    return np.where(near < cuts, np.nextafter(near, np.float32(np.inf)), near)
