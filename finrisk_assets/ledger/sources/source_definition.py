"""The definition of a source: the canonical tables that it fills, how each table lands, and how its columns are read.

Nothing in this module depends on a particular data set; each source is a module of its own beside this one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from finrisk_assets.ledger.landing import LandingResult
from finrisk_assets.objects.object_store import StoredObject
from schemas.features import Feature
from schemas.ledger import Table

if TYPE_CHECKING:
    import ibis.expr.types as ir

Lander = Callable[[Path], LandingResult]
"""A function that writes the raw rows as Parquet at a path."""

SourceFile = Path | StoredObject
"""A file that a table lands from, on this machine or in a bucket."""

RawExpression = Callable[["ir.Table"], "ir.Value"]
"""An uncast expression over the raw table; the contract casts it and names what does not fit."""


@dataclass(frozen=True)
class RawTable:
    """One canonical table as a source fills it.

    Attributes
    ----------
    table
        The canonical contract, perhaps with columns of the source's own.
    land
        Writes the raw rows as Parquet.
    columns
        Canonical column -> uncast expression over the raw table. A nullable column left out is null.
    files
        Returns the files that the table lands from at present; empty where it comes from no file.
    reads
        Canonical column -> the columns of the files that it is read from, where a mapping says so.
    check_columns
        Raises LandingError where a file cannot be read or lacks a column that is read; it reads headers alone.
    """

    table: Table
    land: Lander
    columns: Mapping[str, RawExpression]
    files: Callable[[], tuple[SourceFile, ...]] = tuple
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    check_columns: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        for name in self.columns:
            self.table[name]
        lacking = [c.name for c in self.table.columns if not c.nullable and c.name not in self.columns]
        if lacking:
            raise ValueError(f"the source says nothing of the required columns {', '.join(lacking)} of {self.table.name!r}")


@dataclass(frozen=True)
class Source:
    """A whole ledger: its tables, and the features and domains that they allow.

    Attributes
    ----------
    name, description
        The source's name, and a sentence that describes it.
    currency
        The one currency of its amounts.
    tables
        Canonical table name -> how the table lands and is read. Tables that others refer to come first.
    begins, ends
        First and last month of events or decisions (``2024-07``). A ledger without a last month
        is still running: its last month is the present.
    is_live
        Whether landing depends on the clock: the source knows its whole time, and only the rows that have happened by now land.
    truth
        Table name (``truth_*``) -> how the table lands: values that only a simulator can know. No feature may read these tables.
    features
        Domain -> the source's own columns, known when the decision falls, that may be features of its model.
    without
        Domain -> the reason why it is left out.
    """

    name: str
    description: str
    currency: str
    tables: Mapping[str, RawTable]
    begins: str
    ends: str | None = None
    is_live: bool = False
    truth: Mapping[str, Lander] = field(default_factory=dict)
    features: Mapping[str, tuple[Feature, ...]] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
