"""The stage ``oracle_<domain>``: the champion beside the true probabilities, where a simulator can tell them."""

from dataclasses import asdict
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.stages.common import (
    champion_folder,
    check_finite_figures,
    common,
    figure_table,
    load_bundle,
    load_evaluation_rows,
)
from finrisk_assets.graph.warehouse import Warehouse, markdown_table
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.settings import Settings


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
    def oracle(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.Output[LazyTable]:
        import ibis

        champion = load_bundle(champion_folder(domain, settings), domain, settings)
        frame = load_evaluation_rows(warehouse, domain)
        truth = {name: warehouse.table(name).to_pandas() for name in domain.truth_tables}
        rows = [asdict(figure) for figure in domain.compare_with_truth(frame, truth, champion, settings)]
        return dg.Output(ibis.memtable(figure_table(rows)), metadata={"figures": dg.MetadataValue.md(markdown_table(rows))})

    return [oracle, check_finite_figures(f"oracle_{domain.name}")]
