"""The stage ``monitoring_<domain>``: whether inputs and score moved since training, and how well the champion still does.

The stage stores figures and writes a report; the checks ``features_<domain>_drift`` and ``scores_<domain>_drift`` re-read the figures.
The checks warn and never block, because real windows nearly always move. The settings are `base.MonitoringSpec`, the statistics
`modelling.monitoring`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph import checks
from finrisk_assets.graph.resources import Clock, TrackingResource
from finrisk_assets.graph.stages import champion as champion_stage
from finrisk_assets.graph.stages.common import (
    artifact_link,
    champion_folder,
    common,
    console_link,
    join_companions,
    load_bundle,
    log_artifact,
    to_frame,
    write_report,
)
from finrisk_assets.graph.warehouse import Warehouse, WarehouseResource, markdown_table
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finrisk_assets.modelling.evaluation.metrics import Interval
    from finrisk_assets.modelling.monitoring.monitoring import ComparedWindows, MonitoringFindings
    from finrisk_assets.scoring.bundle import Bundle

NEWEST_REPORT = "newest.json"
"""File of the newest report's figures beside the reports of a domain: the service shows it, where FINRISK_REPORTS names their folder."""
MAX_COLUMNS = 60
"""Columns of that file, those that moved most first."""
MAX_ROWS = 60_000
"""Rows that are read at most: beyond them, whole customers are left out at random."""


def build_assets(domain: Domain, settings: Settings) -> list[Any]:
    """Return the figures, their contract, and the two drift checks."""
    assets = [_monitoring(domain, settings), _contract(f"monitoring_{domain.name}"), _drift_check(domain, "scores", "score")]
    return assets if domain.features_of else [*assets, _drift_check(domain, "features", "features")]


def _monitoring(domain: Domain, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"monitoring_{domain.name}",
        deps=[f"features_{domain.group}", f"champion_{domain.name}", f"scores_{domain.name}"],
        description="Drift of features and score since training, and performance as estimated and as it came out; with a report.",
        io_manager_key="tables",
        **common(domain, {"ibis", "mlflow"}),
    )
    def monitoring(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, tracking: TrackingResource, clock: Clock
    ) -> dg.Output[LazyTable]:
        import ibis

        from finrisk_assets.modelling.monitoring import monitoring, report

        champion = load_bundle(champion_folder(domain, settings), domain, settings)
        client = tracking.client()
        registered = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
        findings = observe(warehouse, domain, champion, settings, clock.now(), _tested_auc(domain, settings))
        by_construction = domain.monitoring.by_construction
        left_out = {feature.name: by_construction[feature.name] for feature in champion.features if feature.name in by_construction}
        header = report.ReportSubject(
            domain=domain.title,
            source=champion.source,
            champion=champion.version,
            registered="" if registered is None else f"{registered.name} version {registered.version}",
            training_window=champion.training_window,
            as_of=clock.now(),
            run_id=context.run_id,
            descriptions={feature.name: feature.description for feature in champion.features},
            left_out=left_out,
        )
        page = report.render_report(header, findings).encode()
        path = report_file(settings, domain.name, context.run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(page)
        write_report(settings, domain, NEWEST_REPORT, summarise_drift(findings, champion.version, clock.now()))
        if registered is not None:
            log_artifact(client, registered.run_id, f"monitoring/{path.name}", page)
        rows = monitoring.to_table_rows(findings)
        return dg.Output(
            ibis.memtable(_table(rows)),
            metadata={
                "verdict": findings.verdict,
                "is_confirmed": bool(findings.confirmed),
                "champion": champion.version,
                "window": findings.window,
                "report": dg.MetadataValue.path(path)
                if registered is None
                else artifact_link(tracking, registered.run_id, f"monitoring/{path.name}", path),
                **console_link(settings, domain, "drift"),
                "drifted": dg.MetadataValue.md(markdown_table(_drifted(findings))),
                "left_out": dg.MetadataValue.md(markdown_table([{"feature": name, "why": why} for name, why in left_out.items()])),
                "notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in findings.notes) or "none"),
                **({} if registered is None else {"mlflow_run_id": registered.run_id}),
            },
        )

    return monitoring


def report_file(settings: Settings, domain: str, run_id: str) -> Path:
    """Return the file of a run's report."""
    return settings.root / "reports" / domain / f"{run_id}.html"


def observe(
    warehouse: Warehouse,
    domain: Domain,
    champion: "Bundle",
    settings: Settings,
    now: datetime,
    tested: "Interval | None",
) -> "MonitoringFindings":
    """Read the months to compare from the warehouse, and return the findings."""
    import ibis
    import numpy as np

    from finrisk_assets.modelling.monitoring import monitoring
    from finrisk_assets.modelling.training.candidates import to_matrix

    spec = domain.monitoring
    features = warehouse.table(f"features_{domain.group}")
    rows = domain.training_population(features)
    # A row of midnight on the first tells about the month that has just ended.
    rows = rows.mutate(_month=(rows[domain.decision_time] - ibis.interval(microseconds=1)).truncate("M").cast("timestamp(6)"))
    counted = _counted(rows)
    windows = _windows(counted, champion, now)
    if windows.since:
        months = sorted({*windows.reference, *windows.since})
        rows, counted = _of(rows, months), counted[counted.month.isin(months)]
    needed = [*(column.name for column in domain.keys), *(feature.name for feature in champion.features), "_month"]
    rows = _sampled(rows.select(*needed), counted, settings.seed)
    frame = _frame(rows, warehouse, domain, champion)
    watched = [feature for feature in champion.features if feature.name not in spec.by_construction]
    names = [feature.name for feature in watched]
    labelled = domain.labelled_rows(frame, replace(settings, as_of=now))
    label = labelled.set_index(domain.keys[0].name)[domain.label].astype("float64")
    probability = frame.probability.to_numpy(float)
    return monitoring.collect_findings(
        names,
        monitoring.MonitoredRows(
            month=frame._month.to_numpy().astype("datetime64[M]"),
            customer=frame.customer_id.to_numpy(dtype=str),
            decision=frame.decision.to_numpy(dtype=str),
            features=to_matrix(frame, watched).astype(np.float64),
            score=frame.score.to_numpy(float),
            probability=probability if spec.is_scored_as_it_stands else champion.probability(to_matrix(frame, champion.features)),
            outcome=np.asarray(frame[domain.keys[0].name].map(label), dtype=np.float64),
        ),
        windows,
        thresholds=sorted({champion.thresholds[name] for name in spec.decision_thresholds if name in champion.thresholds}),
        tested_auc=tested,
        is_probability=champion.calibration.kind != "exp2",
        seed=settings.seed,
    )


def _counted(rows: LazyTable) -> "pd.DataFrame":
    """Count the rows ``n`` of each ``month`` and ``customer`` with one query."""
    import numpy as np
    import pandas as pd

    counts = rows.group_by("_month", "customer_id").aggregate(n=rows.count()).to_pyarrow()
    month = counts.column("_month").to_numpy(zero_copy_only=False).astype("datetime64[M]").astype("datetime64[s]")
    counted = pd.DataFrame({"month": month, "customer": counts.column("customer_id").to_pandas(), "n": counts.column("n").to_numpy()})
    return counted.astype({"n": np.int64})


def summarise_drift(findings: "MonitoringFindings", champion: str, now: datetime) -> dict[str, Any]:
    """Return the verdict, and the movement of the score and of the features, those that moved most first, as plain values."""
    from finrisk_assets.modelling.monitoring.monitoring import describe_movement

    scores, features = (() if drift is None else drift.columns for drift in (findings.score, findings.features))
    ranked = sorted(features, key=lambda column: (column.adjusted_p_value, -column.psi, column.name))
    return {
        "champion": champion,
        "window": findings.window,
        "as_of": now.replace(tzinfo=UTC).isoformat(),
        "verdict": "; ".join(findings.confirmed) or findings.verdict,
        "is_confirmed": bool(findings.confirmed),
        "columns": [
            {
                "column": column.name,
                "psi": column.psi,
                "psi_limit": column.psi_limit,
                "p_value": column.adjusted_p_value,
                "moved": describe_movement(column, findings.medians.get(column.name)),
            }
            for column in [*scores, *ranked][:MAX_COLUMNS]
        ],
    }


def _windows(counted: "pd.DataFrame", champion: "Bundle", now: datetime) -> "ComparedWindows":
    """Choose the months to compare, of those that have ended."""
    import numpy as np

    from finrisk_assets.modelling.monitoring import monitoring

    months = np.unique(counted.month.dropna().to_numpy().astype("datetime64[M]"))
    full = [month for month in months if (month + np.timedelta64(1, "M")).astype("datetime64[us]") <= np.datetime64(now)]

    def customers(window: Sequence[np.datetime64]) -> int:
        return int(counted.customer[counted.month.isin(list(window))].nunique())

    return monitoring.choose_windows(full, champion.training_window, customers)


def _sampled(rows: LazyTable, counted: "pd.DataFrame", seed: int) -> LazyTable:
    """Return the rows, or those of a sample of customers where `MAX_ROWS` allows no more."""
    import ibis
    import numpy as np
    import pyarrow as pa

    share = MAX_ROWS / counted.n.sum()
    if share >= 1:
        return rows
    everyone = np.unique(counted.customer.to_numpy(dtype=str))
    customers = np.random.default_rng(seed).permutation(everyone)[: max(1, int(len(everyone) * share))]
    return rows.semi_join(ibis.memtable(pa.table({"customer_id": np.sort(customers)})), "customer_id")


def _frame(rows: LazyTable, warehouse: Warehouse, domain: Domain, champion: "Bundle") -> "pd.DataFrame":
    """Return the rows with their score, probability and decision, in the order of the key.

    Rows that another model scored, or that another policy decided, are scored anew, because the change would look like drift.
    """
    import numpy as np

    key, scored = domain.keys[0].name, warehouse.table(f"scores_{domain.name}")
    columns = ("score", "probability", "decision", "model_version", "policy_version")
    scored = scored.select(_key=scored[key], **{f"_{name}": scored[name] for name in columns})
    joined = rows.left_join(scored, rows[key] == scored._key).drop("_key").order_by(key)
    frame = joined.to_pyarrow().to_pandas(self_destruct=True, split_blocks=True).rename(columns={f"_{name}": name for name in columns})
    is_other = ((frame.model_version != champion.version) | (frame.policy_version != champion.policy.version)).to_numpy()
    if is_other.any():
        known = to_frame(join_companions(rows, domain, warehouse).order_by(key).to_pyarrow())
        rescored = domain.score(known[is_other].reset_index(drop=True), champion)
        for name in columns[:3]:
            values = frame[name].to_numpy(copy=True)
            values[is_other] = np.asarray(rescored[name])
            frame[name] = values
    return frame


def _of(rows: LazyTable, months: Sequence["np.datetime64"]) -> LazyTable:
    """Return the rows of some months."""
    return rows.filter(rows._month.isin([month.astype("datetime64[us]").item() for month in months]))


def _tested_auc(domain: Domain, settings: Settings) -> "Interval | None":
    """Return the champion's AUC on its frozen test window; None where the evaluation has none."""
    from finrisk_assets.modelling.evaluation.metrics import Interval

    for figure in champion_stage.read_champion_figures(domain, settings):
        if figure["metric"] == "auc" and figure["low"] is not None and figure["high"] is not None:
            return Interval(figure["value"], figure["low"], figure["high"])
    return None


def _drifted(findings: "MonitoringFindings") -> list[dict[str, Any]]:
    """Return the columns that drifted, with the smallest p-value first, as rows of a table."""
    from finrisk_assets.modelling.monitoring.monitoring import describe_movement

    moved = [column for drift in (findings.score, findings.features) if drift is not None for column in drift.drifted]
    return [
        {
            "column": column.name,
            "p-value": column.adjusted_p_value,
            "PSI": column.psi,
            "moved": describe_movement(column, findings.medians.get(column.name)),
        }
        for column in moved
    ]


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    names = [("window", text), ("metric", text), ("value", number), ("low", number), ("high", number), ("meaning", text)]
    return pa.Table.from_pylist(rows, pa.schema(names))


# Checks ------------------------------------------------------------------------------------------------------------------------


def _contract(asset: str) -> dg.AssetChecksDefinition:
    """Check that there are figures, that each is finite and unique, and that a p-value is a probability."""

    def faults(warehouse: Warehouse) -> list[str]:
        rows = warehouse.table(asset).to_pyarrow().to_pylist()
        return find_figure_faults(rows)

    return checks.blocking_check(asset, f"{asset}_contract", "Every figure is a finite number and stands once for each window.", faults)


def find_figure_faults(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the faults of stored figures, in sentences."""
    faults = [] if rows else ["there are no figures"]
    names: set[tuple[str, str]] = set()
    for row in rows:
        name = (str(row["metric"]), str(row["window"]))
        if name in names:
            faults.append(f"{name[0]} stands twice for {name[1]}")
        names.add(name)
        if not math.isfinite(row["value"]):
            faults.append(f"{name[0]} of {name[1]} is not a finite number")
        elif name[0].startswith("p_value_") and not 0 <= row["value"] <= 1:
            faults.append(f"{name[0]} of {name[1]} is {row['value']}, which is no probability")
    return faults


def _drift_check(domain: Domain, layer: str, what: str) -> dg.AssetChecksDefinition:
    """Return the check ``<layer>_<domain>_drift``, which warns where the newest window has drifted."""
    asset, source = f"{layer}_{domain.name}", f"monitoring_{domain.name}"

    @checks.asset_check(
        asset,
        f"{asset}_drift",
        is_blocking=False,
        deps=[source],
        description=f"The {what} of the newest window are as in training, at a false-alarm rate of 5 %. It warns and never blocks.",
    )
    def check(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        if not warehouse.has(source):
            return _warning_result(True, f"nothing is measured yet: materialise {source}")
        return drift_result(warehouse.table(source).to_pyarrow().to_pylist(), is_score=layer == "scores")

    return check


def drift_result(rows: Sequence[Mapping[str, Any]], *, is_score: bool) -> dg.AssetCheckResult:
    """Return the check's result from stored figures: whether the score, or any feature, drifted."""
    from finrisk_assets.modelling.monitoring.drift import SIGNIFICANCE_LEVEL

    tested = {row["metric"].removeprefix("p_value_"): row for row in rows if row["metric"].startswith("p_value_")}
    tested = {name: row for name, row in tested.items() if (name == "score") == is_score}
    if not tested:
        return _warning_result(True, next((row["meaning"] for row in rows), "nothing is measured yet"))
    moved = sorted((row["value"], name, row["meaning"]) for name, row in tested.items() if row["value"] <= SIGNIFICANCE_LEVEL)
    window = next(iter(tested.values()))["window"]
    text = f"{len(moved)} of {len(tested)} moved in {window}" + (f": {', '.join(name for _, name, _ in moved[:5])}" if moved else "")
    table = [{"column": name, "p-value": value, "moved": meaning} for value, name, meaning in moved]
    return _warning_result(
        not moved, text, tested=len(tested), false_alarm_rate=SIGNIFICANCE_LEVEL, moved=dg.MetadataValue.md(markdown_table(table))
    )


def _warning_result(passed: bool, text: str, **metadata: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description=text, metadata=metadata)
