"""Tests of reading a ledger as of an earlier time: past events are there, later knowledge is not."""

from datetime import datetime
from typing import Any

import ibis
import pytest

from finrisk_assets.ledger import as_of
from schemas.ledger import LOANS

END = datetime(2024, 8, 1)
ROWS = {
    "loan_id": ["told", "not told yet", "to come", "a mistake"],
    "applied_at": [datetime(2023, 1, 5), datetime(2024, 1, 5), datetime(2024, 6, 20), datetime(2099, 1, 1)],
    "loan_amount": [1000.0, 2000.0, 3000.0, 4000.0],
    "is_default": [True, True, False, False],
    "outcome_known_at": [datetime(2024, 1, 5), datetime(2025, 1, 5), datetime(2025, 6, 20), datetime(2100, 1, 1)],
}


def at(read_at: datetime) -> dict[str, dict[str, Any]]:
    rows = as_of.rows_as_of(LOANS, ibis.memtable(ROWS), read_at, END)
    return {row["loan_id"]: row for row in ibis.duckdb.connect().to_pyarrow(rows).to_pylist()}


def test_only_what_had_happened_is_there_and_a_row_dated_after_all_time() -> None:
    assert at(datetime(2024, 6, 1)).keys() == {"told", "not told yet", "a mistake"}


@pytest.mark.parametrize(("loan", "default"), [("told", True), ("not told yet", None)])
def test_an_outcome_that_was_not_known_is_null_and_so_is_when_it_will_be(loan: str, default: bool | None) -> None:
    row = at(datetime(2024, 6, 1))[loan]
    assert row["is_default"] is default
    assert (row["outcome_known_at"] is None) == (default is None)
    assert row["loan_amount"] > 0


def test_after_its_end_all_of_it_is_there() -> None:
    assert list(at(END).values()) == [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]
