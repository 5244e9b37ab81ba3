"""What a person's ledger shows at a month-end, as Ibis expressions: tables to tables, one row per person and month that ended.

Two groups: the eight behaviour fields over the trailing 90 days, [as_of - 90 days, as_of), which a client may also send by
themselves; and what else helps, over the calendar months that ended with the month-end. Protected columns are read nowhere.

Money is added up in whole ten-thousandths and time is compared in whole microseconds, so that neither the engine nor the order of
the rows changes a value.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.spending_risk.decide import LARGEST_RATIO, LOW_BALANCE_SHARE, WINDOW_DAYS
from finrisk_assets.domains.spending_risk.month_totals import NOT_INCOME, UNIT, month_number, monthly, units
from finrisk_assets.domains.spending_risk.target import Trouble, outcome
from finrisk_assets.features.arithmetic import finite
from finrisk_assets.features.month_ends import DAY_US, month_ends, movements_before
from schemas.features import Feature, themes
from schemas.ledger import Column

KEYS: tuple[Column, ...] = (
    Column("customer_month", "string", "The person and the month that ended: <customer_id>@2024-06.", personal="identifier"),
    Column("customer_id", "string", "The person.", personal="identifier"),
    Column("as_of", "timestamp", "The month-end: first instant of the next month."),
    Column("is_trouble", "boolean", "Whether trouble followed.", nullable=True, personal="personal", known="outcome_known_at"),
    Column("outcome_known_at", "timestamp", "When `is_trouble` became known.", nullable=True),
)
"""The columns that identify a row of the feature table, and its outcome."""

MONTHS = (1, 3, 6)
"""Calendar months before the month-end over which the ledger is summed up."""

PAY_MONTHS = 3
"""The smallest regular pay of so many months is the usual one: a bonus does not count."""

SEASON = ("month_sin", "month_cos")

THEMES = themes(
    {
        "income": ("Total_Income",),
        "course of the income": ("income_trend", *(f"earned_to_usual_income_{n}m" for n in MONTHS)),
        "regularity of the income": ("income_irregularity_6m", "income_days", "regular_pay_share_6m"),
        "benefits": tuple(f"benefits_share_{n}m" for n in MONTHS),
        "spending": (
            *("Total_Expense", "Expense_Income_Ratio"),
            *(f"{what}_{n}m" for what in ("expense_to_income", "habitual_expense_to_usual_income") for n in MONTHS),
            *(f"habitual_expense_to_earned_{n}m" for n in (3, max(MONTHS))),
        ),
        "course of the spending": (*(f"expense_to_mean_income_{lag}m_ago" for lag in (0, 1, 2)), "expense_trend"),
        "usual expense": ("Avg_Expense",),
        "large expenses": ("Max_Expense", "max_expense_to_income_90d"),
        "largest category": ("Top_Category_Spend", "top_category_share_90d"),
        "fixed costs": ("bills_to_usual_income_3m", "bills_to_income_3m", "bills_share_3m"),
        "number of movements": ("Num_Transactions",),
        "low balance": (
            "Low_Balance_Freq",
            *(f"{what}_{n}m" for what in ("n_negative_balance", "min_balance_to_income") for n in MONTHS),
        ),
        "savings": tuple(f"closing_balance_to_{what}" for what in ("income_3m", "expense_3m", "usual_income")),
        "course of the balance": ("balance_change_to_income_3m",),
        "penalties": tuple(f"n_penalties_{n}m" for n in MONTHS),
        "missed payments": tuple(f"n_missed_payments_{n}m" for n in MONTHS),
        "season": SEASON,
    }
)
"""What each feature tells about: those of one theme are one reason together."""

_LONGEST = max(MONTHS)
_MONTH_DAYS = 30.4375
_MEAN_MONTHS = WINDOW_DAYS // 30

_SUMS = ("income", "earned", "expense", "habitual", "regular_pay", "benefits", "bills", "n_penalties", "n_missed", "n_negative")
_DECLARED = ("customers.income_amount", "customers.joined_at")

Expression = Callable[[ir.Table], ir.Value]


@dataclass(frozen=True)
class _SpendingFeature:
    """A feature, its expression over the joined rows, and the columns (``table.column``) that not every source has."""

    feature: Feature
    value: Expression
    needs: tuple[str, ...] = ()


def declared(columns: Mapping[str, Collection[str]], without: Collection[str] = ()) -> tuple[Feature, ...]:
    """Return the features that a source allows, in their order in the model.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source fills.
    without
        Names of features that the source leaves out.
    """
    filled = {f"{table}.{column}" for table, names in columns.items() for column in names}
    return tuple(one.feature for one in CATALOGUE if filled.issuperset(one.needs) and one.feature.name not in without)


def build(tables: Mapping[str, ir.Table], features: Sequence[Feature], trouble: Trouble) -> ir.Table:
    """Return one row per person and month-end: `KEYS`, then the features.

    Parameters
    ----------
    tables
        ``transactions``, with balances and categories, and ``customers`` where features need them; validated canonical tables.
    features
        As `declared`.
    trouble
        What counts as trouble in this ledger.

    Returns
    -------
    ibis.Table
        Lazy; every feature is float64, null where it is missing.
    """
    transactions = tables["transactions"]
    ends, months = month_ends(transactions, "customer_id"), monthly(transactions)
    rows = _with(ends, _trailing(ends, transactions))
    rows = _with(rows, _recent(ends, months))
    if "customers" in tables:
        rows = _with_usual_income(rows, tables["customers"])
    rows = _with(rows, outcome(ends.select("customer_id", "as_of"), transactions, months, trouble))
    rows = rows.mutate(customer_month=rows.customer_id + "@" + rows.month)
    wanted = {feature.name for feature in features}
    values = {one.feature.name: finite(one.value(rows).cast("float64")) for one in CATALOGUE if one.feature.name in wanted}
    return rows.select(*(column.name for column in KEYS), **{feature.name: values[feature.name] for feature in features})


# --- what is joined to a month-end ---------------------------------------------------------------------------------


def _with(rows: ir.Table, more: ir.Table) -> ir.Table:
    """Add the columns of `more`, which has the same keys."""
    renamed = more.rename(_who="customer_id", _when="as_of")
    joined = rows.left_join(renamed, [rows.customer_id == renamed._who, rows.as_of == renamed._when])
    return joined.drop("_who", "_when")


def _trailing(ends: ir.Table, transactions: ir.Table) -> ir.Table:
    """Sums, counts and extremes of the trailing 90 days; money in whole ten-thousandths."""
    keys = ["customer_id", "as_of"]
    credits = movements_before(ends, transactions.filter(transactions.direction == "credit"), "customer_id", WINDOW_DAYS)
    credits = credits.filter(credits._category.notin(NOT_INCOME))
    income = credits.group_by(keys).aggregate(
        income=credits._units.sum().cast("int64"),
        since_income=credits._age_us.min(where=credits._category != "interest"),
    )
    moves = _with(movements_before(ends, transactions, "customer_id", WINDOW_DAYS), income)
    low = moves._balance * (_MEAN_MONTHS * round(1 / LOW_BALANCE_SHARE)) < moves.income.fill_null(0)
    per_category = moves.group_by(*keys, "_category").aggregate(
        income=moves.income.max(),
        since_income=moves.since_income.max(),
        n=moves.count(),
        n_low=moves.count(where=low),
        n_expenses=moves.count(where=~moves._credit),
        expense=moves._units.sum(where=~moves._credit).fill_null(0).cast("int64"),
        largest=moves._units.max(where=~moves._credit).fill_null(0),
    )
    return per_category.group_by(keys).aggregate(
        _income=per_category.income.max().fill_null(0),
        _since_income_us=per_category.since_income.max(),
        _n=per_category.n.sum().cast("int64"),
        _n_low=per_category.n_low.sum().cast("int64"),
        _n_expenses=per_category.n_expenses.sum().cast("int64"),
        _expense=per_category.expense.sum().cast("int64"),
        _largest=per_category.largest.max(),
        _top_category=per_category.expense.max(),
    )


def _recent(ends: ir.Table, months: ir.Table) -> ir.Table:
    """Sums and balances of the calendar months that ended with the month-end; money in whole ten-thousandths."""
    keyed = ends.select("customer_id", "as_of", _this=month_number(ends.as_of))
    renamed = months.rename(_who="customer_id", _month="month")
    joined = keyed.join(renamed, [keyed.customer_id == renamed._who, renamed._month < keyed._this])
    before = joined.mutate(_lag=joined._this - joined._month)
    whole = _money(before.income).round().cast("float64")
    found: dict[str, ir.Value] = {
        "_history_months": before._lag.max(),
        # In whole currency, so that squares are whole numbers too: their sum does not depend on the order.
        "_whole_income": whole.sum(where=before._lag <= _LONGEST).fill_null(0.0),
        "_whole_income_squared": (whole * whole).sum(where=before._lag <= _LONGEST).fill_null(0.0),
        "_pay": before.regular_pay.min(where=(before._lag <= PAY_MONTHS) & (before.regular_pay > 0)),
    }
    for n in MONTHS:
        inside = before._lag <= n
        for name in (
            "income",
            "earned",
            "expense",
            "habitual",
            "regular_pay",
            "benefits",
            "bills",
            "n_penalties",
            "n_missed",
            "n_negative",
        ):
            found[f"_{name}_{n}m"] = before[name].sum(where=inside).fill_null(0).cast("int64")
        found[f"_lowest_{n}m"] = before.lowest.min(where=inside)
    for lag in range(1, 5):
        found[f"_expense_month_{lag}"] = before.expense.sum(where=before._lag == lag).fill_null(0).cast("int64")
        found[f"_closing_month_{lag}"] = before.closing.min(where=before._lag == lag)
    return before.group_by("customer_id", "as_of").aggregate(**found)


def _with_usual_income(rows: ir.Table, customers: ir.Table) -> ir.Table:
    """Add the usual monthly income, in whole ten-thousandths: a salary or pension as it was lately, without bonus; else what the
    person declared on joining; null where neither is known.
    """
    known = customers.select(_who="customer_id", _since="joined_at", _declared=units(customers.income_amount))
    joined = rows.left_join(known, rows.customer_id == known._who)
    by_then = (joined._since <= joined.as_of).fill_null(False) & (joined._declared > 0)
    stated = by_then.ifelse(joined._declared, ibis.null("int64"))
    return joined.mutate(_usual=joined._pay.fill_null(stated)).drop("_who", "_since", "_declared", "_pay")


# --- arithmetic ----------------------------------------------------------------------------------------------------


def _money(value: ir.Value) -> ir.Value:
    return value.cast("float64") / UNIT


def _ratio(part: ir.Value, whole: ir.Value, largest: float = LARGEST_RATIO) -> ir.Value:
    """`part / whole`, kept within ±`largest`; where the whole is not above 0, `largest` with the part's sign, or 0.

    Null where either is not known.
    """
    size = ibis.cases((whole > 0, whole), (whole <= 0, 0)).cast("float64")
    part = part.cast("float64")
    return ibis.cases(
        (part > largest * size, largest),
        (part < -largest * size, -largest),
        (size > 0, part / size.nullif(0)),
        (part == size, 0.0),
        else_=ibis.null("float64"),
    )


def _irregularity(rows: ir.Table) -> ir.Value:
    """Standard deviation over mean of the monthly incomes, over as many of the last months as the history covers."""
    n, total, squares = _covered(rows, _LONGEST), rows._whole_income, rows._whole_income_squared
    return _ratio((n * squares - total * total).sqrt(), total, 3.0)


def _of(part: str, whole: str) -> Expression:
    return lambda rows: _ratio(rows[part], rows[whole])


def _of_mean(part: str, whole: str, n: int) -> Expression:
    """A part over the mean month of a sum of `n` months."""
    return lambda rows: _ratio(rows[part] * _covered(rows, n), rows[whole])


def _circle(turn: Callable[[ir.NumericValue], ir.Value]) -> Expression:
    return lambda rows: turn(rows.as_of.month().cast("float64") * (2 * math.pi / 12))


# --- the features --------------------------------------------------------------------------------------------------


def _define(
    name: str,
    unit: str,
    description: str,
    raises: str,
    lowers: str,
    value: Expression,
    monotone: Literal[-1, 0, 1] = 0,
    needs: tuple[str, ...] = (),
) -> _SpendingFeature:
    return _SpendingFeature(Feature(name, unit, description, raises, lowers, monotone, THEMES[name]), value, needs)


def _eight() -> tuple[_SpendingFeature, ...]:
    """The behaviour fields, by the names that a client sends."""
    return (
        _define(
            "Total_Income", "currency", "All credits of the last 90 days but an opening balance; refunds count.",
            "The income of the last 90 days speaks against it", "The income of the last 90 days speaks for it",
            lambda rows: _money(rows._income),
        ),
        _define(
            "Total_Expense", "currency", "All debits of the last 90 days.",
            "The spending of the last 90 days speaks against it", "The spending of the last 90 days speaks for it",
            lambda rows: _money(rows._expense),
        ),
        _define(
            "Num_Transactions", "movements", "All movements of the last 90 days, credits and debits.",
            "The number of movements speaks against it", "The number of movements speaks for it",
            lambda rows: rows._n,
        ),
        _define(
            "Avg_Expense", "currency", "Mean of the debits of the last 90 days; 0 without any.",
            "The size of the usual expense speaks against it", "The size of the usual expense speaks for it",
            lambda rows: (rows._n_expenses > 0).ifelse(_money(rows._expense) / rows._n_expenses.nullif(0), 0.0),
        ),
        _define(
            "Max_Expense", "currency", "Largest debit of the last 90 days; 0 without any.",
            "The largest expense speaks against it", "The largest expense speaks for it",
            lambda rows: _money(rows._largest),
        ),
        _define(
            "Low_Balance_Freq", "movements",
            "Movements of the last 90 days that left less than a tenth of a mean month's income (Total_Income / 3), or less than nothing.",
            "The balance was often nearly used up", "The balance was seldom nearly used up",
            lambda rows: rows._n_low, 1,
        ),
        _define(
            "Expense_Income_Ratio", "",
            "Total_Expense over Total_Income, at most 10; without income 10 where anything was spent, else 0.",
            "Much of the income was spent in the last 90 days", "Little of the income was spent in the last 90 days",
            _of("_expense", "_income"), 1,
        ),
        _define(
            "Top_Category_Spend", "currency",
            "Largest sum of debits in one category in the last 90 days; debits without a category are one category.",
            "Spending in the largest category speaks against it", "Spending in the largest category speaks for it",
            lambda rows: _money(rows._top_category),
        ),
    )  # fmt: skip


def _per_months(n: int) -> tuple[_SpendingFeature, ...]:
    """The features of the last `n` calendar months."""
    ago = "in the last month" if n == 1 else f"in the last {n} months"
    income = f"_income_{n}m"
    return (
        _define(
            f"expense_to_income_{n}m", "", f"Debits over income {ago}.",
            f"Much of the income was spent {ago}", f"Little of the income was spent {ago}",
            _of(f"_expense_{n}m", income), 1,
        ),
        _define(
            f"n_penalties_{n}m", "penalties", f"Penalties for a negative balance {ago}.",
            f"Penalties were charged {ago}", f"No penalties were charged {ago}", lambda rows: rows[f"_n_penalties_{n}m"], 1,
        ),
        _define(
            f"n_missed_payments_{n}m", "payments", f"Payments that were returned unpaid {ago}.",
            f"Payments were missed {ago}", f"No payments were missed {ago}", lambda rows: rows[f"_n_missed_{n}m"], 1,
        ),
        _define(
            f"n_negative_balance_{n}m", "movements", f"Movements {ago} that left a balance below zero.",
            f"The balance was below zero {ago}", f"The balance was never below zero {ago}",
            lambda rows: rows[f"_n_negative_{n}m"], 1,
        ),
        _define(
            f"min_balance_to_income_{n}m", "months", f"Lowest balance {ago}, in months of its mean income.",
            f"The balance fell low {ago}", f"The balance did not fall low {ago}",
            _of_mean(f"_lowest_{n}m", income, n), -1,
        ),
        _define(
            f"benefits_share_{n}m", "", f"Share of benefits in the income {ago}.",
            f"Part of the income were benefits {ago}", f"The income was earned {ago}",
            _of(f"_benefits_{n}m", income),
        ),
    )  # fmt: skip


def _against_usual(n: int) -> tuple[_SpendingFeature, ...]:
    """The features that hold the last `n` calendar months against the usual income, or spending by habit against what was earned."""
    ago = "in the last month" if n == 1 else f"in the last {n} months"
    return (
        _define(
            f"habitual_expense_to_usual_income_{n}m", "",
            f"Mean monthly spending {ago}, without unplanned expenses and less refunds, over the usual income.",
            f"Much of the usual income was spent {ago}", f"Little of the usual income was spent {ago}",
            lambda rows: _ratio(rows[f"_habitual_{n}m"], rows._usual * _covered(rows, n)), 1, _DECLARED,
        ),
        _define(
            f"earned_to_usual_income_{n}m", "", f"Mean monthly income {ago}, without refunds, over the usual income.",
            f"The usual income did not come in {ago}", f"The usual income came in {ago}",
            lambda rows: _ratio(rows[f"_earned_{n}m"], rows._usual * _covered(rows, n)), 0, _DECLARED,
        ),
    )  # fmt: skip


def _more() -> tuple[_SpendingFeature, ...]:
    return (
        *(defined for n in MONTHS for defined in _per_months(n)),
        _define(
            "closing_balance_to_income_3m", "months", "Balance at the month-end, in mean monthly incomes of the last three months.",
            "Savings are small for the income", "Savings are large for the income",
            _of_mean("_closing_month_1", "_income_3m", 3), -1,
        ),
        _define(
            "closing_balance_to_expense_3m", "months",
            "Balance at the month-end, in mean monthly expenses of the last three months: for how long it would last.",
            "Savings would not last long", "Savings would last long",
            _of_mean("_closing_month_1", "_expense_3m", 3), -1,
        ),
        _define(
            "balance_change_to_income_3m", "months", "Balance at the month-end less that three months ago, in mean monthly incomes.",
            "The balance has changed for the worse", "The balance has changed for the better",
            lambda rows: _ratio((rows._closing_month_1 - rows._closing_month_4) * _covered(rows, 3), rows._income_3m),
        ),
        *(defined for n in MONTHS for defined in _against_usual(n)),
        _define(
            "closing_balance_to_usual_income", "months", "Balance at the month-end, in usual monthly incomes.",
            "Savings are small for the usual income", "Savings are large for the usual income",
            _of("_closing_month_1", "_usual"), -1, _DECLARED,
        ),
        _define(
            "bills_to_usual_income_3m", "", "Mean monthly bills of the last three months over the usual income.",
            "Fixed costs take much of the usual income", "Fixed costs take little of the usual income",
            lambda rows: _ratio(rows._bills_3m, rows._usual * _covered(rows, 3)), 0, _DECLARED,
        ),
        *(
            _define(
                f"habitual_expense_to_earned_{n}m", "",
                f"Spending of the last {n} months, without unplanned expenses and less refunds, over the income without refunds.",
                "The usual spending takes much of the income", "The usual spending takes little of the income",
                _of(f"_habitual_{n}m", f"_earned_{n}m"), 1,
            )
            for n in (3, _LONGEST)
        ),
        *(
            _define(
                f"expense_to_mean_income_{lag}m_ago", "",
                f"Spending of the month {lag} before the last, over the mean monthly income of the last three months.",
                "The course of the spending speaks against it", "The course of the spending speaks for it",
                _of_mean(f"_expense_month_{lag + 1}", "_income_3m", 3),
            )
            for lag in (0, 1, 2)
        ),
        _define(
            "expense_trend", "", "Spending of the last month over the mean month of the last six.",
            "Spending has changed for the worse", "Spending has changed for the better",
            _of_mean("_expense_1m", "_expense_6m", 6),
        ),
        _define(
            "income_trend", "", "Income of the last month over the mean month of the last six.",
            "Income has changed for the worse", "Income has changed for the better",
            _of_mean("_income_1m", "_income_6m", 6),
        ),
        _define(
            "income_irregularity_6m", "", "Standard deviation over mean of the monthly incomes of the last six months.",
            "The income is irregular", "The income is regular", _irregularity,
        ),
        _define(
            "income_days", "days", "Time since money last came in, other than interest; missing if not in 90 days.",
            "The day of the last income speaks against it", "The day of the last income speaks for it",
            lambda rows: rows._since_income_us / float(DAY_US),
        ),
        _define(
            "bills_to_income_3m", "", "Bills that come whatever happens over income, in the last three months.",
            "Fixed costs take much of the income", "Fixed costs take little of the income",
            _of("_bills_3m", "_income_3m"),
        ),
        _define(
            "bills_share_3m", "", "Share of such bills in the spending of the last three months.",
            "The share of fixed costs in the spending speaks against it", "The share of fixed costs in the spending speaks for it",
            _of("_bills_3m", "_expense_3m"),
        ),
        _define(
            "top_category_share_90d", "", "Largest sum of debits in one category over all debits of the last 90 days.",
            "The share of the largest category speaks against it", "The share of the largest category speaks for it",
            _of("_top_category", "_expense"),
        ),
        _define(
            "max_expense_to_income_90d", "months", "Largest debit over the mean monthly income of the last 90 days.",
            "The largest expense was large for the income", "The largest expense was small for the income",
            lambda rows: _ratio(rows._largest * _MEAN_MONTHS, rows._income),
        ),
        _define(
            "regular_pay_share_6m", "", "Share of salaries and pensions in the income of the last six months.",
            "Little of the income is regular pay", "Most of the income is regular pay",
            _of("_regular_pay_6m", "_income_6m"),
        ),
        _define(
            "month_sin", "", "The calendar month that begins, on a circle: sine.",
            "The season speaks against it", "The season speaks for it", _circle(lambda angle: angle.sin()),
        ),
        _define(
            "month_cos", "", "The calendar month that begins, on a circle: cosine.",
            "The season speaks against it", "The season speaks for it", _circle(lambda angle: angle.cos()),
        ),
    )  # fmt: skip


def _covered(rows: ir.Table, n: int) -> ir.IntegerValue:
    """How many of the last `n` months the history covers: the sums of `n` months are of so many."""
    return (rows._history_months < n).ifelse(rows._history_months, n)


CATALOGUE: tuple[_SpendingFeature, ...] = (*_eight(), *_more())
"""Every feature that is defined here, whatever the source."""

EIGHT_FEATURES: tuple[Feature, ...] = tuple(defined.feature for defined in _eight())
"""The features of the model that answers a client's eight fields."""
