"""Tests of the profit of a choice of rates, estimated from offers whose rates were drawn at random."""

import numpy as np
import pandas as pd

from finrisk_assets.domains.loan_offers import decide, profit
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.loan_value import value_loans
from finrisk_assets.scoring.spec import BundleSpec, Linear
from schemas.features import Feature

GRID = decide.Grid(rates=(6.0, 10.0, 14.0), multiples=(3.0,), terms=(24,))


def _bundle(slope: float) -> Bundle:
    """Return a model whose acceptance falls in the rate with this slope."""
    feature = Feature("annual_rate_pct", "percent a year", "Rate.", "the rate is low", "the rate is high")
    part = Linear((slope,), (0.0,), (1.0,), (0.0,), (False,), intercept=1.0)
    spec = BundleSpec(
        "finrisk-loan-offers", "loan_offers", "made", (feature,), (part,), np.zeros((1, 1), np.float32), 0, "", "",
        thresholds=GRID.thresholds(),
    )  # fmt: skip
    return Bundle(spec, "")


def _logged(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return offers at random rates, accepted with a probability that falls in the rate."""
    rng = np.random.default_rng(seed)
    rate = rng.choice(GRID.rates, n)
    frame = pd.DataFrame(
        {
            "annual_rate_pct": rate,
            "log_loan_amount": np.log(6_000.0),
            "log_term_months": np.log(24.0),
            "monthly_income_amount": 2_000.0,
            "pd": 0.02,
        }
    )
    return frame, rng.random(n) < 1 / (1 + np.exp(-(3.0 - 0.3 * rate)))


def test_the_mean_is_what_the_chosen_rate_earns() -> None:
    """A model that takes nobody to mind the rate chooses 14 %: its value is the mean profit of the offers made at 14 %."""
    frame, accepted = _logged(30_000, seed=3)
    worth = profit.estimate_logged_profit(frame, accepted, _bundle(slope=-0.001))
    at = frame.annual_rate_pct == 14.0
    policy = default_policy()
    value = float(value_loans(6_000.0, 14.0, 24.0, 0.02, policy.lending).value)
    earned = accepted[at].mean() * value - policy.loan_offers.offer_cost_amount
    assert np.isclose(worth.mean(), earned, rtol=1e-9)
    assert (worth[~at] == 0).all()


def test_a_model_that_knows_acceptance_earns_more_than_one_that_does_not() -> None:
    frame, accepted = _logged(30_000, seed=4)
    knowing, blind = (profit.estimate_logged_profit(frame, accepted, _bundle(slope)) for slope in (-0.3, -0.001))
    assert knowing.mean() > blind.mean()
