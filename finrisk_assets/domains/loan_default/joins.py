"""What is joined to an application for a loan, as Ibis expressions: the customer, the account, and sums over the ledger before it.

Every column that is added begins with an underscore; `catalogue` turns the columns into features.
"""

from collections.abc import Collection

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import epoch_micros, to_currency, to_units
from finrisk_assets.ledger.categories import CASH, PENALTY, is_income
from schemas.timestamps import DAY_US

WINDOWS = (30, 90, 180, 365)
"""Days before the application over which the ledger is summed up."""

INCOME_MONTHS = 6
"""Months (of 30 days) over which the regularity of the income is judged."""

MAX_SILENCE_DAYS = 45
"""Days. Where the last movement is older, the features of the ledger are missing, not zero: the account is no longer used."""

_BINS = (*(30 * month for month in range(INCOME_MONTHS + 1)), WINDOWS[-1])
"""Ages in days between which movements are added up: six months of 30 days, and the rest of the year."""

_MONEY_PREFIXES = ("_income_", "_expense_", "_cash_", "_largest_", "_min_", "_max_", "_sum_")


def join_owner(rows: ir.Table, owners: ir.Table, key: str, known_at: str, names: Collection[str]) -> ir.Table:
    """Join columns of the loan's customer or account, each null where it became known after the application.

    Parameters
    ----------
    rows
        Loans, with `key` and ``applied_at``.
    owners
        Customers or accounts, one row per `key`.
    known_at
        Column of `owners`: when the owner became known.
    names
        Columns of `owners` to join, each under its name with an underscore before it.
    """
    columns = owners.select(_owner=owners[key], **{f"_{name}": owners[name] for name in {*names, known_at}})
    joined = rows.left_join(columns, rows[key] == columns._owner).drop("_owner")
    # Where either time is unknown, the source's word is taken.
    is_known = (joined[f"_{known_at}"] <= joined.applied_at).fill_null(True)
    return joined.mutate(**{f"_{name}": is_known.ifelse(joined[f"_{name}"], ibis.null()) for name in sorted(names)})


def join_ledger_sums(rows: ir.Table, transactions: ir.Table) -> ir.Table:
    """Join the sums over each borrower's movements before the application: null where there is no live ledger.

    The movements of each application are added up once, by their age (`_BINS`); every window is a sum of these. What depends on the
    application itself is counted in a second pass over the last 90 days.

    Parameters
    ----------
    rows
        Loans, with ``loan_id``, ``customer_id`` and ``_applied_us`` (microseconds since 1970).
    transactions
        Validated.
    """
    loans = rows.select("loan_id", "_applied_us", _borrower=rows.customer_id)
    movements = _select_movements(transactions)
    first = movements.group_by("_owner").aggregate(_first_us=movements._us.min())
    bins = _add_up_by_age(_join_movements_before(loans, movements, WINDOWS[-1]))
    sums = bins.group_by("loan_id").aggregate(**_window_sums(bins))
    applications = loans.join(sums.filter(sums._youngest <= MAX_SILENCE_DAYS * DAY_US), "loan_id").join(
        first, ibis._._borrower == first._owner
    )
    applications = applications.mutate(_history_days=(applications._applied_us - applications._first_us).cast("float64") / DAY_US)
    recent = _join_movements_before(applications.select("loan_id", "_borrower", "_applied_us", "_youngest", "_income_90d"), movements, 90)
    # A balance is low below a tenth of the mean monthly income of the last 90 days: 10 * balance < income / 3.
    is_low = recent._balance * 30 < recent._income_90d
    counts = recent.group_by("loan_id").aggregate(
        _n_low_90d=recent.count(where=is_low).cast("float64"), _last_balance=recent._balance.min(where=recent._age == recent._youngest)
    )
    money = {name: to_currency(applications[name]) for name in applications.columns if name.startswith(_MONEY_PREFIXES)}
    ledger = applications.mutate(**money).drop("_borrower", "_applied_us", "_owner", "_first_us").join(counts, "loan_id")
    ledger = ledger.mutate(_last_balance=to_currency(ledger._last_balance)).rename(_ledger="loan_id")
    return rows.left_join(ledger, rows.loan_id == ledger._ledger).drop("_ledger")


def _join_movements_before(loans: ir.Table, movements: ir.Table, days: int) -> ir.Table:
    """Join the movements of the last `days` before each application, their ``_age`` (microseconds) in the open interval (0, days)."""
    before = loans.join(
        movements,
        [loans._borrower == movements._owner, movements._us < loans._applied_us, movements._us > loans._applied_us - days * DAY_US],
    )
    return before.mutate(_age=before._applied_us - before._us)


def _select_movements(transactions: ir.Table) -> ir.Table:
    """Return each movement as it is added up, in units: worked out here, because one movement comes before many applications."""
    units, balance = to_units(transactions.amount), to_units(transactions.balance_amount)
    is_credit, category = transactions.direction == "credit", transactions.category.fill_null("")
    return transactions.select(
        _owner=transactions.customer_id,
        _us=epoch_micros(transactions.occurred_at),
        _balance=balance,
        _income=is_income(is_credit, category).ifelse(units, 0),
        _expense=is_credit.ifelse(0, units),
        _cash=(~is_credit & category.isin(CASH)).ifelse(units, 0),
        _penalty=category.isin(PENALTY).ifelse(1, 0),
        _negative=(balance < 0).fill_null(False).ifelse(1, 0),
    )


def _add_up_by_age(before: ir.Table) -> ir.Table:
    """Return sums, counts and extremes per application and bin of age."""
    bin_of_age = ibis.cases(*((before._age < days * DAY_US, number) for number, days in enumerate(_BINS[1:])))
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


def _window_sums(bins: ir.Table) -> dict[str, ir.Value]:
    """Return sums, counts and extremes per application and window."""

    def total(name: str, days: int, since: int = 0) -> ir.Value:
        inside = [number for number, end in enumerate(_BINS[1:]) if since < end <= days]
        return bins[name].sum(where=bins.bin.isin(inside)).fill_null(0).cast("int64")

    def within(days: int) -> ir.BooleanValue:
        return bins.bin.isin([number for number, end in enumerate(_BINS[1:]) if end <= days])

    sums: dict[str, ir.Value] = {
        "_youngest": bins.youngest.min(),
        "_cash_180d": total("cash", 180),
        "_largest_expense_90d": bins.largest.max(where=within(90)).fill_null(0),
        "_n_negative_180d": total("n_negative", 180).cast("float64"),
    }
    for days in WINDOWS:
        sums |= {
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
        sums[f"_income_month_{month}"] = total("income", 30 * (month + 1), 30 * month)
    return sums
