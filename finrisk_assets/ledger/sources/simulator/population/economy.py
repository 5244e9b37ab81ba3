"""The economy's numbers: sizes, and the effects that drive each month, fraud, default, take-up and spending.

Every constant that shapes the simulated ledger is here; the other modules only use the numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

DAY = 86_400
HOUR = 3_600


@dataclass(frozen=True)
class HouseholdEffects:
    """The effects of a month on a household, used by `households.step`.

    Attributes
    ----------
    irregular_share
        Share of people without a salary, who are paid now and then.
    salary_noise, irregular_spread
        Log standard deviation of a month's salary, and of a month's irregular earnings, around the usual income.
    income_memory
        Share of the usual income's distance from its long-run level that is left a month later, in logs.
    salary_drift, irregular_drift
        Log standard deviation of a month's change of the usual income, salaried and not.
    bonus_share, bonus_amount
        Probability of a November bonus for a salaried person, and its size in monthly salaries.
    job_loss_rate, job_found_rate
        Probability a month that a salaried person loses the job, and that one out of work finds one.
    benefit_share
        Income out of work, as a share of the salary.
    buffer_months, buffer_discipline, buffer_spread, buffer_irregular
        The buffer that a person wants to hold: its median in months of income, the difference in its logarithm between the thriftiest and
        the most careless, its log standard deviation beside, and the factor of people without a salary.
    spending_level
        Spending with the wanted buffer, as a share of the usual income.
    spending_memory
        How much of the spending habit carries over to the next month, 0 to 1.
    habit_weight
        Weight of the latest month in the habit, and in the memory of recent income.
    income_pull
        Elasticity of spending to recent income against the usual one.
    thrift, ease
        Rise in log spending, before memory, per unit of the buffer's distance from the wanted one, below and above it; the unit is the
        wanted buffer and half a month's income.
    spending_noise
        Log standard deviation of a month's spending that nothing explains.
    spending_least
        Purchases that are made whatever happens, as a share of the usual income.
    mishap_rate, mishap_pull
        Probability a month of a large expense with the wanted buffer, and the rise of its logarithm per unit of the distance from it.
    mishap_amount, mishap_saved
        Its median in monthly incomes for someone without savings, and its rise per month of income saved: who has more, owns more.
    missed_base, missed_short, missed_strain, missed_idle, missed_committed, missed_debts
        Logit of a missed payment: the intercept, and its rise per month of income that the balance lies below `short_below`
        months (at most 1.5), per unit of strain, out of work, per 0.1 of income committed to bills beyond `USUAL_COMMITMENT`, and per
        standard deviation of the debts elsewhere.
    short_below
        Months of income on the account below which money is short.
    strain_memory
        Share of the strain that is left a month later; each missed payment adds one.
    missed_fee_amount
        What a returned payment costs, in currency.
    penalty_amount, penalty_pct
        Fixed part of the penalty for a month that closes below zero, and its percentage of the depth.
    """

    irregular_share: float = 0.18
    salary_noise: float = 0.01
    irregular_spread: float = 0.3
    income_memory: float = 0.95
    salary_drift: float = 0.01
    irregular_drift: float = 0.04
    bonus_share: float = 0.5
    bonus_amount: float = 0.2
    job_loss_rate: float = 0.008
    job_found_rate: float = 0.22
    benefit_share: float = 0.55
    buffer_months: float = 1.2
    buffer_discipline: float = 2.8
    buffer_spread: float = 0.4
    buffer_irregular: float = 1.5
    spending_level: float = 0.87
    spending_memory: float = 0.9
    habit_weight: float = 0.6
    income_pull: float = 0.2
    thrift: float = 0.06
    ease: float = 0.02
    spending_noise: float = 0.06
    spending_least: float = 0.12
    mishap_rate: float = 0.04
    mishap_pull: float = 0.2
    mishap_amount: float = 0.25
    mishap_saved: float = 0.5
    missed_base: float = -4.6
    missed_short: float = 2.0
    missed_strain: float = 0.9
    missed_idle: float = 0.8
    missed_committed: float = 0.3
    missed_debts: float = 0.5
    short_below: float = 0.4
    strain_memory: float = 0.65
    missed_fee_amount: float = 8.0
    penalty_amount: float = 12.0
    penalty_pct: float = 1.0


@dataclass(frozen=True)
class FraudEffects:
    """Stolen cards, and the genuine purchases that look like one; see `episodes`.

    Of two numbers the first holds for a stolen card, the second for the look-alikes.

    Attributes
    ----------
    lookalikes_per_year
        Mean number a person has of genuine episodes a year.
    testing_share
        Share of the episodes that are bursts at an online shop, the others being sprees.
    night_share
        Share that begins between midnight and 06:00.
    abroad_share
        Share of the sprees at shops abroad.
    risky_share
        Share of the bursts at one of the online shops where stolen cards are tried out.
    more_payments
        Mean number of payments beyond the first two.
    amount_share
        Median of an episode's amount, in monthly incomes.
    amount_spread
        Its log standard deviation, the same for both.
    label_delay_days
        Shortest and longest time from a payment until its fraud is reported, in days; an unreported transaction counts as genuine
        after the longest.
    """

    lookalikes_per_year: float = 0.7
    testing_share: tuple[float, float] = (0.5, 0.35)
    night_share: tuple[float, float] = (0.4, 0.06)
    abroad_share: tuple[float, float] = (0.45, 0.15)
    risky_share: tuple[float, float] = (0.8, 0.2)
    more_payments: tuple[float, float] = (12.0, 4.0)
    amount_share: tuple[float, float] = (0.5, 0.2)
    amount_spread: float = 0.5
    label_delay_days: tuple[float, float] = (0.5, 7.0)


@dataclass(frozen=True)
class LoanEffects:
    """The effects that end a loan, month by month: logits of a default per unit of each cause (see `docs/simulator.md`).

    Attributes
    ----------
    burden
        Per 0.1 of instalment to the household's true usual income.
    short
        Per month of income that the balance lies below one month's, at most two.
    strain
        Per unit of strain, that is per payment missed of late.
    committed
        Per 0.1 of the true usual income that bills take beyond `USUAL_COMMITMENT`.
    debts
        Per standard deviation of the debts elsewhere, which the ledger does not show.
    irregular
        Without a salary.
    idle, mishap
        In a month out of work, and in one with a large unplanned expense.
    fading
        Share of the difference between present and lasting pressure that is left a month later.
    prepaid_base, prepaid_rate, market_rate_pct
        Logit of repayment in full in a month at the market's rate, its rise per percentage point above that, and the rate, percent a year.
    loss_given_default, recovery_months
        Mean share of the exposure that is lost, and the months after the default at which the rest is paid.
    """

    burden: float = 1.3
    short: float = 2.1
    strain: float = 2.0
    committed: float = 1.2
    debts: float = 0.3
    irregular: float = 1.0
    idle: float = 2.2
    mishap: float = 1.0
    fading: float = 0.97
    prepaid_base: float = -4.5
    prepaid_rate: float = 0.08
    market_rate_pct: float = 8.0
    loss_given_default: float = 0.45
    recovery_months: int = 12


@dataclass(frozen=True)
class OfferEffects:
    """The effects that drive the acceptance of an offer: logits per unit of each cause at the offer.

    Attributes
    ----------
    rate
        Per percentage point of the yearly rate; below 0, so that take-up falls in the rate.
    amount, term
        Per unit of the logarithm of the amount to the true usual income, and of the term to 24 months.
    low_savings, strain, committed, debts, income
        Per month of income that the balance lies below two months' (at most 2.5); per unit of strain; per 0.1 of income that bills take
        beyond `USUAL_COMMITMENT`; per standard deviation of the debts elsewhere; per doubling of the true usual income above 2,000.
    noise
        Standard deviation of the hidden cause.
    random_share
        Share of the offers whose rate is drawn at random.
    random_rate_pct
        Lowest and highest of these rates, percent a year.
    tier_pd, tier_rate_pct
        The policy of the others: default probabilities at which the next tier begins, and each tier's rate.
    tier_noise_pct
        Standard deviation of a policy rate around its tier's.
    """

    rate: float = -0.18
    amount: float = -0.35
    term: float = 0.45
    low_savings: float = 0.65
    strain: float = 0.35
    committed: float = 0.3
    debts: float = 0.25
    income: float = -0.35
    noise: float = 0.25
    random_share: float = 0.5
    random_rate_pct: tuple[float, float] = (4.0, 24.0)
    tier_pd: tuple[float, ...] = (0.05, 0.10, 0.20)
    tier_rate_pct: tuple[float, ...] = (8.0, 11.0, 14.0, 18.0)
    tier_noise_pct: float = 0.7


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
    town_size
        People who share a market. Towns are simulated one after the other, which bounds the memory.
    purchases_per_month
        Mean number of purchases a person makes in a month, beside salary, rent, utilities and subscriptions.
    trips_per_month
        Mean number of journeys abroad a person makes in a month.
    fraud_rate
        Share of the people whose card is stolen in a year.
    default_rate
        Mean of the loans' true probabilities of a default within twelve months.
    acceptance_rate
        Mean of the true acceptance probabilities of offers at a random rate.
    loans_per_customer, offers_per_customer
        Loans and offers per person over the whole ledger.
    first_application_month
        Full months of ledger before the first application and the first offer.
    shock_month, shock_size
        The month of the ledger, counted from 1, from which all incomes are lower by the share `shock_size`; 0 for no shock.
    futures
        Futures simulated from each month-end for the truths about spending and cashflow.
    bad_rows
        Rows that break the contract, appended to the transactions; see `arrow_tables.append_bad_rows`.
    """

    n_customers: int = 2_000
    n_months: int = 24
    seed: int = 20180401
    start: datetime = datetime(2022, 7, 1)
    town_size: int = 2_500
    purchases_per_month: float = 12.5
    trips_per_month: float = 0.06
    fraud_rate: float = 0.019
    default_rate: float = 0.10
    acceptance_rate: float = 0.20
    loans_per_customer: float = 4.0
    offers_per_customer: float = 8.0
    first_application_month: int = 4
    shock_month: int = 0
    shock_size: float = 0.2
    futures: int = 200
    bad_rows: int = 20
    household: HouseholdEffects = field(default_factory=HouseholdEffects)
    fraud: FraudEffects = field(default_factory=FraudEffects)
    loans: LoanEffects = field(default_factory=LoanEffects)
    offers: OfferEffects = field(default_factory=OfferEffects)

    def __post_init__(self) -> None:
        first = self.start
        if (first.day, first.hour, first.minute, first.second, first.microsecond) != (1, 0, 0, 0, 0):
            raise ValueError(f"an economy starts at midnight on the first day of a month, not at {first}")
        _at_least(self, 1, "n_customers", "n_months", "futures")
        _at_least(self, 20, "town_size")
        _at_least(
            self, 0, "loans_per_customer", "offers_per_customer", "first_application_month", "bad_rows", "trips_per_month", "shock_month"
        )
        _at_least(self, 1, "purchases_per_month")
        _share(self, "fraud_rate", "default_rate", "acceptance_rate", "shock_size")
        household, fraud, offers = self.household, self.fraud, self.offers
        _share(
            household, "irregular_share", "bonus_share", "job_loss_rate", "job_found_rate", "mishap_rate", "spending_memory",
            "income_memory", "strain_memory",
        )  # fmt: skip
        _share(household, "habit_weight", last=True)
        _at_least(
            household, 0, "salary_noise", "irregular_spread", "salary_drift", "irregular_drift", "spending_noise", "spending_least",
            "mishap_amount", "missed_fee_amount", "penalty_amount", "penalty_pct", "buffer_spread", "thrift", "ease",
        )  # fmt: skip
        _above_zero(household, "benefit_share", "spending_level", "buffer_months", "buffer_irregular")
        _at_least(fraud, 0, "lookalikes_per_year", "amount_spread")
        for name in ("testing_share", "night_share", "abroad_share", "risky_share"):
            _pair(fraud, name, "two shares above 0 and below 1", lambda value: 0 < value < 1)
        for name in ("more_payments", "amount_share"):
            _pair(fraud, name, "two numbers above 0", lambda value: value > 0)
        _ordered(fraud, "label_delay_days")
        _share(self.loans, "fading", "loss_given_default")
        _at_least(offers, 0, "noise", "tier_noise_pct")
        _share(offers, "random_share", last=True)
        _ordered(offers, "random_rate_pct")
        if offers.rate > 0:
            raise ValueError(f"offers.rate must not be above 0, so that take-up falls in the rate; it is {offers.rate}")
        if len(offers.tier_rate_pct) != len(offers.tier_pd) + 1:
            raise ValueError(
                f"offers.tier_rate_pct needs one rate more than tier_pd has bounds: {len(offers.tier_pd) + 1}, not "
                f"{len(offers.tier_rate_pct)}"
            )
        if self.loans_per_customer and self.default_rate <= 0:
            raise ValueError("default_rate must be above 0 where loans are granted; set loans_per_customer=0 for none")
        if self.offers_per_customer and self.acceptance_rate <= 0:
            raise ValueError("acceptance_rate must be above 0 where offers are made; set offers_per_customer=0 for none")
        for name in ("loans_per_customer", "offers_per_customer"):
            if getattr(self, name) and self.first_application_month >= self.n_months:
                raise ValueError(
                    f"first_application_month is {self.first_application_month}, but the ledger has only {self.n_months} "
                    f"months; simulate more months or set {name}=0"
                )

    @property
    def n_towns(self) -> int:
        return -(-self.n_customers // self.town_size)

    @property
    def month_days(self) -> np.ndarray:
        """Days from the start to each month's first day, the month after the last included; shape ``(n_months + 1,)``."""
        months = np.datetime64(self.start, "M") + np.arange(self.n_months + 1)
        return (months.astype("datetime64[D]") - np.datetime64(self.start, "D")).astype(np.int64)

    @property
    def calendar(self) -> np.ndarray:
        """Each month's number in its year, 1 to 12; shape ``(n_months,)``."""
        return (self.start.month - 1 + np.arange(self.n_months)) % 12 + 1

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


def _at_least(part: object, least: float, *names: str) -> None:
    for name in names:
        if not getattr(part, name) >= least:
            raise ValueError(f"{name} must be at least {least:g}, not {getattr(part, name)}")


def _above_zero(part: object, *names: str) -> None:
    for name in names:
        if not getattr(part, name) > 0:
            raise ValueError(f"{name} must be above 0, not {getattr(part, name)}")


def _share(part: object, *names: str, last: bool = False) -> None:
    for name in names:
        value = getattr(part, name)
        if not (0 <= value < 1 or (last and value == 1)):
            raise ValueError(f"{name} must lie in [0, 1{']' if last else ')'}, not {value}")


def _ordered(part: object, name: str) -> None:
    low, high = getattr(part, name)
    if not 0 <= low <= high:
        raise ValueError(f"{name} must be two numbers from 0 upwards, the smaller first, not {low} and {high}")


def _pair(part: object, name: str, wanted: str, is_allowed: Callable[[float], bool]) -> None:
    values = getattr(part, name)
    if len(values) != 2 or not all(is_allowed(value) for value in values):
        raise ValueError(f"{name} must be {wanted}, not {', '.join(map(str, values))}")


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
"""The kinds of purchases. Every share, ticket and hour is an invention of this simulator."""

FIXED: tuple[str, ...] = (
    "salary", "self_employment", "benefits", "opening_balance", "refund",
    "rent", "utilities", "subscriptions", "repairs", "returned_payment", "penalty",
)  # fmt: skip
"""The kinds of movements beside purchases."""

NAMES: tuple[str, ...] = (*(category.name for category in CATEGORIES), *FIXED)
CODE = MappingProxyType({name: code for code, name in enumerate(NAMES)})
"""Category -> its code in `Events.category`."""

HOMES: tuple[str, ...] = ("DE", "AT", "NL")
HOME_SHARES: tuple[float, ...] = (0.90, 0.06, 0.04)
ABROAD: tuple[str, ...] = ("FR", "IT", "ES", "GR", "PT", "GB", "CH", "US", "TR", "TH")
COUNTRIES: tuple[str, ...] = (*HOMES, *ABROAD)
REGIONS: tuple[str, ...] = ("north", "south", "east", "west")

N_PURCHASES = len(CATEGORIES)
"""Category codes below this are purchases."""

SEASON = np.array([0.985, 0.99, 0.995, 1.0, 1.0, 1.0, 1.01, 1.01, 0.99, 0.99, 1.0, 1.03])
"""Factor on a month's spending, January first."""

USUAL_COMMITMENT = 0.45
"""Share of the usual income that bills take of most people; commitments count from here."""

HEAT = 1 + 0.2 * np.cos(2 * np.pi * np.arange(12) / 12)
"""Factor on a month's utilities, January first."""
