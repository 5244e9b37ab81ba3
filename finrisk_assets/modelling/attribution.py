"""What each feature did in a sum of trees: SHAP values from a model in XGBoost's JSON, the same that XGBoost finds.

Only the attribution of trees belongs here; `bundle` joins it with the margins and with the other components. Imports numpy only.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_TABLE_NUMBERS = 1 << 22  # 32 MiB
_SMALLEST_SHARE = 1e-12  # of training samples, so that no factor is 0 where a branch had none

_Side: TypeAlias = tuple[float, float, bool, float]  # low <= x < high, whether a missing value passes, share of samples that do
_Path: TypeAlias = dict[int, _Side]


class Attribution:
    """SHAP values of a sum of trees: those of Lundberg, Erion & Lee (2018), "path dependent", without their recursion per row.

    Each leaf is a game of its own. A feature of its path is met by the row or not (o is 1 or 0), and a share z of the training
    samples meets it. Its Shapley value is the integral over t from 0 to 1 of ``value * (o - z) * product over the other features of
    (z' + (o' - z') * t)``, by Owen's (1972) multilinear extension: a polynomial, which Gauss-Legendre integrates exactly with half
    as many points as the path has features. Where a path is short, the values for every pattern of o are prepared.

    Parameters
    ----------
    model
        The model file's content.
    width
        Number of features of a row.
    """

    def __init__(self, model: bytes, width: int) -> None:
        paths: dict[int, list[tuple[_Path, float]]] = {}
        for tree in json.loads(model)["learner"]["gradient_booster"]["model"]["trees"]:
            for path, value in _leaves(tree):
                paths.setdefault(len(path), []).append((path, value))
        paths.pop(0, None)  # a tree without a split tells nothing of a feature
        self._width = width
        self._groups: list[_Leaves] = []
        room = _TABLE_NUMBERS
        for length in sorted(paths):
            room -= len(paths[length]) * length << length
            self._groups.append(_Leaves(paths[length], prepare=room >= 0))

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Values in margin units, float64, shape (n, width), of float32 rows of that shape, NaN where missing."""
        out = np.zeros((len(rows), self._width))
        absent = np.isnan(rows)
        for at, row in enumerate(rows):
            for group in self._groups:
                out[at] += np.bincount(group.features, group.values(row, absent[at]), minlength=self._width)
        return out


class _Leaves:
    """The leaves with paths of the same number of features, as arrays of shape (leaves, length)."""

    def __init__(self, paths: Sequence[tuple[_Path, float]], prepare: bool) -> None:
        length = len(paths[0][0])
        sides = np.array([[(feature, *side) for feature, side in path.items()] for path, _ in paths], np.float64)
        self._columns = sides[:, :, 0].astype(np.intp)
        self.features = self._columns.ravel()
        self._low, self._high = sides[:, :, 1].astype(np.float32), sides[:, :, 2].astype(np.float32)
        self._missing, self._share = sides[:, :, 3] > 0, np.maximum(sides[:, :, 4], _SMALLEST_SHARE)
        points, weights = np.polynomial.legendre.leggauss((length + 1) // 2)
        self._points = (points + 1) / 2
        self._weights = np.array([value for _, value in paths])[:, None] * weights / 2
        self._bits, self._numbers = 1 << np.arange(length), np.arange(len(paths))
        self._table: NDArray[np.float64] | None = None
        if prepare:
            patterns = (np.arange(1 << length)[:, None] & self._bits) > 0
            self._table = np.stack([self._shapley(pattern) for pattern in patterns], axis=1)

    def values(self, row: NDArray[np.float32], absent: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Shapley values of one row, flat, in the order of ``features``."""
        x = row[self._columns]
        met = (x >= self._low) & (x < self._high)
        if absent.any():
            met |= absent[self._columns] & self._missing
        if self._table is None:
            return self._shapley(met).ravel()
        return self._table[self._numbers, met @ self._bits].ravel()

    def _shapley(self, met: NDArray[np.bool_]) -> NDArray[np.float64]:
        step: NDArray[np.float64] = met.astype(np.float64) - self._share
        factors = self._share[:, :, None] + step[:, :, None] * self._points
        products = factors.prod(axis=1) * self._weights
        return step * (products[:, None, :] / factors).sum(axis=2)


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[_Path, float]]:
    """Every leaf of a tree in XGBoost's JSON: what its path asks of each feature, and its value."""
    left, right, split, cover = tree["left_children"], tree["right_children"], tree["split_conditions"], tree["sum_hessian"]
    open_nodes: list[tuple[int, _Path]] = [(0, {})]
    while open_nodes:
        node, path = open_nodes.pop()
        if left[node] < 0:
            yield path, split[node]
            continue
        feature, at, missing_left = tree["split_indices"][node], split[node], bool(tree["default_left"][node])
        low, high, missing, share = path.get(feature, (-math.inf, math.inf, True, 1.0))
        both = cover[left[node]] + cover[right[node]]
        goes_left = cover[left[node]] / both if both > 0 else 0.5
        open_nodes.append((left[node], path | {feature: (low, min(high, at), missing and missing_left, share * goes_left)}))
        open_nodes.append((right[node], path | {feature: (max(low, at), high, missing and not missing_left, share * (1 - goes_left))}))
