"""The simulator: the same economy every time, a ledger that adds up, and fraud and defaults with the truth that was asked for."""

from dataclasses import replace
from datetime import datetime, timedelta

import ibis
import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from finrisk_assets.ledger import contract
from finrisk_assets.ledger.sources.base import Source
from finrisk_assets.ledger.sources.simulator import Economy, FraudEffects, LoanEffects, run, simulate, source
from finrisk_assets.ledger.sources.simulator.balances import Ledger, settle
from finrisk_assets.ledger.sources.simulator.economy import CODE, DAY
from finrisk_assets.ledger.sources.simulator.events import NOBODY, concatenate, events
from finrisk_assets.ledger.sources.simulator.loans import History
from finrisk_assets.ledger.sources.simulator.people import market, people
from finrisk_assets.settings import Settings

ECONOMY = Economy(n_customers=400, n_months=12, seed=7, loans_per_customer=6)
KINDS = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
}


@pytest.fixture(scope="module")
def made() -> dict[str, pa.Table]:
    return run(ECONOMY)


@pytest.fixture(scope="module")
def moves(made):
    """The transactions without the spoiled rows, as a frame."""
    table = made["transactions"]
    return table.slice(0, table.num_rows - ECONOMY.bad_rows).to_pandas()


@pytest.fixture(scope="module")
def lent(made):
    return made["loans"].to_pandas().merge(made["truth_loans"].to_pandas(), on="loan_id", validate="one_to_one")


# --- one economy, one ledger ----------------------------------------------------------------------------------------


def test_the_same_economy_gives_the_same_bytes(tmp_path):
    settings = Settings(home=tmp_path, sim_customers=60, sim_months=6)
    hashes = []
    for attempt in ("first", "second"):
        made = source(settings)
        lands = {**{name: table.land for name, table in made.tables.items()}, **made.truth}
        hashes.append({name: land(tmp_path / attempt / f"{name}.parquet").sha256 for name, land in lands.items()})
        files = {name: (tmp_path / attempt / f"{name}.parquet").read_bytes() for name in lands}
    assert hashes[0] == hashes[1]
    assert files == {name: (tmp_path / "first" / f"{name}.parquet").read_bytes() for name in files}


def test_another_seed_gives_another_economy():
    one, other = simulate(50, 6, seed=1), simulate(50, 6, seed=2)
    assert not one["transactions"].equals(other["transactions"])


def test_a_change_to_the_loans_leaves_the_transactions_alone(made):
    changed = run(replace(ECONOMY, default_rate=0.2, loans=LoanEffects(noise=0)))
    sound = made["transactions"].num_rows - ECONOMY.bad_rows  # NaN is not equal to itself
    assert changed["transactions"].slice(0, sound).equals(made["transactions"].slice(0, sound))
    assert not changed["loans"].equals(made["loans"])


@pytest.mark.parametrize(
    "economy",
    [
        Economy(1, 1, loans_per_customer=0),
        Economy(1, 6, fraud_share=0, bad_rows=0),
        Economy(
            30, 7, start=datetime(2021, 9, 1), job_loss_rate=0, mishap_rate=0, trips_per_month=0, penalty_amount=0, penalty_pct=0
        ),
    ],
)
def test_small_and_uneventful_economies_work(economy):
    made = run(economy)
    assert made["customers"].num_rows == economy.n_customers
    assert made["loans"].num_rows == round(economy.loans_per_customer * economy.n_customers)
    assert made["transactions"].num_rows > economy.n_months


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"start": datetime(2023, 1, 2)}, "first day of a month"),
        ({"fraud_share": 1.5}, r"fraud_share must lie in \[0, 1\), not 1.5"),
        ({"n_customers": 0}, "n_customers must be at least 1, not 0"),
        ({"n_months": 3}, "has only 3 months; simulate more months or set loans_per_customer=0"),
        ({"default_rate": 0.0}, "set loans_per_customer=0 for none"),
    ],
)
def test_an_impossible_economy_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Economy(**wrong)


# --- the ledger -----------------------------------------------------------------------------------------------------


def test_every_balance_is_the_running_sum_of_its_account(moves):
    signed = (moves.amount * 100).round().astype(np.int64) * np.where(moves.direction == "credit", 1, -1)
    running = signed.groupby(moves.account_id).cumsum()
    assert (running == (moves.balance_amount * 100).round()).all()


def test_amounts_are_positive_and_whole_cents(moves):
    cents = moves.amount * 100
    assert (cents > 0).all()
    assert np.allclose(cents, cents.round(), atol=1e-6)


def test_moves_are_in_order_of_time_within_the_economy_and_not_before_the_account(made, moves):
    assert moves.occurred_at.is_monotonic_increasing
    assert moves.occurred_at.min() >= ECONOMY.start
    assert moves.occurred_at.max() < ECONOMY.end
    opened = moves.account_id.map(made["accounts"].to_pandas().set_index("account_id").opened_at)
    assert (moves.occurred_at >= opened).all()


def test_a_penalty_is_charged_at_the_end_of_each_month_below_zero_and_only_then(moves):
    month = moves.occurred_at.dt.to_period("M")
    is_penalty = moves.category == "penalty"
    lowest = moves[~is_penalty].groupby([moves.customer_id, month]).balance_amount.min()
    charged = set(moves[is_penalty].groupby([moves.customer_id, month]).size().index)
    assert charged >= set(lowest[lowest < 0].index)
    # An overdraft that is still there when a month begins counts from its first moment, before any movement of that month.
    opening = moves.groupby([moves.customer_id, month]).balance_amount.last().groupby(level=0).shift()
    assert all(lowest[key] < 0 or opening[key] < 0 for key in charged)
    assert 0.03 < len(charged) / len(lowest) < 0.25


def test_people_earn_more_than_they_spend_by_a_little(moves):
    earned = moves.amount[moves.category.isin(["salary", "self_employment", "benefits"])].sum()
    spent = moves.amount[moves.direction == "debit"].sum()
    assert 0.8 < spent / earned < 1.05


def test_spending_knows_the_season_the_weekday_and_the_hour(moves):
    shopping = moves[moves.category == "shopping"].occurred_at.dt
    december = (shopping.month == 12).sum() / 31 / ((shopping.month < 12).sum() / 334)
    weekend = (shopping.weekday >= 5).sum() / 2 / ((shopping.weekday < 5).sum() / 5)
    assert december > 1.3
    assert weekend > 1.4
    groceries = moves[moves.category == "groceries"].occurred_at.dt.hour
    assert ((groceries >= 8) & (groceries < 22)).mean() > 0.9


def test_salaries_come_on_working_days(moves):
    assert (moves[moves.category == "salary"].occurred_at.dt.weekday < 5).all()


def test_people_with_less_money_spend_less():
    economy = replace(ECONOMY, n_customers=50, n_months=6)
    population = people(economy, market(economy))
    population.opened[:] = 0
    everyone = np.arange(50)

    def spent(income: float) -> int:
        start = events(everyone, 0, population.income * income, CODE["opening_balance"], NOBODY, 0, sign=1)
        purchase = events(everyone, 40 * DAY, 100.0, CODE["groceries"], 0, 0, elastic=True)
        settled = settle(economy, population, concatenate(start, purchase), np.zeros(100)).events
        return int(settled.cents[settled.category == CODE["groceries"]].sum())

    assert spent(0.001) < spent(1.0) < spent(8.0)


# --- fraud ----------------------------------------------------------------------------------------------------------


def test_fraud_is_as_frequent_as_asked_and_of_three_kinds(made, moves):
    assert moves.is_fraud.mean() == pytest.approx(ECONOMY.fraud_share, rel=0.25)
    truth = made["truth_transactions"].to_pandas()
    kinds = truth[truth.scenario != "genuine"].scenario.value_counts(normalize=True)
    assert kinds.sort_index().index.tolist() == ["account_takeover", "card_testing", "compromised_merchant"]
    assert kinds.min() > 0.15


def test_the_truth_names_every_fraud_and_the_genuine_ones_that_might_have_been(made, moves):
    joined = moves.merge(made["truth_transactions"].to_pandas(), on="transaction_id", how="left", validate="one_to_one")
    assert (joined.is_fraud == joined.scenario.fillna("genuine").ne("genuine")).all()
    suspects = joined[joined.fraud_probability < 1]
    share = ECONOMY.fraud.compromised_share
    assert (suspects.fraud_probability == share).all()
    assert suspects.is_fraud.mean() == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / len(suspects)))


def test_a_label_is_known_within_seven_days_and_never_at_once(moves):
    delay = moves.label_known_at - moves.occurred_at
    assert delay.max() <= timedelta(days=7)
    assert delay.min() >= timedelta(hours=12) - timedelta(seconds=1)
    assert (delay[~moves.is_fraud] == timedelta(days=7)).all()


def test_a_reported_fraud_is_paid_back_in_full(moves):
    reported = moves[moves.is_fraud & (moves.label_known_at < ECONOMY.end)]
    refunds = moves[moves.category == "refund"]
    assert sorted(reported.amount) == sorted(refunds.amount)


def test_without_fraud_there_is_none(made):
    honest = run(replace(ECONOMY, fraud_share=0))
    assert not np.any(honest["transactions"]["is_fraud"])
    assert honest["truth_transactions"].num_rows == 0


def test_a_takeover_is_larger_when_asked_for():
    small, large = (
        run(replace(ECONOMY, fraud=FraudEffects(mix=(0, 1, 0), takeover_ratio=ratio)))["transactions"].to_pandas()
        for ratio in (1, 8)
    )
    assert large.amount[large.is_fraud].median() > 5 * small.amount[small.is_fraud].median()


# --- loans ----------------------------------------------------------------------------------------------------------


def test_loans_default_as_often_as_asked(lent):
    assert len(lent) == ECONOMY.loans_per_customer * ECONOMY.n_customers
    assert lent.true_pd.mean() == pytest.approx(ECONOMY.default_rate, abs=1e-9)
    assert lent.ledger_pd.mean() == pytest.approx(ECONOMY.default_rate, abs=0.01)
    assert lent.is_default.mean() == pytest.approx(ECONOMY.default_rate, abs=3 * np.sqrt(0.09 / len(lent)))


def test_the_truth_ranks_the_defaults_well_but_not_perfectly(lent):
    oracle, best = roc_auc_score(lent.is_default, lent.true_pd), roc_auc_score(lent.is_default, lent.ledger_pd)
    assert 0.76 < best < oracle < 0.88


def test_nobody_borrows_in_the_first_months(made, lent):
    opened = lent.account_id.map(made["accounts"].to_pandas().set_index("account_id").opened_at)
    wait = timedelta(days=int(ECONOMY.month_days[ECONOMY.first_application_month]))
    assert (lent.applied_at >= ECONOMY.start + wait).all()
    assert (lent.applied_at - opened >= wait - timedelta(days=1)).all()


def test_an_outcome_is_known_within_a_year_and_before_the_ledger_is_read(lent):
    delay = lent.outcome_known_at - lent.applied_at
    assert (delay[~lent.is_default] == timedelta(days=365)).all()
    assert delay[lent.is_default].between(timedelta(days=60), timedelta(days=365), inclusive="left").all()
    assert lent.outcome_known_at.max() <= ECONOMY.as_of


def test_an_instalment_repays_the_loan_with_interest(lent):
    monthly = lent.annual_rate_pct / 1200
    present = lent.instalment_amount * (1 - (1 + monthly) ** -lent.term_months) / monthly
    assert np.allclose(present, lent.loan_amount, rtol=1e-3)


def test_without_effects_every_loan_is_alike():
    flat = run(replace(ECONOMY, loans=LoanEffects(0, 0, 0, 0, 0, 0, 0)))["truth_loans"].to_pandas()
    assert np.allclose(flat.true_pd, ECONOMY.default_rate)


def test_a_penalty_shown_before_the_application_raises_the_pd_and_one_at_its_instant_does_not():
    economy = replace(ECONOMY, n_customers=2, n_months=6)
    population = people(economy, market(economy))
    applied = 150 * DAY
    moves = events(np.array([0, 1]), np.array([applied - 1, applied]), 10.0, CODE["penalty"], NOBODY, 0)
    history = History(population, Ledger(moves, -moves.cents, np.zeros(2)))
    causes = history.causes(np.array([0, 1]), np.array([applied, applied]))
    assert causes["penalties"].tolist() == [1, 0]
    assert causes["low_balance"].tolist() == [1, 0]


# --- the source -----------------------------------------------------------------------------------------------------


def as_read(made: dict[str, pa.Table], declared: Source, as_of: datetime) -> dict[str, contract.Split]:
    connection, splits = ibis.duckdb.connect(), {}
    for name, raw in declared.tables.items():
        table = made[name]
        marks = {"_row": pa.array(range(1, table.num_rows + 1)), "_defects": pa.nulls(table.num_rows, pa.string())}
        marks["_line"] = marks["_defects"]
        for mark, values in marks.items():
            table = table.append_column(mark, values)
        landed = connection.create_table(f"raw_{name}", table)
        splits[name] = contract.split(raw.table, raw.columns, landed, {k: s.valid for k, s in splits.items()}, as_of)
    return splits


def test_the_tables_have_the_columns_and_types_of_the_contract(made):
    for name, raw in source(Settings()).tables.items():
        schema = made[name].schema
        assert set(schema.names) == set(raw.table.names)
        assert {c.name: schema.field(c.name).type for c in raw.table.columns} == {
            c.name: KINDS[c.dtype] for c in raw.table.columns
        }


def test_only_the_spoiled_rows_break_the_contract_each_kind_its_rule(made):
    splits = as_read(made, source(Settings()), ECONOMY.as_of)
    quarantined = {name: split.quarantine.count().execute() for name, split in splits.items()}
    assert quarantined == {"customers": 0, "accounts": 0, "transactions": ECONOMY.bad_rows, "loans": 0}
    rules = contract.count_by_rule(splits["transactions"].quarantine)
    assert len(rules) == 5
    assert set(rules.values()) == {ECONOMY.bad_rows / 5}


def test_the_ledger_ends_at_the_same_moment_however_long_it_is():
    for months in (3, 18, 61):
        made = source(Settings(sim_customers=5, sim_months=months))
        assert f"over {months} months" in made.description
    from finrisk_assets.ledger.sources.simulator.source import economy_of

    assert {economy_of(Settings(sim_months=months)).end for months in (3, 18, 61)} == {datetime(2024, 7, 1)}
    assert economy_of(Settings(sim_months=3)).loans_per_customer == 0


def test_no_truth_and_nothing_protected_is_offered_to_a_model():
    made = source(Settings())
    offered = {feature.name for features in made.features.values() for feature in features}
    assert offered == {"stated_income_amount", "employed_months"}
    assert all(made.tables["loans"].table[name].personal != "protected" for name in offered)
    assert set(made.truth) == {"truth_loans", "truth_transactions"}
    assert not set(made.truth) & set(made.tables)
