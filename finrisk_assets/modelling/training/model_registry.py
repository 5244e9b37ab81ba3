"""The registry of models in MLflow: every version is a scoring bundle, and an alias says which one decides."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finrisk_assets.modelling.training import gate_verdict
from schemas.features import Feature

CHAMPION = "champion"
CHALLENGER = "challenger"
_FOLDER = "bundle"
REPLACES = "replaces"
"""Tag of a version: the version whose place it took. The tags of the gate stand in `gate_verdict`."""


class RegistryError(ValueError):
    """What was asked of the registry cannot be done, with the reason."""


@dataclass(frozen=True)
class RegisteredVersion:
    """One registered version of a model: its name, the registry's number, and the MLflow run that made it."""

    name: str
    version: str
    run_id: str

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def model_name(domain: str) -> str:
    """The registered name of a domain's model: ``finrisk-loan-default``."""
    return "finrisk-" + domain.replace("_", "-")


def register(mlflow: Any, domain: str, bundle: Path, features: tuple[Feature, ...], tags: Mapping[str, str]) -> RegisteredVersion:
    """Log a bundle with the open run and register it as the domain's challenger.

    The model is logged from code (`finrisk_assets/modelling/training/pyfunc.py`), not as a pickle, and its signature is the list of
    features, so that anything which speaks MLflow can score it. A bundle that is registered already keeps its version.

    Parameters
    ----------
    mlflow
        The module, with a run open.
    bundle
        Folder of the scoring bundle; its last part is ``bundle``.
    tags
        Of the version; ``bundle`` is the bundle's own version, a hash of its content.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    if bundle.name != _FOLDER:
        raise ValueError(f"the bundle's folder is to be named {_FOLDER!r}, not {bundle.name!r}: MLflow keeps that name")
    name, run_id, client = model_name(domain), mlflow.active_run().info.run_id, mlflow.MlflowClient()
    same = client.search_model_versions(f"name = '{name}' and tags.bundle = '{tags['bundle']}'")
    if same:
        found = RegisteredVersion(name, str(same[0].version), same[0].run_id)
    else:
        info = mlflow.pyfunc.log_model(
            name=domain.replace("_", "-"),
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={_FOLDER: str(bundle)},
            signature=ModelSignature(
                inputs=Schema([ColSpec("double", feature.name, required=False) for feature in features]),
                outputs=Schema([ColSpec("double", "margin"), ColSpec("double", "probability")]),
            ),
            pip_requirements=["numpy", "xgboost", "finrisk"],
        )
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        made = client.create_model_version(name, info.model_uri, run_id, tags=dict(tags), model_id=info.model_id)
        found = RegisteredVersion(name, str(made.version), run_id)
    client.set_registered_model_alias(name, CHALLENGER, found.version)
    return found


def find(client: Any, domain: str, alias: str) -> RegisteredVersion | None:
    """The version that an alias points to, or None where there is none yet."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_model_version_by_alias(model_name(domain), alias)
    except MlflowException:
        return None
    return RegisteredVersion(found.name, str(found.version), found.run_id)


def fetch(client: Any, model: RegisteredVersion, folder: Path) -> Path:
    """Copy the bundle of a registered version to a folder, which is replaced; return it."""
    import shutil

    from mlflow.artifacts import download_artifacts

    source = client.get_model_version_download_uri(model.name, model.version)
    path = Path(download_artifacts(source)) / "artifacts" / _FOLDER
    if folder.exists():
        shutil.rmtree(folder)
    return Path(shutil.copytree(path, folder))


def artifact(client: Any, model: RegisteredVersion, path: str) -> bytes:
    """The content of an artifact of the run that made a version."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(run_id=model.run_id, artifact_path=path)).read_bytes()


def promote(client: Any, domain: str, model: RegisteredVersion) -> RegisteredVersion | None:
    """Point the alias ``champion`` to a version and return the one that it replaces, which the version remembers; None for the first."""
    former = find(client, domain, CHAMPION)
    if former is not None and former.version == model.version:
        return None
    if former is not None:
        client.set_model_version_tag(model.name, model.version, REPLACES, former.version)
    client.set_registered_model_alias(model.name, CHAMPION, model.version)
    return former


def rollback(client: Any, domain: str, reason: str) -> tuple[RegisteredVersion, RegisteredVersion]:
    """Point the alias ``champion`` back to the version that the present one replaced.

    Parameters
    ----------
    reason
        Why; the version that goes keeps it, and the gate refuses that version from then on.

    Returns
    -------
    tuple
        The version that goes, and the one that decides again.

    Raises
    ------
    RegistryError
        Where there is no champion, or none before it.
    """
    present = find(client, domain, CHAMPION)
    if present is None:
        raise RegistryError(f"{domain} has no champion yet: there is nothing to roll back")
    former = replaced(client, present)
    if former is None:
        raise RegistryError(f"version {present.version} of {present.name} is its first champion: there is none before it to go back to")
    gate_verdict.record_rollback(client, present.name, present.version, reason)
    client.set_registered_model_alias(present.name, CHAMPION, former.version)
    return present, former


def replaced(client: Any, model: RegisteredVersion) -> RegisteredVersion | None:
    """The version whose place a champion took; None for the first."""
    before = tags(client, model).get(REPLACES)
    if before is None:
        return None
    found = client.get_model_version(model.name, before)
    return RegisteredVersion(found.name, str(found.version), found.run_id)


def tags(client: Any, model: RegisteredVersion) -> dict[str, str]:
    """What a version was tagged with: ``bundle``, ``gate``, ``replaces`` and more."""
    return dict(client.get_model_version(model.name, model.version).tags)


def versions(client: Any, domain: str) -> list[tuple[RegisteredVersion, dict[str, str], tuple[str, ...]]]:
    """Every version of a domain's model, the newest first, with its tags and aliases."""
    name = model_name(domain)
    from mlflow.exceptions import MlflowException

    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException:
        return []
    found = client.search_model_versions(f"name = '{name}'")
    return [
        (
            RegisteredVersion(one.name, str(one.version), one.run_id),
            dict(one.tags),
            tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(one.version))),
        )
        for one in sorted(found, key=lambda one: -int(one.version))
    ]
