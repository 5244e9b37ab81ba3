"""The stage ``oracle_<domain>``: the champion beside the true probabilities, where a simulator can tell them."""

import json
from dataclasses import asdict
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.resources import TrackingResource
from finrisk_assets.graph.stages.common import (
    champion_folder,
    check_finite_figures,
    common,
    figure_table,
    join_companions,
    load_bundle,
    load_frame,
    log_artifact,
    sample_rows,
)
from finrisk_assets.graph.warehouse import WarehouseResource, markdown_table
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings

COMPANIONS = "companions.json"
"""The artifact of a champion's run that holds the versions of its companions, by domain, as it was compared with the truth."""


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Return the comparison and its contract; none where the source has no truth table."""
    if domain.truth not in source.truth:
        return []

    @dg.asset(
        name=f"oracle_{domain.name}",
        deps=[f"features_{domain.group}", f"champion_{domain.name}", *domain.truth_tables],
        description="The champion beside an oracle that knows the true probabilities, on the test window. Only a simulator can tell.",
        io_manager_key="tables",
        **common(domain, {"ibis"}),
    )
    def oracle(context: dg.AssetExecutionContext, warehouse: WarehouseResource, tracking: TrackingResource) -> dg.Output[LazyTable]:
        import ibis

        champion = load_bundle(champion_folder(domain, settings), domain, settings)
        # Decisions are compared as they are made, with all that the companions know.
        rows = domain.evaluation_rows(sample_rows(warehouse.table(f"features_{domain.group}"), domain, settings))
        frame = load_frame(join_companions(rows, domain, warehouse), domain)
        if champion.companions:
            client = tracking.client()
            registered = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
            if registered is not None:
                versions = {name: companion.version for name, companion in champion.companions.items()}
                log_artifact(client, registered.run_id, COMPANIONS, json.dumps(versions).encode())
        truth = {name: domain.select_truth(name, warehouse.table(name), rows).to_pandas() for name in domain.truth_tables}
        figures = [asdict(figure) for figure in domain.compare_with_truth(frame, truth, champion, settings)]
        return dg.Output(ibis.memtable(figure_table(figures)), metadata={"figures": dg.MetadataValue.md(markdown_table(figures))})

    return [oracle, check_finite_figures(f"oracle_{domain.name}")]
