"""Statements and workbooks as a CSV: OFX and QFX, CAMT.053, MT940 and Excel.

Nothing is interpreted beyond the format: amounts keep their sign as the bank states it, and the mapping says what they mean.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from finrisk_assets.ledger.landing import LandingError
from schemas.text_files.ofx_statement import STATEMENT_COLUMNS, is_ofx, read_ofx
from schemas.text_files.text_layout import find_encoding

Row = Mapping[str, str]

_WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


def is_convertible(path: Path) -> bool:
    """Return whether a file is of one of the formats of this module, by its beginning or its ending."""
    return _find_reader(path) is not None


def convert_to_csv(path: Path, out: Path) -> int:
    """Write the rows of a statement or a workbook to a CSV and return their number.

    Parameters
    ----------
    path
        The statement, or a workbook, whose first sheet with rows is read.
    out
        The CSV to write.

    Raises
    ------
    LandingError
        If the file cannot be read, or has no rows.
    """
    reader = _find_reader(path)
    if reader is None:
        raise LandingError(f"{path} is no statement that finrisk reads: OFX, QFX, CAMT.053, MT940 or a workbook")
    try:
        rows = list(reader(path))
    except LandingError:
        raise
    except Exception as error:  # the readers of others raise what they like
        raise LandingError(f"{path} cannot be read ({type(error).__name__}); is it cut short? Export it again") from None
    if len(rows) < 2:
        raise LandingError(f"{path} has no rows; was the export cut short?")
    with out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return len(rows) - 1


def _find_reader(path: Path) -> Callable[[Path], Iterable[Sequence[str]]] | None:
    if path.suffix.lower() in _WORKBOOKS:
        return _read_workbook
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise LandingError(f"{path} cannot be read: {error.strerror or error}; check the path") from None
    if is_ofx(head):
        return lambda path: _table(read_ofx(path.read_bytes()).rows)
    if b"camt.05" in head:
        return _read_camt
    if re.search(rb"(^|[\r\n{:]):20:", head) and (b":60F:" in head or b":25:" in head):
        return _read_mt940
    return None


def _table(rows: Iterable[Mapping[str, str]]) -> Iterator[Sequence[str]]:
    yield STATEMENT_COLUMNS
    for row in rows:
        yield [" ".join(row.get(name, "").split()) for name in STATEMENT_COLUMNS]


# --- CAMT.053 ------------------------------------------------------------------------------------------------------


def _read_camt(path: Path) -> Iterator[Sequence[str]]:
    """Yield the entries of an ISO 20022 statement; a batch of several payments is one movement, as it is on the account."""
    data = path.read_bytes()
    if b"<!DOCTYPE" in data:
        raise LandingError(f"{path} has a DOCTYPE, which no statement has; export it again")
    root = ElementTree.fromstring(data)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return _table(_camt_rows(root))


def _camt_rows(root: ElementTree.Element) -> Iterator[Row]:
    for statement in (*root.iter("Stmt"), *root.iter("Rpt"), *root.iter("Ntfctn")):
        account = _first(statement, "Acct/Id/IBAN", "Acct/Id/Othr/Id")
        for entry in statement.findall("Ntry"):
            amount = entry.find("Amt")
            if amount is None or not amount.text:
                continue
            is_out = (_first(entry, "CdtDbtInd") == "DBIT") != (_first(entry, "RvslInd") in ("true", "1"))
            party = ("Cdtr", "UltmtCdtr") if is_out else ("Dbtr", "UltmtDbtr")
            places = [f".//RltdPties/{role}{inner}/Nm" for role in party for inner in ("", "/Pty")]
            yield {
                "account": account,
                "date": _first(entry, "BookgDt/DtTm", "BookgDt/Dt", "ValDt/DtTm", "ValDt/Dt"),
                "amount": f"{-Decimal(amount.text) if is_out else Decimal(amount.text)}",
                "currency": amount.get("Ccy", ""),
                "payee": _first(entry, *places),
                "purpose": " ".join(text.text or "" for text in entry.iter("Ustrd")) or _first(entry, "AddtlNtryInf"),
                "code": _first(entry, "BkTxCd/Prtry/Cd", "BkTxCd/Domn/Fmly/SubFmlyCd"),
                "reference": _first(entry, "AcctSvcrRef", "NtryRef"),
            }


def _first(element: ElementTree.Element, *places: str) -> str:
    return next((text.strip() for place in places if (text := element.findtext(place))), "")


# --- MT940 ---------------------------------------------------------------------------------------------------------


def _read_mt940(path: Path) -> Iterator[Sequence[str]]:
    import mt940

    data = path.read_bytes()
    statements = mt940.parse(data.decode(find_encoding(data)[0], "replace").lstrip("\ufeff"))
    account = str(statements.data.get("account_identification") or "")
    return _table(_mt940_row(account, statement.data) for statement in statements)


def _mt940_row(account: str, data: Mapping[str, Any]) -> Row:
    def text(name: str) -> str:
        return str(data.get(name) or "")

    amount = data["amount"]
    return {
        "account": account,
        "date": (data.get("entry_date") or data["date"]).isoformat(),
        "amount": str(amount.amount),
        "currency": amount.currency or "",
        "payee": text("applicant_name"),
        "purpose": text("purpose") or text("transaction_details"),
        "code": text("id"),
        "reference": text("bank_reference"),
    }


# --- workbooks -----------------------------------------------------------------------------------------------------


def _read_workbook(path: Path) -> Iterator[Sequence[str]]:
    """Yield the rows of the first sheet that has any; dates in ISO 8601, numbers with a decimal point."""
    from python_calamine import CalamineWorkbook

    book = CalamineWorkbook.from_path(str(path))
    for name in book.sheet_names:
        rows = book.get_sheet_by_name(name).to_python(skip_empty_area=True)
        if len(rows) > 1:
            for row in rows:
                yield [_cell(value) for value in row]
            return


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)
