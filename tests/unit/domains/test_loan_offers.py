"""Tests of loan offers: prices worked out by hand, reasons for no offer, and acceptance that never rises with the rate."""

import math
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finrisk_assets.domains.loan_offers import decide, definition, features, model, profit, simulated_profit
from finrisk_assets.domains.loan_offers.decide import Grid, GridError, choose_offer
from finrisk_assets.domains.loan_offers.pd_at_terms import LoanApplicants
from finrisk_assets.ledger.sources.simulator import Economy
from finrisk_assets.ledger.sources.simulator.lending.repayment import (
    LONGEST_MONTHS,
    NEVER,
    Course,
    Limits,
    Months,
    Outlook,
    draw_limits,
)
from finrisk_assets.policy.document import OfferGrid, Policy
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.annuity import instalment, instalment_to_cent
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.loan_decision import complete_terms, decide_loans
from finrisk_assets.scoring.loan_value import value_loans
from finrisk_assets.scoring.ratios import ratios
from finrisk_assets.scoring.spec import BundleSpec, Linear
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import TABLES

GRID = Grid(rates=(6.0, 12.0, 18.0), multiples=(1.0, 3.0), terms=(12, 24))


def policy_with(base: Policy | None = None, **sections: dict) -> Policy:
    """Return a policy with changed values, by section."""
    policy = base or default_policy()
    return policy.model_copy(update={name: getattr(policy, name).model_copy(update=values) for name, values in sections.items()})


POLICY = policy_with(lending={"loan_cost_amount": 20.0}, loan_offers={"offer_cost_amount": 1.0})
FALLING = np.repeat([0.5, 0.3, 0.1], 4)
SETTINGS = Settings(as_of=datetime(2025, 7, 1), seed=3)


# --- the price of one offer ------------------------------------------------------------------------------------------------------


def test_the_parts_of_a_price_are_those_of_the_loans_value():
    one = Grid(rates=(12.0,), multiples=(), terms=(12,), amounts=(1000.0,))
    best = choose_offer([0.4], 0.02, 2000, one, POLICY).best
    value = value_loans(1000.0, 12.0, 12, 0.02, POLICY.lending)
    assert (best.interest, best.funding) == (pytest.approx(float(value.interest)), pytest.approx(float(value.funding)))
    assert (best.expected_loss, best.cost) == (pytest.approx(float(value.expected_loss)), pytest.approx(float(value.cost)))
    assert best.expected_profit == pytest.approx(0.4 * float(value.value) - 1)
    assert best.instalment_amount == instalment_to_cent(1000, 12, 12)


def test_the_best_the_alternatives_and_the_curve():
    choice = choose_offer(FALLING, 0.005, 4000, GRID, POLICY)
    prices = decide.price_offers(FALLING, 0.005, 4000, GRID, POLICY)
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
    ("pd", "income", "changes", "reason"),
    [
        (0.01, None, {}, decide.NO_INCOME),
        (None, 2000, {}, decide.NO_PD),
        (0.26, 2000, {}, decide.RISKY),
        (0.01, 2000, {"lending": {"rate_cap_pct": 5.0}}, decide.CAPPED),
        (0.01, 2000, {"lending": {"max_instalment_to_income": 0.01}}, decide.UNAFFORDABLE),
        (0.01, 2000, {"lending": {"loan_cost_amount": 1e6}}, decide.NOT_APPROVED),
        (0.24, 2000, {}, decide.NOT_APPROVED),
        (0.01, 2000, {"loan_offers": {"offer_cost_amount": 1e6}}, decide.UNPROFITABLE),
    ],
)
def test_no_offer_is_an_answer_with_its_reason(pd, income, changes, reason):
    choice = choose_offer(FALLING, pd, income, GRID, policy_with(POLICY, **changes))
    assert (choice.decision, choice.best, choice.alternatives, choice.reason) == ("no_offer", None, (), reason)


def test_who_is_of_high_spending_risk_gets_an_offer_only_where_the_policy_says_so():
    """The same word as in spending risk: HIGH from the policy's threshold on."""
    generous = policy_with(POLICY, loan_offers={"offers_to_high_spending_risk": True})
    for probability, policy, reason in [
        (0.69, POLICY, ""),
        (0.7, POLICY, decide.HIGH_SPENDING_RISK),
        (0.7, generous, ""),
        (None, POLICY, ""),
    ]:
        assert choose_offer(FALLING, 0.01, 4000, GRID, policy, spending_probability=probability).reason == reason


def test_nothing_above_the_cap_the_affordable_or_the_maximum_pd_is_offered():
    policy = policy_with(POLICY, lending={"rate_cap_pct": 12.0, "max_instalment_to_income": 0.2})
    risk = np.where(np.arange(len(GRID)) % 2 == 0, 0.9, 0.01)  # the shorter term is too risky
    choice = choose_offer(FALLING, risk, 4000, GRID, policy)
    for one in (choice.best, *choice.alternatives, *choice.curve):
        assert one.annual_rate_pct <= 12
        assert one.instalment_amount <= 0.2 * 4000
        assert one.term_months == 24


def test_every_offer_would_be_approved_as_an_application():
    """Over a population, each allowed point of the grid is approved by the decision on loans at the same terms, and no other is allowed."""
    rng = np.random.default_rng(3)
    acceptance, income = rng.random((200, len(GRID))), rng.uniform(300, 6000, 200)
    pd, usual = rng.uniform(0, 0.3, (200, len(GRID))), income * rng.uniform(0.6, 1.1, 200)
    prices = decide.price_offers(acceptance, pd, income, GRID, POLICY, usual_income=usual)
    points = prices.points
    for k in range(0, 200, 9):
        for g in range(len(GRID)):
            terms = complete_terms(
                POLICY, amount=points.amount[k, g], annual_rate_pct=points.rate[g], term_months=points.term[g],
                stated_instalment=instalment_to_cent(points.amount[k, g], points.rate[g], points.term[g]), usual_income=usual[k],
            )  # fmt: skip
            assert prices.allowed[k, g] == decide_loans(pd[k, g], terms, POLICY).is_approved


def test_many_customers_get_what_each_would_get_alone():
    rng = np.random.default_rng(0)
    acceptance, pd, income = np.sort(rng.random((50, len(GRID))))[:, ::-1], rng.random(50) * 0.2, rng.uniform(100, 9000, 50)
    income[:5], pd[5:10] = np.nan, np.nan
    prices = decide.price_offers(acceptance, pd, income, GRID, POLICY)
    together = decide.choose_offers(prices, income, POLICY)
    for k in range(50):
        alone = choose_offer(acceptance[k], pd[k], income[k], GRID, POLICY)
        assert alone.decision == together.decisions[k]
        assert alone.reason == decide.REASONS[together.reason[k]]
        if alone.best:
            assert alone.best == decide.read_offer(prices, k, int(together.best[k]))


@pytest.mark.parametrize(
    ("acceptance", "pd", "income", "message"),
    [([0.5] * 3, 0.1, 1000, "grid has 12 points"), ([1.5] * 12, 0.1, 1000, "acceptance"), ([0.5] * 12, -0.1, 1000, "pd"),
     ([0.5] * 12, 0.1, -1, "monthly_income")],
)  # fmt: skip
def test_what_is_no_probability_or_income_is_refused(acceptance, pd, income, message):
    with pytest.raises(ValueError, match=message):
        choose_offer(acceptance, pd, income, GRID, POLICY)


def test_the_grid_travels_in_a_bundle():
    assert Grid.from_thresholds(GRID.thresholds()) == GRID
    restricted = GRID.restrict(loan_amount=5000, term_months=24)
    assert Grid.from_thresholds(restricted.thresholds()) == restricted
    assert len(restricted) == 3
    with pytest.raises(GridError, match="amounts above 0"):
        GRID.restrict(loan_amount=0)


def test_the_policy_chooses_within_what_the_model_learned_from():
    learned = OfferGrid(rates_pct=(), amounts_in_incomes=(), terms_months=())
    assert GRID.choose_grid(learned, 1000) == GRID
    own = OfferGrid(rates_pct=(5, 9, 20), amounts_in_incomes=(2,), terms_months=(6, 18, 24))
    assert GRID.choose_grid(own, 1000) == Grid((9.0,), (2.0,), (18, 24))
    assert GRID.choose_grid(learned, 12).rates == (6.0, 12.0)
    assert GRID.choose_grid(learned, 5).rates == GRID.rates, "the decision then says that the cap leaves nothing"
    assert GRID.choose_grid(OfferGrid(rates_pct=(90,), amounts_in_incomes=(), terms_months=()), 1000).rates == GRID.rates


def test_offered_amounts_are_whole():
    assert GRID.points(1234.56).amount[0, ::2].tolist() == [1235.0, 3704.0] * 3


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
    logit = slope * offer_rows.annual_rate_pct + offer_rows.expense_to_income_3m + 1
    offer_rows["is_accepted"] = rng.random(n) < 1 / (1 + np.exp(-logit))
    offer_rows["is_rate_random"] = rng.random(n) < 0.7
    offer_rows["offer_id"] = [f"O{k}" for k in range(n)]
    offer_rows["customer_id"] = [f"{k % 200}" for k in range(n)]
    offer_rows["offered_at"] = pd.date_range("2023-01-01", periods=n, freq="6h")
    offer_rows["outcome_known_at"] = offer_rows.offered_at + pd.Timedelta(days=10)
    offer_rows["pd"] = rng.uniform(0.001, 0.12, n)
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
    grid = Grid.from_thresholds(bundle.thresholds)
    for k in range(0, 300, 7):
        state, income, risk = rows.loc[k, NAMES].to_numpy(np.float32), rows.monthly_income_amount[k], rows.pd[k]
        accepted = bundle.probability(decide.build_rows(NAMES, state, income, grid)[0])
        one = choose_offer(accepted, None if np.isnan(risk) else risk, None if np.isnan(income) else income, grid, bundle.policy)
        assert scores["decision"][k] == one.decision
        assert scores["no_offer_reason"][k].as_py() == (one.reason or None)
        at = decide.find_cheapest(grid)
        assert scores["probability"][k] == (one.best.acceptance if one.best else accepted[at])
        assert scores["offered_rate_pct"][k].as_py() == (one.best.annual_rate_pct if one.best else None)
        assert scores["expected_profit_amount"][k].as_py() == (one.best.expected_profit if one.best else None)


def test_the_pd_is_that_of_the_loan_model_at_the_offered_terms():
    """A loan model that minds the burden: large loans are riskier, and the best offer is smaller than with one PD for all terms."""
    names = ("loan_amount", "annual_rate_pct", "term_months", "instalment_amount", "usual_income_amount", "instalment_to_usual_income")
    declared = tuple(Feature(name, "", "") for name in names)
    part = Linear((0, 0, 0, 0, 0, 9.0), (0,) * 6, (1,) * 6, (0,) * 6, (False,) * 6, intercept=-5.0)
    loans = Bundle(BundleSpec("l", "loan_default", "s", declared, (part,), np.ones((1, 6), np.float32), 0, "", ""), "")
    known = dict(zip(names, (3000, 10, 24, 138, 3000, 0.05), strict=True))
    customers = LoanApplicants(loans, {name: np.array([value, np.nan]) for name, value in known.items()})
    points = GRID.points([3000, 3000])
    pd = customers.find_pds(points)
    assert np.isnan(pd[1]).all(), "without loan features there is no PD, and so no offer"
    expected = 1 / (1 + np.exp(5 - 9 * points.instalment[0] / 3000))
    assert pd[0] == pytest.approx(expected, rel=1e-4)
    assert customers.find_usual_incomes([1000, 1000]).tolist() == pytest.approx([3000, np.nan], nan_ok=True)


# --- profit by the simulator's cash flows -------------------------------------------------------------------------------------


ECONOMY = Economy()


def hidden_state(rows: pd.DataFrame, pressure: float = -7.0) -> dict[str, np.ndarray]:
    """Return columns of ``truth_offers`` in which people differ in how much they want a loan."""
    n = len(rows)
    return {
        "offer_id": rows.offer_id.to_numpy(), "true_acceptance": np.full(n, 0.5), "accept_base": 1 + rows.expense_to_income_3m.to_numpy(),
        "accept_rate_slope": np.full(n, -0.15), "accept_amount_slope": np.zeros(n), "accept_term_slope": np.zeros(n),
        "monthly_income_amount": rows.monthly_income_amount.to_numpy(), "true_income_amount": rows.monthly_income_amount.to_numpy(),
        "pressure": np.full(n, pressure), "lasting_pressure": np.full(n, pressure), "is_salaried": np.ones(n, bool),
        "is_working": np.ones(n, bool), "recovery_share": np.full(n, 0.55),
    }  # fmt: skip


def draw_limits_of(truth: dict[str, np.ndarray], seed: int = 0) -> Limits:
    """Return what people bear who stay in work and have no mishaps."""
    shape = (len(truth["pressure"]), LONGEST_MONTHS)
    quiet = Months(np.zeros(shape, bool), np.zeros(shape, bool), np.ones(shape))
    return draw_limits(Outlook.from_columns(truth), quiet, ECONOMY.loans, np.random.default_rng(seed))


def to_table(limits: Limits, contracts: np.ndarray) -> pd.DataFrame:
    """Return limits as the table ``truth_limits`` has them, every month listed."""
    month = np.tile(np.arange(1, LONGEST_MONTHS + 1), len(contracts))
    parts = {"default": limits.instalment, "prepayment": limits.rate}
    columns = [
        pd.DataFrame({"contract_id": np.repeat(contracts, LONGEST_MONTHS), "event": event, "month": month, "limit": values.ravel()})
        for event, values in parts.items()
    ]
    return pd.concat(columns, ignore_index=True)


def test_a_loan_that_runs_to_its_end_earns_its_interest_less_funding_and_costs():
    """The policy's valuation of a sure payer, without prepayment, comes to the same by other code."""
    policy = policy_with(POLICY, lending={"prepayment_pct": 0.0})
    terms = (np.array([1000.0, 5000.0]), np.array([12.0, 0.0]), np.array([12, 24]))
    never = np.full(2, NEVER)
    margin, servicing = simulated_profit.settle(*terms, Course(never, never), np.full(2, 0.55), 12, policy.lending)
    value = value_loans(*terms, 0.0, policy.lending).value
    assert margin - servicing - policy.lending.loan_cost_amount == pytest.approx(value, abs=0.05)


def test_a_default_loses_what_is_owed_and_not_recovered():
    one = (np.array([1000.0]), np.array([12.0]), np.array([24]))
    never = np.array([NEVER])
    early = Course(np.array([3]), never)
    margins = [
        simulated_profit.settle(*one, early, np.array([share]), 12, POLICY.lending)[0][0] for share in (0.0, 0.55, 1.0)
    ]  # fmt: skip
    assert np.diff(margins) == pytest.approx([550 * 1.05 ** (-15 / 12), 450 * 1.05 ** (-15 / 12)])
    assert margins[0] == pytest.approx(-1000 * 1.05 ** (-15 / 12), abs=45), "no instalment was paid, and the money was funded"


def test_the_expected_profit_is_the_mean_of_what_is_played():
    rows = frame(1, seed=5)
    many = pd.concat([rows] * 4_000, ignore_index=True).assign(offer_id=[f"O{k}" for k in range(4_000)])
    truth = hidden_state(many, pressure=-5.0)
    household = replace(ECONOMY.household, job_loss_rate=0.0, mishap_rate=0.0)
    points = Grid((6.0, 18.0), (2.0,), (12, 36)).points(many.monthly_income_amount)
    real = simulated_profit.simulate_profit(truth, draw_limits_of(truth), points, POLICY, replace(ECONOMY, household=household))
    spread = real.played.std(axis=0) / np.sqrt(len(many))
    assert (np.abs(real.played.mean(axis=0) - real.expected[0]) < 4 * spread + 0.02).all()


def test_an_oracle_captures_all_of_its_own_profit_and_no_policy_more(bundle):
    rows = frame(400, seed=5)
    grid, policy, truth = Grid.from_thresholds(bundle.thresholds), bundle.policy, hidden_state(rows)
    limits = draw_limits_of(truth)
    real = simulated_profit.simulate_profit(truth, limits, grid.points(rows.monthly_income_amount), policy, ECONOMY)
    best = profit.find_best(np.where(real.permitted, real.expected, -np.inf))
    of_oracle = profit.find_earnings(real.expected, best).sum()
    _, believed = profit.price_by_model(rows, bundle, grid)
    for places in profit.choose_by_policy(believed, believed, grid).values():
        assert profit.find_earnings(real.expected, places).sum() < of_oracle
    compared = profit.compare_policies(
        rows, rows, pd.DataFrame(truth), to_table(limits, rows.offer_id.to_numpy()), bundle, ECONOMY, seed=1
    )  # fmt: skip
    choice = {figure.metric: figure for figure in compared}
    assert 0.5 < choice["profit_captured"].value <= 1.01
    assert choice["profit_captured"].low < choice["profit_captured"].value < choice["profit_captured"].high
    assert choice["oracle_profit_amount"].value == pytest.approx(of_oracle / len(rows))
    assert {"profit_captured_as_played", "profit_gain_over_undated_profit", "offers_beyond_true_limits"} <= choice.keys()


def test_the_oracle_keeps_to_the_limits_of_the_policy_by_the_true_income_and_pd():
    rows = frame(2, seed=5)
    truth = hidden_state(rows)
    truth["true_income_amount"] = np.array([50.0, 1e6])
    points = GRID.points(rows.monthly_income_amount)
    permitted = simulated_profit.simulate_profit(truth, draw_limits_of(truth), points, POLICY, ECONOMY).permitted
    assert not permitted[0].any() and permitted[1, -4:].all()
    risky = hidden_state(rows, pressure=0.0)
    assert not simulated_profit.simulate_profit(risky, draw_limits_of(risky), points, POLICY, ECONOMY).permitted.any()


def test_undated_profit_likes_the_longest_term_whatever_the_risk():
    prices = decide.price_offers(np.full(12, 0.5), 0.15, 4000, GRID, POLICY)
    at = profit.choose_by_undated_profit(prices, POLICY)[0]
    assert (prices.points.rate[at], prices.points.term[at]) == (18.0, 24.0)
    assert profit.choose_by_undated_profit(decide.price_offers(np.full(12, 0.5), 0.3, 4000, GRID, POLICY), POLICY)[0] == -1
