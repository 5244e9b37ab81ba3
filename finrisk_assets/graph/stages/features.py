"""The stage ``features_<domain>``: the feature table, and the parity of batch and service."""

from collections.abc import Collection
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph import automation, checks, lineage, partitions
from finrisk_assets.graph.resources import Clock
from finrisk_assets.graph.stages.common import common
from finrisk_assets.graph.stages.ledger import MONTHLY_TABLES
from finrisk_assets.graph.warehouse import column_schema
from finrisk_assets.ledger.sources.source_definition import Source


def build_assets(domain: Domain, source: Source, available: Collection[str]) -> list[Any]:
    """Return the feature table and its checks; none for a second model of a domain, which reads the first one's."""
    if domain.features_of:
        return _parity(domain, source)
    name = f"features_{domain.name}"
    return [_features(domain, source, available), checks.contract(name, domain.feature_contract(source)), *_parity(domain, source)]


def _features(domain: Domain, source: Source, available: Collection[str]) -> dg.AssetsDefinition:
    contract = domain.feature_contract(source)
    # What one month is made of: the ledger's months that its windows look back to, and those that its outcomes are told by.
    around = dg.TimeWindowPartitionMapping(-domain.months_back, domain.months_ahead, allow_nonexistent_upstream_partitions=True)
    tables = {
        table: dg.AssetIn(f"validated_{table}", partition_mapping=around if table in MONTHLY_TABLES else None)
        for table in domain.tables
        if table in source.tables
    }
    upstream = {scores: dg.AssetIn(scores) for scores in domain.upstream if scores in available}

    @dg.asset(
        name=f"features_{domain.name}",
        ins={**tables, **upstream},
        description=f"{contract.description} Each feature is known when the decision falls.",
        metadata={"dagster/column_schema": column_schema(contract), partitions.PARTITION_COLUMN: domain.decision_time},
        io_manager_key="tables",
        partitions_def=partitions.monthly_partitions(source.begins, source.ends),
        backfill_policy=partitions.ONE_RUN,
        automation_condition=automation.WHEN_THE_LEDGER_CHANGES,
        **common(domain, {"ibis"}),
    )
    def features(context: dg.AssetExecutionContext, clock: Clock, **tables: LazyTable) -> LazyTable:
        import ibis

        rows = domain.build_features(tables, source)
        # A month counts as ended some days before it ends, where the ledger says no more; nobody decides before the clock.
        rows = rows.filter((rows[domain.decision_time] <= ibis.literal(clock.now(), type="timestamp")).fill_null(True))
        partitions.add_run_metadata(context, lineage.lineage_metadata(rows))
        return rows

    return features


def _parity(domain: Domain, source: Source) -> list[dg.AssetChecksDefinition]:
    if not domain.is_computed_in_service:
        return []
    return [
        checks.blocking_check(
            f"features_{domain.name}",
            f"features_{domain.name}_parity",
            "A sample replayed one by one, as the service computes it, equals the stored features row for row.",
            lambda warehouse: domain.find_parity_faults(warehouse.table, source),
        )
    ]
