"""What a sum of trees says of a row, and what each feature did in it: margins and SHAP values from a model in XGBoost's JSON, the same
that XGBoost finds.

Only what trees say belongs here; `bundle` joins it with the other components. Imports numpy only: what answers one row at a time needs
no more, and XGBoost's own call would take longer than all of this.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_TABLE_NUMBERS = 1 << 22  # 32 MiB
_BITS = 8  # conditions of a piece: its pattern is one byte
_TOGETHER = 128  # rows from which on a walk over the pieces, all rows at once, costs less than a walk over the rows
_CHUNK = 4096  # rows whose columns stay in the processor's cache
_BUILT_AT_ONCE = 1 << 20  # numbers of a table
_SMALLEST_SHARE = 1e-12  # of training samples, so that no factor is 0 where a branch had none

Floats: TypeAlias = NDArray[np.float64]
_Side: TypeAlias = tuple[float, float, bool, float]  # low <= x < high, whether a missing value passes, share of samples that do
_Path: TypeAlias = dict[int, _Side]
_Long: TypeAlias = tuple[int, _Path, float]  # the tree of a leaf, the path to it, and its value


class TreeShap:
    """Margins and SHAP values of a sum of trees.

    A margin is added up in float32, tree by tree, as XGBoost does it: the same bits. The SHAP values are those of Lundberg, Erion &
    Lee (2018), "path dependent", without their recursion per row.

    Each leaf is a game of its own. A feature of its path is met by the row or not (o is 1 or 0), and a share z of the training
    samples meets it. Its Shapley value is the integral over t from 0 to 1 of ``value * (o - z) * product over the other features of
    (z' + (o' - z') * t)``, by Owen's (1972) multilinear extension: a polynomial, which Gauss-Legendre integrates exactly with half
    as many points as the path has features.

    Trees are cut into pieces of a few leaves that together ask eight questions at most. What a piece adds to each feature is prepared
    for every pattern of answers, so that a row costs a look-up; the idea is that of Yang's (2021) Fast TreeSHAP, which prepares a
    leaf. What tables have no room for is integrated row by row.

    A row's values are the same bits alone and among others: however many rows there are, what a piece adds to a feature is added in
    the order of the pieces.

    Parameters
    ----------
    model
        The model file's content.
    width
        Number of features of a row.

    Raises
    ------
    ValueError
        Where the model takes another number of features, or its objective is not known here.
    """

    def __init__(self, model: bytes, width: int) -> None:
        learner = json.loads(model)["learner"]
        taken = int(learner["learner_model_param"]["num_feature"])
        if taken != width:
            raise ValueError(f"its trees take {taken} features, the bundle has {width}")
        room, pieces, trees = _TABLE_NUMBERS, list[_Piece](), learner["gradient_booster"]["model"]["trees"]
        paths: dict[int, list[_Long]] = {}
        constant = np.zeros(len(trees), np.float32)
        for number, tree in enumerate(trees):
            for node, path in _cut(tree):
                piece = _Piece.of(number, tree, node, path)
                if not piece.features:
                    constant[number] = piece.leaves[0].value  # a tree without a split tells nothing of a feature
                elif len(piece.asked) <= _BITS and piece.numbers <= room:
                    room -= piece.numbers
                    pieces.append(piece)
                else:
                    for long, value in _leaves(tree, node, path):
                        paths.setdefault(len(long), []).append((number, long, value))
        self._width = width
        self._origin = _origin(learner)
        self._constant = constant
        self._parts: list[_Pieces | _Leaves] = [_Pieces(pieces)] if pieces else []
        self._parts += [_Leaves(paths[length]) for length in sorted(paths)]

    def margin(self, rows: NDArray[np.float32]) -> Floats:
        """Margins, float64 of shape (n,), of float32 rows of shape (n, width), NaN where missing."""
        return self._margin(self._looked(rows, None))

    def explain(self, rows: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Margins and SHAP values in margin units, float64 of shapes (n,) and (n, width), of float32 rows, NaN where missing."""
        out = np.zeros((len(rows), self._width))
        return self._margin(self._looked(rows, out)), out

    def _looked(self, rows: NDArray[np.float32], out: Floats | None) -> NDArray[np.float32]:
        """What each tree says of each row, shape (trees, n)."""
        said = np.repeat(self._constant[:, None], len(rows), axis=1)
        for part in self._parts:
            part.add(rows, said, out)
        return said

    def _margin(self, said: NDArray[np.float32]) -> Floats:
        # One after the other, as `sum` would not.
        return np.add.accumulate(np.concatenate([np.full((1, said.shape[1]), self._origin), said]), axis=0)[-1].astype(np.float64)


def _origin(learner: Mapping[str, Any]) -> np.float32:
    """The margin without any tree. XGBoost stores it on the scale of what the model predicts.

    Raises
    ------
    ValueError
        For an objective whose scale is not known here.
    """
    stored, objective = np.float32(learner["learner_model_param"]["base_score"].strip("[]")), learner["objective"]["name"]
    match objective:
        case "binary:logistic":
            return _log(np.float32(1) / stored - np.float32(1)) * np.float32(-1)
        case "reg:squarederror":
            return stored
        case "reg:gamma":
            return _log(stored)
    raise ValueError(f"trees of the objective {objective} are not known here")


def _log(x: np.float32) -> np.float32:
    # Rounded once, as the C library does it; numpy's own for float32 is sometimes off by one bit.
    return np.float32(math.log(x))


# Pieces of trees, prepared -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Leaf:
    """A leaf of a piece: its value, and per feature of its path (share, the answers it asks for, out of those it looks at)."""

    value: float
    path: Mapping[int, tuple[float, int, int]]


@dataclass(frozen=True)
class _Piece:
    """A subtree and the path to it: what it asks of a row (feature, side), and its leaves. Bit k of a pattern answers ``asked[k]``."""

    tree: int
    asked: Sequence[tuple[int, _Side]]
    features: Sequence[int]
    leaves: Sequence[_Leaf]

    @property
    def numbers(self) -> int:
        return len(self.features) << len(self.asked)

    @classmethod
    def of(cls, number: int, tree: Mapping[str, Any], node: int, path: _Path) -> "_Piece":
        asked = list(path.items())
        known = {feature: (side[3], 1 << bit, 1 << bit) for bit, (feature, side) in enumerate(asked)}
        leaves, open_nodes = [], [(node, known)]
        while open_nodes:
            at, known = open_nodes.pop()
            if tree["left_children"][at] < 0:
                leaves.append(_Leaf(tree["split_conditions"][at], known))
                continue
            feature, bit = tree["split_indices"][at], 1 << len(asked)
            (left, left_side), (right, right_side) = _children(tree, at)
            asked.append((feature, left_side))
            share, wanted, seen = known.get(feature, (1.0, 0, 0))
            open_nodes.append((left, known | {feature: (share * left_side[3], wanted | bit, seen | bit)}))
            open_nodes.append((right, known | {feature: (share * right_side[3], wanted, seen | bit)}))
        return cls(number, asked, sorted({feature for leaf in leaves for feature in leaf.path}), leaves)

    def values(self) -> NDArray[np.float32]:
        """The value of the leaf that a row with each pattern falls into; 0 where it falls into none of the piece."""
        patterns, out = np.arange(1 << len(self.asked)), np.zeros(1 << len(self.asked), np.float32)
        for leaf in self.leaves:
            wanted, seen = sum(part[1] for part in leaf.path.values()), sum(part[2] for part in leaf.path.values())
            out[(patterns & seen) == wanted] = leaf.value
        return out


class _Pieces:
    """The pieces with their tables: per piece a matrix (pattern, feature of the piece), one after the other in ``_table``, and the
    value of each pattern in ``_values``.
    """

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._pieces = pieces
        self._starts = np.cumsum([0, *(piece.numbers for piece in pieces)])
        nothing = (0, (math.inf, math.inf, False, 0.0))  # pads what a piece asks to eight, and is never met
        padded = [[*piece.asked, *[nothing] * (_BITS - len(piece.asked))] for piece in pieces]
        self._columns = np.array([[feature for feature, _ in asked] for asked in padded], np.intp)
        sides = np.array([[side for _, side in asked] for asked in padded], np.float64)
        self._low, self._high, self._missing = sides[:, :, 0].astype(np.float32), sides[:, :, 1].astype(np.float32), sides[:, :, 2] > 0
        self._sizes = np.array([len(piece.features) for piece in pieces], np.intp)
        self._features = np.concatenate([piece.features for piece in pieces]).astype(np.intp)
        self._pieces_of = np.repeat(np.arange(len(pieces)), self._sizes)
        within = np.arange(len(self._features)) - (np.cumsum(self._sizes) - self._sizes)[self._pieces_of]
        self._places = self._starts[self._pieces_of] + within  # in the table, of the pattern 0
        values = [piece.values() for piece in pieces]
        self._values = np.concatenate(values)
        self._value_starts = np.cumsum([0, *map(len, values[:-1])])
        self._trees = np.array([piece.tree for piece in pieces], np.intp)

    def add(self, rows: NDArray[np.float32], said: NDArray[np.float32], out: Floats | None) -> None:
        """Add what the trees say of rows to ``said``, shape (trees, n), and SHAP values to ``out``, if it is given."""
        if len(rows) < _TOGETHER:
            absent = np.isnan(rows)
            for at, row in enumerate(rows):
                self._add_one(row, absent[at], said[:, at], None if out is None else out[at])
            return
        for at in range(0, len(rows), _CHUNK):
            chunk = slice(at, at + _CHUNK)
            self._add_many(rows[chunk], said[:, chunk], None if out is None else out[chunk])

    def _add_one(self, row: NDArray[np.float32], absent: NDArray[np.bool_], said: NDArray[np.float32], out: Floats | None) -> None:
        x = row.take(self._columns)
        met = (x >= self._low) & (x < self._high)
        if absent.any():
            met |= absent.take(self._columns) & self._missing
        patterns = np.packbits(met.ravel(), bitorder="little")  # along an axis it takes twenty times as long
        # One piece of a tree has the row's leaf, the others say 0: nothing is rounded.
        said += np.bincount(self._trees, self._values.take(patterns + self._value_starts), minlength=len(said)).astype(np.float32)
        if out is not None:
            places = (patterns * self._sizes).take(self._pieces_of) + self._places
            out += _summed(self._features, self._table.take(places), len(row))

    def _add_many(self, rows: NDArray[np.float32], said: NDArray[np.float32], out: Floats | None) -> None:
        columns = np.ascontiguousarray(rows.T)
        absent = np.isnan(columns)
        gaps = np.asarray(absent.any(axis=1)).tolist()
        parts, found = np.zeros(columns.shape if out is not None else (0, 0)), np.empty(len(rows))
        for piece, start, first in zip(self._pieces, self._starts[:-1].tolist(), self._value_starts.tolist(), strict=True):
            pattern = np.zeros(len(rows), np.uint8)
            for bit, (feature, (low, high, missing, _)) in enumerate(piece.asked):
                x = columns[feature]
                met = x < high if low == -math.inf else x >= low
                if low != -math.inf and high != math.inf:
                    met &= x < high
                if missing and gaps[feature]:
                    met |= absent[feature]
                pattern |= met.view(np.uint8) << bit
            places = pattern.astype(np.intp)
            said[piece.tree] += self._values[first : first + (1 << len(piece.asked))].take(places)
            if out is None:
                continue
            table = self._table[start : start + piece.numbers].reshape(-1, len(piece.features))
            for feature, values in zip(piece.features, table.T.copy(), strict=True):
                parts[feature] += values.take(places, out=found, mode="clip")
        if out is not None:
            out += parts.T

    @cached_property
    def _table(self) -> Floats:
        """For every leaf and pattern of its piece, the Shapley values of the leaf. Made when the first row is explained."""
        table = np.zeros(self._starts[-1])
        alike: dict[tuple[int, int], list[tuple[_Leaf, int, _Piece]]] = {}
        for piece, start in zip(self._pieces, self._starts[:-1].tolist(), strict=True):
            for leaf in piece.leaves:
                alike.setdefault((len(leaf.path), len(piece.asked)), []).append((leaf, start, piece))
        for (length, bits), leaves in sorted(alike.items()):
            step = max(1, _BUILT_AT_ONCE // (length << bits))
            for at in range(0, len(leaves), step):
                _prepare_alike(table, length, bits, leaves[at : at + step])
        return table


def _prepare_alike(table: Floats, length: int, bits: int, leaves: Sequence[tuple[_Leaf, int, _Piece]]) -> None:
    """Add leaves of paths of one length, in pieces that ask as much, to the table."""
    path = np.array([list(leaf.path.values()) for leaf, _, _ in leaves])
    wanted, seen = path[:, :, 1].astype(np.uint8), path[:, :, 2].astype(np.uint8)
    asked = np.arange(1 << bits, dtype=np.uint8)
    met = np.zeros((len(leaves), 1 << bits), np.uint8)  # which features of its path a pattern of the piece meets
    for at in range(length):
        met |= ((asked & seen[:, at, None]) == wanted[:, at, None]).view(np.uint8) << at
    games = _every_game(np.array([leaf.value for leaf, _, _ in leaves]), path[:, :, 0])
    start = np.array([start for _, start, _ in leaves])[:, None]
    size = np.array([len(piece.features) for _, _, piece in leaves])[:, None]
    place = np.array([[piece.features.index(feature) for feature in leaf.path] for leaf, _, piece in leaves])
    first, known = start + np.arange(1 << bits) * size, met + (np.arange(len(leaves)) << length)[:, None]
    for at in range(length):
        np.add.at(table, first + place[:, at, None], games[at].take(known))


def _every_game(values: Floats, shares: Floats) -> Floats:
    """Shapley values (length, leaves, pattern of the features met) of leaves with these values (leaves,) and shares (leaves, length)."""
    points, weights = _quadrature(shares.shape[1])
    share = np.maximum(shares, _SMALLEST_SHARE)
    out = np.zeros((shares.shape[1], len(values), 1 << shares.shape[1]))
    for point, weight in zip(points, weights, strict=True):
        unmet, met = share * (1 - point), share + (1 - share) * point
        products = (weight * values)[:, None]
        for at in range(shares.shape[1]):
            products = np.concatenate([products * unmet[:, at, None], products * met[:, at, None]], axis=1)
        for at, part in enumerate(out):
            halves = products.reshape(len(values), -1, 2, 1 << at)  # where the feature is not met, and where it is
            ratios = np.stack([-share[:, at] / unmet[:, at], (1 - share[:, at]) / met[:, at]], axis=1)
            part += (halves * ratios[:, None, :, None]).reshape(part.shape)
    return out


def _quadrature(length: int) -> tuple[Floats, Floats]:
    """Points and weights on 0 to 1 that integrate the games of paths of so many features exactly."""
    points, weights = np.polynomial.legendre.leggauss((length + 1) // 2)
    return (points + 1) / 2, weights / 2


# Leaves, integrated ------------------------------------------------------------------------------------------------------------


class _Leaves:
    """The leaves with paths of the same number of features, as arrays of shape (leaves, length)."""

    def __init__(self, paths: Sequence[_Long]) -> None:
        sides = np.array([[(feature, *side) for feature, side in path.items()] for _, path, _ in paths], np.float64)
        self._columns = sides[:, :, 0].astype(np.intp)
        self._low, self._high = sides[:, :, 1].astype(np.float32), sides[:, :, 2].astype(np.float32)
        self._missing = sides[:, :, 3] > 0
        self._trees, self._values = np.array([tree for tree, _, _ in paths], np.intp), np.array([value for *_, value in paths])
        self._game = _Game(self._values, sides[:, :, 4])

    def add(self, rows: NDArray[np.float32], said: NDArray[np.float32], out: Floats | None) -> None:
        """Add what the trees say of rows to ``said``, shape (trees, n), and SHAP values to ``out``, if it is given."""
        absent = np.isnan(rows)
        for at, row in enumerate(rows):
            x = row[self._columns]
            met = (x >= self._low) & (x < self._high)
            if absent[at].any():
                met |= absent[at][self._columns] & self._missing
            reached = met.all(axis=1)
            said[self._trees[reached], at] = self._values[reached]  # a row falls into one leaf of a tree
            if out is None:
                continue
            out[at] += _summed(self._columns.ravel(), self._game.values(met).ravel(), len(row))


class _Game:
    """The games of leaves with paths of the same number of features: their values, shape (leaves,), and shares, (leaves, length)."""

    def __init__(self, values: Floats, shares: Floats) -> None:
        self._points, weights = _quadrature(shares.shape[1])
        self._weights = values[:, None] * weights
        self._shares = np.maximum(shares, _SMALLEST_SHARE)

    def values(self, met: NDArray[np.bool_]) -> Floats:
        """Shapley values, shape (leaves, length), where those features are met."""
        step: Floats = met.astype(np.float64) - self._shares
        factors = self._shares[:, :, None] + step[:, :, None] * self._points
        products = factors.prod(axis=1) * self._weights
        return step * (products[:, None, :] / factors).sum(axis=2)


def _summed(features: NDArray[np.intp], values: Floats, width: int) -> Floats:
    """The sum of the values of each feature, added one by one in their order."""
    return np.asarray(np.bincount(features, values, minlength=width), np.float64)


# Trees -------------------------------------------------------------------------------------------------------------------------


def _children(tree: Mapping[str, Any], node: int) -> tuple[tuple[int, _Side], tuple[int, _Side]]:
    """Both children of a node, with what their branch asks of the feature that is split."""
    left, right, at = tree["left_children"][node], tree["right_children"][node], tree["split_conditions"][node]
    cover, missing_left = tree["sum_hessian"], bool(tree["default_left"][node])
    both = cover[left] + cover[right]
    share = cover[left] / both if both > 0 else 0.5
    return (left, (-math.inf, at, missing_left, share)), (right, (at, math.inf, not missing_left, 1 - share))


def _below(tree: Mapping[str, Any], node: int, path: _Path) -> Iterator[tuple[int, _Path]]:
    """Both children of a node with what the whole path to them asks of each feature."""
    feature = tree["split_indices"][node]
    low, high, missing, share = path.get(feature, (-math.inf, math.inf, True, 1.0))
    for child, side in _children(tree, node):
        yield child, path | {feature: (max(low, side[0]), min(high, side[1]), missing and side[2], share * side[3])}


def _leaves(tree: Mapping[str, Any], node: int, path: _Path) -> Iterator[tuple[_Path, float]]:
    """Every leaf below a node: what its path asks of each feature, and its value."""
    if tree["left_children"][node] < 0:
        yield path, tree["split_conditions"][node]
        return
    for child, longer in _below(tree, node, path):
        yield from _leaves(tree, child, longer)


def _cut(tree: Mapping[str, Any]) -> Iterator[tuple[int, _Path]]:
    """The nodes at which a tree falls into pieces, with the path to each: the largest that ask `_BITS` questions at most."""
    left, right = tree["left_children"], tree["right_children"]
    splits = [0] * len(left)  # at and below each node
    order = [0]
    for node in order:
        order += [left[node], right[node]] if left[node] >= 0 else []
    for node in reversed(order):
        splits[node] = 0 if left[node] < 0 else 1 + splits[left[node]] + splits[right[node]]
    open_nodes: list[tuple[int, _Path]] = [(0, {})]
    while open_nodes:
        node, path = open_nodes.pop()
        if left[node] < 0 or len(path) + splits[node] <= _BITS:
            yield node, path
        else:
            open_nodes += _below(tree, node, path)
