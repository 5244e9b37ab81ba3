"""A household's month: income, spending and the closing balance, from the household's hidden state.

Only `step` and its helpers belong here. `step` is pure: a state, a calendar month and random draws give the next state and the
month's totals. Both the ledger and the futures behind the truths come from it. All money is in cents.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from finrisk_assets.ledger.sources.simulator.population.economy import HEAT, SEASON, USUAL_COMMITMENT, HouseholdEffects


@dataclass(frozen=True)
class State:
    """Households at a month-end; arrays of one shape, or of shapes that broadcast.

    The ledger shows the balance, the bills and the job. The rest is hidden and only leaves traces.

    Attributes
    ----------
    balance
        On the account.
    lasting, usual
        Monthly income while in work: its long-run level, and the true usual income of these months, which moves around it.
    salaried, working
        Whether the person earns a salary, and has a job; people without a salary always work.
    bills, utilities
        Rent and subscriptions of a month, and utilities before the season.
    buffer
        Months of income that the person wants to hold on the account.
    debts
        Obligations that the account does not show, in standard deviations from the mean.
    habit
        Logarithm of the recent spending as a share of the usual income, the season taken out.
    earned
        Recent income as a share of the usual one.
    strain
        Payments missed of late; each counts one and fades.
    """

    balance: np.ndarray
    lasting: np.ndarray
    usual: np.ndarray
    salaried: np.ndarray
    working: np.ndarray
    bills: np.ndarray
    utilities: np.ndarray
    buffer: np.ndarray
    debts: np.ndarray
    habit: np.ndarray
    earned: np.ndarray
    strain: np.ndarray

    def each(self, change: Callable[..., np.ndarray], *others: "State") -> "State":
        """Return the state with a function applied to every array, together with the same arrays of other states."""
        return State(**{field.name: change(*(getattr(state, field.name) for state in (self, *others))) for field in fields(self)})

    @property
    def saved(self) -> np.ndarray:
        """The balance in months of the usual income."""
        return self.balance / self.usual

    @property
    def overcommitted(self) -> np.ndarray:
        """The share of the usual income that bills take, beyond `USUAL_COMMITMENT`."""
        return (self.bills + self.utilities) / self.usual - USUAL_COMMITMENT


@dataclass(frozen=True)
class Draws:
    """The random numbers of a month: normal ones for sizes, uniform ones for events."""

    usual: np.ndarray
    income: np.ndarray
    bonus: np.ndarray
    job: np.ndarray
    spending: np.ndarray
    mishap: np.ndarray
    mishap_size: np.ndarray
    missed: np.ndarray

    @classmethod
    def of(cls, rng: np.random.Generator, shape: tuple[int, ...], dtype: type = np.float64) -> "Draws":
        normal, uniform = ["usual", "income", "spending", "mishap_size"], ["bonus", "job", "mishap", "missed"]
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
    weight = effects.habit_weight
    after = State(
        balance=closing - penalty,
        lasting=state.lasting,
        usual=ahead.usual,
        salaried=state.salaried,
        working=ahead.working,
        bills=state.bills,
        utilities=state.utilities,
        buffer=state.buffer,
        debts=state.debts,
        habit=(1 - weight) * state.habit + weight * np.log(spending / ahead.scale),
        earned=(1 - weight) * state.earned + weight * ahead.income / ahead.usual,
        strain=effects.strain_memory * state.strain + ahead.is_missed,
    )
    return after, Totals(ahead.income, spending, ahead.mishap, ahead.is_missed, penalty)


def prospect(state: State, month: int, draws: Draws, effects: HouseholdEffects) -> Prospect:
    """Settle everything of a month but its spending; see `step`."""
    kind = state.balance.dtype
    season, heat = float(SEASON[month - 1]), float(HEAT[month - 1])
    moved = np.where(state.salaried, effects.salary_drift, effects.irregular_drift).astype(kind)
    usual = state.lasting * np.exp(effects.income_memory * np.log(state.usual / state.lasting) + moved * draws.usual)
    working = ~state.salaried | np.where(state.working, draws.job >= effects.job_loss_rate, draws.job < effects.job_found_rate)
    spread = np.where(state.salaried, effects.salary_noise, effects.irregular_spread).astype(kind)
    pay = usual * np.exp(spread * draws.income - spread**2 / 2)
    if month == 11:
        pay = pay * (1 + effects.bonus_amount * (state.salaried & (draws.bonus < effects.bonus_share)))
    income = np.rint(np.where(working, pay, effects.benefit_share * usual))

    saved = state.saved
    gap = np.clip((saved - state.buffer) / (0.5 + state.buffer), -3, 3)
    mishap = draws.mishap < effects.mishap_rate * np.exp(effects.mishap_pull * gap)
    worth = usual * (effects.mishap_amount + effects.mishap_saved * np.maximum(saved, 0))
    mishap_size = np.where(mishap, np.rint(worth * np.exp(0.5 * draws.mishap_size)), 0)
    drift = (
        effects.spending_memory * state.habit
        + (1 - effects.spending_memory) * np.log(effects.spending_level)
        + effects.income_pull * np.log(state.earned)
        + effects.thrift * np.minimum(gap, 0)
        + effects.ease * np.maximum(gap, 0)
    )
    logit = (
        effects.missed_base
        + effects.missed_short * np.clip(effects.short_below - saved, 0, 1.5)
        + effects.missed_strain * state.strain
        + effects.missed_idle * (~state.working).astype(kind)
        + effects.missed_committed * 10 * state.overcommitted
        + effects.missed_debts * state.debts
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
