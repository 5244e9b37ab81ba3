"""Changes of a source's files: which tables changed, and in which months of the ledger the changed rows lie.

A file is identified by its content, an object in a bucket by the version that its store gives to its content. A changed file's table is
landed in a temporary folder and compared, month by month, with the last state; the ledger itself is neither read nor written here.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finrisk_assets.graph.partitions import MONTH_FORMAT
from finrisk_assets.ledger.landing import ROW, LandingError, escape_pattern
from finrisk_assets.ledger.sources.source_definition import RawTable, Source, SourceFile
from finrisk_assets.objects.object_store import StoredObject

UNDATED = ""
"""The month of rows whose date cannot be read: the contract refuses them, but it must see them."""

MONTHLY_TABLE = "transactions"

Fingerprint = tuple[int, int, str]
"""Size, time of the last change in nanoseconds, and SHA-256 of a file; of an object in a bucket size, 0 and version."""


@dataclass(frozen=True)
class FileState:
    """The state of a source's files at one time, kept as a sensor's cursor.

    Attributes
    ----------
    files
        Table -> path -> fingerprint.
    rows
        Table -> month -> digest of its rows; a snapshot is one month, `UNDATED`.
    """

    files: Mapping[str, Mapping[str, Fingerprint]] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None) -> "FileState":
        """Return the state in a sensor's cursor; an empty state for no cursor."""
        if not cursor:
            return cls()
        data = json.loads(cursor)
        files = {table: {path: (size, at, sha) for path, (size, at, sha) in paths.items()} for table, paths in data["files"].items()}
        return cls(files, data["rows"])

    def write(self) -> str:
        """Return the state as a sensor's cursor."""
        return json.dumps({"files": self.files, "rows": self.rows}, sort_keys=True)

    def contents(self, table: str) -> list[tuple[str, str]]:
        """Return path and SHA-256 of the files of a table."""
        return sorted((path, sha) for path, (_, _, sha) in self.files.get(table, {}).items())

    @property
    def key(self) -> str:
        """A hash of the contents of all files."""
        return hashlib.sha256(repr([self.contents(table) for table in sorted(self.files)]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class FileChanges:
    """The difference between two states of the files.

    Attributes
    ----------
    state
        The newer state, to compare with next time.
    months
        Months in which transactions were added, changed or removed.
    is_snapshot_changed
        Whether customers, accounts, loans or offers changed: these tables have no months, so a change concerns all.
    """

    state: FileState
    months: frozenset[str]
    is_snapshot_changed: bool


def has_landed(source: Source, landing: Path, before: FileState) -> bool:
    """Return whether there is a last state to compare with: of the sensor's last tick, or the landed tables.

    See `detect_changes` for the parameters.
    """
    return bool(before.rows) or all((landing / f"raw_{name}.parquet").exists() for name, raw in source.tables.items() if raw.files())


def detect_changes(source: Source, landing: Path, before: FileState) -> FileChanges | None:
    """Compare a source's files with the last state; return None where no content differs, or nothing has landed yet.

    Parameters
    ----------
    landing
        The folder of the ledger's landed tables, which are the last state where `before` is empty.
    before
        The last state.

    Raises
    ------
    finrisk_assets.ledger.landing.LandingError
        If a file cannot be read.
    """
    if not has_landed(source, landing, before):
        return None
    tables = {name: files for name, raw in source.tables.items() if (files := raw.files())}
    raw_tables = {name: source.tables[name] for name in tables}
    fingerprints = {path: fingerprint for paths in before.files.values() for path, fingerprint in paths.items()}
    now: dict[str, Fingerprint] = {}
    for path in dict.fromkeys(path for files in tables.values() for path in files):
        now[str(path)] = _fingerprint(path, fingerprints.get(str(path)))
    state = FileState({name: {str(path): now[str(path)] for path in files} for name, files in tables.items()})
    changed = [name for name in raw_tables if state.contents(name) != before.contents(name)]
    if not changed:
        return None
    rows, touched = dict(before.rows), {}
    for name in changed:
        old = before.rows[name] if name in before.rows else _digests(name, raw_tables[name], landing / f"raw_{name}.parquet")
        rows[name] = _land_and_digest(name, raw_tables[name])
        touched[name] = frozenset(month for month in old.keys() | rows[name].keys() if old.get(month) != rows[name].get(month))
    snapshots = any(months for name, months in touched.items() if name != MONTHLY_TABLE)
    return FileChanges(FileState(state.files, rows), touched.get(MONTHLY_TABLE, frozenset()), snapshots)


def _fingerprint(path: SourceFile, before: Fingerprint | None) -> Fingerprint:
    """Return a file's fingerprint; its bytes are read only where its size or time differs from before, and never those of an object."""
    if isinstance(path, StoredObject):
        return path.size, 0, path.version
    try:
        stat = path.stat()
        if before is not None and before[:2] == (stat.st_size, stat.st_mtime_ns):
            return before
        with path.open("rb") as file:
            return stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LandingError(f"{path} cannot be read: {error.strerror or error}; put the file back, or take it out of the mapping") from None


def _land_and_digest(name: str, raw: RawTable) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / f"raw_{name}.parquet"
        raw.land(fresh)
        return _digests(name, raw, fresh)


def _digests(name: str, raw: RawTable, landed: Path) -> dict[str, str]:
    """Return month -> digest of its landed rows, independent of row order and row numbers; one digest for a table without months."""
    import ibis

    from finrisk_assets.ledger.contract import EVENT_TIME, read_event_time

    connection = ibis.duckdb.connect()
    try:
        rows = connection.read_parquet(escape_pattern(landed), hive_partitioning=False)
        timed = read_event_time(raw.table, raw.columns, rows) if name == MONTHLY_TABLE else None
        if timed is None:
            months = rows.mutate(_month=ibis.literal(UNDATED))
        else:
            months = timed.mutate(_month=timed[EVENT_TIME].strftime(MONTH_FORMAT).fill_null(UNDATED)).drop(EVENT_TIME)
        connection.create_view("arrived", months.drop(ROW))
        query = "SELECT _month, count(*), sum(hash(arrived)) FROM arrived GROUP BY _month"
        return {month_label: f"{n}-{int(total):x}" for month_label, n, total in connection.con.execute(query).fetchall()}
    finally:
        connection.disconnect()
