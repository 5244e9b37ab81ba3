"""An account's months, as Ibis expressions: the totals of its calendar months, then windows over them.

So no later month can enter a row. Every column that is added begins with an underscore; money is in whole ten-thousandths of the
currency. `catalogue` turns the columns into features.
"""

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import UNITS_PER_CURRENCY, median_of_first
from finrisk_assets.features.month_ends import month_number
from finrisk_assets.features.time_span import TimeSpan
from finrisk_assets.ledger.month_totals import find_month_ends

SPANS = (1, 2, 3, 6, 12)
"""Months over which the movements are summed up; the last of them is the one that has just ended."""

LEVEL_MONTHS = 6
"""Months over which an account's usual movement, income and balance are measured."""

RECURRING_MONTHS = 3
"""Months. An amount recurs where its category has one in each of the last months; more months find fewer recurring amounts."""

ONE_OFF_MONTHS = 12
"""Months. Spending is a one-off where its category had none in the months before; fewer months find more one-offs."""


BACK_MONTHS = ONE_OFF_MONTHS + RECURRING_MONTHS
"""Months before a month-end that its row is made of: its last months' spending is one-off by the year before each."""


def add_up_months(totals: ir.Table, categories: ir.Table, span: TimeSpan) -> ir.Table:
    """Return one row per account and month that has ended: money in, money out and the closing balance.

    Parameters
    ----------
    totals, categories
        `month_totals.ACCOUNT_TOTALS` and `CATEGORY_TOTALS`, of all months.
    span
        Whole months: the month-ends to return, beside those before and after that `add_history` reads.
    """
    totals = totals.filter(totals.account_id.notnull())
    known = span.widen(SPANS[-1]).filter_rows(totals, "month")
    known = known.mutate(_last_at=known.last_at.max().over(group_by=["account_id", "month"]))
    sums = known.group_by("account_id", _number=month_number(known.month)).aggregate(
        customer_id=known.customer_id.max(),
        **{column: known[name].sum().cast("int64") for column, name in _SUMS.items()},
        _n_penalties=(known.n_penalties + known.n_missed).sum().cast("int64"),
        _largest_in=known.largest_income.max(),
        _largest_out=known.largest.max(),
        _closing=known.closing.min(where=known.last_at == known._last_at),
    )
    ended = find_month_ends(totals, "account_id", span.widen(SPANS[-1], 1))
    ended = ended.select(_account=ended.account_id, as_of=ended.as_of, month=ended.month, _ended=month_number(ended.as_of) - 1)
    months = sums.inner_join(ended, [sums.account_id == ended._account, sums._number == ended._ended]).drop("_account", "_ended")
    # The only sum over the whole history: it says how long the history is.
    began = totals.group_by(_began=totals.account_id).aggregate(_first=month_number(totals.month.min()))
    months = months.inner_join(began, months.account_id == began._began).drop("_began")
    recurring = _recurring(categories, began, span)
    return months.left_join(recurring, [months.account_id == recurring._owner, months._number == recurring._of]).drop("_owner", "_of")


_SUMS = {
    "_change": "change",
    "_net": "net",
    "_in": "income",
    "_out": "expense",
    "_refunded": "refunded",
    "_n": "n",
    "_n_in": "n_income",
}


def _recurring(categories: ir.Table, began: ir.Table, span: TimeSpan) -> ir.Table:
    """Return per account and month, over its categories, what recurred (the least of the last months) and one-off spending."""
    lines = span.widen(BACK_MONTHS).filter_rows(categories, "month")
    lines = lines.mutate(_number=month_number(lines.month))
    line = ibis.window(group_by=[lines.account_id, lines.category, lines.is_expense], order_by=lines._number)
    before = [lines.amount, *(lines.amount.lag(k).over(line) for k in range(1, RECURRING_MONTHS))]
    lines = lines.mutate(
        _is_recurring=(lines._number.lag(RECURRING_MONTHS - 1).over(line) == lines._number - RECURRING_MONTHS + 1).fill_null(False),
        _least=ibis.least(*before),
        _is_new=(lines._number.lag(1).over(line) < lines._number - ONE_OFF_MONTHS).fill_null(True),
    )
    lines = span.widen(RECURRING_MONTHS).filter_rows(lines, "month")
    lines = lines.inner_join(began, lines.account_id == began._began).drop("_began")
    least = lines._is_recurring.ifelse(lines._least, 0)
    is_one_off = lines.is_expense & lines._is_new & (lines._number - lines._first >= RECURRING_MONTHS)
    return lines.group_by(_owner=lines.account_id, _of=lines._number).aggregate(
        _recurring_in=(~lines.is_expense).ifelse(least, 0).sum().cast("int64"),
        _recurring_out=lines.is_expense.ifelse(least, 0).sum().cast("int64"),
        _one_off=is_one_off.ifelse(lines.amount, 0).sum().cast("int64"),
    )


def add_history(months: ir.Table) -> ir.Table:
    """Add sums over the account's months up to each month, earlier outcomes, the month a year before, and the next month."""

    def over(first: int, last: int = 0) -> ibis.expr.builders.WindowBuilder:
        return ibis.window(group_by=months.account_id, order_by=months._number, range=(first, last))

    surplus = (months._net > 0).ifelse(1, 0)
    level = over(1 - LEVEL_MONTHS)
    columns: dict[str, ir.Value] = {
        "_next_change": months._change.max().over(over(1, 1)),
        "_next_as_of": months.as_of.max().over(over(1, 1)),
        "_year_ago": months._net.max().over(over(-11, -11)),
        "_in_year_ago": months._in.max().over(over(-11, -11)),
        "_last_income": (months._n_in > 0).ifelse(months._number, ibis.null("int64")).max().over(level),
        "_highest_in": months._in.max().over(level),
        "_least_in": months._in.min().over(level),
        "_highest_net": months._net.max().over(level),
        "_lowest_net": months._net.min().over(level),
        "_mean_closing": months._closing.mean().over(level),
        "_lowest_closing": months._closing.min().over(level),
        "_closing_before": months._closing.max().over(over(-LEVEL_MONTHS, -LEVEL_MONTHS)),
        "_irregular_3m": (months._refunded + months._one_off).sum().over(over(1 - RECURRING_MONTHS)).cast("int64"),
        "_n_in_3m": months._n_in.sum().over(over(1 - RECURRING_MONTHS)).cast("float64"),
        "_highest_in_3m": months._in.max().over(over(1 - RECURRING_MONTHS)),
        "_least_in_3m": months._in.min().over(over(1 - RECURRING_MONTHS)),
        "_net_before": months._net.max().over(over(-1, -1)),
    }
    for n in SPANS:
        span = over(1 - n)
        columns |= {
            f"_in_{n}m": months._in.sum().over(span).cast("int64"),
            f"_out_{n}m": months._out.sum().over(span).cast("int64"),
            f"_net_{n}m": months._net.sum().over(span).cast("int64"),
            f"_surplus_{n}m": surplus.sum().over(span).cast("float64"),
            f"_penalties_{n}m": months._n_penalties.sum().over(span).cast("float64"),
        }
    columns |= {f"_in_month_{k}": months._in.max().over(over(-k, -k)).fill_null(0).cast("int64") for k in range(LEVEL_MONTHS)}
    months = months.mutate(**columns)
    covered = ibis.least(months._number - months._first + 1, LEVEL_MONTHS)
    # The first month on record may be a part of a month: it counts only where there is no other.
    n_complete = ibis.greatest(ibis.least(months._number - months._first, LEVEL_MONTHS), 1)
    usual = median_of_first([months[f"_in_month_{k}"] for k in range(LEVEL_MONTHS)], n_complete)
    return months.mutate(_covered=covered.cast("float64"), _usual_in=usual)


def join_declared_income(months: ir.Table, customers: ir.Table) -> ir.Table:
    """Join the monthly income that the owner declared, null where the income became known after the month-end."""
    owners = customers.select(
        _owner=customers.customer_id,
        _joined_at=customers.joined_at,
        _stated=(customers.income_amount * UNITS_PER_CURRENCY).round().cast("float64"),
    )
    joined = months.left_join(owners, months.customer_id == owners._owner).drop("_owner")
    is_known = (joined._joined_at <= joined.as_of).fill_null(True)
    return joined.mutate(_declared=is_known.ifelse(joined._stated, ibis.null("float64")))
