"""Whether decisions agree with each other over a whole population: offers with loans and with spending, and people of all paydays.

Frames in, figures out. Nothing here chooses: the decisions are those that were made, and the applications at the offered terms were built
from the ledger and decided by loan default itself (`finrisk_assets.graph.stages.consistency`).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.modelling.evaluation.metrics import Interval, bootstrap_interval

if TYPE_CHECKING:
    import pandas as pd

PAY_GROUPS: Mapping[str, tuple[int, int]] = {"1_to_3": (1, 3), "4_to_9": (4, 9), "10_to_31": (10, 31)}
"""Group of people by their payday -> the first and the last day of the month."""

MIN_PAYMENTS = 3
"""Payments of a salary or a pension that show a payday. More leave out people who joined lately."""

MIN_PEOPLE = 10
"""People of a group whose figures are told; fewer might be recognised."""

MAX_APPROVAL_EXCESS = 0.03
"""Share: how much farther the approvals of the pay groups may lie apart than their default rates."""

MAX_OFFER_GAP = 0.05
"""Share of the mean: how far the offers of the pay groups may lie apart, in usual incomes."""

DRAWS = 300
"""Bootstrap draws of people for an interval."""


def find_levels_at(moments: "pd.DataFrame", levels: "pd.DataFrame") -> "pd.Series":
    """Return the newest level known of each customer at each moment, by the index of `moments`; missing where none is known.

    Parameters
    ----------
    moments
        ``customer_id`` and ``at``.
    levels
        ``customer_id``, ``known_at`` and ``decision``: a level holds from the moment at which it was known.
    """
    import pandas as pd

    asked = moments[["customer_id", "at"]].assign(_place=moments.index).sort_values("at")
    newest = pd.merge_asof(asked, levels.sort_values("known_at"), left_on="at", right_on="known_at", by="customer_id")
    return newest.set_index("_place").decision.reindex(moments.index)


def find_paydays(pay: "pd.DataFrame") -> "pd.Series":
    """Return the payday of each customer: the median day of the month of a salary or a pension.

    People with fewer than `MIN_PAYMENTS` payments are left out.

    Parameters
    ----------
    pay
        The payments: ``customer_id`` and ``occurred_at``.
    """
    days = pay.occurred_at.dt.day.groupby(pay.customer_id)
    return days.median()[days.size() >= MIN_PAYMENTS]


def add_up_people(paydays: "pd.Series", applications: "pd.DataFrame", loans: "pd.DataFrame", offers: "pd.DataFrame") -> "pd.DataFrame":
    """Return sums of each person with a payday and an application, by customer.

    Parameters
    ----------
    paydays
        Day of the month by customer, of `find_paydays`.
    applications
        ``customer_id`` and ``is_approved`` of applications at equal terms.
    loans
        ``customer_id`` and ``is_default`` of loans whose outcome is known.
    offers
        ``customer_id``, ``amount`` and ``in_incomes`` of offers.

    Returns
    -------
    pandas.DataFrame
        ``group`` of `PAY_GROUPS`, then ``n_applications``, ``n_approved``, ``n_loans``, ``n_defaults``, ``n_offers``, ``amount`` and
        ``in_incomes``.
    """
    import pandas as pd

    people = pd.DataFrame({"group": ""}, index=paydays.index)
    for name, (first, last) in PAY_GROUPS.items():
        people.loc[(paydays >= first) & (paydays < last + 1), "group"] = name
    asked, lent, offered = (frame.groupby("customer_id") for frame in (applications, loans, offers))
    people = people.assign(
        n_applications=asked.is_approved.size(),
        n_approved=asked.is_approved.sum(),
        n_loans=lent.is_default.size(),
        n_defaults=lent.is_default.sum(),
        n_offers=offered.amount.size(),
        amount=offered.amount.sum(),
        in_incomes=offered.in_incomes.sum(),
    )
    return people[people.n_applications > 0].fillna(0).astype({name: float for name in people.columns if name != "group"})


def leave_out_small_groups(people: "pd.DataFrame") -> "pd.DataFrame":
    """Return the people of `add_up_people` without those of groups below `MIN_PEOPLE`."""
    return people[people.groupby("group").group.transform("size") >= MIN_PEOPLE]


def list_pay_groups(people: "pd.DataFrame") -> list[str]:
    """Return the groups that there are, by payday."""
    return [name for name in PAY_GROUPS if (people.group == name).any()]


def measure_approval_excess(people: "pd.DataFrame", seed: int) -> Interval:
    """Return how much farther the approved shares of the pay groups lie apart than their default rates, with an interval over people.

    Rows of one person are one draw of the bootstrap. 0 for less than two groups.
    """

    def excess(group: NDArray[np.int64], *sums: NDArray[np.float64]) -> float:
        by_group = [np.asarray(np.bincount(group, weights=values, minlength=len(PAY_GROUPS)), np.float64) for values in sums]
        n_applications, n_approved, n_loans, n_defaults = by_group
        return _spread(n_approved, n_applications) - _spread(n_defaults, n_loans)

    names = list(PAY_GROUPS)
    group = np.array([names.index(name) for name in people.group], np.int64)
    sums = [people[name].to_numpy() for name in ("n_applications", "n_approved", "n_loans", "n_defaults")]
    return bootstrap_interval(excess, group, *sums, draws=DRAWS, seed=seed)


def measure_offer_gap(people: "pd.DataFrame") -> float:
    """Return how far the mean offers of the groups lie apart in usual incomes, as a share of the mean of all; 0 where nobody has one."""
    sums = people.groupby("group")[["in_incomes", "n_offers"]].sum()
    n_offers = float(sums.n_offers.sum())
    return _spread(sums.in_incomes.to_numpy(), sums.n_offers.to_numpy()) * n_offers / float(sums.in_incomes.sum()) if n_offers else 0.0


def _spread(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> float:
    """Return the distance of the largest and the smallest ratio of groups that have a whole."""
    known = wholes > 0
    shares = parts[known] / wholes[known]
    return float(shares.max() - shares.min()) if known.any() else 0.0
