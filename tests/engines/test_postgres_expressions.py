"""Tests that an expression means the same on PostgreSQL as on DuckDB, and a text as in Python, whatever the database's collation is.

The collation is that of `new_database`, which has another order of texts and another i.
"""

import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import ibis
import ibis.expr.types as ir
import psycopg
import pyarrow as pa
import pytest

from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.postgres_compiler import translate_pattern
from finrisk_assets.ledger.text_expressions import (
    iso_of_epoch,
    iso_of_format,
    normalise,
    read_booleans,
    read_numbers,
    read_times,
    scale_numbers,
)
from schemas.date_formats import PER_SECOND, read_time_in_format
from schemas.normal_form import normalise_text
from schemas.text_values import FIRST_TIME, LAST_TIME, is_in_range, read_boolean, read_number, read_time
from tests.contracts.test_text_values import BESIDE, MARKS, draw_cells, number, number_beside, time, word, written
from tests.service.databases import TEST_POSTGRES

CELLS = 400
EXACT = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -2.5, 0.49999999999999994, 1e15, 1e16, 123456789012345.5, 1e-5, 1e-4, 123.456, 1e20, 1e300,
         -1e22, math.nan, math.inf, -math.inf, None, 4503599627370497.5, 0.1, 1 / 3, 100.0, 1e14 + 0.5]  # fmt: skip


@pytest.fixture(scope="module")
def postgres(new_database: Callable[[], str]) -> Iterator[Any]:
    engine = open_engine(new_database())
    yield engine.connection
    engine.close()


@pytest.fixture(scope="module")
def duckdb() -> Iterator[Any]:
    connection = ibis.duckdb.connect()
    yield connection
    connection.disconnect()


def compute(connection: Any, values: list[Any], read: Callable[[Any], ir.Value], kind: str = "string") -> list[Any]:
    """Return what an expression makes of each value."""
    rows = ibis.memtable(pa.table({"value": pa.array(values, kind), "place": range(len(values))}))
    return list(connection.to_pyarrow(rows.select("place", result=read(rows.value)).order_by("place"))["result"].to_pylist())


def finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value


def within_range(time: ir.TimestampValue) -> ir.TimestampValue:
    """Return the times that a ledger can hold."""
    return ibis.cases(((time >= FIRST_TIME) & (time < LAST_TIME), time), else_=ibis.null("timestamp"))


@pytest.mark.parametrize("marks", MARKS)
def test_a_number_is_read_as_python_reads_it(postgres: Any, marks: tuple[str, str]) -> None:
    decimal, thousands = marks
    texts = draw_cells(number, CELLS)
    found = compute(postgres, texts, lambda column: read_numbers(normalise(column), decimal, thousands))
    assert [finite(value) for value in found] == [read_number(normalise_text(text), decimal, thousands) for text in texts]


@pytest.mark.parametrize("marks", MARKS)
def test_a_number_with_a_text_beside_is_read_as_python_reads_it(postgres: Any, marks: tuple[str, str]) -> None:
    decimal, thousands = marks
    texts = draw_cells(number_beside, CELLS)
    found = compute(postgres, texts, lambda column: read_numbers(normalise(column), decimal, thousands, BESIDE))
    assert [finite(value) for value in found] == [read_number(normalise_text(text), decimal, thousands, BESIDE) for text in texts]


def test_a_time_is_read_as_python_reads_it(postgres: Any) -> None:
    texts = draw_cells(time, 4 * CELLS)
    times = [read_time(normalise_text(text)) for text in texts]
    found = compute(postgres, texts, lambda column: within_range(read_times(normalise(column))))
    assert found == [time if time is not None and is_in_range(time) else None for time in times]


@pytest.mark.parametrize(
    ("form", "language"), [("%d %b %Y", "de"), ("%m/%d/%Y %I:%M %p", "en"), ("%Y-%m-%dT%H:%M:%S%z", "en"), ("epoch_ms", "en")]
)
def test_a_time_in_a_format_is_read_as_python_reads_it(postgres: Any, form: str, language: Any) -> None:
    texts = draw_cells(written, CELLS)

    def read(column: Any) -> Any:
        text, refused = normalise(column), ibis.literal("refused")
        iso = iso_of_epoch(text, form, refused) if form in PER_SECOND else iso_of_format(text, form, language, refused)
        return within_range(read_times(iso))

    times = [read_time_in_format(normalise_text(text), form, language) for text in texts]
    assert compute(postgres, texts, read) == [time if time is not None and is_in_range(time) else None for time in times]


def test_words_and_normal_forms_are_those_of_python(postgres: Any) -> None:
    texts = draw_cells(word, 4 * CELLS)
    assert compute(postgres, texts, lambda column: read_booleans(normalise(column))) == [read_boolean(normalise_text(t)) for t in texts]
    assert compute(postgres, texts, normalise) == [normalise_text(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e999", math.inf), ("-1e999", -math.inf), ("1e-999", 0.0), ("0e999", 0.0), ("1" + "0" * 400, math.inf),
     ("0." + "0" * 400 + "1", 0.0), ("1e99999999999", math.inf), ("1e-99999999999", 0.0),
     ("1.7976931348623159e308", math.inf), ("4.9e-324", 5e-324), (" 1", None),
     ("1_000", None), ("nan", None), ("Infinity", None), ("0x1F", None), ("0b1", None), ("１２", None), ("٣", None)],
)  # fmt: skip
def test_spellings_of_postgresql_are_no_numbers_and_the_range_is_that_of_duckdb(
    postgres: Any, duckdb: Any, text: str, number: float | None
) -> None:
    for connection in (postgres, duckdb):
        assert compute(connection, [text], read_numbers) == [number]


@pytest.mark.parametrize(
    "expression",
    [
        lambda x: x.cast("string"),
        lambda x: ibis.cases((x.abs() < 1e17, x), else_=0.0).round(),
        lambda x: ibis.cases((x.abs() < 1e17, x), else_=0.0).cast("int64"),
        lambda x: ibis.cases((x.abs() < 9e18, x), else_=0.0).try_cast("int64"),
        lambda x: x / 0,
        lambda x: 1 / x.abs(),
        lambda x: x > 1.7e308,
        lambda x: x.cast("boolean"),
        lambda x: (x > 0).cast("float64"),
        lambda x: (x > 0).cast("int64"),
        lambda x: x.abs().nullif(0).isnull(),
        lambda x: (x > 0).cast("int64") / (x > -1).cast("int64"),
    ],
)
def test_numbers_are_those_of_duckdb(postgres: Any, duckdb: Any, expression: Callable[[Any], ir.Value]) -> None:
    assert repr(compute(postgres, EXACT, expression, "double")) == repr(compute(duckdb, EXACT, expression, "double"))


EXTREME = [1.7976931348623157e308, -1e308, 1e306, 5e-324, -5e-324, 1e-320, 46100793565604.76, 9007199254740993.0, 0.0, -0.0, 0.000000005,
           math.nan, math.inf, -math.inf, None]  # fmt: skip


@pytest.mark.parametrize("factor", [100, 0.01, 3, 1, 1e300, 1e-300, -100])
def test_a_scaled_number_is_an_infinity_or_0_beyond_the_range(postgres: Any, duckdb: Any, factor: float) -> None:
    found = compute(postgres, EXTREME, lambda x: scale_numbers(x, factor), "double")
    assert repr(found) == repr(compute(duckdb, EXTREME, lambda x: scale_numbers(x, factor), "double"))
    assert repr(found) == repr([None if number is None else number * factor for number in EXTREME])


@pytest.mark.parametrize("digits", [0, 2, 8, 306, 330])
def test_a_rounded_number_is_that_of_duckdb(postgres: Any, duckdb: Any, digits: int) -> None:
    drawn = random.Random(digits)
    numbers = [number for number in EXTREME if digits or number is None or abs(number) < 2**63]
    numbers += [drawn.uniform(-1, 1) * 10 ** drawn.uniform(-5, 18) for _ in range(CELLS)] + [drawn.randrange(10**16) * 0.01]
    rounded = [compute(connection, numbers, lambda x: x.abs().round(digits), "double") for connection in (postgres, duckdb)]
    assert repr(rounded[0]) == repr(rounded[1])


def test_the_databases_collation_is_not_the_engines(postgres: Any) -> None:
    """The tests of this file say something about collations only then."""
    if shutil.which("localedef") and TEST_POSTGRES not in os.environ:
        assert postgres.con.execute("SELECT 'a' < 'B', lower('I'), upper('i')").fetchone() == (True, "ı", "İ")


def test_texts_are_in_the_order_of_code_points(postgres: Any, duckdb: Any) -> None:
    words = ["b", "A", "a", "Z", "ä", "", "_", "10", "9", "é"]
    rows = ibis.memtable({"word": words})
    (lowest,) = compute(postgres, ["x"], lambda _: rows.word.min())
    for connection in (postgres, duckdb):
        assert connection.to_pyarrow(rows.order_by("word"))["word"].to_pylist() == sorted(words)
        assert compute(connection, words, lambda column: column < "a") == [word < "a" for word in words]
        assert connection.to_pyarrow(rows.word.max()).as_py() == max(words)
        assert compute(connection, ["ÄÉß", "İ"], lambda column: column.lower()) == compute(duckdb, ["ÄÉß", "İ"], lambda c: c.lower())
    assert lowest == min(words)


def test_windows_and_case_are_those_of_code_points(postgres: Any, duckdb: Any) -> None:
    rows = ibis.memtable({"word": ["b", "A", "a", "Z", "ı", "i", "I", "İ", "é", "e\u0301"], "n": list(range(10))})
    ordered = ibis.window(order_by=rows.word)
    numbered = rows.mutate(
        place=ibis.row_number().over(ordered), before=rows.word.lag().over(ordered), last=rows.word.max().over(ordered),
        lowered=rows.word.lower(), raised=rows.word.upper(), is_alike=rows.word.lower() == "i", matches=rows.word.re_search("^[a-z]$"),
    ).order_by("n")  # fmt: skip
    ours, theirs = (connection.to_pyarrow(numbered).to_pylist() for connection in (postgres, duckdb))
    assert ours == theirs


def test_counts_divide_as_fractions(postgres: Any, duckdb: Any) -> None:
    rows = ibis.memtable({"key": ["a", "a", "b", "b"], "n": [1, 2, 3, 4]})
    counted = rows.group_by("key").agg(part=(rows.n % 2).sum(), whole=rows.count(), total=rows.n.sum())
    shares = counted.select("key", share=counted.part / counted.whole, mean=counted.total / counted.whole, part="part").order_by("key")
    ours, theirs = (connection.to_pyarrow(shares).to_pylist() for connection in (postgres, duckdb))
    assert ours == theirs == [{"key": "a", "share": 0.5, "mean": 1.5, "part": 1}, {"key": "b", "share": 0.5, "mean": 3.5, "part": 1}]


def test_moving_sums_are_exact_whatever_their_order(postgres: Any, duckdb: Any) -> None:
    rows = ibis.memtable({"at": list(range(200)), "cents": [float((k * 7919) % 100_003) for k in range(200)]})
    frame = ibis.window(order_by=rows["at"], range=(-9, -1))
    moving = rows.mutate(
        total=rows.cents.sum().over(frame), mean=rows.cents.mean().over(frame), std=rows.cents.std(how="sample").over(frame).round(6),
        n=rows.count().over(frame), units=rows.cents.cast("int64").sum().over(frame),
    ).order_by("at")  # fmt: skip
    ours, theirs = (connection.to_pyarrow(moving).to_pylist() for connection in (postgres, duckdb))
    assert ours == theirs


def test_a_number_that_overflows_in_a_calculation_ends_the_query(postgres: Any, duckdb: Any) -> None:
    assert compute(duckdb, [1e300], lambda x: x * 1e300, "double") == [math.inf]
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        compute(postgres, [1e300], lambda x: x * 1e300, "double")


@pytest.mark.parametrize(
    ("pattern", "translated"),
    [(r"^a\z", r"^a\Z"), (r"[\x{2028}-\x{2029}]", "[\u2028-\u2029]"), (r"\x{0}", "\x01"), ("a.b", r"a[^\n]b"), ("[.]", "[.]"),
     ("[]a.]", "[]a.]"), (r"\.", r"\."), ("[^ -~]", "[^ -~]")],
)  # fmt: skip
def test_patterns_are_translated(pattern: str, translated: str) -> None:
    assert translate_pattern(pattern) == translated
