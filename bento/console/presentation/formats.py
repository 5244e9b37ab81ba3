"""Numbers, amounts, shares and times as the pages write them, in the reader's language as the browser names it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MISSING = "–"
"""The text of a value that is not known."""
_DECIMAL_COMMAS = frozenset(
    {"de", "fr", "es", "it", "nl", "pt", "pl", "cs", "da", "fi", "nb", "sv", "no", "ru", "uk", "tr", "hu", "ro", "el"}
)
_SPACED_THOUSANDS = frozenset({"fr", "pl", "cs", "fi", "nb", "sv", "no", "ru", "uk", "hu"})
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ABBREVIATIONS = {
    "auc": "AUC",
    "pd": "PD",
    "psi": "PSI",
    "lgd": "LGD",
    "sd": "SD",
    "emp": "EMP",
    "ks": "KS",
    "n": "number",
    "pct": "%",
    "xgboost": "XGBoost",
}
_FEATURE_WORDS = {"n": "transactions", "std": "standard deviation", "zscore": "z-score", "pct": "%", "pd": "PD"}
_NARROW_SPACE = "\u202f"


@dataclass(frozen=True)
class Formats:
    """The marks of numbers in one language.

    Attributes
    ----------
    decimal, thousands
        Decimal mark and mark between thousands.
    language
        The language's code, such as ``de``.
    """

    decimal: str = "."
    thousands: str = ","
    language: str = "en"

    @classmethod
    def of_header(cls, accepted: str) -> "Formats":
        """Return the formats of an Accept-Language header; those of English where it names none."""
        tag = accepted.split(",")[0].split(";")[0].strip().lower()
        language = tag.partition("-")[0]
        if tag in ("de-ch", "fr-ch", "it-ch"):
            return cls(".", "’", language)
        if language in _SPACED_THOUSANDS:
            return cls(",", _NARROW_SPACE, language)
        return cls(",", ".", language) if language in _DECIMAL_COMMAS else cls()

    def number(self, value: Any, places: int | None = None) -> str:
        """Return a number with marks between thousands: with these decimal places, or three significant digits.

        A small number is never written as 0: it has as many places as it needs.
        """
        if value is None or value != value:
            return MISSING
        if isinstance(value, int) and places is None:
            text = f"{value:,}"
        elif places is None:
            text = f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):,.10f}".rstrip("0").rstrip(".")
        else:
            text = f"{value:,.{places}f}"
        text = "0" if text in ("-0", "") else text
        return text.translate({ord(","): self.thousands, ord("."): self.decimal, ord("-"): "−"})

    def amount(self, value: Any) -> str:
        """Return an amount of money with the two places of a currency's cents; from a thousand on without them."""
        if value is None or value != value:
            return MISSING
        return self.number(float(value), 0 if abs(value) >= 1_000 else 2)

    def share(self, value: Any, places: int = 1) -> str:
        """Return a share as per cent; one that rounds to 0 or 100 but is neither is written as such."""
        if value is None or value != value:
            return MISSING
        least = 10.0**-places / 100
        if 0 < value < least:
            return f"< {self.number(least * 100, places)}{_NARROW_SPACE}%"
        if 1 - least < value < 1:
            return f"> {self.number((1 - least) * 100, places)}{_NARROW_SPACE}%"
        return f"{self.number(value * 100, places)}{_NARROW_SPACE}%"

    def moment(self, value: Any) -> str:
        """Return a time in UTC to the minute."""
        time = _parse(value)
        return MISSING if time is None else f"{self.day(time)}, {time:%H:%M} UTC"

    def day(self, value: Any) -> str:
        """Return a date: its month as a word, so that no reader takes it for the day."""
        time = _parse(value)
        return MISSING if time is None else f"{time.day} {_MONTHS[time.month - 1]} {time.year}"

    def feature(self, value: Any, unit: str) -> str:
        """Return a feature's value with its unit."""
        if value is None or value != value:
            return "not known"
        if isinstance(value, str):
            return value
        if unit == "0 or 1":
            return "yes" if value else "no"
        if unit in ("currency", "amount"):
            return f"{self.amount(value)} (currency)"
        return f"{self.number(float(value))} {unit if unit not in ('', 'ratio') else ''}".rstrip()


def humanise(name: Any) -> str:
    """Return a name of the code as words: ``loan_default`` is ``Loan default``, ``stability_psi`` is ``Stability PSI``."""
    text = " ".join(_ABBREVIATIONS.get(word, word) for word in str(name).replace("_", " ").split())
    return text[:1].upper() + text[1:]


def label_feature(name: Any) -> str:
    """Return a feature's name as words: ``n_missed_payments_6m`` is ``number of missed payments (6 months)``."""
    text = re.sub(r"(?<=_)(\d+)([hdm])(_ago)?(?=_|$)", _write_period, re.sub("^n_", "number_of_", str(name)))
    return " ".join(_FEATURE_WORDS.get(word, word) for word in text.split("_"))


def _write_period(found: re.Match[str]) -> str:
    count, unit = int(found[1]), {"h": "hour", "d": "day", "m": "month"}[found[2]]
    period = f"{count} {unit}{'s' * (count != 1)}"
    return f"{period} ago" if found[3] else f"({period})"


def _parse(value: Any) -> datetime | None:
    if isinstance(value, str) and value:
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.astimezone(UTC) if value.tzinfo else value
