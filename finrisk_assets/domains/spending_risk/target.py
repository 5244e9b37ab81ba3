"""What trouble is: which movements and which quarter count, from what day on it is known, and which source goes by which rule."""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.spending_risk.month_totals import MISSED, PENALTY, month_number

HORIZON_DAYS = 90
QUARTER_MONTHS = 3


@dataclass(frozen=True)
class Trouble:
    """What counts as trouble after a month-end.

    Attributes
    ----------
    categories
        A movement of one of these within `HORIZON_DAYS`.
    is_negative_balance
        Whether a balance below zero within `HORIZON_DAYS` counts by itself.
    is_overspending
        Whether spending above income over the next `QUARTER_MONTHS` calendar months counts.
    """

    categories: tuple[str, ...] = (*PENALTY, *MISSED)
    is_negative_balance: bool = False
    is_overspending: bool = True


RULES = {"berka": Trouble(categories=PENALTY, is_negative_balance=True, is_overspending=False)}
"""Sources whose ledger shows other trouble: Berka has no record of missed payments, but of every balance below zero."""


def rule(source: str) -> Trouble:
    """The rule that a source goes by, by its name."""
    return RULES.get(source, Trouble())


def outcome(rows: ir.Table, transactions: ir.Table, months: ir.Table, trouble: Trouble) -> ir.Table:
    """Say of each month-end whether trouble followed.

    Parameters
    ----------
    rows
        ``customer_id`` and ``as_of``, every month-end of the ledger.
    transactions, months
        Validated movements, and their totals (`months.monthly`).

    Returns
    -------
    ibis.Table
        `rows` with ``is_trouble`` (boolean) and ``outcome_known_at`` (timestamp: the end of the horizon), both null where the
        person's ledger does not run on for three months.
    """
    return _known(_marked(rows, transactions, months, trouble))


def _marked(rows: ir.Table, transactions: ir.Table, months: ir.Table, trouble: Trouble) -> ir.Table:
    """Add ``_after``: whether anything that counts was seen, however long the ledger runs on."""
    happened = transactions.category.isin(trouble.categories)
    if trouble.is_negative_balance:
        happened = happened | (transactions.balance_amount < 0)
    events = transactions.filter(happened.fill_null(False)).select(_who="customer_id", _at="occurred_at")
    until = rows.as_of + ibis.interval(days=HORIZON_DAYS)
    hit = rows.join(events, [rows.customer_id == events._who, events._at >= rows.as_of, events._at < until])
    found = hit.select("customer_id", "as_of")
    if trouble.is_overspending:
        ahead = months.select(_who="customer_id", _month="month", _net=months.income - months.expense)
        this = month_number(rows.as_of)
        quarter = rows.join(ahead, [rows.customer_id == ahead._who, ahead._month >= this, ahead._month < this + QUARTER_MONTHS])
        net = quarter.group_by("customer_id", "as_of").aggregate(net=quarter._net.sum())
        found = found.union(net.filter(net.net < 0).select("customer_id", "as_of"))
    found = found.distinct().select(_who="customer_id", _when="as_of")
    marked = rows.left_join(found, [rows.customer_id == found._who, rows.as_of == found._when])
    return marked.mutate(_after=marked._who.notnull()).drop("_who", "_when")


def _known(marked: ir.Table) -> ir.Table:
    """Turn ``_after`` into the outcome where the ledger runs on long enough to know it."""
    end = marked.as_of + ibis.interval(months=QUARTER_MONTHS)
    later = marked.select(_who="customer_id", _when="as_of")
    joined = marked.mutate(_end=end.cast("timestamp(6)"))
    joined = joined.left_join(later, [joined.customer_id == later._who, joined._end == later._when])
    runs_on = joined._who.notnull()
    known_at = ibis.greatest(joined._end, joined.as_of + ibis.interval(days=HORIZON_DAYS))
    return joined.mutate(
        is_trouble=runs_on.ifelse(joined._after, ibis.null("boolean")),
        outcome_known_at=runs_on.ifelse(known_at, ibis.null("timestamp(6)")),
    ).drop("_after", "_end", "_who", "_when")
