"""Prerequisites of a command that `make demo` makes: each is missed in one sentence, and nothing is created on the way."""

import os
from importlib.util import find_spec
from pathlib import Path

import click

from finrisk_assets.engines.warehouse_url import SCHEMES
from finrisk_assets.settings import Settings, SettingsError

SQLITE = "sqlite:///"


def check_settings(settings: Settings) -> None:
    """Check what a long run would meet only in its middle: the home, the URLs of its databases, the source with its files, the policy.

    Raises
    ------
    SettingsError, EngineError, SourceError, MappingError, PolicyError
        The first fault, in one sentence.
    """
    from finrisk_assets.engines.choice import open_engine
    from finrisk_assets.engines.spark.spark_url import check_spark
    from finrisk_assets.ledger import sources
    from finrisk_assets.policy.policy_file import load_policy

    home = settings.home.absolute()
    folder = next(path for path in (home, *home.parents) if path.exists())
    if not folder.is_dir():
        raise SettingsError(f"FINRISK_HOME={str(settings.home)!r} leads through {folder}, which is a file: set a folder")
    if not os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise SettingsError(f"{folder} cannot be written: set FINRISK_HOME to a folder that you may write")
    kind = settings.warehouse.partition("://")[0]
    if kind not in SCHEMES:
        raise SettingsError(f"FINRISK_WAREHOUSE_URL begins with {kind!r}: set a URL of {', '.join(SCHEMES)}")
    if kind.startswith("postgres"):
        open_engine(settings.warehouse).close()
    elif kind == "pyspark":
        check_spark(settings.warehouse)
    library = {"s3": "boto3", "gs": "google.cloud.storage"}.get(settings.mlflow_artifacts.partition("://")[0])
    if library and not _is_installed(library):
        raise SettingsError("FINRISK_MLFLOW_ARTIFACTS is in a bucket, for which libraries are missing: run `make objects`")
    if settings.mlflow_store_url:
        _check_mlflow_store(settings.mlflow_store_url)
    sources.load(settings)
    load_policy(settings)


def require_registry(settings: Settings) -> None:
    """Refuse a command on registered models where MLflow's store does not exist yet."""
    if settings.tracking_uri.startswith(SQLITE) and not Path(settings.tracking_uri.removeprefix(SQLITE)).is_file():
        raise click.ClickException(f"no model is registered in {settings.root}: run `make demo` first{_other_ledger(settings)}")


def require_ledger(settings: Settings) -> None:
    """Refuse a command on stored tables where the warehouse's file does not exist yet."""
    from finrisk_assets.engines.warehouse_url import file_of

    file = file_of(settings.warehouse)
    if file is not None and not file.is_file():
        raise click.ClickException(f"there is no ledger in {settings.root}: run `make demo` first{_other_ledger(settings)}")


def require_bento(settings: Settings) -> None:
    """Refuse a command that serves where no Bento is built yet."""
    if not has_bento(settings):
        raise click.ClickException(f"there is no Bento in {settings.bentoml_home}: run `make demo` first{_other_ledger(settings)}")


def require_dagster(settings: Settings) -> None:
    """Refuse a command on runs where there was none yet."""
    if not has_dagster(settings):
        raise click.ClickException(f"there are no runs in {settings.root}: run `make demo` first{_other_ledger(settings)}")


def has_bento(settings: Settings) -> bool:
    """Return whether a Bento of this source is built."""
    return (settings.bentoml_home / "bentos" / "finrisk" / "latest").is_file()


def has_dagster(settings: Settings) -> bool:
    """Return whether this source has a Dagster instance."""
    return (settings.root / "dagster" / "dagster.yaml").is_file()


def _is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it; of a dotted name the packages around it are."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _check_mlflow_store(url: str) -> None:
    """Connect to MLflow's database once: MLflow itself tries for minutes, and repeats the URL in its error."""
    try:
        import psycopg
    except ImportError:
        raise SettingsError("FINRISK_MLFLOW_STORE_URL needs psycopg, which is under the LGPL: run `make postgres`") from None
    try:
        psycopg.connect(url, connect_timeout=10).close()
    except (ValueError, psycopg.Error):
        raise SettingsError("the database of FINRISK_MLFLOW_STORE_URL cannot be opened: check the URL, the server and the role") from None


def _other_ledger(settings: Settings) -> str:
    """Return what else may be wrong: another source, or another home."""
    if not settings.home.is_dir():
        return ", or set FINRISK_HOME to the folder of an earlier run"
    others = sorted(folder.name for folder in settings.home.iterdir() if folder.name != settings.source and (folder / "mlflow").is_dir())
    return f", or set FINRISK_SOURCE to {' or '.join(others)}" if others else ""
