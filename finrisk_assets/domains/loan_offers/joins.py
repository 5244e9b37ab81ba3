"""Joins of an offer, as Ibis expressions: earlier offers, and the probability of default.

Every column that is added begins with an underscore. `catalogue` turns the columns into features. The sums over the customer's ledger are
those of `ledger.complete_months`.
"""

import ibis
import ibis.expr.types as ir

from finrisk_assets.features.arithmetic import epoch_micros
from finrisk_assets.features.time_span import TimeSpan
from finrisk_assets.ledger.month_totals import find_month_ends
from schemas.timestamps import DAY_US


def build_month_end_rows(offers: ir.Table, totals: ir.Table, span: TimeSpan) -> ir.Table:
    """Return one row per customer and month-end of the span: the columns of the offers, all null but the number, customer and time."""
    months = find_month_ends(totals, "customer_id", span)
    keys = {
        "offer_id": months.customer_id + "@" + months.month,
        "customer_id": months.customer_id,
        "offered_at": months.as_of.cast(offers.offered_at.type()),
    }
    types = offers.schema()
    return months.select(**{name: keys[name] if name in keys else ibis.null(types[name]) for name in offers.columns})


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
