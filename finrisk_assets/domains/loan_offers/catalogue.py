"""Every feature of an offer: its words, its expression over the joined rows, and the columns that it needs.

Three groups: the offered terms, the customer's ledger over the 90 days *strictly before* the offer, and the offers before. No feature
reads a protected column. `joins` computes the columns that begin with an underscore.
"""

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.loan_offers.joins import WINDOW_DAYS
from finrisk_assets.features.arithmetic import clip, instalment, ratio
from finrisk_assets.features.feature_definition import FeatureDefinition, column, define, with_themes
from schemas.features import themes

THEMES: Mapping[str, str] = themes(
    {
        "interest rate": ("annual_rate_pct",),
        "amount": ("log_loan_amount", "log_loan_to_income"),
        "time to repay": ("log_term_months",),
        "instalment": ("instalment_to_income",),
        "income": ("log_income",),
        "regularity of the income": ("income_irregularity_90d",),
        "spending": ("expense_to_income_90d", "expense_to_income_30d"),
        "large expenses": ("largest_expense_to_income_90d",),
        "balance": ("balance_to_income", "mean_balance_to_income_90d", "min_balance_to_income_90d"),
        "payments in trouble": ("n_penalties_180d", "n_missed_180d", "negative_balance_share_90d"),
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
    return clip(ratio(balance, rows._income), -_MAX_BALANCE_MONTHS, _MAX_BALANCE_MONTHS)


def _log(value: ir.Value) -> ir.Value:
    """Return the natural logarithm; null of a value that is not above 0."""
    number = value.cast("float64")
    return (number > 0).ifelse(number, ibis.null("float64")).ln()


def _irregularity(rows: ir.Table) -> ir.Value:
    """Return standard deviation over mean of the last three months' incomes."""
    income = [rows[f"_income_month_{k}"] for k in range(3)]
    mean = (income[0] + income[1] + income[2]) / 3
    variance = sum(((value - mean) * (value - mean) for value in income[1:]), (income[0] - mean) * (income[0] - mean)) / 3
    return ratio(variance.sqrt(), mean, 3.0)


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
            "log_loan_to_income", "", "Logarithm of the amount offered over the monthly income.",
            "The amount is small for the income", "The amount is large for the income",
            lambda rows: _log(rows.loan_amount) - _log(rows._monthly_income), needs=f"offers.loan_amount {INCOME_NEEDS}", scale="log",
        ),
        define(
            "instalment_to_income", "", "Instalment over the monthly income.",
            "The instalment takes little of the income", "The instalment takes much of the income",
            lambda rows: ratio(instalment(rows.loan_amount, rows.annual_rate_pct, rows.term_months), rows._monthly_income), -1,
            needs=f"offers.loan_amount offers.term_months offers.annual_rate_pct {INCOME_NEEDS}",
        ),
    )  # fmt: skip


def _state() -> tuple[FeatureDefinition, ...]:
    ago = f"in the last {WINDOW_DAYS} days"
    return (
        define(
            "log_income", "log currency a month", "Logarithm of the monthly income.",
            "The income is low", "The income is high",
            lambda rows: _log(rows._monthly_income), needs=INCOME_NEEDS, scale="log",
        ),
        define(
            "income_irregularity_90d", "", "Standard deviation over mean of the last three months' incomes.",
            "The income is regular", "The income is irregular", _irregularity, needs=LEDGER_NEEDS,
        ),
        define(
            "expense_to_income_90d", "", f"Money that went out over money that came in, {ago}.",
            f"Little of the income was spent {ago}", f"Much of the income was spent {ago}",
            lambda rows: ratio(rows._expense_90d, rows._income_90d, 3.0), needs=LEDGER_NEEDS,
        ),
        define(
            "expense_to_income_30d", "", "Money that went out in the last 30 days over the monthly income.",
            "Little was spent in the last 30 days", "Much was spent in the last 30 days",
            lambda rows: ratio(rows._expense_30d, rows._income, 3.0), needs=LEDGER_NEEDS,
        ),
        define(
            "balance_to_income", "months", "Balance just before the offer, in months of income.",
            "The balance is low for the income", "The balance is high for the income",
            lambda rows: _in_months_of_income(rows._last_balance, rows), needs=LEDGER_NEEDS,
        ),
        define(
            "mean_balance_to_income_90d", "months", f"Mean balance after a movement {ago}, in months of income.",
            f"The mean balance was low {ago}", f"The mean balance was high {ago}",
            lambda rows: _in_months_of_income(rows._mean_balance_90d, rows), needs=LEDGER_NEEDS,
        ),
        define(
            "min_balance_to_income_90d", "months", f"Lowest balance after a movement {ago}, in months of income.",
            f"The balance fell low {ago}", f"The balance did not fall low {ago}",
            lambda rows: _in_months_of_income(rows._min_balance_90d, rows), needs=LEDGER_NEEDS,
        ),
        define(
            "n_penalties_180d", "penalties", "Penalties for a negative balance in the last 180 days.",
            "", "Penalties were charged", column("_n_penalties"), needs=LEDGER_NEEDS, zero="No penalties were charged",
        ),
        define(
            "n_missed_180d", "payments", "Payments that were missed in the last 180 days.",
            "", "Payments were missed", column("_n_missed"), needs=LEDGER_NEEDS, zero="No payments were missed",
        ),
        define(
            "negative_balance_share_90d", "", f"Share of the movements {ago} that left a negative balance.",
            "The balance was seldom negative", "The balance was negative",
            lambda rows: rows._n_negative_90d / rows._n_90d, needs=LEDGER_NEEDS, zero="The balance was never negative",
        ),
        define(
            "largest_expense_to_income_90d", "", f"Largest expense {ago} over the monthly income.",
            "No large expense was made", "A large expense was made",
            lambda rows: ratio(rows._largest_expense_90d, rows._income), needs=LEDGER_NEEDS,
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
