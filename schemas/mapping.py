"""The YAML file that describes a user's own source: which files fill which ledger tables, column by column.

`docs/sources.md` explains each key with examples; `read_mapping` checks a file and names each wrong key and its fix.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.date_formats import DIRECTIVES, PER_SECOND, Language, has_time_of_day
from schemas.ledger import IS_TEST, TABLES, Column, DType, PersonalData, Table
from schemas.mapping_yaml import RepeatedKeyError, load_mapping_yaml

Scalar = str | int | float | bool

MONTH = r"^[12][0-9]{3}-(0[1-9]|1[0-2])$"

DIRECTION, CURRENCY = "direction", "currency"

WITH_CATEGORIES = ("accounts", "loans")
"""Tables whose models learn from categories."""

WITH_STATED_TESTS = ("loans",)
"""Tables whose mapping may state the test set."""


class MappingError(ValueError):
    """An error for an invalid mapping file: one line for each wrong key, with its path and its fix."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, coerce_numbers_to_str=True)


class ColumnMap(_Model):
    """The origin of a ledger column (`from`, `value`, `sign_of`, `row_number`, `id`, or `debit` with `credit`), and how to read it."""

    column: str | None = Field(None, alias="from", description="Name of the file's column.")
    value: Scalar | None = Field(None, description="The same value in every row.")
    sign_of: str | None = Field(None, description="A signed number of the file: credit from zero upwards, debit below.")
    row_number: bool = Field(
        False,
        description="The number of the row in the file: an identifier where it has none, and with format epoch_s a moment where the rows "
        "are in order of time but not dated.",
    )
    id: Literal["content"] | None = Field(
        None,
        description="An identifier made of the row's content: the same row has the same identifier in every file, and lands once where "
        "files overlap. Equal rows of one file are counted.",
    )
    debit: str | None = Field(None, description="Name of the column with money out, beside `credit`: each row has one of the two.")
    credit: str | None = Field(None, description="Name of the column with money in, beside `debit`.")
    missing: tuple[Scalar, ...] = Field((), description="Codes that mean that there is no value.")
    values: dict[Scalar, Scalar] = Field(default_factory=dict, description="The file's codes -> their meaning.")
    contains: dict[Scalar, Scalar] = Field(
        default_factory=dict, description="Words in a free text -> its meaning, whatever the case of letters; the first that occurs holds."
    )
    otherwise: Scalar | None = Field(None, description="The meaning of any code that neither `values` nor `contains` names.")
    format: str | None = Field(None, description="How a date is written (%d/%m/%Y, %d %b %Y), or epoch_s, epoch_ms.")
    language: Language = Field("en", description="The language of names of months (%b, %B), beside English.")
    timezone: str | None = Field(None, description="The IANA zone of times without an offset, such as Europe/Prague. Default: UTC.")
    decimal: Literal[".", ","] = Field(".", description="The decimal mark.")
    thousands: Literal["", ".", ",", " ", "'"] = Field("", description="The mark between thousands.")
    beside: dict[str, Literal["", "-", "+"]] = Field(
        default_factory=dict, description="Texts beside a number, as € or DR -> the sign that they give it: nothing, - or +."
    )
    absolute: bool = Field(False, description="Take a signed number without its sign.")
    scale: float | None = Field(None, description="Multiply by this, to reach the ledger's unit.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        """Read ``amount: Betrag`` as ``amount: {from: Betrag}``."""
        return {"from": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        pair = [self.debit is not None, self.credit is not None]
        origins = [self.column is not None, self.value is not None, self.sign_of is not None, self.row_number, bool(self.id), any(pair)]
        if sum(origins) != 1 or pair[0] != pair[1]:
            raise ValueError("say where it comes from by exactly one of from, value, sign_of, row_number, id, or debit and credit together")
        if self.otherwise is not None and not (self.values or self.contains):
            raise ValueError("otherwise needs values or contains: name the codes whose meaning differs")
        if self.thousands and self.thousands == self.decimal:
            raise ValueError("decimal and thousands cannot be the same mark")
        if self.timezone and self.timezone not in available_timezones():
            raise ValueError(
                f"there is no time zone {self.timezone!r}{_suggest(self.timezone, sorted(available_timezones()), listed=False)}"
            )
        if self.format and not self.format.startswith("epoch"):
            used = [self.format[i + 1 : i + 2] for i, mark in enumerate(self.format) if mark == "%"]
            if set(used) - DIRECTIVES or not set(used) & {"Y", "y"} or ("I" in used) != ("p" in used):
                raise ValueError(
                    "a date format is made of %Y or %y, %m, %b or %B, %d, %H or %I with %p, %M, %S, %z and what stands between them"
                )
            if len(used) > len(set(used)) or any(len(set(used) & set(same)) > 1 for same in ("Yy", "mbB", "HI")):
                raise ValueError("a date format has each part once")
            if "z" in used and not has_time_of_day(self.format):
                raise ValueError("%z needs %H: a date alone has no offset")
        elif self.format and self.format not in PER_SECOND:
            raise ValueError("an epoch is epoch_s or epoch_ms")
        if any(not text.strip() or re.search("[0-9]", text) for text in self.beside):
            raise ValueError("beside names texts without digits, such as € or DR")
        if self.row_number and self.format and not self.format.startswith("epoch"):
            raise ValueError("a row's number is no date; as a moment it has the format epoch_s")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        """The file's columns that are read."""
        return tuple(name for name in (self.column, self.sign_of, self.debit, self.credit) if name is not None)


class FeatureMap(_Model):
    """The definition that makes an extra column a feature of its domain's model."""

    monotone: Literal[-1, 0, 1] = Field(0, description="1 where risk never falls as it grows, -1 where it never rises.")
    low: str = Field("", description="The sentence of a low value: in the lowest quarter of the reference group.")
    high: str = Field("", description="The sentence of a high value: in the highest quarter.")
    zero: str = Field("", description="The sentence of the value 0.")
    one: str = Field("", description="The sentence of the value 1.")
    missing: str = Field("", description="The sentence of a missing value.")
    raises: str = Field("", description="With `monotone`: the sentence of the side that raises the risk, in place of `low` or `high`.")
    lowers: str = Field("", description="With `monotone`: the sentence of the side that lowers the risk.")
    theme: str = Field("", description="What it tells about; features of one theme are one reason together.")
    category: bool = Field(
        False,
        description="For a text with few or many levels and no order (`Shop area 31`): the model learns the weight of evidence of each.",
    )

    @model_validator(mode="after")
    def _without_order(self) -> Self:
        ordered = [name for name in ("monotone", "low", "high", "zero", "one", "raises", "lowers") if getattr(self, name)]
        if self.category and ordered:
            raise ValueError(f"a category has no order, so it has no {ordered[0]}; take the key away")
        return self

    @property
    def low_sentence(self) -> str:
        """The sentence of a low value; `raises` and `lowers` tell of a value only where the direction is certain."""
        return self.low or {1: self.lowers, -1: self.raises, 0: ""}[self.monotone]

    @property
    def high_sentence(self) -> str:
        """The sentence of a high value, likewise."""
        return self.high or {1: self.raises, -1: self.lowers, 0: ""}[self.monotone]


class ExtraColumn(ColumnMap):
    """A column of the source's own, beyond the ledger's."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The column's name in the ledger: small letters, digits and underscores.")
    type: DType = Field("float64", description="The type of its values.")
    unit: str = Field(
        "",
        description="The unit of a number in reasons and on the model card: `currency`, `months`, `share` (shown in per cent), `number` "
        "for a bare one. Without it a whole number is a bare one, any other a share.",
    )
    description: str = Field("", description="What it is, as reasons and the model card say it.")
    nullable: bool = Field(True, description="Whether a row without a value is valid.")
    minimum: float | None = Field(None, description="The smallest number that is valid.")
    maximum: float | None = Field(None, description="The largest number that is valid.")
    allowed: tuple[str, ...] = Field((), description="The only texts that are valid.")
    personal: PersonalData = Field(
        "none", description="What it tells of a person: a `protected` column is never a feature; all but `none` is hidden in reports."
    )
    known: str = Field("always", description="When it becomes known: always, or the column that holds the moment.")
    feature: FeatureMap | None = Field(
        None, description="Makes it a feature of the model that decides on the table's rows; `{}` is enough."
    )

    @model_validator(mode="before")
    @classmethod
    def _text_of_a_category(cls, data: Any) -> Any:
        """Read a category without a type as text."""
        feature = data.get("feature") if isinstance(data, dict) else None
        is_category = isinstance(feature, dict) and feature.get("category") is True
        return {"type": "string", **data} if is_category else data

    @model_validator(mode="after")
    def _fit_for_a_model(self) -> Self:
        if self.feature and self.personal == "protected":
            raise ValueError("a protected column may never be a feature; take `feature` away")
        if self.feature and self.feature.category:
            if self.type != "string":
                raise ValueError(f"a category is a text, not a {self.type}; say `type: string`")
        elif self.feature and self.type in ("string", "timestamp"):
            fix = "map its codes to numbers with `values`"
            fix = f"say `feature: {{category: true}}`, or {fix}" if self.type == "string" else fix
            raise ValueError(f"a feature is a number or a boolean, not a {self.type}; {fix}")
        return self

    def declare(self) -> Column:
        """Return the column's contract."""
        return Column(
            self.name, self.type, self.description or self.name, self.unit, self.nullable, self.minimum, self.maximum,
            self.allowed, self.personal, self.known,
        )  # fmt: skip


class SplitMap(_Model):
    """The column of a file that states which rows are the test set."""

    column: str = Field(description="Name of the file's column.")
    test: tuple[Scalar, ...] = Field(min_length=1, description="Its values in the rows of the test set; all others may teach.")

    @field_validator("test", mode="before")
    @classmethod
    def _one_or_several(cls, values: Any) -> Any:
        return values if isinstance(values, list | tuple) else (values,)


class TableMap(_Model):
    """The mapping of one ledger table from a file, or from several with the same columns."""

    file: str | tuple[str, ...] = Field(
        description="Path from the YAML file's folder, or an address (s3://bucket/name), with a star in its name for several; "
        "${FINRISK_DATA_DIR} is the data folder. A file that ends in .gz is unpacked as it lands."
    )
    format: Literal["csv", "parquet"] | None = Field(None, description="By the file's ending where it is not said.")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="By default that of the file's line `sep=`, else a comma.")
    quote: str = Field('"', max_length=1, description="The character around values; empty where quotes are plain characters.")
    encoding: str = Field("utf-8", description="Python's name of the encoding; bytes outside of it mark their row.")
    skip: int | None = Field(
        None, ge=0, description="Lines before the header; by default they end at the line that names every column that is read."
    )
    header: tuple[str, ...] = Field((), description="Column names, where the file has no header line.")
    missing: tuple[Scalar, ...] = Field((), description="Codes that mean that there is no value, in every column.")
    unique_by: tuple[str, ...] = Field(
        (), description="Columns of the file of whose values the first row counts, as to take customers out of a file of transactions."
    )
    currency: str | None = Field(
        None, description="The file's column with each row's currency; rows of another than the source's are in quarantine."
    )
    split: SplitMap | None = Field(
        None, description="States the test set by a column: its rows judge the model, and nothing of them enters fitting or choosing."
    )
    test_files: str | tuple[str, ...] = Field(
        (), description="States the test set by files beside `file`, with the same columns: all of their rows."
    )
    columns: dict[str, ColumnMap] = Field(description="The ledger's columns -> the file's.")
    extra: tuple[ExtraColumn, ...] = Field((), description="Columns of your own.")

    @field_validator("unique_by", mode="before")
    @classmethod
    def _one_or_several(cls, names: Any) -> Any:
        return (names,) if isinstance(names, str) else names

    @model_validator(mode="after")
    def _direction_of_two_columns(self) -> Self:
        """Take the direction of a movement from the columns of its amount, where they are two."""
        amount = self.columns.get("amount")
        if amount and amount.debit and DIRECTION not in self.columns:
            self.columns[DIRECTION] = amount
        return self

    @property
    def maps(self) -> dict[str, ColumnMap]:
        """Every mapped column, the ledger's and the extra ones, by its name in the ledger."""
        return {**self.columns, **{column.name: column for column in self.extra}}

    @property
    def reads(self) -> tuple[str, ...]:
        """The file's columns that are read, each once."""
        names = [name for column in self.maps.values() for name in column.reads]
        return tuple(dict.fromkeys((*names, *self.unique_by, *((self.split.column,) if self.split else ()))))

    @property
    def has_content_id(self) -> bool:
        """Whether a column holds an identifier made of the row's content."""
        return any(column.id for column in self.maps.values())

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,) if isinstance(self.file, str) else self.file

    @property
    def files_of_tests(self) -> tuple[str, ...]:
        return (self.test_files,) if isinstance(self.test_files, str) else self.test_files

    @property
    def is_parquet(self) -> bool:
        return self.format == "parquet" or (self.format is None and self.files[0].lower().endswith((".parquet", ".pq")))

    def declare(self, name: str) -> Table:
        """Return the ledger's contract of the table, with the extra columns."""
        zones = {column: how.timezone for column, how in self.maps.items() if how.timezone}
        lacking = [column.name for column in TABLES[name].columns if column.is_optional and column.name not in self.columns]
        own = [column.declare() for column in self.extra] + [IS_TEST] * bool(self.split or self.test_files)
        return TABLES[name].without(*lacking).with_columns(*own).with_zones(zones)


class Mapping(_Model):
    """A whole source."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The ledger's name, and that of its folder in FINRISK_HOME.")
    description: str = Field("", description="One sentence on the source.")
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code of the one currency of all amounts.")
    begins: str = Field(
        "2020-01", pattern=MONTH, description="The first month of the ledger (2024-07); it takes what is earlier or undated."
    )
    ends: str | None = Field(
        None, pattern=MONTH, description="The last month, where the ledger has ended; else the present one is its last."
    )
    policy: str | None = Field(None, description="The source's own decision policy: its path from the YAML file's folder.")
    tables: dict[str, TableMap] = Field(min_length=1, description="The ledger's tables: customers, accounts, transactions, loans, offers.")

    @model_validator(mode="after")
    def _in_one_currency(self) -> Self:
        """Make a table's column of currencies a column of the ledger that has the one currency alone."""
        for name, table in self.tables.items():
            if table.currency is not None and all(column.name != CURRENCY for column in table.extra):
                how = {"name": CURRENCY, "from": table.currency, "type": "string", "description": "Currency.", "allowed": (self.currency,)}
                self.tables[name] = table.model_copy(update={"extra": (*table.extra, ExtraColumn.model_validate(how))})
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ends is not None and self.ends < self.begins:
            raise ValueError(f"ends: {self.ends} comes before begins: {self.begins}; exchange them")
        return self


def read_mapping(path: Path) -> Mapping:
    """Read and check a mapping file.

    Raises
    ------
    MappingError
        If the file is missing, is not YAML, or is invalid: every wrong key with its path and the fix.
    """
    import yaml

    try:
        data = load_mapping_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MappingError(f"the mapping {path} cannot be read: {error.strerror}; set FINRISK_MAPPING to its path") from None
    except RepeatedKeyError as error:
        raise MappingError(f"{path}, {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise MappingError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or 'save it as UTF-8 text'}") from None
    try:
        mapping = Mapping.model_validate(data)
    except ValidationError as error:
        raise MappingError(_format(path, [_complaint(detail, data) for detail in error.errors()])) from None
    wrong = [complaint for name, table in mapping.tables.items() for complaint in _check_table(name, table)]
    if wrong:
        raise MappingError(_format(path, wrong))
    return mapping


def _format(path: Path, complaints: Sequence[str]) -> str:
    return "\n".join(f"{path}: {complaint}" for complaint in dict.fromkeys(complaints))


def _complaint(detail: Any, data: Any) -> str:
    """Describe a Pydantic error as a path and a sentence."""
    place = _path(_with_names(detail["loc"], data))
    if detail["type"] == "extra_forbidden":
        fields = _fields_at(detail["loc"][:-1])
        return f"{place}: there is no such key{_suggest(str(detail['loc'][-1]), fields)}"
    if detail["type"] == "missing":
        return f"{place}: is missing; add it"
    if detail["loc"] == () and not isinstance(data, dict):
        return "is empty or not a mapping of keys; start it with name, currency and tables"
    return f"{place}: {detail['msg'].removeprefix('Value error, ')}"


def _with_names(loc: Sequence[str | int], data: Any) -> list[str | int]:
    """Return a location with the name of an extra column in place of its number."""
    names: list[str | int] = []
    for part in loc:
        data = data[part] if (isinstance(data, list) and isinstance(part, int) and part < len(data)) else (
            data.get(part) if isinstance(data, dict) else None
        )  # fmt: skip
        is_named = isinstance(part, int) and isinstance(data, dict) and isinstance(data.get("name"), str)
        names.append(data["name"] if is_named and isinstance(data, dict) else part)
    return names


def _path(loc: Sequence[str | int]) -> str:
    """Return a location as dotted keys, without the names of alternative types that Pydantic adds."""
    return ".".join(str(part) for part in loc if part not in ("str", "int", "float", "bool", "tuple[str, ...]")) or "the file"


def _fields_at(loc: Sequence[str | int]) -> list[str]:
    """Return the keys that are allowed at a location."""
    model: type[BaseModel] = Mapping
    if len(loc) >= 2:
        model = TableMap
    if len(loc) >= 4:
        model = ExtraColumn if loc[2] == "extra" else ColumnMap
        model = FeatureMap if loc[-1] == "feature" else model
    elif len(loc) == 3 and loc[2] == "split":
        model = SplitMap
    return [field.alias or name for name, field in model.model_fields.items()]


def _suggest(word: str, known: Sequence[str], *, listed: bool = True) -> str:
    close = get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}" if listed else ""


def _check_table(name: str, table: TableMap) -> list[str]:
    """Check a table's keys against the ledger's contract."""
    place = f"tables.{name}"
    if name not in TABLES:
        return [f"{place}: the ledger has no such table{_suggest(name, list(TABLES))}"]
    canonical = TABLES[name]
    wrong = [
        f"{place}.columns.{column}: {name} has no such column{_suggest(column, canonical.names)}; one of your own goes under extra"
        for column in table.columns
        if column not in canonical.names
    ]
    wrong += [
        f"{place}.columns.{column.name}: is required; say where it comes from. It is: {column.description}"
        for column in canonical.columns
        if not column.nullable and not column.is_optional and column.name not in table.columns
    ]
    names = [column.name for column in table.extra]
    for column in table.extra:
        column_place = f"{place}.extra.{column.name}"
        if column.name in (*canonical.names, IS_TEST.name) or names.count(column.name) > 1:
            wrong.append(f"{column_place}.name: {column.name!r} is taken; choose another name")
        moments = [c.name for c in canonical.columns if c.dtype == "timestamp"] + [c.name for c in table.extra if c.type == "timestamp"]
        if column.known != "always" and column.known not in moments:
            wrong.append(f"{column_place}.known: {column.known!r} is no moment of {name}; say always or one of {', '.join(moments)}")
        elif column.feature and column.feature.category and name not in WITH_CATEGORIES:
            wrong.append(f"{column_place}.feature.category: only {' and '.join(WITH_CATEGORIES)} have categories; take the key away")
        elif column.feature and column.known not in ("always", canonical.event_time):
            wrong.append(f"{column_place}.known: {column.known} comes after the decision, so it cannot be a feature; take `feature` away")
    if table.split and table.test_files:
        wrong.append(f"{place}: split and test_files both state the test set; take one of them away")
    if (table.split or table.test_files) and name not in WITH_STATED_TESTS:
        wrong.append(f"{place}: only {' and '.join(WITH_STATED_TESTS)} have a stated test set; take split and test_files away")
    if table.is_parquet and table.header:
        wrong.append(f"{place}.header: a Parquet file names its columns itself; take the key away")
    if table.header:
        wrong += [
            f"{place}.{key}: the file has no column {name!r}{_suggest(name, table.header)}"
            for key, column in _places(table)
            for name in column.reads
            if name not in table.header
        ]
    if table.is_parquet and (table.skip is not None or table.delimiter):
        wrong.append(f"{place}: skip and delimiter are for text files; take them away")
    if len(table.files) > 1 or "*" in table.files[0] or table.test_files:
        wrong += [
            f"{place}.{key}: row numbers of several files shift when an earlier file arrives; write `id: content`, which stays with the row"
            for key, column in _places(table)
            if column.row_number
        ]
    wrong += [
        f"{place}.{key}: a date without a time is the same in every zone; take `timezone` away"
        for key, column in _places(table)
        if column.timezone and not has_time_of_day(column.format or "")
    ]
    return wrong


def _places(table: TableMap) -> list[tuple[str, ColumnMap]]:
    """Return every column of a table with its place in the mapping."""
    return [(f"columns.{name}", column) for name, column in table.columns.items()] + [(f"extra.{c.name}", c) for c in table.extra]
