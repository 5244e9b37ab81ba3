"""Offers of loans: half at a random rate, half at a policy's rate, each with a known acceptance probability."""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.causes import Causes, MovementHistory
from finrisk_assets.ledger.sources.simulator.intercepts import intercept_for
from finrisk_assets.ledger.sources.simulator.loans import (
    averaging_divisor,
    burden_slope,
    default_logit,
    draw_terms,
    draw_times,
    employed_months,
)
from finrisk_assets.ledger.sources.simulator.population.calendar import HouseholdMonths
from finrisk_assets.ledger.sources.simulator.population.economy import DAY, OfferEffects
from finrisk_assets.ledger.sources.simulator.population.households import sigmoid
from finrisk_assets.ledger.sources.simulator.population.people import People, Town

_TYPICAL_BURDEN = 0.15


@dataclass(frozen=True)
class Offers:
    """Offers in order of time, one element each; times in seconds since the start, money in currency.

    `base` is the logit of acceptance at a rate of zero, an amount of one month's income and a term of 24 months, the hidden cause
    included; `pd_base` the logit of a default without an instalment, as the ledger shows it.
    """

    customer: np.ndarray
    offered: np.ndarray
    amount: np.ndarray
    term_months: np.ndarray
    annual_rate_pct: np.ndarray
    is_rate_random: np.ndarray
    is_accepted: np.ndarray
    known: np.ndarray
    acceptance: np.ndarray
    base: np.ndarray
    monthly_income: np.ndarray
    pd_base: np.ndarray
    pd_burden_slope: float


def simulate_offers(
    town: Town, people: People, months: HouseholdMonths, history: MovementHistory, default: float | None, intercept: float | None
) -> tuple[Offers, float]:
    """Draw the offers and their answers; `default` is the intercept of a default, `intercept` as in `fraud.add_fraud`."""
    economy, rng, effects = town.economy, town.rng("offers"), town.economy.offers
    customer, offered = draw_times(town, people, rng, economy.offers_per_customer, np.ones(len(people)))
    n = len(customer)
    causes = history.causes(people, customer, offered)
    amount, term = draw_terms(causes, rng)
    dull = averaging_divisor(economy.loans.noise)
    employed = employed_months(town, people, months, customer, offered)
    pd_base = ((default or 0.0) + default_logit(causes, employed, economy.loans)) / dull
    slope = burden_slope(economy.loans) / dull
    is_random = rng.random(n) < effects.random_share
    rate = np.where(
        is_random,
        rng.uniform(*effects.random_rate_pct, n),
        _policy_rate(sigmoid(pd_base + slope * _TYPICAL_BURDEN), effects, rng),
    )
    rate = np.round(rate, 2)
    logit = acceptance_logit(causes, effects) + rng.normal(0, effects.noise, n)
    offered_terms = effects.rate * rate + effects.amount * np.log(amount / causes.monthly_income) + effects.term * np.log(term / 24)
    if intercept is None:
        known_rates = is_random if is_random.any() else np.ones(n, dtype=bool)
        intercept = intercept_for((logit + offered_terms)[known_rates], economy.acceptance_rate)
    acceptance = sigmoid(intercept + logit + offered_terms)
    offered_loans = Offers(
        customer=customer,
        offered=offered,
        amount=amount,
        term_months=term,
        annual_rate_pct=rate,
        is_rate_random=is_random,
        is_accepted=rng.random(n) < acceptance,
        known=offered + rng.integers(DAY, 30 * DAY, n),
        acceptance=acceptance,
        base=intercept + logit,
        monthly_income=causes.monthly_income,
        pd_base=pd_base,
        pd_burden_slope=slope,
    )
    return offered_loans, intercept


def acceptance_logit(causes: Causes, effects: OfferEffects) -> np.ndarray:
    """Return the part of the acceptance logit that follows from the ledger: the need for money."""
    months_short = np.clip(2 - causes.balance / causes.monthly_income, 0, 2.5)
    return (
        effects.expense_ratio * 10 * (causes.expense_ratio - 1)
        + effects.low_savings * months_short
        + effects.trouble * np.minimum(causes.penalties + causes.returned, 6)
        + effects.income * np.log2(causes.monthly_income / 2_000)
    )


def _policy_rate(pd: np.ndarray, effects: OfferEffects, rng: np.random.Generator) -> np.ndarray:
    """Return the rate of each customer's tier with a little noise; never below half a percent."""
    tier = np.searchsorted(np.asarray(effects.tier_pd), pd, side="right")
    return np.maximum(np.asarray(effects.tier_rate_pct)[tier] + rng.normal(0, effects.tier_noise_pct, len(pd)), 0.5)
