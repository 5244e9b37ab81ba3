"""The quarantine of a ledger that was run, read from its warehouse."""

from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.landing import LandingError
from finrisk_assets.ledger.quarantine_report import TableReport, report_table
from finrisk_assets.settings import Settings


def read_quarantine(settings: Settings, table: str | None = None, n_rows: int = 0) -> dict[str, TableReport]:
    """Return the report of each table of the ledger that was run, or of one.

    Parameters
    ----------
    table
        A canonical table; None means all.
    n_rows
        How many rows of each part a report shows.

    Raises
    ------
    finrisk_assets.ledger.landing.LandingError
        If the source has no such table, or the ledger was not run yet.
    """
    source = sources.load(settings)
    if table is not None and table not in source.tables:
        raise LandingError(f"the source {source.name} has no table {table}; it has {', '.join(source.tables)}")
    if not settings.warehouse_url and not (settings.root / "warehouse.duckdb").is_file():
        raise LandingError(f"the ledger of {source.name} was not run yet: run `make demo` first")
    warehouse = Warehouse.of(settings)
    names = [name for name in source.tables if table in (None, name) and warehouse.has(f"quarantine_{name}")]
    if not names:
        raise LandingError(f"the ledger of {source.name} was not run yet: run `make demo` first")
    maps = {}
    if settings.source == "mapped" and settings.mapping is not None:
        from schemas.mapping import read_mapping

        maps = {name: mapped.maps for name, mapped in read_mapping(settings.mapping).tables.items()}
    reports = {}
    for name in names:
        valid, quarantine = warehouse.table(f"validated_{name}"), warehouse.table(f"quarantine_{name}")
        reports[name] = report_table(source.tables[name], valid, quarantine, maps=maps.get(name), n_rows=n_rows)
    return reports
