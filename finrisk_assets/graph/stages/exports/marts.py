"""The asset `marts`: scores, decisions, alerts, loans and transactions as files for reports, with a dictionary of their columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph import checks
from finrisk_assets.graph.stages.ledger import OWNERS
from finrisk_assets.graph.warehouse import WAREHOUSE_POOL, Warehouse, WarehouseResource, count, markdown_table
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.marts.mart_files import MartError, WrittenMart, find_faults, has_tableau, mart_folder, publish_marts, write_marts
from finrisk_assets.marts.mart_tables import LEDGER_MARTS, describe_columns
from finrisk_assets.settings import Settings

ASSET = "marts"


def build_assets(domains: Sequence[Domain], source: Source, settings: Settings) -> list[Any]:
    """Return the marts of one source, and the check that reads them back."""
    ledger = [f"validated_{name}" for name in LEDGER_MARTS if name in source.tables]

    @dg.asset(
        name=ASSET,
        group_name="serving",
        owners=OWNERS,
        kinds={"parquet", "csv", "tableau"},
        deps=[*(f"scores_{domain.name}" for domain in domains), *ledger],
        pool=WAREHOUSE_POOL,
        description="Tables for reports: scores, the service's decisions and alerts, loans and transactions as Parquet and CSV, and as "
        "Tableau extracts where pantab is installed, with a dictionary of their columns. Identifiers are pseudonyms.",
    )
    def marts(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        folder = mart_folder(settings)
        try:
            written = export_marts(folder, domains, source, warehouse, settings)
        except MartError as error:
            raise dg.Failure(str(error)) from None
        if settings.mirror:
            publish_marts(written, f"{settings.mirror}/marts")
        sizes = [{"mart": one.mart.name, "rows": one.rows} | {file.suffix[1:]: _size(file) for file in one.files} for one in written]
        context.log.info(f"{len(written)} marts in {folder}")
        return dg.MaterializeResult(
            metadata={
                "folder": dg.MetadataValue.path(folder),
                **({"copies": f"{settings.mirror}/marts"} if settings.mirror else {}),
                "files": dg.MetadataValue.md(markdown_table(sizes)),
                "identifiers": "as they are" if settings.export_identifiers else "pseudonyms",
                "tableau": "extracts are written" if has_tableau() else "no extracts: pantab is not installed, see docs/exports.md",
                "dictionary": dg.MetadataValue.md(_format_dictionary(written)),
                **{f"rows_{one.mart.name}": one.rows for one in written},
            }
        )

    def broken(warehouse: Warehouse) -> list[str]:
        names = [name for name in LEDGER_MARTS if name in source.tables]
        return find_faults(mart_folder(settings), {name: count(warehouse.table(f"validated_{name}")) for name in names})

    says = "Every file reads back with the columns of the dictionary and the rows of its table."
    return [marts, checks.blocking_check(ASSET, f"{ASSET}_contract", says, broken)]


def export_marts(folder: Path, domains: Sequence[Domain], source: Source, warehouse: Warehouse, settings: Settings) -> list[WrittenMart]:
    """Write the marts of a source to a folder, with the scores that the warehouse has.

    Raises
    ------
    finrisk_assets.marts.mart_files.MartError
        Where the ledger was not run yet, or the service's store cannot be read; no file is changed.
    """
    lacking = [name for name in LEDGER_MARTS if name in source.tables and not warehouse.has(f"validated_{name}")]
    if lacking:
        raise MartError(f"the ledger of {source.name} was not run yet: run `make demo` first")
    scored = [domain for domain in domains if warehouse.has(f"scores_{domain.name}")]
    return write_marts(folder, source, scored, warehouse.table, settings)


def _size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:,.1f} MB"


def _format_dictionary(written: Sequence[WrittenMart]) -> str:
    """Return the dictionary as a Markdown table, without what is the same in most rows."""
    rows = describe_columns(one.mart for one in written)
    return markdown_table([{name: row[name] for name in ("column_id", "type", "unit", "meaning", "source")} for row in rows])
