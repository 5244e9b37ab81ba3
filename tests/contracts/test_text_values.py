"""Tests that a text is read as it is written or not at all: in the engine as in Python, and as independent readers read it."""

import random
import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import ibis
import pyarrow as pa
import pytest
from dateutil import parser as dateutil_parser
from dateutil.tz import UTC as DATEUTIL_UTC
from pydantic import TypeAdapter, ValidationError

from finrisk_assets.ledger.text_expressions import (
    iso_of_epoch,
    iso_of_format,
    normalise,
    read_booleans,
    read_numbers,
    read_times,
)
from schemas.api import Moment
from schemas.date_formats import PER_SECOND, month_names, read_time_in_format
from schemas.date_formats import iso_of_format as iso_in_format
from schemas.normal_form import normalise_text
from schemas.text_values import code_spellings, is_in_range, read_boolean, read_number, read_time

MARKS = [(".", ""), (",", "."), (".", ","), (",", " "), (".", "'")]
CELLS = 100_000
"""Cells of each type."""
SEED = 20180401
DIGITS = "0123456789"
GAPS = ".,' \u00a0\u202f’"
ODD_NUMBERS = ["nan", "inf", "1_000", "1d", "0x10", "１２", "1,234.50", "", "-", ".", "1e999"]
CLOCKS = ["", ":00", ":59", ":60", ":07.5", ":07,25", ":07.123456789", ":7"]
ZONES = ["", "Z", "z", "+02", "+02:00", " +0230", "-00:30", " UTC", "+24:00", "+99:99", "+14:00", "-12", "GMT+2", "[x]"]
WORDS = ["true", "False", "T", "n", "YES", "1", "0", "1.0", "2", "on", "", "ja", " no "]


def draw_cells(cell, count=CELLS, seed=SEED):
    """Return texts that a function of a random generator makes."""
    draw = random.Random(seed)
    return [cell(draw) for _ in range(count)]


def letters(draw, characters, longest, shortest=0):
    return "".join(draw.choices(characters, k=draw.randint(shortest, longest)))


def number(draw):
    """Return what looks like a number, in whatever marks."""
    kind = draw.randrange(3)
    if kind == 0:
        groups = "".join(draw.choice(GAPS) + letters(draw, DIGITS, 4, 1) for _ in range(draw.randint(0, 3)))
        before, after = (
            draw.choice(["", "-", "+", "−", "- ", "--", "(", " "]),
            draw.choice(["", "", "", "-", "+", ")", "e3", "E-2", " ", ",", "."]),
        )
        return before + letters(draw, DIGITS, 7, 1) + groups + after
    return letters(draw, "0123456789.,-+ e()'−", 10) if kind == 1 else draw.choice(ODD_NUMBERS)


def parts(draw):
    """Return year, month, day, mark, hour, minute, seconds and offset, of which some do not exist."""
    year = draw.randint(1, 9999) if draw.random() < 0.5 else draw.randint(1960, 2105)
    mark, clock, zone = draw.choice(["T", " ", "t", "", "  "]), draw.choice(CLOCKS), draw.choice(ZONES)
    return f"{year:04d}", draw.randint(0, 13), draw.randint(0, 32), mark, draw.randint(0, 25), draw.randint(0, 61), clock, zone


def time(draw):
    """Return what looks like a time."""
    kind, p = draw.randrange(4), parts(draw)
    if kind == 0:
        return f"{p[0]}-{p[1]:02d}-{p[2]:02d}{p[3]}{p[4]:02d}:{p[5]:02d}{p[6]}{p[7]}"
    if kind == 1:
        return f"{p[0]}-{p[1]:02d}-{p[2]:02d}"
    return f"{p[0]}-{p[1]}-{p[2]} {p[4]}:{p[5]}" if kind == 2 else letters(draw, "0123456789-:T .Z+", 20)


def word(draw):
    """Return a word of a boolean, or up to three characters of any script."""
    if draw.random() < 0.5:
        return draw.choice(WORDS)
    codes = (
        draw.choice([draw.randint(1, 127), draw.randint(128, 0xD7FF), draw.randint(0xE000, 0x10FFFF)]) for _ in range(draw.randint(0, 3))
    )
    return "".join(map(chr, codes))


@pytest.fixture(scope="module")
def engine():
    connection = ibis.duckdb.connect()
    yield connection
    connection.disconnect()


def read_column(engine, texts, read):
    rows = ibis.memtable(pa.table({"text": pa.array(texts, pa.string()), "place": range(len(texts))}))
    return engine.to_pyarrow(rows.select("place", value=read(normalise(rows.text))).order_by("place"))["value"].to_pylist()


@pytest.mark.slow
@pytest.mark.parametrize("marks", MARKS)
def test_a_number_is_the_decimal_that_is_written(engine, marks):
    decimal, thousands = marks
    texts = draw_cells(number, CELLS // len(MARKS), f"{SEED}{marks}")
    for text, value in zip(texts, read_column(engine, texts, lambda column: read_numbers(column, decimal, thousands)), strict=True):
        normal = normalise_text(text)
        expected = read_number(normal, decimal, thousands)
        assert (None if value in (float("inf"), float("-inf")) else value) == expected, repr(text)
        if expected is not None:
            assert expected == float(by_decimal(normal, decimal, thousands)), repr(text)


def by_decimal(text, decimal, thousands):
    """Read a number with `decimal`, from its marks alone: groups of three, one sign."""
    negative = text[0] in "-−(" or text[-1] in "-−"
    body = re.sub("^[-+−( \u00a0\u202f\u2007\u2009]+|[-+−) \u00a0\u202f\u2007\u2009]+$", "", text)
    whole, mark, rest = body.partition(decimal)
    spaces = {" ": " \u00a0\u202f\u2007\u2009", "'": "'’"}.get(thousands, thousands)
    groups = [""]
    for character in whole:
        if character in spaces:
            groups.append("")
        else:
            groups[-1] += character
    assert len(groups) == 1 or (len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])), text
    try:
        number = Decimal("".join(groups) + mark.replace(decimal, ".") + rest)
    except InvalidOperation:
        raise AssertionError(f"{text!r} is no number") from None
    return -number if negative else number


@pytest.mark.slow
def test_a_time_is_the_instant_that_is_written_on_both_sides(engine):
    service, texts = TypeAdapter(Moment), draw_cells(time)
    for text, value in zip(texts, read_column(engine, texts, read_times), strict=True):
        normal = normalise_text(text)
        expected = read_time(normal)
        if expected is None or not is_in_range(expected):
            assert value is None or not is_in_range(value), repr(text)
            continue
        assert value == expected, repr(text)
        instant = dateutil_parser.isoparse(normal.upper().replace(" UTC", "Z").replace(" +", "+").replace(" ", "T").replace("GMT", "Z"))
        assert expected == instant.replace(tzinfo=instant.tzinfo or DATEUTIL_UTC).astimezone(UTC).replace(tzinfo=None), repr(text)
        if len(normal) > len("2024-05-01"):  # the service takes no date alone
            assert service.validate_python(text) == expected


@pytest.mark.slow
def test_a_boolean_is_one_of_its_words(engine):
    texts = draw_cells(word)
    assert read_column(engine, texts, read_booleans) == [read_boolean(normalise_text(text)) for text in texts]


@pytest.mark.parametrize(
    ("text", "number"),
    [("-1.234,50", -1234.5), ("−12,50", -12.5), ("12,50-", -12.5), ("- 12,50", -12.5), ("(12,50)", -12.5), ("1.234", 1234), (",5", 0.5),
     ("-12.50", None), ("-1.5", None), ("1.2.3.4", None), ("1,234.50", None), ("--12,50", None), ("1.23", None), ("1234.567,8", None),
     ("-12,50-", None), ("(-12,50)", None), ("12,50 EUR", None)],
)  # fmt: skip
def test_a_german_number(text, number):
    assert read_number(text, ",", ".") == number


@pytest.mark.parametrize("text", ["2024-05-01T24:00:00", "2024-05-01T23:59:60", "2024-05-01T10:00:00+99:99", "20240501T100000", "45413.375",
                                  "2024-5-1 9:05", "2024-W18-3T10:00", "2024-05-01T10", "1024-05-01T10:00", "9999-12-31T00:00",
                                  "1970-01-01T00:30:00+01:00"])  # fmt: skip
def test_what_neither_ledger_nor_service_takes(engine, text):
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(text)
    (value,) = read_column(engine, [text], read_times)
    assert value is None or not is_in_range(value)


def test_a_code_is_itself_and_nothing_else():
    assert code_spellings("1") == code_spellings("1.0") == ("1", "1.0")
    assert code_spellings("-999") == ("-999", "-999.0")
    assert code_spellings("007") == ("007",)
    assert code_spellings("NO") == ("NO",)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-07-01 12:00", datetime(2024, 7, 1, 10)),
        ("2024-01-01 12:00", datetime(2024, 1, 1, 11)),
        ("2024-01-01T12:00Z", datetime(2024, 1, 1, 12)),
        ("2024-10-27 02:30", datetime(2024, 10, 27, 0, 30)),  # twice: the first
        ("2024-10-27 03:00", datetime(2024, 10, 27, 2)),
        ("2024-03-31 02:30", None),  # never
        ("2024-03-31 03:00", datetime(2024, 3, 31, 1)),
    ],
)
def test_the_clock_of_a_zone(engine, text, instant):
    assert read_column(engine, [text], lambda column: read_times(column, "Europe/Prague")) == [instant]


def test_a_clock_that_is_put_back_half_an_hour(engine):
    texts = ["2024-04-07 01:45", "2024-04-07 02:00"]
    assert read_column(engine, texts, lambda column: read_times(column, "Australia/Lord_Howe")) == [
        datetime(2024, 4, 6, 14, 45),
        datetime(2024, 4, 6, 15, 30),
    ]


BESIDE = {"€": "", "EUR": "", "kr.": "", "DR": "-", "D": "-", "CR": "+"}
BEFORE = ["", "", "-", "(", "- ", "€", "€ ", "EUR ", "-€", "DR ", "kr."]
AFTER = ["", "", " €", "€", " EUR", " DR", "DR", " D", "CR", " CR", "-", " EUR DR", ")", " DR-", "X"]


def number_beside(draw):
    """Return what looks like a number between texts."""
    return draw.choice(BEFORE) + number(draw) + draw.choice(AFTER)


@pytest.mark.slow
@pytest.mark.parametrize("marks", MARKS)
def test_texts_beside_a_number_are_read_alike_on_both_sides(engine, marks):
    decimal, thousands = marks
    texts = draw_cells(number_beside, CELLS // len(MARKS), f"{SEED}{marks}")
    for text, value in zip(texts, read_column(engine, texts, lambda column: read_numbers(column, decimal, thousands, BESIDE)), strict=True):
        expected = read_number(normalise_text(text), decimal, thousands, BESIDE)
        assert (None if value in (float("inf"), float("-inf")) else value) == expected, repr(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("€ 5", 5), ("-€5", -5), ("5 €", 5), ("(€5)", -5), ("5 €-", -5), ("€ -5", -5), ("12.00 DR", -12), ("12.00CR", 12), ("EUR 1.00 DR", -1),
     ("-12.00 DR", None), ("(12.00) CR", None), ("DR 12.00", None), ("€ € 5", None), ("5 dr", None), ("€", None), ("5 € DR", None),
     ("5X", None)],
)  # fmt: skip
def test_a_number_with_a_text_beside(engine, text, number):
    assert read_number(text, beside=BESIDE) == number
    assert read_column(engine, [text], lambda column: read_numbers(column, beside=BESIDE)) == [number]


LANGUAGES = ["en", "de", "fr", "es", "it", "nl", "pt"]
FORMS = ["%d %b %Y", "%d-%b-%y", "%d. %B %Y", "%B %d, %Y", "%d%b%Y", "%d.%m.%Y", "%m/%d/%Y %I:%M %p", "%d/%m/%y %H:%M:%S", "%Y%m%d",
         "%d %b %Y %H:%M %z", "%Y-%m-%dT%H:%M:%S%z", "epoch_s", "epoch_ms"]  # fmt: skip
MONTHS = [name for language in LANGUAGES for names in month_names(language) for name in names]
DAYS = ["{0} {1} {2}", "{0:02d}-{1}-{3:02d}", "{0}. {1} {2}", "{1} {0}, {2}", "{0:02d}{1}{2}", "{0} {1} {2} 10:30 Z"]


def day_in_words(draw):
    """Return a day whose month has a name."""
    name = draw.choice(MONTHS) if draw.random() < 0.5 else draw.choice(["Jan.", "MAY", "Märzz", "xyz", "12"])
    year = draw.randint(1960, 2110)
    return draw.choice(DAYS).format(draw.randint(0, 32), draw.choice([str, str.title, str.upper])(name), year, year % 100)


def day_in_figures(draw):
    """Return a day, or a time, in one of the orders of figures."""
    p = parts(draw)
    return draw.choice([
        f"{p[2]:02d}.{p[1]:02d}.{p[0]}",
        f"{p[1]}/{p[2]}/{p[0]} {p[4]}:{p[5]:02d} {'PM' if p[2] % 2 else 'a.m.'}",
        f"{p[2]}/{p[1]}/{p[0][2:]} {p[4]:02d}:{p[5]:02d}:00",
        f"{p[0]}-{p[1]:02d}-{p[2]:02d}T{p[4]:02d}:{p[5]:02d}:00{p[7]}",
        f"{p[0]}{p[1]:02d}{p[2]:02d}",
    ])  # fmt: skip


def written(draw):
    """Return what looks like a time in some format."""
    kind = draw.randrange(8)
    if kind > 2:
        return day_in_figures(draw)
    if kind == 2:
        return day_in_words(draw)
    return str(draw.randint(0, 5 * 10**12)) if kind else letters(draw, "0123456789 -./:JanuarMäz", 14)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_time_in_a_format_is_read_alike_on_both_sides(engine, form):
    first = 3 * FORMS.index(form)
    for place in range(first, first + 3 if "%b" in form.lower() else first + 1):
        check_time_in_format(engine, form, LANGUAGES[place % len(LANGUAGES)], draw_cells(written, 1_200, f"{SEED}{place}"))


def check_time_in_format(engine, form, language, texts):
    def read(column):
        refused = ibis.literal("refused")
        iso = iso_of_epoch(column, form, refused) if form in PER_SECOND else iso_of_format(column, form, language, refused)
        return read_times(iso)

    for text, value in zip(texts, read_column(engine, texts, read), strict=True):
        expected = read_time_in_format(normalise_text(text), form, language)
        if expected is None or not is_in_range(expected):
            assert value is None or not is_in_range(value), repr(text)
        else:
            assert value == expected, repr(text)


@pytest.mark.parametrize(
    ("text", "form", "language", "iso"),
    [("3 Jan 2024", "%d %b %Y", "en", "2024-01-03"), ("03-JAN-24", "%d-%b-%y", "en", "2024-01-03"),
     ("3. Januar 2024", "%d. %B %Y", "de", "2024-01-03"), ("3. January 2024", "%d. %B %Y", "de", "2024-01-03"),
     ("3. Januar 2024", "%d. %B %Y", "en", None), ("3. März 2024", "%d. %b %Y", "de", "2024-03-03"),
     ("3 janvier 2024", "%d %b %Y", "fr", None), ("3 févr. 2024", "%d %b %Y", "fr", "2024-02-03"),
     ("1 Dez 69", "%d %b %y", "de", "1969-12-01"), ("1 Dez 70", "%d %b %y", "de", "1970-12-01"),
     ("12:05 AM 3 May 2024", "%I:%M %p %d %b %Y", "en", "2024-05-03 00:05:00"),
     ("12:05 p.m. 3 May 2024", "%I:%M %p %d %b %Y", "en", "2024-05-03 12:05:00"),
     ("13:05 PM 3 May 2024", "%I:%M %p %d %b %Y", "en", None), ("3 Janu 2024", "%d %b %Y", "en", None)],
)  # fmt: skip
def test_a_day_with_a_month_in_words(engine, text, form, language, iso):
    assert iso_in_format(text, form, language) == iso
    assert read_column(engine, [text], lambda column: iso_of_format(column, form, language, ibis.null("string"))) == [iso]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_name_is_that_of_two_months(language):
    names = [name for month in month_names(language) for name in month]
    assert len(names) == len(set(names))
    assert {"jan", "january", "dec", "december"} <= set(names)
