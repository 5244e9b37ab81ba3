"""Month-ends: the moments at which spending and cashflow are judged, one row per person or account and month that has ended.

Here stands which months there are and what moved before each; what is made of it is each domain's own. A month-end is the first
instant of the next month, and everything known by then is strictly before it.
"""

import ibis
import ibis.expr.types as ir

DAY_US = 86_400_000_000
GRACE_DAYS = 3
"""The ledger's last month counts as ended if something moved in its last days."""


def month_ends(transactions: ir.Table, entity: str) -> ir.Table:
    """Every month that ended, for everyone who had a movement in it.

    The month in which an entity's movements stop is left out, because it may have stopped in the middle, unless the whole ledger
    ends there at its end.

    Parameters
    ----------
    transactions
        Validated, with `entity` and ``occurred_at``; rows without the entity are passed over.
    entity
        ``customer_id`` or ``account_id``.

    Returns
    -------
    ibis.Table
        `entity`, ``as_of`` (timestamp: first instant of the next month) and ``month`` (text: ``2024-06``).
    """
    moves = transactions.filter(transactions[entity].notnull())
    month = moves.occurred_at.truncate("M")
    as_of = (month + ibis.interval(months=1)).cast("timestamp(6)")
    months = moves.select(entity, as_of=as_of, month=moves.occurred_at.strftime("%Y-%m"), occurred_at=moves.occurred_at)
    months = months.mutate(
        _last=months.as_of.max().over(group_by=entity),
        _ledger_end=months.occurred_at.max().over(ibis.window()) + ibis.interval(days=GRACE_DAYS),
    )
    ended = months.filter((months.as_of < months._last) | (months.as_of <= months._ledger_end))
    return ended.select(entity, "as_of", "month").distinct()


def movements_before(rows: ir.Table, transactions: ir.Table, entity: str, days: int) -> ir.Table:
    """Join to each month-end the movements of the `days` before it.

    Parameters
    ----------
    rows
        With `entity` and ``as_of``, as `month_ends` returns them.

    Returns
    -------
    ibis.Table
        `entity`, ``as_of``, and of each movement ``_age_us`` (microseconds before the month-end, above 0 and at most `days` days),
        ``_units`` (amount in ten-thousandths, a whole number, so that no sum depends on the order), ``_credit`` (boolean),
        ``_category`` (text, empty where there is none) and ``_balance`` (ten-thousandths, null where it is not known).
    """
    moves = transactions.select(
        _entity=transactions[entity],
        _at=transactions.occurred_at,
        _units=(transactions.amount * 10_000).round().cast("int64"),
        _credit=transactions.direction == "credit",
        _category=transactions.category.fill_null(""),
        _balance=(transactions.balance_amount * 10_000).round().cast("int64"),
    )
    keyed = rows.select(entity, "as_of", _since=rows.as_of - ibis.interval(days=days))
    joined = keyed.join(moves, [keyed[entity] == moves._entity, moves._at < keyed.as_of, moves._at >= keyed._since])
    return joined.mutate(_age_us=joined.as_of.delta(joined._at, unit="microsecond")).drop("_entity", "_since", "_at")
