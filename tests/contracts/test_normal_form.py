"""Tests that the ledger and the service read identifiers and countries alike, on each engine."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from finrisk_assets.ledger.contract import count_by_rule, split
from finrisk_assets.ledger.landing import land_csv
from schemas.api import Country, Identifier
from schemas.ledger import CUSTOMERS
from schemas.normal_form import TRIMMED_CHARACTERS, TRIMMED_RANGES

from .conftest import AS_OF

NAMES = ("customer_id", "gender", "country")
COLUMNS = {name: (lambda raw, name=name: raw[name]) for name in NAMES}
NOT_A_COUNTRY = "country is no country of ISO 3166-1 alpha-2"
EDGES = "".join(chr(code) for first, last in TRIMMED_RANGES for code in {max(first, 1), last})
# A file has no NUL, and an engine's text no lone surrogate.
LETTERS = st.one_of(st.characters(codec="utf-8", exclude_characters="\0"), st.sampled_from("aZß1 v\u0301\u0327\u1100\u1161\u11a8" + EDGES))
COUNTRIES = st.one_of(st.text(LETTERS, max_size=4), st.sampled_from(["at", "At ", "ıt", "aut"]))
ROWS = st.lists(st.tuples(st.text(LETTERS, max_size=12), COUNTRIES), min_size=1, max_size=60)


def read(connection, folder, rows):
    """Return row number -> identifier and country of the valid rows, and row number -> broken rules of the others."""
    file = folder / "raw.parquet"
    columns = {"_row": pa.array(range(len(rows))), "_defects": pa.nulls(len(rows), pa.string()), "_line": pa.nulls(len(rows), pa.string())}
    texts = {"customer_id": [f"{row}|{text}|{row}" for row, (text, _) in enumerate(rows)], "gender": [text for text, _ in rows]}
    pq.write_table(pa.table(columns | {**texts, "country": [country for _, country in rows]}), file)
    done = split(CUSTOMERS, COLUMNS, connection.read_parquet(file), {}, AS_OF)
    valid = {row["customer_id"]: (row["gender"], row["country"]) for row in connection.to_pyarrow(done.valid).to_pylist()}
    quarantine = {row["_row"]: row["broken_rules"] for row in connection.to_pyarrow(done.quarantine).to_pylist()}
    return valid, quarantine


def accepted(kind, text):
    """Return what the service reads in a text; None where it refuses the text."""
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return None


def check_alike(connection, folder, rows):
    valid, quarantine = read(connection, folder, rows)
    expected = {}
    for row, (text, country) in enumerate(rows):
        code = accepted(Country, country)
        is_blank = not country.strip(TRIMMED_CHARACTERS)  # a file has no other word for what is not known
        if is_blank or code:
            expected[accepted(Identifier, f"{row}|{text}|{row}")] = (accepted(Identifier, text), code)
        else:
            assert quarantine.pop(row) == NOT_A_COUNTRY
    assert quarantine == {}
    assert valid == expected


@given(rows=ROWS)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_duckdb_and_the_service_read_alike(rows, engine, tmp_path_factory):
    check_alike(engine, tmp_path_factory.mktemp("alike"), rows)


def test_duckdb_trims_each_character_that_the_service_trims(engine, tmp_path):
    check_alike(engine, tmp_path, [(f"{pad}Cafe\u0301{pad}", f"{pad}at{pad}") for pad in TRIMMED_CHARACTERS if pad != "\0"])


@pytest.fixture(scope="module")
def engine():
    import ibis

    connection = ibis.duckdb.connect()
    yield connection
    connection.disconnect()


@pytest.mark.slow
def test_spark_and_the_service_read_alike(spark, tmp_path):
    pads = [f"{pad}Cafe\u0301 {pad}" for pad in EDGES]
    countries = ["at", "AT", " de\u200b", "AUT", "ıt", "ß", "", "ZZ", "\u3000NO", "AT\n"]
    texts = ["", " ", "a b", "a\n", "\x0bv\x0c", "\u1112\u1161\u11ab", "\ud55c", "\u0958", "A\u030a", *pads]

    check_alike(spark, tmp_path, [(text, countries[at % len(countries)]) for at, text in enumerate(texts)])


def test_spellings_of_a_customer_and_a_country_become_one(ledger, tmp_path):
    file, landed = tmp_path / "customers.csv", tmp_path / "landed.parquet"
    rows = ["101,at", " 101\u00a0,AT", "Cafe\u0301,AUT", "Café,de", "a1,", "A1,xk"]
    file.write_text("\n".join(["customer_id,country", *rows]) + "\n", encoding="utf-8")
    land_csv(file, landed, required=("customer_id", "country"))
    columns = {name: COLUMNS[name] for name in ("customer_id", "country")}
    done = split(CUSTOMERS, columns, ledger.connection.read_parquet(landed), {}, AS_OF)

    valid = {row["customer_id"]: row["country"] for row in ledger.connection.to_pyarrow(done.valid).to_pylist()}
    assert valid == {"101": "AT", "a1": None}
    assert count_by_rule(done.quarantine) == {"customer_id is a duplicate": 2, NOT_A_COUNTRY: 2}
