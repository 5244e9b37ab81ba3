"""Decision trees in XGBoost's JSON format.

A `Tree` is a plain table of nodes; `to_xgboost` writes an ensemble of them. `convert` builds the trees.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST_FLOAT32 = np.finfo(np.float32).max
FLOAT32_SUM_TOLERANCE = 1e-5
"""Largest rounding error of a sum of hundreds of trees in float32."""
_ROOT_PARENT = 2**31 - 1


@dataclass(frozen=True)
class Tree:
    """One binary tree as arrays over its nodes, root first; ``left`` and ``right`` are -1 at a leaf.

    A row goes left where ``x[feature] <= threshold``, and where ``x[feature]`` is missing and ``missing_left`` is set. ``value``
    matters at leaves only; ``cover`` is the weight of the training samples that reached the node.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    cover: NDArray[np.float64]


def to_xgboost(trees: Sequence[Tree], n_features: int, base: float = 0.0) -> bytes:
    """Return the sum of the trees and a base as an XGBoost model in JSON, link identity.

    The same trees give the same bytes in one version of XGBoost, which also loads them as a check.
    """
    import xgboost

    document = {
        "learner": {
            "attributes": {},
            "feature_names": [],
            "feature_types": [],
            "gradient_booster": {
                "model": {
                    "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
                    "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
                    "iteration_indptr": list(range(len(trees) + 1)),
                    "tree_info": [0] * len(trees),
                    "trees": [_tree_document(at, tree, n_features) for at, tree in enumerate(trees)],
                },
                "name": "gbtree",
            },
            "learner_model_param": {
                "base_score": f"[{float(np.float32(base))!r}]",
                "boost_from_average": "1",
                "num_class": "0",
                "num_feature": str(n_features),
                "num_target": "1",
            },
            "objective": {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}},
        },
        "version": [int(part) for part in xgboost.__version__.split(".")[:3]],
    }
    booster = xgboost.Booster()
    booster.load_model(bytearray(json.dumps(document, allow_nan=False).encode()))
    return bytes(booster.save_raw("json"))


def float32_threshold(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the float32 t for which ``x < t`` is ``x <= threshold``, for every finite float32 x.

    A threshold beyond the largest float32 becomes the largest, which is wrong only for that x, and a bundle refuses it.
    """
    below = np.clip(threshold, -LARGEST_FLOAT32, LARGEST_FLOAT32).astype(np.float32)
    with np.errstate(over="ignore"):  # infinity beyond the largest; the last line clips it
        below = np.where(below > threshold, np.nextafter(below, np.float32(-np.inf)), below)
        above = np.nextafter(below, np.float32(np.inf))
    return np.minimum(above, LARGEST_FLOAT32)


def _tree_document(number: int, tree: Tree, n_features: int) -> dict[str, Any]:
    """Return one tree in XGBoost's JSON, nodes breadth first."""
    nodes, parents = [0], [_ROOT_PARENT]
    left, right = [], []
    position = 0
    while position < len(nodes):
        node = nodes[position]
        if tree.left[node] < 0:
            left.append(-1)
            right.append(-1)
        else:
            left.append(len(nodes))
            right.append(len(nodes) + 1)
            nodes += [int(tree.left[node]), int(tree.right[node])]
            parents += [position, position]
        position += 1
    leaf = tree.left[nodes] < 0
    value = np.where(leaf, tree.value[nodes], 0.0).astype(np.float32)
    return {
        "base_weights": value.tolist(),
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": (tree.missing_left[nodes] & ~leaf).astype(int).tolist(),
        "id": number,
        "left_children": left,
        "loss_changes": [0.0] * len(nodes),
        "parents": parents,
        "right_children": right,
        "split_conditions": np.where(leaf, value, float32_threshold(tree.threshold[nodes])).tolist(),
        "split_indices": np.where(leaf, 0, tree.feature[nodes]).tolist(),
        "split_type": [0] * len(nodes),
        "sum_hessian": tree.cover[nodes].astype(np.float32).tolist(),
        "tree_param": {"num_deleted": "0", "num_feature": str(n_features), "num_nodes": str(len(nodes)), "size_leaf_vector": "1"},
    }
