"""A small ledger that is run through the whole graph once, for all tests of this folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from finrisk_assets.cli import main
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings


@dataclass(frozen=True)
class Run:
    """A finished run: its settings, Dagster's result, and the stored tables."""

    settings: Settings
    result: dg.ExecuteInProcessResult
    warehouse: Warehouse


def materialise(settings: Settings) -> dg.ExecuteInProcessResult:
    """Run the whole graph in this process."""
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(settings).resolve_job_def(automation.EVERYTHING)
        return job.execute_in_process(instance=instance, raise_on_error=False)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home: Path = tmp_path_factory.mktemp("home")
    return Settings(home=home, sim_customers=300, sim_months=18, as_of=datetime(2025, 7, 1))


@pytest.fixture(scope="session")
def run(small: Settings) -> Iterator[Run]:
    main.prepare_dagster(small)
    result = materialise(small)
    failures = [f"{event.step_key}: {event.step_failure_data.error}" for event in result.all_events if event.is_step_failure]
    assert result.success, failures
    yield Run(small, result, Warehouse(url=small.warehouse))
