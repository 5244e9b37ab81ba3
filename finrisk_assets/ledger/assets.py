"""The assets of the ledger: ``raw_*`` lands the source, ``validated_*`` and ``quarantine_*`` part the rows by the contract.

What a rule is stands in `contract`; how a source lands stands in `landing` and `sources`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets import checks
from finrisk_assets.ledger import contract
from finrisk_assets.ledger.landing import ROW
from finrisk_assets.ledger.sources.base import Land, RawTable, Source
from finrisk_assets.resources import Clock, Warehouse, column_schema, count, markdown_table
from finrisk_assets.settings import Settings

GROUP = "ledger"
OWNERS = ["team:data-platform"]


def assets(source: Source, settings: Settings) -> list[Any]:
    """Every asset and check of the ledger of one source."""
    folder = settings.root / "landing"
    made: list[Any] = []
    for name, raw in source.tables.items():
        made += [_raw(f"raw_{name}", raw.land, folder, source, raw.table.description), _arrived(name)]
        made += [_validated(name, raw, source, settings), checks.contract(f"validated_{name}", raw.table), _complete(name)]
    for name, land in source.truth.items():
        made += [_raw(name, land, folder, source, "What only the simulator knows; no feature may read it."), _landed(name)]
    return made


def _raw(asset: str, land: Land, folder: Path, source: Source, description: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=asset,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"parquet", "ibis"},
        description=f"{description} As {source.name} brings it, nothing changed.",
        io_manager_key="tables",
    )
    def raw(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.Output[LazyTable]:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{asset}.parquet"
        landed = land(path)
        context.log.info(f"{asset}: {landed.rows:,} rows landed, content {landed.sha256[:12]}")
        return dg.Output(
            warehouse.connection.read_parquet(str(path)),
            data_version=dg.DataVersion(landed.sha256),
            metadata={"content_sha256": landed.sha256, "source": source.name, "landing": dg.MetadataValue.path(path)},
        )

    return raw


def _arrived(name: str) -> dg.AssetChecksDefinition:
    def broken(warehouse: Warehouse) -> list[str]:
        stored = warehouse.table(f"raw_{name}")
        rows, numbers = count(stored), int(stored[ROW].nunique().to_pyarrow().as_py())
        return [] if 0 < rows == numbers else [f"{rows:,} rows landed with {numbers:,} row numbers"]

    return checks.demand(f"raw_{name}", f"raw_{name}_contract", "Rows landed, each with a number of its own.", broken)


def _landed(name: str) -> dg.AssetChecksDefinition:
    def broken(warehouse: Warehouse) -> list[str]:
        return [] if count(warehouse.table(name)) else [f"{name} has no rows"]

    return checks.demand(name, f"{name}_contract", "The simulator wrote down what it knows.", broken)


def _validated(name: str, brought: RawTable, source: Source, settings: Settings) -> dg.AssetsDefinition:
    valid_asset, quarantine_asset = f"validated_{name}", f"quarantine_{name}"
    references = sorted({table for table in brought.table.references.values() if table in source.tables})
    common: dict[str, Any] = {"group_name": GROUP, "owners": OWNERS, "kinds": {"pandera", "ibis"}, "io_manager_key": "tables"}

    @dg.multi_asset(
        name=f"validate_{name}",
        ins={"raw": dg.AssetIn(f"raw_{name}"), **{table: dg.AssetIn(f"validated_{table}") for table in references}},
        outs={
            quarantine_asset: dg.AssetOut(
                description=f"Rows of {name} that broke a rule: which one, and their raw values.", is_required=False, **common
            ),
            valid_asset: dg.AssetOut(
                description=f"{brought.table.description} Only rows that meet the contract; amounts in {source.currency}.",
                metadata={"dagster/column_schema": column_schema(brought.table)},
                is_required=False,
                **common,
            ),
        },
    )
    def validate(
        context: dg.AssetExecutionContext, warehouse: Warehouse, clock: Clock, raw: LazyTable, **references: LazyTable
    ) -> Iterator[dg.Output[LazyTable]]:
        split = contract.split(brought.table, brought.columns, raw, references, clock.now())
        yield dg.Output(split.quarantine, output_name=quarantine_asset)
        rows, quarantine = count(raw), warehouse.table(quarantine_asset)
        refused, rules = count(quarantine), _rules_broken(quarantine)
        context.log.info(f"{name}: {rows - refused:,} rows valid, {refused:,} in quarantine")
        if refused > settings.quarantine_max_share * rows:
            raise dg.Failure(
                f"{refused:,} of {rows:,} rows of {name} are in quarantine, more than the allowed share of "
                f"{settings.quarantine_max_share:g}: read the rules they broke in {quarantine_asset}, mend the source, "
                "or raise FINRISK_QUARANTINE_MAX_SHARE",
                metadata={"rules": rules},
                allow_retries=False,
            )
        yield dg.Output(split.valid, output_name=valid_asset, metadata={"quarantined": refused, "rules": rules})

    return validate


def _rules_broken(quarantine: LazyTable) -> dg.MarkdownMetadataValue:
    counts = contract.count_by_rule(quarantine)
    return dg.MetadataValue.md(markdown_table([{"rule": rule, "rows": rows} for rule, rows in counts.items()]))


def _complete(name: str) -> dg.AssetChecksDefinition:
    """raw = validated + quarantine, always. It stands for the contract of the quarantine, which has no rule of its own."""

    def broken(warehouse: Warehouse) -> list[str]:
        rows = {layer: count(warehouse.table(f"{layer}_{name}")) for layer in ("raw", "validated", "quarantine")}
        if rows["raw"] == rows["validated"] + rows["quarantine"]:
            return []
        return [f"{rows['raw']} raw rows, but {rows['validated']} valid and {rows['quarantine']} in quarantine"]

    return checks.demand(f"quarantine_{name}", f"quarantine_{name}_contract", "No row is lost: raw = validated + quarantine.", broken)
