"""From champions to a Bento: each bundle becomes a model in BentoML's store, then `bentoml build` packs the service with them.

Pure of Dagster: the asset `bento` calls `build_bento`. The service half is never imported here; BentoML does that in a process of
its own, exactly as on the command line.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from finrisk_assets.modelling.packs.evidence import EVIDENCE, write_evidence
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "finrisk"
UNFINISHED = "unfinished"
"""The note of the item that is being written, in the folder of BentoML's stores."""
_FOLDERS = ("bento", "schemas", "finrisk_assets", "docs")

Figures: TypeAlias = Sequence[Mapping[str, Any]]
"""Figures of one model: ``window`` (``test`` or ``oracle``), ``metric``, ``value``, and ``low``, ``high``, ``meaning`` where known."""


class PackagingError(RuntimeError):
    """A Bento that could not be built, with the reason."""


@dataclass(frozen=True)
class BuiltBento:
    """A Bento in the store.

    Attributes
    ----------
    tag, version, path
        ``finrisk:<version>``, the first 12 hex digits of a hash of code and models, and the Bento's folder.
    models
        The BentoML tag of every domain's model.
    home
        ``BENTOML_HOME`` to serve it with.
    """

    tag: str
    version: str
    path: Path
    models: Mapping[str, str]
    home: Path


def build_bento(
    settings: Settings,
    champions: Mapping[str, Path],
    absent: Mapping[str, str] | None = None,
    figures: Mapping[str, Figures] | None = None,
    challengers: Mapping[str, Path] | None = None,
    evidence: Mapping[str, Mapping[str, Any]] | None = None,
    origins: Mapping[str, Mapping[str, str]] | None = None,
) -> BuiltBento:
    """Build the Bento that answers with these champions; the same code, bundles and figures give the same tag, and are not built twice.

    Parameters
    ----------
    champions
        Domain to the folder of its champion's bundle. At least one.
    absent
        Domain to the reason why the source has no model for it, which the service tells whoever asks.
    figures
        Domain to what its champion showed on its test window, and beside the oracle where there is one.
    challengers
        Domain to the folder of the bundle that the service may ask in the champion's shadow. One that is the champion is left out.
    evidence
        Domain to the aggregated figures of its champion, which the service shows; see `finrisk_assets.modelling.packs.evidence`.
    origins
        Domain to its champion's version in the registry and its run in MLflow, for links. They name a history, not a content, so that the
        Bento's version does not depend on them.

    Raises
    ------
    PackagingError
        If there is no champion, the repository is not at hand, or BentoML refuses.
    finrisk_assets.scoring.spec.BundleError
        If a bundle is not what it was when it was trained.
    """
    if not champions:
        raise PackagingError("there is no champion to build a Bento from: train a model first")
    if not (REPOSITORY / "bentofile.yaml").is_file():
        raise PackagingError(f"no bentofile.yaml in {REPOSITORY}: a Bento is built from a checkout of the repository")
    home = settings.bentoml_home
    remove_unfinished(home)
    measured = {domain: (figures or {}).get(domain, ()) for domain in champions}
    shown = {domain: (evidence or {}).get(domain, {}) for domain in champions}
    models: dict[str, str] = {}
    policy = load_policy(settings)
    for domain, folder in sorted(champions.items()):
        bundle_folder = (challengers or {}).get(domain)
        challenger = store_challenger(home, domain, bundle_folder, folder) if bundle_folder else None
        origin = (origins or {}).get(domain, {})
        models[domain] = store_model(home, domain, folder, absent or {}, measured[domain], challenger, policy, shown[domain], origin)
        models |= {f"{domain}_challenger": challenger} if challenger else {}
    version = _version(models, measured, shown, settings.base_image, policy)
    tag, path = f"{NAME}:{version}", home / "bentos" / NAME / version
    latest = home / "bentos" / NAME / "latest"
    if not path.is_dir():
        with tempfile.TemporaryDirectory() as context, note_unfinished(home, path):
            _stage(Path(context))
            _bentoml(settings, Path(context), "build", "--version", version)
    elif latest.read_text().strip() != version:
        latest.write_text(version)
    _check_models(path, models)
    return BuiltBento(tag, version, path, models, home)


def store_model(
    home: Path,
    domain: str,
    folder: Path,
    absent: Mapping[str, str],
    figures: Figures = (),
    challenger: str | None = None,
    policy: Policy | None = None,
    evidence: Mapping[str, Any] | None = None,
    origin: Mapping[str, str] | None = None,
) -> str:
    """Put a bundle into the model store as the newest model of its domain, and return its tag.

    The model's metadata holds the other facts that the service needs: why other domains are absent, its measured figures, the tag of the
    challenger beside it, the policy in effect, which the service takes unless FINRISK_POLICY names another, and the origin in MLflow. The
    evidence is a file beside the bundle's: it is read when somebody looks.
    """
    bundle = _bundle(domain, folder)
    # BentoML reads metadata as YAML, at every start and slowly: a list would cost the start a sixth of a second.
    metadata = {"absent": dict(absent), "figures_json": json.dumps([_without_none(figure) for figure in figures])}
    metadata |= {"challenger": challenger} if challenger else {}
    metadata |= {"policy_json": policy.canonical_json()} if policy else {}
    metadata |= {"origin": dict(origin)} if origin else {}
    content = write_evidence(evidence or {})
    metadata |= {"evidence_sha256": hashlib.sha256(content).hexdigest()}
    return _store(home, bundle.name, bundle, folder, metadata, {EVIDENCE: content})


def store_challenger(home: Path, domain: str, folder: Path, champion: Path) -> str | None:
    """Put a challenger's bundle into the model store under a name of its own and return its tag; None where it is the champion's."""
    bundle = _bundle(domain, folder)
    if bundle.version == _bundle(domain, champion).version:
        return None
    return _store(home, f"{bundle.name}-challenger", bundle, folder, {}, {})


def _bundle(domain: str, folder: Path) -> Bundle:
    bundle = Bundle.load(folder)
    if bundle.domain != domain:
        raise PackagingError(f"{folder}: is a bundle of {bundle.domain!r}, not of {domain!r}")
    return bundle


def _store(home: Path, name: str, bundle: Bundle, folder: Path, metadata: Mapping[str, Any], more: Mapping[str, bytes]) -> str:
    """Put a bundle, and more files beside it, into the model store as the newest model of a name, unless it is."""
    import bentoml
    from bentoml._internal.models import ModelStore

    tag = f"{name}:{bundle.version}"
    (home / "models").mkdir(parents=True, exist_ok=True)
    store = ModelStore(home / "models")
    stored = [model for model in store.list() if str(model.tag) == tag]
    newest = stored and str(store.get(name).tag) == tag
    if newest and stored[0].info.metadata == metadata:
        return tag
    if stored:
        store.delete(tag)
    labels = {"domain": bundle.domain, "source": bundle.source}
    with (
        note_unfinished(home, home / "models" / name / bundle.version),
        bentoml.models.create(tag, labels=labels, metadata=dict(metadata), _model_store=store) as model,
    ):
        for file in folder.iterdir():
            shutil.copy(file, Path(model.path) / file.name)
        for file_name, content in more.items():
            (Path(model.path) / file_name).write_bytes(content)
    return tag


@contextmanager
def note_unfinished(home: Path, item: Path) -> Iterator[None]:
    """Name an item of BentoML's stores in a note while it is written: BentoML writes it in place, and a process may die in it."""
    home.mkdir(parents=True, exist_ok=True)
    (home / UNFINISHED).write_text(str(item.relative_to(home)), encoding="utf-8")
    yield
    (home / UNFINISHED).unlink()


def remove_unfinished(home: Path) -> None:
    """Remove the item in which a process died, or failed, and what points to it."""
    note = home / UNFINISHED
    if not note.is_file():
        return
    item = note.read_text(encoding="utf-8")
    if item:
        shutil.rmtree(home / item, ignore_errors=True)
        latest = (home / item).parent / "latest"
        if latest.is_file() and not (latest.read_text() and (latest.parent / latest.read_text()).is_dir()):
            latest.unlink()
    note.unlink()


def _without_none(figure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a figure without its empty fields."""
    return {name: value for name, value in figure.items() if value is not None}


def _version(
    models: Mapping[str, str], figures: Mapping[str, Figures], evidence: Mapping[str, Mapping[str, Any]], base_image: str, policy: Policy
) -> str:
    """Return a hash of everything that a Bento is made of."""
    digest = hashlib.sha256(repr((sorted(models.items()), base_image, policy.sha256)).encode())
    digest.update(json.dumps({domain: list(map(dict, rows)) for domain, rows in figures.items()}, sort_keys=True).encode())
    digest.update(write_evidence(evidence))
    for file in sorted(_code()):
        digest.update(f"{file.relative_to(REPOSITORY).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _stage(context: Path) -> None:
    """Copy the code to an empty folder: BentoML reads every file of its build context, also those of a virtual environment."""
    for file in _code():
        target = context / file.relative_to(REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def _code() -> Iterator[Path]:
    """Yield the files that ``bentofile.yaml`` includes, and itself."""
    import yaml
    from pathspec import PathSpec

    bentofile = REPOSITORY / "bentofile.yaml"
    included = PathSpec.from_lines("gitwildmatch", yaml.safe_load(bentofile.read_text(encoding="utf-8"))["include"])
    yield bentofile
    for folder in _FOLDERS:
        for file in (REPOSITORY / folder).rglob("*"):
            if file.is_file() and included.match_file(file.relative_to(REPOSITORY)):
                yield file


def _bentoml(settings: Settings, folder: Path, *arguments: str) -> None:
    """Run a `bentoml` command in a folder, on the source's store; it reports nothing to anyone outside."""
    environment = os.environ | {"BENTOML_HOME": str(settings.bentoml_home), "BENTOML_DO_NOT_TRACK": "true"}
    environment |= {"FINRISK_BASE_IMAGE": settings.base_image}
    command = [sys.executable, "-m", "bentoml", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackagingError(f"`bentoml {' '.join(arguments)}` failed:\n{(done.stderr or done.stdout).strip()}")


def _check_models(bento: Path, models: Mapping[str, str]) -> None:
    """Refuse a Bento that carries other models than it was asked to."""
    import yaml

    info = yaml.safe_load((bento / "bento.yaml").read_text(encoding="utf-8"))
    carried = sorted(model["tag"] for service in info["services"] for model in service["models"])
    if carried != sorted(models.values()):
        shutil.rmtree(bento)
        raise PackagingError(
            f"the Bento carries {carried} but was to carry {sorted(models.values())}: remove what does not belong "
            f"with `BENTOML_HOME={bento.parents[2]} bentoml models delete TAG`"
        )
