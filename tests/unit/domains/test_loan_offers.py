"""Tests of loan offers: prices worked out by hand, reasons for no offer, and acceptance that never rises with the rate."""

import math
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finrisk_assets.domains.loan_offers import decide, definition, features, model, profit
from finrisk_assets.domains.loan_offers.decide import Grid, LimitsError, OfferLimits, choose_offer
from finrisk_assets.scoring.annuity import instalment
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.ratios import ratios
from finrisk_assets.settings import Settings
from schemas.ledger import TABLES

GRID = Grid(rates=(6.0, 12.0, 18.0), multiples=(1.0, 3.0), terms=(12, 24))
LIMITS = OfferLimits(rate_cap_pct=18, funding_pct=3, offer_cost_amount=1, loan_cost_amount=20)
FALLING = np.repeat([0.5, 0.3, 0.1], 4)
SETTINGS = Settings(as_of=datetime(2025, 7, 1), seed=3)


# --- the price of one offer ------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_price_follow_from_the_plan_of_payments():
    one = Grid(rates=(12.0,), multiples=(), terms=(12,), amounts=(1000.0,))
    best = choose_offer([0.4], 0.1, 2000, one, LIMITS).best
    balance, interest, exposures = 1000.0, 0.0, []
    for _ in range(12):
        exposures.append(balance)
        interest += balance * 0.01
        balance = balance * 1.01 - best.instalment_amount
    assert balance == pytest.approx(0, abs=1e-9)
    assert best.interest == pytest.approx(interest)
    assert best.funding == pytest.approx(sum(exposures) * 0.03 / 12)
    assert best.expected_loss == pytest.approx(0.1 * 0.45 * sum(exposures) / 12)
    assert best.expected_profit == pytest.approx(0.4 * (best.interest - best.funding - best.expected_loss - 20) - 1)


def test_a_loan_without_interest_is_repaid_in_equal_parts():
    assert instalment(1200, 0, 12) == pytest.approx(100)
    prices = decide.price_offers([1.0], 0.0, 1000, Grid((0.0,), (), (12,), (1200.0,)), LIMITS)
    assert prices.interest[0, 0] == 0
    assert prices.funding[0, 0] == pytest.approx(sum(1200 - 100 * k for k in range(12)) * 0.03 / 12)


def test_the_best_the_alternatives_and_the_curve():
    choice = choose_offer(FALLING, 0.05, 2000, GRID, LIMITS)
    prices = decide.price_offers(FALLING, 0.05, 2000, GRID, LIMITS)
    allowed = prices.expected_profit[0][prices.allowed[0]]
    assert choice.decision == "offer"
    assert choice.best.expected_profit == allowed.max()
    assert len(choice.alternatives) == 3
    pairs = [(one.loan_amount, one.term_months) for one in (choice.best, *choice.alternatives)]
    assert len(set(pairs)) == 4, "each alternative differs in amount or term"
    earned = [one.expected_profit for one in (choice.best, *choice.alternatives)]
    assert earned == sorted(earned, reverse=True)
    assert [one.annual_rate_pct for one in choice.curve] == [6.0, 12.0, 18.0]
    assert max(one.expected_profit for one in choice.curve) == choice.best.expected_profit


@pytest.mark.parametrize(
    ("pd", "income", "limits", "reason"),
    [
        (0.05, None, LIMITS, decide.NO_INCOME),
        (None, 2000, LIMITS, decide.NO_PD),
        (0.26, 2000, LIMITS, decide.RISKY),
        (0.05, 2000, replace(LIMITS, rate_cap_pct=5), decide.CAPPED),
        (0.05, 2000, replace(LIMITS, max_instalment_to_income=0.01), decide.UNAFFORDABLE),
        (0.05, 2000, replace(LIMITS, loan_cost_amount=1e6), decide.UNPROFITABLE),
    ],
)
def test_no_offer_is_an_answer_with_its_reason(pd, income, limits, reason):
    choice = choose_offer(FALLING, pd, income, GRID, limits)
    assert (choice.decision, choice.best, choice.alternatives, choice.reason) == ("no_offer", None, (), reason)


def test_nothing_above_the_cap_the_affordable_or_the_maximum_pd_is_offered():
    limits = replace(LIMITS, rate_cap_pct=12, max_instalment_to_income=0.2)
    risk = np.where(np.arange(len(GRID)) % 2 == 0, 0.9, 0.05)  # the shorter term is too risky
    choice = choose_offer(FALLING, risk, 2000, GRID, limits)
    for one in (choice.best, *choice.alternatives, *choice.curve):
        assert one.annual_rate_pct <= 12
        assert one.instalment_amount <= 0.2 * 2000
        assert one.term_months == 24


def test_many_customers_get_what_each_would_get_alone():
    rng = np.random.default_rng(0)
    acceptance, pd, income = np.sort(rng.random((50, len(GRID))))[:, ::-1], rng.random(50) * 0.4, rng.uniform(100, 4000, 50)
    income[:5], pd[5:10] = np.nan, np.nan
    prices = decide.price_offers(acceptance, pd, income, GRID, LIMITS)
    together = decide.choose_offers(prices, income, LIMITS)
    for k in range(50):
        alone = choose_offer(acceptance[k], pd[k], income[k], GRID, LIMITS)
        assert alone.decision == together.decisions[k]
        assert alone.reason == decide.REASONS[together.reason[k]]
        if alone.best:
            assert alone.best == decide.read_offer(prices, k, int(together.best[k]), LIMITS)


@pytest.mark.parametrize(
    ("acceptance", "pd", "income", "message"),
    [([0.5] * 3, 0.1, 1000, "grid has 12 points"), ([1.5] * 12, 0.1, 1000, "acceptance"), ([0.5] * 12, -0.1, 1000, "pd"),
     ([0.5] * 12, 0.1, -1, "monthly_income")],
)  # fmt: skip
def test_what_is_no_probability_or_income_is_refused(acceptance, pd, income, message):
    with pytest.raises(ValueError, match=message):
        choose_offer(acceptance, pd, income, GRID, LIMITS)


def test_limits_and_grid_travel_in_a_bundle():
    stored = {**LIMITS.thresholds(), **GRID.thresholds()}
    assert (OfferLimits.from_thresholds(stored), Grid.from_thresholds(stored)) == (LIMITS, GRID)
    restricted = GRID.restrict(loan_amount=5000, term_months=24)
    assert Grid.from_thresholds(restricted.thresholds()) == restricted
    assert len(restricted) == 3
    with pytest.raises(LimitsError, match="max_pd is 2"):
        OfferLimits(max_pd=2)
    with pytest.raises(LimitsError, match="amounts above 0"):
        GRID.restrict(loan_amount=0)


def test_the_cheapest_terms_have_the_lowest_of_each():
    points = GRID.points(1000)
    at = decide.find_cheapest(GRID)
    assert (points.rate[at], points.amount[0, at], points.term[at]) == (6.0, 1000.0, 12.0)


# --- the model ------------------------------------------------------------------------------------------------------------------


DECLARED = features.select_features({name: TABLES[name].names for name in ("offers", "transactions")})
NAMES = [feature.name for feature in DECLARED]


def frame(n=1500, slope=-0.15, seed=0):
    """Return offers with a known logit: the rate, the amount to income, and the expenses."""
    rng = np.random.default_rng(seed)
    offer_rows = pd.DataFrame({name: rng.normal(size=n) for name in NAMES})
    income = rng.lognormal(7.5, 0.4, n)
    offer_rows["annual_rate_pct"] = rng.uniform(4, 24, n)
    offer_rows["log_loan_amount"] = np.log(income) + rng.normal(0.5, 0.5, n)
    offer_rows["log_term_months"] = np.log(rng.choice([12, 24, 36], n))
    offer_rows["log_loan_to_income"] = offer_rows.log_loan_amount - np.log(income)
    payment = instalment(np.exp(offer_rows.log_loan_amount), offer_rows.annual_rate_pct, np.exp(offer_rows.log_term_months))
    offer_rows["instalment_to_income"] = ratios(payment, income)
    offer_rows["log_income"] = np.log(income)
    logit = slope * offer_rows.annual_rate_pct + offer_rows.expense_to_income_90d + 1
    offer_rows["is_accepted"] = rng.random(n) < 1 / (1 + np.exp(-logit))
    offer_rows["is_rate_random"] = rng.random(n) < 0.7
    offer_rows["offer_id"] = [f"O{k}" for k in range(n)]
    offer_rows["customer_id"] = [f"{k % 200}" for k in range(n)]
    offer_rows["offered_at"] = pd.date_range("2023-01-01", periods=n, freq="6h")
    offer_rows["outcome_known_at"] = offer_rows.offered_at + pd.Timedelta(days=10)
    offer_rows["pd"] = rng.uniform(0.01, 0.3, n)
    offer_rows["monthly_income_amount"] = income
    return offer_rows


class OfOffers:
    name = "test"


def train_model(rows):
    return definition.LOAN_OFFERS.train(rows, DECLARED, OfOffers(), SETTINGS)


@pytest.fixture(scope="module")
def bundle():
    return Bundle(train_model(frame()).spec, "")


@given(state=st.lists(st.floats(-5, 5), min_size=len(NAMES), max_size=len(NAMES)), income=st.floats(200, 20_000), pair=st.integers(0, 8))
def test_acceptance_never_rises_with_the_rate(bundle, state, income, pair):
    rates = tuple(np.linspace(0, 60, 25))
    grid = replace(Grid.from_thresholds(bundle.thresholds), rates=rates)
    accepted = bundle.probability(decide.build_rows(NAMES, state, income, grid).reshape(-1, len(NAMES))).reshape(len(rates), -1)
    assert (np.diff(accepted[:, pair % accepted.shape[1]]) <= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_even_where_people_like_high_rates_the_model_does_not_say_so(seed):
    perverse = frame(slope=0.15, seed=seed)
    rows = perverse[NAMES].to_numpy(np.float32)
    fitted = model.candidates(DECLARED, 0)["logistic_regression"].fit(rows, perverse.is_accepted)
    free = model.SignedLogistic([0] * len(NAMES)).fit(rows, perverse.is_accepted)
    at = NAMES.index("annual_rate_pct")
    assert free[-1].coef_[0, at] > 0, "without the constraint the answers would say so"
    assert fitted[-1].coef_[0, at] == 0


def test_offers_at_a_policys_rates_never_teach():
    rows = frame()
    flipped = rows.assign(is_accepted=np.where(rows.is_rate_random, rows.is_accepted, ~rows.is_accepted))
    one, other = train_model(rows).spec, train_model(flipped).spec
    assert (one.components, one.calibration, one.thresholds) == (other.components, other.calibration, other.thresholds)


def test_the_calibration_sets_the_level_and_leaves_the_slope():
    rng = np.random.default_rng(1)
    margin = rng.normal(-1, 1, 5000)
    labels = rng.random(5000) < 1 / (1 + np.exp(-(margin + 0.7)))
    choice = model.calibrate_level(margin, labels)
    assert choice.apply(margin).mean() == pytest.approx(labels.mean())
    accepted = choice.apply(np.array([-1.0, 0.0, 1.0]))
    assert np.diff(np.log(accepted / (1 - accepted))) == pytest.approx([1, 1])


def test_the_rows_of_a_grid_repeat_the_state_and_put_in_the_terms():
    grid = Grid((4.0, 24.0), (2.0,), (12,))
    state = np.arange(len(NAMES), dtype=np.float32)
    offer_rows = decide.build_rows(NAMES, state, 1000, grid)
    assert offer_rows.shape == (1, 2, len(NAMES))
    row = dict(zip(NAMES, offer_rows[0, 1].tolist(), strict=True))
    assert row["annual_rate_pct"] == 24
    assert row["log_loan_amount"] == pytest.approx(math.log(2000))
    assert row["log_loan_to_income"] == pytest.approx(math.log(2))
    assert row["instalment_to_income"] == pytest.approx(instalment(2000, 24, 12) / 1000)
    assert row["log_income"] == NAMES.index("log_income"), "the customer's state stays"


# --- the population ---------------------------------------------------------------------------------------------------------------


def test_the_scores_hold_the_best_offer_or_the_reason_for_none(bundle):
    rows = frame(300, seed=4).assign(annual_rate_pct=np.nan)
    rows.loc[:9, "pd"], rows.loc[10:19, "monthly_income_amount"] = np.nan, np.nan
    scores = definition.LOAN_OFFERS.score(rows, bundle)
    grid, limits = Grid.from_thresholds(bundle.thresholds), OfferLimits.from_thresholds(bundle.thresholds)
    for k in range(0, 300, 7):
        state, income, risk = rows.loc[k, NAMES].to_numpy(np.float32), rows.monthly_income_amount[k], rows.pd[k]
        accepted = bundle.probability(decide.build_rows(NAMES, state, income, grid)[0])
        one = choose_offer(accepted, None if np.isnan(risk) else risk, None if np.isnan(income) else income, grid, limits)
        assert scores["decision"][k] == one.decision
        assert scores["no_offer_reason"][k].as_py() == (one.reason or None)
        at = decide.find_cheapest(grid)
        assert scores["probability"][k] == (one.best.acceptance if one.best else accepted[at])
        assert scores["offered_rate_pct"][k].as_py() == (one.best.annual_rate_pct if one.best else None)
        assert scores["expected_profit_amount"][k].as_py() == (one.best.expected_profit if one.best else None)


def test_an_oracle_captures_all_of_its_own_profit_and_no_policy_more(bundle):
    rows = frame(400, seed=5)
    grid, limits = Grid.from_thresholds(bundle.thresholds), OfferLimits.from_thresholds(bundle.thresholds)
    truth = pd.DataFrame(
        {
            "offer_id": rows.offer_id, "true_acceptance": 0.5, "accept_base": 1 + rows.expense_to_income_90d,
            "accept_rate_slope": -0.15, "accept_amount_slope": 0.0, "accept_term_slope": 0.0,
            "monthly_income_amount": rows.monthly_income_amount, "pd_base": np.log(rows.pd / (1 - rows.pd)), "pd_burden_slope": 0.0,
        }
    )  # fmt: skip
    real = profit.price_by_truth(rows, truth, grid, limits)
    best = decide.choose_offers(real, rows.monthly_income_amount, limits).best
    of_oracle = profit.find_earnings(real, best).sum()
    for places in profit.choose_by_policy(real, real, grid).values():
        assert profit.find_earnings(real, places).sum() < of_oracle
    choice = {figure.metric: figure for figure in profit.compare_policies(rows, rows, truth, bundle, seed=1)}
    assert 0.9 < choice["profit_captured"].value <= 1
    assert choice["profit_captured"].low < choice["profit_captured"].value < choice["profit_captured"].high


def test_an_offer_that_the_truth_forbids_earns_nothing_and_can_lose():
    real = decide.price_offers(
        np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([[0.3], [0.9]]), [5000, 5000], Grid((18.0, 24.0), (1.0,), (24,)), LIMITS
    )
    earned = profit.find_earnings(real, np.array([0, 0]))
    assert earned[0] == 0
    assert earned[1] == real.expected_profit[1, 0] < 0
    assert profit.find_earnings(real, np.array([-1, -1])).tolist() == [0, 0]
