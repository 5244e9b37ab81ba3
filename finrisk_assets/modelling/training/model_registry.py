"""The registry of models in MLflow: every version is a scoring bundle, and an alias names the version that decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finrisk_assets.modelling.training import gate_verdict
from schemas.features import Feature

CHAMPION = "champion"
CHALLENGER = "challenger"
_BUNDLE_FOLDER = "bundle"
REPLACES_TAG = "replaces"
"""Tag of a version: the version that it replaced. The gate's tags are in `gate_verdict`."""


class RegistryError(ValueError):
    """A request that the registry cannot fulfil; the message names the reason."""


@dataclass(frozen=True)
class RegisteredVersion:
    """One registered version of a model: its name, the registry's number, and the MLflow run that trained it."""

    name: str
    version: str
    run_id: str

    @property
    def uri(self) -> str:
        """The version's URI in MLflow."""
        return f"models:/{self.name}/{self.version}"


def model_name(domain: str) -> str:
    """Return the registered name of a domain's model: ``finrisk-loan-default``."""
    return "finrisk-" + domain.replace("_", "-")


def register(
    mlflow: Any, domain: str, bundle: Path, features: tuple[Feature, ...], tags: Mapping[str, str], descriptions: tuple[str, str] = ("", "")
) -> RegisteredVersion:
    """Log a bundle with the open run and register it as the domain's challenger.

    The model is logged from code (`finrisk_assets/modelling/training/pyfunc.py`), not as a pickle, and its signature is the list of
    features, so that any MLflow client can score it. A bundle that is registered already keeps its version.

    Parameters
    ----------
    mlflow
        The module, with a run open.
    domain
        Name of the domain.
    bundle
        Folder of the scoring bundle; its last part is ``bundle``.
    features
        Features of the bundle.
    tags
        Tags of the version; ``bundle`` is the bundle's own version, a hash of its content.
    descriptions
        Markdown for MLflow's pages of the model and of this version.

    Raises
    ------
    ValueError
        For a folder with another name.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    if bundle.name != _BUNDLE_FOLDER:
        raise ValueError(f"the bundle's folder is to be named {_BUNDLE_FOLDER!r}, not {bundle.name!r}: MLflow keeps that name")
    name, run_id, client = model_name(domain), mlflow.active_run().info.run_id, mlflow.MlflowClient()
    same_bundle = client.search_model_versions(f"name = '{name}' and tags.bundle = '{tags['bundle']}'")
    if same_bundle:
        registered = RegisteredVersion(name, str(same_bundle[0].version), same_bundle[0].run_id)
    else:
        info = mlflow.pyfunc.log_model(
            name=domain.replace("_", "-"),
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={_BUNDLE_FOLDER: str(bundle)},
            signature=ModelSignature(
                inputs=Schema([ColSpec("string" if one.is_category else "double", one.name, required=False) for one in features]),
                outputs=Schema([ColSpec("double", "margin"), ColSpec("double", "probability")]),
            ),
            pip_requirements=["numpy", "xgboost", "finrisk"],
        )
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, description=descriptions[0] or None)
        description = descriptions[1] or None
        created = client.create_model_version(name, info.model_uri, run_id, dict(tags), description=description, model_id=info.model_id)
        registered = RegisteredVersion(name, str(created.version), run_id)
    client.set_registered_model_alias(name, CHALLENGER, registered.version)
    return registered


def find_version(client: Any, domain: str, alias: str) -> RegisteredVersion | None:
    """Return the version that an alias points to, or None where there is none yet."""
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version_by_alias(model_name(domain), alias)
    except MlflowException:
        return None
    return RegisteredVersion(version.name, str(version.version), version.run_id)


def download_bundle(client: Any, model: RegisteredVersion, folder: Path) -> Path:
    """Copy the bundle of a registered version to a folder, which is replaced as a whole; return the folder."""
    import shutil

    from mlflow.artifacts import download_artifacts

    source = client.get_model_version_download_uri(model.name, model.version)
    path = Path(download_artifacts(source)) / "artifacts" / _BUNDLE_FOLDER
    fresh, former = (folder.with_name(f".{folder.name}.{state}") for state in ("fresh", "former"))
    for leftover in (fresh, former):
        shutil.rmtree(leftover, ignore_errors=True)
    # A copy takes time, in which the process may die; a folder is renamed at once.
    shutil.copytree(path, fresh)
    if folder.exists():
        folder.rename(former)
    fresh.rename(folder)
    shutil.rmtree(former, ignore_errors=True)
    return folder


def read_artifact(client: Any, model: RegisteredVersion, path: str) -> bytes:
    """Return the content of an artifact of the run that trained a version."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(run_id=model.run_id, artifact_path=path)).read_bytes()


def promote(client: Any, domain: str, model: RegisteredVersion) -> RegisteredVersion | None:
    """Point the alias ``champion`` to a version, tag it with the version that it replaces, and return that version.

    None where there was no champion, or where the version is the champion already.
    """
    former = find_version(client, domain, CHAMPION)
    if former is not None and former.version == model.version:
        return None
    if former is not None:
        client.set_model_version_tag(model.name, model.version, REPLACES_TAG, former.version)
    client.set_registered_model_alias(model.name, CHAMPION, model.version)
    return former


def rollback(client: Any, domain: str, reason: str) -> tuple[RegisteredVersion, RegisteredVersion]:
    """Point the alias ``champion`` back to the version that the current champion replaced.

    Parameters
    ----------
    reason
        Reason of the rollback, stored as a tag of the current version; the gate refuses that version from then on.

    Returns
    -------
    tuple
        The version rolled back, and the version that decides again.

    Raises
    ------
    RegistryError
        Where there is no champion, or no version before it.
    """
    current = find_version(client, domain, CHAMPION)
    if current is None:
        raise RegistryError(f"{domain} has no champion yet: there is nothing to roll back")
    former = find_replaced(client, current)
    if former is None:
        raise RegistryError(f"version {current.version} of {current.name} is its first champion: no earlier version exists to go back to")
    gate_verdict.record_rollback(client, current.name, current.version, reason)
    client.set_registered_model_alias(current.name, CHAMPION, former.version)
    return current, former


def find_replaced(client: Any, model: RegisteredVersion) -> RegisteredVersion | None:
    """Return the version that a champion replaced; None for the first."""
    number = read_tags(client, model).get(REPLACES_TAG)
    if number is None:
        return None
    version = client.get_model_version(model.name, number)
    return RegisteredVersion(version.name, str(version.version), version.run_id)


def read_tags(client: Any, model: RegisteredVersion) -> dict[str, str]:
    """Return the tags of a version: ``bundle``, ``gate``, ``replaces`` and more."""
    return dict(client.get_model_version(model.name, model.version).tags)


def list_versions(client: Any, domain: str) -> list[tuple[RegisteredVersion, dict[str, str], tuple[str, ...]]]:
    """Return every version of a domain's model, the newest first, with its tags and aliases."""
    name = model_name(domain)
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException:
        return []
    registered = client.search_model_versions(f"name = '{name}'")
    return [
        (
            RegisteredVersion(entry.name, str(entry.version), entry.run_id),
            dict(entry.tags),
            tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(entry.version))),
        )
        for entry in sorted(registered, key=lambda entry: -int(entry.version))
    ]
