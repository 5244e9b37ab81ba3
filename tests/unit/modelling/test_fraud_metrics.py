"""Tests of alert precision, card precision, and the scores of a ranking."""

import numpy as np
import pytest

from finrisk_assets.modelling.evaluation.fraud_metrics import card_precision_at, fraud_scores, precision_at

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


def test_scores_of_a_perfect_ranking():
    days, cards = [MONDAY] * 3 + [TUESDAY] * 3, list("ABCDEF")
    scores = fraud_scores(days, cards, [1, 0, 0, 1, 0, 0], [2.0, 0.0, -1.0, 1.0, -2.0, -3.0], k=1)
    assert scores == {"auc": 1.0, "ap": 1.0, "precision_at_1": 1.0, "card_precision_at_1": 1.0}


def test_scores_need_both_kinds_and_finite_numbers():
    with pytest.raises(ValueError, match="0 of 1 rows are fraud"):
        fraud_scores([MONDAY], ["A"], [0], [1.0])
    with pytest.raises(ValueError, match="1 scores are not finite"):
        precision_at(1, [1], [np.nan])
    with pytest.raises(ValueError, match="one score per label"):
        precision_at(1, [1, 0], [0.5])
