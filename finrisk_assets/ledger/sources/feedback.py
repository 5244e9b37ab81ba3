"""Labels that analysts gave to decisions, read into a source's ledger beside the source's own: what happened, and since when it is known.

`finrisk load-feedback` writes them, one file a table. Here a source's table is landed with them, and its label is the one that became known
last: the source's own, or the analyst's. A source that brings no label of its own stays without: of the few rows that somebody happened to
look at nothing could be learned about the others.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from finrisk_assets.ledger import contract
from finrisk_assets.ledger.landing import ROW, Landed
from finrisk_assets.ledger.sources.base import Expression, RawTable, Source

if TYPE_CHECKING:
    import ibis.expr.types as ir

LABEL, KNOWN = "_feedback_label", "_feedback_known_at"
"""The columns that a raw table gains."""
SCHEMA: Mapping[str, str] = {"key": "string", "label": "boolean", "known_at": "timestamp"}
"""The columns of a file of labels: the row's key in its table, each once."""


@dataclass(frozen=True)
class Labels:
    """Which outcome of a table's rows analysts tell.

    Attributes
    ----------
    table, key, label, known
        The table, and its columns: what names a row, the outcome, and when that became known.
    domain
        Whose decisions are about such rows. The answer to one has the key under the same name.
    """

    table: str
    key: str
    label: str
    known: str
    domain: str


TOLD = (
    Labels("transactions", "transaction_id", "is_fraud", "label_known_at", "transaction_anomaly"),
    Labels("loans", "loan_id", "is_default", "outcome_known_at", "loan_default"),
)


def file_of(root: Path, table: str) -> Path:
    """Where the labels of a table are: below `Settings.root`."""
    return root / "feedback" / f"{table}.parquet"


def labelled(source: Source, root: Path) -> Source:
    """The source, its tables labelled by the files of feedback too, where there are such when it lands.

    A table whose source does not say when its labels became known is left as it is.
    """
    tables = dict(source.tables)
    for told in TOLD:
        if told.table in tables and {told.label, told.known} <= tables[told.table].columns.keys():
            tables[told.table] = _labelled(tables[told.table], told, file_of(root, told.table))
    return replace(source, tables=tables)


def known_by(raw: "ir.Table", moment: datetime) -> "ir.Table":
    """The raw rows, without the labels of feedback that became known later."""
    import ibis

    if KNOWN not in raw.columns:
        return raw
    known = (raw[KNOWN] <= ibis.literal(moment, type="timestamp")).fill_null(False)
    return raw.mutate(**{name: known.ifelse(raw[name], ibis.null(raw[name].type())) for name in (LABEL, KNOWN)})


def _labelled(brought: RawTable, told: Labels, file: Path) -> RawTable:
    def land(out: Path) -> Landed:
        landed = brought.land(out)
        if not file.is_file():
            return landed
        digest = _join(out, brought.columns[told.key], file)
        return Landed(landed.rows, hashlib.sha256(f"{landed.sha256}\n{digest}".encode()).hexdigest())

    def files() -> tuple[Path, ...]:
        own = brought.files()
        return (*own, file) if file.is_file() else own

    own_known = brought.columns[told.known]
    newer = {told.label: _newer(brought.columns[told.label], own_known, LABEL), told.known: _newer(own_known, own_known, KNOWN)}
    return replace(brought, land=land, columns={**brought.columns, **newer}, files=files)


def _newer(own: Expression, own_known: Expression, given: str) -> Expression:
    """The analyst's value where it became known last, else the source's own; as the source writes it, for the contract to cast."""

    def value(raw: "ir.Table") -> "ir.Value":
        mine = own(raw)
        if given not in raw.columns:
            return mine
        known = contract.cast(own_known(raw), "timestamp")
        newer = raw[KNOWN].notnull() & (known.isnull() | (raw[KNOWN] >= known).fill_null(False))
        return newer.ifelse(raw[given].cast(mine.type()), mine)

    return value


def _join(landed: Path, key: Callable[["ir.Table"], "ir.Value"], file: Path) -> str:
    """Put the labels of a file beside the landed rows that they are of; returns the hash of the file."""
    import ibis

    connection = ibis.duckdb.connect(threads=1)
    beside = landed.with_name(f".{landed.name}.labelled")
    try:
        raw, given = connection.read_parquet(str(landed)), connection.read_parquet(str(file))
        given = given.select(_key=given.key, **{LABEL: given.label, KNOWN: given.known_at})
        joined = raw.left_join(given, contract.cast(key(raw), "string") == given["_key"]).drop("_key")
        joined.order_by(ROW).to_parquet(beside)
    finally:
        connection.disconnect()
    os.replace(beside, landed)
    return hashlib.sha256(file.read_bytes()).hexdigest()
