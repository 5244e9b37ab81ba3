"""The state of a ledger at an earlier time: the rows that had happened by then, with the outcomes that were known.

The table's declaration says when a row happens and when each of its columns becomes known; nothing else is used.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from schemas.ledger import Table

if TYPE_CHECKING:
    import ibis.expr.types as ir


def rows_as_of(table: Table, raw: "ir.Table", read_at: datetime, end: datetime) -> "ir.Table":
    """Return the raw rows as they stood at the given time.

    Parameters
    ----------
    table
        The declaration; its columns have the same names in `raw`.
    raw
        The landed rows of the source's whole time.
    read_at
        Naive UTC. Later rows are left out; an outcome that became known later is null, and so is the time at which it became known.
    end
        End of the source's time. A row dated after it is a mistake, not the future: it stays, and the contract refuses it.
    """
    import ibis

    if read_at >= end:
        return raw
    now, never = (ibis.literal(time, type="timestamp") for time in (read_at, end))
    if table.event_time in raw.columns:
        happened = raw[table.event_time]
        raw = raw.filter(((happened <= now) | (happened >= never)).fill_null(True))
    later = {
        name: (raw[known_at] > now).fill_null(False)
        for column in table.columns
        if (known_at := column.known) not in ("always", table.event_time) and known_at in raw.columns
        for name in (column.name, known_at)
        if name in raw.columns
    }
    return raw.mutate(**{name: hidden.ifelse(ibis.null(raw[name].type()), raw[name]) for name, hidden in later.items()})
