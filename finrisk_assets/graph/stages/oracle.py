"""The stage ``oracle_<domain>``: the champion beside the true probabilities, where a simulator can tell them."""

from dataclasses import asdict
from typing import Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.stages.common import champion_folder, common, figure_table, finite_check, load_judged
from finrisk_assets.graph.warehouse import Warehouse, markdown_table
from finrisk_assets.ledger.sources.base import Source
from finrisk_assets.settings import Settings


def assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """The comparison and its contract; none where the truth is not known."""
    compare = domain.oracle
    if compare is None or domain.truth not in source.truth:
        return []

    @dg.asset(
        name=f"oracle_{domain.name}",
        deps=[f"features_{domain.group}", f"champion_{domain.name}", domain.truth],
        description="The champion beside an oracle that knows the true probabilities, on the test window. Only a simulator can tell.",
        io_manager_key="tables",
        **common(domain, {"ibis"}),
    )
    def oracle(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.Output[LazyTable]:
        import ibis

        from finrisk_assets.scoring.bundle import Bundle

        champion = Bundle.load(champion_folder(domain, settings), threads=settings.threads)
        frame = load_judged(warehouse, domain)
        rows = [asdict(figure) for figure in compare(frame, warehouse.table(domain.truth).to_pandas(), champion, settings)]
        return dg.Output(ibis.memtable(figure_table(rows)), metadata={"figures": dg.MetadataValue.md(markdown_table(rows))})

    return [oracle, finite_check(f"oracle_{domain.name}")]
