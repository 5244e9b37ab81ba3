"""A movement of a bank statement, and what is wrong with a file that is none."""

from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class StatementMovement:
    """A movement of money on one account.

    Attributes
    ----------
    booked_on
        Day of the booking.
    amount
        In the account's currency: above zero where money came in.
    description
        Who and what for, as the bank wrote it.
    balance
        Balance after the movement; None where the statement has none.
    """

    booked_on: date
    amount: float
    description: str
    balance: float | None = None


@dataclass(frozen=True)
class Statement:
    """The movements of a file, the oldest first.

    Attributes
    ----------
    movements
        At least one.
    skipped
        Line of the file to the reason why it is no movement.
    currency
        The code that the file names; empty where it names none.
    """

    movements: tuple[StatementMovement, ...]
    skipped: tuple[tuple[int, str], ...] = ()
    currency: str = ""


class StatementError(ValueError):
    """A file that cannot be read as a bank statement: what is wrong, and what to do."""
