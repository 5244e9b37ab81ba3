"""Factories of asset checks: a blocking contract for every stored table, a gate for every model.

A check re-reads the stored table. The rules themselves are in the contracts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.warehouse import Warehouse, WarehouseResource
from schemas.ledger import Table

SHOWN_MESSAGES = 10


def build_result(
    messages: Sequence[str], severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR, **metadata: Any
) -> dg.AssetCheckResult:
    """Return the result of a check that found these faults."""
    bullets = "\n".join(f"- {message}" for message in messages[:SHOWN_MESSAGES])
    return dg.AssetCheckResult(
        passed=not messages,
        severity=severity,
        description="; ".join(messages[:3]) or "all rules hold",
        metadata={**metadata, **({"broken": dg.MetadataValue.md(bullets)} if messages else {})},
    )


def asset_check(
    asset: str, name: str, description: str, *, is_blocking: bool = True, deps: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], dg.AssetChecksDefinition]:
    """Return the decorator of a check whose step has the check's name.

    Dagster's own puts the asset's name before it, which the name of a check begins with already.
    """
    spec = dg.AssetCheckSpec(name, asset=asset, additional_deps=deps, blocking=is_blocking, description=description)
    return dg.multi_asset_check(name=name, specs=[spec])


def contract(
    asset: str, table: Table, months: dg.PartitionsDefinition[str] | None = None, time_column: str = ""
) -> dg.AssetChecksDefinition:
    """Build the blocking check ``<asset>_contract``: types, ranges and keys of the stored table, by Pandera in the engine.

    Parameters
    ----------
    months, time_column
        Of a table that is kept by months: a run of some months checks these months, and their keys against those of all.
    """

    @asset_check(asset, f"{asset}_contract", f"{asset} meets its table contract.")
    def check(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        from finrisk_assets.ledger.contract import check_stored, find_repeated_keys

        stored = warehouse.table(asset)
        of_run = None if months is None else MonthRange.from_tags(months, context.run.tags)
        if of_run is None or of_run.is_all:
            faults = check_stored(table, stored)
        else:
            rows = of_run.filter_rows(stored, time_column)
            faults = check_stored(table, rows) or find_repeated_keys(table, rows, stored)
        return build_result(faults, columns=len(table.columns))

    return check


def blocking_check(
    asset: str,
    name: str,
    description: str,
    find_faults: Callable[..., Sequence[str]],
    read_metadata: Callable[[Warehouse], Mapping[str, Any]] = lambda _: {},
) -> dg.AssetChecksDefinition:
    """Build a blocking check with a rule of its own.

    Parameters
    ----------
    asset, name, description
        The checked asset, and the check's name and description.
    find_faults
        Takes the warehouse and returns each fault as a sentence; none where the rule holds.
    read_metadata
        Takes the warehouse and returns metadata to show beside the result.
    """

    @asset_check(asset, name, description)
    def check(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        return build_result(find_faults(warehouse), **read_metadata(warehouse))

    return check
