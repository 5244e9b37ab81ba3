"""Balances: month by month, people whose money is short spend less, and those who fall below zero pay a penalty."""

from dataclasses import dataclass

import numpy as np

from .economy import CODE, DAY, Economy
from .events import NOBODY, Events, concatenate, events
from .people import People


@dataclass(frozen=True)
class Ledger:
    """The finished movements in order of time (of customer at one instant), and the balance after each, in cents."""

    events: Events
    balance: np.ndarray
    fraud_probability: np.ndarray


def settle(economy: Economy, people: People, made: Events, probability: np.ndarray) -> Ledger:
    """Scale purchases to what each person can afford, settle refunds, charge penalties and compute running balances."""
    month = np.searchsorted(economy.month_days * DAY, made.second, side="right") - 1
    order = np.argsort((month * len(people) + made.customer) * (economy.n_days * DAY) + made.second, kind="stable")
    bounds = np.searchsorted(month[order], np.arange(economy.n_months + 1))
    balance = np.zeros(len(people), dtype=np.int64)
    penalties = []
    for m in range(economy.n_months):
        rows = order[bounds[m] : bounds[m + 1]]
        _adapt(people, made, rows, balance)
        lowest, change = _lowest(made.customer[rows], made.sign[rows] * made.cents[rows], balance)
        balance += change
        below = np.flatnonzero(lowest < 0)
        if economy.penalty_amount or economy.penalty_pct:
            amount = economy.penalty_amount - lowest[below] / 100 * economy.penalty_pct / 100
            last = economy.month_days[m + 1] * DAY - 1
            penalties.append(events(below, last, amount, CODE["penalty"], NOBODY, people.home[below]))
            balance[below] -= penalties[-1].cents
    everything = concatenate(made, *penalties)
    probability = np.concatenate([probability, np.zeros(len(everything) - len(made))])
    order = np.argsort(everything.second * len(people) + everything.customer, kind="stable")
    everything = everything.take(order)
    return Ledger(everything, running_balance(everything), probability[order])


def _adapt(people: People, made: Events, rows: np.ndarray, balance: np.ndarray) -> None:
    """Scale this month's purchases in place by how many months of income are on the account, then settle refunds."""
    months_saved = balance / 100 / people.income
    floor = 0.25 + 0.25 * (1 - people.discipline)
    thrift = floor + (1 - floor) / (1 + np.exp(-5 * (months_saved - 0.2)))
    ease = 1 + 0.06 * np.clip(months_saved - 2, 0, 8)
    purchases = rows[made.elastic[rows]]
    made.cents[purchases] = np.maximum(np.rint(made.cents[purchases] * (thrift * ease)[made.customer[purchases]]), 1)
    refunds = rows[made.refunds[rows] >= 0]
    made.cents[refunds] = made.cents[made.refunds[refunds]]


def _lowest(customer: np.ndarray, signed: np.ndarray, balance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each customer's lowest balance and the change over these movements, which are ordered by customer and time."""
    lowest, change = balance.copy(), np.zeros_like(balance)
    if len(customer) == 0:
        return lowest, change
    first = np.flatnonzero(np.diff(customer, prepend=-1))
    total = np.cumsum(signed)
    before = total[first] - signed[first]
    who = customer[first]
    lowest[who] = np.minimum(balance[who], balance[who] + np.minimum.reduceat(total, first) - before)
    change[who] = np.append(total[first[1:] - 1], total[-1]) - before
    return lowest, change


def running_balance(ordered: Events) -> np.ndarray:
    """Return the balance after each movement, in cents; the movements are ordered by time."""
    order = np.argsort(ordered.customer, kind="stable")
    customer, signed = ordered.customer[order], (ordered.sign * ordered.cents)[order]
    first = np.flatnonzero(np.diff(customer, prepend=-1))
    total = np.cumsum(signed)
    before = np.repeat(total[first] - signed[first], np.diff(np.append(first, len(customer))))
    balance = np.empty_like(total)
    balance[order] = total - before
    return balance
