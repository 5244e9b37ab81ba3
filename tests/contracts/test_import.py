"""Tests of `finrisk import`: files that nothing is known of become a mapping that reads them as they are meant."""

import io
import zipfile

import pytest
import yaml
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.ledger.intake.statements import convert_to_csv
from schemas.text_files.cell_formats import find_format
from schemas.text_files.text_layout import find_layout

GERMAN = """"Kontonummer:";"DE00 0000";;
"Von:";"01.05.2024";;

Buchungstag;Zahlungsempfänger;Verwendungszweck;Betrag (EUR)
31.05.2024;Bäckerei Müller;Brötchen;-3,20
30.05.2024;Firma;Gehalt;2.500,00
02.05.2024;Vermieter;Miete;-1.050,00
"""


@pytest.fixture
def propose(tmp_path, monkeypatch):
    """Write a file, import it, and return the proposed mapping and the output."""
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINRISK_AS_OF", "2026-06-01T12:00:00")

    def run(content, *options, name="export.csv", encoding="utf-8"):
        path, out = tmp_path / name, tmp_path / "my.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        result = CliRunner().invoke(cli, ["import", str(path), "-o", str(out), "--overwrite", *options])
        assert result.exit_code == 0, result.output
        return yaml.safe_load(out.read_text("utf-8")), result.output

    return run


def test_a_german_export_with_a_preamble_in_cp1252(propose):
    mapping, output = propose(GERMAN, encoding="cp1252")
    table = mapping["tables"]["transactions"]
    assert (mapping["currency"], mapping["begins"], table["delimiter"]) == ("EUR", "2024-05", ";")
    assert "# the 3 lines above the header are found by themselves" in output
    assert table["columns"]["occurred_at"] == {"from": "Buchungstag", "format": "%d.%m.%Y"}
    assert table["columns"]["amount"] == {"from": "Betrag (EUR)", "decimal": ",", "thousands": ".", "absolute": True}
    assert table["columns"]["direction"] == {"sign_of": "Betrag (EUR)", "decimal": ",", "thousands": "."}
    assert (table["columns"]["merchant"], table["columns"]["transaction_id"]) == ("Zahlungsempfänger", {"id": "content"})
    assert "3 rows, 3 valid, 0 in quarantine" in output
    assert '"amount": 3.2, "direction": "debit"' in " ".join(output.split())


def test_debit_and_credit_columns(propose):
    mapping, output = propose("Date,Description,Debit,Credit,Balance\n2024-05-01,Rent,500.00,,10\n2024-05-02,Pay,,900.00,910\n")
    columns = mapping["tables"]["transactions"]["columns"]
    assert columns["amount"] == {"debit": "Debit", "credit": "Credit"}
    assert columns["balance_amount"] == "Balance"
    assert "2 rows, 2 valid" in output


@pytest.mark.parametrize("amounts", [("(12.50)", "99.00"), ("12.50-", "99.00"), ("−12.50", "99.00")])
def test_signs_of_accountants(propose, amounts):
    mapping, output = propose("date,amount,payee\n" + "".join(f"2024-05-0{n},{text},x\n" for n, text in enumerate(amounts, 1)))
    assert mapping["tables"]["transactions"]["columns"]["direction"] == {"sign_of": "amount"}
    assert '"amount": 12.5, "direction": "debit"' in " ".join(output.split())


def test_a_column_of_directions(propose):
    mapping, _ = propose("id\tuser_id\ttimestamp\tamount\ttype\n1\tu1\t2024-05-01 10:00\t5\tDR\n2\tu2\t2024-05-01 11:00\t6\tCR\n")
    table = mapping["tables"]["transactions"]
    assert (table["delimiter"], table["columns"]["customer_id"]) == ("\t", "user_id")
    assert table["columns"]["direction"] == {"from": "type", "values": {"DR": "debit", "CR": "credit"}}


def test_the_order_of_day_and_month_is_confirmed_where_it_is_open(propose):
    _, output = propose("date,amount\n03/04/2024,-5\n05/06/2024,7\n")
    assert "# confirm: no day is later than the 12th" in output
    mapping, output = propose("date,amount\n13/04/2024,-5\n05/06/2024,7\n")
    assert mapping["tables"]["transactions"]["columns"]["occurred_at"]["format"] == "%d/%m/%Y"
    assert "no day is later" not in output


def credit_file(n=200):
    rows = []
    for i in range(n):
        grade, late, used = "A" if i % 3 else "B", 98 if i % 40 == 7 else i % 3, -999 if i % 10 == 3 else i % 17
        rows.append(f"L{i},{grade},{i % 40 + 20},{900 + i * 7},{late},{used},{'good' if i % 5 else 'bad'}")
    return "loan_id,grade,age,loan_amnt,late_90,utilisation,loan_status\n" + "\n".join(rows) + "\n"


def test_a_file_of_loans(propose):
    mapping, output = propose(credit_file())
    table = mapping["tables"]["loans"]
    extra = {column["name"]: column for column in table["extra"]}
    assert table["columns"]["loan_id"] == "loan_id"
    assert table["columns"]["loan_amount"] == "loan_amnt"
    assert table["columns"]["is_default"] == {"from": "loan_status", "values": {"good": False, "bad": True}}
    assert extra["late_90"]["missing"] == ["98"]
    assert extra["utilisation"]["missing"] == ["-999"]
    assert (extra["age"]["personal"], "feature" in extra["age"], "feature" in extra["late_90"]) == ("protected", False, True)
    assert "200 rows, 200 valid" in output


def test_what_is_known_after_the_decision_is_no_feature(propose):
    mapping, output = propose(credit_file().replace("utilisation", "recoveries"))
    (column,) = [column for column in mapping["tables"]["loans"]["extra"] if column["name"] == "recoveries"]
    assert "feature" not in column
    assert "confirm" in next(line for line in output.splitlines() if "name: recoveries" in line)


@pytest.mark.parametrize(
    ("out", "into"), [("POS-DEBIT", "CREDIT"), ("-", "+"), ("Soll", "Haben"), ("DBIT", "CRDT"), ("money out", "money in")]
)
def test_words_of_a_direction(propose, out, into):
    mapping, output = propose(f"date,amount,type\n2024-05-01,5,{out}\n2024-05-02,6,{into}\n")
    assert mapping["tables"]["transactions"]["columns"]["direction"] == {"from": "type", "values": {out: "debit", into: "credit"}}
    assert "2 rows, 2 valid" in output


def test_two_files_of_one_kind_are_one_table(propose, tmp_path):
    (tmp_path / "later.csv").write_text("date,amount\n2024-06-01,-5\n")
    mapping, output = propose("date,amount\n2024-05-01,-5\n", str(tmp_path / "later.csv"))
    assert mapping["tables"]["transactions"]["file"] == ["export.csv", "later.csv"]
    assert "2 rows, 2 valid" in output


def test_a_column_of_currencies(propose):
    mapping, output = propose("date,amount,currency\n2024-05-01,-5,CHF\n2024-05-02,-6,CHF\n2024-05-03,-7,EUR\n")
    assert (mapping["currency"], mapping["tables"]["transactions"]["currency"]) == ("CHF", "currency")
    assert "3 rows, 2 valid, 1 in quarantine" in output


def test_nothing_is_overwritten_unasked(tmp_path):
    (tmp_path / "t.csv").write_text("date,amount\n2024-05-01,-5\n")
    (tmp_path / "my.yaml").write_text("mine")
    result = CliRunner().invoke(cli, ["import", str(tmp_path / "t.csv"), "-o", str(tmp_path / "my.yaml")])
    assert (result.exit_code, (tmp_path / "my.yaml").read_text()) == (2, "mine")
    assert "is there already" in result.output


@pytest.mark.parametrize(
    ("texts", "fields"),
    [
        (["1.234,50", "-12,50"], {"kind": "number", "decimal": ",", "thousands": "."}),
        (["1,234.50", "12.50"], {"kind": "number", "decimal": ".", "thousands": ","}),
        (["1 234,50", "12,50"], {"kind": "number", "decimal": ",", "thousands": " "}),
        (["1'234.50", "12.50"], {"kind": "number", "decimal": ".", "thousands": "'"}),
        (["20240501", "20231231"], {"kind": "time", "format": "%Y%m%d"}),
        (["2024/05/01 10:00", "2024/12/31 11:30"], {"kind": "time", "format": "%Y/%m/%d %H:%M"}),
        (["1.5.24", "31.12.23"], {"kind": "time", "format": "%d.%m.%y"}),
        (["12/31/2024 10:00:00", "01/02/2024 11:00:00"], {"kind": "time", "format": "%m/%d/%Y %H:%M:%S"}),
        (["1714557600", "1714557601"], {"kind": "time", "format": "epoch_s"}),
        (["1714557600000", "1714557601000"], {"kind": "time", "format": "epoch_ms"}),
        (["2024-05-01T10:00:00+02:00", "2024-05-01"], {"kind": "time", "format": ""}),
        (["yes", "no", "N/A", ""], {"kind": "boolean", "missing": ("N/A",)}),
        (["-2", "-1", "0", "1", "2"], {"kind": "number", "missing": ()}),
        (["-9", "-8", "0", "1", "2"], {"kind": "number", "missing": ("-9", "-8")}),
        (["REWE", "12"], {"kind": "text"}),
    ],
)
def test_the_format_of_a_column(texts, fields):
    found = find_format(texts)
    assert {name: getattr(found, name) for name in fields} == fields


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_encoding_that_is_sure(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("name;größe\nJürgen;1,80\nZoë;1,70\n".encode(encoding))
    layout = find_layout((tmp_path / "t.csv").read_bytes())
    assert (layout.header, layout.is_encoding_sure, layout.delimiter) == (("name", "größe"), True, ";")


def test_a_file_without_a_header_line(tmp_path):
    (tmp_path / "t.data").write_text("A11 6 1169 1\nA12 48 5951 2\n")
    layout = find_layout((tmp_path / "t.data").read_bytes())
    assert (layout.delimiter, layout.has_header, layout.header[0], len(layout.rows)) == (" ", False, "column_1", 2)


OFX = b"""OFXHEADER:100
DATA:OFXSGML
CHARSET:1252

<OFX><STMTRS><CURDEF>USD<BANKACCTFROM><ACCTID>999</BANKACCTFROM><BANKTRANLIST>
<STMTTRN><TRNTYPE>DEBIT<DTPOSTED>20240501120000[-5:EST]<TRNAMT>-12.50<FITID>A1<NAME>Joe &amp; S\xf6n</STMTTRN>
<STMTTRN><TRNTYPE>CREDIT<DTPOSTED>20240502<TRNAMT>100.00<FITID>A2<NAME>Pay</STMTTRN></BANKTRANLIST></STMTRS></OFX>
"""
CAMT = b"""<?xml version="1.0"?><Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"><BkToCstmrStmt><Stmt>
<Acct><Id><IBAN>DE1</IBAN></Id></Acct>
<Ntry><Amt Ccy="EUR">10.00</Amt><CdtDbtInd>DBIT</CdtDbtInd><BookgDt><Dt>2024-05-01</Dt></BookgDt><AcctSvcrRef>R1</AcctSvcrRef>
<NtryDtls><TxDtls><RltdPties><Cdtr><Nm>Shop</Nm></Cdtr></RltdPties><RmtInf><Ustrd>Shoes</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>
<Ntry><Amt Ccy="EUR">4.00</Amt><CdtDbtInd>CRDT</CdtDbtInd><RvslInd>true</RvslInd><BookgDt><Dt>2024-05-02</Dt></BookgDt></Ntry>
</Stmt></BkToCstmrStmt></Document>"""
MT940 = b""":20:STARTUMSE
:25:12345678/1234
:28C:00001/001
:60F:C240501EUR1000,00
:61:2405010501D50,25N033NONREF
:86:177?00SEPA?20Miete Mai?32Hausverwaltung
:61:2405020502C1234,56N051NONREF
:86:166?00GUTSCHR?20Gehalt?32Firma
:62F:C240502EUR2184,31
-
"""


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.ofx", OFX, ["999,2024-05-01T12:00:00-05:00,-12.50,USD,Joe & Sön,,DEBIT,A1", "999,2024-05-02,100.00,USD,Pay,,CREDIT,A2"]),
        ("a.xml", CAMT, ["DE1,2024-05-01,-10.00,EUR,Shop,Shoes,,R1", "DE1,2024-05-02,-4.00,EUR,,,,"]),
        ("a.sta", MT940, ["12345678/1234,2024-05-01,-50.25,EUR,Hausverwaltung,Miete Mai,N033,",
                          "12345678/1234,2024-05-02,1234.56,EUR,Firma,Gehalt,N051,"]),
    ],
)  # fmt: skip
def test_a_statement_becomes_a_csv_and_a_mapping(propose, tmp_path, name, content, rows):
    mapping, output = propose(content, name=name)
    assert (tmp_path / "a.csv").read_text("utf-8").splitlines()[1:] == rows
    columns = mapping["tables"]["transactions"]["columns"]
    assert (columns["amount"], columns["direction"]) == ({"from": "amount", "absolute": True}, {"sign_of": "amount"})
    assert "2 rows, 2 valid, 0 in quarantine" in output


def test_a_workbook(propose):
    sheet = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
        '<row r="1"><c r="A1" t="inlineStr"><is><t>date</t></is></c><c r="B1" t="inlineStr"><is><t>amount</t></is></c></row>'
        '<row r="2"><c r="A2" s="1"><v>45413</v></c><c r="B2"><v>-12.5</v></c></row>'
        '<row r="3"><c r="A3" s="1"><v>45414</v></c><c r="B3"><v>1000</v></c></row></sheetData></worksheet>'
    )
    main, office, package = (
        f"http://schemas.openxmlformats.org/{place}"
        for place in ("spreadsheetml/2006/main", "officeDocument/2006/relationships", "package/2006")
    )

    def relations(**targets):
        links = "".join(f'<Relationship Id="{kind}" Type="{office}/{kind}" Target="{target}"/>' for kind, target in targets.items())
        return f'<Relationships xmlns="{package}/relationships">{links}</Relationships>'

    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": relations(officeDocument="xl/workbook.xml"),
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="S" sheetId="1" r:id="worksheet"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(worksheet="worksheets/s.xml", styles="styles.xml"),
        "xl/styles.xml": f'<styleSheet xmlns="{main}"><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>',
        "xl/worksheets/s.xml": sheet,
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as book:
        for place, text in parts.items():
            book.writestr(place, text)
    mapping, output = propose(data.getvalue(), name="book.xlsx")
    assert mapping["tables"]["transactions"]["columns"]["occurred_at"] == "date"
    assert '"occurred_at": "2024-05-01T00:00:00", "amount": 12.5, "direction": "debit"' in " ".join(output.split())


def test_a_statement_that_is_cut_short(tmp_path):
    (tmp_path / "a.xml").write_bytes(CAMT[:300])
    result = CliRunner().invoke(cli, ["import", str(tmp_path / "a.xml"), "-o", str(tmp_path / "my.yaml")])
    assert result.exit_code == 2
    assert "cannot be read" in result.output
    assert not (tmp_path / "a.csv").exists()


def test_entities_of_xml_are_refused(tmp_path):
    (tmp_path / "a.xml").write_bytes(b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "y">]><Document xmlns="urn:camt.053.001.02"/>')
    with pytest.raises(ValueError, match="DOCTYPE"):
        convert_to_csv(tmp_path / "a.xml", tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (bytes(range(256)) * 20, "is no text"),
        (b"x\n1\n2\n", "do not tell what the file holds"),
        (b"date,amount\n", "no rows"),
    ],
)
def test_a_file_that_is_none_is_told_in_a_sentence(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    result = CliRunner().invoke(cli, ["import", str(tmp_path / "t.csv"), "-o", str(tmp_path / "my.yaml")])
    assert (result.exit_code, message in result.output) == (2, True), result.output


def test_a_quote_that_is_never_closed_hides_no_row(tmp_path):
    opened = {2: '"'}
    rows = "".join(f"2024-05-0{day};{opened.get(day, '')}Shop {day};-{day},50\n" for day in range(1, 10))
    (tmp_path / "t.csv").write_text("date;payee;amount\n" + rows)
    layout = find_layout((tmp_path / "t.csv").read_bytes())
    assert (layout.delimiter, len(layout.rows)) == (";", 8)
