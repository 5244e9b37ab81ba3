"""The stage ``scores_<domain>``: the champion decides for the whole population."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph import automation, checks, partitions
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.stages.common import WITHOUT_CHAMPION, champion_folder, common, join_companions, load_bundle
from finrisk_assets.graph.warehouse import Warehouse, column_schema
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.training.parallel import map_in_order
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings
from schemas.ledger import ARROW_TYPES

SCORING_CHUNK = 20_000
"""Rows that a thread scores at a time, so that memory stays bounded."""


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Return the batch scores and their contract."""
    return [_scores(domain, source, settings), checks.contract(f"scores_{domain.name}", domain.score_contract())]


def _scores(domain: Domain, source: Source, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"scores_{domain.name}",
        deps=[f"features_{domain.group}", f"champion_{domain.name}"],
        description=f"{domain.title} decided for the whole population by the champion.",
        metadata={"dagster/column_schema": column_schema(domain.score_contract()), partitions.PARTITION_COLUMN: domain.decision_time},
        io_manager_key="tables",
        output_required=False,  # without a champion nothing is scored, and what needs the scores is left out
        partitions_def=partitions.monthly_partitions(source.begins, source.ends),
        backfill_policy=partitions.ONE_RUN,
        automation_condition=automation.WHEN_THE_LEDGER_CHANGES,
        freshness_policy=automation.FRESH_SCORES if source.ends is None or source.is_live else None,
        **common(domain, {"ibis", "xgboost"}),
    )
    def scores(context: dg.AssetExecutionContext, warehouse: Warehouse) -> Iterator[dg.Output[LazyTable]]:
        if not champion_folder(domain, settings).is_dir():
            context.log.warning(f"{domain.title} is left out: {WITHOUT_CHAMPION}")
            return
        path = settings.root / "landing" / f"scores_{domain.name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        of_run = MonthRange.from_partitions(context.assets_def.partitions_def, context.partition_key_range)
        rows = of_run.filter_rows(warehouse.table(f"features_{domain.group}"), domain.decision_time)
        rows = domain.join_rules(join_companions(rows, domain, warehouse), warehouse.table, load_policy(settings))
        score_table(path, rows, domain, settings)
        yield dg.Output(warehouse.ingest_parquet(path))

    return scores


def score_table(path: Path, features: LazyTable, domain: Domain, settings: Settings) -> None:
    """Score a feature table in chunks into a Parquet file, in the order of the table's key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    champion = load_bundle(champion_folder(domain, settings), domain, settings)
    contract = domain.score_contract()
    carried = [column.name for column in contract.columns if column.name in features.columns]
    versions = {"model_version": champion.version, "policy_version": champion.policy.version}

    def score(batch: pa.RecordBatch) -> pa.Table:
        scored = domain.score(batch.to_pandas(), champion)
        columns = {name: batch.column(name) for name in carried} | {
            name: pa.array(values, pa.string() if name == "decision" else None) for name, values in scored.items()
        }
        rows = pa.table(columns | {name: pa.array([version] * len(batch), pa.string()) for name, version in versions.items()})
        return rows.select(list(contract.names))

    batches = features.order_by(domain.keys[0].name).to_pyarrow_batches(chunk_size=SCORING_CHUNK)
    writer: pq.ParquetWriter | None = None
    for rows in map_in_order(score, batches, settings.threads):
        writer = writer or pq.ParquetWriter(path, rows.schema, coerce_timestamps="us", allow_truncated_timestamps=False)
        writer.write_table(rows)
    if writer is None:  # months without a decision
        empty = pa.schema([(column.name, pa.type_for_alias(ARROW_TYPES[column.dtype])) for column in contract.columns])
        writer = pq.ParquetWriter(path, empty)
    writer.close()
