"""Tests of reason codes: they name the factors that moved a decision, in sentences that are true of the values."""

import math
from dataclasses import replace

import numpy as np
import pytest

from finrisk_assets.scoring.feature_values import FeatureValues
from finrisk_assets.scoring.reasons import find_reasons, format_value
from schemas.features import Feature

FEATURES = (
    Feature("amount_vs_mean_30d", "ratio", "Amount against the usual", "The amount is small", "The amount is large"),
    Feature("hour_sin", "", "Hour on a circle: sine.", theme="hour", spoken_by="hour"),
    Feature("hour", "hours", "Hour of the day.", theme="hour", fact="It happened in the hour from {number}:00"),
    Feature("n_1h", "transactions", "Transactions in the last hour.", "", "Many transactions", zero="No transaction within an hour"),
    Feature("merchant_risk_7d", "share", "Fraud at the merchant.", "", "The merchant had fraud"),
    Feature("is_new_country", "0 or 1", "First time.", one="The country is new", zero="It is known", missing="No country was stated"),
)
USUAL = FeatureValues(-10.0, 10.0, True, -0.5, 0.0, 0.5, 1 / 6)
VALUES = (USUAL,) * len(FEATURES)
ROW = (1.0, 0.5, 2.0, 3.0, 1.0, 1.0)


def codes(*contributions: float, **settings: object) -> list[str]:
    return [reason.code for reason in find_reasons(contributions, ROW, FEATURES, VALUES, **settings)]  # type: ignore[arg-type]


def say(feature: Feature, value: float, known: FeatureValues | None = USUAL, *, direction: str = "raises") -> str:
    contribution = [1.0 if direction == "raises" else -1.0]
    (reason,) = find_reasons(contribution, [value], [feature], () if known is None else [known], direction=direction)  # type: ignore[arg-type]
    return reason.sentence


@pytest.mark.parametrize(("value", "text"), [(999.4, "999"), (999.7, "1,000"), (-999.7, "-1,000"), (1000.4, "1,000"), (0.0004, "0")])
def test_a_number_is_written_in_three_digits_and_never_in_powers_of_ten(value, text):
    assert format_value(Feature("amount", "currency", ""), value) == text


def test_a_bare_number_has_no_unit():
    assert format_value(Feature("points", "number", ""), 1273.0) == "1,273"
    assert format_value(Feature("points", "", ""), 0.25) == "25 %"


def test_the_largest_factors_come_first_and_at_most_four() -> None:
    assert codes(0.3, 0.4, 0.0, 0.5, 0.6, 0.7) == ["IS_NEW_COUNTRY", "MERCHANT_RISK_7D", "N_1H", "HOUR"]


def test_a_reason_has_a_sentence_with_the_value_and_what_is_usual() -> None:
    (reason,) = find_reasons([0.0, 0.0, 0.0, 0.0, 1.5, 0.0], ROW, FEATURES, VALUES, group_name="other merchants")
    assert (reason.feature, reason.contribution) == ("merchant_risk_7d", 1.5)
    assert reason.sentence == "The merchant had fraud: 100 %; other merchants usually have at most 50 %"


def test_what_lowered_the_risk_is_no_reason_for_a_high_one() -> None:
    assert codes(-2.0, 0.0, 0.0, 1.0, 0.0, 0.0) == ["N_1H"]
    assert codes(-2.0, 0.0, 0.0, 1.0, 0.0, 0.0, direction="lowers") == ["AMOUNT_VS_MEAN_30D"]
    assert codes(-2.0, 0.0, 0.0, 0.0, 0.0, 0.0) == []


def test_a_negligible_factor_is_left_out() -> None:
    assert codes(1.0, 0.0, 0.0, 0.04, 0.06, 0.0) == ["AMOUNT_VS_MEAN_30D", "MERCHANT_RISK_7D"]
    assert codes(0.0, 0.0, 0.0, 0.0, 0.0, 0.0) == []


def test_where_every_factor_is_small_the_largest_is_given_all_the_same() -> None:
    assert codes(0.04, 0.0, 0.0, 0.03, -0.9, -0.9) == ["AMOUNT_VS_MEAN_30D"]


def test_features_of_one_theme_are_one_reason_and_the_one_that_moved_most_speaks() -> None:
    late = [
        Feature(f"late_{month}m", "months", f"Delay {month} months ago", "", f"Late {month} months ago", theme="late payments")
        for month in (1, 2, 3)
    ]
    features = (*late, Feature("income", "currency", "Income", "The income is low", theme="income"))
    first, second = find_reasons([0.3, 0.5, -0.1, 0.6], [2.0, 1.0, 4.0, -3.0], features, (USUAL,) * 4)
    assert (first.code, first.feature, first.sentence) == (
        "LATE_PAYMENTS",
        "late_2m",
        "Late 2 months ago: 1 month; others usually have at most 0.5 months",
    )
    assert first.features == ("late_1m", "late_2m", "late_3m") and first.contribution == pytest.approx(0.7)
    assert (second.code, second.features) == ("INCOME", ("income",))
    (other, _) = find_reasons([0.3, 0.5, -0.1, 0.6], [2.0, 0.2, 4.0, -3.0], features, (USUAL,) * 4)
    assert (other.feature, other.contribution) == ("late_1m", first.contribution), "nothing can be said of late_2m"


def test_a_theme_whose_features_cancel_out_is_no_reason() -> None:
    features = (Feature("a", "", "A.", theme="both"), Feature("b", "", "B.", theme="both"), Feature("c", "", "C."))
    assert [one.feature for one in find_reasons([1.0, -1.0, 0.2], [0.0] * 3, features)] == ["c"]


def test_equal_factors_keep_the_order_of_the_features() -> None:
    assert codes(0.5, 0.0, 0.0, 0.5, 0.5, 0.5) == ["AMOUNT_VS_MEAN_30D", "N_1H", "MERCHANT_RISK_7D", "IS_NEW_COUNTRY"]


def test_a_refusal_is_compared_with_those_just_approved() -> None:
    just_approved = [0.9, 0.0, 0.0, 0.0, 0.0, 0.0]
    (reason,) = find_reasons([0.9, 0.0, 0.0, 0.4, 0.0, 0.0], ROW, FEATURES, VALUES, reference=just_approved)
    assert (reason.code, reason.contribution) == ("N_1H", 0.4)


def test_a_value_that_is_neither_low_nor_high_is_told_without_a_claim() -> None:
    amount = FEATURES[0]
    assert say(amount, 0.18) == "Amount against the usual: 18 %; others usually have -50 % to 50 %"
    assert say(amount, 0.18, None) == say(amount, 9.0, None).replace("900", "18") == "Amount against the usual: 18 %"
    assert say(amount, 9.0) == "The amount is large: 900 %; others usually have at most 50 %"
    assert say(amount, -9.0) == "The amount is small: -900 %; others usually have at least -50 %"


def test_what_is_told_of_a_logarithm_is_what_it_is_of() -> None:
    amount = Feature("log_amount", "log currency", "Natural logarithm of 1 + amount.", scale="log1p")
    assert say(amount, math.log1p(53.9), None) == "Amount: 53.9"


def test_a_missing_value_has_a_sentence_of_its_own() -> None:
    assert say(FEATURES[5], math.nan) == "No country was stated"
    assert say(FEATURES[0], math.nan) == "Not known: amount against the usual"
    silent = (replace(FEATURES[5], tells_missing=False), FEATURES[0])
    assert [one.feature for one in find_reasons([0.9, 0.5], [math.nan, 9.0], silent, (USUAL,) * 2)] == [FEATURES[0].name]
    assert [say(FEATURES[5], value) for value in (0.0, 1.0)] == ["It is known", "The country is new"]


def test_a_count_of_none_is_not_called_many_and_one_is() -> None:
    counts = replace(USUAL, low=0.0, middle=0.0, high=0.0)
    assert say(FEATURES[3], 0.0, counts) == "No transaction within an hour"
    assert say(FEATURES[3], 1.0, counts) == "Many transactions: 1 transaction; others usually have 0 transactions"


def test_a_claim_keeps_its_own_bounds() -> None:
    trend = Feature(
        "income_trend", "", "Income over the usual", "The income has fallen", "The income has grown", low_below=1.0, high_above=1.0
    )
    known = replace(USUAL, low=1.5, middle=1.9, high=2.2)
    assert say(trend, 0.5, known).startswith("The income has fallen: 50 %")
    assert say(trend, 1.2, known) == "Income over the usual: 120 %; others usually have 150 % to 220 %"
    season = Feature("month_sin", "", "", "July to November", "January to May", low_below=-0.4, high_above=0.4, is_absolute=True)
    assert [say(season, value, None) for value in (-0.5, 0.5)] == ["July to November", "January to May"]


def test_a_feature_with_a_certain_direction_makes_no_claim_against_it() -> None:
    burden = Feature("burden", "", "Instalment over income", "The instalment is small", "The instalment is large", monotone=1)
    assert say(burden, 5.0).startswith("The instalment is large") and say(burden, 5.0, direction="lowers").startswith(
        "Instalment over income"
    )
    assert say(burden, -5.0, direction="lowers").startswith("The instalment is small")


def test_half_of_a_circle_is_spoken_for_by_the_hour() -> None:
    (reason,) = find_reasons([0.0, 1.0, -0.5, 0.0, 0.0, 0.0], ROW, FEATURES, VALUES)
    assert (reason.feature, reason.sentence, reason.features) == ("hour", "It happened in the hour from 2:00", ("hour_sin", "hour"))


@pytest.mark.parametrize(
    ("unit", "scale", "value", "text"),
    [
        ("currency", "", 1234.5, "1,234"), ("currency a month", "", 20.25, "20.2 a month"),
        ("log currency", "log", math.log(5000), "5,000"),
        ("log currency", "log1p", math.log(11), "10"), ("", "", 0.9312, "93.1 %"), ("percent a year", "", 12.5, "12.5 %"),
        ("penalties", "", 1.0, "1 penalty"), ("months overdue", "", 2.0, "2 months overdue"), ("", "", 1e-9, "0 %"),
    ],
)  # fmt: skip
def test_values_are_written_in_the_units_that_people_read(unit: str, scale: str, value: float, text: str) -> None:
    assert say(Feature("x", unit, "The value", scale=scale), value, None) == f"The value: {text}"  # type: ignore[arg-type]


@pytest.mark.parametrize("contributions", [[1.0], [math.nan] + [0.0] * 5])
def test_contributions_that_do_not_fit_are_refused(contributions: list[float]) -> None:
    with pytest.raises(ValueError, match="contributions"):
        find_reasons(np.array(contributions), ROW, FEATURES)
