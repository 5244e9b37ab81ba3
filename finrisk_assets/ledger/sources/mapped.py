"""A user's own source: CSV or Parquet files, described by one YAML file (`schemas.mapping`).

This module turns the description into expressions over the raw rows. The expressions do not cast: they translate a file's text into
the ledger's spelling, and the contract decides whether the result is a number or a date.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from finrisk_assets.ledger.contract import FALSE, TRUE, normalise
from finrisk_assets.ledger.landing import ROW, LandingError, LandingResult, land_csv, land_parquet
from finrisk_assets.ledger.sources.source_definition import RawTable, Source
from finrisk_assets.settings import Settings
from schemas.features import Feature
from schemas.ledger import Column
from schemas.mapping import ColumnMap, ExtraColumn, MappingError, Scalar, TableMap, read_mapping
from schemas.normal_form import normalise_text

DATA_DIR = "${FINRISK_DATA_DIR}"

_DIGITS = {"Y": "([0-9]{4})", "y": "([0-9]{2})", **dict.fromkeys("mdHMS", "([0-9]{1,2})")}


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
        tables={name: _table(name, mapping.tables[name], folder, settings.data_dir) for name in order if name in mapping.tables},
        begins=mapping.begins,
        ends=mapping.ends,
        features=_features(mapping.tables),
        without=_without(mapping.tables),
    )


def _table(name: str, table: TableMap, folder: Path, data_dir: Path) -> RawTable:
    declared = table.declare(name)
    maps: dict[str, ColumnMap] = {**table.columns, **{column.name: column for column in table.extra}}

    def paths() -> tuple[Path, ...]:
        return tuple(path for file in table.files for path in _expand(folder / file.replace(DATA_DIR, str(data_dir.resolve()))))

    required = list(dict.fromkeys(column.reads for column in maps.values() if column.reads))

    def land(out: Path) -> LandingResult:
        if table.is_parquet:
            return land_parquet(paths(), out, required=required)
        dialect = {"delimiter": table.delimiter, "quote": table.quote, "encoding": table.encoding}
        return land_csv(paths(), out, **dialect, header=table.header, required=required)

    columns = {column: _expression(how, declared[column], table.missing) for column, how in maps.items()}
    return RawTable(declared, land, columns, paths)


def _expand(path: Path) -> list[Path]:
    """Return the files that a path names: the path itself, or every match of a star in its name, ordered by name."""
    if "*" not in path.name:
        return [path]
    files = sorted(file for file in path.parent.glob(path.name) if file.is_file())
    if not files:
        raise LandingError(f"no file is called {path}; put one there, or mend the name in the mapping")
    return files


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
        column.unit,
        column.description or column.name,
        how.low_sentence,
        how.high_sentence,
        how.monotone,
        how.theme,
        zero=how.zero,
        one=how.one,
        missing=how.missing,
        missing_codes=() if column.values else tuple(_numeric_codes(codes)),
    )


def _numeric_codes(codes: Iterable[Scalar]) -> Iterator[float]:
    """Yield the codes that are numbers."""
    for code in codes:
        try:
            yield float(code)
        except (TypeError, ValueError):
            continue


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
    return column.format is None or column.format.startswith("epoch") or "%H" in column.format


# --- expressions ---------------------------------------------------------------------------------------------------


def _expression(how: ColumnMap, column: Column, missing: Sequence[Scalar]) -> Callable[[ir.Table], ir.Value]:
    """Return the uncast expression of one column."""

    def read(raw: ir.Table) -> ir.Value:
        if how.row_number:
            return raw[ROW].cast("int64").as_timestamp("s" if how.format == "epoch_s" else "ms") if how.format else raw[ROW]
        if how.value is not None:
            return ibis.literal(_text(how.value))
        value = raw[how.reads]
        if how.sign_of:
            number = _plain_number(value, how).try_cast("float64")
            return ibis.cases((number >= 0, "credit"), (number < 0, "debit"), else_=value.cast("string"))
        codes = [spelling for code in (*missing, *how.missing) for spelling in _spellings(code)]
        if not (codes or how.values or how.format or column.dtype in ("int64", "float64")):
            return value
        text = value if value.type().is_string() else value.cast("string")
        if codes:
            value = ibis.cases((_among(text, value, codes), ibis.null(value.type())), else_=value)
            text = value.cast("string")
        if how.values:
            return _meaning(text, value, how)
        if how.format and not (value.type().is_timestamp() or value.type().is_date()):
            return _iso_date(text, how.format)
        if column.dtype in ("int64", "float64"):
            return _plain_number(value, how)
        return value

    return read


def _among(text: ir.StringValue, value: ir.Value, codes: Sequence[str]) -> ir.BooleanValue:
    """Return whether a value is one of the codes; a number is compared as a number, so that -999.0 is -999."""
    same = normalise(text).isin(codes)
    numbers = [float(code) for code in codes if re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", code)]
    if value.type().is_numeric() and numbers:
        same = same | value.isin(numbers)
    if value.type().is_floating() and any(code.lower() == "nan" for code in codes):
        same = same | value.isnan()
    return same.fill_null(False)


def _meaning(text: ir.StringValue, value: ir.Value, how: ColumnMap) -> ir.Value:
    """Return the meaning of a code; an unnamed code stays unchanged, and the contract checks it."""
    cases = [(_among(text, value, _spellings(code)), _text(meaning)) for code, meaning in how.values.items()]
    if how.otherwise is None:
        return ibis.cases(*cases, else_=text)
    return ibis.cases((text.isnull(), ibis.null("string")), *cases, else_=_text(how.otherwise))


def _plain_number(value: ir.Value, how: ColumnMap) -> ir.Value:
    """Return a number without the file's marks, its sign or its scale, still as text where the file has text."""
    if value.type().is_string():
        if how.thousands:
            value = value.replace(how.thousands, "").replace("\u00a0", "")
        if how.decimal != ".":
            value = value.replace(how.decimal, ".")
        if how.absolute:
            value = normalise(value).re_replace(r"^[-−+]", "")
        if how.scale is not None:
            number = value.try_cast("float64")
            value = ibis.cases((number.notnull(), (number * how.scale).cast("string")), else_=value)
        return value
    if how.absolute:
        value = value.abs()
    return value if how.scale is None else value * how.scale


def _iso_date(text: ir.StringValue, form: str) -> ir.Value:
    """Convert a date to ISO 8601; text in another form stays unchanged, and the contract refuses it."""
    text = normalise(text)
    if form.startswith("epoch"):
        number = text.try_cast("int64")
        time = number.as_timestamp("s" if form == "epoch_s" else "ms").cast("string")
        return ibis.cases((number.notnull(), time), else_=text)
    directives = re.findall(r"%(.)", form)
    pattern = "^" + re.sub(r"%(.)", lambda part: _DIGITS[part[1]], re.escape(form).replace(r"\%", "%")) + "$"
    part = {name: text.re_extract(pattern, position) for position, name in enumerate(directives, 1)}
    if "y" in part:  # as POSIX has it: 69 to 99 are of the twentieth century
        part["Y"] = ibis.cases((part["y"].try_cast("int64") >= 69, "19"), else_="20") + part["y"]
    day = part["Y"] + "-" + part.get("m", "1") + "-" + part.get("d", "1")
    if "H" in part:
        minute, second = (part[name].lpad(2, "0") if name in part else "00" for name in "MS")
        day = day + " " + part["H"] + ":" + minute + ":" + second
    return ibis.cases((text.re_search(pattern), day), else_=text)


def _spellings(code: Scalar) -> list[str]:
    """Return the spellings of a code in a file: YAML reads an unquoted yes, on or true as the same value."""
    if isinstance(code, bool):
        words = (*TRUE, "on") if code else (*FALSE, "off")
        return [form for word in words for form in (word, word.title(), word.upper())]
    return [normalise_text(_text(code))]


def _text(value: Scalar) -> str:
    """Return a scalar of the YAML file as text: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)
