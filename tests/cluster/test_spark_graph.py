"""Tests of the graph on Spark: the same ledger, features and decisions as on DuckDB, corrupted rows included.

The champions are those that the trained ledger of `tests/pipeline` has; training, and all that follows it, is in `tests/cluster`.
"""

import shutil
from dataclasses import replace

import dagster as dg
import pytest

from finrisk_assets.domains.registry import domains_of
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.landing import ROW
from tests.engines.parity import find_differences, read
from tests.pipeline.conftest import Run, run, small  # noqa: F401 - the trained ledger

LAYERS = ("raw_", "quarantine_", "validated_", "features_", "scores_")


@pytest.fixture(scope="module")
def on_spark(run, spark_url, tmp_path_factory) -> Run:  # noqa: F811
    """Run the graph up to the scores on Spark, from the same source and with the same champions."""
    settings = replace(run.settings, home=tmp_path_factory.mktemp("home"), warehouse_url=spark_url)
    shutil.copytree(run.settings.root / "champions", settings.root / "champions")
    definitions = build_definitions(settings)
    keys = [key for key in definitions.resolve_asset_graph().get_all_asset_keys() if key.path[-1].startswith(LAYERS)]
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def(automation.EVERYTHING)
        result = job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=keys)
    failures = [f"{event.step_key}: {event.step_failure_data.error}" for event in result.all_events if event.is_step_failure]
    assert result.success, failures
    return Run(settings, result, Warehouse.of(settings))


def test_the_ledger_is_split_alike(run, on_spark):  # noqa: F811
    tables = sources.load(run.settings).tables
    for name, raw in tables.items():
        for asset, key in ((f"validated_{name}", raw.table.key), (f"quarantine_{name}", ROW)):
            assert find_differences(read(run.warehouse, asset, key), read(on_spark.warehouse, asset, key)) == {}, asset
    assert len(tables) == 5


def test_features_and_outcomes_are_equal(run, on_spark):  # noqa: F811
    domains = [domain for domain in domains_of(sources.load(run.settings)) if not domain.features_of]
    for domain in domains:
        asset, key = f"features_{domain.name}", domain.keys[0].name
        exact = (domain.label,) if domain.label in run.warehouse.table(asset).columns else ()
        assert find_differences(read(run.warehouse, asset, key), read(on_spark.warehouse, asset, key), exact) == {}, asset
    assert len(domains) == 5


def test_decisions_are_equal_bit_for_bit(run, on_spark):  # noqa: F811
    domains = domains_of(sources.load(run.settings))
    for domain in domains:
        asset, key = f"scores_{domain.name}", domain.keys[0].name
        ours, theirs = read(run.warehouse, asset, key), read(on_spark.warehouse, asset, key)
        assert find_differences(ours, theirs, exact=ours.column_names) == {}, asset
    assert len(domains) == 6
