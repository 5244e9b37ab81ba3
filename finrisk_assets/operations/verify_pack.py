"""Verification of validation packs: every hash, every figure computed again from snapshot and bundle, every number on the pages.

The commands `finrisk validate-pack` call this module. It fetches the parts that `stages.pack` stored and computes the figures a second
time through the functions that the graph uses; `modelling.packs.pack` compares the two.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ibis

from finrisk_assets.domains import gate as gate_rules
from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages.common import join_companions, load_frame, to_frame
from finrisk_assets.graph.stages.evaluation import FIGURES, POLICY, load_protected_columns
from finrisk_assets.graph.stages.oracle import COMPANIONS
from finrisk_assets.graph.stages.pack import (
    CARD,
    ORACLE,
    PACK_ARTIFACT,
    README,
    SNAPSHOT,
    PackContents,
    check_pages,
    figures_to_rows,
    gather,
    list_verdicts,
    pack_folder,
    read_policy_artifact,
)
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import snapshots, sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.packs import pack
from finrisk_assets.modelling.training import model_registry, provenance
from finrisk_assets.policy.policy_file import PolicyError, parse_policy
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle


@dataclass(frozen=True)
class Verification:
    """Result of the verification of one pack.

    Attributes
    ----------
    record, folder
        The verified pack, and its folder.
    outcomes
        One per kind of check, in the order of the checks.
    """

    record: pack.Pack
    folder: Path
    outcomes: Sequence[pack.Outcome]

    @property
    def disagreements(self) -> list[str]:
        return [place for outcome in self.outcomes for place in outcome.disagreements]


def list_packs(settings: Settings) -> list[tuple[pack.Pack, Path]]:
    """Return the packs of this source with their folders, by domain, the newest first."""
    packs = []
    for domain in domains_of(sources.load(settings)):
        files = sorted((settings.root / "packs" / domain.name).glob(f"*/{pack.MANIFEST}"))
        domain_packs = [(pack.read_manifest(file.read_bytes(), str(file))[0], file.parent) for file in files]
        packs += sorted(domain_packs, key=lambda entry: -int(entry[0].registry_version))
    return packs


def list_domains_with_packs(settings: Settings) -> list[str]:
    """Return the domains that have a pack.

    Raises
    ------
    modelling.pack.PackError
        If none has.
    """
    domains = list(dict.fromkeys(record.domain for record, _ in list_packs(settings)))
    if not domains:
        raise pack.PackError(f"there is no pack in {settings.root / 'packs'}: `make demo` makes them, or materialise a pack_<domain>")
    return domains


def find_pack(settings: Settings, domain: str, version: str | None = None) -> tuple[pack.Pack, Path]:
    """Return the newest pack of a domain, or that of a version: its bundle's first digits, or its number in the registry.

    Raises
    ------
    modelling.pack.PackError
        If there is none.
    """
    packs = [(record, folder) for record, folder in list_packs(settings) if record.domain == domain]
    matches = [entry for entry in packs if version is None or _is(version, entry[0].registry_version, entry[0].version)]
    if not matches:
        have = ", ".join(f"{record.version} ({record.registry_version})" for record, _ in packs) or "none"
        raise pack.PackError(f"there is no pack of {domain}{f' {version}' if version else ''}; there are: {have}")
    return matches[0]


def _is(version_text: str, number: str, version: str) -> bool:
    return version_text == number or (len(version_text) >= 6 and version.startswith(version_text))


def list_figures(record: pack.Pack) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Return heading and rows of each group of a pack's figures: figure, value, 95 % interval, and the artifact that it is from."""
    tables = list[tuple[str, list[tuple[str, ...]]]]()
    for group, (heading, _) in pack.GROUPS.items():
        rows = list[tuple[str, ...]]()
        for item in record.figures_of(group):
            interval = f"{item.format_bound('low')} to {item.format_bound('high')}" if item.low is not None else ""
            name = item.label if group != "candidates" else f"{item.label}: {item.meaning}"
            rows.append((name, item.format_bound("value"), interval, f"{item.artifact} {record.by_artifact[item.artifact].short}"))
        if rows:
            tables.append((heading, rows))
    return tables


def verify(settings: Settings, name: str, version: str | None = None) -> Verification:
    """Verify one pack.

    Parameters
    ----------
    name
        Of the domain.
    version
        The bundle's version or its first digits, or the number in the registry; the champion's where none is named.

    Raises
    ------
    modelling.pack.PackError
        If there is no such pack, or its manifest cannot be read.
    """
    source = sources.load(settings)
    domain = next((candidate for candidate in domains_of(source) if candidate.name == name), None)
    if domain is None:
        raise pack.PackError(f"the source {settings.source} has no domain {name!r}; it has {', '.join(d.name for d in domains_of(source))}")
    resources = build_resources(settings)
    client, warehouse = resources["tracking"].client(), resources["warehouse"]
    model = _version(client, domain, version)
    tags = model_registry.read_tags(client, model)
    folder = pack_folder(settings, domain.name, tags["bundle"])
    file = folder / pack.MANIFEST
    if not file.is_file():
        raise pack.PackError(f"there is no {file}: materialise pack_{domain.name} while version {model.version} is champion")
    content = file.read_bytes()
    claimed, _ = pack.read_manifest(content, str(file))
    is_sealed = tags.get(PACK_ARTIFACT) == pack.sha256(content)
    outcomes = [
        pack.count_outcomes("Manifest", [None if is_sealed else f"{pack.MANIFEST}: its hash is not the one that the registry holds of it"]),
        *check_pages(folder),
        _artifacts(claimed, client, model, settings),
        *_recompute(claimed, domain, source, client, model, settings, warehouse),
    ]
    return Verification(claimed, folder, outcomes)


def _version(client: Any, domain: Domain, version: str | None) -> model_registry.RegisteredVersion:
    if version is None:
        champion = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
        if champion is None:
            raise pack.PackError(f"{domain.name} has no champion yet: materialise pack_{domain.name} first")
        return champion
    versions = model_registry.list_versions(client, domain.name)
    matches = [model for model, tags, _ in versions if _is(version, model.version, tags.get("bundle", ""))]
    if not matches:
        have = ", ".join(f"{tags.get('bundle', '')} ({model.version})" for model, tags, _ in versions) or "none"
        raise pack.PackError(f"{domain.name} has no version {version!r}; it has {have}")
    return matches[0]


# Hashes ------------------------------------------------------------------------------------------------------------------------


def _artifacts(claimed: pack.Pack, client: Any, model: model_registry.RegisteredVersion, settings: Settings) -> pack.Outcome:
    """Compare the hash of every artifact with the stored bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        bundle = model_registry.download_bundle(client, model, Path(temporary) / "bundle")
        stored = {f"bundle/{file.name}": file.read_bytes() for file in bundle.iterdir()}
    outcomes: list[str | None] = []
    for artifact in claimed.artifacts:
        outcomes.append(_hash_differs(artifact, stored.get(artifact.name), client, model, settings))
    unnamed = sorted(set(stored) - {artifact.name for artifact in claimed.artifacts})
    return pack.count_outcomes(
        "Artifacts", [*outcomes, *(f"{name}: is kept with the version, but {pack.MANIFEST} does not name it" for name in unnamed)]
    )


def _hash_differs(
    artifact: pack.Artifact, content: bytes | None, client: Any, model: model_registry.RegisteredVersion, settings: Settings
) -> str | None:
    from finrisk_assets.graph.stages import pack as stage

    try:
        if artifact.name == SNAPSHOT:
            digest = snapshots.restore(snapshots.snapshot_folder(settings.root), artifact.sha256).stem
        elif artifact.name == stage.PARAMETERS:
            digest = pack.sha256(pack.canonical_json(stage.read_parameters(client, model)))
        elif artifact.name == stage.CANDIDATES:
            digest = pack.sha256(pack.canonical_json(stage.read_candidates(client, model)))
        elif artifact.name.startswith("bundle/"):
            if content is None:
                return f"{artifact.name}: is no longer in {artifact.place}"
            digest = pack.sha256(content)
        else:
            path = f"{PACK_ARTIFACT}/{artifact.name}" if artifact.name in (ORACLE, README, CARD) else artifact.name
            digest = pack.sha256(model_registry.read_artifact(client, model, path))
    except snapshots.SnapshotError as error:
        return f"{artifact.name}: {error}"
    except Exception as error:  # MLflow raises its own kinds for an artifact that is gone
        return f"{artifact.name}: cannot be read from {artifact.place}: {str(error).splitlines()[0]}"
    if digest == artifact.sha256:
        return None
    return f"{artifact.name}: has the hash {digest[:12]}… in {artifact.place}, and {artifact.sha256[:12]}… in {pack.MANIFEST}"


# Figures -----------------------------------------------------------------------------------------------------------------------


def _recompute(
    claimed: pack.Pack,
    domain: Domain,
    source: Source,
    client: Any,
    model: model_registry.RegisteredVersion,
    settings: Settings,
    warehouse: Warehouse,
) -> list[pack.Outcome]:
    """Compute every figure again, and compare the pack with the result."""
    from mlflow.exceptions import MlflowException

    from finrisk_assets.scoring.spec import BundleError

    tags = model_registry.read_tags(client, model)
    then = provenance.restore_settings(settings, tags["settings"])
    try:
        frame = _frame(settings, tags[SNAPSHOT])
        policy = parse_policy(read_policy_artifact(client, model).decode(), POLICY)
        bundle = _bundle(client, model, settings, policy)
        evaluation, oracle = _evaluated(claimed, domain, source, client, bundle, frame, then, warehouse)
        texts = {name: model_registry.read_artifact(client, model, f"{PACK_ARTIFACT}/{name}") for name in (README, CARD)}
        contents = gather(domain, source, client, model, oracle, texts)
    except (snapshots.SnapshotError, BundleError, PolicyError, MlflowException, OSError) as error:
        return [pack.count_outcomes("Figures", [f"they cannot be computed again: {error}"])]
    figures = [
        *(figure for figure in contents.record.figures if not figure.key.startswith("evaluation/")),
        *pack.build_figures(evaluation, "evaluation", FIGURES),
    ]
    against = f"snapshot {tags[SNAPSHOT][: pack.HASH_DIGITS]} and bundle {bundle.version}"
    return [*pack.compare_figures(claimed.figures, figures, against), *_compare_texts(claimed, contents, domain, evaluation)]


def _evaluated(
    claimed: pack.Pack,
    domain: Domain,
    source: Source,
    client: Any,
    bundle: "Bundle",
    frame: "pd.DataFrame",
    then: Settings,
    warehouse: Warehouse,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the figures of the evaluation and those beside the oracle, as rows."""
    former = _former(claimed, client, domain, then, bundle.policy)
    evaluation = gate_rules.evaluate(domain, frame, load_protected_columns(warehouse, source), bundle, former, then)
    oracle: list[dict[str, Any]] = []
    if claimed.figures_of("oracle"):
        rows = domain.evaluation_rows(ibis.memtable(frame))
        if domain.companions:
            bundle = bundle.under(bundle.policy, _companions(claimed, domain, client, then, bundle.policy))
            frame = load_frame(join_companions(rows, domain, warehouse), domain)
        truth = {name: domain.select_truth(name, warehouse.table(name), rows).to_pandas() for name in domain.truth_tables}
        oracle = figures_to_rows(domain.compare_with_truth(frame, truth, bundle, then))
    return figures_to_rows(evaluation.figures), oracle


def _companions(claimed: pack.Pack, domain: Domain, client: Any, then: Settings, policy: "Policy") -> "dict[str, Bundle]":
    """Return the bundles of the companions that the version was compared with the truth beside."""
    model = model_registry.RegisteredVersion(claimed.model, claimed.registry_version, claimed.run_id)
    versions = json.loads(model_registry.read_artifact(client, model, COMPANIONS))
    companions = {}
    for name, version in versions.items():
        registered = next(entry for entry, tags, _ in model_registry.list_versions(client, name) if tags.get("bundle") == version)
        companions[name] = _bundle(client, registered, then, policy)
    return companions


def _former(claimed: pack.Pack, client: Any, domain: Domain, then: Settings, policy: "Policy") -> "Bundle | None":
    """Return the champion that the version was compared with, under the policy of the comparison; None for the first version."""
    if "evaluation/champion_auc" not in claimed.by_key:
        return None
    model = model_registry.RegisteredVersion(claimed.model, claimed.registry_version, claimed.run_id)
    replaced = model_registry.read_tags(client, model).get(model_registry.REPLACES_TAG)
    champion = next(
        (candidate for candidate, _, _ in model_registry.list_versions(client, domain.name) if candidate.version == replaced), None
    )
    return None if champion is None else _bundle(client, champion, then, policy)


def _bundle(client: Any, model: model_registry.RegisteredVersion, settings: Settings, policy: "Policy") -> "Bundle":
    from finrisk_assets.scoring.bundle import Bundle

    with tempfile.TemporaryDirectory() as temporary:
        folder = model_registry.download_bundle(client, model, Path(temporary) / "bundle")
        return Bundle.load(folder, threads=settings.threads, policy=policy)


def _frame(settings: Settings, snapshot: str) -> "pd.DataFrame":
    """Return the stored feature table, as training read it."""
    import pyarrow.parquet as pq

    file = snapshots.restore(snapshots.snapshot_folder(settings.root), snapshot)
    return to_frame(pq.read_table(file))


def _compare_texts(
    claimed: pack.Pack, contents: PackContents, domain: Domain, evaluation: Sequence[Mapping[str, Any]]
) -> list[pack.Outcome]:
    """Compare the verdicts and the facts of the pack with those of the gate and the registry."""
    from finrisk_assets.domains.base import Figure

    verdicts = {verdict.demand: verdict for verdict in list_verdicts(domain, [Figure(**row) for row in evaluation])}
    gate = [
        None
        if verdicts.get(verdict.demand) == verdict
        else f"{pack.MANIFEST}: the verdict on {verdict.demand} is not the one that the gate gives"
        for verdict in claimed.verdicts
    ]
    names = (
        "domain",
        "title",
        "owner",
        "source",
        "model",
        "registry_version",
        "version",
        "run_id",
        "settings",
        "facts",
        "features",
        "history",
        "texts",
    )
    same = [
        None
        if _plain(getattr(claimed, name)) == _plain(getattr(contents.record, name))
        else f"{pack.MANIFEST}: {name} is not what the registry says"
        for name in names
    ]
    return [pack.count_outcomes("Verdicts of the gate", gate), pack.count_outcomes("Facts, features and texts", same)]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
