"""Tests of the leakage linter on real data: Bank Marketing's `duration` and a planted window are found, and clean sets have no finding."""

from datetime import datetime
from pathlib import Path

import dagster as dg
import ibis
import pytest

from benchmarks.leakage import bank_marketing, taiwan, without
from finrisk_assets.cli import main
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.ledger.contract import split
from finrisk_assets.ledger.sources import load
from finrisk_assets.modelling.evaluation import leakage, look_ahead
from finrisk_assets.settings import Settings
from schemas.ledger import Column

pytestmark = pytest.mark.realdata


def findings(panel, **options):
    results = leakage.lint(panel.frame, panel.features, panel.label, decision_time=panel.moment, group=panel.group, **options)
    return {(finding.column, finding.rule) for finding in results}


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


LENGTH = """      - name: duration_s
        from: duration
        type: int64
        unit: seconds
        description: Length of the call.
        feature: {low: The call was short, high: The call was long}
"""
"""The column that a mapping would add if its author ignored when a call's length is known."""


@pytest.fixture
def with_duration(data_dir: Path, tmp_path: Path) -> Settings:
    """Return a mapped panel of every third row of the file, with the call's length as one more feature."""
    (tmp_path / "bank_marketing").mkdir()
    header, *rows = (data_dir / "bank_marketing" / "bank-full.csv").read_text("utf-8").splitlines()
    (tmp_path / "bank_marketing" / "bank-full.csv").write_text("\n".join([header, *rows[::3]]), "utf-8")
    honest = (Path(__file__).parents[2] / "docs" / "bank-marketing.yaml").read_text("utf-8")
    (tmp_path / "panel.yaml").write_text(honest + LENGTH, "utf-8")
    return Settings(home=tmp_path, source="mapped", mapping=tmp_path / "panel.yaml", data_dir=tmp_path, as_of=datetime(2026, 1, 1))


def run(settings: Settings, *stages: str) -> dg.ExecuteInProcessResult:
    """Materialise the assets whose names start with a prefix."""
    main.prepare_dagster(settings)
    job = build_definitions(settings).resolve_job_def(automation.EVERYTHING)
    wanted = [key for key in job.asset_layer.executable_asset_keys if key.to_user_string().startswith(stages)]
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=wanted)


def materialised(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}


def test_a_model_that_reads_the_length_of_the_call_is_stopped(with_duration: Settings):
    result = run(with_duration, "raw", "quarantine", "validated", "features", "model", "evaluation", "champion", "scores")

    (check,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "model_cashflow_leakage"]
    assert not check.passed
    assert check.description.startswith("duration_s [target_echo")
    assert "Find out when it is known" in check.metadata["findings"].value
    assert "model_cashflow" in materialised(result)
    assert materialised(result).isdisjoint({"evaluation_cashflow", "champion_cashflow", "scores_cashflow"})

    by_hand = run(with_duration, "evaluation", "champion")
    assert materialised(by_hand) == {"evaluation_cashflow"}
    (refusal,) = [event.step_failure_data.error for event in by_hand.all_events if event.is_step_failure]
    assert "leakage: duration_s" in str(refusal)


@pytest.fixture(scope="module")
def berka(data_dir: Path, tmp_path_factory: pytest.TempPathFactory):
    """Return Berka's validated tables in memory."""
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
    names, label = [feature.name for feature in domain.select_features(source)], domain.label
    rows = domain.build_features(valid, source)
    frame = rows.filter(rows[label].notnull()).order_by(domain.keys[0].name).to_pandas()
    assert leakage.lint(frame, names, label, decision_time=domain.decision_time, group="customer_id") == []
    ahead = look_ahead.find_look_ahead(
        lambda given: domain.build_features(given, source), valid, names, key=domain.keys[0].name, decision_time=domain.decision_time
    )
    assert ahead == []


def test_spending_in_the_ten_days_after_the_month_end_looks_ahead(berka):
    source, valid = berka

    def build_with_later_spending(tables):
        rows, moves = SPENDING_RISK.build_features(tables, source), tables["transactions"]
        spent = moves.filter(moves.direction == "debit").select(who="customer_id", at="occurred_at", amount="amount")
        until = rows.select("customer_month", "customer_id", window_end=rows.as_of + ibis.interval(days=10))
        near = until.join(
            spent, [until.customer_id == spent.who, spent.at < until.window_end, spent.at >= until.window_end - ibis.interval(days=30)]
        )
        sums = near.group_by("customer_month").agg(spent_to_date=near.amount.sum()).rename(row="customer_month")
        return rows.left_join(sums, rows.customer_month == sums.row)

    names = ["Total_Expense", "spent_to_date"]
    results = look_ahead.find_look_ahead(build_with_later_spending, valid, names, key="customer_month", decision_time="as_of")
    assert [(one.column, one.rule) for one in results] == [("spent_to_date", "look_ahead")]
