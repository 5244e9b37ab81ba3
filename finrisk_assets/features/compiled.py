"""Feature tables as SQL, for computing one several times: compiling fifty features takes longer than running them on some people."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import ibis
import ibis.expr.types as ir

FeatureBuilder = Callable[[Mapping[str, ir.Table]], ir.Table]
"""A pure function from tables by name to a feature table."""


def compile_features(build: FeatureBuilder, schemas: Mapping[str, ibis.Schema]) -> str:
    """Return DuckDB's SQL of a feature table over tables of these names and columns.

    Equal tables are compiled once in a process, whoever asks: the check of leakage and the evaluation compute the same ones.
    """
    return _compile(build({name: ibis.table(schema, name=name) for name, schema in schemas.items()}).op())


@contextmanager
def steps_apart() -> Iterator[None]:
    """Compile the steps of an expression as they stand, each a query of its own: the SQL is longer, but compiles sooner."""
    former, ibis.options.sql.fuse_selects = ibis.options.sql.fuse_selects, False
    try:
        yield
    finally:
        ibis.options.sql.fuse_selects = former


@lru_cache(maxsize=8)
def _compile(table: Any) -> str:
    with steps_apart():
        return str(ibis.duckdb.compile(table.to_expr()))
