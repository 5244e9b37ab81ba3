"""Bank statements as CSV: the layout is found from the file, and what two readings are possible of is asked once.

A layout is the delimiter, the line of the column names behind a preamble, the columns of date, amount (one signed, or one for money out and
one for money in, or one with a column of signs), description and balance, and the formats of dates and amounts.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bento.console.bank_statements.movement import Statement, StatementError, StatementMovement
from bento.console.bank_statements.number_text import (
    find_date_formats,
    find_decimal_marks,
    is_ambiguous,
    is_amount,
    parse_amount,
    parse_date,
)

MAX_LINES = 50_000
"""Lines of a file at most."""
_DELIMITERS = (";", ",", "\t", "|")
_HEADER_SEARCH = 40
"""Lines among which the column names are looked for."""
_NAMES: Mapping[str, tuple[str, ...]] = {
    "date": (
        "booking date", "transaction date", "posting date", "posted date", "buchungstag", "buchungsdatum", "completed date",
        "date posted", "date operation", "date de comptabilisation", "fecha operacion", "fecha de operacion", "data contabile",
        "boekdatum", "bogforingsdato", "date", "datum", "fecha", "data", "dato", "started date", "valuta", "value date",
        "valutadatum", "wertstellung", "date valeur", "day",
    ),
    "amount": (
        "amount", "betrag", "umsatz", "montant", "importe", "importo", "bedrag", "belop", "belob", "kwota", "transaction amount",
        "net amount", "value",
    ),
    "debit": (
        "debit", "soll", "paid out", "money out", "withdrawal", "withdrawals", "withdrawal amt", "belastung", "lastschrift",
        "cargo", "addebiti", "dare", "debit amount", "ausgang", "uitgaven", "payments", "out", "ut", "spent",
    ),
    "credit": (
        "credit", "haben", "paid in", "money in", "deposit", "deposits", "deposit amt", "gutschrift", "abono", "accrediti",
        "avere", "credit amount", "eingang", "inkomsten", "receipts", "in", "inn", "received",
    ),
    "sign": (
        "debit/credit", "credit/debit", "dr/cr", "cr/dr", "soll/haben", "s/h", "af bij", "d/c", "c/d", "direction", "sens",
        "indicator", "credit debit indicator", "type", "transaction type",
    ),
    "description": (
        "description", "verwendungszweck", "buchungstext", "narrative", "details", "payee", "libelle", "concepto", "descripcion",
        "causale", "descrizione", "omschrijving", "naam / omschrijving", "mededelingen", "name", "memo",
        "beguenstigter/zahlungspflichtiger", "auftraggeber", "begunstigter", "empfanger", "merchant", "counterparty", "reference",
        "transaction description", "text", "tekst", "particulars", "empfaenger", "zahlungsempfanger", "partner", "tytul",
    ),
    "balance": (
        "balance", "saldo", "solde", "running balance", "kontostand", "closing balance", "saldo nach mutatie",
        "saldo disponible",
    ),
    "currency": (
        "currency", "wahrung", "waehrung", "devise", "divisa", "muntsoort", "valuta code", "waluta", "mutationwaehrung",
    ),
}  # fmt: skip
"""Meaning of a column -> the names that banks give it, without accents, the likeliest first."""
_OUT_WORDS = frozenset({"debit", "d", "dr", "dbit", "s", "soll", "out", "af", "-", "db", "withdrawal", "cargo", "payment"})
_IN_WORDS = frozenset({"credit", "c", "cr", "crdt", "h", "haben", "in", "bij", "+", "deposit", "abono"})
_ACCENTS = str.maketrans("áàâäãåéèêëíìîïóòôöõøúùûüçñß", "aaaaaaeeeeiiiioooooouuuucns")


@dataclass(frozen=True)
class StatementLayout:
    """The layout of a file of movements. Columns are counted from 0; None where the file lacks one."""

    delimiter: str
    header_line: int | None
    names: tuple[str, ...]
    date: int
    date_format: str
    decimal: str
    amount: int | None = None
    debit: int | None = None
    credit: int | None = None
    sign: int | None = None
    descriptions: tuple[int, ...] = ()
    balance: int | None = None
    currency: int | None = None
    is_out_positive: bool = False


@dataclass(frozen=True)
class LayoutQuestion:
    """Something that a file leaves open.

    Attributes
    ----------
    field
        The field of `StatementLayout` that the answer sets.
    text
        The question, with a value of the file.
    choices
        Value of the field and how it reads; the likeliest first.
    """

    field: str
    text: str
    choices: tuple[tuple[str, str], ...]


def decode(content: bytes) -> str:
    """Return the text of a file: UTF-8, UTF-16 with its mark, or Windows-1252.

    Raises
    ------
    StatementError
        For a file that is no text.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if b"\x00" in content[:4096]:
        raise StatementError("The file is no text. Export the statement as CSV or OFX, not as PDF or a spreadsheet.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def find_layout(text: str) -> tuple[StatementLayout, tuple[LayoutQuestion, ...]]:
    """Return the likeliest layout of a file, and what it leaves open.

    Raises
    ------
    StatementError
        For a file without a column of dates or without one of amounts.
    """
    delimiter, rows = _split(text)
    header_line, found = _find_header(rows)
    body = [row for row in rows[(header_line + 1 if header_line is not None else 0) :] if sum(map(bool, row)) >= 2]
    if header_line is None:
        found = _guess_columns(body)
    if "date" not in found:
        raise StatementError("No column holds dates. The first line of the table must name its columns, such as Date, Description, Amount.")
    if not {"amount", "debit", "credit"} & set(found):
        raise StatementError(
            "No column holds amounts. The first line of the table must name its columns, such as Date, Description, Amount."
        )
    names = (
        tuple(rows[header_line]) if header_line is not None else tuple(f"column {at + 1}" for at in range(max(map(len, body), default=0)))
    )
    return _settle_formats(delimiter, header_line, names, found, body)


def read_csv_statement(text: str, layout: StatementLayout) -> Statement:
    """Return the movements of a file in a layout; a line that is none is skipped with its reason.

    Raises
    ------
    StatementError
        Where no line is a movement.
    """
    movements: list[StatementMovement] = []
    skipped: list[tuple[int, str]] = []
    currency = ""
    for number, row in enumerate(_rows(text, layout.delimiter), 1):
        if (layout.header_line is not None and number <= layout.header_line + 1) or not any(row):
            continue
        day, amount = parse_date(_cell(row, layout.date), layout.date_format), _read_amount(row, layout)
        if day is None or amount is None:
            if sum(map(bool, row)) >= 2:
                skipped.append((number, "no date" if day is None else "no amount"))
            continue
        description = " ".join(_cell(row, at) for at in layout.descriptions if _cell(row, at))
        balance = None if layout.balance is None else parse_amount(_cell(row, layout.balance), layout.decimal)
        movements.append(StatementMovement(day, amount, description, balance))
        currency = currency or ("" if layout.currency is None else _cell(row, layout.currency))
    if not movements:
        raise StatementError("No line of the file is a movement with a date and an amount. Check that it is a bank statement.")
    if movements[0].booked_on > movements[-1].booked_on:  # most banks write the newest first
        movements.reverse()
    return Statement(tuple(sorted(movements, key=lambda movement: movement.booked_on)), tuple(skipped), currency[:3])


def answer_questions(layout: StatementLayout, questions: Sequence[LayoutQuestion], answers: Mapping[str, str]) -> StatementLayout:
    """Return the layout with the answers to its questions; an answer that is no choice is left out."""
    changes: dict[str, object] = {}
    for question in questions:
        answer = answers.get(question.field)
        if answer in {value for value, _ in question.choices}:
            changes[question.field] = answer == "yes" if question.field == "is_out_positive" else answer
    return replace(layout, **changes)  # type: ignore[arg-type]


def _split(text: str) -> tuple[str, list[list[str]]]:
    """Return the delimiter by which most lines have as many columns as the others, and the rows."""
    if text.count("\n") > MAX_LINES:
        raise StatementError(f"The file has more than {MAX_LINES:,} lines. Export a shorter period.")
    best: tuple[float, str, list[list[str]]] = (0.0, ",", [])
    for delimiter in _DELIMITERS:
        rows = list(_rows(text, delimiter))
        widths = [len(row) for row in rows if len(row) > 1]
        if widths:
            usual = max(set(widths), key=widths.count)
            best = max(best, (widths.count(usual) * min(usual, 8) ** 0.5, delimiter, rows), key=lambda item: item[0])
    if not best[2]:
        raise StatementError("The file has no columns. Export the statement as CSV or OFX.")
    return best[1], best[2]


def _rows(text: str, delimiter: str) -> list[list[str]]:
    lines = io.StringIO(text, newline="")
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    except csv.Error:
        raise StatementError("The file is no CSV: a quote is not closed, or a field is too long.") from None


def _find_header(rows: Sequence[Sequence[str]]) -> tuple[int | None, dict[str, list[int]]]:
    """Return the line of the column names, and the columns by what they hold."""
    for line, row in enumerate(rows[:_HEADER_SEARCH]):
        found = _name_columns(row)
        if "date" in found and {"amount", "debit", "credit"} & set(found):
            return line, found
    return None, {}


def _name_columns(row: Sequence[str]) -> dict[str, list[int]]:
    """Return what the columns hold by their names; the likeliest column of each first."""
    names = [_plain(cell) for cell in row]
    found: dict[str, list[tuple[int, int]]] = {}
    for at, name in enumerate(names):
        for kind, known in _NAMES.items():
            if name in known:
                found.setdefault(kind, []).append((known.index(name), at))
                break
        else:
            for kind, known in _NAMES.items():
                beginning = next((place for place, word in enumerate(known) if len(word) > 3 and name.startswith(word)), None)
                if beginning is not None:
                    found.setdefault(kind, []).append((100 + beginning, at))
                    break
    return {kind: [at for _, at in sorted(places)] for kind, places in found.items()}


def _plain(name: str) -> str:
    """Return a column's name in small letters, without accents, units and blanks around."""
    name = re.sub(r"\(.*?\)|\[.*?\]", "", name.lower().translate(_ACCENTS))
    return re.sub(r"[\s_]+", " ", name).strip(" .:*\"'")


def _guess_columns(body: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """Return the columns of a file that does not name them, from what stands in them."""
    width = max((len(row) for row in body), default=0)
    columns = [[row[at] for row in body[:200] if at < len(row) and row[at]] for at in range(width)]
    dates = [at for at, column in enumerate(columns) if find_date_formats(column)]
    amounts = [at for at, column in enumerate(columns) if column and at not in dates and all(map(is_amount, column))]
    texts = [at for at, column in enumerate(columns) if column and at not in dates and at not in amounts]
    found: dict[str, list[int]] = {"description": texts} if texts else {}
    found |= {"date": dates[:1]} if dates else {}
    if amounts:
        signed = [at for at in amounts if any("-" in cell for cell in columns[at])]
        found["amount"] = [(signed or amounts)[0]]
        rest = [at for at in amounts if at != found["amount"][0]]
        found |= {"balance": rest[-1:]} if rest else {}
    return found


def _settle_formats(
    delimiter: str, header_line: int | None, names: tuple[str, ...], found: Mapping[str, list[int]], body: Sequence[Sequence[str]]
) -> tuple[StatementLayout, tuple[LayoutQuestion, ...]]:
    questions: list[LayoutQuestion] = []
    date_column, formats, dates = _choose_date(found["date"], body)
    if len(formats) > 1:
        questions.append(_ask_date(dates, formats))
    first = {kind: places[0] for kind, places in found.items()}
    has_pair = "debit" in first and "credit" in first
    layout = StatementLayout(
        delimiter, header_line, names, date_column, formats[0], ".",
        amount=None if has_pair or "amount" not in first else first["amount"],
        debit=first.get("debit") if has_pair or "amount" not in first else None,
        credit=first.get("credit") if has_pair or "amount" not in first else None,
        sign=_find_sign(found, body) if not has_pair else None,
        descriptions=tuple(sorted(found.get("description", ())))[:3],
        balance=first.get("balance"),
        currency=first.get("currency"),
    )  # fmt: skip
    columns = [at for at in (layout.amount, layout.debit, layout.credit) if at is not None]
    # A line at the end, such as a sum, has no date.
    booked = [row for row in body if parse_date(_cell(row, date_column), layout.date_format)]
    texts = [cell for row in booked for at in columns if (cell := _cell(row, at))]
    with_balance = texts + [_cell(row, layout.balance) for row in booked if layout.balance is not None]
    marks = find_decimal_marks(with_balance) or find_decimal_marks(texts)
    if not marks:
        raise StatementError("The amounts are written in several ways. Save the file with one decimal mark.")
    layout = replace(layout, decimal=marks[0])
    if len(marks) > 1 and (open_amount := next((text for text in texts if is_ambiguous(text)), None)):
        mean = f"How much is {open_amount}?"
        questions.append(LayoutQuestion("decimal", mean, ((".", _read(open_amount, ".")), (",", _read(open_amount, ",")))))
    elif len(marks) > 1 and delimiter == ";":
        layout = replace(layout, decimal=",")
    if layout.amount is not None and layout.sign is None:
        values = [value for row in booked if (value := parse_amount(_cell(row, layout.amount), layout.decimal)) is not None]
        if values and min(values) >= 0:
            choices = (("no", "money that came in"), ("yes", "money that went out"))
            questions.append(LayoutQuestion("is_out_positive", "All amounts are without a minus. What are they?", choices))
    if header_line is None and not questions:
        # A file without names is shown once before it counts.
        questions.append(LayoutQuestion("decimal", "The file does not name its columns. Are they as shown?", ((layout.decimal, "yes"),)))
    return layout, tuple(questions)


def _choose_date(columns: Sequence[int], body: Sequence[Sequence[str]]) -> tuple[int, list[str], list[str]]:
    """Return the first column with dates, their possible formats, and the dates; a few lines, such as a sum, may have none."""
    for column in columns:
        texts = [cell for row in body if (cell := _cell(row, column))]
        formats = find_date_formats(texts)
        if not formats:
            likely = [text for text in texts if any(map(str.isdigit, text)) and len(text) >= 6]
            formats = find_date_formats(likely) if len(likely) >= 0.8 * len(texts) else []
            texts = likely
        if formats:
            return column, formats, texts
    raise StatementError("The dates are written in a way that is not known. Save them as 2024-05-31.")


def _ask_date(dates: Sequence[str], formats: Sequence[str]) -> LayoutQuestion:
    readings: dict[str, str] = {}
    example = next((text for text in dates if len({parse_date(text, each) for each in formats}) > 1), dates[0])
    for each in formats:
        day = parse_date(example, each)
        if day is not None:
            readings.setdefault(f"{day:%d %B %Y}", each)
    return LayoutQuestion("date_format", f"Which day is {example}?", tuple((each, reading) for reading, each in readings.items()))


def _find_sign(found: Mapping[str, list[int]], body: Sequence[Sequence[str]]) -> int | None:
    """Return the column that says in words whether money came in or went out."""
    for column in found.get("sign", ()):
        words = {_cell(row, column).lower() for row in body} - {""}
        if words and words <= _OUT_WORDS | _IN_WORDS and words & _OUT_WORDS:
            return column
    return None


def _read_amount(row: Sequence[str], layout: StatementLayout) -> float | None:
    if layout.amount is None:
        out = None if layout.debit is None else parse_amount(_cell(row, layout.debit), layout.decimal)
        came = None if layout.credit is None else parse_amount(_cell(row, layout.credit), layout.decimal)
        return None if out is None and came is None else abs(came or 0.0) - abs(out or 0.0)
    amount = parse_amount(_cell(row, layout.amount), layout.decimal)
    if amount is None:
        return None
    if layout.sign is not None:
        return -abs(amount) if _cell(row, layout.sign).lower() in _OUT_WORDS else abs(amount)
    return -amount if layout.is_out_positive else amount


def _read(text: str, decimal: str) -> str:
    return f"{parse_amount(text, decimal):,.2f}"


def _cell(row: Sequence[str], at: int) -> str:
    return row[at] if at < len(row) else ""
