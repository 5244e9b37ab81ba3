"""Every feature of an application for a loan: its words, its expression over the joined rows, and the columns that it needs.

Four groups: the loan's own terms, the borrower and the account, the borrower's ledger *strictly before* the application, and the payment
record of a card. A feature without an expression follows from others by its formula in `terms.FORMULAS`. No feature reads a protected
column (birth, gender, …). `joins` computes the columns that begin with an underscore.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.loan_default.joins import INCOME_MONTHS, WINDOWS
from finrisk_assets.features.arithmetic import clip, epoch_micros, ratio, share
from finrisk_assets.features.feature_definition import Expression, FeatureDefinition, column, define, with_themes
from finrisk_assets.features.loan_terms import CARD_MONTHS
from schemas.features import themes
from schemas.timestamps import DAY_US

THEMES: Mapping[str, str] = themes(
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
"""Feature -> its subject. Features of one subject count as one reason together."""

_MONTH_DAYS = 30.4375
"""Days of a mean month."""


# Expressions ------------------------------------------------------------------------------------------------------------------


def _sum(values: Sequence[ir.Value]) -> ir.Value:
    return reduce(add, values)


def _monthly_income(rows: ir.Table) -> ir.Value:
    return rows._income_90d / 3


def _irregularity(rows: ir.Table) -> ir.Value:
    """Return standard deviation over mean of the monthly incomes, over as many of the last months as the history covers."""
    incomes = [rows[f"_income_month_{month}"] for month in range(INCOME_MONTHS)]
    covered = [(rows._history_days > 30 * month).ifelse(1.0, 0.0) for month in range(INCOME_MONTHS)]
    n = _sum(covered)
    mean = _sum(incomes) / n
    variance = _sum([(income - mean) * (income - mean) * is_covered for income, is_covered in zip(incomes, covered, strict=True)]) / n
    return ratio(variance.sqrt(), mean, 3.0)


# Definitions ------------------------------------------------------------------------------------------------------------------

_LEDGER_NEEDS = (
    "loans.applied_at transactions.occurred_at transactions.amount transactions.direction transactions.category transactions.balance_amount"
)
_INSTALMENT = "loans.instalment_amount"


def _terms() -> tuple[FeatureDefinition, ...]:
    return (
        define(
            "loan_amount", "currency", "Amount lent, or limit granted.",
            "The amount is small", "The amount is large",
            column("loan_amount"), needs="loans.loan_amount",
        ),
        define(
            "term_months", "months", "Months to repay.",
            "The time to repay is short", "The time to repay is long",
            column("term_months"), needs="loans.term_months",
        ),
        define(
            "instalment_amount", "currency a month", "Monthly instalment.",
            "The instalment is low", "The instalment is high",
            column("instalment_amount"), needs=_INSTALMENT,
        ),
        define(
            "annual_rate_pct", "percent a year", "Nominal yearly interest rate.",
            "The interest rate is low", "The interest rate is high",
            column("annual_rate_pct"), 1, needs="loans.annual_rate_pct",
        ),
    )  # fmt: skip


def _borrower() -> tuple[FeatureDefinition, ...]:
    stated = "loans.stated_income_amount"
    return (
        define(
            "customer_months", "months", "Time since the borrower became a customer.",
            "The borrower has not been a customer for long", "The borrower has been a customer for long",
            lambda rows: (rows._applied_us - epoch_micros(rows._joined_at)) / (DAY_US * _MONTH_DAYS),
            needs="loans.applied_at customers.joined_at",
        ),
        define(
            "declared_income_amount", "currency a month", "Income that the borrower declared on joining.",
            "The declared income is low", "The declared income is high",
            column("_income_amount"), -1, needs="customers.income_amount customers.joined_at",
        ),
        define(
            "instalment_to_declared_income", "", "Instalment over the declared income.",
            "The instalment takes little of the declared income", "The instalment takes much of the declared income", None, 1,
        ),
        define(
            "instalment_to_stated_income", "", "Instalment over the income stated in the application.",
            "The instalment takes little of the stated income", "The instalment takes much of the stated income", None, 1,
        ),
        define(
            "stated_to_ledger_income", "", "Income stated in the application over the mean monthly income of the last 90 days.",
            "The stated income is below that of the account", "The stated income is above that of the account",
            lambda rows: ratio(rows.stated_income_amount, _monthly_income(rows)), needs=f"{stated} {_LEDGER_NEEDS}",
            low_below=1.0, high_above=1.0,
        ),
        define(
            "overdraft_limit_amount", "currency", "Agreed overdraft of the account.",
            "The agreed overdraft is small", "The agreed overdraft is large",
            column("_overdraft_limit_amount"), zero="No overdraft is agreed",
            needs="loans.applied_at loans.account_id accounts.overdraft_limit_amount accounts.opened_at",
        ),
    )  # fmt: skip


def _window_features(days: int) -> tuple[FeatureDefinition, ...]:
    """Return the features of one window of the ledger."""
    ago = f"in the last {days} days"
    return (
        define(
            f"income_amount_{days}d", "currency", f"Money that came in {ago}, without refunds.",
            f"Little money came in {ago}", f"Much money came in {ago}", column(f"_income_{days}d"), needs=_LEDGER_NEEDS,
        ),
        define(
            f"expense_amount_{days}d", "currency", f"Money that went out {ago}.",
            f"Little was spent {ago}", f"Much was spent {ago}", column(f"_expense_{days}d"), needs=_LEDGER_NEEDS,
        ),
        define(
            f"expense_to_income_{days}d", "", f"Money that went out over money that came in, {ago}.",
            f"Little of the income was spent {ago}", f"Much of the income was spent {ago}",
            lambda rows: ratio(rows[f"_expense_{days}d"], rows[f"_income_{days}d"]), 1, needs=_LEDGER_NEEDS,
        ),
        define(
            f"n_transactions_{days}d", "movements", f"Movements {ago}.",
            f"There were few movements {ago}", f"There were many movements {ago}",
            column(f"_n_{days}d"), needs=_LEDGER_NEEDS,
        ),
        define(
            f"n_penalties_{days}d", "penalties", f"Penalties for a negative balance {ago}.",
            "", f"Penalties were charged {ago}", column(f"_n_penalties_{days}d"), 1, needs=_LEDGER_NEEDS,
            zero=f"No penalties were charged {ago}",
        ),
        define(
            f"mean_balance_{days}d", "currency", f"Mean balance after a movement {ago}.",
            f"The balance was low {ago}", f"The balance was high {ago}",
            lambda rows: rows[f"_sum_balance_{days}d"] / rows[f"_n_balances_{days}d"].nullif(0), -1, needs=_LEDGER_NEEDS,
        ),
        define(
            f"min_balance_{days}d", "currency", f"Lowest balance after a movement {ago}.",
            f"The balance fell low {ago}", f"The balance did not fall low {ago}", column(f"_min_balance_{days}d"), -1, needs=_LEDGER_NEEDS,
        ),
    )  # fmt: skip


def _ledger() -> tuple[FeatureDefinition, ...]:
    return (
        *(definition for days in WINDOWS for definition in _window_features(days)),
        define(
            "history_months", "months", "Time since the first movement on record.",
            "Little history is on record", "A long history is on record",
            lambda rows: rows._history_days / _MONTH_DAYS, needs=_LEDGER_NEEDS,
        ),
        define(
            "last_balance_amount", "currency", "Balance just before the application (the lowest, of movements at one moment).",
            "The balance before the application was low", "The balance before the application was high",
            column("_last_balance"), -1, needs=_LEDGER_NEEDS,
        ),
        define(
            "low_balance_share_90d", "", "Share of the last 90 days' movements that left less than a tenth of a month's income.",
            "The balance was seldom nearly used up", "The balance was nearly used up",
            lambda rows: share(rows._n_low_90d, rows._n_90d), 1, needs=_LEDGER_NEEDS, zero="The balance was never nearly used up",
        ),
        define(
            "n_negative_balance_180d", "movements", "Movements of the last 180 days that left the balance below zero.",
            "", "The account was overdrawn", column("_n_negative_180d"), 1, needs=_LEDGER_NEEDS,
            zero="The account was not overdrawn",
        ),
        define(
            "balance_range_to_income_180d", "", "Highest less lowest balance of the last 180 days over the mean monthly income.",
            "The balance is steady", "The balance swings widely",
            lambda rows: ratio(rows._max_balance_180d - rows._min_balance_180d, _monthly_income(rows)), needs=_LEDGER_NEEDS,
        ),
        define(
            "cash_share_180d", "", "Share of cash withdrawals in the spending of the last 180 days.",
            "Little of the spending was cash", "Much of the spending was cash",
            lambda rows: share(rows._cash_180d, rows._expense_180d), needs=_LEDGER_NEEDS, zero="None of the spending was cash",
        ),
        define(
            "largest_expense_to_income_90d", "", "Largest single expense of the last 90 days over the mean monthly income.",
            "No single expense was large", "A single expense was large",
            lambda rows: ratio(rows._largest_expense_90d, _monthly_income(rows)), needs=_LEDGER_NEEDS,
        ),
        define(
            "income_irregularity_6m", "", "Standard deviation over mean of the monthly incomes of the last six months.",
            "The income is regular", "The income is irregular", _irregularity, 1, needs=_LEDGER_NEEDS,
        ),
        define(
            "income_trend_90d", "", "Income of the last 90 days over that of the 90 days before.",
            "The income has fallen", "The income has grown",
            lambda rows: ratio(rows._income_90d, rows._income_180d - rows._income_90d), needs=_LEDGER_NEEDS,
            low_below=1.0, high_above=1.0,
        ),
        define(
            "instalment_to_income_90d", "", "Instalment over the mean monthly income of the last 90 days.",
            "The instalment takes little of the income", "The instalment takes much of the income", None, 1,
        ),
        define(
            "surplus_after_instalment_90d", "", "What is left of a month's income after spending and instalment, as its share.",
            "Little income is left after spending and the instalment", "Much income is left after spending and the instalment", None, -1,
            high_above=0.0,
        ),
        define(
            "loan_to_income_90d", "months", "Amount over the mean monthly income of the last 90 days.",
            "The loan is small for the income", "The loan is large for the income", None,
        ),
        define(
            "mean_balance_to_instalment_90d", "instalments", "Mean balance of the last 90 days over the instalment.",
            "The balance covers few instalments", "The balance covers many instalments", None, -1,
        ),
    )  # fmt: skip


def _card() -> tuple[FeatureDefinition, ...]:
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
        # What was paid in a month answers the bill of the month before.
        return lambda rows: clip(share(rows[f"paid_amount_{month}m"], rows[f"bill_amount_{month + 1}m"]), 0.0, 2.0)

    def ago(month: int) -> str:
        return "last month" if month == 1 else f"{month} months ago"

    return (
        define(
            "n_late_6m", "months", "Months of the last six with a payment overdue.",
            "Payments were seldom overdue", "Payments were overdue", late, 1, needs=status, zero="No payment was overdue in six months",
        ),
        define(
            "n_late_3m", "months", "Months of the last three with a payment overdue.",
            "", "Payments were overdue of late", lambda rows: late(rows, last=3), 1, needs=status,
            zero="Payments were not overdue of late",
        ),
        define(
            "n_very_late_6m", "months", "Months of the last six with a payment two months overdue or more.",
            "", "Payments were two months overdue or more",
            lambda rows: late(rows, 2), 1, needs=status, zero="Payments were not two months overdue",
        ),
        define(
            "worst_late_6m", "months overdue", "Longest delay of a payment in the last six months.",
            "", "A payment was overdue",
            lambda rows: ibis.greatest(*all_of("payment_status", rows), 0), 1, needs=status, zero="No payment was overdue in six months",
        ),
        define(
            "worst_late_3m", "months overdue", "Longest delay of a payment in the last three months.",
            "", "A payment was overdue of late",
            lambda rows: ibis.greatest(*all_of("payment_status", rows, last=3), 0), 1, needs=status,
            zero="No payment was overdue of late",
        ),
        define(
            "sum_late_6m", "months overdue", "Sum of the delays of the last six months.",
            "", "The delays of payments add up",
            lambda rows: _sum([ibis.greatest(value, 0) for value in all_of("payment_status", rows)]), 1, needs=status,
            zero="No payment was overdue in six months",
        ),
        define(
            "months_since_late", "months", "Months since a payment was last overdue; 6 where none was.",
            "A payment was overdue not long ago", "No payment has been overdue for long", months_since_late, -1, needs=status,
            low_below=float(len(CARD_MONTHS)), high_above=2.0,
        ),
        define(
            "payment_status_change", "months overdue", "Payment status last month less that two months ago.",
            "The payment record got better", "The payment record got worse",
            lambda rows: rows.payment_status_1m - rows.payment_status_2m, needs=status, low_below=0.0, high_above=0.0,
        ),
        define(
            "n_revolving_6m", "months", "Months of the last six in which only the minimum was paid.",
            "Only the minimum was paid in few months", "Only the minimum was paid in some months",
            lambda rows: _sum([(value == 0).ifelse(1.0, 0.0) for value in all_of("payment_status", rows)]), needs=status,
            zero="In no month was only the minimum paid",
        ),
        define(
            "n_unused_6m", "months", "Months of the last six in which nothing was spent.",
            "The card was unused in few months", "The card was unused in some months",
            lambda rows: _sum([(value == -2).ifelse(1.0, 0.0) for value in all_of("payment_status", rows)]), needs=status,
            zero="The card was used in every month",
        ),
        *(
            define(
                f"utilisation_{month}m", "", f"Bill over limit {ago(month)}.",
                f"Little of the limit was used {ago(month)}", f"Much of the limit was used {ago(month)}", None,
            )
            for month in CARD_MONTHS
        ),
        define(
            "mean_utilisation_6m", "", "Mean of bill over limit in the last six months.",
            "Little of the limit is used", "Much of the limit is used", None,
        ),
        define(
            "max_utilisation_6m", "", "Highest bill over limit in the last six months.",
            "At most a little of the limit was used", "At the most, much of the limit was used", None,
        ),
        define(
            "utilisation_change_6m", "", "Bill over limit last month less that six months ago.",
            "The debt has fallen over six months", "The debt has grown over six months", None, low_below=0.0, high_above=0.0,
        ),
        define(
            "utilisation_change_3m", "", "Bill over limit last month less that three months ago.",
            "The debt has fallen over three months", "The debt has grown over three months", None, low_below=0.0, high_above=0.0,
        ),
        define(
            "headroom_amount", "currency", "Limit less last bill.",
            "Little of the limit is left", "Much of the limit is left", None,
        ),
        *(
            define(
                f"paid_to_bill_{month}m", "", f"What was paid {ago(month)} over the bill before it; missing without a bill.",
                f"Little of the bill was paid {ago(month)}", f"Much of the bill was paid {ago(month)}",
                repaid(month), needs=f"{bill} {paid}",
            )
            for month in CARD_MONTHS[:-1]
        ),
        define(
            "paid_to_bill_6m", "", "What was paid over what was billed, in the last six months.",
            "Little of the bills was paid", "Much of the bills was paid", paid_share, needs=f"{bill} {paid}",
        ),
        define(
            "paid_amount_6m_sum", "currency", "What was paid in the last six months.",
            "Little was repaid in the last six months", "Much was repaid in the last six months",
            lambda rows: _sum(all_of("paid_amount", rows)), -1, needs=paid,
        ),
        define(
            "min_paid_amount_6m", "currency", "Smallest monthly payment of the last six months.",
            "In some months hardly anything was repaid", "Something was repaid in every month",
            lambda rows: ibis.least(*all_of("paid_amount", rows)), -1, needs=paid, zero="In some months nothing was repaid", high_above=0.0,
        ),
        define(
            "max_paid_amount_6m", "currency", "Largest monthly payment of the last six months.",
            "No large payment was made", "A large payment was made",
            lambda rows: ibis.greatest(*all_of("paid_amount", rows)), -1, needs=paid,
        ),
        define(
            "paid_to_limit_6m", "", "Mean monthly payment of the last six months over the limit.",
            "Payments were small for the limit", "Payments were large for the limit", None, -1,
        ),
        define(
            "n_paid_6m", "months", "Months of the last six with a payment.",
            "In some months nothing was paid", "Something was paid in most months",
            lambda rows: _sum([(value > 0).ifelse(1.0, 0.0) for value in all_of("paid_amount", rows)]), -1, needs=paid,
            low_below=float(len(CARD_MONTHS)), high_above=len(CARD_MONTHS) / 2,
        ),
        define(
            "spent_to_limit_1m", "", "New spending in the last month (change of the bill and what was paid) over the limit.",
            "Little of the limit was spent anew last month", "Much of the limit was spent anew last month", None,
        ),
    )  # fmt: skip


CATALOGUE: tuple[FeatureDefinition, ...] = with_themes(THEMES, _terms(), _borrower(), _ledger(), _card())
"""Every feature that is defined here, whatever the source, in the order of the model's inputs."""
