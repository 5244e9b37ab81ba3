"""What is known of a loan when it is applied for, as Ibis expressions: tables to tables, one row per loan.

Every feature stands here by its name, in one of four groups: the loan's own terms, the borrower and the account, the
borrower's ledger *strictly before* the application, and the payment record of a card. What follows from the terms has its formula
in `terms`. A feature needs certain columns; what a source does not bring is left out (`declared`). Protected columns (birth, gender,
...) are read nowhere.

Money is added up in whole ten-thousandths and time is compared in whole microseconds, so that neither the engine nor the order
of the rows changes a value.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.loan_default.terms import CARD_MONTHS, FORMULAS, LARGEST_RATIO
from finrisk_assets.features.arithmetic import clip, finite, ratio, share
from schemas.features import Feature, themes
from schemas.ledger import TABLES, Column

KEYS: tuple[Column, ...] = tuple(
    TABLES["loans"][name] for name in ("loan_id", "customer_id", "applied_at", "is_default", "outcome_known_at")
)
"""The columns that identify a row of the feature table, and its outcome."""

WINDOWS = (30, 90, 180, 365)
"""Days before the application over which the ledger is summed up."""

LIVE_DAYS = 45
"""A ledger that has been silent for longer tells nothing: its features are missing, not zero."""

INCOME_MONTHS = 6
"""Months (of 30 days) over which the regularity of the income is judged."""

NOT_INCOME = ("opening_balance", "refund")
PENALTY = ("penalty", "penalty interest")
CASH = ("cash", "cash withdrawal", "card withdrawal")
"""Categories of the sources, by what they mean here."""

THEMES = themes(
    {
        "amount": ("loan_amount", "loan_to_income_90d"),
        "time to repay": ("term_months",),
        "interest rate": ("annual_rate_pct",),
        "instalment": (
            "instalment_amount",
            *(f"instalment_to_{income}" for income in ("declared_income", "stated_income", "income_90d")),
            "surplus_after_instalment_90d",
        ),
        "income": ("declared_income_amount", *(f"income_amount_{days}d" for days in WINDOWS), "stated_to_ledger_income"),
        "course of the income": ("income_irregularity_6m", "income_trend_90d"),
        "spending": tuple(f"{what}_{days}d" for what in ("expense_amount", "expense_to_income") for days in WINDOWS),
        "large expenses": ("largest_expense_to_income_90d",),
        "cash": ("cash_share_180d",),
        "number of movements": tuple(f"n_transactions_{days}d" for days in WINDOWS),
        "balance": (
            *(f"{what}_balance_{days}d" for what in ("mean", "min") for days in WINDOWS),
            "last_balance_amount",
            "low_balance_share_90d",
            "mean_balance_to_instalment_90d",
        ),
        "swings of the balance": ("balance_range_to_income_180d",),
        "overdrawn account": (*(f"n_penalties_{days}d" for days in WINDOWS), "n_negative_balance_180d"),
        "overdraft limit": ("overdraft_limit_amount",),
        "time as a customer": ("customer_months", "history_months"),
        "payment record": (
            *(f"{what}_6m" for what in ("n_late", "n_very_late", "worst_late", "sum_late", "n_revolving", "n_unused")),
            *(f"{what}_3m" for what in ("n_late", "worst_late")),
            "months_since_late",
            "payment_status_change",
        ),
        "use of the limit": (
            *(f"utilisation_{month}m" for month in CARD_MONTHS),
            *("mean_utilisation_6m", "max_utilisation_6m", "headroom_amount"),
        ),
        "course of the debt": ("utilisation_change_6m", "utilisation_change_3m"),
        "repayments": (
            *(f"paid_to_bill_{month}m" for month in CARD_MONTHS[:-1]),
            *("paid_to_bill_6m", "paid_amount_6m_sum", "min_paid_amount_6m", "max_paid_amount_6m", "paid_to_limit_6m", "n_paid_6m"),
        ),
        "new spending": ("spent_to_limit_1m",),
    }
)
"""What each feature tells about: those of one theme are one reason together."""

_MONTH_DAYS = 30.4375
_UNIT = 10_000
_DAY = 86_400_000_000
_EPOCH = ibis.timestamp("1970-01-01 00:00:00")

Expression = Callable[[ir.Table], ir.Value]


@dataclass(frozen=True)
class _LoanFeature:
    """A feature, the canonical columns that it needs (``table.column``), and its expression over the joined rows.

    A feature without an expression follows from others by its formula in `terms.FORMULAS`.
    """

    feature: Feature
    needs: tuple[str, ...] = ()
    value: Expression | None = None


def declared(columns: Mapping[str, Collection[str]], source_features: Sequence[Feature] = ()) -> tuple[Feature, ...]:
    """Return the features that a source allows, in their order in the model.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source *fills*: ``{name: raw.columns for name, raw in source.tables.items()}``.
        A column that is there but always null must not be among them.
    source_features
        The source's own columns of ``loans`` that are features as they stand.

    Raises
    ------
    ValueError
        Where a source's feature has the name of one defined here, or the source does not fill it.
    """
    filled = {f"{table}.{column}" for table, names in columns.items() for column in names}
    plain = {defined.feature.name for defined in CATALOGUE if defined.value is not None and filled.issuperset(defined.needs)}
    there = plain | {feature.name for feature in source_features}
    follows = {name for name, formula in FORMULAS.items() if there.issuperset(formula.reads)}
    own = tuple(defined.feature for defined in CATALOGUE if defined.feature.name in plain | follows)
    clash = sorted({feature.name for feature in source_features} & {defined.feature.name for defined in CATALOGUE})
    if clash:
        raise ValueError(f"the source's features {', '.join(clash)} are defined here too: rename the source's columns")
    absent = [feature.name for feature in source_features if f"loans.{feature.name}" not in filled]
    if absent:
        raise ValueError(f"the source names the features {', '.join(absent)}, but fills no such columns of its loans")
    return own + tuple(source_features)


def build(tables: Mapping[str, ir.Table], features: Sequence[Feature]) -> ir.Table:
    """Return one row per loan: `KEYS`, then the features.

    Parameters
    ----------
    tables
        ``loans``, and ``customers``, ``accounts``, ``transactions`` where features need them; validated canonical tables.
    features
        As `declared`; a name that is not in `CATALOGUE` is a column of ``loans``.

    Returns
    -------
    ibis.Table
        Lazy; every feature is float64, null where it is missing.

    Raises
    ------
    ValueError
        Where a feature is neither defined here nor a column of ``loans``, or needs a table that is not given.
    """
    wanted = [feature.name for feature in features]
    follows = [name for name in wanted if name in FORMULAS]
    read = [name for formula in follows for name in FORMULAS[formula].reads]
    plain = list(dict.fromkeys([*(name for name in wanted if name not in FORMULAS), *read]))
    catalogue = {defined.feature.name: defined for defined in CATALOGUE}
    loans = tables["loans"]
    unknown = [name for name in plain if name not in catalogue and name not in loans.columns]
    if unknown:
        raise ValueError(f"no feature and no column of the loans is called {', '.join(unknown)}")
    needs: dict[str, set[str]] = {}
    for name in plain:
        for table, column in (need.split(".") for need in (catalogue[name].needs if name in catalogue else ())):
            if table not in tables or column not in tables[table].columns:
                raise ValueError(f"the feature {name} needs {table}.{column}, which is not given")
            needs.setdefault(table, set()).add(column)

    rows = loans.mutate(_applied_us=_micros(loans.applied_at))
    if "customers" in needs:
        rows = _with_owner(rows, tables["customers"], "customer_id", "joined_at", needs["customers"])
    if "accounts" in needs:
        rows = _with_owner(rows, tables["accounts"], "account_id", "opened_at", needs["accounts"])
    if "transactions" in needs:
        rows = _with_ledger(rows, tables["transactions"])
    expressions = {name: catalogue[name].value or _column(name) for name in plain if name in catalogue}
    values = {name: expressions.get(name, _column(name))(rows) for name in plain}
    keys = [column.name for column in KEYS]
    found = rows.select(*keys, **{name: finite(value.cast("float64")) for name, value in values.items()})
    formulas = {name: FORMULAS[name].value(_COLUMNS, *(found[read] for read in FORMULAS[name].reads)) for name in follows}
    return found.select(*keys, **{name: finite(formulas[name]) if name in formulas else found[name] for name in wanted})


# --- what is joined to a loan --------------------------------------------------------------------------------------


def _micros(time: ir.Value) -> ir.IntegerValue:
    return time.delta(_EPOCH, unit="microsecond")


def _known_by_then(known_at: ir.Value, rows: ir.Table) -> ir.BooleanValue:
    """Whether it was known when the loan was applied for; where either moment is unknown, the source's word is taken."""
    return (known_at <= rows.applied_at).fill_null(True)


def _with_owner(rows: ir.Table, owners: ir.Table, key: str, known_at: str, names: Collection[str]) -> ir.Table:
    """Join columns of the loan's customer or account, each null where it became known after the application."""
    one = owners.select(_owner=owners[key], **{f"_{name}": owners[name] for name in {*names, known_at}})
    joined = rows.left_join(one, rows[key] == one._owner).drop("_owner")
    known = _known_by_then(joined[f"_{known_at}"], joined)
    return joined.mutate(**{f"_{name}": known.ifelse(joined[f"_{name}"], ibis.null()) for name in sorted(names)})


def _with_ledger(rows: ir.Table, transactions: ir.Table) -> ir.Table:
    """Join the sums over each borrower's movements before the application: null where there is no live ledger.

    The movements of each application are added up once, by their age (`_BINS`); every window is a sum of these. What depends on the
    application itself is counted in a second look at the last 90 days.
    """
    loans = rows.select("loan_id", "_applied_us", _borrower=rows.customer_id)
    moves = _moves(transactions)
    first = moves.group_by("_owner").aggregate(_first_us=moves._us.min())
    bins = _in_bins(_before(loans, moves, WINDOWS[-1]))
    sums = bins.group_by("loan_id").aggregate(**_over_windows(bins))
    live = loans.join(sums.filter(sums._youngest <= LIVE_DAYS * _DAY), "loan_id").join(first, ibis._._borrower == first._owner)
    live = live.mutate(_history_days=(live._applied_us - live._first_us).cast("float64") / _DAY)
    near = _before(live.select("loan_id", "_borrower", "_applied_us", "_youngest", "_income_90d"), moves, 90)
    # A balance is low below a tenth of the mean monthly income of the last 90 days: 10 * balance < income / 3.
    low = near._balance * 30 < near._income_90d
    counted = near.group_by("loan_id").aggregate(
        _n_low_90d=near.count(where=low).cast("float64"), _last_balance=near._balance.min(where=near._age == near._youngest)
    )
    money = {name: live[name].cast("float64") / _UNIT for name in live.columns if name.startswith(_MONEY)}
    known = live.mutate(**money).drop("_borrower", "_applied_us", "_owner", "_first_us").join(counted, "loan_id")
    known = known.mutate(_last_balance=known._last_balance.cast("float64") / _UNIT).rename(_ledger="loan_id")
    return rows.left_join(known, rows.loan_id == known._ledger).drop("_ledger")


_BINS = (*(30 * month for month in range(INCOME_MONTHS + 1)), WINDOWS[-1])
"""Ages in days between which movements are added up: six months of 30 days, and the rest of the year."""

_MONEY = ("_income_", "_expense_", "_cash_", "_largest_", "_min_", "_max_", "_sum_")


def _before(loans: ir.Table, moves: ir.Table, days: int) -> ir.Table:
    """The movements of the last `days` before each application, their ``_age`` in the open interval (0, days)."""
    before = loans.join(
        moves, [loans._borrower == moves._owner, moves._us < loans._applied_us, moves._us > loans._applied_us - days * _DAY]
    )
    return before.mutate(_age=before._applied_us - before._us)


def _moves(transactions: ir.Table) -> ir.Table:
    """Each movement as it is added up, money in ten-thousandths: worked out here, because one movement comes before many applications."""
    units = (transactions.amount * _UNIT).round().cast("int64")
    balance = (transactions.balance_amount * _UNIT).round().cast("int64")
    credit, category = transactions.direction == "credit", transactions.category.fill_null("")
    return transactions.select(
        _owner=transactions.customer_id,
        _us=_micros(transactions.occurred_at),
        _balance=balance,
        _income=(credit & category.notin(NOT_INCOME)).ifelse(units, 0),
        _expense=credit.ifelse(0, units),
        _cash=(~credit & category.isin(CASH)).ifelse(units, 0),
        _penalty=category.isin(PENALTY).ifelse(1, 0),
        _negative=(balance < 0).fill_null(False).ifelse(1, 0),
    )


def _in_bins(before: ir.Table) -> ir.Table:
    """Sums, counts and extremes per application and bin of age."""
    bin_of_age = ibis.cases(*((before._age < days * _DAY, number) for number, days in enumerate(_BINS[1:])))
    return before.group_by("loan_id", bin=bin_of_age).aggregate(
        youngest=before._age.min(),
        income=before._income.sum().cast("int64"),
        expense=before._expense.sum().cast("int64"),
        cash=before._cash.sum().cast("int64"),
        largest=before._expense.max(),
        n=before.count(),
        n_penalties=before._penalty.sum().cast("int64"),
        n_negative=before._negative.sum().cast("int64"),
        n_balances=before._balance.count(),
        balances=before._balance.sum().cast("int64"),
        lowest=before._balance.min(),
        highest=before._balance.max(),
    )


def _over_windows(bins: ir.Table) -> dict[str, ir.Value]:
    """Sums, counts and extremes per application and window."""

    def total(what: str, days: int, since: int = 0) -> ir.Value:
        inside = [number for number, end in enumerate(_BINS[1:]) if since < end <= days]
        return bins[what].sum(where=bins.bin.isin(inside)).fill_null(0).cast("int64")

    def within(days: int) -> ir.BooleanValue:
        return bins.bin.isin([number for number, end in enumerate(_BINS[1:]) if end <= days])

    found: dict[str, ir.Value] = {
        "_youngest": bins.youngest.min(),
        "_cash_180d": total("cash", 180),
        "_largest_expense_90d": bins.largest.max(where=within(90)).fill_null(0),
        "_n_negative_180d": total("n_negative", 180).cast("float64"),
    }
    for days in WINDOWS:
        found |= {
            f"_income_{days}d": total("income", days),
            f"_expense_{days}d": total("expense", days),
            f"_n_{days}d": total("n", days).cast("float64"),
            f"_n_penalties_{days}d": total("n_penalties", days).cast("float64"),
            f"_n_balances_{days}d": total("n_balances", days),
            f"_sum_balance_{days}d": bins.balances.sum(where=within(days)).cast("int64"),
            f"_min_balance_{days}d": bins.lowest.min(where=within(days)),
            f"_max_balance_{days}d": bins.highest.max(where=within(days)),
        }
    for month in range(INCOME_MONTHS):
        found[f"_income_month_{month}"] = total("income", 30 * (month + 1), 30 * month)
    return found


# --- arithmetic ----------------------------------------------------------------------------------------------------


def _sum(values: Sequence[ir.Value]) -> ir.Value:
    return reduce(add, values)


class _Columns:
    """The arithmetic of `terms` over Ibis columns."""

    def ratio(self, part: ir.Value, whole: ir.Value, largest: float = LARGEST_RATIO) -> ir.Value:
        return ratio(part, whole, largest)

    def greatest(self, values: Iterable[ir.Value]) -> ir.Value:
        return ibis.greatest(*values)


_COLUMNS = _Columns()


def _monthly_income(rows: ir.Table) -> ir.Value:
    return rows._income_90d / 3


def _irregularity(rows: ir.Table) -> ir.Value:
    """Standard deviation over mean of the monthly incomes, over as many of the last months as the history covers."""
    income = [rows[f"_income_month_{month}"] for month in range(INCOME_MONTHS)]
    covered = [(rows._history_days > 30 * month).ifelse(1.0, 0.0) for month in range(INCOME_MONTHS)]
    n = _sum(covered)
    mean = _sum(income) / n
    square = _sum([(value - mean) * (value - mean) * known for value, known in zip(income, covered, strict=True)]) / n
    return ratio(square.sqrt(), mean, 3.0)


# --- the features --------------------------------------------------------------------------------------------------


def _define(
    name: str,
    unit: str,
    description: str,
    raises: str,
    lowers: str,
    needs: str,
    value: Expression,
    monotone: Literal[-1, 0, 1] = 0,
) -> _LoanFeature:
    return _LoanFeature(Feature(name, unit, description, raises, lowers, monotone, THEMES[name]), tuple(needs.split()), value)


def _follows(name: str, unit: str, description: str, raises: str, lowers: str, monotone: Literal[-1, 0, 1] = 0) -> _LoanFeature:
    """A feature that follows from the terms, by its formula in `terms`."""
    return _LoanFeature(Feature(name, unit, description, raises, lowers, monotone, THEMES[name]))


def _column(name: str) -> Expression:
    return lambda rows: rows[name]


_LEDGER = "loans.applied_at transactions.occurred_at transactions.amount transactions.direction transactions.category"
_BALANCE = f"{_LEDGER} transactions.balance_amount"
_INSTALMENT = "loans.instalment_amount"


def _terms() -> tuple[_LoanFeature, ...]:
    return (
        _define(
            "loan_amount", "currency", "Amount lent, or limit granted.",
            "The amount speaks against it", "The amount speaks for it",
            "loans.loan_amount", _column("loan_amount"),
        ),
        _define(
            "term_months", "months", "Months to repay.",
            "The time to repay speaks against it", "The time to repay speaks for it",
            "loans.term_months", _column("term_months"),
        ),
        _define(
            "instalment_amount", "currency a month", "Monthly instalment.",
            "The instalment is high", "The instalment is low",
            _INSTALMENT, _column("instalment_amount"),
        ),
        _define(
            "annual_rate_pct", "percent a year", "Nominal yearly interest rate.",
            "The interest rate is high", "The interest rate is low",
            "loans.annual_rate_pct", _column("annual_rate_pct"), 1,
        ),
    )  # fmt: skip


def _borrower() -> tuple[_LoanFeature, ...]:
    stated = "loans.stated_income_amount"
    return (
        _define(
            "customer_months", "months", "Time since the borrower became a customer.",
            "The borrower has not been a customer for long", "The borrower has been a customer for long",
            "loans.applied_at customers.joined_at",
            lambda rows: (rows._applied_us - _micros(rows._joined_at)) / (_DAY * _MONTH_DAYS),
        ),
        _define(
            "declared_income_amount", "currency a month", "Income that the borrower declared on joining.",
            "The declared income is low", "The declared income is high",
            "customers.income_amount customers.joined_at", _column("_income_amount"), -1,
        ),
        _follows(
            "instalment_to_declared_income", "", "Instalment over the declared income.",
            "The instalment takes much of the declared income", "The instalment takes little of the declared income", 1,
        ),
        _follows(
            "instalment_to_stated_income", "", "Instalment over the income stated in the application.",
            "The instalment takes much of the stated income", "The instalment takes little of the stated income", 1,
        ),
        _define(
            "stated_to_ledger_income", "", "Income stated in the application over the mean monthly income of the last 90 days.",
            "The stated income is not seen on the account", "The stated income is seen on the account",
            f"{stated} {_BALANCE}", lambda rows: ratio(rows.stated_income_amount, _monthly_income(rows)),
        ),
        _define(
            "overdraft_limit_amount", "currency", "Agreed overdraft of the account.",
            "The agreed overdraft speaks against it", "The agreed overdraft speaks for it",
            "loans.applied_at loans.account_id accounts.overdraft_limit_amount accounts.opened_at",
            _column("_overdraft_limit_amount"),
        ),
    )  # fmt: skip


def _per_window(days: int) -> tuple[_LoanFeature, ...]:
    """The features of one window of the ledger."""
    ago = f"in the last {days} days"
    return (
        _define(
            f"income_amount_{days}d", "currency", f"Money that came in {ago}, without refunds.",
            f"Little money came in {ago}", f"Much money came in {ago}", _BALANCE, _column(f"_income_{days}d"),
        ),
        _define(
            f"expense_amount_{days}d", "currency", f"Money that went out {ago}.",
            f"The spending {ago} speaks against it", f"The spending {ago} speaks for it", _BALANCE, _column(f"_expense_{days}d"),
        ),
        _define(
            f"expense_to_income_{days}d", "", f"Money that went out over money that came in, {ago}.",
            f"Much of the income was spent {ago}", f"Little of the income was spent {ago}",
            _BALANCE, lambda rows: ratio(rows[f"_expense_{days}d"], rows[f"_income_{days}d"]), 1,
        ),
        _define(
            f"n_transactions_{days}d", "movements", f"Movements {ago}.",
            f"The number of movements {ago} speaks against it", f"The number of movements {ago} speaks for it",
            _BALANCE, _column(f"_n_{days}d"),
        ),
        _define(
            f"n_penalties_{days}d", "penalties", f"Penalties for a negative balance {ago}.",
            f"Penalties were charged {ago}", f"No penalties were charged {ago}", _BALANCE, _column(f"_n_penalties_{days}d"), 1,
        ),
        _define(
            f"mean_balance_{days}d", "currency", f"Mean balance after a movement {ago}.",
            f"The balance was low {ago}", f"The balance was high {ago}", 
            _BALANCE, lambda rows: rows[f"_sum_balance_{days}d"] / rows[f"_n_balances_{days}d"].nullif(0), -1,
        ),
        _define(
            f"min_balance_{days}d", "currency", f"Lowest balance after a movement {ago}.",
            f"The balance fell low {ago}", f"The balance did not fall low {ago}", _BALANCE, _column(f"_min_balance_{days}d"), -1,
        ),
    )  # fmt: skip


def _ledger() -> tuple[_LoanFeature, ...]:
    return (
        *(defined for days in WINDOWS for defined in _per_window(days)),
        _define(
            "history_months", "months", "Time since the first movement on record.",
            "Little history is on record", "A long history is on record", _BALANCE, lambda rows: rows._history_days / _MONTH_DAYS,
        ),
        _define(
            "last_balance_amount", "currency", "Balance just before the application (the lowest, of movements at one moment).",
            "The balance before the application was low", "The balance before the application was high",
            _BALANCE, _column("_last_balance"), -1,
        ),
        _define(
            "low_balance_share_90d", "", "Share of the last 90 days' movements that left less than a tenth of a month's income.",
            "The balance was often nearly used up", "The balance was seldom nearly used up",
            _BALANCE, lambda rows: share(rows._n_low_90d, rows._n_90d), 1,
        ),
        _define(
            "n_negative_balance_180d", "movements", "Movements of the last 180 days that left the balance below zero.",
            "The account was overdrawn", "The account was not overdrawn", _BALANCE, _column("_n_negative_180d"), 1,
        ),
        _define(
            "balance_range_to_income_180d", "", "Highest less lowest balance of the last 180 days over the mean monthly income.",
            "The balance swings widely", "The balance is steady",
            _BALANCE, lambda rows: ratio(rows._max_balance_180d - rows._min_balance_180d, _monthly_income(rows)),
        ),
        _define(
            "cash_share_180d", "", "Share of cash withdrawals in the spending of the last 180 days.",
            "The share of cash in the spending speaks against it", "The share of cash in the spending speaks for it",
            _BALANCE, lambda rows: share(rows._cash_180d, rows._expense_180d),
        ),
        _define(
            "largest_expense_to_income_90d", "", "Largest single expense of the last 90 days over the mean monthly income.",
            "A single expense was large", "No single expense was large",
            _BALANCE, lambda rows: ratio(rows._largest_expense_90d, _monthly_income(rows)),
        ),
        _define(
            "income_irregularity_6m", "", "Standard deviation over mean of the monthly incomes of the last six months.",
            "The income is irregular", "The income is regular", _BALANCE, _irregularity, 1,
        ),
        _define(
            "income_trend_90d", "", "Income of the last 90 days over that of the 90 days before.",
            "The income has fallen", "The income has grown",
            _BALANCE, lambda rows: ratio(rows._income_90d, rows._income_180d - rows._income_90d),
        ),
        _follows(
            "instalment_to_income_90d", "", "Instalment over the mean monthly income of the last 90 days.",
            "The instalment takes much of the income", "The instalment takes little of the income", 1,
        ),
        _follows(
            "surplus_after_instalment_90d", "", "What is left of a month's income after spending and instalment, as its share.",
            "Little income is left after spending and the instalment", "Enough income is left after spending and the instalment", -1,
        ),
        _follows(
            "loan_to_income_90d", "months", "Amount over the mean monthly income of the last 90 days.",
            "The loan is large for the income", "The loan is small for the income",
        ),
        _follows(
            "mean_balance_to_instalment_90d", "instalments", "Mean balance of the last 90 days over the instalment.",
            "The balance covers few instalments", "The balance covers many instalments", -1,
        ),
    )  # fmt: skip


# --- the payment record of a card ------------------------------------------------------------------------------------


def _card() -> tuple[_LoanFeature, ...]:
    months = {what: [f"{what}_{month}m" for month in CARD_MONTHS] for what in ("payment_status", "bill_amount", "paid_amount")}
    status, bill, paid = (" ".join(f"loans.{name}" for name in names) for names in months.values())

    def all_of(what: str, rows: ir.Table, first: int = 1, last: int = CARD_MONTHS[-1]) -> list[ir.Value]:
        return [rows[f"{what}_{month}m"] for month in range(first, last + 1)]

    def late(rows: ir.Table, least: int = 1, last: int = CARD_MONTHS[-1]) -> ir.Value:
        return _sum([(value >= least).ifelse(1.0, 0.0) for value in all_of("payment_status", rows, last=last)])

    def months_since_late(rows: ir.Table) -> ir.Value:
        newest_first = [(rows[name] > 0, float(month)) for month, name in enumerate(months["payment_status"])]
        return ibis.cases(*newest_first, else_=float(len(CARD_MONTHS)))

    def paid_share(rows: ir.Table) -> ir.Value:
        owed = _sum([ibis.greatest(value, 0.0) for value in all_of("bill_amount", rows, first=2)])
        return clip(share(_sum(all_of("paid_amount", rows, last=CARD_MONTHS[-1] - 1)), owed), 0.0, 2.0)

    def repaid(month: int) -> Expression:
        """What was paid in a month answers the bill of the month before."""
        return lambda rows: clip(share(rows[f"paid_amount_{month}m"], rows[f"bill_amount_{month + 1}m"]), 0.0, 2.0)

    def ago(month: int) -> str:
        return "last month" if month == 1 else f"{month} months ago"

    return (
        _define(
            "n_late_6m", "months", "Months of the last six with a payment overdue.",
            "Payments were often overdue", "Payments were seldom overdue", status, late, 1,
        ),
        _define(
            "n_late_3m", "months", "Months of the last three with a payment overdue.",
            "Payments were overdue of late", "Payments were not overdue of late", status, lambda rows: late(rows, last=3), 1,
        ),
        _define(
            "n_very_late_6m", "months", "Months of the last six with a payment two months overdue or more.",
            "Payments were two months overdue or more", "Payments were not two months overdue",
            status, lambda rows: late(rows, 2), 1,
        ),
        _define(
            "worst_late_6m", "months overdue", "Longest delay of a payment in the last six months.",
            "A payment was long overdue", "No payment was long overdue",
            status, lambda rows: ibis.greatest(*all_of("payment_status", rows), 0), 1,
        ),
        _define(
            "worst_late_3m", "months overdue", "Longest delay of a payment in the last three months.",
            "A payment was long overdue of late", "No payment was long overdue of late",
            status, lambda rows: ibis.greatest(*all_of("payment_status", rows, last=3), 0), 1,
        ),
        _define(
            "sum_late_6m", "months overdue", "Sum of the delays of the last six months.",
            "The delays of payments add up", "The delays of payments do not add up",
            status, lambda rows: _sum([ibis.greatest(value, 0) for value in all_of("payment_status", rows)]), 1,
        ),
        _define(
            "months_since_late", "months", "Months since a payment was last overdue; 6 where none was.",
            "A payment was overdue not long ago", "No payment has been overdue for long", status, months_since_late, -1,
        ),
        _define(
            "payment_status_change", "months overdue", "Payment status last month less that two months ago.",
            "The payment record got worse", "The payment record got better",
            status, lambda rows: rows.payment_status_1m - rows.payment_status_2m,
        ),
        _define(
            "n_revolving_6m", "months", "Months of the last six in which only the minimum was paid.",
            "Only the minimum was paid in some months", "More than the minimum was paid",
            status, lambda rows: _sum([(value == 0).ifelse(1.0, 0.0) for value in all_of("payment_status", rows)]),
        ),
        _define(
            "n_unused_6m", "months", "Months of the last six in which nothing was spent.",
            "The card was hardly used", "The card was used",
            status, lambda rows: _sum([(value == -2).ifelse(1.0, 0.0) for value in all_of("payment_status", rows)]),
        ),
        *(
            _follows(
                f"utilisation_{month}m", "", f"Bill over limit {ago(month)}.",
                f"Much of the limit was used {ago(month)}", f"Little of the limit was used {ago(month)}",
            )
            for month in CARD_MONTHS
        ),
        _follows(
            "mean_utilisation_6m", "", "Mean of bill over limit in the last six months.",
            "Much of the limit is used", "Little of the limit is used",
        ),
        _follows(
            "max_utilisation_6m", "", "Highest bill over limit in the last six months.",
            "The limit was nearly used up", "The limit was never nearly used up",
        ),
        _follows(
            "utilisation_change_6m", "", "Bill over limit last month less that six months ago.",
            "The debt has changed for the worse", "The debt has changed for the better",
        ),
        _follows(
            "utilisation_change_3m", "", "Bill over limit last month less that three months ago.",
            "The debt has lately changed for the worse", "The debt has lately changed for the better",
        ),
        _follows(
            "headroom_amount", "currency", "Limit less last bill.",
            "Little of the limit is left", "Much of the limit is left",
        ),
        *(
            _define(
                f"paid_to_bill_{month}m", "", f"What was paid {ago(month)} over the bill before it; missing without a bill.",
                f"Little of the bill was paid {ago(month)}", f"Much of the bill was paid {ago(month)}",
                f"{bill} {paid}", repaid(month),
            )
            for month in CARD_MONTHS[:-1]
        ),
        _define(
            "paid_to_bill_6m", "", "What was paid over what was billed, in the last six months.",
            "Little of the bills was paid", "Much of the bills was paid", f"{bill} {paid}", paid_share,
        ),
        _define(
            "paid_amount_6m_sum", "currency", "What was paid in the last six months.",
            "Little was repaid in the last six months", "Much was repaid in the last six months",
            paid, lambda rows: _sum(all_of("paid_amount", rows)), -1,
        ),
        _define(
            "min_paid_amount_6m", "currency", "Smallest monthly payment of the last six months.",
            "In some months hardly anything was repaid", "Something was repaid in every month",
            paid, lambda rows: ibis.least(*all_of("paid_amount", rows)), -1,
        ),
        _define(
            "max_paid_amount_6m", "currency", "Largest monthly payment of the last six months.",
            "No large payment was made", "A large payment was made",
            paid, lambda rows: ibis.greatest(*all_of("paid_amount", rows)), -1,
        ),
        _follows(
            "paid_to_limit_6m", "", "Mean monthly payment of the last six months over the limit.",
            "Payments were small for the limit", "Payments were large for the limit", -1,
        ),
        _define(
            "n_paid_6m", "months", "Months of the last six with a payment.",
            "In some months nothing was paid", "Something was paid in most months",
            paid, lambda rows: _sum([(value > 0).ifelse(1.0, 0.0) for value in all_of("paid_amount", rows)]), -1,
        ),
        _follows(
            "spent_to_limit_1m", "", "New spending in the last month (change of the bill and what was paid) over the limit.",
            "The last month's spending speaks against it", "The last month's spending speaks for it",
        ),
    )  # fmt: skip


CATALOGUE: tuple[_LoanFeature, ...] = (*_terms(), *_borrower(), *_ledger(), *_card())
"""Every feature that is defined here, whatever the source."""
