"""The split of rows into training, validation and test windows: frozen, and out of time wherever times are known.

Each window has one use: a model is fitted on `train`; candidates are compared and the champion is calibrated on `validation`, which is
later (calibration keeps the order, so a choice by AUC gains nothing from it); `test` is used once, for promotion.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
        First times of the validation and the test window (datetime64[us]), of the validation window alone where the test set is stated;
        empty if random.
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
    is_test: ArrayLike | None = None,
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
    is_test : array-like of bool, shape (n,), optional
        Whether each row is of a test set that the source states. All of these rows are the test window, whatever their time or group, and
        the other rows are split into training and validation.
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
    known_times = None if known is None else np.asarray(known).astype("datetime64[us]")
    if is_test is None:
        drawn = _draw_windows(key_names, target, row_times, group_names, shares, holdout, known_times, seed)
        train, validation, test = drawn.windows
        reason = drawn.reason
    else:
        stated = np.asarray(is_test, dtype=bool)
        test, others = np.flatnonzero(stated), np.flatnonzero(~stated)
        if not len(test) or not len(others):
            raise ValueError(f"{len(test)} of {len(stated)} rows are of the stated test set: mend split or test_files of the mapping")
        rest = [None if column is None else column[others] for column in (row_times, group_names, known_times)]
        of_rest = (shares[0] / (shares[0] + shares[1]), shares[1] / (shares[0] + shares[1]))
        drawn = _draw_windows(key_names[others], target[others], rest[0], rest[1], of_rest, holdout, rest[2], seed)
        train, validation = (others[window] for window in drawn.windows)
        reason = f"the source states the test set: {len(test)} rows, of which nothing enters fitting, choosing or calibration"
        reason = f"{reason}; the others are split {drawn.reason}"
    empty = [name for name, rows in (("train", train), ("validation", validation), ("test", test)) if not len(rows)]
    if empty:
        raise ValueError(f"no row falls into {' and '.join(empty)}: {len(key_names)} rows are too few, or too many share one time")
    return Split(train, validation, test, "out-of-time" if drawn.boundaries else "random", drawn.boundaries, reason)


class _Drawn(NamedTuple):
    windows: tuple[Indices, ...]
    boundaries: tuple[np.datetime64, ...]
    reason: str


def _draw_windows(
    key_names: NDArray[np.str_],
    target: NDArray[np.float64],
    times: NDArray[np.datetime64] | None,
    group_names: NDArray[np.str_] | None,
    shares: tuple[float, ...],
    holdout: float,
    known: NDArray[np.datetime64] | None,
    seed: int,
) -> _Drawn:
    """Return as many windows as there are shares, the first of which is the training's."""
    boundaries: tuple[np.datetime64, ...] = ()
    n_without_time = 0 if times is None else int(np.isnat(times).sum())
    if times is None or n_without_time == len(key_names):
        window = _split_at_random(key_names, target.astype(int), group_names, shares, seed)
        reason = f"random within each outcome (seed {seed}), because the rows have no time"
    elif n_without_time:
        raise ValueError(f"{n_without_time} of {len(key_names)} rows have no time: add their times, or leave them out, before the split")
    else:
        window, boundaries = _split_by_time(times, None if holdout else group_names, shares)
        reason = "by time: " + ", ".join(f"{name} from {first}" for name, first in zip(("validation", "test"), boundaries, strict=False))
        if known is not None:
            window = _drop_late_labels(window, known, boundaries)
            reason += "; rows whose outcome was not known when the next window began are left out"
    windows = [np.flatnonzero(window == number) for number in range(len(shares))]
    if group_names is not None and holdout and boundaries:
        is_held_out = np.array([_hash_number(name, seed) for name in group_names.tolist()], dtype=np.float64) < holdout * 2.0**64
        windows = [rows[~is_held_out[rows] if number == 0 else is_held_out[rows]] for number, rows in enumerate(windows)]
        reason += f"; {holdout:.0%} of the groups are kept out of training and alone in validation and test"
    elif group_names is not None:
        reason += "; each group in one window only"
    return _Drawn(tuple(windows), boundaries, reason)


def _split_by_time(
    times: NDArray[np.datetime64], group_names: NDArray[np.str_] | None, shares: tuple[float, ...]
) -> tuple[Indices, tuple[np.datetime64, ...]]:
    """Return each row's window (-1: left out) and the first times of the windows after the first."""
    starts, counts = np.unique(times, return_counts=True)
    if len(starts) < len(shares):
        needed = ("two", "three")[len(shares) - 2]
        raise ValueError(f"{len(starts)} different times: {needed} windows by time need {needed} or more")
    share_before = np.cumsum(counts)[:-1] / len(times)  # share of the rows before each time but the first
    targets = np.cumsum(shares)[:-1]
    places = [int(np.argmin(np.abs(share_before - target))) for target in targets]
    if len(set(places)) < len(places):  # both targets are nearest to the same time: move the boundary that loses less
        first = places[0]
        pairs = [pair for pair in ([first - 1, first], [first, first + 1]) if pair[0] >= 0 and pair[1] < len(share_before)]
        places = min(pairs, key=lambda pair: float(np.abs(share_before[pair] - targets).sum()))
    boundaries = tuple(starts[place + 1] for place in places)
    window = np.searchsorted(np.array(boundaries), times, side="right").astype(np.int64)
    if group_names is not None:
        _, group = np.unique(group_names, return_inverse=True)
        earliest = np.full(group.max() + 1, 3)
        np.minimum.at(earliest, group, window)
        window = np.where(window == earliest[group], window, -1)
    return window, boundaries


def _drop_late_labels(window: Indices, known: NDArray[np.datetime64], boundaries: tuple[np.datetime64, ...]) -> Indices:
    """Return the windows with -1 for rows whose label became known only after the next window had begun."""
    is_late = np.zeros(len(window), bool)
    for number, first in enumerate(boundaries):
        is_late |= (window == number) & (known > first)
    return np.where(is_late, -1, window)


def _split_at_random(
    names: NDArray[np.str_], target: Indices, group_names: NDArray[np.str_] | None, shares: tuple[float, ...], seed: int
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
        window[rows] = np.searchsorted(np.cumsum(shares)[:-1] * len(rows), np.arange(len(rows)) + 0.5)
    return window[unit]


def _hash_number(name: str, seed: int) -> int:
    """Return a 64-bit number that depends on the name and the seed only."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest(), "big")
