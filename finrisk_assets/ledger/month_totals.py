"""The ledger by calendar months: money in, money out and the balance of people and accounts, and each account's money by category.

The graph stores both tables by month, so that a transaction is added up once, and features of one month read small totals of the months
around it. Features look back over the totals, and the target of spending risk looks ahead over them. Money is in whole ten-thousandths of
the currency.
"""

from collections.abc import Callable, Mapping

import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import to_units
from finrisk_assets.features.month_ends import list_month_ends, month_number
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.categories import (
    BENEFITS,
    BILLS,
    CASH,
    MISSED_PAYMENT,
    OPENING_BALANCE,
    PENALTY,
    REFUND,
    REGULAR_PAY,
    UNPLANNED,
    is_income,
    is_inflow,
)
from schemas.ledger import TRANSACTIONS, Column, Table

PART_MONTH_DAYS = 3
"""Days. A ledger that begins later in a month than this has only a part of that month, which is no measure of a month."""

TOTALS = ("inflow", "income", "expense", "habitual", "regular_pay", "benefits", "bills", "n_penalties", "n_missed", "n_negative")
"""The columns of `add_up_people` that can be added up over months."""


def _sum(name: str, description: str, unit: str = "ten-thousandths of the currency", *, nullable: bool = False) -> Column:
    return Column(name, "int64", description, unit, nullable, personal="personal")


_MONTH = Column("month", "timestamp", "First instant of the calendar month.")

ACCOUNT_TOTALS = Table(
    "totals_accounts",
    "Movements of each person, account and month, added up.",
    (
        TRANSACTIONS["customer_id"],
        TRANSACTIONS["account_id"],
        _MONTH,
        Column("first_at", "timestamp", "The month's first movement."),
        Column("last_at", "timestamp", "Its last movement."),
        _sum("change", "Credits less debits, with the balance at which the ledger begins."),
        _sum("net", "The same without that balance."),
        _sum("inflow", "Credits, without that balance."),
        _sum("income", "Inflow without refunds."),
        _sum("refunded", "Refunds."),
        _sum("expense", "Debits."),
        _sum("habitual", "Debits but unplanned ones, less refunds."),
        _sum("regular_pay", "Salaries and pensions."),
        _sum("benefits", "Benefits."),
        _sum("bills", "Spending that comes whatever happens."),
        _sum("cash", "Cash withdrawn."),
        _sum("largest_income", "The largest income."),
        _sum("largest", "The largest debit."),
        _sum("closing", "Balance after the last movement; the lowest, of movements at one moment.", nullable=True),
        _sum("n", "Movements.", "movements"),
        _sum("n_income", "Incomes.", "movements"),
        _sum("n_penalties", "Penalties.", "movements"),
        _sum("n_missed", "Payments that the bank returned unpaid.", "movements"),
        _sum("n_negative", "Movements that left a balance below zero.", "movements"),
    ),
    key="",
    event_time="month",
)
CATEGORY_TOTALS = Table(
    "totals_categories",
    "Money of each account, month, direction and category.",
    (
        TRANSACTIONS["account_id"],
        _MONTH,
        Column("is_expense", "boolean", "Whether these are debits."),
        Column("category", "string", "Category of the movements, empty where they have none.", personal="personal"),
        _sum("amount", "Money moved, without the balance at which the ledger begins."),
        _sum("n", "Movements.", "movements"),
    ),
    key="",
    event_time="month",
)


def add_up_accounts(transactions: ir.Table) -> ir.Table:
    """Return `ACCOUNT_TOTALS` of validated transactions: one row per person, account and month with a movement."""
    is_credit, category = transactions.direction == "credit", transactions.category.fill_null("")
    units = to_units(transactions.amount)
    movements = transactions.select(
        "customer_id",
        "account_id",
        month=_month(transactions),
        at=transactions.occurred_at,
        units=units,
        signed=is_credit.ifelse(units, -units),
        balance=to_units(transactions.balance_amount),
        category=category,
        is_inflow=is_inflow(is_credit, category),
        is_income=is_income(is_credit, category),
        is_expense=~is_credit,
    )
    keys = ["customer_id", "account_id", "month"]
    movements = movements.filter(movements["at"].notnull())
    movements = movements.mutate(last=movements["at"].max().over(group_by=keys))

    def total(value: ir.Value, where: ir.BooleanValue) -> ir.Value:
        return value.sum(where=where).fill_null(0).cast("int64")

    units, category, is_expense, is_income_row = movements.units, movements.category, movements.is_expense, movements.is_income
    refunded = total(units, movements.is_inflow & (category == REFUND))
    return movements.group_by(keys).aggregate(
        first_at=movements["at"].min(),
        last_at=movements["at"].max(),
        change=movements.signed.sum().cast("int64"),
        net=total(movements.signed, category != OPENING_BALANCE),
        inflow=total(units, movements.is_inflow),
        income=total(units, is_income_row),
        refunded=refunded,
        expense=total(units, is_expense),
        habitual=total(units, is_expense & category.notin(UNPLANNED)) - refunded,
        regular_pay=total(units, is_income_row & category.isin(REGULAR_PAY)),
        benefits=total(units, is_income_row & category.isin(BENEFITS)),
        bills=total(units, is_expense & category.isin(BILLS)),
        cash=total(units, is_expense & category.isin(CASH)),
        largest_income=units.max(where=is_income_row).fill_null(0),
        largest=units.max(where=is_expense).fill_null(0),
        closing=movements.balance.min(where=movements["at"] == movements.last),
        n=movements.count(),
        n_income=movements.count(where=is_income_row),
        n_penalties=movements.count(where=category.isin(PENALTY)),
        n_missed=movements.count(where=category.isin(MISSED_PAYMENT)),
        n_negative=movements.count(where=movements.balance < 0),
    )


def add_up_categories(transactions: ir.Table) -> ir.Table:
    """Return `CATEGORY_TOTALS` of validated transactions: one row per account, month, direction and category with a movement."""
    category, units = transactions.category.fill_null(""), to_units(transactions.amount)
    movements = transactions.select(
        "account_id",
        month=_month(transactions),
        is_expense=transactions.direction != "credit",
        category=category,
        units=(category == OPENING_BALANCE).ifelse(0, units),
    )
    movements = movements.filter(movements.month.notnull())
    sums = {"amount": movements.units.sum().cast("int64"), "n": movements.count()}
    return movements.group_by("account_id", "month", "is_expense", "category").aggregate(**sums)


def _month(transactions: ir.Table) -> ir.Value:
    return transactions.occurred_at.truncate("M").cast("timestamp(6)")


MONTH_TOTALS: Mapping[str, tuple[Table, Callable[[ir.Table], ir.Table]]] = {
    ACCOUNT_TOTALS.name: (ACCOUNT_TOTALS, add_up_accounts),
    CATEGORY_TOTALS.name: (CATEGORY_TOTALS, add_up_categories),
}
"""Table -> its contract, and what makes it of validated transactions."""


def find_totals(tables: Mapping[str, ir.Table], totals: Table = ACCOUNT_TOTALS) -> ir.Table | None:
    """Return the totals among the tables of a feature table, else those of its transactions; None where it has neither."""
    if totals.name in tables:
        return tables[totals.name]
    return MONTH_TOTALS[totals.name][1](tables["transactions"]) if "transactions" in tables else None


def add_up_people(totals: ir.Table) -> ir.Table:
    """Add up the accounts of each person.

    Parameters
    ----------
    totals
        `ACCOUNT_TOTALS`; rows without a customer are left out.

    Returns
    -------
    ibis.Table
        One row per ``customer_id`` and ``month`` (`month_number`): `TOTALS`, ``cash``, ``n``, ``largest`` and ``closing``.
    """
    totals = totals.filter(totals.customer_id.notnull())
    totals = totals.mutate(number=month_number(totals.month), last=totals.last_at.max().over(group_by=["customer_id", "month"]))
    return totals.group_by("customer_id", month=totals.number).aggregate(
        **{name: totals[name].sum().cast("int64") for name in (*TOTALS, "cash", "n")},
        largest=totals.largest.max(),
        closing=totals.closing.min(where=totals.last_at == totals.last),
    )


def find_first_month(totals: ir.Table) -> ir.Table:
    """Return the month of each person's first movement, and the first complete month.

    Parameters
    ----------
    totals
        `ACCOUNT_TOTALS`, of all months; rows without a customer are left out.

    Returns
    -------
    ibis.Table
        ``_owner`` (the person), ``_first`` and ``_first_complete`` (`month_number`).
    """
    totals = totals.filter(totals.customer_id.notnull())
    first = totals.group_by(_owner=totals.customer_id).aggregate(_first_at=totals.first_at.min())
    is_part = first._first_at.day() > PART_MONTH_DAYS
    number = month_number(first._first_at)
    return first.select("_owner", _first=number, _first_complete=number + is_part.ifelse(1, 0))


def find_month_ends(totals: ir.Table, entity: str, span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Return every month that ended, as `list_month_ends` does of movements: a month's last one is enough."""
    return list_month_ends(totals.select(entity, occurred_at=totals.last_at), entity, span)
