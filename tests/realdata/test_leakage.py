"""The leakage linter on real data: `duration` of Bank Marketing is found, clean sets are left alone, a planted window is found."""

from datetime import datetime
from pathlib import Path

import ibis
import pytest

from benchmarks.leakage import LABELS, bank_marketing, taiwan, without
from finrisk_assets.build import domains_of
from finrisk_assets.ledger.contract import split
from finrisk_assets.ledger.sources import load
from finrisk_assets.modelling import leakage
from finrisk_assets.settings import Settings
from finrisk_assets.spending_risk.assets import SPENDING_RISK
from schemas.ledger import Column

pytestmark = pytest.mark.realdata


def findings(panel, **options):
    found = leakage.lint(panel.frame, panel.features, panel.label, moment=panel.moment, group=panel.group, **options)
    return {(finding.column, finding.rule) for finding in found}


def test_the_length_of_a_call_is_found_declared_or_not(data_dir: Path):
    """Beyond it, the table falls out of time, which no one column makes."""
    panel = bank_marketing(data_dir)
    assert findings(panel) == {("duration", "target_echo"), ("", "time_collapse")}
    declared = Column("duration", "float64", "Length of the call.", "seconds", known="outcome_known_at")
    assert findings(panel, columns=[declared]) == {("duration", "known_later"), ("", "time_collapse")}
    assert findings(without(panel, "duration")) == {("", "time_collapse")}


def test_taiwan_has_no_findings_until_an_echo_is_planted(data_dir: Path):
    panel = taiwan(data_dir)
    assert findings(panel) == set()
    panel.frame["paid_amount_1m"] *= ~panel.frame.is_default.astype(bool)
    assert findings(panel) == {("paid_amount_1m", "target_echo")}


@pytest.fixture(scope="module")
def berka(data_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """Berka's validated tables in memory."""
    folder, source = tmp_path_factory.mktemp("berka"), load(Settings(source="berka", data_dir=data_dir))
    engine, valid = ibis.duckdb.connect(), {}
    for name, raw in source.tables.items():
        raw.land(folder / f"{name}.parquet")
        landed = engine.read_parquet(folder / f"{name}.parquet")
        valid[name] = engine.create_table(name, split(raw.table, raw.columns, landed, valid, datetime(2026, 1, 1)).valid)
    return source, valid


@pytest.mark.parametrize("name", ["spending_risk", "loan_default", "cashflow"])
def test_berka_has_no_findings(name, berka):
    source, valid = berka
    domain = next(domain for domain in domains_of(source) if domain.name == name)
    names, label = [feature.name for feature in domain.features(source)], LABELS[name]
    rows = domain.build(valid, source)
    frame = rows.filter(rows[label].notnull()).order_by(domain.keys[0].name).to_pandas()
    assert leakage.lint(frame, names, label, moment=domain.moment, group="customer_id") == []
    ahead = leakage.looks_ahead(lambda given: domain.build(given, source), valid, names, key=domain.keys[0].name, moment=domain.moment)
    assert ahead == []


def test_spending_in_the_ten_days_after_the_month_end_looks_ahead(berka):
    source, valid = berka

    def build(tables):
        rows, moves = SPENDING_RISK.build(tables, source), tables["transactions"]
        spent = moves.filter(moves.direction == "debit").select(who="customer_id", at="occurred_at", amount="amount")
        until = rows.select("customer_month", "customer_id", _until=rows.as_of + ibis.interval(days=10))
        near = until.join(
            spent, [until.customer_id == spent.who, spent.at < until._until, spent.at >= until._until - ibis.interval(days=30)]
        )
        sums = near.group_by("customer_month").agg(spent_to_date=near.amount.sum()).rename(row="customer_month")
        return rows.left_join(sums, rows.customer_month == sums.row)

    names = ["Total_Expense", "spent_to_date"]
    found = leakage.looks_ahead(build, valid, names, key="customer_month", moment="as_of")
    assert [(one.column, one.rule) for one in found] == [("spent_to_date", "look_ahead")]
