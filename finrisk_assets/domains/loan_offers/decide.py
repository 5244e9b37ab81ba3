"""The offer that follows from acceptance and default: the expected profit of each offer on a grid of terms, and the best that is allowed.

On numpy alone, for one customer or many; the service imports this module. For an offer of amount L over n months at the monthly rate i:

- the instalment of an annuity is ``a = L i / (1 - (1 + i)^-n)``, or ``L / n`` without interest;
- the interest over its life is ``n a - L``, which is i times the sum S of the balances at the beginning of each month;
- exposure at default is the average balance, ``EAD = S / n``;
- funding costs ``S funding_pct / 1200``.

An offer is expected to earn

    P(accept) (interest - funding - PD LGD EAD - cost of a loan) - cost of an offer.

That is the expected incremental profit of a priced loan (Phillips, *Pricing Credit Products*, Stanford 2018, chapters 2 and 6), over
the loan's life and not discounted. Interest that a defaulted loan no longer pays is not taken off; the PD is the customer's, the same
for all terms, unless a PD is given for each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.scoring.annuity import instalment
from finrisk_assets.scoring.ratios import ratios

Floats = NDArray[np.float64]

OFFER, NO_OFFER = "offer", "no_offer"
DECISIONS = (OFFER, NO_OFFER)

NO_INCOME = "the income is not known"
NO_PD = "the probability of default is not known"
RISKY = "the probability of default is above the maximum"
CAPPED = "no rate of the grid lies under the cap"
UNAFFORDABLE = "every instalment takes too much of the income"
UNPROFITABLE = "no affordable terms are expected to earn anything"
REASONS = ("", NO_INCOME, NO_PD, RISKY, CAPPED, UNAFFORDABLE, UNPROFITABLE)
"""Reasons why there is no offer, by number; the first that holds counts."""

MAX_ALTERNATIVES = 3
"""Other amounts and terms that a decision lists."""

TERMS = ("annual_rate_pct", "log_loan_amount", "log_term_months", "log_loan_to_income", "instalment_to_income")
"""The features that the offered terms determine; all other features are the customer's state."""


class LimitsError(ValueError):
    """Limits or a grid that cannot be used, with the field and the allowed values."""


@dataclass(frozen=True)
class OfferLimits:
    """The limits of an offer, and the costs of lending.

    Attributes
    ----------
    rate_cap_pct
        Highest yearly rate, in per cent.
    max_instalment_to_income
        Largest share of the monthly income that an instalment may take.
    max_pd
        Largest probability of default.
    lgd
        Loss given default, a share of the exposure. 0.45 is the supervisory value for senior unsecured claims (Basel II, 287).
    funding_pct
        Yearly cost of the money lent, in per cent.
    offer_cost_amount, loan_cost_amount
        Cost of an offer, and of handling an accepted loan, in the ledger's currency.
    """

    rate_cap_pct: float = 1000.0
    max_instalment_to_income: float = 0.35
    max_pd: float = 0.25
    lgd: float = 0.45
    funding_pct: float = 3.0
    offer_cost_amount: float = 0.5
    loan_cost_amount: float = 20.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (np.isfinite(value) and value >= 0):
                raise LimitsError(f"{name} is {value}: a limit or cost is a number from 0 upwards")
        for name in ("max_pd", "lgd"):
            if getattr(self, name) > 1:
                raise LimitsError(f"{name} is {getattr(self, name)}: it is a share, at most 1")

    @classmethod
    def from_thresholds(cls, thresholds: Mapping[str, float]) -> "OfferLimits":
        """Return the limits in a bundle's thresholds.

        Raises
        ------
        KeyError
            With the name of a missing threshold.
        """
        return cls(**{field.name: float(thresholds[field.name]) for field in fields(cls)})

    def thresholds(self) -> dict[str, float]:
        """Return the limits as a bundle's thresholds."""
        return {name: float(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Grid:
    """The terms that are considered: every rate with every amount with every term; the term varies fastest.

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
            raise LimitsError("a grid needs rates, terms, and amounts either in currency or as multiples of the income")
        if min(self.rates) < 0 or min((*self.multiples, *self.amounts)) <= 0 or min(self.terms) < 1:
            raise LimitsError("a grid's rates are not below 0, its amounts above 0 and its terms 1 or more")

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
        amount = np.broadcast_to(amounts[:, None, :, None], (len(income), *shape)).reshape(len(income), -1)
        return GridPoints(rate, amount, term)


@dataclass(frozen=True)
class GridPoints:
    """The terms on a grid of g points for n customers: yearly rate (g,), amount (n, g) and term (g,)."""

    rate: Floats
    amount: Floats
    term: Floats

    @property
    def instalment(self) -> Floats:
        """The monthly instalments in currency, shape (n, g)."""
        return instalment(self.amount, self.rate, self.term)


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
        ``acceptance (interest - funding - expected_loss - loan cost) - offer cost``.
    interest, funding, expected_loss, cost
        Of an accepted loan over its life; `cost` is that of the loan alone.
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
    allowed
        Whether the limits allow the offer; an offer with a NaN is not allowed.
    """

    points: GridPoints
    instalment: Floats
    acceptance: Floats
    pd: Floats
    interest: Floats
    funding: Floats
    expected_loss: Floats
    expected_profit: Floats
    allowed: NDArray[np.bool_]


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
        "instalment_to_income": lambda: ratios(points.instalment, income[:, None], no_whole="largest"),
    }
    for at, name in enumerate(names):
        if name in values:
            rows[:, :, at] = values[name]()
    return rows


def price_offers(acceptance: ArrayLike, pd: ArrayLike, monthly_income: ArrayLike, grid: Grid, limits: OfferLimits) -> OfferPrices:
    """Return the expected profit of every offer on the grid.

    Parameters
    ----------
    acceptance : array-like, shape (n, g) or (g,)
        Probability that each offer is accepted.
    pd : array-like, shape (n,), (n, g) or a number
        Probability of default, of the customer or at each of the terms; NaN where it is not known.
    monthly_income : array-like, shape (n,) or a number
    """
    income = np.atleast_1d(np.asarray(monthly_income, np.float64))
    accept = np.atleast_2d(np.asarray(acceptance, np.float64))
    risk = np.asarray(pd, np.float64)
    risk = np.broadcast_to(risk if risk.ndim == 2 else risk.reshape(-1, 1), accept.shape)
    points = grid.points(income)
    pay = points.instalment
    interest, funding, loss = price_loan(points.amount, points.rate, points.term, risk, limits)
    profit = accept * (interest - funding - loss - limits.loan_cost_amount) - limits.offer_cost_amount
    allowed = (points.rate <= limits.rate_cap_pct) & (pay <= limits.max_instalment_to_income * income[:, None]) & (risk <= limits.max_pd)
    return OfferPrices(points, pay, accept, risk, interest, funding, loss, profit, allowed & np.isfinite(profit))


def price_loan(
    amount: ArrayLike, annual_rate_pct: ArrayLike, term_months: ArrayLike, pd: ArrayLike, limits: OfferLimits
) -> tuple[Floats, Floats, Floats]:
    """Return interest, cost of funding and expected loss of an accepted loan over its life, in currency; the arguments broadcast."""
    lent, term = np.asarray(amount, np.float64), np.asarray(term_months, np.float64)
    monthly = np.asarray(annual_rate_pct, np.float64) / 1200
    interest = term * instalment(lent, annual_rate_pct, term) - lent
    # The sum of the balances at the beginning of each month is interest over rate; without interest they fall in a line.
    balances = np.where(monthly > 0, interest / np.where(monthly > 0, monthly, 1.0), lent * (term + 1) / 2)
    return interest, balances * limits.funding_pct / 1200, np.asarray(pd, np.float64) * limits.lgd * balances / term


def choose_offers(prices: OfferPrices, monthly_income: ArrayLike, limits: OfferLimits) -> OfferChoice:
    """Return the offer of the highest expected profit for each customer; of equal offers the first, which has the lowest rate."""
    income = np.atleast_1d(np.asarray(monthly_income, np.float64))
    profit = np.where(prices.allowed, prices.expected_profit, -np.inf)
    best = profit.argmax(axis=1)
    earns = profit[np.arange(len(best)), best] > 0
    lowest = np.where(np.isnan(prices.pd), np.inf, prices.pd).min(axis=1)
    conditions = [
        np.isnan(income),
        np.isnan(prices.pd).all(axis=1),
        lowest > limits.max_pd,
        np.full(len(best), bool((prices.points.rate > limits.rate_cap_pct).all())),
        ~prices.allowed.any(axis=1),
        ~earns,
    ]
    reason = np.select(conditions, range(1, len(REASONS)), default=0)
    return OfferChoice(np.where(reason == 0, best, -1), reason)


def choose_offer(
    acceptance: ArrayLike, pd: float | ArrayLike | None, monthly_income: float | None, grid: Grid, limits: OfferLimits
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
    prices = price_offers(accept, risk, income, grid, limits)
    choice = choose_offers(prices, income, limits)
    if choice.reason[0] and not prices.allowed.any():
        return OfferDecision(None, (), (), REASONS[choice.reason[0]])
    profit = np.where(prices.allowed[0], prices.expected_profit[0], -np.inf)
    profit_by_rate = profit.reshape(len(grid.rates), -1)
    width = profit_by_rate.shape[1]
    curve = tuple(
        read_offer(prices, 0, k * width + int(profit_by_rate[k].argmax()), limits)
        for k in range(len(profit_by_rate))
        if profit_by_rate[k].max() > -np.inf
    )
    best = int(choice.best[0])
    if best < 0:
        return OfferDecision(None, (), curve, REASONS[choice.reason[0]])
    peaks = [int(profit_by_rate[:, pair].argmax()) * width + pair for pair in range(width) if pair != best % width]
    others = sorted((at for at in peaks if profit[at] > 0), key=lambda at: (-profit[at], at))[:MAX_ALTERNATIVES]
    return OfferDecision(read_offer(prices, 0, best, limits), tuple(read_offer(prices, 0, at, limits) for at in others), curve, "")


def read_offer(prices: OfferPrices, customer: int, at: int, limits: OfferLimits) -> PricedOffer:
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
        cost=limits.loan_cost_amount,
    )


def find_cheapest(grid: Grid) -> int:
    """Return the point of the lowest rate, amount and term: the answer gives its acceptance where nothing is offered."""
    axes: dict[str, Any] = {"rates": grid.rates, "amounts": grid.multiples or grid.amounts, "terms": grid.terms}
    places = {name: int(np.argmin(values)) for name, values in axes.items()}
    return (places["rates"] * len(axes["amounts"]) + places["amounts"]) * len(grid.terms) + places["terms"]
