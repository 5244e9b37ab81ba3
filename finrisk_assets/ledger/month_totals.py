"""A person's ledger by calendar months: money in, money out, and the balance.

Features look back over these totals, and the target of spending risk looks ahead over them.
"""

import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import to_units
from finrisk_assets.features.month_ends import month_number
from finrisk_assets.ledger.categories import (
    BENEFITS,
    BILLS,
    CASH,
    MISSED_PAYMENT,
    PENALTY,
    REFUND,
    REGULAR_PAY,
    UNPLANNED,
    is_income,
    is_inflow,
)

PART_MONTH_DAYS = 3
"""Days. A ledger that begins later in a month than this has only a part of that month, which is no measure of a month."""

TOTALS = ("inflow", "income", "expense", "habitual", "regular_pay", "benefits", "bills", "n_penalties", "n_missed", "n_negative")
"""The columns of `add_up_months` that can be added up over months."""


def add_up_months(transactions: ir.Table) -> ir.Table:
    """Total each person's movements by calendar month.

    Parameters
    ----------
    transactions
        Validated; rows without a customer are left out.

    Returns
    -------
    ibis.Table
        One row per ``customer_id`` and ``month`` (`month_number`) with a movement. Money in whole ten-thousandths (int64):
        ``inflow`` and ``income`` (as `ledger.categories` has them), ``expense`` (debits), ``habitual`` (debits but unplanned ones, less
        refunds), ``regular_pay``, ``benefits``, ``bills``, ``cash``, ``largest`` (debit), ``closing`` (balance after the last movement; the
        lowest, of movements at one moment). Counts: ``n`` (movements), ``n_penalties``, ``n_missed``, ``n_negative`` (movements that left
        a balance below zero).
    """
    movements = transactions.filter(transactions.customer_id.notnull())
    is_credit, category = movements.direction == "credit", movements.category.fill_null("")
    movements = movements.select(
        "customer_id",
        month=month_number(movements.occurred_at),
        at=movements.occurred_at,
        units=to_units(movements.amount),
        balance=to_units(movements.balance_amount),
        category=category,
        is_inflow=is_inflow(is_credit, category),
        is_income=is_income(is_credit, category),
        is_expense=movements.direction == "debit",
    )
    movements = movements.mutate(last=movements["at"].max().over(group_by=["customer_id", "month"]))

    def total(where: ir.BooleanValue) -> ir.Value:
        return movements.units.sum(where=where).fill_null(0).cast("int64")

    is_refund = movements.is_inflow & (movements.category == REFUND)
    return movements.group_by("customer_id", "month").aggregate(
        inflow=total(movements.is_inflow),
        income=total(movements.is_income),
        expense=total(movements.is_expense),
        habitual=total(movements.is_expense & movements.category.notin(UNPLANNED)) - total(is_refund),
        regular_pay=total(movements.is_income & movements.category.isin(REGULAR_PAY)),
        benefits=total(movements.is_income & movements.category.isin(BENEFITS)),
        bills=total(movements.is_expense & movements.category.isin(BILLS)),
        cash=total(movements.is_expense & movements.category.isin(CASH)),
        largest=movements.units.max(where=movements.is_expense).fill_null(0),
        closing=movements.balance.min(where=movements["at"] == movements.last),
        n=movements.count(),
        n_penalties=movements.count(where=movements.category.isin(PENALTY)),
        n_missed=movements.count(where=movements.category.isin(MISSED_PAYMENT)),
        n_negative=movements.count(where=movements.balance < 0),
    )


def find_first_month(transactions: ir.Table) -> ir.Table:
    """Return the month of each person's first movement, and the first complete month.

    Parameters
    ----------
    transactions
        Validated, all of them; rows without a customer are left out.

    Returns
    -------
    ibis.Table
        ``_owner`` (the person), ``_first`` and ``_first_complete`` (`month_number`).
    """
    movements = transactions.filter(transactions.customer_id.notnull())
    first = movements.group_by(_owner=movements.customer_id).aggregate(_first_at=movements.occurred_at.min())
    is_part = first._first_at.day() > PART_MONTH_DAYS
    number = month_number(first._first_at)
    return first.select("_owner", _first=number, _first_complete=number + is_part.ifelse(1, 0))
