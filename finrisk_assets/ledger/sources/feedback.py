"""Analysts' labels of decisions, joined to a source's own labels: the outcome, and the time at which it became known.

`finrisk load-feedback` writes one file of labels per table. A source's table lands together with that file, and a row's label is the one
that became known last: the source's own, or the analyst's. A source without labels of its own stays without: the few rows that an analyst
happened to review say nothing about the others.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from finrisk_assets.ledger import contract
from finrisk_assets.ledger.landing import ROW, LandingResult, escape_pattern
from finrisk_assets.ledger.sources.source_definition import RawExpression, RawTable, Source, SourceFile

if TYPE_CHECKING:
    import ibis.expr.types as ir

LABEL, KNOWN = "_feedback_label", "_feedback_known_at"
"""The columns that feedback adds to a raw table."""
SCHEMA: Mapping[str, str] = {"key": "string", "label": "boolean", "known_at": "timestamp"}
"""The columns of a file of labels. `key` is the row's key in its table and is unique."""


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a table that an analyst's label fills.

    Attributes
    ----------
    table, key, label, known
        The table, and its columns for the row's key, the outcome, and the time at which the outcome became known.
    domain
        The domain whose decisions are about such rows. Its answers hold the key under the same name.
    """

    table: str
    key: str
    label: str
    known: str
    domain: str


LABEL_COLUMNS = (
    LabelColumns("transactions", "transaction_id", "is_fraud", "label_known_at", "transaction_anomaly"),
    LabelColumns("loans", "loan_id", "is_default", "outcome_known_at", "loan_default"),
)


def labels_file(root: Path, table: str) -> Path:
    """Return the path of a table's file of labels, below `Settings.root`."""
    return root / "feedback" / f"{table}.parquet"


def with_feedback_labels(source: Source, root: Path) -> Source:
    """Return the source with analysts' labels added to its tables, where their files exist at landing.

    A table whose source does not say when its labels became known is left unchanged.
    """
    tables = dict(source.tables)
    for columns in LABEL_COLUMNS:
        if columns.table in tables and {columns.label, columns.known} <= tables[columns.table].columns.keys():
            tables[columns.table] = _with_labels(tables[columns.table], columns, labels_file(root, columns.table))
    return replace(source, tables=tables)


def hide_later_labels(raw: "ir.Table", read_at: datetime) -> "ir.Table":
    """Return the raw rows with the feedback labels that became known later set to null."""
    import ibis

    if KNOWN not in raw.columns:
        return raw
    is_known = (raw[KNOWN] <= ibis.literal(read_at, type="timestamp")).fill_null(False)
    return raw.mutate(**{name: is_known.ifelse(raw[name], ibis.null(raw[name].type())) for name in (LABEL, KNOWN)})


def _with_labels(raw_table: RawTable, columns: LabelColumns, file: Path) -> RawTable:
    def land(out: Path) -> LandingResult:
        landed = raw_table.land(out)
        if not file.is_file():
            return landed
        digest = _join(out, raw_table.columns[columns.key], file)
        return replace(landed, sha256=hashlib.sha256(f"{landed.sha256}\n{digest}".encode()).hexdigest())

    def files() -> tuple[SourceFile, ...]:
        own = raw_table.files()
        return (*own, file) if file.is_file() else own

    own_known = raw_table.columns[columns.known]
    newer = {columns.label: _newer(raw_table.columns[columns.label], own_known, LABEL), columns.known: _newer(own_known, own_known, KNOWN)}
    return replace(raw_table, land=land, columns={**raw_table.columns, **newer}, files=files)


def _newer(own: RawExpression, own_known: RawExpression, label_column: str) -> RawExpression:
    """Return the analyst's value where it became known last, else the source's own, in the source's type: the contract casts it."""

    def value(raw: "ir.Table") -> "ir.Value":
        mine = own(raw)
        if label_column not in raw.columns:
            return mine
        known_at = contract.cast(own_known(raw), "timestamp")
        newer = raw[KNOWN].notnull() & (known_at.isnull() | (raw[KNOWN] >= known_at).fill_null(False))
        return newer.ifelse(raw[label_column].cast(mine.type()), mine)

    return value


def _join(landed: Path, key: Callable[["ir.Table"], "ir.Value"], file: Path) -> str:
    """Join the labels of a file to the landed rows with their keys, and return the hash of the file."""
    import ibis

    connection = ibis.duckdb.connect(threads=1)
    temporary = landed.with_name(f".{landed.name}.labelled")
    try:
        raw, labels = (connection.read_parquet(escape_pattern(path), hive_partitioning=False) for path in (landed, file))
        labels = labels.select(_key=labels.key, **{LABEL: labels.label, KNOWN: labels.known_at})
        joined = raw.left_join(labels, contract.cast(key(raw), "string") == labels["_key"]).drop("_key")
        joined.order_by(ROW).to_parquet(temporary)
    finally:
        connection.disconnect()
    os.replace(temporary, landed)
    return hashlib.sha256(file.read_bytes()).hexdigest()
