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
