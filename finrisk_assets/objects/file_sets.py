"""Sets of files in a bucket, each with a manifest of sizes and hashes that is written last.

`publish_files` writes files under their own names, for other programs. `store_set` writes them under their hashes, so that a set is never
seen half replaced, and `restore_set` brings it back.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from finrisk_assets.objects.addresses import ObjectError, join_address
from finrisk_assets.objects.object_store import (
    download,
    find_object,
    list_below,
    list_folder,
    move_object,
    read_object,
    remove_object,
    upload,
    write_object,
)
from finrisk_assets.private_files import make_private_folder

MANIFEST = "manifest.json"
_PART = ".part-"
_CONTENT, _SETS = "content", "sets"
_UNKNOWN = {"sha256": "", "size": -1}
"""The entry of a file that is being replaced."""

Entry = Mapping[str, Any]
"""``sha256`` and ``size`` of a file, as a manifest has them."""


def publish_files(files: Mapping[str, Path], address: str) -> None:
    """Write files below an address under their names, then the manifest; the same files are not written twice.

    Each file arrives under a temporary name and is moved. A file that the last manifest names and this set lacks is removed; other objects
    stay. While files are replaced, the manifest has no hash of them.

    Raises
    ------
    ObjectError
        If a file cannot be written; publish the set again.
    """
    entries = {name: _describe_file(file) for name, file in files.items()}
    manifest = join_address(address, MANIFEST)
    last = _read_manifest(manifest) if find_object(manifest) else {}
    sizes = {stored.address: stored.size for stored in list_folder(address)}
    targets = {name: join_address(address, name) for name in files}
    changed = [name for name in files if last.get(name) != entries[name] or sizes.get(targets[name]) != entries[name]["size"]]
    parts = {name: join_address(address, f"{_PART}{entries[name]['sha256'][:16]}-{name}") for name in changed}
    for name in changed:
        upload(files[name], parts[name])
    gone = last.keys() - files.keys()
    if changed or gone:
        write_object(_write_manifest({**last, **dict.fromkeys([*changed, *gone], _UNKNOWN)}), manifest)
    for name in changed:
        move_object(parts[name], targets[name])
    for name in gone:
        remove_object(join_address(address, name))
    if changed or gone:
        write_object(_write_manifest(entries), manifest)
    for left in sizes.keys() - set(parts.values()):
        if left.startswith(join_address(address, _PART)):
            remove_object(left)


def store_set(name: str, files: Mapping[str, Path], address: str) -> None:
    """Write files below an address under their hashes, then the manifest of the set; content that is there is not written again.

    Raises
    ------
    ObjectError
        If a file cannot be written. The set is what it was then; store it again.
    """
    entries = {file_name: _describe_file(file) for file_name, file in files.items()}
    for file_name, file in files.items():
        content = _content_address(address, entries[file_name])
        stored = find_object(content)
        if stored is None or stored.size != entries[file_name]["size"]:
            upload(file, content)
    write_object(_write_manifest(entries), join_address(address, f"{_SETS}/{name}.json"))


def list_sets(address: str) -> list[str]:
    """Return the names of the sets below an address."""
    folder = join_address(address, _SETS)
    return [stored.address.removeprefix(f"{folder}/").removesuffix(".json") for stored in list_below(folder)]


def restore_set(name: str, folder: Path, address: str) -> list[Path]:
    """Write the files of a set to a folder, each when its bytes have the manifest's hash; equal files stay as they are.

    Raises
    ------
    ObjectError
        If an object is missing or damaged, or the folder has another file in its place.
    """
    manifest = join_address(address, f"{_SETS}/{name}.json")
    targets = {folder / _safe_name(file_name, manifest): entry for file_name, entry in _read_manifest(manifest).items()}
    missing = {target: entry for target, entry in targets.items() if not target.is_file()}
    for target in targets.keys() - missing.keys():
        if _describe_file(target) != targets[target]:
            raise ObjectError(f"{target} is there already with another content: take it away, or restore to another FINRISK_HOME")
    make_private_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        # All files are here before the first is in its place.
        arrived = {target: Path(part) / str(number) for number, target in enumerate(missing)}
        for target, file in arrived.items():
            content = _content_address(address, missing[target])
            download(content, file)
            if _describe_file(file) != missing[target]:
                raise ObjectError(f"{content} is damaged: its bytes have another hash; store the set again from a machine that has it")
        for target, file in arrived.items():
            make_private_folder(target.parent)
            os.replace(file, target)
    return list(targets)


def _content_address(address: str, entry: Entry) -> str:
    return join_address(address, f"{_CONTENT}/{entry['sha256']}")


def _safe_name(name: str, manifest: str) -> PurePosixPath:
    """Return the path of a file of a set; a manifest that somebody else wrote must not lead out of the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise ObjectError(f"{manifest} names {name!r}, which leads out of the folder: it is no manifest of finrisk's")
    return path


def _describe_file(file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        return {"sha256": hashlib.file_digest(content, "sha256").hexdigest(), "size": file.stat().st_size}


def _write_manifest(entries: Mapping[str, Entry]) -> bytes:
    return (json.dumps({"files": dict(entries)}, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _read_manifest(address: str) -> dict[str, Entry]:
    """Return the files of a manifest, each with ``sha256`` and ``size``."""
    try:
        files = json.loads(read_object(address))["files"]
        return {str(name): {"sha256": str(entry["sha256"]), "size": int(entry["size"])} for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ObjectError):
            raise
        raise ObjectError(f"{address} is no manifest: remove it, or name another folder") from None
