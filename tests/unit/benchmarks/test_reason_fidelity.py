"""Tests of reason fidelity: changing the named factors flips a decision where the reasons are true, and not where they are false."""

import numpy as np
import pytest

from benchmarks import reason_fidelity
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleSpec, Linear
from schemas.features import Feature

WORDS = ("Income is low.", "Debts are high.", "The hour is unusual.", "The hour is unusual.", "")
FEATURES = tuple(Feature(f"x{at}", "1", f"feature {at}", theme=words) for at, words in enumerate(WORDS))
EVEN = 0.5


def bundle_of(*coefficients: float, reference: tuple[float, ...] | None = None) -> Bundle:
    d = len(FEATURES)
    linear = Linear(coefficients, means=(0.0,) * d, scales=(1.0,) * d, fills=(0.0,) * d, signed_log1p=(False,) * d)
    rows = np.zeros((1, d), np.float32)
    return Bundle(BundleSpec("finrisk-test", "test", "test", FEATURES, (linear,), rows, 1, "", "", reference=reference), "")


def rows_of(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


ZERO = np.zeros(len(FEATURES), np.float32)


def test_what_made_the_score_flips_the_decision() -> None:
    bundle = bundle_of(3, 1, 0, 0, -1)
    flipped = reason_fidelity.flips(bundle, rows_of((1, 0, 0, 0, 1), (2, 1, 0, 0, 1)), reason_fidelity.by_reasons(None), ZERO, EVEN)
    assert (flipped.n, flipped.rate.value) == (2, 1.0)
    assert flipped.before > EVEN > flipped.after
    assert flipped.rate.low < 1.0 == flipped.rate.high


def test_reasons_that_name_the_wrong_factor_do_not_flip_it() -> None:
    """Against just-approved applicants who share the high debts, only the income tells; against the average, debts come first."""
    bundle = bundle_of(1, 1, 0, 0, 0)
    just_approved = rows_of((-2.1, 2, 0, 0, 0))[0]
    refused = rows_of((1, 2, 0, 0, 0))
    against_approved = reason_fidelity.by_reasons((-2.1, 2.0, 0.0, 0.0, 0.0), limit=1)
    against_average = reason_fidelity.by_reasons(None, limit=1)
    assert reason_fidelity.flips(bundle, refused, against_approved, just_approved, EVEN).rate.value == 1.0
    assert reason_fidelity.flips(bundle, refused, against_average, just_approved, EVEN).rate.value == 0.0


def test_features_of_one_sentence_change_together() -> None:
    bundle = bundle_of(0, 0, 2, 2, 0)
    assert reason_fidelity.by_reasons(None, limit=1)(bundle, rows_of((0, 0, 1, 0.5, 0))) == [(2, 3)]
    assert reason_fidelity.by_rescoring(ZERO, limit=1)(bundle, rows_of((0, 0, 1, 0.5, 0))) == [(2, 3)]
    assert reason_fidelity.flips(bundle, rows_of((0, 0, 1, 1, 0)), reason_fidelity.by_reasons(None), ZERO, EVEN - 1e-9).named == 1


def test_features_of_one_theme_change_together() -> None:
    features = tuple(Feature(f"x{at}", "1", "", high=f"Said of {at}.", theme="late" if at < 2 else "") for at in range(5))
    plain = bundle_of(2, 2, 1, 0, 0)
    plain.features = features
    assert reason_fidelity.by_reasons(None, limit=1)(plain, rows_of((1, 0.5, 1, 0, 0))) == [(0, 1)]
    assert reason_fidelity.flips(plain, rows_of((1, 1, 0, 0, 0)), reason_fidelity.by_reasons(None), ZERO, EVEN + 1e-9).named == 1


def test_features_without_a_sentence_are_factors_of_their_own() -> None:
    assert reason_fidelity.by_rescoring(ZERO)(bundle_of(0, 0, 0, 0, 2), rows_of((1, 1, 1, 1, 1))) == [(4,)]


def test_rescoring_takes_what_lowers_most_and_stops_where_nothing_does() -> None:
    bundle = bundle_of(1, 3, 0, 0, -2)
    assert reason_fidelity.by_rescoring(ZERO, limit=1)(bundle, rows_of((1, 1, 0, 0, 1))) == [(1,)]
    assert reason_fidelity.by_rescoring(ZERO)(bundle, rows_of((1, 1, 0, 0, 1))) == [(1, 0)]


def test_factors_at_random_are_whole_reproducible_and_no_more_than_asked() -> None:
    bundle, rows = bundle_of(1, 1, 1, 1, 1), np.ones((50, 5), np.float32)
    first = reason_fidelity.at_random(7, limit=2)(bundle, rows)
    assert first == reason_fidelity.at_random(7, limit=2)(bundle, rows)
    assert len(set(first)) > 1
    assert all((2 in columns) == (3 in columns) and len(set(columns) - {3}) == 2 for columns in first)


def test_the_nearest_approved_are_the_riskiest_below_the_threshold() -> None:
    assert reason_fidelity.nearest_approved([0.5, 0.1, 0.49, 0.3, 0.9], 0.5, nearest=2).tolist() == [2, 3]
    with pytest.raises(ValueError, match="just approved"):
        reason_fidelity.nearest_approved([0.5, 0.9], 0.5)


def test_what_is_typical_passes_over_missing_values() -> None:
    middle = reason_fidelity.typical(rows_of((1, np.nan), (3, np.nan), (np.nan, np.nan)))
    assert middle[0] == 2 and np.isnan(middle[1])


def test_a_feature_with_nothing_typical_stays_as_it_is() -> None:
    unknown = np.full(len(FEATURES), np.nan, np.float32)
    flipped = reason_fidelity.flips(bundle_of(3, 0, 0, 0, 0), rows_of((1, 0, 0, 0, 0)), reason_fidelity.by_reasons(None), unknown, EVEN)
    assert flipped.rate.value == 0.0 and flipped.before == flipped.after


def test_a_share_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody was refused"):
        reason_fidelity.flips(bundle_of(1, 0, 0, 0, 0), np.zeros((0, 5), np.float32), reason_fidelity.by_reasons(None), ZERO, EVEN)
