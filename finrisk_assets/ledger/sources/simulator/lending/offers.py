"""Offers of loans: half at a random rate, half at a policy's rate, each with a known acceptance probability and a known fate."""

from dataclasses import dataclass

import numpy as np

from finrisk_assets.ledger.sources.simulator.lending import applicants as borrowers
from finrisk_assets.ledger.sources.simulator.lending import repayment
from finrisk_assets.ledger.sources.simulator.lending.applicants import Applicants
from finrisk_assets.ledger.sources.simulator.lending.intercepts import find_intercept
from finrisk_assets.ledger.sources.simulator.lending.loans import OUTCOME_MONTHS, draw_recoveries
from finrisk_assets.ledger.sources.simulator.lending.repayment import Limits, Outlook
from finrisk_assets.ledger.sources.simulator.population.calendar import HouseholdMonths
from finrisk_assets.ledger.sources.simulator.population.economy import DAY, OfferEffects
from finrisk_assets.ledger.sources.simulator.population.households import sigmoid
from finrisk_assets.ledger.sources.simulator.population.people import People, Town

_BURDENS = (0.05, 0.25)
"""Shares of income between which the logit of a default within twelve months is taken as a straight line."""
_TYPICAL_BURDEN = 0.15
_BLUR = 0.4
"""Standard deviation of the bank's error in the logit of a default; its policy does not see the hidden state."""


@dataclass(frozen=True)
class Offers:
    """Offers in order of time, one element each; times in seconds since the start, money in currency.

    `base` is the logit of acceptance at a rate of zero, an amount of one month's income and a term of 24 months, the hidden cause
    included; `pd_base` and `pd_burden_slope` give the logit of a default within twelve months. `limits` tells what would happen at
    any terms.
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
    pd_base: np.ndarray
    pd_burden_slope: np.ndarray
    outlook: Outlook
    limits: Limits
    recovery_share: np.ndarray


def simulate_offers(
    town: Town, people: People, months: HouseholdMonths, default: float | None, intercept: float | None
) -> tuple[Offers, float]:
    """Draw the offers and their answers.

    Parameters
    ----------
    default
        Intercept of a default's logit, from `loans.simulate_loans`.
    intercept
        Of the acceptance's logit; None finds the one that gives `Economy.acceptance_rate`.
    """
    economy, rng, effects = town.economy, town.rng("offers"), town.economy.offers
    applicants = borrowers.draw_applicants(town, people, months, rng, economy.offers_per_customer, np.ones(len(people)))
    n = len(applicants)
    amount, term = borrowers.draw_amounts(applicants.income, rng), borrowers.draw_terms(rng, n)
    outlook = borrowers.find_outlook(applicants, people, economy.loans, default or 0.0)
    pd_base, slope = find_default_line(town, outlook)
    is_random = rng.random(n) < effects.random_share
    seen = sigmoid(pd_base + slope * _TYPICAL_BURDEN + rng.normal(0, _BLUR, n))
    rate = np.round(np.where(is_random, rng.uniform(*effects.random_rate_pct, n), _policy_rate(seen, effects, rng)), 2)
    logit = acceptance_logit(applicants, effects) + rng.normal(0, effects.noise, n)
    offered_terms = effects.rate * rate + effects.amount * np.log(amount / applicants.income) + effects.term * np.log(term / 24)
    if intercept is None:
        quiet = borrowers.is_before_shock(town, applicants)
        known = (logit + offered_terms)[is_random & quiet if (is_random & quiet).any() else quiet]
        intercept = find_intercept(lambda shift: sigmoid(shift + known).mean() if len(known) else 1.0, economy.acceptance_rate)
    acceptance = sigmoid(intercept + logit + offered_terms)
    offered_loans = Offers(
        customer=applicants.customer,
        offered=applicants.second,
        amount=amount,
        term_months=term,
        annual_rate_pct=rate,
        is_rate_random=is_random,
        is_accepted=rng.random(n) < acceptance,
        known=applicants.second + rng.integers(DAY, 30 * DAY, n),
        acceptance=acceptance,
        base=intercept + logit,
        pd_base=pd_base,
        pd_burden_slope=slope,
        outlook=outlook,
        limits=repayment.draw_limits(outlook, borrowers.find_months(applicants, months), economy.loans, rng),
        recovery_share=draw_recoveries(economy.loans.loss_given_default, rng, n),
    )
    return offered_loans, intercept


def acceptance_logit(applicants: Applicants, effects: OfferEffects) -> np.ndarray:
    """Return the part of the acceptance logit that follows from the household's state: the need for money."""
    return (
        effects.low_savings * np.clip(2 - applicants.saved, 0, 2.5)
        + effects.strain * applicants.strain
        + effects.committed * 10 * applicants.overcommitted
        + effects.debts * applicants.debts
        + effects.income * np.log2(applicants.income / 2_000)
    )


def find_default_line(town: Town, outlook: Outlook) -> tuple[np.ndarray, np.ndarray]:
    """Return base and slope of the logit of a default within twelve months over instalment to income, for loans of a year or more."""
    loans, n = town.economy.loans, len(outlook.pressure)
    term, rate = np.full(n, repayment.LONGEST_MONTHS), np.full(n, loans.market_rate_pct)
    logits = []
    for burden in _BURDENS:
        instalment = burden * outlook.true_income_amount
        expected = repayment.expect_course(outlook, instalment, rate, term, loans, town.economy.household, OUTCOME_MONTHS)
        probability = np.clip(expected.default.sum(axis=1), 1e-12, 1 - 1e-12)
        logits.append(np.log(probability / (1 - probability)))
    slope = (logits[1] - logits[0]) / (_BURDENS[1] - _BURDENS[0])
    return logits[0] - slope * _BURDENS[0], slope


def _policy_rate(pd: np.ndarray, effects: OfferEffects, rng: np.random.Generator) -> np.ndarray:
    """Return the rate of each customer's tier with a little noise; never below half a percent."""
    tier = np.searchsorted(np.asarray(effects.tier_pd), pd, side="right")
    return np.maximum(np.asarray(effects.tier_rate_pct)[tier] + rng.normal(0, effects.tier_noise_pct, len(pd)), 0.5)
