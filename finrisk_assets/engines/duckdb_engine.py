"""DuckDB, the embedded engine: one file, one process that writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import ibis
from ibis.expr.types import Table as LazyTable

from finrisk_assets.engines.engine import Engine
from finrisk_assets.engines.warehouse_url import file_of
from finrisk_assets.features.compiled import steps_apart
from finrisk_assets.ledger.landing import escape_pattern


class DuckDBEngine(Engine):
    """A DuckDB file, or a database in memory."""

    @classmethod
    def open(cls, url: str, memory_gb: float) -> "DuckDBEngine":
        """Open the database of a URL."""
        file = file_of(url)
        # A path is no URL to Ibis: it would read the marks # and % in it.
        options = {"memory_limit": f"{memory_gb}GB"} | dict(parse_qsl(url.partition("?")[2]))
        return cls(ibis.connect(url) if file is None else ibis.duckdb.connect(file, **options))

    def ingest_parquet(self, file: Path) -> LazyTable:
        """Return the rows of a Parquet file, which is read when they are computed."""
        connection: Any = self.connection
        return connection.read_parquet(escape_pattern(file), hive_partitioning=False)

    def replace_table(self, schema: str, name: str, rows: LazyTable, month_column: str | None = None) -> None:
        """Replace a table in one transaction: Ibis creates, fills, drops and renames, each by itself."""
        with steps_apart(), self._transaction():
            self.connection.create_table(name, rows, database=schema, overwrite=True)

    def replace_rows(self, schema: str, name: str, rows: LazyTable, condition: str) -> None:
        """Replace the rows that meet a condition in one transaction."""
        part = f"{name}__part"
        columns = ", ".join(f'"{column}"' for column in rows.columns)
        with steps_apart(), self._transaction() as execute:
            self.connection.create_table(part, rows, database=schema, overwrite=True)
            execute(f'DELETE FROM "{schema}"."{name}" WHERE {condition}')
            execute(f'INSERT INTO "{schema}"."{name}" ({columns}) SELECT {columns} FROM "{schema}"."{part}"')
            execute(f'DROP TABLE "{schema}"."{part}"')

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        connection: Any = self.connection
        connection.con.execute("BEGIN TRANSACTION")
        try:
            yield connection.con.execute
        except BaseException:
            connection.con.execute("ROLLBACK")
            raise
        connection.con.execute("COMMIT")
