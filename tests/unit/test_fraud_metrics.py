"""Precision of alerts and cards, the Handbook's rule for compromised cards, and test periods in sequence."""

from datetime import date, timedelta

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation.fraud_metrics import Period, card_precision_at, fraud_scores, precision_at, prequential
from finrisk_assets.modelling.evaluation.fraud_metrics import test_mask as judged

MONDAY = np.datetime64("2018-08-06")
TUESDAY = MONDAY + 1


def test_precision_at_k_is_the_share_of_frauds_among_the_highest_scores():
    assert precision_at(2, [1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == 0.5


def test_precision_at_k_counts_unused_capacity_as_missed():
    assert precision_at(10, [1, 1], [0.9, 0.8]) == 0.2


def test_a_card_is_as_suspicious_as_its_highest_score_and_counts_once():
    # Card A has two alerts above B's one: among two cards stand A and B, not A twice.
    days, cards = [MONDAY] * 4, ["A", "A", "B", "C"]
    assert card_precision_at(2, days, cards, [1, 1, 1, 0], [0.9, 0.8, 0.7, 0.1]).tolist() == [1.0]


def test_a_card_is_compromised_whichever_of_its_transactions_scored_highest():
    assert card_precision_at(1, [MONDAY] * 2, ["A", "A"], [0, 1], [0.9, 0.1]).tolist() == [1.0]


def test_a_detected_card_is_blocked_on_later_days():
    days, cards = [MONDAY, MONDAY, TUESDAY, TUESDAY], ["A", "B", "A", "B"]
    fraud, score = [1, 0, 1, 0], [0.9, 0.1, 0.9, 0.1]
    assert card_precision_at(1, days, cards, fraud, score).tolist() == [1.0, 0.0]
    assert card_precision_at(1, days, cards, fraud, score, remove_detected=False).tolist() == [1.0, 1.0]


def test_a_compromised_card_that_was_missed_stays():
    days, cards = [MONDAY, MONDAY, TUESDAY], ["A", "B", "A"]
    assert card_precision_at(1, days, cards, [1, 0, 1], [0.1, 0.9, 0.9]).tolist() == [0.0, 1.0]


def test_card_precision_does_not_depend_on_the_order_of_rows():
    random = np.random.default_rng(1)
    n = 500
    days, cards = MONDAY + random.integers(0, 5, n), random.integers(0, 60, n).astype(str)
    fraud, score = random.random(n) < 0.1, random.random(n)
    shuffled = random.permutation(n)
    expected = card_precision_at(10, days, cards, fraud, score)
    assert card_precision_at(10, days[shuffled], cards[shuffled], fraud[shuffled], score[shuffled]).tolist() == expected.tolist()


HANDBOOK = Period(date(2018, 7, 25), date(2018, 7, 31), date(2018, 8, 8), date(2018, 8, 14), known_since=date(2018, 7, 25), delay_days=7)


@pytest.mark.parametrize(
    ("fraud_day", "first_day_out"),
    [
        ("2018-07-24", None),  # before the training week: forgotten
        ("2018-07-25", "2018-08-08"),
        ("2018-07-31", "2018-08-08"),
        ("2018-08-01", "2018-08-09"),  # known on the eighth day after
        ("2018-08-06", "2018-08-14"),
        ("2018-08-07", None),  # not yet known on the last test day
    ],
)
def test_a_card_leaves_the_test_when_its_fraud_is_known(fraud_day, first_day_out):
    test_days = np.arange(np.datetime64("2018-08-08"), np.datetime64("2018-08-15"))
    days = np.concatenate([[np.datetime64(fraud_day)], test_days])
    mask = judged(HANDBOOK, days, ["A"] * len(days), [True] + [False] * 7)
    kept = days[mask]
    expected = test_days if first_day_out is None else test_days[test_days < np.datetime64(first_day_out)]
    assert kept.tolist() == expected.tolist()


def test_other_cards_and_other_days_are_untouched():
    days = ["2018-07-26", "2018-08-08", "2018-08-08", "2018-08-15"]
    assert judged(HANDBOOK, days, ["A", "A", "B", "B"], [1, 0, 0, 0]).tolist() == [False, False, True, False]


def test_prequential_gives_the_handbooks_week_and_those_after():
    first, second = prequential(date(2018, 8, 8), 2, train_days=7, delay_days=7)
    assert first == HANDBOOK
    assert (second.train_start, second.test_start) == (date(2018, 8, 1), date(2018, 8, 15))
    assert first.test_days[-1] + timedelta(days=1) == second.test_days[0]


def test_a_longer_memory_is_judged_on_the_same_rows():
    (short,) = prequential(date(2018, 8, 8), 1, train_days=7, delay_days=7)
    (long,) = prequential(date(2018, 8, 8), 1, train_days=7, delay_days=7, history_start=date(2018, 4, 8))
    days = ["2018-05-01", "2018-07-26", "2018-08-08", "2018-08-08"]
    cards, fraud = ["A", "B", "A", "B"], [1, 1, 0, 0]
    assert long.train_mask(days).tolist() == [True, True, False, False]
    assert short.train_mask(days).tolist() == [False, True, False, False]
    assert judged(long, days, cards, fraud).tolist() == judged(short, days, cards, fraud).tolist() == [False, False, True, False]


def test_no_label_of_training_is_younger_than_the_delay():
    for period in prequential(date(2018, 8, 8), 7, train_days=7, delay_days=7, history_start=date(2018, 4, 8)):
        assert (period.test_start - period.train_end).days > period.delay_days


def test_a_history_too_short_says_so():
    with pytest.raises(ValueError, match="fewer than 7 training days before 2018-04-15"):
        list(prequential(date(2018, 4, 15), 1, train_days=7, delay_days=7, history_start=date(2018, 4, 10)))


def test_scores_of_a_perfect_ranking():
    days, cards = [MONDAY] * 3 + [TUESDAY] * 3, list("ABCDEF")
    found = fraud_scores(days, cards, [1, 0, 0, 1, 0, 0], [2.0, 0.0, -1.0, 1.0, -2.0, -3.0], k=1)
    assert found == {"auc": 1.0, "ap": 1.0, "precision_at_1": 1.0, "card_precision_at_1": 1.0}


def test_scores_need_both_kinds_and_finite_numbers():
    with pytest.raises(ValueError, match="0 of 1 rows are fraud"):
        fraud_scores([MONDAY], ["A"], [0], [1.0])
    with pytest.raises(ValueError, match="1 scores are not finite"):
        precision_at(1, [1], [np.nan])
    with pytest.raises(ValueError, match="one score per label"):
        precision_at(1, [1, 0], [0.5])
