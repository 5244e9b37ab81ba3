"""Tests of docs/sources.md: its table has every source."""

import re
from pathlib import Path

from finrisk_assets.ledger.sources import SOURCES
from schemas.ledger import TABLES
from schemas.mapping import ColumnMap, TableMap, read_mapping

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")


def test_the_table_has_every_source() -> None:
    table = PAGE.split("|---|", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(SOURCES)


def rows_of(heading: str) -> str:
    """Return the names in the first column of the table under a heading line."""
    table = PAGE.split(heading, maxsplit=1)[1].split("|---|---|", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
    return " ".join(line.split("|")[1] for line in table.splitlines() if line)


def test_the_tables_of_keys_have_every_key() -> None:
    columns = set(re.findall(r"`(\w+)`", rows_of("| key of a column |")))
    assert columns == {field.alias or name for name, field in ColumnMap.model_fields.items()}
    tables = set(re.findall(r"`(\w+)`", rows_of("| key of a table |")))
    assert tables == set(TableMap.model_fields)


def test_the_required_columns_are_listed() -> None:
    table = PAGE.split("Required columns:", maxsplit=1)[1].split("|---|---|", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
    listed = {name: columns for name, *columns in (re.findall(r"`(\w+)`", line) for line in table.splitlines() if line)}
    assert listed == {name: [c.name for c in table.columns if not c.nullable] for name, table in TABLES.items()}


def test_the_example_of_a_mapping_is_one(tmp_path: Path) -> None:
    path = tmp_path / "bank.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0], "utf-8")
    assert read_mapping(path).name == "bank"
