"""Reproduction of a registered version: train it again, and report the first difference.

The version's tags name its origin (`modelling.training.provenance.Origin`), and its feature table is a stored snapshot. The new bundle
is compared with the registered one byte for byte. Nothing is registered or changed.
"""

import json
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages.common import to_frame
from finrisk_assets.graph.stages.external.spark_fit import FITTED_ROWS
from finrisk_assets.graph.stages.model import train
from finrisk_assets.ledger import snapshots, sources
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.modelling.training.provenance import UNKNOWN, Origin, OriginError, code_sha256, describe_environment, restore_settings
from finrisk_assets.scoring.bundle import write
from finrisk_assets.scoring.bundle_io import MANIFEST
from finrisk_assets.settings import Settings

_SHOWN = 60
"""Characters of a value in a difference."""


class ReproduceError(model_registry.RegistryError):
    """A version that cannot be trained again here: the version, the reason and what to do."""


@dataclass(frozen=True)
class BundleDifference:
    """The first place where two bundles differ.

    Attributes
    ----------
    file, at
        The file, and the place in it: a JSON path such as ``components[0].intercept``, or ``byte 1234``.
    registered, retrained
        What stands there, as text.
    """

    file: str
    at: str
    registered: str
    retrained: str

    def __str__(self) -> str:
        place = f"{self.file}, {self.at}" if self.at else self.file
        return f"{place}: registered {self.registered}, trained again {self.retrained}"


@dataclass(frozen=True)
class Reproduction:
    """The result of training a version again.

    Attributes
    ----------
    model
        The version.
    bundle
        The version hash of the registered bundle.
    difference
        The first; None where all bytes are equal.
    environment_changes
        What is not as it was when the version was trained (Python, processor, commit), each as a sentence: where there is a
        difference, it may come from there.
    """

    model: model_registry.RegisteredVersion
    bundle: str
    difference: BundleDifference | None
    environment_changes: tuple[str, ...] = ()


def find(settings: Settings, model: str, version: str) -> tuple[Domain, model_registry.RegisteredVersion]:
    """Return the domain and the registered version that an operator named.

    Parameters
    ----------
    model
        A domain (``loan_default``) or a registered name (``finrisk-loan-default``).
    version
        A number, or an alias such as ``champion``.

    Raises
    ------
    ReproduceError
        If there is no such model or version.
    """
    domain = next((candidate for candidate in DOMAINS if model in (candidate.name, model_registry.model_name(candidate.name))), None)
    if domain is None:
        raise ReproduceError(f"there is no model {model!r}; choose one of {', '.join(candidate.name for candidate in DOMAINS)}")
    client = _client(settings)
    if not version.isdigit():
        registered = model_registry.find_version(client, domain.name, version)
        if registered is None:
            name = model_registry.model_name(domain.name)
            raise ReproduceError(f"no version of {name} has the alias {version!r}: see `finrisk versions`")
        return domain, registered
    for registered, _, _ in model_registry.list_versions(client, domain.name):
        if registered.version == version:
            return domain, registered
    raise ReproduceError(f"{model_registry.model_name(domain.name)} has no version {version}: see `finrisk versions`")


def champions(settings: Settings) -> list[tuple[Domain, model_registry.RegisteredVersion]]:
    """Return every domain that has a champion, with its champion.

    Raises
    ------
    ReproduceError
        If there is none at all.
    """
    client = _client(settings)
    candidates = ((domain, model_registry.find_version(client, domain.name, model_registry.CHAMPION)) for domain in DOMAINS)
    champions_by_domain = [(domain, model) for domain, model in candidates if model is not None]
    if not champions_by_domain:
        raise ReproduceError(f"the source {settings.source} has no champion in {settings.root}: materialise the graph first")
    return champions_by_domain


def named_snapshots(settings: Settings) -> dict[str, list[str]]:
    """Return every snapshot that registered versions name (features and raw tables), with those versions, the oldest first."""
    client, versions_by_snapshot = _client(settings), dict[str, list[str]]()
    for domain in DOMAINS:
        for model, tags, _ in reversed(model_registry.list_versions(client, domain.name)):
            for sha256 in (tags.get("snapshot"), *json.loads(tags.get("raw", "{}")).values()):
                if sha256:
                    versions_by_snapshot.setdefault(sha256, []).append(f"{domain.name} {model.version}")
    return versions_by_snapshot


def reproduce(settings: Settings, domain: Domain, model: model_registry.RegisteredVersion, *, anyway: bool = False) -> Reproduction:
    """Train a registered version again from its stored snapshot, and compare the bundle with the registered one.

    Parameters
    ----------
    settings
        Where the registry and the snapshots are; what mattered to training comes from the version instead.
    anyway
        Train even where the code or the locked libraries are not those of the version.

    Raises
    ------
    ReproduceError
        If the version does not say where it comes from, or code, libraries or mapping are others.
    snapshots.SnapshotError
        If its snapshot is missing or damaged.
    """
    import pyarrow.parquet as pq

    client = _client(settings)
    tags = model_registry.read_tags(client, model)
    label = f"version {model.version} of {model.name}"
    try:
        origin = Origin.from_tags(tags)
    except OriginError as error:
        raise ReproduceError(f"{label} cannot be reproduced: {error}") from None
    before = restore_settings(settings, origin.settings)
    if FITTED_ROWS in tags and not anyway:
        rows = f"{int(tags[FITTED_ROWS]):,} rows"
        raise ReproduceError(
            f"{label} cannot be reproduced: Spark fitted XGBoost's candidates on {rows}, and its snapshot holds the sample alone. "
            "`--anyway` trains on the sample and shows how far that leads."
        )
    if not anyway:
        changes = _blocking_changes(origin, code_sha256(domain.group), describe_environment(before))
        if changes:
            raise ReproduceError(f"{label} cannot be reproduced here: {'; '.join(changes)}. {_way_back(origin, settings, domain, model)}")
    file = snapshots.restore(snapshots.snapshot_folder(settings.root), origin.snapshot)
    result = train(to_frame(pq.read_table(file)), domain, sources.load(before), before)
    with tempfile.TemporaryDirectory() as scratch:
        retrained, registered = Path(scratch) / "again" / "bundle", Path(scratch) / "registered" / "bundle"
        write(retrained, result.spec)
        difference = first_difference(model_registry.download_bundle(client, model, registered), retrained)
    return Reproduction(model, tags["bundle"], difference, tuple(_environment_changes(origin, describe_environment(before))))


def _client(settings: Settings) -> Any:
    return build_resources(settings)["tracking"].client()


def first_difference(registered: Path, retrained: Path) -> BundleDifference | None:
    """Return the first difference between two bundles' folders; None where they hold the same files with the same bytes.

    The manifest is compared last, because it holds the hashes of the other files.
    """
    registered_files, retrained_files = ({path.name: path for path in folder.iterdir()} for folder in (registered, retrained))
    for name in sorted(registered_files.keys() | retrained_files.keys(), key=lambda name: (name == MANIFEST, name)):
        if name not in registered_files or name not in retrained_files:
            return BundleDifference(name, "", *("there" if name in files else "not there" for files in (registered_files, retrained_files)))
        registered_bytes, retrained_bytes = registered_files[name].read_bytes(), retrained_files[name].read_bytes()
        if registered_bytes != retrained_bytes:
            return _in_json(name, registered_bytes, retrained_bytes) or _in_bytes(name, registered_bytes, retrained_bytes)
    return None


def _in_json(name: str, left: bytes, right: bytes) -> BundleDifference | None:
    """Return the first difference of two JSON documents; None where they are not JSON, or differ in their spelling alone."""
    try:
        documents = json.loads(left), json.loads(right)
    except ValueError:
        return None
    # The hash of the code differs whenever code does, so it is reported only where nothing else differs.
    differences = sorted(_differing("", *documents), key=lambda place: place[0] == "code_sha256")
    if not differences:
        return None
    at, *values = differences[0]
    return BundleDifference(name, at, *(_short(json.dumps(value)) if value is not _ABSENT else "nothing" for value in values))


_ABSENT = object()


def _differing(at: str, left: Any, right: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the places where two JSON values differ, with both values."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *(key for key in right if key not in left)]:
            yield from _differing(f"{at}.{key}" if at else str(key), left.get(key, _ABSENT), right.get(key, _ABSENT))
    elif isinstance(left, list) and isinstance(right, list):
        for place in range(max(len(left), len(right))):
            pair = (values[place] if place < len(values) else _ABSENT for values in (left, right))
            yield from _differing(f"{at}[{place}]", *pair)
    elif type(left) is not type(right) or left != right:
        yield at, left, right


def _in_bytes(name: str, left: bytes, right: bytes) -> BundleDifference:
    shorter = min(len(left), len(right))
    at = next((place for place in range(shorter) if left[place] != right[place]), shorter)
    values = (repr(content[at : at + 16]) if at < len(content) else "its end" for content in (left, right))
    return BundleDifference(name, f"byte {at}", *values)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _blocking_changes(origin: Origin, code: str, environment: dict[str, str]) -> list[str]:
    """Return the differences in code, locked libraries and mapping since the version was trained, each as a sentence."""
    hashes = {
        "the code of its training": (origin.code_sha256, code),
        "uv.lock": (origin.lock_sha256, environment["lock_sha256"]),
        "the mapping that FINRISK_MAPPING names": (origin.mapping_sha256, environment["mapping_sha256"]),
    }
    return [f"{name} is {now[:12] or 'not set'}, and was {then[:12] or 'not set'}" for name, (then, now) in hashes.items() if then != now]


def _way_back(origin: Origin, settings: Settings, domain: Domain, model: model_registry.RegisteredVersion) -> str:
    """Return the commands that restore the code and libraries of a version, and the way around them."""
    anyway = "`--anyway` tries all the same."
    if origin.git_commit == UNKNOWN:
        return f"It was trained outside a git checkout, so that no commit can be named. {anyway}"
    folder = f"../finrisk-{origin.git_commit[:12]}"
    home = shlex.quote(str(settings.root.parent))
    commands = (
        f"git worktree add {folder} {origin.git_commit}\n  cd {folder} && make .venv/.ready\n"
        f"  FINRISK_HOME={home} FINRISK_SOURCE={settings.source} .venv/bin/finrisk reproduce {domain.name} {model.version}"
    )
    if origin.git_dirty == "true":
        anyway += " It was trained with changes that were not committed, so that the commit may not be enough."
    return f"Check out its commit beside this one:\n  {commands}\n{anyway}"


def _environment_changes(origin: Origin, environment: dict[str, str]) -> Iterator[str]:
    names = {"python": "Python", "libraries": "libraries", "machine": "processor", "lock_sha256": "uv.lock", "git_commit": "commit"}
    for field, name in names.items():
        then = getattr(origin, field)
        if then != environment[field]:
            yield f"{name} then {then}, here {environment[field]}"
