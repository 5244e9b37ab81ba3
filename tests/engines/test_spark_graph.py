"""Tests of the graph on Spark: the same ledger, features and decisions as on DuckDB, corrupted rows included.

The champions are drawn, not trained; training, and all that follows it, is in `tests/cluster`.
"""

from dataclasses import replace
from datetime import datetime

import pytest

from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings
from tests.engines.champions import write_champions
from tests.engines.parity import COMPARED, compare_layer, materialise_tables

CUSTOMERS, MONTHS = 40, 15


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a small ledger on DuckDB, with a champion of each domain."""
    settings = Settings(home=tmp_path_factory.mktemp("home"), sim_customers=CUSTOMERS, sim_months=MONTHS, as_of=datetime(2025, 7, 1))
    write_champions(settings)
    return settings


@pytest.fixture(scope="module")
def warehouses(here: Settings, spark_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Warehouse]:
    """The tables of the ledger up to the scores, on DuckDB and on Spark."""
    there = replace(here, home=tmp_path_factory.mktemp("spark"), warehouse_url=spark_url)
    return materialise_tables(here, here), materialise_tables(there, here)


@pytest.mark.parametrize("layer", COMPARED)
def test_a_layer_is_equal_on_both_engines(here: Settings, warehouses: tuple[Warehouse, Warehouse], layer: str) -> None:
    n_rows, differing = compare_layer(layer, *warehouses, here)
    assert differing == {}
    assert len(n_rows) == (6 if layer == "scores_" else 5)
    assert n_rows["quarantine_transactions"] if layer == "quarantine_" else all(n_rows.values()), n_rows
