"""Tests of bundles: written once, refused unless whole, and scored as in training."""

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xgboost import XGBClassifier

from finrisk_assets.features.windows import Point, from_json, to_json
from finrisk_assets.modelling.evaluation import explain
from finrisk_assets.modelling.training.convert import convert_estimator
from finrisk_assets.scoring.bundle import Bundle, write
from finrisk_assets.scoring.score_curve import draw_score_curve
from finrisk_assets.scoring.spec import Amount, BundleError, BundleSpec, Calibration, Linear
from schemas.features import Feature

FEATURES = (
    Feature("income_amount", "money a month", "income", low="The income is low.", monotone=-1),
    Feature("n_late_90d", "count", "late payments", high="Payments were late."),
    Feature("balance_amount", "money", "balance"),
)
LINEAR = Linear(
    coefficients=(-1.0, 0.5, 2.0),
    means=(10.0, 1.0, 0.0),
    scales=(2.0, 1.0, 4.0),
    fills=(10.0, 0.0, None),
    signed_log1p=(False, False, True),
    intercept=-2.0,
)


DECLARED = tuple(Point(feature, "amount") for feature in FEATURES)


APPROVED = {"income_amount": (5.0, 12.5, 30.0), "n_late_90d": (0.0, 0.0, 2.0)}


def sample(rows: int = 400, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return np.column_stack([draw.normal(10, 3, rows), draw.poisson(1, rows), draw.normal(0, 100, rows)]).astype(np.float32)


@pytest.fixture(scope="module")
def spec() -> BundleSpec:
    """Return a joined model: coefficients and trees, calibrated."""
    x = sample()
    booster = XGBClassifier(n_estimators=20, max_depth=3, random_state=0, n_jobs=1).fit(x, x[:, 1] - x[:, 0] / 10 > 0)
    trees = dataclasses.replace(convert_estimator(booster, FEATURES).component, weight=0.5)
    return BundleSpec(
        name="finrisk-loan-default",
        domain="loan_default",
        source="simulator",
        features=FEATURES,
        components=(LINEAR, trees),
        intercept=0.25,
        calibration=Calibration("beta", "logit", a=0.9, b=1.1, c=-0.2),
        thresholds={"decline": 0.4},
        metrics={"auc": 0.8},
        golden_rows=x[:24],
        seed=7,
        data_sha256="d" * 64,
        code_sha256="c" * 64,
        training_window=("2024-01-01", "2024-12-31"),
        libraries={"xgboost": "3"},
        reference=(0.1, 0.2, 0.3),
        windows=tuple(to_json(DECLARED)),
    )


def test_a_bundle_comes_back_as_it_was_written(tmp_path: Path, spec: BundleSpec) -> None:
    version = write(tmp_path / "bundle", spec)
    bundle = Bundle.load(tmp_path / "bundle", version=version)
    assert bundle.version == version == hashlib.sha256((tmp_path / "bundle" / "bundle.json").read_bytes()).hexdigest()[:12]
    assert bundle.thresholds.items() >= spec.thresholds.items()
    for name in ("name", "domain", "source", "features", "metrics", "reference", "calibration", "training_window"):
        assert getattr(bundle, name) == getattr(spec, name)
    assert from_json(bundle.windows) == DECLARED


def test_the_curves_of_scores_and_losses_come_back(tmp_path: Path, spec: BundleSpec) -> None:
    curves = draw_score_curve([0.9, 0.2], [True, False], 3), draw_score_curve([41.5, 0.25], None, 3)
    write(tmp_path / "b", dataclasses.replace(spec, score_curve=curves[0], loss_curve=curves[1]))
    bundle = Bundle.load(tmp_path / "b")
    assert (bundle.score_curve, bundle.loss_curve) == curves
    write(tmp_path / "without", spec)
    assert Bundle.load(tmp_path / "without").loss_curve is None


def test_a_bundle_without_windows_is_as_good_for_a_client_that_sends_the_features(tmp_path: Path, spec: BundleSpec) -> None:
    write(tmp_path / "b", dataclasses.replace(spec, windows=()))
    rewrite(tmp_path / "b", lambda document: document.pop("windows"))
    assert Bundle.load(tmp_path / "b").windows == ()


def test_the_same_spec_gives_the_same_bytes(tmp_path: Path, spec: BundleSpec) -> None:
    shuffled = dataclasses.replace(spec, golden_rows=spec.golden_rows.copy(), thresholds={"decline": np.float64(0.4)})
    assert write(tmp_path / "one", spec) == write(tmp_path / "two", shuffled)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    assert write(tmp_path / "three", dataclasses.replace(spec, seed=8)) != write(tmp_path / "one", spec)


def test_without_xgboost_many_rows_score_as_with_it(tmp_path: Path, spec: BundleSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's container has none."""
    write(tmp_path / "b", spec)
    rows = sample(2_500, seed=4)
    with_it = Bundle.load(tmp_path / "b").margin(rows)
    monkeypatch.setitem(sys.modules, "xgboost", None)

    assert np.array_equal(Bundle.load(tmp_path / "b").margin(rows), with_it)


def test_base_and_contributions_add_up_to_the_margin(tmp_path: Path, spec: BundleSpec) -> None:
    write(tmp_path / "b", spec)
    bundle, rows = Bundle.load(tmp_path / "b"), sample(10_000, seed=3)
    rows[::7, 1] = np.nan
    scores = bundle.score(rows)
    assert np.abs(scores.base + scores.contributions.sum(axis=1) - scores.margin).max() < 1e-12
    assert (scores.margin == bundle.margin(rows)).all()
    assert (scores.probability == bundle.probability(rows)).all()
    one_by_one = np.concatenate([bundle.score(rows[at : at + 1]).margin for at in range(50)])
    np.testing.assert_allclose(one_by_one, scores.margin[:50], rtol=1e-14)
    assert scores.contributions.shape == rows.shape


def test_a_linear_component_by_hand() -> None:
    spec = BundleSpec("n", "d", "s", FEATURES, (LINEAR,), sample(2), 0, "", "")
    scores = Bundle(spec, "").score(np.array([[12.0, np.nan, math.e - 1]], np.float32))
    np.testing.assert_allclose(scores.contributions, [[-1.0, -0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(scores.margin, [-3.0], rtol=1e-6)
    np.testing.assert_allclose(scores.probability, [1 / (1 + math.exp(3))], rtol=1e-6)


def test_a_row_of_a_linear_component_has_the_same_bits_alone_and_among_thousands() -> None:
    bundle, rows = Bundle(BundleSpec("n", "d", "s", FEATURES, (LINEAR,), sample(2), 0, "", ""), ""), sample(5_000)
    scores, alone = bundle.score(rows), bundle.score(rows[4_000:4_001])
    assert scores.margin[4_000] == alone.margin[0] and np.array_equal(scores.contributions[4_000], alone.contributions[0])
    assert np.array_equal(bundle.margin(rows), scores.margin)


@pytest.mark.parametrize(
    ("calibration", "margin", "probability"),
    [
        (Calibration("none", "logit"), 0.0, 0.5),
        (Calibration("none", "identity"), 0.3, 0.3),
        (Calibration("beta", "logit"), 1.0, 1 / (1 + math.exp(-1))),
        (Calibration("beta", "identity"), 0.3, 0.3),
        (Calibration("beta", "identity", a=2.0, b=1.0, c=0.0), 0.5, 1 / 3),
        (Calibration("exp2", "identity"), -1.0, 0.5),
        (Calibration("none", "logit"), -1000.0, 0.0),
    ],
)
def test_calibrations(calibration: Calibration, margin: float, probability: float) -> None:
    assert float(calibration.apply(margin)) == pytest.approx(probability, abs=1e-12)


def test_a_row_is_made_by_name(tmp_path: Path, spec: BundleSpec) -> None:
    bundle = Bundle(spec, "")
    row = bundle.row({"balance_amount": -3.5, "income_amount": None})
    assert row.dtype == np.float32
    np.testing.assert_array_equal(row, [np.nan, np.nan, -3.5])
    with pytest.raises(ValueError, match="salary: not a feature"):
        bundle.row({"salary": 1.0})
    with pytest.raises(ValueError, match="n_late_90d: the value is infinite"):
        bundle.row({"n_late_90d": 1e39})


def test_rows_that_have_no_score_are_refused(spec: BundleSpec) -> None:
    bundle = Bundle(spec, "")
    with pytest.raises(ValueError, match="takes \\(n, 3\\)"):
        bundle.score(np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match="n_late_90d: a value is infinite"):
        bundle.score(np.array([[0, np.inf, 0]], np.float32))
    with pytest.raises(ValueError, match="missing value of balance_amount"):
        bundle.score(np.array([[0, 0, np.nan]], np.float32))
    assert bundle.score(np.zeros((0, 3), np.float32)).margin.shape == (0,)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = folder / "bundle.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def change_golden(folder: Path) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    golden["probability"][3] += 1e-4
    content = json.dumps(golden).encode()
    (folder / "golden.json").write_bytes(content)
    rewrite(folder, lambda document: document["files"].update({"golden.json": hashlib.sha256(content).hexdigest()}))


def link_outside(folder: Path) -> None:
    (folder / "trees-1.json").rename(folder.parent / "elsewhere.json")
    (folder / "trees-1.json").symlink_to(folder.parent / "elsewhere.json")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no manifest": (lambda f: (f / "bundle.json").unlink(), "bundle.json: the file is missing"),
    "not JSON": (lambda f: (f / "bundle.json").write_text("{"), "bundle.json: is not JSON"),
    "no model": (lambda f: (f / "trees-1.json").unlink(), "trees-1.json: the file is missing"),
    "changed model": (lambda f: (f / "trees-1.json").open("a").write(" "), "trees-1.json: its SHA-256"),
    "another format": (lambda f: rewrite(f, lambda d: d.update(format=99)), "format 99 is unknown"),
    "no features": (lambda f: rewrite(f, lambda d: d.pop("features")), "'features' is missing"),
    "fewer features": (lambda f: rewrite(f, lambda d: d["features"].pop()), "bundle.json: .* 2 features"),
    "windows of other features": (lambda f: rewrite(f, lambda d: d["windows"].reverse()), "bundle.json: its windows do not declare"),
    "windows that are none": (lambda f: rewrite(f, lambda d: d.update(windows=[1, 2, 3])), "bundle.json: .*int"),
    "unknown field": (lambda f: rewrite(f, lambda d: d["calibration"].update(z=1)), "bundle.json: .*z"),
    "unknown kind": (lambda f: rewrite(f, lambda d: d["components"][0].update(kind="pickle")), "kind 'pickle' is unknown"),
    "unhashed file": (lambda f: rewrite(f, lambda d: d["files"].pop("trees-1.json")), "'trees-1.json' is not among"),
    "path outside": (lambda f: rewrite(f, lambda d: d["files"].update({"../x.json": "0"})), "'../x.json' lies outside"),
    "absolute path": (lambda f: rewrite(f, lambda d: d["files"].update({"/etc/hosts": "0"})), "'/etc/hosts' lies outside"),
    "link outside": (link_outside, "'trees-1.json' lies outside"),
    "changed threshold of the model": (lambda f: rewrite(f, lambda d: d.update(intercept=0.3)), "golden.json: row 0 has margin"),
    "changed golden row": (change_golden, "golden.json: row 3 has margin"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_bundle_is_refused_with_the_file_and_the_reason(tmp_path: Path, spec: BundleSpec, name: str) -> None:
    damage, message = DAMAGE[name]
    write(tmp_path / "bundle", spec)
    damage(tmp_path / "bundle")
    with pytest.raises(BundleError, match=message):
        Bundle.load(tmp_path / "bundle")


def test_another_version_than_asked_for_is_refused(tmp_path: Path, spec: BundleSpec) -> None:
    version = write(tmp_path / "b", spec)
    write(tmp_path / "b", dataclasses.replace(spec, thresholds={"decline": 0.9}))
    with pytest.raises(BundleError, match=f"not {version} as requested"):
        Bundle.load(tmp_path / "b", version=version)


def test_writing_leaves_other_content_alone(tmp_path: Path, spec: BundleSpec) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "letter.txt").write_text("dear")
    with pytest.raises(BundleError, match="not a bundle"):
        write(tmp_path / "letters", spec)
    assert [path.name for path in tmp_path.rglob("*")] == ["letters", "letter.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": FEATURES[:1] * 3}, "named once"),
        ({"components": ()}, "needs a component"),
        ({"golden_rows": sample(0)}, "golden rows"),
        ({"components": (dataclasses.replace(LINEAR, means=(0.0,)),)}, "means has 1 entries for 3 features"),
        ({"components": (dataclasses.replace(LINEAR, scales=(1.0, 0.0, 1.0)),)}, "scales must be above zero"),
        ({"windows": tuple(to_json(DECLARED[:2]))}, "windows do not declare its features"),
        ({"metrics": {"auc": math.nan}}, "auc is nan"),
        ({"intercept": math.inf}, "finite numbers"),
    ],
)
def test_a_senseless_spec_is_not_written(tmp_path: Path, spec: BundleSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        write(tmp_path / "b", dataclasses.replace(spec, **change))
    assert not (tmp_path / "b").exists()


def test_threads_share_a_bundle(spec: BundleSpec) -> None:
    bundle, rows = Bundle(spec, ""), sample(64, seed=5)
    expected = bundle.score(rows)
    with ThreadPoolExecutor(8) as pool:
        scores_by_row = list(pool.map(lambda at: bundle.score(rows[at % 64 : at % 64 + 1]), range(640)))
    for at, scores in enumerate(scores_by_row):
        np.testing.assert_allclose(scores.contributions[0], expected.contributions[at % 64], rtol=1e-12)
        np.testing.assert_allclose(scores.margin[0], expected.margin[at % 64], rtol=1e-14)


def test_importance_and_those_just_approved(spec: BundleSpec) -> None:
    bundle, rows = Bundle(spec, ""), sample(300, seed=6)
    values = bundle.score(rows).contributions
    table = explain.rank_features(bundle, values)
    assert [item.mean_absolute for item in table] == sorted(np.abs(values).mean(axis=0), reverse=True)
    assert sum(item.share for item in table) == pytest.approx(1)
    probability = bundle.probability(rows)
    cutoff = float(np.median(probability))
    riskiest = np.argsort(-np.where(probability < cutoff, probability, -1))[:10]
    assert explain.mean_just_approved(bundle, rows, cutoff, nearest=10) == tuple(values[riskiest].mean(axis=0))
    with pytest.raises(ValueError, match="just approved"):
        explain.mean_just_approved(bundle, rows, 0.0)


FLAT = Linear((0.0, 0.1, 0.0), (0.0,) * 3, (1.0,) * 3, (1.0, 0.0, 0.0), (False,) * 3, intercept=0.5)


@pytest.fixture
def with_amount(spec: BundleSpec) -> BundleSpec:
    """Return the joined model with an amount of half an income, and a tenth more for each late payment."""
    spread = dataclasses.replace(FLAT, coefficients=(0.0, 0.0, 0.0), intercept=math.log(2.0))
    return dataclasses.replace(spec, amount=Amount(FLAT, "income_amount", low=-0.5, high=0.25, spread=spread))


def test_an_amount_by_hand(tmp_path: Path, with_amount: BundleSpec) -> None:
    write(tmp_path / "b", with_amount)
    bundle = Bundle.load(tmp_path / "b")
    rows = np.array([[1000, 2, 0], [np.nan, 2, 0], [-5, 0, 0]], np.float32)
    expected, low, high = bundle.amount(rows)
    np.testing.assert_allclose(expected, [700, np.nan, np.nan], rtol=1e-6)  # without a scale above 0 there is no amount
    np.testing.assert_allclose((low[0], high[0]), (1000 * (0.7 - 0.5 * 2), 1000 * (0.7 + 0.25 * 2)), rtol=1e-6)
    assert bundle.has_amount
    assert bundle.amount(rows[:0]).expected.shape == (0,)


def test_a_bundle_without_an_amount_says_none(tmp_path: Path, spec: BundleSpec) -> None:
    write(tmp_path / "b", spec)
    assert "amount" not in json.loads((tmp_path / "b" / "bundle.json").read_text())
    bundle = Bundle.load(tmp_path / "b")
    assert not bundle.has_amount
    assert np.isnan(bundle.amount(sample(3))).all()


def test_an_amount_of_trees_is_hashed_and_golden(tmp_path: Path, with_amount: BundleSpec) -> None:
    amount = with_amount.amount
    assert amount is not None
    trees = dataclasses.replace(with_amount.components[1], weight=1.0)
    version = write(tmp_path / "b", dataclasses.replace(with_amount, amount=dataclasses.replace(amount, component=trees, spread=None)))
    assert (tmp_path / "b" / "trees-amount.json").is_file()
    rows = sample(20, seed=9)
    _, low, high = Bundle.load(tmp_path / "b", version=version).amount(rows)
    np.testing.assert_allclose(high - low, 0.75 * rows[:, 0], rtol=1e-6)
    rewrite(tmp_path / "b", lambda document: document["amount"].update(high=0.5))
    with pytest.raises(BundleError, match="the high amounts differ"):
        Bundle.load(tmp_path / "b")
    (tmp_path / "b" / "trees-amount.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match=r"trees-amount\.json: its SHA-256"):
        Bundle.load(tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "salary"}, "the amount's scale 'salary' is no feature"),
        ({"low": 0.1}, "low <= 0 <= high"),
        ({"level": 1.0}, "the level of the amount's interval"),
        ({"spread": dataclasses.replace(FLAT, means=(0.0,))}, "spread of the amount: means has 1 entries"),
    ],
)
def test_a_senseless_amount_is_not_written(tmp_path: Path, with_amount: BundleSpec, change: dict[str, Any], message: str) -> None:
    assert with_amount.amount is not None
    with pytest.raises(BundleError, match=message):
        write(tmp_path / "b", dataclasses.replace(with_amount, amount=dataclasses.replace(with_amount.amount, **change)))


def test_it_carries_themes_and_what_approved_applicants_have(spec: BundleSpec, tmp_path: Path) -> None:
    features = tuple(dataclasses.replace(feature, theme="money") for feature in FEATURES)
    write(tmp_path / "bundle", dataclasses.replace(spec, features=features, windows=(), approved=APPROVED))
    loaded = Bundle.load(tmp_path / "bundle")
    assert [feature.theme for feature in loaded.features] == ["money"] * 3
    assert loaded.approved == APPROVED


def test_a_bundle_of_before_there_were_themes_is_still_read(spec: BundleSpec, tmp_path: Path) -> None:
    write(tmp_path / "bundle", spec)
    manifest = tmp_path / "bundle" / "bundle.json"
    document = json.loads(manifest.read_text())
    document["features"] = [{key: value for key, value in feature.items() if key != "theme"} for feature in document["features"]]
    manifest.write_text(json.dumps(document))
    loaded = Bundle.load(tmp_path / "bundle")
    assert loaded.features == FEATURES and loaded.approved == {}


@pytest.mark.parametrize("values", [(1.0,), (2.0, 1.0), (0.0, math.inf)])
def test_quantiles_that_are_none_are_refused(spec: BundleSpec, tmp_path: Path, values: tuple[float, ...]) -> None:
    with pytest.raises(BundleError, match="ascending order"):
        write(tmp_path / "bundle", dataclasses.replace(spec, approved={"income_amount": values}))
