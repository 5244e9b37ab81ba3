"""The target: trouble after a month-end, the day from which it is known, and the rule of each source."""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.month_ends import month_number
from finrisk_assets.ledger.categories import MISSED_PAYMENT, PENALTY

HORIZON_DAYS = 90
"""Days after the month-end within which trouble counts."""
QUARTER_MONTHS = 3
"""Calendar months after the month-end over which spending is compared with the money that came in."""


@dataclass(frozen=True)
class Trouble:
    """The rule of what counts as trouble after a month-end.

    Attributes
    ----------
    categories
        A movement of one of these within `HORIZON_DAYS`.
    is_negative_balance
        Whether a balance below zero within `HORIZON_DAYS` counts by itself.
    is_overspending
        Whether spending above the inflow over the next `QUARTER_MONTHS` calendar months counts.
    """

    categories: tuple[str, ...] = (*PENALTY, *MISSED_PAYMENT)
    is_negative_balance: bool = False
    is_overspending: bool = True


RULES = {"berka": Trouble(categories=PENALTY, is_negative_balance=True, is_overspending=False)}
"""Source -> rule, where the ledger shows other trouble: Berka has no record of missed payments, but of every balance below zero."""


def find_rule(source: str) -> Trouble:
    """Return the rule of a source, by its name."""
    return RULES.get(source, Trouble())


def find_outcomes(rows: ir.Table, ends: ir.Table, transactions: ir.Table, months: ir.Table, trouble: Trouble) -> ir.Table:
    """Return whether trouble followed each month-end.

    Parameters
    ----------
    rows
        ``customer_id`` and ``as_of``.
    ends
        The month-ends of the ledger, those of `rows` and of `QUARTER_MONTHS` after them at least.
    transactions, months
        Validated movements, and their totals (`ledger.month_totals.add_up_people`).

    Returns
    -------
    ibis.Table
        `rows` with ``is_trouble`` (boolean) and ``outcome_known_at`` (timestamp: the end of the horizon), both null where the
        person's ledger does not run on for three months.
    """
    return _keep_known(_mark_trouble(rows, transactions, months, trouble), ends)


def _mark_trouble(rows: ir.Table, transactions: ir.Table, months: ir.Table, trouble: Trouble) -> ir.Table:
    """Add ``_after``: whether trouble is on record, however long the ledger runs on."""
    is_event = transactions.category.isin(trouble.categories)
    if trouble.is_negative_balance:
        is_event = is_event | (transactions.balance_amount < 0)
    events = transactions.filter(is_event.fill_null(False)).select(_customer="customer_id", _at="occurred_at")
    until = rows.as_of + ibis.interval(days=HORIZON_DAYS)
    joined = rows.join(events, [rows.customer_id == events._customer, events._at >= rows.as_of, events._at < until])
    troubled = joined.select("customer_id", "as_of")
    if trouble.is_overspending:
        ahead = months.select(_customer="customer_id", _month="month", _net=months.inflow - months.expense)
        this = month_number(rows.as_of)
        quarter = rows.join(ahead, [rows.customer_id == ahead._customer, ahead._month >= this, ahead._month < this + QUARTER_MONTHS])
        net = quarter.group_by("customer_id", "as_of").aggregate(net=quarter._net.sum())
        troubled = troubled.union(net.filter(net.net < 0).select("customer_id", "as_of"))
    troubled = troubled.distinct().select(_customer="customer_id", _when="as_of")
    marked = rows.left_join(troubled, [rows.customer_id == troubled._customer, rows.as_of == troubled._when])
    return marked.mutate(_after=marked._customer.notnull()).drop("_customer", "_when")


def _keep_known(marked: ir.Table, ends: ir.Table) -> ir.Table:
    """Turn ``_after`` into the outcome where the ledger runs on long enough to know it."""
    end = marked.as_of + ibis.interval(months=QUARTER_MONTHS)
    later = ends.select(_customer="customer_id", _when="as_of")
    joined = marked.mutate(_end=end.cast("timestamp(6)"))
    joined = joined.left_join(later, [joined.customer_id == later._customer, joined._end == later._when])
    runs_on = joined._customer.notnull()
    known_at = ibis.greatest(joined._end, joined.as_of + ibis.interval(days=HORIZON_DAYS))
    return joined.mutate(
        is_trouble=runs_on.ifelse(joined._after, ibis.null("boolean")),
        outcome_known_at=runs_on.ifelse(known_at, ibis.null("timestamp(6)")),
    ).drop("_after", "_end", "_customer", "_when")
