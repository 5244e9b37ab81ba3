"""A mapped source of card payments at three shops, with its graph and a Dagster instance."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings

MAPPING = """
name: shop
currency: EUR
begins: 2024-01
ends: 2024-10
tables:
  transactions:
    file: in/*.csv
    columns: {transaction_id: id, customer_id: who, occurred_at: at, amount: amount, direction: {value: debit}, merchant: shop}
"""
HEADER = "id,who,at,amount,shop"
FEATURES, SCORES = "features_transaction_anomaly", "scores_transaction_anomaly"


@dataclass(frozen=True)
class Shop:
    """A mapped source in its own folder, with its graph and a Dagster instance."""

    folder: Path
    settings: Settings
    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def file(self, name: str, rows: Sequence[str]) -> None:
        (self.folder / "in").mkdir(exist_ok=True)
        (self.folder / "in" / name).write_text("\n".join((HEADER, *rows)) + "\n")

    def table(self, asset: str) -> dict[str, dict[str, Any]]:
        rows = Warehouse(url=self.settings.warehouse).table(asset).to_pyarrow().to_pylist()
        return {row["transaction_id"]: row for row in rows}

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Execute the runs that a sensor requested."""
        job = self.definitions.resolve_job_def(str(request.job_name))
        result = job.execute_in_process(instance=self.instance, tags=dict(request.tags), run_config=request.run_config)
        assert result.success
        return result

    def sensor(self, cursor: str | None) -> Any:
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(self.instance, cursor=cursor, repository_def=repository, definitions=None)
        return repository.get_sensor_def("new_files").evaluate_tick(context)

    def materialised(self, asset: str, since: int = 0) -> list[str]:
        """Return the months of an asset that were materialised since an event of Dagster's log, in order."""
        materializations = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(asset), after_storage_id=since), limit=500
        )
        return sorted(str(record.partition_key) for record in materializations.records)

    @property
    def last_event(self) -> int:
        return self.instance.event_log_storage.get_maximum_record_id() or 0


def day(month: int, n: int, first: int = 0, **changed: str) -> list[str]:
    """Return the lines of a month's payments of two people, equal at every call."""
    start = datetime(2024, month, 1, 9)
    lines = []
    for number in range(first, first + n):
        at = start + timedelta(days=number % 27, hours=number % 7)
        lines.append(f"{month:02d}-{number},{'anna' if number % 2 else 'ben'},{at.isoformat()},{10 + number % 9}.5,shop{number % 3}")
    return lines
