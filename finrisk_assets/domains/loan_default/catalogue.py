"""Every feature of an application for a loan: its words, its expression over the joined rows, and the columns that it needs.

Four groups: the loan's own terms, the borrower and the account, the calendar months of the borrower's ledger that ended *before* the
application, and the payment record of a card. A feature without an expression follows from others by its formula in
`loan_terms.FORMULAS`. No feature reads a protected column (birth, gender, …). `joins` and `ledger.complete_months` compute the columns that
begin with an underscore.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add

import ibis
import ibis.expr.types as ir

from finrisk_assets.domains.loan_default.actionability import LARGEST_SHORTFALL
from finrisk_assets.features.arithmetic import clip, epoch_micros, ratio, share
from finrisk_assets.features.feature_definition import Expression, FeatureDefinition, column, define, with_themes
from finrisk_assets.features.loan_terms import CARD_MONTHS
from finrisk_assets.ledger.complete_months import FADE, SPANS, USUAL_MONTHS
from schemas.features import themes
from schemas.timestamps import DAY_US

THEMES: Mapping[str, str] = themes(
    {
        "amount": ("loan_amount", "loan_to_usual_income"),
        "time to repay": ("term_months",),
        "interest rate": ("annual_rate_pct",),
        "instalment": (
            "instalment_amount",
            *(f"instalment_to_{income}" for income in ("declared_income", "stated_income", "usual_income")),
            *("surplus_after_instalment", "commitments_to_usual_income"),
        ),
        "income": ("declared_income_amount", "usual_income_amount", "stated_to_usual_income"),
        "course of the income": ("income_irregularity_6m", *(f"income_to_usual_{n}m" for n in SPANS[:-1]), "is_without_salary_1m"),
        "spending": ("usual_expense_amount", *(f"expense_to_income_{n}m" for n in SPANS)),
        "fixed costs": ("bills_to_usual_income_3m",),
        "large expenses": ("largest_expense_to_usual_income_3m",),
        "cash": ("cash_share_6m",),
        "number of movements": ("n_transactions_1m", "n_transactions_6m"),
        "balance": (
            *("month_end_balance_amount", "month_end_balance_to_usual_income", "buffer_shortfall"),
            *("mean_balance_6m", "mean_balance_to_usual_income_6m", "lowest_balance_to_usual_income_6m", "mean_balance_to_instalment_6m"),
        ),
        "overdrawn account": (*(f"n_penalties_{n}m" for n in SPANS), "faded_penalties"),
        "missed payments": ("n_missed_payments_6m", "faded_missed_payments"),
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


def _irregularity(rows: ir.Table) -> ir.Value:
    """Return standard deviation over mean of the monthly incomes, over as many of the last months as the history covers."""
    incomes = [rows[f"_income_month_{month}"] for month in range(1, USUAL_MONTHS + 1)]
    n = rows[f"_months_{USUAL_MONTHS}m"]
    covered = [(n > month).ifelse(1.0, 0.0) for month in range(USUAL_MONTHS)]
    mean = _sum(incomes) / n
    variance = _sum([(income - mean) * (income - mean) * is_covered for income, is_covered in zip(incomes, covered, strict=True)]) / n
    return ratio(variance.sqrt(), mean, 3.0)


def _in_usual_incomes(part: Expression) -> Expression:
    """Return an amount in usual monthly incomes; without such an income, the largest with the sign of the amount: a debt is no saving."""
    return lambda rows: ratio(part(rows), rows._usual_income, no_whole="signed_largest")


def _income_to_usual(n: int) -> Expression:
    return lambda rows: ratio(rows[f"_income_{n}m"], rows._usual_income * rows[f"_months_{n}m"])


def _monthly_number(n: int) -> Expression:
    return lambda rows: rows[f"_n_{n}m"] / rows[f"_months_{n}m"].nullif(0)


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
            "stated_to_usual_income", "", "Income stated in the application over the usual income on the account.",
            "The stated income is below that of the account", "The stated income is above that of the account",
            lambda rows: ratio(rows.stated_income_amount, rows._usual_income), needs=f"{stated} {_LEDGER_NEEDS}",
            low_below=1.0, high_above=1.0,
        ),
        define(
            "overdraft_limit_amount", "currency", "Agreed overdraft of the account.",
            "The agreed overdraft is small", "The agreed overdraft is large",
            column("_overdraft_limit_amount"), zero="No overdraft is agreed",
            needs="loans.applied_at loans.account_id accounts.overdraft_limit_amount accounts.opened_at",
        ),
    )  # fmt: skip


def _ago(n: int) -> str:
    """Return when the last `n` complete months were."""
    return "in the last complete month" if n == 1 else f"in the last {n} complete months"


def _few_or_many(n: int) -> tuple[str, str]:
    """Return the sentences of few and of many movements."""
    return f"There were few movements {_ago(n)}", f"There were many movements {_ago(n)}"


def _month_features(n: int) -> tuple[FeatureDefinition, ...]:
    """Return the features of the last `n` complete months."""
    ago = _ago(n)
    return (
        define(
            f"expense_to_income_{n}m", "", f"Money that went out over money that came in, {ago}.",
            f"Little of the income was spent {ago}", f"Much of the income was spent {ago}",
            lambda rows: ratio(rows[f"_expense_{n}m"], rows[f"_income_{n}m"]), 1, needs=_LEDGER_NEEDS,
        ),
        define(
            f"n_penalties_{n}m", "penalties", f"Penalties for a negative balance {ago}.",
            "", f"Penalties were charged {ago}", column(f"_n_penalties_{n}m"), 1, needs=_LEDGER_NEEDS,
            zero=f"No penalties were charged {ago}",
        ),
    )  # fmt: skip


def _income_features() -> tuple[FeatureDefinition, ...]:
    return (
        define(
            "usual_income_amount", "currency a month",
            f"Usual income: the median of the last complete months, at most {USUAL_MONTHS}, without refunds.",
            "The usual income is low", "The usual income is high", column("_usual_income"), -1, needs=_LEDGER_NEEDS,
        ),
        define(
            "usual_expense_amount", "currency a month",
            f"Usual spending: the median of the last complete months, at most {USUAL_MONTHS}.",
            "The usual spending is low", "The usual spending is high", column("_usual_expense"), needs=_LEDGER_NEEDS,
        ),
        *(
            define(
                f"income_to_usual_{n}m", "",
                "Income of the last complete month over the usual income." if n == 1
                else f"Mean monthly income of the last {n} complete months over the usual income.",
                f"Less than the usual income came in {_ago(n)}", f"More than the usual income came in {_ago(n)}",
                _income_to_usual(n), needs=_LEDGER_NEEDS, low_below=1.0, high_above=1.0, zero=f"No income came in {_ago(n)}",
            )
            for n in SPANS[:-1]
        ),
        define(
            "is_without_salary_1m", "0 or 1", "Whether no salary and no pension came in in the last complete month.",
            "", "", lambda rows: (rows._regular_pay_1m > 0).ifelse(0.0, 1.0), 1, needs=_LEDGER_NEEDS,
            zero="A salary or a pension came in in the last complete month",
            one="No salary and no pension came in in the last complete month",
        ),
        define(
            "income_irregularity_6m", "", "Standard deviation over mean of the monthly incomes of the last six complete months.",
            "The income is regular", "The income is irregular", _irregularity, 1, needs=_LEDGER_NEEDS,
        ),
        define(
            "bills_to_usual_income_3m", "", "Mean monthly bills of the last three complete months over the usual income.",
            "Fixed costs take little of the usual income", "Fixed costs take much of the usual income",
            lambda rows: ratio(rows._bills_3m, rows._usual_income * rows._months_3m), 1, needs=_LEDGER_NEEDS,
        ),
        define(
            "largest_expense_to_usual_income_3m", "", "Largest single expense of the last three complete months over the usual income.",
            "The largest single expense was small", "The largest single expense was large",
            lambda rows: ratio(rows._largest_3m, rows._usual_income), needs=_LEDGER_NEEDS,
        ),
        define(
            "cash_share_6m", "", "Share of cash withdrawals in the spending of the last six complete months.",
            "Little of the spending was cash", "Much of the spending was cash",
            lambda rows: share(rows._cash_6m, rows._expense_6m), needs=_LEDGER_NEEDS, zero="None of the spending was cash",
        ),
        *(
            define(
                f"n_transactions_{n}m", "movements a month",
                "Movements of the last complete month." if n == 1 else f"Mean monthly number of movements of the last {n} complete months.",
                *_few_or_many(n),
                _monthly_number(n), needs=_LEDGER_NEEDS,
            )
            for n in (SPANS[0], SPANS[-1])
        ),
    )  # fmt: skip


def _balance_features() -> tuple[FeatureDefinition, ...]:
    return (
        define(
            "month_end_balance_amount", "currency", "Balance at the last month-end (the lowest, of movements at one moment).",
            "The balance at the last month-end was low", "The balance at the last month-end was high",
            column("_closing"), -1, needs=_LEDGER_NEEDS,
        ),
        define(
            "month_end_balance_to_usual_income", "months", "Balance at the end of the last complete month, in usual incomes.",
            "The balance at the last month-end was small for the usual income",
            "The balance at the last month-end was large for the usual income",
            _in_usual_incomes(column("_closing")), -1, needs=_LEDGER_NEEDS,
        ),
        define(
            "buffer_shortfall", "months",
            f"What the balance at the last month-end lacks of one usual income, in usual incomes, at most {LARGEST_SHORTFALL:g}.",
            "", "The balance at the last month-end fell behind one usual income",
            lambda rows: clip(1.0 - _in_usual_incomes(column("_closing"))(rows), 0.0, LARGEST_SHORTFALL), 1, needs=_LEDGER_NEEDS,
            zero="The balance at the last month-end was one usual income or more", high_above=0.0,
        ),
        define(
            "mean_balance_6m", "currency", "Mean balance at the last six month-ends.",
            "The balance at month-ends was low", "The balance at month-ends was high", column("_mean_closing_6m"), -1, needs=_LEDGER_NEEDS,
        ),
        define(
            "mean_balance_to_usual_income_6m", "months", "Mean balance at the last six month-ends, in usual incomes.",
            "The balance at month-ends was small for the usual income", "The balance at month-ends was large for the usual income",
            _in_usual_incomes(column("_mean_closing_6m")), -1, needs=_LEDGER_NEEDS,
        ),
        define(
            "lowest_balance_to_usual_income_6m", "months", "Lowest balance at one of the last six month-ends, in usual incomes.",
            "The balance at some month-end was small for the usual income", "The balance at every month-end was large for the usual income",
            _in_usual_incomes(column("_lowest_closing_6m")), -1, needs=_LEDGER_NEEDS,
        ),
        define(
            "faded_penalties", "penalties",
            f"Penalties of the last six complete months, each worth {FADE} of its weight a month later.",
            "", "Penalties were charged of late", column("_faded_penalties"), 1, needs=_LEDGER_NEEDS,
            zero="No penalties were charged in six complete months",
        ),
        define(
            "n_missed_payments_6m", "payments", "Payments that were returned unpaid in the last six complete months.",
            "", "Payments were missed", column("_n_missed_6m"), 1, needs=_LEDGER_NEEDS, zero="No payments were missed",
        ),
        define(
            "faded_missed_payments", "payments",
            f"Payments returned unpaid in the last six complete months, each worth {FADE} of its weight a month later.",
            "", "Payments were missed of late", column("_faded_missed"), 1, needs=_LEDGER_NEEDS,
            zero="No payments were missed in six complete months",
        ),
        define(
            "history_months", "months", f"Complete months on record before the application, at most {USUAL_MONTHS}.",
            "Little history is on record", "A long history is on record", column(f"_months_{USUAL_MONTHS}m"), needs=_LEDGER_NEEDS,
        ),
    )  # fmt: skip


def _at_terms() -> tuple[FeatureDefinition, ...]:
    """Return the features of the ledger beside the loan's terms, which follow by their formulas."""
    return (
        define(
            "instalment_to_usual_income", "", "Instalment over the usual income.",
            "The instalment takes little of the usual income", "The instalment takes much of the usual income", None, 1,
        ),
        define(
            "commitments_to_usual_income", "", "Instalment and mean monthly bills over the usual income.",
            "Bills and the instalment take little of the usual income", "Bills and the instalment take much of the usual income", None, 1,
        ),
        define(
            "surplus_after_instalment", "", "What is left of the usual income after the usual spending and the instalment, as its share.",
            "Little income is left after spending and the instalment", "Much income is left after spending and the instalment", None, -1,
            high_above=0.0,
        ),
        define(
            "loan_to_usual_income", "months", "Amount over the usual income.",
            "The loan is small for the usual income", "The loan is large for the usual income", None,
        ),
        define(
            "mean_balance_to_instalment_6m", "instalments", "Mean balance at the last six month-ends over the instalment.",
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


CATALOGUE: tuple[FeatureDefinition, ...] = with_themes(
    THEMES,
    _terms(),
    _borrower(),
    *(_month_features(n) for n in SPANS),
    _income_features(),
    _balance_features(),
    _at_terms(),
    _card(),
)
"""Every feature that is defined here, whatever the source, in the order of the model's inputs."""
