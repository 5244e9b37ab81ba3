"""Tests of docs/bank-marketing.yaml: rows without dates, a proxy target, and no `duration`."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import ibis
import pytest

from bento.store.database import location
from finrisk_assets.domains.cashflow.definition import CASHFLOW
from finrisk_assets.ledger.contract import split
from finrisk_assets.ledger.sources import load
from finrisk_assets.operations import load_history
from finrisk_assets.settings import Settings
from schemas.mapping import MappingError, read_mapping

EXAMPLE = Path(__file__).parents[2] / "docs" / "bank-marketing.yaml"

# Made up, in the file's form.
HEADER = "age;job;marital;education;default;balance;housing;loan;contact;day;month;duration;campaign;pdays;previous;poutcome;y"
ROWS = f"""{HEADER}
40;"services";"single";"primary";"no";1000;"yes";"no";"unknown";5;"may";300;2;-1;0;"unknown";"no"
41;"services";"single";"primary";"no";-20;"no";"yes";"cellular";6;"mar";200;1;90;3;"success";"yes"
"""


@pytest.fixture
def panel(tmp_path):
    """Return the example's panel of two invented calls."""
    (tmp_path / "bank_marketing").mkdir()
    (tmp_path / "bank_marketing" / "bank-full.csv").write_text(ROWS, "utf-8")
    source = load(Settings(source="mapped", mapping=EXAMPLE, data_dir=tmp_path))
    connection, valid = ibis.duckdb.connect(), {}
    for name, raw in source.tables.items():
        raw.land(tmp_path / f"{name}.parquet")
        done = split(raw.table, raw.columns, connection.read_parquet(tmp_path / f"{name}.parquet"), valid, datetime(2026, 1, 1))
        assert done.quarantine.count().execute() == 0
        valid[name] = connection.create_table(name, done.valid)
    return source, CASHFLOW.build_features(valid, source).order_by("account_month").to_pyarrow().to_pylist()


def test_a_call_becomes_a_row_of_the_panel(panel):
    source, (first, second) = panel
    assert CASHFLOW.unavailable_reason(source) is None
    assert (first["is_surplus"], second["is_surplus"]) == (False, True)
    assert (second["as_of"], second["outcome_known_at"]) == (None, None), "the file has no dates: nothing stands in for one"
    assert (first["days_since_contact"], second["days_since_contact"]) == (None, 90)
    features = [feature.name for feature in CASHFLOW.select_features(source)]
    assert {name: second[name] for name in features} == {
        "balance_amount": -20, "has_housing_loan": 0, "has_personal_loan": 1, "n_contacts": 1, "n_contacts_before": 3,
        "days_since_contact": 90, "was_earlier_success": 1, "was_earlier_failure": 0, "month_sin": 1, "month_cos": 0,
    }  # fmt: skip
    assert first["change_amount"] is None


def test_the_length_of_the_call_is_read_nowhere(panel):
    source, _ = panel
    assert "duration" not in {feature.name for feature in CASHFLOW.select_features(source)}
    read = {name for table in read_mapping(EXAMPLE).tables.values() for name in table.reads}
    assert read.isdisjoint({"duration", "age"})


def test_a_feature_known_only_after_the_call_is_refused(tmp_path):
    late = "      - {name: duration_s, from: duration, known: outcome_known_at, feature: {raises: a, lowers: b}}\n"
    (tmp_path / "late.yaml").write_text(EXAMPLE.read_text("utf-8") + late, "utf-8")
    with pytest.raises(MappingError, match="outcome_known_at comes after the decision, so it cannot be a feature"):
        read_mapping(tmp_path / "late.yaml")


def test_a_row_number_is_a_moment_only_as_an_epoch(tmp_path):
    text = EXAMPLE.read_text("utf-8").replace("{row_number: true, format: epoch_s}", '{row_number: true, format: "%Y-%m-%d"}')
    (tmp_path / "dated.yaml").write_text(text, "utf-8")
    with pytest.raises(MappingError, match="a row's number is no date"):
        read_mapping(tmp_path / "dated.yaml")


def test_the_service_finds_the_store_under_the_name_of_the_mapping(panel, tmp_path):
    settings = Settings(source="mapped", mapping=EXAMPLE, data_dir=tmp_path, home=tmp_path / "home")
    settings.root.mkdir(parents=True)
    ibis.connect(settings.warehouse).disconnect()  # a ledger without transactions has nothing more to load
    load_history.load(settings)
    assert location(replace(settings, source=panel[0].name)).exists()


def test_what_the_target_is_stands_in_the_description():
    assert "term deposit taken, in place of a surplus" in read_mapping(EXAMPLE).description
