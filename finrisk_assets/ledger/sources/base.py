"""What a source of a ledger is: which canonical tables it fills, how each lands, and how its columns read.

Nothing here knows any particular data set; each source is a module of its own beside this one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from finrisk_assets.ledger.landing import Landed
from schemas.features import Feature
from schemas.ledger import Table

if TYPE_CHECKING:
    import ibis.expr.types as ir

Land = Callable[[Path], Landed]
"""Writes the raw rows as Parquet at a path."""

Expression = Callable[["ir.Table"], "ir.Value"]
"""An expression over the raw table, not yet cast: the contract casts it and says what does not fit."""


@dataclass(frozen=True)
class RawTable:
    """One canonical table as a source brings it.

    Attributes
    ----------
    table
        The canonical contract, perhaps with columns of the source's own.
    land
        Writes the raw rows as Parquet.
    columns
        Canonical column -> uncast expression over the raw table. A nullable column left out is null.
    files
        Returns the files that it lands from, as they are now; none where it comes from no file.
    """

    table: Table
    land: Land
    columns: Mapping[str, Expression]
    files: Callable[[], tuple[Path, ...]] = tuple

    def __post_init__(self) -> None:
        for name in self.columns:
            self.table[name]
        lacking = [c.name for c in self.table.columns if not c.nullable and c.name not in self.columns]
        if lacking:
            raise ValueError(f"the source says nothing of the required columns {', '.join(lacking)} of {self.table.name!r}")


@dataclass(frozen=True)
class Source:
    """A whole ledger: its tables and what may be made of them.

    Attributes
    ----------
    name, description
        What it is called, and what it is, in a sentence.
    currency
        The one currency of its amounts.
    tables
        Canonical table name -> how it lands and reads. Tables that others refer to come first.
    begins, ends
        Its first and its last month of events or decisions (``2024-07``). A ledger without a last month goes on: its last is the present.
    is_live
        Whether what lands depends on the clock: the source can tell its whole time, and only what had happened by then is to land.
    truth
        Table name (``truth_*``) -> how it lands: what only a simulator can know. No feature may read these.
    features
        Domain -> the source's own columns, known when the decision falls, that may be features of its model.
    without
        Domain -> why it is left out.
    """

    name: str
    description: str
    currency: str
    tables: Mapping[str, RawTable]
    begins: str
    ends: str | None = None
    is_live: bool = False
    truth: Mapping[str, Land] = field(default_factory=dict)
    features: Mapping[str, tuple[Feature, ...]] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
