"""Tests of the scorecard: monotone bins, few characteristics, and equal points as table, SQL, JSON and bundle component."""

import csv
import io
import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import duckdb
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from finrisk_assets.modelling.training import binning as binning_module
from finrisk_assets.modelling.training import calibrate, candidates, convert, scorecard
from finrisk_assets.modelling.training.convert import convert_estimator
from finrisk_assets.modelling.training.scorecard import FACTOR, OFFSET, Scorecard, ScorecardClassifier
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleSpec, Rows
from schemas.features import Feature

NAMES = ("income", "n_late", "bureau", "noise")
MONOTONE = (-1, 1, 0, 0)
FEATURES = tuple(Feature(name, "1", name) for name in NAMES)
CODE = -999.0


def sample(n: int = 4000, seed: int = 0) -> tuple[Rows, NDArray[np.int64]]:
    """Return loans whose risk falls with income, rises with late payments, and is high where the bureau's score is missing."""
    draw = np.random.default_rng(seed)
    income, late, bureau = draw.normal(size=n), draw.poisson(0.5, n).astype(float), draw.normal(size=n)
    missing, coded = draw.random(n) < 0.1, draw.random(n) < 0.06
    risk = -1.8 - 0.8 * income + 0.7 * late - 0.5 * np.where(missing, -2.0, np.where(coded, 3.0, bureau))
    bureau[coded] = CODE
    bureau[missing] = np.nan
    labels = (draw.random(n) < 1 / (1 + np.exp(-risk))).astype(np.int64)
    return np.column_stack([income, late, bureau, draw.normal(size=n)]).astype(np.float32), labels


@pytest.fixture(scope="module")
def card() -> Scorecard:
    rows, labels = sample()
    return scorecard.fit(rows, labels, NAMES, MONOTONE, codes={"bureau": (CODE,)}, binning="pooled")


def boundary_rows(card: Scorecard) -> Rows:
    """Return rows with values just below, at and above every cut and code, far away, and missing."""
    rows, _ = sample(400, seed=1)
    variants = [rows]
    for one in card.characteristics:
        for cut in (*one.cuts, *one.codes, -1e30, 1e30, math.nan):
            at = np.float32(cut)
            for value in (np.nextafter(at, np.float32(-np.inf)), at, np.nextafter(at, np.float32(np.inf))):
                row = rows[:1].copy()
                row[0, NAMES.index(one.name)] = value
                variants.append(row)
    return np.concatenate(variants)


def by_name(row: NDArray[np.float32]) -> dict[str, float | None]:
    return dict(zip(NAMES, row.tolist(), strict=True))


def bundle(card: Scorecard, golden: Rows) -> Bundle:
    converted = convert.convert_scorecard(card, FEATURES)
    parts = {"features": FEATURES, "components": (converted.component,), "calibration": converted.uncalibrated, "golden_rows": golden}
    return Bundle(BundleSpec("test", "test", "test", seed=0, data_sha256="", code_sha256="", **parts), "")  # type: ignore[arg-type]


@pytest.mark.parametrize("binning", ["optimal", "pooled"])
@pytest.mark.parametrize("direction", [1, -1, 0])
def test_the_rate_of_bads_only_rises_or_only_falls_over_large_bins(binning: str, direction: int) -> None:
    rows, labels = sample()
    values = rows[:, 0].astype(float) * (-1 if direction == 1 else 1)
    cut = binning_module.find_optimal_cuts if binning == "optimal" else binning_module.find_pooled_cuts
    place = np.searchsorted(cut(values, labels, direction, 200), values, side="right")
    n, bad = np.bincount(place), np.bincount(place, labels)
    steps = np.diff(bad / n)
    assert len(n) >= 4
    assert (steps > 0).all() if direction == 1 else (steps < 0).all()
    assert n.min() >= 200


def test_a_direction_that_the_data_contradict_leaves_one_bin() -> None:
    rows, labels = sample()
    assert len(binning_module.find_pooled_cuts(rows[:, 0].astype(float), labels, 1, 200)) == 0


def test_what_tells_nothing_stays_off_the_card_and_every_coefficient_has_the_same_sign(card: Scorecard) -> None:
    assert {one.name for one in card.characteristics} == {"income", "n_late", "bureau"}
    assert all(one.coefficient > 0 for one in card.characteristics)


def test_few_remain_where_few_are_allowed() -> None:
    rows, labels = sample()
    few = scorecard.fit(rows, labels, NAMES, MONOTONE, codes={"bureau": (CODE,)}, binning="pooled", most=2)
    assert len(few.characteristics) == 2


def test_of_two_features_that_tell_the_same_one_is_taken() -> None:
    rows, labels = sample()
    twice = np.column_stack([rows[:, 0], rows[:, 0] * 2 + 1, rows[:, 1]])
    card = scorecard.fit(twice, labels, ("income", "same", "n_late"), (-1, -1, 1), binning="pooled")
    assert len(card.characteristics) == 2


def test_missing_values_and_codes_have_bins_of_their_own(card: Scorecard) -> None:
    (bureau,) = (one for one in card.characteristics if one.name == "bureau")
    rates = dict(zip(bureau.describe_bins(), bureau.event_rates, strict=True))
    points = dict(zip(bureau.describe_bins(), bureau.points, strict=True))
    rows, labels = sample()
    assert rates["missing"] == pytest.approx(labels[np.isnan(rows[:, 2])].mean())
    assert rates["code -999"] == pytest.approx(labels[rows[:, 2] == CODE].mean())
    assert points["missing"] < min(bureau.points[: len(bureau.cuts) + 1])  # the riskiest of all, by the sample
    assert points["code -999"] == max(bureau.points)


def test_a_bin_that_nobody_was_in_weighs_nothing(card: Scorecard) -> None:
    (income,) = (one for one in card.characteristics if one.name == "income")
    assert (income.points[-1], income.shares[-1], income.event_rates[-1]) == (0, 0.0, None)


def test_twenty_points_double_the_odds_and_600_stand_for_50_to_1() -> None:
    def odds(points: int) -> float:
        bad = Scorecard(points, ()).probability({})
        return (1 - bad) / bad

    assert odds(600) == pytest.approx(50)
    assert odds(620) == pytest.approx(100)


def test_the_mean_probability_is_the_rate(card: Scorecard) -> None:
    rows, labels = sample()
    assert (1 / (1 + np.exp(-card.margin(rows, NAMES)))).mean() == pytest.approx(labels.mean(), abs=0.01)


def test_the_table_adds_up_to_the_points(card: Scorecard) -> None:
    applicant = {"income": -9.0, "n_late": 0.0, "bureau": None}
    lines = card.to_table()
    first = {one.name: one.describe_bins()[0] for one in card.characteristics} | {"bureau": "missing"}
    assert card.base_points + sum(line.points for line in lines if first[line.feature] == line.bin) == card.points(applicant)
    for name in first:
        assert sum(line.share for line in lines if line.feature == name) == pytest.approx(1)


def test_one_row_and_many_and_the_component_of_a_bundle_say_the_same(card: Scorecard) -> None:
    rows = boundary_rows(card)
    alone = np.array([(OFFSET - card.points(by_name(row))) / FACTOR for row in rows])
    served = bundle(card, rows[:3])
    np.testing.assert_allclose(card.margin(rows, NAMES), alone, rtol=0, atol=1e-12)
    np.testing.assert_allclose(served.margin(rows), alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(served.probability(rows), [card.probability(by_name(row)) for row in rows], rtol=0, atol=1e-6)


def test_a_component_with_codes_next_to_a_cut_and_to_each_other_is_exact(card: Scorecard) -> None:
    one = card.characteristics[0]
    crowded = replace(
        one,
        name="income",
        cuts=binning_module.move_between_floats(np.array([-1.0, 0.0, 1.0])),
        codes=(-1.0, 0.0, float(np.nextafter(np.float32(1), np.float32(2))), 2.0, float(np.nextafter(np.float32(2), np.float32(3)))),
        points=(1, 20, 300, 4, 50, 600, 7, 80, 90, -10),
        woe=(0.0,) * 10,
        shares=(0.1,) * 10,
        event_rates=(0.1,) * 10,
    )
    small = Scorecard(500, (crowded,))
    rows = boundary_rows(small)
    alone = [(OFFSET - small.points(by_name(row))) / FACTOR for row in rows]
    np.testing.assert_allclose(bundle(small, rows[:3]).margin(rows), alone, rtol=0, atol=5e-6)  # margins of 50: XGBoost's 32 bits


def test_what_a_feature_did_is_its_points_beside_the_average_ones(card: Scorecard) -> None:
    rows, _ = sample()
    scores = bundle(card, rows[:3]).score(rows[:50])
    np.testing.assert_allclose(scores.base + scores.contributions.sum(axis=1), scores.margin, atol=1e-9)
    for one in card.characteristics:
        mean = np.dot(one.points, one.shares)
        alone = replace(card, base_points=0, characteristics=(one,))
        expected = [-(alone.points(by_name(row)) - mean) / FACTOR for row in rows[:50]]
        np.testing.assert_allclose(scores.contributions[:, NAMES.index(one.name)], expected, atol=1e-5)
    assert np.abs(scores.contributions[:, NAMES.index("noise")]).max() < 1e-12


def test_its_sql_gives_the_same_points_in_duckdb(card: Scorecard) -> None:
    rows = boundary_rows(card)
    with duckdb.connect() as engine:
        engine.execute(f"create table applicants (id integer, {', '.join(f'{name} double' for name in NAMES)})")
        applicants = [[at, *(None if value != value else value for value in row.tolist())] for at, row in enumerate(rows)]
        engine.executemany("insert into applicants values (?, ?, ?, ?, ?)", applicants)
        scored = engine.execute(card.to_sql("applicants", "id") + "order by id").fetchall()
    assert [points for _, points, _ in scored] == [card.points(by_name(row)) for row in rows]
    np.testing.assert_allclose([bad for *_, bad in scored], [card.probability(by_name(row)) for row in rows], rtol=1e-12)


def test_a_name_that_sql_would_have_to_quote_is_refused(card: Scorecard) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        card.to_sql("applicants; drop table loans", "id")


def test_a_value_falls_in_the_same_bin_before_and_after_it_is_rounded_to_32_bits() -> None:
    cuts = binning_module.move_between_floats(np.array([0.35, 1.0, 0.0]))
    for value in (0.35, 1.0 - 1e-12, 1.0 + 1e-12, 1.0, 0.0, -1e-17):
        wide, narrow = (binning_module.bin_positions(np.array([v]), cuts, ()) for v in (value, float(np.float32(value))))
        assert wide == narrow, value
    assert all(low < high for low, high in pairwise(cuts))


def test_a_card_is_read_and_used_without_a_training_library(card: Scorecard) -> None:
    program = (
        "import sys; from finrisk_assets.modelling.training.scorecard import Scorecard; card = Scorecard.from_json(sys.stdin.read());"
        "print(card.points({'income': 1.0, 'n_late': 2.0}));"
        "print([m for m in ('sklearn', 'xgboost', 'pandas', 'optbinning', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], input=card.to_json(), capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [str(card.points({"income": 1.0, "n_late": 2.0})), "[]"]
    assert Scorecard.from_json(card.to_json()) == card


def test_a_card_on_another_scale_is_refused(card: Scorecard) -> None:
    with pytest.raises(ValueError, match="scale"):
        Scorecard.from_json(card.to_json().replace('"pdo": 20', '"pdo": 40'))
    with pytest.raises(ValueError, match="not a scorecard"):
        Scorecard.from_json('{"kind": "bundle", "format": 1}')


def test_it_is_fitted_calibrated_and_compared_as_the_other_candidates_are() -> None:
    rows, labels = sample()
    model = clone(ScorecardClassifier(NAMES, MONOTONE, binning="pooled")).fit(rows[:3000], labels[:3000])
    score, link = candidates.compute_margin(model, rows[3000:])
    assert link == "logit"
    np.testing.assert_allclose(model.predict_proba(rows[3000:])[:, 1], 1 / (1 + np.exp(-score)))
    fitted = calibrate.fit(score, labels[3000:], link)
    assert fitted.log_loss_after < 0.95 * -(labels.mean() * math.log(labels.mean()) + (1 - labels.mean()) * math.log(1 - labels.mean()))


def test_where_nothing_tells_anything_all_have_the_same_points() -> None:
    labels = np.arange(1000) % 4 == 0
    model = ScorecardClassifier(("constant",), (0,), binning="pooled").fit(np.zeros((1000, 1), np.float32), labels)
    assert model.card_.characteristics == ()
    np.testing.assert_allclose(model.predict_proba(np.ones((2, 1), np.float32))[:, 1], 0.25, atol=0.01)


def test_it_is_turned_into_a_component_as_the_other_candidates_are() -> None:
    rows, labels = sample()
    model = ScorecardClassifier(NAMES, MONOTONE, binning="pooled").fit(rows, labels)
    converted = convert_estimator(model, FEATURES, boundary_rows(model.card_))
    assert converted.uncalibrated.link == "logit"
    with pytest.raises(ValueError, match="leave out the steps before it"):
        convert_estimator(Pipeline([("fill", SimpleImputer().fit(rows)), ("model", model)]), FEATURES)


def test_its_files_say_the_same_as_the_card(card: Scorecard) -> None:
    files = {name: content.decode() for name, content in scorecard.render_files(card, "analytics.loans", "loan_id").items()}
    assert Scorecard.from_json(files["scorecard.json"]) == card
    lines = list(csv.DictReader(io.StringIO(files["scorecard.csv"])))
    page = [line.split(" | ") for line in files["scorecard.md"].splitlines() if line.startswith("| ") and "characteristic" not in line]
    assert [int(line["points"]) for line in lines] == [int(cells[2]) for cells in page] == [line.points for line in card.to_table()]
    assert f"**{card.base_points}**" in files["scorecard.md"]
    rows, _ = sample(300, seed=5)
    with duckdb.connect() as connection:
        connection.register("frame", pd.DataFrame(rows.astype(float), columns=list(NAMES)).assign(loan_id=range(300)))
        connection.execute("create schema analytics")
        connection.execute("create table analytics.loans as select * replace (if(isnan(bureau), null, bureau) as bureau) from frame")
        scored = connection.execute(files["scorecard.sql"]).df().sort_values("loan_id")
    assert scored.points.tolist() == [card.points(by_name(row)) for row in rows]


def test_the_same_data_give_the_same_card() -> None:
    rows, labels = sample()
    one, other = (scorecard.fit(rows, labels, NAMES, MONOTONE, binning="pooled").to_json() for _ in range(2))
    assert one == other


def test_what_cannot_be_fitted_says_why(card: Scorecard) -> None:
    rows, labels = sample(1000)
    with pytest.raises(ValueError, match="all labels are the same"):
        scorecard.fit(rows, np.zeros(1000), NAMES, MONOTONE, binning="pooled")
    with pytest.raises(ValueError, match="rows have shape"):
        scorecard.fit(rows, labels[:10], NAMES, MONOTONE, binning="pooled")
    with pytest.raises(ValueError, match="nothing to put on a scorecard"):
        scorecard.fit(np.zeros((1000, 1), np.float32), labels, ("constant",), (0,), binning="pooled")
    with pytest.raises(ValueError, match="the scorecard needs"):
        convert.convert_scorecard(card, FEATURES[3:])
