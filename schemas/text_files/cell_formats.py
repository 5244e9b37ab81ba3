"""The format of a column's cells: numbers with their marks, dates with their order, codes of a missing value."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import product
from typing import Any, Literal, TypeVar, get_args

from schemas.date_formats import EPOCH_END_S, PER_SECOND, Language, iso_of_format, read_time_in_format
from schemas.normal_form import normalise_text
from schemas.text_values import FALSE, TRUE, is_in_range, read_number

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

_CODES = """
EUR USD GBP CHF CZK PLN HUF SEK NOK DKK CAD AUD NZD JPY INR BRL SGD ZAR RON BGN TRY MXN CNY HKD VND IDR
"""
CURRENCIES = tuple(_CODES.split())
SIGNS = {"€": "EUR", "£": "GBP", "$": "USD"}
"""Sign of a currency -> its code."""
_CURRENCY_MARKS = (*CURRENCIES, *SIGNS, "¥", "₹", "kr.", "kr", "zł", "Kč", "Fr.", "Ft", "R$")
_SIGN_WORDS = {"CR": "+", "C": "+", "H": "+", "DR": "-", "D": "-", "S": "-"}
_EITHER = "|".join(re.escape(mark) for mark in sorted(_CURRENCY_MARKS, key=lambda mark: -len(mark)))
_BEFORE = re.compile(rf"^[-+−(]?\s?({_EITHER})(?=[\s0-9.,+−(-])", re.IGNORECASE)
_BEHIND = re.compile(rf"[0-9.,)−+-]\s?({_EITHER}|{'|'.join(_SIGN_WORDS)})[)]?(?:\s?[-+−])?$", re.IGNORECASE)

_CLOCK = re.compile(
    r"(?P<gap>T|,? +)(?P<clock>[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?)(?P<half> ?[AaPp]\.?[Mm]\.?)?(?P<zone> ?[+-][0-9:]{2,6}|Z)?$"
)
_DAY_PARTS = re.compile(r"[0-9]+|[^\W\d_]+|[^\w%]+")


@dataclass(frozen=True)
class NumberFormat:
    """The marks of a column's numbers, and the texts beside them (`schemas.text_values.read_number`)."""

    decimal: str = "."
    thousands: str = ""
    beside: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str) -> float | None:
        """Return the number of a cell; None where it is none."""
        return read_number(normalise_text(text), self.decimal, self.thousands, self.beside)


@dataclass(frozen=True)
class DateFormat:
    """The format of a column's times, and the language of their months (`schemas.date_formats`); an empty form is ISO 8601."""

    form: str = ""
    language: Language = "en"

    def read(self, text: str) -> datetime | None:
        """Return the time of a cell, naive UTC; None where it is none, or of another year than 1970 to 2099."""
        time = read_time_in_format(normalise_text(text), self.form, self.language)
        return time if time is not None and is_in_range(time) else None

    def read_day(self, text: str) -> date | None:
        """Return the day of a cell as it is written, whatever its offset; None where `read` reads no time."""
        if self.read(text) is None:
            return None
        return date.fromisoformat(str(iso_of_format(normalise_text(text), self.form, self.language))[:10])


_Format = TypeVar("_Format", NumberFormat, DateFormat)


@dataclass(frozen=True)
class ColumnFormat:
    """The format of a column, as far as its values tell.

    Attributes
    ----------
    kind
        What the values are.
    numbers, dates
        Formats that fit the values equally well and read them differently, the likeliest first; none for another kind.
    missing
        Codes that mean that there is no value.
    is_sure
        Whether the rest of the file decides between several formats.
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
    numbers: tuple[NumberFormat, ...] = ()
    dates: tuple[DateFormat, ...] = ()
    missing: tuple[str, ...] = ()
    is_sure: bool = False
    is_whole: bool = False
    is_negative: bool = False
    is_unique: bool = False
    distinct: dict[str, int] = field(default_factory=dict)
    blank_share: float = 0.0
    first: datetime | None = None
    last: datetime | None = None
    lowest: float = float("nan")
    highest: float = float("nan")

    @property
    def decimal(self) -> str:
        """The decimal mark."""
        return self.numbers[0].decimal if self.numbers else "."

    @property
    def thousands(self) -> str:
        """The mark between thousands."""
        return self.numbers[0].thousands if self.numbers else ""

    @property
    def format(self) -> str:
        """The format of times; empty for ISO 8601."""
        return self.dates[0].form if self.dates else ""

    @property
    def doubts(self) -> tuple[str, ...]:
        """Sentences on what the values leave open."""
        if len(self.dates) > 1:
            return ("no day is later than the 12th, so the order of day and month is a guess",)
        if self.format == "epoch_s":
            return ("ten digits may be another number than seconds since 1970",)
        return ("the values fit more than one pair of marks",) if len(self.numbers) > 1 and not self.is_sure else ()


def is_value(text: str) -> bool:
    """Return whether a text is a number or a date, which no column's name is."""
    return find_numbers([text]) != () or find_dates([text]) != ()


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
    common: dict[str, Any] = {
        "distinct": dict(counts.most_common()) if len(counts) <= 50 else {},
        "is_unique": len(counts) == len(values),
        "blank_share": 1 - len(values) / len(given),
    }
    is_word = all(text.lower() in (*TRUE, *FALSE) for text in counts)
    if is_word and (len(counts) == 2 or not set(counts) <= {"0", "1"}):
        return ColumnFormat("boolean", missing=tuple(words), is_whole=all(text in ("0", "1") for text in counts), **common)
    if dates := find_dates(values):
        times = [time for text in counts if (time := dates[0].read(text))]
        return ColumnFormat("time", dates=dates, missing=tuple(words), first=min(times), last=max(times), **common)
    if not (formats := find_numbers(values)):
        return ColumnFormat("text", missing=tuple(words), **common)
    of_file = [one for one in formats if one.decimal == decimal]
    numbers = (*of_file, *(one for one in formats if one not in of_file))
    read = [number for text in values if (number := numbers[0].read(text)) is not None]
    codes = _sentinels(read)
    rest = [number for number in read if number not in codes] or read
    return ColumnFormat(
        "number", numbers=numbers, is_sure=bool(of_file), missing=(*words, *(f"{code:g}" for code in codes)),
        is_whole=all(number == int(number) for number in rest), is_negative=min(rest) < 0, lowest=min(rest), highest=max(rest), **common,
    )  # fmt: skip


def find_numbers(texts: Iterable[str], decimals: str = ".,") -> tuple[NumberFormat, ...]:
    """Find the formats that read most of the texts as numbers; several where they differ in what they read, none where too few read.

    Parameters
    ----------
    texts
        Cells; blank ones do not count.
    decimals
        The decimal marks that are tried.
    """
    counts = Counter(text for text in map(normalise_text, texts) if text)
    beside = _find_texts_beside(counts)
    is_of_marks = all(re.fullmatch(r"[-+−0-9.,'’() \u00a0\u202f]+", text) for text in counts)
    formats = [NumberFormat(*marks, beside) for marks in MARKS if marks[0] in decimals]
    best = _fit_best(formats, counts, LEAST_SHARE_OF_MARKS if is_of_marks else LEAST_SHARE)
    return tuple(sorted(best, key=lambda numbers: numbers.decimal != "."))


def find_dates(texts: Iterable[str]) -> tuple[DateFormat, ...]:
    """Find the formats that read most of the texts as times; several where days and months can be taken for each other.

    Parameters
    ----------
    texts
        Cells; blank ones do not count.
    """
    counts = Counter(text for text in map(normalise_text, texts) if text)
    if not any(text[0].isdigit() or text[-1].isdigit() for text in counts):
        return ()
    if iso := _fit_best([DateFormat()], counts):
        return iso
    whole = [text for text in counts if re.fullmatch("[0-9]{10}|[0-9]{13}", text)]
    if sum(counts[text] for text in whole) >= LEAST_SHARE * counts.total():
        form = "epoch_ms" if min(map(len, whole)) == 13 else "epoch_s"
        near = [text for text in whole if 10**9 <= int(text) / PER_SECOND[form] < EPOCH_END_S / 2]
        return (DateFormat(form),) if sum(counts[text] for text in near) >= LEAST_SHARE * counts.total() else ()
    possible = next((dates for text in counts if (dates := list(_possible_dates(text)))), [])
    best = _fit_best(possible, counts)
    return best[:1] if best and "." in best[0].form else best  # the day comes first where points stand between


def _fit_best(formats: Iterable[_Format], counts: Mapping[str, int], least_share: float = LEAST_SHARE) -> tuple[_Format, ...]:
    """Return the formats that read the most texts, and at least a share of them, each reading once."""
    best: dict[tuple[Any, ...], _Format] = {}
    most = least_share * sum(counts.values())
    for one in formats:
        reading = tuple(map(one.read, counts))
        n_read = sum(count for value, count in zip(reading, counts.values(), strict=True) if value is not None)
        if n_read > most:
            best.clear()
        if n_read and n_read >= most:
            best.setdefault(reading, one)
            most = n_read
    return tuple(best.values())


def _find_texts_beside(texts: Iterable[str]) -> dict[str, str]:
    """Return the currencies and the words for a sign that stand beside numbers -> the sign that they give."""
    beside: dict[str, str] = {}
    for text in texts:
        if not (text[0].isdigit() and text[-1].isdigit()):
            found = [match[1] for match in (_BEFORE.search(text), _BEHIND.search(text)) if match]
            beside |= {mark: _SIGN_WORDS.get(mark.upper(), "") for mark in found}
    return dict(sorted(beside.items()))


def _possible_dates(text: str) -> Iterator[DateFormat]:
    """Yield the formats that the shape of a date allows, the likeliest first."""
    if re.fullmatch("[0-9]{8}", text):
        yield from (DateFormat("%Y%m%d"), DateFormat("%d%m%Y"))
        return
    clock = _CLOCK.search(text)
    parts = _DAY_PARTS.findall(text[: clock.start()] if clock else text)
    end = _clock_format(clock) if clock else ""
    values = [place for place, part in enumerate(parts) if part.isalnum()]
    words = [place for place in values if parts[place].isalpha()]
    if len(values) != 3 or len(words) > 1:
        return
    year = next((place for place in values if len(parts[place]) == 4 and place not in words), values[-1])
    rest = [place for place in values if place != year]
    names = ("%b", "%B") if words else ("%m",)
    orders = [rest[::-1], rest] if words[:1] == rest[:1] or "/" in parts else [rest, rest[::-1]]
    orders = orders[:1] if words or year != values[-1] else orders
    for name, language, (day, month) in product(names, get_args(Language) if words else ("en",), orders):
        form = list(parts)
        form[day], form[month], form[year] = "%d", name, "%Y" if len(parts[year]) == 4 else "%y"
        yield DateFormat("".join(form).replace("%b.", "%b") + end, language)


def _clock_format(clock: re.Match[str]) -> str:
    half, zone = clock["half"] or "", clock["zone"] or ""
    seconds = ":%S" if clock["clock"].count(":") == 2 else ""
    marks = (" " * half.startswith(" ") + "%p" if half else "") + (" " * zone.startswith(" ") + "%z" if zone else "")
    return f"{clock['gap']}{'%I' if half else '%H'}:%M{seconds}{marks}"


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
