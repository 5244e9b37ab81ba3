"""Data snapshots: read-only copies of Parquet files, each named by the SHA-256 of its bytes.

This module stores, restores, lists and prunes them. The callers decide what to store: the stage ``model_<domain>`` stores the feature
table that it trains on, ``raw_*`` its landed file. ``docs/reproducibility.md`` has the commands.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 1 << 20


class SnapshotError(ValueError):
    """An error for a snapshot that is missing, damaged or cannot be stored; it names the file, the folder and the fix."""


@dataclass(frozen=True)
class Snapshot:
    """One stored file.

    Attributes
    ----------
    sha256
        Hash of its bytes, and its name.
    table
        The table that the file copies: ``features_loan_default``, ``raw_transactions``; empty where the caller did not say.
    kept_by
        What stored the file first: a model's bundle or a landing; empty where the caller did not say.
    rows, size
        Rows of the table; bytes of the file.
    """

    sha256: str
    table: str
    kept_by: str
    rows: int
    size: int


def snapshot_folder(root: Path) -> Path:
    """Return the folder of a ledger's snapshots: beside its warehouse, below `Settings.root`."""
    return root / "snapshots"


def store_snapshot(folder: Path, file: Path, *, table: str = "", kept_by: str = "", link: bool = False) -> str:
    """Store a copy of a Parquet file as ``<folder>/<sha256>.parquet`` and return the hash; an existing copy is not written again.

    Parameters
    ----------
    folder
        Created where it does not exist.
    file
        The file to store.
    table, kept_by
        As in `Snapshot`; recorded the first time that these bytes are stored.
    link
        Make a hard link instead of a copy where the file system can; it costs no space. For files that are never written to again.

    Raises
    ------
    SnapshotError
        If the file cannot be read, or changes while it is copied.
    """
    try:
        sha256, size = hash_file(file), file.stat().st_size
        stored = _path(folder, sha256)
        if stored.is_file() and stored.stat().st_size == size:
            return sha256
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary_file(folder) as part:
            if not (link and _linked(file, part)):
                shutil.copyfile(file, part)
                if hash_file(part) != sha256:
                    raise SnapshotError(f"{file} changed while it was copied to {folder}: keep it again when nothing writes to it")
            part.chmod(0o400)
            os.replace(part, stored)
        with _temporary_file(folder) as part:
            part.write_text(json.dumps({"table": table, "kept_by": kept_by}), encoding="utf-8")
            os.replace(part, stored.with_suffix(".json"))
    except OSError as error:
        raise SnapshotError(f"{file} cannot be kept in {folder}: {error.strerror or error}") from None
    return sha256


def restore(folder: Path, sha256: str) -> Path:
    """Return the snapshot with the given hash, after checking all its bytes against the hash.

    Parameters
    ----------
    sha256
        64 hex digits, or the first of them, at least 6, that identify one snapshot.

    Raises
    ------
    SnapshotError
        If no snapshot or more than one matches, or if its bytes have changed.
    """
    file = _path(folder, _complete_hash(folder, sha256))
    digest = hash_file(file)
    if digest != file.stem:
        raise SnapshotError(
            f"the snapshot {file} is damaged: its bytes have the hash {digest[:12]}…, not {file.stem[:12]}…; "
            "remove the file and put back a copy from a backup, or materialise what kept it once more"
        )
    return file


def list_snapshots(folder: Path) -> list[Snapshot]:
    """Return every snapshot in a folder, by table, then oldest first; the bytes are not checked."""
    files = sorted(folder.glob("*.parquet"), key=lambda file: (file.stat().st_mtime_ns, file.name))
    return sorted((_describe(file) for file in files), key=lambda snapshot: snapshot.table)


def prune(folder: Path, named: Collection[str]) -> list[Snapshot]:
    """Remove every snapshot whose hash is not in `named`, and return what was removed."""
    removed = [snapshot for snapshot in list_snapshots(folder) if snapshot.sha256 not in named]
    for snapshot in removed:
        file = _path(folder, snapshot.sha256)
        file.unlink()
        file.with_suffix(".json").unlink(missing_ok=True)
    return removed


def hash_file(file: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits, read in constant memory."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _path(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256}.parquet"


def _complete_hash(folder: Path, begin: str) -> str:
    """Return the one hash with the given first digits."""
    if len(begin) < 6 or not set(begin) <= set("0123456789abcdef"):
        raise SnapshotError(f"{begin!r} names no snapshot: give at least the first 6 of its 64 hex digits (`finrisk snapshots list`)")
    hashes = [file.stem for file in folder.glob(f"{begin}*.parquet")]
    if not hashes:
        raise SnapshotError(
            f"there is no snapshot {begin} in {folder}: see `finrisk snapshots list`; "
            "it was pruned or never kept here, so put back a copy from a backup or materialise what kept it once more"
        )
    if len(hashes) > 1:
        raise SnapshotError(f"{len(hashes)} snapshots in {folder} begin with {begin}: give more digits")
    return hashes[0]


def _describe(file: Path) -> Snapshot:
    import pyarrow.parquet as pq

    try:
        rows = pq.read_metadata(file).num_rows
    except (OSError, ValueError) as error:
        raise SnapshotError(f"the snapshot {file} is damaged: {str(error).splitlines()[0]}; remove it or put back a copy") from None
    note = file.with_suffix(".json")
    description = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    return Snapshot(file.stem, description.get("table", ""), description.get("kept_by", ""), rows, file.stat().st_size)


def _linked(file: Path, target: Path) -> bool:
    """Make `target` a hard link to a file; False where the file system cannot."""
    target.unlink()
    try:
        os.link(file, target)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _temporary_file(folder: Path) -> Iterator[Path]:
    """Yield an empty file in the folder to write and then rename, so that no reader sees half a snapshot; remove it after the block."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".part-")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
