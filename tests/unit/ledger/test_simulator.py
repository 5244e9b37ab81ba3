"""Tests of the simulator: reproducible economies, consistent ledgers, and outcomes that follow their true probabilities."""

from dataclasses import replace
from datetime import datetime, timedelta

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from finrisk_assets.ledger import contract
from finrisk_assets.ledger.sources.simulator import (
    Economy,
    FraudEffects,
    HouseholdEffects,
    LoanEffects,
    OfferEffects,
    economy_from_settings,
    run,
    simulate,
    source,
)
from finrisk_assets.ledger.sources.simulator.economy_source import choose_fraud_rate
from finrisk_assets.ledger.sources.simulator.episodes import draw_episodes
from finrisk_assets.ledger.sources.simulator.lending import repayment
from finrisk_assets.ledger.sources.simulator.movements import share_out
from finrisk_assets.ledger.sources.simulator.population.calendar import first_state, simulate_months
from finrisk_assets.ledger.sources.simulator.population.economy import ABROAD
from finrisk_assets.ledger.sources.simulator.population.households import Draws, step
from finrisk_assets.ledger.sources.simulator.population.people import Town, draw_market, draw_people
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.settings import Settings, SettingsError

ECONOMY = Economy(n_customers=500, n_months=14, seed=7, start=datetime(2022, 5, 1), loans_per_customer=6, futures=100, fraud_rate=0.2)
TOWN = Town(ECONOMY)
KINDS = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
}
NO_LENDING = {"loans_per_customer": 0, "offers_per_customer": 0}


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return run(ECONOMY)


@pytest.fixture(scope="module")
def moves(tables):
    """Return the transactions as a frame, without the invalid rows."""
    return valid_rows(tables, ECONOMY).to_pandas()


@pytest.fixture(scope="module")
def months(moves):
    """Return one row per account and month: income, expenses, closing balance, and whether there was trouble."""
    signed = moves.amount * np.where(moves.direction == "credit", 1, -1)
    rows = moves.assign(
        month=moves.occurred_at.dt.to_period("M"),
        flow=signed.where(moves.category != "opening_balance", 0.0),
        penalty=moves.occurred_at.where(moves.category == "penalty"),
        returned=moves.occurred_at.where(moves.category == "returned_payment"),
    )
    return rows.groupby(["customer_id", "month"], as_index=False).agg(
        flow=("flow", "sum"), closing=("balance_amount", "last"), penalty=("penalty", "max"), returned=("returned", "min")
    )


@pytest.fixture(scope="module")
def loans(tables):
    return tables["loans"].to_pandas().merge(tables["truth_loans"].to_pandas(), on="loan_id", validate="one_to_one")


@pytest.fixture(scope="module")
def offers(tables):
    return tables["offers"].to_pandas().merge(tables["truth_offers"].to_pandas(), on="offer_id", validate="one_to_one")


def valid_rows(simulated: dict[str, pa.Table], economy: Economy) -> pa.Table:
    table = simulated["transactions"]
    return table.slice(0, table.num_rows - economy.bad_rows)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def assert_calibrated(true, happened, cluster=1.0, bins=8):
    """Assert that in each of equally full bins the share of outcomes is the mean probability, within four standard errors.

    `cluster` is how much more than one by one the outcomes vary, because those of one person go together.
    """
    true, happened = np.asarray(true), np.asarray(happened, dtype=float)
    for rows in np.array_split(np.argsort(true, kind="stable"), bins):
        error = np.sqrt((true[rows] * (1 - true[rows])).mean() / len(rows)) * cluster
        assert abs(happened[rows].mean() - true[rows].mean()) < 4 * error + 1e-6


# --- one economy, one ledger ----------------------------------------------------------------------------------------


def test_the_same_economy_gives_the_same_bytes(tmp_path):
    settings = Settings(home=tmp_path, sim_customers=60, sim_months=6)
    hashes, files = [], []
    for attempt in ("first", "second"):
        simulated = source(settings)
        lands = {**{name: table.land for name, table in simulated.tables.items()}, **simulated.truth}
        hashes.append({name: land(tmp_path / attempt / f"{name}.parquet").sha256 for name, land in lands.items()})
        files.append({name: (tmp_path / attempt / f"{name}.parquet").read_bytes() for name in lands})
    assert hashes[0] == hashes[1]
    assert files[0] == files[1]


def test_another_seed_gives_another_economy():
    one, other = (simulate(50, 6, seed=seed) for seed in (1, 2))
    assert not one["transactions"].equals(other["transactions"])


def test_a_change_to_the_loans_leaves_the_transactions_alone():
    small = replace(ECONOMY, n_customers=60)
    one, other = run(small), run(replace(small, default_rate=0.2, loans=LoanEffects(burden=0.1)))
    assert valid_rows(other, small).equals(valid_rows(one, small))
    assert not other["loans"].equals(one["loans"])


def test_towns_are_independent_and_the_first_is_an_economy_of_its_own():
    one = Economy(40, 6, town_size=40, bad_rows=0)
    alone, both = run(one), run(replace(one, n_customers=70))
    for name, table in alone.items():
        assert both[name].slice(0, table.num_rows).equals(table), name
    second = both["transactions"].slice(alone["transactions"].num_rows).to_pandas()
    assert both["customers"]["customer_id"].to_pylist() == [str(number) for number in range(1, 71)]
    assert not set(second.merchant.dropna()) & set(alone["transactions"]["merchant"].drop_null().to_pylist())
    for table, key in (("transactions", "transaction_id"), ("loans", "loan_id"), ("offers", "offer_id")):
        assert both[table][key].combine_chunks().value_counts().field("counts").to_pylist() == [1] * both[table].num_rows


@pytest.mark.parametrize(
    "economy",
    [
        Economy(1, 1, **NO_LENDING),
        Economy(1, 6, fraud_rate=0, bad_rows=0, futures=2),
        Economy(
            30,
            7,
            start=datetime(2021, 9, 1),
            trips_per_month=0,
            household=HouseholdEffects(job_loss_rate=0, mishap_rate=0, penalty_amount=0, penalty_pct=0, spending_noise=0),
            fraud=FraudEffects(lookalikes_per_year=0),
        ),
    ],
)
def test_small_and_uneventful_economies_work(economy):
    simulated = run(economy)
    assert simulated["customers"].num_rows == economy.n_customers
    assert simulated["loans"].num_rows in (0, round(economy.loans_per_customer * economy.n_customers))  # 0: too late a customer
    assert simulated["transactions"].num_rows > economy.n_months


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": datetime(2023, 1, 2)}, "first day of a month"),
        ({"fraud_rate": 1.5}, r"fraud_rate must lie in \[0, 1\), not 1.5"),
        ({"n_customers": 0}, "n_customers must be at least 1, not 0"),
        ({"town_size": 2}, "town_size must be at least 20, not 2"),
        ({"n_months": 3}, "has only 3 months; simulate more months or set loans_per_customer=0"),
        ({"default_rate": 0.0}, "set loans_per_customer=0 for none"),
        ({"household": HouseholdEffects(job_loss_rate=-1)}, "job_loss_rate must lie in"),
        ({"offers": OfferEffects(rate=0.1)}, "take-up falls in the rate"),
        ({"offers": OfferEffects(tier_rate_pct=(8.0,))}, "needs one rate more"),
        ({"fraud": FraudEffects(label_delay_days=(7, 1))}, "the smaller first"),
        ({"fraud": FraudEffects(night_share=(0.0, 0.1))}, "night_share must be two shares above 0 and below 1, not 0.0, 0.1"),
        ({"household": HouseholdEffects(spending_level=0)}, "spending_level must be above 0, not 0"),
    ],
)
def test_an_impossible_economy_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Economy(**wrong)


# --- the household --------------------------------------------------------------------------------------------------


def month_of_spending(**changes) -> float:
    """Return the mean spending of a month, as a share of usual income, from a changed start."""
    town = Town(replace(ECONOMY, n_customers=400))
    state = first_state(draw_people(town, draw_market(town)))
    state = replace(state, **{name: change(state) for name, change in changes.items()})
    _, totals = step(state, 4, Draws.of(np.random.default_rng(1), (400,)), ECONOMY.household)
    return float((totals.spending / state.usual).mean())


def test_people_spend_less_when_money_is_short_and_more_when_it_is_not():
    spent = [month_of_spending(balance=lambda state, months=months: months * state.usual) for months in (-1, 2, 8)]
    assert spent[0] < spent[1] < spent[2]


def test_people_keep_to_their_habits():
    habit = [month_of_spending(habit=lambda state, level=level: np.full(400, np.log(level))) for level in (0.7, 1.1)]
    assert habit[1] > 1.3 * habit[0]


def test_a_missed_payment_follows_from_the_hidden_state():
    town = Town(replace(ECONOMY, n_customers=2_000))
    state = first_state(draw_people(town, draw_market(town)))
    poor = replace(state, balance=-state.usual, strain=np.full(2_000, 1.5))
    indebted = replace(state, debts=state.debts + 3)
    draws = Draws.of(np.random.default_rng(1), (2_000,))
    missed = [step(start, 4, draws, ECONOMY.household)[1].is_missed.mean() for start in (state, indebted, poor)]
    assert missed[0] < 0.05
    assert missed[1] > 1.5 * missed[0]
    assert missed[2] > 0.3


def lived(economy: Economy):
    town = Town(economy)
    people = draw_people(town, draw_market(town))
    return people, simulate_months(town, people)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_economy_is_stationary_from_its_first_month_on(seed):
    _, months = lived(Economy(2_000, 24, seed=seed))
    balance = np.median([state.balance for state in months.states], axis=1)
    saved = np.quantile([state.saved for state in months.states], [0.1, 0.5, 0.9], axis=1)
    year = slice(0, 12), slice(12, 24)
    for values in (balance, *saved[1:], np.median(months.income, axis=0), np.median(months.spending, axis=0)):
        assert values[year[1]].mean() == pytest.approx(values[year[0]].mean(), rel=0.06)
    assert balance[-1] == pytest.approx(balance[0], rel=0.1)
    for share in (months.penalty > 0, months.is_missed):
        assert share[:, year[1]].mean() == pytest.approx(share[:, year[0]].mean(), rel=0.25)


def test_a_shock_lowers_every_later_income_and_nothing_before_it():
    calm, shaken = (lived(Economy(300, 12, seed=3, shock_month=month, shock_size=0.25))[1] for month in (0, 7))
    assert (calm.income[:, :6] == shaken.income[:, :6]).all()
    assert (calm.spending[:, :6] == shaken.spending[:, :6]).all()
    assert shaken.income[:, 6:].sum() == pytest.approx(0.75 * calm.income[:, 6:].sum(), rel=1e-3)
    assert shaken.penalty[:, 8:].sum() > 1.5 * calm.penalty[:, 8:].sum()
    assert (shaken.lasting[:6] == 1).all()
    assert (shaken.lasting[6:] == 0.75).all()


def test_paydays_lie_on_every_part_of_the_month():
    people, _ = lived(Economy(2_000, 1, **NO_LENDING))
    for days in ((1, 3), (4, 12), (13, 22), (23, 28), (29, 31)):
        assert ((people.pay_day >= days[0]) & (people.pay_day <= days[1])).mean() > 0.05


# --- the ledger -----------------------------------------------------------------------------------------------------


def test_cents_are_shared_out_to_the_last():
    group = np.repeat([0, 1, 3], [3, 1, 4])
    total = np.array([100, 77, 0, 1_001])
    cents = share_out(total, group, np.array([1, 1, 1, 5, 1e-9, 1, 2, 3.0]))
    assert np.bincount(group, cents).tolist() == total.tolist()
    assert cents.min() >= 10


def test_every_balance_is_the_running_sum_of_its_account(moves):
    signed = (moves.amount * 100).round().astype(np.int64) * np.where(moves.direction == "credit", 1, -1)
    running = signed.groupby(moves.account_id).cumsum()
    assert (running == (moves.balance_amount * 100).round()).all()


def test_each_month_adds_up_to_what_was_lived_to_the_cent_refunds_and_all(months):
    _, total = lived(ECONOMY)
    fee = 100 * ECONOMY.household.missed_fee_amount * total.is_missed
    planned = (total.income - total.spending - total.mishap - fee - total.penalty)[total.is_open]
    household, month = np.nonzero(total.is_open)
    rows = pd.DataFrame({"customer_id": (household + 1).astype(str), "month": pd.Period("2022-05") + month, "planned": planned})
    joined = rows.merge(months, on=["customer_id", "month"], validate="one_to_one")
    assert len(joined) == len(rows) == len(months)
    assert ((joined.flow * 100).round() == joined.planned).all()


def test_amounts_are_positive_and_whole_cents(moves):
    cents = moves.amount * 100
    assert (cents > 0).all()
    assert np.allclose(cents, cents.round(), atol=1e-6)


def test_moves_are_in_order_of_time_within_the_economy_and_not_before_the_account(tables, moves):
    assert moves.occurred_at.is_monotonic_increasing
    assert moves.occurred_at.min() >= ECONOMY.start
    assert moves.occurred_at.max() < ECONOMY.end
    opened = moves.account_id.map(tables["accounts"].to_pandas().set_index("account_id").opened_at)
    assert (moves.occurred_at >= opened).all()


def test_a_penalty_is_charged_in_the_last_second_of_a_month_that_closes_below_zero_and_only_then(moves, months):
    penalties = moves[moves.category == "penalty"]
    assert ((penalties.occurred_at + timedelta(seconds=1)).dt.day == 1).all()
    charged = months.penalty.notna()
    assert (charged == (months.closing < 0)).all()
    before = penalties.balance_amount + penalties.amount
    effects = ECONOMY.household
    assert np.allclose(penalties.amount, effects.penalty_amount - before * effects.penalty_pct / 100, atol=0.0051)
    assert 0.01 < charged.mean() < 0.1


def test_a_returned_payment_costs_its_fee_when_the_bill_is_due_and_the_bill_is_paid_days_later(moves):
    returned = moves[moves.category == "returned_payment"]
    assert (returned.amount == ECONOMY.household.missed_fee_amount).all()
    bills = moves[moves.category == "utilities"][["customer_id", "occurred_at"]]
    due = returned[["customer_id", "occurred_at"]].assign(occurred_at=lambda rows: rows.occurred_at + timedelta(days=3))
    assert len(due.merge(bills, on=["customer_id", "occurred_at"])) == len(returned) > 0


def test_people_spend_what_they_earn_in_the_long_run(moves):
    earned = moves.amount[moves.category.isin(["salary", "self_employment", "benefits"])].sum()
    spent = moves.amount[moves.direction == "debit"].sum() - moves.amount[moves.category == "refund"].sum()
    assert 0.97 < spent / earned < 1.03


def test_spending_knows_the_season_the_weekday_and_the_hour(moves):
    shopping = moves[moves.category == "shopping"].occurred_at.dt
    december = (shopping.month == 12).sum() / 31 / ((shopping.month < 12).sum() / (365 + 30))
    weekend = (shopping.weekday >= 5).sum() / 2 / ((shopping.weekday < 5).sum() / 5)
    assert december > 1.3
    assert weekend > 1.3
    groceries = moves[moves.category == "groceries"].occurred_at.dt.hour
    assert ((groceries >= 8) & (groceries < 22)).mean() > 0.9


def test_salaries_come_on_working_days(moves):
    assert (moves[moves.category == "salary"].occurred_at.dt.weekday < 5).all()


# --- trouble and cashflow -------------------------------------------------------------------------------------------


def test_the_truth_about_cashflow_is_what_happens(tables, months):
    truth = tables["truth_cashflow"].to_pandas()
    rows = months.assign(
        account_id="A" + months.customer_id,
        as_of=(months.month + 1).dt.to_timestamp(),
        change=months.groupby("customer_id").closing.shift(-1) - months.closing,
    ).merge(truth, on=["account_id", "as_of"], how="left", validate="one_to_one")
    assert (rows.true_probability.isna() == rows.change.isna()).all()
    rows = rows.dropna(subset="change")
    assert_calibrated(rows.true_probability, rows.change > 0)
    score = (rows.change - rows.mean_change_amount) / rows.sd_change_amount
    assert abs(score.mean()) < 0.05
    assert 0.85 < score.std() < 1.25  # a few large expenses make the tail heavy
    assert roc_auc_score(rows.change > 0, rows.true_probability) > 0.75


def test_the_truth_about_trouble_is_what_happens(tables, months):
    truth = tables["truth_spending_risk"].to_pandas()
    rows = months.assign(as_of=(months.month + 1).dt.to_timestamp())
    by_person = rows.groupby("customer_id")
    until = rows.as_of + timedelta(days=90)
    trouble = by_person.closing.shift(-3) < rows.closing
    for ahead in (1, 2, 3):
        trouble |= (by_person.penalty.shift(-ahead) <= until) | (by_person.returned.shift(-ahead) <= until)
    whole = by_person.closing.shift(-3).notna()
    joined = rows.assign(trouble=trouble)[whole].merge(truth, on=["customer_id", "as_of"], validate="one_to_one")
    assert len(joined) == whole.sum() == len(truth)
    assert_calibrated(joined.true_probability, joined.trouble, cluster=np.sqrt(3))  # three months of one person overlap
    assert 0.3 < joined.trouble.mean() < 0.5
    assert roc_auc_score(joined.trouble, joined.true_probability) > 0.74


# --- fraud ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def suspects(tables, moves):
    truth = tables["truth_transactions"].to_pandas()
    return moves.merge(truth, on="transaction_id", how="left", validate="one_to_one")


def test_as_many_cards_are_stolen_as_asked_and_in_two_ways(moves, suspects):
    years = ECONOMY.n_customers * ECONOMY.n_months / 12
    assert moves[moves.is_fraud].customer_id.nunique() / years == pytest.approx(ECONOMY.fraud_rate, rel=0.3)
    kinds = suspects[suspects.is_fraud].scenario.value_counts(normalize=True)
    assert sorted(kinds.index) == ["account_takeover", "card_testing"]
    assert kinds.min() > 0.25


def test_a_thief_pays_online_in_shops_and_at_machines_by_day_and_by_night(moves):
    stolen = moves[moves.is_fraud]
    assert set(stolen.category) == {"online", "shopping", "cash"}
    assert 0.15 < (stolen.occurred_at.dt.hour < 6).mean() < 0.5
    assert (moves.occurred_at[~moves.is_fraud].dt.hour < 6).mean() < 0.05
    assert 0.1 < stolen.country.isin(ABROAD).mean() < 0.4
    genuine = moves.merchant.isin(set(stolen.merchant)) & ~moves.is_fraud
    assert genuine.sum() > 10 * len(stolen)  # the shops of thieves have honest customers


def test_the_truth_names_every_purchase_of_an_episode(suspects):
    named = suspects.dropna(subset="fraud_probability")
    assert 0.005 < len(named) / len(suspects) < 0.05
    assert named.scenario.notna().all()
    assert (suspects.is_fraud == suspects.scenario.fillna("genuine").ne("genuine")).all()


def test_the_truth_about_fraud_is_what_happens():
    town = Town(Economy(2_500, 24, seed=4, fraud_rate=0.2))
    market = draw_market(town)
    episodes, _ = draw_episodes(town, market, draw_people(town, market))
    happened = episodes.scenario > 0
    assert 600 < happened.sum() < 1_400
    assert_calibrated(episodes.probability, happened)
    unclear = (episodes.probability > 0.05) & (episodes.probability < 0.95)
    assert_calibrated(episodes.probability[unclear], happened[unclear], bins=4)
    assert unclear.sum() > 200


def test_a_thief_hits_one_or_two_people_in_a_hundred_a_year_with_one_payment_in_a_thousand():
    economy = Economy(2_500, 24, seed=3, **NO_LENDING, futures=2)
    rows = valid_rows(run(economy), economy).to_pandas()
    stolen = rows[rows.is_fraud]
    assert 0.01 < stolen.customer_id.nunique() / 2 / economy.n_customers < 0.022
    assert 0.0007 < len(stolen) / (rows.direction == "debit").sum() < 0.002


def test_a_label_is_known_within_seven_days_and_never_at_once(moves):
    delay = moves.label_known_at - moves.occurred_at
    assert delay.max() <= timedelta(days=7)
    assert delay.min() >= timedelta(hours=12) - timedelta(seconds=1)
    assert (delay[~moves.is_fraud] == timedelta(days=7)).all()


def test_a_reported_fraud_is_paid_back_in_full(moves):
    reported = moves[moves.is_fraud & (moves.label_known_at < ECONOMY.end)]
    refunds = moves[moves.category == "refund"]
    assert sorted(reported.amount) == sorted(refunds.amount)
    assert sorted(reported.label_known_at) == sorted(refunds.occurred_at)


def test_without_fraud_there_is_none():
    honest = run(replace(ECONOMY, n_customers=40, fraud_rate=0))
    assert not np.any(honest["transactions"]["is_fraud"])
    assert honest["truth_transactions"].num_rows == 0


# --- loans ----------------------------------------------------------------------------------------------------------


def test_loans_default_as_often_as_asked(loans):
    assert len(loans) == ECONOMY.loans_per_customer * ECONOMY.n_customers
    assert loans.true_pd.mean() == pytest.approx(ECONOMY.default_rate, abs=1e-9)
    assert_calibrated(loans.true_pd, loans.is_default)
    assert 0.75 < roc_auc_score(loans.is_default, loans.true_pd) < 0.92


def test_nobody_borrows_in_the_first_months(tables, loans):
    opened = loans.account_id.map(tables["accounts"].to_pandas().set_index("account_id").opened_at)
    wait = timedelta(days=int(ECONOMY.month_days[ECONOMY.first_application_month]))
    assert (loans.applied_at >= ECONOMY.start + wait).all()
    assert (loans.applied_at - opened >= wait - timedelta(days=1)).all()


def test_an_outcome_is_known_within_a_year_and_before_the_ledger_is_read(loans):
    delay = loans.outcome_known_at - loans.applied_at
    assert (delay[~loans.is_default] == timedelta(days=365)).all()
    assert delay[loans.is_default].between(timedelta(days=60), timedelta(days=365), inclusive="left").all()
    assert loans.outcome_known_at.max() <= ECONOMY.as_of


def test_an_instalment_repays_the_loan_with_interest(loans):
    monthly = loans.annual_rate_pct / 1200
    present = loans.instalment_amount * (1 - (1 + monthly) ** -loans.term_months) / monthly
    assert np.allclose(present, loans.loan_amount, rtol=1e-3)


def test_without_effects_every_loan_of_a_year_or_more_is_alike():
    none = LoanEffects(burden=1e-9, short=0, strain=0, committed=0, debts=0, irregular=0, idle=0, mishap=0, prepaid_base=-40)
    flat = run(replace(ECONOMY, n_customers=40, loans=none))
    joined = flat["loans"].to_pandas().merge(flat["truth_loans"].to_pandas(), on="loan_id")
    by_term = joined.groupby("term_months").true_pd
    assert by_term.std().max() < 1e-8
    assert by_term.mean()[6] < by_term.mean()[12]
    assert np.allclose(by_term.mean().loc[12:], by_term.mean()[12])


# --- offers ---------------------------------------------------------------------------------------------------------


def test_take_up_at_random_rates_is_as_asked_and_falls_in_the_rate(offers):
    at_random = offers[offers.is_rate_random]
    assert at_random.true_acceptance.mean() == pytest.approx(ECONOMY.acceptance_rate, abs=1e-9)
    assert at_random.annual_rate_pct.between(*ECONOMY.offers.random_rate_pct).all()
    taken = at_random.groupby(pd.cut(at_random.annual_rate_pct, [0, 9, 14, 19, 25]), observed=True).is_accepted.mean()
    assert taken.is_monotonic_decreasing
    assert taken.iloc[0] > 3 * taken.iloc[-1]


def test_the_truth_about_offers_is_what_happens_and_prices_any_terms(offers):
    assert_calibrated(offers.true_acceptance, offers.is_accepted)
    logit = (
        offers.accept_base
        + offers.accept_rate_slope * offers.annual_rate_pct
        + offers.accept_amount_slope * np.log(offers.loan_amount / offers.monthly_income_amount)
        + offers.accept_term_slope * np.log(offers.term_months / 24)
    )
    assert np.allclose(sigmoid(logit), offers.true_acceptance)


def test_half_the_rates_are_random_and_the_others_follow_the_risk(offers):
    assert offers.is_rate_random.mean() == pytest.approx(0.5, abs=0.05)
    correlation = offers.groupby("is_rate_random")[["annual_rate_pct", "pd_base"]].corr().iloc[::2, 1]
    assert abs(correlation[True].item()) < 0.1
    assert correlation[False].item() > 0.4


def test_an_answer_comes_within_a_month(offers):
    delay = offers.outcome_known_at - offers.offered_at
    assert delay.between(timedelta(days=1), timedelta(days=30)).all()
    assert offers.offered_at.dt.hour.between(8, 19).all()


def test_the_pd_of_an_offer_is_that_of_a_loan(offers, loans):
    assert (offers.pd_burden_slope > 0).all()
    typical = sigmoid(offers.pd_base + offers.pd_burden_slope * 0.15)
    assert typical.mean() == pytest.approx(loans.true_pd.mean(), abs=0.04)
    expected = repayment.expect_course(
        repayment.Outlook.from_columns(offers), 0.15 * offers.true_income_amount.to_numpy(), np.full(len(offers), 8.0),
        np.full(len(offers), 36), ECONOMY.loans, ECONOMY.household, 12,
    )  # fmt: skip
    assert np.quantile(np.abs(expected.default.sum(axis=1) - typical), 0.9) < 0.03


# --- the source -----------------------------------------------------------------------------------------------------


def as_read(simulated: dict[str, pa.Table], declared: Source, as_of: datetime) -> dict[str, contract.ContractSplit]:
    connection, splits = ibis.duckdb.connect(), {}
    for name, raw in declared.tables.items():
        table = simulated[name]
        marks = {"_row": pa.array(range(1, table.num_rows + 1)), "_defects": pa.nulls(table.num_rows, pa.string())}
        marks["_line"] = marks["_defects"]
        for mark, values in marks.items():
            table = table.append_column(mark, values)
        landed = connection.create_table(f"raw_{name}", table)
        splits[name] = contract.split(raw.table, raw.columns, landed, {k: s.valid for k, s in splits.items()}, as_of)
    return splits


def test_the_tables_have_the_columns_and_types_of_the_contract(tables):
    for name, raw in source(Settings()).tables.items():
        schema = tables[name].schema
        assert set(schema.names) == set(raw.table.names)
        assert {c.name: schema.field(c.name).type for c in raw.table.columns} == {c.name: KINDS[c.dtype] for c in raw.table.columns}


def test_only_the_spoiled_rows_break_the_contract_each_kind_its_rule(tables):
    splits = as_read(tables, source(Settings()), ECONOMY.as_of)
    quarantined = {name: split.quarantine.count().execute() for name, split in splits.items()}
    assert quarantined == {"customers": 0, "accounts": 0, "transactions": ECONOMY.bad_rows, "loans": 0, "offers": 0}
    rules = contract.count_by_rule(splits["transactions"].quarantine)
    assert len(rules) == 5
    assert set(rules.values()) == {ECONOMY.bad_rows / 5}


def test_no_truth_stands_in_a_table_of_the_ledger(tables):
    keys = {"loan_id", "contract_id", "transaction_id", "customer_id", "account_id", "offer_id", "as_of"}
    known = {column for name, table in tables.items() if name.startswith("truth_") for column in table.column_names} - keys
    for name, raw in source(Settings()).tables.items():
        assert not known & {*raw.table.names, *tables[name].column_names}


def test_no_truth_and_nothing_protected_is_offered_to_a_model():
    simulated = source(Settings())
    offered = {feature.name for features in simulated.features.values() for feature in features}
    assert offered == {"stated_income_amount", "employed_months"}
    assert all(simulated.tables["loans"].table[name].personal != "protected" for name in offered)
    assert set(simulated.truth) == {
        "truth_loans", "truth_loan_cash_flows", "truth_offers", "truth_limits",
        "truth_transactions", "truth_spending_risk", "truth_cashflow",
    }  # fmt: skip
    assert not set(simulated.truth) & set(simulated.tables)


def test_landing_writes_town_by_town_what_a_run_in_memory_has(tmp_path):
    file = tmp_path / "economy.yaml"
    file.write_text("town_size: 30\n")
    settings = Settings(sim_customers=50, sim_months=6, sim_economy=file)
    declared, simulated = source(settings), run(economy_from_settings(settings))
    for name, land in {**{name: raw.land for name, raw in declared.tables.items()}, **declared.truth}.items():
        landed = land(tmp_path / "landing" / f"raw_{name}.parquet")
        stored = pq.ParquetFile(tmp_path / "landing" / f"raw_{name}.parquet")
        assert landed.rows == simulated[name].num_rows
        assert stored.num_row_groups == 2
        table = stored.read()
        assert table["_row"].to_pylist() == list(range(1, landed.rows + 1))
        pd.testing.assert_frame_equal(table.select(simulated[name].column_names).to_pandas(), simulated[name].to_pandas())


def test_the_ledger_ends_at_the_same_moment_however_long_it_is():
    economies = {months: economy_from_settings(Settings(sim_months=months)) for months in (3, 18, 61)}
    assert {economy.end for economy in economies.values()} == {datetime(2024, 7, 1)}
    assert [economy.n_months for economy in economies.values()] == [3, 18, 61]
    assert (economies[3].loans_per_customer, economies[3].offers_per_customer) == (0, 0)


def test_a_small_ledger_has_more_stolen_cards_and_a_setting_wins():
    assert choose_fraud_rate(200_000) == Economy.fraud_rate
    assert choose_fraud_rate(4_000) == 0.05
    assert choose_fraud_rate(100) == 0.2
    assert economy_from_settings(Settings()).fraud_rate == 0.05
    assert economy_from_settings(Settings(sim_fraud_rate=0.01)).fraud_rate == 0.01


def test_a_shock_is_set_by_its_month_and_size():
    assert economy_from_settings(Settings()).shock_month == 0
    shaken = economy_from_settings(Settings(sim_shock_month=20, sim_shock_size=0.3))
    assert (shaken.shock_month, shaken.shock_size) == (20, 0.3)
    with pytest.raises(
        SettingsError, match="FINRISK_SIM_SHOCK_MONTH=30 lies after the last of FINRISK_SIM_MONTHS=24 months: set an earlier"
    ):
        economy_from_settings(Settings(sim_shock_month=30))


# --- an economy's numbers from a file -------------------------------------------------------------------------------


def test_any_number_can_be_set_by_a_file(tmp_path):
    file = tmp_path / "economy.yaml"
    file.write_text("fraud_rate: 0.02\nhousehold: {job_loss_rate: 0.03}\noffers:\n  random_rate_pct: [5, 20]\n")
    economy = economy_from_settings(Settings(sim_economy=file, sim_customers=30))
    assert (economy.fraud_rate, economy.household.job_loss_rate, economy.offers.random_rate_pct) == (0.02, 0.03, (5.0, 20.0))
    assert (economy.n_customers, economy.household.mishap_rate) == (30, Economy().household.mishap_rate)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fraud_rat: 0.1", "'fraud_rat', which is no number of the economy; did you mean fraud_rate?"),
        ("household: {job_lost_rate: 0.1}", "household names 'job_lost_rate'.*did you mean job_loss_rate?"),
        ("fraud_rate: much", "fraud_rate must be a number, not 'much'"),
        ("town_size: 2.5", "town_size must be a whole number, not 2.5"),
        ("offers: {random_rate_pct: 4}", "random_rate_pct must be a list of numbers"),
        ("n_customers: 7", "n_customers does not stand in this file: FINRISK_SIM_CUSTOMERS gives it"),
        ("fraud_rate: 2", r"fraud_rate must lie in \[0, 1\), not 2.0"),
        ("- fraud_rate", "must hold names and numbers, not list"),
        ("fraud_rate: [", "cannot be read as YAML"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, text, message):
    file = tmp_path / "economy.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message):
        source(Settings(sim_economy=file))


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(SettingsError, match=r"there is no file .*nowhere\.yaml; check FINRISK_SIM_ECONOMY"):
        source(Settings(sim_economy=tmp_path / "nowhere.yaml"))
