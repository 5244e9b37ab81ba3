"""Every feature of an account at a month-end: its words, its expression over the account's months, and the columns that it needs.

A feature is a window over the months that `joins` adds up. Sums begin with an underscore and are in whole ten-thousandths of the currency.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.cashflow.joins import LEVEL_MONTHS, RECURRING_MONTHS, SPANS
from finrisk_assets.features.arithmetic import UNITS_PER_CURRENCY, clip, ratio, to_currency
from finrisk_assets.features.feature_definition import Expression, FeatureDefinition, column, define, with_themes
from finrisk_assets.scoring.ratios import LARGEST_RATIO
from schemas.features import themes
from schemas.timestamps import DAY_US

AMOUNT_SPANS = (1, 12)
"""Months: the spans of `SPANS` whose income and spending are features in currency too."""

SCALE = "typical_movement_amount"
"""The feature that amounts are divided by."""

THEMES: Mapping[str, str] = themes(
    {
        "earlier outcomes": ("was_surplus_1m", *(f"n_surplus_{n}m" for n in (3, 6, 12))),
        "net flow": (*(f"net_flow_to_movement_{n}m" for n in SPANS), "net_flow_before_to_movement"),
        "the same month a year before": ("was_surplus_year_ago", "net_flow_year_ago_to_movement"),
        "income": (
            *(f"income_amount_{n}m" for n in AMOUNT_SPANS),
            *("income_to_declared_1m", "income_to_declared_3m", "income_trend_1m"),
        ),
        "regularity of the income": ("income_irregularity_3m", "income_irregularity_6m", "net_flow_range_6m"),
        "time of the incomes": ("n_incomes_3m", "months_since_income"),
        "spending": (
            *(f"expense_to_income_{n}m" for n in SPANS),
            *(f"expense_amount_{n}m" for n in AMOUNT_SPANS),
            *("expense_to_declared_1m", "expense_to_declared_12m", "expense_trend_1m"),
        ),
        "regular spending": tuple(f"regular_expense_to_{what}" for what in ("income_3m", "last_income", "declared_3m")),
        "what recurs": tuple(f"{what}_to_movement" for what in ("recurring_income", "fixed_costs", "recurring_surplus")),
        "large movements": ("largest_income_share_1m", "largest_expense_share_1m"),
        "size of the movements": (SCALE,),
        "number of movements": ("n_transactions_1m",),
        "penalties": ("n_penalties_3m", "n_penalties_12m"),
        "balance": ("balance_amount", *(f"balance_to_{what}" for what in ("movement", "income", "declared"))),
        "course of the balance": ("balance_above_usual", "balance_above_lowest", "balance_change_6m"),
        "season": tuple(f"next_month_{what}" for what in ("sin", "cos", "number", "days")),
        "length of the history": ("history_months",),
    }
)
"""Feature -> its subject. Features of one subject count as one reason together."""

_LEAST_MOVEMENT_AMOUNT = 1.0
"""Currency: the least that amounts are divided by."""


# Expressions ------------------------------------------------------------------------------------------------------------------


def _ratio(part: ir.Value, whole: ir.Value, largest: float = LARGEST_RATIO) -> ir.Value:
    """Return the bounded ratio; missing where the whole is not above 0, because such a month is no measure."""
    return ratio(part, whole, largest, no_whole="missing")


def _usual(months: ir.Table, flow: Literal["_in", "_out"]) -> ir.Value:
    """Return the mean month's income or spending of the last `LEVEL_MONTHS`, as far as there is history; in units."""
    return months[f"{flow}_{LEVEL_MONTHS}m"].cast("float64") / months._covered


def _covered_of_recent(months: ir.Table) -> ir.Value:
    """Return how many of the last three months the history covers."""
    return ibis.least(months._covered, float(RECURRING_MONTHS))


def _regular_expense(months: ir.Table) -> ir.Value:
    """Return a month's spending, of the last three, without one-offs and refunds; in units."""
    return (months._out_3m - months._irregular_3m).cast("float64") / _covered_of_recent(months)


def _typical_movement(months: ir.Table) -> ir.Value:
    """Return half of what moves in a usual month, in units and above 0: amounts are divided by it."""
    return clip((_usual(months, "_in") + _usual(months, "_out")) / 2, _LEAST_MOVEMENT_AMOUNT * UNITS_PER_CURRENCY, math.inf)


# Definitions ------------------------------------------------------------------------------------------------------------------


def _low_or_high(subject: str) -> tuple[str, str]:
    """Return the sentences of a low and of a high value."""
    return f"{subject} was low", f"{subject} was high"


def _span(n: int) -> tuple[FeatureDefinition, ...]:
    ago = "in the last month" if n == 1 else f"in the last {n} months"
    return (
        define(
            f"net_flow_to_movement_{n}m", "", f"Money in less money out {ago}, over what moves in a usual month.",
            f"More went out than in {ago}", f"More came in than went out {ago}",
            lambda months: _ratio(months[f"_net_{n}m"].cast("float64"), _typical_movement(months)), low_below=0.0, high_above=0.0,
        ),
        define(
            f"expense_to_income_{n}m", "", f"Money that went out over money that came in, {ago}.",
            *_low_or_high(f"The spending beside the income {ago}"),
            lambda months: _ratio(months[f"_out_{n}m"].cast("float64"), months[f"_in_{n}m"].cast("float64")),
        ),
    )  # fmt: skip


def _amounts(n: int) -> tuple[FeatureDefinition, ...]:
    ago = "in the last month" if n == 1 else f"in the last {n} months"
    return (
        define(
            f"income_amount_{n}m", "currency", f"Money that came in {ago}.",
            *_low_or_high(f"The income {ago}"), lambda months: to_currency(months[f"_in_{n}m"]),
        ),
        define(
            f"expense_amount_{n}m", "currency", f"Money that went out {ago}.",
            *_low_or_high(f"The spending {ago}"), lambda months: to_currency(months[f"_out_{n}m"]),
        ),
    )  # fmt: skip


def _outcomes() -> tuple[FeatureDefinition, ...]:
    return (
        define(
            "was_surplus_1m", "", "Whether the month that has ended was a surplus.",
            "", "", lambda months: months._surplus_1m, one="The last month was a surplus", zero="The last month was a deficit",
        ),
        *(
            define(
                f"n_surplus_{n}m", "months", f"Months of the last {n} with a surplus.",
                f"Few of the last {n} months were a surplus", f"Many of the last {n} months were a surplus", column(f"_surplus_{n}m"),
                zero=f"None of the last {n} months was a surplus",
            )
            for n in (3, 6, 12)
        ),
        define(
            "net_flow_before_to_movement", "", "Money in less money out in the month before the last, over what moves in a usual month.",
            "More went out than in, in the month before the last", "More came in than went out, in the month before the last",
            lambda months: _ratio(months._net_before.cast("float64"), _typical_movement(months)), low_below=0.0, high_above=0.0,
        ),
        define(
            "was_surplus_year_ago", "", "Whether the month to come was a surplus a year before; missing without a year of history.",
            "", "",
            lambda months: months._year_ago.isnull().ifelse(ibis.null("float64"), (months._year_ago > 0).ifelse(1.0, 0.0)),
            one="The same month was a surplus a year before", zero="The same month was a deficit a year before",
            missing="There is no record of the same month a year before",
        ),
        define(
            "net_flow_year_ago_to_movement", "", "Net flow of the month to come a year before, over what moves in a usual month.",
            "More went out than in, in the same month a year before", "More came in than went out, in the same month a year before",
            lambda months: _ratio(months._year_ago.cast("float64"), _typical_movement(months)), low_below=0.0, high_above=0.0,
            missing="There is no record of the same month a year before",
        ),
    )  # fmt: skip


def _calendar() -> tuple[FeatureDefinition, ...]:
    number = "next_month_number"

    def angle(months: ir.Table) -> ir.Value:
        return months.as_of.month().cast("float64") * (2 * math.pi / 12)

    def days(months: ir.Table) -> ir.Value:
        following = (months.as_of + ibis.interval(months=1)).cast("timestamp(6)")
        return following.delta(months.as_of, unit="microsecond").cast("float64") / DAY_US

    return (
        define(
            "next_month_sin", "", "The month to come as a point of a circle.", "", "", lambda months: angle(months).sin(), spoken_by=number
        ),
        define(
            "next_month_cos", "", "The month to come as a point of a circle.", "", "", lambda months: angle(months).cos(), spoken_by=number
        ),
        define(number, "", "The month to come, 1 to 12.", "", "", lambda months: months.as_of.month(), fact="The month to come is {month}"),
        define("next_month_days", "days", "Length of the month to come.", "", "", days, fact="The month to come has {value}"),
    )


def _flows() -> tuple[FeatureDefinition, ...]:
    def recurring(side: str) -> Expression:
        return lambda months: months[f"_recurring_{side}"].fill_null(0).cast("float64")

    return (
        define(
            SCALE, "currency a month",
            "Half of what came in and went out in a usual month, never below 1; missing in an account's first month, which is no measure.",
            "Little moves in a usual month", "Much moves in a usual month",
            lambda months: (months._covered > 1).ifelse(to_currency(_typical_movement(months)), ibis.null("float64")),
        ),
        define(
            "recurring_income_to_movement", "", "Income that came in each of the last three months, over what moves in a usual month.",
            "Little income recurs", "Much income recurs",
            lambda months: _ratio(recurring("in")(months), _typical_movement(months)),
        ),
        define(
            "fixed_costs_to_movement", "", "Spending that went out in each of the last three months, over what moves in a usual month.",
            "The fixed costs are low", "The fixed costs are high",
            lambda months: _ratio(recurring("out")(months), _typical_movement(months)),
        ),
        define(
            "recurring_surplus_to_movement", "", "Recurring income less fixed costs, over what moves in a usual month.",
            "Recurring income leaves little after fixed costs", "Recurring income leaves much after fixed costs",
            lambda months: _ratio(recurring("in")(months) - recurring("out")(months), _typical_movement(months)),
        ),
        define(
            "regular_expense_to_income_3m", "",
            "Spending of the last three months, without one-offs and refunds, over their income.",
            *_low_or_high("The regular spending beside the income"),
            lambda months: _ratio(_regular_expense(months) * _covered_of_recent(months), months._in_3m.cast("float64")),
        ),
        define(
            "regular_expense_to_last_income", "",
            "A month's regular spending, over the income of the last month.",
            *_low_or_high("The regular spending beside the last income"),
            lambda months: _ratio(_regular_expense(months), months._in_1m.cast("float64")),
        ),
        define(
            "n_incomes_3m", "movements", "How often money came in as income in the last three months.",
            "Income came in seldom in the last three months", "Income came in often in the last three months",
            lambda months: months._n_in_3m, zero="No income came in within three months",
        ),
        define(
            "income_irregularity_3m", "", "Highest less lowest monthly income of the last three months, over the usual income.",
            "The income of the last three months is regular", "The income of the last three months is irregular",
            lambda months: _ratio((months._highest_in_3m - months._least_in_3m).cast("float64"), months._usual_in),
        ),
        define(
            "income_trend_1m", "", "Income of the last month over the usual income.",
            "The income of the last month is below the usual", "The income of the last month is above the usual",
            lambda months: _ratio(months._in_1m.cast("float64"), months._usual_in), low_below=1.0, high_above=1.0,
        ),
        define(
            "expense_trend_1m", "", "Spending of the last month over that of a usual month.",
            "The spending of the last month is below the usual", "The spending of the last month is above the usual",
            lambda months: _ratio(months._out_1m.cast("float64"), _usual(months, "_out")), low_below=1.0, high_above=1.0,
        ),
        define(
            "largest_income_share_1m", "", "Largest single income of the last month, over what moves in a usual month.",
            *_low_or_high("The largest income of the last month"),
            lambda months: _ratio(months._largest_in.cast("float64"), _typical_movement(months)),
        ),
        define(
            "largest_expense_share_1m", "", "Largest single expense of the last month, over what moves in a usual month.",
            *_low_or_high("The largest expense of the last month"),
            lambda months: _ratio(months._largest_out.cast("float64"), _typical_movement(months)),
        ),
        define(
            "income_irregularity_6m", "", "Highest less lowest monthly income of the last six months, over the usual income.",
            "The income of the last six months is regular", "The income of the last six months is irregular",
            lambda months: _ratio((months._highest_in - months._least_in).cast("float64"), months._usual_in),
        ),
        define(
            "net_flow_range_6m", "", "Highest less lowest net flow of the last six months, over what moves in a usual month.",
            "The monthly net flows are steady", "The monthly net flows swing widely",
            lambda months: _ratio((months._highest_net - months._lowest_net).cast("float64"), _typical_movement(months)),
        ),
        define(
            "months_since_income", "months", "Months since one with an income, if within six months; 0 where the last month had one.",
            "", "No income has come in for some time", lambda months: months._number - months._last_income,
            zero="Income came in in the last month", missing="No income came in within six months",
        ),
        define(
            "n_transactions_1m", "movements", "Movements of the last month.",
            "There were few movements in the last month", "There were many movements in the last month", lambda months: months._n,
        ),
        *(
            define(
                f"n_penalties_{n}m", "penalties", f"Penalties and returned payments of the last {n} months.",
                "", f"Penalties were charged in the last {n} months", column(f"_penalties_{n}m"),
                zero=f"No penalties were charged in the last {n} months",
            )
            for n in (3, 12)
        ),
        define(
            "history_months", "months", "Months since the account's first movement on record.",
            "Little history is on record", "A long history is on record", lambda months: months._number - months._first + 1,
        ),
    )  # fmt: skip


def _declared_income() -> tuple[FeatureDefinition, ...]:
    """Return the features beside the income that the owner declared: the steadiest measure where earnings come now and then."""

    def define_one(name: str, description: str, subject: str, part: Expression, largest: float = LARGEST_RATIO) -> FeatureDefinition:
        def value(months: ir.Table) -> ir.Value:
            return _ratio(part(months).cast("float64"), months._declared, largest)

        return define(name, "", description, *_low_or_high(subject), value, needs="customers.income_amount")

    return (
        define_one(
            "income_to_declared_1m", "Income of the last month over the declared monthly income.",
            "The last income beside the declared one", lambda months: months._in_1m,
        ),
        define_one(
            "income_to_declared_3m", "A month's income, of the last three, over the declared monthly income.",
            "The income beside the declared one", lambda months: months._in_3m / _covered_of_recent(months),
        ),
        define_one(
            "expense_to_declared_1m", "Spending of the last month over the declared monthly income.",
            "The last spending beside the declared income", lambda months: months._out_1m,
        ),
        define_one(
            "expense_to_declared_12m", "A month's spending, of the last twelve, over the declared monthly income.",
            "The spending of the last year beside the declared income",
            lambda months: months._out_12m / ibis.least(months._number - months._first + 1, 12),
        ),
        define_one(
            "regular_expense_to_declared_3m", "A month's regular spending, of the last three, over the declared monthly income.",
            "The regular spending beside the declared income", _regular_expense,
        ),
        define_one(
            "balance_to_declared", "Closing balance over the declared monthly income.",
            "The closing balance beside the declared income", lambda months: months._closing, 100.0,
        ),
    )  # fmt: skip


def _balances() -> tuple[FeatureDefinition, ...]:
    def define_one(subject: str, name: str, unit: str, description: str, value: Expression) -> FeatureDefinition:
        return define(name, unit, description, *_low_or_high(subject), value, needs="transactions.balance_amount")

    def relative(part: Callable[[ir.Table], ir.Value], largest: float = LARGEST_RATIO) -> Expression:
        return lambda months: _ratio(part(months).cast("float64"), _typical_movement(months), largest)

    return (
        define_one(
            "The closing balance", "balance_amount", "currency", "Closing balance (the lowest, of movements at one moment).",
            lambda months: to_currency(months._closing),
        ),
        define_one(
            "The closing balance", "balance_to_movement", "", "Closing balance over what moves in a usual month.",
            relative(lambda months: months._closing, 100.0),
        ),
        define_one(
            "The closing balance beside the income", "balance_to_income", "months", "Closing balance over the usual income.",
            lambda months: _ratio(months._closing.cast("float64"), months._usual_in, 100.0),
        ),
        define_one(
            "The balance beside its usual level", "balance_above_usual", "",
            "Closing balance less the mean closing balance of the last six months, over what moves in a usual month.",
            relative(lambda months: months._closing - months._mean_closing),
        ),
        define_one(
            "The balance beside its lowest", "balance_above_lowest", "",
            "Closing balance less the lowest closing balance of the last six months, over what moves in a usual month.",
            relative(lambda months: months._closing - months._lowest_closing),
        ),
        define_one(
            "The change of the balance", "balance_change_6m", "", "Change of the closing balance over six months, likewise.",
            relative(lambda months: months._closing - months._closing_before),
        ),
    )  # fmt: skip


CATALOGUE: tuple[FeatureDefinition, ...] = with_themes(
    THEMES,
    _outcomes(),
    *(_span(n) for n in SPANS),
    *(_amounts(n) for n in AMOUNT_SPANS),
    _calendar(),
    _flows(),
    _declared_income(),
    _balances(),
)
"""Every feature that is defined here, in the order of the model's inputs."""
