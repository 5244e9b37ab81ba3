"""The profit of offers by the simulator's own cash flows, on every point of a grid of terms.

Here a loan pays, defaults or is repaid early as the simulator has it, month by month. Nothing is shared with the valuation that decides
(`finrisk_assets.scoring.loan_value`) but the policy's costs: of money, of servicing, of a loan and of an offer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.domains.loan_offers.decide import GridPoints
from finrisk_assets.ledger.sources.simulator.lending.repayment import (
    MISSED_INSTALMENTS,
    NEVER,
    Course,
    Limits,
    Outlook,
    expect_course,
    find_cash_flows,
    find_instalment,
    play,
)
from finrisk_assets.policy.document import Lending, Policy

if TYPE_CHECKING:
    from finrisk_assets.ledger.sources.simulator.population.economy import Economy

YEAR_MONTHS = 12
UNIT_AMOUNT = 1e6
"""Currency; the amount whose cash flows are scaled to other amounts. A large one, so that rounding to cents does not show."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class SimulatedProfit:
    """The profit of each offer, in currency; arrays of shape (n, g). Acceptance enters by its true probability.

    Attributes
    ----------
    expected
        By one who knows the hidden state of the customer, and not the months to come.
    played
        By what happened to the customer in the months that the simulator drew.
    permitted
        Whether the policy would approve a loan at these terms by the true PD of twelve months, the true usual income and the expected
        cash flows.
    """

    expected: Floats
    played: Floats
    permitted: Flags


def simulate_profit(
    truth: Mapping[str, np.ndarray], limits: Limits, points: GridPoints, policy: Policy, economy: "Economy"
) -> SimulatedProfit:
    """Return the profit of every offer.

    Parameters
    ----------
    truth
        The columns of ``truth_offers``, in the order of the customers of `points`.
    limits
        What the customers bear in each month, in the same order.
    points
        The terms, for n customers and g points; terms of at most `repayment.LONGEST_MONTHS`.
    policy
        Its costs and limits.
    economy
        The numbers that the ledger was simulated with.
    """
    acceptance = find_acceptance(truth, points)
    expected, played, permitted = np.empty_like(acceptance), np.empty_like(acceptance), np.empty(acceptance.shape, bool)
    outlook, recovery, loans = Outlook.from_columns(truth), np.asarray(truth["recovery_share"], np.float64), economy.loans
    lending, review, offer_cost = policy.lending, policy.loan_default.review, policy.loan_offers.offer_cost_amount
    settled: dict[tuple[float, float], _EventProfits] = {}
    for at, (rate, term) in enumerate(zip(points.rate.tolist(), points.term.astype(int).tolist(), strict=True)):
        amount = points.amount[:, at]
        rates, terms = np.full(len(amount), rate), np.full(len(amount), term)
        instalment = find_instalment(amount, rates, terms)
        if (rate, term) not in settled:
            settled[rate, term] = _EventProfits.of_terms(rate, term, 1 - loans.loss_given_default, loans.recovery_months, lending)
        course = expect_course(outlook, instalment, rates, terms, loans, economy.household, term)
        repaid, lost = settled[rate, term].expect(amount, course.default, course.prepaid, lending.loan_cost_amount)
        margin, servicing = settle(amount, rates, terms, play(limits, instalment, rates, terms), recovery, loans.recovery_months, lending)
        expected[:, at] = acceptance[:, at] * (repaid + lost) - offer_cost
        played[:, at] = acceptance[:, at] * (margin - servicing - lending.loan_cost_amount) - offer_cost
        is_affordable = instalment <= lending.max_instalment_to_income * outlook.true_income_amount
        is_safe = course.default[:, :YEAR_MONTHS].sum(axis=1) <= lending.max_pd
        # An offer is an approval: where a review would be worth more, an application is referred.
        reviewed = (1 - review.errs_share) * repaid + (1 - review.finds_share) * lost - review.cost_amount
        is_approved = repaid + lost >= np.maximum(reviewed, lending.min_margin_pct / 100 * amount)
        permitted[:, at] = is_safe & is_affordable & is_approved & (rate <= lending.rate_cap_pct)
    return SimulatedProfit(expected, played, permitted)


def find_acceptance(truth: Mapping[str, np.ndarray], points: GridPoints) -> Floats:
    """Return the true probability that each offer is accepted, shape (n, g).

    ``logit = base + rate_slope rate + amount_slope ln(amount / income) + term_slope ln(term / 24)``, with the columns of ``truth_offers``.
    """
    names = ("accept_base", "accept_rate_slope", "accept_amount_slope", "accept_term_slope", "monthly_income_amount")
    base, rate, amount, term, income = (np.asarray(truth[name], np.float64)[:, None] for name in names)
    logit = base + rate * points.rate + amount * np.log(points.amount / income) + term * np.log(points.term / 24)
    return np.asarray(1 / (1 + np.exp(-logit)))


def settle(
    amount: Floats,
    annual_rate_pct: Floats,
    term_months: NDArray[np.int64],
    course: Course,
    recovery_share: Floats,
    recovery_months: int,
    lending: Lending,
) -> tuple[Floats, Floats]:
    """Return what loans earned and what servicing them cost, discounted, in currency, shape (n,).

    A month earns what was received and what is owed at its end, less what was owed before and the cost of that money. So a loss counts in
    the month in which no more is owed. A month is serviced as long as something is owed.
    """
    received, owed = find_cash_flows(amount, annual_rate_pct, term_months, course, recovery_share, recovery_months)
    before = owed[:, :-1]
    earned = received[:, 1:] + owed[:, 1:] - before * (1 + lending.funding_rate_pct / 1200)
    discounts = (1 + lending.discount_rate_pct / 100) ** (-np.arange(1, received.shape[1]) / YEAR_MONTHS)
    return earned @ discounts, lending.monthly_cost_amount * ((before > 0) @ discounts)


@dataclass(frozen=True)
class _EventProfits:
    """The profit of a loan at one rate and term by what becomes of it: per unit of its amount, and the cost of servicing in currency.

    Arrays have an element per month from 1 to the term: of the default, and of the repayment in full; the last numbers are those of a loan
    that runs to its end.
    """

    default: tuple[Floats, Floats]
    prepaid: tuple[Floats, Floats]
    whole: tuple[float, float]

    @classmethod
    def of_terms(cls, rate: float, term: int, recovery_share: float, recovery_months: int, lending: Lending) -> "_EventProfits":
        month, never = np.arange(1, term + 1), np.full(term, NEVER)
        default, prepaid = np.concatenate([np.maximum(month, MISSED_INSTALMENTS), never, [NEVER]]), np.concatenate([never, month, [NEVER]])
        n = len(default)
        margin, servicing = settle(
            np.full(n, UNIT_AMOUNT), np.full(n, rate), np.full(n, term), Course(default, prepaid),
            np.full(n, recovery_share), recovery_months, lending,
        )  # fmt: skip
        margin = margin / UNIT_AMOUNT
        return cls(
            (margin[:term], servicing[:term]),
            (margin[term:-1], servicing[term:-1]),
            (float(margin[-1]), float(servicing[-1])),
        )

    def expect(self, amount: Floats, default: Floats, prepaid: Floats, loan_cost: float) -> tuple[Floats, Floats]:
        """Return the parts of the expected profit of loans that do not default and of those that do, shape (n,).

        `default` and `prepaid` are the probabilities of each event in each month, shape (n, term).
        """
        fails = default.sum(axis=1)
        whole = 1 - fails - prepaid.sum(axis=1)
        margin, servicing = (prepaid @ self.prepaid[part] + whole * self.whole[part] for part in range(2))
        repaid = amount * margin - servicing - (1 - fails) * loan_cost
        lost = amount * (default @ self.default[0]) - default @ self.default[1] - fails * loan_cost
        return np.asarray(repaid), np.asarray(lost)
