"""The marts as files: Parquet and CSV, the same bytes for the same rows, and Tableau extracts where `pantab` is installed.

The rows pass through a DuckDB of their own, whatever engine the warehouse is: identifiers become pseudonyms there, so that their key never
reaches the warehouse, and rows are sorted by what is shown, so that their order says nothing of the identifiers.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain
from finrisk_assets.ledger.landing import escape_pattern
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.marts.mart_tables import (
    KIND,
    STORE_MARTS,
    Mart,
    TableOf,
    build_customers,
    build_scores,
    describe_columns,
    list_marts,
)
from finrisk_assets.marts.pseudonyms import define_pseudonym, read_key
from finrisk_assets.objects.file_sets import publish_files
from finrisk_assets.private_files import make_private_folder
from finrisk_assets.settings import Settings
from schemas.ledger import ARROW_TYPES, Column
from schemas.marts import DICTIONARY

if TYPE_CHECKING:
    import duckdb
    from ibis.expr.types import Table as LazyTable

CHUNK_ROWS = 100_000
"""Rows that are handed over at a time. More need more memory."""
ROW_GROUP_ROWS = 122_880
"""Rows of a row group of a Parquet file: DuckDB's own default, named because the bytes depend on it."""
MEMORY_SHARE, LEAST_MEMORY_GB = 0.25, 0.25
"""Memory of the exports' DuckDB as a share of the warehouse's, which has its own at the same time (more is hardly faster), and the GB that
a sort needs: less only where the warehouse has less."""
EXTRACT = "hyper"
"""Ending of the name of a Tableau extract."""


class MartError(RuntimeError):
    """Marts that cannot be written; the message says why."""


@dataclass(frozen=True)
class WrittenMart:
    """A mart as it was written: its contract, its number of rows, and its files."""

    mart: Mart
    rows: int
    files: Sequence[Path]


def mart_folder(settings: Settings) -> Path:
    """Return the folder of the marts of a source."""
    return settings.root / "marts"


def has_tableau() -> bool:
    """Return whether Tableau extracts can be written: `pantab` is installed."""
    return find_spec("pantab") is not None


def has_store(settings: Settings) -> bool:
    """Return whether the service has a store: a server's is taken to be there."""
    return bool(settings.store_url) or (settings.root / "service" / "store.sqlite").is_file()


def find_memory_gb(warehouse_gb: float) -> float:
    """Return the memory of the exports' DuckDB in GB, beside that of the warehouse's."""
    return max(warehouse_gb * MEMORY_SHARE, min(warehouse_gb, LEAST_MEMORY_GB))


def write_marts(folder: Path, source: Source, scored: Sequence[Domain], table: TableOf, settings: Settings) -> list[WrittenMart]:
    """Write every mart of a source to a folder, each file replaced as a whole, and remove files of marts that are no more.

    Parameters
    ----------
    scored
        The domains that have batch scores.
    table
        Returns a stored table of the warehouse by its name.

    Raises
    ------
    MartError
        Where the service's store cannot be read; no file is changed.
    """
    import duckdb

    make_private_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part, duckdb.connect() as connection:
        fresh = Path(part)
        connection.execute("SET threads = 1")  # the same order of rows and row groups on every machine
        connection.execute("SET temp_directory = ?", [str(fresh / "spill")])
        connection.execute("SET memory_limit = ?", [f"{find_memory_gb(settings.warehouse_memory_gb)}GB"])
        connection.execute(define_pseudonym(None if settings.export_identifiers else read_key(settings.root / "pseudonyms.key")))
        marts = list_marts(source, scored, has_store=has_store(settings))
        if has_store(settings):
            _copy_store_rows(connection, build_customers(source, table), fresh, settings)
        counts = [_write_files(connection, mart, _open_rows(connection, mart, scored, table, fresh, marts), fresh) for mart in marts]
        return [WrittenMart(mart, rows, _put_in_place(mart, fresh, folder)) for mart, rows in zip(marts, counts, strict=True)]


def publish_marts(written: Sequence[WrittenMart], address: str) -> None:
    """Copy written marts to an address in a bucket, as a set with a manifest.

    Raises
    ------
    finrisk_assets.objects.addresses.ObjectError
        If the bucket cannot be written.
    """
    publish_files({file.name: file for one in written for file in one.files}, address)


def _copy_store_rows(connection: "duckdb.DuckDBPyConnection", customers: "LazyTable", folder: Path, settings: Settings) -> None:
    """Let the service's half write the rows of its store, in a process of its own: the graph never imports it."""
    connection.register("incoming", customers.to_pyarrow())
    query = "SELECT customer_id, shown('customer_id', customer_id) AS shown FROM incoming"
    connection.execute(f"COPY ({query}) TO {_quote(folder / 'customers.parquet')} (FORMAT parquet)")
    own = {
        "HOME": settings.home, "SOURCE": settings.source, "MAPPING": settings.mapping, "STORE_URL": settings.store_url,
        "MASTER_KEY": settings.master_key, "MASTER_KEY_FILE": settings.master_key_file,
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINRISK_")}
    environment |= {f"FINRISK_{name}": str(value) for name, value in own.items() if value}
    command = [sys.executable, "-m", "bento.people.mart_rows", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise MartError(f"no mart was written: {done.stderr.strip().splitlines()[-1]}")


def _open_rows(
    connection: "duckdb.DuckDBPyConnection", mart: Mart, scored: Sequence[Domain], table: TableOf, folder: Path, marts: Sequence[Mart]
) -> str:
    """Return the query of a mart's rows as they are shown, in their order."""
    import pyarrow as pa

    columns = ", ".join(f'{_show(mart, column)} AS "{column.name}"' for column in mart.table.columns)
    # Rows of the store are in the order of writing already; others are ordered by what is shown.
    if mart.table in STORE_MARTS:
        return f"SELECT {columns} FROM read_parquet({_quote(escape_pattern(folder / f'from_store_{mart.name}.parquet'))})"
    if mart.table is DICTIONARY:
        schema = pa.schema([(column.name, pa.type_for_alias(ARROW_TYPES[column.dtype])) for column in mart.table.columns])
        connection.register("incoming", pa.Table.from_pylist(describe_columns(marts), schema))
        return f"SELECT {columns} FROM incoming"
    rows = build_scores(scored, table) if mart.name == "scores" else table(f"validated_{mart.name}")
    parts = folder / f"{mart.name}_parts"
    parts.mkdir()
    _write_parts(connection, rows, columns, parts)
    return f"FROM read_parquet({_quote(escape_pattern(parts) + '/*.parquet')}) ORDER BY ALL"


def _write_parts(connection: "duckdb.DuckDBPyConnection", rows: "LazyTable", columns: str, folder: Path) -> None:
    """Write the engine's rows as they are shown to files of `CHUNK_ROWS` rows.

    The sort cannot read the engine's batches themselves: pyarrow, by which DuckDB reads them, would hold gigabytes of them ready.
    """
    import pyarrow as pa

    batches = rows.to_pyarrow_batches(chunk_size=CHUNK_ROWS)
    # The first part has no row, so that there is one where the table is empty.
    for number, part in enumerate(chain([[]], ([batch] for batch in batches))):
        connection.register("incoming", pa.Table.from_batches(part, batches.schema))
        connection.execute(f"COPY (SELECT {columns} FROM incoming) TO {_quote(folder / f'{number}.parquet')} (FORMAT parquet)")


def _write_files(connection: "duckdb.DuckDBPyConnection", mart: Mart, query: str, folder: Path) -> int:
    """Write a mart as Parquet and CSV, and as a Tableau extract where there is one; return the number of rows."""
    parquet, csv = folder / f"{mart.name}.parquet", folder / f"{mart.name}.csv"
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}"
    connection.execute(f"COPY ({query}) TO {_quote(parquet)} ({options})")
    shutil.rmtree(folder / f"{mart.name}_parts", ignore_errors=True)
    counted = connection.execute(
        f"COPY (FROM read_parquet({_quote(escape_pattern(parquet))})) TO {_quote(csv)} (FORMAT csv, HEADER)"
    ).fetchone()
    if has_tableau():
        _write_extract(parquet, folder / f"{mart.name}.{EXTRACT}", mart.name)
    return 0 if counted is None else int(counted[0])


def _show(mart: Mart, column: Column) -> str:
    """Return the SQL expression of a column: the pseudonym of an identifier, else the value."""
    if column.personal != "identifier" or (mart.table in STORE_MARTS and column.name == "customer_id"):
        return f'"{column.name}"'
    kind = {"assignee": "'caller'", "subject_id": KIND}.get(column.name, f"'{column.name}'")
    return f'shown({kind}, "{column.name}")'


def _write_extract(parquet: Path, extract: Path, name: str) -> None:
    """Write a Parquet file as a Tableau extract, a row group in memory at a time."""
    import pantab
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Not a scanner of a dataset, which reads a gigabyte ahead.
    file = pq.ParquetFile(parquet)
    rows = pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(batch_size=CHUNK_ROWS))
    pantab.frame_to_hyper(rows, extract, table=name)


def _put_in_place(mart: Mart, fresh: Path, folder: Path) -> list[Path]:
    """Move a mart's files to the folder, and remove an extract that was not written again."""
    files = []
    for ending in ("parquet", "csv", EXTRACT):
        file = folder / f"{mart.name}.{ending}"
        if (fresh / file.name).exists():
            files.append((fresh / file.name).replace(file))
        else:
            file.unlink(missing_ok=True)
    return files


def find_faults(folder: Path, counts: Mapping[str, int]) -> list[str]:
    """Read the marts of a folder back; return each fault as a sentence.

    Parameters
    ----------
    counts
        Mart to the number of rows that its table has, of the marts that come from the ledger.
    """
    import duckdb
    import pyarrow.parquet as pq

    dictionary = folder / f"{DICTIONARY.name}.parquet"
    if not dictionary.is_file():
        return [f"there are no marts in {folder}"]
    columns: dict[str, list[str]] = {}
    for row in pq.read_table(dictionary).sort_by([("mart", "ascending"), ("position", "ascending")]).to_pylist():
        columns.setdefault(row["mart"], []).append(row["name"])
    faults = [f"the dictionary has no column of {name}" for name in counts if name not in columns]
    for name, names in columns.items():
        parquet, csv, extract = (folder / f"{name}.{ending}" for ending in ("parquet", "csv", EXTRACT))
        stored = pq.read_metadata(parquet)
        found = {"parquet": (stored.schema.to_arrow_schema().names, stored.num_rows)}
        text = duckdb.read_csv(escape_pattern(csv), header=True, all_varchar=True)
        found["csv"] = (text.columns, text.shape[0])
        if has_tableau():
            found[EXTRACT] = _read_extract(extract, name)
        for ending, (found_names, n_rows) in found.items():
            if list(found_names) != names:
                faults.append(f"{name}.{ending} has other columns than the dictionary: {', '.join(sorted({*found_names} ^ {*names}))}")
            if n_rows != counts.get(name, stored.num_rows):
                faults.append(f"{name}.{ending} has {n_rows:,} rows, its table {counts.get(name, stored.num_rows):,}")
    return faults


def _read_extract(extract: Path, name: str) -> tuple[list[str], int]:
    """Return the columns and the number of rows of a Tableau extract."""
    import pantab

    def select(what: str) -> Any:
        return pantab.frame_from_hyper_query(extract, f'SELECT {what} FROM "public"."{name}" LIMIT 1', return_type="pyarrow")

    return select("*").column_names, int(select("COUNT(*) AS n")["n"][0].as_py())


def _quote(path: Path | str) -> str:
    """Return a path as a literal of SQL."""
    return "'" + str(path).replace("'", "''") + "'"
