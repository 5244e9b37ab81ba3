"""The months of a town's households over the whole ledger: `households.step` applied month by month."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.population.economy import HEAT
from finrisk_assets.ledger.sources.simulator.population.households import Draws, State, step
from finrisk_assets.ledger.sources.simulator.population.people import People, Town


@dataclass(frozen=True)
class HouseholdMonths:
    """Every household's months; shape ``(n, n_months)``, money in cents.

    Attributes
    ----------
    is_open
        Whether the account is open; the other fields mean nothing in earlier months.
    income, spending, mishap, penalty, is_missed, working
        As in `households.Totals` and `households.State`.
    utilities
        The utilities bill, season included.
    month_ends
        The state at each month-end, of every household.
    """

    is_open: np.ndarray
    income: np.ndarray
    spending: np.ndarray
    mishap: np.ndarray
    penalty: np.ndarray
    is_missed: np.ndarray
    working: np.ndarray
    utilities: np.ndarray
    month_ends: tuple[State, ...]


def simulate_months(town: Town, people: People) -> HouseholdMonths:
    """Step every household through the ledger's months; a household stays in its first state until its account opens."""
    economy, rng = town.economy, town.rng("months")
    state, month_ends, totals = first_state(town, people), [], []
    for number, month in enumerate(economy.calendar):
        lived, total = step(state, int(month), Draws.of(rng, (len(people),)), economy.household)
        state = lived.each(_chooser(number >= people.opened_month), state)
        month_ends.append(state)
        totals.append(total)
    columns = {name: np.stack([getattr(total, name) for total in totals], axis=1) for name in ("income", "spending", "mishap", "penalty")}
    return HouseholdMonths(
        is_open=np.arange(economy.n_months) >= people.opened_month[:, None],
        **{name: column.astype(np.int64) for name, column in columns.items()},
        is_missed=np.stack([total.is_missed for total in totals], axis=1),
        working=np.stack([state.working for state in month_ends], axis=1),
        utilities=utilities(people)[:, None] * HEAT[economy.calendar - 1],
        month_ends=tuple(month_ends),
    )


def first_state(town: Town, people: People) -> State:
    """Return the state before the first month: in work, nothing missed, spending near the person's long-run level."""
    effects, rng = town.economy.household, town.rng("start")
    usual = people.income * 100
    pull_to = np.log(effects.spending_level) + effects.discipline * (0.5 - people.discipline)
    habit = np.exp(pull_to + rng.normal(0, 1.2 * effects.spending_noise, len(people)))
    nothing = np.zeros(len(people), dtype=bool)
    return State(
        balance=np.rint(people.savings * 100),
        usual=usual,
        salaried=people.salaried,
        working=np.ones(len(people), dtype=bool),
        bills=np.rint(people.rent * 100) + np.rint(people.subscriptions * 100).sum(axis=1),
        utilities=utilities(people),
        pull_to=pull_to,
        spent=(habit, habit, habit),
        earned=(usual, usual, usual),
        missed=(nothing, nothing, nothing),
    )


def utilities(people: People) -> np.ndarray:
    """Return a month's utilities before the season, in cents."""
    return people.utilities * 100


def _chooser(mask: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return a choice between two arrays: the first where the mask is true."""

    def choose(new: np.ndarray, old: np.ndarray) -> np.ndarray:
        return np.where(mask, new, old)

    return choose
