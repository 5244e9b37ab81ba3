"""The engine of a warehouse: the verbs in which DuckDB, PostgreSQL and Spark differ. Everything else is one Ibis expression for all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

import ibis
from ibis.expr.types import Table as LazyTable

from finrisk_assets.modelling.training.parallel import map_in_order

if TYPE_CHECKING:
    import pyarrow as pa

    BatchFunction = Callable[[pa.RecordBatch], pa.RecordBatch]

SCHEMAS = ("staging", "analytics")
"""Schemas of a warehouse, made with its first connection."""
BATCH_ROWS = 20_000
"""Rows of a batch of `Engine.map_batches`: more need more memory."""


class EngineError(ValueError):
    """A warehouse URL that no engine takes, or a request that the engine cannot carry out: the message says what to do."""


class Engine(ABC):
    """A connected engine.

    Attributes
    ----------
    connection
        Its Ibis connection.
    ledger
        Name of the ledger whose tables it stores; empty where nobody said.
    """

    ledger = ""

    def __init__(self, connection: ibis.BaseBackend) -> None:
        self.connection = connection
        self.create_schemas(set(SCHEMAS) - set(connection.list_databases()))

    def create_schemas(self, names: Collection[str]) -> None:
        """Create schemas that are not there yet."""
        for name in names:
            self.connection.create_database(name, force=True)

    def open_ledger(self, name: str) -> None:
        """Say whose tables the engine stores.

        Raises
        ------
        EngineError
            If tables of another ledger are there, which would be overwritten.
        """
        if (owner := self.find_owner()) not in ("", name):
            raise EngineError(
                f"the warehouse of FINRISK_WAREHOUSE_URL holds the tables of the ledger {owner}, and this is {name}: name another one, "
                "for each ledger needs its own"
            )
        self.ledger = name

    def find_owner(self) -> str:
        """Return the name of the ledger whose tables are stored; empty where none is named."""
        return ""

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
    def replace_table(self, schema: str, name: str, rows: LazyTable, month_column: str | None = None) -> None:
        """Replace a table by the rows of an expression, as one change: a reader or a crash sees the old table or the new one.

        Parameters
        ----------
        month_column
            The timestamp column by whose months the rows will be replaced later, for an engine that stores each month apart.
        """

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

    def map_batches(
        self,
        rows: LazyTable,
        score: "Callable[[pa.RecordBatch], pa.RecordBatch]",
        schema: "pa.Schema",
        *,
        key: str,
        file: Path,
        threads: int,
    ) -> LazyTable:
        """Return what a function makes of rows, a batch at a time; no more than a few batches are in memory.

        Parameters
        ----------
        score
            Returns a batch of `schema`. Where the engine computes elsewhere it is pickled, with all that it holds.
        key
            The column by which the rows are ordered, where they pass through this process.
        file
            The Parquet file that holds the result, where this process computes it.
        threads
            Number of batches that this process computes at a time.
        """
        import pyarrow.parquet as pq

        file.parent.mkdir(parents=True, exist_ok=True)
        batches = rows.order_by(key).to_pyarrow_batches(chunk_size=BATCH_ROWS)
        with pq.ParquetWriter(file, schema) as writer:
            for batch in map_in_order(score, batches, threads):
                writer.write_batch(batch)
        return self.ingest_parquet(file)

    def close(self) -> None:
        """Close the connection."""
        self.connection.disconnect()
