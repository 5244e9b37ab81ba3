"""The offer that follows from acceptance and default: the expected profit of each offer on a grid of terms, and the best that is allowed.

On numpy alone, for one customer or many; the service imports this module. An offer is expected to earn

    P(accept) value - cost of an offer,

where the value is that of the loan at the PD of its terms (`finrisk_assets.scoring.loan_value`). That is the expected incremental profit of
a priced loan (Phillips, *Pricing Credit Products*, Stanford 2018, chapters 2 and 6). An offer is allowed only where an application at the
same terms would be approved: both are decided by `finrisk_assets.scoring.loan_decision.decide_loans`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.policy.document import OfferGrid, Policy
from finrisk_assets.scoring.annuity import instalment, instalments_to_cent
from finrisk_assets.scoring.loan_decision import LoanTerms, decide_loans
from finrisk_assets.scoring.ratios import ratios

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

OFFER, NO_OFFER = "offer", "no_offer"
DECISIONS = (OFFER, NO_OFFER)

NO_INCOME = "the income is not known"
NO_PD = "the probability of default is not known"
HIGH_SPENDING_RISK = "the spending risk is HIGH"
RISKY = "the probability of default is above the maximum"
CAPPED = "no rate of the grid lies under the cap"
UNAFFORDABLE = "every instalment takes too much of the income"
NOT_APPROVED = "an application at these terms would not be approved"
UNPROFITABLE = "no affordable terms are expected to earn anything"
REASONS = ("", NO_INCOME, NO_PD, HIGH_SPENDING_RISK, RISKY, CAPPED, UNAFFORDABLE, NOT_APPROVED, UNPROFITABLE)
"""Reasons why there is no offer, by number; the first that holds counts."""

MAX_ALTERNATIVES = 3
"""Other amounts and terms that a decision lists."""

TERMS = ("annual_rate_pct", "log_loan_amount", "log_term_months", "log_loan_to_income", "instalment_to_income")
"""The features that the offered terms determine; all other features are the customer's state."""


class GridError(ValueError):
    """A grid of terms that cannot be used, with the allowed values."""


@dataclass(frozen=True)
class Grid:
    """The terms that are considered: every rate with every amount with every term; the term varies fastest.

    A bundle holds the grid of the terms that its model learned from; the policy chooses among them (`choose_grid`).

    Attributes
    ----------
    rates
        Yearly rates in per cent, ascending.
    multiples
        Amounts, as multiples of the monthly income; empty where `amounts` has them in currency.
    terms
        Months to repay, ascending.
    amounts
        Amounts in currency; empty where `multiples` has them.
    """

    rates: tuple[float, ...]
    multiples: tuple[float, ...]
    terms: tuple[int, ...]
    amounts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.rates or not self.terms or bool(self.multiples) == bool(self.amounts):
            raise GridError("a grid needs rates, terms, and amounts either in currency or as multiples of the income")
        if min(self.rates) < 0 or min((*self.multiples, *self.amounts)) <= 0 or min(self.terms) < 1:
            raise GridError("a grid's rates are not below 0, its amounts above 0 and its terms 1 or more")

    def __len__(self) -> int:
        return len(self.rates) * len(self.multiples or self.amounts) * len(self.terms)

    @classmethod
    def from_thresholds(cls, thresholds: Mapping[str, float]) -> "Grid":
        """Return the grid in a bundle's thresholds, by the names of the method `thresholds`."""

        def values(name: str) -> tuple[float, ...]:
            numbered = (key.rsplit("_", 1) for key in thresholds)
            indices = sorted(int(part[1]) for part in numbered if len(part) == 2 and part[0] == name and part[1].isdigit())
            return tuple(float(thresholds[f"{name}_{k}"]) for k in indices)

        terms = tuple(int(term) for term in values("grid_term"))
        return cls(values("grid_rate"), values("grid_multiple"), terms, values("grid_amount"))

    def thresholds(self) -> dict[str, float]:
        """Return the grid as a bundle's thresholds: ``grid_rate_0``, ``grid_multiple_0``, ``grid_term_0`` and so on."""
        axes = {"grid_rate": self.rates, "grid_multiple": self.multiples, "grid_term": self.terms, "grid_amount": self.amounts}
        return {f"{name}_{k}": float(value) for name, values in axes.items() for k, value in enumerate(values)}

    def choose_grid(self, wanted: OfferGrid, rate_cap_pct: float) -> "Grid":
        """Return the policy's grid within the terms that the model learned from; where the policy wants nothing there, the learned terms.

        Parameters
        ----------
        wanted
            The policy's rates, amounts in incomes and terms; an empty list takes the learned ones. Amounts in incomes do not apply where
            the learned amounts are in currency.
        rate_cap_pct
            Rates above it are left out, unless all of them are: then nothing can be offered, and the decision says so.
        """
        rates = _within(wanted.rates_pct, self.rates)
        capped = tuple(rate for rate in rates if rate <= rate_cap_pct)
        return replace(
            self,
            rates=capped or rates,
            multiples=_within(wanted.amounts_in_incomes, self.multiples) if self.multiples else (),
            terms=tuple(int(term) for term in _within(wanted.terms_months, self.terms)),
        )

    def restrict(self, *, loan_amount: float | None = None, term_months: int | None = None) -> "Grid":
        """Return the grid of one amount in currency, one term, or both."""
        grid = self if loan_amount is None else replace(self, multiples=(), amounts=(loan_amount,))
        return grid if term_months is None else replace(grid, terms=(term_months,))

    def points(self, monthly_income: ArrayLike) -> "GridPoints":
        """Return the terms for customers of these monthly incomes, shape (n,); NaN where the income is not known."""
        income = np.atleast_1d(np.asarray(monthly_income, np.float64))
        width = len(self.multiples or self.amounts)
        unit = income[:, None] if self.multiples else np.ones((len(income), 1))
        amounts = unit * np.asarray(self.multiples or self.amounts)[None, :]
        shape = (len(self.rates), width, len(self.terms))
        rate = np.broadcast_to(np.asarray(self.rates)[:, None, None], shape).reshape(-1)
        term = np.broadcast_to(np.asarray(self.terms, np.float64)[None, None, :], shape).reshape(-1)
        # Multiples in whole units, so that an applicant can ask for exactly what was offered.
        whole = np.maximum(np.rint(amounts), 1.0) if self.multiples else amounts
        amount = np.broadcast_to(whole[:, None, :, None], (len(income), *shape)).reshape(len(income), -1)
        return GridPoints(rate, amount, term)


@dataclass(frozen=True)
class GridPoints:
    """The terms on a grid of g points for n customers: yearly rate (g,), amount (n, g) and term (g,)."""

    rate: Floats
    amount: Floats
    term: Floats

    @property
    def instalment(self) -> Floats:
        """The monthly instalments in currency to the cent, as an application has them, shape (n, g)."""
        return instalments_to_cent(self.amount, self.rate, self.term)


@dataclass(frozen=True)
class PricedOffer:
    """One offer and its expected profit; money in the ledger's currency.

    Attributes
    ----------
    annual_rate_pct, loan_amount, term_months, instalment_amount
        The terms.
    acceptance, pd
        Probabilities of acceptance, and of default if accepted.
    expected_profit
        ``acceptance (interest - funding - expected_loss - cost) - offer cost``.
    interest, funding, expected_loss, cost
        Of an accepted loan, expected and discounted; `cost` is that of the loan alone.
    """

    annual_rate_pct: float
    loan_amount: float
    term_months: int
    instalment_amount: float
    acceptance: float
    pd: float
    expected_profit: float
    interest: float
    funding: float
    expected_loss: float
    cost: float


@dataclass(frozen=True)
class OfferDecision:
    """The offer to one customer.

    Attributes
    ----------
    best
        None where there is no offer; `reason` says why, and is empty otherwise.
    alternatives
        The best of each other amount and term, by expected profit, at most `MAX_ALTERNATIVES`; all earn something.
    curve
        Per rate of the grid the best allowed offer, profitable or not; rates without an allowed offer are left out.
    """

    best: PricedOffer | None
    alternatives: tuple[PricedOffer, ...]
    curve: tuple[PricedOffer, ...]
    reason: str

    @property
    def decision(self) -> str:
        return NO_OFFER if self.best is None else OFFER


@dataclass(frozen=True)
class OfferPrices:
    """The expected profits of every offer on a grid: arrays of shape (n, g), fields as in `PricedOffer`.

    Attributes
    ----------
    cost
        Of granting and servicing the loan.
    allowed
        Whether the policy allows the offer; an offer with a NaN is not allowed.
    is_affordable
        Whether the instalment is within the policy's share of the income.
    is_high_risk
        Whether the customer gets no offer for a HIGH spending risk, shape (n,).
    """

    points: GridPoints
    instalment: Floats
    acceptance: Floats
    pd: Floats
    interest: Floats
    funding: Floats
    expected_loss: Floats
    cost: Floats
    expected_profit: Floats
    allowed: Flags
    is_affordable: Flags
    is_high_risk: Flags


@dataclass(frozen=True)
class OfferChoice:
    """The best offer of each of n customers: its place on the grid, -1 for no offer, and the number of the reason."""

    best: NDArray[np.int64]
    reason: NDArray[np.int64]

    @property
    def decisions(self) -> list[str]:
        return [NO_OFFER if at < 0 else OFFER for at in self.best.tolist()]


def _log(value: Floats) -> Floats:
    return np.log(np.where(value > 0, value, np.nan))


def build_rows(names: Sequence[str], state: ArrayLike, monthly_income: ArrayLike, grid: Grid) -> NDArray[np.float32]:
    """Return the model's rows of customers at every point of a grid.

    Parameters
    ----------
    names
        The model's features, in order.
    state : array-like, shape (n, d) or (d,)
        The customers' features; the values of `TERMS` are replaced.
    monthly_income : array-like, shape (n,) or a number
        NaN where it is not known.

    Returns
    -------
    ndarray of float32, shape (n, g, d)
    """
    income = np.atleast_1d(np.asarray(monthly_income, np.float64))
    states = np.atleast_2d(np.asarray(state, np.float32))
    points = grid.points(income)
    rows = np.repeat(states[:, None, :], len(grid), axis=1)
    values = {
        "annual_rate_pct": lambda: points.rate[None, :],
        "log_loan_amount": lambda: _log(points.amount),
        "log_term_months": lambda: _log(points.term)[None, :],
        "log_loan_to_income": lambda: _log(points.amount) - _log(income)[:, None],
        "instalment_to_income": lambda: ratios(instalment(points.amount, points.rate, points.term), income[:, None], no_whole="largest"),
    }
    for at, name in enumerate(names):
        if name in values:
            rows[:, :, at] = values[name]()
    return rows


def price_offers(
    acceptance: ArrayLike,
    pd: ArrayLike,
    monthly_income: ArrayLike,
    grid: Grid,
    policy: Policy,
    *,
    usual_income: ArrayLike | None = None,
    spending_probability: ArrayLike | None = None,
) -> OfferPrices:
    """Return the expected profit of every offer on the grid.

    Parameters
    ----------
    acceptance : array-like, shape (n, g) or (g,)
        Probability that each offer is accepted.
    pd : array-like, shape (n,), (n, g) or a number
        Probability of default, of the customer or at each of the terms; NaN where it is not known.
    monthly_income : array-like, shape (n,) or a number
        The income that the grid's amounts are multiples of.
    usual_income : array-like, shape (n,) or a number, optional
        The income that an application would be decided by, which must pay the instalment; None takes `monthly_income`.
    spending_probability : array-like, shape (n,) or a number, optional
        Probability of trouble by the customer's spending, NaN or None where it is not known.
    """
    income = np.atleast_1d(np.asarray(monthly_income, np.float64))
    payer = income if usual_income is None else np.broadcast_to(np.asarray(usual_income, np.float64), income.shape)
    accept = np.atleast_2d(np.asarray(acceptance, np.float64))
    risk = np.asarray(pd, np.float64)
    risk = np.broadcast_to(risk if risk.ndim == 2 else risk.reshape(-1, 1), accept.shape)
    points = grid.points(income)
    pay = points.instalment
    decided = decide_loans(risk, LoanTerms(points.amount, points.rate, points.term, pay, payer[:, None]), policy)
    profit = accept * decided.value.value - policy.loan_offers.offer_cost_amount
    spending = np.nan if spending_probability is None else spending_probability
    trouble = np.broadcast_to(np.asarray(spending, np.float64), income.shape)
    is_high = (trouble >= policy.spending_risk.high_from) & (not policy.loan_offers.offers_to_high_spending_risk)
    allowed = decided.is_approved & (points.rate <= policy.lending.rate_cap_pct) & ~is_high[:, None] & np.isfinite(profit)
    value = decided.value
    is_affordable = pay <= policy.lending.max_instalment_to_income * payer[:, None]
    return OfferPrices(
        points, pay, accept, risk, value.interest, value.funding, value.expected_loss, value.cost, profit, allowed, is_affordable, is_high
    )


def choose_offers(prices: OfferPrices, monthly_income: ArrayLike, policy: Policy) -> OfferChoice:
    """Return the offer of the highest expected profit for each customer; of equal offers the first, which has the lowest rate."""
    income = np.atleast_1d(np.asarray(monthly_income, np.float64))
    profit = np.where(prices.allowed, prices.expected_profit, -np.inf)
    best = profit.argmax(axis=1)
    earns = profit[np.arange(len(best)), best] > 0
    lowest = np.where(np.isnan(prices.pd), np.inf, prices.pd).min(axis=1)
    conditions = [
        np.isnan(income),
        np.isnan(prices.pd).all(axis=1),
        prices.is_high_risk,
        lowest > policy.lending.max_pd,
        np.full(len(best), bool((prices.points.rate > policy.lending.rate_cap_pct).all())),
        ~prices.is_affordable.any(axis=1),
        ~prices.allowed.any(axis=1),
        ~earns,
    ]
    reason = np.select(conditions, range(1, len(REASONS)), default=0)
    return OfferChoice(np.where(reason == 0, best, -1), reason)


def choose_offer(
    acceptance: ArrayLike,
    pd: float | ArrayLike | None,
    monthly_income: float | None,
    grid: Grid,
    policy: Policy,
    *,
    usual_income: float | None = None,
    spending_probability: float | None = None,
) -> OfferDecision:
    """Return the offer to one customer.

    Parameters
    ----------
    acceptance : array-like, shape (g,)
        At each point of the grid, in the order of `build_rows`.
    pd : float, array-like of shape (g,), or None
        Probability of default of the customer, or at each of the terms; None where it is not known.
    monthly_income
        None where it is not known.
    usual_income, spending_probability
        As in `price_offers`.

    Raises
    ------
    ValueError
        For an acceptance or a PD that is no probability, an income below 0, or a number of values other than that of the grid's points.
    """
    accept = np.asarray(acceptance, np.float64).reshape(1, -1)
    risk = np.atleast_2d(np.asarray(np.nan if pd is None else pd, np.float64))
    income = np.nan if monthly_income is None else float(monthly_income)
    if accept.shape[1] != len(grid) or risk.shape[1] not in (1, len(grid)):
        raise ValueError(f"the grid has {len(grid)} points; {accept.shape[1]} acceptances and {risk.shape[1]} PDs are given")
    for name, values in (("acceptance", accept), ("pd", risk[~np.isnan(risk)])):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name}: a probability lies between 0 and 1")
    if income < 0:
        raise ValueError("monthly_income: an income is not below 0")
    known = {"usual_income": usual_income, "spending_probability": spending_probability}
    prices = price_offers(accept, risk, income, grid, policy, **known)
    choice = choose_offers(prices, income, policy)
    if choice.reason[0] and not prices.allowed.any():
        return OfferDecision(None, (), (), REASONS[choice.reason[0]])
    profit = np.where(prices.allowed[0], prices.expected_profit[0], -np.inf)
    profit_by_rate = profit.reshape(len(grid.rates), -1)
    width = profit_by_rate.shape[1]
    curve = tuple(
        read_offer(prices, 0, k * width + int(profit_by_rate[k].argmax()))
        for k in range(len(profit_by_rate))
        if profit_by_rate[k].max() > -np.inf
    )
    best = int(choice.best[0])
    if best < 0:
        return OfferDecision(None, (), curve, REASONS[choice.reason[0]])
    peaks = [int(profit_by_rate[:, pair].argmax()) * width + pair for pair in range(width) if pair != best % width]
    others = sorted((at for at in peaks if profit[at] > 0), key=lambda at: (-profit[at], at))[:MAX_ALTERNATIVES]
    return OfferDecision(read_offer(prices, 0, best), tuple(read_offer(prices, 0, at) for at in others), curve, "")


def read_offer(prices: OfferPrices, customer: int, at: int) -> PricedOffer:
    """Return one point of the grid for one customer."""
    return PricedOffer(
        annual_rate_pct=float(prices.points.rate[at]),
        loan_amount=float(prices.points.amount[customer, at]),
        term_months=int(prices.points.term[at]),
        instalment_amount=float(prices.instalment[customer, at]),
        acceptance=float(prices.acceptance[customer, at]),
        pd=float(prices.pd[customer, at]),
        expected_profit=float(prices.expected_profit[customer, at]),
        interest=float(prices.interest[customer, at]),
        funding=float(prices.funding[customer, at]),
        expected_loss=float(prices.expected_loss[customer, at]),
        cost=float(prices.cost[customer, at]),
    )


def find_cheapest(grid: Grid) -> int:
    """Return the point of the lowest rate, amount and term: the answer gives its acceptance where nothing is offered."""
    axes: dict[str, Any] = {"rates": grid.rates, "amounts": grid.multiples or grid.amounts, "terms": grid.terms}
    places = {name: int(np.argmin(values)) for name, values in axes.items()}
    return (places["rates"] * len(axes["amounts"]) + places["amounts"]) * len(grid.terms) + places["terms"]


def _within(wanted: Sequence[float], learned: Sequence[float]) -> tuple[float, ...]:
    """Return the wanted values that lie within the learned ones; the learned ones where none does."""
    inside = tuple(float(value) for value in wanted if min(learned) <= value <= max(learned))
    return inside or tuple(float(value) for value in learned)
