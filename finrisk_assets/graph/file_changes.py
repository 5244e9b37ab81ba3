"""What is new in a source's files: which of its tables changed, and which months of the ledger the changed rows lie in.

A file is known by its content. Where one changed, its table is landed beside the ledger and compared, month by month, with what was
last seen; the ledger itself is neither read nor written here.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finrisk_assets.graph.partitions import FORMAT
from finrisk_assets.ledger.landing import ROW, LandingError
from finrisk_assets.ledger.sources.base import RawTable, Source

UNDATED = ""
"""Stands for the month of rows whose date cannot be read: the contract refuses them, but it must see them."""

BY_MONTH = "transactions"

Fingerprint = tuple[int, int, str]
"""Size, time of the last change in nanoseconds, and SHA-256 of a file."""


@dataclass(frozen=True)
class Seen:
    """What was last seen of the tables that come from files.

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
    def read(cls, cursor: str | None) -> "Seen":
        """Return what a sensor's cursor holds."""
        if not cursor:
            return cls()
        data = json.loads(cursor)
        files = {table: {path: (size, at, sha) for path, (size, at, sha) in paths.items()} for table, paths in data["files"].items()}
        return cls(files, data["rows"])

    def write(self) -> str:
        """Return it as a sensor's cursor."""
        return json.dumps({"files": self.files, "rows": self.rows}, sort_keys=True)

    def contents(self, table: str) -> list[tuple[str, str]]:
        """Return path and SHA-256 of the files of a table."""
        return sorted((path, sha) for path, (_, _, sha) in self.files.get(table, {}).items())

    @property
    def key(self) -> str:
        """Names the contents of all files."""
        return hashlib.sha256(repr([self.contents(table) for table in sorted(self.files)]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class News:
    """What a look at the files found.

    Attributes
    ----------
    seen
        What is to be compared with next time.
    months
        The months in which transactions were added, changed or taken away.
    is_snapshot_changed
        Whether people, accounts, loans or offers changed: they have no month, and concern all.
    """

    seen: Seen
    months: frozenset[str]
    is_snapshot_changed: bool


def look(source: Source, landing: Path, before: Seen) -> News | None:
    """Compare a source's files with what was last seen; None where no file's content differs, or nothing has landed yet.

    Parameters
    ----------
    landing
        The folder of the ledger's landed tables, which stand for what was seen before the first look.

    Raises
    ------
    finrisk_assets.ledger.landing.LandingError
        If a file cannot be read.
    """
    brought = {name: raw for name, raw in source.tables.items() if raw.files()}
    if not before.rows and not all((landing / f"raw_{name}.parquet").exists() for name in brought):
        return None
    known = {path: print_ for paths in before.files.values() for path, print_ in paths.items()}
    now: dict[str, Fingerprint] = {}
    for path in dict.fromkeys(path for raw in brought.values() for path in raw.files()):
        now[str(path)] = _fingerprint(path, known.get(str(path)))
    seen = Seen({name: {str(path): now[str(path)] for path in raw.files()} for name, raw in brought.items()})
    changed = [name for name in brought if seen.contents(name) != before.contents(name)]
    if not changed:
        return None
    rows, touched = dict(before.rows), {}
    for name in changed:
        old = before.rows[name] if name in before.rows else _digests(name, brought[name], landing / f"raw_{name}.parquet")
        rows[name] = _landed_apart(name, brought[name])
        touched[name] = frozenset(month for month in old.keys() | rows[name].keys() if old.get(month) != rows[name].get(month))
    snapshots = any(months for name, months in touched.items() if name != BY_MONTH)
    return News(Seen(seen.files, rows), touched.get(BY_MONTH, frozenset()), snapshots)


def _fingerprint(path: Path, before: Fingerprint | None) -> Fingerprint:
    """Return a file's fingerprint; its bytes are read only where its size or time differs from before."""
    try:
        stat = path.stat()
        if before is not None and before[:2] == (stat.st_size, stat.st_mtime_ns):
            return before
        with path.open("rb") as file:
            return stat.st_size, stat.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LandingError(f"{path} cannot be read: {error.strerror or error}; put the file back, or take it out of the mapping") from None


def _landed_apart(name: str, raw: RawTable) -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / f"raw_{name}.parquet"
        raw.land(fresh)
        return _digests(name, raw, fresh)


def _digests(name: str, raw: RawTable, landed: Path) -> dict[str, str]:
    """Month -> digest of its landed rows, whatever their order and numbers; of a snapshot, one digest."""
    import ibis

    from finrisk_assets.ledger.contract import event_time

    connection = ibis.duckdb.connect()
    try:
        rows = connection.read_parquet(str(landed))
        happened = event_time(raw.table, raw.columns, rows) if name == BY_MONTH else None
        month = ibis.literal(UNDATED) if happened is None else happened.strftime(FORMAT).fill_null(UNDATED)
        connection.create_view("arrived", rows.mutate(_month=month).drop(ROW))
        query = "SELECT _month, count(*), sum(hash(arrived)) FROM arrived GROUP BY _month"
        return {found: f"{n}-{int(total):x}" for found, n, total in connection.con.execute(query).fetchall()}
    finally:
        connection.disconnect()
