"""A small valid ledger file, and functions that land a corrupted copy and split it into valid and quarantined rows."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import pytest

from finrisk_assets.ledger.contract import ContractSplit, split
from finrisk_assets.ledger.landing import land_csv
from schemas.ledger import TRANSACTIONS, Table

AS_OF = datetime(2024, 6, 1)
HEADER = "transaction_id,customer_id,occurred_at,amount,direction,balance_amount,is_fraud"
COLUMNS: dict[str, Callable[[ibis.Table], ibis.Value]] = {name: (lambda raw, name=name: raw[name]) for name in HEADER.split(",")}
ROWS = (
    "t1,alma,2024-05-01 10:00:00,12.50,debit,100.00,false",
    "t2,alma,2024-05-02T11:30:00,2000,credit,2100.00,no",
    "t3,boris,2024-05-03 08:15,0.99,debit,,0",
    "t4,boris,2024-05-04,40,debit,-5.25,true",
    "t5,čeněk,2024-05-05T23:59:59.123456Z,7.10,debit,1e3,",
)


CUSTOMERS = ["alma", "boris", "čeněk"]


class Ledger:
    """A landing of a CSV file, with its own DuckDB to split the rows in."""

    def __init__(self, folder: Path, connection: Any) -> None:
        self.folder, self.connection = folder, connection

    def file(self, *rows: str | bytes, header: str = HEADER) -> Path:
        path = self.folder / "transactions.csv"
        path.write_bytes(b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in (header, *rows)))
        return path

    def split(self, *rows: str | bytes, table: Table = TRANSACTIONS) -> ContractSplit:
        landed = self.folder / "raw.parquet"
        names = HEADER.split(",")
        land_csv(self.file(*rows), landed, required=names)
        raw = self.connection.read_parquet(landed)
        known = {"customers": ibis.memtable({"customer_id": CUSTOMERS})}
        return split(table, COLUMNS, raw, known, AS_OF)

    def rows(self, table: ibis.Table) -> list[dict[str, Any]]:
        return sorted(self.connection.to_pyarrow(table).to_pylist(), key=lambda row: row.get("_row", row.get("transaction_id")))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    connection = ibis.duckdb.connect()
    yield Ledger(tmp_path, connection)
    connection.disconnect()
