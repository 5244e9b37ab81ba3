"""Which rows a model learns from, is chosen on, and is judged by: one frozen split, out of time wherever time is known.

Only the assignment of rows belongs here. The windows have one use each: a model is fitted on `train`; candidates are compared
and the champion is calibrated on `validation`, which is later (calibration keeps the order, so a choice by AUC cannot gain from
it); `test` is looked at once, for promotion.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Row numbers of three windows, and how they came about.

    Attributes
    ----------
    train, validation, test
        Row numbers, ascending, shape (n_window,). No row is in two; rows left out are in none.
    kind
        ``out-of-time``, or ``random`` where the rows have no time.
    boundaries
        First moments of the validation and the test window (datetime64[us]); none if random.
    reason
        A sentence for the model card: what was done and why.
    """

    train: Indices
    validation: Indices
    test: Indices
    kind: Literal["out-of-time", "random"]
    boundaries: tuple[np.datetime64, ...]
    reason: str

    @property
    def calibration(self) -> Indices:
        """The rows to calibrate on: the validation window, which is later than the training's."""
        return self.validation


def split(
    keys: Sequence[str] | NDArray[np.str_],
    labels: ArrayLike,
    times: ArrayLike | None = None,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
    *,
    shares: tuple[float, float, float] = (0.6, 0.2, 0.2),
    holdout: float = 0.0,
    known: ArrayLike | None = None,
    seed: int,
) -> Split:
    """Split rows into training, validation and test windows.

    With times, every training row is earlier than every validation row and that earlier than every test row; rows of one
    moment stay together, so the shares are met as nearly as ties allow. Without times, rows are drawn at random within each
    label, by a hash of their key and the seed: neither the rows' order nor rows added later move a row elsewhere by more than
    the boundary's shift.

    Parameters
    ----------
    keys : sequence of str, shape (n,)
        The rows' identifiers, each once.
    labels : array-like of bool or 0/1, shape (n,)
    times : array-like of datetime64, shape (n,), optional
        None, or not a time in every row, means that the source knows none.
    groups : sequence of str, shape (n,), optional
        Say, customers: given, a group is in one window only. Out of time it belongs to the window of its first row, and its
        later rows are left out; at random it is drawn as a whole.
    shares
        Of the windows; they add up to 1.
    holdout
        For a panel, in which every group has rows at all times: this share of the groups, drawn by a hash, is kept out of the
        training window and is alone in the two later ones. Above 0 it takes the place of the rule for `groups`.
    known : array-like of datetime64, shape (n,), optional
        When each label became known. A row whose label was not yet known when the next window began is left out, so that no
        outcome is shared by two windows.
    seed
        Of the random draw.

    Raises
    ------
    ValueError
        For repeated keys, labels that are not 0/1, times of which only some are missing, or a window without rows.
    """
    names = np.asarray(keys).astype(str)
    target = np.asarray(labels, dtype=np.float64)
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares must be above 0 and add up to 1, not {shares}")
    if len(np.unique(names)) < len(names):
        raise ValueError(f"{len(names) - len(np.unique(names))} keys are there twice: each row needs its own")
    if target.shape != names.shape or not np.isin(target, (0, 1)).all():
        raise ValueError("labels must be 0 or 1, one per key; leave out rows whose outcome is not known")
    members = None if groups is None else np.asarray(groups).astype(str)
    moments = None if times is None else np.asarray(times).astype("datetime64[us]")
    boundaries: tuple[np.datetime64, ...] = ()
    missing = 0 if moments is None else int(np.isnat(moments).sum())
    if moments is None or missing == len(names):
        window = _random(names, target.astype(int), members, shares, seed)
        why = f"random within each outcome (seed {seed}), because the rows have no time"
    elif missing:
        raise ValueError(f"{missing} of {len(names)} rows have no time: mend or leave them out before splitting")
    else:
        window, boundaries = _by_time(moments, None if holdout else members, shares)
        why = f"by time: validation from {boundaries[0]}, test from {boundaries[1]}"
        if known is not None:
            window = _purged(window, np.asarray(known).astype("datetime64[us]"), boundaries)
            why += "; rows whose outcome was not known when the next window began are left out"
    train, validation, test = (np.flatnonzero(window == number) for number in range(3))
    if members is not None and holdout and boundaries:
        kept_out = np.array([_draw(name, seed) for name in members.tolist()], dtype=np.float64) < holdout * 2.0**64
        train, validation, test = train[~kept_out[train]], validation[kept_out[validation]], test[kept_out[test]]
        why += f"; {holdout:.0%} of the groups are kept out of training and alone in validation and test"
    elif members is not None:
        why += "; each group in one window only"
    empty = [name for name, rows in (("train", train), ("validation", validation), ("test", test)) if not len(rows)]
    if empty:
        raise ValueError(f"no row falls into {' and '.join(empty)}: {len(names)} rows are too few, or too many share one moment")
    return Split(train, validation, test, "random" if not boundaries else "out-of-time", boundaries, why)


def _by_time(
    moments: NDArray[np.datetime64], members: NDArray[np.str_] | None, shares: tuple[float, float, float]
) -> tuple[Indices, tuple[np.datetime64, ...]]:
    """Return each row's window (-1: left out) and the first moments of the second and third."""
    starts, counts = np.unique(moments, return_counts=True)
    if len(starts) < 3:
        raise ValueError(f"{len(starts)} different moments: three windows by time need three or more")
    before = np.cumsum(counts)[:-1] / len(moments)  # the share of rows before each moment but the first
    aims = np.cumsum(shares)[:2]
    first, second = (int(np.argmin(np.abs(before - aim))) for aim in aims)
    if first == second:  # both aims fall on one crowded moment: move the boundary that loses less by it
        pairs = [pair for pair in ((first - 1, first), (first, first + 1)) if pair[0] >= 0 and pair[1] < len(before)]
        first, second = min(pairs, key=lambda pair: float(np.abs(before[list(pair)] - aims).sum()))
    found = (starts[first + 1], starts[second + 1])
    window = (moments >= found[0]).astype(np.int64) + (moments >= found[1])
    if members is not None:
        _, group = np.unique(members, return_inverse=True)
        earliest = np.full(group.max() + 1, 3)
        np.minimum.at(earliest, group, window)
        window = np.where(window == earliest[group], window, -1)
    return window, found


def _purged(window: Indices, known: NDArray[np.datetime64], boundaries: tuple[np.datetime64, ...]) -> Indices:
    """Leave out (-1) the rows whose label became known only after the next window had begun."""
    late = ((window == 0) & (known > boundaries[0])) | ((window == 1) & (known > boundaries[1]))
    return np.where(late, -1, window)


def _random(
    names: NDArray[np.str_], target: Indices, members: NDArray[np.str_] | None, shares: tuple[float, float, float], seed: int
) -> Indices:
    """Return each row's window."""
    units, unit = np.unique(names if members is None else members, return_inverse=True)
    stratum = np.zeros(len(units), dtype=np.int64)
    np.maximum.at(stratum, unit, target)
    drawn = np.array([_draw(name, seed) for name in units.tolist()], dtype=np.uint64)
    window = np.empty(len(units), dtype=np.int64)
    for label in (0, 1):
        rows = np.flatnonzero(stratum == label)
        rows = rows[np.argsort(drawn[rows], kind="stable")]
        window[rows] = np.searchsorted(np.cumsum(shares)[:2] * len(rows), np.arange(len(rows)) + 0.5)
    return window[unit]


def _draw(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest(), "big")
