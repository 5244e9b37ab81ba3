"""The stage ``champion_<domain>``: the alias moves to the challenger that passed its gate, and its bundle is exported."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.gate import ACCEPTED, FAIRNESS, ROWS
from finrisk_assets.graph import checks
from finrisk_assets.graph.resources import TrackingResource
from finrisk_assets.graph.runs import stop_signals
from finrisk_assets.graph.stages import pack
from finrisk_assets.graph.stages.common import champion_folder, common, console_link, find_bundle_faults, leave_out, run_link
from finrisk_assets.graph.stages.evaluation import FIGURES
from finrisk_assets.ledger.mirror import mirror_champion
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.packs.evidence import EVIDENCE, complete_evidence, read_evidence, write_evidence
from finrisk_assets.modelling.training import gate_verdict, model_registry
from finrisk_assets.settings import Settings

SCORECARD = "scorecard.json"
"""The artifact of a training run that holds its scorecard, chosen or not."""


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Build the champion and its contract."""
    contract = checks.blocking_check(
        f"champion_{domain.name}",
        f"champion_{domain.name}_contract",
        "The exported bundle loads and its golden rows agree.",
        lambda warehouse: find_bundle_faults(domain, source, champion_folder(domain, settings)),
    )
    return [_champion(domain, settings), contract]


def _champion(domain: Domain, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"champion_{domain.name}",
        deps=[f"evaluation_{domain.name}"],
        output_required=False,
        description="Moves the alias `champion` to the challenger that passed its gate, and exports its scoring bundle and its figures.",
        **common(domain, {"mlflow"}),
    )
    def champion(context: dg.AssetExecutionContext, tracking: TrackingResource) -> Iterator[dg.MaterializeResult]:
        from finrisk_assets.scoring.bundle import Bundle

        client = tracking.client()
        challenger = model_registry.find_version(client, domain.name, model_registry.CHALLENGER)
        if challenger is None:
            raise dg.Failure(f"no challenger is registered for {domain.name}: materialise model_{domain.name} first")
        verdict = gate_verdict.read_verdict(model_registry.read_tags(client, challenger))
        if verdict.gate == ROWS and not verdict.leaks:
            leave_out(context, domain, f"the test window has too few outcomes to judge version {challenger.version}")
            return
        if not verdict.is_passed:
            raise dg.Failure(
                f"version {challenger.version} of {challenger.name} may not become champion: {verdict.refusal(domain.name)}",
                allow_retries=False,
            )
        stop_signals.raise_if_stopped()
        former = model_registry.promote(client, domain.name, challenger)
        bundle = Bundle.load(export_bundle(client, domain, challenger, settings))
        yield dg.MaterializeResult(
            metadata={
                "model": challenger.name,
                "registry_version": challenger.version,
                "bundle": bundle.version,
                "replaces": former.version if former else "none",
                "mlflow_run_id": challenger.run_id,
                "mlflow": run_link(tracking, challenger.run_id),
                "folder": dg.MetadataValue.path(champion_folder(domain, settings)),
                **console_link(settings, domain),
            },
            data_version=dg.DataVersion(bundle.version),
        )

    return champion


def export_bundle(client: Any, domain: Domain, model: model_registry.RegisteredVersion, settings: Settings) -> Path:
    """Export a version's bundle as the champion's, for batch and Bento, with its figures beside it; mirror it, and return its folder."""
    folder = model_registry.download_bundle(client, model, champion_folder(domain, settings))
    for name, content in ((FIGURES, model_registry.read_artifact(client, model, FIGURES)), (EVIDENCE, gather_evidence(client, model))):
        part = folder.parent / f".{name}.part"
        part.write_bytes(content)
        part.replace(folder.parent / name)
    mirror_champion(settings, domain.name)
    return folder


def gather_evidence(client: Any, model: model_registry.RegisteredVersion) -> bytes:
    """Return the evidence of a registered version as a file's content: from its evaluation, its candidates and its scorecard."""
    present = {item.path for item in client.list_artifacts(model.run_id)}

    def read(name: str, otherwise: bytes) -> bytes:
        return model_registry.read_artifact(client, model, name) if name in present else otherwise

    fair = [row for row in json.loads(read(FIGURES, b"[]")) if row["metric"].startswith((f"{FAIRNESS}/", f"{ACCEPTED}/"))]
    evidence = complete_evidence(
        read_evidence(read(EVIDENCE, b"{}")),
        version=model_registry.read_tags(client, model).get("bundle", "")[:12],
        figures=fair,
        candidates=pack.read_candidates(client, model) if pack.CANDIDATES in present else (),
        parameters=pack.read_parameters(client, model),
        scorecard_json=read(SCORECARD, b"").decode() or None,
    )
    return write_evidence(evidence)


def read_champion_evidence(domain: Domain, settings: Settings) -> dict[str, Any]:
    """Return the evidence of the champion; empty where none was kept."""
    file = champion_folder(domain, settings).parent / EVIDENCE
    return read_evidence(file.read_bytes()) if file.is_file() else {}


def read_champion_figures(domain: Domain, settings: Settings) -> list[dict[str, Any]]:
    """Return the figures of the champion's evaluation."""
    figures: list[dict[str, Any]] = json.loads((champion_folder(domain, settings).parent / FIGURES).read_bytes())
    return figures
