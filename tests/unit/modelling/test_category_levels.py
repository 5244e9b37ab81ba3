"""Tests of categories: weights of levels that no row's own outcome is in, and bundles that score texts as they were trained."""

import json
from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.loan_default.model import candidates
from finrisk_assets.modelling.evaluation.leakage import lint
from finrisk_assets.modelling.training.binning import MIN_LEVEL_ROWS, PRIOR_ROWS, cross_fit_levels, fit_levels
from finrisk_assets.modelling.training.candidates import compute_margin, convert_model, number_levels, to_matrix
from finrisk_assets.modelling.training.scorecard import Scorecard
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle, write
from finrisk_assets.scoring.reasons import find_reasons
from finrisk_assets.scoring.recourse import AllowedChange, RecourseSearch, below_threshold
from finrisk_assets.scoring.spec import BundleSpec
from schemas.features import Feature

AREA = Feature("shop_area", "", "Shop area", is_category=True)
INCOME = Feature("income", "currency", "Income")
N = 900


@pytest.fixture(scope="module")
def shops() -> pd.DataFrame:
    """Return 900 loans at forty shop areas, of which the second twenty are rare, and some are missing."""
    draw = np.random.default_rng(5)
    areas = [str(number) for number in range(1, 41)]
    risk = dict(zip(areas, draw.normal(0, 1.2, 40), strict=True))
    area = draw.choice(areas, N, p=np.r_[np.full(20, 0.045), np.full(20, 0.005)])
    bad = draw.random(N) < 1 / (1 + np.exp(1 - np.array([risk[name] for name in area])))
    texts = np.where(draw.random(N) < 0.08, None, area.astype(object))
    people = [f"p{number // 2}" for number in range(N)]
    return pd.DataFrame({"shop_area": texts, "income": draw.gamma(2, 1000, N), "bad": bad, "customer_id": people})


@pytest.fixture(scope="module")
def fitted(shops):
    feature, weights = fit_levels(AREA, shops.shop_area, shops.bad)
    return feature, weights, to_matrix(shops, [feature, INCOME])


def test_a_weight_is_the_logarithm_of_the_shares_drawn_towards_the_rate_of_all(shops, fitted):
    feature, weights, _ = fitted
    level = feature.levels[0]
    rows, rate = shops[shops.shop_area == level].bad, shops.bad.mean()
    shrunk = (rows.sum() + PRIOR_ROWS * rate) / (len(rows) + PRIOR_ROWS)
    assert weights.weights[0] == pytest.approx(np.log(rate / (1 - rate)) - np.log(shrunk / (1 - shrunk)))
    assert list(weights.weights) == sorted(weights.weights, reverse=True)
    assert weights.rows[0] == len(rows) >= MIN_LEVEL_ROWS


def test_rare_levels_share_a_bin_and_missing_values_have_their_own(shops, fitted):
    feature, weights, _ = fitted
    counts = shops.shop_area.value_counts()
    rare = [place for place, level in enumerate(feature.levels) if counts[level] < MIN_LEVEL_ROWS]
    assert len(rare) > 5
    assert {weights.weights[place] for place in rare} == {weights.rare}
    numbers = number_levels(pd.Series([feature.levels[0], "never seen", None]), feature.levels).to_numpy(np.float32)
    assert weights.encode(numbers).tolist() == [np.float32(x) for x in (weights.weights[0], weights.rare, weights.missing)]
    assert weights.missing not in (weights.rare, 0.0)


def test_no_row_sees_the_outcome_of_its_own_person(shops, fitted):
    _, weights, rows = fitted
    column = cross_fit_levels(weights, rows[:, 0], shops.bad, shops.customer_id, seed=3)
    for person in ("p7", "p100", "p444"):
        own = (shops.customer_id == person).to_numpy()
        other = cross_fit_levels(weights, rows[:, 0], np.where(own, ~shops.bad, shops.bad), shops.customer_id, seed=3)
        assert (other[own] == column[own]).all()
        assert (other != column).any(), "the outcome counts in the weights of others"


def test_the_seed_alone_draws_the_parts(shops, fitted):
    _, weights, rows = fitted
    columns = [cross_fit_levels(weights, rows[:, 0], shops.bad, shops.customer_id, seed) for seed in (3, 3, 4)]
    assert (columns[0] == columns[1]).all()
    assert (columns[0] != columns[2]).any()


def spec_of(feature, weights, components, intercept, rows) -> BundleSpec:
    return BundleSpec(
        name="finrisk-loan-default", domain="loan_default", source="own", features=(feature, INCOME), components=components,
        intercept=intercept, golden_rows=rows[:16], seed=1, data_sha256="0", code_sha256="0", categories={"shop_area": weights},
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle_of(shops, fitted):
    """Return a function that trains a candidate by name, and returns it with its specification."""
    feature, weights, rows = fitted
    weighed = rows.copy()
    weighed[:, 0] = weights.encode(rows[:, 0])
    estimators = candidates((feature, INCOME), seed=1, n_rows=N)

    def train(name):
        estimator = estimators[name].fit(weighed, shops.bad.to_numpy(int))
        components, intercept = convert_model(estimator, (feature, INCOME), weighed)
        return estimator, spec_of(feature, weights, components, intercept, rows), weighed

    return train


@pytest.mark.parametrize("name", list(candidates((AREA, INCOME), seed=1, n_rows=N)))
def test_every_candidate_scores_texts_as_it_scores_their_weights(name, bundle_of, shops, tmp_path):
    estimator, spec, weighed = bundle_of(name)
    write(tmp_path / "bundle", spec)
    bundle = Bundle.load(tmp_path / "bundle")
    margin = compute_margin(estimator, weighed)[0]
    assert bundle.margin(to_matrix(shops, bundle.features)) == pytest.approx(margin, abs=1e-5)
    for place in range(0, 60, 7):
        row = bundle.row({"shop_area": shops.shop_area[place], "income": shops.income[place]})
        scores = bundle.score(row[None, :])
        assert scores.margin[0] == pytest.approx(margin[place], abs=1e-5)
        assert scores.base + scores.contributions.sum() == pytest.approx(scores.margin[0], abs=1e-9)


def test_the_table_of_levels_is_json_and_the_same_at_every_write(bundle_of, tmp_path):
    _, spec, _ = bundle_of("logistic_regression")
    versions = {write(tmp_path / name, spec) for name in ("one", "two")}
    assert len(versions) == 1
    document = json.loads((tmp_path / "one" / "bundle.json").read_text())
    assert document["features"][0]["levels"] == list(spec.features[0].levels)
    assert document["categories"]["shop_area"]["min_rows"] == MIN_LEVEL_ROWS
    assert Bundle.load(tmp_path / "one").categories == {0: spec.categories["shop_area"]}
    with pytest.raises(ValueError, match="needs the weights of its levels"):
        Bundle(replace(spec, categories={}), "")


def test_an_unseen_level_is_referred_or_decided_as_rare_as_the_policy_says(bundle_of, shops):
    from finrisk_assets.modelling.evaluation.explain import with_values

    _, spec, _ = bundle_of("logistic_regression")
    rows = to_matrix(shops, spec.features)
    rows[5, 0] = len(spec.features[0].levels)  # the validation window may have a level that training lacks
    bundle = Bundle(with_values(spec, rows, rows, group_name="others", is_safer_half=False), "")
    unseen = bundle.row({"shop_area": "never seen", "income": 900})
    doubt = bundle.find_doubt(unseen)
    assert doubt is not None
    assert doubt.text == "Outside what the model has seen: shop_area"
    assert bundle.score(np.stack([unseen, rows[0]])).doubts == [doubt, None]
    assert Bundle(spec, "").score(unseen[None, :]).doubts == [None], "a bundle that knows no values has no doubt"
    policy = default_policy()
    decides = policy.model_copy(update={"too_little_known": policy.too_little_known.model_copy(update={"outside_training": "decide"})})
    assert bundle.under(decides).find_doubt(unseen) is None
    rare = next(level for level, n in zip(spec.features[0].levels, spec.categories["shop_area"].rows, strict=True) if n < MIN_LEVEL_ROWS)
    assert bundle.margin(unseen[None, :]) == bundle.margin(bundle.row({"shop_area": rare, "income": 900})[None, :])
    assert bundle.find_doubt(bundle.row({"shop_area": rare, "income": 900})) is None


def test_a_reason_names_the_level(fitted):
    feature, _, _ = fitted
    number = feature.levels.index("3")
    told = {value: find_reasons([0.5], [value], [feature])[0].sentence for value in (float(number), float(len(feature.levels)), np.nan)}
    assert list(told.values()) == ["Shop area 3", "Shop area: one that training did not see", "Not known: shop area"]


def test_the_linter_takes_a_category_for_no_mean_of_outcomes(shops):
    frame = shops.assign(shop_area=number_levels(shops.shop_area, sorted(shops.shop_area.dropna().unique())))
    assert lint(frame, ["shop_area", "income"], "bad", group="customer_id", seed=1) == []
    rates = frame.assign(shop_area=frame.groupby("shop_area").bad.transform("mean"))
    assert "own_outcome" in [finding.rule for finding in lint(rates, ["shop_area", "income"], "bad", group="customer_id", seed=1)]


def test_a_card_of_points_reads_levels_in_every_form(bundle_of, shops):
    estimator, spec, weighed = bundle_of("scorecard")
    card = estimator.card_.with_levels(spec.features, spec.categories)
    margin = estimator.card_.margin(weighed, ["shop_area", "income"])
    odds = 600 - 20 / np.log(2) * np.log(50) - 20 / np.log(2) * margin
    texts = shops[["shop_area", "income"]].assign(income=weighed[:, 1])
    assert [card.points(row) for row in texts.to_dict("records")] == pytest.approx(odds)
    assert Scorecard.from_json(card.to_json()) == card
    engine = duckdb.connect()
    engine.register("loans", texts.assign(id=range(N)))
    points = engine.execute(f"SELECT points FROM ({card.to_sql('loans', 'id')}) ORDER BY id").fetchall()
    assert [row[0] for row in points] == pytest.approx(odds)
    bins = [line.bin for line in card.to_table() if line.feature == "shop_area"]
    named = [level for levels in bins for level in levels.split(", ")]
    assert sorted(named) == sorted(
        [*(level for level, n in zip(spec.features[0].levels, spec.categories["shop_area"].rows, strict=True) if n >= MIN_LEVEL_ROWS)]
        + ["missing", "any other"]
    )


def test_a_change_is_searched_for_a_row_with_a_level(bundle_of, shops):
    _, spec, weighed = bundle_of("logistic_regression")
    bundle = Bundle(spec, "")
    row = {"shop_area": spec.features[0].levels[-1], "income": float(shops.income.median())}
    before = float(bundle.probability(bundle.row(row)[None, :])[0])
    search = RecourseSearch(bundle, {"income": AllowedChange(None)}, weighed[:100], below_threshold(before - 1e-6))
    nearest = search.find_nearest(row)
    assert nearest.changes is not None
    assert [change.feature for change in nearest.changes] == ["income"]
    assert nearest.row["shop_area"] == row["shop_area"]
    assert nearest.probability < before
