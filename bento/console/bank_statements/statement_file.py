"""A file that is dropped as a bank statement, CSV or OFX: the one way in for the console and for commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bento.console.bank_statements.csv_statement import (
    LayoutQuestion,
    StatementLayout,
    answer_questions,
    find_statement_layout,
    read_csv_statement,
)
from bento.console.bank_statements.movement import Statement, StatementError, StatementMovement
from schemas.text_files.cell_formats import DateFormat, NumberFormat
from schemas.text_files.ofx_statement import is_ofx, read_ofx


@dataclass(frozen=True)
class StatementFile:
    """A file with its layout and what it leaves open; an OFX file has no layout.

    Attributes
    ----------
    questions
        Empty where the file is understood.
    """

    content: bytes
    layout: StatementLayout | None
    questions: tuple[LayoutQuestion, ...] = ()

    def read(self, answers: Mapping[str, str] | None = None) -> Statement:
        """Return the movements, with the likeliest answer to each question that `answers` leaves out.

        Raises
        ------
        StatementError
            Where the file has no movement.
        """
        if self.layout is None:
            return _read_ofx_statement(self.content)
        return read_csv_statement(self.content, answer_questions(self.layout, self.questions, answers or {}))


def open_statement(content: bytes) -> StatementFile:
    """Return the file of some bytes.

    Raises
    ------
    StatementError
        For bytes that are no statement; the message says what to do.
    """
    if is_ofx(content):
        return StatementFile(content, None)
    return StatementFile(content, *find_statement_layout(content))


def _read_ofx_statement(content: bytes) -> Statement:
    ofx = read_ofx(content)
    movements, skipped = [], []
    for number, row in enumerate(ofx.rows, 1):
        day, amount = DateFormat().read_day(row.get("date", "")), NumberFormat().read(row.get("amount", ""))
        if day is None or amount is None:
            skipped.append((number, "no date" if day is None else "no amount"))
            continue
        words = [row[name] for name in ("payee", "purpose") if name in row]
        movements.append(StatementMovement(day, amount, " ".join(dict.fromkeys(words))))
    if not movements:
        raise StatementError("The OFX file has no movement. Export a period with movements.")
    ordered = sorted(movements, key=lambda movement: movement.booked_on)
    # A movement that could not be read moved the balance too.
    closing = None if skipped else NumberFormat().read(ofx.closing)
    return Statement(tuple(_count_back(ordered, closing)), tuple(skipped), ofx.rows[0].get("currency", "")[:3])


def _count_back(movements: Sequence[StatementMovement], closing: float | None) -> Sequence[StatementMovement]:
    """Return the movements with the balance after each, from the last one back."""
    if closing is None:
        return movements
    balanced = []
    for movement in reversed(movements):
        balanced.append(replace(movement, balance=round(closing, 2)))
        closing -= movement.amount
    return balanced[::-1]
