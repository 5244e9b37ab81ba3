"""Tests of contracts on stored tables, checked through Pandera in the engine."""

from dataclasses import replace

import ibis
import pytest

from finrisk_assets.ledger.contract import check_stored, find_repeated_keys, pandera_schema
from schemas.ledger import TABLES, TRANSACTIONS, Column

from .conftest import ROWS


@pytest.fixture
def stored_tables(ledger):
    return ledger.connection.create_table("stored", ledger.split(*ROWS).valid)


def test_what_the_contract_let_through_meets_it(stored_tables):
    assert check_stored(TRANSACTIONS, stored_tables) == []


BREACHES = {
    "negative amount": (lambda t: t.mutate(amount=-t.amount), "transactions.amount"),
    "no value": (lambda t: t.mutate(customer_id=ibis.null("string")), "transactions.customer_id"),
    "value not allowed": (lambda t: t.mutate(direction=ibis.literal("up")), "transactions.direction"),
    "key twice": (lambda t: t.mutate(transaction_id=ibis.literal("t1")), "unique transaction_id"),
    "type of a number": (lambda t: t.mutate(amount=t.amount.cast("string")), "transactions.amount"),
    "type of a moment": (lambda t: t.mutate(occurred_at=t.occurred_at.cast("string")), "transactions.occurred_at"),
    "column lacking": (lambda t: t.drop("country"), "lacks the columns country"),
    "column too many": (lambda t: t.mutate(colour=ibis.literal("red")), "beyond the contract, the columns colour"),
}


@pytest.mark.parametrize(("change", "message"), BREACHES.values(), ids=BREACHES.keys())
def test_a_breach_is_told_without_a_value_of_any_row(stored_tables, change, message):
    violations = check_stored(TRANSACTIONS, change(stored_tables))
    assert any(message in one for one in violations)
    assert "alma" not in " ".join(violations)


def test_a_key_of_some_rows_that_other_rows_have_is_found(stored_tables):
    some = stored_tables.order_by("transaction_id").limit(1)
    assert find_repeated_keys(TRANSACTIONS, some, stored_tables) == []
    repeated = stored_tables.union(some)
    assert find_repeated_keys(TRANSACTIONS, some, repeated) == [
        "transactions has 1 rows of other months whose transaction_id stands in the run's months too"
    ]


def test_a_sources_own_columns_are_part_of_the_contract(stored_tables):
    wider = TRANSACTIONS.with_columns(Column("risk", "int64", "A source's own.", minimum=0))
    assert check_stored(wider, stored_tables.mutate(risk=ibis.literal(1, "int64"))) == []
    assert check_stored(wider, stored_tables.mutate(risk=ibis.literal(-1, "int64"))) != []


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_declaration_becomes_a_schema(table):
    assert tuple(pandera_schema(table).columns) == table.names


def test_a_bound_of_the_declaration_is_a_bound_of_the_schema(stored_tables):
    lower = tuple(replace(column, maximum=10.0) if column.name == "amount" else column for column in TRANSACTIONS.columns)
    violations = check_stored(replace(TRANSACTIONS, columns=lower), stored_tables)
    assert violations == ["transactions.amount breaks the contract: less_than_or_equal_to(10.0)"]
