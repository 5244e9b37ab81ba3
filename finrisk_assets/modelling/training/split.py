"""The split of rows into training, validation and test windows: frozen, and out of time wherever times are known.

Each window has one use: a model is fitted on `train`; candidates are compared and the champion is calibrated on `validation`, which is
later (calibration keeps the order, so a choice by AUC gains nothing from it); `test` is used once, for promotion.
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
    """Row numbers of three windows, and how they were chosen.

    Attributes
    ----------
    train, validation, test
        Row numbers, ascending, shape (n_window,). No row is in two windows; rows left out are in none.
    kind
        ``out-of-time``, or ``random`` where the rows have no time.
    boundaries
        First times of the validation and the test window (datetime64[us]); empty if random.
    reason
        A sentence for the model card: the kind of split and its reason.
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

    With times, every training row is earlier than every validation row, and every validation row earlier than every test row. Rows of the
    same time stay together, so the shares hold as nearly as ties allow. Without times, rows are drawn at random within each label, by a
    hash of their key and the seed: neither the order of the rows nor later rows move a row to another window, except near a boundary.

    Parameters
    ----------
    keys : sequence of str, shape (n,)
        Identifiers of the rows, each once.
    labels : array-like of bool or 0/1, shape (n,)
    times : array-like of datetime64, shape (n,), optional
        None, or NaT in every row, means that the source has no times.
    groups : sequence of str, shape (n,), optional
        The group of each row, such as a customer; a group is in one window only. Out of time it belongs to the window of its first row, and
        its later rows are left out; at random it is drawn as a whole.
    shares
        Shares of the windows, which add up to 1.
    holdout
        For a panel, in which every group has rows at all times: this share of the groups, drawn by a hash, is excluded from the
        training window and alone in the two later windows. A holdout above 0 replaces the rule for `groups`.
    known : array-like of datetime64, shape (n,), optional
        When each label became known. A row whose label was not yet known when the next window began is left out, so that no
        outcome is shared by two windows.
    seed
        Seed of the random draw.

    Raises
    ------
    ValueError
        For repeated keys, labels that are not 0/1, times of which only some are missing, or a window without rows.
    """
    key_names = np.asarray(keys).astype(str)
    target = np.asarray(labels, dtype=np.float64)
    if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares must be above 0 and add up to 1, not {shares}")
    if len(np.unique(key_names)) < len(key_names):
        raise ValueError(f"{len(key_names) - len(np.unique(key_names))} keys are there twice: each row needs its own")
    if target.shape != key_names.shape or not np.isin(target, (0, 1)).all():
        raise ValueError("labels must be 0 or 1, one per key; leave out rows whose outcome is not known")
    group_names = None if groups is None else np.asarray(groups).astype(str)
    row_times = None if times is None else np.asarray(times).astype("datetime64[us]")
    boundaries: tuple[np.datetime64, ...] = ()
    n_without_time = 0 if row_times is None else int(np.isnat(row_times).sum())
    if row_times is None or n_without_time == len(key_names):
        window = _split_at_random(key_names, target.astype(int), group_names, shares, seed)
        reason = f"random within each outcome (seed {seed}), because the rows have no time"
    elif n_without_time:
        raise ValueError(f"{n_without_time} of {len(key_names)} rows have no time: add their times, or leave them out, before the split")
    else:
        window, boundaries = _split_by_time(row_times, None if holdout else group_names, shares)
        reason = f"by time: validation from {boundaries[0]}, test from {boundaries[1]}"
        if known is not None:
            window = _drop_late_labels(window, np.asarray(known).astype("datetime64[us]"), boundaries)
            reason += "; rows whose outcome was not known when the next window began are left out"
    train, validation, test = (np.flatnonzero(window == number) for number in range(3))
    if group_names is not None and holdout and boundaries:
        is_held_out = np.array([_hash_number(name, seed) for name in group_names.tolist()], dtype=np.float64) < holdout * 2.0**64
        train, validation, test = train[~is_held_out[train]], validation[is_held_out[validation]], test[is_held_out[test]]
        reason += f"; {holdout:.0%} of the groups are kept out of training and alone in validation and test"
    elif group_names is not None:
        reason += "; each group in one window only"
    empty = [name for name, rows in (("train", train), ("validation", validation), ("test", test)) if not len(rows)]
    if empty:
        raise ValueError(f"no row falls into {' and '.join(empty)}: {len(key_names)} rows are too few, or too many share one time")
    return Split(train, validation, test, "random" if not boundaries else "out-of-time", boundaries, reason)


def _split_by_time(
    times: NDArray[np.datetime64], group_names: NDArray[np.str_] | None, shares: tuple[float, float, float]
) -> tuple[Indices, tuple[np.datetime64, ...]]:
    """Return each row's window (-1: left out) and the first times of the second and third window."""
    starts, counts = np.unique(times, return_counts=True)
    if len(starts) < 3:
        raise ValueError(f"{len(starts)} different times: three windows by time need three or more")
    share_before = np.cumsum(counts)[:-1] / len(times)  # share of the rows before each time but the first
    targets = np.cumsum(shares)[:2]
    first, second = (int(np.argmin(np.abs(share_before - target))) for target in targets)
    if first == second:  # both targets are nearest to the same time: move the boundary that loses less
        pairs = [pair for pair in ((first - 1, first), (first, first + 1)) if pair[0] >= 0 and pair[1] < len(share_before)]
        first, second = min(pairs, key=lambda pair: float(np.abs(share_before[list(pair)] - targets).sum()))
    boundaries = (starts[first + 1], starts[second + 1])
    window = (times >= boundaries[0]).astype(np.int64) + (times >= boundaries[1])
    if group_names is not None:
        _, group = np.unique(group_names, return_inverse=True)
        earliest = np.full(group.max() + 1, 3)
        np.minimum.at(earliest, group, window)
        window = np.where(window == earliest[group], window, -1)
    return window, boundaries


def _drop_late_labels(window: Indices, known: NDArray[np.datetime64], boundaries: tuple[np.datetime64, ...]) -> Indices:
    """Return the windows with -1 for rows whose label became known only after the next window had begun."""
    is_late = ((window == 0) & (known > boundaries[0])) | ((window == 1) & (known > boundaries[1]))
    return np.where(is_late, -1, window)


def _split_at_random(
    names: NDArray[np.str_], target: Indices, group_names: NDArray[np.str_] | None, shares: tuple[float, float, float], seed: int
) -> Indices:
    """Return each row's window, drawn within each label."""
    unit_names, unit = np.unique(names if group_names is None else group_names, return_inverse=True)
    stratum = np.zeros(len(unit_names), dtype=np.int64)
    np.maximum.at(stratum, unit, target)
    random_numbers = np.array([_hash_number(name, seed) for name in unit_names.tolist()], dtype=np.uint64)
    window = np.empty(len(unit_names), dtype=np.int64)
    for label in (0, 1):
        rows = np.flatnonzero(stratum == label)
        rows = rows[np.argsort(random_numbers[rows], kind="stable")]
        window[rows] = np.searchsorted(np.cumsum(shares)[:2] * len(rows), np.arange(len(rows)) + 0.5)
    return window[unit]


def _hash_number(name: str, seed: int) -> int:
    """Return a 64-bit number that depends on the name and the seed only."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest(), "big")
