"""Margins and SHAP values of a sum of trees, read from XGBoost's JSON and equal to XGBoost's own.

Only trees belong here; `bundle` combines them with other components. Imports numpy only: XGBoost's own call would take longer for a
single row.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_MAX_TABLE_NUMBERS = 1 << 22
"""Numbers in all tables (32 MiB); subtrees beyond are integrated row by row, which is slower."""
_PATTERN_BITS = 8
"""Conditions of a subtree, so that its pattern is one byte."""
_MAX_INTERVAL_BYTES = 1 << 24
"""Bytes of the patterns by interval; a row of a larger model is compared with every condition, which takes longer."""
_MIN_BLOCK_ROWS = 24
"""Rows from which looking them up together is faster than one after the other. At least 2: numpy adds a single column in another order."""
_BLOCK_ROWS = 256
"""Rows looked up together, about. More leave the processor's cache, fewer cost more calls of numpy for each row."""
_MIN_ROWS_OF_LARGE = 64
"""Rows looked up together where there are many conditions. More leave the processor's cache, fewer cost more calls of numpy."""
_MARGIN_CONDITIONS, _SHAP_CONDITIONS = 1 << 17, 1 << 19
"""Conditions of all rows of a block, without and with SHAP values, which take more calls for each block. As `_BLOCK_ROWS`."""
_MIN_MATRIX_ROWS = 1024
"""Rows from which SHAP values are faster subtree by subtree than feature by feature: the calls for each subtree are then shared by many."""
_MATRIX_ROWS = 8192
"""Rows worked on subtree by subtree, about. More take more memory, fewer share the calls for each subtree less."""
_CACHED_NUMBERS = 1 << 15
"""Numbers worked on at once, 128 to 256 KiB. More leave the processor's cache, fewer cost more calls of numpy."""
_NUMBERS_PER_STEP = 1 << 20
"""Numbers of a table computed per step; more take more memory."""
_MIN_SAMPLE_SHARE = 1e-12
"""Share of training samples, so that no factor is 0 where a branch had none."""

Floats: TypeAlias = NDArray[np.float64]
_Condition: TypeAlias = tuple[float, float, bool, float]
"""``low <= x < high``, whether a missing value passes, and the share of training samples that pass."""
_Path: TypeAlias = dict[int, _Condition]
"""Feature -> the condition that a path puts on it."""
_LeafPath: TypeAlias = tuple[int, _Path, float]
"""The tree of a leaf, the path to the leaf, and its value."""


class TreeShap:
    """Margins and SHAP values of a sum of trees.

    A margin is summed in float32, tree by tree, as in XGBoost: the bits are the same. The SHAP values are those of Lundberg, Erion &
    Lee (2018), "path dependent", without their recursion per row.

    Each leaf is a game of its own. A row meets a feature of the leaf's path or not (o is 1 or 0), and a share z of the training
    samples meets it. The feature's Shapley value is the integral over t from 0 to 1 of ``value * (o - z) * product over the other features
    of (z' + (o' - z') * t)``, by Owen's (1972) multilinear extension: a polynomial, which Gauss-Legendre integrates exactly with half
    as many points as the path has features.

    Trees are split into subtrees with at most eight conditions. The values that a subtree adds to each feature are tabulated for every
    pattern of conditions met, so that a row costs a look-up; the idea is that of Yang's (2021) Fast TreeSHAP, which tabulates a
    leaf. Leaves that do not fit the tables are integrated row by row.

    A row's values are the same bits alone and among others: for any number of rows, the values of subtrees are added to a feature in the
    order of the subtrees.

    Parameters
    ----------
    model
        Content of the model file.
    width
        Number of features of a row.

    Raises
    ------
    ValueError
        Where the model takes another number of features, or has an unknown objective.
    """

    def __init__(self, model: bytes, width: int) -> None:
        learner = json.loads(model)["learner"]
        n_features = int(learner["learner_model_param"]["num_feature"])
        if n_features != width:
            raise ValueError(f"its trees take {n_features} features, the bundle has {width}")
        room, subtrees, trees = _MAX_TABLE_NUMBERS, list[_Subtree](), learner["gradient_booster"]["model"]["trees"]
        paths: dict[int, list[_LeafPath]] = {}
        constants = np.zeros(len(trees), np.float32)
        for number, tree in enumerate(trees):
            for node, path in _split_into_subtrees(tree):
                subtree = _Subtree.from_tree(number, tree, node, path)
                if not subtree.features:
                    constants[number] = subtree.leaves[0].value  # a tree without a split uses no feature
                elif len(subtree.conditions) <= _PATTERN_BITS and subtree.n_numbers <= room:
                    room -= subtree.n_numbers
                    subtrees.append(subtree)
                else:
                    for leaf_path, value in _leaf_paths(tree, node, path):
                        paths.setdefault(len(leaf_path), []).append((number, leaf_path, value))
        self._width = width
        self._initial_values = np.concatenate([[_base_margin(learner)], constants])[:, None]
        tables = [_SubtreeTables(subtrees)] if subtrees else []
        self._n_conditions = sum(table.n_conditions for table in tables) or 1
        self._parts: list[_SubtreeTables | _LeafGroup] = [*tables]
        self._parts += [_LeafGroup(paths[length]) for length in sorted(paths)]

    def margin(self, rows: NDArray[np.float32]) -> Floats:
        """Return margins, float64 of shape (n,), of float32 rows of shape (n, width), NaN where missing."""
        return self._add_up(rows, None)

    def explain(self, rows: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Return margins and SHAP values in margin units, float64 of shapes (n,) and (n, width), of float32 rows, NaN where missing."""
        out = np.zeros((len(rows), self._width))
        return self._add_up(rows, out), out

    def _add_up(self, rows: NDArray[np.float32], out: Floats | None) -> Floats:
        """Return margins, and add SHAP values to `out`, block by block."""
        if len(rows) < _MIN_BLOCK_ROWS:
            # `accumulate` adds in order; `sum` would add a single column pairwise.
            return np.add.accumulate(self._tree_values(rows, out), axis=0)[-1].astype(np.float64)
        if out is not None and len(rows) >= _MIN_MATRIX_ROWS:
            block_rows = _MATRIX_ROWS
        else:
            block_conditions = _MARGIN_CONDITIONS if out is None else _SHAP_CONDITIONS
            block_rows = min(_BLOCK_ROWS, max(_MIN_ROWS_OF_LARGE, block_conditions // self._n_conditions))
        blocks = _split_rows(len(rows), block_rows)
        # A sum over the first axis of several columns adds tree by tree.
        return np.concatenate(
            [np.add.reduce(self._tree_values(rows[block], None if out is None else out[block])).astype(np.float64) for block in blocks]
        )

    def _tree_values(self, rows: NDArray[np.float32], out: Floats | None) -> NDArray[np.float32]:
        """Return the base margin and each tree's value for each row, shape (1 + trees, n), and add SHAP values to `out`."""
        values = np.repeat(self._initial_values, len(rows), axis=1)
        for part in self._parts:
            part.add(rows, values[1:], out)
        return values


@lru_cache(maxsize=12)
def read_trees(model: bytes, width: int) -> TreeShap:
    """Return the trees of a model file; models read lately are shared, because their tables take longer to build than a batch to score.

    Raises
    ------
    ValueError
        As `TreeShap` does.
    """
    return TreeShap(model, width)


def _base_margin(learner: Mapping[str, Any]) -> np.float32:
    """Return the margin without any tree, which XGBoost stores on the scale of its predictions.

    Raises
    ------
    ValueError
        For an objective whose scale is unknown.
    """
    stored, objective = np.float32(learner["learner_model_param"]["base_score"].strip("[]")), learner["objective"]["name"]
    match objective:
        case "binary:logistic":
            return _log_float32(np.float32(1) / stored - np.float32(1)) * np.float32(-1)
        case "reg:squarederror":
            return stored
        case "reg:gamma":
            return _log_float32(stored)
    raise ValueError(f"trees of the objective {objective} are unknown")


def _log_float32(x: np.float32) -> np.float32:
    # The C library rounds once; numpy's float32 logarithm is sometimes off by one bit.
    return np.float32(math.log(x))


# Subtrees with tables ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _SubtreeLeaf:
    """A leaf of a subtree: its value, and per feature of its path the share, the required bits, and the bits that matter."""

    value: float
    path: Mapping[int, tuple[float, int, int]]


@dataclass(frozen=True)
class _Subtree:
    """A subtree and the path to it: its conditions (feature, condition) on a row, and its leaves.

    Bit k of a pattern tells whether a row meets ``conditions[k]``.
    """

    tree: int
    conditions: Sequence[tuple[int, _Condition]]
    features: Sequence[int]
    leaves: Sequence[_SubtreeLeaf]

    @property
    def n_numbers(self) -> int:
        """The size of the subtree's table."""
        return len(self.features) << len(self.conditions)

    @classmethod
    def from_tree(cls, number: int, tree: Mapping[str, Any], node: int, path: _Path) -> "_Subtree":
        """Return the subtree of a tree at a node."""
        conditions = list(path.items())
        bits_of_feature = {feature: (condition[3], 1 << bit, 1 << bit) for bit, (feature, condition) in enumerate(conditions)}
        leaves, open_nodes = [], [(node, bits_of_feature)]
        while open_nodes:
            current, bits_of_feature = open_nodes.pop()
            if tree["left_children"][current] < 0:
                leaves.append(_SubtreeLeaf(tree["split_conditions"][current], bits_of_feature))
                continue
            feature, bit = tree["split_indices"][current], 1 << len(conditions)
            (left, left_condition), (right, right_condition) = _child_conditions(tree, current)
            conditions.append((feature, left_condition))
            share, required, relevant = bits_of_feature.get(feature, (1.0, 0, 0))
            open_nodes.append((left, bits_of_feature | {feature: (share * left_condition[3], required | bit, relevant | bit)}))
            open_nodes.append((right, bits_of_feature | {feature: (share * right_condition[3], required, relevant | bit)}))
        return cls(number, conditions, sorted({feature for leaf in leaves for feature in leaf.path}), leaves)

    def values(self) -> NDArray[np.float32]:
        """Return the value of the leaf that a row with each pattern reaches; 0 where it reaches no leaf of this subtree."""
        patterns, out = np.arange(1 << len(self.conditions)), np.zeros(1 << len(self.conditions), np.float32)
        for leaf in self.leaves:
            required, relevant = sum(part[1] for part in leaf.path.values()), sum(part[2] for part in leaf.path.values())
            out[(patterns & relevant) == required] = leaf.value
        return out


class _SubtreeTables:
    """Subtrees with their tables.

    ``_table`` holds one matrix (pattern, feature of the subtree) per subtree, in sequence; ``_values`` the value of each pattern.
    """

    def __init__(self, subtrees: Sequence[_Subtree]) -> None:
        self._subtrees = subtrees
        self._table_starts = np.cumsum([0, *(subtree.n_numbers for subtree in subtrees)])
        # Many subtrees share a condition: each distinct one is evaluated once for a row.
        places: dict[tuple[int, float, float, bool], int] = {(0, math.inf, math.inf, False): 0}  # pads to eight conditions, is never met
        conditions_of_subtree = [
            [places.setdefault((feature, *condition[:3]), len(places)) for feature, condition in subtree.conditions] for subtree in subtrees
        ]
        self._conditions = np.array([[*ids, *[0] * (_PATTERN_BITS - len(ids))] for ids in conditions_of_subtree], np.intp)
        features, low, high, missing = (np.array(column) for column in zip(*places, strict=True))
        self._condition_features, self._missing = features.astype(np.intp), missing[:, None]
        self._low, self._high = low.astype(np.float32)[:, None], high.astype(np.float32)[:, None]
        self.n_conditions = len(places)
        self._sizes = np.array([len(subtree.features) for subtree in subtrees], np.intp)
        self._features = np.concatenate([subtree.features for subtree in subtrees]).astype(np.intp)
        self._subtree_of_column = np.repeat(np.arange(len(subtrees)), self._sizes)
        place_in_subtree = np.arange(len(self._features)) - (np.cumsum(self._sizes) - self._sizes)[self._subtree_of_column]
        self._table_offsets = self._table_starts[self._subtree_of_column] + place_in_subtree  # offset of the pattern 0
        self._columns_of_feature = [(feature, np.flatnonzero(self._features == feature)) for feature in np.unique(self._features).tolist()]
        values = [subtree.values() for subtree in subtrees]
        self._values = np.concatenate(values)
        self._value_starts = np.cumsum([0, *map(len, values[:-1])])
        self._trees = np.array([subtree.tree for subtree in subtrees], np.intp)
        # The first subtree of every tree, the second of every tree that has two, and so on: within a group no tree appears twice.
        rank = np.array([number - subtree_before for number, subtree_before in enumerate(np.searchsorted(self._trees, self._trees))])
        self._subtrees_by_rank = [np.flatnonzero(rank == number) for number in range(int(rank.max()) + 1)]

    def add(self, rows: NDArray[np.float32], tree_values: NDArray[np.float32], out: Floats | None) -> None:
        """Add the trees' values of rows to `tree_values`, shape (trees, n), and SHAP values to `out`, if given."""
        if len(rows) < _MIN_BLOCK_ROWS:
            for place in range(len(rows)):
                self._add_row(rows[place], tree_values[:, place], None if out is None else out[place])
            return
        parts = _split_rows(len(rows), _BLOCK_ROWS)
        patterns = np.concatenate([self._add_block(rows[part], tree_values[:, part]) for part in parts], axis=1)
        if out is not None:
            (self._add_by_subtree if len(rows) >= _MIN_MATRIX_ROWS else self._add_by_feature)(patterns, out)

    def _meet_conditions(self, columns: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return which distinct conditions rows meet, 0 or 1 of shape (conditions, n), of rows as columns of shape (width, n)."""
        is_met = np.empty((len(self._low), columns.shape[1]), np.bool_)
        has_missing = np.isnan(columns).any()
        for part in _split_for_cache(*is_met.shape):
            x = columns.take(self._condition_features[part], axis=0)
            np.less(x, self._high[part], out=is_met[part])
            is_met[part] &= x >= self._low[part]
            if has_missing:
                is_met[part] |= np.isnan(x) & self._missing[part]
        return is_met.view(np.uint8)

    def _add_row(self, row: NDArray[np.float32], tree_values: NDArray[np.float32], out: Floats | None) -> None:
        patterns = self._find_patterns(row)
        # Only one subtree of a tree has the row's leaf, the others add 0: nothing is rounded.
        tree_values += np.bincount(self._trees, self._values.take(patterns + self._value_starts), minlength=len(tree_values)).astype(
            np.float32
        )
        if out is not None:
            places = (patterns * self._sizes).take(self._subtree_of_column) + self._table_offsets
            out += _sum_by_feature(self._features, self._table.take(places), len(row))

    def _find_patterns(self, row: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the pattern of each subtree, shape (subtrees,), of one row."""
        intervals, patterns = self._patterns_by_interval
        if patterns is None:
            return np.packbits(self._meet_conditions(row[:, None]).take(self._conditions), bitorder="little")
        # A condition concerns one feature, so the patterns of a row are the union of those of its features' intervals. This reads a
        # tenth of the bytes that all conditions take: a single decision finds little of them in the processor's cache.
        values, places = row.tolist(), []
        for feature, bounds, start in intervals:
            x = values[feature]
            places.append(start + (len(bounds) + 1 if math.isnan(x) else bisect_right(bounds, x)))
        return np.asarray(np.bitwise_or.reduce(patterns.take(places, axis=0), axis=0))

    @cached_property
    def _patterns_by_interval(self) -> tuple[list[tuple[int, list[float], int]], NDArray[np.uint8] | None]:
        """Each feature with the bounds of its conditions and the place of its first interval; the conditions met in each interval.

        The conditions are patterns of all subtrees, shape (intervals, subtrees). Behind the intervals of a feature comes the missing value.
        The patterns are None where they would take more than `_MAX_INTERVAL_BYTES`.
        """
        intervals, parts, start = list[tuple[int, list[float], int]](), [], 0
        limits = np.concatenate([self._low, self._high], axis=1)
        for feature in np.unique(self._condition_features).tolist():
            is_own = self._condition_features == feature
            bounds = np.unique(limits[is_own][np.isfinite(limits[is_own])])
            samples = np.concatenate([[-np.inf], bounds, [np.nan]]).astype(np.float32)  # an interval begins at its bound
            intervals.append((feature, bounds.tolist(), start))
            start += len(samples)
            if start * len(self._trees) > _MAX_INTERVAL_BYTES:
                return intervals, None
            rows = np.zeros((int(self._condition_features.max()) + 1, len(samples)), np.float32)
            rows[feature] = samples
            is_met = (self._meet_conditions(rows) & is_own[:, None]).T.take(self._conditions, axis=1)
            parts.append(np.packbits(is_met, bitorder="little").reshape(len(samples), -1))
        return intervals, np.concatenate(parts)

    def _add_block(self, rows: NDArray[np.float32], tree_values: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Add the trees' values of rows; return the pattern of each subtree and row."""
        is_met = self._meet_conditions(np.ascontiguousarray(rows.T))
        patterns, values = np.empty((len(self._trees), len(rows)), np.uint8), np.empty((len(self._trees), len(rows)), np.float32)
        for part in _split_for_cache(*patterns.shape):
            pattern = is_met.take(self._conditions[part, 0], axis=0)
            for bit in range(1, _PATTERN_BITS):
                pattern |= is_met.take(self._conditions[part, bit], axis=0) << bit
            patterns[part] = pattern
            self._values.take(pattern + self._value_starts[part, None], mode="clip", out=values[part])
        for subtrees in self._subtrees_by_rank:
            tree_values[self._trees[subtrees]] += values[subtrees]
        return patterns

    def _add_by_feature(self, patterns: NDArray[np.uint8], out: Floats) -> None:
        places = patterns * self._sizes[:, None]
        for feature, columns in self._columns_of_feature:
            index = places.take(self._subtree_of_column[columns], axis=0)
            index += self._table_offsets[columns, None]
            # A sum over the first axis adds row by row, in the order of the subtrees, as `_sum_by_feature` does for one row.
            out[:, feature] += np.add.reduce(self._table.take(index, mode="clip"), axis=0)

    def _add_by_subtree(self, patterns: NDArray[np.uint8], out: Floats) -> None:
        shap_values, buffer = np.zeros(out.shape[::-1]), np.empty(len(out))
        for subtree, start, pattern in zip(self._subtrees, self._table_starts[:-1].tolist(), patterns, strict=True):
            places = pattern.astype(np.intp)
            table = self._table[start : start + subtree.n_numbers].reshape(-1, len(subtree.features))
            for feature, values in zip(subtree.features, table.T.copy(), strict=True):
                shap_values[feature] += values.take(places, out=buffer, mode="clip")
        out += shap_values.T

    @cached_property
    def _table(self) -> Floats:
        """The Shapley values of the leaves, for every pattern of their subtree; computed when the first row is explained."""
        table = np.zeros(self._table_starts[-1])
        leaves_by_shape: dict[tuple[int, int], list[tuple[_SubtreeLeaf, int, _Subtree]]] = {}
        for subtree, start in zip(self._subtrees, self._table_starts[:-1].tolist(), strict=True):
            for leaf in subtree.leaves:
                leaves_by_shape.setdefault((len(leaf.path), len(subtree.conditions)), []).append((leaf, start, subtree))
        for (length, bits), leaves in sorted(leaves_by_shape.items()):
            step = max(1, _NUMBERS_PER_STEP // (length << bits))
            for first in range(0, len(leaves), step):
                _add_leaf_values(table, length, bits, leaves[first : first + step])
        return table


def _split_rows(n_rows: int, block_rows: int) -> Iterator[slice]:
    """Yield blocks of equal size, about that of `block_rows`: a short block costs as many calls as a long one."""
    n_blocks = max(1, round(n_rows / block_rows))
    return (slice(*pair) for pair in pairwise(n_rows * number // n_blocks for number in range(n_blocks + 1)))


def _split_for_cache(length: int, n_rows: int) -> Iterator[slice]:
    """Yield parts of an axis of this length, so that a part with all rows stays in the processor's cache."""
    step = max(1, _CACHED_NUMBERS // n_rows)
    return (slice(start, start + step) for start in range(0, length, step))


def _add_leaf_values(table: Floats, length: int, bits: int, leaves: Sequence[tuple[_SubtreeLeaf, int, _Subtree]]) -> None:
    """Add leaves with paths of one length, in subtrees with as many conditions, to the table."""
    path = np.array([list(leaf.path.values()) for leaf, _, _ in leaves])
    required, relevant = path[:, :, 1].astype(np.uint8), path[:, :, 2].astype(np.uint8)
    patterns = np.arange(1 << bits, dtype=np.uint8)
    met_features = np.zeros((len(leaves), 1 << bits), np.uint8)  # bits of the path's features that a pattern meets
    for position in range(length):
        met_features |= ((patterns & relevant[:, position, None]) == required[:, position, None]).view(np.uint8) << position
    shapley_values = _all_shapley_values(np.array([leaf.value for leaf, _, _ in leaves]), path[:, :, 0])
    start = np.array([start for _, start, _ in leaves])[:, None]
    n_subtree_features = np.array([len(subtree.features) for _, _, subtree in leaves])[:, None]
    feature_place = np.array([[subtree.features.index(feature) for feature in leaf.path] for leaf, _, subtree in leaves])
    row_start, game_index = start + np.arange(1 << bits) * n_subtree_features, met_features + (np.arange(len(leaves)) << length)[:, None]
    for position in range(length):
        np.add.at(table, row_start + feature_place[:, position, None], shapley_values[position].take(game_index))


def _all_shapley_values(values: Floats, shares: Floats) -> Floats:
    """Return Shapley values (length, leaves, pattern of features met) of leaves with values (leaves,) and shares (leaves, length)."""
    points, weights = _quadrature(shares.shape[1])
    share = np.maximum(shares, _MIN_SAMPLE_SHARE)
    out = np.zeros((shares.shape[1], len(values), 1 << shares.shape[1]))
    for point, weight in zip(points, weights, strict=True):
        unmet_factor, met_factor = share * (1 - point), share + (1 - share) * point
        products = (weight * values)[:, None]
        for position in range(shares.shape[1]):
            products = np.concatenate([products * unmet_factor[:, position, None], products * met_factor[:, position, None]], axis=1)
        for position, values_of_feature in enumerate(out):
            halves = products.reshape(len(values), -1, 2, 1 << position)  # feature not met, feature met
            ratios = np.stack([-share[:, position] / unmet_factor[:, position], (1 - share[:, position]) / met_factor[:, position]], axis=1)
            values_of_feature += (halves * ratios[:, None, :, None]).reshape(values_of_feature.shape)
    return out


def _quadrature(length: int) -> tuple[Floats, Floats]:
    """Return points and weights on 0 to 1 that integrate the games of paths with this many features exactly."""
    points, weights = np.polynomial.legendre.leggauss((length + 1) // 2)
    return (points + 1) / 2, weights / 2


# Leaves without tables ---------------------------------------------------------------------------------------------------------


class _LeafGroup:
    """The leaves whose paths have the same number of features, as arrays of shape (leaves, length)."""

    def __init__(self, paths: Sequence[_LeafPath]) -> None:
        bounds = np.array([[(feature, *condition) for feature, condition in path.items()] for _, path, _ in paths], np.float64)
        self._columns = bounds[:, :, 0].astype(np.intp)
        self._low, self._high = bounds[:, :, 1].astype(np.float32), bounds[:, :, 2].astype(np.float32)
        self._missing = bounds[:, :, 3] > 0
        self._trees, self._values = np.array([tree for tree, _, _ in paths], np.intp), np.array([value for *_, value in paths])
        self._game = _LeafGame(self._values, bounds[:, :, 4])

    def add(self, rows: NDArray[np.float32], tree_values: NDArray[np.float32], out: Floats | None) -> None:
        """Add the trees' values of rows to `tree_values`, shape (trees, n), and SHAP values to `out`, if given."""
        is_missing = np.isnan(rows)
        for place, row in enumerate(rows):
            x = row[self._columns]
            is_met = (x >= self._low) & (x < self._high)
            if is_missing[place].any():
                is_met |= is_missing[place][self._columns] & self._missing
            is_reached = is_met.all(axis=1)
            tree_values[self._trees[is_reached], place] = self._values[is_reached]  # a row reaches one leaf of a tree
            if out is None:
                continue
            out[place] += _sum_by_feature(self._columns.ravel(), self._game.values(is_met).ravel(), len(row))


class _LeafGame:
    """The games of leaves whose paths have the same number of features, from values (leaves,) and shares (leaves, length)."""

    def __init__(self, values: Floats, shares: Floats) -> None:
        self._points, weights = _quadrature(shares.shape[1])
        self._weights = values[:, None] * weights
        self._shares = np.maximum(shares, _MIN_SAMPLE_SHARE)

    def values(self, is_met: NDArray[np.bool_]) -> Floats:
        """Return Shapley values, shape (leaves, length), of a row that meets these features."""
        step: Floats = is_met.astype(np.float64) - self._shares
        factors = self._shares[:, :, None] + step[:, :, None] * self._points
        products = factors.prod(axis=1) * self._weights
        return step * (products[:, None, :] / factors).sum(axis=2)


def _sum_by_feature(features: NDArray[np.intp], values: Floats, width: int) -> Floats:
    """Return the sum of the values of each feature, added one by one in their order."""
    return np.asarray(np.bincount(features, values, minlength=width), np.float64)


# Trees -------------------------------------------------------------------------------------------------------------------------


def _child_conditions(tree: Mapping[str, Any], node: int) -> tuple[tuple[int, _Condition], tuple[int, _Condition]]:
    """Return both children of a node, with the condition of their branch on the split feature."""
    left, right, split = tree["left_children"][node], tree["right_children"][node], tree["split_conditions"][node]
    cover, missing_left = tree["sum_hessian"], bool(tree["default_left"][node])
    both = cover[left] + cover[right]
    share = cover[left] / both if both > 0 else 0.5
    return (left, (-math.inf, split, missing_left, share)), (right, (split, math.inf, not missing_left, 1 - share))


def _child_paths(tree: Mapping[str, Any], node: int, path: _Path) -> Iterator[tuple[int, _Path]]:
    """Yield both children of a node with the path's condition on each feature."""
    feature = tree["split_indices"][node]
    low, high, missing, share = path.get(feature, (-math.inf, math.inf, True, 1.0))
    for child, condition in _child_conditions(tree, node):
        yield child, path | {feature: (max(low, condition[0]), min(high, condition[1]), missing and condition[2], share * condition[3])}


def _leaf_paths(tree: Mapping[str, Any], node: int, path: _Path) -> Iterator[tuple[_Path, float]]:
    """Yield every leaf below a node: the path's condition on each feature, and the leaf's value."""
    if tree["left_children"][node] < 0:
        yield path, tree["split_conditions"][node]
        return
    for child, child_path in _child_paths(tree, node, path):
        yield from _leaf_paths(tree, child, child_path)


def _split_into_subtrees(tree: Mapping[str, Any]) -> Iterator[tuple[int, _Path]]:
    """Yield the roots of a tree's largest subtrees with at most `_PATTERN_BITS` conditions, with the path to each."""
    left, right = tree["left_children"], tree["right_children"]
    n_splits = [0] * len(left)  # at and below each node
    nodes = [0]
    for node in nodes:
        nodes += [left[node], right[node]] if left[node] >= 0 else []
    for node in reversed(nodes):
        n_splits[node] = 0 if left[node] < 0 else 1 + n_splits[left[node]] + n_splits[right[node]]
    open_nodes: list[tuple[int, _Path]] = [(0, {})]
    while open_nodes:
        node, path = open_nodes.pop()
        if left[node] < 0 or len(path) + n_splits[node] <= _PATTERN_BITS:
            yield node, path
        else:
            open_nodes += _child_paths(tree, node, path)
