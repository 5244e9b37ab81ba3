"""Local copies of objects, for code that reads files: each version is downloaded once.

A copy is named by a hash of the object's address and version, so that one that is here is whole and current.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finrisk_assets.objects.object_store import StoredObject, download
from finrisk_assets.private_files import make_private_folder

KEEP_UNUSED_S = 7 * 86_400
"""Seconds for which a copy stays that nothing reads; fewer download again what is read once a week."""


@contextmanager
def open_copies(files: Sequence[Path | StoredObject], folder: Path) -> Iterator[list[Path]]:
    """Yield the files with a local copy in the place of each object.

    An error of the block that names a copy names its object instead.

    Parameters
    ----------
    folder
        Where copies are kept; created where it does not exist.

    Raises
    ------
    finrisk_assets.objects.addresses.ObjectError
        If an object cannot be read.
    """
    paths = [_copy(file, folder) if isinstance(file, StoredObject) else file for file in files]
    try:
        yield paths
    except ValueError as error:
        message = str(error)
        for file, path in zip(files, paths, strict=True):
            message = message.replace(str(path), str(file))
        error.args = (message,)
        raise


def _copy(stored: StoredObject, folder: Path) -> Path:
    """Return the local copy of an object in its present version."""
    make_private_folder(folder)
    copy = _path(stored, folder)
    if not copy.is_file():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
            arrived = Path(part) / "object"
            # The object may have changed since it was listed.
            copy = _path(download(stored.address, arrived), folder)
            make_private_folder(copy.parent)
            arrived.replace(copy)
    os.utime(copy.parent)
    _remove_unused(folder, time.time())
    return copy


def _path(stored: StoredObject, folder: Path) -> Path:
    version = hashlib.sha256(f"{stored.address}\0{stored.version}\0{stored.size}".encode()).hexdigest()[:20]
    return folder / version / stored.name


def _remove_unused(folder: Path, now: float) -> None:
    for version in folder.iterdir():
        if now - version.stat().st_mtime > KEEP_UNUSED_S:
            shutil.rmtree(version, ignore_errors=True)
