"""Tests of CONTRIBUTING.md: its commands exist, and its examples of a feature and of a source run as written."""

import importlib.util
import re
from datetime import datetime
from pathlib import Path

import ibis
import pytest

from finrisk_assets.domains.loan_default import catalogue, features
from finrisk_assets.features.feature_definition import with_themes
from finrisk_assets.ledger import contract, sources
from finrisk_assets.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DEFINITION, FEATURE_TEST, SOURCE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PAYMENTS = """number,client,time,euro
1,alma,2024-05-01 10:00:00,12.50
2,boris,2024-05-02 11:30:00,not a number
"""


def test_the_feature_of_the_walk_through_passes_the_test_of_the_walk_through(monkeypatch: pytest.MonkeyPatch) -> None:
    (definition,) = eval(f"({DEFINITION.strip()})", vars(catalogue))
    themes = catalogue.THEMES | {definition.feature.name: "large expenses"}
    monkeypatch.setattr(features, "CATALOGUE", with_themes(themes, catalogue.CATALOGUE, [definition]))

    path = ROOT / "tests" / "pipeline" / "test_loan_features.py"
    spec = importlib.util.spec_from_file_location("loan_features_with_one_more", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    exec(FEATURE_TEST, vars(module))
    module.test_the_largest_expense_is_a_share_of_the_spending()


def test_the_source_of_the_walk_through_parts_valid_from_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corner_bank.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "data" / "corner_bank").mkdir(parents=True)
    (tmp_path / "data" / "corner_bank" / "payments.csv").write_text(PAYMENTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "SOURCES", {**sources.SOURCES, "corner_bank": "corner_bank"})

    source = sources.load(Settings(home=tmp_path, source="corner_bank", data_dir=tmp_path / "data"))
    transactions = source.tables["transactions"]
    landed = tmp_path / "raw.parquet"
    assert transactions.land(landed).rows == 2
    engine = ibis.duckdb.connect()
    raw = engine.read_parquet(landed)
    parts = contract.split(transactions.table, transactions.columns, raw, {}, datetime(2024, 6, 1))
    assert engine.to_pyarrow(parts.valid)["transaction_id"].to_pylist() == ["1"]
    assert contract.count_by_rule(engine.create_table("quarantine", parts.quarantine)) == {"amount is not a number": 1}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", PAGE))))
def test_every_target_that_the_page_names_is_in_the_makefile(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", PAGE))))
def test_links_of_the_page_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()
