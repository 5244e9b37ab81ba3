"""Spans of time: the rows that a run asks for, and the months around them from which these rows are made."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir


@dataclass(frozen=True)
class TimeSpan:
    """The times from `begins` up to, but not including, `ends`.

    Attributes
    ----------
    begins, ends
        Naive UTC; None where the span is open. A span that is open below also has the rows without a time.
    """

    begins: datetime | None = None
    ends: datetime | None = None

    def widen(self, months_before: int, months_after: int = 0) -> "TimeSpan":
        """Return the span with whole months before and after it."""
        return TimeSpan(
            None if self.begins is None else _add_months(self.begins, -months_before),
            None if self.ends is None else _add_months(self.ends, months_after),
        )

    def from_begin(self) -> "TimeSpan":
        """Return the span with all that comes after it."""
        return TimeSpan(self.begins)

    def filter_rows(self, rows: "ir.Table", time_column: str) -> "ir.Table":
        """Return the rows of a lazy table whose timestamp in `time_column` lies in the span."""
        import ibis

        if self == ALL_TIMES:
            return rows
        inside = ibis.literal(True)
        if self.begins is not None:
            inside = inside & (rows[time_column] >= ibis.literal(self.begins, type="timestamp"))
        if self.ends is not None:
            inside = inside & (rows[time_column] < ibis.literal(self.ends, type="timestamp"))
        return rows.filter(inside.fill_null(self.begins is None))


ALL_TIMES = TimeSpan()
"""Every time, and none."""


def _add_months(time: datetime, months: int) -> datetime:
    """Return the first instant of the month so many months from that of a time."""
    year, month = divmod(time.year * 12 + time.month - 1 + months, 12)
    return datetime(year, month + 1, 1)
