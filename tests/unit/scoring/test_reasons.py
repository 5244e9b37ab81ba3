"""Tests of reason codes: they name the factors that moved a decision, in words."""

import math

import numpy as np
import pytest

from finrisk_assets.scoring.reasons import find_reasons
from schemas.features import Feature

FEATURES = (
    Feature("amount_vs_mean_30d", "ratio", "amount against the usual", "The amount is unusual.", "The amount is usual."),
    Feature("hour_sin", "1", "hour on a circle", "The hour is unusual.", "The hour is usual."),
    Feature("hour_cos", "1", "hour on a circle", "The hour is unusual.", "The hour is usual."),
    Feature("n_1h", "count", "transactions in the last hour", "Many transactions within an hour."),
    Feature("merchant_risk_7d", "share", "fraud at the merchant", "The merchant had fraud recently."),
    Feature("is_new_country", "flag", "first time in this country", "First time in this country."),
)


def codes(*contributions: float, **settings: object) -> list[str]:
    return [reason.code for reason in find_reasons(np.array(contributions), FEATURES, **settings)]  # type: ignore[arg-type]


def test_the_largest_factors_come_first_and_at_most_four() -> None:
    assert codes(0.3, 0.4, 0.0, 0.5, 0.6, 0.7) == ["IS_NEW_COUNTRY", "MERCHANT_RISK_7D", "N_1H", "HOUR_SIN"]


def test_a_reason_has_the_words_of_its_feature() -> None:
    (reason,) = find_reasons([0.0, 0.0, 0.0, 0.0, 1.5, 0.0], FEATURES)
    assert (reason.feature, reason.sentence, reason.contribution) == ("merchant_risk_7d", "The merchant had fraud recently.", 1.5)


def test_what_lowered_the_risk_is_no_reason_for_a_high_one() -> None:
    assert codes(-2.0, 0.0, 0.0, 1.0, 0.0, 0.0) == ["N_1H"]
    assert codes(-2.0, 0.0, 0.0, 1.0, 0.0, 0.0, direction="lowers") == ["AMOUNT_VS_MEAN_30D"]
    assert codes(-2.0, 0.0, 0.0, 0.0, 0.0, 0.0) == []


def test_a_negligible_factor_is_left_out() -> None:
    assert codes(1.0, 0.0, 0.0, 0.04, 0.06, 0.0) == ["AMOUNT_VS_MEAN_30D", "MERCHANT_RISK_7D"]
    assert codes(0.0, 0.0, 0.0, 0.0, 0.0, 0.0) == []


def test_where_every_factor_is_small_the_largest_is_given_all_the_same() -> None:
    assert codes(0.04, 0.0, 0.0, 0.03, -0.9, -0.9) == ["AMOUNT_VS_MEAN_30D"]


def test_features_that_say_the_same_are_one_factor() -> None:
    assert codes(1.0, 0.7, 0.6, 0.0, 0.0, 0.0) == ["HOUR_SIN", "AMOUNT_VS_MEAN_30D"]
    assert codes(1.0, 0.7, -0.7, 0.0, 0.0, 0.0) == ["AMOUNT_VS_MEAN_30D"]


def test_features_of_one_theme_are_one_reason_in_the_words_of_the_one_that_moved_most() -> None:
    late = [
        Feature(f"late_{month}m", "months", f"delay {month} months ago", f"Late {month} months ago.", theme="late payments")
        for month in (1, 2, 3)
    ]
    features = (*late, Feature("income", "money", "income", "The income is low.", theme="income"))
    first, second = find_reasons([0.3, 0.5, -0.1, 0.6], features)
    assert (first.code, first.feature, first.sentence) == ("LATE_PAYMENTS", "late_2m", "Late 2 months ago.")
    assert first.features == ("late_1m", "late_2m", "late_3m") and first.contribution == pytest.approx(0.7)
    assert (second.code, second.features) == ("INCOME", ("income",))


def test_a_theme_whose_features_cancel_out_is_no_reason() -> None:
    features = (Feature("a", "", "", "A.", theme="both"), Feature("b", "", "", "B.", theme="both"), Feature("c", "", "", "C."))
    assert [one.feature for one in find_reasons([1.0, -1.0, 0.2], features)] == ["c"]


def test_equal_factors_keep_the_order_of_the_features() -> None:
    assert codes(0.5, 0.0, 0.0, 0.5, 0.5, 0.5) == ["AMOUNT_VS_MEAN_30D", "N_1H", "MERCHANT_RISK_7D", "IS_NEW_COUNTRY"]


def test_a_refusal_is_compared_with_those_just_approved() -> None:
    just_approved = [0.9, 0.0, 0.0, 0.0, 0.0, 0.0]
    (reason,) = find_reasons([0.9, 0.0, 0.0, 0.4, 0.0, 0.0], FEATURES, reference=just_approved)
    assert (reason.code, reason.contribution) == ("N_1H", 0.4)


def test_a_feature_without_a_sentence_is_described() -> None:
    (reason,) = find_reasons([0.0, 0.0, 0.0, -1.0, 0.0, 0.0], FEATURES, direction="lowers")
    assert reason.sentence == "Transactions in the last hour lowered the risk"


@pytest.mark.parametrize("contributions", [[1.0], [math.nan] + [0.0] * 5])
def test_contributions_that_do_not_fit_are_refused(contributions: list[float]) -> None:
    with pytest.raises(ValueError, match="contributions"):
        find_reasons(contributions, FEATURES)
