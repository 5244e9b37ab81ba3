"""Differences between groups: figures with intervals, a verdict only where the sample allows one, and no word of law."""

from typing import Any

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation import fairness as fair
from finrisk_assets.modelling.evaluation.fairness import Bounds, FairnessFinding


def of(findings: list[FairnessFinding], group: str) -> FairnessFinding:
    (found,) = [one for one in findings if one.group == group]
    return found


def halves(n: int, first: float, second: float) -> tuple[np.ndarray, np.ndarray]:
    """Decisions on n people of group a and n of group b, of which these shares are selected."""
    chosen = [at < share * n for share in (first, second) for at in range(n)]
    return np.array(chosen), np.array(["a"] * n + ["b"] * n)


def test_the_ratio_is_that_of_the_selection_rates_to_the_most_favoured() -> None:
    found = fair.adverse_impact(*halves(1_000, 0.8, 0.4), seed=1)
    assert of(found, "a").verdict == "reference"
    b = of(found, "b")
    assert b.value is not None and b.value.value == pytest.approx(0.5) and b.rate == 0.4 and b.reference == "a"
    assert b.value.low < 0.5 < b.value.high < 0.8 and b.verdict == "speaks against"


def test_a_named_reference_is_compared_with_and_may_be_less_favoured() -> None:
    found = of(fair.adverse_impact(*halves(1_000, 0.8, 0.4), reference="b", seed=1), "a")
    assert found.value is not None and found.value.value == pytest.approx(2.0) and found.verdict == "supports"


def test_what_a_sample_cannot_tell_is_left_open() -> None:
    assert of(fair.adverse_impact(*halves(40, 0.5, 0.4), seed=1), "b").verdict == "leaves open"
    assert of(fair.adverse_impact(*halves(40_000, 0.5, 0.45), seed=1), "b").verdict == "supports"


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(5), 0
    group = np.repeat(["a", "b"], 400)
    for draw in range(200):
        selected = rng.random(800) < np.repeat([0.6, 0.45], 400)
        value = of(fair.adverse_impact(selected, group, reference="a", draws=400, seed=draw), "b").value
        assert value is not None
        held += value.low <= 0.75 <= value.high
    assert 0.90 <= held / 200 <= 0.99


def test_rows_of_one_person_are_one_draw() -> None:
    """The same hundred people, each ten times, tell no more than once."""
    selected, group = halves(100, 0.7, 0.5)
    people = np.arange(200)
    once = of(fair.adverse_impact(selected, group, seed=1), "b").value
    repeated = np.repeat(selected, 10), np.repeat(group, 10)
    tenfold = of(fair.adverse_impact(*repeated, people=np.repeat(people, 10), seed=1), "b").value
    naive = of(fair.adverse_impact(*repeated, seed=1), "b").value
    assert once is not None and tenfold is not None and naive is not None
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_a_small_group_is_named_and_not_judged() -> None:
    selected, group = halves(100, 0.7, 0.5)
    selected, group = np.append(selected, [True] * 5), np.append(group, ["c"] * 5)
    found = of(fair.adverse_impact(selected, group, seed=1), "c")
    assert (found.verdict, found.value, found.n) == ("too small", None, 5)
    assert found.reference == "a", "five people, all approved, are not what others are measured by"
    with pytest.raises(ValueError, match="too small"):
        fair.adverse_impact(selected, group, reference="c", seed=1)
    with pytest.raises(ValueError, match="no group"):
        fair.adverse_impact(selected, group, reference="d", seed=1)


def test_where_nobody_is_selected_there_is_no_ratio() -> None:
    found = fair.adverse_impact(*halves(100, 0.0, 0.0), seed=1)
    assert all(one.value is None for one in found)


def test_opportunity_is_of_those_who_deserve() -> None:
    """Half of b is selected as often as all of a; but of those who repaid, fewer."""
    n = 2_000
    group = np.repeat(["a", "b"], n)
    deserving = np.tile([True, False], n)
    selected = np.concatenate([deserving[:n], np.arange(n) % 4 == 0])
    found = fair.opportunity(selected, deserving, group, seed=1)
    a, b = of(found, "a"), of(found, "b")
    assert (a.n, a.rate, a.verdict) == (n // 2, 1.0, "reference")
    assert b.value is not None and b.value.value == pytest.approx(-0.5) and b.verdict == "speaks against"
    wide = fair.opportunity(selected, deserving, group, bound=0.6, seed=1)
    assert of(wide, "b").verdict == "supports"


def test_calibration_is_looked_at_in_every_group() -> None:
    n = 2_000
    labels = np.tile(np.arange(n) < 0.2 * n, 2)
    found = fair.calibration(labels, np.repeat([0.2, 0.35], n), np.repeat(["a", "b"], n))
    a, b = of(found, "a"), of(found, "b")
    assert a.value is not None and abs(a.value.value) < 1e-9 and a.verdict == "supports"
    assert b.value is not None and b.value.value == pytest.approx(0.15) and b.verdict == "speaks against"
    assert a.value.low < 0 < a.value.high


def test_everything_at_once_and_its_faults() -> None:
    rng = np.random.default_rng(9)
    n = 4_000
    group = rng.choice(["a", "b"], n)
    probability = np.clip(rng.beta(2, 8, n) + np.where(group == "b", 0.15, 0.0), 0, 1)
    labels = rng.random(n) < probability
    settings: dict[str, Any] = {"cutoffs": {"refer_from": 0.2, "refuse_from": 0.6}, "seed": 1}
    found = fair.fairness(labels, probability, {"region": group, "noise": rng.choice(["x", "y"], n)}, **settings)
    assert {(one.column, one.measure, one.cutoff) for one in found} == {
        (column, measure, cutoff)
        for column in ("region", "noise")
        for measure, cutoff in [
            ("adverse_impact_ratio", "refer_from"),
            ("adverse_impact_ratio", "refuse_from"),
            ("opportunity_gap", "refer_from"),
            ("opportunity_gap", "refuse_from"),
            ("calibration_gap", ""),
        ]
    }
    faults = fair.faults(found)
    assert any(fault.startswith("region=b at refer_from: adverse impact ratio against a") for fault in faults)
    assert not any(fault.startswith("noise") or "calibration" in fault for fault in faults)
    lenient = fair.fairness(labels, probability, {"region": group}, bounds=Bounds(0.1, 0.9, 0.5), **settings)
    assert fair.faults(lenient) == []
    again = fair.fairness(labels, probability, {"region": group}, **settings)
    assert again == [one for one in found if one.column == "region"]


def test_no_finding_speaks_of_law() -> None:
    said = " ".join(map(str, fair.adverse_impact(*halves(1_000, 0.8, 0.4), seed=1)))
    assert "speaks against" in said and not any(word in said.lower() for word in ("complian", "legal", "lawful"))


def test_numbers_become_bands_and_what_is_missing_a_group() -> None:
    assert fair.bands([29.0, 30.0, 59.9, 60.0, np.nan], (30, 60)).tolist() == [
        "under 30", "30 to under 60", "30 to under 60", "60 or more", "not stated",
    ]  # fmt: skip
    assert fair.groups(["F", None, float("nan"), ""]).tolist() == ["F", "not stated", "not stated", "not stated"]
    with pytest.raises(ValueError, match="rise"):
        fair.bands([1.0], (60, 30))


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="region"):
        fair.fairness([True, False], [0.1, 0.2], {"region": ["a"]}, {"refer_from": 0.5}, seed=1)
