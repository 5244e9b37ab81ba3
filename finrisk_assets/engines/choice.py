"""The choice of the engine by the warehouse's URL, the one place that knows them all."""

from finrisk_assets.engines.engine import Engine, EngineError
from finrisk_assets.engines.warehouse_url import SCHEMES


def open_engine(url: str, memory_gb: float = 2.0) -> Engine:
    """Connect the engine of a warehouse's URL.

    Parameters
    ----------
    memory_gb
        Memory in GB above which DuckDB writes what it works on to a folder beside its file; the others have settings of their own.

    Raises
    ------
    EngineError
        If no engine has the URL's scheme.
    """
    scheme = url.partition("://")[0]
    match scheme:
        case "duckdb":
            from finrisk_assets.engines.duckdb_engine import DuckDBEngine

            return DuckDBEngine.open(url, memory_gb)
        case "postgres" | "postgresql":
            from finrisk_assets.engines.postgres_engine import PostgresEngine

            return PostgresEngine.open(url)
        case "pyspark":
            from finrisk_assets.engines.spark.spark_engine import SparkEngine

            return SparkEngine.open(url)
    raise EngineError(f"the warehouse's URL begins with {scheme!r}: set one of {', '.join(SCHEMES)} in FINRISK_WAREHOUSE_URL")
