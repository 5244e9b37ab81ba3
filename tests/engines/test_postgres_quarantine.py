"""Tests that PostgreSQL parts rows by the contract as DuckDB does: the same rows are valid, and the same rules break."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.engine import Engine
from finrisk_assets.ledger import contract, sources
from finrisk_assets.ledger.landing import land_csv
from finrisk_assets.settings import Settings
from schemas.ledger import TRANSACTIONS
from tests.contracts.conftest import AS_OF, COLUMNS, CUSTOMERS, HEADER, ROWS
from tests.contracts.test_quarantine import CORRUPTIONS
from tests.mapped.own_files import make_files

MORE = {
    "no such day in the year": "t3,boris,2024-02-31 08:15,0.99,debit,,0",
    "digits of another script": "t3,boris,2024-05-03 08:15,١٢,debit,,0",
    "wide digits": "t3,boris,２０２４-05-03,0.99,debit,,0",
    "an offset that is none": "t3,boris,2024-05-03T08:15:00+99:99,0.99,debit,,0",
    "hour 24": "t3,boris,2024-05-03T24:00:00,0.99,debit,,0",
    "second 60": "t3,boris,2024-05-03T08:15:60,0.99,debit,,0",
    "the year 0": "t3,boris,0000-05-03,0.99,debit,,0",
    "the end of the calendar": "t3,boris,9999-12-31T23:59:59-14:00,0.99,debit,,0",
    "before the first year": "t3,boris,0001-01-01T00:00:00+14:00,0.99,debit,,0",
    "nanoseconds": "t3,boris,2024-05-03T23:59:59.999999999,0.99,debit,,0",
    "an infinity of PostgreSQL's": "t3,boris,infinity,0.99,debit,,0",
    "a number of PostgreSQL's": "t3,boris,2024-05-03,0x1F,debit,,0",
    "an amount with text": "t3,boris,2024-05-03,12 EUR,debit,,0",
    "an amount too small": "t3,boris,2024-05-03,1e-999,debit,,0",
    "an identifier in another form": "t3,\u00a0cˇeneˇk\u2003,2024-05-03,1,debit,,0",
    "a decomposed identifier": "t3,c\u030cene\u030ck,2024-05-03,1,debit,,0",
    "an identifier with the character 0 at its end": "t3,boris\0,2024-05-03,1,debit,,0",
}


@pytest.fixture(scope="module")
def engines(new_database: Callable[[], str]) -> Iterator[tuple[Engine, Engine]]:
    both = open_engine(new_database()), open_engine("duckdb://")
    yield both
    for engine in both:
        engine.close()


def rows_of(table: pa.Table, order: str) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: row[order])


def test_a_corrupted_row_breaks_the_same_rules(engines: tuple[Engine, Engine], tmp_path: Path) -> None:
    file, landed, customers = tmp_path / "transactions.csv", tmp_path / "raw.parquet", tmp_path / "customers.parquet"
    corrupted = [row if isinstance(row, bytes) else row.encode() for row in (*(row for row, _ in CORRUPTIONS.values()), *MORE.values())]
    file.write_bytes(b"\n".join([HEADER.encode(), *(row.encode() for row in ROWS), *corrupted]) + b"\n")
    land_csv(file, landed, required=HEADER.split(","))
    pq.write_table(pa.table({"customer_id": CUSTOMERS}), customers)
    parts = []
    for engine in engines:
        known = {"customers": engine.ingest_parquet(customers)}
        split = contract.split(TRANSACTIONS, COLUMNS, engine.ingest_parquet(landed), known, AS_OF)
        engine.replace_table("staging", "quarantine_transactions", split.quarantine)
        engine.replace_table("analytics", "validated_transactions", split.valid)
        quarantine = engine.table("staging", "quarantine_transactions")
        rest = contract.valid_rows(TRANSACTIONS, COLUMNS, engine.ingest_parquet(landed), quarantine)
        valid = rows_of(engine.table("analytics", "validated_transactions").to_pyarrow(), "transaction_id")
        assert rows_of(rest.to_pyarrow(), "transaction_id") == valid
        broken = [{**row, "customer_id": (row["customer_id"] or "").strip("\0")} for row in rows_of(quarantine.to_pyarrow(), "_row")]
        parts.append((broken, valid, contract.count_by_rule(quarantine)))
    (broken, valid, counts), theirs = parts
    assert [pair for pair in zip(broken, theirs[0], strict=True) if pair[0] != pair[1]] == []
    assert [pair for pair in zip(valid, theirs[1], strict=True) if pair[0] != pair[1]] == []
    assert counts == theirs[2]
    assert len(broken) > len(CORRUPTIONS)


@pytest.mark.parametrize("name", ["give_me_some_credit", "vub", "statement", "overlapping_files"])
def test_own_files_are_read_alike(engines: tuple[Engine, Engine], name: str, tmp_path: Path) -> None:
    """Codes for missing values, decimal commas, formats of times, two columns of amounts: each kind of file that people have."""
    mapping = make_files(name).write(tmp_path)
    source = sources.load(Settings(home=tmp_path / "home", source="mapped", mapping=mapping))
    for number, (table, raw_table) in enumerate(source.tables.items()):
        landed = tmp_path / f"{number}.parquet"
        raw_table.land(landed)
        parts = []
        for engine in engines:
            raw = engine.ingest_parquet(landed)
            earlier = list(source.tables)[:number]
            references = {target: engine.table("analytics", f"validated_{target}") for target in earlier}
            split = contract.split(raw_table.table, raw_table.columns, raw, references, datetime(2026, 1, 1))
            engine.replace_table("analytics", f"validated_{table}", split.valid)
            assert contract.check_stored(raw_table.table, engine.table("analytics", f"validated_{table}")) == []
            timed = contract.read_event_time(raw_table.table, raw_table.columns, raw)
            months = None if timed is None else timed[contract.EVENT_TIME].strftime("%Y-%m").name("month").as_table()
            by_month = None if months is None else months.group_by("month").agg(n=months.count()).order_by("month")
            valid = rows_of(engine.table("analytics", f"validated_{table}").to_pyarrow(), raw_table.table.key)
            parts.append((rows_of(split.quarantine.to_pyarrow(), "_row"), valid, None if by_month is None else by_month.to_pyarrow()))
        assert parts[0] == parts[1]


NUMBERS = ["1e308", "-1e308", "1,7976931348623157e308", "1e-320", "4,9E-324", "1e-400", "1e400", "nan", "inf", "-inf", "-0", "0,1", "1e22",
           "46100793565604,76", "9007199254740993"]  # fmt: skip


@pytest.mark.parametrize("scale", [100, 0.01])
def test_numbers_that_a_scale_takes_beyond_the_range_are_quarantined_alike(
    engines: tuple[Engine, Engine], scale: float, tmp_path: Path
) -> None:
    lines = [f"{number},C1,2023-05-05,{value.replace(',', '.')},debit" for number, value in enumerate(NUMBERS)]
    (tmp_path / "own.csv").write_text("id,customer,day,amount,way\n" + "\n".join(lines) + "\n")
    columns = "{transaction_id: id, customer_id: customer, occurred_at: day, direction: way, "
    columns += f"amount: {{from: amount, scale: {scale}}}}}"
    (tmp_path / "own.yaml").write_text(f"name: own\ncurrency: EUR\ntables:\n  transactions: {{file: own.csv, columns: {columns}}}\n")
    parts = split_own(engines, tmp_path)
    assert repr(parts[0]) == repr(parts[1])
    assert "amount is not finite" in {row["broken_rules"] for row in parts[0][0]} and parts[0][1]


def test_types_that_postgresql_has_not_and_times_that_it_cannot_copy_are_read_alike(engines: tuple[Engine, Engine], tmp_path: Path) -> None:
    times = [253_402_300_800_000_000, -62_135_596_801_000_000, 2**62, 0]
    table = {
        "id": pa.array([1, 2, 3, 2**64 - 1], pa.uint64()),
        "customer": pa.array([1, 2, 3, 4], pa.uint8()),
        "day": pa.array(times, pa.timestamp("us")),
        "amount": [1, -(2**63), 3, 2**63 - 1],
        "way": ["debit"] * 4,
    }
    pq.write_table(pa.table(table), tmp_path / "own.parquet")
    columns = "{transaction_id: id, customer_id: customer, occurred_at: day, direction: way, amount: {from: amount, absolute: true}}"
    (tmp_path / "own.yaml").write_text(f"name: own\ncurrency: EUR\ntables:\n  transactions: {{file: own.parquet, columns: {columns}}}\n")
    parts = split_own(engines, tmp_path)
    assert parts[0][1] == parts[1][1] and len(parts[0][1]) == 1
    reasons = [[(row["id"], row["broken_rules"]) for row in quarantine] for quarantine, _ in parts]
    assert reasons[0] == reasons[1]


def split_own(engines: tuple[Engine, Engine], folder: Path) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Return the quarantined and the valid rows of a folder's own transactions, of each engine."""
    source = sources.load(Settings(home=folder / "home", source="mapped", mapping=folder / "own.yaml"))
    raw_table = source.tables["transactions"]
    raw_table.land(folder / "raw.parquet")
    parts = []
    for engine in engines:
        raw = engine.ingest_parquet(folder / "raw.parquet")
        split = contract.split(raw_table.table, raw_table.columns, raw, {}, datetime(2026, 1, 1))
        engine.replace_table("staging", "quarantine_own", split.quarantine)
        quarantine = engine.table("staging", "quarantine_own")
        valid = contract.valid_rows(raw_table.table, raw_table.columns, raw, quarantine)
        parts.append((rows_of(quarantine.to_pyarrow(), "_row"), rows_of(valid.to_pyarrow(), "transaction_id")))
    return parts
