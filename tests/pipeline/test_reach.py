"""Tests of each domain's reach: a change in one month moves the features of exactly the months that the domain declares."""

from collections.abc import Mapping
from datetime import datetime

import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.simulator import simulate
from finrisk_assets.settings import Settings
from schemas.ledger import TABLES

pytestmark = pytest.mark.slow

CUSTOMERS, MONTHS = 150, 26
START = datetime(2022, 5, 1)
CHANGED = "2022-11"
SOURCE = sources.load(Settings(sim_customers=CUSTOMERS, sim_months=MONTHS))


@pytest.fixture(scope="module")
def ledger() -> Mapping[str, pd.DataFrame]:
    computed = simulate(CUSTOMERS, MONTHS, start=START, bad_rows=0)
    return {name: computed[name].to_pandas() for name in TABLES}


def change_month(transactions: pd.DataFrame) -> pd.DataFrame:
    """Return the transactions with every one of a month changed, between each person's first and last transaction."""
    month = transactions.occurred_at.dt.strftime("%Y-%m") == CHANGED
    limits = transactions[~month].groupby("customer_id").occurred_at.agg(["min", "max"])
    first, last = (transactions.customer_id.map(limits[side]) for side in ("min", "max"))
    here = month & (first < transactions.occurred_at) & (transactions.occurred_at < last)
    other = transactions.copy()
    other.loc[here, "amount"] = (other.amount[here] * 3 + 1).round(2)
    other.loc[here, "balance_amount"] = -(other.balance_amount[here].abs() + 100)
    other.loc[here, "merchant"] = "another"
    late = other[here & (other.direction == "debit")].iloc[::3].copy()
    late["transaction_id"] = "late" + late.transaction_id
    late["category"] = ["penalty" if number % 2 else "repairs" for number in range(len(late))]
    return pd.concat([other, late], ignore_index=True)


def features(domain: Domain, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    connection = ibis.duckdb.connect()
    lazy = {name: connection.create_table(name, frame) for name, frame in tables.items() if name in domain.tables}
    computed = domain.build_features(lazy, SOURCE).to_pandas()
    connection.disconnect()
    return computed.set_index(domain.keys[0].name).sort_index()


def differ(before: pd.DataFrame, after: pd.DataFrame) -> np.ndarray:
    """Return which rows differ by more than the rounding of a sum."""
    numbers = before.select_dtypes("number").columns
    others = before.columns.difference(numbers)
    same = np.isclose(before[numbers].to_numpy(float), after[numbers].to_numpy(float), rtol=1e-9, atol=1e-9, equal_nan=True).all(axis=1)
    equal = (before[others] == after[others]) | (before[others].isna() & after[others].isna())
    return ~(same & equal.all(axis=1).to_numpy())


@pytest.mark.parametrize("domain", [one for one in DOMAINS if not one.features_of], ids=lambda domain: domain.name)
def test_a_change_moves_the_months_that_the_domain_says(domain: Domain, ledger: Mapping[str, pd.DataFrame]) -> None:
    other = {**ledger, "transactions": change_month(ledger["transactions"])}
    before, after = features(domain, ledger), features(domain, other)
    assert set(before.index) <= set(after.index)
    moved = before[differ(before, after.loc[before.index])]
    new = after.loc[after.index.difference(before.index)]
    moments = pd.concat([moved[domain.decision_time], new[domain.decision_time]]).dropna()
    at = pd.Period(CHANGED, "M").ordinal
    distances = sorted({pd.Period(moment, "M").ordinal - at for moment in moments})
    assert distances[0] >= -domain.months_ahead, f"months before are told by it: {distances}"
    assert distances[-1] <= domain.months_back, f"windows reach further: {distances}"
    # The declared reach is tight, but for the lengths of months and the people in the sample.
    assert distances[-1] >= domain.months_back - 1, f"windows do not reach so far: {distances}"
    assert distances[0] <= 1 - domain.months_ahead
