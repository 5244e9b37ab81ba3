"""A file that is dropped as a bank statement, of any layout that is known: the one way in for the console and for commands."""

from collections.abc import Mapping
from dataclasses import dataclass

from bento.console.bank_statements.csv_statement import (
    LayoutQuestion,
    StatementLayout,
    answer_questions,
    decode,
    find_layout,
    read_csv_statement,
)
from bento.console.bank_statements.movement import Statement, StatementError
from bento.console.bank_statements.ofx_statement import is_ofx, read_ofx_statement


@dataclass(frozen=True)
class StatementFile:
    """A file as text, with its layout and what it leaves open; an OFX file has no layout.

    Attributes
    ----------
    questions
        Empty where the file is understood.
    """

    text: str
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
            return read_ofx_statement(self.text)
        return read_csv_statement(self.text, answer_questions(self.layout, self.questions, answers or {}))


def open_statement(content: bytes) -> StatementFile:
    """Return the file of some bytes.

    Raises
    ------
    StatementError
        For bytes that are no statement; the message says what to do.
    """
    if not content.strip():
        raise StatementError("The file is empty. Export the statement once more.")
    text = decode(content)
    if is_ofx(text):
        return StatementFile(text, None)
    return StatementFile(text, *find_layout(text))
