"""The profit of offers by a simulator's own cash flows: the champion's, four plain policies', and the oracle's.

All choose on one grid under one policy. Three plain policies set the rate by a rule and take the amount and term that the champion's
model finds best at that rate, so that they differ from the champion in the price alone:

- *one rate*: the same for every customer: the rate of the highest expected profit on the training window;
- *tiered rates*: one rate per quarter of the probability of default, each chosen in the same way;
- *lowest rate*: the lowest of the grid.

The fourth, *undated profit*, chooses all terms by the interest of the whole term less the losses of twelve months, with one PD for all
terms. The oracle knows the hidden state of the customers and the acceptance of each offer, and decides by them under the policy.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.domains.base import Figure
from finrisk_assets.domains.loan_offers import decide
from finrisk_assets.domains.loan_offers.pd_at_terms import PREFIX, LoanApplicants
from finrisk_assets.domains.loan_offers.simulated_profit import simulate_profit
from finrisk_assets.ledger.sources.simulator.lending.repayment import Limits
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training.candidates import to_matrix
from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.loan_value import value_loans

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.ledger.sources.simulator.population.economy import Economy
    from finrisk_assets.scoring.bundle import Bundle

TIERS = 4
"""Tiers of the probability of default."""
DRAWS = 500
"""Bootstrap draws of an interval."""

MAX_ROWS = 20_000
"""Rows of a window whose profit is compared. More narrow the intervals, and take some 20 KB each: every row at every point of the grid."""

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


def to_floats(frame: "pd.DataFrame", name: str) -> Floats:
    """Return a column as float64, NaN where a value is missing."""
    return np.asarray(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))


def draw_rows(frame: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    """Return the rows of a window, or `MAX_ROWS` of them, drawn by the seed and in their order."""
    if len(frame) <= MAX_ROWS:
        return frame
    return frame.iloc[np.sort(np.random.default_rng(seed).permutation(len(frame))[:MAX_ROWS])].reset_index(drop=True)


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


def compare_policies(
    train: "pd.DataFrame",
    test: "pd.DataFrame",
    truth: "pd.DataFrame",
    limits: "pd.DataFrame",
    bundle: "Bundle",
    economy: "Economy",
    *,
    seed: int,
) -> Sequence[Figure]:
    """Return the profit of each policy on the test window's rows as a share of the oracle's, with a bootstrap interval over the rows.

    Parameters
    ----------
    train, test
        Rows of the feature table.
    truth, limits
        The tables ``truth_offers`` and ``truth_limits``.
    economy
        The numbers that the ledger was simulated with.
    """
    grid, policy = find_grid(bundle), bundle.policy
    known = test[test.offer_id.isin(truth.offer_id) & test.monthly_income_amount.notna()].reset_index(drop=True)
    income = to_floats(known, "monthly_income_amount")
    hidden = known[["offer_id"]].merge(truth, on="offer_id", how="left", validate="one_to_one")
    borne = Limits.from_columns(known.offer_id.to_numpy(dtype=str), _columns(limits))
    real = simulate_profit(_columns(hidden), borne, grid.points(income), policy, economy)
    (_, expected), (_, learned) = price_by_model(known, bundle, grid), price_by_model(train, bundle, grid)
    plain = {**choose_by_policy(learned, expected, grid), "undated_profit": choose_by_undated_profit(expected, policy)}
    ours = decide.choose_offers(expected, income, policy).best
    best = find_best(np.where(real.permitted & ~expected.is_high_risk[:, None], real.expected, -np.inf))
    earned, earned_best = find_earnings(real.expected, ours), find_earnings(real.expected, best)
    names = {
        "one_rate": "one rate for all",
        "tiered_rates": "a rate per tier of risk",
        "lowest_rate": "the lowest rate",
        "undated_profit": "terms chosen by the interest of the whole term less the losses of a year",
    }
    figures = [
        _share("profit_captured", earned, earned_best, seed, "profit by the simulator's cash flows over that of an oracle that knows them"),
        _share(
            "profit_captured_as_played",
            find_earnings(real.played, ours),
            find_earnings(real.played, best),
            seed,
            "the same, by what happened to each customer",
        ),
    ]
    for name, places in plain.items():
        by_rule = find_earnings(real.expected, places)
        gap = metrics.bootstrap_interval(
            lambda a, b, c: float((a.sum() - b.sum()) / c.sum()), earned, by_rule, earned_best, draws=DRAWS, seed=seed
        )
        figures += [
            _share(f"profit_captured_{name}", by_rule, earned_best, seed, f"the same with {names[name]}"),
            Figure(f"profit_gain_over_{name}", gap.value, gap.low, gap.high, f"profit captured less that with {names[name]}"),
        ]
    is_offered = ours >= 0
    forbidden = is_offered & ~real.permitted[np.arange(len(ours)), np.maximum(ours, 0)]
    share = float(forbidden.sum() / max(int(is_offered.sum()), 1))
    return [
        *figures,
        Figure("offers_beyond_true_limits", share, meaning="share of the offers that would not be approved by the true PD and income"),
        Figure("oracle_profit_amount", float(earned_best.mean()), meaning="of the oracle, a mean per customer"),
    ]


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


def choose_by_undated_profit(prices: decide.OfferPrices, policy: Policy) -> Places:
    """Return the offers of the highest undiscounted profit with one PD for all terms: places on the grid, -1 for no offer.

    The interest of the whole term is earned, and the average balance is lost with the PD of twelve months, whatever the term.
    """
    lending, points = policy.lending, prices.points
    interest = points.term * prices.instalment - points.amount
    monthly = points.rate / 1200
    # The sum of the balances at the beginning of each month is interest over rate; without interest they fall in a line.
    balances = np.where(monthly > 0, interest / np.where(monthly > 0, monthly, 1.0), points.amount * (points.term + 1) / 2)
    risk = prices.pd.mean(axis=1, keepdims=True)
    loss = risk * lending.lgd * balances / points.term + balances * lending.funding_rate_pct / 1200
    profit = prices.acceptance * (interest - loss - lending.loan_cost_amount) - policy.loan_offers.offer_cost_amount
    allowed = prices.is_affordable & (risk <= lending.max_pd) & np.isfinite(profit) & ~prices.is_high_risk[:, None]
    return find_best(np.where(allowed, profit, -np.inf))


def find_best(profit: Floats) -> Places:
    """Return the place of the largest profit in each row of shape (n, g); -1 where none is above 0."""
    return np.where(profit.max(axis=1) > 0, profit.argmax(axis=1), -1)


def find_earnings(profit: Floats, places: Places) -> Floats:
    """Return the profit of shape (n, g) at these places, shape (n,); 0 for no offer."""
    return np.where(places < 0, 0.0, profit[np.arange(len(places)), np.maximum(places, 0)])


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


def _columns(frame: "pd.DataFrame") -> dict[str, np.ndarray]:
    return {str(name): frame[name].to_numpy() for name in frame.columns}
