"""The contract of a ledger table, checked in the engine: casts, named rules, and the split into valid and quarantined rows.

Every cast and rule follows from the table's declaration in `schemas.ledger`. A row that breaks a rule is neither dropped nor repaired:
the quarantine holds its raw values and the names of all the rules that it broke. Pandera checks the stored table against the same
declaration. Reading files is the task of `landing`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import ibis
import ibis.expr.types as ir

from finrisk_assets.ledger.landing import DEFECTS, LINE, ROW
from finrisk_assets.ledger.text_expressions import normalise, read_booleans, read_numbers, read_times
from schemas.ledger import TABLES, Column, DType, Table
from schemas.normal_form import COUNTRY_CODES
from schemas.text_files.text_records import MALFORMED_ROW
from schemas.text_values import FIRST_TIME, LAST_TIME, NOT_FINITE

if TYPE_CHECKING:
    import pandera.ibis

BROKEN_RULES = "broken_rules"
SEPARATOR = "; "
EVENT_TIME = "__event_time"
"""Column of `read_event_time`."""

NOUNS: Mapping[DType, str] = {
    "int64": "a whole number",
    "float64": "a number",
    "boolean": "true or false",
    "timestamp": "a timestamp",
}
"""The noun for a value of each type in a rule's name."""

_LARGEST = 1.7976931348623157e308
_WHOLE = float(2**53)


@dataclass(frozen=True)
class ContractSplit:
    """A raw table split into two lazy tables; every raw row is in exactly one of them.

    Attributes
    ----------
    valid
        The canonical columns, typed, in the order of the declaration.
    quarantine
        `_row`, the raw columns as text, `_line` for a line that could not be read, and `broken_rules`: the names of all
        the rules that the row broke, joined by ``"; "``.
    """

    valid: ir.Table
    quarantine: ir.Table


@dataclass(frozen=True)
class _Rule:
    name: str
    broken: ir.BooleanValue


def split(
    table: Table,
    columns: Mapping[str, Callable[[ir.Table], ir.Value]],
    raw: ir.Table,
    references: Mapping[str, ir.Table],
    as_of: datetime,
) -> ContractSplit:
    """Split raw rows into those that meet the contract and those that do not.

    Parameters
    ----------
    table
        The declaration.
    columns
        Canonical column -> uncast expression over `raw`; a nullable column left out is null.
    raw
        The landed rows, with `landing.MARKS`.
    references
        Name of a table -> its valid rows. A reference to a table that is missing here is not checked, because the source lacks that table.
    as_of
        The moment at which the ledger is read, naive UTC: an event after it is in the future.

    Returns
    -------
    ContractSplit
        Two lazy tables. Of rows with the same key, the first is valid unless it breaks a rule itself; the later rows never are.
    """
    source_columns = [column for column in table.columns if column.name in columns]
    typed = raw.mutate(**{_text_column(c.name): _uncast(columns[c.name](raw)) for c in source_columns})
    typed = typed.mutate(**{_typed_column(c.name): _read(typed[_text_column(c.name)], c) for c in source_columns})
    first = _repeated_keys(table[table.key], columns[table.key], raw)
    joined = _join_references(
        table, typed.left_join(first, typed[_key_column(table[table.key], typed)] == first["__first_key"]), references
    )
    rules = list(_rules(table, source_columns, joined, references, as_of))
    readable = ~_is(joined[DEFECTS].contains(MALFORMED_ROW))
    broken = joined[DEFECTS].notnull() | reduce(or_, (rule.broken for rule in rules))

    names = [(readable & rule.broken).ifelse(SEPARATOR + rule.name, "") for rule in rules]
    defects = (SEPARATOR + joined[DEFECTS]).fill_null("")
    reasons = reduce(lambda left, right: left + right, names, defects).substr(len(SEPARATOR))
    as_text = {name: joined[name].cast("string") for name in raw.columns if name not in (ROW, DEFECTS, LINE)}
    return ContractSplit(
        valid=joined.filter(~broken).select(
            **{c.name: joined[_typed_column(c.name)] if c in source_columns else ibis.null(c.dtype) for c in table.columns}
        ),
        quarantine=joined.filter(broken).select(**{ROW: joined[ROW], **as_text, LINE: joined[LINE].cast("string"), BROKEN_RULES: reasons}),
    )


def valid_rows(table: Table, columns: Mapping[str, Callable[[ir.Table], ir.Value]], raw: ir.Table, quarantine: ir.Table) -> ir.Table:
    """Return the raw rows that are not in quarantine: the canonical columns, typed, in the order of the declaration.

    Parameters
    ----------
    table, columns, raw
        As in `split`.
    quarantine
        The rows of the same raw table that `split` quarantined.
    """
    source_columns = [column for column in table.columns if column.name in columns]
    # The join stands between the two steps: engines would copy the text's expression into each use of it.
    texts = raw.select(ROW, **{_text_column(c.name): _uncast(columns[c.name](raw)) for c in source_columns})
    rows = texts.anti_join(quarantine, ROW)
    return rows.select(
        **{c.name: _read(rows[_text_column(c.name)], c) if c in source_columns else ibis.null(c.dtype) for c in table.columns}
    )


def read_event_time(table: Table, columns: Mapping[str, Callable[[ir.Table], ir.Value]], raw: ir.Table) -> ir.Table | None:
    """Return the raw rows with their time as the column `EVENT_TIME`: null where it cannot be read. None where no column has times."""
    if table.event_time is None or table.event_time not in columns:
        return None
    # In two steps, as in `split`: an expression that uses the text's many times grows to megabytes of SQL.
    texts = raw.mutate(**{EVENT_TIME: _uncast(columns[table.event_time](raw))})
    return texts.mutate(**{EVENT_TIME: _read(texts[EVENT_TIME], table[table.event_time])})


def cast(value: ir.Value, dtype: DType) -> ir.Value:
    """Cast a raw value to a declared type as the contract does; null where the value does not fit."""
    return _cast(_uncast(value), dtype)


def count_by_rule(quarantine: ir.Table) -> dict[str, int]:
    """Count the quarantined rows by broken rule, most frequent first. A row that broke two rules counts in both."""
    grouped = quarantine.group_by(BROKEN_RULES).agg(rows=quarantine.count()).to_pyarrow().to_pylist()
    counts: dict[str, int] = {}
    for group in grouped:
        for rule in group[BROKEN_RULES].split(SEPARATOR):
            counts[rule] = counts.get(rule, 0) + group["rows"]
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


# --- rules ---------------------------------------------------------------------------------------------------------


def _rules(
    table: Table, source_columns: Sequence[Column], rows: ir.Table, references: Mapping[str, ir.Table], as_of: datetime
) -> Iterator[_Rule]:
    """Yield every rule of the columns that the source brings, in the order of the declaration."""
    for column in source_columns:
        yield from _column_rules(column, rows[_text_column(column.name)], rows[_typed_column(column.name)])
        if column.name == table.event_time:
            future = rows[_typed_column(column.name)] > ibis.literal(as_of, type="timestamp")
            yield _Rule(f"{column.name} is in the future", _is(future))
        if column.name == table.key:
            yield _Rule(f"{column.name} is a duplicate", _is(rows[ROW] > rows["__first_row"]))
        target = table.references.get(column.name)
        if target in references:
            unknown = rows[_typed_column(column.name)].notnull() & rows[f"__known_{column.name}"].isnull()
            yield _Rule(f"{column.name} is not in {target}", unknown)


def _column_rules(column: Column, raw_value: ir.Value, value: ir.Value) -> Iterator[_Rule]:
    if not column.nullable:
        yield _Rule(f"{column.name} is missing", raw_value.isnull())
    not_finite = _not_finite(raw_value) if column.dtype == "float64" else ibis.literal(False)
    if not _always_casts(raw_value.type(), column.dtype):
        yield _Rule(f"{column.name} is not {NOUNS[column.dtype]}", raw_value.notnull() & value.isnull() & ~not_finite)
    if column.dtype == "float64":
        yield _Rule(f"{column.name} is not finite", not_finite)
    if column.minimum is not None:
        yield _Rule(f"{column.name} is below {column.minimum:g}", _is(value < column.minimum))
    if column.maximum is not None:
        yield _Rule(f"{column.name} is above {column.maximum:g}", _is(value > column.maximum))
    if column.dtype == "timestamp":
        outside = (value < ibis.literal(FIRST_TIME, type="timestamp")) | (value >= ibis.literal(LAST_TIME, type="timestamp"))
        yield _Rule(f"{column.name} is not of the years 1970 to 2099", _is(outside))
    if column.allowed:
        yield _Rule(f"{column.name} is not one of {', '.join(column.allowed)}", _is(value.notin(column.allowed)))
    if column.is_country:
        yield _Rule(f"{column.name} is no country of ISO 3166-1 alpha-2", _is(value.notin(sorted(COUNTRY_CODES))))


def _repeated_keys(key: Column, expression: Callable[[ir.Table], ir.Value], raw: ir.Table) -> ir.Table:
    """Return the keys that occur more than once, each with the number of its first row."""
    # Read anew from the raw rows: an engine keeps a table that a query uses twice in memory, with all its columns.
    given = raw.select(**{ROW: raw[ROW], _text_column(key.name): _uncast(expression(raw))})
    rows = given.mutate(**{_typed_column(key.name): _read(given[_text_column(key.name)], key)})
    value = rows[_key_column(key, rows)]
    keys = rows.select(__first_key=value, __row=rows[ROW])  # rows without a key are one group, which joins to none
    first_rows = keys.group_by("__first_key").agg(__first_row=keys["__row"].min(), __rows=keys.count())
    return first_rows.filter(first_rows["__rows"] > 1).drop("__rows")


def _key_column(key: Column, rows: ir.Table) -> str:
    """Return the column by which rows are grouped: that of an integer is cheaper than that of its text, with the same result."""
    return _text_column(key.name) if rows[_text_column(key.name)].type().is_integer() else _typed_column(key.name)


def _join_references(table: Table, rows: ir.Table, references: Mapping[str, ir.Table]) -> ir.Table:
    """Join to each row the key that it refers to, where that key exists."""
    for column, target in table.references.items():
        if target in references and _typed_column(column) in rows.columns:
            parents = references[target].select(**{f"__known_{column}": references[target][TABLES[target].key]}).distinct()
            rows = rows.left_join(parents, rows[_typed_column(column)] == parents[f"__known_{column}"])
    return rows


def _is(condition: ir.BooleanValue) -> ir.BooleanValue:
    """Return the condition with null replaced by false."""
    return condition.fill_null(False)


# --- casts ---------------------------------------------------------------------------------------------------------


def _text_column(name: str) -> str:
    return f"__given_{name}"


def _typed_column(name: str) -> str:
    return f"__value_{name}"


def _uncast(value: ir.Value) -> ir.Value:
    """Return a column's value before its cast, text in normal form; blank text becomes null."""
    if value.type().is_null():
        return value.cast("string")
    return normalise(value).nullif("") if value.type().is_string() else value


def _read(given: ir.Value, column: Column) -> ir.Value:
    """Cast a value to a column's type; a country becomes upper case, and a text without an offset is a time of the column's zone."""
    if column.zone and given.type().is_string():
        return read_times(given, column.zone).cast("timestamp")
    value = _cast(given, column.dtype)
    # Other letters stay: engines differ in the upper case of ß and ı.
    return ibis.cases((value.re_search("^[A-Za-z]{2}$"), value.upper()), else_=value) if column.is_country else value


def _cast(raw_value: ir.Value, dtype: DType) -> ir.Value:
    """Cast a value; null where it is not of the type."""
    casts: Mapping[DType, Callable[[ir.Value], ir.Value]] = {
        "string": _cast_string,
        "int64": _cast_int64,
        "float64": _cast_float64,
        "boolean": _cast_boolean,
        "timestamp": _cast_timestamp,
    }
    return casts[dtype](raw_value).cast(dtype)


def _always_casts(kind: Any, dtype: DType) -> bool:
    """Return whether every value of an engine type casts to the declared type, so that no rule is needed."""
    return {
        "string": True,
        "int64": kind.is_integer(),
        "float64": kind.is_numeric(),
        "boolean": kind.is_boolean(),
        "timestamp": kind.is_timestamp() or kind.is_date(),
    }[dtype]


def _cast_string(raw_value: ir.Value) -> ir.Value:
    if raw_value.type().is_floating():  # pandas turns an integer identifier with gaps into a float
        whole = _cast_int64(raw_value)
        return whole.cast("string").fill_null(raw_value.cast("string"))
    return raw_value.cast("string")


def _number(raw_value: ir.Value) -> ir.Value:
    """Cast a value to float64, NaN and infinities included; null where it is not a number."""
    kind = raw_value.type()
    if kind.is_string():
        return read_numbers(raw_value)
    if kind.is_numeric() or kind.is_boolean():
        return raw_value.cast("int64").cast("float64") if kind.is_boolean() else raw_value.cast("float64")
    return ibis.null("float64")


def _not_finite(raw_value: ir.Value) -> ir.BooleanValue:
    # NaN is larger than any number in these engines, and Spark has no test for infinity of its own.
    number = _number(raw_value)
    beyond = _is(number.abs() > _LARGEST)
    if not raw_value.type().is_string():
        return beyond
    # Only a text that is no number can be such a word.
    return ibis.cases((number.isnull(), _is(raw_value.lower().re_search(NOT_FINITE))), else_=beyond)


def _cast_float64(raw_value: ir.Value) -> ir.Value:
    return _not_finite(raw_value).ifelse(ibis.null("float64"), _number(raw_value))


def _cast_int64(raw_value: ir.Value) -> ir.Value:
    if raw_value.type().is_integer():
        return raw_value
    number = _number(raw_value)
    whole = (number.abs() <= _WHOLE) & (number == number.floor())
    return ibis.cases((whole, number), else_=ibis.null("float64")).try_cast("int64")


def _cast_boolean(raw_value: ir.Value) -> ir.Value:
    kind = raw_value.type()
    if kind.is_boolean():
        return raw_value
    if kind.is_string():
        return read_booleans(raw_value)
    number = _number(raw_value)
    return ibis.cases((number == 1, True), (number == 0, False), else_=ibis.null("boolean"))


def _cast_timestamp(raw_value: ir.Value) -> ir.Value:
    """Read ISO 8601 text as naive UTC: subtract an offset, and read a date as its midnight."""
    kind = raw_value.type()
    if kind.is_timestamp() or kind.is_date():
        return raw_value.cast("timestamp")
    if not kind.is_string():
        return ibis.null("timestamp")
    return read_times(raw_value)


# --- Pandera -------------------------------------------------------------------------------------------------------


def pandera_schema(table: Table) -> "pandera.ibis.DataFrameSchema":
    """Return the declaration as a Pandera schema for Ibis tables: types, nullability, bounds, allowed values, unique key."""
    import ibis.expr.datatypes as dt
    import pandera.ibis as pa

    types: Mapping[DType, Any] = {"string": dt.string, "int64": dt.int64, "float64": dt.float64, "boolean": dt.boolean}

    def declared(column: Column) -> Any:
        checks = []
        if column.minimum is not None:
            checks.append(pa.Check.ge(column.minimum))
        if column.maximum is not None:
            checks.append(pa.Check.le(column.maximum))
        if column.allowed or column.is_country:
            checks.append(pa.Check.isin(list(column.allowed) or sorted(COUNTRY_CODES)))
        # Engines differ in how they write a timestamp's scale: `check_stored` compares that type itself.
        return pa.Column(types.get(column.dtype), checks=checks, nullable=column.nullable, description=column.description)

    columns = {column.name: declared(column) for column in table.columns}
    # Pandera's own `unique` sorts the whole table through a window; counting says the same in a fraction of the time.
    unique = pa.Check(lambda data: data.table[table.key].nunique() == data.table.count(), name=f"unique {table.key}")
    return pa.DataFrameSchema(columns, checks=[unique], strict=True, name=table.name, description=table.description)


def check_stored(table: Table, stored: ir.Table) -> list[str]:
    """Check a stored table against its contract in the engine; references are not checked.

    Returns
    -------
    list of str
        One sentence per fault, without any row's values; empty where the table meets the contract.
    """
    from pandera.errors import SchemaErrors

    lacking, strange = set(table.names) - set(stored.columns), set(stored.columns) - set(table.names)
    if lacking or strange:
        differences = {"lacks": lacking, "has, beyond the contract,": strange}
        return [f"{table.name} {verb} the columns {', '.join(sorted(names))}" for verb, names in differences.items() if names]
    messages = [
        f"{table.name}.{c.name} is stored as {stored[c.name].type()}, not as a timestamp"
        for c in table.columns
        if c.dtype == "timestamp" and not stored[c.name].type().is_timestamp()
    ]
    try:
        pandera_schema(table).validate(stored, lazy=True)
    except SchemaErrors as errors:
        messages += [_sentence(table, error) for error in errors.schema_errors]
    return messages


def find_repeated_keys(table: Table, rows: ir.Table, stored: ir.Table) -> list[str]:
    """Check that no key of rows of a stored table occurs beyond them, where `check_stored` has found them unique among themselves."""
    n_rows, n_with_keys = (int(part.count().to_pyarrow().as_py()) for part in (rows, stored.semi_join(rows.select(table.key), table.key)))
    n_repeated = n_with_keys - n_rows
    return [f"{table.name} has {n_repeated:,} rows of other months whose {table.key} stands in the run's months too"] if n_repeated else []


def _sentence(table: Table, error: Any) -> str:
    """Describe a Pandera error without the failing rows, which its own text would show."""
    column = getattr(error.schema, "name", table.name)
    place = table.name if column == table.name else f"{table.name}.{column}"
    check = error.check if isinstance(error.check, str) else error.check.error or error.check.name
    return f"{place} breaks the contract: {check}"
