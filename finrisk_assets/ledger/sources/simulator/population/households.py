"""A household's month: income, spending and the closing balance, from the state that its ledger shows.

Only `step` and its helpers belong here. `step` is pure: a state, a calendar month and random draws give the next state and the
month's totals. Both the ledger and the futures behind the truths come from it. All money is in cents.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from finrisk_assets.ledger.sources.simulator.population.economy import HEAT, SEASON, HouseholdEffects

Three = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The last three months, the latest first."""


@dataclass(frozen=True)
class State:
    """Households at a month-end; arrays of one shape, or of shapes that broadcast.

    The ledger up to that month-end shows everything but `pull_to`.

    Attributes
    ----------
    balance
        On the account.
    usual
        Monthly income while in work: the declared one with the raises since.
    salaried, working
        Whether the person earns a salary, and has a job; the irregular ones always work.
    bills, utilities
        Rent and subscriptions of a month, and utilities before the season.
    pull_to
        Logarithm of the long-run level of spending, as a share of usual income.
    spent
        Spending of each month, as a share of the usual income, with the season taken out.
    earned
        Income of each month.
    missed
        Whether a payment was missed, by month.
    """

    balance: np.ndarray
    usual: np.ndarray
    salaried: np.ndarray
    working: np.ndarray
    bills: np.ndarray
    utilities: np.ndarray
    pull_to: np.ndarray
    spent: Three
    earned: Three
    missed: Three

    def each(self, change: Callable[..., np.ndarray], *others: "State") -> "State":
        """Return the state with a function applied to every array, together with the same arrays of other states."""

        def apply(values: Any, *more: Any) -> Any:
            return tuple(map(apply, values, *more)) if isinstance(values, tuple) else change(values, *more)

        return State(**{field.name: apply(*(getattr(state, field.name) for state in (self, *others))) for field in fields(self)})


@dataclass(frozen=True)
class Draws:
    """The random numbers of a month: normal ones for sizes, uniform ones for events."""

    income: np.ndarray
    bonus: np.ndarray
    job: np.ndarray
    spending: np.ndarray
    mishap: np.ndarray
    mishap_size: np.ndarray
    missed: np.ndarray

    @classmethod
    def of(cls, rng: np.random.Generator, shape: tuple[int, ...], dtype: type = np.float64) -> "Draws":
        normal, uniform = ["income", "spending", "mishap_size"], ["bonus", "job", "mishap", "missed"]
        return cls(
            **{name: rng.standard_normal(shape, dtype=dtype) for name in normal},
            **{name: rng.random(shape, dtype=dtype) for name in uniform},
        )


@dataclass(frozen=True)
class Prospect:
    """A month in which everything but the spending is settled; the spending is ``max(scale * exp(drift + noise * normal), least)``.

    `room` is the spending that would close the month at a balance of zero.
    """

    usual: np.ndarray
    working: np.ndarray
    income: np.ndarray
    mishap: np.ndarray
    is_missed: np.ndarray
    drift: np.ndarray
    scale: np.ndarray
    least: np.ndarray
    room: np.ndarray


@dataclass(frozen=True)
class Totals:
    """A month's totals: spending (bills and purchases), a separate mishap, a fee, and a penalty in its last second."""

    income: np.ndarray
    spending: np.ndarray
    mishap: np.ndarray
    is_missed: np.ndarray
    penalty: np.ndarray


def step(state: State, month: int, draws: Draws, effects: HouseholdEffects) -> tuple[State, Totals]:
    """Simulate one month.

    Parameters
    ----------
    state
        At the month-end before.
    month
        Of the calendar, 1 to 12.
    draws
        Arrays of the shape of the result.
    effects
        The numbers.

    Returns
    -------
    state, totals
        At the end of the month, and the month's movements added up, in whole cents.
    """
    return close(state, prospect(state, month, draws, effects), draws, effects)


def close(state: State, ahead: Prospect, draws: Draws, effects: HouseholdEffects) -> tuple[State, Totals]:
    """Draw a month's spending and close it; see `step`."""
    spending = np.rint(np.maximum(ahead.scale * np.exp(ahead.drift + effects.spending_noise * draws.spending), ahead.least))
    closing = ahead.room - spending
    penalty = np.where(closing < 0, np.rint(100 * effects.penalty_amount - closing * (effects.penalty_pct / 100)), 0)
    after = State(
        balance=closing - penalty,
        usual=ahead.usual,
        salaried=state.salaried,
        working=ahead.working,
        bills=state.bills,
        utilities=state.utilities,
        pull_to=state.pull_to,
        spent=(spending / ahead.scale, *state.spent[:2]),
        earned=(ahead.income, *state.earned[:2]),
        missed=(ahead.is_missed, *state.missed[:2]),
    )
    return after, Totals(ahead.income, spending, ahead.mishap, ahead.is_missed, penalty)


def prospect(state: State, month: int, draws: Draws, effects: HouseholdEffects) -> Prospect:
    """Settle everything of a month but its spending; see `step`."""
    kind = state.balance.dtype
    season, heat = float(SEASON[month - 1]), float(HEAT[month - 1])
    usual = state.usual * (1 + effects.yearly_raise) if month == 1 else state.usual
    working = ~state.salaried | np.where(state.working, draws.job >= effects.job_loss_rate, draws.job < effects.job_found_rate)
    spread = np.where(state.salaried, effects.salary_noise, effects.irregular_spread).astype(kind)
    earned = usual * np.exp(spread * draws.income - spread**2 / 2)
    if month == 11:
        earned = earned * (1 + effects.bonus_amount * (state.salaried & (draws.bonus < effects.bonus_share)))
    income = np.rint(np.where(working, earned, effects.benefit_share * usual))
    mishap = draws.mishap < effects.mishap_rate
    mishap_size = np.where(mishap, np.rint(usual * effects.mishap_amount * np.exp(0.5 * draws.mishap_size)), 0)

    saved = state.balance / usual
    habit = np.log((state.spent[0] + state.spent[1] + state.spent[2]) / 3)
    earned_lately = (state.earned[0] + state.earned[1] + state.earned[2]) / (3 * usual)
    drift = (
        effects.spending_memory * habit
        + (1 - effects.spending_memory) * state.pull_to
        + effects.income_pull * np.log(earned_lately)
        - effects.thrift * sigmoid((effects.short_below - saved) / 0.5)
        + effects.ease * np.clip(saved - effects.ease_from, 0, 6)
    )
    n_missed = state.missed[0].astype(kind) + state.missed[1] + state.missed[2]
    logit = (
        effects.missed_base
        + effects.missed_short * np.clip(effects.short_below - saved, 0, 1.5)
        + effects.missed_before * n_missed
        + effects.missed_idle * (~state.working).astype(kind)
        + effects.missed_strain * 10 * np.clip(np.exp(habit) / earned_lately - 1, -0.3, 0.5)
    )
    is_missed = draws.missed < sigmoid(logit)
    return Prospect(
        usual=usual,
        working=working,
        income=income,
        mishap=mishap_size,
        is_missed=is_missed,
        drift=drift,
        scale=usual * season,
        least=np.rint(state.bills + state.utilities * heat + effects.spending_least * usual),
        room=state.balance + income - mishap_size - round(100 * effects.missed_fee_amount) * is_missed.astype(kind),
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))
