"""Schema migrations of the store: its revisions, and the upgrade of a store to the revision of this code.

A released revision never changes, because old stores still need it. To add a revision, change `bento.store.tables`, write
`versions/<number>_<what>.py`, and set `tables.REVISION`; a test compares the revisions' result with the tables.
"""

from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, inspect, select, table, text
from sqlalchemy.sql import column

from bento.store.database import Database, StoreError, location
from bento.store.tables import REVISION
from finrisk_assets.settings import Settings

_VERSION = table("alembic_version", column("version_num"))
_COMMAND = "`finrisk store upgrade` (in a container: `python -m bento.store.migrations upgrade`)"
PATIENCE_S = 30.0
"""Seconds to wait for another worker that upgrades the store. A longer wait delays the start of the service."""


def revision(connection: Connection) -> str | None:
    """Return the schema revision of a store; None where the database is empty.

    Raises
    ------
    bento.store.database.StoreError
        Where there are tables of another application.
    """
    names = inspect(connection).get_table_names()
    if _VERSION.name in names:
        return connection.execute(select(_VERSION.c.version_num)).scalar()
    if names:
        raise StoreError(
            f"the database holds tables of another application ({', '.join(sorted(names)[:3])}): give the store a database of its own"
        )
    return None


def upgrade(database: Database) -> str | None:
    """Migrate a store to the schema of this code, in one transaction, and return its former revision.

    Raises
    ------
    bento.store.database.StoreError
        Where the store is newer than the code, or the database is no store.
    bento.store.database.StoreUnavailable
        Where the database is not available.
    """
    with database.writing() as connection:
        if database.dialect == "postgresql":
            connection.execute(text("set local lock_timeout = '30s'"))
            connection.execute(text("select pg_advisory_xact_lock(hashtext('finrisk.migrations'))"))
        current = revision(connection)
        if current != REVISION:
            _run(connection, current)
    return current


def check(database: Database, *, upgrades: bool) -> None:
    """Refuse a store of another schema revision, or upgrade it.

    Raises
    ------
    bento.store.database.StoreError
        Where the store has another revision and must not or cannot be upgraded.
    """
    with database.reading() as connection:
        current = revision(connection)
    if current == REVISION:
        return
    if not upgrades:
        raise StoreError(
            f"the store has {f'schema {current}' if current else 'no schema'}, this code needs {REVISION}: run {_COMMAND} first"
        )
    with closing(Database(database.url, wait_s=PATIENCE_S)) as patient:
        upgrade(patient)


def upgrade_or_check(settings: Settings, *, upgrades: bool) -> str:
    """Upgrade the store of a source, or only check it, and return a sentence on its schema.

    Raises
    ------
    bento.store.database.StoreError
        Where the store has another revision and was only checked, or cannot be upgraded.
    bento.store.database.StoreUnavailable
        Where the database is not available.
    """
    with closing(Database(location(settings), wait_s=PATIENCE_S)) as database:
        if not upgrades:
            check(database, upgrades=False)
            return f"the store has schema {REVISION}, as this code needs it"
        former = upgrade(database)
    before = "it was empty" if former is None else f"it had {former}"
    return f"the store has schema {REVISION}; {before if former != REVISION else 'there was nothing to do'}"


def _run(connection: Connection, current: str | None) -> None:
    # Half a second of imports that a store of the current schema does not need.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    revisions = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in revisions:
        raise StoreError(f"the store has schema {current}, newer than this code's {REVISION}: serve it with newer code")
    try:
        command.upgrade(config, REVISION)
    except CommandError as error:
        raise StoreError(f"the store cannot be migrated from schema {current} to {REVISION}: {error}") from error
