"""Actionability of an application for a loan: the features that an applicant can change, their direction and bounds, and the effects.

Every other feature is immutable: the person, the time as a customer, the place, and history that cannot be undone, such as income,
penalties and earlier delays. `finrisk_assets.scoring.recourse` searches among the changes.
"""

from collections.abc import Mapping

from finrisk_assets.features.loan_terms import MAX_TERM_MONTHS, with_formulas, with_terms
from finrisk_assets.scoring.ratios import ratio
from finrisk_assets.scoring.recourse import AllowedChange, Row

AMOUNT, TERM = "loan_amount", "term_months"
BALANCE, SPENDING, BILL = "month_end_balance_amount", "usual_expense_amount", "bill_amount_1m"
INCOME = "usual_income_amount"
BALANCE_RATIO, SHORTFALL = "month_end_balance_to_usual_income", "buffer_shortfall"
EXPENSE_SHARES = ("expense_to_income_1m", "expense_to_income_3m", "expense_to_income_6m")

CHANGEABLE: Mapping[str, str] = {
    AMOUNT: "Ask for less.",
    TERM: "Repay over another time.",
    BALANCE: "Have more on the account at the end of a month, then apply.",
    SPENDING: "Spend less in most months, then apply.",
    BILL: "Repay part of the card's last bill.",
}
"""Feature that can be changed -> what the applicant would do."""

STEP = 100.0
"""Currency: amounts are proposed in multiples of it."""

MIN_SPENDING_SHARE = 0.7
"""Share of the applicant's own spending below which no change goes."""

LARGEST_SHORTFALL = 2.0
"""Usual incomes; a deeper debt on the account counts as this much. More lets few very indebted people set the weight."""

MAX_SAVED_MONTHS = 1.0
"""Months of income: the most that a change pays into the account."""


def find_allowed_changes(row: Row) -> dict[str, AllowedChange]:
    """Return how the features of one application can be changed; a feature that is absent cannot change.

    Parameters
    ----------
    row
        One row of ``features_loan_default`` by column, None where a value is missing.
    """
    changes = {
        AMOUNT: AllowedChange(direction=-1, low=STEP, step=STEP),
        TERM: AllowedChange(direction=0, low=1, high=MAX_TERM_MONTHS, step=1),
    }
    balance, income, spent = row.get(BALANCE), row.get(INCOME), row.get(SPENDING)
    if balance is not None and income is not None and income > 0:
        changes[BALANCE] = AllowedChange(direction=1, high=balance + MAX_SAVED_MONTHS * income, step=STEP)
    if spent is not None and spent > 0:
        changes[SPENDING] = AllowedChange(direction=-1, low=MIN_SPENDING_SHARE * spent, step=STEP)
    if row.get(BILL) is not None:
        changes[BILL] = AllowedChange(direction=-1, low=0, step=STEP)
    return {name: allowed for name, allowed in changes.items() if row.get(name) is not None}


def apply_changes(row: Row, changes: Mapping[str, float]) -> Row:
    """Return the row with changes and with all that follows from the changes.

    Another amount or term gives another instalment, as in `loan_terms.with_terms`, and other features that read the instalment. Less usual
    spending lowers the spending of every complete month by as much, and balances stay, because money that is not spent need not stay in
    the account. A higher balance at the last month-end changes that balance alone, what it is in usual incomes, and what it
    lacks of one.
    """
    other = {name: value for name, value in changes.items() if name not in (AMOUNT, TERM)}
    changed = {**row, **other}
    if SPENDING in changes:
        changed |= _reduce_spending(row, changes[SPENDING])
    if BALANCE in changes:
        changed |= _raise_balance(row, changes[BALANCE])
    amount = changes.get(AMOUNT, row.get(AMOUNT))
    if amount is None or not (AMOUNT in changes or TERM in changes):
        return with_formulas({**changed, **({TERM: changes[TERM]} if TERM in changes else {})})
    return with_terms(changed, loan_amount=amount, term_months=int(changes[TERM]) if TERM in changes else None)


def _reduce_spending(row: Row, after: float) -> dict[str, float | None]:
    """Return the shares of the income that are spent when a usual month's spending falls to `after`."""
    income, less = row.get(INCOME), (row[SPENDING] or 0.0) - after
    changed: dict[str, float | None] = {}
    for name in EXPENSE_SHARES:
        spent = row.get(name)
        if spent is not None and income:
            changed[name] = max(spent - ratio(less, income), 0.0)
    return changed


def _raise_balance(row: Row, after: float) -> dict[str, float | None]:
    """Return the balance at the last month-end in usual incomes, and what it lacks of one."""
    income = row.get(INCOME)
    if row.get(BALANCE_RATIO) is None or not income:
        return {}
    saved = ratio(after, income)
    changed: dict[str, float | None] = {BALANCE_RATIO: saved, SHORTFALL: min(max(1 - saved, 0.0), LARGEST_SHORTFALL)}
    return {name: value for name, value in changed.items() if name in row}
