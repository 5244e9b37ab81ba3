"""The only place where assets, checks, jobs, schedules and resources come together, for production and for tests alike."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from finrisk_assets.domains.registry import domains_of, left_out
from finrisk_assets.graph import automation, progress, stages, tags
from finrisk_assets.graph.resources import Clock, Tracking
from finrisk_assets.graph.stages import bento
from finrisk_assets.graph.stages import ledger as ledger
from finrisk_assets.graph.warehouse import Tables, Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.settings import Settings


def resources(settings: Settings) -> dict[str, Any]:
    """What assets reach outside themselves, by the name they ask for."""
    warehouse = Warehouse(url=settings.warehouse)
    return {
        "warehouse": warehouse,
        "tables": Tables(warehouse=warehouse),
        "tracking": Tracking(
            uri=settings.tracking_uri,
            artifacts=str(settings.root / "mlflow" / "artifacts"),
            experiment=f"finrisk-{settings.source}",
        ),
        # Stands still only where the settings say so; a run's own configuration goes before both.
        "clock": Clock.configure_at_launch(moment=settings.as_of.isoformat() if settings.as_of else ""),
    }


def build(settings: Settings, overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assemble the graph of one source.

    Parameters
    ----------
    settings
        The source decides which tables and domains there are.
    overrides
        Resources to use instead of those that the settings name.
    """
    source = sources.load(settings)
    domains = domains_of(source)
    made: list[Any] = ledger.assets(source, settings)
    scores = [f"scores_{domain.name}" for domain in domains]
    for domain in domains:
        made += stages.assets(domain, source, settings, scores)
    made += bento.assets(domains, left_out(source), source, settings)
    checks = [item for item in made if isinstance(item, dg.AssetChecksDefinition)]
    assets = [tags.tagged(item, source.name) for item in made if not isinstance(item, dg.AssetChecksDefinition)]
    names = [key.to_user_string() for asset in assets for key in asset.keys]
    jobs = automation.jobs(names, source, settings)
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=jobs,
        schedules=automation.schedules(names, source, settings),
        sensors=[*automation.sensors(source, settings, jobs), *automation.retraining(names)],
        resources={**resources(settings), **(overrides or {})},
        loggers={"progress": progress.progress_logger},
        # DuckDB lets one process write, and the heavy imports of ten steps in ten processes take longer than their work.
        executor=dg.in_process_executor,
    )
