"""The truth about spending and cashflow: many futures of each household from each month-end, simulated by `households.step`.

Everything random in a month is drawn except its spending. Given the draws, spending is lognormal, so the probability that it
stays below a bound is exact (Rao-Blackwell: the mean of conditional probabilities varies less than the share of drawn outcomes).
Numbers are single precision: cents are exact up to 160,000 currency units.
"""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.population.calendar import HouseholdMonths
from finrisk_assets.ledger.sources.simulator.population.economy import HouseholdEffects
from finrisk_assets.ledger.sources.simulator.population.households import Draws, Prospect, State, close, prospect, step
from finrisk_assets.ledger.sources.simulator.population.people import People, Town

_PEOPLE_AT_ONCE = 100
TROUBLE_DAYS = 90
MONTHS_AHEAD = 3


@dataclass(frozen=True)
class MonthEndTruths:
    """Truths, one element per household and month-end; money in currency.

    Attributes
    ----------
    customer, day
        Customer, and the first day after the month-end, in days since the start.
    surplus
        Probability that the next month closes above this one.
    mean_change, sd_change
        Mean and standard deviation of the change of the balance over the next month.
    trouble
        Probability of trouble, NaN where the three months do not lie inside the ledger.
    """

    customer: np.ndarray
    day: np.ndarray
    surplus: np.ndarray
    mean_change: np.ndarray
    sd_change: np.ndarray
    trouble: np.ndarray


def compute_truths(town: Town, people: People, months: HouseholdMonths) -> MonthEndTruths:
    """Return the truths of every month-end that a month of the ledger follows."""
    economy, rng = town.economy, town.rng("futures")
    truths = []
    for number in range(economy.n_months - 1):
        ahead = economy.calendar[number + 1 : number + 1 + MONTHS_AHEAD]
        as_of = economy.month_days[number + 1]
        is_whole = len(ahead) == MONTHS_AHEAD
        # The third closing, in the last second before its month-end, counts where it lies within the days.
        counts = is_whole and economy.month_days[number + 1 + MONTHS_AHEAD] - as_of <= TROUBLE_DAYS
        members = np.flatnonzero(people.opened_month <= number)
        for first in range(0, len(members), _PEOPLE_AT_ONCE):
            chunk = members[first : first + _PEOPLE_AT_ONCE]
            now = _rows(months.states[number + 1], chunk)
            truths.append((chunk, np.full(len(chunk), as_of), *_outcomes(now, ahead, counts, economy.futures, economy.household, rng)))
    if not truths:
        nothing = np.zeros(0)
        return MonthEndTruths(nothing.astype(np.int64), nothing.astype(np.int64), nothing, nothing, nothing, nothing)
    return MonthEndTruths(*(np.concatenate(column) for column in zip(*truths, strict=True)))


def _outcomes(
    now: State, ahead: np.ndarray, last_closing_counts: bool, futures: int, effects: HouseholdEffects, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """Return surplus, mean and standard deviation of next month's change, and trouble, per household."""
    from scipy.special import ndtri

    shape = (len(now.balance), futures)
    draws = Draws.of(rng, shape, np.float32)
    draws.income[:] = ndtri(_spread_evenly(rng, shape))
    draws.mishap[:] = rng.permuted(_spread_evenly(rng, shape), axis=1)
    first = prospect(now, int(ahead[0]), draws, effects)
    surplus = _below(_room_above(now.balance, first, effects, False), first, effects)
    state, totals = close(now, first, draws, effects)
    change = (state.balance - now.balance) / 100
    moments = surplus.mean(axis=1), change.mean(axis=1), change.std(axis=1)
    if len(ahead) < MONTHS_AHEAD:
        return *moments, np.full(len(now.balance), np.nan)
    is_solvent = ~totals.is_missed & (totals.penalty == 0)
    state, totals = step(state, int(ahead[1]), Draws.of(rng, shape, np.float32), effects)
    is_solvent &= ~totals.is_missed & (totals.penalty == 0)
    last = prospect(state, int(ahead[2]), Draws.of(rng, shape, np.float32), effects)
    is_solvent &= ~last.is_missed
    room = _room_above(now.balance, last, effects, last_closing_counts)
    return *moments, 1 - (is_solvent * _below(room, last, effects)).mean(axis=1)


def _room_above(target: np.ndarray, ahead: Prospect, effects: HouseholdEffects, without_penalty: bool) -> np.ndarray:
    """Return the largest spending with which the month closes, after its penalty, at `target` or above, optionally without penalty."""
    fee, share = 100 * effects.penalty_amount, effects.penalty_pct / 100
    needed = np.where(target >= 0, target, np.minimum((target + fee) / (1 + share), 0))
    return ahead.room - (np.maximum(needed, 0) if without_penalty else needed)


def _below(bound: np.ndarray, ahead: Prospect, effects: HouseholdEffects) -> np.ndarray:
    """Return the probability that the month's spending stays below the bound."""
    from scipy.special import ndtr

    if effects.spending_noise == 0:
        return (np.maximum(ahead.scale * np.exp(ahead.drift), ahead.least) < bound).astype(float)
    ratio = np.maximum(bound, 1) / ahead.scale
    return np.where(bound > ahead.least, ndtr((np.log(ratio) - ahead.drift) / effects.spending_noise), 0)


def _spread_evenly(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Draw stratified uniform numbers in ascending order: one from each of as many equal ranges as there are futures."""
    return (np.arange(shape[1]) + rng.uniform(0.001, 0.999, shape)) / shape[1]


def _rows(state: State, households: np.ndarray) -> State:
    """Return the households as single-precision columns, so that futures broadcast along the second axis."""

    def column(values: np.ndarray) -> np.ndarray:
        chosen = values[households, None]
        return chosen if chosen.dtype == bool else chosen.astype(np.float32)

    return state.each(column)
