"""Tests of the answers on spending, cashflow, offers and loans, for a customer of the ledger and for sent features."""

import math

import numpy as np
import pytest

from finrisk_assets.domains.loan_offers.decide import build_rows, choose_offer
from finrisk_assets.domains.loan_offers.pd_at_terms import LoanApplicants
from finrisk_assets.features.loan_terms import with_terms
from finrisk_assets.policy.policy_file import DEFAULT_POLICY, default_policy, read_policy
from finrisk_assets.scoring.bundle import Bundle
from tests.service.envelopes import read_error
from tests.service.examples import (
    CASHFLOW_ROW,
    EIGHT_FIELDS,
    GRID,
    LOAN_ROW,
    OFFER_ROW,
    SNAPSHOTS,
    SPENDING_ROW,
    snapshot_of,
    write_cashflow_bundle,
)

ISSUE = {
    "/v1/spending-risk": EIGHT_FIELDS,
    "/v1/loan-default": {"customer_id": 123, "loan_amount": 50000},
    "/v1/transactions": {
        "user_id": 101, "amount": 98000, "merchant": "CryptoX", "country": "SG", "timestamp": "2024-11-21T10:16:30",
    },
}  # fmt: skip
"""Bodies that clients were promised an answer to."""


def ask(client, route, **body):
    answer = client.post(f"/v1/{route}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def bundle(bundles):
    """Return a function that loads the bundle of a domain."""
    return lambda domain: Bundle.load(bundles[domain])


def row(bundle, values):
    return bundle.row({feature.name: values[feature.name] for feature in bundle.features})[None, :]


@pytest.mark.parametrize("route", ISSUE)
def test_promised_bodies_are_answered(shared_client, route):
    assert shared_client.post(route, json=ISSUE[route]).status_code == 200


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("spending-risk", EIGHT_FIELDS),
        ("spending-risk", {"customer_id": 123}),
        ("cashflow", {"customer_id": 123}),
        ("loan-offers", {"customer_id": 123}),
        ("loan-offers", {"customer_id": 123, "pd": 0.9}),
        ("loan-default", {"customer_id": 123, "loan_amount": 50000}),
    ],
)
def test_base_and_contributions_sum_to_the_score(shared_client, route, body):
    answer = ask(shared_client, route, **body)

    explained = answer["explanation"]["base"] + sum(item["contribution"] for item in answer["explanation"]["contributions"])
    assert explained == pytest.approx(answer["score"], abs=1e-9)
    assert len(answer["reasons"]) <= 4


def without_decision_id(answer):
    """Return an answer without the id of its decision."""
    return {name: value for name, value in answer.items() if name != "decision_id"}


def test_eight_fields_are_judged_by_the_model_of_the_eight(shared_client, bundle):
    answer = ask(shared_client, "spending-risk", **EIGHT_FIELDS)
    model = bundle("spending_risk_eight")

    assert answer["risk_probability"] == model.probability(row(model, EIGHT_FIELDS))[0]
    assert answer["model"] == {"name": "finrisk-spending-risk-eight", "version": model.version}
    assert (answer["risk_level"], answer["customer_id"], answer["as_of"]) == ("LOW", None, None)


def test_small_letters_are_the_same_eight_fields(shared_client):
    small = {name.lower(): value for name, value in EIGHT_FIELDS.items()}

    assert without_decision_id(ask(shared_client, "spending-risk", **small)) == without_decision_id(
        ask(shared_client, "spending-risk", **EIGHT_FIELDS)
    )


def test_a_ratio_without_bound_is_read_as_the_model_knows_it(shared_client):
    broke = EIGHT_FIELDS | {"Total_Income": 420, "Expense_Income_Ratio": 100}

    answer = ask(shared_client, "spending-risk", **broke)

    shown_values = {item["feature"]: item["value"] for item in answer["explanation"]["contributions"]}
    assert shown_values["Expense_Income_Ratio"] == 10
    assert answer["risk_level"] == "HIGH"


def test_a_customer_is_judged_by_the_model_of_all_features(shared_client, bundle):
    answer = ask(shared_client, "spending-risk", customer_id=123)
    model = bundle("spending_risk")

    assert answer["risk_probability"] == model.probability(row(model, SPENDING_ROW))[0]
    assert answer["model"]["name"] == "finrisk-spending-risk"
    assert (answer["customer_id"], answer["as_of"]) == ("123", "2024-07-01T00:00:00Z")
    assert answer["risk_level"] == "HIGH"
    assert answer["reasons"][0]["text"] == "Expense_Income_Ratio of 90 days: 110 %"


def test_cashflow_says_direction_and_amount(shared_client, bundle):
    answer = ask(shared_client, "cashflow", customer_id=123)
    model = bundle("cashflow")
    amounts = model.amount(row(model, CASHFLOW_ROW))

    assert answer["surplus_probability"] == model.probability(row(model, CASHFLOW_ROW))[0] < 0.5
    assert answer["direction"] == "deficit"
    assert answer["reasons"][0]["text"] == "Net_flow_30d of 90 days: -35,000 %"
    assert answer["expected_change_amount"] == amounts.expected[0]
    assert answer["interval"] == {"low": amounts.low[0], "high": amounts.high[0], "coverage": 0.8}
    assert (answer["customer_id"], answer["account_id"]) == ("123", "A123")


def test_an_account_and_its_features_are_answered_alike(shared_client):
    by_account = without_decision_id(ask(shared_client, "cashflow", account_id="A123"))
    by_features = without_decision_id(ask(shared_client, "cashflow", features=CASHFLOW_ROW))

    assert by_account == without_decision_id(ask(shared_client, "cashflow", customer_id="123"))
    assert by_features == by_account | {"customer_id": None, "account_id": None, "as_of": None}


@pytest.mark.parametrize("size", [None, 0])
def test_without_a_measure_there_is_no_amount_but_a_direction(shared_client, size):
    answer = ask(shared_client, "cashflow", features=CASHFLOW_ROW | {"typical_movement_amount": size})

    assert answer["expected_change_amount"] is answer["interval"] is None
    assert answer["direction"] in ("surplus", "deficit")


def test_a_model_of_the_direction_alone_says_no_amount(serving, tmp_path):
    with serving({"cashflow": write_cashflow_bundle(tmp_path / "cashflow", with_amount=False)}) as client:
        assert ask(client, "cashflow", customer_id=123)["interval"] is None


def offers(bundle, grid=GRID):
    """Return the offer to customer 123, at the PD that the loan model gives at each of the terms."""
    model, income = bundle("loan_offers"), OFFER_ROW["monthly_income_amount"]
    names = [feature.name for feature in model.features]
    acceptance = model.probability(build_rows(names, row(model, OFFER_ROW), income, grid)[0])
    applicant = LoanApplicants(bundle("loan_default"), {name: np.array([value]) for name, value in LOAN_ROW.items()})
    return choose_offer(acceptance, applicant.find_pds(grid.points(income))[0], income, grid, default_policy())


def test_the_best_offer_is_made_with_its_parts_alternatives_and_curve(shared_client, bundle):
    answer = ask(shared_client, "loan-offers", customer_id=123)
    expected = offers(bundle)
    best = expected.best

    assert (answer["decision"], answer["reason"]) == ("offer", None)
    offer = answer["offer"]
    assert offer["expected_profit"] == best.expected_profit > 0
    assert (offer["annual_rate_pct"], offer["term_months"], offer["pd"]) == (best.annual_rate_pct, best.term_months, best.pd)
    assert (answer["pd"], answer["policy_version"]) == (best.pd, default_policy().version)
    parts = offer["parts"]
    earned = parts["interest"] - parts["funding"] - parts["expected_loss"] - parts["cost"]
    assert offer["expected_profit"] == pytest.approx(offer["acceptance"] * earned - default_policy().loan_offers.offer_cost_amount)
    assert len(answer["alternatives"]) == len(expected.alternatives) > 0
    assert all(other["expected_profit"] <= offer["expected_profit"] for other in answer["alternatives"])
    assert [point["annual_rate_pct"] for point in answer["curve"]] == list(GRID.rates)


def test_an_offers_explanation_is_that_of_its_terms(shared_client):
    answer = ask(shared_client, "loan-offers", customer_id=123)
    shown_values = {item["feature"]: item["value"] for item in answer["explanation"]["contributions"]}

    assert answer["acceptance"] == pytest.approx(answer["offer"]["acceptance"], abs=1e-12)
    assert shown_values["annual_rate_pct"] == answer["offer"]["annual_rate_pct"]
    assert shown_values["log_loan_to_income"] == pytest.approx(math.log(answer["offer"]["loan_amount"] / 3000), abs=1e-6)


def test_only_the_amount_and_term_that_are_asked_for_are_considered(shared_client, bundle):
    answer = ask(shared_client, "loan-offers", customer_id=123, loan_amount=5000, term_months=36)

    assert (answer["offer"]["loan_amount"], answer["offer"]["term_months"]) == (5000, 36)
    assert answer["offer"]["expected_profit"] == offers(bundle, grid=GRID.restrict(loan_amount=5000, term_months=36)).best.expected_profit
    assert answer["alternatives"] == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"customer_id": 123, "pd": 0.9}, "There is no offer: the probability of default is above the maximum."),
        ({"customer_id": 123, "loan_amount": 900000, "pd": 0.02}, "There is no offer: every instalment takes too much of the income."),
        ({"customer_id": 8, "pd": 0.02}, "There is no offer: the income is not known."),
    ],
)
def test_no_offer_is_an_answer_with_its_reason(shared_client, body, reason):
    answer = ask(shared_client, "loan-offers", **body)

    assert (answer["decision"], answer["reason"], answer["offer"]) == ("no_offer", reason, None)


def test_every_offer_would_be_approved_as_an_application(shared_client):
    answer = ask(shared_client, "loan-offers", customer_id=123)

    for offer in (answer["offer"], *answer["alternatives"]):
        terms = {name: offer[name] for name in ("loan_amount", "term_months", "annual_rate_pct")}
        application = ask(shared_client, "loan-default", customer_id=123, **terms)
        assert (application["decision"], application["decision_reason"]) == ("approve", None)
        assert application["pd"] == offer["pd"]


def test_the_pd_is_the_one_sent_else_the_loan_models_at_the_terms(shared_client, bundle):
    modelled = ask(shared_client, "loan-offers", customer_id=123)
    sent = ask(shared_client, "loan-offers", customer_id=123, pd=0.02)

    assert modelled["pd_model"] == bundle("loan_default").version
    assert (sent["pd"], sent["pd_model"]) == (0.02, None)
    error = read_error(shared_client.post("/v1/loan-offers", json={"customer_id": 8}), 422, "invalid_request")
    assert [field["field"] for field in error["fields"]] == ["pd"], "a customer without loan features, who could not apply either"


def test_without_a_loan_model_the_pd_is_the_one_stored(serving, bundles):
    with serving({"loan_offers": bundles["loan_offers"]}) as client:
        assert ask(client, "loan-offers", customer_id=8)["pd"] == 0.03


def test_features_without_terms_are_enough_for_an_offer(shared_client):
    body = {"features": {"expense_ratio_90d": 1.02}, "pd": 0.02, "monthly_income_amount": 3000}

    answer = ask(shared_client, "loan-offers", **body)

    assert answer["offer"] == ask(shared_client, "loan-offers", customer_id=123, pd=0.02)["offer"]


def test_no_offer_goes_to_a_high_spending_risk(serving, bundles):
    risky = snapshot_of("spending_risk", "123", SPENDING_ROW, probability=0.7)
    snapshots = (*(one for one in SNAPSHOTS if (one.domain, one.customer_id) != ("spending_risk", "123")), risky)
    chosen = {domain: bundles[domain] for domain in ("loan_offers", "loan_default")}
    with serving(chosen, snapshots=snapshots) as client:
        answer = ask(client, "loan-offers", customer_id=123)
    assert (answer["decision"], answer["reason"]) == ("no_offer", "There is no offer: the spending risk is HIGH.")


def test_the_policy_is_the_banks_and_needs_no_other_model(serving, bundles, monkeypatch, tmp_path):
    """The same bundle refuses under a policy that knows higher losses; the answer names the policy."""
    harsh = tmp_path / "harsh.yaml"
    harsh.write_text(DEFAULT_POLICY.read_text().replace("max_pd: 0.25", "max_pd: 0.001"))
    body = {"customer_id": 123, "loan_amount": 3000, "term_months": 24}
    answers = []
    for file in (DEFAULT_POLICY, harsh):
        monkeypatch.setenv("FINRISK_POLICY", str(file))
        with serving({"loan_default": bundles["loan_default"]}) as client:
            answers.append(ask(client, "loan-default", **body))
    mild, strict = answers
    assert (mild["decision"], strict["decision"]) == ("approve", "refuse")
    assert strict["decision_reason"] == "The probability of default is above the largest that is granted."
    assert mild["pd"] == strict["pd"] and mild["model"] == strict["model"]
    assert (mild["policy_version"], strict["policy_version"]) == (read_policy(DEFAULT_POLICY).version, read_policy(harsh).version)


def test_a_customers_loan_is_judged_with_the_terms_that_are_asked_for(shared_client, bundle):
    answer = ask(shared_client, "loan-default", customer_id=123, loan_amount=6000, term_months=12, annual_rate_pct=12)
    model = bundle("loan_default")
    changed = with_terms(LOAN_ROW, loan_amount=6000, term_months=12, annual_rate_pct=12)

    assert answer["pd"] == model.probability(row(model, changed))[0]
    assert (answer["customer_id"], answer["as_of"], answer["loan_id"]) == ("123", "2024-07-01T00:00:00Z", None)
    assert changed["instalment_to_usual_income"] == pytest.approx(533.09 / 3000)
