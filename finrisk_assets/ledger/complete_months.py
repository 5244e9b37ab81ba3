"""A person's complete calendar months before a moment: usual income and spending, committed spending, month-end balances, and trouble.

A window of 30, 60 or 90 days holds two or three salaries by chance; a calendar month holds one. So a decision does not depend on the day of
pay. Loan default and loan offers decide at any moment and read the months that ended before it.
"""

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import median_of_first, to_currency
from finrisk_assets.features.month_ends import month_number
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.month_totals import add_up_people, find_first_month

SPANS = (1, 3, 6)
"""Complete months over which movements are summed up; the first is the one that ended last."""

USUAL_MONTHS = SPANS[-1]
"""Complete months whose median is usual. More months forget a lost job later; fewer let one month without pay count for more."""

FADE = 0.65
"""Weight that a missed payment or a penalty keeps from one month to the next. More forgets later."""
FADE_UNITS = 1_000_000
"""Whole units of one event, so that no sum of faded events depends on the order."""

TOTALS = ("income", "expense", "regular_pay", "bills", "cash", "n", "n_penalties", "n_missed", "n_negative")


def join_complete_months(rows: ir.Table, totals: ir.Table, moment: str, span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Join what each person's complete months before a moment add up to; null where the last month that ended had no movement.

    Parameters
    ----------
    rows
        With ``customer_id`` and `moment`.
    totals
        `month_totals.ACCOUNT_TOTALS`, of all months.
    moment
        Column of `rows`: a timestamp. Nothing from the first instant of its own month on is read.
    span
        Whole months in which all moments lie.

    Returns
    -------
    ibis.Table
        `rows` with, in currency: ``_usual_income`` and ``_usual_expense`` (medians of up to `USUAL_MONTHS`), per span n ``_income_{n}m``,
        ``_expense_{n}m``, ``_regular_pay_{n}m``, ``_bills_{n}m``, ``_cash_{n}m`` (sums), ``_largest_{n}m`` (a debit),
        ``_mean_closing_{n}m`` and ``_lowest_closing_{n}m`` (balances at month-ends), and ``_closing``. Counts: ``_n_{n}m``,
        ``_n_penalties_{n}m``,
        ``_n_missed_{n}m``, ``_n_negative_{n}m``, ``_months_{n}m`` (months that the history covers, at most n); ``_faded_missed`` and
        ``_faded_penalties`` (each counts `FADE` of its last month's weight a month later), and ``_income_month_{k}`` of k months ago,
        0 where there is no such month.
    """
    months = add_up_people(span.widen(USUAL_MONTHS).filter_rows(totals, "month"))
    first = find_first_month(totals)
    keys = rows.select("customer_id", _this=month_number(rows[moment])).distinct()
    keys = keys.join(first, keys.customer_id == first._owner).drop("_owner")
    renamed = months.rename(_customer="customer_id", _month="month")
    joined = keys.join(
        renamed,
        [
            keys.customer_id == renamed._customer,
            renamed._month < keys._this,
            renamed._month >= keys._this - USUAL_MONTHS,
            renamed._month >= keys._first_complete,
        ],
    )
    sums = _add_up(joined.mutate(_lag=joined._this - joined._month))
    months_of = [sums[f"_income_month_{lag}"] for lag in range(1, USUAL_MONTHS + 1)]
    spent_of = [sums[f"_expense_month_{lag}"] for lag in range(1, USUAL_MONTHS + 1)]
    sums = sums.mutate(
        _usual_income=median_of_first(months_of, sums[f"_months_{USUAL_MONTHS}m"]),
        _usual_expense=median_of_first(spent_of, sums[f"_months_{USUAL_MONTHS}m"]),
    )
    money = {name: to_currency(sums[name]) for name in sums.columns if name.startswith(_MONEY_PREFIXES)}
    sums = sums.mutate(**money).filter(sums._newest == 1).drop("_newest").rename(_customer="customer_id", _when="_this")
    keyed = rows.mutate(_month_of_moment=month_number(rows[moment]))
    result = keyed.left_join(sums, [keyed.customer_id == sums._customer, keyed._month_of_moment == sums._when])
    return result.drop("_customer", "_when", "_month_of_moment")


_MONEY_PREFIXES = (
    *("_usual_", "_income_", "_expense_", "_regular_pay_", "_bills_", "_cash_", "_largest_"),
    *("_mean_closing_", "_lowest_closing_", "_closing"),
)


def _add_up(before: ir.Table) -> ir.Table:
    """Return the sums of each person and moment, from months with ``_lag``; money in whole ten-thousandths."""
    lag = before._lag
    covered = ibis.least(before._this - before._first_complete, USUAL_MONTHS)
    sums: dict[str, ir.Value] = {
        "_newest": lag.min(),
        "_closing": before.closing.min(where=lag == 1),
    }
    weight = ibis.cases(*((lag == k + 1, round(FADE**k * FADE_UNITS)) for k in range(USUAL_MONTHS)), else_=0).cast("int64")
    for name in ("missed", "penalties"):
        sums[f"_faded_{name}"] = (before[f"n_{name}"] * weight).sum().cast("float64") / FADE_UNITS
    for n in SPANS:
        is_inside = lag <= n
        for name in TOTALS:
            sums[f"_{name}_{n}m"] = before[name].sum(where=is_inside).fill_null(0).cast("int64")
        sums[f"_months_{n}m"] = ibis.least(covered.max(), n).cast("int64")
        sums[f"_largest_{n}m"] = before.largest.max(where=is_inside).fill_null(0)
        closing = before.closing.sum(where=is_inside).cast("int64"), before.closing.count(where=is_inside)
        sums[f"_mean_closing_{n}m"] = closing[0].cast("float64") / closing[1].nullif(0)
        sums[f"_lowest_closing_{n}m"] = before.closing.min(where=is_inside)
    for k in range(1, USUAL_MONTHS + 1):
        for name in ("income", "expense"):
            sums[f"_{name}_month_{k}"] = before[name].sum(where=lag == k).fill_null(0).cast("int64")
    return before.group_by("customer_id", "_this").aggregate(**sums)
