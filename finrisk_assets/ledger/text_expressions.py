"""Columns of text read in the engine, by the grammar of `schemas.text_values`: the same text is the same value in ledger and service.

Every function takes a text column in normal form and returns null where the text is no such value.
"""

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from schemas.date_formats import EPOCH, EPOCH_END_S, FIRST_YEAR_OF_1900S, PER_SECOND, Language, format_pattern, month_names, split_format
from schemas.normal_form import TRIMMED_RANGES
from schemas.text_values import FALSE, NEGATIVE, SIGNED, TIME, TRUE, mark_patterns, number_pattern, unsigned_pattern

_PLAIN_TIME = r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}(?:[T ](?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?)?$"
"""A time without an offset as most files write it: the engine's cast reads it whole."""

_FOLDS_S = (7200, 3600, 1800)
"""Seconds by which clocks are put back."""

_NOT_PLAIN = r"^ |[^ -~]| \z"
"""A text that may not be in normal form: anything but printable ASCII without a space at either end."""
_EDGES = r"^[{0}]+|[{0}]+\z".format("".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in TRIMMED_RANGES))


@ibis.udf.scalar.builtin
def nfc_normalize(text: str) -> str:
    """Bring text into Unicode's form NFC. DuckDB has this function; an engine without it adds one of this name."""
    raise NotImplementedError("the engine carries it out")


@ibis.udf.scalar.builtin(name="timezone", signature=((dt.string, dt.timestamp), dt.Timestamp(timezone="UTC")))
def instant_at_zone(zone, local):  # type: ignore[no-untyped-def]
    """Return the instant of a local time, as DuckDB and PostgreSQL compute it."""
    raise NotImplementedError("the engine carries it out")


@ibis.udf.scalar.builtin(name="timezone", signature=((dt.string, dt.Timestamp(timezone="UTC")), dt.timestamp))
def local_time_at_zone(zone, instant):  # type: ignore[no-untyped-def]
    """Return the local time of an instant, likewise."""
    raise NotImplementedError("the engine carries it out")


def normalise(text: ir.StringValue) -> ir.StringValue:
    """Bring text into the normal form of `schemas.normal_form`, as `normalise_text` does."""
    # Spark computes a function of Python's for every row, whatever the case says, and so for null.
    normal = nfc_normalize(text.fill_null("").re_replace(_EDGES, ""))
    # Few texts are not plain; for the others one pattern is cheaper than two.
    return ibis.cases((text.re_search(_NOT_PLAIN), normal), else_=text)


def read_numbers(
    text: ir.StringValue, decimal: str = ".", thousands: str = "", beside: Mapping[str, str] | None = None
) -> ir.FloatingValue:
    """Return the numbers of a column as float64; an infinity where one is beyond its range."""
    if beside:
        before, behind = mark_patterns(beside)
        if before:
            text = ibis.cases((text.re_search(before), text.re_extract(before, 1) + text.re_extract(before, 3)), else_=text)
        mark = text.re_extract(behind, 2)
        text = ibis.cases((mark != "", text.re_extract(behind, 1) + text.re_extract(behind, 3)), else_=text)
        number = read_numbers(text, decimal, thousands)
        signs = {sign: mark.isin([mark for mark, meant in beside.items() if meant == sign]) for sign in ("+", "-")}
        is_signed_twice = (signs["+"] | signs["-"]) & text.re_search(SIGNED)
        return ibis.cases((is_signed_twice, ibis.null("float64")), (signs["-"], -number), else_=number)
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


def scale_numbers(number: ir.FloatingValue, factor: float) -> ir.FloatingValue:
    """Return numbers times a factor: an infinity or 0 beyond the range, at which PostgreSQL would end the query."""
    size = abs(factor)
    if size > 1:
        is_beyond, other = number.abs() > math.nextafter(sys.float_info.max / size, 0), math.inf
    else:
        is_beyond, other = number.abs() < math.ulp(0.0) / (size or 1), 0.0
    return number * ibis.cases((is_beyond, math.copysign(other, factor)), else_=float(factor))


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
    # Nine digits of a second are cut to six: engines that round them would move a time into the next day.
    clock = text.re_extract(TIME, 2).substr(0, len("23:59:59.999999")).replace(",", ".")
    written = ibis.cases((clock == "", text.re_extract(TIME, 1)), else_=text.re_extract(TIME, 1) + " " + clock)
    # There is no year 0, though some engines count one.
    is_time = text.re_search(TIME) & ~text.startswith("0000")
    local = ibis.cases((is_time, written.try_cast("timestamp")), else_=ibis.null("timestamp"))
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


def iso_of_epoch(text: ir.StringValue, form: str, otherwise: ir.StringValue) -> ir.StringValue:
    """Return numbers since 1970 as ISO 8601, and `otherwise` where a text is none or of another unit."""
    unit = PER_SECOND[form]
    number = ibis.cases((text.re_search(EPOCH), text.re_replace(r"\.0$", "").try_cast("int64")), else_=ibis.null("int64"))
    is_near = (number < EPOCH_END_S * unit) & ((number >= EPOCH_END_S) if unit > 1 else True)
    # The engine fails at a number beyond its calendar, also in a branch that is not taken.
    near = ibis.cases((is_near, number), else_=0)
    return ibis.cases((is_near, near.as_timestamp("s" if unit == 1 else "ms").cast("string")), else_=otherwise)


def iso_of_format(text: ir.StringValue, form: str, language: Language, otherwise: ir.StringValue) -> ir.StringValue:
    """Return times in a format of directives as ISO 8601, and `otherwise` where a text is not in it."""
    pattern, names = format_pattern(form, language)
    part: dict[str, Any] = {name: text.re_extract(pattern, group) for group, name in enumerate(names, 1)}
    is_written = text.re_search(pattern)
    if "y" in part:
        part["Y"] = ibis.cases((part["y"].try_cast("int64") >= FIRST_YEAR_OF_1900S, "19"), else_="20") + part["y"]
    if (word := part.get("b", part.get("B"))) is not None:
        # One look-up in a text: a case for each month would repeat the pattern twelve times.
        months = enumerate(month_names(language), 1)
        table = ibis.literal("".join(f"|{name}={number:02d}" for number, names in months for name in names))
        part["m"] = table.substr(table.find("|" + word.lower() + "=") + word.length() + 2, 2)
    if "I" in part:
        hour = part["I"].try_cast("int64")
        is_written = is_written & hour.between(1, 12)
        part["H"] = (hour % 12 + part["p"].isin(["P", "p"]).ifelse(12, 0)).cast("string")
    two = {name: part[name].lpad(2, "0") if name in part else "01" if name in "md" else "00" for name in "mdHMS"}
    else_ = ibis.cases((is_written, _iso(part["Y"], two, has_time="H" in part) + part.get("z", "")), else_=otherwise)
    if set(names) & set("yzbBI"):
        return else_
    # Most files write every part in its full width, so that the parts stand at known places: far cheaper than patterns with groups.
    parts = split_format(form)
    widths = [4 if name == "Y" else 2 if name else 1 for name, _ in parts]
    full = "".join(f"[0-9]{{{width}}}" if name else re.escape(literal) for width, (name, literal) in zip(widths, parts, strict=True))
    places = {name: (sum(widths[:position]), widths[position]) for position, (name, _) in enumerate(parts) if name}
    slices = {name: text.substr(*place) for name, place in places.items()}
    return ibis.cases((text.re_search(f"^{full}$"), _iso(slices["Y"], {**two, **slices}, has_time="H" in part)), else_=else_)


def _iso(year: ir.StringValue, two: Mapping[str, Any], *, has_time: bool) -> ir.StringValue:
    """Return the parts of a time, two digits each but the year, as ISO 8601."""
    day = year + "-" + two["m"] + "-" + two["d"]
    return day + " " + two["H"] + ":" + two["M"] + ":" + two["S"] if has_time else day
