"""The URL of a warehouse, read without loading an engine."""

from pathlib import Path
from urllib.parse import unquote

DUCKDB = "duckdb://"
SCHEMES = ("duckdb", "postgres", "postgresql", "pyspark")
"""Schemes of a warehouse's URL."""


def takes_parallel_steps(url: str) -> bool:
    """Return whether the steps of a run can be processes of their own, several at a time.

    PostgreSQL and a server of Spark Connect take a connection of each. A DuckDB file has one writer, and without Connect each process would
    start a Spark of its own.
    """
    return url.startswith(("postgres://", "postgresql://", "pyspark://sc://"))


def file_of(url: str) -> Path | None:
    """Return the file of a DuckDB warehouse; None for one that serves several processes, or lives in memory."""
    path = unquote(url.removeprefix(DUCKDB).partition("?")[0])
    return Path(path) if url.startswith(DUCKDB) and path and path != ":memory:" else None
