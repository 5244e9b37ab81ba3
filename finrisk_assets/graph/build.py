"""The only place where assets, checks, jobs, schedules and resources come together, for production and for tests alike."""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from finrisk_assets.domains.registry import domains_of, left_out
from finrisk_assets.graph import automation, progress, stages, tags
from finrisk_assets.graph.resources import Clock, Tracking
from finrisk_assets.graph.runs.executor import build_executor
from finrisk_assets.graph.stages import bento, ledger
from finrisk_assets.graph.stages.exports import marts
from finrisk_assets.graph.warehouse import Tables, Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.private_files import close_folder, restrict_new_files
from finrisk_assets.settings import Settings


def build_resources(settings: Settings) -> dict[str, Any]:
    """Return the Dagster resources by name: warehouse, tables, tracking and clock."""
    warehouse = Warehouse.of(settings)
    return {
        "warehouse": warehouse,
        "tables": Tables(warehouse=warehouse),
        "tracking": Tracking(
            uri=settings.tracking_uri,
            artifacts=settings.tracking_artifacts,
            experiment=f"finrisk-{settings.source}",
            page=settings.mlflow_url,
        ),
        # Fixed only by `FINRISK_AS_OF`; a run's own configuration goes before both.
        "clock": Clock.configure_at_launch(moment=settings.as_of.isoformat() if settings.as_of else ""),
    }


def build_definitions(settings: Settings, overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assemble the graph of one source.

    Parameters
    ----------
    settings
        The source decides which tables and domains there are.
    overrides
        Resources to use instead of those that the settings name.
    """
    # Each is met again with every new version of Dagster, by the tests; an operator can do nothing about them.
    for category in (dg.BetaWarning, dg.PreviewWarning):
        warnings.filterwarnings("ignore", category=category)
    # Runs are started in processes of their own, which build the graph again.
    restrict_new_files()
    close_folder(settings.root)
    source = sources.load(settings)
    domains = domains_of(source)
    definitions: list[Any] = ledger.build_assets(source, settings)
    scores = [f"scores_{domain.name}" for domain in domains]
    for domain in domains:
        definitions += stages.build_assets(domain, source, settings, scores)
    definitions += bento.build_assets(domains, left_out(source), source, settings)
    definitions += marts.build_assets(domains, source, settings)
    checks = [item for item in definitions if isinstance(item, dg.AssetChecksDefinition)]
    assets = [tags.add_tags(item, source.name) for item in definitions if not isinstance(item, dg.AssetChecksDefinition)]
    names = [key.to_user_string() for asset in assets for key in asset.keys]
    jobs = automation.build_jobs(names, source, settings)
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=jobs,
        schedules=automation.build_schedules(names, source, settings),
        sensors=[*automation.build_sensors(source, settings, jobs), *automation.build_retraining_sensors(names)],
        resources={**build_resources(settings), **(overrides or {})},
        loggers={"progress": progress.progress_logger},
        executor=build_executor(settings.warehouse, settings.warehouse_wait_minutes, ("bento", marts.ASSET), "champion_"),
    )
