"""A user's own source: CSV or Parquet files, packed by gzip or not, described by one YAML file (`schemas.mapping`).

This module turns the description into expressions over the raw rows. The expressions do not cast: they translate a file's text into
the ledger's spelling, and the contract decides whether the result is a number or a date.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir

from finrisk_assets.ledger.landing import (
    CONTENT_ID,
    ROW,
    TEST_FILE,
    LandingError,
    LandingResult,
    append_test_rows,
    check_csv_columns,
    check_parquet_columns,
    keep_first_rows,
    land_csv,
    land_parquet,
)
from finrisk_assets.ledger.sources.source_definition import RawTable, Source, SourceFile
from finrisk_assets.ledger.text_expressions import iso_of_epoch, iso_of_format, normalise, read_numbers, scale_numbers
from finrisk_assets.ledger.unpacked_files import unpack_files
from finrisk_assets.objects.addresses import find_address
from finrisk_assets.objects.object_copies import open_copies
from finrisk_assets.objects.object_store import list_objects
from finrisk_assets.settings import Settings
from schemas.date_formats import PER_SECOND, has_time_of_day
from schemas.features import Feature
from schemas.ledger import IS_TEST, Column
from schemas.mapping import ColumnMap, ExtraColumn, MappingError, Scalar, SplitMap, TableMap, read_mapping
from schemas.normal_form import normalise_text
from schemas.text_values import FALSE, TRUE, code_number, code_spellings

DATA_DIR = "${FINRISK_DATA_DIR}"

NOT_AS_DECLARED = "\ufffd"
"""A mark before a text that the mapping's format does not fit: the contract must not read it by its own, which may be another value."""

_BEYOND = "9999-12-31"
"""A day for numbers beyond the calendar, so that the contract names the years as the fault."""

_UNITS = {"boolean": "0 or 1", "int64": "number"}
"""Units of features for which the mapping says none; of the others a number is taken for a share."""


def source(settings: Settings) -> Source:
    """Return the source that the YAML file of `settings.mapping` describes.

    Raises
    ------
    MappingError
        If the settings name no file, or the file is invalid.
    """
    if settings.mapping is None:
        raise MappingError("FINRISK_SOURCE=mapped needs FINRISK_MAPPING, the YAML file that describes it; see docs/sources.md")
    mapping = read_mapping(settings.mapping)
    folder = settings.mapping.resolve().parent
    order = ("customers", "accounts", "transactions", "loans", "offers")
    return Source(
        name=mapping.name,
        description=mapping.description or f"The files described by {settings.mapping.name}.",
        currency=mapping.currency,
        tables={name: _table(name, mapping.tables[name], folder, settings) for name in order if name in mapping.tables},
        begins=mapping.begins,
        ends=mapping.ends,
        features=_features(mapping.tables),
        without=_without(mapping.tables),
    )


def _table(name: str, table: TableMap, folder: Path, settings: Settings) -> RawTable:
    declared = table.declare(name)
    data_dir = find_address(settings.data_dir) or str(settings.data_dir.resolve())
    landing = settings.root / "landing"

    @contextmanager
    def open_files(files: Sequence[SourceFile]) -> Iterator[list[Path]]:
        with open_copies(files, landing / "objects") as copies, unpack_files(copies, landing) as paths:
            yield paths

    def expand(files: Iterable[str]) -> tuple[SourceFile, ...]:
        return tuple(found for file in files for found in _expand(file.replace(DATA_DIR, data_dir), folder))

    def list_files() -> tuple[SourceFile, ...]:
        return (*expand(table.files), *expand(table.files_of_tests))

    dialect: dict[str, Any] = {
        "delimiter": table.delimiter,
        "quote": table.quote,
        "encoding": table.encoding,
        "skip": table.skip,
        "header": table.header,
    }

    def check_columns() -> None:
        with open_files(list_files()) as paths:
            if table.is_parquet:
                check_parquet_columns(paths, table.reads)
            else:
                check_csv_columns(paths, **dialect, required=table.reads)

    def land_files(files: Sequence[SourceFile], out: Path) -> LandingResult:
        with open_files(files) as paths:
            if table.is_parquet:
                return land_parquet(paths, out, required=table.reads, with_content_id=table.has_content_id)
            return land_csv(paths, out, **dialect, required=table.reads, with_content_id=table.has_content_id)

    def land(out: Path) -> LandingResult:
        result = land_files(expand(table.files), out)
        if table.test_files:
            tests = out.with_name(f".{out.name}.tests.parquet")
            result = append_test_rows(out, tests, (result, land_files(expand(table.files_of_tests), tests)))
        return keep_first_rows(out, table.unique_by, result) if table.unique_by else result

    columns = {column: _expression(how, declared[column], table.missing) for column, how in table.maps.items()}
    if table.test_files:
        columns[IS_TEST.name] = lambda raw: raw[TEST_FILE]
    elif table.split:
        columns[IS_TEST.name] = _is_of_test(table.split)
    reads = {column: how.reads for column, how in table.maps.items()}
    return RawTable(declared, land, columns, list_files, reads, check_columns)


def _expand(file: str, folder: Path) -> Sequence[SourceFile]:
    """Return the files that a path or an address names: the one itself, or every match of a star in its name, ordered by name."""
    if (address := find_address(file)) is not None:
        return list_objects(address)
    path = folder / file
    if "*" not in path.name:
        return [path]
    # Only the star is a pattern: export[1].csv is a file's name.
    name = re.compile(".*".join(map(re.escape, path.name.split("*"))))
    files = sorted(file for file in _list_folder(path.parent) if name.fullmatch(file.name) and file.is_file())
    if not files:
        raise LandingError(f"no file is called {path}; put one there, or mend the name in the mapping")
    return files


def _list_folder(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise LandingError(f"the folder {folder} cannot be read: {error.strerror or error}; mend its name in the mapping") from None


def _features(tables: Mapping[str, TableMap]) -> dict[str, tuple[Feature, ...]]:
    """Return the extra columns that are features, by the domain that decides on the table's rows."""
    domains = {"accounts": "cashflow", "loans": "loan_default", "transactions": "transaction_anomaly"}
    features = {
        name: tuple(_feature(column, (*tables[name].missing, *column.missing)) for column in tables[name].extra if column.feature)
        for name in tables
    }
    return {domain: features[name] for name, domain in domains.items() if features.get(name)}


def _feature(column: ExtraColumn, codes: Sequence[Scalar]) -> Feature:
    how = column.feature
    assert how is not None
    return Feature(
        column.name,
        column.unit or _UNITS.get(column.type, ""),
        column.description or column.name,
        how.low_sentence,
        how.high_sentence,
        how.monotone,
        how.theme,
        zero=how.zero,
        one=how.one,
        missing=how.missing,
        missing_codes=_request_codes(column, codes),
        is_category=how.category,
    )


def _request_codes(column: ExtraColumn, codes: Iterable[Scalar]) -> tuple[float | str, ...]:
    """Return the codes for "no value" that a request may send as the file has them."""
    if column.values or column.contains:
        return ()
    return tuple(_text(code) for code in codes) if column.type == "string" else tuple(_numeric_codes(codes))


def _numeric_codes(codes: Iterable[Scalar]) -> Iterator[float]:
    """Yield the codes that are numbers."""
    for code in codes:
        number = None if isinstance(code, bool) else code_number(_text(code))
        if number is not None:
            yield number


def _without(tables: Mapping[str, TableMap]) -> dict[str, str]:
    """Return the domains that the mapping has too little data for, with the reason."""
    without = {}
    if "loans" not in tables:
        without["loan_default"] = "the mapping has no table loans"
    elif "is_default" not in tables["loans"].columns:
        without["loan_default"] = "the mapping's loans have no is_default, the outcome to learn from"
    if "transactions" not in tables:
        without["transaction_anomaly"] = "the mapping has no table transactions"
    elif not _has_time_of_day(tables["transactions"].columns["occurred_at"]):
        without["transaction_anomaly"] = "the mapping's transactions are dated only to the day, without the time"
    return without


def _has_time_of_day(column: ColumnMap) -> bool:
    """Return whether a column's format has hours; a column without a format counts as having them."""
    return has_time_of_day(column.format or "")


# --- expressions ---------------------------------------------------------------------------------------------------


def _expression(how: ColumnMap, column: Column, missing: Sequence[Scalar]) -> Callable[[ir.Table], ir.Value]:
    """Return the uncast expression of one column."""

    def read(raw: ir.Table) -> ir.Value:
        if how.id:
            return raw[CONTENT_ID]
        if how.row_number:
            return raw[ROW].cast("int64").as_timestamp("s" if how.format == "epoch_s" else "ms") if how.format else raw[ROW]
        if how.value is not None:
            return ibis.literal(_text(how.value))
        codes = (*missing, *how.missing)
        if how.debit is not None and how.credit is not None:
            debit, credit = _without_codes(raw[how.debit], codes), _without_codes(raw[how.credit], codes)
            return _direction_of(debit, credit, how) if column.dtype == "string" else _amount_of(debit, credit, how)
        value = _without_codes(raw[how.reads[0]], codes)
        if how.sign_of:
            number = _parse(value, how)
            return ibis.cases((number >= 0, "credit"), (number < 0, "debit"), else_=value.cast("string"))
        if how.values or how.contains:
            text = value if value.type().is_string() else value.cast("string")
            return _meaning(text, value, how, lambda: _as_written(value, how, column))
        return _as_written(value, how, column)

    return read


def _is_of_test(split: SplitMap) -> Callable[[ir.Table], ir.Value]:
    """Return the expression that tells the rows of the stated test set."""

    def read(raw: ir.Table) -> ir.Value:
        value = raw[split.column]
        return _among(value if value.type().is_string() else value.cast("string"), value, split.test)

    return read


def _as_written(value: ir.Value, how: ColumnMap, column: Column) -> ir.Value:
    """Return a value in the ledger's spelling: a time in ISO 8601, a number without the file's marks."""
    is_time = value.type().is_timestamp() or value.type().is_date()
    if how.format and not is_time:
        text = normalise(value if value.type().is_string() else value.cast("string"))
        return _iso_of(text, how)
    return _plain_number(value, how) if column.dtype in ("int64", "float64") else value


def _without_codes(value: ir.Value, codes: Sequence[Scalar]) -> ir.Value:
    """Return a column in which the codes for "no value" are null."""
    if not codes:
        return value
    text = value if value.type().is_string() else value.cast("string")
    return ibis.cases((_among(text, value, codes), ibis.null(value.type())), else_=value)


def _among(text: ir.StringValue, value: ir.Value, codes: Iterable[Scalar]) -> ir.BooleanValue:
    """Return whether a value is one of the codes; a number is compared as a number, so that -999.0 is -999."""
    spellings = [spelling for code in codes for spelling in _spellings(code)]
    same = normalise(text).isin(spellings)
    numbers = [number for number in map(code_number, spellings) if number is not None]
    if value.type().is_numeric() and numbers:
        same = same | value.isin(numbers)
    if value.type().is_floating() and any(spelling.lower() == "nan" for spelling in spellings):
        same = same | value.isnan()
    return same.fill_null(False)


def _meaning(text: ir.StringValue, value: ir.Value, how: ColumnMap, unnamed: Callable[[], ir.Value]) -> ir.Value:
    """Return the meaning of a code; without `otherwise`, an unnamed code stays as it is written, and the contract checks it."""
    cases = [(_among(text, value, [code]), _text(meaning)) for code, meaning in how.values.items()]
    words = normalise(text).lower()
    cases += [(words.contains(normalise_text(_text(word)).lower()), _text(meaning)) for word, meaning in how.contains.items()]
    if how.otherwise is None:
        return ibis.cases(*cases, else_=unnamed().cast("string"))
    is_blank = text.isnull() | (normalise(text) == "")
    return ibis.cases((is_blank, ibis.null("string")), *cases, else_=_text(how.otherwise))


# --- numbers -------------------------------------------------------------------------------------------------------


def _parse(value: ir.Value, how: ColumnMap) -> ir.Value:
    """Return the numbers of a column, by the marks that the mapping names; null where a text is none."""
    if value.type().is_string():
        return read_numbers(normalise(value), how.decimal, how.thousands, how.beside)
    return value.cast("float64") if value.type().is_numeric() else ibis.null("float64")


def _plain_number(value: ir.Value, how: ColumnMap) -> ir.Value:
    """Return a number without the file's marks, its sign or its scale, still as text where the file has text."""
    is_plain = how.decimal == "." and not how.thousands and not how.beside
    if value.type().is_string():
        if is_plain and not how.absolute and how.scale is None:
            return value
        text = normalise(value)
        number = _scaled(_parse(value, how), how)
        return ibis.cases((number.notnull(), number.cast("string")), else_=text if is_plain else _refused(text))
    if how.scale is not None:
        return _scaled(value.cast("float64"), how)
    if how.absolute:
        # The lowest whole number has no opposite; many programs write it where there is no value.
        value = (value.nullif(-(2**63)) if value.type().is_integer() else value).abs()
    return value


def _scaled(number: ir.FloatingValue, how: ColumnMap) -> ir.FloatingValue:
    """Return a number with the sign and in the unit that the mapping wants."""
    if how.absolute:
        number = number.abs()
    if how.scale is None:
        return number
    # 1999 cents are 19.99, not 19.990000000000002: six places more than the scale's own are those of the file's number.
    return scale_numbers(number, how.scale).round(6 + max(0, -int(Decimal(str(how.scale)).normalize().as_tuple().exponent)))


def _sides(debit: ir.Value, credit: ir.Value, how: ColumnMap) -> tuple[ir.Value, ir.Value, ir.BooleanValue]:
    """Return the amounts of two columns, and whether exactly one of them moves money and the other is empty or zero."""
    out, into = _parse(debit, how), _parse(credit, how)
    if how.absolute:
        out, into = out.abs(), into.abs()
    is_out = (out > 0).fill_null(False) & (_is_blank(credit) | (into == 0)).fill_null(False)
    is_in = (into >= 0).fill_null(False) & (_is_blank(debit) | (out == 0)).fill_null(False)
    return out, into, is_out | is_in


def _amount_of(debit: ir.Value, credit: ir.Value, how: ColumnMap) -> ir.Value:
    """Return the amount of the column that has one; rows with both, or with a sign that says the opposite, are refused."""
    out, into, is_one = _sides(debit, credit, how)
    amount = _scaled(ibis.cases((out > 0, out), else_=into), how)
    return ibis.cases((is_one, amount.cast("string")), (_is_blank(debit) & _is_blank(credit), ibis.null("string")), else_=NOT_AS_DECLARED)


def _direction_of(debit: ir.Value, credit: ir.Value, how: ColumnMap) -> ir.Value:
    out, _, is_one = _sides(debit, credit, how)
    direction = ibis.cases((out > 0, "debit"), else_="credit")
    return ibis.cases((is_one, direction), (_is_blank(debit) & _is_blank(credit), ibis.null("string")), else_=NOT_AS_DECLARED)


def _is_blank(value: ir.Value) -> ir.BooleanValue:
    return value.isnull() | (normalise(value) == "").fill_null(False) if value.type().is_string() else value.isnull()


def _refused(text: ir.StringValue) -> ir.StringValue:
    """Return text that is not as the mapping declares it with a mark that the contract refuses; blank text stays blank."""
    return ibis.cases((text == "", text), else_=ibis.literal(NOT_AS_DECLARED) + text)


# --- times ---------------------------------------------------------------------------------------------------------


def _iso_of(text: ir.StringValue, how: ColumnMap) -> ir.StringValue:
    """Return times in the format of the file as ISO 8601; texts in another form are refused."""
    form = how.format or ""
    if form not in PER_SECOND:
        return iso_of_format(text, form, how.language, _refused(text))
    is_beyond = text.re_search(r"^[0-9]{11,}(\.0)?$")
    return iso_of_epoch(text, form, ibis.cases((is_beyond, ibis.literal(_BEYOND)), else_=_refused(text)))


def _spellings(code: Scalar) -> list[str]:
    """Return the spellings of a code in a file; the words true and false of the mapping are those of any boolean."""
    if isinstance(code, bool):
        words = (*TRUE, "on") if code else (*FALSE, "off")
        return [form for word in words for form in (word, word.title(), word.upper())]
    return list(code_spellings(normalise_text(_text(code))))


def _text(value: Scalar) -> str:
    """Return a scalar of the YAML file as text: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)
