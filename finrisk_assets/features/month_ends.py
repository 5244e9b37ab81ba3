"""Month-ends: one row per person or account and month that has ended, and the movements before each.

A month-end is the first instant of the next month; a movement counts as known only strictly before that instant.
"""

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import to_units
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan

GRACE_DAYS = 3
"""Days: the ledger's last month counts as ended if there is a movement in so many last days. More days take months that are cut short."""


def list_month_ends(transactions: ir.Table, entity: str, span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Return every month that ended, for every entity with a movement in the month.

    The month in which an entity's movements stop is left out, because it may have stopped in the middle, unless the whole ledger
    ends there at its end.

    Parameters
    ----------
    transactions
        Validated, with `entity` and ``occurred_at``; rows without the entity are left out.
    entity
        ``customer_id`` or ``account_id``.
    span
        The month-ends to return.

    Returns
    -------
    ibis.Table
        `entity`, ``as_of`` (timestamp: first instant of the next month) and ``month`` (text: ``2024-06``).
    """
    # What came before the span ends no month of it; what comes after tells that an entity's movements go on.
    movements = span.widen(1).from_begin().filter_rows(transactions, "occurred_at")
    movements = movements.filter(movements[entity].notnull())
    months = movements.group_by(entity, _month=movements.occurred_at.truncate("M")).aggregate(_last_at=movements.occurred_at.max())
    months = months.mutate(as_of=(months._month + ibis.interval(months=1)).cast("timestamp(6)"), month=months._month.strftime("%Y-%m"))
    months = months.mutate(
        _last=months.as_of.max().over(group_by=entity),
        _ledger_end=months._last_at.max().over(ibis.window()) + ibis.interval(days=GRACE_DAYS),
    )
    ended = months.filter((months.as_of < months._last) | (months.as_of <= months._ledger_end))
    return span.filter_rows(ended.select(entity, "as_of", "month"), "as_of")


def join_movements_before(rows: ir.Table, transactions: ir.Table, entity: str, days: int) -> ir.Table:
    """Join to each month-end the movements of the `days` before it.

    Parameters
    ----------
    rows
        With `entity` and ``as_of``, as `list_month_ends` returns them.

    Returns
    -------
    ibis.Table
        `entity`, ``as_of``, and of each movement ``_age_us`` (microseconds before the month-end, above 0 and at most `days` days),
        ``_units`` (amount in ten-thousandths, a whole number, so that no sum depends on the order), ``_credit`` (boolean),
        ``_category`` (text, empty where there is none) and ``_balance`` (ten-thousandths, null where it is not known).
    """
    movements = transactions.select(
        _entity=transactions[entity],
        _at=transactions.occurred_at,
        _units=to_units(transactions.amount),
        _credit=transactions.direction == "credit",
        _category=transactions.category.fill_null(""),
        _balance=to_units(transactions.balance_amount),
    )
    keyed = rows.select(entity, "as_of", _since=rows.as_of - ibis.interval(days=days))
    joined = keyed.join(movements, [keyed[entity] == movements._entity, movements._at < keyed.as_of, movements._at >= keyed._since])
    return joined.mutate(_age_us=joined.as_of.delta(joined._at, unit="microsecond")).drop("_entity", "_since", "_at")


def month_number(time: ir.Value) -> ir.IntegerValue:
    """Return the number of a moment's calendar month; the next month has the next number."""
    return (time.year() * 12 + time.month()).cast("int64")
