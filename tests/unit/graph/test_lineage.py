"""Tests of column lineage on expressions whose sources are plain to see."""

import ibis
import pytest
from ibis import _

from finrisk_assets.graph import lineage

MOVES = ibis.table({"customer_id": "string", "at": "timestamp", "amount": "float64", "direction": "string", "note": "string"}, name="moves")
PEOPLE = ibis.table({"customer_id": "string", "joined_at": "timestamp", "income": "float64"}, name="people")


def trace(table) -> dict[str, set[str]]:
    """Return the stored columns that each column comes from, as ``table.column``."""
    return {column: {f"{name}.{of}" for name, of in metadata} for column, metadata in lineage.trace_columns(table).items()}


def test_a_stored_column_comes_from_itself():
    assert trace(PEOPLE)["income"] == {"people.income"}


def test_an_expression_comes_from_what_it_names_and_a_constant_from_nowhere():
    rows = MOVES.select(signed=ibis.ifelse(_.direction == "debit", -_.amount, _.amount), one=ibis.literal(1))
    assert trace(rows) == {"signed": {"moves.direction", "moves.amount"}, "one": set()}


def test_a_filter_chooses_the_rows_of_a_sum_and_not_the_value_of_a_row():
    debits = MOVES.filter(_.direction == "debit")
    assert trace(debits)["amount"] == {"moves.amount"}
    sums = debits.group_by("customer_id").agg(spent=_.amount.sum(), n=_.count())
    assert trace(sums)["customer_id"] == {"moves.customer_id"}
    assert trace(sums)["spent"] == {"moves.amount", "moves.direction", "moves.customer_id"}
    assert trace(sums)["n"] == {"moves.direction", "moves.customer_id"}, "a count reads no column, yet depends on which rows there are"


def test_a_joined_column_comes_from_its_own_table():
    spent = MOVES.group_by("customer_id").agg(spent=_.amount.sum())
    joined = PEOPLE.left_join(spent, "customer_id").mutate(share=_.spent / _.income)
    assert trace(joined)["income"] == {"people.income"}
    assert trace(joined)["share"] == {"moves.amount", "moves.customer_id", "people.income"}


def test_a_sum_over_a_join_depends_on_how_it_was_joined():
    after = PEOPLE.join(MOVES, [PEOPLE.customer_id == MOVES.customer_id, MOVES.at >= PEOPLE.joined_at])
    sums = after.group_by("joined_at").agg(spent=_.amount.sum())
    assert trace(sums)["spent"] == {"moves.amount", "moves.at", "moves.customer_id", "people.customer_id", "people.joined_at"}


def test_a_window_comes_from_its_partition_and_its_order_too():
    running = MOVES.select(total=_.amount.sum().over(group_by=_.customer_id, order_by=_.at, rows=(None, 0)))
    assert trace(running)["total"] == {"moves.amount", "moves.customer_id", "moves.at"}


def test_a_union_comes_from_both_sides():
    both = MOVES.select(who="customer_id").union(PEOPLE.select(who="customer_id"))
    assert trace(both)["who"] == {"moves.customer_id", "people.customer_id"}


def test_a_table_joined_with_itself_is_one_table():
    other = MOVES.view()
    pairs = MOVES.join(other, MOVES.customer_id == other.customer_id).select(gap=MOVES.at.epoch_seconds() - other.at.epoch_seconds())
    assert trace(pairs)["gap"] == {"moves.at"}


def test_a_scalar_of_another_table_is_followed():
    rows = PEOPLE.mutate(late=_.joined_at > MOVES.at.max().as_scalar())
    assert trace(rows)["late"] == {"people.joined_at", "moves.at"}


def test_rows_in_the_expression_come_from_nowhere():
    assert trace(PEOPLE.join(ibis.memtable({"customer_id": ["1"], "x": [1]}), "customer_id"))["x"] == set()


def test_text_is_not_read():
    with pytest.raises(TypeError, match="Ibis expression"):
        lineage.trace_columns(ibis.duckdb.connect().sql("select 1 as income"))


def test_dagster_gets_it_by_asset_and_column():
    metadata = lineage.lineage_metadata(PEOPLE.select(yearly=_.income * 12, one=ibis.literal(1)))
    (dep,) = metadata[lineage.METADATA].deps_by_column["yearly"]
    assert (dep.asset_key.to_user_string(), dep.column_name) == ("people", "income")
    assert metadata["computed_from"].value.splitlines()[2:] == ["| yearly | people.income |", "| one | nothing stored |"]
