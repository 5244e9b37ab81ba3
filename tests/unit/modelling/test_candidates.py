"""Tests of the choice between candidates by paired losses, of the search for settings, and of the average of two models."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import candidates, tuning
from finrisk_assets.modelling.training.candidates import (
    AveragedModel,
    compute_margin,
    convert_model,
    fit_candidates,
    has_cuda,
    place_on_device,
)
from finrisk_assets.modelling.training.split import split
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleSpec
from finrisk_assets.settings import SettingsError
from schemas.features import Feature

FEATURES = tuple(Feature(f"x{number}", "", "") for number in range(4))


def table(n: int, curve: float = 0.0, seed: int = 1):
    """Return rows whose log-odds are linear in two columns, plus a product of two columns of this weight."""
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(n, 4)).astype(np.float32)
    logit = rows[:, 0] - 0.7 * rows[:, 1] + curve * rows[:, 2] * rows[:, 3] - 1
    return rows, draw.random(n) < 1 / (1 + np.exp(-logit))


def models() -> dict:
    trees = XGBClassifier(n_estimators=60, max_depth=3, learning_rate=0.1, random_state=1, n_jobs=1)
    return {"logistic": LogisticRegression(), "xgboost": trees}


def fit(rows, labels, **options):
    windows = split([str(number) for number in range(len(rows))], labels, seed=1)
    return fit_candidates(rows, labels, windows, models(), **options)


def test_the_simpler_model_is_chosen_where_the_truth_is_linear():
    chosen = fit(*table(3_000))[0]
    assert chosen.name == "logistic"
    assert chosen.excess_loss.low <= 0


def test_a_simpler_model_that_is_surely_worse_is_not_chosen():
    fitted = fit(*table(6_000, curve=0.8))
    logistic = next(one for one in fitted if one.name == "logistic")
    assert fitted[0].name != "logistic"
    assert logistic.excess_loss.low > 0


def test_rows_of_one_person_count_once():
    """The same rows five times make no difference more certain."""
    rows, labels = table(2_600, curve=0.25)
    windows = split([str(number) for number in range(2_600)], labels, seed=1)
    once = fit_candidates(rows, labels, windows, {"logistic": LogisticRegression(), "constant": LogisticRegression(C=1e-6)})
    often = np.repeat(np.arange(2_600), 5)
    copies = split([str(number) for number in range(13_000)], labels[often], groups=[str(number) for number in often], seed=1)
    repeated = fit_candidates(
        rows[often], labels[often], copies, {"logistic": LogisticRegression(), "constant": LogisticRegression(C=1e-6)}, people=often
    )
    width = [next(one for one in fitted if one.name == "constant").excess_loss for fitted in (once, repeated)]
    assert width[1].high - width[1].low == pytest.approx(width[0].high - width[0].low, rel=0.3)


def test_the_search_keeps_its_budget_of_fits_and_is_the_same_every_time(monkeypatch):
    rows, labels = table(2_500, curve=0.5)
    fits = []
    measure = tuning._loss_by_trees
    monkeypatch.setattr(tuning, "_loss_by_trees", lambda *given: fits.append(1) or measure(*given))
    first, second = (tuning.tune(models()["xgboost"], rows, labels) for _ in range(2))
    assert first.get_params() == second.get_params()
    n_settings = len(tuning.SETTINGS) + 1
    half, quarter = n_settings // 2, n_settings // 4
    assert n_settings + half + 2 * quarter <= len(fits) / 2 <= n_settings + half + 1 + 2 * (quarter + 2)
    assert first.max_depth > 1


def test_the_search_judges_on_other_people_with_the_outcome_in_every_fold():
    labels = np.zeros(400, np.float32)
    labels[:40] = 1
    people = np.repeat(np.arange(100), 4)
    folds = tuning.draw_folds(labels, people, seed=1)
    for _ in range(2 * tuning.N_FOLDS):
        train, judged = next(folds)
        assert not set(people[train]) & set(people[judged])
        assert labels[judged].sum() > 0


@pytest.mark.parametrize("forest", [False, True])
def test_an_average_is_two_components_of_a_bundle(forest):
    from sklearn.ensemble import RandomForestClassifier

    rows, labels = table(1_000)
    other = RandomForestClassifier(20, max_depth=3, random_state=1) if forest else models()["xgboost"]
    windows = split([str(number) for number in range(1_000)], labels, seed=1)
    first, second = fit_candidates(rows, labels, windows, {"logistic": LogisticRegression(), "other": other})[:2]
    average = candidates._average(first, second, rows[windows.validation], labels[windows.validation].astype(int), np.arange(200))
    assert isinstance(average.estimator, AveragedModel)
    components, intercept = convert_model(average.estimator, FEATURES, rows)
    spec = BundleSpec("average", "", "", FEATURES, components, rows[:2], 0, "", "", intercept=intercept)
    assert len(components) == 2
    assert Bundle(spec, "").margin(rows) == pytest.approx(compute_margin(average.estimator, rows)[0], abs=1e-5)


@pytest.mark.parametrize(("n", "n_judged"), [(800, 640), (4_000, 800)])
def test_a_small_table_is_judged_on_its_training_rows_too(n, n_judged):
    from sklearn.ensemble import RandomForestClassifier

    rows, _ = table(n)
    noise = np.random.default_rng(2).random(n) < 0.3
    windows = split([str(number) for number in range(n)], noise, shares=(0.6, 0.2, 0.2), seed=1)
    judged = candidates._JudgedRows.of(rows, noise.astype(int), np.arange(n), windows)
    assert len(judged.positions) == len(set(judged.positions)) == n_judged
    assert not set(judged.positions) & set(windows.test)
    memory = RandomForestClassifier(1, bootstrap=False, random_state=1)
    scores = judged.cross_validate(memory)
    assert len(scores) == n_judged - len(windows.validation)
    if len(scores):  # a model that knows its own rows by heart knows nothing of the others
        assert metrics.auc(noise[judged.cross_validated], scores).value == pytest.approx(0.5, abs=0.1)
        assert (
            metrics.auc(
                noise[windows.train], memory.fit(rows[windows.train], noise[windows.train]).predict_proba(rows[windows.train])[:, 1]
            ).value
            > 0.99
        )


def test_boosting_on_few_rows_is_a_mean_of_trees_with_the_search_or_without():
    rows, labels = table(900, curve=0.5)
    few, many = (candidates.build_candidates(FEATURES, 1, n_rows=n)["xgboost"] for n in (900, 3_000))
    assert (few.num_parallel_tree, many.num_parallel_tree) == (candidates.N_PARALLEL_TREES, None)
    assert tuning.tune(few, rows, labels).num_parallel_tree == candidates.N_PARALLEL_TREES


def test_a_device_that_is_not_there_is_refused_by_name_and_left_out_by_choice():
    if has_cuda():
        pytest.skip("XGBoost has CUDA here")
    estimators = models()
    place_on_device(estimators, "auto")
    assert estimators["xgboost"].get_params()["device"] is None
    with pytest.raises(SettingsError, match=r"^FINRISK_DEVICE=cuda: .* or set auto$"):
        place_on_device(estimators, "cuda")


def test_models_that_were_fitted_on_a_gpu_are_as_good():
    if not has_cuda():
        pytest.skip("needs a GPU and XGBoost with CUDA: docs/scale.md says how to install it")
    rows, labels = table(20_000, curve=0.8)
    windows = split([str(number) for number in range(len(rows))], labels, seed=1)
    trees = {"cpu": models()["xgboost"], "cuda": models()["xgboost"]}
    place_on_device({"cuda": trees["cuda"]}, "cuda")
    of_cpu, of_gpu = (fit_candidates(rows, labels, windows, {"xgboost": model})[0] for model in trees.values())
    assert of_cpu.auc.low < of_gpu.auc.value < of_cpu.auc.high
