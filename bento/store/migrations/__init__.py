"""The layouts that the store has had, one revision after the other, and how a store is brought from one to the next.

A revision is never changed once it was released: it has to lead an old store here for as long as there is one. To add one, change
`bento.store.tables`, write `versions/<number>_<what>.py`, and set `tables.REVISION`; a test compares what they make with the tables.
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
"""Seconds to wait for another worker that is at it."""


def revision(connection: Connection) -> str | None:
    """The layout of a store; None where it is empty.

    Raises
    ------
    bento.store.database.StoreError
        Where there are tables that no revision has made.
    """
    names = inspect(connection).get_table_names()
    if _VERSION.name in names:
        return connection.execute(select(_VERSION.c.version_num)).scalar()
    if "answers" in names and "transactions" in names:
        raise StoreError(
            "the store is of the layout before there were revisions, with identifiers in plain text; it is never read. "
            "`finrisk load-history` moves it aside and makes a new one from the ledger"
        )
    if names:
        raise StoreError(f"the database holds tables of somebody else ({', '.join(sorted(names)[:3])}): give the store one of its own")
    return None


def upgrade(database: Database) -> str | None:
    """Bring a store to the layout of this code, in one transaction; return the layout that it had.

    Raises
    ------
    bento.store.database.StoreError
        Where it is newer than the code, or not a store.
    bento.store.database.StoreUnavailable
        Where the database cannot be had.
    """
    with database.writing() as connection:
        if database.dialect == "postgresql":
            connection.execute(text("set local lock_timeout = '30s'"))
            connection.execute(text("select pg_advisory_xact_lock(hashtext('finrisk.migrations'))"))
        found = revision(connection)
        if found != REVISION:
            _run(connection, found)
    return found


def check(database: Database, *, upgrades: bool) -> None:
    """Refuse a store of another layout, or bring it to this one.

    Raises
    ------
    bento.store.database.StoreError
        Where it is of another layout and not to be changed, or cannot be.
    """
    with database.reading() as connection:
        found = revision(connection)
    if found == REVISION:
        return
    if not upgrades:
        raise StoreError(f"the store has the layout {found or 'of an empty database'}, this code needs {REVISION}: run {_COMMAND} first")
    with closing(Database(database.url, wait_s=PATIENCE_S)) as patient:
        upgrade(patient)


def told(settings: Settings, *, upgrades: bool) -> str:
    """Bring the store of a source to this code's layout, or only look, and say how it stands.

    Raises
    ------
    bento.store.database.StoreError
        Where it is of another layout and was only looked at, or cannot be brought here.
    bento.store.database.StoreUnavailable
        Where the database cannot be had.
    """
    with closing(Database(location(settings), wait_s=PATIENCE_S)) as database:
        if not upgrades:
            check(database, upgrades=False)
            return f"the store has the layout {REVISION}, as this code needs it"
        found = upgrade(database)
    before = "it was empty" if found is None else f"it had {found}"
    return f"the store has the layout {REVISION}; {before if found != REVISION else 'there was nothing to do'}"


def _run(connection: Connection, found: str | None) -> None:
    # Half a second of imports that a store of the right layout does without.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise StoreError(f"the store has the layout {found}, newer than this code's {REVISION}: serve it with newer code")
    try:
        command.upgrade(config, REVISION)
    except CommandError as error:
        raise StoreError(f"the store cannot be brought from layout {found} to {REVISION}: {error}") from error
