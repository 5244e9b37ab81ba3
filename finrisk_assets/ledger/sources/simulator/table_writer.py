"""Writing of tables larger than memory: to Parquet town by town, one or more row groups each, hashed while writing."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finrisk_assets.ledger.landing import DEFECTS, LINE, ROW, LandingResult

if TYPE_CHECKING:
    import pyarrow as pa


class TableWriter:
    """A writer of one table's file in the form of a landing: numbered rows, with null marks of damage."""

    def __init__(self, path: Path) -> None:
        self._path, self._sheet, self._rows = path, path.with_suffix(f".{os.getpid()}.part"), 0
        self._hasher = hashlib.sha256()
        self._file: Any = None

    def write(self, table: "pa.Table") -> None:
        """Write the next rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = table.combine_chunks()
        for batch in table.to_batches():
            self._hasher.update(batch.serialize())
        numbers = pa.array(range(self._rows + 1, self._rows + table.num_rows + 1), pa.int64())
        marked = table.add_column(0, pa.field(ROW, pa.int64()), numbers)
        for name in (DEFECTS, LINE):
            marked = marked.append_column(name, pa.nulls(table.num_rows, pa.string()))
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = pq.ParquetWriter(self._sheet, marked.schema, coerce_timestamps="us", allow_truncated_timestamps=True)
        self._file.write_table(marked)
        self._rows += table.num_rows

    def close(self) -> LandingResult:
        """Finish the file and move it to its path."""
        self._file.close()
        os.replace(self._sheet, self._path)
        return LandingResult(self._rows, self._hasher.hexdigest())


def write_tables(parts: "Iterable[Mapping[str, pa.Table]]", folder: Path) -> dict[str, LandingResult]:
    """Append each table of every part to ``<folder>/<name>.parquet``."""
    writers: dict[str, TableWriter] = {}
    for part in parts:
        for name, table in part.items():
            writers.setdefault(name, TableWriter(folder / f"{name}.parquet")).write(table)
    return {name: writer.close() for name, writer in writers.items()}


def link_or_copy(finished: Path, out: Path) -> None:
    """Link a finished file to another path; copy it where the file system has no hard links."""
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet = out.with_suffix(f".{os.getpid()}.part")
    sheet.unlink(missing_ok=True)
    try:
        os.link(finished, sheet)
    except OSError:
        shutil.copyfile(finished, sheet)
    os.replace(sheet, out)
