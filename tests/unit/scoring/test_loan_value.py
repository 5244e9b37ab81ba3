"""The value of a loan: against a month-by-month loop, in its limits, and against loans that are played."""

import numpy as np
import pytest

from finrisk_assets.policy.document import Lending
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.loan_value import NUMBERS_AT_ONCE, monthly_weights, value_loans

LENDING = default_policy().lending
RISING = tuple(np.linspace(0.4, 1.8, 18).tolist())
GRID = [(amount, rate, term) for amount in (500.0, 4000.0) for rate in (0.0, 7.5, 30.0) for term in (1, 2, 12, 13, 60)]


def with_costs(**changes: object) -> Lending:
    return LENDING.model_copy(update=changes)


def add_up(amount: float, rate: float, term: int, pd: float, lending: Lending) -> dict[str, float]:
    """Add up one loan's expected cash flows month by month, as a ledger would book them."""
    i, discount_year = rate / 12 / 100, 1 + lending.discount_rate_pct / 100
    payment = amount / term if i == 0 else amount * i * (1 + i) ** term / ((1 + i) ** term - 1)
    weights = list(lending.hazard_weights) or [1.0]
    first_year = sum(weights[min(month, len(weights) - 1)] for month in range(12))
    not_prepaid = (1 - lending.prepayment_pct / 100) ** (1 / 12)
    balance, stands, serviced = amount, 1.0, 1.0
    booked = {"interest": 0.0, "funding": 0.0, "expected_loss": 0.0, "cost": lending.loan_cost_amount}
    for month in range(1, term + 1):
        today = discount_year ** (-month / 12)
        hazard = 1 - (1 - pd) ** (weights[min(month - 1, len(weights) - 1)] / first_year)
        booked["expected_loss"] += today * stands * hazard * lending.lgd * balance
        booked["interest"] += today * stands * (1 - hazard) * i * balance
        booked["funding"] += today * stands * balance * lending.funding_rate_pct / 1200
        booked["cost"] += today * serviced * lending.monthly_cost_amount
        stands *= (1 - hazard) * not_prepaid
        serviced *= not_prepaid
        balance = balance * (1 + i) - payment
    return booked


@pytest.mark.parametrize("weights", [(), RISING])
@pytest.mark.parametrize("pd", [0.0, 0.03, 0.4, 1.0])
def test_the_parts_are_those_of_a_loop_over_the_months(pd: float, weights: tuple[float, ...]) -> None:
    lending = with_costs(hazard_weights=weights)
    for amount, rate, term in GRID:
        loan = value_loans(amount, rate, term, pd, lending)
        for part, expected in add_up(amount, rate, term, pd, lending).items():
            assert float(getattr(loan, part)) == pytest.approx(expected, rel=1e-9, abs=1e-6), (part, amount, rate, term)


def test_many_loans_on_a_grid_are_valued_as_each_alone() -> None:
    amount, rate, term = (np.array(column, np.float64) for column in zip(*GRID, strict=True))
    pd = np.random.default_rng(1).uniform(0, 0.5, (7, len(GRID)))
    together = value_loans(amount, rate, term, pd, LENDING).value
    assert together.shape == pd.shape
    alone = [[float(value_loans(*terms, p, LENDING).value) for terms, p in zip(GRID, row, strict=True)] for row in pd]
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize("weights", [(), RISING])
def test_a_grid_of_many_loans_has_the_bits_of_its_columns(weights: tuple[float, ...]) -> None:
    """Months are added up for the terms that still run; a column alone, whose loans all end together, has no such spans."""
    lending = with_costs(hazard_weights=weights)
    amount, rate, term = (np.array(column, np.float64) for column in zip(*GRID, strict=True))
    pd = np.random.default_rng(2).uniform(0, 0.5, (NUMBERS_AT_ONCE // len(GRID) + 1, len(GRID)))
    pd[3], pd[:, 7] = np.nan, 1.0
    together = value_loans(amount, rate, term, pd, lending)
    many = np.repeat(pd, len(GRID), axis=0)  # as large, so that months are added up in the same way
    for at in range(len(GRID)):
        alone = value_loans(amount[at], rate[at], np.full((len(many), 1), term[at]), many[:, at : at + 1], lending)
        for part in ("interest", "funding", "expected_loss", "cost"):
            np.testing.assert_array_equal(getattr(together, part)[:, at], getattr(alone, part)[:: len(GRID), 0], err_msg=part)


@pytest.mark.parametrize("weights", [(), RISING])
def test_the_value_falls_in_the_pd_everywhere(weights: tuple[float, ...]) -> None:
    lending = with_costs(hazard_weights=weights)
    pd = np.linspace(0, 1, 400)
    for rate in (3.0, 8.0, 25.0, 90.0):
        for term in (1, 6, 12, 36, 84):
            assert (np.diff(value_loans(3000.0, rate, term, pd, lending).value) < 0).all(), (rate, term)


def test_a_loan_that_surely_defaults_loses_its_lgd_in_the_first_month() -> None:
    loan = value_loans(1000.0, 12.0, 24, 1.0, LENDING)
    assert float(loan.interest) == 0
    assert float(loan.expected_loss) == pytest.approx(450 * 1.05 ** (-1 / 12))


def test_a_loan_without_interest_earns_nothing_and_costs_its_funding() -> None:
    lending = with_costs(discount_rate_pct=0.0, prepayment_pct=0.0, monthly_cost_amount=0.0, loan_cost_amount=0.0)
    loan = value_loans(1200.0, 0.0, 12, 0.0, lending)
    assert float(loan.interest) == 0
    # Balances of 1200, 1100, … 100 at 3 % a year.
    assert float(loan.value) == pytest.approx(-7800 * 0.03 / 12)


def test_without_default_prepayment_and_discount_the_interest_is_that_of_the_annuity() -> None:
    lending = with_costs(discount_rate_pct=0.0, prepayment_pct=0.0)
    assert float(value_loans(1000.0, 12.0, 12, 0.0, lending).interest) == pytest.approx(12 * 88.84878868 - 1000)


def test_prepayment_ends_interest_funding_and_servicing() -> None:
    slow, fast = (value_loans(1000.0, 12.0, 36, 0.02, with_costs(prepayment_pct=share)) for share in (0.0, 40.0))
    assert float(fast.interest) < float(slow.interest)
    assert float(fast.funding) < float(slow.funding)
    assert float(fast.cost) < float(slow.cost)


def test_an_unknown_pd_has_no_value() -> None:
    assert np.isnan(value_loans(1000.0, 12.0, 12, [np.nan, 0.1], LENDING).value).tolist() == [True, False]


def test_the_hazard_of_the_first_year_is_the_pd_whatever_its_shape() -> None:
    for weights in ((), RISING):
        exponents = monthly_weights(with_costs(hazard_weights=weights), 60)
        assert exponents.shape == (60,)
        assert np.prod((1 - 0.2) ** exponents[:12]) == pytest.approx(0.8)
    assert exponents[-1] == exponents[17]


def test_the_mean_of_played_loans_is_the_value() -> None:
    """Play loans with drawn months of default and prepayment, and add up what each pays."""
    rng, n, amount, rate, term, pd = np.random.default_rng(7), 200_000, 2000.0, 15.0, 30, 0.15
    hazard, early = 1 - (1 - pd) ** (1 / 12), 1 - (1 - LENDING.prepayment_pct / 100) ** (1 / 12)
    default_month, early_month = rng.geometric(hazard, n), rng.geometric(early, n)
    i = rate / 1200
    payment = amount * i / (1 - (1 + i) ** -term)
    worth, balance = np.full(n, -LENDING.loan_cost_amount), amount
    for month in range(1, term + 1):
        today = 1.05 ** (-month / 12)
        stands = (default_month >= month) & (early_month >= month)
        defaults = stands & (default_month == month)
        flow = np.where(defaults, -LENDING.lgd * balance, i * balance) - balance * LENDING.funding_rate_pct / 1200
        worth += today * (np.where(stands, flow, 0.0) - np.where(early_month >= month, LENDING.monthly_cost_amount, 0.0))
        balance = balance * (1 + i) - payment
    error = worth.std() / n**0.5
    assert abs(worth.mean() - float(value_loans(amount, rate, term, pd, LENDING).value)) < 4 * error


def test_the_value_of_a_loan_does_not_depend_on_the_loans_beside_it() -> None:
    """To the last bit: a service values one loan, a worker of Spark a part of a table, and both must say the same."""
    rng, n = np.random.default_rng(5), 3_000
    amount, rate, term = rng.uniform(500, 40_000, n), rng.uniform(0, 30, n), rng.integers(1, 85, n)
    pd, lending = rng.uniform(0, 1, n), with_costs(hazard_weights=RISING)
    together = value_loans(amount, rate, term, pd, lending)
    for size in (1, 7, 400):
        for first in range(0, 10 * size, size):
            part = slice(first, first + size)
            alone = value_loans(amount[part], rate[part], term[part], pd[part], lending)
            for name in ("interest", "funding", "expected_loss", "cost"):
                assert getattr(alone, name).tolist() == getattr(together, name)[part].tolist(), (name, size)
