"""The mirror of a ledger: copies of its snapshots and champions in the bucket that `Settings.objects` names.

A snapshot is a set of files of its own, and so is a champion. Restoring brings them back to the folders where they were. Neither the
warehouse nor the registry of models nor the service's store is mirrored.
"""

from collections.abc import Iterator
from pathlib import Path

from finrisk_assets.ledger.snapshots import list_snapshots, snapshot_folder
from finrisk_assets.objects.addresses import ObjectError
from finrisk_assets.objects.file_sets import list_sets, restore_set, store_set
from finrisk_assets.settings import Settings

SNAPSHOTS, CHAMPIONS = "snapshots", "champions"


def mirror_snapshot(settings: Settings, sha256: str) -> None:
    """Copy a stored snapshot to the bucket, where the settings name one.

    Raises
    ------
    ObjectError
        If the bucket cannot be written; the snapshot itself is stored.
    """
    if settings.mirror:
        parquet = snapshot_folder(settings.root) / f"{sha256}.parquet"
        _store(settings, f"{SNAPSHOTS}/{sha256}", [file for file in (parquet, parquet.with_suffix(".json")) if file.is_file()])


def mirror_champion(settings: Settings, domain: str) -> None:
    """Copy the exported bundle of a domain's champion to the bucket with what lies beside it, where the settings name a bucket.

    Raises
    ------
    ObjectError
        If the bucket cannot be written; the bundle itself is exported.
    """
    if settings.mirror:
        files = sorted(file for file in (settings.root / CHAMPIONS / domain).rglob("*") if file.is_file())
        _store(settings, f"{CHAMPIONS}/{domain}", [file for file in files if not file.name.startswith(".")])


def mirror_all(settings: Settings) -> list[str]:
    """Copy every stored snapshot and champion to the bucket, and return the names of the sets."""
    require_mirror(settings)
    snapshots = [snapshot.sha256 for snapshot in list_snapshots(snapshot_folder(settings.root))]
    domains = sorted(folder.name for folder in (settings.root / CHAMPIONS).glob("*") if folder.is_dir())
    for sha256 in snapshots:
        mirror_snapshot(settings, sha256)
    for domain in domains:
        mirror_champion(settings, domain)
    return [*(f"{SNAPSHOTS}/{sha256}" for sha256 in snapshots), *(f"{CHAMPIONS}/{domain}" for domain in domains)]


def restore_all(settings: Settings) -> Iterator[str]:
    """Bring every mirrored snapshot and champion back to the home, and yield the name of each set when it is here.

    Raises
    ------
    ObjectError
        If the bucket has none, an object is missing or damaged, or the home has another file in its place.
    """
    mirror = require_mirror(settings)
    names = list_sets(mirror)
    if not names:
        raise ObjectError(f"there is nothing to restore in {mirror}: check FINRISK_OBJECTS and FINRISK_SOURCE")
    for name in names:
        restore_set(name, settings.root, mirror)
        yield name


def require_mirror(settings: Settings) -> str:
    """Return the address of the mirror.

    Raises
    ------
    ObjectError
        If the settings name none.
    """
    if settings.mirror is None:
        raise ObjectError("no bucket is named: set FINRISK_OBJECTS to an address such as s3://bucket/finrisk")
    return settings.mirror


def _store(settings: Settings, name: str, files: list[Path]) -> None:
    store_set(name, {file.relative_to(settings.root).as_posix(): file for file in files}, require_mirror(settings))
