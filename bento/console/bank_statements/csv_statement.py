"""Bank statements as CSV: the columns of a movement, and what two readings are possible of, which is asked once.

`schemas.text_files` finds the layout, the formats and the roles of columns, as it does for `finrisk import`: what the console reads is what
the ledger would read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bento.console.bank_statements.movement import Statement, StatementError, StatementMovement
from schemas.normal_form import normalise_text
from schemas.text_files.cell_formats import DateFormat, NumberFormat
from schemas.text_files.column_names import find_role, read_directions
from schemas.text_files.source_columns import SourceColumn, assign_roles, describe_columns, find_currency, guess_roles, join_formats
from schemas.text_files.text_layout import LayoutError, TextLayout, find_layout, read_rows

MAX_LINES = 50_000
"""Lines of a file at most."""
MAX_DESCRIPTIONS = 3
"""Columns whose texts are a movement's description."""


@dataclass(frozen=True)
class StatementLayout:
    """The layout of a file of movements. Columns are counted from 0; None where the file lacks one.

    Attributes
    ----------
    text
        The layout of the file.
    dates, numbers, balances
        The formats of days, amounts and balances that are possible; the first is read.
    directions
        Word of the column `sign` -> credit or debit.
    missing
        Words of a column of amounts that mean that there is none.
    is_absolute
        Whether money out has a minus in a column of its own.
    is_out_positive
        The meaning of amounts without a sign; None where they have one.
    """

    text: TextLayout
    date: int
    dates: tuple[DateFormat, ...]
    numbers: tuple[NumberFormat, ...]
    amount: int | None = None
    debit: int | None = None
    credit: int | None = None
    sign: int | None = None
    directions: Mapping[str, str] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    descriptions: tuple[int, ...] = ()
    balance: int | None = None
    balances: tuple[NumberFormat, ...] = ()
    currency: int | None = None
    currency_code: str = ""
    is_absolute: bool = False
    is_out_positive: bool | None = None


@dataclass(frozen=True)
class LayoutQuestion:
    """Something that a file leaves open.

    Attributes
    ----------
    field
        The key of the answer.
    text
        The question, with a value of the file.
    choices
        Answer and how it reads; the likeliest first.
    """

    field: str
    text: str
    choices: tuple[tuple[str, str], ...]


def find_statement_layout(content: bytes) -> tuple[StatementLayout, tuple[LayoutQuestion, ...]]:
    """Return the likeliest layout of a file, and what it leaves open.

    Raises
    ------
    StatementError
        For a file without a column of dates or without one of amounts.
    """
    if content.count(b"\n") > MAX_LINES:
        raise StatementError(f"The file has more than {MAX_LINES:,} lines. Export a shorter period.")
    try:
        text = find_layout(content)
    except LayoutError as error:
        raise StatementError(f"The file {error}{'' if str(error).endswith('?') else '.'}") from None
    columns = describe_columns(text.header, text.rows)
    roles = assign_roles("transactions", columns) if text.has_header else guess_roles(columns)
    _check_columns(text, roles)
    layout = _lay_out(text, columns, roles)
    return layout, tuple(_ask(layout))


def read_csv_statement(content: bytes, layout: StatementLayout) -> Statement:
    """Return the movements of a file in a layout; a line that is none is skipped with its reason.

    Raises
    ------
    StatementError
        Where no line is a movement.
    """
    movements: list[StatementMovement] = []
    skipped: list[tuple[int, str]] = []
    for number, row in read_rows(content, layout.text):
        if row is None:
            skipped.append((number, "its values are not those of the columns"))
        elif any(cell.strip() for cell in row):
            movement = _read_movement(row, layout)
            if isinstance(movement, str):
                skipped.append((number, movement))
            else:
                movements.append(movement)
    if not movements:
        raise StatementError("No line of the file is a movement with a date and an amount. Check that it is a bank statement.")
    if movements[0].booked_on > movements[-1].booked_on:  # most banks write the newest first
        movements.reverse()
    return Statement(tuple(sorted(movements, key=lambda movement: movement.booked_on)), tuple(skipped), layout.currency_code)


def answer_questions(layout: StatementLayout, questions: Sequence[LayoutQuestion], answers: Mapping[str, str]) -> StatementLayout:
    """Return the layout with the answers to its questions; an answer that is no choice is left out."""
    for question in questions:
        answer = answers.get(question.field)
        if answer not in {value for value, _ in question.choices}:
            continue
        if question.field == "date_format":
            layout = replace(layout, dates=tuple(dates for dates in layout.dates if dates.form == answer))
        elif question.field == "decimal":
            numbers, balances = (tuple(one for one in formats if one.decimal == answer) for formats in (layout.numbers, layout.balances))
            layout = replace(layout, numbers=numbers, balances=balances or layout.balances)
        else:
            layout = replace(layout, is_out_positive=answer == "yes")
    return layout


def _check_columns(text: TextLayout, roles: Mapping[str, SourceColumn]) -> None:
    named = {role for name in text.header if text.has_header for role in find_role("transactions", name)}
    if "occurred_at" not in roles:
        if named & {"occurred_at", "value_date"}:
            raise StatementError("The dates are written in a way that is not known. Save them as 2024-05-31.")
        raise StatementError("No column holds dates. The first line of the table must name its columns, such as Date, Description, Amount.")
    if not {"amount", "debit"} & set(roles):
        if named & {"amount", "debit", "credit"}:
            raise StatementError("The amounts are written in several ways. Save the file with one decimal mark.")
        raise StatementError(
            "No column holds amounts. The first line of the table must name its columns, such as Date, Description, Amount."
        )


def _lay_out(text: TextLayout, columns: Sequence[SourceColumn], roles: Mapping[str, SourceColumn]) -> StatementLayout:
    has_pair = "debit" in roles
    amounts = [roles[role] for role in (("debit", "credit") if has_pair else ("amount",))]
    is_signed = amounts[0].format.is_negative
    sign = None if has_pair or is_signed else roles.get("direction")
    balance, currency = roles.get("balance_amount"), roles.get("currency")
    places = {role: column.place for role, column in roles.items()}
    described = [column.place for column in columns if _is_description(column, text)]
    return StatementLayout(
        text, places["occurred_at"], roles["occurred_at"].format.dates, join_formats(column.format for column in amounts),
        amount=None if has_pair else places["amount"],
        debit=places.get("debit"), credit=places.get("credit"),
        sign=sign.place if sign else None,
        directions=(sign and read_directions(sign.format.distinct)) or {},
        missing=frozenset(word for column in amounts for word in column.format.missing if not word.lstrip("-")[:1].isdigit()),
        descriptions=tuple(described[:MAX_DESCRIPTIONS]),
        balance=places.get("balance_amount"),
        balances=join_formats([balance.format]) if balance else (),
        currency=places.get("currency"),
        currency_code=find_currency([currency] if currency else columns),
        is_absolute=has_pair and is_signed,
        is_out_positive=None if has_pair or is_signed or sign else False,
    )  # fmt: skip


def _is_description(column: SourceColumn, text: TextLayout) -> bool:
    if not text.has_header:
        return column.format.kind == "text"
    return bool({"merchant", "description"} & set(find_role("transactions", column.name)))


def _ask(layout: StatementLayout) -> list[LayoutQuestion]:
    questions = []
    rows = layout.text.rows
    if len(layout.dates) > 1:
        texts = [row[layout.date] for row in rows]
        example = next(text for text in texts if len({dates.read(text) for dates in layout.dates} - {None}) > 1)
        choices = tuple((dates.form, f"{day:%d %B %Y}") for dates in layout.dates if (day := dates.read_day(example)))
        questions.append(LayoutQuestion("date_format", f"Which day is {example}?", choices))
    if len(layout.numbers) > 1:
        cells = [row[at] for row in rows for at in (layout.amount, layout.debit, layout.credit) if at is not None]
        example = next(text for text in cells if len({numbers.read(text) for numbers in layout.numbers} - {None}) > 1)
        choices = tuple((numbers.decimal, f"{numbers.read(example):,.2f}") for numbers in layout.numbers)
        questions.append(LayoutQuestion("decimal", f"How much is {example}?", choices))
    if layout.is_out_positive is not None:
        choices = (("no", "money that came in"), ("yes", "money that went out"))
        questions.append(LayoutQuestion("is_out_positive", "All amounts are without a minus. What are they?", choices))
    if not layout.text.has_header and not questions:
        # A file without names is shown once before it counts.
        choices = ((layout.numbers[0].decimal, "yes"),)
        questions.append(LayoutQuestion("decimal", "The file does not name its columns. Are they as shown?", choices))
    return questions


def _read_movement(row: Sequence[str], layout: StatementLayout) -> StatementMovement | str:
    """Return the movement of a row, or the reason why it is none."""
    day = layout.dates[0].read_day(row[layout.date])
    if day is None:
        return "no date"
    amount = _read_pair(row, layout) if layout.amount is None else _read_amount(row, layout)
    if amount is None:
        return "no amount"
    if layout.currency is not None and (code := normalise_text(row[layout.currency]).upper()) and code != layout.currency_code:
        return "another currency"
    description = " ".join(text for at in layout.descriptions if (text := normalise_text(row[at])))
    balance = layout.balances[0].read(row[layout.balance]) if layout.balance is not None and layout.balances else None
    return StatementMovement(day, amount, description, balance)


def _read_amount(row: Sequence[str], layout: StatementLayout) -> float | None:
    """Return the signed amount of one column; where the sign stands elsewhere, a number with one is none, as in the ledger."""
    assert layout.amount is not None
    amount = layout.numbers[0].read(row[layout.amount])
    if amount is None or (layout.sign is None and layout.is_out_positive is None):
        return amount
    direction = "debit" if layout.is_out_positive else "credit"
    if layout.sign is not None:
        direction = layout.directions.get(normalise_text(row[layout.sign]), "")
    return None if amount < 0 or not direction else -amount if direction == "debit" else amount


def _read_pair(row: Sequence[str], layout: StatementLayout) -> float | None:
    """Return the signed amount of two columns, of which exactly one moves money and the other is empty or zero."""
    assert layout.debit is not None and layout.credit is not None
    texts = [normalise_text(row[at]) for at in (layout.debit, layout.credit)]
    out, into = [0.0 if text == "" or text in layout.missing else layout.numbers[0].read(text) for text in texts]
    if out is None or into is None or all(text == "" or text in layout.missing for text in texts):
        return None
    if layout.is_absolute:
        out, into = abs(out), abs(into)
    if out > 0 and into == 0:
        return -out
    return into if into >= 0 and out == 0 else None
