"""From a probability of trouble to a level, and whether eight behaviour fields can be true together. Pure, without imports of numerics.

The service decides with this module and refuses with it what contradicts itself.
"""

import math
from collections.abc import Callable, Iterable, Mapping

LOW, MEDIUM, HIGH = "LOW", "MEDIUM", "HIGH"
DECISIONS = (LOW, MEDIUM, HIGH)

WINDOW_DAYS = 90
"""The eight fields look back so far from the month-end."""

LOW_BALANCE_SHARE = 0.1
"""A balance below this share of a mean month's income is low."""

LARGEST_RATIO = 10.0
"""Where the expense/income ratio ends; also its value where something was spent without any income."""

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
TOLERANCE = 0.02
"""How far a ratio or a mean may be from what follows from the amounts, as a share of it: clients round."""

_CENT = 0.01
_RATIO_STEP = 0.005


def thresholds(medium_from: float, high_from: float) -> dict[str, float]:
    """Return the probabilities from which spending is of MEDIUM and of HIGH risk, checked.

    Raises
    ------
    ValueError
        Unless ``0 < medium_from < high_from < 1``.
    """
    if not 0 < medium_from < high_from < 1:
        raise ValueError(
            f"MEDIUM risk from {medium_from} and HIGH from {high_from}: they must lie between 0 and 1, MEDIUM below HIGH; "
            "set FINRISK_MEDIUM_RISK_FROM and FINRISK_HIGH_RISK_FROM"
        )
    return {"medium_from": medium_from, "high_from": high_from}


def decide(probability: float, thresholds: Mapping[str, float]) -> str:
    """Return the level of a probability of trouble: ``LOW``, ``MEDIUM`` or ``HIGH``.

    Raises
    ------
    ValueError
        For something that is no probability.
    """
    if not 0 <= probability <= 1:  # NaN too
        raise ValueError(f"{probability} is no probability: it has no level")
    if probability >= thresholds["high_from"]:
        return HIGH
    return MEDIUM if probability >= thresholds["medium_from"] else LOW


def decisions(probabilities: Iterable[float], thresholds: Mapping[str, float]) -> list[str]:
    """Return the level of each probability."""
    return [decide(float(probability), thresholds) for probability in probabilities]


def ratio(income: float, expense: float) -> float:
    """Return the expense/income ratio as the model knows it: at most 10; without income 10 where anything was spent, else 0."""
    if income > 0:
        return min(expense / income, LARGEST_RATIO)
    return LARGEST_RATIO if expense > 0 else 0.0


def consistent(fields: Mapping[str, float]) -> list[tuple[str, str]]:
    """Find what is wrong with the eight fields, each by itself and taken together.

    Parameters
    ----------
    fields
        A number for each of `EIGHT`.

    Returns
    -------
    list of (str, str)
        The field at fault and the reason, in the order of `EIGHT`; empty if they can be true together. A field is named once, by the
        first fault found, and one that is at fault by itself is not compared with others.
    """
    faults: dict[str, str] = {}
    for name in EIGHT:
        fault = _alone(name, fields.get(name, math.nan))
        if fault:
            faults[name] = fault
    for name, others, broken, reason in _CONTRADICTIONS:
        if not faults.keys() & {name, *others} and broken(fields):
            faults[name] = reason
    return [(name, faults[name]) for name in EIGHT if name in faults]


def _alone(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "must be a number"
    if value < 0:
        return "must not be negative"
    if name in COUNTS and value != int(value):
        return "must be a whole number"
    return ""


def _ratio_is_off(fields: Mapping[str, float]) -> bool:
    income, expense, stated = fields["Total_Income"], fields["Total_Expense"], fields["Expense_Income_Ratio"]
    follows = {ratio(income, expense)} | ({expense / income} if income > 0 else set())
    return all(abs(stated - one) > max(TOLERANCE * one, _RATIO_STEP) for one in follows)


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
        lambda f: (f["Avg_Expense"] * (1 + TOLERANCE) + _CENT) * f["Num_Transactions"] < f["Total_Expense"],
        "is too small: Avg_Expense times Num_Transactions must reach Total_Expense, as no more than all movements are expenses",
    ),
    (
        "Low_Balance_Freq", ("Num_Transactions",),
        lambda f: f["Low_Balance_Freq"] > f["Num_Transactions"],
        "must not exceed Num_Transactions: it counts some of them",
    ),
    (
        "Expense_Income_Ratio", ("Total_Income", "Total_Expense"),
        _ratio_is_off,
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
"""The field at fault, what it is compared with, whether the two contradict each other, and what to say then."""
