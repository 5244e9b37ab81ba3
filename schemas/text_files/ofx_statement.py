"""Statements as OFX or QFX: the SGML of version 1, whose tags need no end, and the XML of version 2."""

import codecs
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.text_files.text_layout import find_encoding

STATEMENT_COLUMNS = ("account", "date", "amount", "currency", "payee", "purpose", "code", "reference")
"""The columns of a statement's rows: day, amount with its sign, and the bank's own reference where it has one."""

_NAMES = {"NAME": "payee", "PAYEE": "payee", "MEMO": "purpose", "TRNTYPE": "code", "FITID": "reference"}
_NAMES |= {"TRNAMT": "amount", "DTPOSTED": "date"}
_DATE = re.compile(
    r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})([0-9]{2})([0-9]{2})?)?(?:\.[0-9]+)?(?:\[([+-]?[0-9]{1,2})(?:\.([0-9]+))?)?"
)


@dataclass(frozen=True)
class OfxStatement:
    """The movements of a file.

    Attributes
    ----------
    rows
        Column of `STATEMENT_COLUMNS` -> text: days in ISO 8601, amounts with a decimal point, both as far as the file has them.
    closing
        The ledger's balance after the last movement, where the file is of one account and has it.
    """

    rows: tuple[Mapping[str, str], ...]
    closing: str = ""


def is_ofx(data: bytes) -> bool:
    """Return whether the beginning of a file is that of OFX."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "latin-1"
    return re.search(r"OFXHEADER|<\?OFX|<OFX>", data[:5000].decode(encoding, "replace"), re.IGNORECASE) is not None


def read_ofx(data: bytes) -> OfxStatement:
    """Return the movements of an OFX file. One pattern reads both versions: a parser of all of OFX is no smaller than these lines."""
    text = _decode(data)
    account = currency = ""
    row: dict[str, str] | None = None
    rows, closings = [], []
    is_ledger = False
    for found in re.finditer(r"<(/?)([A-Za-z0-9.]+)>([^<\r\n]*)", text):
        is_end, tag, value = found[1], found[2].upper(), html.unescape(found[3].strip())
        if tag in ("STMTTRN", "BANKTRANLIST"):
            if row:
                rows.append(row)
            row = None if is_end or tag != "STMTTRN" else {"account": account, "currency": currency}
        elif tag == "LEDGERBAL":
            is_ledger = not is_end
        elif is_end:
            continue
        elif tag == "BALAMT" and is_ledger:
            closings.append(_point(value))
        elif row is not None and tag in _NAMES and value:
            row.setdefault(_NAMES[tag], _iso(value) if tag == "DTPOSTED" else _point(value) if tag == "TRNAMT" else value)
        elif tag == "CURDEF":
            currency = value
        elif tag == "ACCTID" and row is None:
            account = value
    if row:
        rows.append(row)
    return OfxStatement(tuple(rows), closings[0] if len(closings) == 1 else "")


def _decode(data: bytes) -> str:
    stated = re.search(rb"CHARSET:\s*([0-9]+)|encoding=[\"']([\w-]+)", data[:1000])
    encoding, is_sure = find_encoding(data)
    if not is_sure and stated:
        encoding = f"cp{stated[1].decode()}" if stated[1] else stated[2].decode()
    try:
        text = data.decode(encoding, "replace")
    except LookupError:
        text = data.decode("cp1252", "replace")
    return re.sub(r"<!\[CDATA\[(.*?)\]\]>", lambda found: html.escape(found[1]), text, flags=re.DOTALL)


def _point(amount: str) -> str:
    """Return an amount with a decimal point: OFX writes no marks between thousands."""
    return amount.replace(",", ".")


def _iso(value: str) -> str:
    """Return OFX's ``20240501120000.000[-5:EST]`` in ISO 8601."""
    found = _DATE.match(value)
    if not found:
        return value
    year, month, day, hour, minute, second, offset, part = found.groups()
    if hour is None:
        return f"{year}-{month}-{day}"
    hours = float(f"{offset}.{part or 0}") if offset else 0.0
    minutes = round(abs(hours) * 60)
    zone = f"{'-' if hours < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}" if offset else "Z"
    return f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{zone}"
