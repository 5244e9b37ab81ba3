"""Joins of a month-end, as Ibis expressions: sums of the trailing 90 days, of calendar months, and the usual income.

Every column that is added begins with an underscore; money is in whole ten-thousandths of the currency. `catalogue` turns the columns
into features.
"""

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.spending_risk.decide import LOW_BALANCE_SHARE, WINDOW_DAYS
from finrisk_assets.features.arithmetic import median_of_first, to_currency, to_units
from finrisk_assets.features.month_ends import join_movements_before, month_number
from finrisk_assets.ledger.categories import is_inflow
from finrisk_assets.ledger.month_totals import TOTALS

MONTHS = (1, 3, 6)
"""Calendar months before the month-end over which the ledger is summed up."""

WINDOW_MONTHS = WINDOW_DAYS // 30
"""Months of the trailing window, which make a sum a monthly mean."""


def join_columns(rows: ir.Table, columns: ir.Table) -> ir.Table:
    """Join the columns of a table of the same keys, ``customer_id`` and ``as_of``."""
    renamed = columns.rename(_customer="customer_id", _when="as_of")
    joined = rows.left_join(renamed, [rows.customer_id == renamed._customer, rows.as_of == renamed._when])
    return joined.drop("_customer", "_when")


def add_up_trailing_days(ends: ir.Table, transactions: ir.Table) -> ir.Table:
    """Return sums, counts and extremes of the trailing 90 days per row of `ends`.

    Parameters
    ----------
    ends
        ``customer_id`` and ``as_of``.
    transactions
        Validated.
    """
    keys = ["customer_id", "as_of"]
    inflows = join_movements_before(ends, transactions.filter(transactions.direction == "credit"), "customer_id", WINDOW_DAYS)
    inflows = inflows.filter(is_inflow(inflows._credit, inflows._category))
    inflow = inflows.group_by(keys).aggregate(inflow=inflows._units.sum().cast("int64"))
    movements = join_columns(join_movements_before(ends, transactions, "customer_id", WINDOW_DAYS), inflow)
    is_low = movements._balance * (WINDOW_MONTHS * round(1 / LOW_BALANCE_SHARE)) < movements.inflow.fill_null(0)
    per_category = movements.group_by(*keys, "_category").aggregate(
        inflow=movements.inflow.max(),
        n=movements.count(),
        n_low=movements.count(where=is_low),
        n_expenses=movements.count(where=~movements._credit),
        expense=movements._units.sum(where=~movements._credit).fill_null(0).cast("int64"),
        largest=movements._units.max(where=~movements._credit).fill_null(0),
    )
    return per_category.group_by(keys).aggregate(
        _inflow=per_category.inflow.max().fill_null(0),
        _n=per_category.n.sum().cast("int64"),
        _n_low=per_category.n_low.sum().cast("int64"),
        _n_expenses=per_category.n_expenses.sum().cast("int64"),
        _expense=per_category.expense.sum().cast("int64"),
        _largest=per_category.largest.max(),
        _top_category=per_category.expense.max(),
    )


def add_up_last_months(ends: ir.Table, months: ir.Table, first: ir.Table) -> ir.Table:
    """Return sums and balances of the calendar months that ended with the month-end, per row of `ends`.

    Parameters
    ----------
    ends
        ``customer_id`` and ``as_of``.
    months
        As `month_totals.add_up_people` returns them, of `MONTHS` before the month-ends at least.
    first
        As `month_totals.find_first_month` returns it.
    """
    keyed = ends.select("customer_id", "as_of", _this=month_number(ends.as_of))
    keyed = keyed.join(first, keyed.customer_id == first._owner).drop("_owner")
    renamed = months.rename(_customer="customer_id", _month="month")
    joined = keyed.join(
        renamed,
        [keyed.customer_id == renamed._customer, renamed._month < keyed._this, renamed._month >= keyed._this - MONTHS[-1]],
    )
    before = joined.mutate(_lag=joined._this - joined._month)
    whole = to_currency(before.inflow).round().cast("float64")
    sums: dict[str, ir.Value] = {
        "_history_months": (before._this - before._first).max(),
        # In whole currency, so that squares are whole numbers too: their sum does not depend on the order.
        "_whole_income": whole.sum().fill_null(0.0),
        "_whole_income_squared": (whole * whole).sum().fill_null(0.0),
        "_n_complete": (before._this - before._first_complete).max(),
    }
    for n in MONTHS:
        inside = before._lag <= n
        for name in TOTALS:
            sums[f"_{name}_{n}m"] = before[name].sum(where=inside).fill_null(0).cast("int64")
        sums[f"_lowest_closing_{n}m"] = before.closing.min(where=inside)
        sums[f"_largest_{n}m"] = before.largest.max(where=inside).fill_null(0)
    for lag in range(1, 5):
        sums[f"_expense_month_{lag}"] = before.expense.sum(where=before._lag == lag).fill_null(0).cast("int64")
        sums[f"_closing_month_{lag}"] = before.closing.min(where=before._lag == lag)
    for lag in range(1, MONTHS[-1] + 1):
        sums[f"_income_month_{lag}"] = before.income.sum(where=before._lag == lag).fill_null(0).cast("int64")
    added = before.group_by("customer_id", "as_of").aggregate(**sums)
    n_complete = ibis.least(added._n_complete, MONTHS[-1])
    incomes = [added[f"_income_month_{lag}"] for lag in range(1, MONTHS[-1] + 1)]
    return added.mutate(_median_income=median_of_first(incomes, n_complete))


def join_usual_income(rows: ir.Table, customers: ir.Table) -> ir.Table:
    """Join the usual monthly income: the median of up to six complete months, else the income declared on joining, else null."""
    declarations = customers.select(_customer="customer_id", _joined_at="joined_at", _declared=to_units(customers.income_amount))
    joined = rows.left_join(declarations, rows.customer_id == declarations._customer)
    is_known = (joined._joined_at <= joined.as_of).fill_null(False) & (joined._declared > 0)
    declared = is_known.ifelse(joined._declared.cast("float64"), ibis.null("float64"))
    earned = (joined._median_income > 0).ifelse(joined._median_income, ibis.null("float64"))
    return joined.mutate(_usual=earned.coalesce(declared)).drop("_customer", "_joined_at", "_declared", "_median_income")
