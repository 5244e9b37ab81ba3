"""Comparison of the tables that two engines made of one ledger."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from finrisk_assets.graph.warehouse import Warehouse

DIGITS = 1e-9
"""Largest difference of a computed number, relative above 1."""


def read(warehouse: Warehouse, asset: str, key: str) -> pa.Table:
    """Return a stored table in the order of its key."""
    return warehouse.table(asset).order_by(key).to_pyarrow()


def find_differences(ours: pa.Table, theirs: pa.Table, exact: Iterable[str] = ()) -> dict[str, int]:
    """Return the number of rows that differ, by column: numbers beyond `DIGITS`, all else and the columns of `exact` at all."""
    assert set(ours.column_names) == set(theirs.column_names) and len(ours) == len(theirs)
    differing = {}
    for name in ours.column_names:
        here, there = ours[name], theirs[name].cast(ours[name].type)
        if pa.types.is_floating(here.type) and name not in exact:
            values = (np.array(column.to_pylist(), float) for column in (here, there))
            n_different = int((~np.isclose(*values, rtol=DIGITS, atol=DIGITS, equal_nan=True)).sum())
        else:
            n_different = sum(a != b and not (a != a and b != b) for a, b in zip(here.to_pylist(), there.to_pylist(), strict=True))
        if n_different:
            differing[name] = n_different
    return differing
