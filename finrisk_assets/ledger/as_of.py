"""A source that can tell its whole time, read at an earlier moment: what had happened by then, and of it what was known.

When a row happened and when each of its columns becomes known stands in the table's declaration; nothing else is asked.
"""

from datetime import datetime
from typing import TYPE_CHECKING

from schemas.ledger import Table

if TYPE_CHECKING:
    import ibis.expr.types as ir


def by(table: Table, raw: "ir.Table", moment: datetime, end: datetime) -> "ir.Table":
    """Return the raw rows as they stood at a moment.

    Parameters
    ----------
    table
        The declaration; its columns have the same names in `raw`.
    raw
        The landed rows of the source's whole time.
    moment
        Naive UTC. A row that happened later is not there yet; an outcome that became known later is null, and so is when it did.
    end
        When the source's time ends. A row dated after it is a mistake, not the future: it is there, for the contract to refuse.
    """
    import ibis

    if moment >= end:
        return raw
    now, never = (ibis.literal(time, type="timestamp") for time in (moment, end))
    if table.event_time in raw.columns:
        happened = raw[table.event_time]
        raw = raw.filter(((happened <= now) | (happened >= never)).fill_null(True))
    later = {
        name: (raw[known] > now).fill_null(False)
        for column in table.columns
        if (known := column.known) not in ("always", table.event_time) and known in raw.columns
        for name in (column.name, known)
        if name in raw.columns
    }
    return raw.mutate(**{name: hidden.ifelse(ibis.null(raw[name].type()), raw[name]) for name, hidden in later.items()})
