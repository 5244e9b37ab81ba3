"""Backups of an SQLite store, and the removal of remainders of deleted rows from its file.

SQLite overwrites deleted rows with zeros at once (secure_delete). But where SQLite splits or merges a page, copies of rows may stay in the
unused part of the old page: about one deleted row of a thousand. Only a rewrite of the file removes them. A backup never has remainders,
the store has none after `wipe`. PostgreSQL has its own tools for both; docs/privacy.md names them.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bento.store.database import StoreUnavailable
from bento.store.session import Store

SMALL_BYTES = 16 * 1024 * 1024
"""Bytes, 16 MiB: a rewrite of a file up to this size takes a fraction of a second, so requests may wait for it."""


class BackupError(RuntimeError):
    """A backup that cannot be written; the message says why."""


def backup(store: Store, target: Path) -> None:
    """Write the store's present state to a new file of mode 0600 without remainders, while others write.

    Raises
    ------
    BackupError
        Where the file exists, or the store is on PostgreSQL.
    StoreUnavailable
        Where the store is not available.
    """
    if store.database.file is None:
        raise BackupError("the store is on PostgreSQL: use `pg_dump`")
    if target.exists():
        raise BackupError(f"{target} exists; name a new file")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with _connect(store) as connection:
            connection.execute("vacuum into ?", (str(temporary),))  # SQLite's own copies keep the unused parts of pages
        descriptor = os.open(temporary, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        os.link(temporary, target)
    except FileExistsError:
        raise BackupError(f"{target} exists; name a new file") from None
    finally:
        temporary.unlink(missing_ok=True)


def is_small(store: Store) -> bool:
    """Return whether a rewrite of the store is fast enough for requests to wait."""
    return store.database.file is not None and store.database.file.stat().st_size <= SMALL_BYTES


def wipe(store: Store) -> bool:
    """Rewrite the store's file and empty its log, so that neither holds deleted rows; other writers wait.

    Returns
    -------
    bool
        Whether the file was rewritten: not while other transactions are open, and not on PostgreSQL. A retry is safe.
    """
    return _execute(store, "vacuum", "pragma wal_checkpoint(truncate)")


def empty_log(store: Store) -> bool:
    """Write the log back into the store's file and truncate it; return whether that was done. Fast for every size of store."""
    return _execute(store, "pragma wal_checkpoint(truncate)")


def _execute(store: Store, *statements: str) -> bool:
    """Execute statements and return whether all were executed; the row of the last tells whether other transactions blocked it."""
    if store.database.file is None:
        return False
    try:
        with _connect(store) as connection:
            *_, last = (connection.execute(statement).fetchone() for statement in statements)
            return not last[0]
    except StoreUnavailable:
        return False


@contextmanager
def _connect(store: Store) -> Iterator[sqlite3.Connection]:
    """Yield a separate connection, outside any transaction."""
    path = store.database.file
    try:
        with closing(sqlite3.connect(f"{Path(str(path)).as_uri()}?mode=rw", uri=True, timeout=2.0, isolation_level=None)) as connection:
            connection.execute("pragma secure_delete = on")
            yield connection
    except sqlite3.Error as error:
        raise StoreUnavailable(type(error).__name__) from None
