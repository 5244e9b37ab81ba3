"""The URL of a warehouse, read without loading an engine."""

from pathlib import Path
from urllib.parse import unquote

DUCKDB = "duckdb://"
SCHEMES = ("duckdb", "postgres", "postgresql", "pyspark")
"""Schemes of a warehouse's URL."""


def file_of(url: str) -> Path | None:
    """Return the file of a DuckDB warehouse; None for one that serves several processes, or lives in memory."""
    path = unquote(url.removeprefix(DUCKDB).partition("?")[0])
    return Path(path) if url.startswith(DUCKDB) and path and path != ":memory:" else None
