"""Amounts and dates as banks write them."""

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from functools import lru_cache

DATE_FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d",
    "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y",
    "%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%y", "%d %b %y",
)  # fmt: skip
"""Formats of dates, the plain ones first."""
_TIME = re.compile(r"[T ]\d{1,2}:\d{2}(:\d{2})?(\.\d+)?( ?[AP]M)?(Z|[+-]\d{2}:?\d{2})?$", re.IGNORECASE)
_AMOUNT = re.compile(r"^\(?[+\-−–]?\s*\d[\d.,'’\s\u00a0\u202f]*\)?[+\-−–]?$")
_MARKS = re.compile(r"(?<![A-Za-z])(EUR|USD|GBP|CHF|SEK|NOK|DKK|PLN|CZK|CAD|AUD)(?![A-Za-z])|[€$£]")
_SUFFIX = re.compile(r"\s*(CR|DR|C|D|S|H)$", re.IGNORECASE)
_MINUSES = "-−–"


@lru_cache(maxsize=10_000)  # a statement has each day many times
def parse_date(text: str, date_format: str) -> date | None:
    """Return the date of a text in a format, with or without a time; None where it is none."""
    try:
        return datetime.strptime(_TIME.sub("", text.strip()), date_format).date()
    except ValueError:
        return None


def find_date_formats(texts: Sequence[str]) -> list[str]:
    """Return the formats in which every text is a date of 1990 to 2099; several where days and months can be taken for each other."""
    different = dict.fromkeys(texts)
    return [
        date_format
        for date_format in DATE_FORMATS
        if different and all((day := parse_date(text, date_format)) is not None and 1990 <= day.year < 2100 for text in different)
    ]


def is_amount(text: str) -> bool:
    """Return whether a text may be an amount."""
    return bool(_AMOUNT.match(_strip_marks(text)))


def find_decimal_marks(texts: Iterable[str]) -> list[str]:
    """Return the decimal marks with which every text is an amount; both where each number can be read in two ways."""
    return [mark for mark in (".", ",") if all(parse_amount(text, mark) is not None for text in texts if text.strip())]


def parse_amount(text: str, decimal: str) -> float | None:
    """Return the amount of a text: signs before or behind, parentheses, CR and DR, a currency, marks between thousands.

    Parameters
    ----------
    decimal
        The decimal mark, a point or a comma; the other one stands between thousands, in groups of three.
    """
    text = _strip_marks(text)
    sign = 1.0
    suffix = _SUFFIX.search(text)
    if suffix and text[: suffix.start()].strip():
        sign = -1.0 if suffix[1].upper() in ("DR", "D", "S") else 1.0
        text = text[: suffix.start()]
    if text.startswith("(") and text.endswith(")"):
        text, sign = text[1:-1], -1.0
    if text[:1] and text[0] in _MINUSES:
        text, sign = text[1:], -sign
    elif text[-1:] and text[-1] in _MINUSES:
        text, sign = text[:-1], -sign
    digits = re.sub(r"['’\s\u00a0\u202f]", "", text.strip("+ "))
    whole, mark, cents = digits.partition(decimal)
    thousands = "," if decimal == "." else "."
    if thousands in cents or decimal in cents or (mark and not cents.isdigit()):
        return None
    if thousands in whole:
        first, *groups = whole.split(thousands)
        if not first or len(first) > 3 or any(len(group) != 3 for group in groups):
            return None
        whole = whole.replace(thousands, "")
    if not (whole + cents).isdigit() or len(whole) > 12:
        return None
    return sign * float(f"{whole or '0'}.{cents or '0'}")


def is_ambiguous(text: str) -> bool:
    """Return whether an amount has two readings: one mark with three digits behind it, as 1.234."""
    readings = {parse_amount(text, mark) for mark in (".", ",")}
    return None not in readings and len(readings) == 2


def _strip_marks(text: str) -> str:
    return _MARKS.sub("", text).strip()
