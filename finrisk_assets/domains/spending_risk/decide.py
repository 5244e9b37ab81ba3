"""The level of a probability of trouble, and the check of a client's eight behaviour fields.

The service decides with this module, and refuses fields that contradict each other: no Ibis, no pandas.
"""

import math
from collections.abc import Callable, Mapping

from finrisk_assets.scoring.decision_rule import DecisionRule
from finrisk_assets.scoring.ratios import ratio

LOW, MEDIUM, HIGH = "LOW", "MEDIUM", "HIGH"
DECISIONS = (LOW, MEDIUM, HIGH)

DECISION_RULE = DecisionRule(lowest=LOW, steps=(("high_from", HIGH), ("medium_from", MEDIUM)))
"""The level of a probability of trouble, by the policy's thresholds."""

WINDOW_DAYS = 90
"""Days before the month-end that the eight fields look back."""

LOW_BALANCE_SHARE = 0.1
"""Share of a mean month's income below which a balance is low."""

EIGHT = (
    "Total_Income",
    "Total_Expense",
    "Num_Transactions",
    "Avg_Expense",
    "Max_Expense",
    "Low_Balance_Freq",
    "Expense_Income_Ratio",
    "Top_Category_Spend",
)
"""The behaviour fields that a client may send, in the order of the model."""

COUNTS = ("Num_Transactions", "Low_Balance_Freq")
ROUNDING_TOLERANCE = 0.02
"""Share by which a ratio or a mean may differ from the value that follows from the amounts: clients round."""

_CENT = 0.01
_RATIO_STEP = 0.005


def raise_doubtful(level: str, is_doubtful: bool) -> str:
    """Return the level of a person of whom too little may be known: it is not LOW then."""
    return MEDIUM if is_doubtful and level == LOW else level


def find_field_faults(fields: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the faults of the eight fields, each by itself and taken together.

    Parameters
    ----------
    fields
        A number for each of `EIGHT`.

    Returns
    -------
    list of (str, str)
        The field at fault and the reason, in the order of `EIGHT`; empty if the fields can be true together. A field is named once,
        by its first fault; a field that is at fault by itself is not compared with others.
    """
    faults: dict[str, str] = {}
    for name in EIGHT:
        fault = _find_own_fault(name, fields.get(name, math.nan))
        if fault:
            faults[name] = fault
    for name, others, contradicts, reason in _CONTRADICTIONS:
        if not faults.keys() & {name, *others} and contradicts(fields):
            faults[name] = reason
    return [(name, faults[name]) for name in EIGHT if name in faults]


def _find_own_fault(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "must be a number"
    if value < 0:
        return "must not be negative"
    if name in COUNTS and value != int(value):
        return "must be a whole number"
    return ""


def _is_ratio_off(fields: Mapping[str, float]) -> bool:
    income, expense, stated = fields["Total_Income"], fields["Total_Expense"], fields["Expense_Income_Ratio"]
    # With and without the bound: a client may send either.
    expected = {ratio(expense, income)} | ({expense / income} if income > 0 else set())
    return all(abs(stated - value) > max(ROUNDING_TOLERANCE * value, _RATIO_STEP) for value in expected)


Fields = Mapping[str, float]

_CONTRADICTIONS: tuple[tuple[str, tuple[str, ...], Callable[[Fields], bool], str], ...] = (
    (
        "Total_Income", ("Num_Transactions",),
        lambda f: f["Num_Transactions"] == 0 and f["Total_Income"] > 0,
        "must be 0 where Num_Transactions is 0",
    ),
    (
        "Total_Expense", ("Num_Transactions",),
        lambda f: f["Num_Transactions"] == 0 and f["Total_Expense"] > 0,
        "must be 0 where Num_Transactions is 0",
    ),
    (
        "Max_Expense", ("Total_Expense",),
        lambda f: f["Max_Expense"] > f["Total_Expense"] + _CENT,
        "must not exceed Total_Expense, of which it is a part",
    ),
    (
        "Avg_Expense", ("Max_Expense",),
        lambda f: f["Avg_Expense"] > f["Max_Expense"] + _CENT,
        "must not exceed Max_Expense: no mean exceeds the largest",
    ),
    (
        "Avg_Expense", ("Total_Expense", "Num_Transactions"),
        lambda f: (f["Avg_Expense"] * (1 + ROUNDING_TOLERANCE) + _CENT) * f["Num_Transactions"] < f["Total_Expense"],
        "is too small: Avg_Expense times Num_Transactions must reach Total_Expense, as no more than all movements are expenses",
    ),
    (
        "Low_Balance_Freq", ("Num_Transactions",),
        lambda f: f["Low_Balance_Freq"] > f["Num_Transactions"],
        "must not exceed Num_Transactions: it counts some of them",
    ),
    (
        "Expense_Income_Ratio", ("Total_Income", "Total_Expense"),
        _is_ratio_off,
        "must be Total_Expense / Total_Income (without income 10 where anything was spent, else 0), to within 2 percent",
    ),
    (
        "Top_Category_Spend", ("Total_Expense",),
        lambda f: f["Top_Category_Spend"] > f["Total_Expense"] + _CENT,
        "must not exceed Total_Expense, of which it is a part",
    ),
    (
        "Top_Category_Spend", ("Max_Expense",),
        lambda f: f["Top_Category_Spend"] < f["Max_Expense"] - _CENT,
        "must not be below Max_Expense, which belongs to some category",
    ),
)  # fmt: skip
"""Field at fault, the fields that it is compared with, whether they contradict each other, and the reason."""
