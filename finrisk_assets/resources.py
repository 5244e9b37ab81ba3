"""The three things that assets reach outside themselves: the warehouse, MLflow and the clock.

`Warehouse` is an Ibis connection named by one URL; `Tables`, Dagster's IO manager, hands lazy tables from asset to asset
through it, so that rows do not pass through Python. What a stored table looks like in the Dagster UI is decided here too.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import ibis
from ibis.expr.types import Table as LazyTable

from schemas.ledger import Table

STAGING_LAYERS = ("raw_", "quarantine_")
PREVIEW_ROWS = 5
HIDDEN = "•••"
"""Shown in place of personal data in a preview."""


@cache
def _connect(url: str) -> ibis.BaseBackend:
    """One connection per process and URL: DuckDB lets a single process write, and its connection is not to be opened twice."""
    if url.startswith("duckdb://"):
        Path(url.removeprefix("duckdb://")).parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = ibis.connect(url)
    except Exception as error:
        if "lock" in str(error).lower():
            raise RuntimeError(
                "the DuckDB warehouse is in use by another process: wait for the other run to end, "
                "or name a shared warehouse with FINRISK_WAREHOUSE_URL=postgres://…"
            ) from error
        raise
    for schema in {"staging", "analytics"} - set(connection.list_databases()):
        connection.create_database(schema)
    return connection


def schema_of(asset: str) -> str:
    """Schema of an asset's table: what has not met its contract is staging, the rest is analytics."""
    return "staging" if asset.startswith(STAGING_LAYERS) else "analytics"


class Warehouse(dg.ConfigurableResource):
    """The tables, by asset name.

    Attributes
    ----------
    url
        An Ibis connection URL: ``duckdb://``, ``postgres://`` or ``pyspark://``.
    """

    url: str

    @property
    def connection(self) -> ibis.BaseBackend:
        return _connect(self.url)

    def table(self, asset: str) -> LazyTable:
        """The stored table of an asset, lazy."""
        return self.connection.table(asset, database=schema_of(asset))

    def has(self, asset: str) -> bool:
        return asset in self.connection.list_tables(database=schema_of(asset))

    def store(self, asset: str, rows: LazyTable) -> LazyTable:
        """Replace the table of an asset by the rows of an expression, computed in the engine."""
        self.connection.create_table(asset, rows, database=schema_of(asset), overwrite=True)
        return self.table(asset)

    def store_parquet(self, asset: str, path: Path) -> LazyTable:
        """Replace the table of an asset by a Parquet file."""
        return self.store(asset, self.connection.read_parquet(str(path)))


class Tables(dg.ConfigurableIOManager):
    """Hands lazy tables from asset to asset through the warehouse."""

    warehouse: dg.ResourceDependency[Warehouse]

    def handle_output(self, context: dg.OutputContext, obj: LazyTable) -> None:
        """Store an asset's lazy table and show what was stored."""
        stored = self.warehouse.store(context.asset_key.to_user_string(), obj)
        schema = context.definition_metadata.get("dagster/column_schema")
        context.add_output_metadata(describe(stored, schema if isinstance(schema, dg.TableSchema) else None))

    def load_input(self, context: dg.InputContext) -> LazyTable:
        """Hand on a stored table, lazy."""
        return self.warehouse.table(context.asset_key.to_user_string())


def count(rows: LazyTable) -> int:
    """Number of rows, counted in the engine."""
    return int(rows.count().to_pyarrow().as_py())


def describe(stored: LazyTable, schema: dg.TableSchema | None) -> dict[str, Any]:
    """Row count, column schema and preview of a stored table, as Dagster metadata.

    Personal columns are hidden in the preview. Where no schema says which those are, all values are hidden and the preview
    is a list of the columns with how many values each lacks.
    """
    rows = count(stored)
    if schema is None:
        missing = stored.aggregate([stored[name].isnull().sum().name(name) for name in stored.columns]).to_pyarrow().to_pydict()
        types = {name: str(kind) for name, kind in stored.schema().items()}
        preview = [{"column": name, "type": kind, "missing": missing[name][0] or 0} for name, kind in types.items()]
        columns = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in types.items()])
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
    """Rows as a Markdown table, numbers to four significant digits."""
    if not rows:
        return "no rows"

    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")

    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(text(value) for value in row.values()) + " |" for row in rows])


def column_schema(table: Table) -> dg.TableSchema:
    """A table contract as Dagster's column schema: type, unit, personal-data class and when it becomes known."""

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


class Clock(dg.ConfigurableResource):
    """The moment at which the ledger is read, as ISO 8601 text, naive UTC."""

    moment: str

    def now(self) -> datetime:
        return datetime.fromisoformat(self.moment)


class Tracking(dg.ConfigurableResource):
    """MLflow: runs, metrics, artifacts and the registry of models.

    Attributes
    ----------
    uri
        Tracking and registry store, SQLite by default.
    artifacts
        Folder of the artifacts of new experiments.
    experiment
        Experiment of all runs: the source of the ledger.
    """

    uri: str
    artifacts: str
    experiment: str

    def _mlflow(self) -> Any:
        # Imported here: it takes seconds, and only what trains or promotes needs it.
        import logging

        import mlflow

        if self.uri.startswith("sqlite:///"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        mlflow.set_tracking_uri(self.uri)
        if mlflow.get_experiment_by_name(self.experiment) is None:
            mlflow.create_experiment(self.experiment, artifact_location=Path(self.artifacts).as_uri())
        mlflow.set_experiment(self.experiment)
        return mlflow

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str]) -> Iterator[Any]:
        """An MLflow run, open for the time of the block; yields the mlflow module."""
        mlflow = self._mlflow()
        with mlflow.start_run(run_name=name, tags=dict(tags)):
            yield mlflow

    def client(self) -> Any:
        """MLflow's client, for what belongs to no open run."""
        return self._mlflow().MlflowClient()
