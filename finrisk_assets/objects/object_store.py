"""Reads and writes of single objects: whole, or not at all.

fsspec's file systems speak the protocols: s3fs, gcsfs and adlfs, the extra ``objects``. Credentials and endpoints are those of their
usual chains; none passes through here, and no message of a library is repeated, because it may hold a signed URL.
"""

import errno
import functools
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finrisk_assets.objects.addresses import ObjectError, find_address, split_address

READ_ATTEMPTS = 3
"""Times that an object is read which changes meanwhile; more wait longer for a writer that does not end."""

CHUNK_BYTES = 16 << 20
"""Bytes of one request. More need more memory, fewer more requests."""

# gcsfs.GCSFileSystem would first ask, by gRPC and for up to a minute, of which kind a bucket is; the class of gcsfs.core reads every kind.
_FILE_SYSTEMS = {"s3": "s3fs.core.S3FileSystem", "gs": "gcsfs.core.GCSFileSystem", "abfs": "adlfs.spec.AzureBlobFileSystem"}
_LIBRARIES = ("aiohttp", "asyncio", "azure", "botocore", "aiobotocore", "gcsfs", "google", "requests", "s3fs", "adlfs")
"""Packages whose errors tell of the network or the store; errors of other packages are faults of this code."""


@dataclass(frozen=True, order=True)
class StoredObject:
    """An object as its store describes it; its version changes with its content.

    Attributes
    ----------
    address
        Its address.
    size
        Bytes.
    version
        The ETag, on Cloud Storage the generation.
    """

    address: str
    size: int
    version: str

    def __str__(self) -> str:
        return self.address

    @property
    def name(self) -> str:
        """The last part of its address, as the name of a file: never one of dots alone."""
        return re.sub(r"\A\.*\Z", "object", split_address(self.address)[1])[-200:]


def list_objects(pattern: str) -> list[StoredObject]:
    """Return the objects that an address names: the object itself, or every match of a star in its name, ordered by name.

    Raises
    ------
    ObjectError
        If there is no such object, or it may not be read.
    """
    folder, name = split_address(pattern)
    if "*" not in name:
        return [describe_object(pattern)]
    # Only the star is a pattern: export[1].csv is a name.
    matches = re.compile(".*".join(map(re.escape, name.split("*"))))
    found = [stored for stored in list_folder(folder) if matches.fullmatch(split_address(stored.address)[1])]
    if not found:
        raise ObjectError(f"no object is called {pattern}; put one there, or mend the name")
    return found


def list_folder(address: str) -> list[StoredObject]:
    """Return the objects directly below an address, ordered by name; none where there is no such folder."""
    system, path = _open(address)
    with _explain(address, "listed"):
        try:
            entries = system.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(_describe(address, entry) for entry in entries if entry["type"] == "file" and not entry["name"].endswith("/"))


def list_below(address: str) -> list[StoredObject]:
    """Return the objects below an address at any depth, ordered by name; none where there is no such folder."""
    system, path = _open(address)
    with _explain(address, "listed"):
        return sorted(_describe(address, entry) for entry in system.find(path, detail=True).values() if not entry["name"].endswith("/"))


def describe_object(address: str) -> StoredObject:
    """Return an object as its store describes it now.

    Raises
    ------
    ObjectError
        If there is no such object, or it may not be read.
    """
    system, path = _open(address)
    with _explain(address, "read"):
        entry = system.info(path)
        if entry["type"] != "file":
            raise FileNotFoundError
        return _describe(address, entry)


def find_object(address: str) -> StoredObject | None:
    """Return an object as its store describes it now; None where there is none."""
    system, path = _open(address)
    with _explain(address, "read"):
        try:
            entry = system.info(path)
        except FileNotFoundError:
            return None
        return _describe(address, entry) if entry["type"] == "file" else None


def download(address: str, file: Path) -> StoredObject:
    """Copy an object to a file, which appears when it is whole; an object that changes meanwhile is read again.

    Returns
    -------
    StoredObject
        The version that was read.

    Raises
    ------
    ObjectError
        If the object cannot be read, arrives cut short, or goes on changing.
    """
    fault = ""
    for _ in range(READ_ATTEMPTS):
        before = describe_object(address)
        with _part_of(file) as part:
            size = _read_to(before, part)
            after = describe_object(address)
            if after == before and size == before.size:
                os.replace(part, file)
                return before
            fault = (
                f"{address} goes on changing while it is read: read it again when its writer has ended"
                if after != before or size is None
                else f"{address} arrives cut short, {size:,} of its {before.size:,} bytes: put the object there again"
            )
    raise ObjectError(fault)


def read_object(address: str) -> bytes:
    """Return the content of a small object, as `download` reads it."""
    with tempfile.TemporaryDirectory(prefix="finrisk-object-") as folder:
        file = Path(folder) / "object"
        download(address, file)
        return file.read_bytes()


def upload(file: Path, address: str) -> None:
    """Write a file to an object, which appears when it is whole, and check the size that arrived.

    Raises
    ------
    ObjectError
        If it cannot be written.
    """
    system, path = _open(address)
    with _explain(address, "written"):
        system.put_file(str(file), path)
    _check_size(address, file.stat().st_size)


def write_object(content: bytes, address: str) -> None:
    """Write a small object, which appears when it is whole."""
    system, path = _open(address)
    with _explain(address, "written"):
        system.pipe_file(path, content)


def move_object(source: str, target: str) -> None:
    """Move an object within its bucket: the target appears when it is whole, then the source goes."""
    size = describe_object(source).size
    system, path = _open(source)
    with _explain(target, "written"):
        system.cp_file(path, _path(target))
    _check_size(target, size)
    remove_object(source)


def remove_object(address: str) -> None:
    """Remove an object, where there is one."""
    system, path = _open(address)
    with _explain(address, "removed"):
        try:
            system.rm_file(path)
        except FileNotFoundError:
            return


def _check_size(address: str, size: int) -> None:
    arrived = describe_object(address).size
    if arrived != size:
        raise ObjectError(f"{address} has {arrived:,} bytes in place of {size:,}: write it again")


def _read_to(stored: StoredObject, part: Path) -> int | None:
    """Write the bytes of an object to a file and return their number; None where the store says that the object has changed."""
    system, path = _open(stored.address)
    with _explain(stored.address, "read"), part.open("wb") as local:
        try:
            # Each request of S3 asks for the ETag that the file was opened with.
            with system.open(path, "rb", block_size=CHUNK_BYTES, cache_type="none") as remote:
                shutil.copyfileobj(remote, local, CHUNK_BYTES)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return None
        return local.tell()


def _describe(address: str, entry: dict[str, Any]) -> StoredObject:
    version = entry.get("generation") or entry.get("ETag") or entry.get("etag") or entry.get("last_modified")
    return StoredObject(f"{address.partition('://')[0]}://{entry['name']}", int(entry["size"]), str(version).strip('"'))


@contextmanager
def _part_of(file: Path) -> Iterator[Path]:
    """Yield an empty file in the same folder, to write and then rename; it is removed after the block."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".part-")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


# --- file systems --------------------------------------------------------------------------------------------------


def _open(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the object's path in it."""
    whole = find_address(address)
    assert whole is not None, address
    scheme = whole.partition("://")[0]
    if scheme == "s3" and "?versionId=" in whole:
        raise ObjectError(f"{whole} has ?versionId= in its name, which s3fs would read as a version: rename the object")
    return _file_system(scheme, os.getpid()), _path(whole)


def _path(address: str) -> str:
    return address.partition("://")[2]


@functools.cache
def _file_system(scheme: str, process: int) -> Any:
    """Return the file system of a scheme, one for each process, without a memory of what it listed."""
    module, _, name = _FILE_SYSTEMS[scheme].rpartition(".")
    try:
        file_system = getattr(importlib.import_module(module), name)
    except ImportError:
        package = module.partition(".")[0]
        raise ObjectError(f"{scheme}:// is read with {package}, which is not installed: run `make objects`") from None
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    # As Google's own client does: an emulator has no credentials, and the search for some would ask a metadata server.
    if scheme == "gs" and os.environ.get("STORAGE_EMULATOR_HOST"):
        options["token"] = "anon"
    return file_system(**options)


@contextmanager
def _explain(address: str, verb: str) -> Iterator[None]:
    """Turn an error of the network or the store into one sentence."""
    try:
        yield
    except ObjectError:
        raise
    except FileNotFoundError:
        raise ObjectError(f"there is no object {address}; check the name and the bucket") from None
    except Exception as error:
        if not isinstance(error, OSError | EOFError) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
            raise
        raise ObjectError(f"{address} cannot be {verb}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """Return why a request failed, without the library's own words."""
    name, status = type(error).__name__, getattr(error, "status_code", None) or getattr(error, "code", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        return "access is denied; check the rights and the credentials of this process (docs/object-storage.md)"
    if "Credential" in name or "ClientAuthentication" in name:
        return "this process has no credentials for its store; see docs/object-storage.md"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; make room"
    return f"its store does not answer as it should ({name}); try again when it does"
