"""Conversion of a fitted estimator to a component of a scoring bundle, number for number.

scikit-learn's forests become XGBoost models, so that the service needs one tree runtime whatever library trained the model, and a
pipeline around a logistic regression becomes coefficients. Training side only. Fitting and calibrating live elsewhere.

scikit-learn goes left where ``x <= threshold`` with a float64 threshold, XGBoost where ``x < threshold`` with a float32 threshold. For
float32 rows both agree if the threshold becomes the next float32 above the largest float32 that is not above it. XGBoost's
predictor also assumes that siblings are neighbours, so nodes are numbered breadth first. Without either, the result is silently wrong.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.modelling.training import scorecard
from finrisk_assets.modelling.training.binning import bin_positions
from finrisk_assets.modelling.training.scorecard import FACTOR, LARGEST_FLOAT32, OFFSET, Characteristic, Scorecard
from finrisk_assets.modelling.training.xgboost_json import FLOAT32_SUM_TOLERANCE, Tree, to_xgboost
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleSpec, Calibration, Component, Linear, Rows, Trees, signed_log1p
from schemas.features import Feature


@dataclass(frozen=True)
class ConvertedComponent:
    """A component, and the calibration that reproduces the estimator's own output from its margin.

    Fit a beta calibration on the margin with ``uncalibrated.link``, and use it instead of ``uncalibrated``.
    """

    component: Component
    uncalibrated: Calibration


def convert_estimator(estimator: Any, features: Sequence[Feature], rows: Rows | None = None) -> ConvertedComponent:
    """Convert a fitted estimator, alone or at the end of a pipeline, to a component.

    Parameters
    ----------
    estimator
        LogisticRegression (after SimpleImputer, `signed_log1p` and a scaler), XGBClassifier,
        HistGradientBoostingClassifier, RandomForestClassifier or -Regressor, or IsolationForest; trees may follow a SimpleImputer.
        Or a ScorecardClassifier, alone. Two classes.
    features
        In the order of the columns that the estimator was fitted on.
    rows
        float32, shape (n, d). With rows, component and estimator must agree on them to 1e-5: a sum of hundreds of trees in
        float32 is about 1e-6 off, one row in a wrong leaf far more. Give some, extremes included.

    Raises
    ------
    ValueError
        For an estimator or a step without an exact component, columns in another order, or rows that score differently.
    """
    names = [feature.name for feature in features]
    fitted_on = list(getattr(estimator, "feature_names_in_", names))
    if fitted_on != names:
        raise ValueError(f"the estimator was fitted on the columns {fitted_on}, the features are {names}: keep that order")
    steps, model = _split_pipeline(estimator)
    kind = type(model).__name__
    classes = getattr(model, "classes_", None)
    if classes is not None and list(classes) != [0, 1]:
        raise ValueError(f"{kind} knows the classes {list(classes)}; a risk has the classes 0 and 1")
    converted = _convert(model, steps, features)
    if rows is not None:
        difference = max_difference(estimator, converted, features, rows)
        if not difference <= FLOAT32_SUM_TOLERANCE:
            raise ValueError(f"the component of {kind} is {difference:.2g} off: this version of it is not converted exactly")
    return converted


def _convert(model: Any, steps: Sequence[tuple[str, Any]], features: Sequence[Feature]) -> ConvertedComponent:
    if isinstance(model, scorecard.ScorecardClassifier):
        if steps:
            raise ValueError("ScorecardClassifier bins its inputs itself, missing values too: leave out the steps before it")
        return convert_scorecard(model.card_, features)
    return (_convert_linear if type(model).__name__ == "LogisticRegression" else _convert_trees)(model, steps, len(features))


def max_difference(estimator: Any, converted: ConvertedComponent, features: Sequence[Feature], rows: Rows) -> float:
    """Return the largest absolute difference between the estimator's own scores and the component's, over float32 rows."""
    inputs: Any = rows.astype(np.float64)
    if hasattr(estimator, "feature_names_in_"):
        import pandas as pd

        inputs = pd.DataFrame(inputs, columns=list(estimator.feature_names_in_))
    if hasattr(estimator, "predict_proba"):
        own_scores = estimator.predict_proba(inputs)[:, 1]
    elif hasattr(estimator, "score_samples"):
        own_scores = -estimator.score_samples(inputs)
    else:
        own_scores = estimator.predict(inputs)
    spec = BundleSpec(
        name="conversion",
        domain="",
        source="",
        features=tuple(features),
        components=(converted.component,),
        calibration=converted.uncalibrated,
        golden_rows=rows[:1],
        seed=0,
        data_sha256="",
        code_sha256="",
    )
    return float(np.abs(Bundle(spec, "").probability(rows) - own_scores).max())


# Trees, by library ------------------------------------------------------------------------------------------------------------


def _convert_trees(model: Any, steps: Sequence[tuple[str, Any]], width: int) -> ConvertedComponent:
    kind = type(model).__name__
    fills = None
    if steps:
        preprocessing = _read_steps(steps, width)
        if preprocessing.is_scaled or any(preprocessing.signed_log1p):
            raise ValueError(f"{kind}: trees need no scaler or transform before them; leave the step out")
        fills = preprocessing.fills
    if kind == "XGBClassifier":
        return ConvertedComponent(Trees(_clean_xgboost(model, width), fills), Calibration(link="logit"))
    if kind == "HistGradientBoostingClassifier":
        base = float(model._baseline_prediction.ravel()[0])
        return ConvertedComponent(Trees(to_xgboost(_histogram_trees(model), width, base), fills), Calibration(link="logit"))
    if kind in ("RandomForestClassifier", "RandomForestRegressor"):
        return ConvertedComponent(Trees(to_xgboost(_forest_trees(model), width), fills), Calibration(link="identity"))
    if kind == "IsolationForest":
        return ConvertedComponent(Trees(to_xgboost(_isolation_trees(model), width), fills), Calibration("exp2"))
    raise ValueError(f"{kind} has no exact component; see convert_estimator for the list")


def _clean_xgboost(model: Any, width: int) -> bytes:
    """Return XGBoost's own model, cut at the best iteration, without the names and attributes of its training."""
    import xgboost

    booster = model.get_booster()
    if booster.attr("best_iteration") is not None:
        booster = booster[: int(booster.attr("best_iteration")) + 1]
    document = json.loads(booster.save_raw("json"))
    learner = document["learner"]
    objective, name = learner["objective"]["name"], learner["gradient_booster"]["name"]
    if objective != "binary:logistic" or name != "gbtree" or not np.isnan(model.missing):
        parameters = f"{objective}, {name}, missing={model.missing}"
        raise ValueError(f"XGBClassifier with {parameters}: use binary:logistic, gbtree, missing=nan")
    if "c" in (learner["feature_types"] or []):
        raise ValueError("XGBClassifier with categorical features: give it numbers")
    learner |= {"attributes": {}, "feature_names": [], "feature_types": []}
    clean = xgboost.Booster()
    clean.load_model(bytearray(json.dumps(document).encode()))
    if clean.num_features() != width:
        raise ValueError(f"XGBClassifier was fitted on {clean.num_features()} features, {width} are given")
    return bytes(clean.save_raw("json"))


def _make_tree(tree: Any, value: NDArray[np.float64], features: NDArray[np.int64] | None = None) -> Tree:
    """Return scikit-learn's tree with other leaf values; ``features`` renumbers the columns of a tree that saw only some."""
    nodes = tree.__getstate__()["nodes"]
    feature = np.maximum(tree.feature, 0).astype(np.int64)
    return Tree(
        feature=feature if features is None else np.asarray(features, np.int64)[feature],
        threshold=np.asarray(tree.threshold, np.float64),
        left=tree.children_left,
        right=tree.children_right,
        missing_left=nodes["missing_go_to_left"].astype(bool),
        value=value,
        cover=tree.weighted_n_node_samples,
    )


def _forest_trees(model: Any) -> list[Tree]:
    """Return each tree's share of the mean that a random forest predicts."""
    trees = []
    for estimator in model.estimators_:
        value = estimator.tree_.value[:, 0, :]
        share = value[:, 1] / value.sum(axis=1) if value.shape[1] == 2 else value[:, 0]
        trees.append(_make_tree(estimator.tree_, share / len(model.estimators_)))
    return trees


def _isolation_trees(model: Any) -> list[Tree]:
    """Return trees that sum to ``-E[h(x)] / c(psi)`` (Liu, Ting & Zhou 2008); 2 to that power is minus ``score_samples``."""
    scale = len(model.estimators_) * float(_mean_search_length(np.array([model.max_samples_]))[0])
    trees = []
    for estimator, features in zip(model.estimators_, model.estimators_features_, strict=True):
        tree = estimator.tree_
        depth = np.zeros(tree.node_count)
        for node in np.flatnonzero(tree.children_left >= 0):  # a parent's number is below its children's
            depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1
        path = depth + _mean_search_length(tree.n_node_samples)
        trees.append(_make_tree(tree, -path / scale if scale else np.full(len(path), -1.0 / len(model.estimators_)), features))
    return trees


def _mean_search_length(n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean path length of an unsuccessful search in a binary tree of n, c(n) of Liu, Ting & Zhou (2008)."""
    size = np.maximum(np.asarray(n, np.float64), 2.0)
    length = 2.0 * (np.log(np.maximum(size - 1.0, 1.0)) + np.euler_gamma) - 2.0 * (size - 1.0) / size
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, length))


def _histogram_trees(model: Any) -> list[Tree]:
    """Return the trees of scikit-learn's histogram gradient boosting, whose leaves include the learning rate."""
    trees = []
    for (predictor,) in model._predictors:
        nodes = predictor.nodes
        if nodes["is_categorical"].any():
            raise ValueError("HistGradientBoostingClassifier with categorical features: give it numbers")
        leaf = nodes["is_leaf"].astype(bool)
        trees.append(
            Tree(
                feature=nodes["feature_idx"].astype(np.int64),
                threshold=nodes["num_threshold"].astype(np.float64),
                left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
                right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
                missing_left=nodes["missing_go_to_left"].astype(bool),
                value=nodes["value"].astype(np.float64),
                cover=nodes["count"].astype(np.float64),
            )
        )
    return trees


# Linear ------------------------------------------------------------------------------------------------------------------------


@dataclass
class _Preprocessing:
    """The effect of the steps before the model on each feature, in the order of `Linear`: fill, transform, scale."""

    fills: tuple[float | None, ...]
    signed_log1p: tuple[bool, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    is_scaled: bool = False


def _split_pipeline(estimator: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Return the active steps before the model, and the model."""
    if type(estimator).__name__ != "Pipeline":
        return [], estimator
    steps = [(name, step) for name, step in estimator.steps if step is not None and step != "passthrough"]
    return steps[:-1], steps[-1][1]


def _read_steps(steps: Sequence[tuple[str, Any]], width: int) -> _Preprocessing:
    """Return the preprocessing of a pipeline's steps."""
    preprocessing = _Preprocessing((None,) * width, (False,) * width, (0.0,) * width, (1.0,) * width)
    for name, step in steps:
        kind = type(step).__name__
        if kind == "SimpleImputer" and not any(preprocessing.signed_log1p) and not preprocessing.is_scaled:
            fills = np.asarray(step.statistics_, np.float64)
            # Only NaN differs from itself.
            if step.add_indicator or np.isnan(fills).any() or step.missing_values == step.missing_values:
                raise ValueError(f"{name}: only an imputer of NaN, without indicators, with a value for every column can be converted")
            preprocessing.fills = tuple(fills.tolist())
        elif kind == "FunctionTransformer" and step.func is signed_log1p and not preprocessing.is_scaled:
            preprocessing.signed_log1p = (True,) * width
        elif kind in ("StandardScaler", "RobustScaler") and not preprocessing.is_scaled:
            center = step.mean_ if kind == "StandardScaler" else step.center_
            preprocessing.means = (0.0,) * width if center is None else tuple(np.asarray(center, np.float64).tolist())
            preprocessing.scales = (1.0,) * width if step.scale_ is None else tuple(np.asarray(step.scale_, np.float64).tolist())
            preprocessing.is_scaled = True
        else:
            raise ValueError(f"{name} ({kind}): before a model come SimpleImputer, signed_log1p and a scaler, in that order")
    return preprocessing


def _convert_linear(model: Any, steps: Sequence[tuple[str, Any]], width: int) -> ConvertedComponent:
    preprocessing = _read_steps(steps, width)
    component = Linear(
        coefficients=tuple(model.coef_[0].astype(np.float64).tolist()),
        means=preprocessing.means,
        scales=preprocessing.scales,
        fills=preprocessing.fills,
        signed_log1p=preprocessing.signed_log1p,
        intercept=float(model.intercept_[0]),
    )
    return ConvertedComponent(component, Calibration(link="logit"))


# Scorecard ---------------------------------------------------------------------------------------------------------------------


def convert_scorecard(card: Scorecard, features: Sequence[Feature]) -> ConvertedComponent:
    """Convert a card to a component: one tree per characteristic, its leaves the bins, in log-odds of default.

    A missing value has the leaf that no number reaches: the root sends all finite values left.

    Parameters
    ----------
    card
        From `scorecard.fit` or `Scorecard.from_json`.
    features
        Features of the bundle, in the order of its rows; features that are not on the card do not affect the score.

    Raises
    ------
    ValueError
        Where the card needs a feature that is not among them.
    """
    names = [feature.name for feature in features]
    missing = [characteristic.name for characteristic in card.characteristics if characteristic.name not in names]
    if missing:
        raise ValueError(f"the scorecard needs {', '.join(missing)}, which the features do not hold")
    trees = [_characteristic_tree(characteristic, names.index(characteristic.name)) for characteristic in card.characteristics]
    model = to_xgboost(trees, len(names), (OFFSET - card.base_points) / FACTOR)
    return ConvertedComponent(Trees(model), Calibration(link="logit"))


def _characteristic_tree(characteristic: Characteristic, column: int) -> Tree:
    # A code splits an interval in two around itself: x <= code, but not x <= the float before it.
    boundaries = sorted({*characteristic.cuts, *_neighbour_cuts(characteristic.codes)})
    midpoints = [*((low + high) / 2 for low, high in pairwise(boundaries))]
    sample = np.array([boundaries[0] - 1, *midpoints, boundaries[-1] + 1] if boundaries else [0.0])
    code_or_sample = sample.copy()
    for code in characteristic.codes:
        below, above = _neighbour_cuts((code,))
        code_or_sample[(below < sample) & (sample < above)] = code
    bin_number = bin_positions(code_or_sample, characteristic.cuts, characteristic.codes)
    value = -np.array(characteristic.points, np.float64) / FACTOR
    # Each bin's training rows are divided among the parts that codes split it into.
    cover = (np.array(characteristic.shares) / np.maximum(np.bincount(bin_number, minlength=len(characteristic.points)), 1))[bin_number]

    nodes: list[list[float]] = []

    def grow(low: int, high: int) -> int:
        """Add a balanced subtree over the parts low to high, and return the number of its root."""
        node = len(nodes)
        if low == high:
            nodes.append([0.0, -1, -1, value[bin_number[low]], cover[low]])
            return node
        middle = (low + high) // 2
        nodes.append([boundaries[middle], -1, -1, 0.0, cover[low : high + 1].sum()])
        nodes[node][1], nodes[node][2] = grow(low, middle), grow(middle + 1, high)
        return node

    nodes.append([LARGEST_FLOAT32, 1, -1, 0.0, cover.sum() + characteristic.shares[-1]])
    grow(0, len(bin_number) - 1)
    nodes[0][2] = len(nodes)
    nodes.append([0.0, -1, -1, value[-1], characteristic.shares[-1]])
    threshold, left, right, leaf, weight = np.array(nodes).T
    return Tree(
        feature=np.full(len(nodes), column),
        threshold=threshold,
        left=left.astype(np.int64),
        right=right.astype(np.int64),
        missing_left=np.zeros(len(nodes), bool),
        value=leaf,
        cover=weight,
    )


def _neighbour_cuts(codes: Sequence[float]) -> list[float]:
    """Return cuts just below and just above each code, between neighbouring 32-bit floats."""
    code = np.asarray(codes, np.float32)
    sides = [np.nextafter(code, np.float32(direction)).astype(np.float64) for direction in (-np.inf, np.inf)]
    return sorted(np.concatenate([(side + code.astype(np.float64)) / 2 for side in sides]).tolist())
