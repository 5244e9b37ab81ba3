"""What is known of an account when a month has ended, as Ibis expressions: tables to tables, one row per account and month.

Here stand the rows and the features of the cashflow domain. Movements are added up by calendar month first; a feature is a window over
an account's months, so that a table of movements is read once and no later month can enter. A source that brings a panel of its own,
with the answer and the features as columns of `accounts`, is taken as it is (`panel`).

Money is added up in whole ten-thousandths, so that neither the engine nor the order of the rows changes a value.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import clip, finite, share
from finrisk_assets.features.month_ends import month_ends
from schemas.features import Feature, themes
from schemas.ledger import TABLES, Column

KEYS: tuple[Column, ...] = (
    Column("account_month", "string", "The account and the month that has ended: 4711@2024-06.", personal="identifier"),
    Column("account_id", "string", "The account.", personal="identifier"),
    TABLES["customers"]["customer_id"],
    Column(
        "as_of", "timestamp", "First instant after the month that has ended; what is decided on is strictly before it.", nullable=True
    ),
    Column("is_surplus", "boolean", "Whether more came in than went out in the next month.", nullable=True, known="outcome_known_at"),
    Column(
        "change_amount", "float64", "Net of the next month's movements: by how much the closing balance changes.", "currency", True,
        personal="personal", known="outcome_known_at",
    ),
    Column("outcome_known_at", "timestamp", "When the next month has ended.", nullable=True),
)  # fmt: skip
"""The columns that identify a row of the feature table, and its outcome."""

SPANS = (1, 2, 3, 6, 12)
"""Months over which the movements are summed up; the last of them is the one that has just ended."""

AMOUNT_SPANS = (1, 12)
"""Of these, the spans whose income and spending are features in currency too."""

LEVEL_MONTHS = 6
"""Months that say what is usual for an account: its movement, its income, its balance."""

RECURRING_MONTHS = 3
"""What came in each of so many months, by category, recurs."""

ONE_OFF_MONTHS = 12
"""Spending in a category that so many months before did not see is a one-off, once an account has a few months of history."""

OPENING = "opening_balance"
"""The one movement that is neither income nor spending: what an account began with."""

REFUND = "refund"
NOT_INCOME = (OPENING, REFUND)
PENALTY = ("penalty", "penalty interest", "returned_payment")
"""Categories of the sources, by what they mean here."""

SCALE = "typical_movement_amount"
"""The feature that amounts are measured by."""

THEMES = themes(
    {
        "earlier outcomes": ("was_surplus_1m", *(f"n_surplus_{n}m" for n in (3, 6, 12))),
        "net flow": (*(f"net_flow_to_movement_{n}m" for n in SPANS), "net_flow_before_to_movement"),
        "the same month a year before": ("was_surplus_year_ago", "net_flow_year_ago_to_movement"),
        "income": (
            *(f"income_amount_{n}m" for n in AMOUNT_SPANS),
            *("income_to_declared_1m", "income_to_declared_3m", "income_trend_1m"),
        ),
        "regularity of the income": ("income_irregularity_3m", "income_irregularity_6m", "net_flow_range_6m"),
        "time of the incomes": ("n_incomes_3m", "days_since_income"),
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
        "balance": ("balance_amount", *(f"balance_to_{what}" for what in ("movement", "income", "declared")), "lowest_balance_to_movement"),
        "course of the balance": ("balance_above_usual", "balance_above_lowest", "balance_change_6m"),
        "season": tuple(f"next_month_{what}" for what in ("sin", "cos", "number", "days")),
        "length of the history": ("history_months",),
    }
)
"""What each feature tells about: those of one theme are one reason together."""

_LARGEST_RATIO = 10.0
_LEAST_MOVEMENT = 1.0
_UNIT = 10_000
_DAY = 86_400_000_000

Expression = Callable[[ir.Table], ir.Value]


@dataclass(frozen=True)
class _CashflowFeature:
    """A feature, its expression over the months, and the nullable column (``table.column``) that it needs."""

    feature: Feature
    value: Expression
    needs: str = ""


def is_panel(columns: Mapping[str, Collection[str]]) -> bool:
    """Whether a source brings a panel of its own: accounts that say what the next month was."""
    return "is_surplus" in columns.get("accounts", ())


def declared(columns: Mapping[str, Collection[str]], source_features: Sequence[Feature] = ()) -> tuple[Feature, ...]:
    """Return the features that a source allows, in their order in the model.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source *fills*.
    source_features
        The source's own columns of ``accounts`` that are features as they stand; only a panel of the source's own has them.
    """
    if is_panel(columns):
        return tuple(source_features)
    filled = {f"{table}.{column}" for table, names in columns.items() for column in names}
    return tuple(defined.feature for defined in CATALOGUE if not defined.needs or defined.needs in filled)


def build(tables: Mapping[str, ir.Table], features: Sequence[Feature]) -> ir.Table:
    """Return one row per account and month that has ended: `KEYS`, then the features.

    Parameters
    ----------
    tables
        ``transactions``, and ``customers`` where a feature needs them; or ``accounts`` with a panel of the source's own.
    features
        As `declared`.

    Returns
    -------
    ibis.Table
        Lazy; every feature is float64, null where it is missing. The outcome is known where the account has a row of exactly the
        next month too.

    Raises
    ------
    ValueError
        For a feature that is not defined here.
    """
    if is_panel({name: table.columns for name, table in tables.items()}):
        return panel(tables["accounts"], features)
    by_name = {defined.feature.name: defined.value for defined in CATALOGUE}
    unknown = [feature.name for feature in features if feature.name not in by_name]
    if unknown:
        raise ValueError(f"cashflow has no feature {', '.join(unknown)}; see CATALOGUE")
    months = _with_history(_months(tables["transactions"]))
    if "customers" in tables:
        months = _with_declared_income(months, tables["customers"])
    return months.select(
        account_month=months.account_id + "@" + months.month,
        account_id=months.account_id,
        customer_id=months.customer_id,
        as_of=months.as_of,
        is_surplus=months._next_change > 0,
        change_amount=_money(months._next_change),
        outcome_known_at=months._next_as_of,
        **{feature.name: finite(by_name[feature.name](months).cast("float64")) for feature in features},
    )


def panel(accounts: ir.Table, features: Sequence[Feature]) -> ir.Table:
    """Return the rows of a source that brings the answer and the features itself, one per account.

    Parameters
    ----------
    accounts
        With ``is_surplus``; with ``as_of``, ``change_amount`` and ``outcome_known_at`` where the source knows them. An account's
        opening is no ``as_of``: a panel without that column has no time.

    Raises
    ------
    ValueError
        For a feature that the accounts do not have.
    """
    lacking = [feature.name for feature in features if feature.name not in accounts.columns]
    if lacking:
        raise ValueError(f"the accounts have no column {', '.join(lacking)}")

    def optional(name: str, kind: str) -> ir.Value:
        return accounts[name].cast(kind) if name in accounts.columns else ibis.null(kind)

    return accounts.select(
        account_month=accounts.account_id,
        account_id=accounts.account_id,
        customer_id=accounts.customer_id,
        as_of=optional("as_of", "timestamp(6)"),
        is_surplus=accounts.is_surplus,
        change_amount=optional("change_amount", "float64"),
        outcome_known_at=optional("outcome_known_at", "timestamp(6)"),
        **{feature.name: finite(accounts[feature.name].cast("float64")) for feature in features},
    )


# --- an account's months -------------------------------------------------------------------------------------------


def _months(transactions: ir.Table) -> ir.Table:
    """One row per account and ended month: what came in, what went out, and the balance it closed with; money in units."""
    credit, category = transactions.direction == "credit", transactions.category.fill_null("")
    units = (transactions.amount * _UNIT).round().cast("int64")
    moves = transactions.filter(transactions.account_id.notnull()).select(
        account_id=transactions.account_id,
        customer_id=transactions.customer_id,
        _number=_number(transactions.occurred_at),
        _at=transactions.occurred_at,
        _units=units,
        _balance=(transactions.balance_amount * _UNIT).round().cast("int64"),
        _signed=credit.ifelse(units, -units),
        _income=credit & category.notin(NOT_INCOME),
        _expense=~credit,
        _category=category,
    )
    by_month = ibis.window(group_by=[moves.account_id, moves._number])
    moves = moves.mutate(
        _is_last=moves._at == moves._at.max().over(by_month), _is_opening=moves._category == OPENING,
        _is_penalty=moves._category.isin(PENALTY),
    )  # fmt: skip

    def total(value: ir.Value, where: ir.BooleanValue) -> ir.Value:
        return where.ifelse(value, 0).sum().cast("int64")

    sums = moves.group_by("account_id", "_number").aggregate(
        customer_id=moves.customer_id.max(),
        _change=moves._signed.sum().cast("int64"),
        _net=total(moves._signed, ~moves._is_opening),
        _in=total(moves._units, moves._income),
        _out=total(moves._units, moves._expense),
        _n=moves.count(),
        _n_penalties=total(ibis.literal(1), moves._is_penalty),
        _refunded=total(moves._units, ~moves._expense & (moves._category == REFUND)),
        _n_in=total(ibis.literal(1), moves._income),
        _largest_in=moves._income.ifelse(moves._units, 0).max(),
        _largest_out=moves._expense.ifelse(moves._units, 0).max(),
        _last_income_at=moves._at.max(where=moves._income),
        _closing=moves._balance.min(where=moves._is_last),
        _lowest=moves._balance.min(),
    )
    ended = month_ends(transactions, "account_id")
    ended = ended.select(_account=ended.account_id, as_of=ended.as_of, month=ended.month, _ended=_number(ended.as_of) - 1)
    months = sums.inner_join(ended, [sums.account_id == ended._account, sums._number == ended._ended]).drop("_account", "_ended")
    recurring = _recurring(moves)
    return months.left_join(recurring, [months.account_id == recurring._owner, months._number == recurring._of]).drop("_owner", "_of")


def _recurring(moves: ir.Table) -> ir.Table:
    """Per account and month, category by category, what recurred (the least of the last months) and what was spent as a one-off."""
    lines = moves.group_by("account_id", "_number", "_category", "_expense").aggregate(
        _units=(~moves._is_opening).ifelse(moves._units, 0).sum().cast("int64")
    )

    def over(first: int, last: int) -> ibis.expr.builders.WindowBuilder:
        line = [lines.account_id, lines._category, lines._expense]
        return ibis.window(group_by=line, order_by=lines._number, range=(first, last))

    recent = over(1 - RECURRING_MONTHS, 0)
    lines = lines.mutate(
        _least=(lines._units.count().over(recent) == RECURRING_MONTHS).ifelse(lines._units.min().over(recent), 0),
        _seen=lines._units.count().over(over(-ONE_OFF_MONTHS, -1)).fill_null(0),
        _history=lines._number - lines._number.min().over(ibis.window(group_by=lines.account_id)),
    )
    one_off = lines._expense & (lines._seen == 0) & (lines._history >= RECURRING_MONTHS)
    return lines.group_by(_owner=lines.account_id, _of=lines._number).aggregate(
        _recurring_in=(~lines._expense).ifelse(lines._least, 0).sum().cast("int64"),
        _recurring_out=lines._expense.ifelse(lines._least, 0).sum().cast("int64"),
        _one_off=one_off.ifelse(lines._units, 0).sum().cast("int64"),
    )


def _with_history(months: ir.Table) -> ir.Table:
    """Add to each month sums over the account's months up to it, earlier outcomes, the month a year before, and the next month."""

    def over(first: int, last: int = 0) -> ibis.expr.builders.WindowBuilder:
        return ibis.window(group_by=months.account_id, order_by=months._number, range=(first, last))

    surplus = (months._net > 0).ifelse(1, 0)
    level = over(1 - LEVEL_MONTHS)
    added: dict[str, ir.Value] = {
        "_first": months._number.min().over(over(-1_200)),
        "_next_change": months._change.max().over(over(1, 1)),
        "_next_as_of": months.as_of.max().over(over(1, 1)),
        "_year_ago": months._net.max().over(over(-11, -11)),
        "_in_year_ago": months._in.max().over(over(-11, -11)),
        "_last_income": months._last_income_at.max().over(over(1 - LEVEL_MONTHS)),
        "_highest_in": months._in.max().over(level),
        "_least_in": months._in.min().over(level),
        "_highest_net": months._net.max().over(level),
        "_lowest_net": months._net.min().over(level),
        "_mean_closing": months._closing.mean().over(level),
        "_lowest_closing": months._closing.min().over(level),
        "_closing_before": months._closing.max().over(over(-LEVEL_MONTHS, -LEVEL_MONTHS)),
        "_irregular_3m": (months._refunded + months._one_off).sum().over(over(1 - RECURRING_MONTHS)).cast("int64"),
        "_n_in_3m": months._n_in.sum().over(over(1 - RECURRING_MONTHS)).cast("float64"),
        "_highest_in_3m": months._in.max().over(over(1 - RECURRING_MONTHS)),
        "_least_in_3m": months._in.min().over(over(1 - RECURRING_MONTHS)),
        "_net_before": months._net.max().over(over(-1, -1)),
    }
    for n in SPANS:
        span = over(1 - n)
        added |= {
            f"_in_{n}m": months._in.sum().over(span).cast("int64"),
            f"_out_{n}m": months._out.sum().over(span).cast("int64"),
            f"_net_{n}m": months._net.sum().over(span).cast("int64"),
            f"_surplus_{n}m": surplus.sum().over(span).cast("float64"),
            f"_penalties_{n}m": months._n_penalties.sum().over(span).cast("float64"),
        }
    months = months.mutate(**added)
    return months.mutate(_covered=ibis.least(months._number - months._first + 1, LEVEL_MONTHS).cast("float64"))


def _with_declared_income(months: ir.Table, customers: ir.Table) -> ir.Table:
    """Join the monthly income that the owner declared, null where it became known after the month-end."""
    owners = customers.select(
        _owner=customers.customer_id,
        _joined_at=customers.joined_at,
        _stated=(customers.income_amount * _UNIT).round().cast("float64"),
    )
    joined = months.left_join(owners, months.customer_id == owners._owner).drop("_owner")
    known = (joined._joined_at <= joined.as_of).fill_null(True)
    return joined.mutate(_declared=known.ifelse(joined._stated, ibis.null("float64")))


def _number(time: ir.Value) -> ir.IntegerValue:
    """The months since the year 0, so that the next month is one more."""
    return (time.year() * 12 + time.month()).cast("int64")


# --- arithmetic ----------------------------------------------------------------------------------------------------


def _money(units: ir.Value) -> ir.Value:
    return units.cast("float64") / _UNIT


def _ratio(part: ir.Value, whole: ir.Value, largest: float = _LARGEST_RATIO) -> ir.Value:
    """`part / whole`, kept within ±`largest`; null where the whole is not above 0."""
    return clip(share(part, whole), -largest, largest)


def _usual(months: ir.Table, what: Literal["_in", "_out"]) -> ir.Value:
    """The mean month's income or spending of the last `LEVEL_MONTHS`, as far as there is history; in units."""
    return months[f"{what}_{LEVEL_MONTHS}m"].cast("float64") / months._covered


def _recent(months: ir.Table) -> ir.Value:
    """The months, of the last three, that the history covers."""
    return ibis.least(months._covered, float(RECURRING_MONTHS))


def _regular(months: ir.Table) -> ir.Value:
    """A month's spending, of the last three, without one-offs and refunds; in units."""
    return (months._out_3m - months._irregular_3m).cast("float64") / _recent(months)


def _typical(months: ir.Table) -> ir.Value:
    """Half of what moves in a usual month, in units and above 0: what amounts are measured by."""
    return clip((_usual(months, "_in") + _usual(months, "_out")) / 2, _LEAST_MOVEMENT * _UNIT, math.inf)


# --- the features --------------------------------------------------------------------------------------------------


def _define(name: str, unit: str, description: str, raises: str, lowers: str, value: Expression, *, needs: str = "") -> _CashflowFeature:
    return _CashflowFeature(Feature(name, unit, description, raises, lowers, theme=THEMES[name]), value, needs)


def _column(name: str) -> Expression:
    return lambda months: months[name]


def _either(subject: str) -> tuple[str, str]:
    """Sentences for a feature whose direction differs from account to account."""
    return f"{subject} speaks for a surplus", f"{subject} speaks for a deficit"


def _span(n: int) -> tuple[_CashflowFeature, ...]:
    ago = "in the last month" if n == 1 else f"in the last {n} months"
    return (
        _define(
            f"net_flow_to_movement_{n}m", "", f"Money in less money out {ago}, over what moves in a usual month.",
            *_either(f"The net flow {ago}"), lambda months: _ratio(months[f"_net_{n}m"].cast("float64"), _typical(months)),
        ),
        _define(
            f"expense_to_income_{n}m", "", f"Money that went out over money that came in, {ago}.",
            *_either(f"The spending beside the income {ago}"),
            lambda months: _ratio(months[f"_out_{n}m"].cast("float64"), months[f"_in_{n}m"].cast("float64")),
        ),
    )  # fmt: skip


def _amounts(n: int) -> tuple[_CashflowFeature, ...]:
    ago = "in the last month" if n == 1 else f"in the last {n} months"
    return (
        _define(
            f"income_amount_{n}m", "currency", f"Money that came in {ago}.",
            *_either(f"The income {ago}"), lambda months: _money(months[f"_in_{n}m"]),
        ),
        _define(
            f"expense_amount_{n}m", "currency", f"Money that went out {ago}.",
            *_either(f"The spending {ago}"), lambda months: _money(months[f"_out_{n}m"]),
        ),
    )  # fmt: skip


def _outcomes() -> tuple[_CashflowFeature, ...]:
    return (
        _define(
            "was_surplus_1m", "", "Whether the month that has ended was a surplus.",
            *_either("The outcome of the last month"), lambda months: months._surplus_1m,
        ),
        *(
            _define(
                f"n_surplus_{n}m", "months", f"Months of the last {n} with a surplus.",
                *_either(f"The outcome of the last {n} months"), _column(f"_surplus_{n}m"),
            )
            for n in (3, 6, 12)
        ),
        _define(
            "net_flow_before_to_movement", "", "Money in less money out in the month before the last, over what moves in a usual month.",
            *_either("The net flow of the month before the last"),
            lambda months: _ratio(months._net_before.cast("float64"), _typical(months)),
        ),
        _define(
            "was_surplus_year_ago", "", "Whether the month to come was a surplus a year before; missing without a year of history.",
            "The same month was a surplus a year before", "The same month was a deficit a year before",
            lambda months: months._year_ago.isnull().ifelse(ibis.null("float64"), (months._year_ago > 0).ifelse(1.0, 0.0)),
        ),
        _define(
            "net_flow_year_ago_to_movement", "", "Net flow of the month to come a year before, over what moves in a usual month.",
            *_either("The net flow of the same month a year before"),
            lambda months: _ratio(months._year_ago.cast("float64"), _typical(months)),
        ),
    )  # fmt: skip


def _calendar() -> tuple[_CashflowFeature, ...]:
    season = _either("The season")

    def angle(months: ir.Table) -> ir.Value:
        return months.as_of.month().cast("float64") * (2 * math.pi / 12)

    def days(months: ir.Table) -> ir.Value:
        following = (months.as_of + ibis.interval(months=1)).cast("timestamp(6)")
        return following.delta(months.as_of, unit="microsecond").cast("float64") / _DAY

    return (
        _define("next_month_sin", "", "The month to come as a point of a circle.", *season, lambda months: angle(months).sin()),
        _define("next_month_cos", "", "The month to come as a point of a circle.", *season, lambda months: angle(months).cos()),
        _define("next_month_number", "", "The month to come, 1 to 12.", *season, lambda months: months.as_of.month()),
        _define("next_month_days", "days", "Length of the month to come.", *_either("The length of the month to come"), days),
    )


def _flows() -> tuple[_CashflowFeature, ...]:
    def recurring(side: str) -> Expression:
        return lambda months: months[f"_recurring_{side}"].fill_null(0).cast("float64")

    return (
        _define(
            SCALE, "currency a month",
            "Half of what came in and went out in a usual month, never below 1; missing in an account's first month, which is no measure.",
            *_either("The size of the monthly movements"),
            lambda months: (months._covered > 1).ifelse(_money(_typical(months)), ibis.null("float64")),
        ),
        _define(
            "recurring_income_to_movement", "", "Income that came in each of the last three months, over what moves in a usual month.",
            "Much of the income recurs", "Little of the income recurs",
            lambda months: _ratio(recurring("in")(months), _typical(months)),
        ),
        _define(
            "fixed_costs_to_movement", "", "Spending that went out in each of the last three months, over what moves in a usual month.",
            *_either("The fixed costs"), lambda months: _ratio(recurring("out")(months), _typical(months)),
        ),
        _define(
            "recurring_surplus_to_movement", "", "Recurring income less fixed costs, over what moves in a usual month.",
            *_either("What recurring income leaves after fixed costs"),
            lambda months: _ratio(recurring("in")(months) - recurring("out")(months), _typical(months)),
        ),
        _define(
            "regular_expense_to_income_3m", "",
            "Spending of the last three months, without one-offs and refunds, over their income.",
            *_either("The regular spending beside the income"),
            lambda months: _ratio(_regular(months) * _recent(months), months._in_3m.cast("float64")),
        ),
        _define(
            "regular_expense_to_last_income", "",
            "A month's regular spending, over the income of the last month.",
            *_either("The regular spending beside the last income"),
            lambda months: _ratio(_regular(months), months._in_1m.cast("float64")),
        ),
        _define(
            "n_incomes_3m", "movements", "How often money came in as income in the last three months.",
            *_either("The number of incomes"), lambda months: months._n_in_3m,
        ),
        _define(
            "income_irregularity_3m", "", "Highest less lowest monthly income of the last three months, over that of a usual month.",
            *_either("The regularity of the last three incomes"),
            lambda months: _ratio((months._highest_in_3m - months._least_in_3m).cast("float64"), _usual(months, "_in")),
        ),
        _define(
            "income_trend_1m", "", "Income of the last month over that of a usual month.",
            *_either("The last income beside the usual one"),
            lambda months: _ratio(months._in_1m.cast("float64"), _usual(months, "_in")),
        ),
        _define(
            "expense_trend_1m", "", "Spending of the last month over that of a usual month.",
            *_either("The last spending beside the usual one"),
            lambda months: _ratio(months._out_1m.cast("float64"), _usual(months, "_out")),
        ),
        _define(
            "largest_income_share_1m", "", "Largest single income of the last month, over what moves in a usual month.",
            *_either("The largest income of the last month"),
            lambda months: _ratio(months._largest_in.cast("float64"), _typical(months)),
        ),
        _define(
            "largest_expense_share_1m", "", "Largest single expense of the last month, over what moves in a usual month.",
            *_either("The largest expense of the last month"),
            lambda months: _ratio(months._largest_out.cast("float64"), _typical(months)),
        ),
        _define(
            "income_irregularity_6m", "", "Highest less lowest monthly income of the last six months, over that of a usual month.",
            *_either("The regularity of the income"),
            lambda months: _ratio((months._highest_in - months._least_in).cast("float64"), _usual(months, "_in")),
        ),
        _define(
            "net_flow_range_6m", "", "Highest less lowest net flow of the last six months, over what moves in a usual month.",
            *_either("The swing of the monthly net flows"),
            lambda months: _ratio((months._highest_net - months._lowest_net).cast("float64"), _typical(months)),
        ),
        _define(
            "days_since_income", "days", "Days from the last income, if within six months, to the end of the month.",
            *_either("The time since the last income"),
            lambda months: months.as_of.delta(months._last_income, unit="microsecond").cast("float64") / _DAY,
        ),
        _define(
            "n_transactions_1m", "movements", "Movements of the last month.",
            *_either("The number of movements of the last month"), lambda months: months._n,
        ),
        *(
            _define(
                f"n_penalties_{n}m", "penalties", f"Penalties and returned payments of the last {n} months.",
                *_either(f"Penalties of the last {n} months"), _column(f"_penalties_{n}m"),
            )
            for n in (3, 12)
        ),
        _define(
            "history_months", "months", "Months since the account's first movement on record.",
            *_either("The length of the history"), lambda months: months._number - months._first + 1,
        ),
    )  # fmt: skip


def _declared() -> tuple[_CashflowFeature, ...]:
    """What moves beside the income that the owner declared: the steadiest measure where earnings come now and then."""

    def of(name: str, description: str, subject: str, part: Expression, largest: float = _LARGEST_RATIO) -> _CashflowFeature:
        def value(months: ir.Table) -> ir.Value:
            return _ratio(part(months).cast("float64"), months._declared, largest)

        return _define(name, "", description, *_either(subject), value, needs="customers.income_amount")

    return (
        of(
            "income_to_declared_1m", "Income of the last month over the declared monthly income.",
            "The last income beside the declared one", lambda months: months._in_1m,
        ),
        of(
            "income_to_declared_3m", "A month's income, of the last three, over the declared monthly income.",
            "The income beside the declared one", lambda months: months._in_3m / _recent(months),
        ),
        of(
            "expense_to_declared_1m", "Spending of the last month over the declared monthly income.",
            "The last spending beside the declared income", lambda months: months._out_1m,
        ),
        of(
            "expense_to_declared_12m", "A month's spending, of the last twelve, over the declared monthly income.",
            "The spending of the last year beside the declared income",
            lambda months: months._out_12m / ibis.least(months._number - months._first + 1, 12),
        ),
        of(
            "regular_expense_to_declared_3m", "A month's regular spending, of the last three, over the declared monthly income.",
            "The regular spending beside the declared income", _regular,
        ),
        of(
            "balance_to_declared", "Closing balance over the declared monthly income.",
            "The closing balance beside the declared income", lambda months: months._closing, 100.0,
        ),
    )  # fmt: skip


def _balances() -> tuple[_CashflowFeature, ...]:
    def of(subject: str, name: str, unit: str, description: str, value: Expression) -> _CashflowFeature:
        return _define(name, unit, description, *_either(subject), value, needs="transactions.balance_amount")

    def relative(part: Callable[[ir.Table], ir.Value], largest: float = _LARGEST_RATIO) -> Expression:
        return lambda months: _ratio(part(months).cast("float64"), _typical(months), largest)

    return (
        of(
            "The closing balance", "balance_amount", "currency", "Closing balance (the lowest, of movements at one moment).",
            lambda months: _money(months._closing),
        ),
        of(
            "The closing balance", "balance_to_movement", "", "Closing balance over what moves in a usual month.",
            relative(lambda months: months._closing, 100.0),
        ),
        of(
            "The closing balance beside the income", "balance_to_income", "months", "Closing balance over the income of a usual month.",
            lambda months: _ratio(months._closing.cast("float64"), _usual(months, "_in"), 100.0),
        ),
        of(
            "The lowest balance of the last month", "lowest_balance_to_movement", "", "Lowest balance of the month, likewise.",
            relative(lambda months: months._lowest, 100.0),
        ),
        of(
            "The balance beside its usual level", "balance_above_usual", "",
            "Closing balance less the mean closing balance of the last six months, over what moves in a usual month.",
            relative(lambda months: months._closing - months._mean_closing),
        ),
        of(
            "The balance beside its lowest", "balance_above_lowest", "",
            "Closing balance less the lowest closing balance of the last six months, over what moves in a usual month.",
            relative(lambda months: months._closing - months._lowest_closing),
        ),
        of(
            "The change of the balance", "balance_change_6m", "", "Change of the closing balance over six months, likewise.",
            relative(lambda months: months._closing - months._closing_before),
        ),
    )  # fmt: skip


CATALOGUE: tuple[_CashflowFeature, ...] = (
    *_outcomes(),
    *(defined for n in SPANS for defined in _span(n)),
    *(defined for n in AMOUNT_SPANS for defined in _amounts(n)),
    *_calendar(),
    *_flows(),
    *_declared(),
    *_balances(),
)
"""Every feature that is defined here."""
