"""The valid rows of a table and those in quarantine: per broken rule the number of rows, three examples and the fix."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from finrisk_assets.ledger.contract import BROKEN_RULES, SEPARATOR, count_by_rule
from finrisk_assets.ledger.landing import ROW
from schemas.text_files.text_records import BROKEN_ENCODING, MALFORMED_ROW

if TYPE_CHECKING:
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.source_definition import RawTable
    from schemas.mapping import ColumnMap

HIDDEN = "•••"
"""The text in place of personal data."""
EXAMPLES = 3

_FIXES = {
    MALFORMED_ROW: "say the file's delimiter and quote in the mapping, or mend the line",
    BROKEN_ENCODING: "say the file's encoding in the mapping, such as cp1252",
    "is missing": "fill it in, or read the column from elsewhere",
    "is not finite": "list the word under `missing` if it means that there is no value",
    "is not a whole number": "read it as float64, or list the code under `missing`",
    "is not a number": "say how the file writes numbers by `decimal` and `thousands`, or list the code under `missing`",
    "is not true or false": "translate the file's codes with `values: {code: true}`",
    "is not a timestamp": 'say how the file writes times by `format`, such as "%d.%m.%Y %H:%M"; without it, ISO 8601 is read',
    "is not of the years": "say the unit of an epoch by `format: epoch_s` or `epoch_ms`, or list the code under `missing`",
    "is in the future": "say the zone of the file's times by `timezone` (default: UTC), or read the ledger later by FINRISK_AS_OF",
    "is below": "list the code under `missing`, take the sign off by `absolute: true`, or reach the ledger's unit by `scale`",
    "is above": "list the code under `missing`, or reach the ledger's unit by `scale`",
    "is no country": "translate the file's names with `values: {Austria: AT}`",
    "is not one of": "translate the file's words with `values`",
    "is a duplicate": "the first row is the valid one; read an identifier that each row has for itself, or write `id: content`",
    "is not in": "add the row to that table, or take the table out of the mapping",
}
"""Ending of a rule's name -> what to do."""


@dataclass(frozen=True)
class RuleReport:
    """A broken rule: the number of its rows, the first of them with the values that it is about, and the fix."""

    rows: int
    examples: Sequence[Mapping[str, Any]]
    fix: str


@dataclass(frozen=True)
class TableReport:
    """The rows of one table.

    Attributes
    ----------
    rows, valid, quarantined
        Numbers of rows: `rows` is the sum of the two others.
    rules
        Rule -> its report, the most frequent first.
    notes
        Sentences about columns that need a look, and about rows that landed once because several files repeat them.
    valid_rows, quarantined_rows
        The first rows where they were asked for, else None. They are personal data.
    """

    rows: int
    valid: int
    quarantined: int
    rules: Mapping[str, RuleReport] = field(default_factory=dict)
    notes: Sequence[str] = ()
    valid_rows: Sequence[Mapping[str, Any]] | None = None
    quarantined_rows: Sequence[Mapping[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON's types; rows only where they were asked for."""
        data: dict[str, Any] = {"rows": self.rows, "valid": self.valid, "quarantined": self.quarantined}
        data["rules"] = {name: {"rows": r.rows, "examples": list(r.examples), "fix": r.fix} for name, r in self.rules.items()}
        data["notes"] = list(self.notes)
        if self.valid_rows is not None and self.quarantined_rows is not None:
            data |= {"valid_rows": list(self.valid_rows), "quarantined_rows": list(self.quarantined_rows)}
        return data


def report_table(
    raw_table: "RawTable",
    valid: "LazyTable",
    quarantine: "LazyTable",
    *,
    maps: "Mapping[str, ColumnMap] | None" = None,
    notes: Sequence[str] = (),
    n_rows: int = 0,
) -> TableReport:
    """Report on the valid and the quarantined rows of a table.

    Parameters
    ----------
    raw_table
        The table's declaration, with the columns of the files that it is read from.
    valid, quarantine
        The two parts of the table.
    maps
        How the mapping reads each column, for fixes that fit it.
    notes
        Sentences to hand on.
    n_rows
        How many rows of each part the report shows.
    """
    n_valid, n_quarantined = (int(rows.count().to_pyarrow().as_py()) for rows in (valid, quarantine))
    counts = count_by_rule(quarantine)
    rules = {rule: RuleReport(rows, _examples(raw_table, quarantine, rule), _fix(raw_table, rule, maps)) for rule, rows in counts.items()}
    return TableReport(
        n_valid + n_quarantined,
        n_valid,
        n_quarantined,
        rules,
        notes,
        [_plain(row) for row in valid.head(n_rows).to_pyarrow().to_pylist()] if n_rows else None,
        [
            _plain(row) | {BROKEN_RULES: row[BROKEN_RULES].split(SEPARATOR)}
            for row in quarantine.order_by(ROW).head(n_rows).to_pyarrow().to_pylist()
        ]
        if n_rows
        else None,
    )


def column_of(raw_table: "RawTable", rule: str) -> str | None:
    """Return the ledger column that a rule is about; None for a rule about the whole line."""
    name = rule.partition(" ")[0]
    return name if name in raw_table.table.names else None


def _examples(raw_table: "RawTable", quarantine: "LazyTable", rule: str) -> list[dict[str, Any]]:
    """Return row number and values of the first rows that broke a rule; personal values are hidden."""
    marked = SEPARATOR + quarantine[BROKEN_RULES] + SEPARATOR
    column = column_of(raw_table, rule)
    shown = [name for name in raw_table.reads.get(column or "", ()) if name in quarantine.columns]
    rows = quarantine.filter(marked.contains(f"{SEPARATOR}{rule}{SEPARATOR}")).order_by(ROW).select(ROW, *shown).head(EXAMPLES)
    hidden = _personal_columns(raw_table)
    return [
        {"row": row[ROW], **{name: HIDDEN if name in hidden and row[name] is not None else row[name] for name in shown}}
        for row in rows.to_pyarrow().to_pylist()
    ]


def _personal_columns(raw_table: "RawTable") -> set[str]:
    """Return the columns of the files that a personal column of the ledger is read from."""
    personal = [column.name for column in raw_table.table.columns if column.personal != "none"]
    return {name for column in personal for name in raw_table.reads.get(column, ())}


def _fix(raw_table: "RawTable", rule: str, maps: "Mapping[str, ColumnMap] | None") -> str:
    column = column_of(raw_table, rule)
    fix = next((text for ending, text in _FIXES.items() if rule == ending or re.search(f" {re.escape(ending)}( |$)", rule)), "mend the row")
    how = (maps or {}).get(column or "")
    if how is None:
        return fix
    if rule.endswith("is not a timestamp") and how.format == "epoch_ms":
        return "`format: epoch_ms` reads milliseconds from 1970-02-17 to 2099; write epoch_s if the file has seconds"
    if rule.endswith("is not a timestamp") and how.format:
        return f"the mapping reads {how.format!r}; write `format` as the file has it"
    if rule.endswith("is not a number") and (how.decimal != "." or how.thousands):
        marks = f"decimal {how.decimal!r}" + (f" and thousands {how.thousands!r} in groups of three" if how.thousands else "")
        return (
            f"the mapping reads numbers with {marks}; say `decimal` and `thousands` as the file has them, or list the code under `missing`"
        )
    return fix


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row in JSON's types."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
