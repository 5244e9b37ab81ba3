"""Tests of the figures that a banker would check first, within wide bounds, for three seeds."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.economy_figures import find_figures
from finrisk_assets.ledger.sources.simulator import Economy, run
from finrisk_assets.ledger.sources.simulator.population.calendar import simulate_months
from finrisk_assets.ledger.sources.simulator.population.people import Town, draw_market, draw_people
from finrisk_assets.modelling.monitoring import drift


@pytest.fixture(scope="module", params=[1, 2, 3])
def figures(request):
    economy = Economy(2_000, seed=request.param, futures=30)
    return find_figures(run(economy), economy)


def test_one_or_two_people_in_a_hundred_are_hit_a_year_with_one_or_two_payments_in_a_thousand(figures):
    assert 0.01 < figures["people hit by fraud a year"] < 0.022
    assert 0.0007 < figures["fraud, share of payments"] < 0.002
    assert 0.1 < figures["fraud at night"] < 0.5


@pytest.mark.parametrize("name", ["income", "spending", "balance"])
def test_medians_do_not_trend(figures, name):
    months = figures[f"median {name} by month"]
    years = months[:12], months[12:]
    assert years[1].mean() == pytest.approx(years[0].mean(), rel=0.05)
    slope = np.polyfit(np.arange(24), months / months.mean(), 1)[0]
    assert abs(24 * slope) < 0.08
    assert months.max() < 1.2 * months.min()


def test_longer_terms_and_larger_burdens_default_more(figures):
    by_term, lifetime = (figures[f"default {span} by term"] for span in ("within a year", "over the whole term"))
    assert by_term[0] < 0.8 * by_term[1:].mean()
    assert by_term[4:].mean() > by_term[:2].mean()
    assert (np.diff(lifetime[:4]) > 0).all()
    assert lifetime[4:].mean() > 1.1 * lifetime[3]
    by_burden = figures["default within a year by fifth of burden"]
    assert by_burden[-1] > 1.2 * by_burden[:2].mean()


def test_the_oracle_can_tell_but_not_for_sure(figures):
    bounds = {"spending_risk": (0.77, 0.88), "cashflow": (0.82, 0.92), "loan_default": (0.77, 0.9), "loan_offers": (0.74, 0.86)}
    for domain, (low, high) in bounds.items():
        assert low < figures[f"AUC of the oracle, {domain}"] < high, domain
    assert figures["AUC of the oracle, transaction_anomaly"] > 0.97
    assert 0.08 < figures["rate, loan_default"] < 0.12
    assert 0.35 < figures["rate, spending_risk"] < 0.5
    assert 0.6 < figures["rate, cashflow"] < 0.74


MOVES = ("income", "spending to income", "balance to income")


def month_of_people(economy: Economy, month: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the people whose account is open, and what a drift test reads of one month of theirs."""
    town = Town(economy)
    months = simulate_months(town, people := draw_people(town, draw_market(town)))
    open_since = np.flatnonzero(people.opened_month < month - 1)
    income, spent = months.income[open_since, month], months.spending[open_since, month] + months.mishap[open_since, month]
    return open_since.astype(str), np.column_stack([income, spent / income, months.states[month + 1].balance[open_since] / income])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_drift_finds_a_shock_and_nothing_without_one(seed):
    economy = Economy(1_000, seed=seed)
    before, (people, calm) = month_of_people(economy, 11), month_of_people(economy, 23)
    shaken = month_of_people(replace(economy, shock_month=21), 23)[1]
    for values, moved in ((calm, set()), (shaken, {"income", "spending to income"})):
        found = drift.compare(MOVES, before[1], values, reference_customers=before[0], current_customers=people, seed=seed)
        names = {column.name for column in found.columns if column.is_drift}
        assert names == moved if not moved else moved <= names
