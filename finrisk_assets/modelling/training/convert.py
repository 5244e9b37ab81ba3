"""From a fitted estimator to a component of a scoring bundle, number for number.

Here scikit-learn's forests become XGBoost models, so that the service needs one tree runtime whatever library trained the model,
and a pipeline around a logistic regression becomes coefficients. Training side only. Fitting and calibrating live elsewhere.

scikit-learn goes left where ``x <= threshold`` with a float64 threshold, XGBoost where ``x < threshold`` with a float32 one. For
float32 rows both agree if the threshold becomes the next float32 above the largest float32 that is not above it. XGBoost's
predictor also takes siblings to be neighbours, so nodes are numbered breadth first. Without either, the result is silently wrong.
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
class Converted:
    """A component, and the calibration that makes its margin what the estimator itself answers.

    Fit a beta calibration on the margin with ``plain.link`` and put it in ``plain``'s place.
    """

    component: Component
    plain: Calibration


def component_from(estimator: Any, features: Sequence[Feature], rows: Rows | None = None) -> Converted:
    """Turn a fitted estimator, alone or at the end of a pipeline, into a component.

    Parameters
    ----------
    estimator
        LogisticRegression (with SimpleImputer, `signed_log1p` and a scaler before it), XGBClassifier,
        HistGradientBoostingClassifier, RandomForestClassifier or -Regressor, or IsolationForest; trees may have a SimpleImputer
        before them. Or a ScorecardClassifier, alone. Two classes.
    features
        In the order of the columns it was fitted on.
    rows
        float32, shape (n, d). Where given, component and estimator must agree on them to 1e-5: a sum of hundreds of trees in
        float32 is about 1e-6 off, one row in a wrong leaf far more. Pass some, extremes included.

    Raises
    ------
    ValueError
        For an estimator or a step that has no exact component, columns in another order, or rows that score differently.
    """
    names = [feature.name for feature in features]
    fitted_on = list(getattr(estimator, "feature_names_in_", names))
    if fitted_on != names:
        raise ValueError(f"the estimator was fitted on the columns {fitted_on}, the features are {names}: keep that order")
    steps, last = _steps(estimator)
    kind = type(last).__name__
    classes = getattr(last, "classes_", None)
    if classes is not None and list(classes) != [0, 1]:
        raise ValueError(f"{kind} knows the classes {list(classes)}; a risk has the classes 0 and 1")
    converted = _converted(last, steps, features)
    if rows is not None:
        off = difference(estimator, converted, features, rows)
        if not off <= FLOAT32_SUM_TOLERANCE:
            raise ValueError(f"the component of {kind} is {off:.2g} off: this version of it is not converted exactly")
    return converted


def _converted(last: Any, steps: Sequence[tuple[str, Any]], features: Sequence[Feature]) -> Converted:
    if isinstance(last, scorecard.ScorecardClassifier):
        if steps:
            raise ValueError("ScorecardClassifier bins what it is given, missing values too: leave the steps before it out")
        return component_from_scorecard(last.card_, features)
    return (_linear if type(last).__name__ == "LogisticRegression" else _trees)(last, steps, len(features))


def difference(estimator: Any, converted: Converted, features: Sequence[Feature], rows: Rows) -> float:
    """Largest absolute difference between the estimator's own scores and the component's, over float32 rows."""
    inputs: Any = rows.astype(np.float64)
    if hasattr(estimator, "feature_names_in_"):
        import pandas as pd

        inputs = pd.DataFrame(inputs, columns=list(estimator.feature_names_in_))
    if hasattr(estimator, "predict_proba"):
        own = estimator.predict_proba(inputs)[:, 1]
    elif hasattr(estimator, "score_samples"):
        own = -estimator.score_samples(inputs)
    else:
        own = estimator.predict(inputs)
    spec = BundleSpec(
        name="conversion",
        domain="",
        source="",
        features=tuple(features),
        components=(converted.component,),
        calibration=converted.plain,
        golden_rows=rows[:1],
        seed=0,
        data_sha256="",
        code_sha256="",
    )
    return float(np.abs(Bundle(spec, "").probability(rows) - own).max())


# Trees, by library ------------------------------------------------------------------------------------------------------------


def _trees(model: Any, steps: Sequence[tuple[str, Any]], width: int) -> Converted:
    kind = type(model).__name__
    fills = None
    if steps:
        inputs = _prepared(steps, width)
        if inputs.scaled or any(inputs.signed_log1p):
            raise ValueError(f"{kind}: trees need no scaler or transform before them; leave the step out")
        fills = inputs.fills
    if kind == "XGBClassifier":
        return Converted(Trees(_xgboost(model, width), fills), Calibration(link="logit"))
    if kind == "HistGradientBoostingClassifier":
        base = float(model._baseline_prediction.ravel()[0])
        return Converted(Trees(to_xgboost(_histogram(model), width, base), fills), Calibration(link="logit"))
    if kind in ("RandomForestClassifier", "RandomForestRegressor"):
        return Converted(Trees(to_xgboost(_forest(model), width), fills), Calibration(link="identity"))
    if kind == "IsolationForest":
        return Converted(Trees(to_xgboost(_isolation(model), width), fills), Calibration("exp2"))
    raise ValueError(f"{kind} has no exact component; see component_from for those that have")


def _xgboost(model: Any, width: int) -> bytes:
    """XGBoost's own model, cut at the best iteration, without the names and attributes of its training."""
    import xgboost

    booster = model.get_booster()
    if booster.attr("best_iteration") is not None:
        booster = booster[: int(booster.attr("best_iteration")) + 1]
    document = json.loads(booster.save_raw("json"))
    learner = document["learner"]
    objective, name = learner["objective"]["name"], learner["gradient_booster"]["name"]
    if objective != "binary:logistic" or name != "gbtree" or not np.isnan(model.missing):
        told = f"{objective}, {name}, missing={model.missing}"
        raise ValueError(f"XGBClassifier with {told}: use binary:logistic, gbtree, missing=nan")
    if "c" in (learner["feature_types"] or []):
        raise ValueError("XGBClassifier with categorical features: give it numbers")
    learner |= {"attributes": {}, "feature_names": [], "feature_types": []}
    plain = xgboost.Booster()
    plain.load_model(bytearray(json.dumps(document).encode()))
    if plain.num_features() != width:
        raise ValueError(f"XGBClassifier was fitted on {plain.num_features()} features, {width} are given")
    return bytes(plain.save_raw("json"))


def _sklearn(tree: Any, value: NDArray[np.float64], features: NDArray[np.int64] | None = None) -> Tree:
    """scikit-learn's tree with leaf values of our own; ``features`` renumbers the columns of one that saw only some."""
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


def _forest(model: Any) -> list[Tree]:
    """Each tree's share of the mean that a random forest answers."""
    trees = []
    for estimator in model.estimators_:
        value = estimator.tree_.value[:, 0, :]
        share = value[:, 1] / value.sum(axis=1) if value.shape[1] == 2 else value[:, 0]
        trees.append(_sklearn(estimator.tree_, share / len(model.estimators_)))
    return trees


def _isolation(model: Any) -> list[Tree]:
    """Trees that sum to ``-E[h(x)] / c(psi)`` (Liu, Ting & Zhou 2008); 2 to that power is minus ``score_samples``."""
    scale = len(model.estimators_) * float(_unsuccessful_search(np.array([model.max_samples_]))[0])
    trees = []
    for estimator, features in zip(model.estimators_, model.estimators_features_, strict=True):
        tree = estimator.tree_
        depth = np.zeros(tree.node_count)
        for node in np.flatnonzero(tree.children_left >= 0):  # a parent's number is below its children's
            depth[[tree.children_left[node], tree.children_right[node]]] = depth[node] + 1
        path = depth + _unsuccessful_search(tree.n_node_samples)
        trees.append(_sklearn(tree, -path / scale if scale else np.full(len(path), -1.0 / len(model.estimators_)), features))
    return trees


def _unsuccessful_search(n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean path length of an unsuccessful search in a binary tree of n, c(n) of Liu, Ting & Zhou (2008)."""
    size = np.maximum(np.asarray(n, np.float64), 2.0)
    length = 2.0 * (np.log(np.maximum(size - 1.0, 1.0)) + np.euler_gamma) - 2.0 * (size - 1.0) / size
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, length))


def _histogram(model: Any) -> list[Tree]:
    """The trees of scikit-learn's histogram gradient boosting; their leaves hold the learning rate already."""
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
class _Inputs:
    """What the steps before the model do to each feature, in the order of `Linear`: fill, transform, scale."""

    fills: tuple[float | None, ...]
    signed_log1p: tuple[bool, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    scaled: bool = False


def _steps(estimator: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The steps that do something, and the model at the end."""
    if type(estimator).__name__ != "Pipeline":
        return [], estimator
    steps = [(name, step) for name, step in estimator.steps if step is not None and step != "passthrough"]
    return steps[:-1], steps[-1][1]


def _prepared(steps: Sequence[tuple[str, Any]], width: int) -> _Inputs:
    inputs = _Inputs((None,) * width, (False,) * width, (0.0,) * width, (1.0,) * width)
    for name, step in steps:
        kind = type(step).__name__
        if kind == "SimpleImputer" and not any(inputs.signed_log1p) and not inputs.scaled:
            fills = np.asarray(step.statistics_, np.float64)
            # Only NaN differs from itself.
            if step.add_indicator or np.isnan(fills).any() or step.missing_values == step.missing_values:
                raise ValueError(f"{name}: only an imputer of NaN, without indicators, with a value for every column converts")
            inputs.fills = tuple(fills.tolist())
        elif kind == "FunctionTransformer" and step.func is signed_log1p and not inputs.scaled:
            inputs.signed_log1p = (True,) * width
        elif kind in ("StandardScaler", "RobustScaler") and not inputs.scaled:
            center = step.mean_ if kind == "StandardScaler" else step.center_
            inputs.means = (0.0,) * width if center is None else tuple(np.asarray(center, np.float64).tolist())
            inputs.scales = (1.0,) * width if step.scale_ is None else tuple(np.asarray(step.scale_, np.float64).tolist())
            inputs.scaled = True
        else:
            raise ValueError(f"{name} ({kind}): before a model come SimpleImputer, signed_log1p and a scaler, in that order")
    return inputs


def _linear(model: Any, steps: Sequence[tuple[str, Any]], width: int) -> Converted:
    inputs = _prepared(steps, width)
    component = Linear(
        coefficients=tuple(model.coef_[0].astype(np.float64).tolist()),
        means=inputs.means,
        scales=inputs.scales,
        fills=inputs.fills,
        signed_log1p=inputs.signed_log1p,
        intercept=float(model.intercept_[0]),
    )
    return Converted(component, Calibration(link="logit"))


# Bundle ------------------------------------------------------------------------------------------------------------------------


def component_from_scorecard(card: Scorecard, features: Sequence[Feature]) -> "Converted":
    """Turn a card into a component: one tree per characteristic, its leaves the bins, in log-odds of default.

    A missing value has the leaf that no number reaches: the root sends all finite ones left.

    Parameters
    ----------
    card
        From `fit` or `Scorecard.from_json`.
    features
        Of the bundle, in the order of its rows; those that are not on the card have no part in the score.

    Raises
    ------
    ValueError
        Where the card needs a feature that is not among them.
    """
    from finrisk_assets.modelling.training.convert import Converted
    from finrisk_assets.modelling.training.xgboost_json import to_xgboost
    from finrisk_assets.scoring.spec import Calibration, Trees

    names = [feature.name for feature in features]
    absent = [one.name for one in card.characteristics if one.name not in names]
    if absent:
        raise ValueError(f"the scorecard needs {', '.join(absent)}, which the features do not hold")
    trees = [_tree(one, names.index(one.name)) for one in card.characteristics]
    model = to_xgboost(trees, len(names), (OFFSET - card.base_points) / FACTOR)
    return Converted(Trees(model), Calibration(link="logit"))


def _tree(one: Characteristic, column: int) -> "Tree":
    from finrisk_assets.modelling.training.xgboost_json import Tree

    # A code parts an interval in two, with itself between: x <= code, but not x <= the float before it.
    ends = sorted({*one.cuts, *_around(one.codes)})
    inside = [*((low + high) / 2 for low, high in pairwise(ends))]
    sample = np.array([ends[0] - 1, *inside, ends[-1] + 1] if ends else [0.0])
    nearest = sample.copy()
    for code in one.codes:
        below, above = _around((code,))
        nearest[(below < sample) & (sample < above)] = code
    place = bin_positions(nearest, one.cuts, one.codes)
    value = -np.array(one.points, np.float64) / FACTOR
    # Each bin's training rows are shared among the parts that codes cut it into.
    cover = (np.array(one.shares) / np.maximum(np.bincount(place, minlength=len(one.points)), 1))[place]

    nodes: list[list[float]] = []

    def grow(low: int, high: int) -> int:
        """Grow over the parts low to high, balanced, and return the number of its root."""
        at = len(nodes)
        if low == high:
            nodes.append([0.0, -1, -1, value[place[low]], cover[low]])
            return at
        middle = (low + high) // 2
        nodes.append([ends[middle], -1, -1, 0.0, cover[low : high + 1].sum()])
        nodes[at][1], nodes[at][2] = grow(low, middle), grow(middle + 1, high)
        return at

    nodes.append([LARGEST_FLOAT32, 1, -1, 0.0, cover.sum() + one.shares[-1]])
    grow(0, len(place) - 1)
    nodes[0][2] = len(nodes)
    nodes.append([0.0, -1, -1, value[-1], one.shares[-1]])
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


def _around(codes: Sequence[float]) -> list[float]:
    """Just below and just above each code, between neighbouring 32-bit floats."""
    code = np.asarray(codes, np.float32)
    sides = [np.nextafter(code, np.float32(way)).astype(np.float64) for way in (-np.inf, np.inf)]
    return sorted(np.concatenate([(side + code.astype(np.float64)) / 2 for side in sides]).tolist())
