"""The terms of a loan and the features that follow from them: one formula each, for a whole table, one request, and a grid of terms.

A formula reads other features of the same row, in plain arithmetic that works on Ibis columns, numbers and arrays alike. So a row of the
feature table holds all that a decision on other terms needs (`with_terms`, `rows_at_terms`). Loan default and loan offers share them. The
service imports this module: no Ibis, no pandas.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.scoring.annuity import instalment_to_cent, instalments_to_cent, round_to_cent
from finrisk_assets.scoring.ratios import LARGEST_RATIO, ratio, ratios

MAX_TERM_MONTHS = 600
MAX_RATE_PCT = 100.0

INCOMES: Sequence[str] = ("usual_income_amount", "stated_income_amount", "declared_income_amount")
"""Features that tell the usual income of a month, in currency; the first that is known of a person counts."""

CARD_MONTHS = range(1, 7)
"""Months of a card's record before the decision; 1 is the newest."""


class TermsError(ValueError):
    """Terms that no loan can have; `field` names the wrong term."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field, self.reason = field, reason


class Arithmetic(Protocol):
    """The operations of a formula beside ``+ - * /``: on Ibis columns in `features`, on numbers here."""

    def ratio(self, part: Any, whole: Any, largest: float = LARGEST_RATIO) -> Any:
        """Return the bounded ratio, `largest` or 0 where the whole is not above 0."""

    def greatest(self, values: Iterable[Any]) -> Any:
        """Return the greatest of the values that are not missing."""


@dataclass(frozen=True)
class Formula:
    """A feature as a function of other features.

    Attributes
    ----------
    reads
        Names of the other features.
    value
        Function of an `Arithmetic` and the values of `reads`, in that order.
    """

    reads: tuple[str, ...]
    value: Callable[..., Any]


def _formulas() -> dict[str, Formula]:
    instalment, limit, income = "instalment_amount", "loan_amount", "usual_income_amount"
    bills, paid = (tuple(f"{what}_{month}m" for month in CARD_MONTHS) for what in ("bill_amount", "paid_amount"))
    n = len(CARD_MONTHS)
    return {
        "instalment_to_declared_income": Formula((instalment, "declared_income_amount"), lambda of, *row: of.ratio(*row)),
        "instalment_to_stated_income": Formula((instalment, "stated_income_amount"), lambda of, *row: of.ratio(*row)),
        "instalment_to_usual_income": Formula((instalment, income), lambda of, *row: of.ratio(*row)),
        "commitments_to_usual_income": Formula(
            (instalment, income, "bills_to_usual_income_3m"), lambda of, owed, earned, bills: of.ratio(owed, earned) + bills
        ),
        "surplus_after_instalment": Formula(
            (instalment, income, "usual_expense_amount"), lambda of, owed, earned, spent: of.ratio(earned - spent - owed, earned)
        ),
        "loan_to_usual_income": Formula((limit, income), lambda of, amount, earned: of.ratio(amount, earned, 100.0)),
        "mean_balance_to_instalment_6m": Formula(("mean_balance_6m", instalment), lambda of, balance, owed: of.ratio(balance, owed, 100.0)),
        **{f"utilisation_{month}m": Formula((f"bill_amount_{month}m", limit), lambda of, *row: of.ratio(*row)) for month in CARD_MONTHS},
        "mean_utilisation_6m": Formula((limit, *bills), lambda of, most, *owed: of.ratio(sum(owed) / n, most)),
        "max_utilisation_6m": Formula((limit, *bills), lambda of, most, *owed: of.ratio(of.greatest(owed), most)),
        "utilisation_change_6m": Formula((limit, bills[0], bills[5]), lambda of, most, new, old: of.ratio(new - old, most)),
        "utilisation_change_3m": Formula((limit, bills[0], bills[2]), lambda of, most, new, old: of.ratio(new - old, most)),
        "headroom_amount": Formula((limit, bills[0]), lambda of, most, owed: most - owed),
        "paid_to_limit_6m": Formula((limit, *paid), lambda of, most, *repaid: of.ratio(sum(repaid) / n, most)),
        "spent_to_limit_1m": Formula(
            (limit, bills[0], bills[1], paid[0]), lambda of, most, new, old, repaid: of.ratio(new - old + repaid, most)
        ),
    }


FORMULAS: Mapping[str, Formula] = _formulas()
"""Feature -> its formula, for every feature that a loan's terms change."""


def with_terms(
    features: Mapping[str, float | None],
    *,
    loan_amount: float,
    term_months: int | None = None,
    annual_rate_pct: float | None = None,
) -> dict[str, float | None]:
    """Return a row of the feature table with other terms of the loan.

    Parameters
    ----------
    features
        One row of ``features_loan_default`` by column, None where a value is missing; columns that are no features pass through.
    loan_amount
        In the ledger's currency.
    term_months, annual_rate_pct
        None keeps the row's own, which in a month-end application are the typical ones.

    Returns
    -------
    dict
        The same columns. Only the terms and the features of `FORMULAS` differ.

    Raises
    ------
    TermsError
        For an amount not above 0, a term not within 1..600 months, a rate not within 0..100 per cent a year, or a term where the
        source's loans have none.
    KeyError
        Where the row lacks a feature that a formula reads.
    """
    if not 0 < loan_amount < math.inf:
        raise TermsError("loan_amount", "must be above 0")
    if term_months is not None:
        if not 1 <= term_months <= MAX_TERM_MONTHS:
            raise TermsError("term_months", f"must lie between 1 and {MAX_TERM_MONTHS}")
        if "term_months" not in features:
            raise TermsError("term_months", "is not known of this source's loans: leave it out")
    if annual_rate_pct is not None:
        if not 0 <= annual_rate_pct <= MAX_RATE_PCT:
            raise TermsError("annual_rate_pct", f"must lie between 0 and {MAX_RATE_PCT:.0f}")
        if "instalment_amount" not in features and "annual_rate_pct" not in features:
            raise TermsError("annual_rate_pct", "is not known of this source's loans: leave it out")
    row = dict(features) | {"loan_amount": float(loan_amount)}
    if term_months is not None:
        row["term_months"] = float(term_months)
    if annual_rate_pct is not None and "annual_rate_pct" in row:
        row["annual_rate_pct"] = float(annual_rate_pct)
    if "instalment_amount" in row:
        rate = row.get("annual_rate_pct") if annual_rate_pct is None else annual_rate_pct
        row["instalment_amount"] = _instalment(row, rate, features)
    return with_formulas(row)


def with_formulas(features: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return a row with its features of `FORMULAS` computed again.

    Raises
    ------
    KeyError
        Where the row lacks a feature that a formula reads.
    """
    row = dict(features)
    numbers = {name: math.nan if value is None else value for name, value in row.items() if not isinstance(value, str)}
    for name, formula in FORMULAS.items():
        if name in row:
            row[name] = _finite(formula.value(NUMBERS, *(numbers[read] for read in formula.reads)))
    return row


def find_usual_income(columns: Mapping[str, NDArray[np.floating]]) -> NDArray[np.float64] | None:
    """Return the usual monthly incomes of people, in currency, NaN where not known; None where no feature tells an income.

    Parameters
    ----------
    columns
        Feature of loan default -> values, shape (n,).
    """
    known = [np.asarray(columns[name], np.float64) for name in INCOMES if name in columns]
    return reduce(lambda first, other: np.where(np.isnan(first), other, first), known) if known else None


def rows_at_terms(
    names: Sequence[str],
    columns: Mapping[str, NDArray[np.floating]],
    amount: NDArray[np.float64],
    annual_rate_pct: NDArray[np.float64],
    term_months: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return the loan model's rows of customers at every point of a grid of terms, as `with_terms` gives each.

    Parameters
    ----------
    names
        The model's features, in order.
    columns
        Feature -> values of the customers, shape (n,), NaN where missing: the model's features, and those that their formulas read.
    amount, annual_rate_pct, term_months : arrays, shapes (n, g), (g,) and (g,)
        The terms in currency, per cent a year and months.

    Returns
    -------
    ndarray of float32, shape (n, g, d)

    Raises
    ------
    KeyError
        For a feature that is not among the columns.
    """
    values: dict[str, NDArray[np.float64]] = {name: np.asarray(column, np.float64)[:, None] for name, column in columns.items()}
    terms = {"loan_amount": amount, "annual_rate_pct": annual_rate_pct[None, :], "term_months": term_months[None, :]}
    # Formulas read the exact terms, as those of one request do, and not what 32 bits keep of them.
    values |= terms | {"instalment_amount": instalments_to_cent(amount, annual_rate_pct, term_months)}
    rows = np.empty((*amount.shape, len(names)), np.float32)
    for at, name in enumerate(names):
        formula = FORMULAS.get(name)
        value = values[name] if formula is None else formula.value(ARRAYS, *(values[read] for read in formula.reads))
        rows[:, :, at] = np.where(np.isfinite(value), value, np.nan)
    return rows


def _instalment(row: Mapping[str, float | None], rate: float | None, before: Mapping[str, float | None]) -> float | None:
    """Return the instalment for the row's amount and term; without a rate, all payments stay the same multiple of the amount."""
    amount, term = row["loan_amount"], row.get("term_months")
    if amount is None or term is None:
        return None
    if rate is not None:
        return instalment_to_cent(amount, rate, term)
    old_instalment, old_term, old_amount = before["instalment_amount"], before["term_months"], before["loan_amount"]
    if old_instalment is None or old_term is None or not old_amount:
        return None
    return round_to_cent(amount * (old_instalment * old_term / old_amount) / term)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Numbers:
    """The arithmetic of a single row; a missing value is NaN, which every operation keeps."""

    def ratio(self, part: float, whole: float, largest: float = LARGEST_RATIO) -> float:
        return ratio(part, whole, largest)

    def greatest(self, values: Iterable[float]) -> float:
        return max((value for value in values if not math.isnan(value)), default=math.nan)


class _Arrays:
    """The arithmetic of many rows at once; a missing value is NaN."""

    def ratio(self, part: Any, whole: Any, largest: float = LARGEST_RATIO) -> Any:
        return ratios(part, whole, largest)

    def greatest(self, values: Iterable[Any]) -> Any:
        present = list(values)
        return np.fmax.reduce(np.broadcast_arrays(*present))


NUMBERS = _Numbers()
"""`Arithmetic` of single numbers."""
ARRAYS = _Arrays()
"""`Arithmetic` of arrays."""
