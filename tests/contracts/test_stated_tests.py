"""Tests of what a mapping says of a loan's texts and of its test set: how rows land, and the error text of a wrong key."""

from datetime import datetime

import ibis
import pytest

from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.ledger.contract import split
from finrisk_assets.ledger.landing import LandingError
from finrisk_assets.ledger.sources import load
from finrisk_assets.settings import Settings
from schemas.mapping import MappingError, read_mapping

LOANS = """
name: own
currency: EUR
tables:
  loans:
    file: loans.csv
    split: {column: part, test: [out, 7]}
    missing: [k.A.]
    columns: {loan_id: id, customer_id: id, is_default: bad}
    extra:
      - {name: shop_area, from: area, description: Shop area, feature: {category: true}}
"""
ROWS = "id,bad,area,part\n1,0, Área 1 ,in\n2,1,k.A.,out\n3,0,31,\n4,1,31,7.0\n"


@pytest.fixture
def read_rows(tmp_path):
    """Return a function that lands a mapping with files, and returns the source and its valid rows of loans."""

    def read(mapping, **files):
        (tmp_path / "own.yaml").write_text(mapping, "utf-8")
        for name, text in files.items():
            (tmp_path / f"{name}.csv").write_text(text, "utf-8")
        source = load(Settings(source="mapped", mapping=tmp_path / "own.yaml", data_dir=tmp_path))
        raw, connection = source.tables["loans"], ibis.duckdb.connect()
        landed = raw.land(tmp_path / "raw.parquet")
        done = split(raw.table, raw.columns, connection.read_parquet(tmp_path / "raw.parquet"), {}, datetime(2026, 1, 1))
        assert connection.to_pyarrow(done.quarantine.count()).as_py() == 0
        return source, landed, connection.create_table("loans", done.valid)

    return read


def test_a_column_states_the_test_set_and_a_text_reaches_the_features(read_rows):
    source, _, loans = read_rows(LOANS, loans=ROWS)
    rows = LOAN_DEFAULT.build_features({"loans": loans}, source).order_by("loan_id").to_pyarrow().to_pylist()
    assert [row["is_test"] for row in rows] == [False, True, False, True]
    assert [row["shop_area"] for row in rows] == ["Área 1", None, "31", "31"]
    contract = LOAN_DEFAULT.feature_contract(source)
    assert (contract["is_test"].dtype, contract["shop_area"].dtype) == ("boolean", "string")
    (feature,) = source.features["loan_default"]
    assert (feature.is_category, feature.missing_codes) == (True, ("k.A.",))


def test_files_state_the_test_set(read_rows):
    mapping = LOANS.replace("split: {column: part, test: [out, 7]}", "test_files: late*.csv")
    files = {"loans": ROWS, "late1": "id,bad,area,part\n8,1,31,\n", "late2": "id,bad,area,part\n9,0,31,\n"}
    source, landed, loans = read_rows(mapping, **files)
    assert landed.rows == 6
    rows = loans.order_by("loan_id").to_pyarrow().to_pylist()
    assert {row["loan_id"]: row["is_test"] for row in rows} == {**dict.fromkeys("1234", False), "8": True, "9": True}
    assert [path.name for path in source.tables["loans"].files()] == ["loans.csv", "late1.csv", "late2.csv"]


def test_a_mapping_without_a_stated_test_set_has_no_such_column(read_rows):
    source, _, loans = read_rows(LOANS.replace("    split: {column: part, test: [out, 7]}\n", ""), loans=ROWS)
    assert "is_test" not in loans.columns
    assert "is_test" not in LOAN_DEFAULT.feature_contract(source).names


def test_a_split_column_that_the_file_lacks_is_told(read_rows):
    with pytest.raises(LandingError, match="sample"):
        read_rows(LOANS.replace("column: part", "column: sample"), loans=ROWS)


MISTAKES = {
    "both": (("file: loans.csv", "file: loans.csv\n    test_files: late.csv"), "split and test_files both state the test set"),
    "row numbers of two files": (
        ("split: {column: part, test: [out, 7]}\n    missing: [k.A.]\n    columns: {loan_id: id,",
         "test_files: late.csv\n    columns: {loan_id: {row_number: true},"),
        "tables.loans.columns.loan_id: row numbers of several files shift",
    ),
    "a key of split": (("column: part", "colum: part"), "tables.loans.split.colum: there is no such key; did you mean 'column'?"),
    "no values": (("test: [out, 7]", "test: []"), "tables.loans.split.test: "),
    "a taken name": (("name: shop_area", "name: is_test"), "extra.is_test.name: 'is_test' is taken"),
    "an order": (("category: true", "category: true, monotone: 1"), "a category has no order, so it has no monotone"),
    "a type": (("description: Shop area", "type: float64"), "a category is a text, not a float64; say `type: string`"),
    "a text": (("description: Shop area, feature: {category: true}", "type: string, feature: {}"), "say `feature: {category: true}`"),
    "another table": (
        ("  loans:", "  offers:\n    file: o.csv\n    split: {column: a, test: b}\n"
         "    columns: {offer_id: a, customer_id: a, annual_rate_pct: a}\n  loans:"),
        "tables.offers: only loans have a stated test set",
    ),
    "a category of another table": (
        ("  loans:", "  customers:\n    file: c.csv\n    columns: {customer_id: a}\n"
         "    extra: [{name: town, from: a, feature: {category: true}}]\n  loans:"),
        "tables.customers.extra.town.feature.category: only accounts and loans have categories",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_with_its_key_and_the_fix(tmp_path, change, message):
    assert change[0] in LOANS
    (tmp_path / "own.yaml").write_text(LOANS.replace(*change), "utf-8")
    with pytest.raises(MappingError) as raised:
        read_mapping(tmp_path / "own.yaml")
    assert message in str(raised.value)
