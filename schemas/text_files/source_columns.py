"""The columns of a file: their formats, and the role in a ledger table that names and values give to each."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from schemas.ledger import TABLES
from schemas.normal_form import COUNTRY_CODES
from schemas.text_files.cell_formats import CURRENCIES, SIGNS, ColumnFormat, Kind, NumberFormat, find_format
from schemas.text_files.column_names import find_role, fold, read_directions

OUTCOMES = ("is_default", "is_fraud", "is_accepted")
"""Columns of outcomes; of two that may be one the later is taken."""
_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "string": ("text", "number", "boolean"), "int64": ("number",), "float64": ("number",), "timestamp": ("time",),
    "boolean": ("boolean", "number", "text"),
}  # fmt: skip
_KINDS_OF_ROLES: Mapping[str, tuple[Kind, ...]] = {
    "debit": ("number", "empty"), "credit": ("number", "empty"), "currency": ("text",), "value_date": ("time",), "description": (),
    **dict.fromkeys(OUTCOMES, ("boolean", "number", "text")),
}  # fmt: skip


@dataclass(frozen=True)
class SourceColumn:
    """A column of a file: its name, its place from 0, and the format of its values."""

    name: str
    place: int
    format: ColumnFormat


def describe_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[SourceColumn, ...]:
    """Return the columns of a file that have a name of their own.

    Parameters
    ----------
    header
        Names of all columns.
    rows
        Rows as wide as the header.
    """
    cells = {place: [row[place] for row in rows] for place, name in enumerate(header) if name.strip() and list(header).count(name) == 1}
    formats = {place: find_format(texts) for place, texts in cells.items()}
    # Columns that leave no doubt tell how the others are written.
    sure = {one.decimal for one in formats.values() if len(one.numbers) == 1 and not one.is_whole}
    if len(sure) == 1:
        decimal = sure.pop()
        formats |= {place: find_format(texts, decimal=decimal) for place, texts in cells.items() if len(formats[place].numbers) > 1}
    return tuple(SourceColumn(header[place], place, one) for place, one in formats.items())


def assign_roles(table: str, columns: Sequence[SourceColumn]) -> dict[str, SourceColumn]:
    """Return the column of each role in a ledger table: one whose name and values fit it, of two the earlier.

    The roles are those of `column_names.ROLES`. A day of value stands in for a day of booking; columns for money out and in are a pair.
    """
    kinds = {**{column.name: _KINDS[column.dtype] for column in TABLES[table].columns}, **_KINDS_OF_ROLES}
    candidates = []
    for column in columns:
        for rank, role in enumerate(find_role(table, column.name)):
            if column.format.kind in kinds[role]:
                candidates.append((rank, -column.place if role in OUTCOMES else column.place, role, column))
    candidates.sort(key=lambda candidate: candidate[:2])
    roles: dict[str, SourceColumn] = {}
    for _, _, role, column in candidates:
        if role in roles or column in roles.values() or not _fits(role, column.format, table):
            continue
        roles[role] = column
    if ("debit" in roles) != ("credit" in roles):
        roles.pop("debit", roles.pop("credit", None))
    if day := roles.pop("value_date", None):
        roles.setdefault("occurred_at", day)
    return roles


def guess_roles(columns: Sequence[SourceColumn]) -> dict[str, SourceColumn]:
    """Return the roles of the columns of movements that a file does not name, by their values alone."""
    numbers = [column for column in columns if column.format.kind == "number"]
    amounts = [column for column in numbers if column.format.is_negative] or numbers
    balances = [column for column in numbers if column not in amounts[:1]]
    found = {
        "occurred_at": [column for column in columns if column.format.kind == "time"],
        "amount": amounts,
        "balance_amount": balances[-1:],
    }
    return {role: of_role[0] for role, of_role in found.items() if of_role}


def find_currency(columns: Iterable[SourceColumn]) -> str:
    """Return the currency that a column of codes has most often, or that a column's name says; empty where none does."""
    for column in columns:
        distinct = column.format.distinct
        if column.format.kind == "text" and distinct and all(value.upper() in CURRENCIES for value in distinct):
            return max(distinct, key=lambda value: distinct[value]).upper()
        named = next((code for code in CURRENCIES if re.search(rf"(^|_){code.lower()}(_|$)", fold(column.name))), None)
        marks = [*(SIGNS.get(sign, sign) for numbers in column.format.numbers for sign in numbers.beside), *_signs_in(column.name)]
        if named or (named := next((code for code in marks if code in CURRENCIES), None)):
            return named
    return ""


def _signs_in(name: str) -> list[str]:
    return [code for sign, code in SIGNS.items() if sign in name]


def join_formats(formats: Iterable[ColumnFormat]) -> tuple[NumberFormat, ...]:
    """Return the formats of numbers that stand in several columns, as money out and money in, the likeliest first."""
    several = sorted((one for one in formats if one.numbers), key=lambda one: (one.is_whole and not one.thousands, len(one.numbers)))
    if not several:
        return ()
    marks = {one.decimal: one.thousands for one in several if one.thousands}
    beside = {text: sign for one in several for text, sign in one.numbers[0].beside.items()}
    return tuple(
        replace(numbers, thousands=numbers.thousands or marks.get(numbers.decimal, ""), beside=beside)
        for numbers in several[0].numbers[: 1 if several[0].is_sure else None]
    )


def _fits(role: str, how: ColumnFormat, table: str) -> bool:
    """Return whether a column's values can have a role, beyond their kind."""
    if role == "country":
        return bool(how.distinct) and all(len(value) == 2 and value.upper() in COUNTRY_CODES for value in how.distinct)
    if role == "direction":
        return len(how.distinct) <= 12 and read_directions(how.distinct) is not None
    if role == TABLES[table].key:
        return how.is_unique and not how.blank_share
    if role in OUTCOMES:
        return 2 <= len(how.distinct) <= (12 if role == "is_default" else 2)
    column = next((column for column in TABLES[table].columns if column.name == role), None)
    if column and how.kind == "number" and role != "amount":
        is_within = (column.minimum is None or how.lowest >= column.minimum) and (column.maximum is None or how.highest <= column.maximum)
        return is_within and (column.dtype != "int64" or how.is_whole)
    return role != "currency" or all(re.fullmatch("[A-Za-z]{3}", value) for value in how.distinct)
