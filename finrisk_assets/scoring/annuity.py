"""The instalment of an annuity: the equal monthly payment, in arrears, that repays an amount with interest.

Free of Ibis, for both halves. `finrisk_assets.features.arithmetic.instalment` is the same over columns.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def instalment(amount: ArrayLike, annual_rate_pct: ArrayLike, term_months: ArrayLike) -> NDArray[np.float64]:
    """Return the monthly instalment, not rounded: ``a i / (1 - (1 + i)^-n)``, or ``a / n`` without interest.

    Parameters
    ----------
    amount, annual_rate_pct, term_months
        In currency, per cent a year and months; they broadcast.
    """
    monthly = np.asarray(annual_rate_pct, np.float64) / 1200
    months = np.asarray(term_months, np.float64)
    safe = np.where(monthly > 0, monthly, 1.0)
    return np.asarray(amount, np.float64) * np.where(monthly > 0, safe / (1 - (1 + safe) ** -months), 1 / months)


def instalment_to_cent(amount: float, annual_rate_pct: float, term_months: float) -> float:
    """Return the monthly instalment of one loan, in currency to the cent."""
    monthly = annual_rate_pct / 1200
    if monthly == 0:
        return round_to_cent(amount / term_months)
    # Not `instalment`, rounded: expm1 and log1p keep a rate of next to nothing, which a caller may send, from dividing by zero.
    return round_to_cent(amount * monthly / -math.expm1(-term_months * math.log1p(monthly)))


def round_to_cent(amount: float) -> float:
    """Return an amount in currency, rounded to two decimals."""
    return round(amount * 100) / 100
