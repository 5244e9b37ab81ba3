"""The engine of a warehouse: the verbs in which DuckDB, PostgreSQL and Spark differ. Everything else is one Ibis expression for all."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

import ibis
from ibis.expr.types import Table as LazyTable

SCHEMAS = ("staging", "analytics")
"""Schemas of a warehouse, made with its first connection."""


class EngineError(ValueError):
    """A warehouse URL that no engine takes, or a request that the engine cannot carry out: the message says what to do."""


class Engine(ABC):
    """A connected engine.

    Attributes
    ----------
    connection
        Its Ibis connection.
    """

    serves_several = True
    """Whether several processes may write at the same time."""

    def __init__(self, connection: ibis.BaseBackend) -> None:
        self.connection = connection
        self.create_schemas(set(SCHEMAS) - set(connection.list_databases()))

    def create_schemas(self, names: Collection[str]) -> None:
        """Create schemas that are not there yet."""
        for name in names:
            self.connection.create_database(name, force=True)

    def table(self, schema: str, name: str) -> LazyTable:
        """Return a stored table, lazy."""
        return self.connection.table(name, database=schema)

    def has(self, schema: str, name: str) -> bool:
        """Return whether there is a stored table of a name."""
        return name in self.connection.list_tables(database=schema)

    @abstractmethod
    def ingest_parquet(self, file: Path) -> LazyTable:
        """Return the rows of a Parquet file, lazy."""

    @abstractmethod
    def replace_table(self, schema: str, name: str, rows: LazyTable) -> None:
        """Replace a table by the rows of an expression, as one change: a reader or a crash sees the old table or the new one."""

    @abstractmethod
    def replace_rows(self, schema: str, name: str, rows: LazyTable, condition: str) -> None:
        """Replace the rows of a stored table that meet a condition, as one change.

        Parameters
        ----------
        rows
            The new rows, with the columns of the table in any order; they may be computed from the table itself.
        condition
            In SQL, with double quotes around names, as DuckDB and PostgreSQL read it.
        """

    def close(self) -> None:
        """Close the connection."""
        self.connection.disconnect()
