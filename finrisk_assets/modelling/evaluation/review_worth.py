"""The gain of reviewing transactions by worth, the expected loss against the cost of a review, over reviewing the highest scores.

Both rules have the same capacity and cost; what happened says what each saved. Method: the savings of Bahnsen, Stojanovic, Aouada and
Ottersten, *Cost sensitive credit card fraud detection using Bayes minimum risk*, ICMLA 2013, with a bootstrap over people.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation.metrics import CONFIDENCE_LEVEL, Interval

if TYPE_CHECKING:
    from finrisk_assets.scoring.bundle import Bundle

PERIOD_DAYS = 28
"""Days that the figures are for."""
DRAWS = 1_000
"""Bootstrap draws of the gain's interval."""


class ReviewComparison(NamedTuple):
    """The two rules of review beside each other, in `PERIOD_DAYS` days.

    Attributes
    ----------
    gain
        What review by worth saves more than review by score, in currency, with its 95 % interval.
    saved_by_worth, saved_by_score
        Amounts of the frauds found less the cost of the reviews, in currency.
    reviews_by_worth, reviews_by_score
        Reviews.
    """

    gain: Interval
    saved_by_worth: float
    saved_by_score: float
    reviews_by_worth: float
    reviews_by_score: float


def compare_review_rules(
    probability: ArrayLike,
    amount: ArrayLike,
    is_fraud: ArrayLike,
    people: ArrayLike,
    n_days: int,
    bundle: "Bundle",
    *,
    seed: int,
    draws: int = DRAWS,
) -> ReviewComparison:
    """Compare review by worth with review of the highest scores, on transactions that the bundle did not learn from.

    Both rules take their threshold from the bundle's validation window, by the capacity of the bundle's policy. What is blocked is
    reviewed by neither.

    Parameters
    ----------
    probability, amount, is_fraud, people : array-like, each of shape (n,)
        Probability of fraud by the bundle, amount in currency, outcome, and the customer of each transaction.
    n_days
        Days that the transactions span.
    bundle
        A bundle with a curve of scores and one of expected losses.
    seed, draws
        Of the bootstrap, which draws people with all their transactions.

    Raises
    ------
    ValueError
        Where there are no transactions or no days, or the bundle has no expected losses.
    """
    scores, amounts = np.asarray(probability, np.float64), np.asarray(amount, np.float64)
    fraud = np.asarray(is_fraud).astype(bool)
    if not len(scores) or n_days < 1:
        raise ValueError(f"cannot compare rules of review on {len(scores)} transactions of {n_days} days: pass at least one of each")
    if bundle.score_curve is None or bundle.loss_curve is None:
        raise ValueError(f"bundle {bundle.version} has no curve of expected losses: train it on a source with fraud labels")
    rules, thresholds = bundle.policy.transaction_anomaly, bundle.thresholds
    highest = bundle.score_curve.find_capacity_threshold(rules.reviews_per_day * bundle.score_curve.n_days)
    is_open = scores < thresholds.get("block", np.inf)
    by_worth = is_open & (scores * amounts >= thresholds["review_loss"])
    by_score = is_open & (scores >= highest)
    saves = rules.review_finds_share * amounts * fraud - rules.review_cost_amount
    per_period = PERIOD_DAYS / n_days
    gain = _sum_interval(np.where(by_worth, saves, 0.0) - np.where(by_score, saves, 0.0), people, seed, draws)
    return ReviewComparison(
        Interval(*(per_period * bound for bound in (gain.value, gain.low, gain.high))),
        *(float(per_period * saves[reviewed].sum()) for reviewed in (by_worth, by_score)),
        *(float(per_period * reviewed.sum()) for reviewed in (by_worth, by_score)),
    )


def _sum_interval(values: NDArray[np.float64], people: ArrayLike, seed: int, draws: int) -> Interval:
    """Return a sum with its percentile bootstrap interval over people."""
    person = np.unique(np.asarray(people).astype(str), return_inverse=True)[1]
    sums = np.bincount(person, values)
    rng = np.random.default_rng(seed)
    drawn = [float(sums[rng.integers(0, len(sums), len(sums))].sum()) for _ in range(draws)]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2])
    return Interval(float(values.sum()), float(low), float(high))
