"""Tests of parts of a table by customers."""

import ibis
import pyarrow as pa
import pytest

from finrisk_assets.ledger.customer_parts import split_by_customers

SIZES = {"a": 3, "B": 9, "c": 1, "ü": 2, "d": 4}


@pytest.mark.parametrize("part_rows", [1, 4, 5, 18, 19])
def test_parts_hold_whole_customers_and_every_row_once(part_rows: int) -> None:
    names = [name for name, size in SIZES.items() for _ in range(size)]
    rows = ibis.duckdb.connect().create_table("rows", pa.table({"customer_id": names, "n": range(len(names))}))
    parts = [part.to_pyarrow() for part in split_by_customers(rows, part_rows)]
    assert sorted(number for part in parts for number in part["n"].to_pylist()) == list(range(len(names)))
    people = [set(part["customer_id"].to_pylist()) for part in parts]
    assert sum(map(len, people)) == len(SIZES)
    assert all(len(part) <= part_rows or len(held) == 1 for part, held in zip(parts, people, strict=True))
    assert (len(parts) == 1) == (part_rows >= len(names))


def test_a_table_without_rows_is_one_part() -> None:
    rows = ibis.duckdb.connect().create_table("rows", pa.table({"customer_id": pa.array([], pa.string())}))
    assert [part.count().to_pyarrow().as_py() for part in split_by_customers(rows)] == [0]
