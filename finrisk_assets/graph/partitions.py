"""The months of a ledger: the partitions of every dated table, and which rows belong to which month.

The first month is open towards the past and takes what has no date, the last is open towards the future: no row is without a month.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from finrisk_assets.features.time_span import TimeSpan

if TYPE_CHECKING:
    import ibis.expr.types as ir

MONTH_FORMAT = "%Y-%m"

PARTITION_COLUMN = "partition_expr"
"""Metadata of a partitioned asset: the column that says to which month a row belongs. The name is Dagster's own."""

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
"""Tags of a run with its first and its last month."""
PARTITION = "dagster/partition"
"""Tag of a run of one month."""

ONE_RUN = dg.BackfillPolicy.single_run()
"""A backfill of any number of months is one run: the table is computed once and cut by month as it is stored."""


def monthly_partitions(begins: str, ends: str | None) -> dg.MonthlyPartitionsDefinition:
    """Return the months of a ledger.

    Parameters
    ----------
    begins, ends
        Its first and its last month, ``2024-07``, both included. Without a last one the ledger lives: the present month is its last.
    """
    if ends is None:
        return dg.MonthlyPartitionsDefinition(begins, fmt=MONTH_FORMAT, end_offset=1)
    return dg.MonthlyPartitionsDefinition(begins, end_date=add_months(ends, 1), fmt=MONTH_FORMAT)


def add_months(month: str, n_months: int) -> str:
    """Return the month that comes `n_months` months later, or earlier below 0."""
    year, number = divmod(int(month[:4]) * 12 + int(month[5:]) - 1 + n_months, 12)
    return f"{year:04d}-{number + 1:02d}"


def month_of(time: datetime) -> str:
    """Return the month in which a time lies."""
    return time.strftime(MONTH_FORMAT)


@dataclass(frozen=True)
class MonthRange:
    """Consecutive months of a ledger.

    Attributes
    ----------
    first, last
        ``2024-05``, both included.
    is_open_below, is_open_above
        Whether they hold the ledger's first month, and its last: then also what is earlier or undated, and what is later.
    """

    first: str
    last: str
    is_open_below: bool
    is_open_above: bool

    @classmethod
    def from_partitions(cls, definition: dg.PartitionsDefinition[str], keys: dg.PartitionKeyRange) -> "MonthRange":
        """Return the months of a run."""
        partition_keys = definition.get_partition_keys()
        return cls(keys.start, keys.end, keys.start <= partition_keys[0], keys.end >= partition_keys[-1])

    @classmethod
    def from_tags(cls, definition: dg.PartitionsDefinition[str], tags: Mapping[str, str]) -> "MonthRange | None":
        """Return the months that the tags of a run name; None where they name none."""
        first, last = (tags.get(tag, tags.get(PARTITION)) for tag in (RANGE_START, RANGE_END))
        return None if first is None or last is None else cls.from_partitions(definition, dg.PartitionKeyRange(first, last))

    @property
    def is_all(self) -> bool:
        """True if these are all months of the ledger."""
        return self.is_open_below and self.is_open_above

    @property
    def begins(self) -> datetime | None:
        """The first instant of these months; None where they are open."""
        return None if self.is_open_below else datetime.strptime(self.first, MONTH_FORMAT)

    @property
    def ends(self) -> datetime | None:
        """The first instant after these months; None where they are open."""
        return None if self.is_open_above else datetime.strptime(add_months(self.last, 1), MONTH_FORMAT)

    @property
    def span(self) -> TimeSpan:
        """The times of these months."""
        return TimeSpan(self.begins, self.ends)

    def filter_rows(self, rows: "ir.Table", time_column: str) -> "ir.Table":
        """Return the rows of a lazy table whose timestamp in `time_column` lies in these months."""
        return self.span.filter_rows(rows, time_column)

    def sql_condition(self, time_column: str) -> str:
        """Return the same condition in SQL, as DuckDB and PostgreSQL read it."""
        column = '"' + time_column.replace('"', '""') + '"'
        bounds = [f"{column} >= TIMESTAMP '{self.begins}'"] if self.begins else []
        bounds += [f"{column} < TIMESTAMP '{self.ends}'"] if self.ends else []
        condition = " AND ".join(bounds) or "TRUE"
        return f"({condition}) OR {column} IS NULL" if self.is_open_below else condition


def group_consecutive(months: Sequence[str]) -> list[tuple[str, str]]:
    """Return the first and last of each run of months that follow each other without a gap, in order of time."""
    spans: list[tuple[str, str]] = []
    for month in sorted(set(months)):
        if spans and add_months(spans[-1][1], 1) == month:
            spans[-1] = (spans[-1][0], month)
        else:
            spans.append((month, month))
    return spans


def run_tags(first: str, last: str) -> dict[str, str]:
    """Return the tags of a run of these months, both included."""
    return {RANGE_START: first, RANGE_END: last}


def add_run_metadata(context: Any, metadata: Mapping[str, Any]) -> None:
    """Attach metadata of a whole table once: to the newest month of the run, or to the one event of an asset without months.

    Dagster writes two events for each month; repeating the metadata in each would make up most of their size and time.
    """
    newest = None if context.assets_def.partitions_def is None else context.partition_key_range.end
    context.add_asset_metadata(metadata, partition_key=newest)
