"""The format of a column's cells: numbers with their marks, dates with their order, codes of a missing value."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from schemas.normal_form import normalise_text
from schemas.text_values import FALSE, NEGATIVE, TRUE, is_in_range, read_number, read_time

Kind = Literal["empty", "number", "boolean", "time", "text"]

MISSING_WORDS = frozenset(
    {"na", "n/a", "#n/a", "nan", "null", "(null)", "\\n", "none", "nil", "-", "--", "?", "."}
    | {"k.a.", "k. a.", "keine angabe", "unknown", "missing"}
)
"""Words that mean that there is no value, in small letters."""
MARKS = ((".", ""), (",", ""), (",", "."), (".", ","), (",", " "), (".", " "), (".", "'"), (",", "'"))
"""The pairs of decimal and thousands marks that are tried, the plainest first."""
LEAST_SHARE = 0.8
"""Share of a column's values that must be of its kind; the rest goes to the quarantine."""
LEAST_SHARE_OF_MARKS = 0.4
"""The same for numbers in a column of nothing but digits, signs and marks, which can be nothing else."""

_DATE = re.compile(
    r"([0-9]{1,4})([-./ ])([0-9]{1,2})\2([0-9]{1,4})(?:([ T]+|, ?)([0-9]{1,2}):([0-9]{2})(:[0-9]{2})?)?( ?[+-][0-9:]{2,6}|Z)?"
)
_COMPACT = re.compile(r"[0-9]{8}")


@dataclass(frozen=True)
class ColumnFormat:
    """The format of a column, as far as its values tell.

    Attributes
    ----------
    kind
        What the values are.
    decimal, thousands
        Marks of numbers.
    format
        Format of times; empty for ISO 8601.
    missing
        Codes that mean that there is no value.
    doubts
        Sentences on what the values leave open.
    is_whole, is_negative, is_unique
        Whether all numbers are whole, any is negative, and each value is there once.
    distinct
        The distinct values with their counts, most frequent first, where they are few.
    blank_share
        Share of rows without a value.
    first, last
        The first and last time, naive UTC.
    lowest, highest
        The smallest and largest number that is no code.
    """

    kind: Kind
    decimal: str = "."
    thousands: str = ""
    format: str = ""
    missing: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    is_whole: bool = False
    is_negative: bool = False
    is_unique: bool = False
    distinct: dict[str, int] = field(default_factory=dict)
    blank_share: float = 0.0
    first: datetime | None = None
    last: datetime | None = None
    lowest: float = float("nan")
    highest: float = float("nan")


def is_value(text: str) -> bool:
    """Return whether a text is a number or a date, which no column's name is."""
    text = normalise_text(text)
    return any(read_number(text, *marks) is not None for marks in MARKS) or read_time(text) is not None or _DATE.fullmatch(text) is not None


def find_format(texts: Sequence[str], *, decimal: str = "") -> ColumnFormat:
    """Find the format of a column.

    Parameters
    ----------
    texts
        The column's cells, as the file has them.
    decimal
        The decimal mark of other columns of the file, where they leave no doubt; it decides where the values fit both marks.
    """
    given = [normalise_text(text) for text in texts]
    is_sign = set(given) <= {"+", "-", ""}  # a column of directions
    words = [] if is_sign else sorted({text for text in given if text.lower() in MISSING_WORDS})
    values = [text for text in given if text and text not in words]
    if not values:
        return ColumnFormat("empty", missing=tuple(words), blank_share=1.0)
    counts = Counter(values)
    distinct = dict(counts.most_common()) if len(counts) <= 50 else {}
    common: dict[str, Any] = {
        "distinct": distinct,
        "is_unique": len(counts) == len(values),
        "blank_share": 1 - len(values) / len(given),
    }
    is_word = all(text.lower() in (*TRUE, *FALSE) for text in counts)
    if is_word and (len(counts) == 2 or not set(counts) <= {"0", "1"}):
        return ColumnFormat("boolean", missing=tuple(words), is_whole=all(text in ("0", "1") for text in counts), **common)
    found = _find_times(values) or _find_numbers(values, decimal)
    if found is None:
        return ColumnFormat("text", missing=tuple(words), **common)
    return ColumnFormat(**{**common, **found, "missing": (*words, *found.get("missing", ()))})


def _find_times(values: Sequence[str]) -> dict[str, Any] | None:
    """Return the fields of a column of times."""
    iso = [time for time in map(read_time, values) if time is not None and is_in_range(time)]
    if len(iso) >= LEAST_SHARE * len(values):
        return {"kind": "time", "first": min(iso), "last": max(iso)}
    if sum(_COMPACT.fullmatch(text) is not None for text in values) >= LEAST_SHARE * len(values):
        return next((found for form in ("%Y%m%d", "%d%m%Y") if (found := _times_of(values, form))), None)
    whole = [int(text) for text in values if re.fullmatch("[0-9]{10}|[0-9]{13}", text)]
    if len(whole) >= LEAST_SHARE * len(values):
        form, unit = ("epoch_ms", 1000) if min(whole) >= 10**12 else ("epoch_s", 1)
        times = [datetime(1970, 1, 1) + timedelta(seconds=number / unit) for number in whole if 10**9 <= number / unit < 2 * 10**9]
        if len(times) >= LEAST_SHARE * len(values):
            doubt = "ten digits may be another number than seconds since 1970"
            return {"kind": "time", "format": form, "first": min(times), "last": max(times), "doubts": (doubt,) if unit == 1 else ()}
    matches = [found for found in map(_DATE.fullmatch, values) if found]
    if len(matches) < LEAST_SHARE * len(values):
        return None
    first, mark, _, third, gap, _, _, seconds, offset = matches[0].groups()
    year_first = len(first) == 4
    if not year_first and len(third) == 3:
        return None
    clock = (gap + "%H:%M" + (":%S" if seconds else "")) if gap else ""
    clock += (" " if offset and offset.startswith(" ") else "") + "%z" if offset else ""
    year = "%Y" if year_first or len(third) == 4 else "%y"
    if year_first:
        return _times_of(values, f"%Y{mark}%m{mark}%d{clock}")
    leads, follows = (max(int(found[place]) for found in matches) for place in (1, 3))
    orders = ["dm"] if leads > 12 else ["md"] if follows > 12 else ["md", "dm"] if mark == "/" else ["dm", "md"]
    for order in orders:
        form = mark.join(f"%{part}" for part in order) + mark + year + clock
        found = _times_of(values, form)
        if found:
            doubt = "no day is later than the 12th, so the order of day and month is a guess"
            return {**found, "doubts": (doubt,) if len(orders) > 1 and mark != "." else ()}
    return None


def _times_of(values: Sequence[str], form: str) -> dict[str, Any] | None:
    """Return the fields of a column whose values are times in a format."""
    times = []
    for text in values:
        try:
            time = datetime.strptime(text, form)
        except ValueError:
            continue
        time = time.replace(tzinfo=None) - (time.utcoffset() or timedelta())
        if is_in_range(time):
            times.append(time)
    if len(times) < LEAST_SHARE * len(values):
        return None
    return {"kind": "time", "format": form, "first": min(times), "last": max(times)}


def _find_numbers(values: Sequence[str], decimal: str) -> dict[str, Any] | None:
    """Return the fields of a column of numbers; None where no pair of marks reads them."""
    read: dict[tuple[str, str], list[float]] = {}
    is_of_marks = all(re.fullmatch(r"[-+−0-9.,'’() \u00a0\u202f]+", text) for text in values)
    least = (LEAST_SHARE_OF_MARKS if is_of_marks else LEAST_SHARE) * len(values)
    for marks in MARKS:
        numbers = [number for text in values if (number := read_number(text, *marks)) is not None]
        if len(numbers) >= least:
            read[marks] = numbers
    if not read:
        return None
    most = max(map(len, read.values()))
    fitting = [marks for marks in MARKS if len(read.get(marks, ())) == most]
    differ = [marks for marks in fitting if read[marks] != read[fitting[0]]]
    marks, doubts = fitting[0], list[str]()
    if differ:  # 1,234 is one and a bit, or a thousand and more
        of_file = [marks for marks in fitting if marks[0] == decimal]
        marks = (of_file or [marks for marks in fitting if marks[0] == "."] or fitting)[0]
        doubts = [] if of_file else ["the values fit more than one pair of marks"]
    numbers = read[marks]
    missing = _sentinels(numbers)
    rest = [number for number in numbers if number not in missing] or numbers
    return {
        "kind": "number", "decimal": marks[0], "thousands": marks[1], "doubts": tuple(doubts),
        "missing": tuple(f"{number:g}" for number in missing),
        "is_whole": all(number == int(number) for number in rest),
        "lowest": min(rest), "highest": max(rest),
        "is_negative": any(re.search(NEGATIVE, text) for text in values) and min(rest) < 0,
    }  # fmt: skip


def _sentinels(numbers: Sequence[float]) -> tuple[float, ...]:
    """Return numbers that look like codes: -1, -9, -999 among numbers from zero upwards, or 98 and 999 far above all others."""
    distinct = sorted(set(numbers))
    if len(distinct) < 4:
        return ()
    codes = []
    negative = [number for number in distinct if number < 0]
    # -2 beside -1 is a scale; -7, -8 and -9 are codes.
    if negative and (negative == [-1] or all(re.fullmatch("-(?:[789]|9[0-9]|99+[0-9]|8+|7+)", f"{number:g}") for number in negative)):
        codes += negative
    rest = [number for number in distinct if number >= 0]
    while len(rest) > 3 and re.fullmatch("9[0-9]|99+[0-9]", f"{rest[-1]:g}") and numbers.count(rest[-1]) > 1:
        below = next((number for number in reversed(rest) if not re.fullmatch("9[0-9]|99+[0-9]", f"{number:g}")), None)
        if below is None or rest[-1] <= 3 * below:
            break
        codes.append(rest.pop())
    return tuple(codes)
