"""The database under the store: connection, transactions, savepoints, locks and the circuit breaker. No table is named here.

SQLite in WAL mode with full synchronisation, or PostgreSQL through pg8000: one connection for each worker. The connection reopens by itself
after the server went away or the file was replaced. A request never waits long for a lock, and for a moment after a failure requests fail
at once. The thread of an event loop never waits at all: see `TransactionLock`.
"""

import os
import shutil
import sqlite3
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import RLock, Thread, get_ident
from time import monotonic, perf_counter
from typing import Any

from sqlalchemy import ARRAY, URL, Connection, Engine, RootTransaction, Text, bindparam, create_engine, event, exc, make_url, text
from sqlalchemy.pool import QueuePool

from bento.context import span
from finrisk_assets.private_files import make_private_folder
from finrisk_assets.settings import Settings

WAIT_S = 1.0
"""Seconds that a request waits for another writer's lock. More lets requests queue up behind a slow writer."""
WAL_CHECKPOINT_PAGES = 24_000
"""Pages of SQLite's log (4 kB each) before a commit writes them back. At SQLite's default of 1,000 every sixtieth decision waits 10 ms."""
CHECKPOINT_ROWS = 2_000
"""Rows written, up to 16,000 pages of the log, before a thread of the service writes them back. Fewer write the busy pages more often."""
CACHE_KIB = 32_000
"""KiB of SQLite's pages in memory. SQLite's default of 2,000 KiB holds too few of the pages that a decision reads."""
COOLDOWN_S = 0.25
"""Seconds after a failure in which the circuit breaker is open: requests that queued up meanwhile are refused at once."""
SPARE_BYTES = 4 * 1024 * 1024
"""Bytes that an SQLite store needs free on its file system to count as writable: a large batch, and pages of the log that are written back.
More notices a full disk sooner."""
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_TLS_PARAMETERS = ("sslmode", "sslrootcert")
_ADVISORY_LOCK = text("select pg_advisory_xact_lock(hashtext(name)) from (select unnest(:names) as name order by 1) as sorted").bindparams(
    bindparam("names", type_=ARRAY(Text))
)


class StoreError(RuntimeError):
    """A store that cannot be used as it is configured; the message says what to do."""


class StoreUnavailable(Exception):  # noqa: N818 - the name says the state
    """A store that is locked, unreachable, full, read-only or missing. Nothing was written; a retry is safe.

    The text names the kind of failure only: a database's own message may contain the values of a row.
    """


class StoreBusy(StoreUnavailable):
    """The store is not free at once, and the thread of the event loop must not wait. The same call succeeds in another thread."""


def location(settings: Settings) -> str | Path:
    """Return FINRISK_STORE_URL, or the path of the source's own SQLite file."""
    return settings.store_url or settings.root / "service" / "store.sqlite"


class _FileMissing(Exception):  # noqa: N818 - never leaves this module
    """The SQLite file or its folder is missing."""


def parse_url(url: str | Path | URL) -> URL:
    """Return SQLAlchemy's URL of a database URL, or of the path of an SQLite file.

    Raises
    ------
    StoreError
        For a text that is no URL, another kind of database, or a relative path, which would differ between commands.
    """
    if isinstance(url, Path):
        return URL.create("sqlite", database=str(url.resolve()))
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise StoreError("FINRISK_STORE_URL is no URL: say postgresql://user:password@host/database") from None
    if parsed.get_backend_name() == "postgresql":
        tls_context(parsed)
        return parsed.set(drivername="postgresql+pg8000")
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(f"FINRISK_STORE_URL names {parsed.get_backend_name()}: the store is on sqlite or postgresql")
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise StoreError("FINRISK_STORE_URL names a file relative to nowhere in particular: say sqlite:////absolute/path")
    return parsed


def tls_context(url: URL) -> ssl.SSLContext | bool | None:
    """Return pg8000's TLS setting for libpq's parameters of the URL, ``sslmode`` and ``sslrootcert``.

    Returns
    -------
    SSLContext, bool or None
        A context that verifies the server's certificate (``verify-ca``) and its name too (``verify-full``); True: encrypted
        (``require``); False: plain (``disable``); None: encrypted where the server supports it (``prefer``, the default).

    Raises
    ------
    StoreError
        For another ``sslmode``, or certificates that cannot be read.
    """
    mode, trusted = (url.query.get(name) for name in _TLS_PARAMETERS)
    if mode in ("verify-full", "verify-ca"):
        try:
            context = ssl.create_default_context(cafile=None if trusted in (None, "system") else str(trusted))
        except (OSError, ssl.SSLError) as error:
            raise StoreError(
                f"sslrootcert={trusted} of FINRISK_STORE_URL cannot be read ({error.strerror or error}): name a PEM file of certificates"
            ) from None
        context.check_hostname = mode == "verify-full"
        return context
    plain = {"require": True, "disable": False, "prefer": None, None: None}
    if mode not in plain or trusted is not None:
        raise StoreError(
            "FINRISK_STORE_URL: sslmode is disable, prefer, require, verify-ca or verify-full; sslrootcert belongs to the last two"
        )
    return plain[mode]


class TransactionLock:
    """The lock of a database's one connection: held by the thread whose transaction is open; that thread may take it again.

    Other threads wait for it, except the thread of an event loop: while that thread waited, nobody would be answered.

    Parameters
    ----------
    wait_s
        Seconds that a thread waits at most.
    never_free
        Whether the event loop's thread is always refused: each statement of a database on another machine is a wait.

    Attributes
    ----------
    loop_thread
        Identifier of the event loop's thread; None where every thread may wait.
    """

    def __init__(self, wait_s: float, *, never_free: bool) -> None:
        self._lock = RLock()
        self._wait_s = wait_s
        self._never_free = never_free
        self.loop_thread: int | None = None

    def may_wait(self) -> bool:
        """Return whether the current thread may wait for the database."""
        return get_ident() != self.loop_thread

    def __enter__(self) -> None:
        if self.may_wait():
            if not self._lock.acquire(timeout=self._wait_s):
                raise StoreUnavailable("another thread holds its connection")
        elif self._never_free or not self._lock.acquire(blocking=False):
            raise StoreBusy("not free at once")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class LogCheckpoint:
    """The checkpoint of an SQLite file's log in a thread of its own, so that no commit of the event loop writes many pages back.

    The thread does not hold back the transactions that write meanwhile (SQLite's passive checkpoint). They go on in the log, whose rest the
    commit after `WAL_CHECKPOINT_PAGES` writes back.

    Parameters
    ----------
    file
        The SQLite file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread: Thread | None = None
        self._rows_before = 0

    def start_if_due(self, connection: Connection) -> None:
        """Start a checkpoint where the connection has written `CHECKPOINT_ROWS` rows since the last one, and none is running."""
        driver: Any = connection.connection.driver_connection
        rows: int = driver.total_changes
        if rows < self._rows_before:  # the connection was opened again
            self._rows_before = 0
        if rows - self._rows_before >= CHECKPOINT_ROWS and (self._thread is None or not self._thread.is_alive()):
            self._rows_before = rows
            self._thread = Thread(target=self._run, name="finrisk-checkpoint", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for the end of a running checkpoint."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with suppress(sqlite3.Error), closing(sqlite3.connect(_existing(self._file), uri=True, timeout=0.0)) as connection:
            connection.execute("pragma wal_checkpoint(passive)")


def _existing(file: Path) -> str:
    """Return the URI that opens an SQLite file without creating it: an empty store in place of a removed one would hide the loss."""
    return f"{Path(str(file)).as_uri()}?mode=rw"


class Database:
    """An open database with one connection. Other threads wait until the connection is free.

    Parameters
    ----------
    url
        A database URL, or the path of an SQLite file; a missing file is created with its folder.
    durable
        Whether a commit is on disk before it returns. If not, a commit survives everything but a failure of the machine.
    wait_s
        Seconds to wait for another writer: WAIT_S where a client waits, more where an operator does.

    Attributes
    ----------
    dialect
        ``sqlite`` or ``postgresql``.
    file
        The SQLite file; None on PostgreSQL.
    lock
        Held by the thread whose transaction is open, see `TransactionLock`.
    is_writing
        Whether the open transaction is that of `writing`.
    is_replaced
        Whether another database may be in this one's place since the last check: the file is another one, or PostgreSQL was connected
        again. Set back by the check.
    commit_s
        Seconds of the last commit.

    Raises
    ------
    StoreError
        For an unusable URL.
    """

    def __init__(self, url: str | Path | URL, *, durable: bool = True, wait_s: float = WAIT_S) -> None:
        self.url = parse_url(url)
        self.dialect = self.url.get_backend_name()
        self.file = Path(str(self.url.database)) if self.dialect == "sqlite" else None
        self._checkpoint = None if self.file is None else LogCheckpoint(self.file)
        self._wait_s = wait_s
        self.lock = TransactionLock(wait_s, never_free=self.file is None)
        self.commit_s = 0.0
        self._open_connection: Connection | None = None
        self._connection: Connection | None = None
        self.is_writing = False
        self._failed_at = float("-inf")
        self._busy_timeout_ms = 0
        self.is_replaced = False
        self._inode: tuple[int, int] | None = None
        self.engine = self._sqlite_engine(durable) if self.file is not None else self._postgresql_engine(durable)

    def close(self) -> None:
        """Close the connection."""
        if self._checkpoint is not None:
            self._checkpoint.wait()
        with self.lock:
            self._disconnect()

    @contextmanager
    def writing(self, before_commit: Callable[[Connection], None] | None = None) -> Iterator[Connection]:
        """Commit the block to disk, or nothing of it. Inside another `writing` the block is part of that one.

        On SQLite no other worker writes meanwhile; on PostgreSQL see `advisory_lock`. Never wait for another coroutine inside: its
        statements would be part of the same transaction.

        Parameters
        ----------
        before_commit
            Called with the connection after the block, right before the commit.

        Raises
        ------
        StoreUnavailable
            Where the database is not available; the block is undone.
        """
        with self.lock:
            if self._open_connection is not None:
                if not self.is_writing:
                    raise RuntimeError("a transaction that reads cannot begin to write")
                yield self._open_connection
                return
            with self._circuit_breaker(), self._connect() as connection, self._begin(connection, writes=True) as transaction:
                self._open_connection = connection
                try:
                    yield connection
                    with span("store"):
                        if before_commit is not None:
                            before_commit(connection)
                        began = perf_counter()
                        transaction.commit()
                        self.commit_s = perf_counter() - began
                        if self._checkpoint is not None and self.lock.loop_thread is not None:
                            self._checkpoint.start_if_due(connection)
                finally:
                    self._open_connection, self.is_writing = None, False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read one consistent state of the database; inside `writing`, that transaction's own state.

        Raises
        ------
        StoreUnavailable
            Where the database is not available.
        """
        with self.lock:
            if self._open_connection is not None:
                yield self._open_connection
                return
            with self._circuit_breaker(), self._connect() as connection, self._begin(connection, writes=False):
                self._open_connection = connection
                try:
                    yield connection
                finally:
                    self._open_connection = None

    def check_room(self) -> None:
        """Check that the file system of an SQLite file has SPARE_BYTES free (no-op on PostgreSQL, whose disk is elsewhere).

        Raises
        ------
        StoreUnavailable
            Where it has fewer, or the file's folder is missing.
        """
        if self.file is None:
            return
        try:
            free_bytes = shutil.disk_usage(self.file.parent).free
        except OSError as error:
            raise StoreUnavailable(type(error).__name__) from error
        if free_bytes < SPARE_BYTES:
            raise StoreUnavailable(f"its file system has less than {SPARE_BYTES // 1024**2} MiB free")

    def writing_connection(self) -> Connection:
        """Return the connection of the transaction that writes.

        Raises
        ------
        RuntimeError
            Outside of `writing`.
        """
        if self._open_connection is None or not self.is_writing:
            raise RuntimeError("no transaction writes: call this inside `writing`")
        return self._open_connection

    @contextmanager
    def savepoint(self, connection: Connection) -> Iterator[None]:
        """Undo the block where it fails, inside `writing`; the transaction goes on.

        Raises
        ------
        StoreUnavailable
            Where the database itself failed: then the transaction does not go on.
        """
        cursor: Any = connection.connection.cursor()
        with self._translate_faults():
            cursor.execute("savepoint item")
            try:
                yield
            except BaseException:
                cursor.execute("rollback to savepoint item")
                raise
            finally:
                cursor.execute("release savepoint item")

    def advisory_lock(self, connection: Connection, names: Sequence[str]) -> None:
        """Lock these names until commit (no-op on SQLite)."""
        if self.dialect == "postgresql":
            connection.execute(_ADVISORY_LOCK, {"names": list(names)})

    @contextmanager
    def _circuit_breaker(self) -> Iterator[None]:
        """Close the connection where the database fails, and refuse everything for the next COOLDOWN_S."""
        if monotonic() - self._failed_at < min(COOLDOWN_S, self._wait_s):
            raise StoreUnavailable("it failed a moment ago")
        try:
            with self._translate_faults():
                yield
        except StoreBusy:
            raise  # the database is well: the same call may wait in another thread
        except StoreUnavailable:
            self._failed_at = monotonic()
            self._disconnect()
            raise

    @contextmanager
    def _translate_faults(self) -> Iterator[None]:
        """Turn every failure of the database itself into `StoreUnavailable`."""
        try:
            yield
        except (exc.IntegrityError, exc.DataError) as error:
            if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
                raise StoreUnavailable("a trigger refuses the write") from error
            raise  # the values are wrong, not the database
        except (exc.DBAPIError, exc.TimeoutError, exc.PendingRollbackError, sqlite3.Error, ssl.SSLError, _FileMissing) as error:
            original = getattr(error, "orig", None) or error
            if not self.lock.may_wait() and getattr(original, "sqlite_errorcode", 0) & 0xFF in _BUSY_CODES:
                raise StoreBusy("locked by another process") from error
            raise StoreUnavailable(type(original).__name__) from error
        except Exception as error:
            if type(error).__module__.startswith("pg8000"):  # pg8000 does not declare all of its errors to SQLAlchemy
                raise StoreUnavailable(type(error).__name__) from error
            raise

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        """Yield the connection: SQLite's stays open, PostgreSQL's pool pings the server each time."""
        if self.file is None:
            with self.engine.connect() as connection:
                yield connection
            return
        try:
            status = self.file.stat()  # SQLite itself would go on writing to a file that was removed
        except OSError as error:
            raise _FileMissing from error
        if self._inode != (status.st_dev, status.st_ino):
            self.is_replaced |= self._inode is not None
            self._disconnect()
            self._inode = (status.st_dev, status.st_ino)
        if self._connection is None:
            self._connection = self.engine.connect()
        yield self._connection

    def _begin(self, connection: Connection, *, writes: bool) -> RootTransaction:
        self.is_writing = writes
        try:
            return connection.begin()
        except BaseException:
            self.is_writing = False
            raise

    def _disconnect(self) -> None:
        """Close the connection; the next transaction opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(exc.SQLAlchemyError, sqlite3.Error):
                connection.close()
        self.engine.dispose()

    def _sqlite_engine(self, durable: bool) -> Engine:
        file = self.file
        assert file is not None
        make_private_folder(file.parent)
        if not file.exists():
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))  # SQLite gives its log the same permissions

        def connect() -> sqlite3.Connection:
            wait_s = self._wait_s if self.lock.may_wait() else 0.0
            connection = sqlite3.connect(_existing(file), uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)
            self._busy_timeout_ms = int(wait_s * 1000)
            synchronous = "full" if durable else "normal"
            checkpoint, cache = f"wal_autocheckpoint = {WAL_CHECKPOINT_PAGES}", f"cache_size = {-CACHE_KIB}"
            # A savepoint copies each page before its change: in memory, where a file would take a write of each.
            in_memory = "temp_store = memory"
            for pragma in ("journal_mode = wal", f"synchronous = {synchronous}", "secure_delete = on", checkpoint, cache, in_memory):
                connection.execute(f"pragma {pragma}")
            return connection

        engine = create_engine(
            "sqlite://", creator=connect, hide_parameters=True, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=self._wait_s
        )

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # A transaction that writes takes the lock at once: none fails half-way because another was first.
            driver: Any = connection.connection.driver_connection
            timeout_ms = int(self._wait_s * 1000) if self.lock.may_wait() else 0
            if timeout_ms != self._busy_timeout_ms:
                driver.execute(f"pragma busy_timeout = {timeout_ms}")
                self._busy_timeout_ms = timeout_ms
            driver.execute("begin immediate" if self.is_writing else "begin")

        return engine

    def _postgresql_engine(self, durable: bool) -> Engine:
        engine = create_engine(
            self.url.difference_update_query(_TLS_PARAMETERS),
            pool_size=1,
            max_overflow=0,
            pool_timeout=self._wait_s,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"timeout": self._wait_s + 1.0, "application_name": "finrisk", "ssl_context": tls_context(self.url)},
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            self.is_replaced = True
            cursor = connection.cursor()
            cursor.execute(f"set lock_timeout = {int(self._wait_s * 1000)}")
            cursor.execute(f"set synchronous_commit = {'on' if durable else 'off'}")
            connection.commit()
            cursor.close()

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # The driver's cursor begins a transaction by itself; a prepared statement does not.
            driver: Any = connection.connection.driver_connection
            driver.execute_simple("begin")

        return engine
