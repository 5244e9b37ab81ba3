"""What is known of a customer when an offer is made, as Ibis expressions: tables to tables, one row per offer.

Beside the offers stands one *standing* row per customer and month-end where the source has movements: no terms, no answer, the number
``<customer>@2024-06``. For it the best offer is looked for; it never teaches.

Every feature stands here by its name: the offered terms, the customer's ledger over the 90 days *strictly before* the offer, and the
offers before. Columns of the source's own are features as they stand; on a standing row they are missing. Protected columns are
read nowhere. Money is added up in whole ten-thousandths and time is compared in whole microseconds, so that neither the engine nor
the order of the rows changes a value.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import clip, finite, ratio
from finrisk_assets.features.month_ends import DAY_US, month_ends, movements_before
from schemas.features import Feature, themes
from schemas.ledger import TABLES, Column

WINDOW_DAYS = 90
"""Days before the offer that are summed up; a ledger without a movement in them tells nothing."""

TROUBLE_DAYS = 180
"""Days before the offer over which penalties and missed payments are counted."""

MONTH_DAYS = 30
NOT_INCOME = ("opening_balance", "refund")
PENALTY = ("penalty", "penalty interest")
MISSED = ("returned_payment",)
"""Categories of the sources, by what they mean here."""

PD = Column(
    "pd", "float64", "Newest probability of default known of the customer.", "probability", True, 0, 1, personal="personal",
    known="offered_at",
)  # fmt: skip
MONTHLY_INCOME = Column(
    "monthly_income_amount", "float64", "Mean monthly income of the last 90 days, or what the source states.", "currency a month",
    True, 0, personal="personal", known="offered_at",
)  # fmt: skip

KEYS: tuple[Column, ...] = (
    *(TABLES["offers"][name] for name in ("offer_id", "customer_id", "offered_at", "is_accepted", "is_rate_random", "outcome_known_at")),
    PD,
    MONTHLY_INCOME,
)
"""The columns that identify a row of the feature table, its answer, and what the price of an offer needs beside the acceptance."""

THEMES = themes(
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
"""What each feature tells about: those of one theme are one reason together."""

_UNIT = 10_000
_FEW_MONTHS = 3.0
_EPOCH = ibis.timestamp("1970-01-01 00:00:00")

Expression = Callable[[ir.Table], ir.Value]


@dataclass(frozen=True)
class _OfferFeature:
    """A feature, the canonical columns that it needs (``table.column``), and its expression over the joined rows."""

    feature: Feature
    needs: tuple[str, ...]
    value: Expression


def declared(columns: Mapping[str, Collection[str]], source_features: Sequence[Feature] = ()) -> tuple[Feature, ...]:
    """Return the features that a source allows, in their order in the model.

    Parameters
    ----------
    columns
        Canonical table -> the columns that the source *fills*.
    source_features
        The source's own columns of ``offers`` that are features as they stand.

    Raises
    ------
    ValueError
        Where a source's feature has the name of one defined here, or the source does not fill it.
    """
    filled = {f"{table}.{column}" for table, names in columns.items() for column in names}
    if filled.issuperset(_LEDGER.split()) or "offers.stated_income_amount" in filled:
        filled.add(_INCOME)
    clash = sorted({feature.name for feature in source_features} & {defined.feature.name for defined in CATALOGUE})
    if clash:
        raise ValueError(f"the source's features {', '.join(clash)} are defined here too: rename the source's columns")
    absent = [feature.name for feature in source_features if f"offers.{feature.name}" not in filled]
    if absent:
        raise ValueError(f"the source names the features {', '.join(absent)}, but fills no such columns of its offers")
    own = tuple(defined.feature for defined in CATALOGUE if filled.issuperset(defined.needs))
    return own + tuple(source_features)


def build(tables: Mapping[str, ir.Table], features: Sequence[Feature]) -> ir.Table:
    """Return one row per offer and one standing row per customer and month-end: `KEYS`, then the features.

    Parameters
    ----------
    tables
        ``offers``, and ``transactions`` where the source has them; validated canonical tables. ``scores_loan_default``, where there is
        one, gives the PD.
    features
        As `declared`; a name that is not in `CATALOGUE` is a column of ``offers``.

    Returns
    -------
    ibis.Table
        Lazy; every feature is float64, null where it is missing.

    Raises
    ------
    ValueError
        Where a feature is neither defined here nor a column of ``offers``.
    """
    by_name = {defined.feature.name: defined for defined in CATALOGUE}
    offers = tables["offers"]
    unknown = [feature.name for feature in features if feature.name not in by_name and feature.name not in offers.columns]
    if unknown:
        raise ValueError(f"no feature and no column of the offers is called {', '.join(unknown)}")
    asked = ibis.union(offers, _standing(offers, tables["transactions"])) if "transactions" in tables else offers
    # What is joined starts from the bare rows each time, so that the engine does not work out the other joins again.
    moments = asked.select("offer_id", "customer_id", "offered_at")
    rows = _with_ledger(asked, tables["transactions"]) if "transactions" in tables else asked.mutate(_income=ibis.null("float64"))
    rows = _with_earlier_offers(rows, moments, offers)
    rows = _with_pd(rows, moments, tables.get("scores_loan_default"))
    stated = rows.stated_income_amount if "stated_income_amount" in offers.columns else ibis.null("float64")
    rows = rows.mutate(_monthly_income=rows._income.coalesce(stated))
    values = {f.name: by_name[f.name].value(rows) if f.name in by_name else rows[f.name] for f in features}
    keys = {column.name: rows[column.name] for column in KEYS if column.name in offers.columns}
    keys |= {PD.name: finite(rows._pd), MONTHLY_INCOME.name: finite(rows._monthly_income)}
    return rows.select(**keys, **{name: finite(value.cast("float64")) for name, value in values.items()})


# --- what is joined to an offer ------------------------------------------------------------------------------------


def _standing(offers: ir.Table, transactions: ir.Table) -> ir.Table:
    """One row per customer and month-end, with the columns of the offers and nothing in them but who and when."""
    months = month_ends(transactions, "customer_id")
    known = {
        "offer_id": months.customer_id + "@" + months.month,
        "customer_id": months.customer_id,
        "offered_at": months.as_of.cast(offers.offered_at.type()),
    }
    kinds = offers.schema()
    return months.select(**{name: known[name] if name in known else ibis.null(kinds[name]) for name in offers.columns})


def _with_ledger(rows: ir.Table, transactions: ir.Table) -> ir.Table:
    """Join the sums over each customer's movements of the last `WINDOW_DAYS`: null where there are none."""
    moments = rows.select("customer_id", as_of=rows.offered_at).distinct()
    before = movements_before(moments, transactions, "customer_id", WINDOW_DAYS)
    before = before.mutate(
        _income=before._credit & before._category.notin(NOT_INCOME),
        _youngest=before._age_us.min().over(ibis.window(group_by=[before.customer_id, before.as_of])),
    )
    units, month = before._units, before._age_us <= MONTH_DAYS * DAY_US

    def money(value: ir.Value) -> ir.Value:
        return value.cast("float64") / _UNIT

    def total(where: ir.BooleanValue) -> ir.Value:
        return money(units.sum(where=where).fill_null(0))

    def number(where: ir.BooleanValue) -> ir.Value:
        return before.count(where=where).cast("float64")

    months = [(before._age_us > 30 * k * DAY_US) & (before._age_us <= 30 * (k + 1) * DAY_US) for k in range(3)]
    sums = before.group_by("customer_id", "as_of").aggregate(
        _income_90d=total(before._income),
        _expense_90d=total(~before._credit),
        _expense_30d=total(~before._credit & month),
        _largest_expense_90d=money(units.max(where=~before._credit).fill_null(0)),
        _n_90d=before.count().cast("float64"),
        _n_negative_90d=number(before._balance < 0),
        _last_balance=money(before._balance.min(where=before._age_us == before._youngest)),
        _min_balance_90d=money(before._balance.min()),
        _mean_balance_90d=money(before._balance.sum()) / before._balance.count().nullif(0),
        # Months that the movements reach back, 1 to 3: a customer's first months would else look poor.
        _months=before._age_us.max().cast("float64") / (MONTH_DAYS * DAY_US),
        **{f"_income_month_{k}": total(before._income & inside) for k, inside in enumerate(months)},
    )
    sums = sums.mutate(_months=ibis.cases((sums._months < 1.5, 1.0), (sums._months < 2.5, 2.0), else_=3.0))
    sums = sums.mutate(_income=sums._income_90d / sums._months, _has_ledger=True)
    sums = _with_trouble(sums, moments, transactions)
    joined = rows.left_join(sums, [rows.customer_id == sums.customer_id, rows.offered_at == sums.as_of])
    return joined.drop("customer_id_right", "as_of")


def _with_trouble(sums: ir.Table, moments: ir.Table, transactions: ir.Table) -> ir.Table:
    """Join the few penalties and missed payments, which are counted over a longer time."""
    few = transactions.filter(transactions.category.isin(PENALTY + MISSED))
    before = movements_before(moments, few, "customer_id", TROUBLE_DAYS)
    counted = before.group_by("customer_id", "as_of").aggregate(
        _n_penalties=before.count(where=before._category.isin(PENALTY)).cast("float64"),
        _n_missed=before.count(where=before._category.isin(MISSED)).cast("float64"),
    )
    joined = sums.left_join(counted, ["customer_id", "as_of"]).drop("customer_id_right", "as_of_right")
    return joined.mutate(_n_penalties=joined._n_penalties.fill_null(0), _n_missed=joined._n_missed.fill_null(0))


def _with_earlier_offers(rows: ir.Table, moments: ir.Table, offers: ir.Table) -> ir.Table:
    """Join the days since the customer's last offer, and how many were accepted, by what was known when this one was made."""
    late = offers.select(_whose=offers.customer_id, _at=offers.offered_at, _answer=offers.is_accepted, _known=offers.outcome_known_at)
    earlier = moments.join(late, [moments.customer_id == late._whose, late._at < moments.offered_at])
    known = (earlier._known <= earlier.offered_at).fill_null(False)
    sums = earlier.group_by(_offer=earlier.offer_id).aggregate(
        _days_since_offer=_days(earlier.offered_at.max(), earlier._at.max()),
        _n_offers=earlier.count().cast("float64"),
        _n_accepted=earlier.count(where=known & earlier._answer.fill_null(False)).cast("float64"),
    )
    return rows.left_join(sums, rows.offer_id == sums._offer).drop("_offer")


def _with_pd(rows: ir.Table, moments: ir.Table, scores: ir.Table | None) -> ir.Table:
    """Join the customer's newest probability of default known by then; where neither moment is known, the only one there is."""
    if scores is None:
        return rows.mutate(_pd=ibis.null("float64"))
    said = scores.select(_whose=scores.customer_id, _at=scores.applied_at, _probability=scores.probability)
    earlier = moments.join(said, [moments.customer_id == said._whose, (said._at <= moments.offered_at).fill_null(True)])
    newest = earlier.mutate(_newest=earlier._at.max().over(ibis.window(group_by=earlier.offer_id)))
    newest = newest.filter((newest._at == newest._newest).fill_null(True))
    found = newest.group_by(_offer=newest.offer_id).aggregate(_pd=newest._probability.max())
    return rows.left_join(found, rows.offer_id == found._offer).drop("_offer")


# --- arithmetic ----------------------------------------------------------------------------------------------------


def _days(later: ir.Value, earlier: ir.Value) -> ir.Value:
    return (later.delta(_EPOCH, unit="microsecond") - earlier.delta(_EPOCH, unit="microsecond")).cast("float64") / DAY_US


def _months(balance: ir.Value, rows: ir.Table) -> ir.Value:
    """A balance in months of income, from -`_FEW_MONTHS` to `_FEW_MONTHS`: savings beyond that add nothing to how pressing a loan is."""
    return clip(ratio(balance, rows._income), -_FEW_MONTHS, _FEW_MONTHS)


def _log(value: ir.Value) -> ir.Value:
    """Natural logarithm; null of what is not above 0."""
    number = value.cast("float64")
    return (number > 0).ifelse(number, ibis.null("float64")).ln()


def _instalment(rows: ir.Table) -> ir.Value:
    """The instalment of an annuity, as `decide.instalment`."""
    rate, months = rows.annual_rate_pct / 1200, rows.term_months.cast("float64")
    safe = (rate > 0).ifelse(rate, 1.0)
    return rows.loan_amount * (rate > 0).ifelse(safe / (1 - (1 + safe) ** (-months)), 1 / months)


def _irregularity(rows: ir.Table) -> ir.Value:
    """Standard deviation over mean of the last three months' incomes."""
    income = [rows[f"_income_month_{k}"] for k in range(3)]
    mean = (income[0] + income[1] + income[2]) / 3
    square = sum(((value - mean) * (value - mean) for value in income[1:]), (income[0] - mean) * (income[0] - mean)) / 3
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
) -> _OfferFeature:
    return _OfferFeature(Feature(name, unit, description, raises, lowers, monotone, THEMES[name]), tuple(needs.split()), value)


def _column(name: str) -> Expression:
    return lambda rows: rows[name]


_LEDGER = (
    "offers.offered_at transactions.occurred_at transactions.amount transactions.direction transactions.category "
    "transactions.balance_amount"
)
_INCOME = "monthly_income"
"""Stands for what the monthly income needs: the ledger, or the source's ``offers.stated_income_amount``."""


def _terms() -> tuple[_OfferFeature, ...]:
    return (
        _define(
            "annual_rate_pct", "percent a year", "Nominal yearly interest rate.",
            "The interest rate is low", "The interest rate is high",
            "offers.annual_rate_pct", _column("annual_rate_pct"), -1,
        ),
        _define(
            "log_loan_amount", "log currency", "Logarithm of the amount offered.",
            "The amount speaks for acceptance", "The amount speaks against acceptance",
            "offers.loan_amount", lambda rows: _log(rows.loan_amount),
        ),
        _define(
            "log_term_months", "log months", "Logarithm of the months to repay.",
            "The time to repay speaks for acceptance", "The time to repay speaks against acceptance",
            "offers.term_months", lambda rows: _log(rows.term_months),
        ),
        _define(
            "log_loan_to_income", "", "Logarithm of the amount offered over the monthly income.",
            "The amount for this income speaks for acceptance", "The amount for this income speaks against acceptance",
            f"offers.loan_amount {_INCOME}", lambda rows: _log(rows.loan_amount) - _log(rows._monthly_income),
        ),
        _define(
            "instalment_to_income", "", "Instalment over the monthly income.",
            "The instalment takes little of the income", "The instalment takes much of the income",
            f"offers.loan_amount offers.term_months offers.annual_rate_pct {_INCOME}",
            # It grows with the rate, so it has to be bound like the rate.
            lambda rows: ratio(_instalment(rows), rows._monthly_income), -1,
        ),
    )  # fmt: skip


def _state() -> tuple[_OfferFeature, ...]:
    ago = f"in the last {WINDOW_DAYS} days"
    return (
        _define(
            "log_income", "log currency a month", "Logarithm of the monthly income.",
            "The income speaks for acceptance", "The income speaks against acceptance",
            _INCOME, lambda rows: _log(rows._monthly_income),
        ),
        _define(
            "income_irregularity_90d", "", "Standard deviation over mean of the last three months' incomes.",
            "The income is irregular", "The income is regular", _LEDGER, _irregularity,
        ),
        _define(
            "expense_to_income_90d", "", f"Money that went out over money that came in, {ago}.",
            f"Much of the income was spent {ago}", f"Little of the income was spent {ago}",
            _LEDGER, lambda rows: ratio(rows._expense_90d, rows._income_90d, 3.0),
        ),
        _define(
            "expense_to_income_30d", "", "Money that went out in the last 30 days over the monthly income.",
            "Much was spent in the last 30 days", "Little was spent in the last 30 days",
            _LEDGER, lambda rows: ratio(rows._expense_30d, rows._income, 3.0),
        ),
        _define(
            "balance_to_income", "months", "Balance just before the offer, in months of income.",
            "The balance speaks for acceptance", "The balance speaks against acceptance",
            _LEDGER, lambda rows: _months(rows._last_balance, rows),
        ),
        _define(
            "mean_balance_to_income_90d", "months", f"Mean balance after a movement {ago}, in months of income.",
            "The mean balance speaks for acceptance", "The mean balance speaks against acceptance",
            _LEDGER, lambda rows: _months(rows._mean_balance_90d, rows),
        ),
        _define(
            "min_balance_to_income_90d", "months", f"Lowest balance after a movement {ago}, in months of income.",
            "The lowest balance speaks for acceptance", "The lowest balance speaks against acceptance",
            _LEDGER, lambda rows: _months(rows._min_balance_90d, rows),
        ),
        _define(
            "n_penalties_180d", "penalties", "Penalties for a negative balance in the last 180 days.",
            "Penalties were charged", "No penalties were charged", _LEDGER, _column("_n_penalties"),
        ),
        _define(
            "n_missed_180d", "payments", "Payments that were missed in the last 180 days.",
            "Payments were missed", "No payments were missed", _LEDGER, _column("_n_missed"),
        ),
        _define(
            "negative_balance_share_90d", "", f"Share of the movements {ago} that left a negative balance.",
            "The balance was often negative", "The balance was seldom negative",
            _LEDGER, lambda rows: rows._n_negative_90d / rows._n_90d,
        ),
        _define(
            "largest_expense_to_income_90d", "", f"Largest expense {ago} over the monthly income.",
            "A large expense was made", "No large expense was made",
            _LEDGER, lambda rows: ratio(rows._largest_expense_90d, rows._income),
        ),
    )  # fmt: skip


def _earlier() -> tuple[_OfferFeature, ...]:
    answers = "offers.offered_at offers.is_accepted offers.outcome_known_at"
    return (
        _define(
            "days_since_offer", "days", "Days since the customer's last offer.",
            "The time since the last offer speaks for acceptance", "The time since the last offer speaks against acceptance",
            "offers.offered_at", _column("_days_since_offer"),
        ),
        _define(
            "accepted_share_before", "", "Share of the customer's earlier offers that were accepted, as far as known.",
            "Earlier offers were accepted", "Earlier offers were not accepted",
            answers, lambda rows: rows._n_accepted / rows._n_offers,
        ),
    )  # fmt: skip


CATALOGUE: tuple[_OfferFeature, ...] = (*_terms(), *_state(), *_earlier())
"""Every feature that is defined here, in the order of the model's inputs."""
