"""Every feature of an offer: its words, its expression over the joined rows, and the columns that it needs.

Three groups: the offered terms, the calendar months of the customer's ledger that ended *before* the offer, and the offers before. No
feature reads a protected column. `joins` and `ledger.complete_months` compute the columns that begin with an underscore.
"""

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import clip, instalment, ratio
from finrisk_assets.features.feature_definition import FeatureDefinition, column, define, with_themes
from finrisk_assets.ledger.complete_months import SPANS, USUAL_MONTHS
from schemas.features import themes

THEMES: Mapping[str, str] = themes(
    {
        "interest rate": ("annual_rate_pct",),
        "amount": ("log_loan_amount", "log_loan_to_income"),
        "time to repay": ("log_term_months",),
        "instalment": ("instalment_to_income",),
        "income": ("log_income",),
        "regularity of the income": ("income_irregularity_6m",),
        "spending": ("expense_to_income_3m", "expense_to_usual_income_1m"),
        "large expenses": ("largest_expense_to_income_3m",),
        "balance": ("balance_to_income", "mean_balance_to_income_3m", "lowest_balance_to_income_3m"),
        "payments in trouble": ("n_penalties_6m", "n_missed_6m", "negative_balance_share_3m"),
        "earlier offers": ("days_since_offer", "accepted_share_before"),
    }
)
"""Feature -> its subject. Features of one subject count as one reason together."""

_MAX_BALANCE_MONTHS = 3.0
"""Months of income: savings, or debts, beyond that add nothing to how pressing a loan is."""

LEDGER_NEEDS = (
    "offers.offered_at transactions.occurred_at transactions.amount transactions.direction transactions.category "
    "transactions.balance_amount"
)
INCOME_NEEDS = "monthly_income"
"""Stands for what the monthly income needs: the ledger, or the source's ``offers.stated_income_amount``."""


# Expressions ------------------------------------------------------------------------------------------------------------------


def _in_months_of_income(balance: ir.Value, rows: ir.Table) -> ir.Value:
    """Return a balance in months of income, within ±`_MAX_BALANCE_MONTHS`."""
    return clip(ratio(balance, rows._usual_income), -_MAX_BALANCE_MONTHS, _MAX_BALANCE_MONTHS)


def _log(value: ir.Value) -> ir.Value:
    """Return the natural logarithm; null of a value that is not above 0."""
    number = value.cast("float64")
    return (number > 0).ifelse(number, ibis.null("float64")).ln()


def _irregularity(rows: ir.Table) -> ir.Value:
    """Return standard deviation over mean of the monthly incomes, over as many of the last months as the history covers."""
    incomes = [rows[f"_income_month_{month}"] for month in range(1, USUAL_MONTHS + 1)]
    n = rows[f"_months_{USUAL_MONTHS}m"]
    mean = rows[f"_income_{USUAL_MONTHS}m"] / n
    squares = [(n > month).ifelse((income - mean) * (income - mean), 0.0) for month, income in enumerate(incomes)]
    return ratio((sum(squares[1:], squares[0]) / n).sqrt(), mean, 3.0)


# Definitions ------------------------------------------------------------------------------------------------------------------


def _terms() -> tuple[FeatureDefinition, ...]:
    return (
        define(
            "annual_rate_pct", "percent a year", "Nominal yearly interest rate.",
            "The interest rate is low", "The interest rate is high",
            column("annual_rate_pct"), -1, needs="offers.annual_rate_pct",
        ),
        define(
            "log_loan_amount", "log currency", "Logarithm of the amount offered.",
            "The amount is small", "The amount is large",
            lambda rows: _log(rows.loan_amount), needs="offers.loan_amount", scale="log",
        ),
        define(
            "log_term_months", "log months", "Logarithm of the months to repay.",
            "The time to repay is short", "The time to repay is long",
            lambda rows: _log(rows.term_months), needs="offers.term_months", scale="log",
        ),
        define(
            "log_loan_to_income", "", "Logarithm of the amount offered over the usual monthly income.",
            "The amount is small for the income", "The amount is large for the income",
            lambda rows: _log(rows.loan_amount) - _log(rows._monthly_income), needs=f"offers.loan_amount {INCOME_NEEDS}", scale="log",
        ),
        define(
            "instalment_to_income", "", "Instalment over the usual monthly income.",
            "The instalment takes little of the income", "The instalment takes much of the income",
            lambda rows: ratio(instalment(rows.loan_amount, rows.annual_rate_pct, rows.term_months), rows._monthly_income), -1,
            needs=f"offers.loan_amount offers.term_months offers.annual_rate_pct {INCOME_NEEDS}",
        ),
    )  # fmt: skip


def _state() -> tuple[FeatureDefinition, ...]:
    ago = f"in the last {SPANS[1]} complete months"
    return (
        define(
            "log_income", "log currency a month", "Logarithm of the usual monthly income.",
            "The income is low", "The income is high",
            lambda rows: _log(rows._monthly_income), needs=INCOME_NEEDS, scale="log",
        ),
        define(
            "income_irregularity_6m", "", "Standard deviation over mean of the monthly incomes of the last six complete months.",
            "The income is regular", "The income is irregular", _irregularity, needs=LEDGER_NEEDS,
        ),
        define(
            "expense_to_income_3m", "", f"Money that went out over money that came in, {ago}.",
            f"Little of the income was spent {ago}", f"Much of the income was spent {ago}",
            lambda rows: ratio(rows._expense_3m, rows._income_3m, 3.0), needs=LEDGER_NEEDS,
        ),
        define(
            "expense_to_usual_income_1m", "", "Money that went out in the last complete month over the usual income.",
            "Little was spent in the last complete month", "Much was spent in the last complete month",
            lambda rows: ratio(rows._expense_1m, rows._usual_income, 3.0), needs=LEDGER_NEEDS,
        ),
        define(
            "balance_to_income", "months", "Balance at the end of the last complete month, in usual incomes.",
            "The balance is low for the income", "The balance is high for the income",
            lambda rows: _in_months_of_income(rows._closing, rows), needs=LEDGER_NEEDS,
        ),
        define(
            "mean_balance_to_income_3m", "months", "Mean balance at the last three month-ends, in usual incomes.",
            "The mean balance at three month-ends was low", "The mean balance at three month-ends was high",
            lambda rows: _in_months_of_income(rows._mean_closing_3m, rows), needs=LEDGER_NEEDS,
        ),
        define(
            "lowest_balance_to_income_3m", "months", "Lowest balance at one of the last three month-ends, in usual incomes.",
            "The balance fell low at one of three month-ends", "The balance did not fall low at three month-ends",
            lambda rows: _in_months_of_income(rows._lowest_closing_3m, rows), needs=LEDGER_NEEDS,
        ),
        define(
            "n_penalties_6m", "penalties", "Penalties for a negative balance in the last six complete months.",
            "", "Penalties were charged", column("_n_penalties_6m"), needs=LEDGER_NEEDS, zero="No penalties were charged",
        ),
        define(
            "n_missed_6m", "payments", "Payments that were missed in the last six complete months.",
            "", "Payments were missed", column("_n_missed_6m"), needs=LEDGER_NEEDS, zero="No payments were missed",
        ),
        define(
            "negative_balance_share_3m", "", f"Share of the movements {ago} that left a negative balance.",
            "The balance was seldom negative", "The balance was negative",
            lambda rows: rows._n_negative_3m / rows._n_3m, needs=LEDGER_NEEDS, zero="The balance was never negative",
        ),
        define(
            "largest_expense_to_income_3m", "", f"Largest expense {ago} over the usual income.",
            "The largest expense was small", "The largest expense was large",
            lambda rows: ratio(rows._largest_3m, rows._usual_income), needs=LEDGER_NEEDS,
        ),
    )  # fmt: skip


def _earlier() -> tuple[FeatureDefinition, ...]:
    answers = "offers.offered_at offers.is_accepted offers.outcome_known_at"
    return (
        define(
            "days_since_offer", "days", "Days since the customer's last offer.",
            "The last offer was made recently", "The last offer was made long ago",
            column("_days_since_offer"), needs="offers.offered_at", missing="No offer was made before",
        ),
        define(
            "accepted_share_before", "", "Share of the customer's earlier offers that were accepted, as far as known.",
            "Few of the earlier offers were accepted", "Earlier offers were accepted",
            lambda rows: rows._n_accepted / rows._n_offers, needs=answers,
            zero="No earlier offer was accepted", missing="No earlier offer has been answered",
        ),
    )  # fmt: skip


CATALOGUE: tuple[FeatureDefinition, ...] = with_themes(THEMES, _terms(), _state(), _earlier())
"""Every feature that is defined here, in the order of the model's inputs."""
