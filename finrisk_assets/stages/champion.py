"""The stage ``champion_<domain>``: the alias moves to the challenger that passed its gate, and its bundle is exported."""

from typing import Any

import dagster as dg

from finrisk_assets import checks
from finrisk_assets.domain import Domain
from finrisk_assets.ledger.sources.base import Source
from finrisk_assets.modelling import registry
from finrisk_assets.resources import Tracking
from finrisk_assets.settings import Settings
from finrisk_assets.stages.common import bundle_faults, champion_folder, common


def assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """The champion and its contract."""
    contract = checks.demand(
        f"champion_{domain.name}",
        f"champion_{domain.name}_contract",
        "The exported bundle loads and its golden rows agree.",
        lambda warehouse: bundle_faults(domain, source, champion_folder(domain, settings)),
    )
    return [_champion(domain, settings), contract]


def _champion(domain: Domain, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"champion_{domain.name}",
        deps=[f"evaluation_{domain.name}"],
        description="Moves the alias `champion` to the challenger that passed its gate, and exports its scoring bundle.",
        **common(domain, {"mlflow"}),
    )
    def champion(context: dg.AssetExecutionContext, tracking: Tracking) -> dg.MaterializeResult:
        from finrisk_assets.modelling.bundle import Bundle

        client = tracking.client()
        challenger = registry.find(client, domain.name, registry.CHALLENGER)
        if challenger is None:
            raise dg.Failure(f"no challenger is registered for {domain.name}: materialise model_{domain.name} first")
        registry.promote(client, challenger)
        bundle = Bundle.load(registry.fetch(client, challenger, champion_folder(domain, settings)))
        return dg.MaterializeResult(
            metadata={
                "model": challenger.name,
                "registry_version": challenger.version,
                "bundle": bundle.version,
                "mlflow_run_id": challenger.run_id,
                "folder": dg.MetadataValue.path(champion_folder(domain, settings)),
            },
            data_version=dg.DataVersion(bundle.version),
        )

    return champion
