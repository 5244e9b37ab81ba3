"""The PD of each offered loan: the loan-default model at the offered amount, rate and term, and the income that an application knows.

On numpy alone; the service imports this module. A customer's loan features come from the application of the same moment, so that an offer
and an application at its terms are decided on the same numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.domains.loan_offers.decide import GridPoints
from finrisk_assets.features.loan_terms import find_usual_income, rows_at_terms
from finrisk_assets.scoring.bundle import Bundle

Floats = NDArray[np.float64]

POINTS_AT_ONCE = 8_000
"""Rows of the loan model that are built and scored at a time: more do not fit a processor's cache, and take twice as long a row."""


@dataclass(frozen=True)
class LoanApplicants:
    """Customers as the loan-default model knows them.

    Attributes
    ----------
    bundle
        The model.
    columns
        Feature of loan default -> values of the customers, shape (n,), NaN where missing.
    """

    bundle: Bundle
    columns: Mapping[str, Floats]

    def find_pds(self, points: GridPoints) -> Floats:
        """Return the PD at every point of a grid, shape (n, g); NaN for customers without loan features or without an
        amount, and where too little is known for a decision on the loan."""
        pd = np.full(points.amount.shape, np.nan)
        names, width = list(self.bundle.columns), points.amount.shape[1]
        known = np.flatnonzero(self.is_known & np.isfinite(points.amount).all(axis=1))
        step = max(1, POINTS_AT_ONCE // width)
        for start in range(0, len(known), step):
            at = known[start : start + step]
            of_some = {name: values[at] for name, values in self.columns.items()}
            rows = rows_at_terms(names, of_some, points.amount[at], points.rate, points.term)
            flat = rows.reshape(-1, len(names))
            risk = np.where(self.bundle.is_doubtful(flat), np.nan, self.bundle.probability(flat))
            pd[at] = risk.reshape(len(at), width)
        return pd

    def find_usual_incomes(self, otherwise: ArrayLike) -> Floats:
        """Return the income that an application is decided by, shape (n,), NaN for customers without loan features.

        Parameters
        ----------
        otherwise : array-like, shape (n,) or a number
            The income of all customers where the source's loan features tell none.
        """
        income = find_usual_income(self.columns)
        stated = np.broadcast_to(np.asarray(otherwise, np.float64), self.is_known.shape)
        return np.where(self.is_known, stated if income is None else income, np.nan)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether each customer has loan features."""
        return ~np.all([np.isnan(self.columns[name]) for name in self.bundle.columns], axis=0)


PREFIX = "loan_default."
"""Before the name of a loan feature, where it stands beside an offer's own features."""
