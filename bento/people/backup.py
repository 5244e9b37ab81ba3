"""Backups of the store, and what SQLite leaves behind in a file: freed of it are backups always, the store itself when it is wiped.

What is deleted is overwritten with zeros at once (secure_delete). But when SQLite splits or merges a page, copies of rows may stay in the
unused part of the old one: of a thousand deleted rows about one keeps such a piece. Only writing the file anew removes them. PostgreSQL
has tools of its own for both; docs/privacy.md names them.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bento.store.session import Store, StoreUnavailable

SMALL_BYTES = 16 * 1024 * 1024
"""A file of this size is written anew in a fraction of a second, so it may be while others wait."""


class BackupError(RuntimeError):
    """A backup that cannot be made; the message says why."""


def backup(store: Store, target: Path) -> None:
    """Write the store as it is at this moment into a new file, of mode 0600, without remainders; others go on meanwhile.

    Raises
    ------
    BackupError
        Where the file exists, or the store is on PostgreSQL.
    StoreUnavailable
        Where the store cannot be had.
    """
    if store.database.file is None:
        raise BackupError("the store is on PostgreSQL: use `pg_dump`")
    if target.exists():
        raise BackupError(f"{target} exists; name a new file")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with _direct(store) as connection:
            connection.execute("vacuum into ?", (str(aside),))  # SQLite's own copies keep the unused parts of pages
        descriptor = os.open(aside, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        os.link(aside, target)
    except FileExistsError:
        raise BackupError(f"{target} exists; name a new file") from None
    finally:
        aside.unlink(missing_ok=True)


def small(store: Store) -> bool:
    """Whether the store may be wiped while requests wait."""
    return store.database.file is not None and store.database.file.stat().st_size <= SMALL_BYTES


def wipe(store: Store) -> bool:
    """Write the store's file anew and empty its log, so that nothing deleted is left in either; nobody else can write meanwhile.

    Returns
    -------
    bool
        Whether it was done: not while others are in the middle of something, and not on PostgreSQL. To ask again is safe.
    """
    return _done(store, "vacuum", "pragma wal_checkpoint(truncate)")


def empty_log(store: Store) -> bool:
    """Bring what is in the log into the store's file and cut the log off; return whether it was done. Fast, whatever the store's size."""
    return _done(store, "pragma wal_checkpoint(truncate)")


def _done(store: Store, *statements: str) -> bool:
    """Whether statements could be executed; the last one tells whether others were in its way."""
    if store.database.file is None:
        return False
    try:
        with _direct(store) as connection:
            *_, last = (connection.execute(statement).fetchone() for statement in statements)
            return not last[0]
    except StoreUnavailable:
        return False


@contextmanager
def _direct(store: Store) -> Iterator[sqlite3.Connection]:
    """A connection of its own, outside any transaction."""
    path = store.database.file
    try:
        with closing(sqlite3.connect(f"{Path(str(path)).as_uri()}?mode=rw", uri=True, timeout=2.0, isolation_level=None)) as connection:
            connection.execute("pragma secure_delete = on")
            yield connection
    except sqlite3.Error as error:
        raise StoreUnavailable(type(error).__name__) from None
