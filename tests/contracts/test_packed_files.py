"""Tests of files that gzip packed: they land as their content does, and one that is torn is refused."""

import gzip
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.ledger.landing import LandingError
from finrisk_assets.ledger.sources import load
from finrisk_assets.ledger.sources.source_definition import RawTable
from finrisk_assets.settings import Settings

MAPPING = """
name: shop
currency: EUR
tables:
  transactions:
    file: {file}
    columns: {{transaction_id: id, customer_id: who, occurred_at: at, amount: amount, direction: {{value: debit}}}}
"""
ROWS = "".join(f"{number},anna,2024-05-{number:02d},{number}.50\n" for number in range(1, 29))
CONTENT = f"id,who,at,amount\n{ROWS}".encode()


def raw_table(folder: Path, file: str) -> RawTable:
    (folder / "shop.yaml").write_text(MAPPING.format(file=file), "utf-8")
    return load(Settings(home=folder / "home", source="mapped", mapping=folder / "shop.yaml")).tables["transactions"]


def test_a_packed_file_lands_as_its_content_does(tmp_path):
    (tmp_path / "export.csv").write_bytes(CONTENT)
    (tmp_path / "export.csv.gz").write_bytes(gzip.compress(CONTENT[:200]) + gzip.compress(CONTENT[200:]))
    landed = []
    for file in ("export.csv", "export.csv.gz"):
        raw = raw_table(tmp_path, file)
        raw.check_columns()
        landed.append((raw.land(tmp_path / "raw.parquet"), (tmp_path / "raw.parquet").read_bytes()))
    assert landed[0] == landed[1] and landed[0][0].rows == 28
    assert list((tmp_path / "home" / "shop" / "landing").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [gzip.compress(CONTENT)[:-30], gzip.compress(CONTENT)[:-8] + b"\0" * 8, CONTENT, b""],
    ids=["cut short", "damaged", "not packed", "empty"],
)
def test_a_torn_file_is_refused_and_lands_nothing(tmp_path, content):
    (tmp_path / "export.csv.gz").write_bytes(content)
    with pytest.raises(LandingError, match=rf"^{tmp_path}/export.csv.gz is [^\n]+$"):
        raw_table(tmp_path, "export.csv.gz").land(tmp_path / "raw.parquet")
    assert not (tmp_path / "raw.parquet").exists()


def test_an_error_of_the_content_names_the_packed_file(tmp_path):
    (tmp_path / "export.csv.gz").write_bytes(gzip.compress(b"id,who,at\n1,anna,2024-05-01\n"))
    with pytest.raises(LandingError, match=rf"^{tmp_path}/export.csv.gz has no column 'amount'"):
        raw_table(tmp_path, "export.csv.gz").check_columns()
    with pytest.raises(LandingError, match=rf"^there is no file {tmp_path}/none.csv.gz;"):
        raw_table(tmp_path, "none.csv.gz").check_columns()


def test_the_import_proposes_a_packed_file_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    (tmp_path / "payments.csv.gz").write_bytes(gzip.compress(CONTENT))
    out = tmp_path / "own.yaml"
    done = CliRunner().invoke(cli, ["import", str(tmp_path / "payments.csv.gz"), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(out.read_text("utf-8"))["tables"]["transactions"]["file"] == "payments.csv.gz"
    checked = CliRunner().invoke(cli, ["check", str(out)])
    assert checked.exit_code == 0 and "transactions: 28 rows, 28 valid" in checked.output, checked.output
