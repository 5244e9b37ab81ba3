"""Tests of bank statements: layouts of banks of several countries, OFX, what is ambiguous, and the sums of a statement."""

import re
from datetime import date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bento.console.bank_statements.csv_statement import LayoutQuestion
from bento.console.bank_statements.movement import Statement, StatementError, StatementMovement
from bento.console.bank_statements.statement_file import open_statement
from bento.console.bank_statements.statement_sums import categorise, measure_behaviour, sum_by_month
from finrisk_assets.domains.spending_risk.decide import find_field_faults
from schemas.normal_form import normalise_text
from schemas.text_files.cell_formats import find_numbers
from schemas.text_values import SPACES, is_in_range, read_number

GERMAN = """"Kontoauszug";"DE00 1234"
"Zeitraum";"01.01.2024 - 31.01.2024"

"Buchungstag";"Valuta";"Auftraggeber / Begünstigter";"Verwendungszweck";"Betrag (EUR)";"Saldo"
"31.01.2024";"31.01.2024";"ACME GmbH";"Gehalt Januar";"2.450,00";"3.617,65"
"15.01.2024";"15.01.2024";"REWE";"Einkauf";"-82,35";"1.167,65"
"02.01.2024";"02.01.2024";"Hausverwaltung";"Miete";"-950,00";"1.250,00"
"""
BRITISH = """Date,Description,Paid out,Paid in,Balance
02 Jan 2024,RENT LANDLORD,950.00,,1250.00
15 Jan 2024,TESCO STORES,82.35,,1167.65
31 Jan 2024,ACME LTD,,"2,450.00","3,617.65"
"""
AMERICAN = """Transaction Date,Posted Date,Description,Category,Type,Amount
01/31/2024,01/31/2024,ACME PAYROLL,Income,Credit,2450.00
01/15/2024,01/16/2024,KROGER #12,Groceries,Debit,82.35
01/02/2024,01/02/2024,RENT,Home,Debit,950.00
"""
FRENCH = """Date;Libellé;Débit;Crédit
31/01/2024;VIREMENT ACME;;2 450,00
15/01/2024;CARREFOUR;82,35;
02/01/2024;LOYER;950,00;
"""
DUTCH = """"Datum","Naam / Omschrijving","Rekening","Af Bij","Bedrag (EUR)","Mededelingen"
"20240131","ACME BV","NL00","Bij","2450,00","Salaris"
"20240115","Albert Heijn","NL00","Af","82,35","Boodschappen"
"20240102","Verhuurder","NL00","Af","950,00","Huur"
"""
SWISS = """Date\tText\tAmount\tBalance
31.01.2024\tACME AG\t2'450.00\t3'617.65
15.01.2024\tCoop\t-82.35\t1'167.65
02.01.2024\tMiete\t-950.00\t1'250.00
"""
ISO = """date|payee|memo|amount|currency
2024-01-02T09:00:00Z|Landlord|rent|(950.00)|EUR
2024-01-15T18:30:00Z|Aldi||(82.35)|EUR
2024-01-31T07:00:00Z|Acme|salary|2450.00|EUR
"""
TRAILING = """Booking Date;Details;Amount
2024-01-02;Rent;950,00-
2024-01-15;Spar;82,35-
2024-01-31;Acme;2450,00
;Total;1417,65
"""
NAMELESS = """2024-01-02,Rent,-950.00,1250.00
2024-01-15,Aldi,-82.35,1167.65
2024-01-31,Acme,2450.00,3617.65
"""
OFX_1 = """OFXHEADER:100
DATA:OFXSGML
VERSION:102

<OFX><BANKMSGSRSV1><STMTTRNRS><STMTRS><CURDEF>EUR<BANKTRANLIST>
<STMTTRN><TRNTYPE>DEBIT<DTPOSTED>20240102120000[-5:EST]<TRNAMT>-950.00<FITID>1<NAME>Rent &amp; heating
<STMTTRN><TRNTYPE>DEBIT<DTPOSTED>20240115<TRNAMT>-82.35<FITID>2<NAME>Aldi<MEMO>Aldi
<STMTTRN><TRNTYPE>CREDIT<DTPOSTED>20240131<TRNAMT>2450.00<FITID>3<NAME>Acme
</BANKTRANLIST><LEDGERBAL><BALAMT>3617.65<DTASOF>20240131</LEDGERBAL></STMTRS></STMTTRNRS></BANKMSGSRSV1></OFX>
"""
OFX_2 = """<?xml version="1.0"?><?OFX OFXHEADER="200"?><OFX><STMTRS><CURDEF>EUR</CURDEF><BANKTRANLIST>
<STMTTRN><DTPOSTED>20240131</DTPOSTED><TRNAMT>2450,00</TRNAMT><NAME>Acme</NAME></STMTTRN>
<STMTTRN><DTPOSTED>20240115</DTPOSTED><TRNAMT>-82,35</TRNAMT><NAME>Aldi</NAME></STMTTRN>
<STMTTRN><DTPOSTED>20240102</DTPOSTED><TRNAMT>-950,00</TRNAMT><NAME>Rent</NAME></STMTTRN>
</BANKTRANLIST></STMTRS></OFX>"""
EXPECTED = [(date(2024, 1, 2), -950.0), (date(2024, 1, 15), -82.35), (date(2024, 1, 31), 2450.0)]


def pairs(statement: Statement) -> list[tuple[date, float]]:
    return [(movement.booked_on, movement.amount) for movement in statement.movements]


@pytest.mark.parametrize(
    "content",
    [
        GERMAN.encode("cp1252"), BRITISH.encode("utf-8-sig"), AMERICAN.encode(), FRENCH.encode("cp1252"), DUTCH.encode(), SWISS.encode(),
        ISO.encode(), TRAILING.encode(), OFX_1.encode(), OFX_2.encode(), BRITISH.encode("utf-16"), GERMAN.replace("\n", "\r\n").encode(),
    ],
    ids=["german", "british", "american", "french", "dutch", "swiss", "iso", "trailing", "ofx1", "ofx2", "utf16", "crlf"],
)  # fmt: skip
def test_a_common_layout_is_understood_without_a_question(content: bytes) -> None:
    file = open_statement(content)
    assert file.questions == ()
    assert pairs(file.read()) == EXPECTED


def test_balances_are_read_or_counted_back() -> None:
    for content in (GERMAN, BRITISH, SWISS, OFX_1):
        assert [movement.balance for movement in open_statement(content.encode()).read().movements] == [1250.0, 1167.65, 3617.65]
    assert {movement.balance for movement in open_statement(FRENCH.encode()).read().movements} == {None}


def test_descriptions_and_currency_are_kept() -> None:
    assert open_statement(GERMAN.encode()).read().movements[1].description == "REWE Einkauf"
    ofx = open_statement(OFX_1.encode()).read()
    assert (ofx.movements[0].description, ofx.movements[1].description, ofx.currency) == ("Rent & heating", "Aldi", "EUR")
    assert open_statement(ISO.encode()).read().currency == "EUR"


def test_a_line_of_sums_is_skipped_with_its_reason() -> None:
    assert open_statement(TRAILING.encode()).read().skipped == ((5, "no date"),)


def test_a_file_without_names_is_asked_about_once() -> None:
    file = open_statement(NAMELESS.encode())
    assert len(file.questions) == 1
    assert pairs(file.read({"decimal": "."})) == EXPECTED


AMBIGUOUS_DAYS = "Date,Text,Amount\n03/04/2024,Rent,-10.50\n05/06/2024,Salary,20.25\n"
AMBIGUOUS_MARKS = "Date,Text,Amount\n2024-04-03,Rent,-1.234\n2024-04-05,Salary,2.500\n"
NO_SIGNS = "Date,Text,Amount\n2024-04-03,Rent,950.00\n2024-04-05,Shop,25.00\n"


@pytest.mark.parametrize(
    ("text", "field", "answers"),
    [
        (AMBIGUOUS_DAYS, "date_format", {"%d/%m/%Y": [(date(2024, 4, 3), -10.5), (date(2024, 6, 5), 20.25)],
                                         "%m/%d/%Y": [(date(2024, 3, 4), -10.5), (date(2024, 5, 6), 20.25)]}),
        (AMBIGUOUS_MARKS, "decimal", {".": [(date(2024, 4, 3), -1.234), (date(2024, 4, 5), 2.5)],
                                      ",": [(date(2024, 4, 3), -1234.0), (date(2024, 4, 5), 2500.0)]}),
        (NO_SIGNS, "is_out_positive", {"no": [(date(2024, 4, 3), 950.0), (date(2024, 4, 5), 25.0)],
                                       "yes": [(date(2024, 4, 3), -950.0), (date(2024, 4, 5), -25.0)]}),
    ],
)  # fmt: skip
def test_what_has_two_readings_is_asked_and_both_answers_hold(text: str, field: str, answers: dict[str, list[tuple[date, float]]]) -> None:
    file = open_statement(text.encode())
    (question,) = file.questions
    assert isinstance(question, LayoutQuestion) and question.field == field
    assert {value for value, _ in question.choices} == set(answers)
    for answer, expected in answers.items():
        assert pairs(file.read({field: answer})) == expected
    assert pairs(file.read({field: "nonsense"})) == pairs(file.read())


def test_a_day_above_twelve_settles_the_format() -> None:
    assert open_statement(AMBIGUOUS_DAYS.replace("05/06", "25/06").encode()).questions == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"  \n", "empty"),
        (b"\xff\xfe", "empty"),
        (b'""', "no value"),
        (b"PK\x03\x04\x00\x00", "no text"),
        (b"nothing but words", "no columns"),
        (b"a;b\nc;d\n", "No column holds dates"),
        (b"Date;Amount\nyesterday;12\n", "dates are written"),
        (b"Date;Amount\n2024-01-01;1.234,5.6\n", "amounts are written"),
        (b"<OFX><BANKTRANLIST></BANKTRANLIST></OFX>", "no movement"),
    ],
)
def test_a_file_that_is_no_statement_says_what_is_wrong(content: bytes, message: str) -> None:
    with pytest.raises(StatementError, match=message):
        open_statement(content).read()


@pytest.mark.parametrize(
    ("text", "decimal", "value"),
    [
        ("1.234,56", ",", 1234.56), ("1,234.56", ".", 1234.56), ("-12", ".", -12.0), ("−3,50", ",", -3.5), ("(7.25)", ".", -7.25),
        ("12.00 DR", ".", -12.0), ("12.00 CR", ".", 12.0), ("€ 5", ".", 5.0), ("EUR 1 000,10", ",", 1000.1), ("4'000.05", ".", 4000.05),
        ("+8", ".", 8.0), ("9,99-", ",", -9.99), ("1.23", ",", None), ("12,34,56", ".", None), ("abc", ".", None), ("", ".", None),
        (".", ".", None),
    ],
)  # fmt: skip
def test_amounts_of_banks(text: str, decimal: str, value: float | None) -> None:
    formats = find_numbers([text], decimal)
    assert (formats[0].read(text) if formats else None) == value


STYLES = [(".", ""), (",", "."), (".", ","), (",", " "), (".", "'")]
ODD_CELLS = st.text("0123456789.,' -+−()e€ ", max_size=9) | st.sampled_from(
    ["12.00 DR", "5 EUR", "1.234,5.6", "1,23", "1.23", "nan", "1e3"]
)
ODD_DAYS = st.sampled_from(["31.12.2024", "2024-02-30", "1.1.24", "32.01.2024", "31.04.2024", "01.01.1969", "01/02/2024", "yesterday", ""])


@settings(max_examples=60, deadline=None)
@given(
    style=st.sampled_from(STYLES), sure=st.lists(st.integers(-10**8, 10**8), min_size=10, max_size=12), odd=st.lists(ODD_CELLS, max_size=2),
    odd_days=st.lists(ODD_DAYS, max_size=2),
)  # fmt: skip
def test_every_amount_and_day_is_that_of_the_ledgers_grammar_or_told(
    style: tuple[str, str], sure: list[int], odd: list[str], odd_days: list[str]
) -> None:
    decimal, thousands = style
    written = [f"{cents / 100:,.2f}".translate(str.maketrans({",": thousands, ".": decimal})) for cents in (*sure, -123456789)]
    cells = [*written, *odd, *("-1" for _ in odd_days)]
    days = [*("28.01.2024" for _ in (*written, *odd)), *odd_days]
    text = "Datum;Text;Betrag\n" + "".join(
        f"{day};row {number};{cell}\n" for number, (day, cell) in enumerate(zip(days, cells, strict=True))
    )
    file = open_statement(text.encode())
    assert file.layout is not None
    numbers = file.layout.numbers[0]
    statement = file.read({"date_format": "%d.%m.%Y"})
    told = {line - 2 for line, _ in statement.skipped}
    shown = {int(movement.description.removeprefix("row ")): movement for movement in statement.movements}
    blank = {number for number, (day, cell) in enumerate(zip(days, cells, strict=True)) if not (day + cell).strip()}
    assert told | set(shown) | blank == set(range(len(cells))) and not told & set(shown)
    for number, movement in shown.items():
        cell = normalise_text(cells[number])
        assert movement.amount == read_number(cell, numbers.decimal, numbers.thousands, numbers.beside)
        if not numbers.beside:
            plain = cell.strip(f"()+−-{SPACES}").replace("’", "'").replace(numbers.thousands or "\0", "").replace(numbers.decimal, ".")
            if numbers.thousands == " ":
                plain = "".join(plain.split())
            assert abs(movement.amount) == float(Decimal(plain))
        assert movement.booked_on == datetime.strptime(days[number], file.layout.dates[0].form).date()
    for number in told:
        day = re.fullmatch("[0-9]{1,2}[.][0-9]{1,2}[.][0-9]{4}", days[number]) and is_day(days[number])
        assert not day or numbers.read(cells[number]) is None


def is_day(text: str) -> bool:
    try:
        return is_in_range(datetime.strptime(text, "%d.%m.%Y"))
    except ValueError:
        return False


def test_movements_have_categories_by_their_words_and_by_their_sign() -> None:
    def category(description: str, amount: float = -1.0) -> str:
        return categorise(StatementMovement(date(2024, 1, 1), amount, description))

    assert [category(words) for words in ("MIETE MAI", "Lidl sagt danke", "Netflix.com", "something")] == [
        "housing", "groceries", "leisure", "other",
    ]  # fmt: skip
    assert category("Lidl refund", 5.0) == "income"


def test_sums_by_month_add_up() -> None:
    movements = open_statement(GERMAN.encode()).read().movements
    rows = sum_by_month(movements)
    assert {(row["month"], row["category"]): row["amount"] for row in rows} == {
        ("2024-01", "groceries"): -82.35, ("2024-01", "housing"): -950.0, ("2024-01", "income"): 2450.0,
    }  # fmt: skip


def test_the_eight_fields_are_those_of_the_last_ninety_days_and_agree() -> None:
    old = StatementMovement(date(2023, 6, 1), -10_000.0, "Car", 100.0)
    movements = (old, *open_statement(GERMAN.encode()).read().movements)
    fields, notes = measure_behaviour(movements)
    assert fields == {
        "Total_Income": 2450.0, "Total_Expense": 1032.35, "Num_Transactions": 3.0, "Avg_Expense": 516.17, "Max_Expense": 950.0,
        "Low_Balance_Freq": 0.0, "Expense_Income_Ratio": pytest.approx(0.421367), "Top_Category_Spend": 950.0,
    }  # fmt: skip
    assert find_field_faults(fields) == [] and notes == []


def test_what_a_statement_lacks_is_said() -> None:
    fields, notes = measure_behaviour(open_statement(FRENCH.encode()).read().movements)
    assert any("no balances" in note for note in notes) and any("30 days" in note for note in notes)
    without_income, _ = measure_behaviour((StatementMovement(date(2024, 1, 1), -5.0, "x"),))
    assert without_income["Expense_Income_Ratio"] == 10.0 and find_field_faults(without_income) == []
    assert find_field_faults(fields) == []
