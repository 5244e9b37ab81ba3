"""Tests of quarantine: a row that breaks any rule is never valid, never lost, and its rule is named."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finrisk_assets.ledger.contract import count_by_rule, split
from schemas.ledger import TRANSACTIONS, Column

from .conftest import AS_OF, COLUMNS, CUSTOMERS, HEADER, ROWS

GOOD = "t3,boris,2024-05-03 08:15,0.99,debit,,0"

CORRUPTIONS = {
    "wrong type: amount": ("t3,boris,2024-05-03 08:15,a lot,debit,,0", "amount is not a number"),
    "wrong type: amount that only some engines read": ("t3,boris,2024-05-03 08:15,1_000,debit,,0", "amount is not a number"),
    "wrong type: time": ("t3,boris,yesterday,0.99,debit,,0", "occurred_at is not a timestamp"),
    "wrong type: no such day": ("t3,boris,2024-02-30,0.99,debit,,0", "occurred_at is not a timestamp"),
    "wrong type: an engine's own word for a time": ("t3,boris,epoch,0.99,debit,,0", "occurred_at is not a timestamp"),
    "wrong type: boolean": ("t3,boris,2024-05-03 08:15,0.99,debit,,perhaps", "is_fraud is not true or false"),
    "wrong type in a nullable column": ("t3,boris,2024-05-03 08:15,0.99,debit,?,0", "balance_amount is not a number"),
    "missing value": ("t3,,2024-05-03 08:15,0.99,debit,,0", "customer_id is missing"),
    "blank value": ("t3,  ,2024-05-03 08:15,0.99,debit,,0", "customer_id is missing"),
    "missing key": (",boris,2024-05-03 08:15,0.99,debit,,0", "transaction_id is missing"),
    "duplicate key": ("t1,boris,2024-05-03 08:15,0.99,debit,,0", "transaction_id is a duplicate"),
    "date in the future": ("t3,boris,2024-06-01 00:00:01,0.99,debit,,0", "occurred_at is in the future"),
    "date in the future of another zone": ("t3,boris,2024-05-31T23:30:00-02:00,0.99,debit,,0", "occurred_at is in the future"),
    "NaN amount": ("t3,boris,2024-05-03 08:15,NaN,debit,,0", "amount is not finite"),
    "infinite amount": ("t3,boris,2024-05-03 08:15,-Infinity,debit,,0", "amount is not finite"),
    "amount beyond any number": ("t3,boris,2024-05-03 08:15,1e999,debit,,0", "amount is not finite"),
    "NaN in a nullable column": ("t3,boris,2024-05-03 08:15,0.99,debit,nan,0", "balance_amount is not finite"),
    "negative amount": ("t3,boris,2024-05-03 08:15,-0.99,debit,,0", "amount is below 0"),
    "direction not allowed": ("t3,boris,2024-05-03 08:15,0.99,sideways,,0", "direction is not one of credit, debit"),
    "unknown reference": ("t3,dora,2024-05-03 08:15,0.99,debit,,0", "customer_id is not in customers"),
    "broken encoding": (b"t3,boris,2024-05-03 08:15,0.99,debit,,0".replace(b"boris", b"bor\xeds"), "broken encoding"),
    "too few fields": ("t3,boris,2024-05-03 08:15", "malformed row"),
    "too many fields": ("t3,boris,2024-05-03 08:15,0.99,debit,,0,and more", "malformed row"),
    "a quote never closed": ('t3,"boris,2024-05-03 08:15,0.99,debit,,0', "malformed row"),
}


@pytest.mark.parametrize(("row", "rule"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_a_corrupted_row_is_quarantined_with_its_rule_and_its_raw_values(ledger, row, rule):
    done = ledger.split(*ROWS[:2], row, *ROWS[3:])
    valid, quarantine = ledger.rows(done.valid), ledger.rows(done.quarantine)

    assert len(valid) + len(quarantine) == len(ROWS)
    assert [one["transaction_id"] for one in valid] == ["t1", "t2", "t4", "t5"]
    assert [one["_row"] for one in quarantine] == [3]
    assert rule in quarantine[0]["broken_rules"].split("; ")
    raw = row.decode("utf-8", "replace") if isinstance(row, bytes) else row
    if rule == "malformed row":
        assert quarantine[0]["_line"] == raw
    else:
        assert [quarantine[0][name] for name in HEADER.split(",")] == raw.split(",")


def test_a_sound_file_is_all_valid_and_typed(ledger):
    done = ledger.split(*ROWS)
    assert ledger.rows(done.quarantine) == []
    assert done.valid.columns == TRANSACTIONS.names
    last = ledger.rows(done.valid)[-1]
    assert (last["customer_id"], last["amount"], last["balance_amount"], last["is_fraud"]) == ("čeněk", 7.1, 1000.0, None)
    assert last["occurred_at"].isoformat() == "2024-05-05T23:59:59.123456"
    assert [row["is_fraud"] for row in ledger.rows(done.valid)[:4]] == [False, False, False, True]


def test_all_the_rules_that_a_row_broke_are_named_in_the_order_of_the_declaration(ledger):
    done = ledger.split(*ROWS, "t1,dora,2030-01-01,-1,up,x,?")
    assert ledger.rows(done.quarantine)[0]["broken_rules"].split("; ") == [
        "transaction_id is a duplicate",
        "customer_id is not in customers",
        "occurred_at is in the future",
        "amount is below 0",
        "direction is not one of credit, debit",
        "balance_amount is not a number",
        "is_fraud is not true or false",
    ]
    assert count_by_rule(done.quarantine)["amount is below 0"] == 1


def test_of_a_key_that_occurs_three_times_the_first_row_is_kept(ledger):
    done = ledger.split(*ROWS, ROWS[0], ROWS[0])
    assert len(ledger.rows(done.valid)) == len(ROWS)
    assert [row["_row"] for row in ledger.rows(done.quarantine)] == [6, 7]
    assert count_by_rule(done.quarantine) == {"transaction_id is a duplicate": 2}


def test_an_open_quote_does_not_swallow_the_rows_behind_it(ledger):
    done = ledger.split('t0,"alma,2024-05-01,1,debit,,', *ROWS, 't9,"alma",2024-05-01,1,debit,,')
    assert len(ledger.rows(done.valid)) == len(ROWS) + 1
    assert ledger.rows(done.quarantine)[0]["broken_rules"] == "malformed row"


def test_offsets_are_taken_off(ledger):
    done = ledger.split("t1,alma,2024-05-01T10:00:00+05:30,1,debit,,", "t2,alma,2024-05-01 10:00-0030,1,debit,,")
    assert [row["occurred_at"].isoformat() for row in ledger.rows(done.valid)] == ["2024-05-01T04:30:00", "2024-05-01T10:30:00"]


def test_whole_numbers_and_bounds(ledger):
    whole = Column("amount", "int64", "A whole number.", minimum=1, maximum=9)
    counted = replace(TRANSACTIONS, columns=tuple(whole if c.name == "amount" else c for c in TRANSACTIONS.columns))
    rows = [f"t{amount},alma,2024-05-01,{amount},debit,," for amount in ("5", "5.0", "5.5", "10", "0", "five", "1e1")]
    done = ledger.split(*rows, table=counted)
    assert [row["amount"] for row in ledger.rows(done.valid)] == [5, 5]
    assert count_by_rule(done.quarantine) == {"amount is above 9": 2, "amount is not a whole number": 2, "amount is below 1": 1}


def test_an_account_without_a_value_breaks_no_reference(ledger):
    assert ledger.rows(ledger.split(GOOD).quarantine) == []


@pytest.mark.slow
def test_spark_splits_as_duckdb_does(ledger, spark, tmp_path):
    rows = [*ROWS, *(row for row, _ in CORRUPTIONS.values())]
    here = ledger.split(*rows)

    pq.write_table(pa.table({"customer_id": CUSTOMERS}), tmp_path / "customers.parquet")
    raw = spark.read_parquet(tmp_path / "raw.parquet")  # as `ledger.split` landed it
    customers = spark.read_parquet(tmp_path / "customers.parquet")
    done = split(TRANSACTIONS, COLUMNS, raw, {"customers": customers}, AS_OF)
    quarantine = sorted(done.quarantine.to_pyarrow().to_pylist(), key=lambda row: row["_row"])
    valid = sorted(done.valid.to_pyarrow().to_pylist(), key=lambda row: row["transaction_id"])
    assert quarantine == ledger.rows(here.quarantine)
    assert [{**row, "occurred_at": row["occurred_at"].replace(tzinfo=None)} for row in valid] == ledger.rows(here.valid)
