"""Tests of the graph on PostgreSQL: the tables of the trained ledger, and the champions' decisions, equal those on DuckDB."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings
from tests.pipeline.conftest import Run
from tests.pipeline.test_months import WITH_FEATURES, find_other_months

LAYERS = ("raw_", "quarantine_", "validated_", "totals_", "features_", "scores_")
TOLERANCE = 1e-9
"""Largest difference of a feature, absolute and relative: the engines' sines differ in the last bit."""


@pytest.fixture(scope="module")
def settings(run: Run, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of the same ledger on PostgreSQL."""
    return replace(run.settings, home=tmp_path_factory.mktemp("postgres"), warehouse_url=new_database())


@pytest.fixture(scope="module")
def twin(run: Run, settings: Settings) -> Warehouse:
    """Return the same ledger on PostgreSQL, scored by the same champions."""
    return materialise_twin(run.settings, settings)


def materialise_twin(trained: Settings, settings: Settings) -> Warehouse:
    """Run the graph's tables in another warehouse with the champions of a trained ledger; nothing is trained again."""
    shutil.copytree(trained.root / "champions", settings.root / "champions")
    definitions = build_definitions(settings)
    names = [key for key in definitions.resolve_all_asset_keys() if key.to_user_string().startswith(LAYERS)]
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def(automation.EVERYTHING)
        result = job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=names)
    failures = [f"{event.step_key}: {event.step_failure_data.error}" for event in result.all_events if event.is_step_failure]
    assert result.success, failures
    return Warehouse.of(settings)


def tables_of(warehouse: Warehouse) -> list[str]:
    names = [name for schema in ("staging", "analytics") for name in warehouse.connection.list_tables(database=schema)]
    return sorted(name for name in names if name.startswith(LAYERS))


def sort_rows(table: pa.Table) -> pa.Table:
    """Return the rows in the order of their identifiers, times and flags."""
    kinds = (pa.types.is_string, pa.types.is_timestamp, pa.types.is_boolean)
    keys = [name for name in table.column_names if name == "_row" or any(is_kind(table[name].type) for is_kind in kinds)]
    return table.sort_by([(name, "ascending") for name in keys])


def find_differences(ours: pa.Table, theirs: pa.Table, tolerance: float) -> dict[str, Any]:
    """Return the columns in which two tables differ, with the number of rows."""
    assert ours.column_names == theirs.column_names
    assert ours.num_rows == theirs.num_rows
    ours, theirs, differences = sort_rows(ours), sort_rows(theirs), {}
    for name in ours.column_names:
        if pa.types.is_floating(ours[name].type):
            here, there = (np.array(side[name].to_numpy(zero_copy_only=False), float) for side in (ours, theirs))
            same = np.isclose(here, there, rtol=tolerance, atol=tolerance, equal_nan=True)
        else:
            same = np.array([one == other for one, other in zip(ours[name].to_pylist(), theirs[name].to_pylist(), strict=True)])
        if not same.all():
            differences[name] = int((~same).sum())
    return differences


def test_every_table_of_the_ledger_is_there(run: Run, twin: Warehouse) -> None:
    assert tables_of(twin) == tables_of(run.warehouse)
    assert {f"scores_{domain.name}" for domain in DOMAINS} <= set(tables_of(twin))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_equal_on_both_engines(run: Run, twin: Warehouse, layer: str) -> None:
    """Features within the tolerance; rows, quarantine, totals, labels and scores bit for bit."""
    tolerance = TOLERANCE if layer == "features_" else 0.0
    names = [name for name in tables_of(run.warehouse) if name.startswith(layer)]
    pairs = {name: (twin.table(name).to_pyarrow(), run.warehouse.table(name).to_pyarrow()) for name in names}
    differences = {name: find_differences(*pair, tolerance) for name, pair in pairs.items()}
    assert not any(differences.values()), differences


@pytest.mark.parametrize("domain", WITH_FEATURES, ids=lambda domain: domain.name)
def test_a_month_alone_has_the_features_of_the_whole_ledger(run: Run, twin: Warehouse, domain: Domain) -> None:
    assert find_other_months(domain, twin, run.settings, (16,)) == {}


def test_runs_at_once_of_the_same_months_do_not_disturb_each_other(twin: Warehouse, settings: Settings, tmp_path: Path) -> None:
    """Processes of Dagster materialise overlapping months in one warehouse, two of them from one home; every table is as before."""
    stages = ["validated_transactions", "totals_accounts", "features_spending_risk", "scores_spending_risk", "features_cashflow"]
    before = {name: twin.table(name).to_pyarrow() for name in stages}
    variables = {
        "FINRISK_HOME": settings.home,
        "FINRISK_WAREHOUSE_URL": settings.warehouse_url,
        "FINRISK_SIM_CUSTOMERS": settings.sim_customers,
        "FINRISK_SIM_MONTHS": settings.sim_months,
        "FINRISK_AS_OF": f"{settings.as_of:%Y-%m-%d}",
    }
    command = [sys.executable, "-W", "ignore", "-m", "dagster", "asset", "materialize", "-m", "finrisk_assets.definitions"]
    command += ["--select", ",".join(stages), "--partition-range"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FINRISK_", "DAGSTER_"))}
    environment |= {name: str(value) for name, value in variables.items()}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "env": environment}
    shutil.copytree(settings.root / "champions", tmp_path / settings.source / "champions")
    runs = [subprocess.Popen([*command, months], **pipes) for months in ("2024-02...2024-05", "2024-04...2024-06")]
    pipes["env"] = environment | {"FINRISK_HOME": str(tmp_path)}
    runs.append(subprocess.Popen([*command, "2024-04...2024-05"], **pipes))
    for process in runs:
        _, log = process.communicate(timeout=600)
        assert process.returncode == 0, log[-3000:]
    differences = {name: find_differences(twin.table(name).to_pyarrow(), table, 0.0) for name, table in before.items()}
    assert not any(differences.values()), differences


def test_one_month_again_changes_nothing(run: Run, twin: Warehouse) -> None:
    """A run of one month replaces exactly its rows, from the tables that stand."""
    from finrisk_assets.graph.partitions import MonthRange

    stored = twin.table("features_cashflow")
    before = stored.to_pyarrow()
    twin.store_months("features_cashflow", stored, "as_of", MonthRange("2024-03", "2024-03", False, False))
    assert find_differences(twin.table("features_cashflow").to_pyarrow(), before, 0.0) == {}
