"""Recourse: the nearest feasible change of a refused row that would get it approved.

A counterfactual explanation (Wachter, Mittelstadt & Russell, *Harvard Journal of Law & Technology* 2018) restricted to what a person can
do: actionable features in declared directions (Ustun, Spangher & Liu, *Actionable Recourse in Linear Classification*, FAT* 2019), few
of them, and values that approved applicants have. The result says what the model would have decided, not what will happen to a person
who acts. Each domain defines which features may change, and which follow from others.
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

MAX_CHANGES = 3
"""Features in one change, at most."""
QUANTILE_LEVELS = tuple(at / 20 for at in range(1, 20))
"""Levels of the quantiles that are candidate values: every twentieth."""
MAX_COMBINED_FEATURES = 12
"""Features whose combined changes are searched: those that help most alone. More cost more scored rows."""
MAX_FEATURE_SETS = 30
"""Sets of features whose values are combined: those that help most. More cost more scored rows."""
MAX_COMBINATIONS = 4_000
"""Combinations of values scored for each number of features, approximately; with more features, each has fewer values."""

MAX_CHECKED_ROWS = 20
"""Combinations scored as whole rows before a number of features is given up; the first nearly always holds."""

Row: TypeAlias = Mapping[str, float | None]
ApplyChanges: TypeAlias = Callable[[Row, Mapping[str, float]], Row]
"""Function of a row and its changes that returns the changed row, with all that follows from the changes."""


@dataclass(frozen=True)
class AllowedChange:
    """The change of a feature that a person can make.

    Attributes
    ----------
    direction
        1 if the feature can only grow, -1 if it can only fall, 0 for both. None takes the direction in which the feature lowers the
        risk, and both where the bundle declares none.
    low, high
        Bounds of the value after the change.
    step
        Values are whole multiples of the step: 1 for months, 100 for amounts. None allows any value.
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
    """The change of one feature."""

    feature: str
    before: float
    after: float


@dataclass(frozen=True)
class NearestChange:
    """The nearest feasible change of one row.

    Attributes
    ----------
    changes
        The changed features, in the order of the bundle's features; None where no feasible change is enough.
    probability
        Probability of the changed row; without a change, of the original row.
    row
        The changed row with all that follows; without a change, the original row.
    reason
        Why there is no change; empty where there is one.
    """

    changes: tuple[Change, ...] | None
    probability: float
    row: Row
    reason: str = ""


Shortfall: TypeAlias = Callable[[Rows, Floats], Floats]
"""Measures rows of shape (n, d) with their probabilities: below 0 where a row is approved, and lower where it comes nearer."""


def below_threshold(threshold: float) -> Shortfall:
    """Return the shortfall of a rule that approves the rows whose probability lies below a threshold."""
    return lambda rows, probability: probability - threshold


def approved_quantiles(features: Sequence[Feature], approved: Rows, names: Collection[str]) -> dict[str, tuple[float, ...]]:
    """Return the quantiles of approved applicants that `RecourseSearch` needs, which identify no applicant.

    Parameters
    ----------
    features, names
        The bundle's features, and the names of those to summarise.
    approved
        Applicants that a bundle approves, float32 of shape (n, d).

    Returns
    -------
    dict
        Feature -> 21 values, the lowest, every twentieth and the highest; a feature without any known value is left out.
    """
    quantiles = {}
    for feature, column in zip(features, approved.T.astype(np.float64), strict=True):
        values = column[~np.isnan(column)]
        if feature.name in names and len(values):
            quantiles[feature.name] = tuple(np.quantile(values, [0.0, *QUANTILE_LEVELS, 1.0]).tolist())
    return quantiles


def approved_quantile_rows(bundle: Bundle) -> Rows:
    """Return rows of the bundle's quantiles, float32 of shape (21, d); they stand for approved applicants, and none is a person."""
    rows = np.full((len(QUANTILE_LEVELS) + 2, len(bundle.features)), np.nan, np.float32)
    for place, feature in enumerate(bundle.features):
        if feature.name in bundle.approved:
            rows[:, place] = bundle.approved[feature.name]
    return rows


def replace_values(row: Row, changes: Mapping[str, float]) -> Row:
    """Return the row with the changes only: for features of which none follows from another."""
    return {**row, **changes}


@dataclass(frozen=True)
class RecourseSearch:
    """A search among values that approved applicants have. It is safe to share between threads.

    Attributes
    ----------
    bundle
        The bundle that gives the probabilities.
    allowed
        The features that a person can change; all others are immutable.
    approved
        Applicants that the bundle approves, float32 of shape (n, d), n at least 1.
    shortfall
        Measures how far rows of given probabilities are from being approved, as `below_threshold` does.
    apply_changes
        Applies changes and all that follows from them; `replace_values` where nothing follows.
    max_changes
        Largest number of features in one change.
    """

    bundle: Bundle
    allowed: Mapping[str, AllowedChange]
    approved: Rows = field(repr=False)
    shortfall: Shortfall
    apply_changes: ApplyChanges = replace_values
    max_changes: int = MAX_CHANGES

    def __post_init__(self) -> None:
        unknown = sorted(set(self.allowed) - set(self._places))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: not a feature of {self.bundle.name} {self.bundle.version}")
        if self.approved.ndim != 2 or self.approved.shape[1] != len(self._places) or not len(self.approved):
            raise ValueError(f"approved applicants have the shape {self.approved.shape}; one row or more of {len(self._places)} features")

    @cached_property
    def _places(self) -> dict[str, int]:
        return {feature.name: place for place, feature in enumerate(self.bundle.features)}

    @cached_property
    def _values(self) -> dict[str, Floats]:
        """The candidate values of each feature: quantiles of the approved, in whole steps and within bounds, ascending."""
        values_of = {}
        for name, column in self._approved_columns():
            allowed = self.allowed[name]
            candidates = np.quantile(column, QUANTILE_LEVELS)
            if allowed.step is not None:
                candidates = np.round(candidates / allowed.step) * allowed.step
            values_of[name] = np.unique(candidates[(candidates >= allowed.low) & (candidates <= allowed.high)])
        return values_of

    @cached_property
    def _scales(self) -> dict[str, float]:
        """A robust unit of each feature: the interquartile distance, or that of wider quantiles where half of all are equal."""
        scales = {}
        for name, column in self._approved_columns():
            widths = (float(np.quantile(column, 1 - tail) - np.quantile(column, tail)) for tail in (0.25, 0.05, 0.0))
            scales[name] = next((width for width in widths if width > 0), 1.0)
        return scales

    def _approved_columns(self) -> list[tuple[str, Floats]]:
        """Return the values that approved applicants have, of each allowed feature in the bundle's order."""
        columns = [(name, self.approved[:, place].astype(np.float64)) for name, place in self._places.items() if name in self.allowed]
        return [(name, column[~np.isnan(column)]) for name, column in columns if not np.isnan(column).all()]

    def find_nearest(self, row: Row) -> NearestChange:
        """Return the feasible change that approves a row with the fewest features, and among these with the least distance.

        Distance is the sum over the changed features of ``|after - before| / interquartile distance of the approved``. Every result has
        been scored by the bundle as a whole row, with all that follows from the change. Changes of one feature are all tried. Of several
        features, only the sets that suffice at the values which help most alone are tried; values are thinned to `MAX_COMBINATIONS`, and
        the best combination is brought nearer one feature at a time. A change of several features may therefore miss a slightly nearer one.

        Parameters
        ----------
        row
            Values by name, None where missing: at least the features of the bundle, and the inputs of `apply_changes`.
        """
        probability, missing = self._measure(self._to_array(row)[None, :])
        if missing[0] < 0:
            return NearestChange(None, float(probability[0]), row, "the row is approved as it is")
        candidates = self._candidates(row)
        if not candidates:
            return NearestChange(
                None, float(probability[0]), row, "no feature that may change can change in a direction that is open to it"
            )
        row_search = _RowSearch(self, row, candidates)
        for size in range(1, min(self.max_changes, len(candidates)) + 1):
            nearest = row_search.find_nearest(size)
            if nearest is not None:
                return nearest
        max_changes = min(self.max_changes, len(candidates))
        return NearestChange(
            None, float(probability[0]), row, f"no change of {max_changes} or fewer of the features that may change is enough"
        )

    def _candidates(self, row: Row) -> dict[str, Floats]:
        """Return the values that each feature of the row may take, nearest first; a missing value stays missing."""
        candidates = {}
        for name, values in self._values.items():
            before, allowed = row.get(name), self.allowed[name]
            if before is None or np.isnan(before):
                continue
            direction = -self.bundle.features[self._places[name]].monotone if allowed.direction is None else allowed.direction
            is_allowed = values != before if direction == 0 else direction * (values - before) > 0
            if is_allowed.any():
                allowed_values = values[is_allowed]
                candidates[name] = allowed_values[np.argsort(np.abs(allowed_values - before), kind="stable")]
        return candidates

    def _to_array(self, row: Row) -> Rows:
        return self.bundle.row({name: row.get(name) for name in self._places})

    def _measure(self, rows: Rows) -> tuple[Floats, Floats]:
        """Return the probability of each row, and how far it is from being approved."""
        probability = self.bundle.probability(rows)
        return probability, self.shortfall(rows, probability)


class _RowSearch:
    """The search for one row; the effect of each change is computed once and combined where changes do not interact."""

    def __init__(self, search: RecourseSearch, row: Row, candidates: Mapping[str, Floats]) -> None:
        self._search, self._row = search, row
        self._row_values = search._to_array(row)
        self._values = dict(candidates)
        self._current = {name: float(value) for name, value in row.items() if name in candidates and value is not None}
        self._distances = {name: np.abs(values - self._current[name]) / search._scales[name] for name, values in candidates.items()}
        self._grids: dict[tuple[tuple[str, ...], tuple[tuple[int, ...], ...]], Rows] = {}
        self._interactions: dict[tuple[str, str], bool] = {}
        self._moved_columns = {
            name: frozenset(self._changed_columns(self._grid((name,), (self._all_places(name),)))) for name in candidates
        }
        singles = [self._grid((name,), (self._all_places(name),)) for name in candidates]
        missing = search._measure(np.concatenate(singles))[1]
        parts = np.split(missing, np.cumsum([len(grid) for grid in singles])[:-1])
        # Among equally helpful values, the farthest: a value without effect alone may help most in combination.
        self._best_values = {
            name: (len(part) - 1 - int(np.argmin(part[::-1])), float(part.min())) for name, part in zip(candidates, parts, strict=True)
        }

    def find_nearest(self, size: int) -> NearestChange | None:
        """Return the nearest change of exactly this many features."""
        subsets = self._find_promising_sets(size)
        if not subsets:
            return None
        n_values = max(2, int((MAX_COMBINATIONS / len(subsets)) ** (1 / size)))
        grids = [(subset, tuple(self._thin_values(name, n_values) for name in subset)) for subset in subsets]
        rows = np.concatenate([self._combine(subset, choices) for subset, choices in grids])
        distance = np.concatenate([self._distance(subset, choices) for subset, choices in grids])
        approved = np.flatnonzero(self._search._measure(rows)[1] < 0)
        first_rows = np.cumsum([0, *(int(np.prod([len(options) for options in choices])) for _, choices in grids)])
        for combination in approved[np.argsort(distance[approved], kind="stable")[:MAX_CHECKED_ROWS]].tolist():
            grid = int(np.searchsorted(first_rows, combination, side="right")) - 1
            subset, choices = grids[grid]
            places = np.unravel_index(combination - first_rows[grid], [len(options) for options in choices])
            chosen = [options[int(place)] for options, place in zip(choices, places, strict=True)]
            nearest = self._verify(subset, self._move_nearer(subset, chosen))
            if nearest is not None:
                return nearest
        return None

    def _move_nearer(self, subset: tuple[str, ...], chosen: list[int]) -> list[int]:
        """Return the combination with each feature in turn moved as near as possible, until none moves."""
        previous: list[int] = []
        while previous != chosen and len(subset) > 1:
            previous = list(chosen)
            for place in range(len(subset)):
                nearer_places = tuple(range(chosen[place] + 1))
                choices = tuple(nearer_places if other == place else (chosen_place,) for other, chosen_place in enumerate(chosen))
                is_approved = self._search._measure(self._combine(subset, choices))[1] < 0
                if is_approved.any():
                    chosen[place] = int(np.argmax(is_approved))
        return chosen

    def _verify(self, subset: tuple[str, ...], chosen: Sequence[int]) -> NearestChange | None:
        """Return the change scored as a whole row, or None if changes interact in a feature that follows from both and it fails."""
        values = {name: float(self._values[name][place]) for name, place in zip(subset, chosen, strict=True)}
        row = self._search.apply_changes(self._row, values)
        probability, missing = self._search._measure(self._search._to_array(row)[None, :])
        if missing[0] >= 0:
            return None
        return NearestChange(tuple(Change(name, self._current[name], value) for name, value in values.items()), float(probability[0]), row)

    def _find_promising_sets(self, size: int) -> list[tuple[str, ...]]:
        """Return sets of this many features that suffice at the values that help most alone, in the bundle's order."""
        helpful = (
            set(sorted(self._values, key=lambda name: self._best_values[name][1])[:MAX_COMBINED_FEATURES])
            if size > 1
            else set(self._values)
        )
        subsets = list(combinations([name for name in self._values if name in helpful], size))
        if not subsets:
            return []
        rows = np.concatenate([self._combine(subset, tuple((self._best_values[name][0],) for name in subset)) for subset in subsets])
        missing = self._search._measure(rows)[1]
        sufficient = np.flatnonzero(missing < 0)
        if size > 1:
            sufficient = np.sort(sufficient[np.argsort(missing[sufficient], kind="stable")[:MAX_FEATURE_SETS]])
        return [subsets[place] for place in sufficient.tolist()]

    def _all_places(self, name: str) -> tuple[int, ...]:
        return tuple(range(len(self._values[name])))

    def _thin_values(self, name: str, max_values: int) -> tuple[int, ...]:
        """Return this many of the candidate values, evenly, with the nearest and the farthest."""
        n = len(self._values[name])
        return tuple(np.unique(np.linspace(0, n - 1, min(max_values, n)).round().astype(int)).tolist())

    def _distance(self, subset: tuple[str, ...], choices: tuple[tuple[int, ...], ...]) -> Floats:
        parts = np.meshgrid(*(self._distances[name][list(places)] for name, places in zip(subset, choices, strict=True)), indexing="ij")
        return np.sum([part.ravel() for part in parts], axis=0)

    def _combine(self, subset: tuple[str, ...], choices: tuple[tuple[int, ...], ...]) -> Rows:
        """Return a row for every combination of the chosen values, the last feature's changing fastest."""
        shape = [len(options) for options in choices]
        places = np.indices(shape).reshape(len(shape), -1)
        rows = np.repeat(self._row_values[None], places.shape[1], axis=0)
        for cluster in self._group_interacting(subset):
            grid = self._grid(tuple(subset[member] for member in cluster), tuple(choices[member] for member in cluster))
            grid_rows = np.ravel_multi_index([places[member] for member in cluster], [shape[member] for member in cluster])
            columns = self._changed_columns(grid)
            rows[:, columns] = grid[grid_rows][:, columns]
        return rows

    def _group_interacting(self, subset: tuple[str, ...]) -> list[list[int]]:
        """Return the features of a set in groups whose changes interact."""
        groups: list[list[int]] = []
        for place, name in enumerate(subset):
            interacting = [group for group in groups if any(self._interact(subset[other], name) for other in group)]
            groups = [group for group in groups if group not in interacting] + [
                [*(other for group in interacting for other in group), place]
            ]
        return [sorted(group) for group in groups]

    def _interact(self, first: str, second: str) -> bool:
        """Return whether two changes move a common feature, or together move a feature that neither moves alone."""
        key = (first, second)
        if key not in self._interactions:
            last_places = (len(self._values[first]) - 1,), (len(self._values[second]) - 1,)
            both = self._grid(key, last_places)[0]
            separate = self._grid((first,), last_places[:1])[0], self._grid((second,), last_places[1:])[0]
            side_by_side = self._row_values.copy()
            for name, row in zip(key, separate, strict=True):
                columns = list(self._moved_columns[name])
                side_by_side[columns] = row[columns]
            share_feature = bool(self._moved_columns[first] & self._moved_columns[second])
            self._interactions[key] = share_feature or not np.array_equal(both, side_by_side, equal_nan=True)
        return self._interactions[key]

    def _grid(self, names: tuple[str, ...], choices: tuple[tuple[int, ...], ...]) -> Rows:
        """Return a consistent row for every combination, computed once."""
        key = (names, choices)
        if key not in self._grids:
            values = [self._values[name][list(places)].tolist() for name, places in zip(names, choices, strict=True)]
            changed_rows = (
                self._search.apply_changes(self._row, dict(zip(names, combination, strict=True))) for combination in product(*values)
            )
            self._grids[key] = np.stack([self._search._to_array(row) for row in changed_rows])
        return self._grids[key]

    def _changed_columns(self, grid: Rows) -> list[int]:
        """Return the columns in which any of these rows differs from the original row."""
        differs = (grid != self._row_values) & ~(np.isnan(grid) & np.isnan(self._row_values))
        columns: list[int] = np.flatnonzero(differs.any(axis=0)).tolist()
        return columns
