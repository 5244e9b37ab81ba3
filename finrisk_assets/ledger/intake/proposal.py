"""The proposal of a mapping for files that are not described yet, with what is sure and what is to be confirmed.

`text_layout` and `cell_formats` say how a file is written, `column_names` what its columns are called; this module makes a mapping of them.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finrisk_assets.ledger.intake.cell_formats import ColumnFormat, find_format
from finrisk_assets.ledger.intake.column_names import IDENTIFIERS, LEAKS, PROTECTED, find_role, fold, ledger_name
from finrisk_assets.ledger.intake.text_layout import SAMPLE_ROWS, TextLayout, find_layout
from finrisk_assets.ledger.landing import LandingError
from schemas.ledger import TABLES
from schemas.normal_form import COUNTRY_CODES

Ask = Callable[[str, Sequence[str], str], str]
"""A question, its answers (none: any text) and the likeliest one -> the answer."""

_DEBIT = """
d debit dr dbit s soll out outgoing withdrawal expense af vydaj cargo - debet charge purchase payment uit
sortie
"""
_DEBIT_WORDS = frozenset(_DEBIT.split())
_CREDIT = """
c credit cr crdt h haben in incoming deposit income bij prijem abono + kredit refund topup eingang entree
"""
_CREDIT_WORDS = frozenset(_CREDIT.split())
_BAD_WORDS = re.compile(
    r"bad|default\w*|charged?.?off|late.*|mora|impago|delinq\w*|yes|y|ja|oui|si|ano|true|1|1\.0|overdue|ausfall|written.?off"
)
_GOOD_NAMES = re.compile(r"repaid|paid|good|success|creditability")
MAX_LEVELS = 12
"""Levels of a text up to which each becomes a feature of its own."""
LEAST_LEVEL_SHARE = 0.01
"""Share of the rows from which a level becomes a feature."""

_OUTCOMES = ("is_default", "is_fraud", "is_accepted")
_CODES = """
EUR USD GBP CHF CZK PLN HUF SEK NOK DKK CAD AUD NZD JPY INR BRL SGD ZAR RON BGN TRY MXN CNY HKD VND IDR
"""
_CURRENCIES = tuple(_CODES.split())
_SIGNS = {"€": "EUR", "£": "GBP", "$": "USD"}


@dataclass(frozen=True)
class SourceColumn:
    """A column of a file: its name and the format of its values."""

    name: str
    format: ColumnFormat


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
    """A proposed table: its file, the ledger's columns, columns of the source's own, the column of currencies, and what is not taken."""

    name: str
    file: SourceFile
    columns: list[ProposedColumn] = field(default_factory=list)
    extra: list[ProposedColumn] = field(default_factory=list)
    currency: str = ""
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
            layout = find_layout(path)
            groups.setdefault(layout.header, []).append((path, layout, list(layout.rows)))
    return [_describe(names, group) for names, group in groups.items()]


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
    cells = {name: [row[place] for row in rows] for place, name in enumerate(names) if name.strip() and names.count(name) == 1}
    formats = {name: find_format(texts) for name, texts in cells.items()}
    # Columns that leave no doubt tell how the others are written.
    sure = {one.decimal for one in formats.values() if one.kind == "number" and not one.doubts and not one.is_whole}
    if len(sure) == 1:
        decimal = sure.pop()
        formats |= {name: find_format(texts, decimal=decimal) for name, texts in cells.items() if formats[name].kind == "number"}
    columns = tuple(SourceColumn(name, one) for name, one in formats.items())
    return SourceFile(tuple(path for path, _, _ in group), columns, group[0][1], len(rows))


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
    roles = _assign_roles(name, file)
    steps = {"transactions": _propose_transactions, "loans": _propose_loans}
    steps.get(name, _propose_plain)(proposed, roles, ask)
    proposed.currency = roles["currency"].name if "currency" in roles else ""
    used = {column for line in proposed.columns for column in line.how.values() if isinstance(column, str)} | {proposed.currency}
    rest = [column for column in file.columns if column.name not in used]
    learns = any(line.name in _OUTCOMES for line in proposed.columns)
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


def _assign_roles(table: str, file: SourceFile) -> dict[str, SourceColumn]:
    """Return the column of each role: one whose name and values fit it, the earlier one where two do, of outcomes the later."""
    kinds = {column.name: _kinds_of(column.dtype) for column in TABLES[table].columns}
    kinds |= {"debit": ("number", "empty"), "credit": ("number", "empty"), "currency": ("text",)}
    for outcome in _OUTCOMES:
        kinds[outcome] = ("boolean", "number", "text")
    candidates = []
    for place, column in enumerate(file.columns):
        for rank, role in enumerate(find_role(table, column.name)):
            if column.format.kind in kinds[role]:
                candidates.append((rank, -place if role in _OUTCOMES else place, role, column))
    candidates.sort(key=lambda candidate: candidate[:2])
    roles: dict[str, SourceColumn] = {}
    for _, _, role, column in candidates:
        if role in roles or column in roles.values() or not _fits(role, column.format, table):
            continue
        roles[role] = column
    if ("debit" in roles) != ("credit" in roles):
        roles.pop("debit", roles.pop("credit", None))
    return roles


def _kinds_of(dtype: str) -> tuple[str, ...]:
    return {
        "string": ("text", "number", "boolean"), "int64": ("number",), "float64": ("number",), "timestamp": ("time",),
        "boolean": ("boolean", "number", "text"),
    }[dtype]  # fmt: skip


def _fits(role: str, how: ColumnFormat, table: str) -> bool:
    """Return whether a column's values can have a role, beyond their kind."""
    if role == "country":
        return bool(how.distinct) and all(len(value) == 2 and value.upper() in COUNTRY_CODES for value in how.distinct)
    if role == "direction":
        return 0 < len(how.distinct) <= 12 and _direction_of(how) is not None
    if role == TABLES[table].key:
        return how.is_unique and not how.blank_share
    if role in _OUTCOMES:
        return 2 <= len(how.distinct) <= (12 if role == "is_default" else 2)
    column = next((column for column in TABLES[table].columns if column.name == role), None)
    if column and how.kind == "number" and role != "amount":
        is_within = (column.minimum is None or how.lowest >= column.minimum) and (column.maximum is None or how.highest <= column.maximum)
        return is_within and (column.dtype != "int64" or how.is_whole)
    return role != "currency" or all(re.fullmatch("[A-Za-z]{3}", value) for value in how.distinct)


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
        how |= _marks(fmt)
    if dtype == "timestamp" and fmt.format:
        how["format"] = fmt.format
    codes = fmt.missing if keeps_codes else [code for code in fmt.missing if not re.fullmatch("-?[0-9.]+", code)]
    if codes:
        how["missing"] = list(codes)
    doubts = list(fmt.doubts)
    if keeps_codes and any(re.fullmatch("-?[0-9.]+", code) for code in fmt.missing):
        doubts.append(f"{', '.join(fmt.missing)} look like codes of a missing value")
    return ProposedColumn(role, how, "; ".join(doubts), is_sure=not doubts)


def _marks(fmt: ColumnFormat) -> dict[str, Any]:
    return {key: value for key, value, default in (("decimal", fmt.decimal, "."), ("thousands", fmt.thousands, "")) if value != default}


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
    form = column.format.format
    if column.format.doubts and "%d" in form and "%m" in form:
        other = form.replace("%d", "\0").replace("%m", "%d").replace("\0", "%m")
        example = next(iter(column.format.distinct), "")
        answer = ask(f"{column.name}: which is the day, which the month{f' in {example}' if example else ''}?", (form, other), form)
        line.how["format"] = answer
    return line


def _propose_amount(roles: Mapping[str, SourceColumn], ask: Ask) -> Iterator[ProposedColumn]:
    """Yield amount and direction: of two columns, a sign, or a column of words."""
    if "debit" in roles:
        debit, credit = roles["debit"], roles["credit"]
        marks = _marks(debit.format) or _marks(credit.format)
        how = {"debit": debit.name, "credit": credit.name, **marks}
        if debit.format.is_negative:
            how["absolute"] = True
        yield ProposedColumn("amount", how, "money out and money in are two columns; the direction follows")
        return
    amount = roles["amount"]
    line = _from("amount", amount, "float64", keeps_codes=False)
    line.is_sure, line.remark = not amount.format.doubts, "; ".join(amount.format.doubts)
    if amount.format.is_negative:
        line.how["absolute"] = True
        yield line
        yield ProposedColumn("direction", {"sign_of": amount.name, **_marks(amount.format)}, "the sign says it: below zero is money out")
        return
    words = _direction_of(roles["direction"].format) if "direction" in roles else None
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


def _direction_of(fmt: ColumnFormat) -> dict[str, str] | None:
    """Return the words of a direction -> debit or credit; None where a word is neither."""
    meanings = {}
    for word in fmt.distinct:
        parts = {word.lower(), *re.split("[^a-z]+", word.lower())}
        is_debit, is_credit = bool(parts & _DEBIT_WORDS), bool(parts & _CREDIT_WORDS)
        if is_debit == is_credit:
            return None
        meanings[word] = "debit" if is_debit else "credit"
    return meanings


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
        line.remark = _join(line.remark, "a text of many levels is no feature; group them with `values` or `contains`")
    return [line]


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


def find_currency(tables: Sequence[ProposedTable], ask: Ask) -> tuple[str, bool]:
    """Return the currency of all amounts and whether a file says it."""
    for table in tables:
        for column in table.file.columns:
            values = [value.upper() for value in column.format.distinct]
            if column.format.kind == "text" and values and all(value in _CURRENCIES for value in values):
                return max(column.format.distinct, key=lambda value: column.format.distinct[value]).upper(), len(values) == 1
            named = next((c for c in _CURRENCIES if re.search(rf"(^|_){c.lower()}(_|$)", fold(column.name))), None)
            named = named or next((code for sign, code in _SIGNS.items() if sign in column.name), None)
            if named:
                return named, True
    return ask("Which currency are the amounts in (ISO 4217)?", (), "EUR"), False


def write_yaml(name: str, tables: Sequence[ProposedTable], currency: tuple[str, bool], folder: Path) -> str:
    """Return the proposed mapping as commented YAML; paths are relative to the folder where they can be."""
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
        lines += _table_lines(table, folder)
    return "\n".join(lines) + "\n"


def _table_lines(table: ProposedTable, folder: Path) -> Iterator[str]:
    yield f"  {table.name}:"
    for remark in table.remarks:
        yield f"    # confirm: {remark}"
    paths = [path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path) for path in table.file.paths]
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
