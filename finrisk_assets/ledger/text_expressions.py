"""Columns of text read in the engine, by the grammar of `schemas.text_values`: the same text is the same value in ledger and service.

Every function takes a text column in normal form and returns null where the text is no such value.
"""

import re
from functools import partial
from unicodedata import normalize

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from schemas.normal_form import TRIMMED_RANGES
from schemas.text_values import FALSE, NEGATIVE, TIME, TRUE, number_pattern, unsigned_pattern

_PLAIN_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?)?$"
"""A time without an offset as most files write it: the engine's cast reads it whole."""

_FOLDS_S = (7200, 3600, 1800)
"""Seconds by which clocks are put back."""

_NOT_PLAIN = r"^ |[^ -~]| \z"
"""A text that may not be in normal form: anything but printable ASCII without a space at either end."""
_EDGES = r"^[{0}]+|[{0}]+\z".format("".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in TRIMMED_RANGES))


@ibis.udf.scalar.builtin
def nfc_normalize(text: str) -> str:
    """Bring text into Unicode's form NFC. DuckDB has this function, Spark learns it by `add_functions`."""
    raise NotImplementedError("the engine carries it out")


@ibis.udf.scalar.builtin(name="timezone", signature=((dt.string, dt.timestamp), dt.Timestamp(timezone="UTC")))
def instant_at_zone(zone, local):  # type: ignore[no-untyped-def]
    """Return the instant of a local time, as DuckDB and PostgreSQL compute it."""
    raise NotImplementedError("the engine carries it out")


@ibis.udf.scalar.builtin(name="timezone", signature=((dt.string, dt.Timestamp(timezone="UTC")), dt.timestamp))
def local_time_at_zone(zone, instant):  # type: ignore[no-untyped-def]
    """Return the local time of an instant, likewise."""
    raise NotImplementedError("the engine carries it out")


def add_functions(connection: ibis.BaseBackend) -> None:
    """Add to an engine the functions that it lacks, so that it can carry out the contract: NFC on Spark."""
    if connection.name == "pyspark":
        connection._session.udf.register("nfc_normalize", partial(normalize, "NFC"))


def normalise(text: ir.StringValue) -> ir.StringValue:
    """Bring text into the normal form of `schemas.normal_form`, as `normalise_text` does."""
    # Spark computes a function of Python's for every row, whatever the case says, and so for null.
    normal = nfc_normalize(text.fill_null("").re_replace(_EDGES, ""))
    # Few texts are not plain; for the others one pattern is cheaper than two.
    return ibis.cases((text.re_search(_NOT_PLAIN), normal), else_=text)


def read_numbers(text: ir.StringValue, decimal: str = ".", thousands: str = "") -> ir.FloatingValue:
    """Return the numbers of a column as float64; an infinity where one is beyond its range."""
    unsigned = text.re_replace(unsigned_pattern(thousands), "")
    if decimal != ".":
        unsigned = unsigned.replace(decimal, ".")
    number = unsigned.try_cast("float64")
    marked = ibis.cases((text.re_search(NEGATIVE), -number), else_=number)
    written = text.replace(thousands, "") if thousands and thousands not in " '" else text
    written = written.replace(decimal, ".") if decimal != "." else written
    return ibis.cases(
        (text.re_search(_plain_number(decimal, thousands)), written.try_cast("float64")),
        (text.re_search(number_pattern(decimal, thousands)), marked),
        else_=ibis.null("float64"),
    )


def _plain_number(decimal: str, thousands: str) -> str:
    """Return the pattern of a number as most files write it: read without the work that signs and spaces need."""
    mark, digits = re.escape(decimal), "[0-9]+"
    if thousands and thousands not in " '":
        digits = f"(?:[0-9]+|[0-9]{{1,3}}(?:{re.escape(thousands)}[0-9]{{3}})+)"
    return rf"^-?{digits}(?:{mark}[0-9]+)?$"


def read_booleans(text: ir.StringValue) -> ir.BooleanValue:
    """Return the truth values of a column."""
    word = text.lower()
    return ibis.cases((word.isin(TRUE), True), (word.isin(FALSE), False), else_=ibis.null("boolean"))


def read_times(text: ir.StringValue, zone: str | None = None) -> ir.TimestampValue:
    """Return the times of a column as naive UTC.

    Parameters
    ----------
    zone
        The IANA zone of times without an offset, by default UTC. A local time that a clock change repeats is its first; one that a
        clock change skips is none.
    """
    # Groups are extracted, never replaced: the engines disagree on how a replacement names a group.
    clock = text.re_extract(TIME, 2).replace(",", ".")
    written = ibis.cases((clock == "", text.re_extract(TIME, 1)), else_=text.re_extract(TIME, 1) + " " + clock)
    local = ibis.cases((text.re_search(TIME), written.try_cast("timestamp")), else_=ibis.null("timestamp"))
    offset = text.re_extract(TIME, 3)
    digits = offset.re_replace("[^0-9]", "").rpad(4, "0")
    hours, minutes = digits.substr(0, 2).try_cast("int64"), digits.substr(2, 2).try_cast("int64")
    sign = offset.startswith("-").ifelse(-1, 1)
    utc = local - (sign * (hours * 60 + minutes)).fill_null(0).as_interval("m")
    if zone is None:
        return ibis.cases((text.re_search(_PLAIN_TIME), text.try_cast("timestamp")), else_=utc)
    return ibis.cases((offset == "", _utc_of_zone(local, zone)), else_=utc)


def _utc_of_zone(local: ir.TimestampValue, zone: str) -> ir.TimestampValue:
    """Return local times of a zone as naive UTC: the earlier of two, null where there is none."""
    utc = local_time_at_zone("UTC", instant_at_zone(zone, local))

    def is_of(time: ir.TimestampValue) -> ir.BooleanValue:
        return local_time_at_zone(zone, instant_at_zone("UTC", time)) == local

    earlier = [utc - ibis.interval(seconds=seconds) for seconds in _FOLDS_S]
    return ibis.cases(*((is_of(time), time) for time in (*earlier, utc)), else_=ibis.null("timestamp"))
