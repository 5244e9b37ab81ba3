"""The economy's numbers: how many people, how long, how much fraud, what drives a default, and what spending looks like.

Every constant that shapes the simulated ledger stands here; the other modules only say how the numbers are used.
"""

from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

DAY = 86_400
HOUR = 3_600


@dataclass(frozen=True)
class FraudEffects:
    """How each kind of fraud looks.

    Attributes
    ----------
    mix
        Shares of card testing, account takeover and compromised merchants among the fraudulent transactions.
    takeover_ratio
        Mean amount of an account takeover, in multiples of the person's own mean ticket.
    test_amount
        Median of a card tester's small amounts, in currency.
    cashout_ratio
        Median of the large amount that ends a card test, in multiples of the person's own mean ticket.
    compromised_share
        Probability that a transaction at a compromised merchant is fraudulent.
    compromised_ratio
        Median factor on the amount of such a transaction.
    compromised_days
        Shortest and longest time that a merchant stays compromised, in days.
    label_delay_days
        Shortest and longest time until a fraud is reported, in days; an unreported transaction counts as genuine after
        the longest.
    """

    mix: tuple[float, float, float] = (0.35, 0.30, 0.35)
    takeover_ratio: float = 4.0
    test_amount: float = 3.0
    cashout_ratio: float = 5.0
    compromised_share: float = 0.6
    compromised_ratio: float = 2.0
    compromised_days: tuple[float, float] = (16.0, 23.0)
    label_delay_days: tuple[float, float] = (0.5, 7.0)


@dataclass(frozen=True)
class LoanEffects:
    """What drives a default: logits per unit of each cause as it stands at the application (see `docs/simulator.md`).

    Attributes
    ----------
    expense_ratio
        Per 0.1 by which the expenses of the last 90 days exceed the income of the last 90 days.
    penalties
        Per overdraft penalty of the last 180 days, at most six.
    irregularity
        Per 0.1 of the coefficient of variation of income over the last four times 30 days.
    burden
        Per 0.1 of instalment to monthly income.
    low_balance
        Per 0.1 of the share of the last 90 days' transactions that left less than a tenth of a month's income.
    employed
        Per doubling of the months in employment.
    noise
        Standard deviation of a cause that nobody sees.
    """

    expense_ratio: float = 0.20
    penalties: float = 0.25
    irregularity: float = 0.10
    burden: float = 0.22
    low_balance: float = 0.08
    employed: float = -0.20
    noise: float = 0.5


@dataclass(frozen=True)
class Economy:
    """Sizes, rates and effects of one simulated economy. The same economy gives the same ledger, byte for byte.

    Attributes
    ----------
    n_customers, n_months
        People, and calendar months of ledger.
    seed
        Seed of everything that is drawn.
    start
        First instant of the ledger, midnight on the first day of a month.
    purchases_per_month
        Mean number of purchases a person makes in a month, beside salary, rent, utilities and subscriptions.
    irregular_share
        Share of people without a salary, who are paid now and then.
    job_loss_rate
        Probability a month that a salaried person loses the job.
    mishap_rate
        Probability a month of a large expense that nobody planned.
    trips_per_month
        Mean number of journeys abroad a person makes in a month.
    penalty_amount, penalty_pct
        Fixed part of the penalty for a month in which the balance fell below zero, and its percentage of the depth.
    fraud_share
        Share of transactions that are fraudulent, in expectation.
    default_rate
        Mean of the loans' true default probabilities.
    loans_per_customer
        Loans per person over the whole ledger.
    first_application_month
        Full months of ledger before the first application.
    bad_rows
        Rows that break the contract, appended to the transactions; see `tables.spoil`.
    """

    n_customers: int = 2_000
    n_months: int = 18
    seed: int = 20180401
    start: datetime = datetime(2023, 1, 1)
    purchases_per_month: float = 12.5
    irregular_share: float = 0.18
    job_loss_rate: float = 0.008
    mishap_rate: float = 0.025
    trips_per_month: float = 0.06
    penalty_amount: float = 12.0
    penalty_pct: float = 1.0
    fraud_share: float = 0.008
    default_rate: float = 0.10
    loans_per_customer: float = 1.8
    first_application_month: int = 4
    bad_rows: int = 20
    fraud: FraudEffects = field(default_factory=FraudEffects)
    loans: LoanEffects = field(default_factory=LoanEffects)

    def __post_init__(self) -> None:
        first = self.start
        if (first.day, first.hour, first.minute, first.second, first.microsecond) != (1, 0, 0, 0, 0):
            raise ValueError(f"an economy starts at midnight on the first day of a month, not at {first}")
        for name, least in {
            "n_customers": 1,
            "n_months": 1,
            "loans_per_customer": 0,
            "first_application_month": 0,
            "bad_rows": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("irregular_share", "job_loss_rate", "mishap_rate", "fraud_share", "default_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), not {getattr(self, name)}")
        if self.loans_per_customer and self.default_rate <= 0:
            raise ValueError("default_rate must be above 0 where loans are granted; set loans_per_customer=0 for none")
        if self.loans_per_customer and self.first_application_month >= self.n_months:
            raise ValueError(
                f"first_application_month is {self.first_application_month}, but the ledger has only {self.n_months} months; "
                "simulate more months or set loans_per_customer=0"
            )

    def rng(self, stage: str) -> np.random.Generator:
        """Return the stage's own random numbers, so that a change to one stage leaves the draws of the others alone."""
        return np.random.default_rng([self.seed, *stage.encode()])

    @property
    def month_days(self) -> np.ndarray:
        """Days from the start to each month's first day, the month after the last included; shape ``(n_months + 1,)``."""
        months = np.datetime64(self.start, "M") + np.arange(self.n_months + 1)
        return (months.astype("datetime64[D]") - np.datetime64(self.start, "D")).astype(np.int64)

    @property
    def n_days(self) -> int:
        return int(self.month_days[-1])

    @property
    def end(self) -> datetime:
        """First instant after the ledger."""
        return self._months_later(self.n_months)

    @property
    def as_of(self) -> datetime:
        """The ledger's *now*: a year after its last transaction, when every label and outcome is known."""
        return self._months_later(self.n_months + 12)

    def _months_later(self, months: int) -> datetime:
        years, month = divmod(self.start.month - 1 + months, 12)
        return self.start.replace(year=self.start.year + years, month=month + 1)


class Category(NamedTuple):
    """One kind of purchase: how often, how much and when.

    `share` of a person's purchases; `ticket` and `spread` are the median and the log standard deviation of an amount;
    `shops` merchants sell it; `weekend` and `winter` multiply its frequency on Saturday and Sunday and in December;
    `hours` are the peaks of its day as (hour, standard deviation, weight).
    """

    name: str
    share: float
    ticket: float
    spread: float
    shops: int
    weekend: float
    winter: float
    hours: tuple[tuple[float, float, float], ...]
    abroad: bool = False


CATEGORIES: tuple[Category, ...] = (
    Category("groceries", 0.33, 32, 0.65, 70, 1.3, 1.15, ((11, 2.0, 1), (18, 1.8, 2))),
    Category("restaurants", 0.16, 22, 0.60, 90, 1.6, 1.1, ((12.5, 0.9, 1), (20, 1.7, 1.4)), abroad=True),
    Category("transport", 0.11, 9, 0.70, 20, 0.7, 1.0, ((8, 1.0, 1), (17.5, 1.5, 1)), abroad=True),
    Category("fuel", 0.06, 55, 0.30, 30, 1.0, 1.0, ((8, 1.5, 1), (17, 2.5, 1.5))),
    Category("shopping", 0.10, 48, 0.85, 90, 1.7, 1.7, ((15, 2.5, 1),), abroad=True),
    Category("online", 0.11, 35, 0.95, 80, 1.1, 1.5, ((13, 3.0, 1), (21, 2.0, 2))),
    Category("entertainment", 0.05, 18, 0.60, 40, 2.2, 1.2, ((20, 2.0, 1), (23, 1.5, 0.5)), abroad=True),
    Category("health", 0.03, 28, 0.80, 30, 0.4, 1.1, ((10, 1.8, 1), (16, 1.8, 1))),
    Category("household", 0.02, 60, 0.90, 30, 1.3, 1.0, ((15, 3.0, 1),)),
    Category("cash", 0.03, 70, 0.60, 20, 1.1, 1.1, ((12, 3.0, 1), (19, 2.0, 0.5)), abroad=True),
)
"""What people buy. Every share, ticket and hour is an invention of this simulator."""

FIXED: tuple[str, ...] = (
    "salary", "self_employment", "benefits", "opening_balance", "refund",
    "rent", "utilities", "subscriptions", "repairs", "penalty",
)  # fmt: skip
"""What moves money beside purchases."""

NAMES: tuple[str, ...] = (*(category.name for category in CATEGORIES), *FIXED)
CODE = MappingProxyType({name: code for code, name in enumerate(NAMES)})
"""Category -> its code in `Events.category`."""

HOMES: tuple[str, ...] = ("DE", "AT", "NL")
HOME_SHARES: tuple[float, ...] = (0.90, 0.06, 0.04)
ABROAD: tuple[str, ...] = ("FR", "IT", "ES", "GR", "PT", "GB", "CH", "US", "TR", "TH")
COUNTRIES: tuple[str, ...] = (*HOMES, *ABROAD)
REGIONS: tuple[str, ...] = ("north", "south", "east", "west")
