"""Month-end applications: the loan that each customer would typically ask for at each month-end, and whenever an offer was made.

So every customer has a PD in every month, and an offer has the PD of its own moment. A month-end application is a row like that of a
loan that was applied for, but has no outcome, so it takes part in neither training nor evaluation. `loan_terms.with_terms` puts other terms
into the row. Ibis expressions, tables to tables.
"""

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import instalment
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.month_totals import find_month_ends, find_totals
from schemas.ledger import LOANS


def add_month_end_applications(tables: Mapping[str, ir.Table], span: TimeSpan = ALL_TIMES) -> ir.Table:
    """Return the loans, and after them one month-end application per customer and month-end.

    A month-end application has the ``loan_id`` ``<customer>@2024-06``. Its terms are typical of the loans that anyone had applied for
    before: the median amount, term (in whole months) and rate, and their instalment; where the source has no rate, the instalment
    follows from the median of all payments over the amount. Before the source's first loan there are no month-end applications. The
    source's own columns are those of the customer's newest earlier application, null without an earlier application. The account is
    the customer's first. An offer made within a month repeats the application of the month-end before at its own moment, as
    ``<customer>@<offer>``.

    Parameters
    ----------
    tables
        ``loans``, and ``transactions`` or their totals, ``accounts`` and ``offers`` where the source has them; without transactions
        the loans are returned alone.
    span
        Whole months: the applications to return.

    Returns
    -------
    ibis.Table
        The columns of ``loans``.
    """
    loans = tables["loans"]
    applied = span.filter_rows(loans, "applied_at")
    if (totals := find_totals(tables)) is None:
        return applied
    ends = find_month_ends(totals, "customer_id", span)
    rows = ends.join(_typical_terms(loans, ends), "as_of")
    rows = rows.mutate(loan_id=rows.customer_id + "@" + rows.month, applied_at=rows.as_of)
    rows = _join_account(rows, tables.get("accounts"))
    rows = _join_newest_application(rows, loans, [name for name in loans.columns if name not in LOANS.names])
    if "offers" in tables:
        rows = rows.union(_applications_at_offers(rows, tables["offers"]))
    values = {name: rows[name] if name in rows.columns else ibis.null() for name in loans.columns}
    return applied.union(rows.select(**{name: value.cast(loans[name].type()) for name, value in values.items()}))


def exclude_month_end_applications(rows: ir.Table) -> ir.Table:
    """Return the rows of loans that were applied for, without the month-end applications."""
    return rows.filter(~rows.loan_id.contains("@"))


def _applications_at_offers(rows: ir.Table, offers: ir.Table) -> ir.Table:
    """Return the month-end applications once more, at the moments at which offers were made to their customers."""
    month = offers.offered_at.truncate("M").cast("timestamp(6)")
    keys = offers.select(_offer=offers.offer_id, _customer=offers.customer_id, _at=offers.offered_at, _month=month)
    joined = rows.join(keys, [rows.customer_id == keys._customer, rows.as_of == keys._month])
    return joined.mutate(loan_id=joined.customer_id + "@" + joined._offer, applied_at=joined._at).select(*rows.columns)


def _typical_terms(loans: ir.Table, ends: ir.Table) -> ir.Table:
    """Return the typical terms at each month-end: ``as_of`` and the four columns of the terms."""
    moments = ends.select("as_of").distinct()
    applications = loans.select(
        "loan_amount",
        "term_months",
        "annual_rate_pct",
        _applied_at=loans.applied_at,
        _repaid=loans.instalment_amount * loans.term_months / loans.loan_amount,
    )
    known = moments.join(applications, applications._applied_at < moments.as_of)
    terms = known.group_by("as_of").aggregate(
        loan_amount=known.loan_amount.median(),
        term_months=known.term_months.median().round(),
        annual_rate_pct=known.annual_rate_pct.median(),
        _repaid=known._repaid.median(),
    )
    instalment_amount = ibis.cases(
        (terms.annual_rate_pct >= 0, instalment(terms.loan_amount, terms.annual_rate_pct, terms.term_months)),
        else_=terms.loan_amount * terms._repaid / terms.term_months,
    )
    return terms.mutate(instalment_amount=(instalment_amount * 100).round() / 100).drop("_repaid")


def _join_account(rows: ir.Table, accounts: ir.Table | None) -> ir.Table:
    """Join the customer's first account."""
    if accounts is None:
        return rows
    order = ibis.window(group_by=accounts.customer_id, order_by=[accounts.opened_at, accounts.account_id])
    first = accounts.mutate(_number=ibis.row_number().over(order))
    owned = first.filter(first._number == 0).select("account_id", _owner=first.customer_id)
    return rows.left_join(owned, rows.customer_id == owned._owner).drop("_owner")


def _join_newest_application(rows: ir.Table, loans: ir.Table, names: list[str]) -> ir.Table:
    """Join the named columns of the customer's newest application before each month-end."""
    if not names:
        return rows
    loan_rows = loans.select(*names, _loan=loans.loan_id, _borrower=loans.customer_id, _applied_at=loans.applied_at)
    keys = rows.select(_row=rows.loan_id, _customer=rows.customer_id, _as_of=rows.as_of)
    earlier = keys.join(loan_rows, [keys._customer == loan_rows._borrower, loan_rows._applied_at < keys._as_of])
    newest_first = ibis.window(group_by=earlier._row, order_by=[earlier._applied_at.desc(), earlier._loan.desc()])
    earlier = earlier.mutate(_number=ibis.row_number().over(newest_first))
    last = earlier.filter(earlier._number == 0).select("_row", *names)
    return rows.left_join(last, rows.loan_id == last._row).drop("_row")
