"""The stage ``features_<domain>``: the feature table, and the parity of batch and service."""

import math
from collections.abc import Collection
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph import automation, checks, lineage, parity_certificate, partitions
from finrisk_assets.graph.partitions import MonthRange
from finrisk_assets.graph.resources import Clock
from finrisk_assets.graph.stages.common import common
from finrisk_assets.graph.stages.ledger import MONTHLY_TABLES
from finrisk_assets.graph.warehouse import WarehouseResource, column_schema, markdown_table
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.settings import Settings


def build_assets(domain: Domain, source: Source, settings: Settings, available: Collection[str]) -> list[Any]:
    """Return the feature table, the parity certificate and their checks; a second model of a domain reads the first one's table."""
    if domain.features_of:
        return _parity(domain, source, settings)
    name = f"features_{domain.name}"
    return [
        _features(domain, source, available),
        checks.contract(
            name, domain.feature_contract(source), partitions.monthly_partitions(source.begins, source.ends), domain.decision_time
        ),
        *_parity(domain, source, settings),
    ]


def _features(domain: Domain, source: Source, available: Collection[str]) -> dg.AssetsDefinition:
    contract = domain.feature_contract(source)
    # What one month is made of: the ledger's months that its windows look back to, and those that its outcomes are told by.
    around = dg.TimeWindowPartitionMapping(-domain.months_back, domain.months_ahead, allow_nonexistent_upstream_partitions=True)
    tables = {
        table: dg.AssetIn(asset, partition_mapping=around if table in (*MONTHLY_TABLES, *domain.totals) else None)
        for table, asset in domain.list_inputs(source).items()
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
        automation_condition=automation.WHEN_TOTALS_CHANGE if domain.totals else automation.WHEN_THE_LEDGER_CHANGES,
        **common(domain, {"ibis"}),
    )
    def features(context: dg.AssetExecutionContext, clock: Clock, **tables: LazyTable) -> LazyTable:
        import ibis

        partitions.add_run_metadata(context, lineage.lineage_metadata(domain.build_features(tables, source)))
        months = MonthRange.from_partitions(context.assets_def.partitions_def, context.partition_key_range)
        rows = domain.compute_features(tables, source, months.span)
        # A month counts as ended some days before it ends, where the ledger says no more; nobody decides before the clock.
        return rows.filter((rows[domain.decision_time] <= ibis.literal(clock.now(), type="timestamp")).fill_null(True))

    return features


def _parity(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    if not domain.is_computed_in_service:
        return []
    name = f"parity_{domain.name}"

    @dg.asset(
        name=name,
        deps=["validated_transactions", f"features_{domain.name}"],
        description="The ledger, replayed through the service's history with late, repeated and lost deliveries, equals the batch path.",
        **common(domain, {"python"}),
    )
    def parity(warehouse: WarehouseResource) -> dg.MaterializeResult:
        transactions, table = warehouse.table("validated_transactions"), warehouse.table(f"features_{domain.name}")
        certificate = parity_certificate.certify_service(domain, source, transactions, table, settings)
        largest = {one: math.inf if value is None else value for one, value in certificate["max_abs_diff"].items()}
        differences = [{"feature": one, "largest difference": largest[one]} for one in sorted(largest, key=lambda one: -largest[one])]
        shown = {one: value for one, value in certificate.items() if isinstance(value, bool | int | str)}
        return dg.MaterializeResult(
            metadata={
                "certificate": parity_certificate.describe_certificate(certificate),
                "differences": dg.MetadataValue.md(markdown_table(differences)),
                "file": dg.MetadataValue.json(certificate),
                **shown,
            },
            data_version=dg.DataVersion(certificate["sha256"]),
        )

    return [
        parity,
        checks.blocking_check(
            name,
            f"{name}_contract",
            "Every feature of the replay equals the batch path, and the certificate is of this code.",
            lambda _: parity_certificate.find_certificate_faults(domain, settings),
        ),
        checks.blocking_check(
            f"features_{domain.name}",
            f"features_{domain.name}_parity",
            "A sample replayed one by one, as the service computes it, equals the stored features row for row.",
            lambda warehouse: domain.find_parity_faults(warehouse.table, source),
        ),
    ]
