"""What would have to differ: the nearest feasible change that turns one refused row into an approved one.

A counterfactual explanation (Wachter, Mittelstadt & Russell, *Harvard Journal of Law & Technology* 2018) kept to what a person can
do: actionable features in declared directions (Ustun, Spangher & Liu, *Actionable Recourse in Linear Classification*, FAT* 2019), few
of them, and values that approved applicants have. It says what the model would have decided, not what will happen to a person who
acts. Which features may change, and which follow from others, is each domain's own.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations, product
from typing import Literal, TypeAlias

import numpy as np

from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import Floats, Rows
from schemas.features import Feature

LARGEST = 3
QUANTILES = tuple(at / 20 for at in range(1, 20))
MOST_FEATURES = 12
"""Changes of several features are sought among so many: those that help most alone."""
MOST_SETS = 30
"""Values of several features are combined in so many sets of them: those that help most."""
BUDGET = 4_000
"""About so many combinations of values are scored for each number of features: with more features, fewer values of each."""

MOST_CHECKED = 20
"""So many combinations are scored as whole rows before a number of features is given up; the first nearly always holds."""

Row: TypeAlias = Mapping[str, float | None]
Consistent: TypeAlias = Callable[[Row, Mapping[str, float]], Row]
"""From a row and what changes in it to the row as it would be then, with all that follows from the changes."""


@dataclass(frozen=True)
class Allowed:
    """How a person can act on a feature.

    Attributes
    ----------
    direction
        1 where it can only grow, -1 where it can only fall, 0 where both. None takes the direction in which the feature lowers the
        risk, and both where that is not certain.
    low, high
        Bounds of the value after the change.
    step
        Values are whole multiples of it: 1 for months, 100 for amounts. None takes any value.
    """

    direction: Literal[-1, 0, 1] | None = None
    low: float = -np.inf
    high: float = np.inf
    step: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1, None) or not self.low <= self.high or (self.step is not None and self.step <= 0):
            raise ValueError(f"a direction is -1, 0, 1 or None, low is at most high, and a step is above 0: {self}")


@dataclass(frozen=True)
class Change:
    """One feature that would have to differ."""

    feature: str
    before: float
    after: float


@dataclass(frozen=True)
class Nearest:
    """The nearest feasible change of one row.

    Attributes
    ----------
    changes
        What would have to differ, in the order of the bundle's features; None where nothing feasible is enough.
    probability
        Of the changed row; where there is no change, of the row as it is.
    row
        The changed row with all that follows; the row as it is where there is no change.
    reason
        Why there is no change; empty where there is one.
    """

    changes: tuple[Change, ...] | None
    probability: float
    row: Row
    reason: str = ""


def quantiles(features: Sequence[Feature], approved: Rows, names: Collection[str]) -> dict[str, tuple[float, ...]]:
    """What `Search` needs to know of approved applicants, and nothing of any one of them: quantiles of the named features.

    Parameters
    ----------
    approved
        Applicants that a bundle approves, float32 of shape (n, d).

    Returns
    -------
    dict
        Feature -> 21 values, from the lowest over every twentieth to the highest; a feature that is known of nobody is left out.
    """
    found = {}
    for feature, column in zip(features, approved.T.astype(np.float64), strict=True):
        known = column[~np.isnan(column)]
        if feature.name in names and len(known):
            found[feature.name] = tuple(np.quantile(known, [0.0, *QUANTILES, 1.0]).tolist())
    return found


def approved_by(bundle: Bundle) -> Rows:
    """Rows whose quantiles are those that the bundle carries, float32 of shape (21, d): they stand for those approved, and are nobody."""
    rows = np.full((len(QUANTILES) + 2, len(bundle.features)), np.nan, np.float32)
    for at, feature in enumerate(bundle.features):
        if feature.name in bundle.approved:
            rows[:, at] = bundle.approved[feature.name]
    return rows


def alone(row: Row, changes: Mapping[str, float]) -> Row:
    """The row with the changes and nothing else: for features of which none follows from another."""
    return {**row, **changes}


@dataclass(frozen=True)
class Search:
    """A search among values that approved applicants have. Safe to share between threads.

    Attributes
    ----------
    bundle
        Decides: a row is approved where its probability is below `threshold`.
    allowed
        The features that a person can act on; all others are immutable.
    approved
        Applicants that the bundle approves, float32 of shape (n, d), n at least 1.
    threshold
        A probability of this or more is not approved.
    consistent
        Moves what follows from a change; `alone` where nothing does.
    largest
        Most features in one change.
    """

    bundle: Bundle
    allowed: Mapping[str, Allowed]
    approved: Rows = field(repr=False)
    threshold: float
    consistent: Consistent = alone
    largest: int = LARGEST

    def __post_init__(self) -> None:
        unknown = sorted(set(self.allowed) - set(self._place))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not a feature of {self.bundle.name} {self.bundle.version}")
        if self.approved.ndim != 2 or self.approved.shape[1] != len(self._place) or not len(self.approved):
            raise ValueError(f"approved applicants have the shape {self.approved.shape}; one row or more of {len(self._place)} features")

    @cached_property
    def _place(self) -> dict[str, int]:
        return {feature.name: at for at, feature in enumerate(self.bundle.features)}

    @cached_property
    def _values(self) -> dict[str, Floats]:
        """Candidate values of each feature: quantiles of those approved, in whole steps and within bounds, ascending."""
        found = {}
        for name, column in self._known():
            allowed = self.allowed[name]
            values = np.quantile(column, QUANTILES)
            if allowed.step is not None:
                values = np.round(values / allowed.step) * allowed.step
            found[name] = np.unique(values[(values >= allowed.low) & (values <= allowed.high)])
        return found

    @cached_property
    def _scales(self) -> dict[str, float]:
        """A robust unit of each feature: the distance of the quartiles, or of wider quantiles where half of all are equal."""
        found = {}
        for name, column in self._known():
            widths = (float(np.quantile(column, 1 - tail) - np.quantile(column, tail)) for tail in (0.25, 0.05, 0.0))
            found[name] = next((width for width in widths if width > 0), 1.0)
        return found

    def _known(self) -> list[tuple[str, Floats]]:
        """The values that approved applicants have, of each allowed feature in the bundle's order."""
        columns = [(name, self.approved[:, at].astype(np.float64)) for name, at in self._place.items() if name in self.allowed]
        return [(name, column[~np.isnan(column)]) for name, column in columns if not np.isnan(column).all()]

    def nearest(self, row: Row) -> Nearest:
        """Return the feasible change of fewest features, and of these the one of least distance, that gets a row approved.

        Distance is the sum over the changed features of ``|after - before| / quartile distance of those approved``. What is found has
        been scored by the bundle as a whole row, with all that follows from it. Changes of one feature are all tried. Of several, only
        sets are that suffice at the values which help most alone; values are thinned to `BUDGET` combinations, and the best of these
        is brought nearer one feature at a time. So a change of several features may have a somewhat nearer one.

        Parameters
        ----------
        row
            By name, None where missing: at least the features of the bundle, and what `consistent` reads.
        """
        start = self._scored([row])[0]
        if start < self.threshold:
            return Nearest(None, float(start), row, "the row is approved as it is")
        candidates = self._candidates(row)
        if not candidates:
            return Nearest(None, float(start), row, "no feature that may change can change in a direction that is open to it")
        one = _One(self, row, candidates)
        for size in range(1, min(self.largest, len(candidates)) + 1):
            found = one.nearest(size)
            if found is not None:
                return found
        few = min(self.largest, len(candidates))
        return Nearest(None, float(start), row, f"no change of {few} or fewer of the features that may change is enough")

    def _candidates(self, row: Row) -> dict[str, Floats]:
        """The values that each feature of the row may take, nearest first; a missing value stays missing."""
        found = {}
        for name, values in self._values.items():
            before, allowed = row.get(name), self.allowed[name]
            if before is None or np.isnan(before):
                continue
            direction = -self.bundle.features[self._place[name]].monotone if allowed.direction is None else allowed.direction
            keep = values != before if direction == 0 else direction * (values - before) > 0
            if keep.any():
                kept = values[keep]
                found[name] = kept[np.argsort(np.abs(kept - before), kind="stable")]
        return found

    def _array(self, row: Row) -> Rows:
        values = (row.get(name) for name in self._place)
        return np.array([np.nan if value is None else value for value in values], np.float32)

    def _scored(self, rows: Sequence[Row]) -> Floats:
        return self.bundle.probability(np.stack([self._array(row) for row in rows]))


class _One:
    """The search for one row: what each change moves is worked out once, and laid side by side wherever changes do not meet."""

    def __init__(self, search: Search, row: Row, candidates: Mapping[str, Floats]) -> None:
        self._search, self._row = search, row
        self._start = search._array(row)
        self._values = dict(candidates)
        self._before = {name: float(value) for name, value in row.items() if name in candidates and value is not None}
        self._distances = {name: np.abs(values - self._before[name]) / search._scales[name] for name, values in candidates.items()}
        self._grids: dict[tuple[tuple[str, ...], tuple[tuple[int, ...], ...]], Rows] = {}
        self._meeting: dict[tuple[str, str], bool] = {}
        self._moved = {name: frozenset(self._columns(self._grid((name,), (self._all(name),)))) for name in candidates}
        singles = [self._grid((name,), (self._all(name),)) for name in candidates]
        said = search.bundle.probability(np.concatenate(singles))
        parts = np.split(said, np.cumsum([len(grid) for grid in singles])[:-1])
        # Of values that help alike the farthest: what does nothing alone may do most together with another.
        self._best = {
            name: (len(part) - 1 - int(np.argmin(part[::-1])), float(part.min())) for name, part in zip(candidates, parts, strict=True)
        }

    def nearest(self, size: int) -> Nearest | None:
        """The nearest change of just so many features."""
        subsets = self._promising(size)
        if not subsets:
            return None
        each = max(2, int((BUDGET / len(subsets)) ** (1 / size)))
        grids = [(subset, tuple(self._thinned(name, each) for name in subset)) for subset in subsets]
        rows = np.concatenate([self._rows(subset, kept) for subset, kept in grids])
        distance = np.concatenate([self._distance(subset, kept) for subset, kept in grids])
        approved = np.flatnonzero(self._search.bundle.probability(rows) < self._search.threshold)
        first = np.cumsum([0, *(int(np.prod([len(k) for k in kept])) for _, kept in grids)])
        for at in approved[np.argsort(distance[approved], kind="stable")[:MOST_CHECKED]].tolist():
            which = int(np.searchsorted(first, at, side="right")) - 1
            subset, kept = grids[which]
            places = np.unravel_index(at - first[which], [len(k) for k in kept])
            found = self._checked(subset, self._nearer(subset, [k[int(place)] for k, place in zip(kept, places, strict=True)]))
            if found is not None:
                return found
        return None

    def _nearer(self, subset: tuple[str, ...], chosen: list[int]) -> list[int]:
        """The combination with each feature in turn brought as near as it can be, until none comes nearer."""
        before: list[int] = []
        while before != chosen and len(subset) > 1:
            before = list(chosen)
            for at in range(len(subset)):
                nearer = tuple(range(chosen[at] + 1))
                kept = tuple(nearer if other == at else (place,) for other, place in enumerate(chosen))
                enough = self._search.bundle.probability(self._rows(subset, kept)) < self._search.threshold
                if enough.any():
                    chosen[at] = int(np.argmax(enough))
        return chosen

    def _checked(self, subset: tuple[str, ...], chosen: Sequence[int]) -> Nearest | None:
        """The change scored as a whole row, if it holds: changes laid side by side may yet meet in a feature that follows from both."""
        values = {name: float(self._values[name][place]) for name, place in zip(subset, chosen, strict=True)}
        row = self._search.consistent(self._row, values)
        probability = float(self._search._scored([row])[0])
        if probability >= self._search.threshold:
            return None
        return Nearest(tuple(Change(name, self._before[name], value) for name, value in values.items()), probability, row)

    def _promising(self, size: int) -> list[tuple[str, ...]]:
        """Sets of so many features that are enough at the values that help most alone, in the bundle's order."""
        helpful = set(sorted(self._values, key=lambda name: self._best[name][1])[:MOST_FEATURES]) if size > 1 else set(self._values)
        subsets = list(combinations([name for name in self._values if name in helpful], size))
        if not subsets:
            return []
        rows = np.concatenate([self._rows(subset, tuple((self._best[name][0],) for name in subset)) for subset in subsets])
        probability = self._search.bundle.probability(rows)
        enough = np.flatnonzero(probability < self._search.threshold)
        if size > 1:
            enough = np.sort(enough[np.argsort(probability[enough], kind="stable")[:MOST_SETS]])
        return [subsets[at] for at in enough.tolist()]

    def _all(self, name: str) -> tuple[int, ...]:
        return tuple(range(len(self._values[name])))

    def _thinned(self, name: str, most: int) -> tuple[int, ...]:
        """So many of the candidate values, evenly, with the nearest and the farthest."""
        n = len(self._values[name])
        return tuple(np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(int)).tolist())

    def _distance(self, subset: tuple[str, ...], kept: tuple[tuple[int, ...], ...]) -> Floats:
        parts = np.meshgrid(*(self._distances[name][list(k)] for name, k in zip(subset, kept, strict=True)), indexing="ij")
        return np.sum([part.ravel() for part in parts], axis=0)

    def _rows(self, subset: tuple[str, ...], kept: tuple[tuple[int, ...], ...]) -> Rows:
        """A row for every combination of the kept values, the last feature's changing fastest."""
        shape = [len(k) for k in kept]
        places = np.indices(shape).reshape(len(shape), -1)
        rows = np.repeat(self._start[None], places.shape[1], axis=0)
        for cluster in self._clusters(subset):
            grid = self._grid(tuple(subset[at] for at in cluster), tuple(kept[at] for at in cluster))
            flat = np.ravel_multi_index([places[at] for at in cluster], [shape[at] for at in cluster])
            columns = self._columns(grid)
            rows[:, columns] = grid[flat][:, columns]
        return rows

    def _clusters(self, subset: tuple[str, ...]) -> list[list[int]]:
        """The features of a subset, together where their changes meet."""
        found: list[list[int]] = []
        for at, name in enumerate(subset):
            joined = [one for one in found if any(self._meet(subset[other], name) for other in one)]
            found = [one for one in found if one not in joined] + [[*(other for one in joined for other in one), at]]
        return [sorted(one) for one in found]

    def _meet(self, one: str, other: str) -> bool:
        """Whether two changes move a common feature, or together move what they do not move alone."""
        key = (one, other)
        if key not in self._meeting:
            last = (len(self._values[one]) - 1,), (len(self._values[other]) - 1,)
            both, apart = self._grid(key, last)[0], (self._grid((one,), last[:1])[0], self._grid((other,), last[1:])[0])
            side_by_side = self._start.copy()
            for name, row in zip(key, apart, strict=True):
                columns = list(self._moved[name])
                side_by_side[columns] = row[columns]
            common = bool(self._moved[one] & self._moved[other])
            self._meeting[key] = common or not np.array_equal(both, side_by_side, equal_nan=True)
        return self._meeting[key]

    def _grid(self, names: tuple[str, ...], kept: tuple[tuple[int, ...], ...]) -> Rows:
        """A consistent row for every combination, asked for once."""
        key = (names, kept)
        if key not in self._grids:
            values = [self._values[name][list(k)].tolist() for name, k in zip(names, kept, strict=True)]
            changed = (self._search.consistent(self._row, dict(zip(names, one, strict=True))) for one in product(*values))
            self._grids[key] = np.stack([self._search._array(row) for row in changed])
        return self._grids[key]

    def _columns(self, grid: Rows) -> list[int]:
        """Where any of these rows differs from the row as it is."""
        differs = (grid != self._start) & ~(np.isnan(grid) & np.isnan(self._start))
        columns: list[int] = np.flatnonzero(differs.any(axis=0)).tolist()
        return columns
