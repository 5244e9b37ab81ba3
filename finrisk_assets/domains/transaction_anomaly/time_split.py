"""The split of transactions by time: rows to fit on, to choose and calibrate on, and to test on, in that order."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from finrisk_assets.domains.transaction_anomaly.catalogue import LABEL_DELAY_S

if TYPE_CHECKING:
    import numpy as np
    from ibis.expr.types import Table as LazyTable

WINDOW_DAYS = 28
"""Days of the validation and of the test window; a sixth of the ledger each where that is less."""


@dataclass(frozen=True)
class TimeSplit:
    """Positions of the rows of each window, each of shape (n,).

    Between two windows lies the time that labels take: every label of a window was known when the next one began.
    """

    train: "np.ndarray"
    validation: "np.ndarray"
    test: "np.ndarray"
    reason: str


def split_by_time(moments: "np.ndarray") -> TimeSplit:
    """Split transactions by their time.

    Parameters
    ----------
    moments : ndarray of datetime64, shape (n,)
    """
    import numpy as np

    day, delay = np.timedelta64(1, "D"), np.timedelta64(LABEL_DELAY_S, "s")
    test, length = _test_window(moments.min(), moments.max())
    validation = test - length - delay
    return TimeSplit(
        np.flatnonzero(moments < validation - delay),
        np.flatnonzero((moments >= validation) & (moments < test - delay)),
        np.flatnonzero(moments >= test),
        f"by time: validation from {validation}, test from {test}, {delay / day:.0f} days of label delay before each",
    )


def select_test_rows(table: "LazyTable") -> "LazyTable":
    """Return the rows of the test window, and the ledger's first transaction, which the window's length follows from."""
    import ibis

    first, begins = _find_moments(table)
    if first is None:
        return table
    begins_at, first_at = (ibis.literal(time, type="timestamp") for time in (begins, first))
    return table.filter((table.occurred_at >= begins_at) | (table.occurred_at == first_at))


def begin_test(table: "LazyTable") -> datetime:
    """Return the beginning of the test window; of an empty table, 1970."""
    return _find_moments(table)[1]


def _find_moments(table: "LazyTable") -> tuple[datetime | None, datetime]:
    """Return the first transaction's time, None without one, and the beginning of the test window."""
    import numpy as np

    ends = table.aggregate(first=table.occurred_at.min(), last=table.occurred_at.max()).to_pyarrow().to_pylist()[0]
    if ends["first"] is None:
        return None, datetime(1970, 1, 1)
    begins, _ = _test_window(np.datetime64(ends["first"], "us"), np.datetime64(ends["last"], "us"))
    return ends["first"], begins.astype("datetime64[us]").item()


def _test_window(first: "np.datetime64", last: "np.datetime64") -> "tuple[np.datetime64, np.timedelta64]":
    """Return the beginning and the length of the test window of a ledger that spans these moments."""
    import numpy as np

    day = np.timedelta64(1, "D")
    end = last.astype("datetime64[D]") + day
    length = min(WINDOW_DAYS, max(1, int((end - first) / day) // 6)) * day
    return end - length, length
