"""Rollback to the previous champion, in the registry, in the exported bundle and in a new Bento."""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from finrisk_assets.domains.registry import domains_of
from finrisk_assets.graph import automation
from finrisk_assets.graph.build import build_definitions, build_resources
from finrisk_assets.graph.runs.in_process import run_job
from finrisk_assets.graph.stages import champion
from finrisk_assets.ledger import sources
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings


@dataclass(frozen=True)
class RollbackResult:
    """The result of a rollback: the version taken back, the champion that replaces it, and the tag of the new Bento."""

    withdrawn: model_registry.RegisteredVersion
    champion: model_registry.RegisteredVersion
    bento: str


def roll_back(settings: Settings, name: str, reason: str, instance: dg.DagsterInstance) -> RollbackResult:
    """Make the previous champion of a domain the champion again.

    The version taken back is tagged with the reason, and the gate refuses it from then on. The event is recorded for the asset
    ``champion_<domain>``, so that its scores are seen to be out of date.

    Parameters
    ----------
    name
        Of the domain, as in ``loan_default``.

    Raises
    ------
    registry.RegistryError
        If the source has no such domain, or there is no earlier champion.
    RuntimeError
        If the Bento cannot be built; the registry has moved by then, and materialising the asset `bento` finishes the work.
    """
    domains = {domain.name: domain for domain in domains_of(sources.load(settings))}
    if name not in domains:
        raise model_registry.RegistryError(f"the source {settings.source} has no domain {name!r}; it has {', '.join(domains)}")
    client = build_resources(settings)["tracking"].client()
    withdrawn, former = model_registry.rollback(client, name, reason)
    folder = champion.export_bundle(client, domains[name], former, settings)
    facts: dict[str, Any] = {"registry_version": former.version, "rolled_back": withdrawn.version, "reason": reason}
    facts |= {"folder": dg.MetadataValue.path(folder)}
    instance.report_runless_asset_event(dg.AssetMaterialization(f"champion_{name}", description="Rolled back.", metadata=facts))
    job = build_definitions(settings).resolve_job_def(automation.EVERYTHING)
    done = run_job(job, instance, selection=["bento"], location="finrisk_assets.definitions")
    if not done.success:
        raise RuntimeError(f"version {former.version} of {former.name} is champion again, but the Bento was not built: materialise `bento`")
    built = done.asset_materializations_for_node("bento")[0].metadata["tag"].value
    return RollbackResult(withdrawn, former, str(built))
