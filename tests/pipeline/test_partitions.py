"""Tests of a run of some months: exactly these months are replaced, a second run changes nothing, and no row is lost."""

from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import ibis
import pytest
from duckdb import ConstraintException
from psycopg.errors import NotNullViolation

from finrisk_assets.graph.partitions import MonthRange, add_months, group_consecutive, monthly_partitions
from finrisk_assets.graph.warehouse import Warehouse

MONTHS = monthly_partitions("2024-01", "2024-04")


def month_range(first: str, last: str) -> MonthRange:
    return MonthRange.from_partitions(MONTHS, dg.PartitionKeyRange(first, last))


def rows(**moments: str | None) -> ibis.Table:
    """Return one row per name, each at a time."""
    at = [None if text is None else datetime.fromisoformat(text) for text in moments.values()]
    return ibis.memtable({"name": list(moments), "at": at}, schema={"name": "string", "at": "timestamp(6)"})


def read_rows(warehouse: Warehouse) -> dict[str, Any]:
    return {row["name"]: row["at"] for row in warehouse.table("features_x").to_pyarrow().to_pylist()}


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """Return an empty warehouse of each engine that changes its tables in transactions."""
    if request.param == "duckdb":
        return Warehouse(url=f"duckdb://{tmp_path / 'warehouse.duckdb'}")
    return Warehouse(url=request.getfixturevalue("new_database")())


FIRST = {"a": "2024-01-31T23:59:59", "b": "2024-02-01", "c": "2024-02-29T12:00", "d": "2024-04-30"}


def test_months_of_a_ledger_that_ended_and_of_one_that_lives() -> None:
    assert MONTHS.get_partition_keys() == ["2024-01", "2024-02", "2024-03", "2024-04"]
    now = datetime(2024, 6, 3)
    assert monthly_partitions("2024-01", None).get_partition_keys(current_time=now)[-1] == "2024-06"
    assert add_months("2024-01", -1) == "2023-12"
    assert add_months("2023-12", 14) == "2025-02"
    assert group_consecutive(["2024-05", "2024-01", "2023-12"]) == [("2023-12", "2024-01"), ("2024-05", "2024-05")]


def test_a_warehouse_has_the_memory_of_its_setting_unless_its_url_says_another(tmp_path: Path) -> None:
    def limit(warehouse: Warehouse) -> str:
        return str(warehouse.connection.raw_sql("SELECT current_setting('memory_limit')").fetchone()[0])

    assert limit(Warehouse(url=f"duckdb://{tmp_path / 'one.duckdb'}", memory_gb=3.0)) == "2.7 GiB"
    assert limit(Warehouse(url=f"duckdb://{tmp_path / 'two.duckdb'}?memory_limit=1GB", memory_gb=3.0)) == "953.6 MiB"


def test_exactly_the_months_of_the_run_are_replaced(warehouse: Warehouse) -> None:
    warehouse.store_months("features_x", rows(**FIRST), "at", month_range("2024-01", "2024-04"))
    again = rows(a="2024-01-01", b2="2024-02-03", e="2024-03-01", f="2024-04-01")
    warehouse.store_months("features_x", again, "at", month_range("2024-02", "2024-03"))
    assert read_rows(warehouse).keys() == {"a", "b2", "e", "d"}
    assert read_rows(warehouse)["a"] == datetime(2024, 1, 31, 23, 59, 59)  # that of the first run: January was not asked for


def test_the_same_months_again_give_the_same_table(warehouse: Warehouse) -> None:
    warehouse.store_months("features_x", rows(**FIRST), "at", month_range("2024-01", "2024-04"))
    before = read_rows(warehouse)
    for _ in range(2):
        warehouse.store_months("features_x", rows(**FIRST), "at", month_range("2024-02", "2024-02"))
    assert read_rows(warehouse) == before
    assert warehouse.table("features_x").count().to_pyarrow().as_py() == len(FIRST)


def test_month_by_month_is_the_whole_at_once_and_no_row_is_without_a_month(warehouse: Warehouse) -> None:
    """Undated and earlier rows belong to the first month, later rows to the last."""
    given = FIRST | {"undated": None, "before": "1999-01-01", "after": "2031-01-01"}
    for month in reversed(MONTHS.get_partition_keys()):
        warehouse.store_months("features_x", rows(**given), "at", month_range(month, month))
    assert read_rows(warehouse).keys() == given.keys()
    warehouse.store_months("features_x", rows(**given), "at", month_range("2024-01", "2024-01"))
    assert read_rows(warehouse).keys() == given.keys()


def test_months_may_be_made_of_the_table_itself(warehouse: Warehouse) -> None:
    """The rows are computed before any are taken away."""
    warehouse.store_months("features_x", rows(**FIRST), "at", month_range("2024-01", "2024-04"))
    warehouse.store_months("features_x", warehouse.table("features_x"), "at", month_range("2024-02", "2024-02"))
    assert read_rows(warehouse).keys() == FIRST.keys()


def test_a_table_with_other_columns_asks_for_all_months(warehouse: Warehouse) -> None:
    warehouse.store_months("features_x", rows(**FIRST), "at", month_range("2024-01", "2024-04"))
    with pytest.raises(dg.Failure, match="differ in the columns more: materialise all of its months"):
        warehouse.store_months("features_x", rows(**FIRST).mutate(more=1), "at", month_range("2024-02", "2024-02"))
    warehouse.store_months("features_x", rows(**FIRST).mutate(more=1), "at", month_range("2024-01", "2024-04"))
    assert "more" in warehouse.table("features_x").columns


def test_a_fault_on_the_way_leaves_the_table_as_it_was(warehouse: Warehouse) -> None:
    warehouse.store_months("features_x", rows(**FIRST), "at", month_range("2024-01", "2024-04"))
    warehouse.connection.raw_sql('ALTER TABLE analytics.features_x ALTER COLUMN "at" SET NOT NULL')
    with pytest.raises((ConstraintException, NotNullViolation)):
        warehouse.store_months("features_x", rows(undated=None, e="2024-01-05"), "at", month_range("2024-01", "2024-01"))
    assert read_rows(warehouse).keys() == FIRST.keys(), "rows were deleted before the insert failed, and are there again"
