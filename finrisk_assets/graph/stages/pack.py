"""The stage ``pack_<domain>``: model card and validation pack of the version that became champion, as two pages and a manifest.

Nothing is computed here: the figures are those of the evaluation and the oracle. `modelling.packs.pack` defines a pack,
`modelling.packs.card` its pages; `finrisk_assets.operations.verify_pack` verifies one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from finrisk_assets.domains import gate
from finrisk_assets.domains.base import Domain, Figure
from finrisk_assets.graph import checks
from finrisk_assets.graph.resources import TrackingResource
from finrisk_assets.graph.stages import consistency
from finrisk_assets.graph.stages.common import artifact_link, champion_folder, common, console_link, run_link
from finrisk_assets.graph.stages.evaluation import FIGURES, POLICY
from finrisk_assets.graph.stages.relations import ARTIFACT as RELATIONS
from finrisk_assets.graph.warehouse import WarehouseResource
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.packs import card, pack
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.policy.policy_file import parse_policy
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle

ORACLE, README, CARD = "oracle.json", "README.md", "card.md"
PACK_ARTIFACT = "pack"
"""Folder of the pack among the artifacts of a version's run, and the version's tag that holds the manifest's hash."""
SNAPSHOT, PARAMETERS, CANDIDATES = "snapshot", "parameters", "candidates.json"
PACKAGE = Path(__file__).parents[2]

PICTURES = {
    "roc_pr": ("discrimination", "ROC and precision-recall curve on the frozen test window."),
    "calibration": ("calibration", "Rates seen against probabilities said, in groups of equal size, with Jeffreys intervals."),
    "scores": ("decisions", "The probability of those with the outcome and of those without, and where decisions turn."),
    "shap": ("explanation", "What moves the score: one dot a row of a sample; far from 0 moves much, bright is a high value."),
    "candidates": ("candidates", "ROC and precision-recall curve of every candidate on the validation window."),
}
"""Plot -> the group of figures that it is shown with, and its caption."""
WORDS = {1: "rises with it", -1: "falls with it", 0: "either way"}
"""Declared direction of a feature -> its words."""


@dataclass(frozen=True)
class PackContents:
    """A pack with its pictures, by artifact, and the files that are stored with it."""

    record: pack.Pack
    pictures: Mapping[str, bytes]
    files: Mapping[str, bytes]


def pack_folder(settings: Settings, domain: str, version: str) -> Path:
    """Return the folder of the pack of a bundle's version."""
    return settings.root / "packs" / domain / version


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Return the pack and its contract."""
    contract = checks.blocking_check(
        f"pack_{domain.name}",
        f"pack_{domain.name}_contract",
        "Both pages are the ones that the manifest names, and show its figures and no others.",
        lambda warehouse: [fault for one in check_pages(_champions_pack(domain, settings)) for fault in one.disagreements],
    )
    return [_pack(domain, source, settings), contract]


def _pack(domain: Domain, source: Source, settings: Settings) -> dg.AssetsDefinition:
    has_truth = domain.truth in source.truth

    @dg.asset(
        name=f"pack_{domain.name}",
        deps=[
            f"champion_{domain.name}",
            f"evaluation_{domain.name}",
            *([f"oracle_{domain.name}"] if has_truth else []),
            *([consistency.ASSET] if consistency.is_judged(domain, source) else []),
        ],
        description=f"{domain.title}: model card and validation pack of the champion, each figure with the hash of what it came from. "
        "`finrisk validate-pack verify` computes them again.",
        **common(domain, {"html", "mlflow"}),
    )
    def pack_asset(context: dg.AssetExecutionContext, warehouse: WarehouseResource, tracking: TrackingResource) -> dg.MaterializeResult:
        client = tracking.client()
        champion = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
        if champion is None:
            raise dg.Failure(f"{domain.name} has no champion: materialise champion_{domain.name} first")
        oracle_figures = warehouse.table(f"oracle_{domain.name}").to_pyarrow().to_pylist() if has_truth else []
        contents = gather(domain, source, client, champion, _without_nan(oracle_figures))
        folder = write(contents, settings, client, champion)
        record = contents.record
        return dg.MaterializeResult(
            metadata={
                "summary": dg.MetadataValue.md(summary(record)),
                **{
                    name: artifact_link(tracking, champion.run_id, f"{PACK_ARTIFACT}/{page}", folder / page)
                    for name, page in (("pack", pack.PACK_PAGE), ("card", pack.CARD_PAGE), ("manifest", pack.MANIFEST))
                },
                **console_link(settings, domain, "pack"),
                "bundle": record.version,
                "registry_version": champion.version,
                "mlflow_run_id": champion.run_id,
                "mlflow": run_link(tracking, champion.run_id),
                "figures": len(record.figures),
                "artifacts": len(record.artifacts),
                "verify": f"finrisk validate-pack verify {domain.name} --version {record.version}",
            },
            data_version=dg.DataVersion(pack.sha256((folder / pack.MANIFEST).read_bytes())[:12]),
        )

    return pack_asset


def summary(record: pack.Pack) -> str:
    """Return the verdict and the headline figures, in Markdown."""
    conclusion = "The evidence supports this version." if record.is_supported else "The evidence does not support this version."
    against = "".join(f"\n- {conclusion.demand}: {reason}" for conclusion in record.verdicts for reason in conclusion.reasons)
    return f"**{conclusion}**{against}\n\n{card.figures_to_markdown(card.select_headlines(record))}"


# Gathering ---------------------------------------------------------------------------------------------------------------------


def gather(
    domain: Domain,
    source: Source,
    client: Any,
    model: model_registry.RegisteredVersion,
    oracle: Sequence[Mapping[str, Any]],
    written: Mapping[str, bytes] | None = None,
) -> PackContents:
    """Put together the pack of a registered version from what the registry, its run and the oracle hold.

    Parameters
    ----------
    oracle
        Figures beside the oracle; empty where there is none.
    written
        The texts of the domain, ``README.md`` and ``card.md``; those of the checkout unless others are given.
    """
    tags = model_registry.read_tags(client, model)
    snapshot = _snapshot(tags, model)
    policy_file = read_policy_artifact(client, model)
    policy = parse_policy(policy_file.decode(), POLICY)
    bundle, files = _bundle(client, model, policy)
    texts = written or {name: (PACKAGE / "domains" / domain.group / name).read_bytes() for name in (README, CARD)}
    evaluation_file = model_registry.read_artifact(client, model, FIGURES)
    relations_file = _read_figures(client, model, RELATIONS)
    consistency_file = _read_figures(client, model, consistency.ARTIFACT)
    candidates, parameters = read_candidates(client, model), read_parameters(client, model)
    texts_and_oracle = {**texts, **({ORACLE: pack.canonical_json(list(oracle))} if oracle else {})}
    evaluation = json.loads(evaluation_file)
    pictures = _pictures(model, evaluation)
    run = f"MLflow run {model.run_id}"
    artifacts = [
        *(pack.Artifact(name, pack.sha256(content), f"{model.uri} in MLflow") for name, content in files.items()),
        pack.Artifact(SNAPSHOT, snapshot, f"snapshots/{snapshot[:12]}….parquet: the feature table that it was trained on"),
        pack.Artifact(FIGURES, pack.sha256(evaluation_file), f"{run}: what evaluation_{domain.name} found"),
        *(
            [pack.Artifact(RELATIONS, pack.sha256(relations_file), f"{run}: its scores after changes of the ledger")]
            if json.loads(relations_file)
            else []
        ),
        *(
            [pack.Artifact(consistency.ARTIFACT, pack.sha256(consistency_file), f"{run}: its decisions beside those of others")]
            if json.loads(consistency_file)
            else []
        ),
        pack.Artifact(POLICY, pack.sha256(policy_file), f"{run}: the policy that it was evaluated under"),
        pack.Artifact(PARAMETERS, pack.sha256(pack.canonical_json(parameters)), f"{run}: its parameters"),
        pack.Artifact(CANDIDATES, pack.sha256(pack.canonical_json(candidates)), f"{run}: without the seconds that fitting took"),
        *(pack.Artifact(name, pack.sha256(content), f"{run}: {PACK_ARTIFACT}/{name}") for name, content in texts_and_oracle.items()),
        *(pack.Artifact(name, pack.sha256(png), run) for name, png in pictures.items()),
    ]
    figures = [
        *_training(parameters),
        *pack.build_figures(evaluation, "evaluation", FIGURES),
        *pack.build_figures(oracle, "oracle", ORACLE, "oracle"),
        *pack.build_figures(json.loads(relations_file), "metamorphic", RELATIONS, "metamorphic"),
        *pack.build_figures(json.loads(consistency_file), "consistency", consistency.ARTIFACT, "consistency"),
        *_candidate_figures(candidates),
        *(_threshold(name, value, bundle) for name, value in bundle.thresholds.items()),
    ]
    record = pack.Pack(
        domain=domain.name,
        title=domain.title,
        owner=domain.owner,
        source=source.name,
        model=model.name,
        registry_version=model.version,
        version=bundle.version,
        run_id=model.run_id,
        settings=json.loads(tags["settings"]),
        texts=_texts(texts),
        facts=_facts(bundle, parameters, tags, model),
        features=[
            {
                "name": f.name,
                "unit": f.unit,
                "description": f.description,
                "direction": WORDS[f.monotone],
                "low": f.low or f.zero,
                "high": f.high or f.one,
            }
            for f in bundle.features
        ],
        history=_history(client, domain, model),
        artifacts=artifacts,
        figures=figures,
        pictures=[_picture(name) for name in pictures],
        verdicts=list_verdicts(domain, [Figure(**row) for row in evaluation]),
    )
    return PackContents(record, pictures, texts_and_oracle)


def list_verdicts(domain: Domain, figures: Sequence[Figure]) -> list[pack.PackVerdict]:
    """Return the gate's verdict on each demand."""
    faults = gate.find_faults(domain, list(figures))
    return [
        pack.PackVerdict(demand, meaning, tuple(fault.reason for fault in faults if fault.demand == demand))
        for demand, meaning in gate.DEMANDS.items()
    ]


def read_policy_artifact(client: Any, model: model_registry.RegisteredVersion) -> bytes:
    """Return the policy that a version was evaluated under, as canonical JSON, whose hash is the policy's."""
    return model_registry.read_artifact(client, model, POLICY)


def _read_figures(client: Any, model: model_registry.RegisteredVersion, path: str) -> bytes:
    """Return an artifact of figures of a version's run; no figures where the run has none, as where the source cannot tell them."""
    has_figures = any(item.path == path for item in client.list_artifacts(model.run_id))
    return model_registry.read_artifact(client, model, path) if has_figures else b"[]"


def _bundle(client: Any, model: model_registry.RegisteredVersion, policy: "Policy") -> "tuple[Bundle, dict[str, bytes]]":
    """Return a version's bundle under a policy, and its files by artifact."""
    import tempfile

    from finrisk_assets.scoring.bundle import Bundle

    with tempfile.TemporaryDirectory() as temporary:
        folder = model_registry.download_bundle(client, model, Path(temporary) / "bundle")
        return Bundle.load(folder, policy=policy), {f"bundle/{file.name}": file.read_bytes() for file in sorted(folder.iterdir())}


def _snapshot(tags: Mapping[str, str], model: model_registry.RegisteredVersion) -> str:
    if SNAPSHOT not in tags or "settings" not in tags:
        raise pack.PackError(
            f"version {model.version} of {model.name} was registered without a snapshot of its features and its settings, so that nobody "
            f"could verify its pack: delete it from the registry (`mlflow`), and materialise the model again"
        )
    return tags[SNAPSHOT]


def _pictures(model: model_registry.RegisteredVersion, evaluation: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the plots of the evaluation and of the candidates, by artifact.

    The picture of the calibration is left out where its ten groups hold fewer people than may be shown.
    """
    from mlflow.artifacts import download_artifacts

    n_test = next((row["value"] for row in evaluation if row["metric"] == "n_test"), 0)
    hidden = {"test_calibration.png"} if n_test < 10 * pack.MIN_GROUP_PEOPLE else set()
    # All at once: MLflow asks its store anew for every artifact, which takes longer than to read it.
    files = sorted(Path(download_artifacts(run_id=model.run_id, artifact_path="plots")).glob("*.png"))
    plots = [file for file in files if file.name.startswith("test_") or file.name == "candidates.png"]
    return {f"plots/{file.name}": file.read_bytes() for file in plots if file.name not in hidden}


def _picture(artifact: str) -> pack.Picture:
    name = Path(artifact).stem.removeprefix("test_")
    group, caption = PICTURES.get(name, ("other", name.replace("_", " ").capitalize()))
    return pack.Picture(artifact, group, caption)


def read_parameters(client: Any, model: model_registry.RegisteredVersion) -> dict[str, str]:
    """Return the parameters of a version's run."""
    return dict(sorted(client.get_run(model.run_id).data.params.items()))


def read_candidates(client: Any, model: model_registry.RegisteredVersion) -> list[dict[str, Any]]:
    """Return the candidates of a version, without the seconds that fitting took, which depend on the machine."""
    table = json.loads(model_registry.read_artifact(client, model, CANDIDATES))
    rows = [dict(zip(table.get("columns", ()), row, strict=True)) for row in table.get("data", ())]
    return _without_nan([{name: value for name, value in row.items() if name != "fit s"} for row in rows])


def _without_nan(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with None for NaN, which JSON has not."""
    return [{name: None if value != value else value for name, value in row.items()} for row in rows]


def _candidate_figures(rows: Sequence[Mapping[str, Any]]) -> list[pack.PackFigure]:
    """Return the figures of the candidates: ``low`` and ``high`` belong to the first column."""
    figures = []
    for row in rows:
        name = str(row["model"])
        columns = [column for column, value in row.items() if column not in ("model", "low", "high") and isinstance(value, int | float)]
        for at, column in enumerate(columns):
            low, high = (row.get("low"), row.get("high")) if at == 0 else (None, None)
            figures.append(
                pack.PackFigure(f"candidates/{name}/{column}", "candidates", name, column, CANDIDATES, float(row[column]), low, high)
            )
    return figures


def _training(parameters: Mapping[str, str]) -> list[pack.PackFigure]:
    meanings = {
        "n_train": "rows that taught",
        "n_validation": "rows that chose and calibrated",
        "base_rate": "outcome among the rows that taught",
    }
    figures = []
    for name, meaning in meanings.items():
        if name in parameters:
            figures.append(pack.PackFigure(f"training/{name}", "sample", meaning.capitalize(), "", PARAMETERS, float(parameters[name])))
    return figures


def _threshold(name: str, value: float, bundle: "Bundle") -> pack.PackFigure:
    artifact = "bundle/bundle.json" if name in bundle.learned_thresholds else POLICY
    return pack.PackFigure(f"thresholds/{name}", "thresholds", name, "", artifact, float(value))


def _texts(files: Mapping[str, bytes]) -> dict[str, str]:
    readme, purpose = (card.parse_sections(files[name].decode()) for name in (README, CARD))
    return {
        "decision": card.pick_section(purpose, "Decision") or card.pick_section(readme, "Decision", "Question"),
        "for whom": card.pick_section(purpose, "For whom"),
        "intended use": card.pick_section(purpose, "Intended use"),
        "not intended": card.pick_section(purpose, "Not intended"),
        "population": card.pick_section(readme, "Population and target", "Target"),
        "known when": card.pick_section(readme, "What is known when", "Known when"),
        "thresholds": card.pick_section(readme, "Thresholds", "Decisions", "Direction", "Decision"),
        "limits": card.pick_section(readme, "Limits"),
    }


def _facts(
    bundle: "Bundle", parameters: Mapping[str, str], tags: Mapping[str, str], model: model_registry.RegisteredVersion
) -> dict[str, str]:
    window, dirty = bundle.training_window, " with changes" if tags.get("git_dirty") == "true" else ""
    facts = {
        "Training window": f"{window[0]} to {window[1]}" if window else "the source knows no time",
        "Split": parameters.get("split", ""),
        "Chosen candidate": parameters.get("champion_candidate", ""),
        "Calibration": parameters.get("calibration", ""),
        "Ledger": bundle.source,
        "Read as of (UTC)": str(json.loads(tags["settings"])["as_of"]),
        "Seed": str(bundle.seed),
        "Policy": bundle.policy.name,
        "Policy (SHA-256)": bundle.policy.sha256,
        "Data (SHA-256)": bundle.data_sha256,
        "Snapshot of the features (SHA-256)": tags.get(SNAPSHOT, ""),
        "Code (SHA-256)": bundle.code_sha256,
        "Commit": tags.get("git_commit", "") + dirty,
        "Lock file (SHA-256)": tags.get("lock_sha256", ""),
        "Libraries": ", ".join(f"{name} {version}" for name, version in bundle.libraries.items()),
        "MLflow run": model.run_id,
    }
    return {name: value for name, value in facts.items() if value}


def _history(client: Any, domain: Domain, model: model_registry.RegisteredVersion) -> list[dict[str, str]]:
    """Return the versions up to this one: later ones are in the registry, not in this pack."""
    rows = []
    for registered_version, tags, _ in model_registry.list_versions(client, domain.name):
        if int(registered_version.version) > int(model.version):
            continue
        registered = datetime.fromtimestamp(
            client.get_model_version(registered_version.name, registered_version.version).creation_timestamp / 1000, UTC
        )
        rows.append(
            {
                "version": registered_version.version,
                "bundle": tags.get("bundle", "")[:12],
                "registered": registered.strftime("%Y-%m-%d %H:%M"),
                "snapshot": tags.get(SNAPSHOT, "–")[: pack.HASH_DIGITS],
                "code": tags.get("git_commit", "–")[: pack.HASH_DIGITS],
            }
        )
    return rows


# Writing and reading -----------------------------------------------------------------------------------------------------------


def write(contents: PackContents, settings: Settings, client: Any, model: model_registry.RegisteredVersion) -> Path:
    """Write a pack to its folder and to the run of its version, which is tagged with the manifest's hash; return the folder."""
    record = contents.record
    pages = card.render_pages(record, contents.pictures)
    manifest = pack.build_manifest(record, pages)
    files = {pack.MANIFEST: manifest, **{name: text.encode() for name, text in pages.items()}, **contents.files}
    folder = pack_folder(settings, record.domain, record.version)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    client.log_artifacts(model.run_id, str(folder), PACK_ARTIFACT)
    client.set_model_version_tag(model.name, model.version, PACK_ARTIFACT, pack.sha256(manifest))
    return folder


def check_pages(folder: Path) -> list[pack.Outcome]:
    """Check that the pages in a folder are those that its manifest names, and show its figures and no others."""
    manifest, pages = pack.read_manifest(_content(folder / pack.MANIFEST), str(folder / pack.MANIFEST))
    texts = {name: _content(folder / name) for name in pages}
    same = [
        None if pack.sha256(texts[name]) == digest else f"{name}: its bytes are not those that {pack.MANIFEST} names"
        for name, digest in pages.items()
    ]
    page_outcomes = [pack.compare_page(manifest, content.decode(), name, whole=name == pack.PACK_PAGE) for name, content in texts.items()]
    return [pack.count_outcomes("Pages", same), *page_outcomes]


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise pack.PackError(f"{file}: cannot be read ({error.strerror}); materialise pack_{file.parents[1].name} again") from error


def _champions_pack(domain: Domain, settings: Settings) -> Path:
    version = pack.sha256((champion_folder(domain, settings) / "bundle.json").read_bytes())[:12]
    return pack_folder(settings, domain.name, version)


def figures_to_rows(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return figures as rows for JSON."""
    return _without_nan([asdict(figure) for figure in figures])
