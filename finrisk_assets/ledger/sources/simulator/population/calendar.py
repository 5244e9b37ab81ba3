"""The months of a town's households over the whole ledger: `households.step` applied month by month.

The households live before the ledger begins, so that its first month is like any other, and on after it ends, so that loans can be
played to their last instalment.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from finrisk_assets.ledger.sources.simulator.population.economy import HEAT
from finrisk_assets.ledger.sources.simulator.population.households import Draws, State, step
from finrisk_assets.ledger.sources.simulator.population.people import People, Town

MONTHS_BEFORE = 120
"""Months lived before the ledger: enough for balances to forget where they began."""
MONTHS_AFTER = 61
"""Months lived after the ledger: enough for the longest loan."""
_LEAST_OPENING = 0.05
"""Months of income; an account opens with at least this."""


@dataclass(frozen=True)
class HouseholdMonths:
    """Every household's months; shape ``(n, n_months)``, money in cents.

    Attributes
    ----------
    is_open
        Whether the account is open; the other fields mean nothing in earlier months.
    income, spending, mishap, penalty, is_missed
        As in `households.Totals`.
    utilities
        The utilities bill, season included.
    working, has_mishap
        Whether the person works, and whether a mishap happens; shape ``(n, n_months + MONTHS_AFTER)``.
    lasting
        The long-run income in these months, as a share of that at the start; shape ``(n_months + MONTHS_AFTER,)``.
    states
        The state before each month, of every household, and after the last; length ``n_months + 1``.
    """

    is_open: np.ndarray
    income: np.ndarray
    spending: np.ndarray
    mishap: np.ndarray
    penalty: np.ndarray
    is_missed: np.ndarray
    utilities: np.ndarray
    working: np.ndarray
    has_mishap: np.ndarray
    lasting: np.ndarray
    states: tuple[State, ...]

    def opening(self, people: People) -> np.ndarray:
        """Return the balance with which each account opens, in cents."""
        return choose_rows(opening_balance, self, np.arange(len(people)), people.opened_month)


def simulate_months(town: Town, people: People) -> HouseholdMonths:
    """Step every household through the ledger's months, those before and those after."""
    economy, rng = town.economy, town.rng("months")
    effects, n = economy.household, len(people)
    state, before = first_state(people), town.rng("before")
    for number in range(-MONTHS_BEFORE, 0):
        state, _ = step(state, calendar_month(economy.start.month, number), Draws.of(before, (n,)), effects)
    states, totals, working, mishaps, lasting = [], [], [], [], []
    level = 1.0
    for number in range(economy.n_months + MONTHS_AFTER):
        if number + 1 == economy.shock_month:
            level = 1 - economy.shock_size
            state = lower_incomes(state, level)
        if number <= economy.n_months:
            states.append(state)
        # An account opens with money on it. One that is in overdraft by then has a large expense in its first month.
        carried = np.where(people.opened_month == number, opening_balance(state) - state.balance, 0)
        state, total = step(state, calendar_month(economy.start.month, number), Draws.of(rng, (n,)), effects)
        totals.append(replace(total, mishap=total.mishap + carried))
        working.append(state.working)
        mishaps.append(total.mishap > 0)
        lasting.append(level)
    totals = totals[: economy.n_months]
    columns = {name: np.stack([getattr(total, name) for total in totals], axis=1) for name in ("income", "spending", "mishap", "penalty")}
    return HouseholdMonths(
        is_open=np.arange(economy.n_months) >= people.opened_month[:, None],
        **{name: column.astype(np.int64) for name, column in columns.items()},
        is_missed=np.stack([total.is_missed for total in totals], axis=1),
        utilities=utilities(people)[:, None] * HEAT[economy.calendar - 1],
        working=np.stack(working, axis=1),
        has_mishap=np.stack(mishaps, axis=1),
        lasting=np.array(lasting),
        states=tuple(states),
    )


def lower_incomes(state: State, to: float) -> State:
    """Return the state after all incomes fall to a share of what they were; bills and spending habits stay where they are at first."""
    return replace(state, lasting=state.lasting * to, usual=state.usual * to, habit=state.habit - np.log(to), earned=state.earned / to)


def opening_balance(state: State) -> np.ndarray:
    """Return the balance with which an account in this state opens, in cents."""
    return np.maximum(state.balance, np.rint(_LEAST_OPENING * state.usual))


def calendar_month(first: int, number: int) -> int:
    """Return the month of the year, 1 to 12, that lies `number` months after the month `first`."""
    return (first - 1 + number) % 12 + 1


def first_state(people: People) -> State:
    """Return a state long before the ledger: in work, nothing missed, the wanted buffer, spending all that comes in."""
    usual, nothing = people.income * 100, np.zeros(len(people))
    return State(
        balance=np.rint(people.buffer * usual),
        lasting=usual,
        usual=usual,
        salaried=people.salaried,
        working=np.ones(len(people), dtype=bool),
        bills=np.rint(people.rent * 100) + np.rint(people.subscriptions * 100).sum(axis=1),
        utilities=utilities(people),
        buffer=people.buffer,
        debts=people.debts,
        habit=nothing,
        earned=np.ones(len(people)),
        strain=nothing,
    )


def utilities(people: People) -> np.ndarray:
    """Return a month's utilities before the season, in cents."""
    return people.utilities * 100


def choose_rows(values: Callable[[State], np.ndarray], months: HouseholdMonths, household: np.ndarray, month: np.ndarray) -> np.ndarray:
    """Return a value of each household's state before the given month of the ledger, one element per pair."""
    return np.stack([values(state) for state in months.states], axis=1)[household, month]
