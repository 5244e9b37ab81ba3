"""Tests of the fairness figures: intervals, verdicts only on large enough samples, and no legal wording."""

import numpy as np
import pandas as pd
import pytest

from finrisk_assets.modelling.evaluation import fairness as fair
from finrisk_assets.modelling.evaluation.fairness import FairnessFinding, Interval

SELECTION, OPPORTUNITY, CALIBRATION = {"bound": 0.8}, {"bound": 0.1}, {"bound": 0.05}


def finding_of(findings: list[FairnessFinding], group: str) -> FairnessFinding:
    (results,) = [one for one in findings if one.group == group]
    return results


def halves(n: int, first: float, second: float) -> tuple[np.ndarray, np.ndarray]:
    """Return decisions on n people of group a and n of group b, with these shares selected."""
    chosen = [at < share * n for share in (first, second) for at in range(n)]
    return np.array(chosen), np.array(["a"] * n + ["b"] * n)


def test_the_ratio_is_that_of_the_selection_rates_to_the_most_favoured() -> None:
    results = fair.compare_selection(*halves(1_000, 0.8, 0.4), **SELECTION, seed=1)
    assert finding_of(results, "a").verdict == "reference"
    b = finding_of(results, "b")
    assert b.value is not None and b.value.value == pytest.approx(0.5) and b.rate == 0.4 and b.reference == "a"
    assert b.value.low < 0.5 < b.value.high < 0.8 and b.verdict == "speaks against"


def test_a_named_reference_is_compared_with_and_may_be_less_favoured() -> None:
    results = finding_of(fair.compare_selection(*halves(1_000, 0.8, 0.4), reference="b", **SELECTION, seed=1), "a")
    assert results.value is not None and results.value.value == pytest.approx(2.0) and results.verdict == "supports"


def test_what_a_sample_cannot_tell_is_left_open() -> None:
    assert finding_of(fair.compare_selection(*halves(40, 0.5, 0.4), **SELECTION, seed=1), "b").verdict == "leaves open"
    assert finding_of(fair.compare_selection(*halves(40_000, 0.5, 0.45), **SELECTION, seed=1), "b").verdict == "supports"


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(5), 0
    group = np.repeat(["a", "b"], 400)
    for draw in range(200):
        selected = rng.random(800) < np.repeat([0.6, 0.45], 400)
        value = finding_of(fair.compare_selection(selected, group, reference="a", draws=400, **SELECTION, seed=draw), "b").value
        assert value is not None
        held += value.low <= 0.75 <= value.high
    assert 0.90 <= held / 200 <= 0.99


def test_rows_of_one_person_are_one_draw() -> None:
    """The same hundred people, each ten times, tell no more than once."""
    selected, group = halves(100, 0.7, 0.5)
    people = np.arange(200)
    once = finding_of(fair.compare_selection(selected, group, **SELECTION, seed=1), "b").value
    repeated = np.repeat(selected, 10), np.repeat(group, 10)
    tenfold = finding_of(fair.compare_selection(*repeated, people=np.repeat(people, 10), **SELECTION, seed=1), "b").value
    naive = finding_of(fair.compare_selection(*repeated, **SELECTION, seed=1), "b").value
    assert once is not None and tenfold is not None and naive is not None
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))
    assert naive.high - naive.low < 0.5 * (once.high - once.low)


def test_a_small_group_is_named_and_not_judged() -> None:
    selected, group = halves(100, 0.7, 0.5)
    selected, group = np.append(selected, [True] * 5), np.append(group, ["c"] * 5)
    results = finding_of(fair.compare_selection(selected, group, **SELECTION, seed=1), "c")
    assert (results.verdict, results.value, results.n) == ("too small", None, 5)
    assert results.reference == "a", "five people, all approved, are not what others are measured by"
    with pytest.raises(ValueError, match="too small"):
        fair.compare_selection(selected, group, reference="c", **SELECTION, seed=1)
    with pytest.raises(ValueError, match="no group"):
        fair.compare_selection(selected, group, reference="d", **SELECTION, seed=1)


def test_where_nobody_is_selected_there_is_no_ratio() -> None:
    results = fair.compare_selection(*halves(100, 0.0, 0.0), **SELECTION, seed=1)
    assert results and all(finding.value is None for finding in results)


def test_opportunity_is_of_those_who_deserve() -> None:
    """Half of b is selected as often as all of a, but fewer of those who repaid."""
    n = 2_000
    group = np.repeat(["a", "b"], n)
    deserving = np.tile([True, False], n)
    selected = np.concatenate([deserving[:n], np.arange(n) % 4 == 0])
    results = fair.compare_opportunity(selected, deserving, group, **OPPORTUNITY, seed=1)
    a, b = finding_of(results, "a"), finding_of(results, "b")
    assert (a.n, a.rate, a.verdict) == (n // 2, 1.0, "reference")
    assert b.value is not None and b.value.value == pytest.approx(-0.5) and b.verdict == "speaks against"
    wide = fair.compare_opportunity(selected, deserving, group, bound=0.6, seed=1)
    assert finding_of(wide, "b").verdict == "supports"


def test_calibration_is_looked_at_in_every_group() -> None:
    n = 2_000
    labels = np.tile(np.arange(n) < 0.2 * n, 2)
    results = fair.compare_calibration(labels, np.repeat([0.2, 0.35], n), np.repeat(["a", "b"], n), **CALIBRATION)
    a, b = finding_of(results, "a"), finding_of(results, "b")
    assert a.value is not None and abs(a.value.value) < 1e-9 and a.verdict == "supports"
    assert b.value is not None and b.value.value == pytest.approx(0.15) and b.verdict == "speaks against"
    assert a.value.low < 0 < a.value.high


def test_no_finding_speaks_of_law() -> None:
    sentences = " ".join(map(str, fair.compare_selection(*halves(1_000, 0.8, 0.4), **SELECTION, seed=1)))
    assert "speaks against" in sentences and not any(word in sentences.lower() for word in ("complian", "legal", "lawful"))


def test_numbers_become_bands_and_what_is_missing_a_group() -> None:
    assert fair.group_by_band([29.0, 30.0, 59.9, 60.0, np.nan], (30, 60)).tolist() == [
        "under 30", "30 to under 60", "30 to under 60", "60 or more", "not stated",
    ]  # fmt: skip
    assert fair.group_by_value(["F", None, float("nan"), ""]).tolist() == ["F", "not stated", "not stated", "not stated"]
    with pytest.raises(ValueError, match="rise"):
        fair.group_by_band([1.0], (60, 30))


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one of each per row is needed"):
        fair.compare_selection([True, False], ["a"], **SELECTION, seed=1)


def test_a_protected_attribute_among_the_features_is_known_by_its_name_or_content():
    draw, n = np.random.default_rng(5), 500
    protected = pd.DataFrame(
        {
            "gender": pd.Series(draw.choice(["F", "M"], n)).where(draw.random(n) > 0.02),
            "birth_year": draw.integers(1940, 2005, n),
            "marriage": draw.choice(["married", "other", "single"], n, p=[0.5, 0.1, 0.4]),
        }
    )
    frame = pd.DataFrame(
        {
            "code_7": (protected.gender == "M").astype(float),
            "months_lived": (2025 - protected.birth_year) * 12 + draw.integers(0, 12, n),
            "segment": protected.marriage.map({"married": 2.0, "other": 9.0, "single": 4.0}),
            "is_married": draw.random(n).round(),
            "customer_age": draw.normal(size=n),
            "account_age_months": draw.integers(1, 200, n).astype(float),
            "average_balance": draw.normal(size=n),
            "income": draw.lognormal(8, 1, n) * (1 + 0.2 * (protected.gender == "M")),
        }
    )
    shown = fair.find_protected_features(frame, list(frame.columns), protected)
    assert shown == {
        "code_7": "its values are those of gender",
        "months_lived": "its values are those of birth_year",
        "segment": "its values are those of marriage",
        "is_married": "its name says married",
        "customer_age": "its name says age",
    }


def test_many_figures_are_judged_together():
    """At 95 % a ratio of .55 [.40, .72] breaks .8; among forty figures it may be chance, and one that is far beyond is not."""

    def finding(measure, bound, value, low, high, verdict=fair.AGAINST):
        return FairnessFinding("region", "south", measure, "", "west", 86, 0.3, Interval(value, low, high), bound, verdict)

    def verdicts(*findings):
        return [judged.verdict for judged in fair.judge_together(findings)]

    unfair, far = (finding("adverse_impact_ratio", 0.8, 0.55, 0.4, high) for high in (0.72, 0.6))
    supported = finding("calibration_gap", 0.05, 0.0, -0.01, 0.01, "supports")
    assert verdicts(unfair) == [fair.AGAINST]
    assert verdicts(unfair, far, *[supported] * 38) == ["leaves open", fair.AGAINST, *["supports"] * 38]
    assert verdicts(finding("calibration_gap", 0.05, 0.2, 0.15, 0.25), *[supported] * 39)[0] == fair.AGAINST
    assert verdicts(finding("opportunity_gap", 0.1, -0.2, -0.28, -0.11), *[supported] * 39)[0] == "leaves open"
