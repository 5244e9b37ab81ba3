"""Tests of a month of daily ticks on a live simulated ledger: each tick lands what had happened and scores it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal

from finrisk_assets.domains import registry
from finrisk_assets.domains.spending_risk.definition import SpendingRisk
from finrisk_assets.domains.transaction_anomaly.definition import TransactionAnomaly
from finrisk_assets.graph import automation, build, partitions
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings

pytestmark = pytest.mark.slow

MONTH = "2024-06"
BEFORE = datetime(2024, 5, 31, 3)
TABLES = {
    "validated_transactions": "transaction_id",
    "features_transaction_anomaly": "transaction_id",
    "scores_transaction_anomaly": "transaction_id",
    "features_spending_risk": "customer_month",
    "scores_spending_risk": "customer_month",
}


@dataclass(frozen=True)
class Bank:
    """A live ledger with two stand-ins for champions, its graph, and a Dagster instance."""

    settings: Settings
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def tick(self, moment: datetime) -> dg.RunRequest:
        repository = self.definitions.get_repository_def()
        context = dg.build_schedule_context(self.instance, scheduled_execution_time=moment, repository_def=repository)
        (request,) = repository.get_schedule_def(automation.DAILY).evaluate_tick(context).run_requests
        return request

    def run(self, request: dg.RunRequest, **tags: str) -> None:
        # What watches over drift is a part of its own, with tests of its own.
        stages = automation.select_by_prefix(self.assets, [*automation.LEDGER_STAGES, "features_", "scores_"])
        result = self.definitions.resolve_job_def(automation.DAILY).execute_in_process(
            instance=self.instance,
            tags={**request.tags, **tags},
            run_config=request.run_config,
            asset_selection=[dg.AssetKey(name) for name in stages],
        )
        assert result.success

    @property
    def assets(self) -> list[str]:
        return [key.to_user_string() for key in self.definitions.resolve_asset_graph().get_all_asset_keys()]

    def table(self, asset: str) -> list[dict[str, Any]]:
        rows = Warehouse(url=self.settings.warehouse).table(asset)
        return rows.order_by(TABLES[asset]).to_pyarrow().to_pylist()

    def newest(self, asset: str, moment: str) -> datetime:
        newest: datetime = Warehouse(url=self.settings.warehouse).table(asset)[moment].max().to_pyarrow().as_py()
        return newest


def score(frame: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return a probability that follows one feature, instead of a trained model's: the scores show which features they were made of."""
    value = frame[column].fillna(0).abs().to_numpy()
    return {"score": value, "probability": value / (1 + value), "decision": ["LOW" if one < 1 else "HIGH" for one in value]}


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bank]:
    class Spending(SpendingRisk):
        def score(self, frame: pd.DataFrame, champion: Bundle) -> dict[str, Any]:
            return score(frame, "Expense_Income_Ratio")

    class Anomaly(TransactionAnomaly):
        def score(self, frame: pd.DataFrame, champion: Bundle) -> dict[str, Any]:
            return score(frame, "amount_zscore_30d") | {"fired_rules": pa.nulls(len(frame), pa.string())}

    monkeypatch.setattr(registry, "DOMAINS", (Spending(), Anomaly()))
    for domain in registry.DOMAINS:
        champion_folder(domain, Settings(home=tmp_path)).mkdir(parents=True)
    stand_in = SimpleNamespace(version="stand-in", policy=SimpleNamespace(version="stand-in"), under=lambda *_: stand_in)
    monkeypatch.setattr(Bundle, "load", lambda *_, **__: stand_in)
    settings = Settings(home=tmp_path, sim_customers=40, sim_months=14)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Bank(settings, build.build_definitions(settings), instance)


def test_a_month_of_days_gives_fresh_scores_each_day_and_the_whole_at_its_end(bank: Bank) -> None:
    ticks = {day: bank.tick(BEFORE + timedelta(days=day)) for day in range(32)}
    assert {(tick.tags[partitions.RANGE_START], tick.tags[partitions.RANGE_END]) for tick in ticks.values()} == {
        ("2024-02", "2024-05"), ("2024-03", "2024-06"), ("2024-04", "2024-07")
    }  # fmt: skip
    bank.run(ticks[0], **partitions.run_tags("2023-05", "2024-07"))
    for day in (1, 16, 31):
        now = BEFORE + timedelta(days=day)
        bank.run(ticks[day])
        # Scored to the last hours before the tick, and nothing that had not happened.
        assert now - timedelta(hours=18) < bank.newest("scores_transaction_anomaly", "occurred_at") <= now
        assert bank.newest("scores_spending_risk", "as_of") == now.replace(day=1, hour=0)
        fresh = [row for row in bank.table("validated_transactions") if row["occurred_at"] > now - timedelta(hours=12)]
        assert fresh
        assert all(row["is_fraud"] is None for row in fresh)  # that is not known yet

    by_days = {asset: bank.table(asset) for asset in TABLES}
    bank.run(ticks[31], **partitions.run_tags("2023-05", "2024-07"))
    assert any(row["occurred_at"].strftime("%Y-%m") == MONTH for row in by_days["scores_transaction_anomaly"])
    for asset, rows in by_days.items():
        # What is added up in another order may differ in its last digits.
        assert_frame_equal(pd.DataFrame(rows), pd.DataFrame(bank.table(asset)), rtol=1e-9, atol=1e-9, obj=f"{asset} by days")
