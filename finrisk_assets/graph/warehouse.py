"""The warehouse: stored tables by asset name, the IO manager that hands them on, and how Dagster's UI shows them.

The warehouse is an Ibis connection named by one URL. Assets hand on lazy tables, so that rows do not pass through Python.
"""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg
import ibis
from ibis.common.exceptions import TableNotFound
from ibis.expr.types import Table as LazyTable

from finrisk_assets.engines import transient_faults
from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.engine import Engine
from finrisk_assets.engines.warehouse_url import file_of
from finrisk_assets.graph import retries
from finrisk_assets.graph.partitions import PARTITION_COLUMN, MonthRange, add_run_metadata
from finrisk_assets.graph.runs import stop_signals, warehouse_lock
from finrisk_assets.ledger import contract, landing
from finrisk_assets.settings import Settings
from schemas.ledger import TABLES, Table

WAREHOUSE_POOL, TRAINING_POOL = "warehouse", "training"
"""Dagster pools: steps that write the warehouse, where one process may, and steps that train and register models."""

STAGING_LAYERS = ("raw_", "quarantine_")
PREVIEW_ROWS = 5
RAW_VALUE = "The raw value of the source."
"""Meaning of a column of raw rows, whose source has names of its own."""
HIDDEN = "•••"
"""The text in place of personal data in a preview."""

_logger = logging.getLogger("finrisk.warehouse")


@cache
def _open(url: str, memory_gb: float) -> Engine:
    """Return the process's one engine of a URL: DuckDB lets a single process write, and refuses a second connection."""
    return open_engine(url, memory_gb)


class MissingTableError(LookupError):
    """A table that no run of the ledger has stored; the message says what to do."""


def schema_of(asset: str) -> str:
    """Return the schema of an asset's table: ``staging`` for rows that have not met their contract, else ``analytics``."""
    return "staging" if asset.startswith(STAGING_LAYERS) else "analytics"


@dataclass(frozen=True)
class Warehouse:
    """The stored tables, by asset name.

    A plain object to Dagster, not a resource with configuration: Dagster shows and stores configuration, and the URL may hold a password.

    Attributes
    ----------
    url
        Of the database: `engines.choice` says which engines there are.
    wait_minutes
        How long to wait for a DuckDB file that another process has open, minutes.
    memory_gb
        Memory of a DuckDB file's connection, GB; an option `memory_limit` of the URL goes before it.
    ledger
        Name of the ledger, by which an engine that several could share refuses another one's tables.
    """

    url: str = field(repr=False)
    wait_minutes: float = 60.0
    memory_gb: float = 2.0
    ledger: str = ""

    @classmethod
    def of(cls, settings: Settings) -> "Warehouse":
        """Return the warehouse that the settings name."""
        return cls(settings.warehouse, settings.warehouse_wait_minutes, settings.warehouse_memory_gb, settings.ledger_name)

    @property
    def engine(self) -> Engine:
        """The connected engine of this process.

        Raises
        ------
        finrisk_assets.graph.runs.warehouse_lock.WarehouseBusyError
            If another process has the warehouse open for longer than this one waits.
        finrisk_assets.engines.engine.EngineError
            If no engine takes the URL, or it holds the tables of another ledger.
        """
        file = file_of(self.url)
        if file is None:
            engine = transient_faults.with_retries(lambda: _open(self.url, self.memory_gb))
            if self.ledger not in ("", engine.ledger):
                engine.open_ledger(self.ledger)
            return engine
        warehouse_lock.acquire(self.url, self.wait_minutes)
        return self._open_file(file)

    @property
    def connection(self) -> ibis.BaseBackend:
        """The open Ibis connection of this process; raises as `engine` does."""
        return self.engine.connection

    def _open_file(self, file: Path) -> Engine:
        """Open a DuckDB file as soon as no other program has it open: one that is none of ours does not know the lock."""
        deadline, is_told = time.monotonic() + self.wait_minutes * 60, False
        while True:
            try:
                return _open(self.url, self.memory_gb)
            except Exception as error:
                holder = re.search(r"held in (.+?\(PID \d+\))", str(error))
                if holder is None:
                    raise
                if time.monotonic() >= deadline:
                    raise warehouse_lock.WarehouseBusyError(warehouse_lock.busy_message(file, holder[1], self.wait_minutes)) from None
                if not is_told:
                    _logger.warning(f"waiting for the warehouse, which is in use by {holder[1]}")
                is_told = True
                stop_signals.raise_if_stopped()
                time.sleep(warehouse_lock.POLL_S)

    def ingest_parquet(self, file: Path) -> LazyTable:
        """Return the rows of a Parquet file, lazy."""
        return self.engine.ingest_parquet(file)

    def table(self, asset: str) -> LazyTable:
        """Return the stored table of an asset, lazy.

        Raises
        ------
        MissingTableError
            If the asset has none.
        """
        try:
            return self.engine.table(schema_of(asset), asset)
        except TableNotFound:
            # The warehouse's URL may hold a password, so the message does not name it.
            raise MissingTableError(
                f"the ledger has no table {asset} yet: run `make demo` first, or look in Dagster why its last run did not make it"
            ) from None

    def has(self, asset: str) -> bool:
        """Return whether an asset has a stored table."""
        return self.engine.has(schema_of(asset), asset)

    def store(self, asset: str, rows: LazyTable, month_column: str | None = None) -> LazyTable:
        """Replace an asset's table by the rows of an expression, computed in the engine, and return the stored table."""
        self.engine.replace_table(schema_of(asset), asset, rows, month_column)
        return self.table(asset)

    def store_months(self, asset: str, rows: LazyTable, time_column: str, months: MonthRange) -> LazyTable:
        """Replace the rows of some months in an asset's table, in one transaction, and return the stored table.

        Rows of other months stay. Storing the same rows again gives the same table.

        Parameters
        ----------
        asset
            The asset's name. Where its table does not exist yet, it is created.
        rows
            The new rows; those outside `months` are left out.
        time_column
            The timestamp column that says to which month a row belongs.
        months
            The months to replace.

        Raises
        ------
        dagster.Failure
            If the stored table has other columns.
        """
        rows = months.filter_rows(rows, time_column)
        if months.is_all or not self.has(asset):
            return self.store(asset, rows, time_column)
        stored = self.table(asset).columns
        if set(stored) != set(rows.columns):
            other = ", ".join(sorted(set(stored) ^ set(rows.columns)))
            raise dg.Failure(
                f"the stored table {asset} and the new rows differ in the columns {other}: materialise all of its months in one run",
                allow_retries=False,
            )
        self.engine.replace_rows(schema_of(asset), asset, rows, months.sql_condition(time_column))
        return self.table(asset)

    def drop_scan(self) -> None:
        """Drop the tables of a `sorted_scan`, which are stored by now."""
        if self.connection.name == "duckdb":
            from finrisk_assets.features.passes import sorted_scan

            sorted_scan.drop(self.connection)

    def close(self) -> None:
        """Close the connection, so that another process has the slots of its Spark; the next use opens another."""
        self.engine.close()
        self.drop_connection()

    def drop_connection(self) -> None:
        """Drop the cached connection, so that the next use opens another."""
        _open.cache_clear()


WarehouseResource = dg.ResourceParam[Warehouse]
"""The warehouse as a parameter of an asset or a check."""


class Tables(dg.ConfigurableIOManager):
    """The IO manager that hands lazy tables from asset to asset through the warehouse."""

    warehouse: dg.ResourceDependency[Warehouse]

    def handle_output(self, context: dg.OutputContext, obj: LazyTable) -> None:
        """Store an asset's lazy table, only the run's months where the asset is partitioned, and attach its description."""
        asset, schema = context.asset_key.to_user_string(), context.definition_metadata.get("dagster/column_schema")
        stop_signals.raise_if_stopped()
        with retries.retry_step_on_transient_fault(context.step_context.previous_attempt_count, self.warehouse.drop_connection):
            if context.has_asset_partitions:
                time_column = str(context.definition_metadata[PARTITION_COLUMN])
                months = MonthRange.from_partitions(context.asset_partitions_def, context.asset_partition_key_range)
                stored = self.warehouse.store_months(asset, obj, time_column, months)
            else:
                stored = self.warehouse.store(asset, obj)
            self.warehouse.drop_scan()
            metadata = describe_table(
                stored, schema if isinstance(schema, dg.TableSchema) else None, describe_columns(asset, stored.columns)
            )
            if context.has_asset_partitions:
                del metadata["dagster/column_schema"]  # the definition has it
            add_run_metadata(context.step_context, metadata)

    def load_input(self, context: dg.InputContext) -> LazyTable:
        """Return a stored table, lazy and with all its months: windows look back over them, and the result is cut as it is stored."""
        return self.warehouse.table(context.asset_key.to_user_string())


def count(rows: LazyTable) -> int:
    """Return the number of rows, counted in the engine."""
    return int(rows.count().to_pyarrow().as_py())


FIGURE_COLUMNS = {
    "window": "The months that the figure is about.",
    "metric": "Name of the figure.",
    "value": "The figure, in the unit that its meaning says.",
    "low": "Lower bound of its 95 % interval; null where it has none.",
    "high": "Upper bound of its 95 % interval; null where it has none.",
    "meaning": "The figure in words.",
}
"""Columns of every table of figures -> their meaning."""


def describe_columns(asset: str, names: Sequence[str]) -> dict[str, str]:
    """Return the meaning of columns of a table without a contract of its own: one of figures, or of raw rows."""
    layer, _, table = asset.partition("_")
    if layer not in ("raw", "quarantine"):
        return FIGURE_COLUMNS
    meanings = (
        {column.name: f"{RAW_VALUE} Where it is valid: {column.description}" for column in TABLES[table].columns} if table in TABLES else {}
    )
    meanings |= {
        landing.ROW: "Number of the landed row.",
        landing.LINE: "The line of the source's file, where it could not be read; else null.",
        landing.DEFECTS: "What kept the line from being read; else null.",
        contract.BROKEN_RULES: f"Names of the broken rules, separated by {contract.SEPARATOR!r}.",
    }
    return {name: meanings.get(name, RAW_VALUE) for name in names}


def describe_table(
    stored: LazyTable, schema: dg.TableSchema | None, descriptions: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Return row count, column schema and preview of a stored table, as Dagster metadata.

    Personal columns are hidden in the preview. Without a schema that names them all values are hidden, and the preview
    lists the columns with their number of missing values; `descriptions` holds the meaning of columns by name.
    """
    rows = count(stored)
    if schema is None:
        missing = stored.aggregate([stored[name].isnull().sum().name(name) for name in stored.columns]).to_pyarrow().to_pydict()
        types = {name: str(kind) for name, kind in stored.schema().items()}
        preview = [{"column": name, "type": kind, "missing": missing[name][0] or 0} for name, kind in types.items()]
        columns = dg.TableSchema([dg.TableColumn(name, kind, descriptions.get(name)) for name, kind in types.items()])
    else:
        hidden = {column.name for column in schema.columns if column.tags.get("personal", "none") != "none"}
        head = stored.head(PREVIEW_ROWS).to_pyarrow().to_pylist()
        preview = [{name: HIDDEN if name in hidden else value for name, value in row.items()} for row in head]
        columns = schema
    return {
        "dagster/row_count": rows,
        "dagster/column_schema": columns,
        "preview": dg.MetadataValue.md(markdown_table(preview)),
    }


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table: numbers with three significant digits, counts whole, and nothing where there is nothing."""
    if not rows:
        return "no rows"

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:,.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.3g}"
        return "" if value is None else str(value).replace("|", "\\|")

    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(text(value) for value in row.values()) + " |" for row in rows])


def column_schema(table: Table) -> dg.TableSchema:
    """Return a table contract as Dagster's column schema: type, unit, personal-data class and when a value becomes known."""

    def column(name: str) -> dg.TableColumn:
        spec = table[name]
        return dg.TableColumn(
            name,
            spec.dtype,
            description=f"{spec.description}{f' Unit: {spec.unit}.' if spec.unit else ''}",
            constraints=dg.TableColumnConstraints(nullable=spec.nullable, unique=name == table.key),
            tags={"personal": spec.personal, "known": spec.known},
        )

    return dg.TableSchema([column(name) for name in table.names])
