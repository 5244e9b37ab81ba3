"""Feature tables as SQL: what runs is what was built, and equal tables are compiled once."""

import ibis
import pytest

from finrisk_assets.features.compiled import compile_features

MOVES = {"moves": ibis.schema({"who": "string", "amount": "float64"})}


def add_up(tables, factor=1.0):
    moves = tables["moves"]
    return moves.group_by("who").agg(total=(moves.amount * factor).sum())


def test_the_sql_computes_the_table_over_tables_of_these_names():
    engine = ibis.duckdb.connect()
    engine.create_table("moves", {"who": ["a", "a", "b"], "amount": [1.0, 2.5, 4.0]}, schema=MOVES["moves"])
    rows = engine.con.execute(f"SELECT who, total FROM ({compile_features(add_up, MOVES)}) ORDER BY who").fetchall()
    assert rows == [("a", 3.5), ("b", 4.0)]


def test_equal_tables_are_compiled_once_and_others_anew(monkeypatch: pytest.MonkeyPatch):
    compiled = []
    compile_once = ibis.duckdb.compile
    monkeypatch.setattr(ibis.duckdb, "compile", lambda table: compiled.append(table) or compile_once(table), raising=False)
    first = compile_features(lambda tables: add_up(tables, 3.0), MOVES)
    assert compile_features(lambda tables: add_up(tables, 3.0), MOVES) == first
    assert len(compiled) == 1
    assert compile_features(lambda tables: add_up(tables, 5.0), MOVES) != first
    assert len(compiled) == 2
