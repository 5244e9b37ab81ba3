"""The stage ``evaluation_<domain>``: what the challenger shows on the frozen test window, and the gate that judges it."""

from dataclasses import asdict
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets import checks
from finrisk_assets.domain import Domain
from finrisk_assets.modelling import registry
from finrisk_assets.resources import Tracking, Warehouse, markdown_table
from finrisk_assets.settings import Settings
from finrisk_assets.stages.common import candidate_folder, common, figure_table, figures, finite_check, load_frame, log_artifact, pictures


def assets(domain: Domain, settings: Settings) -> list[Any]:
    """The figures, their contract, and the gate."""
    gate = checks.demand(
        f"evaluation_{domain.name}",
        f"model_{domain.name}_gate",
        "What a model must show on the frozen test window before it may decide.",
        lambda warehouse: domain.gate({figure.metric: figure for figure in figures(warehouse.table(f"evaluation_{domain.name}"))}),
    )
    return [_evaluation(domain, settings), finite_check(f"evaluation_{domain.name}"), gate]


def _evaluation(domain: Domain, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"evaluation_{domain.name}",
        deps=[f"features_{domain.group}", f"model_{domain.name}"],
        description="Figures of the challenger on the frozen test window, each with its 95 % interval.",
        io_manager_key="tables",
        **common(domain, {"mlflow", "shap"}),
    )
    def evaluation(context: dg.AssetExecutionContext, warehouse: Warehouse, tracking: Tracking) -> dg.Output[LazyTable]:
        import ibis

        from finrisk_assets.modelling.bundle import Bundle

        challenger = Bundle.load(candidate_folder(domain, settings), threads=settings.threads)
        frame = load_frame(warehouse.table(f"features_{domain.group}"), domain)
        result = domain.evaluate(frame, challenger, settings)
        client = tracking.client()
        registered = registry.find(client, domain.name, registry.CHALLENGER)
        if registered is None:
            raise dg.Failure(f"no challenger is registered for {domain.name}: materialise model_{domain.name} first")
        for figure in result.figures:
            client.log_metric(registered.run_id, f"test_{figure.metric}", figure.value)
        for name, png in result.plots.items():
            log_artifact(client, registered.run_id, f"plots/test_{name}.png", png)
        rows = [asdict(figure) for figure in result.figures]
        return dg.Output(
            ibis.memtable(figure_table(rows)),
            metadata={
                "bundle": challenger.version,
                "figures": dg.MetadataValue.md(markdown_table(rows)),
                "mlflow_run_id": registered.run_id,
                **{figure.metric: float(figure.value) for figure in result.figures},
                **pictures(result.plots),
            },
        )

    return evaluation
