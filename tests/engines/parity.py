"""The tables of one ledger on two engines: materialised from one source with the same champions, and compared."""

import shutil
from collections.abc import Iterable

import dagster as dg
import numpy as np
import pyarrow as pa

from finrisk_assets.domains.registry import domains_of
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.landing import ROW
from finrisk_assets.settings import Settings

LAYERS = ("raw_", "quarantine_", "validated_", "totals_", "features_", "scores_")
"""Beginnings of the assets that are tables of the ledger: nothing of them is trained."""
COMPARED = ("quarantine_", "validated_", "features_", "scores_")
DIGITS = 1e-9
"""Largest difference of a computed number, relative above 1."""


def materialise_tables(settings: Settings, champions_of: Settings) -> Warehouse:
    """Run the tables of the graph with the champions of another home, where the home has none of its own."""
    if settings.root != champions_of.root:
        shutil.copytree(champions_of.root / "champions", settings.root / "champions")
    definitions = build_definitions(settings)
    keys = {key for key in definitions.resolve_all_asset_keys() if key.to_user_string().startswith(LAYERS)}
    with dg.DagsterInstance.ephemeral() as instance:
        # Without the assets' checks: the tables themselves are compared.
        job = definitions.resolve_job_def(automation.EVERYTHING).get_subset(asset_selection=keys, asset_check_selection=set())
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    failures = [f"{event.step_key}: {event.step_failure_data.error}" for event in result.all_events if event.is_step_failure]
    assert result.success, failures
    return Warehouse.of(settings)


def compare_layer(layer: str, ours: Warehouse, theirs: Warehouse, settings: Settings) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Return the number of rows of each table of a layer, and the columns that differ: of features beyond `DIGITS`, of others at all."""
    source = sources.load(settings)
    keys = {f"validated_{name}": raw.table.key for name, raw in source.tables.items()}
    keys |= {f"quarantine_{name}": ROW for name in source.tables}
    for domain in domains_of(source):
        keys |= {f"features_{domain.group}": domain.keys[0].name, f"scores_{domain.name}": domain.keys[0].name}
    n_rows, differing = {}, {}
    for asset, key in keys.items():
        if asset.startswith(layer):
            here, there = read(ours, asset, key), read(theirs, asset, key)
            n_rows[asset] = len(here)
            if found := find_differences(here, there, exact=() if layer == "features_" else here.column_names):
                differing[asset] = found
    return n_rows, differing


def read(warehouse: Warehouse, asset: str, key: str) -> pa.Table:
    """Return a stored table in the order of its key."""
    return warehouse.table(asset).order_by(key).to_pyarrow()


def find_differences(ours: pa.Table, theirs: pa.Table, exact: Iterable[str] = ()) -> dict[str, int]:
    """Return the number of rows that differ, by column: numbers beyond `DIGITS`, all else and the columns of `exact` at all."""
    assert set(ours.column_names) == set(theirs.column_names) and len(ours) == len(theirs)
    differing = {}
    for name in ours.column_names:
        here, there = ours[name], theirs[name].cast(ours[name].type)
        if pa.types.is_floating(here.type) and name not in exact:
            values = (np.array(column.to_pylist(), float) for column in (here, there))
            n_different = int((~np.isclose(*values, rtol=DIGITS, atol=DIGITS, equal_nan=True)).sum())
        else:
            n_different = sum(a != b and not (a != a and b != b) for a, b in zip(here.to_pylist(), there.to_pylist(), strict=True))
        if n_different:
            differing[name] = n_different
    return differing
