"""Verification of validation packs: every hash, every figure computed again from snapshot and bundle, every number on the pages.

The commands `finrisk validate-pack` call this module. How figures are compared is in `modelling.pack`; where a pack's parts are kept, in
`stages.pack`; here they are fetched, and computed a second time through the very functions that the graph uses.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains import gate as gate_rules
from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages.common import to_frame
from finrisk_assets.graph.stages.evaluation import FIGURES, load_protected_columns
from finrisk_assets.graph.stages.pack import (
    CARD,
    KEPT,
    ORACLE,
    README,
    SNAPSHOT,
    PackContents,
    check_pages,
    figures_to_rows,
    gather,
    list_verdicts,
    pack_folder,
)
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import snapshots, sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.packs import pack
from finrisk_assets.modelling.training import model_registry, provenance
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.scoring.bundle import Bundle


@dataclass(frozen=True)
class Verification:
    """What the verification of one pack found.

    Attributes
    ----------
    made, folder
        What was verified, and where it is.
    outcomes
        One of each kind of thing that was checked, in the order of the checks.
    """

    made: pack.Pack
    folder: Path
    outcomes: Sequence[pack.Outcome]

    @property
    def disagreements(self) -> list[str]:
        return [place for one in self.outcomes for place in one.disagreements]


def list_packs(settings: Settings) -> list[tuple[pack.Pack, Path]]:
    """The packs of this source, by domain and number in the registry, the newest first, each with its folder."""
    found = []
    for domain in domains_of(sources.load(settings)):
        files = sorted((settings.root / "packs" / domain.name).glob(f"*/{pack.MANIFEST}"))
        read = [(pack.read(file.read_bytes(), str(file))[0], file.parent) for file in files]
        found += sorted(read, key=lambda one: -int(one[0].registry_version))
    return found


def list_domains_with_packs(settings: Settings) -> list[str]:
    """Return the domains that have a pack.

    Raises
    ------
    modelling.pack.PackError
        If none has.
    """
    found = list(dict.fromkeys(made.domain for made, _ in list_packs(settings)))
    if not found:
        raise pack.PackError(f"there is no pack in {settings.root / 'packs'}: `finrisk demo` makes them, or materialise a pack_<domain>")
    return found


def find_pack(settings: Settings, domain: str, version: str | None = None) -> tuple[pack.Pack, Path]:
    """Return the newest pack of a domain, or that of a version: its bundle's first digits, or its number in the registry.

    Raises
    ------
    modelling.pack.PackError
        If there is none.
    """
    known = [(made, folder) for made, folder in list_packs(settings) if made.domain == domain]
    found = [one for one in known if version is None or _is(version, one[0].registry_version, one[0].version)]
    if not found:
        have = ", ".join(f"{made.version} ({made.registry_version})" for made, _ in known) or "none"
        raise pack.PackError(f"there is no pack of {domain}{f' {version}' if version else ''}; there are: {have}")
    return found[0]


def _is(asked: str, number: str, version: str) -> bool:
    return asked == number or (len(asked) >= 6 and version.startswith(asked))


def render_pack(made: pack.Pack) -> list[Any]:
    """Return the verdict and every figure of a pack, as texts and tables for a terminal."""
    from rich.table import Table
    from rich.text import Text

    shown: list[Any] = [Text(f"{made.title}: {made.model}, version {made.registry_version}, bundle {made.version}")]
    shown += [Text(f"{'met    ' if one.is_met else 'NOT MET'}  {one.demand}  {'; '.join(one.reasons)}") for one in made.verdicts]
    for group, (heading, _) in pack.GROUPS.items():
        if figures := made.of(group):
            table = Table("figure", "value", "95 % interval", "from", title=heading, title_justify="left")
            for one in figures:
                interval = f"{one.shown('low')} to {one.shown('high')}" if one.low is not None else ""
                name = one.label if group != "candidates" else f"{one.label}: {one.meaning}"
                table.add_row(Text(name), one.shown("value"), interval, f"{one.artifact} {made.by_artifact[one.artifact].short}")
            shown.append(table)
    return shown


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
    domain = next((one for one in domains_of(source) if one.name == name), None)
    if domain is None:
        raise pack.PackError(f"the source {settings.source} has no domain {name!r}; it has {', '.join(d.name for d in domains_of(source))}")
    held = build_resources(settings)
    client, warehouse = held["tracking"].client(), held["warehouse"]
    model = _version(client, domain, version)
    tags = model_registry.tags(client, model)
    folder = pack_folder(settings, domain.name, tags["bundle"])
    file = folder / pack.MANIFEST
    if not file.is_file():
        raise pack.PackError(f"there is no {file}: materialise pack_{domain.name} while version {model.version} is champion")
    content = file.read_bytes()
    claimed, _ = pack.read(content, str(file))
    sealed = tags.get(KEPT) == pack.sha256(content)
    outcomes = [
        pack.outcome("Manifest", [None if sealed else f"{pack.MANIFEST}: its hash is not the one that the registry holds of it"]),
        *check_pages(folder),
        _artifacts(claimed, client, model, settings),
        *_recompute(claimed, domain, source, client, model, settings, warehouse),
    ]
    return Verification(claimed, folder, outcomes)


def _version(client: Any, domain: Domain, asked: str | None) -> model_registry.RegisteredVersion:
    if asked is None:
        champion = model_registry.find(client, domain.name, model_registry.CHAMPION)
        if champion is None:
            raise pack.PackError(f"{domain.name} has no champion yet: materialise pack_{domain.name} first")
        return champion
    known = model_registry.versions(client, domain.name)
    found = [model for model, tags, _ in known if _is(asked, model.version, tags.get("bundle", ""))]
    if not found:
        have = ", ".join(f"{tags.get('bundle', '')} ({model.version})" for model, tags, _ in known) or "none"
        raise pack.PackError(f"{domain.name} has no version {asked!r}; it has {have}")
    return found[0]


# Hashes ------------------------------------------------------------------------------------------------------------------------


def _artifacts(claimed: pack.Pack, client: Any, model: model_registry.RegisteredVersion, settings: Settings) -> pack.Outcome:
    """Hold the hash of every artifact against the bytes that are kept."""
    with tempfile.TemporaryDirectory() as temporary:
        bundle = model_registry.fetch(client, model, Path(temporary) / "bundle")
        now = {f"bundle/{file.name}": file.read_bytes() for file in bundle.iterdir()}
    checked: list[str | None] = []
    for artifact in claimed.artifacts:
        checked.append(_hash_differs(artifact, now.get(artifact.name), client, model, settings))
    more = sorted(set(now) - {artifact.name for artifact in claimed.artifacts})
    return pack.outcome(
        "Artifacts", [*checked, *(f"{name}: is kept with the version, but {pack.MANIFEST} does not name it" for name in more)]
    )


def _hash_differs(
    artifact: pack.Artifact, content: bytes | None, client: Any, model: model_registry.RegisteredVersion, settings: Settings
) -> str | None:
    from finrisk_assets.graph.stages import pack as stage

    try:
        if artifact.name == SNAPSHOT:
            found = snapshots.restore(snapshots.snapshot_folder(settings.root), artifact.sha256).stem
        elif artifact.name == stage.PARAMETERS:
            found = pack.sha256(pack.canonical(stage.read_parameters(client, model)))
        elif artifact.name == stage.CANDIDATES:
            found = pack.sha256(pack.canonical(stage.read_candidates(client, model)))
        elif artifact.name.startswith("bundle/"):
            if content is None:
                return f"{artifact.name}: is no longer in {artifact.place}"
            found = pack.sha256(content)
        else:
            kept = f"{KEPT}/{artifact.name}" if artifact.name in (ORACLE, README, CARD) else artifact.name
            found = pack.sha256(model_registry.artifact(client, model, kept))
    except snapshots.SnapshotError as error:
        return f"{artifact.name}: {error}"
    except Exception as error:  # MLflow raises its own kinds for an artifact that is gone
        return f"{artifact.name}: cannot be read from {artifact.place}: {str(error).splitlines()[0]}"
    if found == artifact.sha256:
        return None
    return f"{artifact.name}: has the hash {found[:12]}… in {artifact.place}, and {artifact.sha256[:12]}… in {pack.MANIFEST}"


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
    """Compute every figure again, and hold the pack against it."""
    from mlflow.exceptions import MlflowException

    from finrisk_assets.scoring.spec import BundleError

    tags = model_registry.tags(client, model)
    then = provenance.with_settings(settings, tags["settings"])
    try:
        frame = _frame(settings, tags[SNAPSHOT])
        bundle = _bundle(client, model, settings)
        evaluated, oracle = _evaluated(claimed, domain, source, client, bundle, frame, then, warehouse)
        kept = {name: model_registry.artifact(client, model, f"{KEPT}/{name}") for name in (README, CARD)}
        gathered = gather(domain, source, client, model, oracle, kept)
    except (snapshots.SnapshotError, BundleError, MlflowException, OSError) as error:
        return [pack.outcome("Figures", [f"they cannot be computed again: {error}"])]
    again = [
        *(figure for figure in gathered.made.figures if not figure.key.startswith("evaluation/")),
        *pack.figures_from(evaluated, "evaluation", FIGURES),
    ]
    against = f"snapshot {tags[SNAPSHOT][: pack.SHORT]} and bundle {bundle.version}"
    return [*pack.compare_figures(claimed.figures, again, against), *_compare_texts(claimed, gathered, domain, evaluated)]


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
    """The figures of the evaluation and those beside the oracle, as rows."""
    former = _former(claimed, client, domain, then)
    found = gate_rules.evaluate(domain, frame, load_protected_columns(warehouse, source), bundle, former, then)
    beside: list[dict[str, Any]] = []
    if domain.oracle is not None and claimed.of("oracle"):
        truth = warehouse.table(domain.truth).to_pandas()
        beside = figures_to_rows(domain.oracle(frame, truth, bundle, then))
    return figures_to_rows(found.figures), beside


def _former(claimed: pack.Pack, client: Any, domain: Domain, then: Settings) -> "Bundle | None":
    """The champion that the version was compared with; None where it was with none."""
    if "evaluation/champion_auc" not in claimed.by_key:
        return None
    model = model_registry.RegisteredVersion(claimed.model, claimed.registry_version, claimed.run_id)
    replaced = model_registry.tags(client, model).get(model_registry.REPLACES)
    former = next((one for one, _, _ in model_registry.versions(client, domain.name) if one.version == replaced), None)
    return None if former is None else _bundle(client, former, then)


def _bundle(client: Any, model: model_registry.RegisteredVersion, settings: Settings) -> "Bundle":
    from finrisk_assets.scoring.bundle import Bundle

    with tempfile.TemporaryDirectory() as temporary:
        return Bundle.load(model_registry.fetch(client, model, Path(temporary) / "bundle"), threads=settings.threads)


def _frame(settings: Settings, snapshot: str) -> "pd.DataFrame":
    """The kept feature table, as training read it."""
    import pyarrow.parquet as pq

    file = snapshots.restore(snapshots.snapshot_folder(settings.root), snapshot)
    return to_frame(pq.read_table(file))


def _compare_texts(claimed: pack.Pack, again: PackContents, domain: Domain, evaluated: Sequence[Mapping[str, Any]]) -> list[pack.Outcome]:
    """Hold the verdicts, and everything else that the pack tells, against what the gate and the registry say."""
    from finrisk_assets.domains.base import Figure

    judged = {one.demand: one for one in list_verdicts(domain, [Figure(**row) for row in evaluated])}
    gate = [
        None if judged.get(one.demand) == one else f"{pack.MANIFEST}: the verdict on {one.demand} is not the one that the gate gives"
        for one in claimed.verdicts
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
        if _plain(getattr(claimed, name)) == _plain(getattr(again.made, name))
        else f"{pack.MANIFEST}: {name} is not what the registry says"
        for name in names
    ]
    return [pack.outcome("Verdicts of the gate", gate), pack.outcome("What else is told", same)]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
