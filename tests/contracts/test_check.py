"""Tests of `finrisk check` and `finrisk quarantine`: files that are easily read as something else, and what the reports say."""

import json
from datetime import datetime

import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger.contract import split
from finrisk_assets.ledger.sources import load
from finrisk_assets.settings import Settings

HEAD = "name: own\ncurrency: EUR\ntables:\n  transactions:\n"
COLUMNS = {"transaction_id": "no", "customer_id": "{value: 007}", "occurred_at": "at", "amount": "sum", "direction": "{value: debit}"}


def mapping(table="", extra="", **columns):
    lines = "".join(f"      {name}: {how}\n" for name, how in {**COLUMNS, **columns}.items())
    return (
        f'{HEAD}    file: "t.csv"\n{table}    columns:\n{lines}{extra}'
        if "file:" not in table
        else f"{HEAD}{table}    columns:\n{lines}{extra}"
    )


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Write a mapping and its files, check it, and return the exit status and the report."""
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINRISK_AS_OF", "2026-06-01T12:00:00")

    def run(text, *options, **files):
        (tmp_path / "m.yaml").write_text(text, "utf-8")
        for name, content in files.items():
            (tmp_path / {"t": "t.csv"}.get(name, name)).write_text(content, "utf-8")
        result = CliRunner().invoke(cli, ["check", str(tmp_path / "m.yaml"), "--json", *(options or ("--rows", "50"))])
        return result.exit_code, json.loads(result.stdout)

    return run


def of_transactions(report):
    """Return the valid rows by their identifier, and the broken rules by row number."""
    table = report["tables"]["transactions"]
    assert table["rows"] == table["valid"] + table["quarantined"]
    return {row["transaction_id"]: row for row in table["valid_rows"]}, {
        row["_row"]: row["broken_rules"] for row in table["quarantined_rows"]
    }


def test_the_shape_of_the_report(check):
    status, report = check(mapping(), t="no,at,sum\n1,2024-05-01,5\n2,2024-05-01,five\n3,never,-1\n")
    table = report["tables"]["transactions"]
    assert status == 1
    assert set(report) == {"tables", "domains"}
    assert (table["rows"], table["valid"], table["quarantined"]) == (3, 1, 2)
    rule = table["rules"]["amount is not a number"]
    assert (rule["rows"], rule["examples"]) == (1, [{"row": 2, "sum": "five"}])
    assert "decimal" in rule["fix"]
    assert set(table["rules"]) == {"amount is not a number", "amount is below 0", "occurred_at is not a timestamp"}
    assert report["domains"]["loan_default"] == {"runs": False, "reason": "the mapping has no table loans"}
    assert report["domains"]["transaction_anomaly"]["runs"] is False
    assert "more than the share of 0.05" in report["domains"]["transaction_anomaly"]["reason"]


def test_rows_are_shown_only_where_they_are_asked_for(check):
    _, report = check(mapping(), "--rows", "0", t="no,at,sum\n1,2024-05-01,5\n")
    assert "valid_rows" not in report["tables"]["transactions"]


def test_personal_values_are_hidden_in_examples(check):
    _, report = check(mapping(country="land"), "--rows", "0", t="no,at,sum,land\n1,2024-05-01,5,Atlantis\n1,2024-05-01,5,DE\n")
    rules = report["tables"]["transactions"]["rules"]
    assert rules["country is no country of ISO 3166-1 alpha-2"]["examples"] == [{"row": 1, "land": "•••"}]
    assert rules["transaction_id is a duplicate"]["examples"] == [{"row": 2, "no": "•••"}]
    assert "Atlantis" not in json.dumps(report)


def test_a_sound_file_ends_with_0_and_a_wrong_mapping_with_2(check):
    status, _ = check(mapping(), t="no,at,sum\n1,2024-05-01,5\n")
    assert status == 0
    status, report = check(mapping(amount="summe"), t="no,at,sum\n1,2024-05-01,5\n")
    assert (status, "has no column 'summe'" in report["error"]) == (2, True)
    status, report = check(mapping() + "    columns: {}\n", t="")
    assert (status, report["error"].endswith("columns is there twice; keep one")) == (2, True)


def test_a_code_is_the_number_that_it_is_and_nothing_else(check):
    text = """
name: own
currency: EUR
tables:
  loans:
    file: loans.csv
    columns: {loan_id: id, customer_id: id, loan_amount: {value: 100}, is_default: {from: repaid, values: {1: false, 0: true}}}
    extra: [{name: months_late, from: late, missing: [-1]}]
"""
    content = "id,repaid,late\n1,1.0,-1.0\n2,0.0, -1 \n3,,7\n4,1,-1.5\n5, 0 ,1\n6,01,1\n7,1.00,1\n"
    status, report = check(text, **{"loans.csv": content})
    loans = {row["loan_id"]: (row["is_default"], row["months_late"]) for row in report["tables"]["loans"]["valid_rows"]}
    assert status == 1
    assert loans == {"1": (False, None), "2": (True, None), "3": (None, 7), "4": (False, -1.5), "5": (True, 1)}
    assert report["tables"]["loans"]["rules"]["is_default is not true or false"]["rows"] == 2


def test_yaml_reads_no_word_and_no_number_into_a_code(check):
    text = mapping(
        country="{from: land, values: {Norge: NO}, missing: [ON]}",
        category="{from: mcc, values: {0742: vet, 5411: food, 1_000: odd}, otherwise: other}",
    )
    valid, _ = of_transactions(
        check(text, t="no,at,sum,land,mcc\n1,2024-05-01,5,Norge,0742\n2,2024-05-01,5,ON,482\n3,2024-05-01,5,NO,1_000\n")[1]
    )
    assert [(row["customer_id"], row["country"], row["category"]) for row in valid.values()] == [
        ("007", "NO", "vet"), ("007", None, "other"), ("007", "NO", "odd"),
    ]  # fmt: skip


def test_marks_between_thousands_stand_between_groups_of_three(check):
    how = 'from: betrag, decimal: ",", thousands: "."'
    text = mapping('    delimiter: ";"\n', amount=f"{{{how}, absolute: true}}", direction=f"{{{how.replace('from', 'sign_of')}}}")
    texts = ["-2.345,60", "7.5", "1.22.333", "2,345.60", "−0,75", "0,75-", "(0,75)", "+ 0,75", "++1"]
    content = "no;at;betrag\n" + "".join(f"{number};2024-05-01;{amount}\n" for number, amount in enumerate(texts))
    valid, quarantine = of_transactions(check(text, t=content)[1])
    assert {number: (row["amount"], row["direction"]) for number, row in valid.items()} == {
        "0": (2345.6, "debit"), "4": (0.75, "debit"), "5": (0.75, "debit"), "6": (0.75, "debit"), "7": (0.75, "credit"),
    }  # fmt: skip
    assert {tuple(rules) for rules in quarantine.values()} == {("amount is not a number", "direction is not one of credit, debit")}


@pytest.mark.parametrize("name", ["export[1].csv", "a#b.csv", "a?b.csv", "50%.csv", "50%20.csv", "k=v.csv", "it's.csv"])
def test_a_files_name_is_no_pattern(check, name):
    decoys = {"export1.csv": "no,at,sum\nX,2024-05-01,9\n", "axb.csv": "no,at,sum\nX,2024-05-01,9\n"}
    valid, _ = of_transactions(check(mapping(f'    file: "{name}"\n'), **{name: "no,at,sum\nA,2024-05-01,5\n"}, **decoys)[1])
    assert list(valid) == ["A"]


@pytest.mark.parametrize(
    ("unit", "texts", "valid"),
    [
        ("epoch_ms", ["1714557600000", "1714557600000000000", "1714557600", "9" * 40], {"0": "2024-05-01T10:00:00"}),
        ("epoch_s", ["1714557600", "1714557600000", "-1", "1714557600.0"], {"0": "2024-05-01T10:00:00", "3": "2024-05-01T10:00:00"}),
    ],
)
def test_an_epoch_beyond_the_calendar_or_in_another_unit_is_one_rows_quarantine(check, unit, texts, valid):
    content = "no,at,sum\n" + "".join(f"{number},{text},5\n" for number, text in enumerate(texts))
    found, quarantine = of_transactions(check(mapping(occurred_at=f"{{from: at, format: {unit}}}"), t=content)[1])
    assert {number: row["occurred_at"] for number, row in found.items()} == valid
    assert len(quarantine) == len(texts) - len(valid)


def test_adjacent_parts_of_a_date_have_fixed_widths(check):
    text = mapping(occurred_at='{from: at, format: "%d%m%Y %H:%M"}')
    valid, quarantine = of_transactions(check(text, t="no,at,sum\n1,11122024 9:05,5\n2,1112024 9:05,5\n3,31022024 9:05,5\n")[1])
    assert {number: row["occurred_at"] for number, row in valid.items()} == {"1": "2024-12-11T09:05:00"}
    assert list(quarantine) == [2, 3]


def test_the_zone_of_a_time(check):
    content = "no,at,sum\n1,01.06.2026 20:30,5\n2,01.06.2026 21:30,5\n3,31.05.2026 23:50,5\n"
    text = mapping(occurred_at='{from: at, format: "%d.%m.%Y %H:%M", timezone: Asia/Tokyo}')
    valid, quarantine = of_transactions(check(text, t=content)[1])
    assert {number: row["occurred_at"] for number, row in valid.items()} == {"1": "2026-06-01T11:30:00", "3": "2026-05-31T14:50:00"}
    assert quarantine == {2: ["occurred_at is in the future"]}
    valid, _ = of_transactions(
        check(
            mapping(occurred_at='{from: at, format: "%d.%m.%Y %H:%M %z"}'),
            t="no,at,sum\n1,01.06.2026 20:30 +0900,5\n2,01.06.2026 05:30 Z,5\n",
        )[1]
    )
    assert [row["occurred_at"] for row in valid.values()] == ["2026-06-01T11:30:00", "2026-06-01T05:30:00"]


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ('    delimiter: ";"\n', '"Konto:";"x"\n"Von:";"1.5."\n\n"no";"at";"sum"\n"1";"2024-05-01";"5"\n'),
        ('    delimiter: ";"\n    skip: 2\n', "no;at;sum of all\nnothing\nno;at;sum\n1;2024-05-01;5\n"),
        ("", "sep=;\nno;at;sum\n1;2024-05-01;5\n"),
        ("", "\ufeffsep=|\r\nno|at|sum\r\n1|2024-05-01|5\r\n"),
        ('    delimiter: ";"\n', "no;at;sum;\n1;2024-05-01;5;\n"),
        ('    delimiter: ";"\n', "no;at;sum;\n1;2024-05-01;5\n"),
        ("", "no,at,,sum,\n1,2024-05-01,x,5,y\n"),
        ("", "no,at,note,sum,note\n1,2024-05-01,x,5,y\n"),
    ],
    ids=["preamble", "skip", "sep", "sep after a byte order mark", "trailing delimiter", "in the header alone", "no name", "a name twice"],
)
def test_a_header_that_is_not_the_first_line_or_not_whole(check, table, content):
    status, report = check(mapping(table), t=content)
    valid, _ = of_transactions(report)
    assert (status, [(row["transaction_id"], row["amount"]) for row in valid.values()]) == (0, [("1", 5.0)])


def test_a_name_twice_that_is_mapped_is_refused(check):
    status, report = check(mapping(), t="no,at,sum,SUM\n1,2024-05-01,5,6\n")
    assert (status, "the header names sum more than once" in report["error"]) == (2, True)


def test_debit_and_credit_columns_are_one_amount(check):
    columns = {**COLUMNS, "amount": '{debit: Soll, credit: Haben, decimal: ","}'}
    del columns["direction"]
    lines = "".join(f"      {name}: {how}\n" for name, how in columns.items())
    sides = ["12,50;", ";3,00", "0,00;4,00", "1,00;2,00", ";", "-1,00;"]
    content = "no;at;Soll;Haben\n" + "".join(f"{number};2024-05-01;{both}\n" for number, both in enumerate(sides, 1))
    valid, quarantine = of_transactions(check(f'{HEAD}    file: t.csv\n    delimiter: ";"\n    columns:\n{lines}', t=content)[1])
    assert {number: (row["amount"], row["direction"]) for number, row in valid.items()} == {
        "1": (12.5, "debit"), "2": (3.0, "credit"), "3": (4.0, "credit"),
    }  # fmt: skip
    assert quarantine[4] == quarantine[6] == ["amount is not a number", "direction is not one of credit, debit"]
    assert quarantine[5] == ["amount is missing", "direction is missing"]


def test_categories_of_a_free_text_and_cents(check):
    text = mapping(amount="{from: sum, scale: 0.01}", category="{from: text, contains: {rewe: groceries, Miete: rent}, otherwise: other}")
    valid, _ = of_transactions(
        check(text, t="no,at,sum,text\n1,2024-05-01,1999,REWE 12 Bonn\n2,2024-05-01,1,Wohnungsmiete\n3,2024-05-01,2,\n4,2024-05-01,2,x\n")[
            1
        ]
    )
    assert [(row["amount"], row["category"]) for row in valid.values()] == [
        (19.99, "groceries"),
        (0.01, "rent"),
        (0.02, None),
        (0.02, "other"),
    ]


def test_row_numbers_of_several_files_are_refused_and_content_ids_stay(check, tmp_path):
    table = "    file: export-*.csv\n"
    status, report = check(mapping(table, transaction_id="{row_number: true}"))
    assert (status, "`id: content`" in report["error"]) == (2, True)

    text = mapping(table, transaction_id="{id: content}")
    march = "at,sum\n2024-03-01,5\n2024-03-01,5\n2024-03-31,7\n"
    later, _ = of_transactions(check(text, **{"export-03.csv": march})[1])
    assert len(later) == 3
    # A file that comes late and one that overlaps: equal rows of one file are two payments, of two files they are the same.
    _, report = check(text, **{"export-02.csv": "at,sum\n2024-02-01,5\n", "export-04.csv": "at,sum\n2024-03-31,7\n2024-04-01,7\n"})
    both, _ = of_transactions(report)
    assert len(both) == 5
    assert {number: row["occurred_at"] for number, row in later.items()}.items() <= {
        n: row["occurred_at"] for n, row in both.items()
    }.items()
    assert report["tables"]["transactions"]["notes"] == ["1 rows are repeated by overlapping files and landed once"]


def test_columns_that_need_a_look_are_named(check):
    text = """
name: own
currency: EUR
tables:
  loans:
    file: loans.csv
    columns: {loan_id: id, customer_id: id, loan_amount: {value: 100}, is_default: bad}
    extra:
      - {name: age_years, from: age, feature: {}}
      - {name: points, from: points, feature: {}}
      - {name: client_number, from: nr, type: int64, feature: {}}
      - {name: recovered_amount, from: rec, feature: {}}
"""
    rows = "".join(f"{n},{n % 2},{20 + n % 40},{n % 2 * 3},{n * 17},0\n" for n in range(100))
    notes = check(text, **{"loans.csv": f"id,bad,age,points,nr,rec\n{rows}"})[1]["tables"]["loans"]["notes"]
    assert [note.split(" ")[0] for note in notes] == ["age_years", "points", "client_number", "recovered_amount"]
    assert ["protected" in notes[0], "leak" in notes[1], "identifier" in notes[2], "after the decision" in notes[3]] == [True] * 4


def test_categories_that_need_a_look_are_named(check):
    rows = [(n, n % 2, f"area {n % 9}", ("lost", "running")[n % 2], f"case {n}") for n in range(120)]
    text = """name: own
currency: EUR
tables:
  loans:
    file: l.csv
    columns: {loan_id: id, customer_id: id, is_default: bad}
    extra:
      - {name: area, from: area, feature: {category: true}}
      - {name: state, from: state, feature: {category: true}}
      - {name: case_name, from: case, feature: {category: true}}
"""
    lines = "\n".join(",".join(map(str, row)) for row in rows)
    status, report = check(text, **{"l.csv": f"id,bad,area,state,case\n{lines}\n"})
    assert status == 0
    leak, identifier = report["tables"]["loans"]["notes"]
    assert leak.startswith("state looks like a leak: its correlation with is_default is 1.00")
    assert identifier.startswith("case_name looks like an identifier")


def test_a_share_above_1_is_named(check):
    text = """name: own
currency: EUR
tables:
  loans:
    file: l.csv
    columns: {loan_id: id, customer_id: id, is_default: bad}
    extra:
      - {name: used, from: used, unit: share, feature: {}}
      - {name: paid, from: paid, unit: share, feature: {}}
"""
    notes = check(text, **{"l.csv": "id,bad,used,paid\n1,0,0.5,0.5\n2,1,1.2,1\n"})[1]["tables"]["loans"]["notes"]
    assert notes == ["used is a share, but rows lie outside of 0 to 1, which the service refuses; say `unit: ratio`"]


def test_one_class_of_outcomes_leaves_the_domain_out(check):
    text = (
        "name: own\ncurrency: EUR\ntables:\n  loans:\n    file: loans.csv\n"
        "    columns: {loan_id: id, customer_id: id, loan_amount: {value: 100}, is_default: bad}\n"
    )
    _, report = check(text, **{"loans.csv": "id,bad\n1,0\n2,0\n"})
    assert report["domains"]["loan_default"]["runs"] is False
    assert "all are the same" in report["domains"]["loan_default"]["reason"]


def test_the_report_for_people(tmp_path, monkeypatch):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    (tmp_path / "m.yaml").write_text(mapping(), "utf-8")
    (tmp_path / "t.csv").write_text("no,at,sum\n1,2024-05-01,five\n", "utf-8")
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "m.yaml")])
    assert result.exit_code == 1
    assert "transactions: 1 rows, 0 valid, 1 in quarantine" in result.stdout
    assert "amount is not a number" in result.stdout
    assert "transaction_anomaly is left out: transactions has no valid row" in result.stdout


def test_the_quarantine_of_a_ledger_that_was_run(tmp_path, monkeypatch):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINRISK_SOURCE", "mapped")
    monkeypatch.setenv("FINRISK_MAPPING", str(tmp_path / "m.yaml"))
    (tmp_path / "m.yaml").write_text(mapping(), "utf-8")
    (tmp_path / "t.csv").write_text("no,at,sum\n1,2024-05-01,5\n2,2024-05-01,five\n", "utf-8")
    result = CliRunner().invoke(cli, ["quarantine"])
    assert (result.exit_code, "was not run yet" in result.output) == (1, True)

    run = Settings.from_environment()
    raw_table = load(run).tables["transactions"]
    raw_table.land(tmp_path / "raw.parquet")
    warehouse = Warehouse.of(run)
    raw = warehouse.store("raw_transactions", warehouse.ingest_parquet(tmp_path / "raw.parquet"))
    done = split(raw_table.table, raw_table.columns, raw, {}, datetime(2024, 6, 1))
    warehouse.store("quarantine_transactions", done.quarantine)
    warehouse.store("validated_transactions", done.valid)

    result = CliRunner().invoke(cli, ["quarantine", "transactions", "--json"])
    table = json.loads(result.stdout)["tables"]["transactions"]
    assert (table["rows"], table["valid"], table["quarantined"]) == (2, 1, 1)
    assert table["rules"]["amount is not a number"]["examples"] == [{"row": 2, "sum": "five"}]
    result = CliRunner().invoke(cli, ["quarantine", "loans"])
    assert (result.exit_code, "has no table loans; it has transactions" in result.output) == (1, True)


def test_the_demonstration_tells_a_wrong_column_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINRISK_SOURCE", "mapped")
    monkeypatch.setenv("FINRISK_MAPPING", str(tmp_path / "m.yaml"))
    (tmp_path / "m.yaml").write_text(mapping(amount="summe"), "utf-8")
    (tmp_path / "t.csv").write_text("no,at,sum\n1,2024-05-01,5\n", "utf-8")
    result = CliRunner().invoke(cli, ["demo", "--no-serve"])
    assert (result.exit_code, "has no column 'summe'; it has no, at, sum" in result.output) == (1, True)
    assert not (tmp_path / "home" / "own" / "landing").exists()


def test_a_home_that_dagster_would_read_as_another_is_refused(tmp_path):
    from finrisk_assets.settings import SettingsError

    Settings(home=tmp_path / "a#b[1]*%")
    for name in ("a?b", "a%20b"):
        with pytest.raises(SettingsError, match="name another folder"):
            Settings(home=tmp_path / name)


def test_rows_of_another_currency_are_in_quarantine(check):
    text = mapping("    currency: ccy\n")
    _, report = check(text, t="no,at,sum,ccy\n1,2024-05-01,5,EUR\n2,2024-05-01,5, EUR \n3,2024-05-01,5,USD\n4,2024-05-01,5,\n")
    valid, broken = of_transactions(report)
    assert set(valid) == {"1", "2", "4"}
    assert broken == {3: ["currency is not one of EUR"]}


def test_customers_are_taken_out_of_a_file_of_transactions(check):
    text = (
        HEAD.replace("  transactions:", "  customers:")
        + """    file: t.csv
    unique_by: client
    columns: {customer_id: client, country: land}
"""
        + mapping(customer_id="client").split("tables:\n")[1]
    )
    content = "no,client,at,sum,land\n1,A,2024-05-01,5,AT\n2, A ,2024-05-01,5,DE\n3,B,2024-05-01,5,CZ\n4,,2024-05-01,5,CZ\n5,B\n"
    _, report = check(text, t=content)
    customers = report["tables"]["customers"]
    assert {row["customer_id"]: row["country"] for row in customers["valid_rows"]} == {"A": "AT", "B": "CZ"}
    assert [row["broken_rules"] for row in customers["quarantined_rows"]] == [["customer_id is missing"], ["malformed row"]]
    assert customers["notes"][0] == "1 rows repeat an earlier client: the first row of each counts"
    assert (report["tables"]["transactions"]["rows"], report["tables"]["transactions"]["valid"]) == (5, 3)


def test_loans_without_an_amount(check):
    text = """
name: own
currency: EUR
tables:
  loans:
    file: loans.csv
    columns: {loan_id: id, customer_id: id, is_default: bad}
"""
    status, report = check(text, **{"loans.csv": "id,bad\n1,0\n2,1\n"})
    assert (status, [row["loan_amount"] for row in report["tables"]["loans"]["valid_rows"]]) == (0, [None, None])
    assert report["domains"]["loan_default"]["runs"]
