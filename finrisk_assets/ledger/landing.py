"""Landing: the files of a source become one Parquet file of raw rows, complete and unchecked.

A CSV lands as text, character by character. Landing adds three columns to every row: `_row`, its number in the source from 1;
`_defects`, the faults of the line itself (`broken encoding`, `malformed row`), null for an intact line; `_line`, the original
line of a damaged row. `contract` checks the values.
"""

import codecs
import hashlib
import itertools
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.text_files.text_records import MALFORMED_ROW, TextRecord, fit_values, split_records

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ROW, DEFECTS, LINE = "_row", "_defects", "_line"
MARKS = (ROW, DEFECTS, LINE)
"""The columns that landing adds to every raw table."""

CONTENT_ID = "_content_id"
"""The column with the identifier of a row's content, where a source asks for it."""

TEST_FILE = "_is_test"
"""The column that tells rows of a file that is a stated test set, where a source states one by its files."""

_CHUNK = 1 << 20
_BATCH = 50_000
_HEADER_WITHIN = 100
"""Records of a file among which its header line is looked for."""
_FILE = "_file"
"""The column with the path of a row's file, while rows are landed."""


class LandingError(ValueError):
    """An error for a source file that cannot land; it names the file, the fault and the fix."""


@dataclass(frozen=True)
class LandingResult:
    """The number of raw rows that landed, the hash of the source's content (its data version), and the rows that repeat another.

    Repeated rows land once. They are counted where the source asks for identifiers of content, or for one row of each key.
    """

    rows: int
    sha256: str
    repeated: int = 0


@dataclass(frozen=True)
class Csv:
    """A CSV file, or several with the same columns that land in their order.

    Attributes
    ----------
    paths
        The files.
    delimiter, quote
        One character each; with an empty `quote`, quotes are plain characters. The default delimiter is that of a first line
        ``sep=;``, as Excel writes it, else a comma.
    encoding
        Python's name of the encoding; bytes outside it become U+FFFD and mark the row.
    header
        Column names, for files that have no header line; empty where the first line holds them.
    required
        Columns that the files must have.
    skip
        Lines before the header line. By default the header is the first line that names every required column.
    """

    paths: tuple[Path, ...]
    delimiter: str | None = None
    quote: str = '"'
    encoding: str = "utf-8"
    header: tuple[str, ...] = ()
    required: tuple[str, ...] = field(default=(), kw_only=True)
    skip: int | None = field(default=None, kw_only=True)


def land_csv(
    paths: Path | Sequence[Path],
    out: Path,
    *,
    delimiter: str | None = None,
    quote: str = '"',
    encoding: str = "utf-8",
    skip: int | None = None,
    header: Sequence[str] = (),
    required: Sequence[str] = (),
    with_content_id: bool = False,
) -> LandingResult:
    """Land CSV files as text; see `Csv` for the parameters, and `identify_rows` for `with_content_id`.

    DuckDB reads an intact file. Where DuckDB's rows are not exactly the file's lines (a damaged line, a line break
    inside quotes, mixed line ends, another encoding), the file is read again line by line, in constant memory.

    Raises
    ------
    LandingError
        If a file is missing, unreadable, empty, has no rows, or lacks a required column.
    """
    many = (paths,) if isinstance(paths, Path) else tuple(paths)
    file = Csv(many, delimiter, quote, encoding, tuple(header), required=tuple(required), skip=skip)
    return _land_csv(file, out, with_content_id=with_content_id)


def check_csv_columns(
    paths: Sequence[Path],
    *,
    delimiter: str | None = None,
    quote: str = '"',
    encoding: str = "utf-8",
    skip: int | None = None,
    header: Sequence[str] = (),
    required: Sequence[str] = (),
) -> None:
    """Read the headers of CSV files alone; see `Csv` for the parameters.

    Raises
    ------
    LandingError
        If a file cannot be read, is empty, or lacks a required column.
    """
    file = Csv(tuple(paths), delimiter, quote, encoding, tuple(header), required=tuple(required), skip=skip)
    for path in file.paths:
        next(_chunks(path), b"")
        _find_layout(path, file)


def check_parquet_columns(paths: Sequence[Path], required: Sequence[str]) -> None:
    """Read the schemas of Parquet files alone.

    Raises
    ------
    LandingError
        If a file cannot be read, or lacks a required column.
    """
    import pyarrow.parquet as pq

    for path in paths:
        next(_chunks(path), b"")
        try:
            schema = pq.read_schema(path)
        except Exception as error:
            kind = type(error).__name__
            raise LandingError(f"{path} cannot be read as Parquet ({kind}); is it another format, or cut short?") from None
        _column_names(path, schema.names, required)


def land_parquet(paths: Path | Sequence[Path], out: Path, *, required: Sequence[str] = (), with_content_id: bool = False) -> LandingResult:
    """Land Parquet files with their own types; timestamps become naive UTC, to the microsecond.

    Raises
    ------
    LandingError
        If a file is missing, unreadable, has no rows, or lacks a required column.
    """
    files = (paths,) if isinstance(paths, Path) else tuple(paths)
    digest = _digest(files)
    check_parquet_columns(files, required)
    with _duckdb() as connection:
        read = f"read_parquet({_list([escape_pattern(path) for path in files])}, hive_partitioning=false"
        described = connection.execute(f"DESCRIBE SELECT * FROM {read})").fetchall()
        columns = ", ".join(_plain(name, kind) for name, kind, *_ in described)
        own, option = (f", {_FILE}", f", filename='{_FILE}'") if with_content_id else ("", "")
        rows = _copy(connection, f"SELECT {columns}{own} FROM {read}{option})", out)
    if not rows:
        raise LandingError(f"{_names(files)} has columns but no rows; was the export cut short?")
    return identify_rows(out, digest) if with_content_id else LandingResult(rows, digest)


def escape_pattern(path: Path) -> str:
    """Return a path as the pattern that DuckDB's file functions read: it matches this path and no other."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))


def identify_rows(landed: Path, sha256: str) -> LandingResult:
    """Give every landed row the identifier of its content, and keep a row that several files repeat once.

    The identifier is the beginning of the SHA-256 of the row's values in normal form. The second of several equal rows of one file
    ends with ``-2`` and so on: two equal payments of one day are two. Neither the order of files nor a file that comes later changes
    an identifier. A row that cannot be read has that of its line.

    Parameters
    ----------
    landed
        Landed rows with the column `_FILE`, which is taken away.
    sha256
        The data version of the files.
    """
    part = landed.with_name(f".{landed.name}.content.parquet")
    source = f"read_parquet({_text(escape_pattern(landed))}, hive_partitioning=false)"
    with _duckdb() as connection:
        ((before,),) = connection.execute(f"SELECT count(*) FROM {source}").fetchall()
        names = [name for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
        names = [_name(name) for name in names if name not in (*MARKS, _FILE)]
        values = ", ".join(f"coalesce(nfc_normalize(trim({name}::VARCHAR)), chr(30))" for name in names)
        query = f"""
            WITH hashed AS (SELECT *, sha256(coalesce({LINE}, concat_ws(chr(31), {values}))) AS _hash FROM {source}),
            counted AS (SELECT *, row_number() OVER (PARTITION BY _hash, {_FILE} ORDER BY {ROW}) AS _nth FROM hashed),
            kept AS (SELECT * FROM counted QUALIFY row_number() OVER (PARTITION BY _hash, _nth ORDER BY {ROW}) = 1)
            SELECT row_number() OVER (ORDER BY {ROW}) AS {ROW}, {", ".join(names)},
                left(_hash, 32) || CASE WHEN _nth > 1 THEN '-' || _nth ELSE '' END AS {CONTENT_ID}, {DEFECTS}, {LINE}
            FROM kept ORDER BY {ROW}
        """
        ((rows,),) = connection.execute(f"COPY ({query}) TO {_text(str(part))} (FORMAT parquet)").fetchall()
    part.replace(landed)
    return LandingResult(int(rows), sha256, int(before) - int(rows))


def keep_first_rows(landed: Path, names: Sequence[str], result: LandingResult) -> LandingResult:
    """Keep of the landed rows with equal values the first; rows that cannot be read stay, for the quarantine.

    Parameters
    ----------
    landed
        The Parquet file, which is written anew.
    names
        The columns whose values are compared, in normal form.
    result
        What has landed.
    """
    part = landed.with_name(f".{landed.name}.first.parquet")
    source = f"read_parquet({_text(escape_pattern(landed))}, hive_partitioning=false)"
    values = ", ".join(f"nfc_normalize(trim({_name(name)}::VARCHAR))" for name in names)
    with _duckdb() as connection:
        kept = f"{DEFECTS} IS NOT NULL OR row_number() OVER (PARTITION BY {DEFECTS} IS NULL, {values} ORDER BY {ROW}) = 1"
        query = f"SELECT * FROM {source} QUALIFY {kept} ORDER BY {ROW}"
        ((rows,),) = connection.execute(f"COPY ({query}) TO {_text(str(part))} (FORMAT parquet)").fetchall()
    part.replace(landed)
    return LandingResult(int(rows), result.sha256, result.repeated + result.rows - int(rows))


def append_test_rows(landed: Path, tests: Path, results: tuple[LandingResult, LandingResult]) -> LandingResult:
    """Add the landed rows of test files to those of the others, with the column `TEST_FILE`.

    Parameters
    ----------
    landed, tests
        The Parquet files of both; the first is written anew, the second taken away.
    results
        What has landed in each.
    """
    part = landed.with_name(f".{landed.name}.joined.parquet")
    first, second = (f"read_parquet({_text(escape_pattern(path))}, hive_partitioning=false)" for path in (landed, tests))
    own = f"SELECT *, false AS {TEST_FILE} FROM {first}"
    others = f"SELECT * REPLACE ({ROW} + {results[0].rows} AS {ROW}), true AS {TEST_FILE} FROM {second}"
    with _duckdb() as connection:
        query = f"SELECT * FROM ({own} UNION ALL BY NAME {others}) ORDER BY {ROW}"
        ((rows,),) = connection.execute(f"COPY ({query}) TO {_text(str(part))} (FORMAT parquet)").fetchall()
    part.replace(landed)
    tests.unlink()
    return LandingResult(int(rows), _digest_of([one.sha256 for one in results]), sum(one.repeated for one in results))


def land_arrow(table: "pa.Table", out: Path) -> LandingResult:
    """Land rows from memory (those of a simulator); the hash is that of their content.

    Parameters
    ----------
    table
        Any number of rows; timestamps to the microsecond.
    out
        The Parquet file to write.
    """
    import pyarrow as pa

    table = table.combine_chunks()
    hasher = hashlib.sha256()
    with pa.ipc.new_stream(_Hashing(hasher), table.schema) as stream:
        stream.write_table(table)
    _write(out, [_marked(table, 1)])
    return LandingResult(table.num_rows, hasher.hexdigest())


def land_joined(base: Csv, lookups: Mapping[str, Csv], query: str, out: Path) -> LandingResult:
    """Land a file together with columns looked up in other files, for a normalised source.

    Parameters
    ----------
    base
        The file whose rows land; damaged rows keep their marks.
    lookups
        Name in the query -> file. A look-up file must be intact, because its rows have no quarantine of their own.
    query
        DuckDB SQL over the view ``base`` and one view per look-up; it must hand on `MARKS` and never multiply a row.
    out
        The Parquet file to write.

    Raises
    ------
    LandingError
        As `land_csv`; also if a look-up file is damaged, or the query gives a row twice.
    """
    digests = []
    with tempfile.TemporaryDirectory() as folder, _duckdb() as connection:
        for name, file in {"base": base, **lookups}.items():
            landed = Path(folder) / f"{name}.parquet"
            digests.append(_land_csv(file, landed).sha256)
            connection.execute(f'CREATE VIEW "{name}" AS FROM read_parquet({_text(escape_pattern(landed))})')
            if name != "base":
                _refuse_damage(connection, name, file)
        out.parent.mkdir(parents=True, exist_ok=True)
        connection.execute(f"COPY (SELECT * FROM ({query}) ORDER BY {ROW}) TO {_text(str(out))} (FORMAT parquet)").fetchall()
        ((rows, distinct),) = connection.execute(
            f"SELECT count(*), count(DISTINCT {ROW}) FROM read_parquet({_text(escape_pattern(out))})"
        ).fetchall()
    if rows != distinct:
        raise LandingError(f"{_names(base.paths)}: {rows - distinct} rows came twice through a look-up; its key must be unique")
    return LandingResult(rows, _digest_of(digests))


def _refuse_damage(connection: "duckdb.DuckDBPyConnection", view: str, file: Csv) -> None:
    """Raise LandingError where a look-up file has a damaged row."""
    query = f'SELECT {ROW}, {DEFECTS} FROM "{view}" WHERE {DEFECTS} IS NOT NULL ORDER BY {ROW} LIMIT 1'
    for row, defects in connection.execute(query).fetchall():
        raise LandingError(f"{_names(file.paths)}, row {row}: {defects}; other tables look values up here, so mend it first")


# --- CSV -----------------------------------------------------------------------------------------------------------


def _land_csv(file: Csv, out: Path, *, with_content_id: bool = False) -> LandingResult:
    shapes = [_examine(path) for path in file.paths]
    layouts = [_find_layout(path, file) for path in file.paths]
    names = layouts[0].names
    for path, layout in zip(file.paths, layouts, strict=True):
        if layout.names != names:
            raise LandingError(
                f"{path} has the columns {', '.join(layout.names)}, but {file.paths[0]} has {', '.join(names)}; give them one header"
            )
    rows = _land_with_duckdb(file, layouts, shapes, out, with_file=with_content_id)
    if rows is None:
        rows = _land_by_line(file, layouts, out, with_file=with_content_id)
    if not rows:
        raise LandingError(f"{_names(file.paths)} has a header but no rows; was the export cut short?")
    digest = _digest_of([file_shape.sha256 for file_shape in shapes])
    return identify_rows(out, digest) if with_content_id else LandingResult(rows, digest)


@dataclass(frozen=True)
class _Shape:
    """A file's hash, its number of lines, and its line end where it has only one kind."""

    sha256: str
    lines: int
    newline: str | None


def _examine(path: Path) -> _Shape:
    """Hash a file and count its line ends, in constant memory."""
    hasher, counts, last = hashlib.sha256(), {b"\r\n": 0, b"\n": 0, b"\r": 0}, b""
    for chunk in _chunks(path):
        hasher.update(chunk)
        for end in counts:
            counts[end] += chunk.count(end)
        counts[b"\r\n"] += last == b"\r" and chunk[:1] == b"\n"
        last = chunk[-1:]
    if not last:
        raise LandingError(f"{path} is empty (0 bytes); was the export cut short?")
    pairs = counts[b"\r\n"]
    counts[b"\n"] -= pairs
    counts[b"\r"] -= pairs
    used = [end for end, count in counts.items() if count]
    lines = sum(counts.values()) + (last not in b"\r\n")
    return _Shape(hasher.hexdigest(), lines, used[0].decode() if len(used) == 1 else None)


@dataclass(frozen=True)
class _Layout:
    """The columns of one file, its delimiter, the lines before its first row, and its header as it is written."""

    names: tuple[str, ...]
    delimiter: str
    lines_before: int
    header: tuple[str, ...]


def _find_layout(path: Path, file: Csv) -> _Layout:
    """Return the layout of a file, checked: its header is found below a preamble, and its delimiter in a line ``sep=``."""
    first = next(_lines(path, file.encoding), ("", False))[0]
    stated = re.fullmatch(r"\"?sep=([^\r\n])\"?[\r\n]*", first)
    delimiter = file.delimiter or (stated[1] if stated else ",")
    skip = max(file.skip or 0, 1 if stated else 0)
    if file.header:
        return _Layout(_column_names(path, file.header, file.required, header_line=False), delimiter, skip, file.header)
    records = itertools.islice(_records(path, file, delimiter, skip), 1 if file.skip is not None else _HEADER_WITHIN)
    header: TextRecord | None = None
    for record in records:
        is_header = not record.defects and set(file.required) <= set(record.values)
        if header is None or is_header:
            header = record
        if is_header:
            break
    if header is None:
        raise LandingError(f"{path} holds nothing but blank lines")
    if header.defects or any("\0" in name for name in header.values):
        raise LandingError(f"{path}: the header line cannot be read as {file.encoding}; state its encoding, or save it as a UTF-8 CSV")
    names = _column_names(path, header.values, file.required)
    return _Layout(names, delimiter, header.first_line + header.n_lines, tuple(header.values))


def _column_names(path: Path, names: Sequence[str], required: Iterable[str], *, header_line: bool = True) -> tuple[str, ...]:
    """Return the names of a file's columns, each once: a column without a name, or with that of another, gets one by its place.

    Refuse a header that lacks a required column, or names it twice.
    """
    lowered = [name.lower() for name in names]
    reserved = sorted(set(lowered) & {*MARKS, CONTENT_ID, _FILE})
    if reserved:
        raise LandingError(f"{path}: the column {reserved[0]} has a name that is kept for landing; rename it")
    twice = sorted({name for name in required if lowered.count(name.lower()) > 1})
    if twice:
        raise LandingError(f"{path}: the header names {', '.join(twice)} more than once; rename one of them")
    missing = [name for name in required if name not in names]
    if missing:
        # Without a header line the names would be values of a row, which may be personal: they are not repeated.
        listed = ", ".join(names)
        if header_line and not any(name in names for name in required):
            listed = "none of the columns expected: is the header line missing, or the delimiter another?"
        raise LandingError(f"{path} has no column {', '.join(repr(name) for name in missing)}; it has {listed}")
    unique: list[str] = []
    for number, name in enumerate(names, 1):
        own = name if name.strip() else f"column_{number}"
        while own.lower() in (other.lower() for other in unique) or (own != name and own.lower() in lowered):
            own = f"{own}_{number}"
        unique.append(own)
    return tuple(unique)


def _land_with_duckdb(file: Csv, layouts: Sequence[_Layout], shapes: Sequence[_Shape], out: Path, *, with_file: bool) -> int | None:
    """Land through DuckDB; None where its rows are not exactly the lines of the files."""
    import duckdb

    newlines = {shape.newline for shape in shapes}
    if file.encoding.lower().replace("_", "-") not in ("utf-8", "utf8", "utf-8-sig") or len(newlines) != 1 or None in newlines:
        return None
    if len({(layout.delimiter, layout.lines_before) for layout in layouts}) > 1:
        return None
    layout, option = layouts[0], f", filename='{_FILE}'" if with_file else ""
    columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in layout.names)
    read = (
        f"read_csv({_list([escape_pattern(path) for path in file.paths])}, auto_detect=false, strict_mode=true, hive_partitioning=false, "
        f"header=false, skip={layout.lines_before}, columns={{{columns}}}, "
        f"delim={_text(layout.delimiter)}, quote={_text(file.quote)}, escape={_text(file.quote)}, "
        f"nullstr='\x01', max_line_size=16777216{option})"
    )
    with _duckdb() as connection:
        try:
            rows = _copy(connection, f"SELECT * FROM {read}", out)
        except duckdb.Error:
            return None
    lines = sum(shape.lines - layout.lines_before for shape in shapes)
    return rows if rows == lines else None


def _land_by_line(file: Csv, layouts: Sequence[_Layout], out: Path, *, with_file: bool) -> int:
    """Land line by line, in batches: slower, but no line can be lost or swallow another."""
    import pyarrow as pa

    names, own = layouts[0].names, (_FILE,) * with_file
    strings = pa.schema([*((name, pa.string()) for name in (*names, *own)), (DEFECTS, pa.string()), (LINE, pa.string())])
    width, counted = len(names), 0

    def batches() -> Iterator["pa.Table"]:
        rows: list[tuple[str | None, ...]] = []
        for path, layout in zip(file.paths, layouts, strict=True):
            for record in _records(path, file, layout.delimiter, layout.lines_before):
                defects = record.defects
                values: Sequence[str | None] | None = None if MALFORMED_ROW in defects else fit_values(record.values, layout.header)
                if values is None:
                    values, defects = [None] * width, [MALFORMED_ROW, *(d for d in defects if d != MALFORMED_ROW)]
                rows.append((*values, *((str(path),) * with_file), "; ".join(defects) or None, record.line if defects else None))
                if len(rows) == _BATCH:
                    yield flush(rows)
                    rows = []
        yield flush(rows)

    def flush(rows: Sequence[tuple[str | None, ...]]) -> "pa.Table":
        nonlocal counted
        columns = zip(*rows, strict=True) if rows else [()] * len(strings)
        arrays = [pa.array(column, pa.string()) for column in columns]
        first, counted = counted + 1, counted + len(rows)
        return _marked(pa.Table.from_arrays(arrays, schema=strings), first)

    _write(out, batches())
    return counted


def _records(path: Path, file: Csv, delimiter: str, skip: int) -> Iterator[TextRecord]:
    """Yield each record of a file after the first `skip` lines; leave blank lines out."""
    yield from split_records(itertools.islice(_lines(path, file.encoding), skip, None), file.quote, delimiter, skip)


def _lines(path: Path, encoding: str) -> Iterator[tuple[str, bool]]:
    """Yield each line with its end, and whether it holds bytes that are not of the encoding."""
    try:
        codec = codecs.lookup(encoding)
    except LookupError:
        raise LandingError(f"{path}: {encoding!r} is no encoding that Python knows; say for instance utf-8 or cp1250") from None
    if codec.name.startswith(("utf-16", "utf-32")):
        # Their line ends are not single bytes: only the decoded text can be split.
        with path.open(encoding=encoding, errors="replace", newline="") as text:
            for line in text:
                yield line, "\ufffd" in line
        return
    # Latin-1 maps every byte to one character and back: it splits lines at any line end without judging the bytes.
    with path.open(encoding="latin-1", newline="") as text:
        for number, line in enumerate(text):
            data = line.encode("latin-1")
            if number == 0:
                data = data.removeprefix(codecs.BOM_UTF8)
            try:
                yield codec.decode(data)[0], False
            except UnicodeDecodeError:
                yield codec.decode(data, "replace")[0], True


# --- files ---------------------------------------------------------------------------------------------------------


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except FileNotFoundError:
        raise LandingError(f"there is no file {path}; check the path, or the folder that FINRISK_DATA_DIR names") from None
    except OSError as error:
        raise LandingError(f"{path} cannot be read: {error.strerror or error}; check that it is a file and may be read") from None


def _digest(paths: Sequence[Path]) -> str:
    digests = []
    for path in paths:
        hasher, size = hashlib.sha256(), 0
        for chunk in _chunks(path):
            hasher.update(chunk)
            size += len(chunk)
        if not size:
            raise LandingError(f"{path} is empty (0 bytes); was the export cut short?")
        digests.append(hasher.hexdigest())
    return _digest_of(digests)


def _digest_of(digests: Sequence[str]) -> str:
    """Return the one hash, or the hash of several in their order."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)


class _Hashing:
    """A writable file that keeps only the hash of its content."""

    closed = False

    def __init__(self, hasher: Any) -> None:
        self.write: Callable[[bytes], None] = hasher.update

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""


def _marked(table: "pa.Table", first: int) -> "pa.Table":
    """Return the rows with `MARKS`, `_row` first, numbered from `first`."""
    import pyarrow as pa

    for name in (DEFECTS, LINE):
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
    return table.add_column(0, pa.field(ROW, pa.int64()), pa.array(range(first, first + table.num_rows), pa.int64()))


def _write(out: Path, tables: Iterable["pa.Table"]) -> None:
    import pyarrow.parquet as pq

    out.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    for table in tables:
        if writer is None:
            writer = pq.ParquetWriter(out, table.schema, coerce_timestamps="us", allow_truncated_timestamps=True)
        writer.write_table(table)
    if writer:
        writer.close()


# --- DuckDB --------------------------------------------------------------------------------------------------------


def _duckdb() -> "duckdb.DuckDBPyConnection":
    import duckdb

    # One thread: the same rows give the same Parquet, byte for byte.
    return duckdb.connect(config={"threads": 1})


def _copy(connection: "duckdb.DuckDBPyConnection", query: str, out: Path) -> int:
    """Write a query's rows with `MARKS` to Parquet and return their number."""
    out.parent.mkdir(parents=True, exist_ok=True)
    marks = f"row_number() OVER () AS {ROW}, *, NULL::VARCHAR AS {DEFECTS}, NULL::VARCHAR AS {LINE}"
    done = connection.execute(f"COPY (SELECT {marks} FROM ({query})) TO {_text(str(out))} (FORMAT parquet)").fetchall()
    return int(done[0][0])


def _plain(name: str, kind: str) -> str:
    """Return a column as every engine can read it: timestamps naive UTC, to the microsecond."""
    quoted = _name(name)
    if kind == "TIMESTAMP WITH TIME ZONE":  # a cast would use the session's time zone
        return f"make_timestamp(epoch_us({quoted})) AS {quoted}"
    return f"{quoted}::TIMESTAMP AS {quoted}" if kind.startswith("TIMESTAMP") else quoted


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"
