"""The proposal of a mapping for files that are not described yet, with what is sure and what is to be confirmed.

`schemas.text_files` says how a file is written and what its columns are; this module makes a mapping of them.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finrisk_assets.ledger.landing import LandingError
from schemas.ledger import TABLES
from schemas.mapping import WITH_CATEGORIES, WITH_STATED_TESTS
from schemas.text_files.cell_formats import NumberFormat
from schemas.text_files.column_names import IDENTIFIERS, LEAKS, PROTECTED, find_role, fold, ledger_name, read_directions
from schemas.text_files.source_columns import OUTCOMES, SourceColumn, assign_roles, describe_columns, find_currency, join_formats
from schemas.text_files.text_layout import SAMPLE_ROWS, LayoutError, TextLayout, find_layout

Ask = Callable[[str, Sequence[str], str], str]
"""A question, its answers (none: any text) and the likeliest one -> the answer."""

_BAD_WORDS = re.compile(
    r"bad|default\w*|charged?.?off|late.*|mora|impago|delinq\w*|yes|y|ja|oui|si|ano|true|1|1\.0|overdue|ausfall|written.?off"
)
_GOOD_NAMES = re.compile(r"repaid|paid|good|success|creditability")
MAX_LEVELS = 12
"""Levels of a text up to which each becomes a feature of its own."""
LEAST_LEVEL_SHARE = 0.01
"""Share of the rows from which a level becomes a feature."""

_SPLIT_NAMES = re.compile(r"(data_?)?(set|split|sample|partition|subset|window)|train_?test|is_test")
_TEST_WORDS = re.compile(r"test(ing)?(_?set)?|out|oot|oos|hold_?out|out_of_(time|sample)")

_SAMPLE_BYTES = 4 << 20
"""Bytes at the beginning of a file that are looked at, and at its end, where later rows may be of another kind."""


@dataclass(frozen=True)
class SourceFile:
    """Files with the same columns, as far as they are known; `layout` is None for Parquet."""

    paths: tuple[Path, ...]
    columns: tuple[SourceColumn, ...]
    layout: TextLayout | None
    n_rows: int


@dataclass
class ProposedColumn:
    """One line of a proposed mapping: the ledger's column, how it is read, and a remark; `is_sure` is false where it is to be confirmed."""

    name: str
    how: dict[str, Any]
    remark: str = ""
    is_sure: bool = True


@dataclass
class ProposedTable:
    """A proposed table: its file, the ledger's columns, the source's own, those of currency and of the test set, and what is not taken."""

    name: str
    file: SourceFile
    columns: list[ProposedColumn] = field(default_factory=list)
    extra: list[ProposedColumn] = field(default_factory=list)
    currency: str = ""
    split: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def read_files(paths: Sequence[Path]) -> list[SourceFile]:
    """Read the first rows of files and find their formats; files with the same columns are one.

    Raises
    ------
    LandingError
        If a file cannot be read or holds no table.
    """
    groups: dict[tuple[str, ...], list[tuple[Path, TextLayout | None, list[Sequence[str]]]]] = {}
    for path in paths:
        if path.suffix.lower() in (".parquet", ".pq"):
            names, rows = _read_parquet(path)
            groups.setdefault(names, []).append((path, None, rows))
        else:
            layout = _find_layout(path)
            groups.setdefault(layout.header, []).append((path, layout, list(layout.rows)))
    return [_describe(names, group) for names, group in groups.items()]


def _find_layout(path: Path) -> TextLayout:
    try:
        with path.open("rb") as file:
            data = file.read(_SAMPLE_BYTES)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(_SAMPLE_BYTES, size - _SAMPLE_BYTES))
            return find_layout(data, file.read())
    except OSError as error:
        raise LandingError(f"{path} cannot be read: {error.strerror or error}; check the path") from None
    except LayoutError as error:
        raise LandingError(f"{path} {error}") from None


def _read_parquet(path: Path) -> tuple[tuple[str, ...], list[Sequence[str]]]:
    import pyarrow.parquet as pq

    try:
        batch = next(pq.ParquetFile(path).iter_batches(SAMPLE_ROWS))
    except Exception as error:
        raise LandingError(f"{path} cannot be read as Parquet ({type(error).__name__}); is it another format, or cut short?") from None
    columns = [["" if value is None else str(value) for value in column] for column in batch.to_pydict().values()]
    return tuple(batch.schema.names), list(zip(*columns, strict=True))


def _describe(names: Sequence[str], group: Sequence[tuple[Path, TextLayout | None, list[Sequence[str]]]]) -> SourceFile:
    rows = [row for _, _, rows in group for row in rows][:SAMPLE_ROWS]
    return SourceFile(tuple(path for path, _, _ in group), describe_columns(names, rows), group[0][1], len(rows))


# --- tables --------------------------------------------------------------------------------------------------------


def propose_table(file: SourceFile, table: str | None, ask: Ask) -> ProposedTable:
    """Propose the ledger table of a file, and the origin of its columns.

    Parameters
    ----------
    file
        The file's columns and formats.
    table
        The ledger table, where it is known.
    ask
        Called where the file leaves something open.

    Raises
    ------
    LandingError
        If the file has not what the table needs.
    """
    name = table or _guess_table(file, ask)
    proposed = ProposedTable(name, file)
    roles = assign_roles(name, file.columns)
    steps = {"transactions": _propose_transactions, "loans": _propose_loans}
    steps.get(name, _propose_plain)(proposed, roles, ask)
    proposed.currency = roles["currency"].name if "currency" in roles else ""
    used = {column for line in proposed.columns for column in line.how.values() if isinstance(column, str)} | {proposed.currency}
    rest = [column for column in file.columns if column.name not in used]
    learns = any(line.name in OUTCOMES for line in proposed.columns)
    if learns and name in WITH_STATED_TESTS:
        proposed.split = _propose_split(rest)
        rest = [column for column in rest if column.name != proposed.split.get("column")]
    moment = TABLES[name].event_time
    is_dated = any(line.name == moment for line in proposed.columns)
    for column in rest:
        taken = {line.name for line in (*proposed.columns, *proposed.extra)}
        lines = [] if name == "transactions" and not learns else _propose_extra(column, name, taken, is_feature=learns)
        for line in lines:
            if is_dated and "feature" in line.how and name == "transactions":
                line.how["known"] = moment
        proposed.extra += lines
        proposed.left_out += [] if lines else [column.name]
    return proposed


def _guess_table(file: SourceFile, ask: Ask) -> str:
    def has(table: str, role: str, *kinds: str) -> bool:
        return any(role in find_role(table, c.name) and c.format.kind in kinds for c in file.columns)

    is_movement = has("transactions", "occurred_at", "time") and (
        has("transactions", "amount", "number") or has("transactions", "debit", "number", "empty")
    )
    is_loan = has("loans", "is_default", "boolean", "number", "text")
    n_loan = sum(has("loans", role, "number", "time") for role in ("loan_amount", "term_months", "annual_rate_pct", "instalment_amount"))
    scores = {
        "transactions": 3 * is_movement + 2 * has("transactions", "is_fraud", "boolean") * is_movement,
        "loans": 2 * is_loan + n_loan,
        "offers": 3 * has("offers", "is_accepted", "boolean", "text") * has("offers", "annual_rate_pct", "number"),
        "accounts": 2 * (has("accounts", "opened_at", "time") and has("accounts", "account_id", "number", "text")),
        "customers": 1 * has("customers", "customer_id", "number", "text") + has("customers", "birth_year", "number"),
    }
    best = max(scores, key=lambda table: scores[table])
    if not scores[best]:
        answer = ask(f"{file.paths[0].name}: which table of the ledger is it?", (*TABLES, "none"), "none")
        if answer == "none":
            names = ", ".join(column.name for column in file.columns)
            raise LandingError(
                f"{file.paths[0]}: the columns {names} do not tell what the file holds; say it with --as, such as --as loans. A column "
                "whose name is there twice is not read"
            )
        return answer
    ranking = sorted(scores.values())
    if ranking[-1] - ranking[-2] < 1:
        return ask(f"{file.paths[0].name}: which table of the ledger is it?", tuple(TABLES), best)
    return best


# --- columns -------------------------------------------------------------------------------------------------------


def _propose_plain(proposed: ProposedTable, roles: Mapping[str, SourceColumn], ask: Ask) -> None:
    """Propose each column of the ledger that the file has, and the required ones that it has not."""
    for column in TABLES[proposed.name].columns:
        if column.name in roles:
            proposed.columns.append(_from(column.name, roles[column.name], column.dtype))
        elif column.name == TABLES[proposed.name].key:
            proposed.columns.append(_make_key(proposed, column.name))
        elif column.name == "customer_id":
            key = proposed.columns[0]
            proposed.columns.append(
                ProposedColumn("customer_id", dict(key.how), "the file names no person: each row is one", is_sure=False)
            )
        elif not column.nullable:
            lacking = f"{proposed.file.paths[0]} has no column for {column.name} of {proposed.name}: {column.description}"
            raise LandingError(f"{lacking} Say another table with --as, or name the column by hand")


def _make_key(proposed: ProposedTable, key: str) -> ProposedColumn:
    return ProposedColumn(key, {"id": "content"}, "no column is an identifier of its own: one is made of the row's content")


def _from(role: str, column: SourceColumn, dtype: str, *, keeps_codes: bool = True) -> ProposedColumn:
    """Propose a column that is read as it is, in its format."""
    how: dict[str, Any] = {"from": column.name}
    fmt = column.format
    if dtype in ("int64", "float64"):
        how |= _marks(fmt.numbers)
    if dtype == "timestamp" and fmt.format:
        how["format"] = fmt.format
        how |= {"language": fmt.dates[0].language} if fmt.dates[0].language != "en" else {}
    codes = fmt.missing if keeps_codes else [code for code in fmt.missing if not re.fullmatch("-?[0-9.]+", code)]
    if codes:
        how["missing"] = list(codes)
    doubts = list(fmt.doubts)
    if keeps_codes and any(re.fullmatch("-?[0-9.]+", code) for code in fmt.missing):
        doubts.append(f"{', '.join(fmt.missing)} look like codes of a missing value")
    return ProposedColumn(role, how, "; ".join(doubts), is_sure=not doubts)


def _marks(numbers: Sequence[NumberFormat]) -> dict[str, Any]:
    how = numbers[0] if numbers else NumberFormat()
    return {name: value for name, value in vars(how).items() if value != getattr(NumberFormat(), name)}


def _propose_transactions(proposed: ProposedTable, roles: Mapping[str, SourceColumn], ask: Ask) -> None:
    if "occurred_at" not in roles or not ({"amount", "debit"} & set(roles)):
        lacking = "a date" if "occurred_at" not in roles else "an amount, or debit and credit"
        raise LandingError(f"{proposed.file.paths[0]} has no column that looks like {lacking}; say another table with --as")
    lines = proposed.columns
    key = roles.get("transaction_id")
    lines.append(_from("transaction_id", key, "string") if key else _make_key(proposed, "transaction_id"))
    person = roles.get("customer_id") or roles.get("account_id")
    if person:
        remark = "" if "customer_id" in roles else "each account is taken for one person"
        lines.append(ProposedColumn("customer_id", {"from": person.name}, remark, is_sure="customer_id" in roles))
    else:
        lines.append(ProposedColumn("customer_id", {"value": "me"}, "the file names no person: all rows are of one"))
    if "account_id" in roles:
        lines.append(_from("account_id", roles["account_id"], "string"))
    lines.append(_propose_moment("occurred_at", roles["occurred_at"], ask))
    lines += _propose_amount(roles, ask)
    for role, dtype in (("category", "string"), ("merchant", "string"), ("country", "string"), ("balance_amount", "float64")):
        if role in roles:
            lines.append(_from(role, roles[role], dtype, keeps_codes=False))
    if "is_fraud" in roles:
        lines.append(_propose_outcome("is_fraud", roles["is_fraud"], ask))


def _propose_moment(role: str, column: SourceColumn, ask: Ask) -> ProposedColumn:
    """Propose a column of times; the order of day and month is asked for where the values leave it open."""
    line = _from(role, column, "timestamp")
    forms = [dates.form for dates in column.format.dates]
    if len(forms) > 1:
        example = next(iter(column.format.distinct), "")
        question = f"{column.name}: which is the day, which the month{f' in {example}' if example else ''}?"
        line.how["format"] = ask(question, forms, forms[0])
    return line


def _propose_amount(roles: Mapping[str, SourceColumn], ask: Ask) -> Iterator[ProposedColumn]:
    """Yield amount and direction: of two columns, a sign, or a column of words."""
    if "debit" in roles:
        debit, credit = roles["debit"], roles["credit"]
        how = {"debit": debit.name, "credit": credit.name, **_marks(join_formats((debit.format, credit.format)))}
        if debit.format.is_negative:
            how["absolute"] = True
        dashes = [word for column in (debit, credit) for word in column.format.missing if not re.fullmatch("-?[0-9.]+", word)]
        if dashes:
            how["missing"] = list(dict.fromkeys(dashes))
        yield ProposedColumn("amount", how, "money out and money in are two columns; the direction follows")
        return
    amount = roles["amount"]
    line = _from("amount", amount, "float64", keeps_codes=False)
    line.is_sure, line.remark = not amount.format.doubts, "; ".join(amount.format.doubts)
    if amount.format.is_negative:
        line.how["absolute"] = True
        yield line
        yield ProposedColumn(
            "direction", {"sign_of": amount.name, **_marks(amount.format.numbers)}, "the sign says it: below zero is money out"
        )
        return
    words = read_directions(roles["direction"].format.distinct) if "direction" in roles else None
    yield line
    if words is None:
        yield ProposedColumn(
            "direction", {"value": "debit"}, "nothing says which way money moves: all is taken for money out", is_sure=False
        )
    else:
        how = {"from": roles["direction"].name}
        if any(word != meaning for word, meaning in words.items()):
            how["values"] = {word: meaning for word, meaning in words.items() if word != meaning}
        yield ProposedColumn("direction", how)


def _propose_loans(proposed: ProposedTable, roles: Mapping[str, SourceColumn], ask: Ask) -> None:
    lines = proposed.columns
    key = roles.get("loan_id")
    lines.append(_from("loan_id", key, "string") if key else _make_key(proposed, "loan_id"))
    person = roles.get("customer_id")
    if person:
        lines.append(_from("customer_id", person, "string"))
    else:
        lines.append(ProposedColumn("customer_id", dict(lines[0].how), "the file names no borrower: each loan has one of its own"))
    if "applied_at" in roles:
        lines.append(_propose_moment("applied_at", roles["applied_at"], ask))
    if "loan_amount" in roles:
        lines.append(_from("loan_amount", roles["loan_amount"], "float64", keeps_codes=False))
    else:
        proposed.remarks.append("no column looks like the loan's amount: decisions go by the amount that the policy assumes")
    for role, dtype in (("term_months", "int64"), ("instalment_amount", "float64"), ("annual_rate_pct", "float64")):
        if role in roles:
            lines.append(_from(role, roles[role], dtype))
    target = roles.get("is_default")
    if target is None:
        named = [c.name for c in proposed.file.columns if 2 <= len(c.format.distinct) <= 2 and c not in roles.values()]
        answer = ask(f"Which column says that a loan defaulted? {', '.join(named)}; none", (*named, "none"), "none") if named else "none"
        target = next((c for c in proposed.file.columns if c.name == answer), None)
    if target:
        lines.append(_propose_outcome("is_default", target, ask))
        if "outcome_known_at" in roles:
            lines.append(_propose_moment("outcome_known_at", roles["outcome_known_at"], ask))
    else:
        proposed.remarks.append("no column looks like the outcome: without is_default, loan default is left out")


def _propose_outcome(role: str, column: SourceColumn, ask: Ask) -> ProposedColumn:
    """Propose an outcome: which of its values mean true."""
    counts = column.format.distinct
    is_inverted = _GOOD_NAMES.search(fold(column.name)) is not None
    true = [value for value in counts if _BAD_WORDS.fullmatch(value.lower())]
    remark, is_sure = "", True
    if len(counts) > 2:
        remark, is_sure = f"taken for true: {', '.join(true) or 'nothing'}; mend it", False
    elif is_inverted and len(true) == 1:
        true, remark, is_sure = [value for value in counts if value not in true], "the name tells of the good outcome", False
    elif len(true) != 1:
        rarer = min(counts, key=lambda value: counts[value])
        true = [ask(f"{column.name}: which value means {role}?", tuple(counts), rarer)]
        remark, is_sure = f"{true[0]} is the rarer value, so it is taken for true", False
    how: dict[str, Any] = {"from": column.name}
    if not (column.format.kind == "boolean" and len(true) == 1 and _BAD_WORDS.fullmatch(true[0].lower())):
        how["values"] = {value: value in true for value in counts}
    if column.format.missing:
        how["missing"] = list(column.format.missing)
    return ProposedColumn(role, how, remark, is_sure)


def _propose_extra(column: SourceColumn, table: str, taken: set[str], *, is_feature: bool) -> list[ProposedColumn]:
    """Propose the columns of the source's own that a column gives: none without a value, one for each level of a text of few."""
    fmt, folded = column.format, fold(column.name)
    if fmt.kind == "empty":
        return []
    name = ledger_name(column.name, taken | set(TABLES[table].names))
    line = _from(name, column, "timestamp" if fmt.kind == "time" else "float64" if fmt.kind == "number" else "string")
    dtype = {"boolean": "boolean", "time": "timestamp", "text": "string"}.get(fmt.kind, "int64" if fmt.is_whole else "float64")
    line.how["type"] = dtype
    is_identifier = fmt.is_unique and (fmt.kind == "text" or (fmt.kind == "number" and fmt.is_whole)) and IDENTIFIERS.search(folded)
    if any(PROTECTED.search(spelling) for spelling in (folded, fold(column.name.lower()))):
        line.how["personal"] = "protected"
        line.remark = _join(line.remark, "a protected attribute: never a feature")
    elif is_identifier:
        line.how["personal"] = "identifier"
        line.remark = _join(line.remark, "an identifier: never a feature")
    elif fmt.kind == "text" and not fmt.distinct and IDENTIFIERS.search(folded):
        line.how["personal"] = "personal"
        line.remark = _join(line.remark, "names a person or a place: never a feature")
    elif not is_feature:
        pass
    elif LEAKS.search(folded):
        line.is_sure = False
        line.remark = _join(line.remark, "sounds like what is known only after the decision, so it is no feature")
    elif dtype in ("int64", "float64", "boolean"):
        if dtype == "float64" and not -1 <= fmt.lowest <= fmt.highest <= 1:
            line.how["unit"] = "number"
        line.how["feature"] = {}
    elif fmt.kind == "text":
        levels = [level for level, count in fmt.distinct.items() if count >= LEAST_LEVEL_SHARE * sum(fmt.distinct.values())]
        if 0 < len(levels) <= MAX_LEVELS:
            return list(_propose_levels(column, name, levels, taken | set(TABLES[table].names)))
        if levels and table in WITH_CATEGORIES:
            line.how["feature"] = {"category": True}
            line.remark = _join(line.remark, "each level weighs as its outcomes do")
        else:
            line.remark = _join(line.remark, "a text of many levels is no feature without `category: true`; or group them with `contains`")
    return [line]


def _propose_split(columns: Sequence[SourceColumn]) -> dict[str, Any]:
    """Return the column that states which rows are the test set, with its words for them; nothing where none does."""
    for column in columns:
        tests = [level for level in column.format.distinct if _TEST_WORDS.fullmatch(fold(level))]
        if _SPLIT_NAMES.fullmatch(fold(column.name)) and 0 < len(tests) < len(column.format.distinct):
            return {"column": column.name, "test": tests}
    return {}


def _propose_levels(column: SourceColumn, name: str, levels: Sequence[str], taken: set[str]) -> Iterator[ProposedColumn]:
    """Yield a column of true and false for each level of a text; of two levels the first is told by the second."""
    for level in levels[1:] if len(levels) == 2 else levels:
        own = ledger_name(f"{name} is {level}", taken)
        taken = taken | {own}
        how = {"name": own, "from": column.name, "type": "boolean", "values": {level: True}, "otherwise": False}
        if column.format.missing:
            how["missing"] = list(column.format.missing)
        how["description"] = f"Whether {column.name} is {level}."
        yield ProposedColumn(own, {key: value for key, value in how.items() if key != "name"} | {"feature": {}})


def _join(*remarks: str) -> str:
    return "; ".join(remark for remark in remarks if remark)


# --- the whole -----------------------------------------------------------------------------------------------------


def ask_currency(tables: Sequence[ProposedTable], ask: Ask) -> tuple[str, bool]:
    """Return the currency of all amounts and whether a file says it."""
    found = next((code for table in tables if (code := find_currency(table.file.columns))), "")
    return (found, True) if found else (ask("Which currency are the amounts in (ISO 4217)?", (), "EUR"), False)


def write_yaml(name: str, tables: Sequence[ProposedTable], currency: tuple[str, bool], folder: Path, names: Mapping[Path, str]) -> str:
    """Return the proposed mapping as commented YAML; a file is called by its name in `names`, by a relative path where it can be."""
    lines = [
        "# Proposed by `finrisk import` from the files' first rows. A comment that begins with `confirm` is a guess: look at it.",
        f"name: {name}",
        _with_remark(f"currency: {currency[0]}", "" if currency[1] else "not said by the files", is_sure=currency[1]),
    ]
    times = [c.format for t in tables for line in t.columns if line.name == TABLES[t.name].event_time
             for c in t.file.columns if c.name == line.how.get("from")]  # fmt: skip
    firsts, lasts = [fmt.first for fmt in times if fmt.first], [fmt.last for fmt in times if fmt.last]
    if firsts:
        lines.append(_with_remark(f"begins: {min(firsts):%Y-%m}", "the first month of the rows looked at", is_sure=True))
        lines.append(f"# ends: {max(lasts):%Y-%m}   # where the ledger has ended; else the present month is its last")
    lines.append("tables:")
    for table in tables:
        lines += _table_lines(table, folder, names)
    return "\n".join(lines) + "\n"


def _table_lines(table: ProposedTable, folder: Path, names: Mapping[Path, str]) -> Iterator[str]:
    yield f"  {table.name}:"
    for remark in table.remarks:
        yield f"    # confirm: {remark}"
    paths = [
        Path(name).relative_to(folder).as_posix() if Path(name).is_relative_to(folder) else name
        for name in (names.get(path, str(path)) for path in table.file.paths)
    ]
    yield f"    file: {_flow(paths if len(paths) > 1 else paths[0])}"
    layout = table.file.layout
    if layout:
        if layout.delimiter != ",":
            yield f"    delimiter: {_flow(layout.delimiter)}"
        if layout.encoding != "utf-8":
            yield _with_remark(
                f"    encoding: {layout.encoding}",
                "" if layout.is_encoding_sure else "look at letters with accents",
                is_sure=layout.is_encoding_sure,
            )
        if layout.skip and layout.has_header:
            yield f"    # the {layout.skip} lines above the header are found by themselves"
        elif layout.skip:
            yield f"    skip: {layout.skip}   # lines above the first row"
        if not layout.has_header:
            yield _with_remark(f"    header: {_flow(list(layout.header))}", "the file has no header line: name its columns", is_sure=False)
    if table.currency:
        yield f"    currency: {_flow(table.currency)}   # rows of another currency go to the quarantine"
    if table.split:
        yield _with_remark(f"    split: {_flow(table.split)}", "these rows judge the models, and teach none", is_sure=False)
    yield "    columns:"
    for line in table.columns:
        how = line.how["from"] if set(line.how) == {"from"} else line.how
        yield _with_remark(f"      {line.name}: {_flow(how)}", line.remark, is_sure=line.is_sure)
    if table.extra:
        yield "    extra:"
        for line in table.extra:
            yield _with_remark(f"      - {_flow({'name': line.name, **line.how})}", line.remark, is_sure=line.is_sure)
    if table.left_out:
        yield f"    # not taken: {', '.join(table.left_out)}"


def _with_remark(text: str, remark: str, *, is_sure: bool) -> str:
    return f"{text}   # {'' if is_sure else 'confirm: '}{remark}" if remark else text


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    import yaml

    return (
        yaml.safe_dump(value, default_flow_style=True, width=1_000_000, allow_unicode=True, sort_keys=False)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
