"""Tests of the marts: the same rows give the same bytes, no identifier is shown, and the dictionary has every column."""

import csv
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import ibis
import pyarrow.parquet as pq
import pytest
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.registry import DOMAINS, domains_of
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources import BUILT_IN
from finrisk_assets.marts import mart_files
from finrisk_assets.marts.mart_files import MartError, WrittenMart, find_faults, find_memory_gb, has_tableau, write_marts
from finrisk_assets.marts.mart_tables import describe_columns, list_marts
from finrisk_assets.settings import Settings
from schemas.ledger import Table
from schemas.marts import ALERTS, DECISIONS

N_ROWS = 40
VALUES: dict[str, Any] = {"int64": 12, "float64": 0.25, "boolean": True}


def rows_of(table: Table, *, reverse: bool = False) -> LazyTable:
    """Return rows that meet a contract's types; an identifier says of what it is, as in ``customer_id-7``."""

    def value(name: str, number: int) -> Any:
        column = table[name]
        if column.dtype == "timestamp":
            return datetime(2024, 5, 6) + timedelta(minutes=number)
        if column.personal == "identifier" or name == table.key:
            return f"{name}-{number}"
        return VALUES.get(column.dtype, (column.allowed or ("text",))[0])

    numbers = sorted(range(N_ROWS), reverse=reverse)
    columns = {name: [value(name, number) for number in numbers] for name in table.names}
    return ibis.memtable(columns, schema={column.name: column.dtype for column in table.columns})


class StoredLedger:
    """The tables of a source, as the warehouse has them."""

    def __init__(self, source_name: str = "simulator", *, reverse: bool = False) -> None:
        self.source = sources.load(Settings(source=source_name))
        self.domains = domains_of(self.source)
        self._reverse = reverse

    def table(self, name: str) -> LazyTable:
        layer, _, of = name.partition("_")
        contract = self.source.tables[of].table if layer == "validated" else next(one for one in DOMAINS if one.name == of).score_contract()
        return rows_of(contract, reverse=self._reverse)

    def write(self, folder: Path, **settings: Any) -> list[WrittenMart]:
        settings = {"home": folder.parent, "source": self.source.name} | settings
        return write_marts(folder, self.source, self.domains, self.table, Settings(**settings))


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_the_marts_of_a_source_are_written_and_read_back(tmp_path: Path) -> None:
    written = StoredLedger().write(tmp_path / "marts")
    assert {one.mart.name: one.rows for one in written} == {
        "scores": N_ROWS * len(domains_of(sources.load(Settings()))),
        "loans": N_ROWS,
        "transactions": N_ROWS,
        "dictionary": sum(len(one.mart.table.columns) for one in written),
    }
    assert find_faults(tmp_path / "marts", {"loans": N_ROWS, "transactions": N_ROWS}) == []
    for one in written:
        assert pq.read_schema(tmp_path / "marts" / f"{one.mart.name}.parquet").names == list(one.mart.table.names)
        assert len(read_csv(tmp_path / "marts" / f"{one.mart.name}.csv")) == one.rows


def test_the_same_rows_in_another_order_give_the_same_bytes(tmp_path: Path) -> None:
    first = StoredLedger().write(tmp_path / "marts")
    again = StoredLedger(reverse=True).write(tmp_path / "again")
    files = [file.name for one in first for file in one.files if file.suffix in (".parquet", ".csv")]
    assert len(files) == 8 and len(again) == len(first)
    for name in files:
        assert (tmp_path / "marts" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_identifiers_are_pseudonyms_that_join_the_marts(tmp_path: Path) -> None:
    folder = tmp_path / "marts"
    StoredLedger().write(folder)
    for file in folder.glob("*.csv"):
        if file.stem != "dictionary":
            assert "_id-" not in file.read_text(encoding="utf-8"), file.name
    loans, scores = read_csv(folder / "loans.csv"), read_csv(folder / "scores.csv")
    scored = {row["subject_id"]: row for row in scores if row["domain"] == "loan_default"}
    assert {row["loan_id"] for row in loans} == scored.keys()
    assert all(scored[row["loan_id"]]["customer_id"] == row["customer_id"] for row in loans)
    # The order of rows says nothing of the identifiers' order, and equal texts of two kinds are two pseudonyms.
    times = [row["applied_at"] for row in loans]
    assert times != sorted(times) and times != sorted(times, reverse=True)


def test_another_home_has_other_pseudonyms(tmp_path: Path) -> None:
    for home in ("one", "other"):
        StoredLedger().write(tmp_path / home / "marts")
    one, other = (pq.read_table(tmp_path / home / "marts" / "loans.parquet")["loan_id"].to_pylist() for home in ("one", "other"))
    assert not {*one} & {*other}


def test_the_key_of_pseudonyms_is_private_and_not_among_the_marts(tmp_path: Path) -> None:
    StoredLedger().write(tmp_path / "marts")
    (file,) = tmp_path.rglob("pseudonyms.key")
    assert file.parent == tmp_path / "simulator" and file.stat().st_mode & 0o777 == 0o600


def test_identifiers_are_shown_where_the_setting_says_so(tmp_path: Path) -> None:
    StoredLedger().write(tmp_path / "marts", export_identifiers=True)
    assert {row["loan_id"] for row in read_csv(tmp_path / "marts" / "loans.csv")} == {f"loan_id-{number}" for number in range(N_ROWS)}
    assert not [*tmp_path.rglob("pseudonyms.key")]


@pytest.mark.parametrize("source_name", BUILT_IN)
def test_every_column_of_every_mart_has_meaning_type_and_source(source_name: str) -> None:
    ledger = StoredLedger(source_name)
    marts = list_marts(ledger.source, ledger.domains, has_store=True)
    described = {row["column_id"]: row for row in describe_columns(marts)}
    columns = [f"{mart.name}.{name}" for mart in marts for name in mart.table.names]
    assert list(described) == columns
    for name, row in described.items():
        assert len(row["meaning"]) > 5 and row["meaning"].endswith("."), name
        assert row["type"] and row["source"], name
        # A number is a count, an amount or a share of something: it has a unit, but for a model's margin.
        if row["type"] in ("int64", "float64") and name != "scores.score":
            assert row["unit"], name


def test_a_column_without_a_line_in_the_dictionary_is_a_fault(tmp_path: Path) -> None:
    folder = tmp_path / "marts"
    StoredLedger().write(folder)
    table = pq.read_table(folder / "loans.parquet")
    pq.write_table(table.append_column("more", table["loan_id"]).slice(1), folder / "loans.parquet")
    assert find_faults(folder, {"loans": N_ROWS, "transactions": N_ROWS}) == [
        "loans.parquet has other columns than the dictionary: more",
        f"loans.parquet has {N_ROWS - 1} rows, its table {N_ROWS}",
    ]


def test_a_store_that_cannot_be_read_is_one_sentence_and_changes_no_file(tmp_path: Path) -> None:
    (tmp_path / "simulator" / "service").mkdir(parents=True)
    (tmp_path / "simulator" / "service" / "store.sqlite").touch()
    with pytest.raises(MartError, match=r"^no mart was written: the store has no schema, this code needs \d+: run"):
        StoredLedger().write(tmp_path / "marts")
    assert [*(tmp_path / "marts").iterdir()] == []


def test_the_extracts_of_tableau_read_back(tmp_path: Path) -> None:
    if not has_tableau():
        message = "pantab is not installed: `make tableau` installs it"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    import pantab

    folder = tmp_path / "marts"
    written = StoredLedger().write(folder)
    assert find_faults(folder, {"loans": N_ROWS, "transactions": N_ROWS}) == []
    for one in written:
        table = pantab.frame_from_hyper(folder / f"{one.mart.name}.hyper", table=one.mart.name, return_type="pyarrow")
        stored = pq.read_table(folder / f"{one.mart.name}.parquet")
        assert by_key(table.to_pylist(), one.mart.table) == by_key(stored.to_pylist(), one.mart.table)


def by_key(rows: Sequence[dict[str, Any]], table: Table) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (str(row.get("domain")), row[table.key]))


def test_an_extract_that_is_not_written_again_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finrisk_assets.marts.mart_files.find_spec", lambda _: None)
    (tmp_path / "marts").mkdir()
    (tmp_path / "marts" / "loans.hyper").touch()
    StoredLedger().write(tmp_path / "marts")
    assert not (tmp_path / "marts" / "loans.hyper").exists()


def test_the_contracts_of_the_store_name_their_identifiers() -> None:
    for table in (DECISIONS, ALERTS):
        assert {column.name for column in table.columns if column.personal == "identifier"} <= {"customer_id", "caller", "assignee"}


def test_rows_in_many_parts_give_the_same_bytes_and_leave_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = StoredLedger()
    whole = {file.name: file.read_bytes() for one in ledger.write(tmp_path / "marts") for file in one.files if file.suffix != ".hyper"}
    monkeypatch.setattr(mart_files, "CHUNK_ROWS", 7)
    written = ledger.write(tmp_path / "marts")
    assert {file.name: file.read_bytes() for one in written for file in one.files if file.suffix != ".hyper"} == whole
    assert {path.name for path in (tmp_path / "marts").iterdir()} == {file.name for one in written for file in one.files}


def test_a_table_without_rows_is_a_mart_without_rows(tmp_path: Path) -> None:
    ledger = StoredLedger()
    written = write_marts(
        tmp_path / "marts",
        ledger.source,
        ledger.domains,
        lambda name: ledger.table(name).limit(0),
        Settings(home=tmp_path, source="simulator"),
    )
    assert [one.rows for one in written[:-1]] == [0] * (len(written) - 1)
    assert not find_faults(tmp_path / "marts", {one.mart.name: one.rows for one in written[:-1]})


@pytest.mark.parametrize(("warehouse", "exports"), [(8.0, 2.0), (2.0, 0.5), (0.5, 0.25), (0.2, 0.2)])
def test_the_exports_have_a_quarter_of_the_memory_and_what_a_sort_needs(warehouse: float, exports: float) -> None:
    assert find_memory_gb(warehouse) == exports
