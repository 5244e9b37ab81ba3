"""The meaning of a movement's category: income, refund, penalty and missed payment, each with one definition for all domains.

The sources' own words for categories stand here and nowhere else. `docs/sources.md` has the same page in words.
"""

import ibis.expr.types as ir

OPENING_BALANCE = "opening_balance"
"""The balance that an account had when its ledger began; not a movement of money."""
REFUND = "refund"
"""Money given back that was counted as spent."""
INTEREST = "interest"
"""Interest that the bank pays."""

PENALTY = ("penalty", "penalty interest")
"""The bank's charge for a negative balance."""
MISSED_PAYMENT = ("returned_payment",)
"""A payment that the bank returned unpaid."""

REGULAR_PAY = ("salary", "pension")
BENEFITS = ("benefits",)
"""Income out of work."""

BILLS = ("rent", "utilities", "subscriptions", "insurance", "loan payment")
"""Spending that comes whatever happens."""
CASH = ("cash", "cash withdrawal", "card withdrawal")
UNPLANNED = ("repairs", *PENALTY, *MISSED_PAYMENT)
"""Spending that is not a habit."""


def is_inflow(is_credit: ir.Value, category: ir.Value) -> ir.BooleanValue:
    """Return whether a movement brings money in: any credit but an opening balance.

    Parameters
    ----------
    is_credit
        Boolean.
    category
        Text, empty or null where there is none.
    """
    return is_credit & category.fill_null("").notin((OPENING_BALANCE,))


def is_income(is_credit: ir.Value, category: ir.Value) -> ir.BooleanValue:
    """Return whether a movement is income: an inflow that is no refund.

    Parameters
    ----------
    is_credit
        Boolean.
    category
        Text, empty or null where there is none.
    """
    return is_credit & category.fill_null("").notin((OPENING_BALANCE, REFUND))
