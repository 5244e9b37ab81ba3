"""The capacity of analysts: from which expected loss on a number of alerts a day is raised, and what these alerts catch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finrisk_assets.operations.backtests.decided_history import DecidedHistory, HistorySummary, decide_history, load_transactions
from finrisk_assets.operations.backtests.rule_backtest import AlertCount, count_alerts

if TYPE_CHECKING:
    from datetime import datetime

    from finrisk_assets.policy.document import Policy
    from finrisk_assets.settings import Settings

LEVELS = (0.5, 1.0, 2.0)
"""Capacities beside each other, as multiples of the one asked for."""


@dataclass(frozen=True)
class CapacityLevel:
    """A number of reviews a day, its threshold, and what it catches.

    Attributes
    ----------
    reviews_per_day
        The capacity, as the policy's key of this name has it.
    threshold
        The expected loss in currency from which a transaction is reviewed; where `unit` is ``score``, the score.
    unit
        ``currency`` or ``score``.
    is_bound_by_cost
        Whether the cost of a review sets the threshold: more capacity would find nothing that is worth a review.
    caught
        Reviews and blocks of the model over the history.
    fraud_share, amount_share
        Share of the frauds, and of their amounts, among `caught`; None without labels or amounts.
    """

    reviews_per_day: int
    threshold: float
    unit: str
    is_bound_by_cost: bool
    caught: AlertCount
    fraud_share: float | None
    amount_share: float | None


@dataclass(frozen=True)
class CapacityReport:
    """The level asked for, those around it, and the history that they are counted on."""

    history: HistorySummary
    in_policy: int
    levels: tuple[CapacityLevel, ...]


def measure_capacity(settings: "Settings", policy: "Policy", alerts_per_day: int, since: "datetime | None" = None) -> CapacityReport:
    """Return what a number of alerts a day catches by the model; parameters and errors as of `load_transactions`."""
    transactions = load_transactions(settings, since)
    asked = sorted({max(1, round(alerts_per_day * level)) for level in LEVELS})
    levels = []
    for reviews in asked:
        rules = policy.transaction_anomaly.model_copy(update={"reviews_per_day": reviews, "rules": ()})
        history = decide_history(transactions, policy.model_copy(update={"transaction_anomaly": rules}))
        levels.append(measure_level(history))
    return CapacityReport(
        history.summary,
        policy.transaction_anomaly.reviews_per_day,
        tuple(levels),
    )


def measure_level(history: DecidedHistory) -> CapacityLevel:
    """Return what the capacity of a history's policy catches."""
    thresholds, policy = history.bundle.thresholds, history.bundle.policy.transaction_anomaly
    caught = count_alerts(history, history.decision)
    by_loss = "review_loss" in thresholds
    floor = policy.review_cost_amount / policy.review_finds_share
    total = 0.0 if history.is_fraud is None else float(np.nansum(history.amount[history.is_fraud]))
    frauds = 0 if history.is_fraud is None else int(history.is_fraud.sum())
    return CapacityLevel(
        policy.reviews_per_day,
        round(float(thresholds["review_loss" if by_loss else "review"]), 6),
        "currency" if by_loss else "score",
        by_loss and thresholds["review_loss"] <= floor,
        caught,
        round(caught.frauds / frauds, 4) if frauds and caught.frauds is not None else None,
        round(caught.fraud_amount / total, 4) if total and caught.fraud_amount is not None else None,
    )
