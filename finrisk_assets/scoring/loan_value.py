"""The value of a loan: its monthly cash flows, weighted by the probability that the loan still stands, discounted to today.

On numpy alone; both halves value every loan here. Deciding by the value belongs to `loan_decision`.

In month t = 1..n of a loan of amount L at the monthly rate i, with the balance B(t-1) at its beginning and the instalment of an annuity:

- the loan defaults with the hazard h(t) and loses the share LGD of B(t-1); what is recovered comes in the same month;
- else it pays the interest i B(t-1), and afterwards is repaid early with the monthly probability of a prepayment;
- its balance is funded at the monthly funding rate, and servicing it costs an amount.

The value is the sum over the months, discounted, less the cost of granting the loan. Principal is funded while it is lent and comes back
with the loan, so that it enters by its funding and its loss. The hazard follows from the PD p of the first twelve months:
``h(t) = 1 - (1 - p)^w(t)``, where the weights w of these months add up to 1; a flat hazard is ``1 - (1 - p)^(1/12)``. So the horizon of
the PD and that of the interest match.

Source: expected discounted cash flows with a discrete hazard, as in Phillips, *Pricing Credit Products* (Stanford 2018, chapter 2), and
Thomas, *Consumer Credit Models* (Oxford 2009, chapter 3).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.policy.document import Lending

Floats = NDArray[np.float64]

YEAR_MONTHS = 12
NO_SURVIVAL = -1e6
"""Logarithm of the survival of a year that stands for a sure default: finite, so that no month times it is undefined."""
NUMBERS_AT_ONCE = 20_000
"""Loans times months that are valued together. More needs more memory, fewer more calls of numpy."""
NO_GROWTH = 1e-12
"""Logarithm of a month's growth that stands for no interest: balances then fall in a line, to eleven digits."""


@dataclass(frozen=True)
class LoanValue:
    """The expected value of loans and its parts, discounted, in currency; arrays of one shape.

    Attributes
    ----------
    interest
        Paid by the borrowers who neither defaulted nor repaid before.
    funding
        Cost of the money lent.
    expected_loss
        Lost to defaults.
    cost
        Of granting and servicing the loan.
    """

    interest: Floats
    funding: Floats
    expected_loss: Floats
    cost: Floats

    @property
    def value(self) -> Floats:
        """The value of granting the loan."""
        return self.interest - self.funding - self.expected_loss - self.cost

    def value_after_review(self, finds_share: float, errs_share: float, review_cost: float) -> Floats:
        """Return the value where a person reviews the application first.

        The review finds the share `finds_share` of the defaults, so that their loss is saved, and turns away the share `errs_share` of the
        others with all that they would have earned and cost.
        """
        earned = self.interest - self.funding - self.cost
        return (1 - errs_share) * earned - (1 - finds_share) * self.expected_loss - review_cost


def value_loans(amount: ArrayLike, annual_rate_pct: ArrayLike, term_months: ArrayLike, pd: ArrayLike, lending: Lending) -> LoanValue:
    """Return the value of loans at their terms.

    Parameters
    ----------
    amount, annual_rate_pct, term_months
        In currency, per cent a year and whole months from 1 on; they broadcast with each other and with `pd`, so that one call values many
        loans on a grid of terms. NaN gives NaN.
    pd
        Probability of default in the first twelve months.
    lending
        The policy's costs.

    Returns
    -------
    LoanValue
        Arrays of the broadcast shape.
    """
    lent, rate, term, risk = (np.asarray(values, np.float64) for values in (amount, annual_rate_pct, term_months, pd))
    last = int(np.nanmax(term, initial=0))
    weights = monthly_weights(lending, last)
    waited = np.append(0.0, np.cumsum(weights))
    kept = (1 - lending.prepayment_pct / 100) ** (1 / YEAR_MONTHS)
    discounts = (1 + lending.discount_rate_pct / 100) ** (-np.arange(1, last + 1) / YEAR_MONTHS)
    with np.errstate(divide="ignore"):
        log_survival = np.maximum(np.log1p(-risk), NO_SURVIVAL)
    # Balances per unit lent depend on rate and term alone, which on a grid are fewer than its points.
    growth = np.maximum(np.log1p(rate / 1200), NO_GROWTH)
    scale = -1 / np.expm1(-term * growth)
    shape = np.broadcast_shapes(scale.shape, risk.shape)
    standing, defaulted = np.zeros(shape), np.zeros(shape)
    # Months of few loans at once, for a call of numpy costs more than a number; of many one by one, which stays in a processor's cache.
    block = max(1, NUMBERS_AT_ONCE // max(1, math.prod(shape)))
    for first, end, running in _split_months(term, shape if block == 1 else (), last):
        survival, left, grown = (_select(values, shape, running) for values in (log_survival, term, growth))
        stood, lost = standing[running], defaulted[running]
        for start in range(first, end, block):
            column = np.arange(start, min(start + block, end)).reshape(-1, *[1] * len(shape))
            balance = np.maximum(-np.expm1((column - left) * grown), 0.0) * discounts[column]
            at_risk = np.exp(survival * waited[column]) * kept**column * balance
            if start == first or block > 1 or weights[start] != weights[start - 1]:
                conditional = np.expm1(survival * weights[column])  # minus the month's hazard, which is the same in most months
            stood, lost = _add_rows(stood, at_risk), _add_rows(lost, -(at_risk * conditional))
        standing[running], defaulted[running] = stood, lost
    standing, defaulted = lent * scale * standing, lent * scale * defaulted
    # A loan is serviced until its term ends or it is repaid early: the cost of each number of months, looked up.
    serviced = np.append(0.0, np.cumsum(discounts * kept ** np.arange(last)))
    months = np.clip(np.nan_to_num(term), 0, last).astype(np.int64)
    cost = lending.loan_cost_amount + lending.monthly_cost_amount * serviced[months]
    return LoanValue(
        interest=rate / 1200 * (standing - defaulted),
        funding=lending.funding_rate_pct / 1200 * standing,
        expected_loss=lending.lgd * defaulted,
        cost=np.broadcast_to(cost, standing.shape),
    )


def _add_rows(total: Floats, rows: Floats) -> Floats:
    """Return a sum with rows added one after the other, so that its last bit does not depend on how many come at once."""
    return total + rows[0] if len(rows) == 1 else np.add.accumulate(np.concatenate([total[None], rows]))[-1]


def _split_months(term: Floats, shape: tuple[int, ...], last: int) -> Iterator[tuple[int, int, Any]]:
    """Yield spans of months, with the loans that still run in them: an ended one adds 0 for as long as the longest takes.

    Only a grid whose columns have one term each is split; a `shape` of no dimension is not.
    """
    if not (shape and term.ndim and term.size == term.shape[-1] == shape[-1]):
        yield 0, last, ...
        return
    ends = term.reshape(-1)
    first = 0
    for end in sorted({int(month) for month in ends[ends > 0]}):
        yield first, end, (..., np.flatnonzero(~(ends <= first)))
        first = end


def _select(values: Floats, shape: tuple[int, ...], running: Any) -> Floats:
    return values if running is ... else np.broadcast_to(values, np.broadcast_shapes(values.shape, shape[-1:]))[running]


def monthly_weights(lending: Lending, months: int) -> Floats:
    """Return the exponent of each month's hazard, shape (months,): those of the first twelve add up to 1."""
    stated = np.asarray(lending.hazard_weights or (1.0,), np.float64)
    relative = np.concatenate([stated, np.full(max(months, YEAR_MONTHS), stated[-1])])
    return relative[:months] / relative[:YEAR_MONTHS].sum()
