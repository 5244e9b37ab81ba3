"""The grammar of times in a stated format, such as ``%d. %B %Y``, for ledger, service and console.

This module holds the patterns and reads one text with Python; `finrisk_assets.ledger.text_expressions` reads a column with the same
patterns in the engine. Names of months never depend on the language of the machine: English ones are always read, and those of one
language more where a mapping names it.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Literal

from schemas.text_values import OFFSET, read_time

DIRECTIVES = frozenset("YymbBdHIpMSz")
"""The parts of a format: those of Python and POSIX."""

Language = Literal["en", "de", "fr", "es", "it", "nl", "pt"]

_FULL: Mapping[str, str] = {
    "en": "january february march april may june july august september october november december",
    "de": "januar|jänner februar|feber märz|maerz april mai juni juli august september oktober november dezember",
    "fr": "janvier février|fevrier mars avril mai juin juillet août|aout septembre octobre novembre décembre|decembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre|setiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
    "pt": "janeiro fevereiro março|marco abril maio junho julho agosto setembro outubro novembro dezembro",
}
_SHORT: Mapping[str, str] = {
    "en": "jan feb mar apr may jun jul aug sep|sept oct nov dec",
    "de": "jan|jän feb mär|mrz|märz apr mai jun|juni jul|juli aug sep|sept okt nov dez",
    "fr": "janv|jan févr|fevr|fév|fev mars|mar avr mai juin juil août|aout sept|sep oct nov déc|dec",
    "es": "ene feb mar abr may jun jul ago sept|sep|set oct nov dic",
    "it": "gen feb mar apr mag giu lug ago set|sett ott nov dic",
    "nl": "jan feb mrt apr mei jun jul aug sep|sept okt nov dec",
    "pt": "jan fev mar abr mai jun jul ago set out nov dez",
}

PER_SECOND: Mapping[str, int] = {"epoch_s": 1, "epoch_ms": 1000}
"""Formats of numbers since 1970, with their units per second."""
EPOCH_END_S = 4_102_444_800
"""Seconds from 1970 to 2100. A smaller number of milliseconds is taken for seconds, a larger number of seconds for milliseconds."""
EPOCH = r"^[0-9]+(\.0)?$"
"""The pattern of a number since 1970."""

FIRST_YEAR_OF_1900S = 69
"""The two digits from which a year is of the twentieth century, as POSIX has it."""


@cache
def month_names(language: Language = "en") -> tuple[tuple[str, ...], ...]:
    """Return the names of the twelve months in small letters, long and short, in English and one language more.

    The names are those of Unicode's CLDR, with the spellings of banks beside them.
    """
    months = zip(*(names.split() for key in ("en", language) for names in (_FULL[key], _SHORT[key])), strict=True)
    return tuple(tuple(dict.fromkeys(name for names in month for name in names.split("|"))) for month in months)


@cache
def format_pattern(form: str, language: Language = "en") -> tuple[str, tuple[str, ...]]:
    """Return the pattern of a format, with a group for each part, and the letters of the parts."""
    parts = split_format(form)
    pattern, names = "^", []
    for place, (name, literal) in enumerate(parts):
        # Digits that touch other digits need a fixed width: 1112024 is 1 November or 11 January.
        around = [parts[near] for near in (place - 1, place + 1) if 0 <= near < len(parts)]
        is_fixed = any(name or literal.isdigit() for name, literal in around)
        pattern += _part_pattern(name, language, is_fixed=is_fixed) if name else re.escape(literal)
        names += [name] if name else []
    return pattern + "$", tuple(names)


def split_format(form: str) -> list[tuple[str, str]]:
    """Return the parts of a format, each as the letter of a directive or as a character of its own."""
    return re.findall(r"%(.)|([^%])", form)


def _part_pattern(name: str, language: Language, *, is_fixed: bool) -> str:
    if name in "bB":
        table = _SHORT if name == "b" else _FULL
        words = {word for key in ("en", language) for word in re.split("[ |]", table[key])}
        either = "|".join("".join(f"[{letter}{letter.upper()}]" for letter in word) for word in sorted(words, key=lambda w: (-len(w), w)))
        return f"({either})" + r"\.?" * (name == "b")
    if name in "pz":
        return "([AaPp])[.]?[Mm][.]?" if name == "p" else f"({OFFSET})"
    return {"Y": "([0-9]{4})", "y": "([0-9]{2})"}.get(name, "([0-9]{2})" if is_fixed else "([0-9]{1,2})")


def has_time_of_day(form: str) -> bool:
    """Return whether times in a format have hours."""
    return form in ("", *PER_SECOND) or "%H" in form or "%I" in form


def iso_of_format(text: str, form: str, language: Language = "en") -> str | None:
    """Return a text in normal form that is written in a format in the spelling of ISO 8601; None where it is not.

    Whether there is such a day and hour, `schemas.text_values.read_time` says.
    """
    if not form:
        return text
    if form in PER_SECOND:
        return _iso_of_epoch(text, PER_SECOND[form])
    pattern, names = format_pattern(form, language)
    found = re.fullmatch(pattern, text)
    if found is None:
        return None
    part = dict(zip(names, found.groups(), strict=True))
    if "y" in part:
        part["Y"] = ("19" if int(part["y"]) >= FIRST_YEAR_OF_1900S else "20") + part["y"]
    word = part.get("b", part.get("B", "")).lower()
    if word:
        part["m"] = str(next(number for number, spellings in enumerate(month_names(language), 1) if word in spellings))
    if "I" in part:
        if not 1 <= int(part["I"]) <= 12:
            return None
        part["H"] = str(int(part["I"]) % 12 + 12 * (part["p"] in "Pp"))
    day = "-".join((part["Y"], part.get("m", "01").zfill(2), part.get("d", "01").zfill(2)))
    clock = ":".join(part.get(name, "00").zfill(2) for name in "HMS")
    return f"{day} {clock}{part.get('z', '')}" if "H" in part else day


def read_time_in_format(text: str, form: str, language: Language = "en") -> datetime | None:
    """Return the time that a text in normal form is in a format, naive UTC; None where it is none.

    Parameters
    ----------
    form
        Directives of `DIRECTIVES` and what stands between them, a key of `PER_SECOND`, or empty for ISO 8601.
    language
        The language of months' names beside English.
    """
    iso = iso_of_format(text, form, language)
    return None if iso is None else read_time(iso)


def _iso_of_epoch(text: str, unit: int) -> str | None:
    if not re.fullmatch(EPOCH, text) or len(text) > 20:
        return None
    number = int(text.removesuffix(".0"))
    if number >= EPOCH_END_S * unit or (unit > 1 and number < EPOCH_END_S):
        return None
    return (datetime(1970, 1, 1) + timedelta(milliseconds=number * 1000 // unit)).isoformat(" ")
