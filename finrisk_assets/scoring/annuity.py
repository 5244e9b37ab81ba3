"""The instalment of an annuity: the equal monthly payment, in arrears, that repays an amount with interest.

Free of Ibis, for both halves. `finrisk_assets.features.arithmetic.instalment` is the same over columns.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

NO_INTEREST = 1e-9
"""The monthly rate up to which an instalment is that without interest: one of less has few digits of ``1 - (1 + i)^-n``, and then none."""


def instalment(amount: ArrayLike, annual_rate_pct: ArrayLike, term_months: ArrayLike) -> NDArray[np.float64]:
    """Return the monthly instalment, not rounded: ``a i / (1 - (1 + i)^-n)``, or ``a / n`` up to `NO_INTEREST`.

    Parameters
    ----------
    amount, annual_rate_pct, term_months
        In currency, per cent a year and months; they broadcast.
    """
    monthly = np.asarray(annual_rate_pct, np.float64) / 1200
    months = np.asarray(term_months, np.float64)
    safe = np.where(monthly > NO_INTEREST, monthly, 1.0)
    return np.asarray(amount, np.float64) * np.where(monthly > NO_INTEREST, safe / (1 - (1 + safe) ** -months), 1 / months)


def instalments_to_cent(amount: ArrayLike, annual_rate_pct: ArrayLike, term_months: ArrayLike) -> NDArray[np.float64]:
    """Return the monthly instalments of loans, in currency to the cent; the arguments broadcast."""
    lent, monthly, months = (
        np.asarray(amount, np.float64),
        np.asarray(annual_rate_pct, np.float64) / 1200,
        np.asarray(term_months, np.float64),
    )
    # Not `instalment`, rounded: expm1 and log1p, which not every engine has for columns, keep all digits of a small rate.
    safe = np.where(monthly == 0, 1.0, monthly)
    pay = np.where(monthly == 0, lent / months, lent * safe / -np.expm1(-months * np.log1p(safe)))
    return np.asarray(np.rint(pay * 100) / 100)


def instalment_to_cent(amount: float, annual_rate_pct: float, term_months: float) -> float:
    """Return the monthly instalment of one loan, in currency to the cent: the same number as that of many loans."""
    return float(instalments_to_cent(amount, annual_rate_pct, term_months))


def round_to_cent(amount: float) -> float:
    """Return an amount in currency, rounded to two decimals."""
    return round(amount * 100) / 100
