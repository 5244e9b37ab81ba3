"""Tests of metamorphic relations: changes of a ledger that must not change features or decisions, or only within a stated bound."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.registry import DOMAINS as REGISTERED
from finrisk_assets.graph.stages.common import champion_folder, load_bundle
from finrisk_assets.graph.stages.relations import ChangedLedgers, score_frame
from finrisk_assets.ledger import sources
from finrisk_assets.modelling.evaluation import metamorphic

LEDGER = ("customers", "accounts", "transactions", "loans", "offers")
DOMAINS = ("spending_risk", "loan_default", "cashflow", "loan_offers", "transaction_anomaly")
MONTHLY = ("spending_risk", "loan_default", "cashflow", "loan_offers")
"""Domains whose features rest on complete calendar months."""

HALVED = {
    "spending_risk": ("Num_Transactions", "Avg_Expense", "Max_Expense", "Low_Balance_Freq", "n_negative_balance", "n_penalties",
                      "n_missed", "largest_expense"),
    "loan_default": ("n_transactions", "n_penalties", "faded_", "n_missed", "n_negative", "largest_expense"),
    "cashflow": ("n_transactions", "n_penalties", "largest_expense"),
    "loan_offers": ("n_penalties", "n_missed", "negative_balance_share", "largest_expense"),
}  # fmt: skip
"""Domain -> beginnings of the features that count movements or look for the largest: two halves are two movements."""


def find_domain(name):
    return next(domain for domain in REGISTERED if domain.name == name)


@pytest.fixture(scope="module")
def ledger(run):
    """Return the ledger of the small run as frames, and its source."""
    return {name: run.warehouse.table(f"validated_{name}").to_pandas() for name in LEDGER}, sources.load(run.settings)


@pytest.fixture(scope="module")
def features_of(run, ledger):
    """Return a function: the feature table of a domain over a ledger, by key and in the order of keys."""
    frames, source = ledger
    tables = {name: run.warehouse.table(f"validated_{name}").to_pyarrow() for name in LEDGER}

    @cache
    def ledgers(name):
        return ChangedLedgers(find_domain(name), source, tables)

    def build(name, changed):
        return ledgers(name).build(changed)

    @cache
    def unchanged(name):
        return build(name, frames)

    return lambda name, tables=None: unchanged(name) if tables is None else build(name, tables)


def names_of(name, ledger):
    return [feature.name for feature in find_domain(name).select_features(ledger[1])]


@pytest.mark.parametrize("name", DOMAINS)
def test_neither_the_order_of_rows_nor_unrelated_people_change_a_feature(name, ledger, features_of):
    names, before = names_of(name, ledger), features_of(name)
    for other in (metamorphic.reorder_rows(ledger[0], seed=1), metamorphic.add_unrelated_people(ledger[0])):
        after = features_of(name, other)
        pd.testing.assert_frame_equal(after.loc[before.index, names], before[names], check_exact=True)


@pytest.mark.parametrize("name", DOMAINS)
def test_a_ledger_in_two_files_is_one_ledger(name, ledger, features_of):
    names, before = names_of(name, ledger), features_of(name)
    parts = {table: (frame.iloc[1::2], frame.iloc[::2]) for table, frame in ledger[0].items()}
    after = features_of(name, {table: pd.concat(halves) for table, halves in parts.items()})
    pd.testing.assert_frame_equal(after[names], before[names], check_exact=True)


@pytest.mark.parametrize("name", DOMAINS)
def test_the_names_of_people_accounts_and_decisions_change_no_feature(name, ledger, features_of):
    names, before = names_of(name, ledger), features_of(name)
    after = features_of(name, metamorphic.rename_identifiers(ledger[0]))
    ours, theirs = (rows[names].sort_values(names, ignore_index=True) for rows in (before, after))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


@pytest.mark.parametrize("name", DOMAINS)
def test_in_another_currency_amounts_are_multiplied_and_nothing_else_changes(name, ledger, features_of):
    features, before = find_domain(name).select_features(ledger[1]), features_of(name)
    after = features_of(name, metamorphic.scale_money(ledger[0], {table: raw.table for table, raw in ledger[1].tables.items()}))
    for feature in features:
        ours, theirs = before[feature.name].to_numpy(float), after[feature.name].to_numpy(float)
        if feature.name == "log_amount":  # of 1 + amount
            ours = np.log1p(np.expm1(ours) * metamorphic.FACTOR)
        elif feature.unit.startswith("log currency"):
            ours = ours + np.log(metamorphic.FACTOR)
        elif feature.unit.startswith("currency"):
            ours = ours * metamorphic.FACTOR
        # An instalment of an application at typical terms, and an income in whole currency, are rounded.
        np.testing.assert_allclose(theirs, ours, rtol=2e-3, atol=2e-3, err_msg=feature.name)


@pytest.mark.parametrize("name", MONTHLY)
def test_two_halves_of_a_movement_change_only_what_counts_movements(name, ledger, features_of):
    names = [feature for feature in names_of(name, ledger) if not feature.startswith(HALVED[name])]
    after = features_of(name, metamorphic.halve_movements(ledger[0], share=0.1, seed=2))
    pd.testing.assert_frame_equal(after[names], features_of(name)[names], rtol=1e-9)


@pytest.mark.parametrize("days", [1, 3, 10])
def test_with_all_dates_later_a_transaction_differs_by_the_day_of_the_week_alone(days, ledger, features_of):
    names = [name for name in names_of("transaction_anomaly", ledger) if name != "is_weekend"]
    after = features_of("transaction_anomaly", metamorphic.shift_dates(ledger[0], days))
    pd.testing.assert_frame_equal(after[names], features_of("transaction_anomaly")[names], rtol=1e-9)


@pytest.mark.parametrize("name", ["loan_default", "loan_offers"])
def test_with_all_dates_later_the_usual_income_stays(name, ledger, features_of):
    income = "usual_income_amount" if name == "loan_default" else "monthly_income_amount"
    before = features_of(name)[income]
    before = before[~before.index.str.contains("@")].dropna()
    for days in (1, 3, 10):
        after = features_of(name, metamorphic.shift_dates(ledger[0], days))[income].reindex(before.index)
        assert (np.abs(after / before - 1) > 0.1).mean() < 0.15, days


@pytest.mark.parametrize("days", [-10, 3, 10])
@pytest.mark.parametrize("name", [*DOMAINS, "spending_risk_eight"])
def test_the_day_of_pay_does_not_decide(name, days, ledger, features_of, run):
    domain = find_domain(name)
    bundle = load_bundle(champion_folder(domain, run.settings), domain, run.settings)
    before = features_of(name)
    after = features_of(name, metamorphic.move_payday(ledger[0], days)).reindex(before.index)
    (p, words), (p_after, words_after) = (score_frame(domain, rows.reset_index(), bundle) for rows in (before, after))
    change = metamorphic.compare_scores(p, p_after, words, words_after)
    assert change.mean_change <= (metamorphic.MAX_OFFER_MEAN_CHANGE if name == "loan_offers" else metamorphic.MAX_MEAN_CHANGE), change
    assert change.changed_share <= metamorphic.MAX_CHANGED_SHARE, change
