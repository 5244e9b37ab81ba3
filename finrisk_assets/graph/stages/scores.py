"""The stage ``scores_<domain>``: the champion decides for the whole population."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.batch_scorer import BatchScorer
from finrisk_assets.engines.engine import Engine
from finrisk_assets.graph import automation, checks, partitions
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.stages.common import WITHOUT_CHAMPION, champion_folder, common, join_companions
from finrisk_assets.graph.warehouse import WarehouseResource, column_schema
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Return the batch scores and their contract."""
    months = partitions.monthly_partitions(source.begins, source.ends)
    contract = checks.contract(f"scores_{domain.name}", domain.score_contract(), months, domain.decision_time)
    return [_scores(domain, source, settings), contract]


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
    def scores(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> Iterator[dg.Output[LazyTable]]:
        if not champion_folder(domain, settings).is_dir():
            context.log.warning(f"{domain.title} is left out: {WITHOUT_CHAMPION}")
            return
        of_run = MonthRange.from_partitions(context.assets_def.partitions_def, context.partition_key_range)
        rows = of_run.filter_rows(warehouse.table(f"features_{domain.group}"), domain.decision_time)
        rows = domain.join_rules(join_companions(rows, domain, warehouse), warehouse.table, load_policy(settings))
        yield dg.Output(score_table(rows, domain, settings, warehouse.engine))

    return scores


def score_table(rows: LazyTable, domain: Domain, settings: Settings, engine: Engine) -> LazyTable:
    """Return the champion's decisions on rows of a feature table, lazy; they are made where the engine has the rows."""
    folders = {name: settings.root / "champions" / name / "bundle" for name in (domain.name, *domain.companions)}
    scorer = BatchScorer.read(domain, load_policy(settings), tuple(rows.columns), folders)
    file = settings.root / "landing" / f"scores_{domain.name}.parquet"
    return engine.map_batches(rows, scorer, scorer.schema, key=domain.keys[0].name, file=file, threads=settings.threads)
