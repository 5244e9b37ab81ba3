"""Tests of the answers to a transaction and to a loan application by its features."""

import math

import pytest

from bento.decisions.scorers.transaction import TransactionScorer
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.score_curve import ScoreCurve
from schemas.api import TransactionRequest
from tests.service.conftest import write_transaction_bundle


def contributions(answer):
    return {item["feature"]: item for item in answer["explanation"]["contributions"]}


def test_a_transaction_is_answered_with_score_decision_explanation_and_model(client, transaction):
    answer = client.post("/v1/transactions", json=transaction(transaction_id="t1")).json()

    assert answer["transaction_id"] == "t1"
    assert 0 <= answer["risk_score"] <= 1
    assert answer["anomaly"] is (answer["risk_score"] >= 0.5)
    assert answer["decision"] == "allow"
    assert answer["model"]["name"] == "finrisk-transaction-anomaly"
    assert contributions(answer)["log_amount"]["value"] == pytest.approx(math.log(121), rel=1e-6)
    assert len(answer["reasons"]) <= 4


@pytest.mark.parametrize("route", ["/v1/transactions", "/v1/loan-default"])
def test_base_and_contributions_sum_to_the_score(client, transaction, loan, route):
    answer = client.post(route, json=transaction() if "transactions" in route else loan()).json()

    explained = answer["explanation"]["base"] + sum(item["contribution"] for item in answer["explanation"]["contributions"])
    assert explained == pytest.approx(answer["score"], abs=1e-9)


def test_history_is_what_the_same_customer_did_before(client, transaction):
    client.post("/v1/transactions", json=transaction(0, amount=100.0))
    client.post("/v1/transactions", json=transaction(0, user_id=6, amount=999.0))
    answer = client.post("/v1/transactions", json=transaction(30, amount=60.0)).json()

    values = {name: item["value"] for name, item in contributions(answer).items()}
    assert values["customer_n_1h"] == 1
    assert values["customer_amount_sum_1d"] == 100
    assert values["amount_to_mean_30d"] == pytest.approx(0.6)
    assert values["is_new_merchant"] == 0


def test_a_transaction_that_arrives_late_is_scored_as_of_its_own_time(client, transaction):
    client.post("/v1/transactions", json=transaction(30))
    late = client.post("/v1/transactions", json=transaction(0)).json()

    assert contributions(late)["customer_n_1h"]["value"] == 0


def test_transactions_of_one_instant_do_not_see_each_other(client, transaction):
    client.post("/v1/transactions", json=transaction(0))
    second = client.post("/v1/transactions", json=transaction(0)).json()

    assert contributions(second)["customer_n_1h"]["value"] == 0


def test_sent_again_it_gets_the_same_answer_and_counts_once(client, transaction):
    first = client.post("/v1/transactions", json=transaction(0, transaction_id="t1"))
    again = client.post("/v1/transactions", json=transaction(0, transaction_id="t1"))
    later = client.post("/v1/transactions", json=transaction(10)).json()

    assert again.json() == first.json()
    assert contributions(later)["customer_n_1h"]["value"] == 1


def test_an_identifier_is_not_for_two_transactions(client, transaction):
    client.post("/v1/transactions", json=transaction(0, transaction_id="t1"))
    other = client.post("/v1/transactions", json=transaction(0, transaction_id="t1", amount=7))

    assert other.status_code == 409
    assert other.json()["error"]["fields"][0]["field"] == "transaction_id"


def test_history_survives_a_restart(serving, bundles, transaction):
    with serving(bundles) as client:
        client.post("/v1/transactions", json=transaction(0))
    with serving(bundles) as client:
        answer = client.post("/v1/transactions", json=transaction(10)).json()

    assert contributions(answer)["customer_n_1h"]["value"] == 1


def test_a_number_and_its_text_are_the_same_customer_and_offsets_are_understood(client, transaction):
    client.post("/v1/transactions", json=transaction(user_id=5, timestamp="2024-05-06T14:00:00+02:00"))
    answer = client.post("/v1/transactions", json=transaction(user_id="5", timestamp="2024-05-06T12:10:00Z")).json()

    assert contributions(answer)["customer_n_1h"]["value"] == 1
    assert contributions(answer)["hour"]["value"] == 12


def test_a_transaction_needs_no_merchant(client, transaction):
    answer = client.post("/v1/transactions", json=transaction(merchant=None)).json()

    assert contributions(answer)["is_new_merchant"]["value"] is None


def test_a_loan_is_answered_with_its_probability_of_default(client, loan):
    small = client.post("/v1/loan-default", json=loan(loan_amount=3000)).json()
    large = client.post("/v1/loan-default", json=loan(loan_amount=20000)).json()

    assert small["loan_id"] == "L1"
    assert 0 < small["pd"] < large["pd"] < 1
    assert small["decision"] != large["decision"]
    assert contributions(large)["loan_amount"]["contribution"] > 0
    assert large["reasons"][0]["feature"] == "loan_amount"


def test_a_value_that_is_not_known_is_null(client, loan):
    answer = client.post("/v1/loan-default", json=loan(balance_mean_30d=None)).json()

    assert contributions(answer)["balance_mean_30d"]["value"] is None


def test_a_transaction_is_reviewed_from_an_expected_loss_on(serving, tmp_path, transaction):
    """The same score: what a review would save decides, and the answer says both amounts."""
    with serving({"transaction_anomaly": write_transaction_bundle(tmp_path / "bundle", review_loss=5.0)}) as client:
        small = client.post("/v1/transactions", json=transaction(amount=3.0)).json()
        large = client.post("/v1/transactions", json=transaction(minutes=90_000, amount=2_900.0)).json()

    assert max(small["risk_score"], large["risk_score"]) < 0.6, "neither is reviewed for its score"
    for answer, amount in ((small, 3.0), (large, 2_900.0)):
        assert answer["expected_loss_amount"] == pytest.approx(answer["risk_score"] * amount, abs=0.01)
        assert answer["review_from_amount"] == 5.0
    assert (small["decision"], large["decision"]) == ("allow", "review")


def test_without_expected_losses_an_answer_has_none(client, transaction):
    answer = client.post("/v1/transactions", json=transaction()).json()

    assert (answer["expected_loss_amount"], answer["review_from_amount"]) == (None, None)


def test_a_change_of_the_reviews_cost_decides_otherwise_without_training(store, tmp_path, transaction):
    curves = ScoreCurve((0.9, 0.1), (1, 900), (1, 2), 1_000, 10), ScoreCurve((80.0, 0.1), (1, 900), (), 1_000, 10)
    bundle = Bundle.load(write_transaction_bundle(tmp_path / "bundle", curves=curves))
    request, rules = TransactionRequest(**transaction(amount=2_900.0)), default_policy().transaction_anomaly

    def decide(**changes):
        policy = default_policy().model_copy(update={"transaction_anomaly": rules.model_copy(update=changes)})
        return TransactionScorer(bundle.under(policy), store).answer(request)

    loss = decide().expected_loss_amount
    assert (decide(review_cost_amount=0.99 * loss).decision, decide(review_cost_amount=1.01 * loss).decision) == ("review", "allow")
    assert decide(review_cost_amount=0.99 * loss, review_finds_share=0.5).decision == "allow"
    assert decide(review_cost_amount=1.0, reviews_per_day=1).review_from_amount == 80.0, "one review a day goes to the largest loss"


def test_an_amount_beyond_all_that_was_learned_from_is_an_anomaly_whatever_the_score(serving, tmp_path, transaction):
    with serving({"transaction_anomaly": write_transaction_bundle(tmp_path / "bundle", largest_log_amount=9.0)}) as client:
        usual = client.post("/v1/transactions", json=transaction()).json()
        unseen = client.post("/v1/transactions", json=transaction(minutes=6000, amount=98000)).json()

    assert (usual["anomaly"], usual["decision"]) == (False, "allow")
    assert (unseen["anomaly"], unseen["decision"]) == (True, "review")
    assert unseen["reasons"][0]["code"] == "AMOUNT_NEVER_SEEN"
    assert len(unseen["reasons"]) <= 4
