"""Joins of an offer, as Ibis expressions: sums over the customer's ledger, earlier offers, and the probability of default.

Every column that is added begins with an underscore; money is in currency. `catalogue` turns the columns into features.
"""

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import epoch_micros, to_currency
from finrisk_assets.features.month_ends import join_movements_before, list_month_ends
from finrisk_assets.ledger.categories import MISSED_PAYMENT, PENALTY, is_income
from schemas.timestamps import DAY_US

WINDOW_DAYS = 90
"""Days before the offer that are summed up; where there is no movement in them, the features of the ledger are missing."""

TROUBLE_DAYS = 180
"""Days before the offer over which penalties and missed payments are counted."""

MONTH_DAYS = 30


def build_month_end_rows(offers: ir.Table, transactions: ir.Table) -> ir.Table:
    """Return one row per customer and month-end with the columns of the offers, all null but the number, the customer and the time."""
    months = list_month_ends(transactions, "customer_id")
    keys = {
        "offer_id": months.customer_id + "@" + months.month,
        "customer_id": months.customer_id,
        "offered_at": months.as_of.cast(offers.offered_at.type()),
    }
    types = offers.schema()
    return months.select(**{name: keys[name] if name in keys else ibis.null(types[name]) for name in offers.columns})


def join_ledger_sums(rows: ir.Table, transactions: ir.Table) -> ir.Table:
    """Join the sums over each customer's movements of the last `WINDOW_DAYS`: null where there are none."""
    moments = rows.select("customer_id", as_of=rows.offered_at).distinct()
    before = join_movements_before(moments, transactions, "customer_id", WINDOW_DAYS)
    before = before.mutate(
        _income=is_income(before._credit, before._category),
        _youngest=before._age_us.min().over(ibis.window(group_by=[before.customer_id, before.as_of])),
    )
    units, is_last_month = before._units, before._age_us <= MONTH_DAYS * DAY_US

    def total(where: ir.BooleanValue) -> ir.Value:
        return to_currency(units.sum(where=where).fill_null(0))

    def count(where: ir.BooleanValue) -> ir.Value:
        return before.count(where=where).cast("float64")

    months = [(before._age_us > 30 * k * DAY_US) & (before._age_us <= 30 * (k + 1) * DAY_US) for k in range(3)]
    sums = before.group_by("customer_id", "as_of").aggregate(
        _income_90d=total(before._income),
        _expense_90d=total(~before._credit),
        _expense_30d=total(~before._credit & is_last_month),
        _largest_expense_90d=to_currency(units.max(where=~before._credit).fill_null(0)),
        _n_90d=before.count().cast("float64"),
        _n_negative_90d=count(before._balance < 0),
        _last_balance=to_currency(before._balance.min(where=before._age_us == before._youngest)),
        _min_balance_90d=to_currency(before._balance.min()),
        _mean_balance_90d=to_currency(before._balance.sum()) / before._balance.count().nullif(0),
        # Months that the movements reach back, 1 to 3: without them a customer's first months would look poor.
        _months=before._age_us.max().cast("float64") / (MONTH_DAYS * DAY_US),
        **{f"_income_month_{k}": total(before._income & is_inside) for k, is_inside in enumerate(months)},
    )
    sums = sums.mutate(_months=ibis.cases((sums._months < 1.5, 1.0), (sums._months < 2.5, 2.0), else_=3.0))
    sums = sums.mutate(_income=sums._income_90d / sums._months)
    sums = _join_trouble(sums, moments, transactions)
    joined = rows.left_join(sums, [rows.customer_id == sums.customer_id, rows.offered_at == sums.as_of])
    return joined.drop("customer_id_right", "as_of")


def _join_trouble(sums: ir.Table, moments: ir.Table, transactions: ir.Table) -> ir.Table:
    """Join the numbers of penalties and missed payments, which are counted over a longer time because they are rare."""
    events = transactions.filter(transactions.category.isin(PENALTY + MISSED_PAYMENT))
    before = join_movements_before(moments, events, "customer_id", TROUBLE_DAYS)
    counts = before.group_by("customer_id", "as_of").aggregate(
        _n_penalties=before.count(where=before._category.isin(PENALTY)).cast("float64"),
        _n_missed=before.count(where=before._category.isin(MISSED_PAYMENT)).cast("float64"),
    )
    joined = sums.left_join(counts, ["customer_id", "as_of"]).drop("customer_id_right", "as_of_right")
    return joined.mutate(_n_penalties=joined._n_penalties.fill_null(0), _n_missed=joined._n_missed.fill_null(0))


def join_earlier_offers(rows: ir.Table, moments: ir.Table, offers: ir.Table) -> ir.Table:
    """Join the days since the customer's last offer, and how many earlier offers were made and are known to be accepted by then."""
    others = offers.select(_customer=offers.customer_id, _at=offers.offered_at, _answer=offers.is_accepted, _known=offers.outcome_known_at)
    earlier = moments.join(others, [moments.customer_id == others._customer, others._at < moments.offered_at])
    is_known = (earlier._known <= earlier.offered_at).fill_null(False)
    sums = earlier.group_by(_offer=earlier.offer_id).aggregate(
        _days_since_offer=_days_between(earlier._at.max(), earlier.offered_at.max()),
        _n_offers=earlier.count().cast("float64"),
        _n_accepted=earlier.count(where=is_known & earlier._answer.fill_null(False)).cast("float64"),
    )
    return rows.left_join(sums, rows.offer_id == sums._offer).drop("_offer")


def join_newest_score(rows: ir.Table, moments: ir.Table, scores: ir.Table | None, scored_at: str, name: str) -> ir.Table:
    """Join the newest probability of a domain that was known of each customer by then, as the column `name`.

    Where neither time is known, it is the customer's only score. Null without scores.

    Parameters
    ----------
    moments
        ``offer_id``, ``customer_id`` and ``offered_at`` of the rows.
    scores
        The batch scores of the domain, None where the source has none.
    scored_at
        Their column with the time of the decision.
    """
    if scores is None:
        return rows.mutate(**{name: ibis.null("float64")})
    known = scores.select(_customer=scores.customer_id, _at=scores[scored_at], _probability=scores.probability)
    earlier = moments.join(known, [moments.customer_id == known._customer, (known._at <= moments.offered_at).fill_null(True)])
    newest = earlier.mutate(_newest=earlier._at.max().over(ibis.window(group_by=earlier.offer_id)))
    newest = newest.filter((newest._at == newest._newest).fill_null(True))
    score = newest.group_by(_offer=newest.offer_id).aggregate(**{name: newest._probability.max()})
    return rows.left_join(score, rows.offer_id == score._offer).drop("_offer")


def _days_between(earlier: ir.Value, later: ir.Value) -> ir.Value:
    return (epoch_micros(later) - epoch_micros(earlier)).cast("float64") / DAY_US
