"""The database under the store: how it is opened, what a transaction is, and what happens when it cannot be had.

SQLite in WAL mode with full synchronisation, or PostgreSQL through pg8000: one connection for each worker. It is opened anew by itself when
the server went away or the file was put back. Whoever cannot have it learns so soon: a request never waits long for a lock, and for a
moment after a failure nobody waits at all. No table is named here.
"""

import os
import sqlite3
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from time import monotonic, perf_counter
from typing import Any

from sqlalchemy import ARRAY, URL, Connection, Engine, RootTransaction, Text, bindparam, create_engine, event, exc, make_url, text
from sqlalchemy.pool import QueuePool

from bento.context import span
from finrisk_assets.settings import Settings

WAIT_S = 1.0
"""Seconds that a request waits for another writer's lock."""
LOG_PAGES = 8_000
"""Pages of SQLite's log (4 kB each) before they are written back: by default 1,000, and every sixtieth decision waits 10 ms for that."""
CACHE_KIB = 32_000
"""Of SQLite's pages in memory; its own 2,000 hold too few of those that a decision looks at."""
RESPITE_S = 0.25
"""Seconds after a failure in which the database is not asked again: requests that queued up meanwhile are refused at once."""
_OF_TLS = ("sslmode", "sslrootcert")
_LOCK = text("select pg_advisory_xact_lock(hashtext(one)) from (select unnest(:names) as one order by 1) as sorted").bindparams(
    bindparam("names", type_=ARRAY(Text))
)


class StoreError(RuntimeError):
    """A store that cannot be used as it is set up; the message says what to do."""


class StoreUnavailable(Exception):  # noqa: N818 - it is named for what is wrong
    """The store cannot be had now: locked, unreachable, full, read-only or gone. Nothing was written; to ask again is safe.

    Its text names the kind of failure and nothing else: a database's own message may hold what was to be written.
    """


def location(settings: Settings) -> str | Path:
    """Where the store of a source is: FINRISK_STORE_URL, or an SQLite file of the source's own."""
    return settings.store_url or settings.store_root / "service" / "store.sqlite"


class _Gone(Exception):  # noqa: N818 - never leaves this module
    """The file is not there, or its folder is not."""


def parse(url: str | Path | URL) -> URL:
    """The database of an URL, or of the path of an SQLite file.

    Raises
    ------
    StoreError
        Where it is no URL, names another kind of database, or a file relative to a folder that differs between commands.
    """
    if isinstance(url, Path):
        return URL.create("sqlite", database=str(url.resolve()))
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        raise StoreError("FINRISK_STORE_URL is no URL: say postgresql://user:password@host/database") from None
    if parsed.get_backend_name() == "postgresql":
        tls(parsed)
        return parsed.set(drivername="postgresql+pg8000")
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(f"FINRISK_STORE_URL names {parsed.get_backend_name()}: the store is on sqlite or postgresql")
    if not parsed.database or not Path(parsed.database).is_absolute():
        raise StoreError("FINRISK_STORE_URL names a file relative to nowhere in particular: say sqlite:////absolute/path")
    return parsed


def tls(url: URL) -> ssl.SSLContext | bool | None:
    """How PostgreSQL is spoken to, in libpq's words: ``sslmode`` and ``sslrootcert`` of the URL.

    Returns
    -------
    SSLContext, bool or None
        With a server that proves who it is (``verify-full``: under its name; ``verify-ca``); True: encrypted (``require``); False: not
        (``disable``); None: where the server can (``prefer``, the default).

    Raises
    ------
    StoreError
        For another ``sslmode``, or certificates that cannot be read.
    """
    mode, trusted = (url.query.get(name) for name in _OF_TLS)
    if mode in ("verify-full", "verify-ca"):
        try:
            context = ssl.create_default_context(cafile=None if trusted in (None, "system") else str(trusted))
        except (OSError, ssl.SSLError) as error:
            raise StoreError(f"sslrootcert of FINRISK_STORE_URL cannot be read: {type(error).__name__}") from None
        context.check_hostname = mode == "verify-full"
        return context
    plain = {"require": True, "disable": False, "prefer": None, None: None}
    if mode not in plain or trusted is not None:
        raise StoreError(
            "FINRISK_STORE_URL: sslmode is disable, prefer, require, verify-ca or verify-full; sslrootcert belongs to the last two"
        )
    return plain[mode]


class Database:
    """An open database with one connection. Other threads wait until it is free.

    Parameters
    ----------
    url
        Where it is: an URL, or the path of an SQLite file, which is made with its folder where it is missing.
    durable
        Whether what is written is on disk before it is done. Where not, it is not lost unless the machine fails.
    wait_s
        Seconds to wait for another writer: WAIT_S where a client waits, more where an operator does.

    Attributes
    ----------
    dialect
        ``sqlite`` or ``postgresql``.
    file
        The SQLite file; None on PostgreSQL.
    lock
        Held by the thread that is in a transaction.
    is_writing
        Whether it is in `writing`.
    commit_s
        Seconds that the last commit took.

    Raises
    ------
    StoreError
        For an URL that cannot be used.
    """

    def __init__(self, url: str | Path | URL, *, durable: bool = True, wait_s: float = WAIT_S) -> None:
        self.url = parse(url)
        self.dialect = self.url.get_backend_name()
        self.file = Path(str(self.url.database)) if self.dialect == "sqlite" else None
        self._wait_s = wait_s
        self.lock = RLock()
        self.commit_s = 0.0
        self._unit: Connection | None = None
        self._kept: Connection | None = None
        self.is_writing = False
        self._failed_at = float("-inf")
        self._inode: tuple[int, int] | None = None
        self.engine = self._sqlite(durable) if self.file is not None else self._postgresql(durable)

    def close(self) -> None:
        with self.lock:
            self._drop()

    @contextmanager
    def writing(self, last: Callable[[Connection], None] | None = None) -> Iterator[Connection]:
        """Everything inside is committed to disk at the end, or nothing is. Inside another `writing` it is part of that.

        On SQLite no other worker writes meanwhile; on PostgreSQL see `advisory_lock`. Never wait for another coroutine inside: it would
        be in the same transaction.

        Parameters
        ----------
        last
            What is done last, before the commit.

        Raises
        ------
        StoreUnavailable
            Where the database cannot be had; whatever was done inside is undone.
        """
        with self.lock:
            if self._unit is not None:
                if not self.is_writing:
                    raise RuntimeError("a transaction that reads cannot begin to write")
                yield self._unit
                return
            with self._guarded(), self._connected() as connection, self._begun(connection, writes=True) as transaction:
                self._unit = connection
                try:
                    yield connection
                    with span("store"):
                        if last is not None:
                            last(connection)
                        began = perf_counter()
                        transaction.commit()
                        self.commit_s = perf_counter() - began
                finally:
                    self._unit, self.is_writing = None, False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One moment of the database. Inside `writing` it sees what that has done so far.

        Raises
        ------
        StoreUnavailable
            Where the database cannot be had.
        """
        with self.lock:
            if self._unit is not None:
                yield self._unit
                return
            with self._guarded(), self._connected() as connection, self._begun(connection, writes=False):
                self._unit = connection
                try:
                    yield connection
                finally:
                    self._unit = None

    def inside(self) -> Connection:
        """The connection of the transaction that writes, for what is only done inside one.

        Raises
        ------
        RuntimeError
            Outside of `writing`.
        """
        if self._unit is None or not self.is_writing:
            raise RuntimeError("this is part of a transaction that writes: call it inside `writing`")
        return self._unit

    @contextmanager
    def nested(self, connection: Connection) -> Iterator[None]:
        """Inside `writing`: what fails in here is undone, and the transaction goes on.

        Raises
        ------
        StoreUnavailable
            Where it is the database that failed: then the transaction does not go on.
        """
        cursor: Any = connection.connection.cursor()
        with self._named():
            cursor.execute("savepoint one")
            try:
                yield
            except BaseException:
                cursor.execute("rollback to savepoint one")
                raise
            finally:
                cursor.execute("release savepoint one")

    def advisory_lock(self, connection: Connection, names: Sequence[str]) -> None:
        """Wait until no other transaction is at work on any of these names, and keep others from it until the commit."""
        if self.dialect == "postgresql":
            connection.execute(_LOCK, {"names": list(names)})

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let go of the connection where the database fails, and ask nothing of it for a moment."""
        if monotonic() - self._failed_at < min(RESPITE_S, self._wait_s):
            raise StoreUnavailable("it failed a moment ago")
        try:
            with self._named():
                yield
        except StoreUnavailable:
            self._failed_at = monotonic()
            self._drop()
            raise

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn every failure of the database itself into `StoreUnavailable`."""
        try:
            yield
        except (exc.IntegrityError, exc.DataError):
            raise  # what was written is wrong, not the database
        except (exc.DBAPIError, exc.TimeoutError, exc.PendingRollbackError, sqlite3.Error, ssl.SSLError, _Gone) as error:
            raise StoreUnavailable(type(getattr(error, "orig", None) or error).__name__) from error
        except Exception as error:
            if type(error).__module__.startswith("pg8000"):  # it does not declare all of its errors to SQLAlchemy
                raise StoreUnavailable(type(error).__name__) from error
            raise

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """The connection: SQLite's stays open, PostgreSQL's is asked each time whether the server is still there."""
        if self.file is None:
            with self.engine.connect() as connection:
                yield connection
            return
        try:
            found = self.file.stat()  # SQLite itself would go on writing to a file that was removed
        except OSError as error:
            raise _Gone from error
        if self._inode != (found.st_dev, found.st_ino):
            self._drop()
            self._inode = (found.st_dev, found.st_ino)
        if self._kept is None:
            self._kept = self.engine.connect()
        yield self._kept

    def _begun(self, connection: Connection, *, writes: bool) -> RootTransaction:
        self.is_writing = writes
        try:
            return connection.begin()
        except BaseException:
            self.is_writing = False
            raise

    def _drop(self) -> None:
        """Let go of the connection; the next transaction opens another."""
        kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(exc.SQLAlchemyError, sqlite3.Error):
                kept.close()
        self.engine.dispose()

    def _sqlite(self, durable: bool) -> Engine:
        assert self.file is not None
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            os.close(os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o600))  # nobody else is to read it

        def connect() -> sqlite3.Connection:
            # Not made where it is missing: an empty store in the place of one that was taken away would hide that.
            uri = f"{Path(str(self.file)).as_uri()}?mode=rw"
            connection = sqlite3.connect(uri, uri=True, timeout=self._wait_s, isolation_level=None, check_same_thread=False)
            synchronous = "full" if durable else "normal"
            log, cache = f"wal_autocheckpoint = {LOG_PAGES}", f"cache_size = {-CACHE_KIB}"
            for pragma in ("journal_mode = wal", f"synchronous = {synchronous}", "secure_delete = on", log, cache):
                connection.execute(f"pragma {pragma}")
            return connection

        engine = create_engine(
            "sqlite://", creator=connect, hide_parameters=True, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=self._wait_s
        )

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            # One that writes begins as such: none fails half-way because another was first.
            driver: Any = connection.connection.driver_connection
            driver.execute("begin immediate" if self.is_writing else "begin")

        return engine

    def _postgresql(self, durable: bool) -> Engine:
        engine = create_engine(
            self.url.difference_update_query(_OF_TLS),
            pool_size=1,
            max_overflow=0,
            pool_timeout=self._wait_s,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"timeout": self._wait_s + 1.0, "application_name": "finrisk", "ssl_context": tls(self.url)},
        )

        @event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            cursor = connection.cursor()
            cursor.execute(f"set lock_timeout = {int(self._wait_s * 1000)}")
            cursor.execute(f"set synchronous_commit = {'on' if durable else 'off'}")
            connection.commit()
            cursor.close()

        return engine


class CompiledStatement:
    """A statement whose text is made once for each kind of database, and which then goes straight to the driver.

    SQLAlchemy takes longer to execute a statement of the request's path than SQLite does. What is asked here comes back as the driver
    has it: on SQLite a truth is 0 or 1.

    Parameters
    ----------
    statement
        Without values of its own: every parameter is given each time.
    names
        The columns of an insert.
    """

    def __init__(self, statement: Any, names: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._names = None if names is None else list(names)
        self._text: dict[str, tuple[str, Sequence[str]]] = {}

    def __call__(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Execute it in the transaction of a connection; returns the driver's cursor.

        Raises
        ------
        sqlalchemy.exc.IntegrityError
            As where SQLAlchemy executes it.
        """
        statement, names = self._compiled(connection)
        return self._run(connection, "execute", statement, [values[name] for name in names])

    def each(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it for every row; raises as for one."""
        statement, names = self._compiled(connection)
        self._run(connection, "executemany", statement, [[row[name] for name in names] for row in rows])

    def _run(self, connection: Connection, execute: str, statement: str, values: Sequence[Any]) -> Any:
        cursor: Any = connection.connection.cursor()
        try:
            getattr(cursor, execute)(statement, values)
        except Exception as error:
            if type(error).__name__ == "IntegrityError":  # each driver has one of its own
                raise exc.IntegrityError(statement, None, error) from None
            raise
        return cursor

    def _compiled(self, connection: Connection) -> tuple[str, Sequence[str]]:
        dialect = connection.dialect
        if dialect.name not in self._text:
            compiled: Any = self._statement.compile(dialect=dialect, column_keys=self._names)
            self._text[dialect.name] = str(compiled), tuple(compiled.positiontup)
        return self._text[dialect.name]
