"""Which loans may teach: only those that had their time to default. The candidates are those of `modelling.candidates`."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

OUTCOME_DAYS = 365
"""A loan must have had so long to default before it may teach or test."""


def mature(applied_at: ArrayLike, outcome_known_at: ArrayLike) -> NDArray[np.bool_]:
    """Mark the loans that had `OUTCOME_DAYS` to default before the ledger ends, which is when its last outcome became known.

    Younger ones look good because little time has passed: kept, they would teach that newer loans are safer. Leaving out
    whole days of application, bad loans too, keeps the rate of default what it is. All are marked where a source has no time.

    Parameters
    ----------
    applied_at, outcome_known_at : array-like of datetime64, shape (n,)
    """
    applied = np.asarray(applied_at).astype("datetime64[us]")
    known = np.asarray(outcome_known_at).astype("datetime64[us]")
    if np.isnat(applied).all() or np.isnat(known).all():
        return np.ones(len(applied), dtype=bool)
    end = known[~np.isnat(known)].max()
    ripe: NDArray[np.bool_] = applied <= end - np.timedelta64(OUTCOME_DAYS, "D")
    return ripe
