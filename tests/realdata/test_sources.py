"""Tests of the real data sets: the number of landed rows, and that each row is either valid or quarantined."""

from datetime import datetime
from pathlib import Path

import ibis
import pytest

from finrisk_assets.ledger.contract import check_stored, count_by_rule, split
from finrisk_assets.ledger.sources import load
from finrisk_assets.settings import Settings

pytestmark = pytest.mark.realdata

ROOT = Path(__file__).parents[2]

VALID = {
    "berka": {"customers": 4_500, "accounts": 4_500, "transactions": 79_302, "loans": 682},
    "taiwan": {"customers": 30_000, "loans": 30_000},
    "handbook": {"transactions": 1_754_155},
    "mapped": {"customers": 1_000, "loans": 1_000},
}


def ledger(name: str, data_dir: Path, folder: Path):
    source = load(Settings(source=name, data_dir=data_dir, mapping=ROOT / "docs" / "mapped-example.yaml"))
    connection, valid = ibis.duckdb.connect(), {}
    for table, raw in source.tables.items():
        landed = raw.land(folder / f"{table}.parquet")
        done = split(raw.table, raw.columns, connection.read_parquet(folder / f"{table}.parquet"), valid, datetime(2026, 1, 1))
        valid[table] = connection.create_table(table, done.valid)
        quarantine = connection.create_table(f"quarantine_{table}", done.quarantine)
        assert valid[table].count().execute() + quarantine.count().execute() == landed.rows
        assert count_by_rule(quarantine) == {}
        assert check_stored(raw.table, valid[table]) == []
    return source, valid


@pytest.mark.parametrize("name", VALID)
def test_every_row_of_the_source_is_valid(name, data_dir, tmp_path):
    source, valid = ledger(name, data_dir, tmp_path)
    assert {table: rows.count().execute() for table, rows in valid.items()} == VALID[name]
    for features in source.features.values():
        assert {feature.name for feature in features} <= set(source.tables["loans"].table.names)


def test_berka_reads_both_slices_alike(data_dir, tmp_path):
    _, valid = ledger("berka", data_dir, tmp_path)
    movements, loans, customers = valid["transactions"], valid["loans"], valid["customers"]
    counts = dict(movements.group_by("category").agg(n=movements.count()).to_pyarrow().to_pydict().items())
    by_category = dict(zip(counts["category"], counts["n"], strict=True))
    assert by_category["penalty interest"] == 107
    assert None not in by_category
    assert loans.is_default.sum().execute() == 76
    assert loans.has_card.sum().execute() == 36
    assert (loans.outcome_known_at <= loans.applied_at).sum().execute() == 0
    assert (customers.gender == "F").sum().execute() == 2_208
    assert (customers.birth_year.min().execute(), customers.birth_year.max().execute()) == (1918, 1982)


def test_taiwan_and_the_handbook_keep_their_base_rates(data_dir, tmp_path):
    _, taiwan = ledger("taiwan", data_dir, tmp_path)
    assert taiwan["loans"].is_default.sum().execute() == 6_636
    _, handbook = ledger("handbook", data_dir, tmp_path)
    assert handbook["transactions"].is_fraud.sum().execute() == 14_681
