"""The back-test of the policy's rules: what each would have raised and caught over history, alone and beyond the model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.operations.backtests.decided_history import DecidedHistory, HistorySummary, load_decided_history

if TYPE_CHECKING:
    from datetime import datetime

    from finrisk_assets.policy.document import Policy
    from finrisk_assets.settings import Settings


@dataclass(frozen=True)
class AlertCount:
    """Alerts, transactions that are reviewed or blocked, and what they caught.

    Attributes
    ----------
    alerts, alerts_per_day
        Their number.
    frauds, fraud_amount
        Frauds among them, and their amounts in currency; None without labels.
    worth_amount
        What they saved less what they cost, in currency by the policy's costs; None without labels or amounts.
    """

    alerts: int
    alerts_per_day: float
    frauds: int | None
    fraud_amount: float | None
    worth_amount: float | None


@dataclass(frozen=True)
class RuleTest:
    """One rule over history.

    Attributes
    ----------
    alone
        With the rule as the only one to decide.
    beyond
        What the rule adds to the model: alerts where the model allows, and what all decisions are worth more.
    """

    name: str
    kind: str
    action: str
    enabled: bool
    alone: AlertCount
    beyond: AlertCount


@dataclass(frozen=True)
class BackTest:
    """All rules of a policy over history, and beside them the model, alone and with the enabled rules."""

    history: HistorySummary
    model: AlertCount
    model_and_enabled: AlertCount
    rules: tuple[RuleTest, ...]


def run_backtest(settings: "Settings", policy: "Policy", since: "datetime | None" = None) -> BackTest:
    """Test every rule of a policy, enabled or not, over the ledger; parameters and errors as of `load_transactions`."""
    return count_rules(load_decided_history(settings, policy, since))


def count_rules(history: DecidedHistory) -> BackTest:
    """Count what each rule raised and caught in a history."""
    nothing = np.full(len(history.decision), "allow", history.decision.dtype)
    tests = []
    for rule in history.rules:
        alone, joined = history.decide((rule,), nothing), history.decide((rule,))
        worth = _difference(history.sum_worth(joined), history.sum_worth(history.decision))
        added = count_alerts(history, np.where(history.decision == "allow", joined, "allow"), worth)
        tests.append(RuleTest(rule.name, rule.kind, rule.action, rule.enabled, count_alerts(history, alone), added))
    return BackTest(
        history.summary,
        count_alerts(history, history.decision),
        count_alerts(history, history.decide(tuple(rule for rule in history.rules if rule.enabled))),
        tuple(tests),
    )


def count_alerts(history: DecidedHistory, decision: NDArray[np.str_], worth: float | None = None) -> AlertCount:
    """Return the alerts of decisions and what they caught; `worth` replaces their own worth."""
    is_alert = decision != "allow"
    found = None if history.is_fraud is None else is_alert & history.is_fraud
    return AlertCount(
        int(is_alert.sum()),
        round(float(is_alert.sum()) / history.n_days, 2),
        None if found is None else int(found.sum()),
        None if found is None or np.isnan(history.amount).all() else round(float(history.amount[found].sum()), 2),
        _round(history.sum_worth(decision) if worth is None else worth),
    )


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _round(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 2)
