"""The import of files that are not described yet: statements become CSVs, and a mapping is proposed and written."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from finrisk_assets.ledger.intake.proposal import Ask, ask_currency, propose_table, read_files, write_yaml
from finrisk_assets.ledger.intake.statements import convert_to_csv, is_convertible
from finrisk_assets.ledger.landing import LandingError
from finrisk_assets.ledger.unpacked_files import unpack_files
from finrisk_assets.objects.addresses import find_address
from finrisk_assets.objects.object_copies import open_copies
from finrisk_assets.objects.object_store import StoredObject, list_objects
from schemas.text_files.column_names import fold


def propose_mapping(paths: Sequence[Path], table: str | None, out: Path | None, ask: Ask, *, overwrites: bool = False) -> str:
    """Propose a mapping of files, and write it.

    Parameters
    ----------
    paths
        CSV, TSV and Parquet files, statements and workbooks, packed by gzip or not; the latter are converted to a CSV beside the mapping.
        Also addresses in a bucket, with a star for several objects.
    table
        The ledger table of the files, where it is known.
    out
        The mapping to write; by default none is.
    ask
        Called where the files leave something open.
    overwrites
        Whether files that are there already may be written anew.

    Returns
    -------
    str
        The mapping as YAML.

    Raises
    ------
    LandingError
        If a file cannot be read, two files would be the same table, or a file is there already.
    finrisk_assets.objects.addresses.ObjectError
        If an object cannot be read.
    """
    if out:
        _refuse_existing(out, overwrites=overwrites)
    found = [file for path in paths for file in _find_files(path)]
    with tempfile.TemporaryDirectory(prefix="finrisk-import-") as root:
        scratch = Path(root).resolve()
        with open_copies(found, scratch) as copies, unpack_files(copies, scratch) as files:
            names = {copy: str(file) for copy, file in zip(files, found, strict=True)}
            text = _propose(files, names, table, out, ask, overwrites=overwrites)
    if out:
        out.write_text(text, encoding="utf-8")
    return text


def _find_files(path: Path) -> Sequence[Path | StoredObject]:
    address = find_address(path)
    return list_objects(address) if address else [path.resolve()]


def _propose(paths: Sequence[Path], names: Mapping[Path, str], table: str | None, out: Path | None, ask: Ask, *, overwrites: bool) -> str:
    """Return the mapping of local files, which it calls by `names`."""
    folder = out.resolve().parent if out else Path.cwd()
    files = read_files([_as_table_file(path, out, folder, overwrites=overwrites) for path in paths])
    if table and len(files) > 1:
        raise LandingError(f"the files have different columns, so they cannot all be {table}; import them one by one")
    tables = [propose_table(file, table, ask) for file in files]
    proposed = [one.name for one in tables]
    for name in proposed:
        if proposed.count(name) > 1:
            raise LandingError(f"two files with different columns both look like {name}; import them one by one, with --as")
    return write_yaml(fold(out.stem) if out else "own", tables, ask_currency(tables, ask), folder, names)


def _as_table_file(path: Path, out: Path | None, folder: Path, *, overwrites: bool) -> Path:
    """Return a file that can land: a statement or a workbook is converted."""
    if not is_convertible(path):
        return path
    if out is None:
        raise LandingError(f"{path} is converted to a CSV beside the mapping; say with -o where that is")
    converted = folder / f"{path.stem}.csv"
    _refuse_existing(converted, overwrites=overwrites)
    convert_to_csv(path, converted)
    return converted


def _refuse_existing(path: Path, *, overwrites: bool) -> None:
    if path.exists() and not overwrites:
        raise LandingError(f"{path} is there already; say another with -o, or write it anew with --overwrite")
