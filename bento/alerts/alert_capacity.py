"""The capacity of analysts: what a number of alerts a day catches and costs, from the curve of expected losses in the model's bundle."""

import numpy as np

from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.score_curve import ScoreCurve
from schemas.insight_api import AlertCapacity, CapacityPoint

MAX_POINTS = 60
"""Points of an answer. More make a finer slider and a longer answer."""
_ABSENT = "The model has no curve of expected losses: its source has no fraud labels, or no amounts."


def describe_capacity(bundle: Bundle, policy: Policy) -> AlertCapacity:
    """Return what numbers of alerts a day catch and are worth under a policy.

    The window behind the curve taught the model nothing. An expected loss is the probability of fraud times the amount, so the sum of the
    alerts' expected losses is what they are expected to hold back.

    Parameters
    ----------
    bundle
        The model of transactions.
    policy
        Costs of reviews, and the share of frauds that a review finds.
    """
    rules, curve = policy.transaction_anomaly, bundle.loss_curve
    shown = [] if curve is None else _list_points(curve, rules.review_cost_amount, rules.review_finds_share)
    return AlertCapacity(
        points=shown,
        reason=None if shown else _ABSENT,
        reviews_per_day=rules.reviews_per_day,
        review_cost_amount=rules.review_cost_amount,
        days=1 if curve is None else curve.n_days,
        transactions_per_day=0.0 if curve is None else curve.n_rows / curve.n_days,
    )


def _list_points(curve: ScoreCurve, cost: float, finds_share: float) -> list[CapacityPoint]:
    scores, rows = np.asarray(curve.scores), np.asarray(curve.rows)
    # Between two points of a thinned curve all rows count at the lower one's score: never more than there is.
    losses = np.cumsum(scores * np.diff(rows, prepend=0))
    # Of a long curve points in equal ratios of their numbers of alerts.
    places = np.arange(len(rows)) if len(rows) <= MAX_POINTS else np.unique(np.geomspace(1, len(rows), MAX_POINTS).round().astype(int)) - 1
    days = curve.n_days
    return [
        CapacityPoint(
            alerts_per_day=float(rows[place] / days),
            expected_loss_from_amount=float(scores[place]),
            precision=curve.events[place] / curve.rows[place] if curve.events else None,
            frauds_per_day=curve.events[place] / days if curve.events else None,
            expected_loss_per_day_amount=float(losses[place] / days),
            worth_per_day_amount=float((losses[place] * finds_share - rows[place] * cost) / days),
        )
        for place in places
    ]
