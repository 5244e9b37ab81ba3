"""What somebody who asks for a loan can change, which way and how far, and what follows from it.

The only place that says so. Everything else is immutable: who somebody is, how long they have been a customer, where they live, and
history that cannot be undone: income, penalties, earlier delays. Searching among the changes is `modelling.counterfactual`'s.
"""

from collections.abc import Mapping

from finrisk_assets.domains.loan_default.terms import LONGEST_TERM, NUMBERS, to_the_cent, with_formulas, with_terms
from finrisk_assets.scoring.recourse import Allowed, Row

AMOUNT, TERM = "loan_amount", "term_months"
BALANCE, SPENDING, BILL = "last_balance_amount", "expense_amount_90d", "bill_amount_1m"

CHANGEABLE: Mapping[str, str] = {
    AMOUNT: "Ask for less.",
    TERM: "Repay over another time.",
    BALANCE: "Pay into the account before applying.",
    SPENDING: "Spend less over 90 days, then apply.",
    BILL: "Repay part of the card's last bill.",
}
"""Every feature that can be changed, and what a person would do."""

STEP = 100.0
"""Amounts are told in whole hundreds of the ledger's currency."""

LEAST_SPENDING = 0.7
"""Nobody is told to live on less than this share of what they have been spending."""

MOST_SAVED = 1.0
"""Nobody is told to pay in more than so many months of their income."""


def allowed(row: Row) -> dict[str, Allowed]:
    """How the features of one application can be changed; of those that are not among them, not at all.

    Parameters
    ----------
    row
        One row of ``features_loan_default`` by column, None where a value is missing.
    """
    found = {AMOUNT: Allowed(direction=-1, low=STEP, step=STEP), TERM: Allowed(direction=0, low=1, high=LONGEST_TERM, step=1)}
    balance, income, spent = row.get(BALANCE), row.get("income_amount_90d"), row.get(SPENDING)
    if balance is not None and income is not None and income > 0:
        found[BALANCE] = Allowed(direction=1, high=balance + MOST_SAVED * income / 3, step=STEP)
    if spent is not None and spent > 0:
        found[SPENDING] = Allowed(direction=-1, low=LEAST_SPENDING * spent, step=STEP)
    if row.get(BILL) is not None:
        found[BILL] = Allowed(direction=-1, low=0, step=STEP)
    return {name: how for name, how in found.items() if row.get(name) is not None}


def consistent(row: Row, changes: Mapping[str, float]) -> Row:
    """The row with changes and with all that follows from them.

    Another amount or term gives another instalment, as `terms.with_terms` has it, and all that is measured by it. Less spending is
    spread over the 90 days: the sums of shorter and longer windows fall with it, while balances are left as they are, because nobody
    promised that what is not spent stays in the account. What is paid in changes the last balance alone.
    """
    other = {name: value for name, value in changes.items() if name not in (AMOUNT, TERM, SPENDING)}
    changed = {**row, **(_spending(row, changes[SPENDING]) if SPENDING in changes else {}), **other}
    amount = changes.get(AMOUNT, row.get(AMOUNT))
    if amount is None or not (AMOUNT in changes or TERM in changes):
        return with_formulas({**changed, **({TERM: changes[TERM]} if TERM in changes else {})})
    return with_terms(changed, loan_amount=amount, term_months=int(changes[TERM]) if TERM in changes else None)


def _spending(row: Row, after: float) -> dict[str, float | None]:
    """The sums of spending with `after` in the last 90 days, and their shares of the income."""
    before = row[SPENDING] or 0.0
    found: dict[str, float | None] = {}
    for days in (30, 90, 180, 365):
        spent, earned = row.get(f"expense_amount_{days}d"), row.get(f"income_amount_{days}d")
        if spent is None:
            continue
        less = to_the_cent(spent * (after / before) if days < 90 and before else spent - (before - after))
        found[f"expense_amount_{days}d"] = less
        if row.get(f"expense_to_income_{days}d") is not None and earned is not None:
            found[f"expense_to_income_{days}d"] = NUMBERS.ratio(less, earned)
    return found
