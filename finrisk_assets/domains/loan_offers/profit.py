"""What the offers earn by the true curves of a simulator: the champion's, three plain policies', and the oracle's.

All are priced on one grid under one set of limits. The plain policies set the rate by a rule and take the amount and term that the
champion's model finds best at that rate, so that they differ from it in the price alone:

- *one rate*: the same for everybody, the one that the model expects to earn most on the training window;
- *tiered rates*: one rate per quarter of the probability of default, each chosen so;
- *lowest rate*: the lowest of the grid.

An offer that the true limits forbid (a PD above the maximum) earns nothing, but what it loses counts.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.domains.base import Figure
from finrisk_assets.domains.loan_offers import decide
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training.candidates import matrix

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.scoring.bundle import Bundle

CURVES = (
    "accept_base", "accept_rate_slope", "accept_amount_slope", "accept_term_slope", "monthly_income_amount", "pd_base",
    "pd_burden_slope",
)  # fmt: skip
"""The columns of ``truth_offers`` that price any terms."""

TIERS = 4
DRAWS = 500

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


def number(frame: "pd.DataFrame", name: str) -> Floats:
    """A column as float64, NaN where it is missing."""
    return np.asarray(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))


def believed(frame: "pd.DataFrame", bundle: "Bundle", grid: decide.Grid, limits: decide.OfferLimits) -> decide.Prices:
    """Every offer on the grid, priced by what the champion says of its acceptance and by the PD that the rows hold."""
    names = [feature.name for feature in bundle.features]
    income = number(frame, "monthly_income_amount")
    rows = decide.rows(names, matrix(frame, bundle.features), income, grid)
    acceptance = bundle.probability(rows.reshape(-1, len(names))).reshape(len(frame), len(grid))
    return decide.price(acceptance, number(frame, "pd"), income, grid, limits)


def true(frame: "pd.DataFrame", truth: "pd.DataFrame", grid: decide.Grid, limits: decide.OfferLimits) -> decide.Prices:
    """Every offer on the grid, priced by the true curves of acceptance and default.

    ``logit accept = base + rate_slope rate + amount_slope ln(amount / income) + term_slope ln(term / 24)`` and
    ``logit PD = pd_base + pd_burden_slope min(instalment / income, 1)``, with the columns of ``truth_offers``.
    """
    known = frame[["offer_id"]].merge(truth, on="offer_id", how="left", validate="one_to_one")
    column = {name: number(known, name)[:, None] for name in CURVES}
    income = number(frame, "monthly_income_amount")
    points = grid.points(income)
    accept = (
        column["accept_base"]
        + column["accept_rate_slope"] * points.rate
        + column["accept_amount_slope"] * np.log(points.amount / column["monthly_income_amount"])
        + column["accept_term_slope"] * np.log(points.term / 24)
    )
    burden = np.minimum(points.instalment / column["monthly_income_amount"], 1.0)
    default = column["pd_base"] + column["pd_burden_slope"] * burden
    return decide.price(_sigmoid(accept), _sigmoid(default), income, grid, limits)


def captured(train: "pd.DataFrame", test: "pd.DataFrame", truth: "pd.DataFrame", bundle: "Bundle", *, seed: int) -> Sequence[Figure]:
    """The profit of each policy on the test window's rows as a share of the oracle's, with a bootstrap interval over the rows."""
    grid, limits = decide.Grid.of(bundle.thresholds), decide.OfferLimits.of(bundle.thresholds)
    held = test[test.offer_id.isin(truth.offer_id) & test.monthly_income_amount.notna()].reset_index(drop=True)
    said, real = believed(held, bundle, grid, limits), true(held, truth, grid, limits)
    income = number(held, "monthly_income_amount")
    rules = policies(believed(train, bundle, grid, limits), said, grid)
    earned = {name: earnings(real, at) for name, at in rules.items()}
    places = decide.choose_all(said, income, limits).best
    ours = earnings(real, places)
    breaching = np.where(places < 0, 0.0, real.expected_profit[np.arange(len(places)), np.maximum(places, 0)])
    best = earnings(real, decide.choose_all(real, income, limits).best)
    figures = [_share("profit_captured", ours, best, seed, "profit by the true curves over that of an oracle that knows them")]
    counted = "the same, counting in full what offers earn that the true PD would have forbidden"
    figures.append(_share("profit_captured_with_breaches", breaching, best, seed, counted))
    meanings = {"one_rate": "the same with one rate for all", "tiered_rates": "the same with a rate per tier of risk",
                "lowest_rate": "the same with the lowest rate"}  # fmt: skip
    figures += [_share(f"profit_captured_{name}", values, best, seed, meanings[name]) for name, values in earned.items()]
    for name, values in earned.items():
        gain = metrics.bootstrap(lambda a, b, c: float((a.sum() - b.sum()) / c.sum()), ours, values, best, draws=DRAWS, seed=seed)
        meaning = f"profit captured less that of {name.replace('_', ' ')}"
        figures.append(Figure(f"profit_gain_over_{name}", gain.value, gain.low, gain.high, meaning))
    return [*figures, Figure("oracle_profit_amount", float(best.mean()), meaning="of the oracle, a mean per customer")]


def logged(frame: "pd.DataFrame", accepted: NDArray[np.bool_], bundle: "Bundle") -> Floats:
    """What the bundle's rates earned where the random rate of an offer happened to be the one that it would have chosen, shape (n,).

    Each offer stands for those whose rate was drawn elsewhere: it is weighed by one over the share of its rate (inverse propensity;
    Horvitz & Thompson, *JASA* 1952). Rates are told apart as finely as the grid is; amount and term are those that were offered. The mean
    over the rows is the profit per customer that the choice of rates would have had, expected losses by the PD that the rows hold.

    Parameters
    ----------
    frame
        Offers at random rates, with `decide.TERMS`, ``monthly_income_amount`` and ``pd``.
    accepted : array-like of bool, shape (n,)
    """
    grid, limits = decide.Grid.of(bundle.thresholds), decide.OfferLimits.of(bundle.thresholds)
    income = number(frame, "monthly_income_amount")
    best = decide.choose_all(believed(frame, bundle, grid, limits), income, limits).best
    rates = np.asarray(grid.rates)
    between = (rates[1:] + rates[:-1]) / 2
    chosen = np.searchsorted(between, grid.points(income).rate[np.maximum(best, 0)])
    drawn = np.searchsorted(between, number(frame, "annual_rate_pct"))
    share = np.bincount(drawn, minlength=len(rates))[drawn] / len(drawn)
    amount, term = (np.exp(number(frame, name)) for name in ("log_loan_amount", "log_term_months"))
    interest, funding, loss = decide.parts(amount, number(frame, "annual_rate_pct"), term, number(frame, "pd"), limits)
    earned = np.where(accepted, interest - funding - loss - limits.loan_cost_amount, 0.0) - limits.offer_cost_amount
    return np.where((best >= 0) & (drawn == chosen), np.nan_to_num(earned) / share, 0.0)


def policies(train: decide.Prices, test: decide.Prices, grid: decide.Grid) -> Mapping[str, Places]:
    """What each plain policy offers on the test rows: places on the grid, -1 for nothing.

    Parameters
    ----------
    train, test
        Priced as the champion believes; rates are chosen on the first.
    """
    learned, _ = _best_at_each_rate(train, len(grid.rates))
    _, places = _best_at_each_rate(test, len(grid.rates))
    pd_train, pd_test = train.pd[:, 0], test.pd[:, 0]
    bounds = np.nanquantile(pd_train, np.arange(1, TIERS) / TIERS) if not np.isnan(pd_train).all() else np.zeros(TIERS - 1)
    tier_train, tier_test = np.searchsorted(bounds, pd_train, "right"), np.searchsorted(bounds, pd_test, "right")
    one = int(learned.sum(axis=0).argmax())
    tiers = np.array([int(learned[tier_train == k].sum(axis=0).argmax()) for k in range(TIERS + 1)])
    rate = {
        "one_rate": np.full(len(places), one),
        "tiered_rates": tiers[tier_test],
        "lowest_rate": np.full(len(places), int(np.argmin(grid.rates))),
    }
    return {name: places[np.arange(len(places)), at] for name, at in rate.items()}


def earnings(real: decide.Prices, places: Places) -> Floats:
    """What the offers at these places of the grid truly earn, shape (n,); 0 where there is none."""
    which, at = np.arange(len(places)), np.maximum(places, 0)
    profit = real.expected_profit[which, at]
    profit = np.where(real.allowed[which, at], profit, np.minimum(profit, 0.0))
    return np.where(places < 0, 0.0, profit)


def _best_at_each_rate(prices: decide.Prices, n_rates: int) -> tuple[Floats, Places]:
    """Per row and rate what the best amount and term are believed to earn, and where they stand; 0 and -1 where nothing is allowed."""
    profit = np.where(prices.allowed, prices.expected_profit, -np.inf).reshape(len(prices.allowed), n_rates, -1)
    width = profit.shape[2]
    at, best = profit.argmax(axis=2), profit.max(axis=2)
    offered = np.isfinite(best)
    return np.where(offered, best, 0.0), np.where(offered, at + width * np.arange(n_rates), -1)


def _share(name: str, earned: Floats, best: Floats, seed: int, meaning: str) -> Figure:
    found = metrics.bootstrap(lambda a, b: float(a.sum() / b.sum()), earned, best, draws=DRAWS, seed=seed)
    return Figure(name, found.value, found.low, found.high, meaning)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
