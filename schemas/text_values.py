"""The one grammar of numbers, times, booleans and codes that are written as text, for ledger and service.

A text is read as it is written, or it is not read at all. This module holds the patterns and reads one text with Python;
`finrisk_assets.ledger.text_expressions` reads a column with the same patterns in the engine. The patterns are of the common part of
RE2, Java and Python. All texts are in normal form (`schemas.normal_form`), so that space around a value means nothing.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache

TRUE = ("true", "t", "yes", "y", "1", "1.0")
FALSE = ("false", "f", "no", "n", "0", "0.0")
"""The words of a boolean, in small letters."""

MINUS = "-\u2212"
"""The hyphen and Unicode's minus."""
SPACES = " \u00a0\u2007\u2009\u202f"
"""The spaces that stand in numbers: plain, no-break, figure, thin and narrow no-break."""
APOSTROPHES = "'\u2019"

NOT_FINITE = r"^[+-]?(nan|inf|infinity)$"
"""Words for a number that is none, in small letters."""

FIRST_TIME, LAST_TIME = datetime(1970, 1, 1), datetime(2100, 1, 1)
"""The first time that is taken, and the first that is no more, UTC. Times outside are errors, such as milliseconds read as seconds."""

_HOUR, _SIXTY = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
OFFSET = rf"[Zz]|UTC|GMT|[+-]{_HOUR}(?::?{_SIXTY})?"
"""An offset from UTC."""
TIME = rf"^([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[Tt ]({_HOUR}:{_SIXTY}(?::{_SIXTY}(?:[.,][0-9]{{1,9}})?)?)(?: ?({OFFSET}))?)?$"
"""ISO 8601 in its extended form: day, time and offset are groups 1 to 3. No 24:00, no second 60, no week or day of the year.

RFC 3339's small letters, ``UTC`` and a space before the offset are taken too.
"""

_CODE_NUMBER = r"[+-]?(?:0|[1-9][0-9]*)(?:\.0)?"
_COMPILED_TIME = re.compile(TIME)


@cache
def number_pattern(decimal: str = ".", thousands: str = "") -> str:
    """Return the pattern of a number.

    A sign stands before or after the digits; parentheses mean a negative number, as in accounts. Marks between thousands stand between
    groups of three, or nowhere.

    Parameters
    ----------
    decimal
        The decimal mark, ``.`` or ``,``.
    thousands
        The mark between thousands; empty means none. A space stands for any of `SPACES`, an apostrophe for any of `APOSTROPHES`.
    """
    mark, space = re.escape(decimal), f"[{SPACES}]?"
    digits = f"(?:[0-9]+(?:{mark}[0-9]*)?|{mark}[0-9]+)"
    scientific = f"{digits}(?:[eE][+-]?[0-9]+)?"
    if thousands:
        grouped = f"[0-9]{{1,3}}(?:{thousands_class(thousands)}[0-9]{{3}})+(?:{mark}[0-9]*)?"
        digits, scientific = f"(?:{grouped}|{digits})", f"(?:{grouped}|{scientific})"
    sign = f"[+{re.escape(MINUS)}]"
    return rf"^(?:(?:{sign}{space})?{scientific}|{digits}{space}{sign}|\({digits}\))$"


def thousands_class(thousands: str) -> str:
    """Return the class of characters that a mark between thousands stands for."""
    return f"[{re.escape({' ': SPACES, chr(39): APOSTROPHES}.get(thousands, thousands))}]"


NEGATIVE = f"^[{re.escape(MINUS)}(]|[{re.escape(MINUS)}]$"
"""The marks of a negative number, in a text of `number_pattern`."""


def unsigned_pattern(thousands: str = "") -> str:
    """Return the pattern of all that is not digits, decimal mark or exponent, in a text of `number_pattern`."""
    sign, space = f"[+{re.escape(MINUS)}]", f"[{SPACES}]?"
    marks = f"|{thousands_class(thousands)}" if thousands else ""
    return rf"^{sign}{space}|{space}{sign}$|[()]{marks}"


def mark_patterns(beside: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the patterns of a number with a text before it, as ``€ 5``, and with one behind it, as ``5 DR``.

    The groups are what stands before the text, the text, and what stands behind it. A text that gives a sign stands behind the number;
    the first pattern is None where all texts give one.

    Parameters
    ----------
    beside
        Text -> the sign that it gives: ``-``, ``+`` or empty for none.
    """
    sign, space = f"[+{re.escape(MINUS)}]", f"[{SPACES}]?"
    texts = [re.escape(text) for text in sorted(beside, key=lambda text: (-len(text), text))]
    unsigned = [re.escape(text) for text in sorted(beside, key=lambda text: (-len(text), text)) if not beside[text]]
    before = rf"^({sign}{space}|\(|)({'|'.join(unsigned)}){space}(.+)$" if unsigned else None
    return before, rf"^(.+?){space}({'|'.join(texts)})(\)|{space}{sign}|)$"


SIGNED = f"^[+{re.escape(MINUS)}(]|[+{re.escape(MINUS)})]$"
"""The marks of a number that has a sign of its own."""


def read_number(text: str, decimal: str = ".", thousands: str = "", beside: Mapping[str, str] | None = None) -> float | None:
    """Return the number that a text in normal form is; None where it is none, or beyond a float's range.

    Parameters
    ----------
    decimal, thousands
        As of `number_pattern`.
    beside
        As of `mark_patterns`. A number with a sign of its own and one beside it is none.
    """
    if beside:
        before, behind = mark_patterns(beside)
        if before and (found := re.fullmatch(before, text)):
            text = found[1] + found[3]
        if found := re.fullmatch(behind, text):
            text, meant = found[1] + found[3], beside[found[2]]
            number = None if meant and re.search(SIGNED, text) else read_number(text, decimal, thousands)
            return -number if number is not None and meant == "-" else number
    if not re.fullmatch(number_pattern(decimal, thousands), text):
        return None
    number = float(re.sub(unsigned_pattern(thousands), "", text).replace(decimal, "."))
    if number == float("inf"):
        return None
    return -number if re.search(NEGATIVE, text) else number


def read_boolean(text: str) -> bool | None:
    """Return the truth value that a text in normal form is; None where it is none."""
    word = text.lower()
    return True if word in TRUE else False if word in FALSE else None


def read_time(text: str) -> datetime | None:
    """Return the time that a text in normal form is, naive UTC to the microsecond; None where it is none.

    Digits beyond the microsecond are cut off. A date is its midnight; a time without an offset is UTC. A time that its offset moves out of
    Python's calendar is the end of the calendar.
    """
    found = _COMPILED_TIME.fullmatch(text)
    if found is None:
        return None
    day, clock, offset = found.groups()
    try:
        time = datetime(int(day[:4]), int(day[5:7]), int(day[8:]))
    except ValueError:
        return None
    if clock is None:
        return time
    seconds = int(clock[6:8] or 0)
    time += timedelta(hours=int(clock[:2]), minutes=int(clock[3:5]), seconds=seconds, microseconds=int(clock[9:15].ljust(6, "0")))
    if offset is None or offset[0] not in "+-":
        return time
    ahead = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:].removeprefix(":") or 0))
    try:
        return time - ahead if offset[0] == "+" else time + ahead
    except OverflowError:
        return datetime.min if offset[0] == "+" else datetime.max


def is_in_range(time: datetime) -> bool:
    """Return whether a time in naive UTC is of the years 1970 to 2099, the only ones that ledger and service take."""
    return FIRST_TIME <= time < LAST_TIME


def code_spellings(code: str) -> tuple[str, ...]:
    """Return the texts in normal form that are a code: ``1`` is also ``1.0``, and nothing else; ``007`` is itself alone."""
    if not re.fullmatch(_CODE_NUMBER, code):
        return (code,)
    whole = code.removesuffix(".0")
    return (whole, f"{whole}.0")


def code_number(code: str) -> float | None:
    """Return the number that a code is in a column of numbers; None for ``007`` and words, which are text."""
    return float(code) if re.fullmatch(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", code) else None
