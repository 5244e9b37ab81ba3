"""Metamorphic relations of a ledger: changes of the data that must not change a decision, or by no more than a stated bound.

A relation takes the canonical tables as frames and returns changed ones; no accuracy figure shows what it finds. Method: Chen, Cheung, Yiu:
Metamorphic testing, 1998. The features and scores of both ledgers are compared by `compare_scores`.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from finrisk_assets.ledger.categories import REGULAR_PAY
from schemas.ledger import TABLES, Table

if TYPE_CHECKING:
    import pandas as pd

MAX_MEAN_CHANGE = 0.005
"""Probability: the largest mean absolute change that moving payday may cause."""
MAX_OFFER_MEAN_CHANGE = 0.01
"""The same of the acceptance of an offer, which jumps where the best rate moves by a step of the grid."""
MAX_CHANGED_SHARE = 0.01
"""Share of the decisions that moving payday may change at most."""
LARGEST_MOVE_DAYS = 10
"""Days by which payday moves."""
FACTOR = 7.0
"""Factor that all money is multiplied by."""

Frames = Mapping[str, "pd.DataFrame"]
"""Canonical table -> its rows."""


class ScoreShift(NamedTuple):
    """The difference that a relation makes to one domain's scores.

    Attributes
    ----------
    n
        Decisions that are there in both ledgers.
    mean_change, largest_change
        Mean and largest absolute change of the probability.
    changed_share
        Share of decisions with another word.
    """

    n: int
    mean_change: float
    largest_change: float
    changed_share: float


def compare_scores(before: ArrayLike, after: ArrayLike, words_before: ArrayLike, words_after: ArrayLike) -> ScoreShift:
    """Compare the probabilities and the decisions of the same rows before and after a change of the ledger.

    Raises
    ------
    ValueError
        Where there are no rows, or different numbers of rows.
    """
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if first.shape != second.shape or not len(first):
        raise ValueError(f"cannot compare {len(first)} with {len(second)} scores: pass the same rows of both ledgers")
    difference = np.abs(first - second)
    changed = float(np.mean(np.asarray(words_before, str) != np.asarray(words_after, str)))
    return ScoreShift(len(first), float(difference.mean()), float(difference.max()), changed)


def shift_dates(tables: Frames, days: int) -> dict[str, "pd.DataFrame"]:
    """Return the ledger with every time `days` later, the moments of its decisions among them."""
    import pandas as pd

    return {
        name: frame.assign(**{column: frame[column] + pd.Timedelta(days=days) for column in frame.select_dtypes("datetime").columns})
        for name, frame in tables.items()
    }


def move_payday(tables: Frames, days: int) -> dict[str, "pd.DataFrame"]:
    """Return the ledger with every salary and pension moved by `days` within its calendar month, and the balances that follow.

    A payment that would leave its month moves the other way, and stays where that leaves the month too. All other movements stay.

    Parameters
    ----------
    days
        At most `LARGEST_MOVE_DAYS`, either way.
    """
    import pandas as pd

    movements = tables["transactions"].reset_index(drop=True)
    at = movements.occurred_at
    is_pay = (movements.direction == "credit") & movements.category.isin(REGULAR_PAY)
    month = at.dt.to_period("M")
    moved = at
    for step in (-days, days):
        later = at + pd.Timedelta(days=step)
        moved = later.where(is_pay & (later.dt.to_period("M") == month), moved)
    changed = movements.assign(occurred_at=moved)
    changed["balance_amount"] = _follow_balances(movements, moved, is_pay.to_numpy())
    return {**tables, "transactions": changed}


def _follow_balances(movements: "pd.DataFrame", moved: "pd.Series", is_pay: np.ndarray) -> np.ndarray:
    """Return the balance after each movement at its new time: that of the old ledger there, less the pay of then, and the pay of now."""
    old, new = (series.to_numpy("datetime64[us]").astype(np.int64) for series in (movements.occurred_at, moved))
    balance = movements.balance_amount.to_numpy(np.float64, na_value=np.nan).copy()
    amount = movements.amount.to_numpy(np.float64)
    accounts = movements.account_id.astype(str).to_numpy()
    by_account = np.lexsort((old, accounts))
    begins = np.flatnonzero(accounts[by_account][1:] != accounts[by_account][:-1]) + 1
    for order in np.split(by_account, begins):
        pay = order[is_pay[order]]
        if not len(pay):
            continue
        known = balance[order]
        if (old[pay] != new[pay]).any():
            at_old, at_new = np.sort(old[pay]), np.sort(new[pay])
            paid_old = np.concatenate([[0.0], np.cumsum(amount[pay[np.argsort(old[pay], kind="stable")]])])
            paid_new = np.concatenate([[0.0], np.cumsum(amount[pay[np.argsort(new[pay], kind="stable")]])])
            place = np.searchsorted(old[order], new[order], side="right") - 1
            base = np.where(old[order] == new[order], known, np.where(place >= 0, known[np.maximum(place, 0)], 0.0))
            less = paid_old[np.searchsorted(at_old, new[order], side="right")]
            more = paid_new[np.searchsorted(at_new, new[order], side="right")]
            balance[order] = np.round(base - less + more, 2)
    return balance


def scale_money(tables: Frames, contracts: Mapping[str, Table] = TABLES, factor: float = FACTOR) -> dict[str, "pd.DataFrame"]:
    """Return the ledger with every amount in currency multiplied by a factor; `contracts` say the unit of each table's columns."""
    scaled = {}
    for name, frame in tables.items():
        columns = [column.name for column in contracts[name].columns if column.unit.startswith("currency") and column.name in frame]
        scaled[name] = frame.assign(**{column: frame[column] * factor for column in columns})
    return scaled


def rename_identifiers(tables: Frames) -> dict[str, "pd.DataFrame"]:
    """Return the ledger with other identifiers, which sort in another order."""
    return {
        name: frame.assign(**{column: frame[column].map(rename, na_action="ignore") for column in frame.columns if column.endswith("_id")})
        for name, frame in tables.items()
    }


def rename(identifier: str) -> str:
    """Return the other name of an identifier."""
    return hashlib.sha256(str(identifier).encode()).hexdigest()[:16]


def reorder_rows(tables: Frames, seed: int) -> dict[str, "pd.DataFrame"]:
    """Return the ledger with its rows in another order."""
    return {name: frame.sample(frac=1, random_state=seed) for name, frame in tables.items()}


def add_unrelated_people(tables: Frames) -> dict[str, "pd.DataFrame"]:
    """Return the ledger with a second person for each: the same movements, other identifiers and merchants, no loans and no offers."""
    import pandas as pd

    others = rename_identifiers({name: tables[name] for name in ("customers", "accounts", "transactions") if name in tables})
    if "merchant" in others.get("transactions", ()):
        merchant = others["transactions"].merchant
        others["transactions"] = others["transactions"].assign(merchant=merchant.map(rename, na_action="ignore"))
    return {name: pd.concat([frame, others[name]], ignore_index=True) if name in others else frame for name, frame in tables.items()}


def halve_movements(tables: Frames, share: float, seed: int) -> dict[str, "pd.DataFrame"]:
    """Return the ledger with a share of its debits replaced by two halves at the same instant, to the cent."""
    import pandas as pd

    movements = tables["transactions"].reset_index(drop=True)
    rng = np.random.default_rng(seed)
    is_drawn = (movements.direction == "debit").to_numpy() & (movements.amount > 0.01).to_numpy() & (rng.random(len(movements)) < share)
    drawn = movements[is_drawn]
    half = (drawn.amount / 2).round(2)
    first = drawn.assign(amount=half, balance_amount=(drawn.balance_amount + drawn.amount - half).round(2))
    second = drawn.assign(amount=(drawn.amount - half).round(2), transaction_id=drawn.transaction_id.astype(str) + "/2")
    return {**tables, "transactions": pd.concat([movements[~is_drawn], first, second], ignore_index=True)}
