"""Statements in the style of real banks, each of the same movements: all names, numbers and identifiers are made up."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

MOVEMENTS: tuple[tuple[date, float, str], ...] = (
    (date(2024, 1, 2), -950.0, "Hausverwaltung Müller"),
    (date(2024, 1, 3), -12.5, "Bäckerei"),
    (date(2024, 1, 15), -82.35, "REWE"),
    (date(2024, 1, 15), -82.35, "REWE"),
    (date(2024, 1, 31), 2450.0, "ACME GmbH"),
    (date(2024, 2, 1), -950.0, "Hausverwaltung Müller"),
    (date(2024, 2, 9), 1234.56, "Finanzamt"),
    (date(2024, 2, 14), -1050.99, "Reisebüro"),
    (date(2024, 2, 29), 2450.0, "ACME GmbH"),
    (date(2024, 3, 5), -0.99, "App Store"),
    (date(2024, 3, 17), -47.11, "Stadtwerke"),
    (date(2024, 3, 28), -300.0, "Geldautomat"),
)
MONTHS_DE = ["Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"]
LEFT_OUT = "left out"


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


@dataclass(frozen=True)
class BankFile:
    """A file, and what is right.

    Attributes
    ----------
    columns
        Column -> its role in the ledger, or `LEFT_OUT`, and the keys of its format.
    skipped
        Rows that are no movement.
    questions
        Fields that the file leaves open.
    """

    content: bytes
    columns: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    skipped: int = 0
    questions: tuple[str, ...] = ()
    name: str = "export.csv"


def table(
    header: Sequence[str], row: Callable[[int, date, float, str], Sequence[str]], *, delimiter: str = ",", encoding: str = "utf-8",
    quoted: bool = False, above: str = "", below: str = "", end: str = "\r\n", row_end: str = "", newest_first: bool = False,
) -> bytes:  # fmt: skip
    """Return a file with one row for each movement."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL, lineterminator=f"{row_end}{end}")
    rows = [row(number, *movement) for number, movement in enumerate(MOVEMENTS, 1)]
    writer.writerows(reversed(rows) if newest_first else rows)
    head = delimiter.join(f'"{name}"' if quoted or delimiter in name else name for name in header)
    return f"{above}{head}{end}{out.getvalue()}{below}".encode(encoding)


def balance(number: int) -> float:
    return 2000 + sum(amount for _, amount, _ in MOVEMENTS[:number])


SIGNED = {"absolute": True}
COMMA = {"decimal": ",", "thousands": "."}


def ing() -> BankFile:
    above = "Umsatzanzeige;Datei erstellt am: 31.03.2024 10:15\r\n\r\nIBAN;DE00 0000\r\nKontoname;Girokonto\r\nSaldo;3.607,27;EUR\r\n\r\n"
    header = ["Buchung", "Wertstellungsdatum", "Auftraggeber/Empfänger", "Buchungstext", "Verwendungszweck", "Saldo", "Währung",
              "Betrag", "Währung"]  # fmt: skip
    content = table(
        header, lambda n, day, amount, who: [f"{day:%d.%m.%Y}", f"{day:%d.%m.%Y}", who, "Lastschrift", f"Zweck {n}",
                                             german(balance(n)), "EUR", german(amount), "EUR"],
        delimiter=";", encoding="cp1252", above=above, newest_first=True,
    )  # fmt: skip
    return BankFile(content, {
        "Buchung": ("occurred_at", {"format": "%d.%m.%Y"}), "Wertstellungsdatum": (LEFT_OUT, {}),
        "Auftraggeber/Empfänger": ("merchant", {}), "Buchungstext": (LEFT_OUT, {}), "Verwendungszweck": (LEFT_OUT, {}),
        "Saldo": ("balance_amount", COMMA), "Betrag": ("amount", COMMA | SIGNED),
    })  # fmt: skip


def n26() -> BankFile:
    header = ["Booking Date", "Value Date", "Partner Name", "Partner Iban", "Type", "Payment Reference", "Account Name", "Amount (EUR)",
              "Original Amount", "Original Currency", "Exchange Rate"]  # fmt: skip
    content = table(
        header, lambda n, day, amount, who: [f"{day}", f"{day}", who, "", "Presentment", f"ref {n}", "Main Account",
                                             f"{amount}", f"{amount}", "EUR", "1.0"],
        quoted=True, end="\n",
    )  # fmt: skip
    return BankFile(content, {
        "Booking Date": ("occurred_at", {}), "Value Date": (LEFT_OUT, {}), "Partner Name": ("merchant", {}), "Partner Iban": (LEFT_OUT, {}),
        "Type": (LEFT_OUT, {}), "Payment Reference": (LEFT_OUT, {}), "Amount (EUR)": ("amount", SIGNED), "Original Amount": (LEFT_OUT, {}),
    })  # fmt: skip


def revolut() -> BankFile:
    header = ["Type", "Product", "Started Date", "Completed Date", "Description", "Amount", "Fee", "Currency", "State", "Balance"]
    pending = "CARD_PAYMENT,Current,2024-03-30 09:00:00,,Pending,-5.00,0.00,EUR,PENDING,\n"
    content = table(
        header, lambda n, day, amount, who: ["CARD_PAYMENT" if amount < 0 else "TOPUP", "Current", f"{day} 00:12:13",
                                             f"{day} 09:00:01", who, f"{amount:.2f}", "0.00", "EUR", "COMPLETED", f"{balance(n):.2f}"],
        end="\n", below=pending,
    )  # fmt: skip
    return BankFile(content, {
        "Type": (LEFT_OUT, {}), "Product": (LEFT_OUT, {}), "Started Date": (LEFT_OUT, {}), "Completed Date": ("occurred_at", {}),
        "Description": (LEFT_OUT, {}), "Amount": ("amount", SIGNED), "Fee": (LEFT_OUT, {}), "Currency": ("currency", {}),
        "State": (LEFT_OUT, {}), "Balance": ("balance_amount", {}),
    }, skipped=1)  # fmt: skip


def deutsche_bank() -> BankFile:
    header = ["Buchungstag", "Wert", "Umsatzart", "Begünstigter / Auftraggeber", "Verwendungszweck", "IBAN", "Kundenreferenz",
              "Fremde Gebühren", "Soll", "Haben", "Währung"]  # fmt: skip
    content = table(
        header, lambda n, day, amount, who: [f"{day:%d.%m.%Y}", f"{day:%d.%m.%Y}", "SEPA", who, f"Zweck {n}", "DE00", f"K{n}", "",
                                             german(amount) if amount < 0 else "", german(amount) if amount > 0 else "", "EUR"],
        delimiter=";", encoding="cp1252", above="Umsätze Girokonto;;;Kundennummer: 000\r\n\r\n01.01.2024 - 31.03.2024\r\n",
        below="Kontostand;31.03.2024;;;3.607,27;EUR\r\n",
    )  # fmt: skip
    return BankFile(content, {
        "Buchungstag": ("occurred_at", {"format": "%d.%m.%Y"}), "Wert": (LEFT_OUT, {}), "Umsatzart": (LEFT_OUT, {}),
        "Begünstigter / Auftraggeber": ("merchant", {}), "Verwendungszweck": (LEFT_OUT, {}), "Soll": ("amount", COMMA | SIGNED),
        "Haben": ("amount", COMMA | SIGNED), "Währung": ("currency", {}),
    }, skipped=1)  # fmt: skip


def chase() -> BankFile:
    header = ["Details", "Posting Date", "Description", "Amount", "Type", "Balance", "Check or Slip #"]
    content = table(
        header, lambda n, day, amount, who: ["DEBIT" if amount < 0 else "CREDIT", f"{day:%m/%d/%Y}", f"{who}, ID:{n}", f"{amount:.2f}",
                                             "ACH_DEBIT" if amount < 0 else "ACH_CREDIT", f"{balance(n):.2f}", ""],
        end="\n", row_end=",", newest_first=True,
    )  # fmt: skip
    return BankFile(content, {
        "Details": (LEFT_OUT, {}), "Posting Date": ("occurred_at", {"format": "%m/%d/%Y"}), "Description": (LEFT_OUT, {}),
        "Amount": ("amount", SIGNED), "Type": (LEFT_OUT, {}), "Balance": ("balance_amount", {}), "Check or Slip #": (LEFT_OUT, {}),
    })  # fmt: skip


def barclays() -> BankFile:
    header = ["Number", "Date", "Account", "Amount", "Subcategory", "Memo"]
    content = table(
        header, lambda n, day, amount, who: ["\t ", f"{day:%d/%m/%Y}", "20-00-00 00000000", f"{amount:.2f}", "Payment",
                                             f"{who:<20}\tON {day:%d %b} BCC"],
    )  # fmt: skip
    return BankFile(content, {
        "Number": (LEFT_OUT, {}), "Date": ("occurred_at", {"format": "%d/%m/%Y"}), "Account": ("account_id", {}),
        "Amount": ("amount", SIGNED), "Subcategory": (LEFT_OUT, {}), "Memo": (LEFT_OUT, {}),
    })  # fmt: skip


def sparkasse() -> BankFile:
    header = ["Auftragskonto", "Buchungstag", "Valutadatum", "Buchungstext", "Verwendungszweck", "Glaeubiger ID", "Mandatsreferenz",
              "Kundenreferenz (End-to-End)", "Sammlerreferenz", "Lastschrift Ursprungsbetrag", "Auslagenersatz Ruecklastschrift",
              "Beguenstigter/Zahlungspflichtiger", "Kontonummer/IBAN", "BIC (SWIFT-Code)", "Betrag", "Waehrung", "Info"]  # fmt: skip
    content = table(
        header, lambda n, day, amount, who: ["DE00123", f"{day:%d.%m.%y}", f"{day:%d.%m.%y}", "FOLGELASTSCHRIFT", f"Zweck {n}",
                                             "", "", "", "", "", "", who, "DE99", "XXX", german(amount).replace(".", ""), "EUR",
                                             "Umsatz gebucht"],
        delimiter=";", quoted=True, encoding="cp1252",
    )  # fmt: skip
    return BankFile(content, {
        "Auftragskonto": ("account_id", {}), "Buchungstag": ("occurred_at", {"format": "%d.%m.%y"}), "Valutadatum": (LEFT_OUT, {}),
        "Buchungstext": (LEFT_OUT, {}), "Verwendungszweck": (LEFT_OUT, {}), "Beguenstigter/Zahlungspflichtiger": ("merchant", {}),
        "Betrag": ("amount", {"decimal": ",", "absolute": True}), "Waehrung": ("currency", {}), "Info": (LEFT_OUT, {}),
    })  # fmt: skip


def paypal() -> BankFile:
    header = ["Datum", "Uhrzeit", "Zeitzone", "Name", "Typ", "Status", "Währung", "Brutto", "Gebühr", "Netto", "Transaktionscode"]
    foreign = '"30.03.2024","10:00:00","CET","Shop","Zahlung","Abgeschlossen","USD","-5,00","0,00","-5,00","X99"\r\n'
    content = table(
        header, lambda n, day, amount, who: [f"{day:%d.%m.%Y}", "10:00:00", "CET", who, "Zahlung", "Abgeschlossen", "EUR", german(amount),
                                             "0,00", german(amount), f"X{n}"],
        quoted=True, encoding="utf-8-sig", below=foreign,
    )  # fmt: skip
    return BankFile(content, {
        "Datum": ("occurred_at", {"format": "%d.%m.%Y"}), "Uhrzeit": (LEFT_OUT, {}), "Zeitzone": (LEFT_OUT, {}), "Typ": (LEFT_OUT, {}),
        "Status": (LEFT_OUT, {}), "Währung": ("currency", {}), "Brutto": (LEFT_OUT, {}), "Netto": ("amount", COMMA | SIGNED),
        "Transaktionscode": ("transaction_id", {}),
    }, skipped=1)  # fmt: skip


def unicode_text() -> BankFile:
    content = table(
        ["Datum", "Text", "Betrag", "Kontostand"],
        lambda n, day, amount, who: [f"{day.day}. {MONTHS_DE[day.month - 1]} {day.year}", who, f"{german(amount)} €",
                                             f"{german(balance(n))} €"],
        delimiter="\t", encoding="utf-16",
    )  # fmt: skip
    marks = COMMA | {"beside": {"€": ""}}
    return BankFile(content, {
        "Datum": ("occurred_at", {"format": "%d. %B %Y", "language": "de"}), "Text": (LEFT_OUT, {}), "Betrag": ("amount", marks | SIGNED),
        "Kontostand": ("balance_amount", marks),
    })  # fmt: skip


def passbook() -> BankFile:
    content = table(
        ["Txn Date", "Value Date", "Description", "Ref No.", "Amount", "Balance"],
        lambda n, day, amount, who: [f"{day:%d-%b-%y}".upper(), f"{day:%d-%b-%y}".upper(), who, f"R{n}",
                                     f"{abs(amount):,.2f} {'DR' if amount < 0 else 'CR'}", f"{balance(n):,.2f} CR"],
        above="Account;0000\n\n", end="\n",
    )  # fmt: skip
    return BankFile(content, {
        "Txn Date": ("occurred_at", {"format": "%d-%b-%y"}), "Value Date": (LEFT_OUT, {}), "Description": (LEFT_OUT, {}),
        "Ref No.": (LEFT_OUT, {}), "Amount": ("amount", {"thousands": ",", "beside": {"CR": "+", "DR": "-"}, "absolute": True}),
        "Balance": ("balance_amount", {"thousands": ",", "beside": {"CR": "+"}}),
    })  # fmt: skip


OFX_COLUMNS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "account": ("account_id", {}), "date": ("occurred_at", {}), "amount": ("amount", SIGNED), "currency": ("currency", {}),
    "payee": ("merchant", {}), "purpose": (LEFT_OUT, {}), "code": (LEFT_OUT, {}), "reference": ("transaction_id", {}),
}  # fmt: skip


def ofx_1() -> BankFile:
    rows = "".join(
        f"<STMTTRN><TRNTYPE>OTHER<DTPOSTED>{day:%Y%m%d}120000[-5:EST]<TRNAMT>{amount:.2f}<FITID>F{n}<NAME>{who} &amp; Co<MEMO>No {n}\r\n"
        for n, (day, amount, who) in enumerate(MOVEMENTS, 1)
    )
    head = "OFXHEADER:100\r\nDATA:OFXSGML\r\nVERSION:102\r\nENCODING:USASCII\r\nCHARSET:1252\r\n\r\n"
    content = (
        f"{head}<OFX><BANKMSGSRSV1><STMTTRNRS><STMTRS><CURDEF>EUR<BANKACCTFROM><BANKID>1<ACCTID>999</BANKACCTFROM><BANKTRANLIST>\r\n{rows}"
        "</BANKTRANLIST><LEDGERBAL><BALAMT>3607.27<DTASOF>20240331</LEDGERBAL></STMTRS></STMTTRNRS></BANKMSGSRSV1></OFX>"
    )
    return BankFile(content.encode("cp1252"), OFX_COLUMNS, name="export.qfx")


def ofx_2() -> BankFile:
    rows = "".join(
        f"<STMTTRN><TRNTYPE>OTHER</TRNTYPE><DTPOSTED>{day:%Y%m%d}</DTPOSTED><TRNAMT>{amount:.2f}</TRNAMT><FITID>F{n}</FITID>"
        f"<PAYEE><NAME><![CDATA[{who} & Co]]></NAME></PAYEE><MEMO>No {n}</MEMO></STMTTRN>\n"
        for n, (day, amount, who) in enumerate(MOVEMENTS, 1)
    ).replace(".", ",")
    content = (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<?OFX OFXHEADER="200" VERSION="211"?>\n<OFX><STMTRS><CURDEF>EUR</CURDEF>'
        f"<BANKACCTFROM><ACCTID>999</ACCTID></BANKACCTFROM><BANKTRANLIST>\n{rows}</BANKTRANLIST></STMTRS></OFX>"
    )
    return BankFile(content.encode("latin-1"), OFX_COLUMNS, name="export.ofx")


QIF = b"!Type:Bank\nD1/ 2'24\nT-950.00\nPRent\n^\nD1/15'24\nT-82.35\nPMarket\n^\n"

BANKS: Mapping[str, Callable[[], BankFile]] = {
    "ing": ing, "n26": n26, "revolut": revolut, "deutsche bank": deutsche_bank, "chase": chase, "barclays": barclays,
    "sparkasse": sparkasse, "paypal": paypal, "ofx 1": ofx_1, "ofx 2": ofx_2, "utf-16": unicode_text, "passbook": passbook,
}  # fmt: skip
