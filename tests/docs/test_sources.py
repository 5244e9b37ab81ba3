"""Tests of docs/sources.md and docs/own-data.md: the table has every source, and the tutorial shows what an import proposes."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.ledger.sources import SOURCES
from schemas.ledger import TABLES
from schemas.mapping import ColumnMap, ExtraColumn, FeatureMap, Mapping, TableMap, read_mapping

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "sources.md").read_text(encoding="utf-8")
TUTORIAL = (DOCS / "own-data.md").read_text(encoding="utf-8")


def test_the_table_has_every_source() -> None:
    table = PAGE.split("|---|", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(SOURCES)


def test_the_reference_of_keys_is_that_of_the_models() -> None:
    page = (DOCS / "mapping-keys.md").read_text(encoding="utf-8")
    assert CliRunner().invoke(cli, ["import", "--keys"]).output == page
    for model in (Mapping, TableMap, ColumnMap, ExtraColumn, FeatureMap):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            assert f"| `{field.alias or name}` |" in page


def test_the_required_columns_are_listed() -> None:
    table = PAGE.split("Required columns:", maxsplit=1)[1].split("|---|---|", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
    listed = {name: columns for name, *columns in (re.findall(r"`(\w+)`", line) for line in table.splitlines() if line)}
    assert listed == {name: [c.name for c in table.columns if not c.nullable and not c.is_optional] for name, table in TABLES.items()}


@pytest.mark.parametrize("domain", [domain for domain in DOMAINS if not domain.features_of], ids=lambda domain: domain.name)
def test_the_tutorial_names_the_columns_that_a_domain_cannot_do_without(domain: Domain) -> None:
    row = re.search(rf"^\| `{domain.name}` \|(.+)\|$", TUTORIAL, re.MULTILINE)
    assert row and tuple(re.findall(r"`(\w+\.\w+)`", row[1])) == domain.needs


def test_the_example_of_a_mapping_is_one(tmp_path: Path) -> None:
    path = tmp_path / "bank.yaml"
    path.write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0], "utf-8")
    assert read_mapping(path).name == "bank"


def test_the_tutorial_shows_what_an_import_proposes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    export = re.findall(r"```text\n(.*?)```", TUTORIAL, re.DOTALL)[0]
    (tmp_path / "export.csv").write_text(export, "cp1252")
    result = CliRunner().invoke(cli, ["import", str(tmp_path / "export.csv"), "-o", str(tmp_path / "my-bank.yaml")])
    assert result.exit_code == 0, result.output
    proposed = (tmp_path / "my-bank.yaml").read_text("utf-8").split("\n", maxsplit=1)[1]
    assert proposed == re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL)[0]
