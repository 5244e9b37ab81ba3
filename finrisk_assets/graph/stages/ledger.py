"""The assets of the ledger: ``raw_*`` lands the source, ``quarantine_*`` and ``validated_*`` part the rows by the contract.

``totals_*`` adds up the transactions of a month for the domains that look back over months.

The rules are in `contract`, the landing of a source in `landing` and `sources`. Transactions are partitioned by month. Customers,
accounts, loans and offers are whole tables, whose rows change with time; so are the raw tables and the quarantine, because a row that
cannot be read belongs to no month.
"""

from datetime import datetime
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.registry import totals_of
from finrisk_assets.graph import automation, checks, lineage, partitions
from finrisk_assets.graph.resources import Clock
from finrisk_assets.graph.runs.work_files import open_work_file
from finrisk_assets.graph.warehouse import WAREHOUSE_POOL, Warehouse, WarehouseResource, column_schema, count, markdown_table
from finrisk_assets.ledger import as_of, contract, snapshots
from finrisk_assets.ledger.landing import ROW
from finrisk_assets.ledger.mirror import mirror_snapshot
from finrisk_assets.ledger.month_totals import MONTH_TOTALS
from finrisk_assets.ledger.sources import feedback
from finrisk_assets.ledger.sources.source_definition import Lander, RawTable, Source
from finrisk_assets.settings import Settings

GROUP = "ledger"
OWNERS = ["team:data-platform"]

MONTHLY_TABLES = ("transactions",)
"""The tables that are kept by month, each by the event time of its contract."""


def build_assets(source: Source, settings: Settings) -> list[Any]:
    """Build every asset and check of the ledger of one source, with the totals that its domains read."""
    definitions: list[Any] = []
    for name, raw in source.tables.items():
        definitions += [_raw(f"raw_{name}", raw.land, raw, settings, source, raw.table.description), _check_landed(name)]
        definitions += [_quarantine(name, raw, source), _within_share(name, settings.quarantine_max_share)]
        definitions += [_validated(name, raw, source), _contract(name, raw, source), _complete(name, raw, source)]
    for name, land in source.truth.items():
        definitions += [_raw(name, land, None, settings, source, "What only the simulator knows; no feature may read it."), _landed(name)]
    for name in totals_of(source):
        definitions += [_totals(name, source), _check_totals(name)]
    return definitions


def _raw(asset: str, land: Lander, raw_table: RawTable | None, settings: Settings, source: Source, description: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=asset,
        group_name=GROUP,
        owners=OWNERS,
        kinds={"parquet", "ibis"},
        description=f"{description} As {source.name} brings it, nothing changed.",
        io_manager_key="tables",
        pool=WAREHOUSE_POOL,
    )
    def raw(context: dg.AssetExecutionContext, warehouse: WarehouseResource, clock: Clock) -> dg.Output[LazyTable]:
        path = settings.root / "landing" / f"{asset}.parquet"
        # The sensor of new files reads what has landed, also while runs land it anew or after one died in it.
        with open_work_file(path) as part:
            landed = land(part)
        reason = f"landing, content {landed.sha256[:12]}"
        snapshot = snapshots.store_snapshot(snapshots.snapshot_folder(settings.root), path, table=asset, kept_by=reason)
        mirror_snapshot(settings, snapshot)
        context.log.info(f"{asset}: {landed.rows:,} rows landed, content {landed.sha256[:12]}")
        rows, version = warehouse.ingest_parquet(path), landed.sha256
        if raw_table is not None and source.is_live and source.ends is not None:
            end = datetime.strptime(partitions.add_months(source.ends, 1), partitions.MONTH_FORMAT)
            if (now := clock.now()) < end:
                rows, version = as_of.rows_as_of(raw_table.table, rows, now, end), f"{landed.sha256} at {now.isoformat()}"
        if feedback.KNOWN in rows.columns:
            latest = rows[feedback.KNOWN].max().to_pyarrow().as_py()
            if latest is not None and latest > (now := clock.now()):
                rows, version = feedback.hide_later_labels(rows, now), f"{version} with labels by {now.isoformat()}"
        return dg.Output(
            rows,
            data_version=dg.DataVersion(version),
            metadata={"content_sha256": landed.sha256, "snapshot": snapshot, "source": source.name, "landing": dg.MetadataValue.path(path)},
        )

    return raw


def _check_landed(name: str) -> dg.AssetChecksDefinition:
    def broken(warehouse: Warehouse) -> list[str]:
        stored = warehouse.table(f"raw_{name}")
        rows, numbers = count(stored), int(stored[ROW].nunique().to_pyarrow().as_py())
        return [] if 0 < rows == numbers else [f"{rows:,} rows landed with {numbers:,} row numbers"]

    return checks.blocking_check(f"raw_{name}", f"raw_{name}_contract", "Rows landed, each with a number of its own.", broken)


def _landed(name: str) -> dg.AssetChecksDefinition:
    def broken(warehouse: Warehouse) -> list[str]:
        return [] if count(warehouse.table(name)) else [f"{name} has no rows"]

    return checks.blocking_check(name, f"{name}_contract", "The simulator wrote down what it knows.", broken)


def _quarantine(name: str, raw_table: RawTable, source: Source) -> dg.AssetsDefinition:
    references = sorted({table for table in raw_table.table.references.values() if table in source.tables})

    @dg.asset(
        name=f"quarantine_{name}",
        ins={"raw": dg.AssetIn(f"raw_{name}"), **{table: dg.AssetIn(f"validated_{table}") for table in references}},
        description=f"Rows of {name} that broke a rule: which one, and their raw values.",
        **_common(),
    )
    def quarantine(context: dg.AssetExecutionContext, clock: Clock, raw: LazyTable, **references: LazyTable) -> LazyTable:
        return contract.split(raw_table.table, raw_table.columns, raw, references, clock.now()).quarantine

    return quarantine


def _within_share(name: str, largest: float) -> dg.AssetChecksDefinition:
    """Build the check of the quarantine, which has no other contract: refused rows are a small share of the source."""

    def broken(warehouse: Warehouse) -> list[str]:
        rows, refused = count(warehouse.table(f"raw_{name}")), count(warehouse.table(f"quarantine_{name}"))
        if refused <= largest * rows:
            return []
        return [
            f"{refused:,} of {rows:,} rows of {name} are in quarantine, more than the allowed share of {largest:g}: read the rules they "
            f"broke in quarantine_{name}, mend the source, or raise FINRISK_QUARANTINE_MAX_SHARE"
        ]

    def rules(warehouse: Warehouse) -> dict[str, Any]:
        counts = contract.count_by_rule(warehouse.table(f"quarantine_{name}"))
        table = markdown_table([{"rule": rule, "rows": rows} for rule, rows in counts.items()])
        return {"rules": dg.MetadataValue.md(table), "quarantined": sum(counts.values())}

    says = f"No more than a share of {largest:g} of the rows is refused."
    return checks.blocking_check(f"quarantine_{name}", f"quarantine_{name}_contract", says, broken, rules)


def _validated(name: str, raw_table: RawTable, source: Source) -> dg.AssetsDefinition:
    by_month: dict[str, Any] = {}
    if name in MONTHLY_TABLES:
        by_month = {"partitions_def": partitions.monthly_partitions(source.begins, source.ends), "backfill_policy": partitions.ONE_RUN}

    @dg.asset(
        name=f"validated_{name}",
        ins={"raw": dg.AssetIn(f"raw_{name}"), "quarantine": dg.AssetIn(f"quarantine_{name}")},
        description=f"{raw_table.table.description} Only rows that meet the contract; amounts in {source.currency}.",
        metadata={
            "dagster/column_schema": column_schema(raw_table.table),
            **({partitions.PARTITION_COLUMN: raw_table.table.event_time} if by_month else {}),
        },
        **by_month,
        **_common(),
    )
    def validated(context: dg.AssetExecutionContext, raw: LazyTable, quarantine: LazyTable) -> LazyTable:
        rows = contract.valid_rows(raw_table.table, raw_table.columns, raw, quarantine)
        partitions.add_run_metadata(context, lineage.lineage_metadata(rows))
        return rows

    return validated


def _contract(name: str, raw_table: RawTable, source: Source) -> dg.AssetChecksDefinition:
    if name not in MONTHLY_TABLES:
        return checks.contract(f"validated_{name}", raw_table.table)
    months = partitions.monthly_partitions(source.begins, source.ends)
    return checks.contract(f"validated_{name}", raw_table.table, months, str(raw_table.table.event_time))


def _complete(name: str, raw_table: RawTable, source: Source) -> dg.AssetChecksDefinition:
    """Check that raw = validated + quarantine in the months of the run; rows missing in other months give a warning."""
    by_month = name in MONTHLY_TABLES

    @checks.asset_check(f"validated_{name}", f"validated_{name}_complete", "No row is lost: raw = validated + quarantine.")
    def check(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        layers = ("raw", "validated", "quarantine")
        rows = {layer: count(warehouse.table(f"{layer}_{name}")) for layer in layers}
        if rows["raw"] == rows["validated"] + rows["quarantine"]:
            return dg.AssetCheckResult(passed=True, description="all rules hold", metadata=rows)
        lacking = f"{rows['raw']:,} raw rows, but {rows['validated']:,} valid and {rows['quarantine']:,} in quarantine"
        if not by_month:
            return dg.AssetCheckResult(passed=False, description=lacking, metadata=rows)
        tables = {layer: warehouse.table(f"{layer}_{name}") for layer in layers}
        definition = partitions.monthly_partitions(source.begins, source.ends)
        run, months = partitions.MonthRange.from_tags(definition, context.run.tags), definition.get_partition_keys()
        wrong = sorted({min(max(month, months[0]), months[-1]) for month in _differing(raw_table, tables, months[0])})
        in_run = [month for month in wrong if run is None or run.first <= month <= run.last]
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR if in_run or not wrong else dg.AssetCheckSeverity.WARN,
            description=f"{lacking}; materialise validated_{name} for {', '.join(in_run or wrong)}",
            metadata=rows,
        )

    return check


def _differing(raw_table: RawTable, tables: dict[str, LazyTable], undated: str) -> set[str]:
    """Return the months in which the number of stored rows is not that of the valid rows; `undated` stands for rows without a date."""
    rows = tables["raw"].anti_join(tables["quarantine"], ROW)
    timed: Any = contract.read_event_time(raw_table.table, raw_table.columns, rows)

    def by_month(times: Any) -> dict[str, int]:
        counted = times.strftime(partitions.MONTH_FORMAT).fill_null(undated).name("month").as_table()
        grouped = counted.group_by("month").agg(rows=counted.count()).to_pyarrow().to_pylist()
        return {row["month"]: row["rows"] for row in grouped}

    expected, stored = by_month(timed[contract.EVENT_TIME]), by_month(tables["validated"][raw_table.table.event_time])
    return {month for month in expected.keys() | stored.keys() if expected.get(month) != stored.get(month)}


def _totals(name: str, source: Source) -> dg.AssetsDefinition:
    contract_, add_up = MONTH_TOTALS[name]

    @dg.asset(
        name=name,
        ins={"transactions": dg.AssetIn("validated_transactions")},
        description=contract_.description,
        metadata={"dagster/column_schema": column_schema(contract_), partitions.PARTITION_COLUMN: contract_.event_time},
        partitions_def=partitions.monthly_partitions(source.begins, source.ends),
        backfill_policy=partitions.ONE_RUN,
        automation_condition=automation.WHEN_THE_LEDGER_CHANGES,
        **_common(),
    )
    def totals(context: dg.AssetExecutionContext, transactions: LazyTable) -> LazyTable:
        partitions.add_run_metadata(context, lineage.lineage_metadata(add_up(transactions)))
        months = partitions.MonthRange.from_partitions(context.assets_def.partitions_def, context.partition_key_range)
        return add_up(months.filter_rows(transactions, "occurred_at"))

    return totals


def _check_totals(name: str) -> dg.AssetChecksDefinition:
    """Check that every month's transactions are counted once, also those beyond the run: features read the months around theirs."""

    def broken(warehouse: Warehouse) -> list[str]:
        stored, movements = warehouse.table(name), warehouse.table("validated_transactions")
        if strange := set(stored.columns) ^ set(MONTH_TOTALS[name][0].names):
            return [f"{name} differs from its contract in the columns {', '.join(sorted(strange))}"]
        counted = stored.group_by(at=stored.month).agg(n=stored.n.sum())
        there = movements.group_by(at=movements.occurred_at.truncate("M").cast("timestamp(6)")).agg(n=movements.count())
        totals, expected = ({row["at"]: int(row["n"]) for row in rows.to_pyarrow().to_pylist()} for rows in (counted, there))
        wrong = sorted(f"{at:{partitions.MONTH_FORMAT}}" for at in totals.keys() | expected.keys() if totals.get(at) != expected.get(at))
        return [f"{name} does not count the movements of {', '.join(wrong)}: materialise it for these months"] if wrong else []

    return checks.blocking_check(name, f"{name}_contract", "Every movement of the ledger is counted once, in its month.", broken)


def _common() -> dict[str, Any]:
    return {
        "group_name": GROUP, "owners": OWNERS, "kinds": {"pandera", "ibis"}, "io_manager_key": "tables", "pool": WAREHOUSE_POOL,
    }  # fmt: skip
