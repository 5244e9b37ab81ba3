"""Tests of conversion: estimators become bundle components with the same scores and explanations."""

import json
from typing import Any

import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from xgboost import XGBClassifier

from finrisk_assets.modelling.training.convert import ConvertedComponent, convert_estimator, max_difference
from finrisk_assets.modelling.training.xgboost_json import float32_threshold
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleSpec, Trees, signed_log1p
from schemas.features import Feature

FEATURES = tuple(Feature(f"x{at}", "1", f"input {at}") for at in range(6))


def sample(rows: int = 1500, missing: float = 0.0, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 6))
    x[:, 3] = np.round(x[:, 3])  # ties, so that some values stand exactly on a threshold
    x[:, 4] = np.exp(3 * x[:, 4])
    y = (x[:, 0] + x[:, 1] * x[:, 2] + draw.normal(size=rows) > 0.5).astype(int)
    x[draw.random(x.shape) < missing] = np.nan
    return x.astype(np.float32), y


def bundle(converted: ConvertedComponent) -> Bundle:
    rows, _ = sample(3, seed=9)
    provenance: dict[str, Any] = {"source": "test", "seed": 0, "data_sha256": "", "code_sha256": ""}
    spec = BundleSpec("test", "test", features=FEATURES, components=(converted.component,), golden_rows=rows, **provenance)
    return Bundle(spec, "")


def on_thresholds(model: Trees) -> NDArray[np.float32]:
    """Return rows with every feature at a split of the model, and one float32 step below and above it."""
    rows = []
    for tree in json.loads(model.model)["learner"]["gradient_booster"]["model"]["trees"]:
        for left, feature, split in zip(tree["left_children"], tree["split_indices"], tree["split_conditions"], strict=True):
            if left >= 0 and split < 1e38:
                at = np.float32(split)
                for value in (np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf))):
                    row = np.zeros(6, np.float32)
                    row[feature] = value
                    rows.append(row)
    result = np.array(rows)
    return result[(np.abs(result) < np.finfo(np.float32).max).all(axis=1)][::7]


MODELS = {
    "forest": (RandomForestClassifier(50, max_depth=8, random_state=0), 0.0),
    "forest, values missing": (RandomForestClassifier(50, max_depth=8, random_state=0), 0.1),
    "forest of numbers": (RandomForestRegressor(20, max_depth=6, random_state=0), 0.1),
    "histogram boosting": (HistGradientBoostingClassifier(max_iter=60, random_state=0), 0.1),
    "isolation forest": (IsolationForest(n_estimators=50, random_state=0), 0.0),
    "isolation forest, some columns": (IsolationForest(n_estimators=50, max_features=0.5, random_state=0), 0.1),
    "xgboost": (XGBClassifier(n_estimators=60, max_depth=5, random_state=0, n_jobs=1), 0.1),
    "xgboost, means of trees": (XGBClassifier(n_estimators=20, num_parallel_tree=3, subsample=0.6, random_state=0, n_jobs=1), 0.1),
}


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_the_estimators_own(name: str) -> None:
    estimator, missing = MODELS[name]
    x, y = sample(missing=missing)
    estimator.fit(x.astype(np.float64), y)
    converted = convert_estimator(estimator, FEATURES, x[:50])
    unseen, _ = sample(missing=missing, seed=1)
    assert max_difference(estimator, converted, FEATURES, unseen) < 1e-6
    assert max_difference(estimator, converted, FEATURES, on_thresholds(converted.component)) < 1e-6


@pytest.mark.parametrize(("name", "sign"), [("forest", 1), ("histogram boosting", 1), ("isolation forest", -1)])
def test_contributions_are_those_of_the_shap_package(name: str, sign: int) -> None:
    import shap

    estimator, _ = MODELS[name]
    x, y = sample()
    estimator.fit(x.astype(np.float64), y)
    converted = convert_estimator(estimator, FEATURES)
    expected = shap.TreeExplainer(estimator).shap_values(x[:40].astype(np.float64), check_additivity=False)
    expected = expected[..., 1] if expected.ndim == 3 else expected
    if sign < 0:  # shap explains the mean path length, which falls as the anomaly grows; c(256) = 10.24 divides it
        expected = -expected / (2 * (np.log(255) + np.euler_gamma) - 2 * 255 / 256)
    assert np.abs(bundle(converted).score(x[:40]).contributions - expected).max() < 1e-5


@pytest.mark.parametrize("depth", [3, 9])  # short paths are prepared, long ones integrated
def test_contributions_are_those_of_xgboost_where_values_are_missing(depth: int) -> None:
    x, y = sample(missing=0.2)
    model = XGBClassifier(n_estimators=40, max_depth=depth, min_child_weight=0, random_state=0, n_jobs=1).fit(x, y)
    expected = model.get_booster().predict(xgboost.DMatrix(x[:100]), pred_contribs=True)
    converted = bundle(convert_estimator(model, FEATURES))
    assert np.abs(converted.score(x[:100]).contributions - expected[:, :-1]).max() < 1e-5
    assert converted.base == pytest.approx(expected[0, -1], abs=1e-5)


@pytest.mark.parametrize("depth", [3, 5, 11])  # whole trees in a table, pieces of trees, and some leaves too deep for one
def test_contributions_are_the_same_bits_alone_and_in_a_batch(depth: int) -> None:
    x, y = sample(missing=0.2)
    model = XGBClassifier(n_estimators=30, max_depth=depth, min_child_weight=0, random_state=0, n_jobs=1).fit(x, y)
    converted = bundle(convert_estimator(model, FEATURES))
    together = converted.score(x).contributions
    for at in range(0, len(x), 97):
        assert (converted.score(x[at : at + 1]).contributions == together[at]).all()
    assert (converted.score(x[:50]).contributions == together[:50]).all()


def test_two_fits_give_the_same_bytes() -> None:
    x, y = sample(missing=0.1)
    for estimator, _ in MODELS.values():
        first = convert_estimator(estimator.fit(x, y), FEATURES).component
        assert convert_estimator(estimator.fit(x.copy(), y), FEATURES).component == first


def test_xgboost_stops_at_its_best_iteration() -> None:
    x, y = sample()
    model = XGBClassifier(n_estimators=80, max_depth=4, early_stopping_rounds=3, random_state=0, n_jobs=1)
    model.fit(x, y, eval_set=[sample(seed=1)], verbose=False)
    assert model.best_iteration < 79
    assert max_difference(model, convert_estimator(model, FEATURES), FEATURES, x) < 1e-6


def test_names_of_columns_leave_no_trace_in_the_model() -> None:
    import pandas as pd

    x, y = sample()
    named = XGBClassifier(n_estimators=5, n_jobs=1).fit(pd.DataFrame(x, columns=[f.name for f in FEATURES]), y)
    bare = XGBClassifier(n_estimators=5, n_jobs=1).fit(x, y)
    assert convert_estimator(named, FEATURES) == convert_estimator(bare, FEATURES)
    with pytest.raises(ValueError, match="order"):
        convert_estimator(named, FEATURES[::-1])


def test_logistic_regression_becomes_coefficients() -> None:
    x, y = sample(missing=0.1)
    logs = FunctionTransformer(signed_log1p)
    model = make_pipeline(SimpleImputer(strategy="median"), logs, StandardScaler(), LogisticRegression())
    model.fit(x.astype(np.float64), y)
    converted = convert_estimator(model, FEATURES, x)
    assert max_difference(model, converted, FEATURES, x) < 1e-12
    scores = bundle(converted).score(x)
    assert np.abs(scores.contributions.mean(axis=0)).max() < 1e-6  # against the training mean


def test_trees_keep_the_imputer_before_them() -> None:
    x, y = sample(missing=0.1)
    model = make_pipeline(SimpleImputer(strategy="median"), RandomForestClassifier(20, max_depth=5, random_state=0))
    model.fit(x.astype(np.float64), y)
    assert max_difference(model, convert_estimator(model, FEATURES), FEATURES, x) < 1e-6


def test_what_cannot_be_converted_exactly_is_refused() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    x, y = sample(200)
    for estimator, words in [
        (KNeighborsClassifier().fit(x, y), "no exact component"),
        (RandomForestClassifier(2).fit(x, y + 1), "classes"),
        (make_pipeline(StandardScaler(), RandomForestClassifier(2)).fit(x, y), "no scaler"),
        (make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression()).fit(x, y), "in that order"),
        (make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()).fit(x, y), "indicators"),
        (make_pipeline(FunctionTransformer(np.sqrt), LogisticRegression()).fit(np.abs(x), y), "signed_log1p"),
    ]:
        with pytest.raises(ValueError, match=words):
            convert_estimator(estimator, FEATURES)


def test_the_next_threshold_keeps_less_or_equal() -> None:
    draw = np.random.default_rng(0)
    exact = draw.normal(size=500).astype(np.float32)
    thresholds = np.concatenate([exact.astype(np.float64), draw.normal(size=500), [0.0, 1e-45, -1e-45, 1e300, -1e300, np.inf]])
    nudged = float32_threshold(thresholds)
    for x in [*exact, *nudged[:-3], np.float32(0), np.float32(-0.0)]:
        assert ((x < nudged) == (np.float64(x) <= thresholds)).all()


@pytest.mark.parametrize("trees_a_round", [1, 3])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("depth", [1, 3, 9], ids="depth {}".format)
@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "reg:gamma"])
def test_tables_say_the_margins_of_xgboost_to_the_last_bit(objective, depth, seed, trees_a_round):
    """XGBoost scores a batch and tables score a request; both must give the same bits."""
    import xgboost

    from finrisk_assets.scoring.tree_shap import TreeShap

    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(3_000, 6)).astype(np.float32).round(1)  # many values lie on a threshold
    rows[draw.random(rows.shape) < 0.1] = np.nan
    target = np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1] * rows[:, 2]) + draw.normal(size=len(rows))
    labels = {"binary:logistic": target > 0.5, "reg:squarederror": target, "reg:gamma": np.exp(target)}[objective]
    settings = {"max_depth": depth, "objective": objective, "nthread": 1, "num_parallel_tree": trees_a_round, "subsample": 0.7}
    trained = xgboost.train(settings, xgboost.DMatrix(rows, labels), 60)

    tables = TreeShap(bytes(trained.save_raw("json")), rows.shape[1])
    expected = trained.inplace_predict(rows, predict_type="margin").astype(np.float64)
    assert np.array_equal(tables.margin(rows), expected)
    assert np.array_equal(tables.margin(rows[:50]), expected[:50]), "few rows are looked up another way"
    assert np.array_equal(tables.explain(rows[:200])[0], expected[:200])
