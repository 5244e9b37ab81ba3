"""The profit of offers by the true curves of a simulator: the champion's, three plain policies', and the oracle's.

All are priced on one grid under one policy. The plain policies set the rate by a rule and take the amount and term that the
champion's model finds best at that rate, so that they differ from the champion in the price alone:

- *one rate*: the same for every customer: the rate of the highest expected profit on the training window;
- *tiered rates*: one rate per quarter of the probability of default, each chosen in the same way;
- *lowest rate*: the lowest of the grid.

The profit of an offer that the true limits forbid (a PD above the maximum) does not count, but its loss does.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.domains.base import Figure
from finrisk_assets.domains.loan_offers import decide
from finrisk_assets.domains.loan_offers.pd_at_terms import PREFIX, LoanApplicants
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training.candidates import to_matrix
from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.loan_value import value_loans

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.scoring.bundle import Bundle

CURVES = (
    "accept_base", "accept_rate_slope", "accept_amount_slope", "accept_term_slope", "monthly_income_amount", "pd_base",
    "pd_burden_slope",
)  # fmt: skip
"""The columns of ``truth_offers`` that price any terms."""

TIERS = 4
"""Tiers of the probability of default."""
DRAWS = 500
"""Bootstrap draws of an interval."""

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


def to_floats(frame: "pd.DataFrame", name: str) -> Floats:
    """Return a column as float64, NaN where a value is missing."""
    return np.asarray(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))


def find_grid(bundle: "Bundle") -> decide.Grid:
    """Return the policy's grid within the terms that the bundle learned from."""
    return decide.Grid.from_thresholds(bundle.thresholds).choose_grid(bundle.policy.loan_offers.grid, bundle.policy.lending.rate_cap_pct)


def price_by_model(frame: "pd.DataFrame", bundle: "Bundle", grid: decide.Grid) -> tuple[Floats, decide.OfferPrices]:
    """Return the champion's margin of acceptance at every point of the grid, shape (n, g), and the offers priced by it.

    The PD is that of the loan-default model at each of the terms, where the frame has the customer's loan features; else the row's own.
    """
    names = [feature.name for feature in bundle.features]
    income = to_floats(frame, "monthly_income_amount")
    rows = decide.build_rows(names, to_matrix(frame, bundle.features), income, grid)
    flat = rows.reshape(-1, len(names))
    margin = bundle.margin(flat).reshape(len(frame), len(grid))
    applicants = read_applicants(frame, bundle)
    pd = to_floats(frame, "pd") if applicants is None else applicants.find_pds(grid.points(income))
    # An offer whose acceptance would be a guess is not made, as if the PD at its terms were not known.
    is_doubtful = bundle.is_doubtful(flat).reshape(margin.shape)
    prices = decide.price_offers(
        bundle.calibration.apply(margin),
        np.where(is_doubtful, np.nan, pd if pd.ndim == 2 else pd[:, None]),
        income,
        grid,
        bundle.policy,
        usual_income=None if applicants is None else applicants.find_usual_incomes(income),
        spending_probability=to_floats(frame, "spending_probability") if "spending_probability" in frame else None,
    )
    return margin, prices


def read_applicants(frame: "pd.DataFrame", bundle: "Bundle") -> LoanApplicants | None:
    """Return the frame's customers as the loan-default model knows them; None without its bundle, or without their loan features."""
    loans = bundle.companions.get("loan_default")
    columns = {name.removeprefix(PREFIX): name for name in frame.columns if name.startswith(PREFIX)}
    if loans is None or not columns.keys() >= loans.columns.keys():
        return None
    return LoanApplicants(loans, {feature: to_floats(frame, name) for feature, name in columns.items()})


def price_by_truth(frame: "pd.DataFrame", truth: "pd.DataFrame", grid: decide.Grid, policy: Policy) -> decide.OfferPrices:
    """Return every offer on the grid, priced by the true curves of acceptance and default.

    ``logit accept = base + rate_slope rate + amount_slope ln(amount / income) + term_slope ln(term / 24)`` and
    ``logit PD = pd_base + pd_burden_slope min(instalment / income, 1)``, with the columns of ``truth_offers``.
    """
    known = frame[["offer_id"]].merge(truth, on="offer_id", how="left", validate="one_to_one")
    column = {name: to_floats(known, name)[:, None] for name in CURVES}
    income = to_floats(frame, "monthly_income_amount")
    points = grid.points(income)
    accept = (
        column["accept_base"]
        + column["accept_rate_slope"] * points.rate
        + column["accept_amount_slope"] * np.log(points.amount / column["monthly_income_amount"])
        + column["accept_term_slope"] * np.log(points.term / 24)
    )
    burden = np.minimum(points.instalment / column["monthly_income_amount"], 1.0)
    default = column["pd_base"] + column["pd_burden_slope"] * burden
    return decide.price_offers(_sigmoid(accept), _sigmoid(default), income, grid, policy)


def compare_policies(
    train: "pd.DataFrame", test: "pd.DataFrame", truth: "pd.DataFrame", bundle: "Bundle", *, seed: int
) -> Sequence[Figure]:
    """Return the profit of each policy on the test window's rows as a share of the oracle's, with a bootstrap interval over the rows."""
    grid, policy = find_grid(bundle), bundle.policy
    known = test[test.offer_id.isin(truth.offer_id) & test.monthly_income_amount.notna()].reset_index(drop=True)
    (_, expected), real = price_by_model(known, bundle, grid), price_by_truth(known, truth, grid, policy)
    income = to_floats(known, "monthly_income_amount")
    policies = choose_by_policy(price_by_model(train, bundle, grid)[1], expected, grid)
    earned = {name: find_earnings(real, places) for name, places in policies.items()}
    places = decide.choose_offers(expected, income, policy).best
    ours = find_earnings(real, places)
    breaching = np.where(places < 0, 0.0, real.expected_profit[np.arange(len(places)), np.maximum(places, 0)])
    best = find_earnings(real, decide.choose_offers(real, income, policy).best)
    figures = [_share("profit_captured", ours, best, seed, "profit by the true curves over that of an oracle that knows them")]
    counted = "the same, counting in full what offers earn that the true PD would have forbidden"
    figures.append(_share("profit_captured_with_breaches", breaching, best, seed, counted))
    meanings = {"one_rate": "the same with one rate for all", "tiered_rates": "the same with a rate per tier of risk",
                "lowest_rate": "the same with the lowest rate"}  # fmt: skip
    figures += [_share(f"profit_captured_{name}", values, best, seed, meanings[name]) for name, values in earned.items()]
    for name, values in earned.items():
        gap = metrics.bootstrap_interval(lambda a, b, c: float((a.sum() - b.sum()) / c.sum()), ours, values, best, draws=DRAWS, seed=seed)
        meaning = f"profit captured less that of {name.replace('_', ' ')}"
        figures.append(Figure(f"profit_gain_over_{name}", gap.value, gap.low, gap.high, meaning))
    return [*figures, Figure("oracle_profit_amount", float(best.mean()), meaning="of the oracle, a mean per customer")]


def estimate_logged_profit(frame: "pd.DataFrame", accepted: NDArray[np.bool_], bundle: "Bundle") -> Floats:
    """Return the profit of the bundle's rates from the offers whose random rate is the rate that the bundle chooses, shape (n,).

    Each such offer represents the offers of other rates: its weight is one over the share of its rate (inverse propensity; Horvitz &
    Thompson, *JASA* 1952). Rates are told apart as finely as the grid is; amount and term are as offered. The mean over the rows is the
    profit per customer of the bundle's choice of rates, with expected losses by the PD of the rows.

    Parameters
    ----------
    frame
        Offers at random rates, with `decide.TERMS`, ``monthly_income_amount`` and ``pd``.
    accepted : array-like of bool, shape (n,)
    """
    grid, policy = find_grid(bundle), bundle.policy
    income = to_floats(frame, "monthly_income_amount")
    best = decide.choose_offers(price_by_model(frame, bundle, grid)[1], income, policy).best
    rates = np.asarray(grid.rates)
    between = (rates[1:] + rates[:-1]) / 2
    chosen = np.searchsorted(between, grid.points(income).rate[np.maximum(best, 0)])
    drawn = np.searchsorted(between, to_floats(frame, "annual_rate_pct"))
    share = np.bincount(drawn, minlength=len(rates))[drawn] / len(drawn)
    amount, term = (np.exp(to_floats(frame, name)) for name in ("log_loan_amount", "log_term_months"))
    value = value_loans(amount, to_floats(frame, "annual_rate_pct"), np.rint(term), to_floats(frame, "pd"), policy.lending).value
    earned = np.where(accepted, value, 0.0) - policy.loan_offers.offer_cost_amount
    return np.where((best >= 0) & (drawn == chosen), np.nan_to_num(earned) / share, 0.0)


def choose_by_policy(train: decide.OfferPrices, test: decide.OfferPrices, grid: decide.Grid) -> Mapping[str, Places]:
    """Return the offers of each plain policy on the test rows: places on the grid, -1 for no offer.

    Parameters
    ----------
    train, test
        Priced by the champion's model; rates are chosen on the first.
    """
    learned, _ = _best_at_each_rate(train, len(grid.rates))
    _, places = _best_at_each_rate(test, len(grid.rates))
    pd_train, pd_test = train.pd[:, 0], test.pd[:, 0]
    bounds = np.nanquantile(pd_train, np.arange(1, TIERS) / TIERS) if not np.isnan(pd_train).all() else np.zeros(TIERS - 1)
    tier_train, tier_test = np.searchsorted(bounds, pd_train, "right"), np.searchsorted(bounds, pd_test, "right")
    best_rate = int(learned.sum(axis=0).argmax())
    tiers = np.array([int(learned[tier_train == k].sum(axis=0).argmax()) for k in range(TIERS + 1)])
    rate = {
        "one_rate": np.full(len(places), best_rate),
        "tiered_rates": tiers[tier_test],
        "lowest_rate": np.full(len(places), int(np.argmin(grid.rates))),
    }
    return {name: places[np.arange(len(places)), at] for name, at in rate.items()}


def find_earnings(real: decide.OfferPrices, places: Places) -> Floats:
    """Return the true profit of the offers at these places of the grid, shape (n,); 0 for no offer."""
    which, at = np.arange(len(places)), np.maximum(places, 0)
    profit = real.expected_profit[which, at]
    profit = np.where(real.allowed[which, at], profit, np.minimum(profit, 0.0))
    return np.where(places < 0, 0.0, profit)


def _best_at_each_rate(prices: decide.OfferPrices, n_rates: int) -> tuple[Floats, Places]:
    """Return per row and rate the expected profit of the best amount and term, and their place; 0 and -1 where nothing is allowed."""
    profit = np.where(prices.allowed, prices.expected_profit, -np.inf).reshape(len(prices.allowed), n_rates, -1)
    width = profit.shape[2]
    at, best = profit.argmax(axis=2), profit.max(axis=2)
    offered = np.isfinite(best)
    return np.where(offered, best, 0.0), np.where(offered, at + width * np.arange(n_rates), -1)


def _share(name: str, earned: Floats, best: Floats, seed: int, meaning: str) -> Figure:
    interval = metrics.bootstrap_interval(lambda a, b: float(a.sum() / b.sum()), earned, best, draws=DRAWS, seed=seed)
    return Figure(name, interval.value, interval.low, interval.high, meaning)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
