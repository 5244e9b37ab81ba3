"""Tests of the sample of customers that trains and evaluates a model where the feature table has more rows than the setting."""

import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK
from finrisk_assets.graph.stages.common import sample_rows
from finrisk_assets.settings import Settings

N_CUSTOMERS, N_MONTHS = 2_000, 12


@pytest.fixture(scope="module")
def features():
    """Return a feature table: months of customers, of whom one in twenty is at risk in two of the months."""
    customer = np.repeat(np.arange(N_CUSTOMERS), N_MONTHS)
    month = np.tile(np.arange(N_MONTHS), N_CUSTOMERS)
    frame = pd.DataFrame({"customer_id": customer.astype(str), SPENDING_RISK.label: (customer % 20 == 0) & (month % 6 == 0)})
    return ibis.duckdb.connect().create_table("features", frame)


def drawn(features, rows: int, seed: int = 1) -> pd.DataFrame:
    frame = sample_rows(features, SPENDING_RISK, Settings(training_rows=rows, seed=seed)).to_pandas()
    return frame.sort_values("customer_id", ignore_index=True)


def test_a_table_up_to_the_setting_is_read_whole(features):
    assert sample_rows(features, SPENDING_RISK, Settings(training_rows=N_CUSTOMERS * N_MONTHS)) is features


def test_customers_are_drawn_whole_and_the_rate_of_the_outcome_stays(features):
    sample = drawn(features, N_CUSTOMERS * N_MONTHS // 4)
    assert set(sample.groupby("customer_id").size()) == {N_MONTHS}
    assert sample.customer_id.nunique() == N_CUSTOMERS // 4
    # Equal shares of both strata: the rate is that of the ledger, and not by luck of the draw.
    assert sample[SPENDING_RISK.label].mean() == pytest.approx(2 / N_MONTHS / 20, rel=1e-12)


def test_the_seed_decides_who_is_drawn(features):
    rows = N_CUSTOMERS * N_MONTHS // 4
    assert drawn(features, rows).equals(drawn(features, rows))
    assert not drawn(features, rows).equals(drawn(features, rows, seed=2))
