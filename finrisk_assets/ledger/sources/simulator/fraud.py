"""Fraud: the stolen cards of the episodes as they stand in the ledger; what is reported is refunded."""

from dataclasses import dataclass, replace

import numpy as np

from finrisk_assets.ledger.sources.simulator.episodes import GENUINE, Episodes
from finrisk_assets.ledger.sources.simulator.events import NO_EPISODE, NO_MERCHANT, Events, concatenate, make_events
from finrisk_assets.ledger.sources.simulator.movements import month_of, share_out
from finrisk_assets.ledger.sources.simulator.population.economy import CODE, DAY, N_PURCHASES
from finrisk_assets.ledger.sources.simulator.population.people import People, Town


@dataclass(frozen=True)
class Ledger:
    """The finished movements in order of time (of customer at one instant), with the truth about each.

    Attributes
    ----------
    events, balance
        The movements, and the balance after each in cents.
    probability
        Probability of fraud before the draw; 0 outside of episodes.
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


def settle_fraud(town: Town, people: People, movements: Events, episodes: Episodes) -> Ledger:
    """Mark the fraudulent purchases, refund those that are reported, and raise the month's genuine purchases by the same amount.

    So each month's net flow stays what the household lived. Every open month has a purchase of groceries to raise.

    Parameters
    ----------
    movements
        Every movement, in order of time.
    """
    n_months = town.economy.n_months
    in_episode = np.flatnonzero(movements.episode != NO_EPISODE)
    number = movements.episode[in_episode]
    probability, reported = np.zeros(len(movements)), np.zeros(len(movements), dtype=np.int64)
    scenario = np.full(len(movements), GENUINE, dtype=np.int8)
    probability[in_episode], scenario[in_episode] = episodes.probability[number], episodes.scenario[number]
    # One call reports a whole episode; its refunds follow each other, a minute apart.
    reported[in_episode] = np.where(episodes.reported[number] > 0, episodes.reported[number] + 60 * place_within(number), 0)

    paid = np.flatnonzero((scenario != GENUINE) & (reported < town.economy.n_days * DAY))
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


def place_within(group: np.ndarray) -> np.ndarray:
    """Return how many earlier elements have the same group."""
    order = np.argsort(group, kind="stable")
    is_first = np.diff(group[order], prepend=-1) != 0
    first = np.flatnonzero(is_first)
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group)) - np.repeat(first, np.diff(np.append(first, len(group))))
    return place
