"""Spending of a statement: categories by the words of descriptions, sums by month, and the eight behaviour fields of the last 90 days."""

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

from bento.console.bank_statements.movement import StatementMovement

BEHAVIOUR_DAYS = 90
"""Days of the eight behaviour fields, as the model of eight fields learned them."""
NO_INCOME_RATIO = 10.0
"""Ratio of expense to income where there is no income, by the definition of the field."""
OTHER, INCOME = "other", "income"
_WORDS = {
    "housing": "rent|miete|loyer|alquiler|affitto|huur|mortgage|hypothek|landlord|hausverwaltung|strata",
    "utilities": (
        "electric|strom|energie|energy|gas|water|wasser|stadtwerke|edf|internet|telecom|telekom|vodafone|o2|mobile|phone|orange|council tax"
    ),
    "groceries": (
        "supermarket|grocer|tesco|sainsbury|aldi|lidl|rewe|edeka|carrefour|mercadona|billa|spar|hofer|walmart|"
        "kroger|coop|migros|albert heijn|penny|netto|waitrose|asda|market"
    ),
    "eating out": (
        "restaurant|cafe|coffee|starbucks|mcdonald|pizza|bar |bistro|burger|deliveroo|uber eats|takeaway|bakery|backerei|lieferando"
    ),
    "transport": (
        "uber|taxi|bahn|railway|train|metro|bus |fuel|petrol|shell|bp |esso|aral|omv|parking|airline|ryanair|lufthansa|tfl|sncf|tankstelle"
    ),
    "shopping": "amazon|ebay|zalando|ikea|h&m|zara|store|shop|media markt|decathlon|apple.com|electronics",
    "health": "pharmacy|apotheke|pharmacie|doctor|arzt|dentist|hospital|clinic|fitness|gym",
    "leisure": "netflix|spotify|cinema|kino|theatre|disney|steam|hotel|booking.com|airbnb|museum|ticket",
    "insurance": "insurance|versicherung|assurance|allianz|axa|seguro",
    "loan payments": "loan|kredit|darlehen|instalment|rate |leasing|klarna|credit card",
    "cash": "atm|cash|bargeld|geldautomat|retrait|cajero|bancomat|geldautomaat|withdrawal",
    "fees": "fee|gebuhr|gebuehr|entgelt|charge|overdraft|interest|zinsen|kontofuhrung|agios",
}
"""Category -> beginnings of words in descriptions, in the languages of common statements; the first category that fits counts."""
_PATTERNS = tuple((category, re.compile(rf"\b(?:{words})", re.IGNORECASE)) for category, words in _WORDS.items())


def categorise(movement: StatementMovement) -> str:
    """Return the category of a movement: income where money came in, else by the words of its description."""
    if movement.amount > 0:
        return INCOME
    return next((category for category, pattern in _PATTERNS if pattern.search(movement.description)), OTHER)


def sum_by_month(movements: Sequence[StatementMovement]) -> list[dict[str, object]]:
    """Return `month`, `category` and signed `amount` for each month and category, by month."""
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for movement in movements:
        sums[f"{movement.booked_on:%Y-%m}", categorise(movement)] += movement.amount
    return [{"month": month, "category": category, "amount": round(amount, 2)} for (month, category), amount in sorted(sums.items())]


def measure_behaviour(movements: Sequence[StatementMovement]) -> tuple[dict[str, float], list[str]]:
    """Return the eight behaviour fields of the last 90 days of a statement, and in sentences what they could not be read from.

    Parameters
    ----------
    movements
        At least one, the oldest first.
    """
    since = movements[-1].booked_on - timedelta(days=BEHAVIOUR_DAYS)
    recent = [movement for movement in movements if movement.booked_on > since]
    income = sum(movement.amount for movement in recent if movement.amount > 0)
    debits = [-movement.amount for movement in recent if movement.amount < 0]
    expense = sum(debits)
    by_category: dict[str, float] = defaultdict(float)
    for movement in recent:
        if movement.amount < 0:
            by_category[categorise(movement)] -= movement.amount
    low = income / 3 / 10  # a tenth of a mean month's income
    balances = [movement.balance for movement in recent if movement.balance is not None]
    notes = [] if balances else ["The statement has no balances: movements that left a low balance are counted as none."]
    days = (movements[-1].booked_on - movements[0].booked_on).days
    if days < BEHAVIOUR_DAYS - 5:
        notes.append(
            f"The statement covers {days + 1} days of the {BEHAVIOUR_DAYS} that the model looks at: sums are smaller than they are."
        )
    return {
        "Total_Income": round(income, 2),
        "Total_Expense": round(expense, 2),
        "Num_Transactions": float(len(recent)),
        "Avg_Expense": round(expense / len(debits), 2) if debits else 0.0,
        "Max_Expense": round(max(debits, default=0.0), 2),
        "Low_Balance_Freq": float(sum(balance < low for balance in balances)),
        "Expense_Income_Ratio": round(expense / income, 6) if income else (NO_INCOME_RATIO if expense else 0.0),
        "Top_Category_Spend": round(max(by_category.values(), default=0.0), 2),
    }, notes
