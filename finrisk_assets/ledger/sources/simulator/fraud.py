"""Fraud: the probability of each purchase follows from its visible attributes; reported fraud is refunded.

The attributes are those of `finrisk_assets.domains.transaction_anomaly.catalogue`, by the same definitions: history is what happened
strictly before, over the same windows, and counts every movement of the customer.
"""

from dataclasses import dataclass, replace

import numpy as np

from finrisk_assets.ledger.sources.simulator.events import NO_EPISODE, NO_MERCHANT, Events, concatenate, make_events
from finrisk_assets.ledger.sources.simulator.intercepts import intercept_for
from finrisk_assets.ledger.sources.simulator.movements import month_of, share_out
from finrisk_assets.ledger.sources.simulator.population.economy import CODE, DAY, HOUR, N_PURCHASES, FraudEffects
from finrisk_assets.ledger.sources.simulator.population.households import sigmoid
from finrisk_assets.ledger.sources.simulator.population.people import Market, People, Town

GENUINE, CARD_TESTING, ACCOUNT_TAKEOVER = range(3)
SCENARIOS: tuple[str, ...] = ("genuine", "card_testing", "account_takeover")

_VELOCITY_S = HOUR
_MEAN_S = 30 * DAY
_NOVELTY_S = 90 * DAY
_NIGHT_ENDS = 7 * HOUR


@dataclass(frozen=True)
class Ledger:
    """The finished movements in order of time (of customer at one instant), with the truth about each.

    Attributes
    ----------
    events, balance
        The movements, and the balance after each in cents.
    probability
        Probability of fraud before the draw; 0 for all movements but purchases.
    scenario
        Which fraud, or ``GENUINE``.
    reported
        Second at which a fraud is reported; 0 for a genuine movement.
    """

    events: Events
    balance: np.ndarray
    probability: np.ndarray
    scenario: np.ndarray
    reported: np.ndarray


def add_fraud(town: Town, market: Market, people: People, movements: Events, intercept: float | None) -> tuple[Ledger, float]:
    """Draw which purchases are fraud, and add the refunds.

    Parameters
    ----------
    movements
        Every movement, in order of time.
    intercept
        Of the logit; None finds the one that gives `Economy.fraud_share`.

    Returns
    -------
    ledger, intercept
        The refunds are among the movements, and the other purchases of their month are larger by as much, so that each
        month's net flow stays what it was.
    """
    economy, rng = town.economy, town.rng("fraud")
    purchase = np.flatnonzero(movements.category < N_PURCHASES)
    logit = fraud_logit(market, movements, purchase, economy.fraud)
    if intercept is None:
        intercept = intercept_for(logit, economy.fraud_share * len(movements) / max(len(purchase), 1))
    probability = np.zeros(len(movements))
    probability[purchase] = sigmoid(intercept + logit) if economy.fraud_share else 0.0
    dice = rng.random(len(movements))
    of_episode = rng.random(int(movements.episode.max(initial=0)) + 1)
    dice = np.where(movements.episode == NO_EPISODE, dice, of_episode[movements.episode])
    delay = (rng.uniform(*economy.fraud.label_delay_days, len(movements)) * DAY).astype(np.int64)
    fraud = _absorbable(town, movements, dice < probability, movements.second + delay)
    is_burst = (movements.episode != NO_EPISODE) & (movements.episode % 2 == 0)
    scenario = np.where(fraud, np.where(is_burst, CARD_TESTING, ACCOUNT_TAKEOVER), GENUINE).astype(np.int8)
    reported = np.where(fraud, movements.second + delay, 0)
    return _settle(town, people, movements, probability, scenario, reported), intercept


def fraud_logit(market: Market, movements: Events, rows: np.ndarray, effects: FraudEffects) -> np.ndarray:
    """Return the logit of fraud for each of the given rows, without its intercept.

    Parameters
    ----------
    movements
        Every movement, in order of time.
    rows
        Indices of the movements.
    """
    features = attributes(movements)
    risky = np.isin(movements.merchant[rows], market.risky)
    return (
        effects.velocity * np.minimum(features["n_1h"][rows], 4)
        + effects.amount * np.clip(np.log(np.maximum(features["amount_to_mean_30d"][rows], 1e-9)), 0, 3)
        + effects.new_country * features["is_new_country"][rows]
        + effects.new_merchant * features["is_new_merchant"][rows]
        + effects.night * (movements.second[rows] % DAY < _NIGHT_ENDS)
        + effects.risky_merchant * risky
    )


def attributes(movements: Events) -> dict[str, np.ndarray]:
    """Return the visible attributes of each movement from its customer's earlier history; the amount ratio is 1 without history."""
    order = np.argsort(movements.customer, kind="stable")
    span = np.int64(movements.second.max(initial=0) + _NOVELTY_S + 1)
    second = movements.second[order]
    key = movements.customer[order] * span + second
    total = np.concatenate([[0], np.cumsum(movements.cents[order])])

    def back(length: int) -> np.ndarray:
        # The customer's first movement inside the window; one that begins before the ledger must not reach the customer before.
        return np.searchsorted(key, key - np.minimum(length, second + 1), side="right")

    now = np.searchsorted(key, key, side="left")
    hour, month = back(_VELOCITY_S), back(_MEAN_S)
    count = now - month
    mean = (total[now] - total[month]) / np.maximum(count, 1)
    sorted_values = {
        "n_1h": now - hour,
        "amount_to_mean_30d": np.where(count > 0, movements.cents[order] / np.maximum(mean, 1), 1.0),
    }
    unsorted = {}
    for name, values in sorted_values.items():
        unsorted[name] = np.empty_like(values)
        unsorted[name][order] = values
    return {
        **unsorted,
        "is_new_merchant": _is_new(movements, movements.merchant),
        "is_new_country": _is_new(movements, movements.country),
    }


def _is_new(movements: Events, code: np.ndarray) -> np.ndarray:
    """Return whether the customer had no movement with the same merchant (or country) in the 90 days before."""
    pair = movements.customer.astype(np.int64) * (int(code.max(initial=0)) + 2) + code + 1
    order = np.argsort(pair, kind="stable")
    pair, second = pair[order], movements.second[order]
    gap = np.diff(second, prepend=0)
    is_known = np.zeros(len(movements), dtype=bool)
    is_known[order] = (np.diff(pair, prepend=-1) == 0) & (gap < _NOVELTY_S)
    return ~is_known


def _absorbable(town: Town, movements: Events, fraud: np.ndarray, reported: np.ndarray) -> np.ndarray:
    """Drop the rare fraud whose refund falls in a month without a genuine purchase to spend it on."""
    hit = np.flatnonzero(fraud)
    if len(hit) == 0:
        return fraud
    n_months = town.economy.n_months
    genuine = (movements.category < N_PURCHASES) & ~fraud
    group = movements.customer[genuine].astype(np.int64) * n_months + month_of(town, movements.second[genuine])
    n_genuine = np.bincount(group, minlength=town.size * n_months)
    month = month_of(town, reported[hit])
    spent = n_genuine[movements.customer[hit].astype(np.int64) * n_months + np.minimum(month, n_months - 1)] > 0
    absorbed = fraud.copy()
    absorbed[hit] = spent | (month >= n_months)
    return absorbed


def _settle(town: Town, people: People, movements: Events, probability: np.ndarray, scenario: np.ndarray, reported: np.ndarray) -> Ledger:
    """Refund reported frauds, and raise the same month's genuine purchases by the same amount."""
    n_months = town.economy.n_months
    paid = np.flatnonzero((scenario > 0) & (reported < town.economy.n_days * DAY))
    customer = movements.customer[paid]
    refunds = make_events(customer, reported[paid], movements.cents[paid], CODE["refund"], NO_MERCHANT, people.home[customer], sign=1)
    month = month_of(town, reported[paid])
    extra = np.bincount(customer.astype(np.int64) * n_months + month, movements.cents[paid], town.size * n_months).astype(np.int64)
    purchase = np.flatnonzero((movements.category < N_PURCHASES) & (scenario == GENUINE))
    group = movements.customer[purchase].astype(np.int64) * n_months + month_of(town, movements.second[purchase])
    grows = extra[group] > 0
    purchase, group = purchase[grows], group[grows]
    order = np.argsort(group, kind="stable")
    purchase, group = purchase[order], group[order]
    before = np.bincount(group, movements.cents[purchase], town.size * n_months).astype(np.int64)
    cents = movements.cents.copy()
    cents[purchase] = share_out(before + extra, group, movements.cents[purchase].astype(np.float64))
    everything = concatenate(replace(movements, cents=cents), refunds)
    nothing = np.zeros(len(refunds))
    order = np.lexsort((everything.customer, everything.second))
    everything = everything.take(order)
    return Ledger(
        everything,
        everything.balances(),
        np.concatenate([probability, nothing])[order],
        np.concatenate([scenario, nothing.astype(np.int8)])[order],
        np.concatenate([reported, nothing.astype(np.int64)])[order],
    )
