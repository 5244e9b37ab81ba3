"""Every feature of a person at a month-end: its words, its expression over the joined rows, and the columns that it needs.

Two groups: the eight behaviour fields over the trailing 90 days, [as_of - 90 days, as_of), which a client may also send by itself; and
further features over the calendar months that ended with the month-end. No feature reads a protected column. `joins` computes the columns
that begin with an underscore; money is in whole ten-thousandths of the currency.
"""

import math
from collections.abc import Callable, Mapping

import ibis.expr.types as ir

from finrisk_assets.domains.spending_risk.decide import EIGHT
from finrisk_assets.domains.spending_risk.joins import MONTHS
from finrisk_assets.features.arithmetic import ratio, to_currency
from finrisk_assets.features.feature_definition import Expression, FeatureDefinition, define, with_themes
from finrisk_assets.scoring.ratios import LARGEST_RATIO
from schemas.features import Feature, themes

SEASON = ("month_sin", "month_cos")

THEMES: Mapping[str, str] = themes(
    {
        "income": ("Total_Income",),
        "course of the income": ("income_trend", *(f"earned_to_usual_income_{n}m" for n in MONTHS)),
        "regularity of the income": ("income_irregularity_6m", "regular_pay_share_6m"),
        "benefits": tuple(f"benefits_share_{n}m" for n in MONTHS),
        "spending": (
            *("Total_Expense", "Expense_Income_Ratio"),
            *(f"{what}_{n}m" for what in ("expense_to_income", "habitual_expense_to_usual_income") for n in MONTHS),
            *(f"habitual_expense_to_earned_{n}m" for n in (3, MONTHS[-1])),
        ),
        "course of the spending": (*(f"expense_to_mean_income_{lag}m_ago" for lag in (0, 1, 2)), "expense_trend"),
        "usual expense": ("Avg_Expense",),
        "large expenses": ("Max_Expense", "largest_expense_to_mean_income_3m"),
        "largest category": ("Top_Category_Spend",),
        "fixed costs": ("bills_to_usual_income_3m", "bills_to_income_3m", "bills_share_3m"),
        "number of movements": ("Num_Transactions",),
        "low balance": (
            "Low_Balance_Freq",
            *(f"{what}_{n}m" for what in ("n_negative_balance", "lowest_balance_to_income") for n in MONTHS),
        ),
        "savings": tuple(f"closing_balance_to_{what}" for what in ("income_3m", "expense_3m", "usual_income")),
        "course of the balance": ("balance_change_to_income_3m",),
        "penalties": tuple(f"n_penalties_{n}m" for n in MONTHS),
        "missed payments": tuple(f"n_missed_payments_{n}m" for n in MONTHS),
        "season": SEASON,
    }
)
"""Feature -> its subject. Features of one subject count as one reason together."""

_MONTH_IN_WORDS = ("the last month", "the month before the last", "the third month from the last")
_DECLARED_NEEDS = "customers.income_amount customers.joined_at"


# Expressions ------------------------------------------------------------------------------------------------------------------


def _ratio(part: ir.Value, whole: ir.Value, largest: float = LARGEST_RATIO) -> ir.Value:
    """Return the bounded ratio; where the whole is not above 0, the largest with the sign of the part: a debt is not a saving."""
    return ratio(part, whole, largest, no_whole="signed_largest")


def _irregularity(rows: ir.Table) -> ir.Value:
    """Return standard deviation over mean of the monthly incomes, over as many of the last months as the history covers."""
    n, total, squares = _covered(rows, MONTHS[-1]), rows._whole_income, rows._whole_income_squared
    return _ratio((n * squares - total * total).sqrt(), total, 3.0)


def _ratio_of(part: str, whole: str) -> Expression:
    return lambda rows: _ratio(rows[part], rows[whole])


def _ratio_of_mean(part: str, whole: str, n: int) -> Expression:
    """Return a part over the mean month of a sum of `n` months."""
    return lambda rows: _ratio(rows[part] * _covered(rows, n), rows[whole])


def _on_circle(coordinate: Callable[[ir.NumericValue], ir.Value]) -> Expression:
    return lambda rows: coordinate(rows.as_of.month().cast("float64") * (2 * math.pi / 12))


def _covered(rows: ir.Table, n: int) -> ir.IntegerValue:
    """Return how many of the last `n` months the history covers: the sums of `n` months are of so many."""
    return (rows._history_months < n).ifelse(rows._history_months, n)


# Definitions ------------------------------------------------------------------------------------------------------------------


def _eight() -> tuple[FeatureDefinition, ...]:
    """Return the behaviour fields, by the names that a client sends."""
    return (
        define(
            "Total_Income", "currency", "All credits of the last 90 days but an opening balance; refunds count.",
            "The income of the last 90 days was low", "The income of the last 90 days was high",
            lambda rows: to_currency(rows._inflow),
        ),
        define(
            "Total_Expense", "currency", "All debits of the last 90 days.",
            "The spending of the last 90 days was low", "The spending of the last 90 days was high",
            lambda rows: to_currency(rows._expense),
        ),
        define(
            "Num_Transactions", "movements", "All movements of the last 90 days, credits and debits.",
            "There were few movements in the last 90 days", "There were many movements in the last 90 days",
            lambda rows: rows._n,
        ),
        define(
            "Avg_Expense", "currency", "Mean of the debits of the last 90 days; 0 without any.",
            "The mean expense of the last 90 days was small", "The mean expense of the last 90 days was large",
            lambda rows: (rows._n_expenses > 0).ifelse(to_currency(rows._expense) / rows._n_expenses.nullif(0), 0.0),
        ),
        define(
            "Max_Expense", "currency", "Largest debit of the last 90 days; 0 without any.",
            "The largest expense of the last 90 days was small", "The largest expense of the last 90 days was large",
            lambda rows: to_currency(rows._largest),
        ),
        define(
            "Low_Balance_Freq", "movements",
            "Movements of the last 90 days that left less than a tenth of a mean month's income (Total_Income / 3), or less than nothing.",
            "The balance was seldom nearly used up", "The balance was nearly used up",
            lambda rows: rows._n_low, 1, zero="The balance was never nearly used up",
        ),
        define(
            "Expense_Income_Ratio", "",
            "Total_Expense over Total_Income, at most 10; without income 10 where anything was spent, else 0.",
            "Little of the income was spent in the last 90 days", "Much of the income was spent in the last 90 days",
            _ratio_of("_expense", "_inflow"), 1,
        ),
        define(
            "Top_Category_Spend", "currency",
            "Largest sum of debits in one category in the last 90 days; debits without a category are one category.",
            "The spending in the largest category was low", "The spending in the largest category was high",
            lambda rows: to_currency(rows._top_category),
        ),
    )  # fmt: skip


def _month_features(n: int) -> tuple[FeatureDefinition, ...]:
    """Return the features of the last `n` calendar months."""
    ago = "in the last month" if n == 1 else f"in the last {n} months"
    inflow = f"_inflow_{n}m"
    return (
        define(
            f"expense_to_income_{n}m", "", f"Debits over income {ago}.",
            f"Little of the income was spent {ago}", f"Much of the income was spent {ago}",
            _ratio_of(f"_expense_{n}m", inflow), 1,
        ),
        define(
            f"n_penalties_{n}m", "penalties", f"Penalties for a negative balance {ago}.",
            "", f"Penalties were charged {ago}", lambda rows: rows[f"_n_penalties_{n}m"], 1,
            zero=f"No penalties were charged {ago}",
        ),
        define(
            f"n_missed_payments_{n}m", "payments", f"Payments that were returned unpaid {ago}.",
            "", f"Payments were missed {ago}", lambda rows: rows[f"_n_missed_{n}m"], 1,
            zero=f"No payments were missed {ago}",
        ),
        define(
            f"n_negative_balance_{n}m", "movements", f"Movements {ago} that left a balance below zero.",
            "", f"The balance was below zero {ago}",
            lambda rows: rows[f"_n_negative_{n}m"], 1, zero=f"The balance was never below zero {ago}",
        ),
        define(
            f"lowest_balance_to_income_{n}m", "months", f"Lowest balance at a month-end {ago}, in months of its mean income.",
            f"The balance fell low {ago}", f"The balance did not fall low {ago}",
            _ratio_of_mean(f"_lowest_closing_{n}m", inflow, n), -1,
        ),
        define(
            f"benefits_share_{n}m", "", f"Share of benefits in the income {ago}.",
            "", f"Part of the income was benefits {ago}",
            _ratio_of(f"_benefits_{n}m", inflow), zero=f"No benefits came in {ago}",
        ),
    )  # fmt: skip


def _against_usual(n: int) -> tuple[FeatureDefinition, ...]:
    """Return the features that compare the last `n` calendar months with the usual income."""
    ago = "in the last month" if n == 1 else f"in the last {n} months"
    return (
        define(
            f"habitual_expense_to_usual_income_{n}m", "",
            f"Mean monthly spending {ago}, without unplanned expenses and less refunds, over the usual income.",
            f"Little of the usual income was spent {ago}", f"Much of the usual income was spent {ago}",
            lambda rows: _ratio(rows[f"_habitual_{n}m"], rows._usual * _covered(rows, n)), 1, needs=_DECLARED_NEEDS,
        ),
        define(
            f"earned_to_usual_income_{n}m", "", f"Mean monthly income {ago}, without refunds, over the usual income.",
            f"The income was below the usual {ago}", f"The income was above the usual {ago}",
            lambda rows: _ratio(rows[f"_income_{n}m"], rows._usual * _covered(rows, n)), needs=_DECLARED_NEEDS,
            low_below=1.0, high_above=1.0,
        ),
    )  # fmt: skip


def _other() -> tuple[FeatureDefinition, ...]:
    return (
        *(definition for n in MONTHS for definition in _month_features(n)),
        define(
            "closing_balance_to_income_3m", "months", "Balance at the month-end, in mean monthly incomes of the last three months.",
            "Savings are small for the income", "Savings are large for the income",
            _ratio_of_mean("_closing_month_1", "_inflow_3m", 3), -1,
        ),
        define(
            "closing_balance_to_expense_3m", "months",
            "Balance at the month-end, in mean monthly expenses of the last three months: for how long it would last.",
            "Savings would not last long", "Savings would last long",
            _ratio_of_mean("_closing_month_1", "_expense_3m", 3), -1,
        ),
        define(
            "balance_change_to_income_3m", "months", "Balance at the month-end less that three months ago, in mean monthly incomes.",
            "The balance has fallen over three months", "The balance has grown over three months",
            lambda rows: _ratio((rows._closing_month_1 - rows._closing_month_4) * _covered(rows, 3), rows._inflow_3m),
            low_below=0.0, high_above=0.0,
        ),
        *(definition for n in MONTHS for definition in _against_usual(n)),
        define(
            "closing_balance_to_usual_income", "months", "Balance at the month-end, in usual monthly incomes.",
            "Savings are small for the usual income", "Savings are large for the usual income",
            _ratio_of("_closing_month_1", "_usual"), -1, needs=_DECLARED_NEEDS,
        ),
        define(
            "bills_to_usual_income_3m", "", "Mean monthly bills of the last three months over the usual income.",
            "Fixed costs take little of the usual income", "Fixed costs take much of the usual income",
            lambda rows: _ratio(rows._bills_3m, rows._usual * _covered(rows, 3)), needs=_DECLARED_NEEDS,
        ),
        *(
            define(
                f"habitual_expense_to_earned_{n}m", "",
                f"Spending of the last {n} months, without unplanned expenses and less refunds, over the income without refunds.",
                f"The usual spending of {n} months takes little of the income",
                f"The usual spending of {n} months takes much of the income",
                _ratio_of(f"_habitual_{n}m", f"_income_{n}m"), 1,
            )
            for n in (3, MONTHS[-1])
        ),
        *(
            define(
                f"expense_to_mean_income_{lag}m_ago", "",
                f"Spending of the month {lag} before the last, over the mean monthly income of the last three months.",
                f"Little was spent in {_MONTH_IN_WORDS[lag]}", f"Much was spent in {_MONTH_IN_WORDS[lag]}",
                _ratio_of_mean(f"_expense_month_{lag + 1}", "_inflow_3m", 3),
            )
            for lag in (0, 1, 2)
        ),
        define(
            "expense_trend", "", "Spending of the last month over the mean month of the last six.",
            "The spending has fallen", "The spending has grown",
            _ratio_of_mean("_expense_1m", "_expense_6m", 6), low_below=1.0, high_above=1.0,
        ),
        define(
            "income_trend", "", "Income of the last month over the mean month of the last six.",
            "The income has fallen", "The income has grown",
            _ratio_of_mean("_inflow_1m", "_inflow_6m", 6), low_below=1.0, high_above=1.0,
        ),
        define(
            "income_irregularity_6m", "", "Standard deviation over mean of the monthly incomes of the last six months.",
            "The income is regular", "The income is irregular", _irregularity,
        ),
        define(
            "bills_to_income_3m", "", "Bills that come whatever happens over income, in the last three months.",
            "Fixed costs take little of the income", "Fixed costs take much of the income",
            _ratio_of("_bills_3m", "_inflow_3m"),
        ),
        define(
            "bills_share_3m", "", "Share of such bills in the spending of the last three months.",
            "Fixed costs are a small part of the spending", "Fixed costs are a large part of the spending",
            _ratio_of("_bills_3m", "_expense_3m"),
        ),
        define(
            "largest_expense_to_mean_income_3m", "months", "Largest debit over the mean monthly income, in the last three months.",
            "The largest expense was small for the income", "The largest expense was large for the income",
            _ratio_of_mean("_largest_3m", "_inflow_3m", 3),
        ),
        define(
            "regular_pay_share_6m", "", "Share of salaries and pensions in the income of the last six months.",
            "Little of the income is regular pay", "Most of the income is regular pay",
            _ratio_of("_regular_pay_6m", "_inflow_6m"), zero="None of the income is regular pay", low_below=0.5, high_above=0.5,
        ),
        define(
            "month_sin", "", "The calendar month that begins, on a circle: sine.",
            "The month lies between July and November", "The month lies between January and May", _on_circle(lambda angle: angle.sin()),
            low_below=-0.4, high_above=0.4, is_absolute=True, spoken_by="month_cos",
        ),
        define(
            "month_cos", "", "The calendar month that begins, on a circle: cosine.",
            "The month lies between April and August", "The month lies between October and February", _on_circle(lambda angle: angle.cos()),
            low_below=-0.4, high_above=0.4, is_absolute=True, spoken_by="month_sin",
        ),
    )  # fmt: skip


CATALOGUE: tuple[FeatureDefinition, ...] = with_themes(THEMES, _eight(), _other())
"""Every feature that is defined here, whatever the source, in the order of the model's inputs."""

EIGHT_FEATURES: tuple[Feature, ...] = tuple(definition.feature for definition in CATALOGUE if definition.feature.name in EIGHT)
"""The features of the model that answers a client's eight fields."""
