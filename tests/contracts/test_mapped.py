"""Tests of mapped sources: what the YAML file can declare, and the error text of a wrong one."""

from datetime import datetime
from pathlib import Path

import ibis
import pytest

from finrisk_assets.ledger.contract import split
from finrisk_assets.ledger.sources import SOURCES, SourceError, load
from finrisk_assets.settings import Settings
from schemas.mapping import MappingError, read_mapping

BANK = """
name: bank
currency: EUR
tables:
  transactions:
    file: ${FINRISK_DATA_DIR}/umsatz.csv
    delimiter: ";"
    encoding: cp1252
    missing: ["k.A."]
    columns:
      transaction_id: Nummer
      customer_id: {value: me}
      occurred_at: {from: Zeit, format: "%d.%m.%y %H:%M"}
      amount: {from: Betrag, decimal: ",", thousands: ".", absolute: true}
      direction: {sign_of: Betrag, decimal: ",", thousands: "."}
      category: {from: Art, values: {1: rent, 2: food}, otherwise: other}
      country: {from: Land, values: {Deutschland: DE, Österreich: AT}}
    extra:
      - {name: fee_amount, from: Entgelt, type: float64, scale: 0.01, unit: currency, missing: [-1], feature: {monotone: 1}}
"""
ROWS = """Nummer;Zeit;Betrag;Art;Land;Entgelt
1;3.5.24 09:05;-1.234,50;1;Deutschland;150
2;04.05.24 18:30;2.000,00;7;Österreich;-1
3;05.05.24 12:00;-0,99;k.A.;k.A.;k.A.
4;2024-05-06;12,00;2;Deutschland;0
5;06.05.99 12:00;1,2,3;2;Deutschland;0
"""


@pytest.fixture
def bank(tmp_path: Path) -> Settings:
    (tmp_path / "bank.yaml").write_text(BANK, "utf-8")
    (tmp_path / "umsatz.csv").write_text(ROWS, "cp1252")
    return Settings(source="mapped", mapping=tmp_path / "bank.yaml", data_dir=tmp_path)


def test_a_banks_export_becomes_the_ledger(bank, tmp_path):
    source = load(bank)
    raw = source.tables["transactions"]
    assert raw.land(tmp_path / "raw.parquet").rows == 5
    connection = ibis.duckdb.connect()
    done = split(raw.table, raw.columns, connection.read_parquet(tmp_path / "raw.parquet"), {}, datetime(2024, 6, 1))
    valid = connection.to_pyarrow(done.valid.order_by("transaction_id")).to_pylist()
    names = ("transaction_id", "customer_id", "occurred_at", "amount", "direction", "category", "country", "fee_amount")
    assert [tuple(row[name] for name in names) for row in valid] == [
        ("1", "me", datetime(2024, 5, 3, 9, 5), 1234.5, "debit", "rent", "DE", 1.5),
        ("2", "me", datetime(2024, 5, 4, 18, 30), 2000.0, "credit", "other", "AT", None),
        ("3", "me", datetime(2024, 5, 5, 12), 0.99, "debit", None, None, None),
    ]
    other_form, no_number = connection.to_pyarrow(done.quarantine.order_by("_row")).to_pylist()
    assert (other_form["Zeit"], other_form["broken_rules"]) == ("2024-05-06", "occurred_at is not a timestamp")
    assert (no_number["Zeit"], no_number["Betrag"]) == ("06.05.99 12:00", "1,2,3")
    assert no_number["broken_rules"] == "amount is not a number; direction is not one of credit, debit"


def test_what_the_source_can_and_cannot_do(bank):
    source = load(bank)
    assert [feature.name for feature in source.features["transaction_anomaly"]] == ["fee_amount"]
    assert source.without == {"loan_default": "the mapping has no table loans"}


def test_a_feature_without_a_unit_is_no_share_where_its_values_are_none(tmp_path):
    extra = """
      - {name: points, from: points, type: int64, feature: {}}
      - {name: is_old, from: old, type: boolean, feature: {}}
      - {name: used, from: used, feature: {}}
      - {name: late_days, from: late, type: int64, unit: days, feature: {}}"""
    columns = "columns: {loan_id: id, customer_id: id, is_default: bad}"
    text = f"name: own\ncurrency: EUR\ntables:\n  loans:\n    file: l.csv\n    {columns}\n    extra:{extra}\n"
    (tmp_path / "own.yaml").write_text(text, "utf-8")
    features = load(Settings(source="mapped", mapping=tmp_path / "own.yaml")).features["loan_default"]
    assert [feature.unit for feature in features] == ["number", "0 or 1", "", "days"]


def test_dates_without_a_time_leave_transaction_anomaly_out(bank):
    bank.mapping.write_text(BANK.replace("%d.%m.%y %H:%M", "%d.%m.%y"), "utf-8")
    assert "only to the day" in load(bank).without["transaction_anomaly"]


def test_a_parquet_file_needs_no_text(bank, tmp_path):
    connection = ibis.duckdb.connect()
    first = "SELECT 7 AS id, 'A' AS grade, -999.0 AS income, TIMESTAMP '2024-01-02' AS day, true AS bad"
    rows = f"{first} UNION ALL SELECT 8, 'C', 2e3, NULL, false"
    connection.raw_sql(f"COPY ({rows}) TO '{tmp_path / 'loans.parquet'}'").fetchall()
    bank.mapping.write_text(
        "name: p\ncurrency: EUR\ntables:\n  loans:\n    file: loans.parquet\n    columns: {loan_id: id, customer_id: id, loan_amount: "
        "{value: 100}, applied_at: day, is_default: bad}\n    extra:\n      - {name: income, from: income, missing: [-999]}\n"
        "      - {name: grade, from: grade, type: int64, values: {A: 1, B: 2}}\n",
        "utf-8",
    )
    raw = load(bank).tables["loans"]
    raw.land(tmp_path / "raw.parquet")
    done = split(raw.table, raw.columns, connection.read_parquet(tmp_path / "raw.parquet"), {}, datetime(2024, 6, 1))
    (valid,) = connection.to_pyarrow(done.valid).to_pylist()
    assert (valid["loan_id"], valid["loan_amount"], valid["income"], valid["grade"], valid["is_default"]) == ("7", 100.0, None, 1, True)
    (wrong,) = connection.to_pyarrow(done.quarantine).to_pylist()
    assert (wrong["grade"], wrong["broken_rules"]) == ("C", "grade is not a whole number")


MISTAKES = {
    "a key misspelt": (("currency:", "curency:"), "curency: there is no such key; did you mean 'currency'?"),
    "no such table": (("transactions:", "transaction:"), "tables.transaction: the ledger has no such table; did you mean 'transactions'?"),
    "no such column": (("amount: {", "amout: {"), "columns.amout: transactions has no such column; did you mean 'amount'?"),
    "a required column": (("      transaction_id: Nummer\n", ""), "tables.transactions.columns.transaction_id: is required"),
    "two origins": (("{value: me}", "{value: me, from: Nummer}"), "tables.transactions.columns.customer_id: say where it comes from"),
    "a date format": (("%H:%M", "%I"), "tables.transactions.columns.occurred_at: a date format is made of"),
    "a currency": (("EUR", "euro"), "currency: "),
    "a key of a column": (("scale:", "scales:"), "transactions.extra.fee_amount.scales: there is no such key; did you mean 'scale'?"),
    "a protected feature": (("unit: currency", "personal: protected"), "extra.fee_amount: a protected column may never be a feature"),
    "a feature that looks ahead": (("unit: currency", "known: label_known_at"), "extra.fee_amount.known: label_known_at comes after"),
    "a feature of text": (("type: float64", "type: string"), "a feature is a number or a boolean"),
    "no YAML": (("columns:", "columns: ["), "is not YAML"),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_key_and_the_fix(tmp_path, change, message):
    path = tmp_path / "bank.yaml"
    path.write_text(BANK.replace(*change), "utf-8")
    with pytest.raises(MappingError) as raised:
        read_mapping(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)


def test_a_column_that_the_file_lacks_is_told_on_landing(bank, tmp_path):
    from finrisk_assets.ledger.landing import LandingError

    bank.mapping.write_text(BANK.replace("from: Betrag", "from: Summe"), "utf-8")
    with pytest.raises(LandingError, match="has no column 'Summe'; it has Nummer, Zeit"):
        load(bank).tables["transactions"].land(tmp_path / "raw.parquet")


def test_a_source_must_exist_and_a_mapping_must_be_named():
    with pytest.raises(SourceError, match=f"choose one of {', '.join(SOURCES)}"):
        load(Settings(source="bercka"))
    with pytest.raises(MappingError, match="FINRISK_MAPPING"):
        load(Settings(source="mapped"))
