"""The asset `bento`: the champions of all domains, packed with the service that answers with them (see `packaging`)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.gate import FAIRNESS
from finrisk_assets.graph import automation, checks
from finrisk_assets.graph.packaging import build_bento
from finrisk_assets.graph.parity_certificate import find_certificate_faults
from finrisk_assets.graph.resources import Tracking, TrackingResource
from finrisk_assets.graph.stages import champion
from finrisk_assets.graph.stages.common import WITHOUT_CHAMPION, champion_folder
from finrisk_assets.graph.warehouse import Warehouse, WarehouseResource
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings


def build_assets(domains: list[Domain], absent: Mapping[str, str], source: Source, settings: Settings) -> list[Any]:
    """Return the Bento of one source, and its check; `absent` says why a domain has no model.

    The Bento takes the champions that there are: a domain that has none on this ledger is absent from it, and costs no other domain.
    """
    if not domains:
        return []

    oracles = [f"oracle_{domain.name}" for domain in domains if domain.truth in source.truth]

    certified = [domain for domain in domains if domain.is_computed_in_service]

    @dg.asset(
        name="bento",
        group_name="serving",
        owners=["team:ml-platform"],
        kinds={"bentoml"},
        freshness_policy=automation.FRESH_BENTO if source.ends is None or source.is_live else None,
        deps=[*(f"champion_{domain.name}" for domain in domains), *oracles, *(f"parity_{domain.name}" for domain in certified)],
        description="The champions and the service that answers with them, as a Bento: `finrisk serve` starts it.",
    )
    def bento(context: dg.AssetExecutionContext, warehouse: WarehouseResource, tracking: TrackingResource) -> dg.MaterializeResult:
        ready = [domain for domain in domains if champion_folder(domain, settings).is_dir()]
        faults = [fault for domain in ready if domain in certified for fault in find_certificate_faults(domain, settings)]
        if faults:
            raise dg.Failure("no Bento is built: " + "; ".join(faults))
        without = {domain.name: WITHOUT_CHAMPION for domain in domains if domain not in ready}
        champions = {domain.name: champion_folder(domain, settings) for domain in ready}
        measured = {domain.name: _measured(domain, warehouse, settings, f"oracle_{domain.name}" in oracles) for domain in ready}
        challengers = fetch_challengers(ready, tracking, settings) if settings.shadow else {}
        evidence = {domain.name: champion.read_champion_evidence(domain, settings) for domain in ready}
        origins = {domain.name: find_origin(domain, tracking) for domain in ready}
        built = build_bento(settings, champions, {**absent, **without}, measured, challengers, evidence, origins)
        return dg.MaterializeResult(
            metadata={
                "tag": built.tag,
                "folder": dg.MetadataValue.path(built.path),
                **({"console": dg.MetadataValue.url(f"{settings.console_url.rstrip('/')}/models")} if settings.console_url else {}),
                "serve": f"BENTOML_HOME={built.home} bentoml serve {built.tag}",
                **{f"model_{name}": tag for name, tag in built.models.items()},
                **{f"left_out_{name}": reason for name, reason in without.items()},
            },
            data_version=dg.DataVersion(built.version),
        )

    def broken(_: Any) -> list[str]:
        folder = settings.bentoml_home / "bentos" / "finrisk"
        latest = folder / "latest"
        if not latest.is_file():
            return [f"there is no Bento in {folder}"]
        manifest = folder / latest.read_text().strip() / "bento.yaml"
        return [] if manifest.is_file() else [f"{manifest} is missing"]

    return [bento, checks.blocking_check("bento", "bento_contract", "The newest Bento is whole.", broken)]


def fetch_challengers(domains: list[Domain], tracking: Tracking, settings: Settings) -> dict[str, Path]:
    """Copy the registered challengers that are not champions themselves out of the registry; return their folders by domain."""
    client, folders = tracking.client(), {}
    for domain in domains:
        challenger = model_registry.find_version(client, domain.name, model_registry.CHALLENGER)
        champion_version = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
        if challenger is not None and champion_version is not None and challenger.version != champion_version.version:
            folders[domain.name] = model_registry.download_bundle(
                client, challenger, settings.root / "challengers" / domain.name / "bundle"
            )
    return folders


def find_origin(domain: Domain, tracking: Tracking) -> dict[str, str]:
    """Return the champion's version in the registry, and its run and experiment in MLflow; empty where the registry has none."""
    client = tracking.client()
    model = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
    if model is None:
        return {}
    experiment = client.get_run(model.run_id).info.experiment_id
    return {"registry_version": str(model.version), "run_id": model.run_id, "experiment_id": str(experiment)}


def _measured(domain: Domain, warehouse: Warehouse, settings: Settings, has_oracle: bool) -> list[dict[str, Any]]:
    """Return the champion's figures on its test window and beside the oracle, without fairness, which stands in its evidence."""
    evaluated = [figure for figure in champion.read_champion_figures(domain, settings) if not figure["metric"].startswith(FAIRNESS)]
    has_oracle = has_oracle and warehouse.has(f"oracle_{domain.name}")
    compared = warehouse.table(f"oracle_{domain.name}").to_pyarrow().to_pylist() if has_oracle else []
    return [{"window": window, **figure} for window, figures in (("test", evaluated), ("oracle", compared)) for figure in figures]
