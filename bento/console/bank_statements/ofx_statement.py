"""Bank statements as OFX or QFX: the SGML of version 1, whose tags need no end, and the XML of version 2."""

import re
from datetime import date
from html import unescape

from bento.console.bank_statements.movement import Statement, StatementError, StatementMovement
from bento.console.bank_statements.number_text import parse_amount

# Written by hand: a statement needs six tags, and a parser of all of OFX is no smaller than these lines.
_MOVEMENT = re.compile(r"<STMTTRN>(.*?)(?=<STMTTRN>|</STMTTRN>|</BANKTRANLIST>|$)", re.IGNORECASE | re.DOTALL)


def is_ofx(text: str) -> bool:
    """Return whether a text is OFX."""
    return "<OFX>" in text[:5_000].upper() or text.lstrip()[:9].upper() == "OFXHEADER"


def read_ofx_statement(text: str) -> Statement:
    """Return the movements of an OFX file, with balances counted back from that of the ledger where the file has it.

    Raises
    ------
    StatementError
        Where it has no movement.
    """
    movements, skipped = [], []
    for number, match in enumerate(_MOVEMENT.finditer(text), 1):
        block = match[1]
        day, amount = _parse_day(_read_tag(block, "DTPOSTED")), _parse_number(_read_tag(block, "TRNAMT"))
        if day is None or amount is None:
            skipped.append((number, "no date" if day is None else "no amount"))
            continue
        words = [word for tag in ("NAME", "PAYEE", "MEMO") if (word := _read_tag(block, tag))]
        movements.append(StatementMovement(day, amount, " ".join(dict.fromkeys(words))))
    if not movements:
        raise StatementError("The OFX file has no movement. Export a period with movements.")
    ordered = sorted(movements, key=lambda movement: movement.booked_on)
    closing = _parse_number(_read_tag(text[text.upper().find("<LEDGERBAL>") :], "BALAMT")) if "<LEDGERBAL>" in text.upper() else None
    return Statement(tuple(_count_back(ordered, closing)), tuple(skipped), _read_tag(text, "CURDEF")[:3])


def _count_back(movements: list[StatementMovement], closing: float | None) -> list[StatementMovement]:
    if closing is None:
        return movements
    balanced = []
    for movement in reversed(movements):
        balanced.append(StatementMovement(movement.booked_on, movement.amount, movement.description, round(closing, 2)))
        closing -= movement.amount
    return balanced[::-1]


def _read_tag(block: str, tag: str) -> str:
    match = re.search(rf"<{tag}>([^<\r\n]*)", block, re.IGNORECASE)
    return unescape(match[1]).strip() if match else ""


def _parse_day(text: str) -> date | None:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        return None


def _parse_number(text: str) -> float | None:
    value = parse_amount(text, ".")
    return parse_amount(text, ",") if value is None else value
