"""Tests that `finrisk import` proposes what a user would write for the ten invented data sets."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from finrisk_assets.ledger.intake.import_files import propose_mapping
from schemas.mapping import ColumnMap, ExtraColumn, TableMap, read_mapping
from tests.mapped.own_files import DATA_SETS, make_files

LEAST_SHARE = 0.95
ISO = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S")
NUMBERS = ("int64", "float64")

_TYPES = {"gender": "text, none", "is_default": "boolean, none", "customer_id": "text, none"}
"""Role -> the role of a column of one's own with such values."""


def describe_column(how: ColumnMap, name: str) -> tuple[object, ...]:
    """Return the role or type of a column, and how its values are read; what means the same reads the same."""
    is_extra = isinstance(how, ExtraColumn)
    role = name
    if is_extra:
        # A category of few levels is proposed as a column of true and false for each.
        is_category = how.type == "string" or (how.type == "boolean" and how.otherwise is not None)
        role = "number" if how.type in NUMBERS else "text" if is_category else how.type
        role = f"{role}, {how.personal}"
    marks = (how.decimal, how.thousands) if how.decimal != "." else ()
    codes = tuple(sorted(str(code) for code in how.missing if str(code).lstrip("-").isdigit()))
    meanings = () if is_extra else tuple(sorted((str(code).lower(), str(meaning).lower()) for code, meaning in how.values.items()))
    return role, None if how.format in ISO else how.format, marks, codes, meanings


def describe_columns(tables: Mapping[str, TableMap]) -> dict[str, set[tuple[object, ...]]]:
    """Return what each column of the files becomes."""
    columns: dict[str, set[tuple[object, ...]]] = {}
    for table in tables.values():
        common = tuple(code for code in table.missing if str(code).lstrip("-").isdigit())
        for name, how in table.maps.items():
            number = isinstance(how, ExtraColumn) and how.type in NUMBERS
            for column in how.reads:
                whole = how.model_copy(update={"missing": (*how.missing, *common)}) if number else how
                columns.setdefault(column, set()).add(describe_column(whole, name))
    for table in tables.values():
        if table.split:
            columns[table.split.column] = {("split", *table.split.test)}
    return columns


def read_columns(name: str, folder: Path) -> Iterator[tuple[str, set[tuple[object, ...]], set[tuple[object, ...]]]]:
    """Yield each column of a data set with what its mapping makes of it, and what the import proposes."""
    files = make_files(name)
    mapping = read_mapping(files.write(folder))
    wanted = describe_columns(mapping.tables)
    header = next((table.header for table in mapping.tables.values() if table.header), ())
    out = folder / "proposed.yaml"
    propose_mapping([folder / file for file in files.files], "loans" if header else None, out, lambda question, choices, likely: likely)
    proposed = describe_columns(read_mapping(out).tables)
    for column, expected in wanted.items():
        if header:  # nothing tells the roles of columns without a name, but their types
            found = {(_TYPES.get(str(role), role),) for role, *_ in proposed.get(f"column_{header.index(column) + 1}", set())}
            yield f"{name}: {column}", {(_TYPES.get(str(role), role),) for role, *_ in expected}, found
        else:
            yield f"{name}: {column}", expected, proposed.get(column, set())


def test_the_import_proposes_type_format_and_role_of_nearly_every_column(tmp_path):
    right, misses = 0, []
    for name in DATA_SETS:
        folder = tmp_path / name
        folder.mkdir()
        for column, expected, found in read_columns(name, folder):
            if expected & found:
                right += 1
            else:
                misses.append(f"{column}: proposed {sorted(map(str, found))}, not {sorted(map(str, expected))}")
    print("\n".join(misses))
    assert right >= LEAST_SHARE * (right + len(misses)), "\n".join(misses)
