"""Standing applications: the loan that each customer would typically ask for at each month-end, and whenever an offer was made.

So everyone has a PD in every month, and an offer the PD of its own moment. They are rows like the loans that were applied for, without
an outcome, so they never teach and are never judged. `terms.with_terms` puts other terms into one. Ibis expressions, tables to tables.
"""

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.month_ends import month_ends
from schemas.ledger import LOANS


def applications(tables: Mapping[str, ir.Table]) -> ir.Table:
    """Return the loans, and behind them one standing application per customer and month-end.

    A standing application is called ``<customer>@2024-06``. Its terms are the typical ones of the loans that anyone had applied
    for before: the median amount, term (in whole months) and rate, and the instalment of these; where the source has no rate, the
    median of all that is repaid over the amount takes its place. Before the source's first loan there is none. The source's own
    columns are those of the customer's newest earlier application, null without one. The account is the customer's first. An
    offer made within a month takes the standing application of the month-end before to its own moment, as ``<customer>@<offer>``.

    Parameters
    ----------
    tables
        ``loans``, and ``transactions``, ``accounts`` and ``offers`` where the source has them; without transactions the loans
        return alone.

    Returns
    -------
    ibis.Table
        The columns of ``loans``.
    """
    loans = tables["loans"]
    if "transactions" not in tables:
        return loans
    ends = month_ends(tables["transactions"], "customer_id")
    rows = ends.join(_typical(loans, ends), "as_of")
    rows = rows.mutate(loan_id=rows.customer_id + "@" + rows.month, applied_at=rows.as_of)
    rows = _with_account(rows, tables.get("accounts"))
    rows = _with_application(rows, loans, [name for name in loans.columns if name not in LOANS.names])
    if "offers" in tables:
        rows = rows.union(_at_offers(rows, tables["offers"]))
    given = {name: rows[name] if name in rows.columns else ibis.null() for name in loans.columns}
    return loans.union(rows.select(**{name: value.cast(loans[name].type()) for name, value in given.items()}))


def applied_for(rows: ir.Table) -> ir.Table:
    """Return the rows of a table that are loans someone applied for, without the standing ones."""
    return rows.filter(~rows.loan_id.contains("@"))


def _at_offers(rows: ir.Table, offers: ir.Table) -> ir.Table:
    """The standing applications once more, at the moments at which offers were made to their customers."""
    month = offers.offered_at.truncate("M").cast("timestamp(6)")
    made = offers.select(_offer=offers.offer_id, _who=offers.customer_id, _at=offers.offered_at, _month=month)
    met = rows.join(made, [rows.customer_id == made._who, rows.as_of == made._month])
    return met.mutate(loan_id=met.customer_id + "@" + met._offer, applied_at=met._at).select(*rows.columns)


def _typical(loans: ir.Table, ends: ir.Table) -> ir.Table:
    """The typical terms at each month-end: ``as_of`` and the four columns of the terms."""
    moments = ends.select("as_of").distinct()
    asked = loans.select(
        "loan_amount",
        "term_months",
        "annual_rate_pct",
        _asked_at=loans.applied_at,
        _repaid=loans.instalment_amount * loans.term_months / loans.loan_amount,
    )
    known = moments.join(asked, asked._asked_at < moments.as_of)
    terms = known.group_by("as_of").aggregate(
        loan_amount=known.loan_amount.median(),
        term_months=known.term_months.median().round(),
        annual_rate_pct=known.annual_rate_pct.median(),
        _repaid=known._repaid.median(),
    )
    monthly = terms.annual_rate_pct / 1200
    amount, term = terms.loan_amount, terms.term_months
    instalment = ibis.cases(
        (monthly > 0, amount * monthly / (1 - (1 + monthly) ** -term)),
        (monthly == 0, amount / term),
        else_=amount * terms._repaid / term,
    )
    return terms.mutate(instalment_amount=(instalment * 100).round() / 100).drop("_repaid")


def _with_account(rows: ir.Table, accounts: ir.Table | None) -> ir.Table:
    """Join the customer's first account."""
    if accounts is None:
        return rows
    order = ibis.window(group_by=accounts.customer_id, order_by=[accounts.opened_at, accounts.account_id])
    first = accounts.mutate(_number=ibis.row_number().over(order))
    owned = first.filter(first._number == 0).select("account_id", _owner=first.customer_id)
    return rows.left_join(owned, rows.customer_id == owned._owner).drop("_owner")


def _with_application(rows: ir.Table, loans: ir.Table, names: list[str]) -> ir.Table:
    """Join the named columns of the customer's newest application before each month-end."""
    if not names:
        return rows
    asked = loans.select(*names, _asked=loans.loan_id, _who=loans.customer_id, _asked_at=loans.applied_at)
    keys = rows.select(_standing=rows.loan_id, _customer=rows.customer_id, _as_of=rows.as_of)
    earlier = keys.join(asked, [keys._customer == asked._who, asked._asked_at < keys._as_of])
    newest = ibis.window(group_by=earlier._standing, order_by=[earlier._asked_at.desc(), earlier._asked.desc()])
    earlier = earlier.mutate(_number=ibis.row_number().over(newest))
    last = earlier.filter(earlier._number == 0).select("_standing", *names)
    return rows.left_join(last, rows.loan_id == last._standing).drop("_standing")
