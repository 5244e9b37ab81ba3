"""The stage ``evaluation_<domain>``: what the challenger shows on the frozen test window, alone and beside the champion, and its gate."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains import gate
from finrisk_assets.domains.base import Domain, Figure
from finrisk_assets.graph import checks
from finrisk_assets.graph.resources import Clock, TrackingResource
from finrisk_assets.graph.stages.common import (
    candidate_folder,
    check_finite_figures,
    common,
    console_link,
    figure_table,
    load_bundle,
    load_evaluation_rows,
    log_artifact,
    pictures,
    read_figures,
    run_link,
    write_report,
)
from finrisk_assets.graph.stages.relations import ARTIFACT, measure_relations
from finrisk_assets.graph.warehouse import Warehouse, WarehouseResource, markdown_table
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.packs.evidence import EVIDENCE, write_evidence
from finrisk_assets.modelling.training import gate_verdict, model_registry
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.scoring.bundle import Bundle

FIGURES = "evaluation.json"
"""The artifact of a model's run that holds its figures: the evaluation's table is always that of the newest challenger."""

POLICY = "policy.json"
"""The artifact of a model's run that holds the policy that it was evaluated under."""


CHALLENGER_REPORT = "challenger.json"
"""Name of the file of what the newest evaluated version showed, in its domain's folder of reports."""
_BESIDE = ("auc", "auc_beside_champion", "champion_auc", "gain", "gain_beside_champion", "champion_gain", "average_precision")
"""Figures that show a challenger beside the champion."""


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Build the figures, their contract, and the gate."""

    @checks.asset_check(
        f"evaluation_{domain.name}",
        f"model_{domain.name}_gate",
        "What a challenger must show on the frozen test window, alone and beside the champion, before it may decide: "
        + " ".join(f"{demand.capitalize()}: {meaning}" for demand, meaning in gate.DEMANDS.items()),
    )
    def gate_check(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        figures = read_figures(warehouse.table(f"evaluation_{domain.name}"))
        faults = gate.find_faults(domain, figures)
        # Too few rows are no fault of the model: the champion's stage leaves the domain out, and nothing fails.
        severity = dg.AssetCheckSeverity.WARN if gate.is_unjudged(faults) else dg.AssetCheckSeverity.ERROR
        verdicts = dg.MetadataValue.md(format_verdicts(faults, figures))
        return checks.build_result([str(fault) for fault in faults], severity, demands=verdicts)

    return [_evaluation(domain, source, settings), check_finite_figures(f"evaluation_{domain.name}"), gate_check]


def _evaluation(domain: Domain, source: Source, settings: Settings) -> dg.AssetsDefinition:
    people = ["validated_customers"] if "customers" in source.tables else []

    @dg.asset(
        name=f"evaluation_{domain.name}",
        deps=[f"features_{domain.group}", f"model_{domain.name}", *people],
        description="Figures of the challenger on the frozen test window, each with its 95 % interval: its own, those of fairness, "
        "and those beside the champion.",
        io_manager_key="tables",
        **common(domain, {"mlflow", "shap"}),
    )
    def evaluation(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, tracking: TrackingResource, clock: Clock
    ) -> dg.Output[LazyTable]:
        import ibis
        from mlflow.entities import Metric

        from finrisk_assets.modelling.training.parallel import run_both
        from finrisk_assets.modelling.training.provenance import limit_threads

        client = tracking.client()
        registered = model_registry.find_version(client, domain.name, model_registry.CHALLENGER)
        if registered is None:
            raise dg.Failure(f"no challenger is registered for {domain.name}: materialise model_{domain.name} first")
        challenger = load_bundle(candidate_folder(domain, settings), domain, settings)
        champion = _champion(client, domain, registered, settings)
        frame = load_evaluation_rows(warehouse, domain, settings)
        known_now = replace(settings, as_of=clock.now())
        protected = load_protected_columns(warehouse, source)
        with limit_threads():
            result, moved = run_both(
                lambda: gate.evaluate(domain, frame, protected, challenger, champion, known_now),
                lambda: measure_relations(domain, source, warehouse, challenger),
                settings.threads,
            )
        figures = [*result.figures, *_rollback_figures(model_registry.read_tags(client, registered))]
        faults = gate.find_faults(domain, figures)
        rows = [asdict(figure) for figure in figures]
        at = int(clock.now().replace(tzinfo=UTC).timestamp() * 1000)
        metrics = [Metric(f"test_{_metric_name(figure.metric)}", figure.value, at, 0) for figure in figures]
        client.log_batch(registered.run_id, metrics)
        for name, png in result.plots.items():
            log_artifact(client, registered.run_id, f"plots/test_{name}.png", png)
        log_artifact(client, registered.run_id, FIGURES, json.dumps(rows, indent=1).encode())
        log_artifact(client, registered.run_id, EVIDENCE, write_evidence(result.evidence))
        write_report(settings, domain, CHALLENGER_REPORT, describe_challenger(challenger.version, result.evidence, rows))
        relations = [asdict(figure) for figure in moved]
        log_artifact(client, registered.run_id, ARTIFACT, json.dumps(relations, indent=1).encode())
        log_artifact(client, registered.run_id, POLICY, challenger.policy.canonical_json().encode())
        gate_verdict.record_evaluation(client, registered.name, registered.version, (fault.demand for fault in faults))
        return dg.Output(
            ibis.memtable(figure_table(rows)),
            metadata={
                "bundle": challenger.version,
                "policy": challenger.policy.version,
                "gate": dg.MetadataValue.md(format_verdicts(faults, figures)),
                "figures": dg.MetadataValue.md(markdown_table(rows)),
                "relations": dg.MetadataValue.md(markdown_table(relations) if relations else "none: the source has no movements"),
                "mlflow_run_id": registered.run_id,
                "mlflow": run_link(tracking, registered.run_id),
                **console_link(settings, domain),
                **{figure.metric: float(figure.value) for figure in figures if "/" not in figure.metric},
                **pictures(result.plots),
            },
        )

    return evaluation


def describe_challenger(version: str, evidence: Mapping[str, Any], figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the curves of an evaluated version and its figures beside the champion."""
    curves = {name: evidence.get(name, []) for name in ("roc", "precision_recall")}
    return {"version": version[:12], **curves, "figures": [figure for figure in figures if figure["metric"] in _BESIDE]}


def read_test_auc(client: Any, model: model_registry.RegisteredVersion) -> dict[str, float] | None:
    """Return ``value``, ``low`` and ``high`` of the AUC of a registered version on its test window; None before its evaluation."""
    from mlflow.exceptions import MlflowException

    try:
        figures = json.loads(model_registry.read_artifact(client, model, FIGURES))
    except (MlflowException, OSError):
        return None
    return next(({name: row[name] for name in ("value", "low", "high")} for row in figures if row["metric"] == "auc"), None)


def load_protected_columns(warehouse: Warehouse, source: Source) -> "pd.DataFrame | None":
    """Return ``customer_id`` and the protected columns of the ledger's customers; None where it has no customers or no such column."""
    if "customers" not in source.tables:
        return None
    names = [column.name for column in source.tables["customers"].table.columns if column.personal == "protected"]
    return warehouse.table("validated_customers").select("customer_id", *names).to_pandas() if names else None


def format_verdicts(faults: list[gate.Fault], figures: Sequence[Figure]) -> str:
    """Return the gate's verdict on each demand with what was seen of it, as a Markdown table."""
    reasons = {demand: "; ".join(fault.reason for fault in faults if fault.demand == demand) for demand in gate.DEMANDS}
    seen = gate.find_evidence(figures)
    return markdown_table([{"demand": name, "met": "no" if why else "yes", "seen": why or seen[name]} for name, why in reasons.items()])


def _champion(client: Any, domain: Domain, challenger: model_registry.RegisteredVersion, settings: Settings) -> "Bundle | None":
    """Return the champion's bundle; where the champion is the challenger itself, the one that it replaced; None for the first."""
    model = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
    if model is not None and model.version == challenger.version:
        model = model_registry.find_replaced(client, model)
    if model is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        files = model_registry.download_bundle(client, model, Path(folder) / "bundle")
        return load_bundle(files, domain, settings)


def _rollback_figures(tags: dict[str, str]) -> list[Figure]:
    """Return a figure, whose meaning is the reason, where the version was rolled back."""
    reason = gate_verdict.read_verdict(tags).rolled_back
    return [] if reason is None else [Figure(gate.ROLLED_BACK, 1.0, meaning=f"this version was rolled back: {reason}")]


def _metric_name(metric: str) -> str:
    """Return a figure's name in the letters that MLflow accepts."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in metric)
