"""The bundles and policies of all versions that decided: the store keeps a copy of each, so that every worker can rebuild an old answer.

A Bento carries the newest models alone, and its container has no other files: a repeated request may be older than the Bento. A bundle
never changes, and its copy opens with the store's key alone.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

from sqlalchemy import Connection, bindparam, delete, insert, select

from bento.problems import log_failure
from bento.store.keyring import KeyringError, seal, unseal
from bento.store.session import STORE_FAULTS, Store
from bento.store.tables import bundles, policies
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import PolicyError, default_policy, parse_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.bundle_io import MANIFEST
from finrisk_assets.scoring.spec import BundleError

_OF_VERSION = bundles.c.domain == bindparam("of_domain"), bundles.c.version == bindparam("of_version")
_SELECT = select(bundles.c.sealed).where(*_OF_VERSION)
_DELETE = delete(bundles).where(*_OF_VERSION)
_OF_POLICY = policies.c.version == bindparam("of_version")
_SELECT_POLICY = select(policies.c.document).where(_OF_POLICY)
_DELETE_POLICY = delete(policies).where(_OF_POLICY)


class BundleVersions:
    """The bundles of all stored model versions, from BentoML's model store or from the copies in the service's store.

    Parameters
    ----------
    models
        The folder `models` of a BentoML store: it has a folder for each model, with a folder for each version. None where there is none.
    store
        The store with the copies of `archive_bundles`.
    """

    def __init__(self, models: Path | None = None, store: Store | None = None) -> None:
        self._models = models
        self._store = store

    def __call__(self, domain: str, version: str) -> Bundle | None:
        """Return the bundle of a version; None where it is missing or its files were changed.

        Raises
        ------
        bento.store.database.StoreUnavailable
            Where the store is not available.
        """
        folder = self._models and self._models / ("finrisk-" + domain.replace("_", "-")) / version
        bundle = folder and (folder / MANIFEST).is_file() and _load(folder, version)
        return bundle or self._load_copy(domain, version)

    def _load_copy(self, domain: str, version: str) -> Bundle | None:
        if self._store is None:
            return None
        with self._store.reading() as connection:
            content = _read_copy(self._store, connection, domain, version)
        if content is None:
            return None
        with _unpacked(content) as folder:
            return _load(folder, version)


def archive_bundles(store: Store, folders: Mapping[tuple[str, str], Path]) -> frozenset[tuple[str, str]]:
    """Copy bundles into the store where it lacks them or a copy was changed, and return the versions of which it has a copy.

    A fault of the store is logged: without a copy the version's decisions are recorded in full.

    Parameters
    ----------
    folders
        Domain and version -> the folder of the bundle.
    """
    archived = set()
    for (domain, version), folder in folders.items():
        try:
            _archive_bundle(store, domain, version, folder)
        except STORE_FAULTS as error:
            log_failure(error)
        else:
            archived.add((domain, version))
    return frozenset(archived)


def has_copy(store: Store, connection: Connection, domain: str, version: str) -> bool:
    """Return whether the store has a copy of a bundle that opens."""
    return _read_copy(store, connection, domain, version) is not None


def _archive_bundle(store: Store, domain: str, version: str, folder: Path) -> None:
    with store.reading() as connection:
        if _read_copy(store, connection, domain, version) is not None:
            return
    sealed = seal(store.keyring.service_key, _pack(folder), _context(domain, version))
    with store.writing() as connection:
        store.advisory_lock(bundle=f"{domain} {version}")  # another worker may start at the same time
        connection.execute(_DELETE, {"of_domain": domain, "of_version": version})
        connection.execute(insert(bundles), {"domain": domain, "version": version, "sealed": sealed})


def _read_copy(store: Store, connection: Connection, domain: str, version: str) -> bytes | None:
    """Return the zip of a bundle's copy; None where there is no copy, or it was changed and does not open."""
    sealed = connection.execute(_SELECT, {"of_domain": domain, "of_version": version}).scalar_one_or_none()
    try:
        return None if sealed is None else unseal(store.keyring.service_key, sealed, _context(domain, version))
    except KeyringError:
        return None


def _context(domain: str, version: str) -> bytes:
    """Return the associated data of a sealed copy."""
    return f"bundle {domain} {version}".encode()


def _pack(folder: Path) -> bytes:
    """Return a zip of the bundle's own files."""
    manifest, content = (folder / MANIFEST).read_bytes(), BytesIO()
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, manifest)
        for name in json.loads(manifest)["files"]:
            archive.writestr(name, (folder / name).read_bytes())
    return content.getvalue()


@contextmanager
def _unpacked(content: bytes) -> Iterator[Path]:
    """Yield a folder with the files of a zip for the length of a block."""
    with TemporaryDirectory(prefix="finrisk-bundle-") as folder, ZipFile(BytesIO(content)) as archive:
        archive.extractall(folder)
        yield Path(folder)


def _load(folder: Path, version: str) -> Bundle | None:
    try:
        return Bundle.load(folder, version=version)
    except BundleError:
        return None


# Policies ---------------------------------------------------------------------------------------------------------------------


def archive_policy(store: Store, policy: Policy) -> bool:
    """Keep a policy in the store where the store lacks it or its document was changed; return whether it is there.

    A fault of the store is logged: without its policy a decision is recorded in full.
    """
    try:
        with store.reading() as connection:
            is_there = _load_policy(connection, policy.version) is not None
        if not is_there:
            with store.writing() as connection:
                store.advisory_lock(policy=policy.version)  # another worker may start at the same time
                connection.execute(_DELETE_POLICY, {"of_version": policy.version})
                connection.execute(insert(policies), {"version": policy.version, "document": policy.canonical_json()})
    except STORE_FAULTS as error:
        log_failure(error)
        return False
    return True


def find_policy(store: Store, version: str) -> Policy | None:
    """Return the policy of a version; None where it is missing, or its document was changed.

    Raises
    ------
    bento.store.database.StoreUnavailable
        Where the store is not available.
    """
    shipped = default_policy()
    if version == shipped.version:
        return shipped
    with store.reading() as connection:
        return _load_policy(connection, version)


def has_policy(connection: Connection, version: str) -> bool:
    """Return whether the code ships a policy, or the store has its document unchanged."""
    return version == default_policy().version or _load_policy(connection, version) is not None


def _load_policy(connection: Connection, version: str) -> Policy | None:
    document = _read_document(connection, version)
    if document is None:
        return None
    try:
        policy = parse_policy(document, f"policy {version}")
    except PolicyError:
        return None
    return policy if policy.version == version else None


def _read_document(connection: Connection, version: str) -> str | None:
    document: str | None = connection.execute(_SELECT_POLICY, {"of_version": version}).scalar_one_or_none()
    return document
