"""A person's ledger by calendar months: what came in, what went out, and where the balance stood.

The features look back over these totals and the target looks ahead over them; what they make of them stands there.
"""

import ibis.expr.types as ir

NOT_INCOME = ("opening_balance",)
"""Credits that are no income: they only say where the ledger begins. Refunds count, because what they give back was counted as spent."""

PENALTY = ("penalty", "penalty interest")
MISSED = ("returned_payment",)
REGULAR_PAY = ("salary", "pension")
BENEFITS = ("benefits",)
BILLS = ("rent", "utilities", "subscriptions", "insurance", "loan payment")
REFUND = ("refund",)
UNPLANNED = ("repairs", *PENALTY, *MISSED)
"""Categories of the sources, by what they mean here; `UNPLANNED` is not spent by habit."""

UNIT = 10_000
"""Money is added up in whole ten-thousandths, so that no sum depends on the order of the movements."""


def month_number(moment: ir.Value) -> ir.IntegerValue:
    """Number of a moment's calendar month; the next month has the next number."""
    return (moment.year() * 12 + moment.month()).cast("int64")


def units(amount: ir.Value) -> ir.IntegerValue:
    """An amount of money in whole ten-thousandths."""
    return (amount * UNIT).round().cast("int64")


def is_income(direction: ir.Value, category: ir.Value) -> ir.BooleanValue:
    """Whether a movement is income: any credit but an opening balance."""
    return (direction == "credit") & category.fill_null("").notin(NOT_INCOME)


def monthly(transactions: ir.Table) -> ir.Table:
    """Total each person's movements by calendar month.

    Parameters
    ----------
    transactions
        Validated; those without a customer are passed over.

    Returns
    -------
    ibis.Table
        One row per ``customer_id`` and ``month`` (`month_number`) with a movement. Money in whole ten-thousandths (int64):
        ``income``, ``expense``, ``earned`` (income but refunds), ``habitual`` (what was spent by habit: debits but unplanned ones,
        less refunds), ``regular_pay`` (salaries and pensions), ``benefits`` (income out of work), ``bills`` (debits that come whatever
        happens), ``closing`` (balance after the last movement; the lowest, of movements at one moment) and ``lowest`` (balance).
        Counts: ``n_penalties``, ``n_missed``, ``n_negative`` (movements that left a balance below zero).
    """
    moves = transactions.filter(transactions.customer_id.notnull())
    moves = moves.select(
        "customer_id",
        month=month_number(moves.occurred_at),
        at=moves.occurred_at,
        units=units(moves.amount),
        balance=units(moves.balance_amount),
        kind=moves.category.fill_null(""),
        is_income=is_income(moves.direction, moves.category),
        is_expense=moves.direction == "debit",
    )
    moves = moves.mutate(last=moves["at"].max().over(group_by=["customer_id", "month"]))

    def total(where: ir.BooleanValue) -> ir.Value:
        return moves.units.sum(where=where).fill_null(0).cast("int64")

    return moves.group_by("customer_id", "month").aggregate(
        income=total(moves.is_income),
        expense=total(moves.is_expense),
        earned=total(moves.is_income & moves.kind.notin(REFUND)),
        habitual=total(moves.is_expense & moves.kind.notin(UNPLANNED)) - total(moves.is_income & moves.kind.isin(REFUND)),
        regular_pay=total(moves.is_income & moves.kind.isin(REGULAR_PAY)),
        benefits=total(moves.is_income & moves.kind.isin(BENEFITS)),
        bills=total(moves.is_expense & moves.kind.isin(BILLS)),
        closing=moves.balance.min(where=moves["at"] == moves.last),
        lowest=moves.balance.min(),
        n_penalties=moves.count(where=moves.kind.isin(PENALTY)),
        n_missed=moves.count(where=moves.kind.isin(MISSED)),
        n_negative=moves.count(where=moves.balance < 0),
    )
